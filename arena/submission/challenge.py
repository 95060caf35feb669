"""Make a challenge: a public folder for the teams, and a private one that cannot be derived from it.

    OUT/public/challenge.json, RULES.md        what counts, in numbers and in words
    OUT/public/train/                          reals to learn from
    OUT/public/test/                           unlabelled images, for teams that hand in scores instead of a detector
    OUT/public/sample_submission.zip           one that passes every check
    OUT/public/manifest.csv                    every file with its sha256
    OUT/private/judge/                         the secret reals
    OUT/private/test.csv, keys.json            the test images' labels, the secret seeds

What is drawn at random comes from secrets of 62 bits; public and private pictures never share one. All reals, and the
test's fakes, are written in one way.
"""

import csv
import hashlib
import io
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import arena
from arena.config import EMBEDDED, LABELLED, DataConfig, Strict, read_named, validate
from arena.data.codec import store_as
from arena.data.source import Source, open_source
from arena.errors import InputError
from arena.files import atomic, read_json, write_json
from arena.seeds import address, rng
from arena.submission import archive
from arena.submission.house import eigenfaces
from arena.submission.media import write_item
from arena.submission.schema import Challenge, Floors, Limits, Track

Progress = Callable[[int, int], None]
BITS = 62  # of a secret
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # what file managers leave behind
SAMPLE = "Sample"  # the team of the sample submission


class ChallengeConfig(Strict):
    """A challenge's YAML. `fakes`: how many a team hands in; `test_fakes`: folders of fakes for the test images."""

    title: str = Field(min_length=1, max_length=120)
    about: str = ""
    tracks: tuple[Track, ...] = ("generation", "detection")
    data: DataConfig = DataConfig()
    domains: bool | None = Field(None, description="keep the data's two domains apart; None: of embedded faces alone")
    fakes: int = Field(200, ge=10, le=20_000)
    test_fakes: tuple[str, ...] = ()
    codec: str = Field("jpeg-90", pattern=r"^(png|jpeg-\d{1,3}|raw|c23|c40)$")
    licence: str = "for this challenge only"
    limits: Limits = Limits()
    floors: Floors = Floors()


@dataclass(frozen=True)
class Keys:
    """private/keys.json."""

    challenge: str
    secrets: dict[str, int]
    public: str
    judge: str


def read_config(name: str) -> ChallengeConfig:
    """A packaged challenge by its name, or a YAML file by its path."""
    config: ChallengeConfig = validate(ChallengeConfig, read_named("challenge", name), f"challenge {name}")
    set_here = config.data.model_fields_set
    for key, why in (("seed", "the challenge draws secret ones"), ("codec", "the challenge's own `codec` counts")):
        if key in set_here:
            raise InputError(f"challenge {name}: data.{key} cannot be set, for {why}. Leave it out.")
    if config.data.source == LABELLED:
        raise InputError(f"challenge {name}: data.source is a folder of reals or embedded faces; see `test_fakes`.")
    if config.data.source not in EMBEDDED and not Path(config.data.source).expanduser().is_dir():
        raise InputError(f"challenge {name}: data.source {config.data.source} is no folder. Check the path.")
    if not config.tracks:
        raise InputError(f"challenge {name}: tracks: expected generation, detection or both.")
    return config


def make(config: ChallengeConfig, out: Path, progress: Progress | None = None) -> Challenge:
    """Write the two folders to `out`, which must be new or empty; return what the public one says.

    Raises InputError for data that cannot be used.
    """
    from arena.album import staged

    with staged(out) as folder:
        keys = {name: secrets.randbits(BITS) for name in ("public", "private", "test")}
        open_with = _opener(config, progress)
        train = open_with(keys["public"])
        if config.data.source in EMBEDDED:
            hidden = open_with(keys["private"])
        else:
            hidden = train
            train.manifest = deal(train.manifest, config.data, keys["private"])
        challenge = Challenge(
            schema=1,
            id=f"{_slug(config.title)}-{secrets.token_hex(4)}",
            frames=hidden.frames,
            size=config.data.size,
            domains=train.domains if len(train.domains) > 1 else (),
            data=config.data.source if config.data.source in EMBEDDED else "pictures of the organisers'",
            n_test=0,
            made_by=f"deepfake-arena {arena.__version__}",
            **{key: getattr(config, key) for key in (
                "title", "about", "tracks", "fakes", "codec", "licence", "limits", "floors")},
        )  # fmt: skip
        public, private = folder / "public", folder / "private"
        train_images = _write_train(challenge, train, public / "train")
        judged = _write_judge(challenge, hidden, private)
        if "detection" in config.tracks:
            n_test = _write_test(challenge, config, hidden, train_images, keys["test"], public, private)
            challenge = challenge.model_copy(update={"n_test": n_test})
        write_json(public / "challenge.json", challenge.model_dump(mode="json", by_alias=True))
        with atomic(public / "RULES.md") as file:
            file.write(_rules(challenge).encode())
        _write_sample(challenge, train_images, public)
        listing = manifest(public)
        _write_rows(public / "manifest.csv", ["file", "sha256", "bytes"], listing)
        write_json(private / "keys.json", {
            "challenge": challenge.id, "secrets": keys, "public": digest(listing), "judge": digest(judged),
            "data": config.data.model_dump(), "note": "Keep this folder to yourself until the event is over.",
        })  # fmt: skip
    return challenge


def deal(rows: list[dict[str, Any]], data: DataConfig, secret: int) -> list[dict[str, Any]]:
    """A folder's rows, shuffled and split by the secret alone, whatever splits the folder itself suggests.

    Of each domain `judge`, `val` and `train` pictures where the config says how many, else 30, 10 and 60 %; pictures of
    one group stay in one split. Raises InputError where there are too few.
    """
    dealt: list[dict[str, Any]] = []
    for domain in dict.fromkeys(row["domain"] for row in rows):
        mine = sorted(
            (row for row in rows if row["domain"] == domain),
            key=lambda row: (address(secret, row["group"]), address(secret, row["name"])),
        )
        said = data.model_fields_set
        shares = {"judge": 0.3, "val": 0.1, "train": 0.6}
        asked = {s: getattr(data, s) if s in said else max(3, int(part * len(mine))) for s, part in shares.items()}
        at = 0
        for split, count in asked.items():
            took = mine[at : at + count]
            if len(took) < count:
                raise InputError(
                    f"{data.source} has {len(mine)} pictures of domain {domain}, too few for "
                    f"{' + '.join(f'{n} {s}' for s, n in asked.items())}. Ask for less, or give more."
                )
            at += count
            dealt += [row | {"split": split} for row in took]
            while at < len(mine) and mine[at]["group"] == took[-1]["group"]:
                at += 1  # the rest of a group that was cut: it belongs to no other split
    return dealt


def open_challenge(folder: Path) -> Challenge:
    """challenge.json of a challenge, of its public folder, or at its path. Raises InputError where there is none."""
    places = [folder] if folder.is_file() else [folder / "challenge.json", folder / "public" / "challenge.json"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(f"{folder} holds no challenge.json. Give the folder of the challenge, or its public part.")
    value = read_json(file)
    if not isinstance(value, dict):
        raise InputError(f"{file} is damaged: expected an object.")
    found: Challenge = validate(Challenge, value, str(file))
    return found


def open_keys(folder: Path, challenge: Challenge) -> Keys:
    """private/keys.json, checked against the public part and the secret reals: nothing of either may have changed."""
    private = folder / "private"
    if not (private / "keys.json").is_file():
        raise InputError(f"{folder} has no private/keys.json: scoring needs the organiser's whole challenge folder.")
    value = read_json(private / "keys.json")
    wanted = ("challenge", "secrets", "public", "judge")
    if not isinstance(value, dict) or any(key not in value for key in wanted):
        raise InputError(f"{private / 'keys.json'} is damaged: expected {', '.join(wanted)}. Restore the file.")
    keys = Keys(**{key: value[key] for key in wanted})
    if keys.challenge != challenge.id:
        raise InputError(f"{private} belongs to challenge {keys.challenge}, the public part to {challenge.id}.")
    for place, listing, made in (
        (private / "judge", private / "judge.csv", keys.judge),
        (folder / "public", folder / "public" / "manifest.csv", keys.public),
    ):
        found = manifest(place, but="manifest.csv")
        if digest(found) != made:
            raise InputError(f"{place} is not what the challenge was made with{_odd(found, listing)}. Restore it.")
    return keys


def _odd(found: list[list[Any]], listing: Path) -> str:
    """Which file was added, is missing or altered, as far as the listing (file[,sha256]) tells."""
    try:
        rows = list(csv.DictReader(io.StringIO(listing.read_text())))
    except OSError:
        return ""
    known, here = {row["file"]: row.get("sha256") for row in rows}, {name: sha for name, sha, _ in found}
    for what, names in (("missing", known.keys() - here.keys()), ("added", here.keys() - known.keys())):
        if names:
            return f" ({min(names)} is {what})"
    altered = [name for name, sha in here.items() if known[name] and known[name] != sha]
    return f" ({altered[0]} is altered)" if altered else ""


def manifest(folder: Path, but: str = "") -> list[list[Any]]:
    """[file, sha256, bytes] of all files below a folder, by name, but `but` and what file managers leave behind."""
    rows = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != but and path.name not in LITTER:
            with path.open("rb") as file:
                rows.append([name, hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size])
    return rows


def digest(rows: list[list[Any]]) -> str:
    return hashlib.sha256("\n".join(f"{name} {sha}" for name, sha, _ in rows).encode()).hexdigest()


# Its parts


def _opener(config: ChallengeConfig, progress: Progress | None) -> Callable[[int], Source]:
    data, embedded = config.data, config.data.source in EMBEDDED
    apart = embedded if config.domains is None else config.domains

    def open_with(secret: int) -> Source:
        found = data.model_copy(update={"seed": secret, "codec": "png"})
        return open_source(found, "domains" if apart else "stills", progress=progress)

    return open_with


def _items(source: Source, split: str) -> tuple[list[dict[str, Any]], Tensor]:
    """The manifest's rows of a split, and their images: uint8 N 3 s s, or clips N F 3 s s."""
    rows = [row for row in source.manifest if row["split"] == split]
    images = torch.cat([*source.images(rows)])
    return rows, images if source.frames == 1 else images.unflatten(0, (len(rows), source.frames))


def _marks(challenge: Challenge, what: str) -> dict[str, str]:
    """The same for all files of a folder, so that they tell nobody anything."""
    return {"Synthetic": what, "Source": "deepfake-arena", "Challenge": challenge.id}


def _write_train(challenge: Challenge, source: Source, folder: Path) -> Tensor:
    rows, images = _items(source, "train")
    groups = {name: i for i, name in enumerate(dict.fromkeys(row["group"] for row in rows))}
    several = len(groups) < len(rows)
    marks = _marks(challenge, _what(source))
    for i, (row, item) in enumerate(zip(rows, images, strict=True)):
        name = f"{groups[row['group']]:05d}-{i:05d}" if several else f"{i:05d}"
        where = folder / row["domain"] if challenge.domains else folder
        write_item(where / f"{name}{challenge.suffix}", item, marks)
    return images


def _write_judge(challenge: Challenge, source: Source, private: Path) -> list[list[Any]]:
    rows, images = _items(source, "judge")
    marks = _marks(challenge, _what(source))
    for i, item in enumerate(images):
        write_item(private / "judge" / f"{i:05d}{challenge.suffix}", item, marks)
    about = [[f"{i:05d}{challenge.suffix}", row["domain"], row["name"]] for i, row in enumerate(rows)]
    _write_rows(private / "judge.csv", ["file", "domain", "name"], about)
    return manifest(private / "judge")


def _what(source: Source) -> str:
    return "embedded faces, drawn by a program" if source.summary.get("rendered") else "false"


def _write_test(
    challenge: Challenge, config: ChallengeConfig, source: Source, train: Tensor, secret: int, public: Path,
    private: Path,
) -> int:  # fmt: skip
    """Unlabelled reals and fakes, in equal numbers and in an order that only the secret knows."""
    _, reals = _items(source, "val")
    if config.test_fakes:
        fakes, origin = _given_fakes(config, challenge), "given"
    else:
        fakes, origin = eigenfaces(train, len(reals), rng(secret, "eigenfaces")), "eigenfaces"
    count = min(len(reals), len(fakes))
    images = torch.cat([reals[:count], fakes[torch.randperm(len(fakes), generator=rng(secret, "pick"))[:count]]])
    if challenge.frames == 1:  # what a model is shown of them, and what a team that keeps its model has before it
        images = store_as(images, challenge.codec)
    order = torch.randperm(2 * count, generator=rng(secret, "order")).tolist()
    marks = _marks(challenge, "undisclosed: a test image, real or generated")
    rows = []
    for i, place in enumerate(order):
        write_item(public / "test" / f"{i:05d}{challenge.suffix}", images[place], marks)
        rows.append([f"{i:05d}", int(place >= count), origin if place >= count else "real"])
    _write_rows(private / "test.csv", ["id", "label", "source"], rows)
    return len(rows)


def _given_fakes(config: ChallengeConfig, challenge: Challenge) -> Tensor:
    data = config.data.model_copy(
        update={"source": LABELLED, "fake": list(config.test_fakes), "real": [], "group": "none"}
    )
    if challenge.frames > 1:
        raise InputError("test_fakes: folders of fakes are for challenges of images. Leave it out for clips.")
    from arena.data import folders

    found = folders.scan({"fake": data.fake}, val=0, judge=0, max_bad=data.max_bad, max_pixels=data.max_pixels)
    return torch.cat([*folders.load(found.items, data.size, resize=data.resize)])


def _write_sample(challenge: Challenge, train: Tensor, public: Path) -> None:
    """Fakes that anybody can draw from the public reals, and a guess for every test image."""
    from arena.submission.pack import Parts, describe, members

    marks = {"Synthetic": "true", "Source": "deepfake-arena", "Method": "eigenfaces", "Seed": "0", "Run": SAMPLE}
    parts = Parts(team=SAMPLE, licence="CC0-1.0", data=f"the public reals of {challenge.id}")
    if "generation" in challenge.tracks:
        fakes = eigenfaces(train, challenge.fakes, rng(challenge.id, "sample"))
        parts.add_fakes(fakes, marks, {"method": "eigenfaces", "settings": {"components": 64}, "seed": 0})
    if challenge.n_test:
        drawn = torch.rand(challenge.n_test, generator=rng(challenge.id, "guess")).tolist()
        rows = [[f"{i:05d}", f"{score:.6f}"] for i, score in enumerate(drawn)]
        parts.add_scores(_rows(["id", "score"], rows).encode(), {"method": "guessing"})
    archive.write_zip(public / "sample_submission.zip", members(parts, challenge, describe(parts, challenge)))


def _rules(challenge: Challenge) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, autoescape=False,
    )  # fmt: skip
    return environment.get_template("rules.md.j2").render(c=challenge) + "\n"


def _rows(header: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _write_rows(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with atomic(path) as file:
        file.write(_rows(header, rows).encode())


def _slug(title: str) -> str:
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in title.lower()).split()
    return "-".join(words)[:40].rstrip("-") or "challenge"

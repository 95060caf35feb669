"""Data: the embedded faces or a folder, split, brought to one size and stored as uint8 in the ledger."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from arena.config import EMBEDDED, LABELLED, PAIRED, DataConfig
from arena.data.codec import store_as
from arena.data.feeds import Store
from arena.errors import InputError
from arena.ledger import Ledger
from arena.seeds import rng

Progress = Callable[[int, int], None]
SPLITS = ("train", "val", "judge")
LABELS = ("fake", "real")  # the domains of labelled folders
FEWEST = {"train": 3, "val": 1, "judge": 3}  # images of a domain: with fewer, no distance has an interval


@dataclass(frozen=True)
class Data:
    """A run's images, one Store a split and domain. `summary` goes to summary.json.

    `sources` are what a generator gets, `reals` what a detector gets: the same images after the run's codec, which the
    fakes pass through as well. `indices` are the rendered faces' numbers (empty for a folder). `fakes` are there only
    where they are given: labelled folders, which have the one domain `real`. `paired`: row i of domain a and row i of
    domain b are a pair.
    """

    domains: tuple[str, ...]
    sources: Mapping[tuple[str, str], Store]
    reals: Mapping[tuple[str, str], Store]
    summary: dict[str, Any]
    indices: Mapping[tuple[str, str], list[int]]
    fakes: Mapping[str, Store] = field(default_factory=dict)

    @property
    def people(self) -> dict[str, Any] | None:
        """faces-two: the faces' `seed`, how `close` they are, who is shown in domains `a` and `b`; else None."""
        return self.summary.get("people")

    def exact_swap(self, split: str, domain: str, target: str, rows: list[int] | None = None) -> Tensor:
        """faces-two: the pictures of a split and domain (or some rows of them) with the other person in them."""
        from arena.data.faces import swap

        assert self.people
        indices = self.indices[split, domain]
        chosen = indices if rows is None else [indices[row] for row in rows]
        size = self.sources[split, domain].images.shape[-1]
        who, close = self.people[target], self.people["close"]
        return swap(self.people["seed"], chosen, size, identity=who, close=close).image

    @property
    def paired(self) -> bool:
        return bool(self.summary.get("paired"))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The domains of which fakes are made, whose images are a detector's reals: of pairs the second alone."""
        return self.domains[1:] if self.paired else self.domains

    def sources_of(self, split: str) -> list[Store]:
        return [self.sources[split, domain] for domain in self.domains]

    def reals_of(self, split: str) -> list[Store]:
        return [self.reals[split, domain] for domain in self.kinds]


class Source(Protocol):
    """Images that have been found and checked, of which nothing is written yet.

    `manifest` has a row an item, with its domain and split; an item is an image, or a clip of `frames` of them.
    """

    config: DataConfig
    domains: tuple[str, ...]
    manifest: list[dict[str, Any]]
    summary: dict[str, Any]
    frames: int

    def images(self, rows: list[dict[str, Any]]) -> Iterator[Tensor]:
        """uint8 k 3 s s at a time: the images of these rows in order, of a clip all its frames."""
        ...


def open_source(config: DataConfig, needs: str, clips: bool = False, progress: Progress | None = None) -> Source:
    """Find and check the images; nothing is written.

    For a generator that needs "stills" all domains are one, `all`; "labels" asks for labelled folders. Raises
    InputError where the folder is no data, or cannot give what the generator ("stills", "domains" or "pairs") or the
    detector (`clips`) needs.
    """
    together = needs == "stills"
    source: Source
    if config.source in EMBEDDED:
        check_embedded(config.source, needs)
        source = FacesSource(config, together)
    elif needs == "labels":
        source = labelled_source(config, progress)
    elif needs == "pairs":
        from arena.data.pairs import PairSource

        source = PairSource(config, progress)
    elif _holds_videos([config.source]):
        from arena.data.films import FilmSource

        source = FilmSource(config, progress, together)
    else:
        source = FolderSource(config, progress, together)
    missing = sorted(set(LABELS) - set(source.domains)) if needs == "labels" else []
    if missing:
        raise InputError(f"no usable image or video lies in the folders given with --{' and --'.join(missing)}.")
    if clips and source.frames == 1:
        where = "these folders hold" if needs == "labels" else f"{config.source} holds"
        raise InputError(
            f"this detector looks at clips of {config.frames} frames, and {where} stills. Give folders of videos"
            + ("." if needs == "labels" else ", or --data faces-clips.")
        )
    if needs == "domains" and len(source.domains) != 2:
        raise InputError(
            f"this generator translates between two domains, and {config.source} has {len(source.domains)} "
            f"({', '.join(source.domains[:8])}). Expected trainA/ trainB/ testA/ testB/, or two folders of images."
        )
    if any(word in str(source.summary.get("layout", "")).lower() for word in ("= fake", "= 1_fake", "= generated")):
        note = "a folder of fakes is taken as a domain of reals here: the lab makes its own fakes"
        source.summary.setdefault("notes", []).append(note)
    if needs == "pairs":
        source.summary["paired"] = True
    elif needs != "stills":
        source.manifest, notes = balanced(source.manifest, source.domains, config.seed)
        source.summary.setdefault("notes", []).extend(notes)
    counts = Counter((row["split"], row["domain"]) for row in source.manifest)
    for split in SPLITS:
        for domain in source.domains:
            if counts[split, domain] < FEWEST[split]:
                raise InputError(
                    f"{config.source} leaves {counts[split, domain]} items of domain {domain} for {split}; at least "
                    f"{FEWEST[split]} are needed. Give more (or more sources: what is of one stays together)."
                )
    return source


def check_embedded(source: str, needs: str) -> None:
    """Raise InputError where embedded faces are in pairs and the generator has no use for them, or the reverse."""
    if needs == "pairs" and source not in PAIRED:
        raise InputError(
            f"this generator learns from pairs, and {source} has none. Use --data {' or '.join(PAIRED)}, or a folder "
            "of pairs (two folders with equal names, or montages)."
        )
    if needs == "stills" and source in PAIRED:
        raise InputError(f"{source} are pairs of a map and a face, and this generator needs stills. Use --data faces.")


def balanced(rows: list[dict[str, Any]], domains: tuple[str, ...], seed: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Cut val and judge to equal numbers of each domain, by lot: else what a picture shows would hint at its label.

    (A translator's fakes of the larger domain look like the smaller one, which then is mostly fake.)
    """
    left_out, notes = set(), []
    for split in ("val", "judge"):
        mine = [[row["name"] for row in rows if (row["split"], row["domain"]) == (split, domain)] for domain in domains]
        least = min(map(len, mine))
        for domain, names in zip(domains, mine, strict=True):
            lots = torch.randperm(len(names), generator=rng(seed, "balance", split, domain)).tolist()
            left_out |= {names[i] for i in lots[least:]}
            if len(names) > least:
                notes.append(
                    f"{len(names) - least} {split} images of domain {domain} left out, so that both weigh alike"
                )
    return [row for row in rows if row["name"] not in left_out], notes


def _holds_videos(folders: Sequence[str]) -> bool:
    from arena.data.videos import holds_videos

    found = {holds_videos(Path(folder).expanduser()) for folder in folders if Path(folder).expanduser().is_dir()}
    if len(found) > 1:
        raise InputError("some of these folders hold videos and some images. Give all as videos, or all as images.")
    return found == {True}


def labelled_source(config: DataConfig, progress: Progress | None = None) -> Source:
    """The folders `real` and `fake`, split so that no source lies in two splits; domains `real` and `fake`."""
    from arena.data.films import FilmSource

    films = _holds_videos([*config.real, *config.fake])
    return FilmSource(config, progress) if films else FolderSource(config, progress)


def store(source: Source, ledger: Ledger) -> None:
    """Write the images (uint8, one size; before and after the run's codec) and their manifest to the ledger."""
    config, rows, frames = source.config, source.manifest, source.frames
    for split in SPLITS:
        for domain in source.domains:
            mine = [row for row in rows if (row["split"], row["domain"]) == (split, domain)]
            ledger.write_images(f"data/{split}-{domain}.npy", source.images(mine), len(mine) * frames, config.size)
            if config.codec != "png":
                plain = Store(ledger.read_images(f"data/{split}-{domain}.npy"), mine, frames)
                coded = (store_as(chunk, config.codec) for chunk in plain.chunks())
                name = f"data/{split}-{domain}-{config.codec}.npy"
                ledger.write_images(name, (chunk.flatten(0, -4) for chunk in coded), len(mine) * frames, config.size)
    ledger.write_lines("data/manifest.jsonl", rows)
    facts = {"domains": list(source.domains), "frames": frames, **source.summary, **_summary(rows)}
    ledger.write("data/data.json", facts)


def open_data(ledger: Ledger, codec: str) -> Data:
    """The images that the ledger holds."""
    stored = ledger.read("data/data.json", "domains", "images")
    frames = stored.get("frames", 1)
    names: dict[tuple[str, str], list[str]] = {}
    indices: dict[tuple[str, str], list[int]] = {}
    videos: dict[tuple[str, str], list[str]] = {}
    for row in ledger.read_lines("data/manifest.jsonl", {"name", "split", "domain"}):
        names.setdefault((row["split"], row["domain"]), []).append(row["name"])
        if "index" in row:
            indices.setdefault((row["split"], row["domain"]), []).append(row["index"])
        if "video" in row:
            videos.setdefault((row["split"], row["domain"]), []).append(row["video"])
    domains = tuple(stored["domains"])

    def stores(suffix: str) -> dict[tuple[str, str], Store]:
        return {
            (split, domain): Store(
                ledger.read_images(f"data/{split}-{domain}{suffix}.npy"), names[split, domain], frames,
                videos.get((split, domain)),
            )
            for split in SPLITS
            for domain in domains
        }  # fmt: skip

    sources, coded = stores(""), stores("" if codec == "png" else f"-{codec}")
    if domains != LABELS:
        return Data(domains, sources, coded, stored, indices)
    fakes = {split: coded[split, "fake"] for split in SPLITS}
    return Data(("real",), sources, coded, stored, indices, fakes)


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    counts = Counter((row["split"], row["domain"]) for row in rows)
    domains = sorted({row["domain"] for row in rows})
    judge = sorted(row["sha256"] for row in rows if row["split"] == "judge")
    return {
        "manifest": "data/manifest.jsonl",
        "images": {split: {domain: counts[split, domain] for domain in domains} for split in SPLITS},
        "reference": hashlib.sha256("".join(judge).encode()).hexdigest(),
    }


class FacesSource:
    """The embedded procedural faces; no picture is in two of anything.

    `faces`: domain a has dark hair, domain b fair hair; `together` there is one domain of anybody. `faces-two`: a shows
    one person, b another one, so that the exact swap of every picture is known; `people` in the summary says who.
    `faces-clips`: clips of `config.frames` frames at 25 a second, of the same two (`together`: of anybody).
    `faces-drawing`, `faces-segments`: pairs of a drawing, or a map of the parts, and the face that it was made of.
    """

    def __init__(self, config: DataConfig, together: bool = False):
        self.config = config
        self.frames = config.frames if config.source == "faces-clips" else 1
        counts = {"train": config.train, "val": config.val, "judge": config.judge}
        self.summary: dict[str, Any] = {
            "name": config.source,
            "rendered": True,
            "skipped": 0,
            "duplicates": 0,
            "resize": "rendered at this size",
        }
        self.manifest: list[dict[str, Any]] = []
        self._images: dict[str, Tensor] = {}
        casts: dict[str, dict[str, Any]]
        if config.source == "faces-two" or (config.source == "faces-clips" and not together):
            if config.people[0] == config.people[1]:
                raise InputError(f"data.people: expected two different people, not {config.people[0]} twice.")
            who = dict(zip("ab", config.people, strict=True))
            casts = {domain: {"identity": who[domain], "close": config.close} for domain in who}
            if config.source == "faces-two":
                self.summary["people"] = {"seed": config.seed, "close": config.close, **who}
        elif together:
            casts = {"all": {}}
        elif config.source in PAIRED:
            casts = {}
            self._add_pairs(counts)
        else:
            casts = {"a": {"style": "dark"}, "b": {"style": "fair"}}
        for d, (domain, cast) in enumerate(casts.items()):
            for s, split in enumerate(SPLITS):
                first = (d * len(SPLITS) + s) * 1_000_000
                self._add(split, domain, range(first, first + counts[split]), cast)
        if together:
            self.manifest = [row | {"domain": "all"} for row in self.manifest]
        self.domains = ("all",) if together else tuple(casts) or ("a", "b")

    def _add(self, split: str, domain: str, indices: range, cast: dict[str, Any]) -> None:
        from arena.data.faces import clip, render

        size, seed = self.config.size, self.config.seed
        if self.frames > 1:
            images: Any = (clip(seed, index, self.frames, size, **cast).image for index in indices)
        else:
            images = render(seed, indices, size, **cast).image
        self._keep(split, domain, indices, images)

    def _add_pairs(self, counts: dict[str, int]) -> None:
        from arena.data._face_maps import MAPS
        from arena.data.faces import render

        a, b = self.config.pairs.split("2")
        for s, split in enumerate(SPLITS):
            indices = range(s * 1_000_000, s * 1_000_000 + counts[split])
            faces = render(self.config.seed, indices, self.config.size)
            self._keep(split, a, indices, MAPS[self.config.source](faces), paired=True)
            self._keep(split, b, indices, faces.image, paired=True)

    def _keep(self, split: str, domain: str, indices: range, images: Any, paired: bool = False) -> None:
        size, stem = self.config.size, f"{self.config.source}/{self.config.seed}"
        for index, image in zip(indices, images, strict=True):
            name, pair = f"{stem}/{domain}/{index:07d}", f"{stem}/{index:07d}"
            self._images[name] = image
            self.manifest.append({
                "name": name, "sha256": hashlib.sha256(image.numpy().tobytes()).hexdigest(), "width": size,
                "height": size, "format": "rendered", "bytes": image.numel(), "domain": domain,
                "group": pair if paired else name, "split": split, "index": index, **({"pair": pair} if paired else {}),
            })  # fmt: skip

    def images(self, rows: list[dict[str, Any]]) -> Iterator[Tensor]:
        for row in rows:
            image = self._images[row["name"]]
            yield image if self.frames > 1 else image[None]


class FolderSource:
    """A folder of images (see arena/data/folders.py for the layouts), or folders of reals and of fakes."""

    frames = 1

    def __init__(self, config: DataConfig, progress: Progress | None = None, together: bool = False):
        from arena.data import folders

        self.config = config
        roots: Any = {"real": config.real, "fake": config.fake} if config.source == LABELLED else config.source
        self.folder = folders.scan(
            roots, seed=config.seed, group=config.group, max_bad=config.max_bad, max_pixels=config.max_pixels,
            progress=progress,
        )  # fmt: skip
        self.domains = ("all",) if together else self.folder.domains
        self.manifest = folders.manifest_rows(self.folder)
        if together:
            self.manifest = [row | {"domain": "all"} for row in self.manifest]
        self.items = {item.name: item for item in self.folder.items}
        self.summary: dict[str, Any] = {
            "name": self.folder.name, "layout": self.folder.layout, "group_rule": self.folder.group_rule,
            "skipped": len(self.folder.bad), "bad": [list(bad) for bad in self.folder.bad],
            "duplicates": self.folder.duplicates, "ignored": self.folder.ignored, "notes": list(self.folder.notes),
            "resize": config.resize,
        }  # fmt: skip

    def images(self, rows: list[dict[str, Any]]) -> Iterator[Tensor]:
        from arena.data import folders

        return folders.load([self.items[row["name"]] for row in rows], self.config.size, resize=self.config.resize)

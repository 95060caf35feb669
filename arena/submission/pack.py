"""Pack what a team hands in: fakes, a detector, or scores, with the papers that belong to them, as one zip.

Packing the same things twice gives the same bytes: names are sorted, dates fixed, and no measured time is in it.
"""

import csv
import hashlib
import io
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import arena
from arena.config import RunConfig
from arena.errors import InputError
from arena.files import read_json
from arena.ledger import is_weight, parts
from arena.player import open_player
from arena.submission import archive
from arena.submission.forge import Progress, check_size, forge, made_by, pictures_in, read_fakes
from arena.submission.media import preview, write_item
from arena.submission.schema import TEAM_RULE, VERSION, Challenge, Submission, is_team

COUNT = 200  # fakes, where no challenge says how many


@dataclass
class Parts:
    """What is handed in, as it gathers: file name -> bytes or a file; `facts` go into the model card."""

    team: str
    licence: str
    data: str
    folder: Path | None = None  # for files on the way
    files: dict[str, bytes | Path] = field(default_factory=dict)
    tracks: list[str] = field(default_factory=list)
    fakes: dict[str, int] | None = None
    generator: dict[str, Any] | None = None
    detector: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_fakes(self, items: Tensor, marks: dict[str, str], generator: dict[str, Any]) -> None:
        """Fakes, uint8 N 3 s s or N F 3 s s."""
        frames = 1 if items.ndim == 4 else items.shape[1]
        with tempfile.TemporaryDirectory() as folder:
            for i, item in enumerate(items):
                name = f"fakes/{i:05d}{'.png' if frames == 1 else '.mp4'}"
                write_item(Path(folder) / name, item, marks)
                self.files[name] = (Path(folder) / name).read_bytes()
        self.files["preview.png"] = preview(items, marks | {"Description": "the first fakes"})
        self.fakes = {"count": len(items), "size": items.shape[-1], "frames": frames}
        self.generator = generator
        self.tracks.append("generation")

    def add_scores(self, data: bytes, detector: dict[str, Any]) -> None:
        self.files["scores.csv"] = data
        self.detector = detector
        self.tracks.append("detection")

    def add_onnx(self, onnx: bytes) -> None:
        """A model of any framework, as `arena export` would have written it."""
        self.files["detector.onnx"] = onnx
        self.detector = {"method": "a model of the team's own"}
        self.tracks.append("detection")

    def add_detector(self, onnx: bytes, weights: bytes, player: dict[str, Any], detector: dict[str, Any]) -> None:
        self.files |= {"detector.onnx": onnx, "detector.safetensors": weights}
        self.files["detector.yaml"] = yaml.safe_dump(player, sort_keys=False).encode()
        self.detector = detector
        self.tracks.append("detection")


def pack(
    out: Path,
    team: str,
    *,
    run: Path | None = None,
    fakes: Path | None = None,
    detector: Path | None = None,
    scores: Path | None = None,
    challenge: Challenge | None = None,
    track: str | None = None,
    count: int | None = None,
    licence: str = "",
    data: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the zip `out`; return what it holds. `run` gives fakes and detector where nothing else does.

    track: "generation" or "detection" alone; None: what there is. Raises InputError for parts that do not fit each
    other or the challenge, for an `out` that exists, and for a submission that would not pass its own check.
    """
    from arena.submission.check import check

    if out.suffix.lower() != ".zip":
        raise InputError(f"expected a file name that ends in .zip to write the submission to, got {out}.")
    if out.exists():
        raise InputError(f"{out} exists already. Delete it or choose another name.")
    size = challenge.size if challenge else None
    found = Parts(check_team(team), licence, data)
    wanted = (track,) if track else ("generation", "detection")
    if "generation" in wanted and fakes is not None:
        asked = count or (challenge.fakes if challenge else None)
        items = read_fakes(fakes, size, challenge.frames if challenge else 1, asked)
        if asked is not None and (there := pictures_in(fakes, challenge)) > asked:
            found.notes.append(f"{asked} of {there} files in {fakes} were taken, the first by their names")
        marks = {"Synthetic": "true", "Source": "deepfake-arena", "Method": "given", "Run": "none", "Seed": "none"}
        found.add_fakes(items, marks, {"method": "given"})
    elif "generation" in wanted and run is not None and _config(run).generator is not None:
        items, marks, made = forge(run, count or _count(challenge), challenge, device, progress)
        found.add_fakes(items, marks, made)
        found.facts |= card_facts(run)
    if "detection" in wanted and scores is not None:
        found.add_scores(as_scores(_read(scores)), {"method": "kept by the team"})
    elif "detection" in wanted and detector is not None and detector.suffix.lower() == ".onnx":
        found.add_onnx(_read(detector))
    elif "detection" in wanted and (detector or run) is not None:
        trained = detector or run
        assert trained is not None
        add_detector(found, trained, challenge, progress)
        found.facts |= card_facts(trained)
    if not found.tracks:
        raise InputError("nothing to pack: give a RUN, --fakes DIR, --detector CHECKPOINT or --scores FILE.")
    found.data = found.data or found.facts.get("trained on") or "not said"
    found.licence = found.licence or "all rights reserved; for this challenge only"
    submission = describe(found, challenge)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "submission.zip"
        archive.write_zip(trial, members(found, challenge, submission))
        checked = check(trial, challenge, Path(folder) / "unpacked")
        if checked.problems:
            first, *more = checked.problems
            shown = f" (and {len(more)} more)" if more else ""
            raise InputError(f"the submission would be refused: {first}{shown}")
        archive.write_zip(out, members(found, challenge, submission))
    return {
        "out": str(out), "team": team, "tracks": found.tracks, "files": len(found.files) + 2,
        "bytes": out.stat().st_size, "sha256": hashlib.sha256(out.read_bytes()).hexdigest(), "fakes": found.fakes,
        "generator": found.generator, "detector": found.detector, "notes": found.notes,
    }  # fmt: skip


def describe(found: Parts, challenge: Challenge | None) -> dict[str, Any]:
    """submission.json without its `files`, checked against its schema."""
    from arena.config import validate

    value = {
        "schema": VERSION, "team": found.team, "challenge": challenge.id if challenge else None,
        "tracks": found.tracks, "generator": found.generator, "fakes": found.fakes, "detector": found.detector,
        "licence": found.licence, "data": found.data, "made_by": f"deepfake-arena {arena.__version__}",
    }  # fmt: skip
    validate(Submission, {**value, "files": {}}, "the submission")
    return value


def members(found: Parts, challenge: Challenge | None, submission: dict[str, Any]) -> dict[str, bytes | Path]:
    """All files of the zip."""
    files = {**found.files, "MODEL_CARD.md": card(found, challenge).encode()}
    hashes = {name: hashlib.sha256(_bytes(data)).hexdigest() for name, data in sorted(files.items())}
    text = json.dumps({**submission, "files": hashes}, indent=1, allow_nan=False)
    return {**files, "submission.json": text.encode() + b"\n"}


def card(found: Parts, challenge: Challenge | None) -> str:
    """MODEL_CARD.md: what it is, what it was trained on, its scores, its limits, what it is for."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, autoescape=False,
    )  # fmt: skip
    return environment.get_template("card.md.j2").render(p=found, c=challenge, version=arena.__version__)


def check_team(team: str) -> str:
    """A name that can stand on a board. Raises InputError."""
    if not is_team(team):
        raise InputError(f"--team {archive.printable(team)}: expected {TEAM_RULE}.")
    return team


# The detector


def add_detector(found: Parts, path: Path, challenge: Challenge | None, progress: Progress | None = None) -> None:
    """A trained detector as ONNX, and as safetensors with its player's YAML. Raises InputError where it cannot be."""
    from safetensors.torch import save

    from arena.export import export

    opened = open_player(path, "detector")
    config = opened.config.detector
    frames = opened.player.frames
    check_size(opened, challenge, frames)
    with tempfile.TemporaryDirectory() as folder:
        written = export(path, Path(folder) / "detector.onnx", progress=progress)
        onnx = (Path(folder) / "detector.onnx").read_bytes()
    weights = {
        f"{name}.{key}": value.contiguous()
        for name, part in parts(opened.player).items()
        if isinstance(part, torch.nn.Module)
        for key, value in part.state_dict().items()
        if is_weight(key, value)
    }
    keywords = {key: value for key, value in config.options.items() if key != "weights"}
    player = {"name": config.short, **keywords}
    made = made_by(opened.marks, config.options)
    found.add_detector(onnx, save(weights), player, made)
    found.facts |= {"parameters": written["parameters"], "flops": written["flops"], "threshold": written["threshold"]}


def as_scores(data: bytes) -> bytes:
    """`id,score` as it is; out of the table of `arena detect`, the file names' stems and the probabilities."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode())))
    except (UnicodeDecodeError, csv.Error):
        return data  # the check says what is wrong with it
    if not rows or not {"path", "probability"} <= rows[0].keys():
        return data
    lines = [f"{Path(row['path'] or '').stem},{row['probability']}" for row in rows]
    return "\n".join(["id,score", *lines, ""]).encode()


# What all of it says of itself


def card_facts(path: Path) -> dict[str, Any]:
    """What a run's own files say of its data and its scores: for the model card."""
    root = next(folder for folder in (path, *path.resolve().parents) if (folder / "run.json").is_file())
    facts: dict[str, Any] = {}
    data = read_json(root / "data" / "data.json") if (root / "data" / "data.json").is_file() else {}
    images = data.get("images", {}).get("train", {})
    if images:
        parts_of = ", ".join(f"{count} of {domain}" for domain, count in images.items())
        facts["trained on"] = f"{data.get('name', 'a folder')}: {parts_of} (train split)"
    if (root / "summary.json").is_file():
        rounds = read_json(root / "summary.json").get("rounds", [])
        if rounds:
            facts["after"], facts["quality"] = rounds[-1].get("after"), rounds[-1].get("quality")
            facts["round"] = rounds[-1].get("round")
    return facts


def _count(challenge: Challenge | None) -> int:
    return challenge.fakes if challenge else COUNT


def _config(path: Path) -> RunConfig:
    from arena.stored import stored_config

    root = next((folder for folder in (path, *path.resolve().parents) if (folder / "run.json").is_file()), None)
    if root is None:
        raise InputError(f"{path} is no run, nor a file of one: there is no run.json.")
    config = stored_config(root)
    assert config is not None
    return config


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Check the path.") from error


def _bytes(data: bytes | Path) -> bytes:
    return data if isinstance(data, bytes) else data.read_bytes()

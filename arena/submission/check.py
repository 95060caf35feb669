"""Check a submission: the same code for the team at home and for the organiser, in seconds.

Nothing is written before the whole listing of the zip has passed; pictures, videos and models are opened only in a
limited process (arena/submission/sandbox.py). Every problem is one line that says what to do.
"""

import csv
import hashlib
import io
import json
import math
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from arena.config import parse_yaml, validate
from arena.errors import InputError
from arena.submission import archive, sandbox
from arena.submission.archive import Problem, printable
from arena.submission.schema import Challenge, Limits, Submission, allowed

MOST_TEXT = 5_000_000  # bytes of submission.json, of a CSV or of a YAML
MOST_SETTINGS = 100_000  # bytes of detector.yaml
TRIAL = 33  # images that a detector is tried on: more than a batch
BATCH_TOLERANCE = 1e-3  # how far a logit may move with its neighbours in a batch, of the spread of all logits
NUMBER = re.compile(r"[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?", re.ASCII)
ALONE = 64  # images that are shown a second time, each alone


@dataclass
class Checked:
    """What a check found. `items`: the fakes, uint8 N 3 s s or N F 3 s s; `model`: what is known of the detector."""

    file: Path
    sha256: str = ""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    submission: Submission | None = None
    folder: Path | None = None
    items: np.ndarray | None = None
    headers: list[dict[str, Any]] = field(default_factory=list)
    model: dict[str, Any] | None = None
    scores: np.ndarray | None = None  # probabilities of the challenge's test images, by id

    @property
    def team(self) -> str:
        """A name that is safe to print."""
        return printable(self.submission.team if self.submission else self.file.stem)

    def wrong(self, where: str, text: str) -> None:
        self.problems.append(Problem(printable(where), text))


def check(path: Path, challenge: Challenge | None, folder: Path) -> Checked:
    """Unpack a submission into `folder` (new or empty) and check all of it; `folder` is left empty if the zip is bad.

    Without a challenge, its own counts and size stand for what is asked. Raises InputError only for a path that cannot
    be read; whatever the strangers' file holds becomes a problem.
    """
    path, folder = Path(path), folder.resolve()
    found = Checked(path)
    limits = challenge.limits if challenge else Limits()
    found.sha256 = sha256(path)
    found.problems = archive.unpack(path, folder, limits, allowed)
    if found.problems:
        return found
    found.folder = folder
    found.submission = read_submission(found)
    if found.submission is None:
        return found
    agree(found, challenge)
    if found.problems:
        return found
    steps: list[Callable[[Checked, Challenge | None, Limits], None]] = [read_fakes, read_detector, read_scores]
    for step in steps:
        step(found, challenge, limits)
    return found


def sha256(path: Path) -> str:
    """Of a regular file. Raises InputError for anything else."""
    if not path.is_file():
        raise InputError(f"{path} is no file. Give the zip that `arena submit pack` wrote.")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from error


# The papers


def read_submission(found: Checked) -> Submission | None:
    """submission.json, if it is there and well formed."""
    assert found.folder
    file = found.folder / "submission.json"
    if not file.is_file():
        found.wrong("submission.json", "is missing. Pack with `arena submit pack`.")
        return None
    try:
        value = json.loads(_text(file), parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_twice)
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, found {type(value).__name__}")
        submission: Submission = validate(Submission, value, "submission.json")
        return submission
    except (ValueError, RecursionError, InputError) as error:
        text = str(error).removeprefix("submission.json: ").replace("value error, ", "")
        found.wrong("submission.json", f"{printable(text, 300)}. See docs/hackathon-team.md for its fields.")
        return None


def agree(found: Checked, challenge: Challenge | None) -> None:
    """What submission.json says against what is there, and against the challenge."""
    assert found.folder
    assert found.submission
    said, wrong = found.submission, found.wrong
    here = {file.relative_to(found.folder).as_posix(): file for file in found.folder.rglob("*") if file.is_file()}
    here.pop("submission.json")
    for name in sorted(here.keys() - said.files.keys())[:5]:
        wrong(name, "is not listed in submission.json. List its sha256 there, or leave it out.")
    for name in sorted(said.files.keys() - here.keys())[:5]:
        wrong(name, "is listed in submission.json and missing from the zip. Pack it again.")
    for name in sorted(here.keys() & said.files.keys()):
        if sha256(here[name]) != said.files[name]:
            wrong(name, "is not the file that submission.json lists (another sha256). Pack it again.")
            break
    if "MODEL_CARD.md" not in here:
        wrong("MODEL_CARD.md", "is missing: say what it is, what it was trained on, its limits.")
    else:
        try:
            _text(here["MODEL_CARD.md"])
        except ValueError:
            wrong("MODEL_CARD.md", f"expected a text in UTF-8 of at most {MOST_TEXT / 1e6:g} MB.")
    if "preview.png" in here and here["preview.png"].open("rb").read(8) != b"\x89PNG\r\n\x1a\n":
        wrong("preview.png", "is no PNG. Pack it anew, or leave it out.")
    fakes = [name for name in here if name.startswith("fakes/")]
    models = [name for name in here if name.startswith("detector.")]
    if ("generation" in said.tracks) != bool(fakes) or (said.fakes is None) == bool(fakes):
        wrong("submission.json", "track generation, `fakes` and the files in fakes/ go together: all or none.")
    if ("detection" in said.tracks) != bool(models or "scores.csv" in here):
        wrong("submission.json", "track detection goes with detector.onnx, detector.safetensors or scores.csv.")
    if ("detector.safetensors" in here) != ("detector.yaml" in here):
        wrong("detector.yaml", "and detector.safetensors go together: weights are nothing without their net's name.")
    if said.fakes and fakes and said.fakes.count != len(fakes):
        wrong("fakes", f"holds {len(fakes)} files, submission.json says {said.fakes.count}.")
    if challenge is None:
        if "scores.csv" in here:
            found.notes.append("scores.csv was not checked: --challenge DIR names the test images it is about")
        return
    if said.challenge != challenge.id:
        got = printable(said.challenge or "none")
        wrong("submission.json", f"is for challenge {got}, this one is {challenge.id}. Pack with --challenge DIR.")
    for track in said.tracks:
        if track not in challenge.tracks:
            wrong("submission.json", f"track {track} is not played in this challenge ({', '.join(challenge.tracks)}).")
    if said.fakes:
        asked = (challenge.fakes, challenge.size, challenge.frames)
        if (said.fakes.count, said.fakes.size, said.fakes.frames) != asked:
            got = f"{said.fakes.count} fakes, {said.fakes.size} px, {said.fakes.frames} frame(s)"
            wrong("submission.json", f"{got}; expected {asked[0]}, {asked[1]} px, {asked[2]}.")
    if "scores.csv" in here and not challenge.n_test:
        wrong("scores.csv", "this challenge has no test images to score. Hand in a detector.")


# What they hold


def read_fakes(found: Checked, challenge: Challenge | None, limits: Limits) -> None:
    """Decode the fakes, and look whether the preview is a picture at all."""
    assert found.folder
    assert found.submission
    said = found.submission.fakes
    if said is None:
        return
    suffix = ".png" if said.frames == 1 else ".mp4"
    files = sorted((found.folder / "fakes").iterdir())
    other = next((file.name for file in files if file.suffix != suffix), None)
    if other:
        found.wrong(f"fakes/{other}", f"expected {suffix} files: submission.json says {said.frames} frame(s).")
        return
    least = said.count * said.frames * 3 * said.size**2
    if least > limits.memory_bytes // 4:
        found.wrong("submission.json", f"{said.count} fakes of {said.size} px do not fit in memory. Hand in less.")
        return
    wanted = {"files": [str(file) for file in files], "size": said.size, "frames": said.frames}
    try:
        answer, found.items = sandbox.call("decode", wanted, reads=[found.folder], box=box(limits))
    except sandbox.Refused as error:
        found.wrong("fakes", f"decoding them: {error}")
        return
    for name, text in answer["problems"]:
        found.wrong(f"fakes/{name}", text)
    if answer["bad"] > len(answer["problems"]):
        found.wrong("fakes", f"and {answer['bad'] - len(answer['problems'])} more that cannot be used")
    found.headers = answer.get("headers", [])


def read_detector(found: Checked, challenge: Challenge | None, limits: Limits) -> None:
    """Inspect the model and try it on a few images, in the limited process."""
    assert found.folder
    if not any((found.folder / name).exists() for name in ("detector.onnx", "detector.safetensors")):
        return
    size = challenge.size if challenge else (found.submission.fakes.size if found.submission.fakes else None)  # type: ignore[union-attr]
    frames = challenge.frames if challenge else 1
    onnx = found.folder / "detector.onnx"
    try:
        if onnx.exists():
            asked = {"model": str(onnx), "size": size, "frames": frames, "nodes": limits.nodes}
            found.model, _ = sandbox.call("inspect", asked, reads=[onnx], box=box(limits))
            size = size or found.model.get("size")
        else:
            found.model = {"rank": None, "parameters": None, "flops": None}
        _, about, wrong = judged(found.folder, _trial(size or 64, frames), limits)
        found.model |= {key: about[key] for key in ("parameters", "bytes") if key in about}
        for text in wrong:
            found.wrong(detector_file(found.folder), text)
    except sandbox.Refused as error:
        found.wrong(detector_file(found.folder), str(error))


def detector_file(folder: Path) -> str:
    return "detector.onnx" if (folder / "detector.onnx").exists() else "detector.safetensors"


def judged(folder: Path, images: np.ndarray, limits: Limits) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Logits of images (uint8 N 3 s s or N F 3 s s), what the run tells, and what makes the scores unusable.

    All images in batches of 32, then some of them, drawn by lot, each alone: both must say the same. Raises
    sandbox.Refused.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        shown, alone = Path(place) / "images.npy", Path(place) / "alone.npy"
        np.save(shown, images)
        logits, about = run_detector(folder, [shown], limits, len(images))
        wrong = complaints(logits)
        if not wrong:
            rows = np.random.default_rng().permutation(len(images))[:ALONE]
            np.save(alone, images[rows])
            again, _ = run_detector(folder, [alone], limits, len(rows), batch=1)
            wrong = unsteady(logits, logits[rows], again)
    return logits, about, wrong


def run_detector(
    folder: Path, images: list[Path], limits: Limits, count: int = 0, batch: int = 32
) -> tuple[np.ndarray, dict[str, Any]]:
    """Logits, float64, of images (.npy, uint8 N 3 s s or N F 3 s s) one set after the other, and what the run tells.

    `count`: how many images there are, by which the time that it may take is measured. Raises sandbox.Refused.
    """
    asked: dict[str, Any] = {"images": [str(file) for file in images], "batch": batch}
    if (folder / "detector.onnx").exists():
        job, reads = "score", [folder / "detector.onnx"]
        asked["model"] = str(reads[0])
    else:
        job, reads = "net", [folder / "detector.safetensors"]
        try:
            player = parse_yaml(_text(folder / "detector.yaml", MOST_SETTINGS), "detector.yaml")
        except (InputError, ValueError) as error:
            raise sandbox.Refused(printable(str(error), 300)) from error
        name = player.pop("name", None)
        asked |= {"name": name, "keywords": player, "weights": str(reads[0])}
    about, logits = sandbox.call(job, asked, reads=[*reads, *images], box=box(limits, count))
    assert logits is not None
    return logits.astype(np.float64), about


def complaints(logits: np.ndarray) -> list[str]:
    """What makes scores unusable whatever they are of."""
    bad = int((~np.isfinite(logits)).sum())
    if bad:
        return [f"{bad} of {len(logits)} logits are not finite numbers. Find out where the model overflows."]
    return []


def unsteady(logits: np.ndarray, together: np.ndarray, alone: np.ndarray) -> list[str]:
    """Whether a logit depends on its neighbours: by more than a thousandth of the middle half of all logits."""
    if bad := complaints(alone):
        return bad
    low, high = np.quantile(logits, [0.25, 0.75])
    allowed = BATCH_TOLERANCE * max(high - low, BATCH_TOLERANCE * abs(np.median(logits)), 1e-6)
    moved = float(np.abs(together - alone).max())
    if moved <= allowed:
        return []
    return [
        f"an image's logit moves by {moved:.3g} with its neighbours in the batch (at most {allowed:.2g} may be "
        "rounding). Export the model in eval mode, each image on its own."
    ]


def read_scores(found: Checked, challenge: Challenge | None, limits: Limits) -> None:
    """scores.csv: `id,score`, every test image once, probabilities."""
    assert found.folder
    file = found.folder / "scores.csv"
    if not file.exists() or challenge is None:
        return
    try:
        rows = list(csv.reader(io.StringIO(_text(file)), strict=True))
        if not rows or [cell.strip() for cell in rows[0]] != ["id", "score"]:
            raise ValueError("expected the header id,score")
        scores: dict[str, float] = {}
        known = {f"{i:05d}" for i in range(challenge.n_test)}
        for number, row in enumerate(rows[1:], 2):
            if len(row) != 2:
                raise ValueError(f"line {number} has {len(row)} cells, expected 2")
            if not NUMBER.fullmatch(row[1].strip()):
                raise ValueError(f"line {number}: {row[1]!r} is no probability from 0 to 1")
            name, value = row[0].strip(), float(row[1])
            if name not in known or name in scores:
                raise ValueError(f"line {number}: id {name!r} is {'there twice' if name in scores else 'unknown'}")
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(f"line {number}: {row[1]!r} is no probability from 0 to 1")
            scores[name] = value
        if len(scores) < len(known):
            missing = min(known - scores.keys())
            raise ValueError(f"{len(known) - len(scores)} of {len(known)} test images have no score, {missing} first")
        found.scores = np.array([scores[name] for name in sorted(known)])
    except (ValueError, csv.Error) as error:
        found.wrong("scores.csv", f"{printable(str(error), 200)}. One line for each file of test/: 00000,0.73.")


def box(limits: Limits, count: int = 0) -> sandbox.Box:
    """What a job may cost: the seconds of the limits for each 1,000 items begun."""
    seconds = limits.seconds * max(1, -(-count // 1000))
    return sandbox.Box(memory_bytes=limits.memory_bytes, cpu_seconds=seconds, wall_seconds=seconds + 60)


def _trial(size: int, frames: int) -> np.ndarray:
    shape = (TRIAL, 3, size, size) if frames == 1 else (TRIAL, frames, 3, size, size)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _text(file: Path, most: int = MOST_TEXT) -> str:
    if file.stat().st_size > most:
        raise ValueError(f"{file.name} is larger than {most / 1e6:g} MB")
    return file.read_bytes().decode("utf-8-sig")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_constant(text[:20])


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value

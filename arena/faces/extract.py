"""Extract: images, folders and videos in; aligned crops of their faces out, with what it takes to put them back.

The folder OUT holds the crops, faces.jsonl (`arena.faces.sidecar`) and extract.json (settings, counts, what was wrong).
OUT/.extract holds the contact sheet and one file for each source that is done, so that a second call goes on where
the first one stopped; being hidden, it is passed over where OUT is used as data.
"""

import io
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ValidationError
from torch import Tensor

from arena.data import decode, splits
from arena.errors import InputError
from arena.faces import align, sidecar, sources
from arena.faces.locate import Face, FaceLocator
from arena.faces.sources import MARK, Shot, Source
from arena.files import atomic, read_json, write_json
from arena.pictures import png, sheet

COUNTS = ("frames", "without_face", "too_small", "blurred", "duplicates", "crops", "lost_frames")
RECENT = 8  # kept crops that a new one is compared with
ALIKE = 1.5  # grey levels
SHEET = (8, 12, 96)  # rows, columns and the side of a crop, px


@dataclass(frozen=True)
class Settings:
    """What decides which crops come out; an extraction is continued under the same ones alone.

    size: side of a crop, px; coverage: see `align.template`; largest: one face a frame; min_size: of a face from
    hairline to chin, in the source's pixels; min_sharpness: see `sharpness`; every: n-th frame of a video;
    keep_duplicates: also crops that hardly differ from one of the last kept of their source.
    """

    size: int = 128
    coverage: float = 1.0
    largest: bool = True
    min_size: float = 48
    min_sharpness: float = 0.0
    every: int = 1
    keep_duplicates: bool = False

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 2048:
            raise InputError(f"--size: a crop has 16 to 2048 pixels a side, not {self.size}.")
        if not 0.2 <= self.coverage <= 5:
            raise InputError(f"--coverage: 0.2 to 5 (1 = hairline to chin), not {self.coverage}.")
        if self.every < 1:
            raise InputError(f"--every: each how many-th frame, 1 or more, not {self.every}.")
        for option, value in (("--min-size", self.min_size), ("--min-sharpness", self.min_sharpness)):
            if not 0 <= value < math.inf:
                raise InputError(f"{option}: a finite number, 0 or more, not {value}.")


def extract(
    inputs: Iterable[Path],
    out: Path,
    locator: FaceLocator,
    settings: Settings | None = None,
    *,
    device: str = "cpu",
    batch_size: int = 16,
    max_pixels: int = decode.MAX_PIXELS,
    progress: Callable[[float, float], None] | None = None,
) -> dict[str, Any]:
    """Fill the folder `out` with the faces of the inputs, or go on doing so; returns what extract.json then holds.

    progress: called with (sources done, sources). Sources that are done under these settings are passed over, known by
    their content. Sources that are no usable image or video are counted and named under "bad".
    Raises InputError where there is nothing to read, where all that there is is bad, and where `out` is no folder of an
    earlier extraction with the same settings.
    """
    settings = settings or Settings()
    asked = {**asdict(settings), "locator": locator.name, "locator_version": locator.version}
    found = sources.find(inputs, out)
    _prepare(out, asked)
    work = _Work(out, settings, locator, device)
    todo = work.choose(found)
    begun = len(found) - len(todo)
    try:
        for lot in sources.batches(sources.shots(todo, settings.every, max_pixels), batch_size):
            work.take(lot)
            if progress is not None:
                progress(begun + work.ended + (lot[-1].share if lot[-1].image is not None else 0), len(found))
        complete = True
    except BaseException:
        complete = False
        raise
    finally:
        summary = work.sum_up(asked, complete)
    if len(summary["bad"]) == len(found) and not summary["counts"]["crops"]:
        first = "; ".join(f"{bad['source']}: {bad['reason']}" for bad in summary["bad"][:3])
        raise InputError(f"none of the {len(found)} inputs can be used: {first}")
    return summary


def sharpness(crop: Tensor) -> float:
    """Variance of the Laplacian over the variance, of a crop's luma (3 S S): blur lowers it, contrast does not.

    0 for a flat picture, 20 for white noise (the filter's sum of squares), 0.06 to 0.14 for the faces of a 360 x 288
    video at 128 px. It depends on the crop's size: compare within one extraction.
    """
    grey = luma(crop.float())
    kernel = grey.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    spread = grey.var()
    return float(F.conv2d(grey, kernel).var() / spread) if spread > 1e-3 else 0.0


def luma(images: Tensor) -> Tensor:
    """... 3 H W -> 1 1 H W (for one picture) or N 1 H W, by ITU-R BT.601's weights."""
    weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    grey = (images * weights).sum(-3, keepdim=True)
    return grey[None] if grey.ndim == 3 else grey


class Done(BaseModel):
    """A source that has been read to its end, and what was in it."""

    name: str
    sha256: str
    stem: str
    counts: dict[str, int]


class _Work:
    """Takes shots as they come and keeps the books of every source."""

    def __init__(self, out: Path, settings: Settings, locator: FaceLocator, device: str):
        self.out, self.settings, self.locator, self.device = out, settings, locator, device
        self.parts = out / ".extract" / "sources"
        self.target = align.template(settings.size, settings.coverage)
        self.ended, self.copies = 0, 0
        self.bad: list[dict[str, str]] = []
        self._forget()

    def choose(self, found: Sequence[Source]) -> list[Source]:
        """The sources that are still to be read; each gets its stem."""
        done = {path.stem: _read_part(path)[0] for path in sorted(self.parts.glob("*.jsonl"))}
        stems = {head.stem.lower() for head in done.values()}
        seen: set[str] = set()
        todo = []
        for source in found:
            try:
                sources.examine(source)
            except InputError as error:
                self.bad.append({"source": source.name, "reason": str(error)})
                continue
            if source.sha256 in seen:
                self.copies += 1
            elif source.sha256 not in done:
                source.stem = sources.stem(source, lambda name: name.lower() in stems)
                stems.add(source.stem.lower())
                todo.append(source)
            seen.add(source.sha256)
        return todo

    def take(self, lot: Sequence[Shot]) -> None:
        """Locate the faces of a lot of shots in one go, cut them out, and close the books of sources that end."""
        seen = [(shot, shot.image) for shot in lot if shot.image is not None]
        places = [(shot.source.name, shot.number) for shot, _ in seen]
        found = iter(self.locator([image for _, image in seen], places) if seen else [])
        for shot in lot:
            if shot.image is None:
                self._end(shot.source)
            else:
                self._cut(shot, shot.image, next(found))

    def sum_up(self, asked: dict[str, Any], complete: bool) -> dict[str, Any]:
        """Write faces.jsonl, the sheet and extract.json from the books of all sources that are done."""
        parts = [_read_part(path) for path in sorted(self.parts.glob("*.jsonl"))]
        parts.sort(key=lambda part: splits.natural(part[0].name))
        crops = [crop for _, rows in parts for crop in rows]
        counts = {name: sum(head.counts.get(name, 0) for head, _ in parts) for name in COUNTS}
        sidecar.write(self.out / sidecar.NAME, crops)
        if crops:
            _write_sheet(self.out, [crop.file for crop in crops])
        share = 1 - counts["without_face"] / counts["frames"] if counts["frames"] else None
        summary = {
            "complete": complete,
            "settings": asked,
            "counts": {"sources": len(parts), **counts, "copies": self.copies},
            "frames_with_face": share,
            "bad": self.bad,
            "sources": [head.model_dump() for head, _ in parts],
        }
        write_json(self.out / "extract.json", summary)
        return summary

    def _forget(self) -> None:
        self.rows: list[sidecar.Crop] = []
        self.counts: Counter[str] = Counter()
        self.recent: deque[Tensor] = deque(maxlen=RECENT)

    def _cut(self, shot: Shot, image: np.ndarray, faces: Sequence[Face]) -> None:
        size, (height, width) = self.settings.size, image.shape[:2]
        faces = [
            face for face in faces if align.usable(torch.from_numpy(face.points), self.target, size, height, width)
        ]
        self.counts["frames"] += 1
        self.counts["without_face"] += not faces
        if not faces:
            return
        faces = faces[:1] if self.settings.largest else faces
        frame = torch.from_numpy(image).permute(2, 0, 1)[None].to(self.device)
        matrices = align.similarity(torch.from_numpy(np.stack([face.points for face in faces])), self.target)
        sides = self.settings.size / align.scale(matrices) / self.settings.coverage  # hairline to chin
        big = [n for n, side in enumerate(sides.tolist()) if side >= self.settings.min_size]
        self.counts["too_small"] += len(faces) - len(big)
        if not big:
            return
        rows = torch.zeros(len(big), dtype=torch.long)
        crops = align.crop(frame, matrices[big], self.settings.size, rows).round().clamp(0, 255).to(torch.uint8).cpu()
        for n, crop in zip(big, crops, strict=True):
            self._keep(shot, n, faces[n], matrices[n], crop)

    def _keep(self, shot: Shot, n: int, face: Face, matrix: Tensor, crop: Tensor) -> None:
        """Write a crop and its line, unless it is blurred or nothing new."""
        sharp = sharpness(crop)
        if sharp < self.settings.min_sharpness:
            self.counts["blurred"] += 1
            return
        thumb = F.interpolate(luma(crop.float()), size=(32, 32), mode="area")
        if not self.settings.keep_duplicates:
            if any(float((thumb - kept).abs().mean()) < ALIKE for kept in self.recent):
                self.counts["duplicates"] += 1
                return
            self.recent.append(thumb)
        source = shot.source
        name = f"{source.stem}-f{shot.number:06d}-{n}.png" if source.video else f"{source.stem}-{n}.png"
        row = sidecar.Crop(
            file=name, source=source.name, source_sha256=source.sha256, frame=shot.number, seconds=shot.seconds, face=n,
            box=face.box, points=face.points.tolist(), matrix=matrix.tolist(), size=self.settings.size,
            coverage=self.settings.coverage, score=face.score, sharpness=sharp,
            locator=self.locator.name, locator_version=self.locator.version,
        )  # fmt: skip
        with atomic(self.out / name, durable=False) as file:
            file.write(_png(crop.permute(1, 2, 0).numpy(), source.marks))
        self.rows.append(row)
        self.counts["crops"] += 1

    def _end(self, source: Source) -> None:
        self.ended += 1
        if source.trouble:
            self.bad.append({"source": source.name, "reason": source.trouble})
            for row in self.rows:
                (self.out / row.file).unlink(missing_ok=True)
        else:
            self.counts["lost_frames"] = source.lost
            counts = {name: self.counts[name] for name in COUNTS}
            head = Done(name=source.name, sha256=source.sha256, stem=source.stem, counts=counts)
            with atomic(self.parts / f"{source.sha256}.jsonl") as file:
                file.write(head.model_dump_json().encode() + b"\n")
                file.writelines(row.model_dump_json().encode() + b"\n" for row in self.rows)
        self._forget()


def _prepare(out: Path, asked: dict[str, Any]) -> None:
    """Make `out`, or see that it is an extraction that these settings continue."""
    record = out / "extract.json"
    if record.exists():
        had = read_json(record).get("settings", {})
        other = [f"{key} {had.get(key)} (now {asked[key]})" for key in asked if had.get(key) != asked[key]]
        if other:
            raise InputError(f"{out} was extracted with other settings: {', '.join(other)}. Give another OUT.")
        for folder in (out, out / ".extract", out / ".extract" / "sources"):
            for stray in folder.glob(".*.part"):  # of a call that was killed while it wrote
                stray.unlink(missing_ok=True)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already and no earlier extraction. Give an empty or a new folder as OUT.")
    else:
        write_json(record, {"complete": False, "settings": asked})


def _read_part(path: Path) -> tuple[Done, list[sidecar.Crop]]:
    head, *lines = path.read_bytes().splitlines() or [b""]
    try:
        done = Done.model_validate_json(head)
    except ValidationError as error:
        raise InputError(f"{path} is damaged: delete it, and its source is read again.") from error
    return done, [sidecar.parse(line, f"{path}, line {n}") for n, line in enumerate(lines, 2)]


def _png(image: np.ndarray, marks: dict[str, str]) -> bytes:
    """A crop is as synthetic as its source says it is."""
    if MARK in marks:
        return png(image, marks)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _write_sheet(out: Path, names: Sequence[str]) -> None:
    """OUT/.extract/sheet.png: crops from all over the extraction, in order."""
    rows, columns, side = SHEET
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, rows * columns).astype(int))]
    tiles: list[Tensor] = []
    marks: dict[str, str] = {}
    for name in chosen:
        try:
            image = decode.header(decode.read_bytes(out / name))
            marks = {MARK: "some or all of these faces"} if MARK in image.info else marks
            tiles.append(torch.from_numpy(decode.fitted(decode.decode(image), side).copy()).permute(2, 0, 1))
        except decode.BadImage:  # somebody deleted a crop: the sheet shows the others
            continue
    if tiles:
        picture = sheet([torch.stack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
        with atomic(out / ".extract" / "sheet.png") as file:
            file.write(_png(picture, marks))

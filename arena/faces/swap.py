"""`arena swap` on files: an image, a folder of images or a video in; the same with swapped faces out.

Whatever is written says what of it is synthetic and by whose consent: a PNG in its text and XMP, a video in its tags,
both in a manifest beside. A file is written whole or not at all; nothing is overwritten.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from arena.data import decode
from arena.errors import InputError
from arena.faces.convert import Converter
from arena.faces.sources import MARK, Shot, Source, batches, examine, find, shots
from arena.faces.video import CONTAINERS, Writer, kind, open_video
from arena.files import atomic, write_json
from arena.pictures import png
from arena.provenance import versions

Progress = Callable[[int, int], None]
LIST = "manifest.jsonl"


class NoFaceError(Exception):
    """There is nothing to swap in a video, so nothing is written."""


class Work:
    """One call of `arena swap`: its settings, and what has been done so far."""

    def __init__(
        self,
        converter: Converter,
        consent: str,
        *,
        visible_mark: bool = False,
        max_pixels: int = decode.MAX_PIXELS,
        progress: Progress | None = None,
    ):
        self.converter, self.consent = converter, consent
        self.visible_mark, self.max_pixels = visible_mark, max_pixels
        self.progress = progress or (lambda done, total: None)
        net, locator = converter.net, converter.locator
        self.marks = {
            MARK: f"face swapped by {net.marks['Method']}", "Source": "deepfake-arena", **net.marks, "Consent": consent,
        }  # fmt: skip
        self.facts = {
            "synthetic": self.marks[MARK],
            **{name.lower(): value for name, value in net.marks.items()},
            "direction": "b to a" if net.reverse else "a to b",
            "consent": consent,
            "settings": {**asdict(converter.look), "size": net.size, "visible_mark": visible_mark},
            "locator": f"{locator.name}, {locator.version}",
            "versions": versions(),
        }

    def swap(self, path: Path, out: Path) -> dict[str, Any]:
        """Swap the faces of `path` into `out`.

        An image becomes a PNG, a folder's images (those further below, too) PNGs of the same names, a video one of the
        same length, rate and sound. Without a face a picture stays as it is; of an image alone, or a video without any
        face, nothing is written. Returns `out` (None then), `manifest` and counts: `frames`, `without_face`, `faces`,
        `lost` (frames that do not decode), `unreadable` (a folder's images). Raises InputError for unusable input, and
        where `out` is there already.
        """
        does: dict[str, Callable[[Path, Path], dict[str, Any]]]
        does = {"image": self.image, "folder": self.folder, "video": self.video}
        return {**does[kind(path)](path, out), "consent": self.consent}

    # An image, a folder, a video

    def image(self, path: Path, out: Path) -> dict[str, Any]:
        out = target(path, out, ".png", [".png"])
        source, row = Source(path, path.name), {}
        examine(source)
        for _, image, count in self.converted([source]):
            if image is not None and not count:
                return {"out": None, "manifest": None, "frames": 1, "without_face": 1, "faces": 0, "lost": 0}
            if image is not None:
                row = self.write(source, image, count, out)
        if source.trouble:
            raise InputError(f"{path}: {source.trouble}.")
        manifest = out.with_name(f"{out.name}.manifest.json")
        write_json(manifest, row)
        return {"out": str(out), "manifest": str(manifest), **totals([row])}

    def folder(self, path: Path, out: Path) -> dict[str, Any]:
        if out.resolve() == path.resolve() or out.is_file():
            raise InputError(f"{out} is {'a file' if out.is_file() else 'INPUT itself'}. Name another folder for OUT.")
        sources = [s for s in find([path], out) if s.path.suffix.lower() in decode.SUFFIXES]
        if not sources:
            raise InputError(f"no PNG, JPEG, WEBP or BMP picture lies in {path}. Videos are swapped one at a time.")
        targets: dict[str, Path] = {}
        for source in sources:
            file = out / Path(source.name).with_suffix(".png")  # of a.jpg and a.png the second becomes a.png.png
            targets[source.name] = file if file not in targets.values() else out / f"{source.name}.png"
        for file in (out / LIST, *targets.values()):
            if file.exists():
                raise InputError(f"{file} exists, and nothing is overwritten. Name another folder for OUT.")
        rows: list[dict[str, Any]] = []
        ended = 0
        try:
            for shot, image, count in self.converted(examined(sources)):
                if image is None:
                    ended += 1
                    self.progress(ended, len(sources))
                else:
                    rows.append(self.write(shot.source, image, count, targets[shot.source.name]))
        finally:  # also of what was written before an error
            with atomic(out / LIST) as manifest:
                manifest.writelines(json.dumps(row).encode() + b"\n" for row in rows)
        unreadable = [f"{source.name}: {source.trouble}" for source in sources if source.trouble]
        if len(unreadable) == len(sources):
            raise InputError(f"{path}: not one of its images can be read; {unreadable[0]}.")
        return {"out": str(out), "manifest": str(out / LIST), **totals(rows), "unreadable": unreadable}

    def video(self, path: Path, out: Path) -> dict[str, Any]:
        if path.suffix.lower() in decode.SUFFIXES:
            raise InputError(f"{path} is neither the picture that its name says nor a video. Copy it anew.")
        suffix = path.suffix.lower() if path.suffix.lower() in CONTAINERS else ".mp4"
        out = target(path, out, suffix, CONTAINERS)
        like, source = open_video(path), Source(path, path.name)
        examine(source)
        marks = {key: value for key, value in self.marks.items() if key != MARK} | {"Made from": source.name}
        tags = {"title": f"{path.stem}, faces swapped", **marks}
        frames = without_face = faces = 0
        manifest = out.with_name(f"{out.name}.manifest.json")
        with suppress(NoFaceError), Writer(out, like, tags, synthetic=self.marks[MARK]) as writer:
            for shot, image, count in self.converted([source]):
                if image is not None:
                    writer.write(visibly_marked(image) if self.visible_mark else image, shot.seconds)
                    frames, without_face, faces = frames + 1, without_face + (not count), faces + count
                    self.progress(frames, max(frames, like.count))
            if source.trouble:
                raise InputError(f"{path}: {source.trouble}")
            if not faces:
                raise NoFaceError
        row = self.row(source, out, frames=frames, without_face=without_face, faces=faces)
        if faces:
            write_json(manifest, row)
        return {"out": str(out) if faces else None, "manifest": str(manifest) if faces else None, **totals([row])}

    # What they share

    def converted(self, sources: Iterable[Source]) -> Iterator[tuple[Shot, np.ndarray | None, int]]:
        """Every frame with its faces swapped, and how many; None at the end of a source."""
        for lot in batches(shots(sources, 1, self.max_pixels), self.converter.batch):
            frames = [(shot.image, (shot.source.name, shot.number)) for shot in lot if shot.image is not None]
            done = iter(self.converter([image for image, _ in frames], [place for _, place in frames]))
            for shot in lot:
                yield (shot, None, 0) if shot.image is None else (shot, *next(done))

    def write(self, source: Source, image: np.ndarray, count: int, file: Path) -> dict[str, Any]:
        """Write an image as PNG, marked where it has a swapped face, else with what its source says of itself."""
        marks = self.marks | {"Made from": source.name} if count else source.marks
        image = visibly_marked(image) if count and self.visible_mark else image
        with atomic(file) as stream:
            if marks:
                stream.write(png(image, marks))
            else:
                Image.fromarray(image).save(stream, "PNG")
        return self.row(source, file, frames=1, without_face=int(not count), faces=count)

    def row(self, source: Source, file: Path, **counts: int) -> dict[str, Any]:
        """A file's line in the manifest."""
        made_from = {"name": source.name, "sha256": source.sha256, **({"marks": source.marks} if source.marks else {})}
        facts = self.facts if counts["faces"] else {"synthetic": source.marks.get(MARK)}
        return {"file": file.name, "source": made_from, **counts, "lost": source.lost, **facts}


def examined(sources: Iterable[Source]) -> Iterator[Source]:
    """Sources with their hashes, each when its turn comes; all pictures, whatever their bytes are."""
    for source in sources:
        with suppress(InputError):  # what is wrong is said when it is decoded
            examine(source)
        source.video = False
        yield source


def target(path: Path, out: Path, suffix: str, allowed: Sequence[str] | dict[str, str]) -> Path:
    """The file to write for `path`: OUT itself, or one in it where it is a folder. Raises InputError if it exists."""
    out = out / f"{path.stem}{suffix}" if out.is_dir() else out
    if out.suffix.lower() not in allowed:
        raise InputError(
            f"{path.name} becomes a {' or '.join(allowed)} file (or one in a folder that exists), not {out}."
        )
    for file in (out, out.with_name(f"{out.name}.manifest.json")):
        if file.exists():
            raise InputError(f"{file} exists, and nothing is overwritten. Choose another name for OUT.")
    return out


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(row[name] for row in rows) for name in ("frames", "without_face", "faces", "lost")}


def visibly_marked(image: np.ndarray) -> np.ndarray:
    """A copy of a picture (uint8 H W 3) with a small caption in its lower left corner."""
    picture = Image.fromarray(image)
    font = ImageFont.load_default(max(9, min(image.shape[:2]) // 24))
    draw = ImageDraw.Draw(picture, "RGBA")
    _, top, right, bottom = draw.textbbox((0, image.shape[0]), "synthetic", font, "lb")
    pad = (bottom - top) // 4
    draw.rectangle((0, top - 2 * pad, right + 2 * pad, image.shape[0]), (0, 0, 0, 140))
    draw.text((pad, image.shape[0] - pad), "synthetic", (255, 255, 255, 255), font, "lb")
    return np.asarray(picture)

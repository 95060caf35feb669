"""What `arena extract` is given, as one stream of frames: images, folders and videos, mixed, in a fixed order."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arena.data import decode, splits
from arena.errors import InputError
from arena.faces.video import kind, open_video

VIDEOS = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m1v", ".m2v", ".ts", ".mts", ".m2ts", ".wmv",
    ".asf", ".flv", ".3gp", ".ogv", ".mxf", ".gif",
})  # fmt: skip
BATCH_PIXELS = 16_000_000  # frames that are in hand at once hold no more, however large they are
MARK = "Synthetic"  # the text by which the lab's pictures and videos say what of them is synthetic


@dataclass
class Source:
    """A file that pictures come from, and what became of it."""

    path: Path
    name: str  # posix, below the folder that was given, or the file's own
    sha256: str = ""
    stem: str = ""  # what the names of its crops begin with
    video: bool = False
    marks: dict[str, str] = field(default_factory=dict)  # what it says of its being synthetic
    lost: int = 0  # frames that do not decode
    trouble: str = ""  # why it could not be used


class Shot(NamedTuple):
    """One frame of a source, or (image None) its end."""

    source: Source
    number: int
    seconds: float
    image: np.ndarray | None
    share: float  # of the source that has been read, 0 to 1


def find(inputs: Iterable[Path], out: Path) -> list[Source]:
    """The files among the inputs, folders looked through, in natural order; nothing in or below `out`.

    In a folder the suffix says what is tried; what a file is, its content says. Hidden files and links to folders are
    passed over. Raises InputError for an input that is not there, and where nothing is found.
    """
    found: dict[Path, Source] = {}
    given = [Path(i) for i in inputs]
    for path in given:
        if kind(path) == "folder":
            for below in sorted(_walk(path, out), key=splits.natural):
                found.setdefault((path / below).resolve(), Source(path / below, below))
        else:
            found.setdefault(path.resolve(), Source(path, path.name))
    if not found:
        places = ", ".join(map(str, given)) or "nothing"
        raise InputError(f"no image or video lies in {places}. Give images, videos, or folders that hold some.")
    return list(found.values())


def shots(sources: Iterable[Source], every: int, max_pixels: int) -> Iterator[Shot]:
    """Every n-th frame of each source and then its end; what is wrong with a source is noted in its `trouble`."""
    for source in sources:
        try:
            if source.video:
                yield from _frames(source, every)
            else:
                yield _image(source, max_pixels)
        except (InputError, decode.BadImage) as error:
            source.trouble = str(error).removeprefix(f"{source.path}").lstrip(": ").replace("--max-pixels", "shrink it")
        yield Shot(source, 0, 0.0, None, 1.0)


def batches(stream: Iterable[Shot], size: int) -> Iterator[list[Shot]]:
    """Gather shots, at most `size` frames and `BATCH_PIXELS` pixels at a time; the next lot is read meanwhile."""

    def lots() -> Iterator[list[Shot]]:
        lot: list[Shot] = []
        pixels = 0
        for shot in stream:
            here = 0 if shot.image is None else shot.image.shape[0] * shot.image.shape[1]
            if lot and here and (sum(s.image is not None for s in lot) >= size or pixels + here > BATCH_PIXELS):
                yield lot
                lot, pixels = [], 0
            lot.append(shot)
            pixels += here
        if lot:
            yield lot

    return ahead(lots())


def ahead(things: Iterator[list[Shot]]) -> Iterator[list[Shot]]:
    """The same things, the next one being made in a thread while one is used."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="frames")
    try:
        waiting = pool.submit(next, things, None)
        while (thing := waiting.result()) is not None:
            waiting = pool.submit(next, things, None)
            yield thing
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def stem(source: Source, taken: Callable[[str], bool]) -> str:
    """What the names of a source's crops begin with: short, safe, and unlike any other's.

    Of a video's name only letters and digits stay as they are, so that the first "-" of a crop's name ends the video's
    own: by that `arena run --data` sees which frames are of one video. An image's name keeps its marks, which may tell
    which images belong together.
    """
    raw = Path(source.name).stem
    safe = "".join(c if c.isalnum() or (c in "_-." and not source.video) else "~" for c in raw)[:80].lstrip(".") or "~"
    return next(name for n in range(1, 10**9) if not taken(name := safe if n == 1 else f"{safe}~{n}"))


def examine(source: Source) -> None:
    """Fill in hash and kind. Raises InputError for a file that cannot be read."""
    source.video = kind(source.path) == "video"
    try:
        with source.path.open("rb") as file:
            source.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{source.path}: cannot be read: {error.strerror or error}.") from error


def _frames(source: Source, every: int) -> Iterator[Shot]:
    with open_video(source.path) as video:
        source.marks = {MARK: video.synthetic} if video.synthetic else {}
        for frame in islice(video, 0, None, every):
            share = min(1.0, (frame.number + 1) / max(1, video.count))
            yield Shot(source, frame.number, frame.seconds, frame.image, share)
        source.lost = video.lost


def _image(source: Source, max_pixels: int) -> Shot:
    kind(source.path)  # no pipe, nor another file that is never read to its end
    image = decode.header(decode.read_bytes(source.path, max_pixels), max_pixels)
    text = {key: value for key, value in image.info.items() if isinstance(key, str) and isinstance(value, str)}
    rgb = np.array(decode.decode(image))
    if MARK in text:
        source.marks = {key: value[:1000] for key, value in text.items() if not key.startswith("XML:")}
    return Shot(source, 0, 0.0, rgb, 1.0)


def _walk(root: Path, out: Path) -> Iterator[str]:
    for folder, below, files in os.walk(root):
        below[:] = [b for b in below if not b.startswith(".") and (Path(folder) / b).resolve() != out.resolve()]
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if not name.startswith(".") and (suffix in decode.SUFFIXES or suffix in VIDEOS):
                yield (Path(folder) / name).relative_to(root).as_posix()

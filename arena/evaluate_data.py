"""What a detector is evaluated on: files found, hashed, decoded once, and which video each of them is of."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from arena.data import decode, headers, media
from arena.data.codec import store_as
from arena.data.headers import Header
from arena.data.media import Media
from arena.data.videos import reason, starts, windows_of
from arena.detection import AHEAD_BYTES, Scorer
from arena.errors import InputError
from arena.faces.video import open_video
from arena.metrics.grouping import parse_rule, video_id

IN_MEMORY = 1 << 30  # bytes of decoded pictures; more lie in a temporary file
FRAMES = 32  # of a video, unless somebody asks for another number of windows
Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class File:
    """A usable file. folder: the argument that it was found by; video: the id of what it shows."""

    path: str
    folder: str
    fake: bool
    sha256: str
    video: str
    header: Header


class Item(NamedTuple):
    """What gets one logit: an image, a frame, or a clip detector's window. frames: places on the shelf."""

    file: int
    number: int  # its first frame in the video, from 0
    frames: tuple[int, ...]


class Wishes(NamedTuple):
    """What to evaluate, and under which conditions.

    real, fake: folders or files; video_id: what of an image's path names its video (`arena.metrics.grouping`);
    windows: of each video, evenly over its length (None: as many as hold 32 frames); max_bad: unusable files to pass
    over, a count or a share; robustness, levels: perturbations (`arena.perturb`) and compression (`arena.data.
    compression`); cache: a folder for compressed pictures; calibrate: scores.csv of validation data.
    """

    real: Sequence[str]
    fake: Sequence[str]
    video_id: str = "none"
    windows: int | None = None
    max_bad: float = 10
    robustness: str = "none"
    levels: Sequence[str] = ()
    cache: Path | None = None
    calibrate: Path | None = None


class Shelf:
    """Pictures, uint8 3 s s, one after the other: in memory, and in a temporary file from `most` bytes on.

    `addresses`: of each, a name that its content and its place in a video give it.
    """

    def __init__(self, size: int, most: int = IN_MEMORY):
        self.shape, self.addresses = (3, size, size), list[str]()
        self.file = tempfile.SpooledTemporaryFile(max_size=most)  # noqa: SIM115 - it lives as long as the shelf

    def add(self, images: Tensor, addresses: Sequence[str]) -> range:
        """Append uint8 n 3 s s; their places."""
        try:
            self.file.seek(0, 2)
            self.file.write(images.contiguous().numpy().tobytes())
        except OSError as error:
            raise InputError(
                f"cannot keep the decoded pictures in {tempfile.gettempdir()}: {error.strerror or error}. Free some"
                " space there, set TMPDIR to another folder, or evaluate fewer files."
            ) from error
        self.addresses += addresses
        return range(len(self.addresses) - len(images), len(self.addresses))

    def take(self, places: Sequence[int]) -> Tensor:
        """uint8 n 3 s s."""
        length = int(np.prod(self.shape))
        pictures = bytearray()
        for place in places:
            self.file.seek(place * length)
            pictures += self.file.read(length)
        return torch.frombuffer(pictures, dtype=torch.uint8).view(len(places), *self.shape)


@dataclass
class Gathered:
    """All of it: the usable files and their items, reals first; what could not be used, and what repeats.

    `copies`: files left out for having the bytes of another file of their class that is of another video;
    `video_files`: how many files are videos.
    """

    shelf: Shelf
    files: list[File] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    copies: int = 0
    video_files: int = 0

    def fakes(self) -> np.ndarray:
        """Whether each item is fake."""
        return np.array([self.files[item.file].fake for item in self.items])

    def videos(self) -> list[str]:
        """The id of each item's video."""
        return [self.files[item.file].video for item in self.items]


def gather(scorer: Scorer, wishes: Wishes, progress: Progress = None) -> Gathered:
    """Read every image and video below `real` and `fake` once, alike, at the detector's size.

    A video file is a video whatever `video_id`. Of images that are frames of one video a clip detector gets windows as
    well. A file with the bytes of another, of its class but not of its video, is left out. progress: (files done, all).
    Raises InputError for a file that is both real and fake, too many unusable ones, and a class without any.
    """
    rule = parse_rule(wishes.video_id)
    todo = {
        (is_fake, file.path.resolve()): (is_fake, folder, file)
        for is_fake, folders in ((False, wishes.real), (True, wishes.fake))
        for folder in reversed(folders)
        for file in media.find([folder])
    }  # of a file that two arguments name, the first one stays
    order = {folder: place for place, folder in enumerate([*wishes.real, *wishes.fake])}
    files = sorted(todo.values(), key=lambda entry: (entry[0], order[entry[1]]))
    data, seen = Gathered(Shelf(scorer.size)), dict[str, File]()
    windows = wishes.windows or max(1, FRAMES // scorer.frames)
    stills: dict[tuple[bool, str], list[Item]] = {}
    ahead = min(4 * scorer.batch, AHEAD_BYTES // (3 * scorer.size**2))
    results = decode.in_threads(partial(_read, scorer), [file for _, _, file in files], ahead=ahead)
    for done, ((is_fake, folder, found), result) in enumerate(zip(files, results, strict=True), 1):
        path = _printable(found.path.as_posix())
        if progress is not None:
            progress(done, len(files))
        if isinstance(result, str):
            data.bad.append((path, result))
            continue
        twin = seen.get(result.sha256)
        if twin is not None and twin.fake != is_fake:
            raise InputError(
                f"{twin.path} (real) and {path} (fake) are the same file. A file is the one or the other: take it out"
                " of --real or of --fake."
            )
        video = path if result.image is None else video_id(path, rule)
        if twin is not None and twin.video != video:  # frames of one video may well be equal
            data.copies += 1
            continue
        number = len(data.files)
        if result.image is None:
            try:
                items, header = _video(data.shelf, scorer, found.path, result.sha256, number, windows)
            except InputError as error:
                data.bad.append((path, reason(found.path, error)))
                continue
            data.items += items
            data.video_files += 1
        else:
            header = result.header
            item = Item(number, 0, tuple(data.shelf.add(result.image[None], [f"{result.sha256}/0"])))
            stills.setdefault((is_fake, video), []).append(item)
        data.files.append(File(path, folder, is_fake, result.sha256, video, header))
        seen.setdefault(result.sha256, data.files[-1])
    _check(data, len(files), wishes.max_bad)
    for shots in stills.values():
        data.items += shots if scorer.frames == 1 else _sequence(shots, scorer, windows)
    data.items.sort(key=lambda item: (item.file, item.number))
    return data


class _Found(NamedTuple):
    """What a thread made of a file: of a video its hash alone."""

    sha256: str
    image: Tensor | None = None
    header: Header = {}  # noqa: RUF012 - never changed


def _read(scorer: Scorer, file: Media) -> _Found | str:
    """A picture, decoded; a video's hash; or the reason why it is neither."""
    try:
        if media.kind(file.path) == "video":
            with file.path.open("rb") as stream:
                return _Found(hashlib.file_digest(stream, "sha256").hexdigest())
        data = decode.read_bytes(file.path, scorer.data.max_pixels)
        image = decode.header(data, scorer.data.max_pixels)
        header = headers.outside(len(data), image)
        pixels = decode.fitted(decode.decode(image), scorer.size, scorer.data.resize)
        coded = store_as(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], scorer.data.codec)[0]
        return _Found(hashlib.sha256(data).hexdigest(), coded, header)
    except (InputError, decode.BadImage) as error:
        return reason(file.path, error)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _video(
    shelf: Shelf, scorer: Scorer, path: Path, sha256: str, number: int, windows: int
) -> tuple[list[Item], Header]:
    """A video's windows put on the shelf, each an item, and its header."""
    video, data, items = open_video(path), scorer.data, list[Item]()
    for window in windows_of(
        video, frames=scorer.frames, windows=windows, every=data.every, size=scorer.size, crop=data.crop,
        resize=data.resize, max_pixels=data.max_pixels,
    ):  # fmt: skip
        if window.padded < scorer.frames or not items:  # one behind the last frame that decodes tells nothing new
            names = [f"{sha256}/{window.start + i * data.every}" for i in range(scorer.frames)]
            places = shelf.add(store_as(torch.from_numpy(window.images)[None], data.codec)[0], names)
            items.append(Item(number, window.start, tuple(places)))
    return items, headers.of_video_outside(path, video)


def _sequence(shots: Sequence[Item], scorer: Scorer, windows: int) -> Iterator[Item]:
    """Windows of a video whose frames are images, in their order; one that is too short holds its last frame.

    An image that is a video of its own stays a clip of one.
    """
    if len(shots) == 1:
        yield shots[0]
        return
    for start in starts(len(shots), scorer.frames, windows, scorer.data.every):
        taken = [shots[min(start + i * scorer.data.every, len(shots) - 1)] for i in range(scorer.frames)]
        yield Item(taken[0].file, start, tuple(shot.frames[0] for shot in taken))


def _check(data: Gathered, total: int, max_bad: float) -> None:
    limit = int(max_bad * total) if max_bad < 1 else int(max_bad)
    first = ", ".join(f"{path} ({why})" for path, why in data.bad[:3])
    more = f" and {len(data.bad) - 3} more" if len(data.bad) > 3 else ""
    if len(data.bad) > limit:
        raise InputError(
            f"{len(data.bad)} of {total} files are unusable, at most {limit} may be: {first}{more}. Mend or delete"
            " them, or raise --max-bad."
        )
    have = Counter(file.fake for file in data.files)
    for is_fake, name in ((False, "real"), (True, "fake")):
        if not have[is_fake]:
            raise InputError(f"--{name} holds no usable image or video{f': {first}{more}' if data.bad else ''}.")


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()

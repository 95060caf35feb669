"""Videos as data: windows of frames spread over the whole length, and folders of videos.

A window is `frames` consecutive frames, or every n-th (`every`). A video's windows lie evenly from its first frame to
its last; the first so many seconds alone would show openings, and hide what goes wrong later.

Folders have the layouts of arena/data/folders.py. Every video is a source of its own, unless `group` says more; files
of equal bytes are one source; no source lies in two splits.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arena.data import decode, folders
from arena.data.folders import Folder, Medium, Seen
from arena.data.layouts import existing_folder, walk
from arena.errors import InputError
from arena.faces import align, plural
from arena.faces.locate import Face, FaceLocator, locator
from arena.faces.sources import VIDEOS
from arena.faces.video import Video, open_video

SUFFIXES = VIDEOS
Crop = Literal["whole", "face", "aligned"]
WIDER = 1.3  # the face's box is enlarged so (FaceForensics++: Roessler et al., ICCV 2019, section 4)
LOOKS = 16  # frames that the median box is found from


class Window(NamedTuple):
    """Frames of a video. padded: how many of them are a repeated last frame."""

    start: int  # the number of its first frame, from 0
    seconds: float  # of that frame, from the video's first one
    images: np.ndarray  # uint8 T 3 s s
    padded: int


@dataclass(frozen=True)
class Windows:
    """All windows of a video. padded: frames that are a repeated last one; lost: frames that did not decode."""

    images: Tensor  # uint8 W T 3 s s
    starts: list[int]
    seconds: list[float]
    n_frames: int
    fps: float
    padded: int
    lost: int


def starts(n_frames: int, frames: int, windows: int | None, every: int = 1) -> list[int]:
    """The first frames of windows that lie evenly over a whole video, in rising order, no two alike.

    Of several windows the first begins with the first frame and the last ends with the last one; a lone window lies in
    the middle. windows: at most so many (fewer where the video has not so many different ones; they overlap where it
    is short); None: as many as fit without overlap. A video shorter than a window has the one at 0.
    """
    span = (frames - 1) * every + 1
    last = max(0, n_frames - span)
    count = min(max(1, n_frames // span) if windows is None else windows, last + 1)
    return [last // 2] if count == 1 else [round(i * last / (count - 1)) for i in range(count)]


def read_windows(
    path: Path | str,
    *,
    frames: int,
    windows: int | None,
    every: int = 1,
    size: int,
    crop: Crop = "whole",
    resize: str = "bicubic",
    max_pixels: int = decode.MAX_PIXELS,
    locator: FaceLocator | None = None,
) -> Windows:
    """The windows at `starts(n_frames, frames, windows, every)`, all in memory. See `windows_of`.

    Raises InputError, naming the file, for one that is no video, is damaged from its start, has frames of more than
    `max_pixels`, or shows no face where a face is wanted.
    """
    video = open_video(path)
    found = list(
        windows_of(
            video, frames=frames, windows=windows, every=every, size=size, crop=crop, resize=resize,
            max_pixels=max_pixels, locator=locator,
        )
    )  # fmt: skip
    return Windows(
        images=torch.from_numpy(np.stack([window.images for window in found])),
        starts=[window.start for window in found],
        seconds=[window.seconds for window in found],
        n_frames=video.count,
        fps=float(video.rate),
        padded=sum(window.padded for window in found),
        lost=video.lost,
    )


def windows_of(
    video: Video,
    *,
    frames: int,
    windows: int | None,
    every: int = 1,
    size: int,
    crop: Crop = "whole",
    resize: str = "bicubic",
    max_pixels: int = decode.MAX_PIXELS,
    locator: FaceLocator | None = None,
) -> Iterator[Window]:
    """A video's windows one after the other; it is decoded once, front to back, and only what is due is in memory.

    crop: `whole` resizes the frame's shorter side to `size` and keeps the middle; `face` cuts one steady square about
    the largest face, by the median of its boxes in 16 frames; `aligned` brings the face of each frame upright (frames
    without one take the nearest frame's place). The last two look through the video once more, before. locator: finds
    the faces (MTCNN).
    A video that ends before its window does, being short or damaged, holds its last frame.
    """
    if video.width * video.height > max_pixels:
        raise InputError(
            f"{video.path}: frames of {video.width} x {video.height} px are over the limit of {max_pixels / 1e6:g} Mpx"
            " (--max-pixels)"
        )
    plan = {start: range(start, start + frames * every, every) for start in starts(video.count, frames, windows, every)}
    wanted = {min(number, video.count - 1) for window in plan.values() for number in window}
    cut = _cutter(video, sorted(wanted), size, crop, resize, locator)
    waiting = deque(plan)
    kept: dict[int, tuple[float, np.ndarray]] = {}

    def made(final: int) -> Window:
        start = waiting.popleft()
        shown = [kept[min(number, final)] for number in plan[start]]
        for old in [number for number in kept if waiting and number < waiting[0]]:
            if old != final:
                del kept[old]
        padded = sum(number > final for number in plan[start])
        images = np.stack([image for _, image in shown]).transpose(0, 3, 1, 2)
        return Window(start, shown[0][0], np.ascontiguousarray(images), padded)

    last = None
    for last in video:
        if last.number in wanted:
            kept[last.number] = last.seconds, cut(last.number, last.image)
        while waiting and last.number == min(plan[waiting[0]][-1], video.count - 1):
            yield made(last.number)
        if not waiting:
            return
    if last is None:
        raise InputError(f"{video.path}: not one frame of this video can be decoded. It is damaged: copy it anew.")
    kept[last.number] = last.seconds, cut(last.number, last.image)
    while waiting:
        yield made(last.number)


def scan(
    root: Path | str | Mapping[str, Sequence[Path | str]],
    *,
    group: str = "auto",
    least: int = 1,
    **options: Any,
) -> Folder:
    """A folder of videos, as `arena.data.folders.scan` has it of pictures; items know `n_frames` and `fps`.

    group: `auto` and `none` take every video for a source of its own; `parent` and `prefix:REGEX` as there. least: a
    video of fewer frames is unusable. options: seed, max_bad, max_pixels, val, judge, progress, workers, as there.
    A file is opened, counted and hashed, of its frames only the first decoded: damage further on shows when it is read.
    """
    medium = Medium("videos", "video (MP4, MOV, MKV, WEBM, AVI ...)", SUFFIXES, partial(_examine, least))
    folder = folders.scan(root, group="none" if group == "auto" else group, medium=medium, **options)
    rule = folder.group_rule.replace("none: every picture", f"{group}: every video").replace("picture", "video")
    return Folder(**{**vars(folder), "group_rule": rule})


def holds_videos(root: Path | str) -> bool:
    """Whether a folder holds videos and no pictures (among which GIFs do not count). Raises InputError for both."""
    root = existing_folder(Path(root).expanduser(), "pictures or of videos")
    pictures, videos = sorted(walk(root)[0]), sorted(walk(root, SUFFIXES)[0])
    if pictures:
        videos = [name for name in videos if not name.lower().endswith(".gif")]
    if pictures and videos:
        raise InputError(
            f"{root} holds {plural(len(videos), 'video')} ({videos[0]}) and {plural(len(pictures), 'picture')}"
            f" ({pictures[0]}): data are one or the other. Move one kind elsewhere."
        )
    return bool(videos)


def reason(path: Path, error: Exception) -> str:
    """An error's text without the file's name at its head."""
    return str(error).removeprefix(f"{path}").lstrip(": ")


def _examine(least: int, path: Path, max_pixels: int) -> Seen | str:
    try:
        video = open_video(path)
        if video.width * video.height > max_pixels:
            return f"{video.width} x {video.height} px is over the limit of {max_pixels / 1e6:g} Mpx (--max-pixels)"
        if video.count < least:
            return f"{plural(video.count, 'frame')}, fewer than {least}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except InputError as error:
        return reason(path, error)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    form, length = path.suffix[1:].upper(), path.stat().st_size
    return Seen(digest, video.width, video.height, form, length, n_frames=video.count, fps=round(float(video.rate), 6))


def _cutter(
    video: Video, wanted: list[int], size: int, crop: Crop, resize: str, finder: FaceLocator | None
) -> Callable[[int, np.ndarray], np.ndarray]:
    """What makes uint8 s s 3 of a frame: (its number, uint8 H W 3) -> picture."""
    if crop == "whole":
        return lambda number, image: decode.fitted(Image.fromarray(image), size, resize)
    if finder is None:
        finder = _mtcnn(max(20, min(video.width, video.height) // 12))
    if crop == "face":
        places = np.linspace(0, len(wanted) - 1, min(LOOKS, len(wanted))).round().astype(int)
        faces = _faces(video, [wanted[place] for place in places], finder)
        box = _square(np.median([face.box for face in faces.values()], 0), video.width, video.height)
        return lambda number, image: np.asarray(
            Image.fromarray(image).resize((size, size), decode.RESIZES[resize], box=box)
        )
    if crop != "aligned":
        raise InputError(f"unknown crop {crop!r}: use whole, face or aligned.")
    faces = _faces(video, wanted, finder)
    target = align.template(size)

    def aligned(number: int, image: np.ndarray) -> np.ndarray:
        face = faces.get(number) or faces[min(faces, key=lambda other: abs(other - number))]
        matrix = align.similarity(torch.from_numpy(face.points)[None], target)
        frame = torch.from_numpy(image).permute(2, 0, 1)[None]
        return align.crop(frame, matrix, size)[0].clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy()

    return aligned


@lru_cache(maxsize=4)
def _mtcnn(smallest: int) -> FaceLocator:
    return locator("mtcnn", smallest=smallest)


def _faces(video: Video, wanted: list[int], finder: FaceLocator) -> dict[int, Face]:
    """The largest face of each wanted frame that shows one."""
    chosen = set(wanted)
    target = align.template(128)
    found = {}
    shown = (frame for frame in video if frame.number in chosen)
    while shots := list(islice(shown, 8)):
        faces = finder([shot.image for shot in shots], [(video.path.name, shot.number) for shot in shots])
        for shot, some in zip(shots, faces, strict=True):
            fine = (f for f in some if align.usable(torch.from_numpy(f.points), target, 128, *shot.image.shape[:2]))
            if face := next(fine, None):
                found[shot.number] = face
    if not found:
        raise InputError(
            f"{video.path}: no face in the {plural(len(wanted), 'frame')} looked at. Leave it out, or take the whole"
            " frame (--set data.crop=whole)."
        )
    return found


def _square(box: np.ndarray, width: int, height: int) -> tuple[float, float, float, float]:
    """A square about a box, `WIDER`, as far as the frame allows: left, top, right, bottom."""
    side = min(WIDER * max(box[2] - box[0], box[3] - box[1]), width, height)
    left = min(max((box[0] + box[2] - side) / 2, 0), width - side)
    top = min(max((box[1] + box[3] - side) / 2, 0), height - side)
    return left, top, left + side, top + side

"""What an audit sees of files: read once, in threads; a video by some of its frames."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from arena.audit import Looks
from arena.data import decode, folders, headers, splits, videos
from arena.data.headers import Header
from arena.errors import InputError
from arena.metrics import leak

Progress = Callable[[int, int], None] | None
WINDOW = 512  # px: of larger pictures the middle is looked at, from a multiple of 16 on
SMALL = 32  # px
FRAMES, FAR = 8, 200  # of a video: frames looked at, among the first so many


class Found(NamedTuple):
    """What a file shows."""

    sha256: str
    header: Header
    pixels: str
    profile: np.ndarray
    coarse: np.ndarray
    colour: np.ndarray
    spectrum: np.ndarray
    small: np.ndarray


class Files(NamedTuple):
    """The files of two classes: where they lie, their looks, and what became of the others."""

    paths: list[Path]
    looks: Looks
    videos: bool
    bad: list[tuple[str, str]]
    left_out: int  # beyond `most` of a class
    group_rule: str


def read(
    real: Sequence[str], fake: Sequence[str], group: str = "auto", most: int = 5000, max_bad: float = 10,
    progress: Progress = None,
) -> Files:  # fmt: skip
    """Look at the pictures, or the videos, of some folders of reals and of fakes.

    group: what is of one source (as for `arena.data.folders.scan`); most: files of a class, evenly spread, that are
    looked at; max_bad: unusable files to pass over, a count or a share. progress: (files done, all).
    Raises InputError for folders without any, mixed ones, and too many bad files.
    """
    films = _hold_videos([*real, *fake])
    medium = (
        folders.PICTURES._replace(suffixes=videos.SUFFIXES, noun="videos", known="video") if films else folders.PICTURES
    )
    gathered = folders.gather({"real": real, "fake": fake}, group, medium)
    places = []
    for domain in ("real", "fake"):
        mine = [(place, path) for place, path in gathered.places if place.domain == domain]
        if not mine:
            raise InputError(f"no {medium.known} lies in the folders given with --{domain}. Check the path.")
        places += [mine[i] for i in np.unique(np.linspace(0, len(mine) - 1, min(most, len(mine))).astype(int))]
    seen, bad = [], []
    look = look_at_video if films else look_at_picture
    results = decode.in_threads(partial(_safely, look), [path for _, path in places], ahead=256)
    for done, (entry, result) in enumerate(zip(places, results, strict=True), 1):
        if isinstance(result, str):
            bad.append((entry[0].name, result))
        else:
            seen.append((*entry, result))
        if progress is not None:
            progress(done, len(places))
    folders.check_bad(gathered.name, bad, len(places), max_bad, medium.noun)
    if {place.domain for place, _, _ in seen} != {"real", "fake"}:
        raise InputError(f"none of the {medium.noun} of a class is usable: {bad[0][0]} ({bad[0][1]}).")
    names, domains = [place.name for place, _, _ in seen], [place.domain for place, _, _ in seen]
    thumbs = np.stack([_thumb(found.small) for _, _, found in seen])
    inners = [place.inner for place, _, _ in seen]
    groups, rule = splits.find_groups(names, inners, domains, thumbs, "none" if films and group == "auto" else group)
    told = gathered.layout and any(place.given for place, _, _ in seen)
    found = [found for _, _, found in seen]
    looks = Looks(
        names, np.array([domain == "fake" for domain in domains]), groups,
        [(place.given or "train") if told else "" for place, _, _ in seen], [f.header for f in found],
        [f.sha256 for f in found], [f.pixels for f in found], np.stack([f.profile for f in found]),
        np.stack([f.coarse for f in found]), np.stack([f.colour for f in found]),
        np.stack([f.spectrum for f in found]), np.stack([f.small for f in found]),
    )  # fmt: skip
    order = np.argsort([{"train": 0, "val": 1, "judge": 2, "": 0}[split] for split in looks.split], kind="stable")
    paths = [seen[i][1] for i in order]
    return Files(paths, _in_order(looks, order), films, bad, len(gathered.places) - len(places), rule)


def _in_order(looks: Looks, order: np.ndarray) -> Looks:
    values: dict[str, Any] = {}
    for name, value in vars(looks).items():
        some = isinstance(value, list | np.ndarray) and len(value)
        values[name] = (value[order] if isinstance(value, np.ndarray) else [value[i] for i in order]) if some else value
    return Looks(**values)


def look_at_picture(path: Path) -> Found:
    """A picture's header and features."""
    data = decode.read_bytes(path)
    image = decode.header(data)
    header = headers.of_image(data, image)
    rgb = decode.decode(image)
    full = np.asarray(rgb)
    pixels = hashlib.sha256(full.tobytes() + str(full.shape).encode()).hexdigest()
    return Found(hashlib.sha256(data).hexdigest(), header, pixels, *features([full]))


def look_at_video(path: Path) -> Found:
    """A video's header, and the mean of the features of some of its frames."""
    from arena.faces.video import open_video

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    video = open_video(path)
    header = headers.of_video(path, video)
    wanted = set(np.linspace(0, min(FAR, video.count) - 1, FRAMES).round().astype(int).tolist())
    frames = []
    for frame in video:
        if frame.number in wanted:
            frames.append(frame.image)
        if frame.number >= max(wanted):
            break
    return Found(digest, header, "", *features(frames))


def features(frames: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Of pictures uint8 H W 3, their mean: edges of 8 and 16, colour, spectrum; and the middle one, small."""
    parts = [np.ascontiguousarray(_middle(frame).transpose(2, 0, 1))[None] for frame in frames]
    made = [(leak.edges(x, 8)[0], leak.edges(x, 16)[0], leak.colour(x)[0], leak.spectrum(x)[0]) for x in parts]
    small = decode.fitted(Image.fromarray(frames[len(frames) // 2]), SMALL, "bilinear")
    return (*(np.mean(some, axis=0) for some in zip(*made, strict=True)), small.transpose(2, 0, 1))


def _middle(frame: np.ndarray) -> np.ndarray:
    top, left = (max(0, side - WINDOW) // 2 // 16 * 16 for side in frame.shape[:2])
    return frame[top : top + WINDOW, left : left + WINDOW]


def _thumb(small: np.ndarray) -> np.ndarray:
    side = small.shape[1] // 8
    return small.reshape(3, 8, side, 8, side).mean((2, 4)).round().astype(np.uint8).reshape(-1)


def _safely(look: Callable[[Path], Found], path: Path) -> Found | str:
    try:
        return look(path)
    except decode.BadImage as error:
        return str(error)
    except InputError as error:
        return videos.reason(path, error)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _hold_videos(given: Sequence[str]) -> bool:
    kinds = {videos.holds_videos(Path(folder)) for folder in given}
    if len(kinds) > 1:
        raise InputError("some of these folders hold videos and some images. Give all as videos, or all as images.")
    return kinds == {True}

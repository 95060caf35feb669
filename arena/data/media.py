"""Images and videos by the paths of a command line: files as they are, folders looked through."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from arena.data import decode, splits
from arena.data.layouts import walk
from arena.errors import InputError
from arena.faces.sources import VIDEOS
from arena.faces.video import kind as kind_by_content


class Media(NamedTuple):
    """A file that may be an image or a video: where it is, and how it was named (a folder as given, and below it)."""

    path: Path
    name: str


def find(paths: Iterable[Path | str]) -> list[Media]:
    """The files that the paths name and the images and videos below those that are folders; nothing is opened.

    In the order given, in a folder in natural order, each file once. In a folder the suffix decides; hidden files are
    passed over, links to folders and out of the folder not followed. A path that does not exist is a file too: opening
    it will say so. Raises InputError where there is nothing at all.
    """
    found: dict[Path, Media] = {}
    given = [Path(path) for path in paths]
    for path in given:
        if path.is_dir():
            names = sorted(walk(path.resolve(), decode.SUFFIXES | VIDEOS)[0], key=splits.natural)
            below = [path / name for name in names]
        else:
            below = [path]
        for file in below:
            found.setdefault(file.resolve(), Media(file, str(file)))
    if not found:
        places = ", ".join(map(str, given)) or "nothing"
        raise InputError(f"no image or video lies in {places}. Give images, videos, or folders that hold some.")
    return list(found.values())


def kind(path: Path) -> Literal["image", "video"]:
    """What a file is, by its first bytes; where they are unknown and its suffix a picture's, a (bad) image.

    Raises InputError for a file that is missing, empty, unreadable or a folder.
    """
    found = kind_by_content(path)
    if found == "folder":
        raise InputError(f"{path} is a folder. Give a file.")
    return "image" if found == "image" or path.suffix.lower() in decode.SUFFIXES else "video"

"""Which files of a folder are data, and what their folders say: domain and split (see arena/data/folders.py)."""

import difflib
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from arena.data import decode, splits
from arena.errors import InputError

_CYCLEGAN = re.compile(r"(train|val|valid|test|judge)[ _-]?([ab])", re.IGNORECASE)
_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "judge",
    "testing": "judge",
    "judge": "judge",
}
_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_MOST_CLASSES = 20


class Place(NamedTuple):
    """A file's place in the layout: its domain, its path below the domain's folder, its split if a folder gives one."""

    name: str
    domain: str
    inner: str
    given: str | None


def existing_folder(root: Path, noun: str = "pictures") -> Path:
    if root.is_file():
        raise InputError(f"expected a folder of {noun}, got the file {root}. Give the folder: {root.parent}.")
    if root.is_dir():
        return root.resolve()
    missing = root.absolute()
    while not missing.parent.is_dir():
        missing = missing.parent
    try:
        near = difflib.get_close_matches(missing.name, [entry.name for entry in missing.parent.iterdir()], 1)
    except OSError:
        near = []
    hint = f"Did you mean {missing.parent / near[0]}?" if near else f"{missing.parent} has no {missing.name}."
    raise InputError(f"no folder {root}. {hint}")


def walk(root: Path, suffixes: Collection[str] = decode.SUFFIXES) -> tuple[list[str], int, int]:
    """Names (posix, below root) of all files with these suffixes; how many files are others; how many links too."""
    files, ignored, links = [], 0, 0
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            entries = list(os.scandir(root / below))
        except OSError as error:
            raise InputError(f"cannot read the folder {root / below}: {error.strerror or error}.") from error
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.name.startswith(".") or entry.name.lower() in _JUNK:
                continue
            if entry.is_symlink():
                target = Path(os.path.realpath(entry.path))
                if not (target.is_relative_to(root) and target.is_file()):
                    links += 1
                    continue
            elif entry.is_dir(follow_symlinks=False):
                folders.append(f"{name}/")
                continue
            if os.path.splitext(name)[1].lower() in suffixes and entry.is_file():
                files.append(name)
            else:
                ignored += 1
    return files, ignored, links


def lay_out(names: Sequence[str], group: str, noun: str = "pictures") -> tuple[str, list[Place], list[str]]:
    """Recognise the layout: (its name, the places of the files that belong to it, notes)."""
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    cycle = {top: match for top in tops if (match := _CYCLEGAN.fullmatch(top))}
    words = {top: _WORDS[top.lower()] for top in tops if top.lower() in _WORDS}
    notes: list[str] = []
    if any(match[1].lower() == "train" for match in cycle.values()):
        places = [
            Place(name, cycle[top][2].lower(), inner, _given(_WORDS[cycle[top][1].lower()]))
            for name in names
            for top, _, inner in [name.partition("/")]
            if top in cycle
        ]
        layout = "CycleGAN folders: " + ", ".join(sorted(cycle))
    elif "train" in words.values() and len(set(words.values())) > 1:
        below = [name.partition("/") for name in names]
        mine = [(name, top, inner) for name, (top, _, inner) in zip(names, below, strict=True) if top in words]
        layout, found, notes = _domains([inner for _, _, inner in mine], group)
        places = [
            Place(name, place[0], place[1], _given(words[top]))
            for (name, top, _), place in zip(mine, found, strict=True)
            if place is not None
        ]
        layout = f"split folders {', '.join(sorted(words))} with {layout}"
    elif len(tops) == 1 and all("/" in name for name in names):
        top = tops.pop()
        layout, inside, notes = lay_out([name.removeprefix(f"{top}/") for name in names], group, noun)
        return f"{layout} (in {top}/)", [p._replace(name=f"{top}/{p.name}") for p in inside], notes
    else:
        layout, found, notes = _domains(names, group)
        places = [Place(name, *place, None) for name, place in zip(names, found, strict=True) if place is not None]
    if outside := len(names) - len(places):
        notes.append(f"{outside} {noun} lie outside the folders of the layout and are left out")
    return layout, places, notes


def _domains(names: Sequence[str], group: str) -> tuple[str, list[tuple[str, str] | None], list[str]]:
    """Which domain each file below the split's folder belongs to, and its path there; None for one left out."""
    tops = sorted({name.split("/", 1)[0] for name in names if "/" in name}, key=splits.natural)
    loose = sum("/" not in name for name in names)
    most = 2 if group == "parent" else _MOST_CLASSES
    if not 2 <= len(tops) <= most or 10 * loose > len(names):
        return "one domain", [("all", name) for name in names], []
    if len(tops) == 2:
        domain_of = dict(zip(tops, "ab", strict=True))
        layout = ", ".join(f"{domain} = {top}" for top, domain in domain_of.items())
    else:
        domain_of = {top: top for top in tops}
        layout = f"{len(tops)} folders, each a domain: {', '.join(tops)}"
    found = [(domain_of[top], inner) if inner else None for top, _, inner in (name.partition("/") for name in names)]
    return layout, found, []


def _given(split: str) -> str | None:
    """Train is what is carved from, unless a folder already holds the other split."""
    return None if split == "train" else split

"""Folders of pictures as data: what lies there, what of it is usable, and which split each picture belongs to.

Layouts, told apart by the names of the folders (any letter case; a lone folder around everything is looked through):

    trainA trainB testA testB      CycleGAN's: domains a, b; test* is the judge split; valA valB if they are there
    train/ val/ test/ (or judge/)  explicit splits, with any of the next three beneath
    A/ B/                          domains a, b
    two to 20 folders              two: domains a, b in sorted order; more: each a domain of its own name
    anything else                  one domain, "all"

A split that has a folder is taken as it is; one that has none is carved out of train by group (`arena.data.splits`).
Hidden files, `__MACOSX` and links to folders are passed over; a link to a file counts if that file lies below the root.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arena.data import decode, splits
from arena.data.layouts import Place, existing_folder, lay_out, walk
from arena.errors import InputError

_THUMB = 8


@dataclass(frozen=True)
class Item:
    """One usable file: where it lies, what it is, and where it belongs. Width and height are upright pixels.

    n_frames, fps: of a video (arena/data/videos.py). pair, half: of a picture of a pair (arena/data/pairs.py) the
    pair's name, and which half of a montage it is (0 left, 1 right).
    """

    path: Path
    name: str
    domain: str
    group: str
    sha256: str
    width: int
    height: int
    format: str
    bytes: int
    split: str
    n_frames: int = 1
    fps: float = 0.0
    pair: str = ""
    half: int | None = None


@dataclass(frozen=True)
class Folder:
    """A folder's files in natural order, and what the reader of the ledger should know of it.

    bad: (name, reason) of what could not be used; duplicates: files that repeat the bytes of another; ignored: files
    of another suffix; notes: full sentences.
    """

    name: str
    layout: str
    items: tuple[Item, ...]
    bad: tuple[tuple[str, str], ...]
    duplicates: int
    domains: tuple[str, ...]
    group_rule: str = ""
    ignored: int = 0
    notes: tuple[str, ...] = ()

    def take(self, split: str, domain: str | None = None) -> tuple[Item, ...]:
        """The items of one split, of one domain or of all."""
        return tuple(item for item in self.items if item.split == split and domain in (None, item.domain))


class Seen(NamedTuple):
    """What a file's bytes say. thumb: 8 x 8 x 3 pixels, by which look-alikes are known."""

    sha256: str
    width: int
    height: int
    format: str
    length: int
    thumb: bytes = b""
    n_frames: int = 1
    fps: float = 0.0


class Medium(NamedTuple):
    """A kind of files. examine: (file, most pixels) -> what it holds, or the reason why it is unusable."""

    noun: str
    known: str
    suffixes: Collection[str]
    examine: Callable[[Path, int], Seen | str]


def picture(path: Path, max_pixels: int) -> Seen | str:
    """All that a picture's bytes say, or why it is unusable."""
    try:
        data = decode.read_bytes(path, max_pixels)
        image = decode.header(data, max_pixels)
        form, (width, height) = image.format or "", image.size
        small = decode.decode(image, at_least=8 * _THUMB).resize((_THUMB, _THUMB), Image.Resampling.BOX)
    except decode.BadImage as error:
        return str(error)
    if decode.is_sideways(image):
        width, height = height, width
    return Seen(hashlib.sha256(data).hexdigest(), width, height, form, len(data), small.tobytes())


PICTURES = Medium("pictures", "PNG, JPEG, WEBP or BMP picture", decode.SUFFIXES, picture)


def scan(
    root: Path | str | Mapping[str, Sequence[Path | str]],
    *,
    seed: int = 0,
    group: str = "auto",
    max_bad: int | float = 10,
    max_pixels: int = decode.MAX_PIXELS,
    val: float = 0.1,
    judge: float = 0.2,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    medium: Medium = PICTURES,
) -> Folder:
    """Read every picture below `root` once, refuse the bad, and give each a domain, a group and a split.

    root: a folder, whose layout says the domains; or domains and the folders of each ({"real": [...], "fake": [...]}):
    no file may then lie in two domains, and of a layout only its splits count.
    group: `auto`, `none`, `parent` or `prefix:REGEX` (see `arena.data.splits`). max_bad: how many unusable pictures are
    passed over; a float below 1 is a share of all. val, judge: shares of the pictures that no folder has given away.
    progress: called with (done, total). The result depends on the names, the bytes, `seed` and the options alone.
    Raises InputError for a path that is no folder of pictures, for too many bad ones, and for too few to split.
    """
    if not (0 <= val < 1 and 0 <= judge < 1 and val + judge < 1):
        raise InputError(f"val and judge are shares that leave something to train on, not {val} and {judge}.")
    if not (0 <= max_bad < math.inf) or (max_bad > 1 and max_bad != int(max_bad)):
        raise InputError(f"--max-bad is a count such as 10, or a share such as 0.01, not {max_bad}.")
    found = gather(root, group, medium)
    check_any(found, medium)
    notes, places = found.notes, [place for place, _ in found.places]

    seen: list[tuple[Place, Seen]] = []
    bad = []
    results = decode.in_threads(partial(examine, max_pixels, medium), found.places, workers, ahead=1024)
    for done, (place, result) in enumerate(zip(places, results, strict=True), 1):
        if isinstance(result, str):
            bad.append((printable(place.name), result))
        else:
            seen.append((place, result))
        if progress is not None:
            progress(done, len(places))
    check_bad(found.name, bad, len(places), max_bad, medium.noun)

    if found.links:
        notes.append(f"{found.links} links that lead to a folder or out of {found.name} were not followed")
    if isinstance(root, Mapping):
        check_labels(seen)
    seen, duplicates = _without_copies_of_held_out(seen, notes, medium.noun)
    items, group_rule = deal(seen, found, group, {"val": val, "judge": judge}, seed, notes, medium.noun)
    return Folder(
        name=found.name,
        layout=found.layout,
        items=items,
        bad=tuple(bad),
        duplicates=duplicates,
        domains=tuple(sorted({item.domain for item in items}, key=splits.natural)),
        group_rule=group_rule,
        ignored=found.ignored,
        notes=tuple(notes),
    )


def load(
    items: Sequence[Item],
    size: int,
    *,
    resize: str = "bicubic",
    fit: str = "crop",
    workers: int | None = None,
) -> Iterator[Tensor]:
    """Decode items in their order: uint8 (n, 3, size, size), up to 256 at a time, while the next are being read.

    resize: `bicubic`, `lanczos`, `bilinear` or `box`, Pillow's antialiased filters (`antialias-bicubic` is the same);
    fit: `crop` (shorter side to size, the middle kept) or `stretch`.
    Raises InputError for a file that is gone or no longer what it was when it was scanned.
    """
    if size < 1:
        raise InputError(f"size is a number of pixels from 1 on, not {size}.")
    resize = resize.removeprefix("antialias-")
    for word, value, known in (("resize", resize, tuple(decode.RESIZES)), ("fit", fit, decode.FITS)):
        if value not in known:
            raise InputError(f"unknown {word} {value!r}: use one of {', '.join(known)}.")

    def picture(item: Item) -> np.ndarray:
        try:
            data = decode.read_bytes(item.path)
            if hashlib.sha256(data).hexdigest() != item.sha256:
                raise decode.BadImage("the file has changed since the folder was scanned")
            image = decode.decode(decode.header(data, item.width * item.height * (1 if item.half is None else 2)))
        except decode.BadImage as error:
            raise InputError(
                f"{item.path}: {error}. Put it back as it was, or start a new run on the folder."
            ) from error
        if item.half is not None:
            image = image.crop((item.half * item.width, 0, (item.half + 1) * item.width, item.height))
        return decode.fitted(image, size, resize, fit)

    def chunks() -> Iterator[Tensor]:
        count = max(1, min(256, 2**26 // (3 * size * size)))  # 64 MiB at most
        pictures = decode.in_threads(picture, items, workers, ahead=2 * count)
        while some := list(islice(pictures, count)):
            yield torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).contiguous()

    return chunks()


def manifest_rows(folder: Folder) -> list[dict[str, str | int]]:
    """One JSON-able row an item: name, sha256, width, height, format, bytes, domain, group, split; maybe its pair."""
    keys = ("name", "sha256", "width", "height", "format", "bytes", "domain", "group", "split")
    rows = [{key: getattr(item, key) for key in keys} for item in folder.items]
    return [row | ({"pair": item.pair} if item.pair else {}) for row, item in zip(rows, folder.items, strict=True)]


def folder_hash(items: Sequence[Item]) -> str:
    """One hash of all (content, split, domain), whatever their order and names: equal hash, equal data for a run."""
    lines = sorted(f"{item.sha256} {item.split} {item.domain}\n" for item in items)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Found(NamedTuple):
    """The files of a folder, or of the folders of each domain, before any is opened."""

    name: str
    layout: str
    places: list[tuple[Place, Path]]
    ignored: int
    links: int
    notes: list[str]


def gather(root: Path | str | Mapping[str, Sequence[Path | str]], group: str, medium: Medium = PICTURES) -> Found:
    """Walk a folder, or the folders of each domain, and recognise the layout. For `root` and `group` see `scan`."""
    if not isinstance(root, Mapping):
        folder = existing_folder(Path(root).expanduser(), medium.noun)
        files, ignored, links = walk(folder, medium.suffixes)
        layout, places, notes = lay_out(sorted(files, key=splits.natural), group, medium.noun)
        return Found(
            str(folder.name), layout, [(place, folder / place.name) for place in places], ignored, links, notes
        )
    found = Found("the folders of " + " and ".join(root), " and ".join(root), [], 0, 0, [])
    for domain, folders in root.items():
        for number, given in enumerate(folders):
            folder = existing_folder(Path(given).expanduser(), medium.noun)
            prefix = f"{domain}/" if len(folders) == 1 else f"{domain}/{number}-{folder.name}/"
            one = gather(folder, group, medium)
            for place, path in one.places:
                below = place.name.partition("/")[2] if one.layout.startswith("split folders") else place.name
                inner = below if len(folders) == 1 else f"{number}-{folder.name}/{below}"
                found.places.append((Place(prefix + place.name, domain, inner, place.given), path))
            notes = [*found.notes, *(f"{folder.name}: {note}" for note in one.notes)]
            found = found._replace(ignored=found.ignored + one.ignored, links=found.links + one.links, notes=notes)
    return found


def check_any(found: Found, medium: Medium = PICTURES) -> None:
    """Raise InputError where a folder holds nothing to read."""
    if not found.places:
        elsewhere = f" ({found.links} links lead elsewhere and are not followed: copy the files instead)"
        raise InputError(
            f"no {medium.known} lies in or below {found.name}{elsewhere if found.links else ''}. Check the path."
        )


def examine(max_pixels: int, medium: Medium, found: tuple[Place, Path]) -> Seen | str:
    place, path = found
    if printable(place.name) != place.name:
        return "its name is not valid UTF-8"
    return medium.examine(path, max_pixels)


def printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def check_bad(root: str, bad: Sequence[tuple[str, str]], total: int, max_bad: int | float, noun: str) -> None:
    """Raise InputError where more files are unusable than may be, or all are."""
    limit = int(max_bad * total) if isinstance(max_bad, float) and max_bad < 1 else int(max_bad)
    first = ", ".join(f"{name} ({reason})" for name, reason in bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    if len(bad) > limit:
        raise InputError(
            f"{len(bad)} of {total} {noun} in {root} are unusable, at most {limit} may be: {first}{more}."
            f" Mend or delete them, or raise --max-bad."
        )
    if len(bad) == total:
        raise InputError(f"none of the {total} {noun} in {root} is usable: {first}{more}. Mend or replace them.")


def check_labels(seen: Sequence[tuple[Place, Seen]]) -> None:
    """Raise InputError where one file is given as real and as fake."""
    first: dict[str, Place] = {}
    for place, found in seen:
        other = first.setdefault(found.sha256, place)
        if other.domain != place.domain:
            raise InputError(
                f"{other.name} and {place.name} are the same file: it cannot be both. Take it out of one folder."
            )


def _without_copies_of_held_out(
    seen: list[tuple[Place, Seen]], notes: list[str], noun: str
) -> tuple[list[tuple[Place, Seen]], int]:
    """Drop from train what val or judge holds, and from val what judge holds; count all repeated files."""
    rank = {"judge": 0, "val": 1, None: 2}
    best: dict[str, int] = {}
    domains: dict[str, set[str]] = {}
    for place, found in seen:
        best[found.sha256] = min(best.get(found.sha256, 2), rank[place.given])
        domains.setdefault(found.sha256, set()).add(place.domain)
    kept = [(place, found) for place, found in seen if rank[place.given] == best[found.sha256]]
    if dropped := len(seen) - len(kept):
        notes.append(f"{dropped} {noun} are left out of train or val because a held-out split has the same file")
    if both := sum(len(where) > 1 for where in domains.values()):
        notes.append(f"{both} {noun} lie in more than one domain")
    return kept, len(seen) - len(best)


def deal(
    seen: list[tuple[Place, Seen]],
    found: Found,
    rule: str,
    shares: dict[str, float],
    seed: int,
    notes: list[str],
    noun: str,
    ties: Sequence[Sequence[str]] = (),
) -> tuple[tuple[Item, ...], str]:
    """Find the groups and deal the files that no folder has given a split. ties: more hashes, one a file each, by which
    files of equal hash stay together."""
    places = [place for place, _ in seen]
    names, domains = [p.name for p in places], [p.domain for p in places]
    hashes = [file.sha256 for _, file in seen]
    thumbs = np.frombuffer(b"".join(file.thumb for _, file in seen), np.uint8).reshape(len(seen), -1)
    groups, group_rule = splits.find_groups(names, [p.inner for p in places], domains, thumbs, rule)
    for some in (hashes, *ties):
        groups = splits.unite(groups, some)

    given = {p.given for p in places} - {None}
    for split in (None, *sorted(given - {None}, key=str)):
        lacking = sorted(set(domains) - {p.domain for p in places if p.given == split})
        if lacking:
            raise InputError(
                f"{found.name} has no {split or 'train'} {noun} for domain {', '.join(lacking)}: give every domain a"
                f" folder of that split, or none."
            )
    wishes = {split: share for split, share in shares.items() if split not in given}
    wishes["train"] = 1 - sum(wishes.values())
    free = [i for i, place in enumerate(places) if place.given is None]
    dealt, more = splits.assign(
        [groups[i] for i in free], [domains[i] for i in free], [hashes[i] for i in free], wishes, seed
    )
    notes += more
    split_of = {i: p.given for i, p in enumerate(places) if p.given} | dict(zip(free, dealt, strict=True))

    held = Counter(group for group, _ in {(groups[i], places[i].given) for i in range(len(seen))})
    if straddling := sum(n > 1 for n in held.values()):
        notes.append(f"{straddling} groups lie in several splits because the folders have them so")
    spread = Counter(group for group, _ in {(groups[i], split_of[i]) for i in free})
    paths = {place.name: path for place, path in found.places}
    items = tuple(
        Item(
            path=paths[place.name],
            name=place.name,
            domain=place.domain,
            group=f"{groups[i]} ({split_of[i]})" if spread[groups[i]] > 1 else groups[i],
            sha256=file.sha256,
            width=file.width,
            height=file.height,
            format=file.format,
            bytes=file.length,
            split=split_of[i],
            n_frames=file.n_frames,
            fps=file.fps,
        )
        for i, (place, file) in enumerate(seen)
    )
    return items, group_rule

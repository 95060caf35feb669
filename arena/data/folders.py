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
from collections.abc import Callable, Iterator, Sequence
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
    """One usable picture: where it lies, what it is, and where it belongs. Width and height are upright pixels."""

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


@dataclass(frozen=True)
class Folder:
    """A folder's pictures in natural order, and what the reader of the ledger should know of it.

    bad: (name, reason) of what could not be used; duplicates: files that repeat the bytes of another; ignored: files
    that are no pictures by their suffix; notes: full sentences.
    """

    root: Path
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


class _Seen(NamedTuple):
    sha256: str
    width: int
    height: int
    format: str
    length: int
    thumb: bytes


def scan(
    root: Path | str,
    *,
    seed: int = 0,
    group: str = "auto",
    max_bad: int | float = 10,
    max_pixels: int = decode.MAX_PIXELS,
    val: float = 0.1,
    judge: float = 0.2,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Folder:
    """Read every picture below `root` once, refuse the bad, and give each a domain, a group and a split.

    group: `auto`, `none`, `parent` or `prefix:REGEX` (see `arena.data.splits`). max_bad: how many unusable pictures are
    passed over; a float below 1 is a share of all. val, judge: shares of the pictures that no folder has given away.
    progress: called with (done, total). The result depends on the names, the bytes, `seed` and the options alone.
    Raises InputError for a path that is no folder of pictures, for too many bad ones, and for too few to split.
    """
    if not (0 <= val < 1 and 0 <= judge < 1 and val + judge < 1):
        raise InputError(f"val and judge are shares that leave something to train on, not {val} and {judge}.")
    if not (0 <= max_bad < math.inf) or (max_bad > 1 and max_bad != int(max_bad)):
        raise InputError(f"--max-bad is a count such as 10, or a share such as 0.01, not {max_bad}.")
    root = existing_folder(Path(root).expanduser())
    files, ignored, links = walk(root)
    layout, places, notes = lay_out(sorted(files, key=splits.natural), group)
    if not places:
        also = f" ({links} links lead elsewhere and are not followed: copy the files instead)" if links else ""
        raise InputError(f"no PNG, JPEG, WEBP or BMP picture lies in or below {root}{also}. Check the path.")

    seen: list[tuple[Place, _Seen]] = []
    bad = []
    results = decode.in_threads(partial(_examine, root, max_pixels), places, workers, ahead=1024)
    for done, (place, result) in enumerate(zip(places, results, strict=True), 1):
        if isinstance(result, str):
            bad.append((_printable(place.name), result))
        else:
            seen.append((place, result))
        if progress is not None:
            progress(done, len(places))
    _check_bad(root, bad, len(places), max_bad)

    if links:
        notes.append(f"{links} links that lead to a folder or out of {root.name} were not followed")
    seen, duplicates = _without_copies_of_held_out(seen, notes)
    items, group_rule = _deal(seen, root, group, {"val": val, "judge": judge}, seed, notes)
    return Folder(
        root=root,
        layout=layout,
        items=items,
        bad=tuple(bad),
        duplicates=duplicates,
        domains=tuple(sorted({item.domain for item in items}, key=splits.natural)),
        group_rule=group_rule,
        ignored=ignored,
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
            image = decode.decode(decode.header(data, item.width * item.height))
        except decode.BadImage as error:
            raise InputError(
                f"{item.path}: {error}. Put it back as it was, or start a new run on the folder."
            ) from error
        return decode.fitted(image, size, resize, fit)

    def chunks() -> Iterator[Tensor]:
        count = max(1, min(256, 2**26 // (3 * size * size)))  # 64 MiB at most
        pictures = decode.in_threads(picture, items, workers, ahead=2 * count)
        while some := list(islice(pictures, count)):
            yield torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).contiguous()

    return chunks()


def manifest_rows(folder: Folder) -> list[dict[str, str | int]]:
    """One JSON-able row an item: name, sha256, width, height, format, bytes, domain, group, split."""
    keys = ("name", "sha256", "width", "height", "format", "bytes", "domain", "group", "split")
    return [{key: getattr(item, key) for key in keys} for item in folder.items]


def folder_hash(items: Sequence[Item]) -> str:
    """One hash of all (content, split, domain), whatever their order and names: equal hash, equal data for a run."""
    lines = sorted(f"{item.sha256} {item.split} {item.domain}\n" for item in items)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _examine(root: Path, max_pixels: int, place: Place) -> _Seen | str:
    """Everything about one file that takes its bytes; the reason where it is unusable."""
    if _printable(place.name) != place.name:
        return "its name is not valid UTF-8"
    try:
        data = decode.read_bytes(root / place.name, max_pixels)
        image = decode.header(data, max_pixels)
        form, (width, height) = image.format or "", image.size
        small = decode.decode(image, at_least=8 * _THUMB).resize((_THUMB, _THUMB), Image.Resampling.BOX)
    except decode.BadImage as error:
        return str(error)
    if decode.is_sideways(image):
        width, height = height, width
    return _Seen(hashlib.sha256(data).hexdigest(), width, height, form, len(data), small.tobytes())


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _check_bad(root: Path, bad: Sequence[tuple[str, str]], total: int, max_bad: int | float) -> None:
    limit = int(max_bad * total) if isinstance(max_bad, float) and max_bad < 1 else int(max_bad)
    first = ", ".join(f"{name} ({reason})" for name, reason in bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    if len(bad) > limit:
        raise InputError(
            f"{len(bad)} of {total} pictures in {root} are unusable, at most {limit} may be: {first}{more}."
            f" Mend or delete them, or raise --max-bad."
        )
    if len(bad) == total:
        raise InputError(f"none of the {total} pictures in {root} is usable: {first}{more}. Mend or replace them.")


def _without_copies_of_held_out(
    seen: list[tuple[Place, _Seen]], notes: list[str]
) -> tuple[list[tuple[Place, _Seen]], int]:
    """Drop from train what val or judge holds, and from val what judge holds; count all repeated files."""
    rank = {"judge": 0, "val": 1, None: 2}
    best: dict[str, int] = {}
    domains: dict[str, set[str]] = {}
    for place, found in seen:
        best[found.sha256] = min(best.get(found.sha256, 2), rank[place.given])
        domains.setdefault(found.sha256, set()).add(place.domain)
    kept = [(place, found) for place, found in seen if rank[place.given] == best[found.sha256]]
    if dropped := len(seen) - len(kept):
        notes.append(f"{dropped} pictures are left out of train or val because a held-out split has the same file")
    if both := sum(len(where) > 1 for where in domains.values()):
        notes.append(f"{both} pictures lie in more than one domain")
    return kept, len(seen) - len(best)


def _deal(
    seen: list[tuple[Place, _Seen]],
    root: Path,
    rule: str,
    shares: dict[str, float],
    seed: int,
    notes: list[str],
) -> tuple[tuple[Item, ...], str]:
    """Find the groups and deal the pictures that no folder has given a split."""
    places = [place for place, _ in seen]
    names, domains = [p.name for p in places], [p.domain for p in places]
    hashes = [found.sha256 for _, found in seen]
    thumbs = np.frombuffer(b"".join(found.thumb for _, found in seen), np.uint8).reshape(len(seen), -1)
    groups, group_rule = splits.find_groups(names, [p.inner for p in places], domains, thumbs, rule)
    groups = splits.unite(groups, hashes)

    given = {p.given for p in places} - {None}
    for split in (None, *sorted(given - {None}, key=str)):
        lacking = sorted(set(domains) - {p.domain for p in places if p.given == split})
        if lacking:
            raise InputError(
                f"{root} has no {split or 'train'} pictures for domain {', '.join(lacking)}: give every domain a"
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
    items = tuple(
        Item(
            path=root / place.name,
            name=place.name,
            domain=place.domain,
            group=f"{groups[i]} ({split_of[i]})" if spread[groups[i]] > 1 else groups[i],
            sha256=found.sha256,
            width=found.width,
            height=found.height,
            format=found.format,
            bytes=found.length,
            split=split_of[i],
        )
        for i, (place, found) in enumerate(seen)
    )
    return items, group_rule

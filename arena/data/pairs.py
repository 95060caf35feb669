"""Pairs as data: of each thing two pictures, a and b, which stay together whatever is left out, dealt or drawn.

    A/ B/, or trainA trainB testA testB      two folders with equal names; suffixes may differ
    train/ val/ test/, or one folder         montages: a is the left half, b the right one

Splits, duplicates and bad files as in arena/data/folders.py, a pair at a time. In every split, row i of domain a and
row i of domain b are a pair.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from arena.config import DataConfig
from arena.data import decode, folders
from arena.data.folders import PICTURES, Found, Item, Seen
from arena.data.layouts import Place
from arena.errors import InputError

MONTAGE = (1.8, 2.2)  # width over height of two pictures side by side
SHARES = {"val": 0.1, "judge": 0.2}
RANK = {"judge": 0, "val": 1, None: 2}
HINT = (
    "Pairs are two folders with equal names (A/ B/, or trainA/ trainB/ testA/ testB/), or montages, A left and B "
    "right, twice as wide as high"
)
Files = tuple[tuple[Place, Path], ...]  # of a pair: a's and b's, or the montage


class PairSource:
    """The pairs of a folder as domains a and b; where `config.pairs` is "b2a", the two change places."""

    frames = 1
    domains: tuple[str, ...] = ("a", "b")

    def __init__(self, config: DataConfig, progress: Callable[[int, int], None] | None = None):
        self.config = config
        folder = scan(config, progress)
        self.manifest: list[dict[str, Any]] = folders.manifest_rows(folder)
        self.items = {item.name: item for item in folder.items}
        self.summary: dict[str, Any] = {
            "name": folder.name, "layout": folder.layout, "group_rule": folder.group_rule, "pairs": config.pairs,
            "skipped": len(folder.bad), "bad": [list(bad) for bad in folder.bad], "duplicates": folder.duplicates,
            "ignored": folder.ignored, "notes": list(folder.notes), "resize": config.resize,
        }  # fmt: skip

    def images(self, rows: list[dict[str, Any]]) -> Iterator[Tensor]:
        items = [self.items[row["name"]] for row in rows]
        return folders.load(items, self.config.size, resize=self.config.resize)


def scan(config: DataConfig, progress: Callable[[int, int], None] | None = None) -> folders.Folder:
    """Read every pair of `config.source` once and give it a group and a split; the items are a, b, a, b ...

    Raises InputError for a folder that holds no pairs, for names without a partner, for too many bad pairs, and for too
    few to split.
    """
    found = folders.gather(config.source, config.group)
    folders.check_any(found, PICTURES)
    domains, notes = {place.domain for place, _ in found.places}, found.notes
    if domains == {"a", "b"}:
        layout, pairs = f"pairs by name: {found.layout}", by_name(found)
    elif domains == {"all"}:
        layout, pairs = f"montages: {found.layout}", [(one,) for one in found.places]
    else:
        raise InputError(f"{found.name} holds {len(domains)} folders of pictures and no pairs. {HINT}.")

    files = [file for pair in pairs for file in pair]
    results = decode.in_threads(partial(folders.examine, config.max_pixels, PICTURES), files, None, ahead=1024)
    seen: list[tuple[Files, tuple[Seen, ...]]] = []
    bad: list[tuple[str, str]] = []
    flat: list[tuple[Files, Seen]] = []
    for done, pair in enumerate(pairs, 1):
        looks = list(islice(results, len(pair)))
        flat += [(pair, look) for look in looks if len(pair) == 1 and isinstance(look, Seen)]
        wrong = [
            (place.name, why) for (place, _), look in zip(pair, looks, strict=True) if (why := unusable(pair, look))
        ]
        if wrong:
            bad.append((folders.printable(wrong[0][0]), wrong[0][1]))
        else:
            seen.append((pair, tuple(look for look in looks if isinstance(look, Seen))))
        if progress is not None:
            progress(done, len(pairs))
    if flat and 2 * sum(beside(look) for _, look in flat) < len(flat):
        (((place, _),), look) = next(some for some in flat if not beside(some[1]))
        raise InputError(f"{found.name} holds no pairs: {place.name} is {look.width} x {look.height} px. {HINT}.")
    folders.check_bad(found.name, bad, len(pairs), config.max_bad, "pairs")

    seen, duplicates = apart(seen, notes)
    whole = [(pair[0][0]._replace(domain="pairs"), joined(looks)) for pair, looks in seen]
    ties = [[look.sha256 for look in side] for side in zip(*(looks for _, looks in seen), strict=True)]
    dealt, rule = folders.deal(whole, found, config.group, SHARES, config.seed, notes, "pairs", ties)
    items = [item for one, (pair, looks) in zip(dealt, seen, strict=True) for item in halves(one, pair, looks)]
    if config.pairs == "b2a":
        items = [replace(item, domain={"a": "b", "b": "a"}[item.domain]) for item in items]
    return folders.Folder(
        found.name, layout, tuple(items), tuple(bad), duplicates, ("a", "b"), rule, found.ignored, tuple(notes)
    )


def by_name(found: Found) -> list[Files]:
    """The files of domains a and b by their common names, in a's order."""
    sides: dict[str, dict[tuple[str | None, str], tuple[Place, Path]]] = {"a": {}, "b": {}}
    for place, path in found.places:
        key, side = (place.given, place.inner.rpartition(".")[0]), sides[place.domain]
        if key in side:
            raise InputError(
                f"{found.name}: {side[key][0].name} and {place.name} bear one name, so their partner is not known. "
                "Rename or delete one."
            )
        side[key] = place, path
    for side, other in ((sides["a"], sides["b"]), (sides["b"], sides["a"])):
        alone = [place.name for key, (place, _) in side.items() if key not in other]
        if alone:
            first = ", ".join(map(folders.printable, alone[:3])) + (" ..." if len(alone) > 3 else "")
            raise InputError(
                f"{found.name}: {len(alone)} of {len(side)} pictures have no partner of their name in the other "
                f"folder: {first}. {HINT}."
            )
    return [(file, sides["b"][key]) for key, file in sides["a"].items()]


def beside(look: Seen) -> bool:
    """Whether a picture may be two, side by side."""
    return MONTAGE[0] <= look.width / look.height <= MONTAGE[1]


def unusable(pair: Files, look: Seen | str) -> str:
    """Why a file is of no use for its pair, or nothing."""
    if isinstance(look, str):
        return look
    if len(pair) == 2:
        return ""
    if look.width % 2:
        return f"its width of {look.width} px is odd: it has no middle"
    return "" if beside(look) else f"{look.width} x {look.height} px are no two pictures side by side"


def apart(
    seen: list[tuple[Files, tuple[Seen, ...]]], notes: list[str]
) -> tuple[list[tuple[Files, tuple[Seen, ...]]], int]:
    """Drop pairs from train (and val) of which a held-out split has one of the files; count pairs there twice."""
    best: dict[str, int] = {}
    for pair, looks in seen:
        for look in looks:
            best[look.sha256] = min(best.get(look.sha256, 2), RANK[pair[0][0].given])
    kept = [(pair, looks) for pair, looks in seen if RANK[pair[0][0].given] == min(best[look.sha256] for look in looks)]
    if dropped := len(seen) - len(kept):
        notes.append(f"{dropped} pairs are left out of train or val because a held-out split has one of their files")
    return kept, len(seen) - len({tuple(look.sha256 for look in looks) for _, looks in seen})


def joined(looks: tuple[Seen, ...]) -> Seen:
    """A pair as one thing to be grouped by its look and its content."""
    first = looks[0]
    return first._replace(sha256=" ".join(look.sha256 for look in looks), thumb=b"".join(look.thumb for look in looks))


def halves(whole: Item, pair: Files, looks: tuple[Seen, ...]) -> Iterator[Item]:
    """a's item and b's."""
    for i, domain in enumerate("ab"):
        (place, path), look = pair[i % len(pair)], looks[i % len(looks)]
        montage = len(pair) == 1
        yield replace(
            whole, path=path, domain=domain, sha256=look.sha256, height=look.height, format=look.format,
            name=f"{place.name} ({('left', 'right')[i]})" if montage else place.name, bytes=look.length,
            width=look.width // 2 if montage else look.width, pair=pair[0][0].name, half=i if montage else None,
        )  # fmt: skip

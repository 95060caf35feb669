"""Does anything but the picture give the label away? What an audit finds in looks at reals and fakes (docs/audit.md).

Only traces of the container may be a leak: what files say from outside, and the grid of blocks that a codec leaves in
the pixels. Colour and spectrum are told as baselines and never stop anything: a generator's pixels may honestly differ.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from arena.data.headers import Header
from arena.findings import EXAMPLES, finding
from arena.metrics import leak
from arena.metrics.grouping import clustered_delong
from arena.metrics.header import folds, log_odds

SCHEMA = 1
LEAK = 0.60  # AUC that the interval of a container's classifier must lie above
LEVEL = 0.95  # of the intervals of all container classifiers together
UNEVEN = 1.5  # classes whose sizes differ by more are told
CONTAINER: dict[str, tuple[str, ...]] = {  # classifiers of headers, the plainest first, and the fields that they see
    "format": ("format", "variant"),
    "dimensions": ("width", "height", "aspect"),
    "colour mode": ("mode", "depth", "colour type"),
    "JPEG quality": ("jpeg",),
    "JPEG coding": ("tables", "subsampling"),
    "codec": ("codec", "profile", "pix_fmt", "coded at", "sound"),
    "frame rate": ("frames/s",),
    "frames": ("frames",),
    "metadata": ("metadata",),
    "writer": ("process", "huffman", "zlib level", "interlaced", "after the end"),
}
UNSEEN = ("frames", "metadata", "writer")  # of what a run has decoded and stored, no pixel tells these
LENGTH = {"file size": ("bytes", "bytes/pixel"), "bit rate": ("kbit/s", "bits/pixel")}
REMEDIES = {
    "format": "write both classes in one format",
    "dimensions": "bring both classes to one size",
    "colour mode": "write both classes in one colour mode",
    "JPEG quality": "write both classes at one JPEG quality",
    "JPEG coding": "write both classes with one JPEG encoder",
    "codec": "code both classes with one codec at one setting",
    "frame rate": "bring both classes to one frame rate",
    "frames": "cut both classes to one length",
    "metadata": "write both classes anew, without metadata",
    "writer": "write both classes with one program",
    "bit rate": "code both classes at one setting",
    "file size": "code both classes at one setting",
    "8x8 grid": "send both classes through one JPEG quality, at one size and without a crop of the finished files",
    "all together": "write both classes anew in one way",
}
CURE = "`arena audit ... --equalise OUT` does it"
LEFT = (
    "equalising did not do it: what is left lies in the pixels. A coarser codec may cover it (`--codec jpeg-75`), else "
    "take both classes from sources of one history"
)


class Score(NamedTuple):
    """A classifier's AUC with its interval."""

    auc: float
    low: float
    high: float


@dataclass
class Looks:
    """N pictures (or videos), and what was seen of them. Fields that were not looked at stay None.

    source: what is of one source has one name; split: train, val or judge, or "" where no folder says; profile: what
    `leak.edges` finds of each, N 2 8, coarse: the same for blocks of 16; small: uint8 N 3 s s.
    given: the fakes were given as files, while those of a run's own generator went through no container of their own;
    stored: what is looked at are pictures as a run has stored them, decoded and of one size.
    """

    names: list[str]
    is_fake: np.ndarray
    source: list[str]
    split: list[str]
    headers: list[Header] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    pixels: list[str] = field(default_factory=list)
    profile: np.ndarray | None = None
    coarse: np.ndarray | None = None
    colour: np.ndarray | None = None
    spectrum: np.ndarray | None = None
    small: np.ndarray | None = None
    given: bool = True
    stored: bool = False


def audit(looks: Looks) -> dict[str, Any]:
    """Everything that can be said of some looks, as plain values (keys: docs/audit.md)."""
    container, baselines, grids = classify(looks)
    found = findings_of(container, grids)
    found += duplicates(looks) + sources(looks) + balance(looks)
    leaks = [entry for entry in found if entry["severity"] == "leak"]
    counts: dict[str, dict[str, int]] = {}
    for split, fake in zip(looks.split, looks.is_fake.tolist(), strict=True):
        counts.setdefault(split or "all", {"real": 0, "fake": 0})["fake" if fake else "real"] += 1
    return {
        "schema": SCHEMA, "counts": counts, "sources": {
            word: len({s for s, f in zip(looks.source, looks.is_fake, strict=True) if bool(f) == label})
            for word, label in (("real", False), ("fake", True))
        },
        "threshold": LEAK, "level": LEVEL, "tried": sum(row["tried"] for row in container), "container": container,
        "baselines": baselines, "grids": grids, "findings": found, "leak": bool(leaks),
        "stops": [row["name"] for row in container if row["severity"] == "leak"],
        "verdict": verdict(leaks, container, looks), "allowed": False,
    }  # fmt: skip


def classify(looks: Looks) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """The classifiers of the container, the baselines, and each class's grid.

    Intervals of the container's classifiers hold at 95 % for all that could tell anything together (Bonferroni: each at
    1 - 0.05 / how many these are), so that one of many is not found by luck.
    """
    is_fake, fold = looks.is_fake, folds(looks.source, looks.is_fake)
    grids: dict[str, Any] = {}
    if fold is None:
        return [], [], grids
    odds: dict[str, np.ndarray] = {}
    fields = {name: [f for f in some if _varies(looks.headers, f)] for name, some in CONTAINER.items()}
    lengths = {name: [f for f in some if _varies(looks.headers, f)] for name, some in LENGTH.items()}
    secret = _strength_is_secret(looks.headers)
    if secret:
        fields |= {name: lengths.pop(name) for name in ("bit rate", "file size") if lengths.get(name)}
        if fields.get("bit rate"):  # of a video, it is the same said better
            fields.pop("file size", None)
    for name, some in fields.items():
        if any(_has(looks.headers, f) for f in CONTAINER.get(name, some)):
            odds[name] = log_odds(looks.headers, is_fake, fold, some)
    tried = {name: bool(fields[name]) for name in odds}
    if looks.profile is not None:
        for label, word in ((False, "real"), (True, "fake")):
            one = leak.grid(looks.profile[is_fake == label])
            grids[word] = {**one._asdict(), "present": one.strength >= leak.PRESENT}
        odds["8x8 grid"] = leak.grid_odds(looks.profile, is_fake, fold)
        tried["8x8 grid"] = bool(np.ptp(odds["8x8 grid"]) > 0)
    stopping = {name for name in odds if name != "8x8 grid" or looks.given}
    if looks.stored:
        stopping -= set(UNSEEN)
    if sum(tried[name] for name in stopping) > 1:
        odds["all together"] = np.sum([odds[name] for name in odds if name in stopping], axis=0)
        tried["all together"] = True
        stopping.add("all together")
    level = 1 - (1 - LEVEL) / max(1, sum(tried[name] for name in stopping))
    rows = []
    for name, score in odds.items():
        if name in stopping:
            told = _score(score, looks, level)
            rows.append({
                "name": name, **told._asdict(), "tried": tried[name], "severity": "fine", "fields": _fields(looks, name)
            })  # fmt: skip
    _judge(rows, grids, looks)
    baselines = {name: odds[name] for name in odds if name not in stopping and tried[name]}
    if looks.coarse is not None and np.ptp(looks.coarse) > 0:
        baselines["16x16 grid of chroma"] = leak.logistic(
            leak.contrast(looks.coarse)[..., :8].reshape(len(fold), -1), is_fake, fold
        )
    for name, features in (("mean and variance, saturation", looks.colour), ("spectrum", looks.spectrum)):
        if features is not None:
            baselines[name] = leak.logistic(features, is_fake, fold)
    baselines |= {name: log_odds(looks.headers, is_fake, fold, some) for name, some in lengths.items() if some}
    return rows, [{"name": name, **_score(s, looks, LEVEL)._asdict()} for name, s in baselines.items()], grids


def _judge(rows: list[dict[str, Any]], grids: Mapping[str, Any], looks: Looks) -> None:
    """Say of each classifier whether it is a leak."""
    for row in rows:
        if row["low"] > LEAK:
            of_pixels = row["name"] == "8x8 grid"
            row["severity"] = "leak" if not of_pixels else "warning" if looks.stored else _grid_severity(grids)
    above = [row for row in rows if row["low"] > LEAK and row["name"] != "all together"]
    if above and not any(row["severity"] == "leak" for row in above):  # nothing but a grid that may be the content's
        for row in rows:
            if row["name"] == "all together" and row["severity"] == "leak":
                row["severity"] = "warning"


def _grid_severity(grids: Mapping[str, Any]) -> str:
    """A grid that the reals alone have, or that lies elsewhere in the fakes, is a leak, or of fakes alone at (0, 0).

    Fakes alone with a grid that does not start at the corner: up-sampling nets make such ones. Grids at one place: how
    strong each is, and how surely it is seen, depends on what the pictures show; smooth fakes show it more.
    """
    real, fake = grids["real"], grids["fake"]
    if real["present"] and fake["present"]:
        return "leak" if _place(real) != _place(fake) else "warning"
    return "leak" if real["present"] or _place(fake) == (0, 0) else "warning"


def _place(grid: Mapping[str, Any]) -> tuple[int, int]:
    return grid["column"], grid["row"]


def findings_of(container: Sequence[Mapping[str, Any]], grids: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A finding for each classifier that tells the classes apart, the strongest first."""
    told = [row for row in container if row["severity"] != "fine"]
    alone = [row for row in told if row["name"] != "all together"]
    found = []
    for row in sorted(alone or told, key=lambda row: (row["severity"] != "leak", -round(row["auc"], 2))):
        text = f"{row['name']} alone tells fakes from reals, {_auc(row)}"
        if row["name"] == "8x8 grid":
            text += f": {_grids(grids)}"
            if row["severity"] == "warning":
                text += (
                    ". It may be the content's, or an up-sampling net's: no leak by itself"
                    if _place(grids["real"]) != _place(grids["fake"]) or not grids["real"]["present"]
                    else ". Of grids of one place and strength, that is the content's doing: no leak by itself"
                )
        elif row["fields"]:
            told_by = _telling(row)
            text += f": fakes are {told_by['fake']}, reals are {told_by['real']}"
        found.append(finding("container", row["severity"], text, f"{REMEDIES[row['name']]}: {CURE}", name=row["name"]))
    return found


def _telling(row: Mapping[str, Any]) -> dict[str, str]:
    """The first field that is described differently, by its name where that says more than its values."""
    for name, sides in row["fields"].items():
        if sides["real"] != sides["fake"]:
            plain = name in ("format", "metadata", "mode", "codec")
            return {side: sides[side] or f"without {name}" if plain else f"{name} {sides[side]}" for side in sides}
    return {"real": "the same", "fake": "the same"}


def _grids(grids: Mapping[str, Any]) -> str:
    said = {
        word: f"blocks from ({g['column']}, {g['row']}), strength {g['strength']:.1f}" if g["present"] else "no grid"
        for word, g in grids.items()
    }
    return f"fakes have {said['fake']}, reals have {said['real']}"


def duplicates(looks: Looks) -> list[dict[str, Any]]:
    """The same bytes and the same pixels, between classes, between splits and within a class; then look-alikes."""
    from arena.audit_pairs import near_duplicates

    found: list[dict[str, Any]] = []
    told: set[frozenset[int]] = set()
    for what, keys in (("bytes", looks.sha256), ("pixels", looks.pixels)):
        where: dict[str, list[int]] = {}
        for i, key in enumerate(keys):
            if key:
                where.setdefault(key, []).append(i)
        pairs: dict[str, list[tuple[int, int]]] = {"classes": [], "splits": [], "within": []}
        for same in where.values():
            for i in same[1:]:
                if frozenset((same[0], i)) in told:
                    continue
                told.add(frozenset((same[0], i)))
                first = next((j for j in same if looks.is_fake[j] != looks.is_fake[i]), None)
                other = next((j for j in same if looks.split[j] != looks.split[i]), None)
                kind = "classes" if first is not None else "splits" if other is not None else "within"
                pairs[kind].append((first if first is not None else other if other is not None else same[0], i))
        for kind, some in pairs.items():
            if some:
                found.append(_duplicate(looks, what, kind, some))
    return found + near_duplicates(looks)


def _duplicate(looks: Looks, what: str, kind: str, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    between = {"classes": "in both classes", "splits": "in two splits", "within": "twice in a class"}[kind]
    remedy = {
        "classes": "take them out of one class: a picture cannot be both",
        "splits": "take them out of the training split",
        "within": "keep one of each",
    }[kind]
    severity = "leak" if looks.given and kind in ("classes", "splits") else "warning"
    return finding(
        "duplicates", severity, f"{len(pairs)} with the same {what} {between}", remedy, name=f"{what}, {kind}",
        count=len(pairs), examples=[f"{looks.names[i]} = {looks.names[j]}" for i, j in pairs[:EXAMPLES]],
    )  # fmt: skip


def sources(looks: Looks) -> list[dict[str, Any]]:
    """Sources that lie in several splits."""
    held: dict[tuple[bool, str], dict[str, str]] = {}
    for name, fake, source, split in zip(looks.names, looks.is_fake, looks.source, looks.split, strict=True):
        held.setdefault((bool(fake), source), {}).setdefault(split, name)
    torn = [splits for splits in held.values() if len(splits) > 1]
    if not torn:
        return []
    examples = [" and ".join(f"{name} ({split})" for split, name in splits.items()) for splits in torn[:EXAMPLES]]
    remedy = "split by source: give one folder without splits, or move what is of one source into one split"
    text = f"{len(torn)} sources lie in several splits"
    return [finding("sources", "warning", text, remedy, count=len(torn), examples=examples)]


def balance(looks: Looks) -> list[dict[str, Any]]:
    """Splits in which the classes' sizes differ, and classes that are missing."""
    found = []
    count = Counter(zip(looks.split, looks.is_fake.tolist(), strict=True))
    for split in dict.fromkeys(looks.split):
        real, fake = count[split, False], count[split, True]
        if max(real, fake) > UNEVEN * min(real, fake):
            text = f"{real:,} reals and {fake:,} fakes{f' in {split}' if split else ''}"
            remedy = "give equal numbers, or read AP and accuracy with that share in mind"
            found.append(finding("balance", "warning", text, remedy, name=split))
    return found


def verdict(leaks: Sequence[Mapping[str, Any]], container: Sequence[Mapping[str, Any]], looks: Looks) -> str:
    """One sentence: the worst leak and its remedy, or that there is none."""
    if leaks:
        rest = len(leaks) - 1
        more = f" ({rest} more among the findings)" if rest else ""
        first = leaks[0]
        return f"leak: {first['text']}{more}. Remedy: {first['remedy']}."
    if not container and looks.stored and not looks.given:
        return "no leak: reals and the run's own fakes took one way; what the grid tells stands among the baselines."
    if not container:
        return "no verdict: too few sources in a class to learn anything from (two are the least)."
    n = min(int(looks.is_fake.sum()), int((~looks.is_fake).sum()))
    known = [row for row in container if row["tried"]]
    if not known:
        return "no leak: both classes look exactly alike from outside."
    top = max(known, key=lambda row: row["auc"])
    few = " With so few files only a gross leak would show." if n < 50 else ""
    tried = (
        "the one look at the container that differs is"
        if len(known) == 1
        else (f"of {len(known)} looks at the container that differ the best is")
    )
    return f"no leak: {tried} {top['name']}, {_auc(top)}.{few}"


def _score(odds: np.ndarray, looks: Looks, level: float) -> Score:
    names = np.array(looks.source, dtype=object)
    real, fake = ~looks.is_fake, looks.is_fake
    return Score(*clustered_delong(odds[real], odds[fake], names[real].tolist(), names[fake].tolist(), level))


def _auc(row: Mapping[str, Any]) -> str:
    return f"AUC {row['auc']:.2f} ({row['low']:.2f}–{row['high']:.2f})"


def _fields(looks: Looks, name: str) -> dict[str, dict[str, str]]:
    some = CONTAINER.get(name, LENGTH.get(name, ()))
    sides = {
        word: [h for h, fake in zip(looks.headers, looks.is_fake, strict=True) if bool(fake) == label]
        for word, label in (("real", False), ("fake", True))
    }
    return {
        f: {word: described([h[f] for h in side if f in h]) for word, side in sides.items()}
        for f in some if _has(looks.headers, f)
    }  # fmt: skip


def described(values: Sequence[str | int | float]) -> str:
    """A field of many files in a few words: its values where they are few, else its range and median."""
    count = Counter(values)
    if len(count) <= 3:
        return ", ".join(f"{v} ({n:,})" if len(count) > 1 else f"{v}" for v, n in count.most_common())
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) < len(values):
        return f"{len(count)} different"
    return f"{min(numbers):g} to {max(numbers):g}, median {float(np.median(numbers)):g}"


def _has(headers: Sequence[Header], name: str) -> bool:
    return any(name in header for header in headers)


def _varies(headers: Sequence[Header], name: str) -> bool:
    return len({header.get(name, "") for header in headers}) > 1


def _strength_is_secret(headers: Sequence[Header]) -> bool:
    """Whether files do not say how strongly they are compressed: then their length is all that tells it.

    A JPEG's tables say it, and a PNG is lossless; a lossy WEBP and most videos do not (x264's own do, unless stripped).
    """
    return any(
        header.get("variant") == "lossy" or ("frames/s" in header and not header.get("coded at")) for header in headers
    )

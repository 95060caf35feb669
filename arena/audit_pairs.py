"""Look-alikes between reals and fakes, and between splits: near-duplicates that no hash finds."""

from typing import TYPE_CHECKING, Any

import numpy as np

from arena.findings import EXAMPLES, finding

if TYPE_CHECKING:
    from arena.audit import Looks

MOST = 200  # pictures of a side that are compared
FEWEST = 20  # honest pairs that a threshold is taken from


def near_duplicates(looks: "Looks") -> list[dict[str, Any]]:
    """Findings: pictures of one class, or split, that are lightly edited copies of the other's.

    How near is too near is learnt from pictures that certainly are none: half of the sources against the other half.
    Of given fakes alone the classes are compared: what a translator makes of a real is near it by its nature.
    """
    if looks.small is None:
        return []
    splits = list(dict.fromkeys(looks.split))
    found = []
    if looks.given:
        found += _between(looks, _some(~looks.is_fake), _some(looks.is_fake), "classes")
    if len(splits) > 1:
        train = np.array([split == splits[0] for split in looks.split])
        wanted = np.ones(len(train), bool) if looks.given else ~looks.is_fake
        found += _between(looks, _some(train & wanted), _some(~train & wanted), "splits")
    return found


def _some(mask: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(mask)
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).astype(int))] if len(rows) else rows


def _between(looks: "Looks", bank: np.ndarray, asked: np.ndarray, kind: str) -> list[dict[str, Any]]:

    from arena.metrics.copies import honest_threshold, nearest_images

    if not len(bank) or not len(asked):
        return []
    places = {source: i for i, source in enumerate(dict.fromkeys(looks.source[i] for i in bank))}
    odd = np.array([places[looks.source[i]] % 2 == 1 for i in bank])
    if min(odd.sum(), (~odd).sum()) < FEWEST:
        return []
    small = looks.small
    assert small is not None
    limit = honest_threshold(nearest_images(small[bank[odd]], small[bank[~odd]])[0])
    distance, nearest, _ = nearest_images(small[asked], small[bank])
    pairs = [
        (int(bank[nearest[i]]), int(asked[i]))
        for i in np.flatnonzero(distance <= limit)
        if not (looks.pixels and looks.pixels[bank[nearest[i]]] == looks.pixels[asked[i]])
    ]
    # of the honest, up to 1 in 100 are as near
    if len(pairs) <= max(1, 0.02 * len(asked)):
        return []
    between = {"classes": "fakes are look-alikes of reals", "splits": "held-out pictures are look-alikes of train"}
    text = f"{len(pairs)} of {len(asked)} {between[kind]}"
    remedy = "look at the pairs; what is of one source belongs into one split (--group), and into one class"
    names = [f"{looks.names[i]} ~ {looks.names[j]}" for i, j in pairs[:EXAMPLES]]
    return [finding("near-duplicates", "warning", text, remedy, name=kind, count=len(pairs), examples=names)]

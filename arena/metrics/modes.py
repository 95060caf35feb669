"""How many of the known modes (people, classes) the fakes show, where every training image's mode is known.

A fake is given the mode of its nearest training image. How often that rule is right is measured on reals whose mode is
known, and stands beside the count: a rule that is often wrong invents modes, so below `ENOUGH` there is no count, and a
mode counts only where more fakes fall on it than the rule's mistakes would explain.

Measured on the embedded faces at 64 px (200 training images, 150 held-out ones, `appearance`): the right person of 2 in
99 of 100 reals, of 5 in 95, of 10 in 71 (no count), the hair of the fair and the dark in 90.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom
from torch import Tensor

from arena.metrics import copies
from arena.metrics.kernel import checked
from arena.metrics.shares import wilson

ENOUGH = 0.8  # of held-out reals whose mode the rule names rightly


def appearance(images: Tensor) -> Tensor:
    """What neighbours are looked for in: colours at 8 and 16 px (arena/metrics/copies.py). N 3 S S -> N 960."""
    return torch.cat([copies.describe(part) for part in images.cpu().split(512)])


def mode_count(
    fakes: ArrayLike,
    known: ArrayLike,
    labels: Sequence[Any],
    held: ArrayLike | None = None,
    held_labels: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Modes that the fakes (features, N x d) show, of those of the known rows (M x d, with a label each).

    `held` (H x d) and its labels are reals to measure the rule on; without them it is each known row in turn. Keys:
    `value`, `floor` (the count among the reals measured on, at most N of them) and its `floor_n`, `n`, `of` (modes
    known), `accuracy` with `accuracy_low` and `accuracy_high` (Wilson), `chance` (always naming the commonest mode),
    `n_known`, `better`, `shares` (of the fakes, by mode). Where the rule is wrong too often `value` is None and
    `left_out` says why.
    """
    rows = checked(known, np.dtype(np.float64))
    names, mode = np.unique(np.asarray(labels), return_inverse=True)
    if len(labels) != len(rows) or len(names) < 2:
        raise ValueError(f"expected {len(rows)} labels of at least 2 modes, got {len(labels)} of {len(names)}.")

    def nearest(x: ArrayLike, itself: bool = False) -> NDArray[np.int64]:
        asked = checked(x, np.dtype(np.float64))
        far = (rows**2).sum(1) - 2 * asked @ rows.T
        if itself:
            np.fill_diagonal(far, np.inf)
        return mode[far.argmin(1)]

    given = nearest(rows, itself=True) if held is None else nearest(held)
    right = names[given] == np.asarray(labels if held is None else held_labels)
    accuracy, low, high = wilson(int(right.sum()), len(right))
    told = {
        "of": len(names), "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high,
        "chance": float(np.bincount(mode).max() / len(mode)), "n_known": len(rows), "better": "higher",
    }  # fmt: skip
    if accuracy < ENOUGH:
        why = f"the nearest training image names the mode of only {accuracy:.0%} of {len(right)} reals rightly"
        return {"value": None, **told, "left_out": why}

    def count(found: NDArray[np.int64]) -> int:
        by_mistake = binom.isf(0.05 / len(names), len(found), (1 - low) / (len(names) - 1))  # of one mode
        return int((np.bincount(found, minlength=len(names)) > by_mistake).sum())

    found = nearest(fakes)
    shares = np.bincount(found, minlength=len(names)) / len(found)
    return {
        "value": count(found),
        "floor": count(np.random.default_rng(0).permutation(given)[: len(found)]),
        "floor_n": min(len(given), len(found)),
        "n": len(found),
        **told,
        "shares": {str(name): float(share) for name, share in zip(names, shares, strict=True)},
    }

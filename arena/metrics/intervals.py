"""How far a distance would move with other images: the block jackknife.

The fakes are cut into K consecutive blocks, in their given order so that near-duplicates (frames of a clip) stay
together, and each block is left out in turn. Of a Fréchet distance the reference is held fixed; KID's interval leaves
out the reals' blocks, too, and so covers both sides. The interval speaks of the distance *at this N*: it does not cover
the upward bias that a Fréchet distance has at small N, which is what the real-against-real floor is for.
"""

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

if TYPE_CHECKING:
    from arena.metrics.frechet import Reference
    from arena.metrics.kernel import KernelReference

Interval = tuple[float, float | None, float | None]  # value, low, high; None where the data set no bounds

_STILL = 1e-6  # values that differ by less than this share of themselves differ by rounding


def cut(n: int, blocks: int = 10) -> list[slice]:
    """`n` rows as at most `blocks` consecutive slices whose sizes differ by one at most. Needs n >= 3."""
    if n < 3:
        raise ValueError(f"an interval needs at least 3 images, got {n}.")
    edges = np.linspace(0, n, min(blocks, n) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def jackknife(value: float, *without: ArrayLike, level: float = 0.95) -> Interval:
    """(value, low, high) from the values without each of K blocks, for each side whose blocks are left out.

    The sides' variances add up; Student's t with K - 1 degrees of freedom, of several sides with Welch's. Where leaving
    out any block of a side leaves the value as it is, nothing is known of how that side varies: low and high are None.

    Source: Quenouille 1956, Tukey 1958: variance = (K - 1) / K times the squared deviations of the K values; of two
    samples the sum, Arvesen 1969.
    """
    variances, freedom = [], []
    for values in (np.asarray(side, dtype=np.float64) for side in without):
        if np.ptp(values) <= _STILL * np.abs(values).max():
            return value, None, None
        k = len(values)
        variances.append((k - 1) / k * np.sum((values - values.mean()) ** 2))
        freedom.append(k - 1)
    total = sum(variances)
    degrees = total**2 / sum(v**2 / f for v, f in zip(variances, freedom, strict=True))
    reach = float(stdtrit(degrees, (1 + level) / 2) * np.sqrt(total))
    return value, value - reach, value + reach


def clipped(interval: Interval, least: float, most: float = math.inf) -> Interval:
    """The interval with its bounds, where it has any, from `least` to `most`."""
    value, low, high = interval
    return value, None if low is None else max(least, low), None if high is None else min(most, high)


def frechet_interval(reference: "Reference", features: ArrayLike, blocks: int = 10) -> Interval:
    """Fréchet distance of features (N x d, N >= 3) to a reference: (value, low, high), low never below 0."""
    rows = np.asarray(features, dtype=np.float64)
    return clipped(jackknife(reference.distance(rows), reference.leave_out(rows, cut(len(rows), blocks))), 0.0)


def kernel_interval(reference: "KernelReference", features: ArrayLike, blocks: int = 10) -> Interval:
    """KID of features (N x d, N >= 3) to a reference (N >= 3): (value, low, high); all three may be negative."""
    rows = np.asarray(features)
    return jackknife(*reference.jackknife(rows, cut(len(rows), blocks)))

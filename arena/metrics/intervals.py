"""How far a distance would move with other fakes: the block jackknife, the reference held fixed.

The fakes are cut into K consecutive blocks, in their given order so that near-duplicates (frames of a clip) stay
together, and each block is left out in turn. The interval speaks of the distance *at this N*: it does not cover the
upward bias that a Fréchet distance has at small N, which is what the real-against-real floor is for.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from arena.metrics.frechet import Reference
from arena.metrics.kernel import KernelReference

Interval = tuple[float, float, float]


def cut(n: int, blocks: int = 10) -> list[slice]:
    """`n` rows as at most `blocks` consecutive slices whose sizes differ by one at most. Needs n >= 3."""
    if n < 3:
        raise ValueError(f"an interval needs at least 3 images, got {n}.")
    edges = np.linspace(0, n, min(blocks, n) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def jackknife(value: float, without: ArrayLike, level: float = 0.95) -> Interval:
    """(value, low, high) from the values without each of K blocks: Student's t with K - 1 degrees of freedom.

    Source: Quenouille 1956, Tukey 1958: variance = (K - 1) / K times the squared deviations of the K values.
    """
    values = np.asarray(without, dtype=np.float64)
    k = len(values)
    error = np.sqrt((k - 1) / k * np.sum((values - values.mean()) ** 2))
    reach = float(stdtrit(k - 1, (1 + level) / 2) * error)
    return value, value - reach, value + reach


def frechet_interval(reference: Reference, features: ArrayLike, blocks: int = 10) -> Interval:
    """Fréchet distance of features (N x d, N >= 3) to a reference: (value, low, high), low never below 0."""
    rows = np.asarray(features, dtype=np.float64)
    value, low, high = jackknife(reference.distance(rows), reference.leave_out(rows, cut(len(rows), blocks)))
    return value, max(0.0, low), high


def kernel_interval(reference: KernelReference, features: ArrayLike, blocks: int = 10) -> Interval:
    """KID of features (N x d, N >= 3) to a reference: (value, low, high); all three may be negative."""
    rows = np.asarray(features)
    return jackknife(*reference.jackknife(rows, cut(len(rows), blocks)))

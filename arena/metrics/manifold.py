"""Do the fakes lie where the reals lie, and everywhere there: precision and recall, density and coverage.

A real's ball reaches to its k-th nearest other real, a fake's to its k-th nearest other fake; borders belong to it.

    precision = share of the fakes inside some real's ball      recall   = share of the reals inside some fake's ball
    density   = mean over the fakes of (real balls it is in) / k
    coverage  = share of the reals whose own ball holds a fake

Precision and recall: Kynkäänniemi et al. 2019 (arXiv 1904.06991, k = 3). Density and coverage: Naeem et al. 2020 (arXiv
2002.09797, k = 5), which one far real or one far fake cannot carry as it can the first two. For fakes drawn as the
reals are, density is 1 on average and coverage `expected_coverage`; density has no upper end.

N = number of reals, M = number of fakes, d = number of features. Distances are exact, in float64.
"""

from collections.abc import Iterator
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arena.metrics.detection import clopper_pearson
from arena.metrics.intervals import Interval, clipped, cut, jackknife
from arena.metrics.kernel import checked
from arena.metrics.shares import wilson

_CELLS = 1 << 22  # of a distance matrix at a time: 32 MB
_SAME = 1e-12  # squared distances below this share of the squared norms are rounding: the rows are equal

Floats = NDArray[np.float64]


def manifold_scores(
    real: ArrayLike, fake: ArrayLike, k: int = 5, k_pr: int = 3, blocks: int = 10
) -> dict[str, Interval]:
    """Precision, recall (both with `k_pr`), density and coverage (both with `k`), each as (value, low, high) at 95 %.

    real: N x d, fake: M x d. The intervals say how far a figure would move with other fakes of the same generator; the
    reals, and how many fakes there are, are held fixed. Precision, a share of independent fakes then, has Wilson's; the
    others the block jackknife's over the fakes. Where leaving out any block leaves a figure as it is, recall and
    coverage have Clopper-Pearson's of min(N, M) trials, and density None. Raises ValueError for other shapes, NaN,
    infinity, or too few rows for the neighbours wanted.
    """
    reals, fakes = (checked(features, np.dtype(np.float64)) for features in (real, fake))
    if reals.shape[1] != fakes.shape[1]:
        raise ValueError(f"expected features of {reals.shape[1]} dimensions on both sides, got {fakes.shape[1]}.")
    n, m = len(reals), len(fakes)
    if not (1 <= max(k, k_pr) < n and min(k, k_pr) >= 1):
        raise ValueError(f"k: expected neighbours from 1 to {n - 1} for {n} reals, got {k} and {k_pr}.")
    parts = cut(m, blocks)
    if m - max(part.stop - part.start for part in parts) <= k_pr:
        raise ValueError(f"expected at least {k_pr + 2} fakes for {k_pr} neighbours with an interval, got {m}.")
    middle = reals.mean(0)
    reals, fakes = reals - middle, fakes - middle  # small norms: the expanded squares keep their digits

    near_reals = np.concatenate([np.sort(_smallest(far, max(k, k_pr)), 1) for _, far in _between(reals, reals, True)])
    reach, reach_pr = near_reals[:, k - 1], near_reals[:, k_pr - 1]
    fake_reaches = _reaches_without(fakes, parts, k_pr)

    balls, inside = np.zeros(m), np.zeros(m, bool)
    covered = np.zeros((n, len(parts)), bool)
    recalled = np.zeros((n, 1 + len(parts)), bool)
    for rows, far in _between(reals, fakes):
        holds = far <= reach[rows, None]
        balls += holds.sum(0)
        covered[rows] = np.logical_or.reduceat(holds, [part.start for part in parts], axis=1)
        inside |= (far <= reach_pr[rows, None]).any(0)
        for i, reaches in enumerate(fake_reaches):
            recalled[rows, i] = (far <= reaches).any(1)

    blocks_covering = covered.sum(1, keepdims=True)
    recalls = recalled.mean(0)
    total, sums = balls.sum() / k, np.array([balls[part].sum() / k for part in parts])
    left = m - np.array([part.stop - part.start for part in parts])
    density = jackknife(float(total / m), (total - sums) / left)
    return {
        "precision": wilson(int(inside.sum()), m),
        "recall": _share(float(recalls[0]), recalls[1:], min(n, m)),
        "density": clipped(density, 0.0),
        "coverage": _share(float(np.mean(blocks_covering > 0)), (blocks_covering > covered).mean(0), min(n, m)),
    }


def expected_coverage(n_real: int, n_fake: int, k: int = 5) -> float:
    """Mean coverage of fakes drawn from the reals' own distribution (continuous, in any dimension): Naeem 2020, 4.2.

    A ball stays empty where the k nearest of the other N - 1 + M images are all real. 0.97 for N = M, k = 5.
    """
    return 1 - prod((n_real - i) / (n_real + n_fake - i) for i in range(1, k + 1))


def _between(x: Floats, y: Floats, own: bool = False) -> Iterator[tuple[slice, Floats]]:
    """Squared distances from some rows of x to all of y at a time, with the slice of those rows.

    With `own`, y is x and a row is infinitely far from itself.
    """
    norms_x, norms_y = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
    step = max(1, _CELLS // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        norms = norms_x[rows, None] + norms_y
        far = x[rows] @ y.T
        far *= -2
        far += norms
        norms *= _SAME
        far[far < norms] = 0
        if own:
            far[np.arange(len(far)), np.arange(rows.start, rows.stop)] = np.inf
        yield rows, far


def _smallest(far: Floats, k: int) -> Floats:
    """The k smallest of each row, in no order; infinity where there are not so many."""
    if far.shape[1] > k:
        return np.partition(far, k - 1, axis=1)[:, :k]
    return np.pad(far, ((0, 0), (0, k - far.shape[1])), constant_values=np.inf)


def _reaches_without(fake: Floats, parts: list[slice], k: int) -> Floats:
    """Squared radii of the fakes' balls among all fakes, then without each part (whose own fakes get no ball)."""
    near = np.concatenate(
        [np.stack([_smallest(far[:, part], k) for part in parts], 1) for _, far in _between(fake, fake, True)]
    )
    reaches = [near.reshape(len(near), -1)]
    reaches += [np.delete(near, i, axis=1).reshape(len(near), -1) for i in range(len(parts))]
    radii = np.stack([np.partition(row, k - 1, axis=1)[:, k - 1] for row in reaches])
    for i, part in enumerate(parts):
        radii[1 + i, part] = -1
    return radii


def _share(value: float, without: Floats, trials: int) -> Interval:
    if np.ptp(without) == 0:
        return value, *clopper_pearson(value, trials, 0.95)
    return clipped(jackknife(value, without), 0.0, 1.0)

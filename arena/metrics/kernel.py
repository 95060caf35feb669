"""The kernel distance (KID): exact, unbiased, over all pairs, with no random subsets.

    KID = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),   k(x, y) = (x.y / d + 1)^3

The U-statistic of Binkowski et al. 2018 (arXiv 1801.01401, section 4). Its mean does not depend on N, so that sets of a
few hundred images can be compared; sampling noise may make it negative. It does not see how many distinct images there
are (100 fakes, ten times each, look like 1000): keep a Fréchet distance beside it.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from arena.metrics.intervals import cut

_ROWS = 2048  # of a kernel matrix at a time: bounds memory at 32 MB a block

Sums = NDArray[np.float64]


class KernelReference:
    """The reference side: N x d features whose own kernel sums are computed once.

    Features are multiplied in `dtype` and summed in float64. float64 is the default; float32 is about twice as fast and
    moves the KID of 200 and more images by 1e-5 of itself or less, but by more where features are far from 0 (4e-4
    where their mean is ten times their spread). `blocks`: into how many slices the rows are cut for the jackknife.
    """

    def __init__(self, features: ArrayLike, dtype: DTypeLike = np.float64, blocks: int = 10):
        self.dtype = np.dtype(dtype)
        self.features = checked(features, self.dtype)
        self.n = len(self.features)
        self.blocks = cut(self.n, blocks) if self.n > 2 else [slice(0, self.n)]

    @cached_property
    def pairs(self) -> Sums:
        """The sums of k within and between its own blocks, see `_block_sums`."""
        return _block_sums(self.features, self.blocks)

    def distance(self, features: ArrayLike) -> float:
        """KID to other features (M x d, M >= 2)."""
        other = self._checked(features)
        whole = [slice(0, len(other))]
        inside, between = _block_sums(other, whole), self._across(other, whole)
        return float(_kid(self.pairs.sum(), self.n, inside.sum(), len(other), between.sum()))

    def jackknife(self, features: ArrayLike, blocks: list[slice]) -> tuple[float, Sums, Sums]:
        """KID to other features, the KIDs without each of their blocks in turn, and those without each of its own.

        `blocks` cut all rows into consecutive slices. Each pair of rows is visited once for all of them. ValueError
        where the reference has fewer than 3 rows.
        """
        other = self._checked(features)
        if self.n < 3:
            raise ValueError(f"an interval needs at least 3 images, got {self.n} in the reference.")
        pairs, across = _block_sums(other, blocks), self._across(other, blocks)
        own, n, inside, m, between = self.pairs.sum(), self.n, pairs.sum(), len(other), across.sum()
        without = _kid(own, n, inside - _parts(pairs), m - _sizes(blocks), between - across.sum(1))
        own_rest, n_rest = own - _parts(self.pairs), n - _sizes(self.blocks)
        without_own = _kid(own_rest, n_rest, inside, m, between - across.sum(0))
        return float(_kid(own, n, inside, m, between)), without, without_own

    def _across(self, other: NDArray, blocks: list[slice]) -> Sums:
        """[a, b]: the sum of k over all pairs of a row in the other's block a and a row in its own block b."""
        return np.array([[_cross_sum(other[a], self.features[b]) for b in self.blocks] for a in blocks])

    def _checked(self, features: ArrayLike) -> NDArray:
        other = checked(features, self.dtype)
        if other.shape[1] != self.features.shape[1]:
            raise ValueError(f"expected features of {self.features.shape[1]} dimensions, got {other.shape[1]}.")
        return other


def kid(real: ArrayLike, fake: ArrayLike, dtype: DTypeLike = np.float64) -> float:
    """Kernel distance between two sets of features, N x d and M x d (N, M >= 2)."""
    return KernelReference(real, dtype).distance(fake)


def checked(features: ArrayLike, dtype: np.dtype) -> NDArray:
    rows = np.asarray(features, dtype=dtype)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"expected features of shape N x d with N >= 2, got shape {rows.shape}.")
    if not np.isfinite(rows).all():
        raise ValueError(f"features hold NaN or infinity in {np.sum(~np.isfinite(rows).all(1))} of {len(rows)} rows.")
    return rows


def _kid(own: Any, n: Any, inside: Any, m: Any, between: Any) -> Any:
    """From the sums of k among the n rows of the reference, among the m others, and between both; of arrays, each."""
    return own / (n * (n - 1)) + inside / (m * (m - 1)) - 2 * between / (n * m)


def _sizes(blocks: list[slice]) -> NDArray[np.int64]:
    return np.array([block.stop - block.start for block in blocks])


def _parts(pairs: Sums) -> Sums:
    """What each block takes part in, of `_block_sums`: its row and its column, itself counted once."""
    return pairs.sum(0) + pairs.sum(1) - np.diag(pairs)


def _kernel(x: NDArray, y: NDArray) -> NDArray:
    product = x @ y.T
    product /= x.shape[1]
    product += 1
    return product * product * product  # product**3 goes through pow, ten times slower


def _cross_sum(x: NDArray, y: NDArray) -> float:
    """Sum of k over all pairs of a row of x and a row of y."""
    starts = [(i, j) for i in range(0, len(x), _ROWS) for j in range(0, len(y), _ROWS)]
    return sum(float(_kernel(x[i : i + _ROWS], y[j : j + _ROWS]).sum(dtype=np.float64)) for i, j in starts)


def _block_sums(x: NDArray, blocks: list[slice]) -> Sums:
    """Upper triangle: [a, b] is the sum of k over the pairs between blocks a and b, in both orders, i = j left out."""
    sums = np.zeros((len(blocks), len(blocks)))
    for a, block in enumerate(blocks):
        rows = x[block]
        for i in range(0, len(rows), _ROWS):
            piece = rows[i : i + _ROWS]
            square = _kernel(piece, piece)
            sums[a, a] += square.sum(dtype=np.float64) - np.trace(square, dtype=np.float64)
            sums[a, a] += 2 * _cross_sum(piece, rows[i + _ROWS :])
        for b in range(a + 1, len(blocks)):
            sums[a, b] = 2 * _cross_sum(rows, x[blocks[b]])
    return sums

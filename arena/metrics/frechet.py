"""The Fréchet distance between two sets of features, exact and in float64, without a matrix square root.

    FD = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)                       (Dowson and Landau 1982)

Write S = F' F with any factor F (k x d): the thin one, the centred features, for N <= d; else Cholesky's; else, for a
singular matrix, the eigenvectors'. The last trace is the sum of the singular values of F_1 F_2', which the symmetric
matrix F_1 S_2 F_1' has as the roots of its eigenvalues. It is real, never negative, and k x k with the smaller k of the
two sides (low-rank form: Mathiasen and Hvilshøj 2020, arXiv 2009.14075). Nothing is added to a diagonal.

N = number of images, d = number of features.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import blas

Matrix = NDArray[np.floating[Any]]

_TOLERANCE = 1e-6  # a relative error of the distance that may reach this (bound; seen: 100 times less) is not accepted


class Reference:
    """One side of the distance: mean and covariance, each costly part computed once, when first needed.

    `Reference(features)` for N x d features (arrays or CPU tensors, N >= 2; one image is one row);
    `Reference.from_statistics(mean, covariance)` for ready-made ones. ValueError for other shapes, NaN or infinity.
    """

    def __init__(self, features: ArrayLike):
        rows = np.asarray(features, dtype=np.float64)
        if rows.ndim != 2 or len(rows) < 2:
            raise ValueError(f"expected features of shape N x d with N >= 2, got shape {rows.shape}.")
        self.n: int | None = len(rows)
        self.mean: Matrix = rows.mean(0)
        if not np.isfinite(self.mean).all():
            raise ValueError(f"features hold NaN or infinity in {np.sum(~np.isfinite(rows).all(1))} of {self.n} rows.")
        self.thin = len(rows) <= rows.shape[1]
        if self.thin:
            self.factor = _thin_factor(rows, self.mean)
        else:
            centred = rows - self.mean
            self.covariance = centred.T @ centred / (len(rows) - 1)

    @classmethod
    def from_statistics(cls, mean: ArrayLike, covariance: ArrayLike, n: int | None = None) -> "Reference":
        """From a mean (d) and a symmetric covariance (d x d), as numpy.cov or pytorch-fid's .npz gives them."""
        new = cls.__new__(cls)
        new.n, new.thin = n, False
        new.mean = np.atleast_1d(np.asarray(mean, dtype=np.float64))
        new.covariance = np.atleast_2d(np.asarray(covariance, dtype=np.float64))
        if new.mean.ndim != 1 or new.covariance.shape != (len(new.mean),) * 2:
            raise ValueError(
                f"expected a mean of shape d and a covariance of d x d, "
                f"got {new.mean.shape} and {new.covariance.shape}."
            )
        if not (np.isfinite(new.mean).all() and np.isfinite(new.covariance).all()):
            raise ValueError("the mean or the covariance holds NaN or infinity.")
        return new

    @property
    def dims(self) -> int:
        return len(self.mean)

    @cached_property
    def covariance(self) -> Matrix:
        """d x d, with N - 1 in the denominator."""
        return self.factor.T @ self.factor

    @cached_property
    def factor(self) -> Matrix:
        """F (k x d) with F' F = covariance."""
        try:
            return np.linalg.cholesky(self.covariance).T
        except np.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(self.covariance)
            kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
            return np.sqrt(values[kept])[:, None] * vectors[:, kept].T

    @cached_property
    def trace(self) -> float:
        return float(np.sum(self.factor**2) if self.thin else np.trace(self.covariance))

    def distance(self, other: "Reference | ArrayLike") -> float:
        """Fréchet distance to another side, or to features (N x d); squared units of the features, 0 or more."""
        other = other if isinstance(other, Reference) else Reference(other)
        if other.dims != self.dims:
            raise ValueError(f"expected features of {self.dims} dimensions on both sides, got {other.dims}.")
        shift = self.mean - other.mean
        return max(0.0, float(shift @ shift) + _spread(self, other))

    def leave_out(self, features: ArrayLike, blocks: list[slice]) -> list[float]:
        """The distances to N x d features without each of the given blocks of rows in turn.

        The features are brought once into the reference's coordinates (Z = Y F', whose covariance has the eigenvalues
        that count); what a block adds to a scatter matrix is then taken off, or its rows out of a Gram matrix, so that
        each distance costs one eigenvalue problem.
        """
        whole = np.asarray(features, dtype=np.float64)
        middle = whole.mean(0)
        rows = whole - middle
        if self.thin or len(rows) > self.dims:
            z = rows @ self.factor.T
            wide = len(z) > z.shape[1]
            products = z.T @ z if wide else z @ z.T
        else:
            wide, products = False, rows @ self.covariance @ rows.T
        distances = []
        for block in blocks:
            out = rows[block]
            n = len(rows) - len(out)
            rest = -out.sum(0) / n  # the mean of what stays: the whole's is zero
            trace = (np.sum(rows**2) - np.sum(out**2) - n * rest @ rest) / (n - 1)
            if wide:
                rest_z = -z[block].sum(0) / n
                scatter = products - z[block].T @ z[block] - n * np.outer(rest_z, rest_z)
            else:
                stay = np.delete(np.arange(len(rows)), block)
                gram = products[np.ix_(stay, stay)]
                side = gram.mean(0)
                scatter = gram - side - side[:, None] + side.mean()
            roots = np.sqrt(np.maximum(np.linalg.eigvalsh(scatter), 0) / (n - 1)).sum()
            shift = self.mean - middle - rest
            distances.append(float(shift @ shift + self.trace + trace - 2 * roots))
        return distances


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """Fréchet distance between two sets of features, N x d each (N may differ, and be below d)."""
    return Reference(real).distance(fake)


def frechet_from_statistics(mean_1: ArrayLike, cov_1: ArrayLike, mean_2: ArrayLike, cov_2: ArrayLike) -> float:
    """Fréchet distance from means (d) and covariances (d x d): pytorch-fid's number, without its `sqrtm`."""
    return Reference.from_statistics(mean_1, cov_1).distance(Reference.from_statistics(mean_2, cov_2))


def _thin_factor(rows: Matrix, mean: Matrix) -> Matrix:
    """N - 1 rows F with F' F = covariance.

    A Householder reflection turns the constant vector onto the first axis; the other N - 1 rows then hold the whole
    scatter. It amounts to subtracting one point, c below, and unlike N centred rows leaves no direction of zero length,
    where half of the digits would go.
    """
    root = np.sqrt(len(rows))
    c = (root * mean + rows[0]) / (root + 1)
    return (rows[1:] - c) / np.sqrt(len(rows) - 1)


def _spread(a: Reference, b: Reference) -> float:
    """tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)."""
    traces = a.trace + b.trace
    if b.thin and not (a.thin and len(a.factor) <= len(b.factor)):
        a, b = b, a  # the fewer rows on the outside
    square: Matrix
    if b.thin:
        product = a.factor @ b.factor.T
        square = product @ product.T
    elif a.thin:
        square = a.factor @ b.covariance @ a.factor.T
    else:
        square = _sandwich(a.factor, b.covariance)
    values = np.linalg.eigvalsh(square)
    roots = np.sqrt(np.maximum(values, 0))
    spread = traces - 2 * roots.sum()

    # An eigenvalue is exact to eps times the largest, so a small one keeps half of its root's digits. Where the sum of
    # these errors matters (near-equal sets, rank-deficient ones) take the singular values, which are not squared.
    noise = np.finfo(np.float64).eps * values[-1]
    error = np.minimum(np.sqrt(noise), noise / np.maximum(roots, np.finfo(np.float64).tiny)).sum()
    if error > _TOLERANCE * abs(spread):
        spread = traces - 2 * np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
    return float(spread)


def _sandwich(factor: Matrix, covariance: Matrix) -> Matrix:
    """F S F'; at half the work where F is Cholesky's upper triangle."""
    if factor.shape[0] != factor.shape[1] or factor.flags.c_contiguous:
        return factor @ covariance @ factor.T
    left = blas.dtrmm(1.0, factor, covariance.T)  # a symmetric matrix is its transpose, which is stored as BLAS likes
    return blas.dtrmm(1.0, factor, left, side=1, trans_a=1, overwrite_b=1)

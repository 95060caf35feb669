"""Whether a detector's probabilities mean what they say (numpy; no torch, no device).

Scores are logits of "fake", as in arena/metrics/detection.py; the probability is their sigmoid. Every figure here
depends on the share of fakes among the images (a detector that learnt on halves is right about halves), so m and n
belong beside it.

m = number of fakes, n = number of reals, N = m + n; p = probability, y = 1 for a fake, 0 for a real.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arena.metrics.detection import checked
from arena.metrics.shares import wilson

BINS = 15
Floats = NDArray[np.float64]


class Bin(NamedTuple):
    """Images of like probability: its mean, the share of fakes among them with Wilson's 95 % interval, their number."""

    confidence: float
    share: float
    low: float
    high: float
    n: int


class Brier(NamedTuple):
    """Brier score and what it is made of: score = reliability - resolution + uncertainty + within."""

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


class Scaling(NamedTuple):
    """logit -> slope x logit + shift; the slope is 1 / temperature."""

    slope: float
    shift: float

    def __call__(self, logits: ArrayLike) -> Floats:
        return self.slope * np.asarray(logits, dtype=np.float64) + self.shift


def probability(logits: ArrayLike) -> Floats:
    """The sigmoid, without overflow at either end."""
    return np.exp(-np.logaddexp(0, -np.asarray(logits, dtype=np.float64)))


def reliability(real: ArrayLike, fake: ArrayLike, bins: int = BINS) -> list[Bin]:
    """The reliability curve: at most `bins` bins of equal mass, from low to high probability.

    Equal probabilities are never parted, so bins may differ in size, and there are fewer where many are equal.
    """
    p, y = _pooled(real, fake)
    place, n = _places(p, bins)
    confidence, share = np.bincount(place, p) / n, np.bincount(place, y) / n
    return [Bin(c, *wilson(s * k, k), int(k)) for c, s, k in zip(confidence.tolist(), share.tolist(), n, strict=True)]


def ece(real: ArrayLike, fake: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error: the mean over images of | mean p - share of fakes | of their bin. Range 0 to 1.

    Bins hold equal mass (as in `reliability`). Even perfect probabilities score above 0: about sqrt(bins / N) / 3 where
    p lies all about, for chance alone moves the shares.
    Source: Guo et al. 2017, arXiv 1706.04599, equation 3, with adaptive bins (Nguyen and O'Connor 2015).
    """
    found = reliability(real, fake, bins)
    return sum(b.n * abs(b.confidence - b.share) for b in found) / sum(b.n for b in found)


def brier(real: ArrayLike, fake: ArrayLike, bins: int = BINS) -> Brier:
    """Mean (p - y)^2 and its parts over the same bins. Range 0 to 1; 0.25 is what p = 0.5 for everything gives.

    Reliability: squared distance of the bins' mean p from their shares, lower is better. Resolution: spread of the
    shares about the whole share of fakes, higher is better. Uncertainty: share x (1 - share), which no detector moves.
    Within: what bins hide, the spread of p inside them less twice its covariance with y; 0 where a bin has one p.
    Source: Murphy 1973; the last term, Stephenson, Coelho and Jolliffe 2008.
    """
    p, y = _pooled(real, fake)
    place, n = _places(p, bins)
    confidence, share = np.bincount(place, p) / n, np.bincount(place, y) / n
    base = y.mean()
    spread = p - confidence[place]
    return Brier(
        score=float(np.mean((p - y) ** 2)),
        reliability=float(np.sum(n * (confidence - share) ** 2) / n.sum()),
        resolution=float(np.sum(n * (share - base) ** 2) / n.sum()),
        uncertainty=float(base * (1 - base)),
        within=float(np.mean(spread**2) - 2 * np.mean(spread * (y - share[place]))),
    )


def fit_scaling(real: ArrayLike, fake: ArrayLike, kind: Literal["temperature", "shift", "both"] = "both") -> Scaling:
    """The scaling with the least cross-entropy on held-out logits. Fit it on validation, never on what is judged.

    "temperature" leaves the shift 0 (Guo et al. 2017), "shift" the slope 1 (one number from about 100 images repairs
    most of a detector on a new generator: arXiv 2602.01973), "both" is Platt scaling (1999), whose softened targets
    (m + 1) / (m + 2) and 1 / (n + 2) keep the answer finite where the classes are separated.
    """
    real, fake = checked(real, fake)
    z = np.concatenate([real, fake])
    t = np.repeat([1 / (real.size + 2), (fake.size + 1) / (fake.size + 2)], [real.size, fake.size])
    unit = max(float(np.abs(z).max()), 1e-300)  # so that huge logits make no singular step
    columns = {"temperature": z[:, None] / unit, "shift": np.ones((z.size, 1))}
    design = columns.get(kind, np.stack([z / unit, np.ones(z.size)], 1))
    offset = z if kind == "shift" else np.zeros(z.size)

    def loss(w: Floats) -> float:
        x = design @ w + offset
        return float(np.mean(np.logaddexp(0, x) - t * x))

    w = np.zeros(design.shape[1])
    for _ in range(200):  # Newton's method; each step halved until the (convex) loss falls
        p = probability(design @ w + offset)
        gradient = design.T @ (p - t) / z.size
        hessian = (design * (p * (1 - p))[:, None]).T @ design / z.size
        step = np.linalg.lstsq(hessian + 1e-14 * np.eye(len(w)), gradient, rcond=None)[0]
        size, before = 1.0, loss(w)
        while size > 1e-12 and not loss(w - size * step) <= before:
            size /= 2
        w = w - size * step
        if np.abs(size * step).max() < 1e-12 * max(1.0, np.abs(w).max()):
            break
    slope = 1.0 if kind == "shift" else float(w[0]) / unit
    return Scaling(slope, 0.0 if kind == "temperature" else float(w[-1]))


def _pooled(real: ArrayLike, fake: ArrayLike) -> tuple[Floats, Floats]:
    real, fake = checked(real, fake)
    return probability(np.concatenate([real, fake])), np.repeat([0.0, 1.0], [real.size, fake.size])


def _places(p: Floats, bins: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which bin each probability falls into, and the bins' sizes: by the middle rank of its value, so ties stay one."""
    if bins < 1:
        raise ValueError(f"bins: expected 1 or more, got {bins}.")
    _, value, count = np.unique(p, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2
    place = np.minimum((middle * bins / p.size).astype(np.int64), bins - 1)[value]
    _, place = np.unique(place, return_inverse=True)  # no empty bins
    return place, np.bincount(place)

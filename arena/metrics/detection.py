"""How well a detector tells fakes from reals, from its scores alone (numpy; no torch, no device).

Everywhere: scores are logits, 1-D arrays of any float type; the fake is the positive class, so a higher score means
"more likely fake", and an image is called fake where its score is >= the threshold. NaN scores, or a class without
images, raise ValueError; infinite scores are taken for the largest finite number.

m = number of fakes, n = number of reals.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = NDArray[np.float64]


def auc(real: ArrayLike, fake: ArrayLike) -> float:
    """The chance that a random fake scores above a random real, a tie counting one half (Mann-Whitney, midranks).

    Range 0 to 1; 0.5 is guessing. A value below 0.5 stays as it is.
    """
    real, fake = checked(real, fake)
    return placements(real, fake)[0]


def delong(real: ArrayLike, fake: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """AUC with its confidence interval: (auc, low, high).

    DeLong's variance, the interval symmetric in logit(AUC): near 1 it covers better than the plain one and never leaves
    0 to 1. The variance is zero when the classes are perfectly separated or all scores are equal, and undefined with
    one image in a class; the interval is then Clopper-Pearson's for the min(m, n) disjoint real-fake pairs that the
    data hold. It is wider than DeLong's but needs no large sample: for AUC 1 with 100 + 100 images, (1, 0.964, 1).

    Source: DeLong, DeLong and Clarke-Pearson 1988; fast form of Sun and Xu 2014; logit form as in Pepe 2003.
    """
    real, fake = checked(real, fake)
    value, of_fakes, of_reals = placements(real, fake)
    if min(real.size, fake.size) > 1 and 0 < value < 1:
        variance = _variance(of_fakes, of_reals)
        if variance > 0:
            quantile = NormalDist().inv_cdf((1 + level) / 2)
            centre = np.log(value / (1 - value))
            reach = quantile * np.sqrt(variance) / (value * (1 - value))
            low, high = 1 / (1 + np.exp(-np.array([centre - reach, centre + reach])))
            return value, float(low), float(high)
    return value, *clopper_pearson(value, min(real.size, fake.size), level)


def delong_variance(real: ArrayLike, fake: ArrayLike) -> float:
    """DeLong's variance of the AUC; NaN where a class has one image (no variance can be estimated).

    Source: DeLong et al. 1988, equation 5, from the midranks (Sun and Xu 2014) in O((m + n) log(m + n)).
    """
    real, fake = checked(real, fake)
    if min(real.size, fake.size) < 2:
        return float("nan")
    return _variance(*placements(real, fake)[1:])


def delong_paired(
    real_a: ArrayLike, fake_a: ArrayLike, real_b: ArrayLike, fake_b: ArrayLike, level: float = 0.95
) -> tuple[float, float, float, float]:
    """Two detectors on the same images, in the same order: (AUC of a - AUC of b, low, high, p).

    The variance is that of the differences of DeLong's components, so what both owe to the same images cancels; p is
    two-sided, against equal AUCs. Where the components differ by the same amount everywhere (detectors that rank alike,
    or both perfect) that variance is 0, and with one image in a class undefined. The difference of the min(m, n)
    disjoint real-fake pairs is then taken for that of so many coin flips; where it is 0, p is 1 and the interval says
    how large a share of pairs may still differ unseen: 0 of 100 gives (0, -0.036, 0.036, 1).
    Raises ValueError where the counts differ.

    Source: DeLong, DeLong and Clarke-Pearson 1988, equation 5 with the contrast (1, -1).
    """
    real_a, fake_a = checked(real_a, fake_a)
    real_b, fake_b = checked(real_b, fake_b)
    if (real_a.size, fake_a.size) != (real_b.size, fake_b.size):
        raise ValueError(
            f"expected scores of the same images, got {real_a.size} + {fake_a.size} and {real_b.size} + {fake_b.size}."
        )
    auc_a, fakes_a, reals_a = placements(real_a, fake_a)
    auc_b, fakes_b, reals_b = placements(real_b, fake_b)
    difference, pairs = auc_a - auc_b, min(real_a.size, fake_a.size)
    variance = _variance(fakes_a - fakes_b, reals_a - reals_b) if pairs > 1 else 0.0
    if variance > 1e-18:
        normal, error = NormalDist(), float(np.sqrt(variance))
        reach = normal.inv_cdf((1 + level) / 2) * error
        p = 2 * normal.cdf(-abs(difference) / error)
        return difference, max(-1.0, difference - reach), min(1.0, difference + reach), p
    if abs(difference) < 1e-12:
        reach = 1 - ((1 - level) / 2) ** (1 / pairs)
        return 0.0, -reach, reach, 1.0
    from scipy.special import betainc

    share = (1 + abs(difference)) / 2  # of pairs that speak for the better one
    low, high = (2 * end - 1 for end in clopper_pearson(share, pairs, level))
    p = min(1.0, 2 * float(betainc(share * pairs, pairs - share * pairs + 1, 0.5)))
    return (difference, low, high, p) if difference > 0 else (difference, -high, -low, p)


def average_precision(real: ArrayLike, fake: ArrayLike) -> float:
    """Area under the precision-recall curve as a step function: sum over thresholds of (R_k - R_{k-1}) P_k.

    Range 0 to 1. It depends on the class ratio (guessing scores m / (m + n)), so m and n belong beside it. Tied scores
    enter together; there is no interpolation (scikit-learn's definition).
    """
    real, fake = checked(real, fake)
    _, false_alarms, hits = sweep(real, fake)
    precision = hits[1:] / (hits[1:] + false_alarms[1:])
    return float(np.sum(np.diff(hits) * precision) / fake.size)


def eer(real: ArrayLike, fake: ArrayLike) -> float:
    """Equal error rate: where the ROC curve, its points joined by straight lines, has FPR = 1 - TPR. Range 0 to 1."""
    real, fake = checked(real, fake)
    _, false_alarms, hits = sweep(real, fake)
    fpr, fnr = false_alarms / real.size, 1 - hits / fake.size
    right = int(np.argmax(fpr >= fnr))  # fpr rises from 0, fnr falls from 1: there is a crossing, never at index 0
    gap_left, gap_right = fnr[right - 1] - fpr[right - 1], fpr[right] - fnr[right]
    share = gap_left / (gap_left + gap_right)
    return float(fpr[right - 1] + share * (fpr[right] - fpr[right - 1]))


def tpr_at_fpr(real: ArrayLike, fake: ArrayLike, fpr: float = 0.01) -> float:
    """The largest share of fakes caught by a threshold that calls at most a share `fpr` of the reals fake.

    No interpolation: with fewer than 1 / fpr reals, no real may be called fake. Trust it from about 10 / fpr reals on.
    """
    real, fake = checked(real, fake)
    _, false_alarms, hits = sweep(real, fake)
    return float(hits[false_alarms / real.size <= fpr].max() / fake.size)


def accuracy(real: ArrayLike, fake: ArrayLike, threshold: float = 0.0) -> float:
    """Share of all m + n images told right at a threshold on the logit (0 = probability one half)."""
    real, fake = checked(real, fake)
    right = np.count_nonzero(fake >= threshold) + np.count_nonzero(real < threshold)
    return float(right / (real.size + fake.size))


def best_threshold(real: ArrayLike, fake: ArrayLike) -> float:
    """The threshold with the best balanced accuracy, (TPR + 1 - FPR) / 2: set it on val, freeze it, use it on judge.

    It lies midway between two neighbouring scores, or at the lowest score (all called fake) when nothing beats that.
    Of equals the lowest is taken: it lets the fewest fakes through.
    """
    real, fake = checked(real, fake)
    scores, false_alarms, hits = sweep(real, fake)  # scores fall, so index k calls scores[:k] fake
    gain = hits[1:] / fake.size - false_alarms[1:] / real.size
    last = len(gain) - 1 - int(np.argmax(gain[::-1] >= gain.max() - 1e-12))
    if last == len(gain) - 1:
        return float(scores[last])
    high, low = scores[last], scores[last + 1]
    middle = low / 2 + high / 2
    return float(middle if middle > low else high)  # neighbouring floats have no number between them


def detection_scores(real: ArrayLike, fake: ArrayLike, threshold: float) -> dict[str, float | int]:
    """All of the above for one match, by name, as plain numbers ready for JSON.

    `threshold` is the logit frozen on the val split (`best_threshold`). `accuracy` is at probability 0.5 (logit 0),
    `accuracy_frozen` at `threshold`; `escape` is the share of fakes called real at `threshold`; `ap` is at the class
    ratio given by `n_real` and `n_fake`; `auc_low` and `auc_high` are the 95 % interval of `delong`.
    """
    real, fake = checked(real, fake)
    value, low, high = delong(real, fake)
    return {
        "auc": value,
        "auc_low": low,
        "auc_high": high,
        "ap": average_precision(real, fake),
        "eer": eer(real, fake),
        "n_real": int(real.size),
        "n_fake": int(fake.size),
        "accuracy": accuracy(real, fake, 0.0),
        "threshold": float(threshold),
        "accuracy_frozen": accuracy(real, fake, threshold),
        "tpr_at_1_fpr": tpr_at_fpr(real, fake, 0.01),
        "escape": float(np.mean(fake < threshold)),
    }


def checked(real: ArrayLike, fake: ArrayLike) -> tuple[Scores, Scores]:
    both = []
    for name, scores in (("reals", real), ("fakes", fake)):
        array = np.asarray(scores, dtype=np.float64)
        if array.ndim != 1 or array.size == 0:
            raise ValueError(f"expected a 1-D array of at least one score for the {name}, got shape {array.shape}.")
        if np.isnan(array).any():
            raise ValueError(f"{np.isnan(array).sum()} of {array.size} scores of the {name} are NaN.")
        both.append(np.clip(array, np.finfo(np.float64).min, np.finfo(np.float64).max))
    return both[0], both[1]


def _midranks(scores: Scores) -> Scores:
    """Ranks from 1; tied scores share the mean of theirs."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def placements(real: Scores, fake: Scores) -> tuple[float, Scores, Scores]:
    """AUC, each fake's share of reals below it, each real's share of fakes above it (DeLong's components V10, V01)."""
    ranks = _midranks(np.concatenate([fake, real]))
    of_fakes = (ranks[: fake.size] - _midranks(fake)) / real.size
    of_reals = 1 - (ranks[fake.size :] - _midranks(real)) / fake.size
    return float(of_fakes.mean()), of_fakes, of_reals


def _variance(of_fakes: Scores, of_reals: Scores) -> float:
    return float(of_fakes.var(ddof=1) / of_fakes.size + of_reals.var(ddof=1) / of_reals.size)


def clopper_pearson(share: float, pairs: int, level: float) -> tuple[float, float]:
    """Exact binomial interval of a share among independent pairs (half a pair for a tie, hence the beta function)."""
    from scipy.special import betaincinv

    tail, right = (1 - level) / 2, share * pairs
    low = 0.0 if right <= 0 else float(betaincinv(right, pairs - right + 1, tail))
    high = 1.0 if right >= pairs else float(betaincinv(right + 1, pairs - right, 1 - tail))
    return low, high


def sweep(real: Scores, fake: Scores) -> tuple[Scores, Scores, Scores]:
    """Distinct scores from high to low, and the counts of reals and fakes called fake: none, then at each score."""
    scores, place = np.unique(np.concatenate([fake, real]), return_inverse=True)
    hits = np.bincount(place[: fake.size], minlength=scores.size)[::-1]
    false_alarms = np.bincount(place[fake.size :], minlength=scores.size)[::-1]
    return scores[::-1], np.cumsum(np.r_[0.0, false_alarms]), np.cumsum(np.r_[0.0, hits])

"""Detection scores against scikit-learn, a naive DeLong, and planted truths."""

import json
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn import metrics as oracle

from arena.metrics import detection


def draw(kind: str, seed: int, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(0, 1, n), rng.normal(1, 1.5, m)
    if kind == "ties":
        return np.round(real), np.round(fake)
    if kind == "two values":
        return (real > 0).astype(float), (fake > 0).astype(float)
    if kind == "constant":
        return np.zeros(n), np.zeros(m)
    if kind == "separated":
        return real - 50, fake + 50
    if kind == "reversed":
        return real + 50, fake - 50
    return real.astype(np.float32), fake.astype(np.float32)


KINDS = ("smooth", "ties", "two values", "constant", "separated", "reversed")
SIZES = ((200, 300), (7, 5), (1, 40), (1, 1))


@pytest.fixture(params=[(kind, *size) for kind in KINDS for size in SIZES], ids=str)
def scores(request):
    kind, n, m = request.param
    return draw(kind, 3, n, m)


def pooled(real, fake):
    return np.r_[np.zeros(len(real)), np.ones(len(fake))], np.r_[real, fake].astype(np.float64)


def test_auc_and_ap_equal_scikit_learn(scores):
    truth, values = pooled(*scores)
    assert detection.auc(*scores) == pytest.approx(oracle.roc_auc_score(truth, values), abs=1e-12)
    assert detection.average_precision(*scores) == pytest.approx(
        oracle.average_precision_score(truth, values), abs=1e-12
    )


@pytest.mark.parametrize("limit", [0.0, 0.01, 0.1, 1.0])
def test_tpr_at_fpr_equals_scikit_learn(scores, limit):
    fpr, tpr, _ = oracle.roc_curve(*pooled(*scores), drop_intermediate=False)
    assert detection.tpr_at_fpr(*scores, limit) == pytest.approx(tpr[fpr <= limit].max(), abs=1e-12)


def test_eer_equals_the_root_on_scikit_learns_curve(scores):
    fpr, tpr, _ = oracle.roc_curve(*pooled(*scores), drop_intermediate=False)
    lengths = np.r_[0, np.cumsum(np.hypot(np.diff(fpr), np.diff(tpr)))]  # walk along the curve: it has vertical steps

    def at(s):
        return np.interp(s, lengths, fpr), np.interp(s, lengths, tpr)

    root = brentq(lambda s: at(s)[0] + at(s)[1] - 1, 0, lengths[-1], xtol=1e-15)
    assert detection.eer(*scores) == pytest.approx(at(root)[0], abs=1e-12)


def test_accuracy_counts_a_score_at_the_threshold_as_fake():
    assert detection.accuracy([-1, 0, -2], [0, 3, -1], 0.0) == pytest.approx(4 / 6)
    truth, values = pooled(*draw("ties", 1, 90, 110))
    ours = detection.accuracy(values[truth == 0], values[truth == 1], 1.0)
    assert ours == pytest.approx(oracle.accuracy_score(truth, values >= 1.0), abs=1e-15)


def test_best_threshold_beats_every_other(scores):
    real, fake = (np.asarray(s, dtype=np.float64) for s in scores)

    def balanced(t):
        return (np.mean(fake >= t) + np.mean(real < t)) / 2

    ours = detection.best_threshold(*scores)
    everything = np.r_[real, fake]
    rivals = np.r_[everything, np.nextafter(everything, np.inf)]
    assert np.isfinite(ours)
    assert balanced(ours) == pytest.approx(max(balanced(t) for t in rivals), abs=1e-12)


def test_best_threshold_lies_between_scores_and_takes_the_lowest_of_equals():
    assert detection.best_threshold([0.0, 1.0], [3.0, 4.0]) == 2.0
    assert detection.best_threshold([0.0, 2.0], [1.0, 3.0]) == 0.5  # 0.5 and 2.5 are equally good
    assert detection.best_threshold([5.0, 6.0], [1.0, 2.0]) == 1.0  # nothing beats calling all fake
    above = np.nextafter(1.0, 2.0)
    assert detection.best_threshold([1.0], [above]) == above
    assert detection.best_threshold([-np.inf], [np.inf]) == 0.0


def naive_delong_variance(real, fake) -> float:
    """DeLong 1988 by its definition: all m x n pairs, structural components, sample variances."""
    wins = np.array([[1.0 if f > r else 0.5 if f == r else 0.0 for r in real] for f in fake])
    return np.cov(wins.mean(1)) / len(fake) + np.cov(wins.mean(0)) / len(real)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(60, 40), (7, 5), (2, 2)])
def test_delong_variance_equals_the_pairwise_definition(kind, size):
    real, fake = draw(kind, 5, *size)
    assert detection.delong_variance(real, fake) == pytest.approx(naive_delong_variance(real, fake), abs=1e-14)


def test_the_interval_covers_a_known_auc_as_often_as_it_says():
    rng, normal = np.random.default_rng(0), NormalDist()
    for truth, n in ((0.76, 100), (0.95, 200)):
        shift = np.sqrt(2) * normal.inv_cdf(truth)
        inside = 0
        for _ in range(1000):
            _, low, high = detection.delong(rng.normal(0, 1, n), rng.normal(shift, 1, n))
            inside += low <= truth <= high
        assert 930 <= inside <= 972  # 950 +- 3 binomial standard errors


def naive_paired_variance(real_a, fake_a, real_b, fake_b) -> float:
    """DeLong 1988, equation 5, by its definition: the 2 x 2 covariances of the components of all m x n pairs."""
    wins = [
        np.array([[1.0 if f > r else 0.5 if f == r else 0.0 for r in real] for f in fake])
        for real, fake in ((real_a, fake_a), (real_b, fake_b))
    ]
    of_fakes, of_reals = (np.cov([pairs.mean(axis) for pairs in wins]) for axis in (1, 0))
    contrast = np.array([1, -1])
    return contrast @ (of_fakes / len(fake_a) + of_reals / len(real_a)) @ contrast


def two_detectors(rng, n, m, skill_a=1.0, skill_b=1.0, shared=1.0):
    """Scores of two detectors that see the same of an image (`shared`), and each something of its own."""
    real, fake = shared * rng.normal(0, 1, n), shared * rng.normal(0, 1, m)
    return [
        part
        for skill in (skill_a, skill_b)
        for part in (real + rng.normal(0, 1, n), fake + skill + rng.normal(0, 1, m))
    ]


@pytest.mark.parametrize("size", [(60, 40), (7, 5), (2, 2)])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_paired_variance_equals_the_pairwise_definition(size, rounded):
    scores = two_detectors(np.random.default_rng(3), *size, 1.0, 1.8)
    scores = [np.round(some) for some in scores] if rounded else scores
    difference, low, high, p = detection.delong_paired(*scores)
    assert difference == pytest.approx(detection.auc(*scores[:2]) - detection.auc(*scores[2:]), abs=1e-12)
    error, normal = np.sqrt(naive_paired_variance(*scores)), NormalDist()
    assert p == pytest.approx(2 * normal.cdf(-abs(difference) / error), abs=1e-10)
    assert (low, high) == pytest.approx((max(-1, difference - 1.959964 * error), min(1, difference + 1.959964 * error)))
    assert detection.delong_paired(*scores[2:], *scores[:2]) == pytest.approx((-difference, -high, -low, p))


def test_the_paired_interval_covers_a_known_difference_and_p_is_uniform_without_one():
    rng, normal = np.random.default_rng(1), NormalDist()
    truth = normal.cdf(1.6 / 2) - normal.cdf(1.0 / 2)  # fakes' and reals' scores have variance 2 each
    inside = rejected = 0
    for _ in range(1000):
        _, low, high, _ = detection.delong_paired(*two_detectors(rng, 120, 100, 1.6, 1.0))
        inside += low <= truth <= high
        rejected += detection.delong_paired(*two_detectors(rng, 120, 100))[3] < 0.05
    assert 930 <= inside <= 970  # 950 +- 3 binomial standard errors
    assert 30 <= rejected <= 70


def test_the_paired_p_agrees_with_a_permutation_test():
    """Under the null the two detectors' scores of an image may be swapped, once both are ranks (Bandos et al. 2005)."""
    rng = np.random.default_rng(5)
    real_a, fake_a, real_b, fake_b = two_detectors(rng, 150, 130, 1.25, 0.95)
    ranks = [np.argsort(np.argsort(np.r_[real, fake])) for real, fake in ((real_a, fake_a), (real_b, fake_b))]
    seen, draws = detection.delong_paired(real_a, fake_a, real_b, fake_b), 2000
    larger = 0
    for _ in range(draws):
        swap = rng.random(280) < 0.5
        a, b = np.where(swap, ranks[1], ranks[0]), np.where(swap, ranks[0], ranks[1])
        gap = detection.auc(a[:150], a[150:]) - detection.auc(b[:150], b[150:])
        larger += abs(gap) >= abs(seen[0])
    assert 0.005 < seen[3] < 0.6
    assert larger / draws == pytest.approx(seen[3], abs=0.04)


def test_pairing_sees_what_two_separate_intervals_hide():
    """The fine difference of two detectors that see mostly the same."""
    scores = two_detectors(np.random.default_rng(2), 300, 300, 2.6, 2.0, shared=3.0)
    a, b = detection.delong(*scores[:2]), detection.delong(*scores[2:])
    assert a[1] < b[2]  # the intervals overlap
    difference, low, _, p = detection.delong_paired(*scores)
    assert 0 < low < difference
    assert p < 0.05


def test_paired_scores_without_variance():
    real, fake = np.arange(100.0), np.arange(100.0) + 30
    none = 1 - 0.025 ** (1 / 100)  # no pair of 100 told apart
    assert detection.delong_paired(real, fake, real, fake) == pytest.approx((0, -none, none, 1))
    assert detection.delong_paired(real, fake, np.exp(real / 9), np.exp(fake / 9)) == pytest.approx((0, -none, none, 1))
    difference, low, high, p = detection.delong_paired(real, real + 200, real, np.full(100, -1.0))  # 1 against 0
    assert (difference, high) == (1, 1)
    assert low == pytest.approx(2 * 0.025 ** (1 / 100) - 1)
    assert p == pytest.approx(2 * 0.5**100)
    better = detection.delong_paired(real, real + 200, np.zeros(100), np.zeros(100))  # 1 against guessing
    worse = detection.delong_paired(np.zeros(100), np.zeros(100), real, real + 200)
    assert better[0] == 0.5
    assert better[1] > 0.3
    assert better[3] < 1e-4
    assert worse == pytest.approx((-better[0], -better[2], -better[1], better[3]))
    assert detection.delong_paired([0.0], [1.0], [1.0], [0.0])[3] > 0.5  # one pair tells nothing
    with pytest.raises(ValueError, match="same images"):
        detection.delong_paired(real, fake, real[:-1], fake)
    with pytest.raises(ValueError, match="NaN"):
        detection.delong_paired(real, fake, real, np.r_[fake[:-1], np.nan])


def test_perfect_separation_keeps_an_honest_interval():
    value, low, high = detection.delong(np.zeros(100), np.ones(100))
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(0.025 ** (1 / 100))  # 100 disjoint pairs, all right
    value, low, high = detection.delong(np.ones(100), np.zeros(50))
    assert (value, low) == (0.0, 0.0)
    assert high == pytest.approx(1 - 0.025 ** (1 / 50))
    assert detection.delong([0.0], [1.0])[1:] == pytest.approx((0.025, 1.0))


def test_equal_scores_and_single_images_give_wide_intervals():
    value, low, high = detection.delong(np.zeros(10), np.zeros(10))
    assert value == 0.5
    assert 0.15 < low < 0.25  # 5 of 10: 0.187 to 0.813
    assert 0.75 < high < 0.85
    assert np.isnan(detection.delong_variance([0.0], [1.0, -1.0]))
    value, low, high = detection.delong([0.0], [1.0, -1.0])
    assert low < 0.05 < value < 0.95 < high


def test_detection_scores_has_its_documented_keys_and_plain_numbers():
    real, fake = draw("smooth", 8, 300, 200)
    scores = detection.detection_scores(real, fake, threshold=0.4)
    assert ", ".join(scores) == (
        "auc, auc_low, auc_high, ap, eer, n_real, n_fake, accuracy, threshold, accuracy_frozen, tpr_at_1_fpr, escape"
    )
    json.dumps(scores, allow_nan=False)
    assert all(type(value) in (float, int) for value in scores.values())
    assert scores["escape"] == np.mean(fake < 0.4)
    assert scores["auc_low"] < scores["auc"] < scores["auc_high"]
    assert scores["accuracy"] == detection.accuracy(real, fake, 0) != scores["accuracy_frozen"]


def test_bad_scores_are_refused():
    for real, fake in (([0.0, np.nan], [1.0]), ([0.0], [np.nan]), ([], [1.0]), ([0.0], [[1.0]])):
        with pytest.raises(ValueError, match=r"NaN|at least one score"):
            detection.detection_scores(real, fake, 0.0)


def test_infinite_scores_are_ranked():
    assert detection.auc([-np.inf, 0.0], [1.0, np.inf]) == 1.0
    assert np.isfinite(detection.detection_scores([-np.inf, 0.0], [1.0, np.inf], 0.5)["eer"])


def test_scores_need_no_torch():
    code = "import sys, arena.metrics.detection; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

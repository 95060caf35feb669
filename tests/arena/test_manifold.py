import numpy as np
import pytest
from scipy.spatial.distance import cdist

from arena.metrics.manifold import expected_coverage, manifold_scores

NAMES = ("precision", "recall", "density", "coverage")


def by_hand(real, fake, k, k_pr):
    """The definitions word by word, with distances that are not expanded squares."""

    def reach(rows, k):
        return np.sort(cdist(rows, rows), axis=1)[:, k]  # the first is the row itself

    far = cdist(real, fake)
    in_real = far <= reach(real, k)[:, None]
    return {
        "precision": np.mean((far <= reach(real, k_pr)[:, None]).any(0)),
        "recall": np.mean((far <= reach(fake, k_pr)).any(1)),
        "density": in_real.sum() / (k * len(fake)),
        "coverage": np.mean(in_real.any(1)),
    }


@pytest.mark.parametrize(("n", "m", "d", "k", "k_pr"), [(90, 70, 5, 5, 3), (12, 30, 2, 1, 2), (64, 9, 40, 7, 4)])
def test_equals_the_definitions(n, m, d, k, k_pr):
    rng = np.random.default_rng(n)
    real, fake = rng.normal(3, 1, (n, d)), rng.normal(3.2, 0.8, (m, d))
    found = manifold_scores(real, fake, k, k_pr)
    for name, value in by_hand(real, fake, k, k_pr).items():
        assert found[name][0] == pytest.approx(value, abs=1e-12), name


def test_equals_prdc():
    prdc = pytest.importorskip("prdc")
    rng = np.random.default_rng(4)
    real, fake = rng.normal(size=(120, 9)), rng.normal(0.3, 0.9, size=(100, 9))
    wide, narrow = (prdc.compute_prdc(real, fake, k) for k in (5, 3))
    truth = {name: (narrow if name in ("precision", "recall") else wide)[name] for name in NAMES}
    found = manifold_scores(real, fake)
    assert {name: found[name][0] for name in NAMES} == pytest.approx(truth)


def test_worked_by_hand():
    """Reals 0 1 2 10 on a line with k = 1: radii 1 1 1 8. Fakes 0.5, 1.5, 4, 30, 31, 40: radii 1 1 2.5 1 1 9."""
    real, fake = np.array([[0.0], [1], [2], [10]]), np.array([[0.5], [1.5], [4], [30], [31], [40]])
    found = manifold_scores(real, fake, k=1, k_pr=1, blocks=6)
    assert found["precision"][0] == 3 / 6  # 0.5 and 1.5, and 4 in the far real's ball
    assert found["recall"][0] == 3 / 4  # 0, 1 and 2; the ball of 40 ends at 31
    assert found["density"][0] == (2 + 2 + 1) / 6
    assert found["coverage"][0] == 1  # 10's own ball reaches down to 2


def test_blocks_of_rows_change_nothing(monkeypatch):
    from arena.metrics import manifold

    rng = np.random.default_rng(5)
    real, fake = rng.normal(size=(50, 6)), rng.normal(size=(40, 6))
    whole = manifold_scores(real, fake)
    monkeypatch.setattr(manifold, "_CELLS", 130)  # three rows at a time
    assert {name: pytest.approx(v) for name, v in whole.items()} == manifold_scores(real, fake)


def test_the_blocks_left_out_are_left_out():
    """The jackknife's interval, from scores computed anew without each block."""
    rng = np.random.default_rng(6)
    real, fake = rng.normal(size=(60, 3)), rng.normal(0.5, 0.7, size=(40, 3))
    found = manifold_scores(real, fake)
    without = [by_hand(real, np.delete(fake, slice(4 * b, 4 * b + 4), 0), 5, 3) for b in range(10)]
    for name in ("recall", "density", "coverage"):
        values = np.array([w[name] for w in without])
        reach = 2.262157 * np.sqrt(0.9 * np.sum((values - values.mean()) ** 2))  # Student's t, 9 degrees of freedom
        value, low, high = found[name]
        top = np.inf if name == "density" else 1
        assert (low, high) == pytest.approx((max(0, value - reach), min(top, value + reach)), abs=1e-6), name


def test_the_papers_expectations_in_the_same_distribution():
    """Naeem et al. 2020: whatever the distribution, density is 1 and coverage as `expected_coverage` on average."""
    rng = np.random.default_rng(7)
    density, coverage = [], []
    for _ in range(150):
        real, fake = rng.standard_t(3, (80, 4)), rng.standard_t(3, (50, 4))
        found = manifold_scores(real, fake)
        density.append(found["density"][0])
        coverage.append(found["coverage"][0])
    assert np.mean(density) == pytest.approx(1, abs=4 * np.std(density) / 150**0.5)
    assert np.mean(coverage) == pytest.approx(expected_coverage(80, 50), abs=4 * np.std(coverage) / 150**0.5)


def test_expected_coverage_of_small_sets_counted_out():
    """N = 2, M = 1, k = 1: the ball of a real is empty when the other real is nearer than the fake, half the time."""
    assert expected_coverage(2, 1, 1) == 1 / 2
    assert expected_coverage(3, 3, 1) == pytest.approx(1 - 2 / 5)
    assert expected_coverage(10_000, 10_000) == pytest.approx(1 - 1 / 2**5, abs=1e-3)  # the paper's 0.969


def test_intervals_hold_the_mean_over_other_fakes():
    """With the reals fixed, the interval holds the mean score of such fakes about 95 times in 100."""
    rng = np.random.default_rng(8)
    real = rng.normal(size=(80, 3))
    runs = [manifold_scores(real, rng.normal(0.4, 0.8, (80, 3))) for _ in range(200)]
    for name in NAMES:
        values = np.array([run[name] for run in runs])
        held = np.mean((values[:, 1] <= values[:, 0].mean()) & (values[:, 0].mean() <= values[:, 2]))
        assert 0.88 <= held <= 1, (name, held)


def test_far_collapsed_and_copied_fakes():
    rng = np.random.default_rng(9)
    real = rng.normal(size=(100, 8)) + 1e4  # far from the origin: nothing is lost to cancellation
    far = manifold_scores(real, real[:50] + 1000)
    assert all(far[name][0] == 0 for name in NAMES)
    assert far["coverage"][1] == 0 < far["coverage"][2] < 0.1
    copied = manifold_scores(real, real)
    assert all(copied[name][0] == 1 for name in ("precision", "recall", "coverage"))
    one = manifold_scores(real, np.repeat(real[:1], 50, 0))  # on one real: its ball, and few others'
    assert one["precision"][0] == 1
    assert one["coverage"][0] < 0.2
    assert one["recall"][0] == 0.01  # balls of radius 0 hold the one real they lie on


def test_an_interval_that_no_block_moves_claims_no_certainty():
    """Sixteen times one fake, inside 2 of 16 reals' balls: whichever block is left out, every figure stays."""
    real = np.r_[0.0, 1, 100 * np.arange(1, 15)][:, None]
    found = manifold_scores(real, np.full((16, 1), 0.5), k=1, k_pr=1)
    assert found["coverage"] == pytest.approx((2 / 16, 0.0155, 0.3835), abs=1e-4)  # 2 of 16, exact binomial
    assert found["recall"] == pytest.approx((0, 0, 0.2059), abs=1e-4)
    assert found["density"] == (2, None, None)


def test_order_does_not_matter_to_the_values():
    rng = np.random.default_rng(10)
    real, fake = rng.normal(size=(40, 4)), rng.normal(size=(30, 4))
    mixed = manifold_scores(rng.permutation(real), rng.permutation(fake))
    assert {n: mixed[n][0] for n in NAMES} == pytest.approx({n: v[0] for n, v in manifold_scores(real, fake).items()})


@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (np.zeros((9, 3)), np.zeros((9, 4)), "3 dimensions"),
        (np.zeros((5, 3)), np.zeros((9, 3)), "from 1 to 4"),
        (np.zeros((9, 3)), np.zeros((4, 3)), "at least 5 fakes"),
        (np.full((9, 3), np.nan), np.zeros((9, 3)), "NaN"),
    ],
)
def test_says_what_is_wrong(real, fake, words):
    with pytest.raises(ValueError, match=words):
        manifold_scores(real, fake)

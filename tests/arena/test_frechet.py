"""Fréchet and kernel distances against pytorch-fid, closed forms and brute force."""

import warnings

import numpy as np
import pytest
import scipy
from pytorch_fid.fid_score import calculate_frechet_distance

from arena.metrics.frechet import Reference, _spread, frechet_distance, frechet_from_statistics
from arena.metrics.intervals import cut, frechet_interval, jackknife, kernel_interval
from arena.metrics.kernel import KernelReference, kid

OLD_SCIPY = tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 18)
SHAPES = [(40, 64), (64, 64), (65, 64), (300, 64)]  # thin, square, one more than square, full rank


def features(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Rows like a network's last layer: correlated, of falling variance, not negative."""
    mixing = np.random.default_rng(99).normal(size=(d, d)) * np.arange(1, d + 1) ** -0.5 / 4
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(n, d)) @ mixing.T + 0.2 + shift, 0)


def statistics(rows):
    return rows.mean(0), np.cov(rows, rowvar=False)


def peer(real, fake) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(calculate_frechet_distance(*statistics(real), *statistics(fake)))


@pytest.mark.skipif(not OLD_SCIPY, reason="pytorch-fid's distance needs scipy < 1.18")
@pytest.mark.parametrize("n_real", [40, 300])
@pytest.mark.parametrize("n_fake", [33, 64, 65, 400])
def test_equals_pytorch_fid(n_real, n_fake):
    real, fake = features(n_real, 64, 1), features(n_fake, 64, 2, 0.1)
    expected = pytest.approx(peer(real, fake), rel=1e-6)
    assert frechet_distance(real, fake) == expected
    assert frechet_distance(fake, real) == expected
    assert frechet_from_statistics(*statistics(real), *statistics(fake)) == expected


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_every_road_gives_the_same_distance(n, d):
    real, fake = features(200, d, 1), features(n, d, 2, 0.1)
    roads = [
        Reference(real).distance(fake),
        Reference(fake).distance(real),
        Reference.from_statistics(*statistics(real)).distance(fake),
        Reference(real).distance(Reference.from_statistics(*statistics(fake))),
        frechet_from_statistics(*statistics(real), *statistics(fake)),
    ]
    assert roads == pytest.approx([roads[0]] * len(roads), rel=1e-7)


@pytest.mark.parametrize("rank", [3, 30, 50])
def test_commuting_covariances_have_a_closed_form(rank):
    """S_i = Q diag(v_i) Q': FD = |mu_1 - mu_2|^2 + sum (sqrt v_1 - sqrt v_2)^2; singular ones too."""
    rng = np.random.default_rng(rank)
    q = np.linalg.qr(rng.normal(size=(50, 50)))[0]
    v1, v2 = rng.exponential(size=(2, 50)) * np.logspace(0, -6, 50)
    v1[rank:] = 0
    mu1, mu2 = rng.normal(size=(2, 50))
    expected = np.sum((mu1 - mu2) ** 2) + np.sum((np.sqrt(v1) - np.sqrt(v2)) ** 2)
    ours = frechet_from_statistics(mu1, q * v1 @ q.T, mu2, q * v2 @ q.T)
    assert ours == pytest.approx(expected, rel=1e-8)
    assert frechet_from_statistics(mu2, q * v2 @ q.T, mu1, q * v1 @ q.T) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_a_set_is_at_distance_zero_from_itself(n, d):
    rows = features(n, d, 4)
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-10)
    assert _spread(Reference(rows), Reference(rows)) == pytest.approx(0, abs=1e-10)  # before it is cut off at zero


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_small_distances_keep_their_digits(n, d):
    """A shift by v costs |v|^2, a stretch about the mean by c costs (c - 1)^2 tr S: exactly, and also when tiny."""
    rows = features(n, d, 5)
    for step in (1e-3, 0.5):
        assert frechet_distance(rows, rows + step) == pytest.approx(d * step**2, rel=1e-6, abs=1e-11)
        stretched = rows.mean(0) + (1 + step) * (rows - rows.mean(0))
        trace = np.trace(np.cov(rows, rowvar=False))
        assert frechet_distance(rows, stretched) == pytest.approx(step**2 * trace, rel=1e-6, abs=1e-11)


def test_repeated_and_dead_features_are_no_trouble():
    real, fake = features(200, 32, 6), np.repeat(features(5, 32, 7), 40, axis=0)
    dead = np.zeros((200, 4))
    with_dead = frechet_distance(np.c_[real, dead], np.c_[fake, dead])
    assert with_dead == pytest.approx(frechet_distance(real, fake), rel=1e-7)
    expected = np.linalg.norm(real.mean(0) - fake.mean(0)) ** 2 + np.trace(np.cov(real.T)) + np.trace(np.cov(fake.T))
    vectors = [np.linalg.svd(rows - rows.mean(0), full_matrices=False) for rows in (real, fake)]
    factors = [(s / np.sqrt(199))[:, None] * vt for _, s, vt in vectors]
    expected -= 2 * np.linalg.norm(factors[0] @ factors[1].T, "nuc")
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-7)


def test_wrong_input_is_refused():
    rows = features(10, 8, 1)
    for bad in (rows[:1], rows[0], np.where(rows > 1, np.nan, rows) * np.nan):
        with pytest.raises(ValueError, match=r"N >= 2|NaN"):
            frechet_distance(rows, bad)
    with pytest.raises(ValueError, match="8 dimensions"):
        frechet_distance(rows, features(10, 9, 1))
    with pytest.raises(ValueError, match="d x d"):
        frechet_from_statistics(np.zeros(3), np.eye(4), np.zeros(3), np.eye(3))


@pytest.mark.parametrize("n_real", [30, 200])
@pytest.mark.parametrize("n_fake", [25, 66, 400])
def test_leaving_out_equals_computing_anew(n_real, n_fake):
    reference, fake = Reference(features(n_real, 64, 1)), features(n_fake, 64, 2, 0.1)
    blocks = cut(n_fake)
    anew = [reference.distance(np.delete(fake, block, axis=0)) for block in blocks]
    assert reference.leave_out(fake, blocks) == pytest.approx(anew, rel=1e-6)


def brute_kid(x, y) -> float:
    def k(a, b):
        return (np.dot(a, b) / len(a) + 1) ** 3

    within = [np.mean([k(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]) for rows in (x, y)]
    return sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])


def test_kid_equals_a_double_loop(monkeypatch):
    x, y = features(40, 16, 1), features(23, 16, 2, 0.1)
    assert kid(x, y) == pytest.approx(brute_kid(x, y), abs=1e-12)
    assert kid(x, y, np.float32) == pytest.approx(brute_kid(x, y), abs=1e-5)
    monkeypatch.setattr("arena.metrics.kernel._ROWS", 7)  # many blocks
    assert kid(x, y) == pytest.approx(brute_kid(x, y), abs=1e-12)
    whole, without, without_own = KernelReference(x, blocks=6).jackknife(y, cut(23, 4))
    assert whole == pytest.approx(brute_kid(x, y), abs=1e-12)
    anew = [brute_kid(x, np.delete(y, block, axis=0)) for block in cut(23, 4)]
    assert without == pytest.approx(anew, abs=1e-12)
    anew = [brute_kid(np.delete(x, block, axis=0), y) for block in cut(40, 6)]
    assert without_own == pytest.approx(anew, abs=1e-12)


def test_the_interval_of_kid_is_the_two_sample_jackknifes():
    x, y = features(40, 16, 1), features(23, 16, 2, 0.1)
    sides = [
        np.array([brute_kid(x, np.delete(y, block, axis=0)) for block in cut(23)]),
        np.array([brute_kid(np.delete(x, block, axis=0), y) for block in cut(40)]),
    ]
    of_fakes, of_reals = (9 / 10 * np.sum((side - side.mean()) ** 2) for side in sides)
    degrees = (of_fakes + of_reals) ** 2 / (of_fakes**2 / 9 + of_reals**2 / 9)  # Welch 1947
    reach = scipy.stats.t.ppf(0.975, degrees) * np.sqrt(of_fakes + of_reals)
    expected = brute_kid(x, y) + np.array([0, -reach, reach])
    assert kernel_interval(KernelReference(x), y) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize("d", [2, 4])
def test_the_interval_of_kid_holds_0_between_equal_sets(d):
    """Both sides drawn anew: of the reals' blocks held fixed, a tenth of the intervals left 0 out."""
    draws = np.random.default_rng(0).normal(size=(300, 2, 100, d))
    found = [kernel_interval(KernelReference(real), fake) for real, fake in draws]
    assert 0.92 <= np.mean([low <= 0 <= high for _, low, high in found]) <= 0.99


def test_kid_has_no_bias_at_small_n_where_the_frechet_distance_has():
    draws = [(features(30, 32, 2 * seed + 10), features(30, 32, 2 * seed + 11)) for seed in range(100)]
    kids = np.array([kid(x, y) for x, y in draws])
    assert abs(kids.mean()) < 3.5 * kids.std() / 10
    assert np.mean([frechet_distance(x, y) for x, y in draws]) > 10 * frechet_distance(
        features(20000, 32, 1), features(20000, 32, 2)
    )


def test_jackknife_of_means_is_the_standard_error():
    values = np.random.default_rng(0).normal(size=50)
    blocks = cut(50, 50)
    value, low, high = jackknife(values.mean(), [np.delete(values, b).mean() for b in blocks])
    reach = scipy.stats.t.ppf(0.975, 49) * values.std(ddof=1) / np.sqrt(50)
    assert (value - low, high - value) == pytest.approx((reach, reach))


def test_a_jackknife_that_no_block_moves_has_no_bounds():
    assert jackknife(0.4, [0.4] * 10) == (0.4, None, None)
    assert jackknife(0.4, [0.3, 0.4, 0.5], [0.4] * 3) == (0.4, None, None)
    one, real = np.repeat(features(1, 16, 1), 20, axis=0), features(30, 16, 2)
    for make, interval in ((Reference, frechet_interval), (KernelReference, kernel_interval)):
        value, *bounds = interval(make(real), one)
        assert value > 0
        assert bounds == [None, None]


def test_blocks_cut_everything_once():
    for n in (3, 9, 10, 47):
        blocks = cut(n)
        assert np.concatenate([np.arange(n)[b] for b in blocks]).tolist() == list(range(n))
        assert max(b.stop - b.start for b in blocks) - min(b.stop - b.start for b in blocks) <= 1
    with pytest.raises(ValueError, match="at least 3"):
        cut(2)


def test_intervals_cover_the_expected_distance_at_this_n():
    """Against the mean over many sets of the same N, of a Fréchet distance with the same reals: 95 % or so hold it."""
    real = features(400, 12, 1)
    sets = [features(200, 12, seed, 0.15) for seed in range(100, 300)]
    others = [KernelReference(features(400, 12, seed)) for seed in range(300, 500)]
    for references, interval in (([Reference(real)] * 200, frechet_interval), (others, kernel_interval)):
        found = np.array([interval(*pair) for pair in zip(references, sets, strict=True)])
        truth = found[:, 0].mean()
        inside = np.mean((found[:, 1] <= truth) & (truth <= found[:, 2]))
        assert 0.90 <= inside <= 0.99

import numpy as np
import pytest
from scipy.special import ndtr

from arena.metrics.detection import delong_variance
from arena.ratings import duality_gap, league_auc, nash, rate

RPS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])


def values(ratings):
    return np.array([rating.value for rating in ratings])


def table(level, detectors, generators, extra=0.0):
    """AUCs of players whose scores are normal with unit variance, without sampling noise."""
    return ndtr((level + np.subtract.outer(detectors, generators) + extra) / np.sqrt(2))


def scores(rng, d_prime, n, shared=0.3):
    """Scores of one set of reals and of every generator's fakes, part of which the detectors agree about."""
    d, g = np.shape(d_prime)

    def seen(mean, common):
        return mean + np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=n)

    of_real, of_fakes = rng.normal(size=n), rng.normal(size=(g, n))
    return (
        [seen(0, of_real) for _ in range(d)],
        [[seen(d_prime[i, j], of_fakes[j]) for j in range(g)] for i in range(d)],
    )


def test_known_skills_are_found_again():
    a, b = np.array([0.5, -0.2, -0.3]), np.array([0.6, 0.1, -0.3, -0.4])
    league = rate(table(1.2, a, b), np.full((3, 4), 0.02))
    assert values(league.detectors) == pytest.approx(a)
    assert values(league.generators) == pytest.approx(b)
    assert league.level == pytest.approx(1.2)
    assert league.expected == pytest.approx(table(1.2, a, b))
    assert league.residual == pytest.approx(np.zeros((3, 4)), abs=1e-9)
    assert league.connected
    assert not league.cyclic.found


def test_weights_are_the_delta_methods():
    """One generator against one detector pair is exact; two against two is the weighted least squares of the normal
    equations, written out."""
    auc, error = np.array([[0.9, 0.7], [0.6, 0.8]]), np.array([[0.01, 0.05], [0.02, 0.03]])
    league = rate(auc, error, 10_000, 10_000)
    z = np.sqrt(2) * np.array([1.2815516, 0.5244005, 0.2533471, 0.8416212])
    density = np.exp(-(z**2) / 4) / np.sqrt(2 * np.pi)
    w = np.diag((density / np.sqrt(2) / error.ravel()) ** 2)
    x = np.array(
        [[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, -1, -1]]
    )  # level, half of the detectors' contrast, generators'
    truth = np.linalg.solve(x.T @ w @ x, x.T @ w @ z)
    assert values(league.detectors) == pytest.approx([truth[1], -truth[1]], abs=1e-5)
    assert values(league.generators) == pytest.approx([-truth[2], truth[2]], abs=1e-5)
    assert league.level == pytest.approx(truth[0], abs=1e-5)


def test_covariance_of_the_table_is_delongs():
    rng = np.random.default_rng(0)
    reals, fakes = scores(rng, np.full((2, 2), 1.0), 60)
    _, covariance = league_auc(reals, fakes)
    assert np.diag(covariance) == pytest.approx(
        [delong_variance(reals[i], fakes[i][j]) for i in (0, 1) for j in (0, 1)]
    )
    assert np.linalg.eigvalsh(covariance).min() > 0
    # DeLong's theorem on the difference of two detectors, from scores of the same images simulated anew
    drawn = [scores(rng, np.full((2, 2), 1.0), 60) for _ in range(1500)]
    aucs = np.array([league_auc(*both)[0].ravel() for both in drawn])
    mean = np.mean([league_auc(*both)[1] for both in drawn[:300]], axis=0)
    assert np.cov(aucs.T) == pytest.approx(mean, rel=0.25)


@pytest.mark.parametrize(
    ("shape", "n", "level", "inter"), [((6, 6), 200, 1.5, 0), ((4, 5), 100, 1, 0), ((5, 5), 150, 1.2, 0.4)]
)
def test_intervals_hold_the_truth(shape, n, level, inter):
    rng = np.random.default_rng(sum(shape))
    held, wrong = [], 0
    for _ in range(200):
        a, b = rng.normal(0, 0.6, shape[0]), rng.normal(0, 0.6, shape[1])
        d_prime = level + np.subtract.outer(a, b) + inter * rng.normal(size=shape)
        league = rate(*league_auc(*scores(rng, d_prime, n)), n, n)
        for ratings, truth in ((league.detectors, a - a.mean()), (league.generators, b - b.mean())):
            held += [r.low <= x <= r.high for r, x in zip(ratings, truth, strict=True)]
        wrong += league.cyclic.found != (inter > 0)
    assert 0.93 <= np.mean(held) <= 0.975
    assert wrong <= 8


def test_shared_images_need_the_covariance():
    """With standard errors alone the detectors' intervals are too narrow: all of a row hangs on one set of reals."""
    rng = np.random.default_rng(2)
    auc, covariance = league_auc(*scores(rng, np.full((6, 6), 1.5), 200, shared=0))
    alone = rate(auc, np.sqrt(np.diag(covariance)).reshape(6, 6)).detectors[0]
    whole = rate(auc, covariance).detectors[0]
    assert alone.value == pytest.approx(whole.value)
    assert whole.high - whole.low > 1.4 * (alone.high - alone.low)


def test_a_lineage_with_known_skill_is_ranked_rightly():
    rng = np.random.default_rng(3)
    a, b = np.arange(8) * 0.3, np.arange(8)[::-1] * 0.3
    league = rate(*league_auc(*scores(rng, np.subtract.outer(a, b) + 1, 400)))
    assert list(np.argsort(values(league.detectors))) == list(range(8))
    assert list(np.argsort(values(league.generators))) == list(range(8))[::-1]
    assert league.cyclic.share < 0.05


def test_rock_paper_scissors_is_called_cyclic():
    league = rate(*league_auc(*scores(np.random.default_rng(4), 1.5 + RPS, 200)))
    assert league.cyclic.found
    assert league.cyclic.low > 0.8
    assert league.cyclic.high <= 1
    assert all(r.low < 0 < r.high for r in league.detectors)


def test_the_share_grows_with_the_rings():
    a = np.array([-1.0, 0, 1])
    shares = [rate(table(1, a, a, ring * RPS), np.full((3, 3), 0.01)).cyclic.share for ring in (0, 0.3, 1, 3)]
    assert shares == sorted(shares)
    # in a table played with equal errors on the d' scale: 6 ring^2 of 6 ring^2 + 2 * 3 * 2
    error = 0.1 * np.exp(-((1 + np.subtract.outer(a, a) + RPS) ** 2) / 4) / np.sqrt(4 * np.pi)
    noise = 4  # degrees of freedom, taken off each part
    exact = (600 - noise) / (600 - noise + 1200 - 4)
    assert rate(table(1, a, a, RPS), error, 1e9, 1e9).cyclic.share == pytest.approx(exact, rel=1e-6)


def test_always_and_never_have_finite_ratings():
    league = rate([[1, 1, 0.9], [1, 0.5, 0], [0.7, 0.5, 0.5]], np.zeros((3, 3)), 100, 100)
    assert np.isfinite(values(league.detectors + league.generators)).all()
    assert list(np.argsort(values(league.detectors))) == [1, 2, 0]
    near = rate([[0.99999, 1]], np.array([[1e-6, 0]]), 100, 100)
    assert near.generators[0].value == pytest.approx(near.generators[1].value, abs=1e-9)  # half a pair, for both
    assert near.generators[0].low < -0.2  # DeLong's tiny error there is not believed


def test_groups_that_never_met_are_told_apart():
    auc = np.full((4, 3), np.nan)
    auc[:2, :2] = table(1, [0.3, -0.3], [0.2, -0.2])
    auc[2, 2] = 0.9
    league = rate(auc)
    assert not league.connected
    assert league.groups == ([0, 0, 1, 2], [0, 0, 1])
    assert values(league.detectors[:3]) == pytest.approx([0.3, -0.3, 0], abs=1e-9)
    assert np.isnan(values(league.detectors[3:])).all()  # without a match
    assert np.isnan(league.level)
    assert np.isnan(league.expected[0, 2])
    assert league.expected[2, 2] == pytest.approx(0.9)


def test_holes_in_the_table_are_bridged():
    a, b = np.array([0.4, 0, -0.4]), np.array([0.2, 0, -0.2])
    auc = table(1, a, b)
    np.fill_diagonal(auc, np.nan)  # nobody plays against itself
    league = rate(auc, np.full((3, 3), 0.03))
    assert league.connected
    assert values(league.detectors) == pytest.approx(a)
    assert np.isnan(np.diag(league.residual)).all()
    assert league.expected == pytest.approx(table(1, a, b))


def test_one_detector_or_one_generator():
    league = rate([[0.9, 0.6, 0.75]], np.full((1, 3), 0.02))
    assert (league.detectors[0].value, league.detectors[0].low) == pytest.approx((0, 0), abs=1e-9)
    assert list(np.argsort(values(league.generators))) == [0, 2, 1]
    assert np.isnan(league.cyclic.share)
    assert not league.cyclic.found
    single = rate([[0.8]])
    assert single.level == pytest.approx(np.sqrt(2) * 0.8416212)


def test_identical_players_do_not_break_it():
    reals, fakes = scores(np.random.default_rng(5), np.full((1, 2), 1.0), 50)
    league = rate(*league_auc(reals * 2, fakes * 2))
    assert league.detectors[0].value == pytest.approx(0, abs=1e-9)
    assert league.cyclic.share == 0


@pytest.mark.parametrize(
    ("auc", "error", "words"),
    [
        ([[1.2]], None, "0 to 1"),
        ([0.5], None, "D x G"),
        ([[np.nan]], None, "at least one match"),
        ([[0.5, 0.6]], [[0.1]], "shape"),
        ([[0.5, 0.6]], [[0.1, np.nan]], "every match"),
        ([[0.5, 0.6]], [[0.1, -1]], "every match"),
    ],
)
def test_says_what_is_wrong(auc, error, words):
    with pytest.raises(ValueError, match=words):
        rate(auc, error)


@pytest.mark.parametrize(
    ("game", "value", "row", "column"),
    [
        (RPS, 0, [1 / 3] * 3, [1 / 3] * 3),
        ([[1, -1], [-1, 1]], 0, [0.5, 0.5], [0.5, 0.5]),
        ([[3, 5], [1, 2]], 3, [1, 0], [1, 0]),  # dominated row, dominated column
        ([[0.9, 0.6], [0.7, 0.8]], 0.75, [0.25, 0.75], [0.5, 0.5]),  # (ad - bc) / (a + d - b - c)
        ([[0.3]], 0.3, [1], [1]),
        ([[0.5, 0.2, 0.4]], 0.2, [1], [0, 1, 0]),
    ],
)
def test_games_with_known_solutions(game, value, row, column):
    found, row_mix, column_mix = nash(game)
    assert found == pytest.approx(value, abs=1e-9)
    assert row_mix == pytest.approx(row, abs=1e-9)
    assert column_mix == pytest.approx(column, abs=1e-9)


def test_solutions_leave_no_gap():
    rng = np.random.default_rng(6)
    for shape in ((7, 4), (3, 9), (20, 20)):
        game = rng.uniform(size=shape)
        value, row, column = nash(game)
        assert duality_gap(game, row, column) == pytest.approx(0, abs=1e-9)
        assert row @ game @ column == pytest.approx(value)
        assert row.sum() == pytest.approx(1)


def test_equals_nashpy():
    nashpy = pytest.importorskip("nashpy")
    game = np.random.default_rng(7).normal(size=(5, 6))
    value, row, column = nash(game)
    theirs = nashpy.Game(game).linear_program()
    assert row == pytest.approx(theirs[0], abs=1e-6)
    assert column == pytest.approx(theirs[1], abs=1e-6)
    assert value == pytest.approx(nashpy.Game(game)[theirs][0], abs=1e-6)


def test_gap_of_the_last_pair():
    game = np.array([[0.6, 0.9], [0.5, 0.7]])
    assert duality_gap(game) == pytest.approx(0.9 - 0.5)
    assert duality_gap(game, 0, 0) == 0  # a saddle point
    with pytest.raises(ValueError, match="finite"):
        nash([[np.nan]])

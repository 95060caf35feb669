"""Calibration against scikit-learn, scipy and planted truths."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from arena.metrics import calibration


def logit(p):
    return np.log(p / (1 - np.asarray(p)))


def draw(seed, n=600, slope=1.0, shift=0.0):
    """Logits whose labels are true draws of the probability sigmoid(slope x logit + shift): (reals, fakes)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, n)
    fake = rng.random(n) < 1 / (1 + np.exp(-(slope * z + shift)))
    return z[~fake], z[fake]


def pooled(real, fake):
    return np.r_[np.zeros(len(real)), np.ones(len(fake))], 1 / (1 + np.exp(-np.r_[real, fake]))


@pytest.mark.parametrize("seed", range(3))
def test_brier_score_equals_scikit_learn(seed):
    real, fake = draw(seed)
    assert calibration.brier(real, fake).score == pytest.approx(brier_score_loss(*pooled(real, fake)), abs=1e-12)


@pytest.mark.parametrize("bins", [1, 4, 15, 600])
def test_the_parts_of_the_brier_score_make_it_up(bins):
    real, fake = draw(3)
    of = calibration.brier(real, fake, bins)
    assert of.score == pytest.approx(of.reliability - of.resolution + of.uncertainty + of.within, abs=1e-12)
    share = len(fake) / 600
    assert of.uncertainty == pytest.approx(share * (1 - share), abs=1e-12)
    if bins == 1:
        assert of.resolution == pytest.approx(0, abs=1e-12)
    if bins == 600:  # every probability its own bin: nothing is hidden in it, and its share is 0 or 1
        assert of.within == pytest.approx(0, abs=1e-12)
        assert of.resolution == pytest.approx(of.uncertainty, abs=1e-12)


def test_two_forecasts_give_murphys_numbers():
    """Of 10 images given 0.2, 4 are fake; of 30 given 0.9, 24."""
    real = logit(np.r_[np.full(6, 0.2), np.full(6, 0.9)])
    fake = logit(np.r_[np.full(4, 0.2), np.full(24, 0.9)])
    of = calibration.brier(real, fake, 10)
    assert of.reliability == pytest.approx((10 * 0.2**2 + 30 * 0.1**2) / 40)
    assert of.resolution == pytest.approx((10 * 0.3**2 + 30 * 0.1**2) / 40)
    assert of.uncertainty == pytest.approx(0.7 * 0.3)
    assert of.within == pytest.approx(0, abs=1e-12)
    assert calibration.ece(real, fake, 10) == pytest.approx((10 * 0.2 + 30 * 0.1) / 40)
    low, high = calibration.reliability(real, fake, 10)
    assert (low.n, high.n) == (10, 30)
    assert (low.confidence, low.share, high.share) == pytest.approx((0.2, 0.4, 0.8))


@pytest.mark.parametrize("bins", [5, 10, 20])
def test_reliability_equals_scikit_learns_quantile_curve(bins):
    real, fake = draw(4)
    found = calibration.reliability(real, fake, bins)
    share, confidence = calibration_curve(*pooled(real, fake), n_bins=bins, strategy="quantile")
    assert [entry.n for entry in found] == [600 // bins] * bins
    assert [entry.share for entry in found] == pytest.approx(share.tolist(), abs=1e-12)
    assert [entry.confidence for entry in found] == pytest.approx(confidence.tolist(), abs=1e-12)


def test_equal_probabilities_are_never_parted():
    found = calibration.reliability(np.zeros(70), np.zeros(30), 15)
    assert len(found) == 1
    assert (found[0].share, found[0].n) == (0.3, 100)
    _, p = pooled(*(np.round(scores) for scores in draw(5)))
    place, n = calibration._places(p, 15)
    assert all(len(set(place[p == value])) == 1 for value in np.unique(p))
    assert 3 < len(n) < len(np.unique(p))  # the rare ones at the ends share a bin
    assert (np.diff(place[np.argsort(p)]) >= 0).all()


def test_ece_sees_overconfidence_and_little_else():
    honest = [calibration.ece(*draw(seed, 6000)) for seed in range(5)]
    assert max(honest) < 0.03  # chance alone: about sqrt(15 / 6000) / 3 = 0.017
    assert min(honest) > 0.005
    bold = calibration.ece(*(3 * scores for scores in draw(0, 6000)))
    assert bold > 0.1
    assert calibration.ece([-50.0] * 40, [50.0] * 40) == pytest.approx(0, abs=1e-9)
    assert calibration.ece([50.0] * 40, [-50.0] * 40) == pytest.approx(1, abs=1e-9)


def test_probability_at_the_ends():
    assert calibration.probability([-1e5, 0, 1e5]).tolist() == [0.0, 0.5, 1.0]
    assert calibration.probability([-40.0])[0] == pytest.approx(np.exp(-40), rel=1e-12)


@pytest.mark.parametrize("kind", ["temperature", "shift", "both"])
def test_scaling_is_the_least_cross_entropy(kind):
    real, fake = draw(6, 300, slope=0.4, shift=1.0)
    found = calibration.fit_scaling(real, fake, kind)
    z = np.r_[real, fake]
    target = np.repeat([1 / (len(real) + 2), (len(fake) + 1) / (len(fake) + 2)], [len(real), len(fake)])

    def loss(w):
        slope = w[0] if kind != "shift" else 1
        shift = w[-1] if kind != "temperature" else 0
        x = slope * z + shift
        return np.mean(np.logaddexp(0, x) - target * x)

    truth = minimize(loss, np.ones(2 if kind == "both" else 1), tol=1e-14).x
    ours = {"temperature": [found.slope], "shift": [found.shift], "both": list(found)}[kind]
    assert ours == pytest.approx(truth.tolist(), abs=1e-5)
    assert kind != "shift" or found.slope == 1
    assert kind != "temperature" or found.shift == 0


def test_scaling_finds_what_was_planted_and_repairs_calibration():
    real, fake = draw(7, 20000, slope=0.5, shift=-1.0)
    found = calibration.fit_scaling(real, fake)
    assert tuple(found) == pytest.approx((0.5, -1.0), abs=0.05)
    model = LogisticRegression(C=np.inf, tol=1e-9).fit(np.r_[real, fake][:, None], pooled(real, fake)[0])
    assert tuple(found) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), abs=1e-3)
    fresh = draw(8, 20000, slope=0.5, shift=-1.0)
    before, after = calibration.ece(*fresh), calibration.ece(*map(found, fresh))
    assert before > 0.1
    assert after < 0.02


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6, 1e12])
def test_scaling_of_separated_classes_is_finite(scale):
    real, fake = -scale * np.linspace(1, 2, 20), scale * np.linspace(1, 2, 20)
    found = calibration.fit_scaling(real, fake)
    assert np.isfinite(found).all()
    assert (calibration.probability(found(fake)) > 0.5).all()
    assert calibration.ece(found(real), found(fake), 2) < 0.06  # the softened targets: 1 / 22 and 21 / 22


def test_what_makes_no_sense_is_refused():
    for work in (calibration.ece, calibration.brier, calibration.reliability):
        with pytest.raises(ValueError, match="bins"):
            work([0.0], [1.0], 0)
        with pytest.raises(ValueError, match="NaN"):
            work([np.nan], [1.0])

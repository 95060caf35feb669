"""Scores of a face swap whose truth is known: planted fakes come out where they must, and the instrument reads well."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

from arena.data.faces import render
from arena.errors import InputError
from arena.metrics import landmarks as instruments
from arena.metrics import swap
from arena.metrics.landmarks import Landmarks, fit_landmarks
from arena.metrics.likeness import student
from arena.metrics.swap import Swaps, swap_scores, wilson

N, SIZE, SOURCE, WANTED = 30, 32, 1, 2


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def instrument():
    return fit_landmarks(SIZE, faces=800)


@pytest.fixture(scope="module")
def swaps():
    return Swaps(5, range(900, 900 + N), [SOURCE] * N, [WANTED] * N)


@pytest.fixture(scope="module")
def scored(instrument, swaps):
    """A function: fakes to scores, and the plants by name."""
    source = swaps.render(SIZE, swaps.shown).image
    truth = swaps.render(SIZE, swaps.wanted).image
    pictures = {WANTED: render(5, range(100), SIZE, identity=WANTED).image}
    rng = torch.Generator().manual_seed(0)
    plants = {
        "truth": truth,
        "copy": source,
        "blend": ((source.float() + truth.float()) / 2).round().to(torch.uint8),
        "blurred": instruments._blur(truth.float(), 0.8).round().to(torch.uint8),
        "dim": (truth.float() * 0.8).round().to(torch.uint8),
        "mean": pictures[WANTED].double().mean(0).round().to(torch.uint8).expand_as(truth),
        "mirrored": truth.flip(-1),
        "rolled": truth.roll(3, -1),
        "noise": torch.randint(0, 256, truth.shape, generator=rng, dtype=torch.uint8),
    }
    return {name: swap_scores(images, swaps, pictures, landmarks=instrument) for name, images in plants.items()}


def values(scored, name):
    return {plant: scores[name]["value"] for plant, scores in scored.items()}


# The scores, by planted fakes


def test_the_exact_swap_scores_perfectly(scored):
    best = scored["truth"]
    for suffix in ("", "-frame"):
        assert best[f"swap-psnr{suffix}"]["value"] == pytest.approx(10 * np.log10(255**2 * 12))
        assert best[f"swap-ssim{suffix}"]["value"] == pytest.approx(1, abs=1e-5)
    for name in ("landmark-error", "expression-error", "pose-error"):
        assert best[name]["value"] == pytest.approx(best[name]["floor"])
    assert best["identity"]["value"] == 1
    assert best["identity-margin"]["value"] == pytest.approx(1, abs=1e-4)


def test_a_copy_of_the_source_is_its_own_reference(scored):
    copy = scored["copy"]
    for score in copy.values():
        assert score["value"] == pytest.approx(score["copy"], rel=1e-5)
    assert copy["identity"]["value"] == 0
    assert copy["identity"]["source"] == 1
    assert copy["identity-margin"]["value"] == pytest.approx(-1, abs=1e-4)
    assert copy["swap-psnr"]["over_copy"] == {"value": 0, "low": 0, "high": 0}


def test_the_mean_face_is_its_own_reference(scored):
    for score in scored["mean"].values():
        assert score["value"] == pytest.approx(score["mean"], rel=1e-5)
    errors = scored["mean"]["landmark-error"]
    assert errors["value"] > 3 * errors["floor"]  # it keeps nobody's pose


def test_a_blend_lies_between_the_source_and_the_truth(scored):
    for name in ("swap-psnr", "swap-ssim", "swap-psnr-frame", "swap-ssim-frame", "identity-margin"):
        at = values(scored, name)
        assert at["copy"] < at["blend"] < at["truth"], name
    at = values(scored, "landmark-error")
    assert at["truth"] < at["blend"] < at["copy"]
    assert -0.5 < values(scored, "identity-margin")["blend"] < 0.5
    assert scored["blend"]["swap-psnr"]["over_copy"]["low"] > 4  # half the difference: 6 dB


def test_blur_costs_sharpness_and_not_identity(scored):
    at = scored["blurred"]
    assert at["identity"]["value"] == 1
    assert at["identity-margin"]["low"] > 0.4
    assert at["swap-psnr"]["value"] < 40
    assert at["landmark-error"]["value"] < 1.6 * at["landmark-error"]["floor"]


def test_brightness_is_not_identity(scored):
    assert scored["dim"]["identity"]["value"] == 1
    assert scored["dim"]["identity-margin"]["low"] > 0.95
    assert scored["dim"]["swap-psnr"]["value"] < 25


def test_moved_and_mirrored_faces_show_in_the_landmarks(scored):
    at = values(scored, "landmark-error")
    assert at["rolled"] > 5 * at["truth"]
    assert at["mirrored"] > 5 * at["truth"]
    pose = values(scored, "pose-error")
    assert pose["mirrored"] > 3 * pose["truth"]
    expression = values(scored, "expression-error")
    assert expression["rolled"] < 1.5 * expression["truth"]  # a shift alone is no expression


def test_noise_ranks_last(scored):
    for name in ("swap-psnr", "swap-ssim", "swap-psnr-frame", "swap-ssim-frame"):
        at = values(scored, name)
        assert min(at, key=at.get) == "noise", name
    at = values(scored, "expression-error")
    assert max(at, key=at.get) == "noise"
    assert scored["noise"]["identity"]["value"] < 0.4  # 1 / 8 by chance
    assert abs(scored["noise"]["identity-margin"]["value"]) < 0.1


def test_scores_are_plain_json_with_intervals(scored):
    for name, score in json.loads(json.dumps(scored["blend"], allow_nan=False)).items():
        assert score["low"] <= score["value"] <= score["high"], name
        assert score["n"] == N
        assert {"unit", "better", "how", "copy", "mean"} <= set(score)


# The formulas, against others


def test_psnr_against_numpy(scored, swaps):
    truth = swaps.render(SIZE, swaps.wanted)
    fake, exact = (swaps.render(SIZE, who).image.numpy().astype(float) for who in (swaps.shown, swaps.wanted))
    weight = truth.mask.numpy()[:, None] * np.ones((1, 3, 1, 1))
    inside = [np.average((a - b) ** 2, weights=w) for a, b, w in zip(fake, exact, weight, strict=True)]
    frame = ((fake - exact) ** 2).mean((1, 2, 3))
    for name, error in (("swap-psnr", inside), ("swap-psnr-frame", frame)):
        expected = np.mean([10 * np.log10(255**2 / e) for e in error])
        assert scored["copy"][name]["value"] == pytest.approx(expected, rel=1e-5)


def test_intervals_against_scipy():
    draws = torch.randn(17, generator=torch.Generator().manual_seed(1)).double()
    low, high = stats.t.interval(0.95, 16, loc=draws.mean(), scale=stats.sem(draws))
    assert student(draws) == pytest.approx((float(draws.mean()), low, high))
    for hits, n in ((0, 9), (3, 9), (200, 200)):
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == pytest.approx((hits / n, expected.low, expected.high), abs=1e-9)


def test_alignment_undoes_a_similarity_and_no_more():
    rng = torch.Generator().manual_seed(2)
    onto = torch.rand(4, 40, 2, generator=rng)
    c, s = np.cos(0.4), np.sin(0.4)
    moved = 1.7 * onto @ torch.tensor([[c, -s], [s, c]], dtype=torch.float32) + torch.tensor([3.0, -1.0])
    torch.testing.assert_close(swap._aligned(moved, onto), onto, atol=1e-5, rtol=0)
    flipped = onto * torch.tensor([-1.0, 1.0])
    assert (swap._aligned(flipped, onto) - onto).norm(dim=-1).mean() > 0.1


def test_mixed_directions_are_scored_each_for_its_own(instrument, scored):
    """The same images swapped both ways in one call: the mean of the two calls."""
    n = 6
    shown, wanted = [SOURCE] * n + [WANTED] * n, [WANTED] * n + [SOURCE] * n
    both = Swaps(5, [*range(900, 900 + n)] * 2, shown, wanted)
    fakes = both.render(SIZE, shown).image
    whole = swap_scores(fakes, both, landmarks=instrument)
    halves = [
        swap_scores(fakes[part], Swaps(5, range(900, 900 + n), shown[part], wanted[part]), landmarks=instrument)
        for part in (slice(0, n), slice(n, None))
    ]
    for name, score in whole.items():
        assert score["value"] == pytest.approx(sum(half[name]["value"] for half in halves) / 2, rel=1e-5)
        assert "mean" not in score


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"fakes": torch.zeros(3, 3, 32, 32)}, "uint8"),
        ({"fakes": torch.zeros(4, 3, 32, 32, dtype=torch.uint8)}, "4 fakes"),
        ({"wanted": [1, 2, 2]}, "another person"),
        ({"pictures": {9: torch.zeros(1, 3, 32, 32, dtype=torch.uint8)}}, "identity 2"),
        ({"pictures": {2: torch.zeros(1, 3, 48, 48, dtype=torch.uint8)}}, "identity 2"),
    ],
)
def test_what_does_not_fit_is_named(change, word):
    given = {"fakes": torch.zeros(3, 3, 32, 32, dtype=torch.uint8), "wanted": [2, 2, 2], "pictures": None} | change
    with pytest.raises(InputError, match=word):
        swap_scores(given["fakes"], Swaps(0, [0, 1, 2], [1, 1, 1], given["wanted"]), given["pictures"])


def test_too_few_fakes_for_an_interval():
    with pytest.raises(InputError, match="at least 3"):
        swap_scores(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), Swaps(0, [0, 1], [1, 1], [2, 2]))


# The instrument


@pytest.fixture(scope="module")
def read():
    return fit_landmarks(64, faces=600)


def test_the_instrument_reads_people_it_has_not_seen(read):
    """600 faces are enough for 4 % of the distance between the eyes; the mean shape is off by many times that."""
    for size, limit in ((64, 4.0), (128, 4.5)):
        faces = render(77, range(80), size)
        unit = (faces.landmarks[:, 45] - faces.landmarks[:, 36]).norm(dim=-1)[:, None] / 100
        got = read(faces.image)
        error = ((got.points - faces.landmarks).norm(dim=-1) / unit).mean()
        blind = ((faces.landmarks.mean(0) - faces.landmarks).norm(dim=-1) / unit).mean()
        assert error < limit
        assert blind > 4 * error
        assert ((got.pose - faces.pose).abs().mean(0) < torch.tensor([5.0, 4.0, 2.5])).all()


def test_the_instrument_follows_a_shift(read):
    faces = render(78, range(40), 64)
    moved = read(faces.image.roll((1, 2), (-2, -1))).points - read(faces.image).points
    assert (moved.mean((0, 1)) - torch.tensor([2.0, 1.0])).abs().max() < 0.25  # pixels


def test_the_instrument_is_kept_in_arrays(instrument, tmp_path):
    np.savez(tmp_path / "kept.npz", **instrument.arrays())
    with np.load(tmp_path / "kept.npz") as kept:
        again = Landmarks.from_arrays(kept)
    images = render(79, range(5), SIZE).image
    assert torch.equal(again(images).points, instrument(images).points)
    assert torch.equal(again(images).pose, instrument(images).pose)


def test_the_same_fit_twice():
    a, b = (fit_landmarks(32, faces=40).arrays() for _ in range(2))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_leave_one_out_is_what_leaving_one_out_gives():
    """Against a refit without the row: ridge in the primal form, the same penalty, the mean of all rows kept."""
    rng = torch.Generator().manual_seed(3)
    x, y = torch.randn(25, 7, generator=rng), torch.randn(25, 2, generator=rng)
    _, missed = instruments._ridge(x, y)
    x, y = (x - x.mean(0)).double(), (y - y.mean(0)).double()
    penalty = instruments.RIDGE * (x**2).sum(1).mean() * torch.eye(7)
    for i in range(25):
        rest = torch.arange(25) != i
        weights = torch.linalg.solve(x[rest].T @ x[rest] + penalty, x[rest].T @ y[rest])
        torch.testing.assert_close(missed[i].double(), y[i] - x[i] @ weights, atol=1e-5, rtol=1e-4)


def test_pictures_of_another_size_are_refused(instrument):
    with pytest.raises(InputError, match="32 px"):
        instrument(torch.zeros(1, 3, 40, 40, dtype=torch.uint8))
    with pytest.raises(InputError, match="size"):
        fit_landmarks(16)

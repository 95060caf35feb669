"""The weight-free features and the panel: second derivations, planted damage, and what a panel promises."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arena.errors import InputError
from arena.metrics.features import RandomConv, Spectrum
from arena.metrics.quality import quality_panel, subset

NAMES = [*(f"rfd-conv704-s{i}" for i in range(3)), *(f"kid-conv704-s{i}" for i in range(3)), "sfd"]


def pictures(n: int, seed: int, size: int = 24) -> torch.Tensor:
    """Smooth random scenes with sharp edges and a little noise, uint8: a stand-in for photographs."""
    rng = torch.Generator().manual_seed(seed)
    soft = F.interpolate(torch.rand(n, 3, 5, 5, generator=rng), size=size, mode="bicubic")
    hard = F.interpolate((torch.rand(n, 1, 8, 8, generator=rng) > 0.7).float(), size=size)
    grain = torch.randn(n, 3, size, size, generator=rng) * 0.02
    return ((0.7 * soft + 0.25 * hard + grain) * 255).round().clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def panel():
    return quality_panel("cpu", inception=None)


@pytest.fixture(scope="module")
def sets():
    return pictures(60, 1), pictures(80, 2), pictures(80, 3)  # fakes as good as real, reals, floor reals


@pytest.mark.parametrize("extractor", [RandomConv(0), Spectrum()], ids=lambda e: e.name)
@pytest.mark.parametrize("size", [(16, 16), (33, 20), (64, 64)], ids=str)
def test_features_of_any_size_are_finite_and_alone_the_same_as_in_a_batch(extractor, size):
    images = torch.randint(0, 256, (70, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[3] = 128  # a flat one
    rows = extractor(images)
    dims = extractor.dims or int(min(size) / 2**0.5)
    assert rows.shape == (70, dims)
    assert rows.dtype == torch.float32
    assert rows.isfinite().all()
    assert torch.allclose(extractor(images[67:68])[0], rows[67], atol=1e-5)
    assert torch.allclose(extractor(images.float() / 127.5 - 1), rows, atol=1e-5)  # float in [-1, 1] is the same image
    with pytest.raises(InputError, match="16 x 16"):
        extractor(images[..., :15, :15])


def test_random_features_equal_a_plain_loop_and_follow_their_seed():
    images = pictures(4, 0)
    extractor = RandomConv(1)
    x, expected = images / 127.5 - 1, []
    for layer, stride in zip(extractor.layers, (2, 2, 2, 1), strict=True):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), layer.weight, stride=stride).relu()
        deviation, mean = torch.std_mean(x, dim=(2, 3), correction=0)
        expected += [mean, deviation]
    assert torch.allclose(extractor(images), torch.cat(expected, 1), atol=1e-5)
    assert torch.equal(RandomConv(1)(images), extractor(images))
    assert RandomConv(1).describe == extractor.describe != RandomConv(2).describe
    assert not torch.allclose(RandomConv(2)(images), extractor(images), atol=0.1)


@pytest.mark.parametrize("size", [16, 21])
def test_spectrum_equals_a_loop_over_frequencies(size):
    image = pictures(1, 0, size)
    grey = np.einsum("chw,c->hw", image[0].numpy() / 127.5 - 1, [0.299, 0.587, 0.114])
    power = np.abs(np.fft.fftshift(np.fft.fft2(grey))) ** 2 / size**2
    rings: dict[int, list[float]] = {}
    for y in range(size):
        for x in range(size):
            radius = round(np.hypot(y - size // 2, x - size // 2))
            rings.setdefault(min(radius, int(size / 2**0.5)), []).append(power[y, x])
    expected = [np.log(np.mean(rings[r]) + (2 / 255) ** 2 / 12) for r in range(1, max(rings) + 1)]
    assert Spectrum()(image)[0].numpy() == pytest.approx(np.array(expected), abs=1e-4)


def test_panel_has_its_stable_names_and_plain_numbers(panel, sets):
    fakes, reals, floor_reals = sets
    scores = panel.score(fakes, reals, floor_reals)
    assert list(scores) == NAMES
    json.dumps(scores, allow_nan=False)
    for score in scores.values():
        assert {"value", "low", "high", "n", "floor", "features"} <= set(score)
        assert score["low"] <= score["value"] <= score["high"]
        assert (score["n"], score["floor_n"], score["n_real"]) == (60, 60, 80)
    assert "fid" not in scores
    assert panel.note.startswith("No FID")
    assert "\n" not in panel.note


def test_fakes_as_good_as_reals_read_like_the_floor(panel, sets):
    for name, score in panel.score(*sets).items():
        reach = score["high"] - score["low"]
        assert abs(score["value"] - score["floor"]) < reach, name


def test_reals_against_reals_lie_about_the_floor_where_there_are_fewer_others(panel):
    """A Fréchet distance falls as n grows: of 60 fakes it would lie below that of 20 other reals nearly always."""
    draws = [[pictures(n, 10 * seed + i) for i, n in enumerate((60, 40, 20))] for seed in range(10)]
    found = [panel.score(*draw) for draw in draws]
    for name in ("rfd-conv704-s0", "sfd"):
        below = sum(scores[name]["value"] < scores[name]["floor"] for scores in found)
        assert 1 <= below <= 9, name


DAMAGE = {
    "blur": lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear"),
    "noise": lambda x: x + 25 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    "colour": lambda x: x + torch.tensor([30.0, 0.0, -30.0])[:, None, None],
    "collapse": lambda x: x[torch.arange(len(x)) % 4],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_raises_the_distances_above_floor_and_interval(panel, sets, damage):
    fakes, reals, floor_reals = sets
    worse = DAMAGE[damage](fakes.float()).round().clamp(0, 255).to(torch.uint8)
    good, bad = panel.score(fakes, reals, floor_reals), panel.score(worse, reals, floor_reals)
    blind = {"colour": {"sfd"}, "collapse": {"sfd", *(n for n in NAMES if n.startswith("kid"))}}.get(damage, set())
    for name in set(NAMES) - blind:
        assert bad[name]["value"] > good[name]["high"], name
        assert bad[name]["value"] > bad[name]["floor"], name


def test_reals_are_looked_at_once_and_found_again_by_their_pixels(panel, sets, monkeypatch):
    fakes, reals, floor_reals = sets
    first = panel.score(fakes, reals, floor_reals)
    seen = []
    look = RandomConv.__call__
    monkeypatch.setattr(RandomConv, "__call__", lambda self, images: seen.append(len(images)) or look(self, images))
    assert panel.score(fakes, reals.clone(), floor_reals.clone()) == first
    assert seen == [60, 60, 60]  # the fakes alone, once a seed
    other = reals.clone()
    other[0, 0, 0, 0] ^= 1
    again = panel.score(fakes, other, floor_reals)
    assert again["sfd"]["reference"] != first["sfd"]["reference"]
    assert again["sfd"]["value"] != first["sfd"]["value"]


def test_a_figure_and_its_floor_are_of_equal_counts_and_too_few_images_are_refused(panel, sets):
    fakes, reals, floor_reals = sets
    scores = panel.score(fakes, reals, floor_reals[:20])
    assert {(score["n"], score["floor_n"]) for score in scores.values()} == {(20, 20)}
    assert scores == panel.score(subset(fakes, 20), reals, floor_reals[:20])
    with pytest.raises(InputError, match="at least 3 fakes"):
        panel.score(fakes[:2], reals, floor_reals)


def test_subsets_are_always_the_same_and_follow_no_order():
    images = torch.arange(1000).view(-1, 1, 1, 1)
    chosen = subset(images, 200).flatten()
    assert torch.equal(chosen, subset(images, 200).flatten())
    assert len(set(chosen.tolist())) == 200
    assert 60 < (chosen % 2 == 0).sum() < 140

"""Path length against closed forms, a derivative, and a second derivation of LPIPS."""

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from arena.errors import InputError
from arena.metrics import path_length as module
from arena.metrics.path_length import Lpips, RandomMaps, find_distance, path_length, shown, trimmed_mean
from gen.alae import ALAE


class Linear:
    """A latent generator without bends: w = z, image = scale * (A w)."""

    latent, levels = 4, 1

    def __init__(self, size=16, scale=1.0):
        self.g = nn.Linear(4, 3 * size * size, bias=False)
        nn.init.normal_(self.g.weight, std=scale, generator=torch.Generator().manual_seed(0))
        self.size = size

    def map(self, z):
        return z

    def decode(self, w, *, rng=None):
        return self.g(w).view(-1, 3, self.size, self.size)


class Pixels:
    """Squared difference of two linear features, the image's own first two latents: |w2 - w1|^2 of two dimensions."""

    name, score, describe, dtype, device = "pixels", "pixels", "", torch.float64, torch.device("cpu")

    def __init__(self, generator):
        self.back = torch.linalg.pinv(generator.g.weight.detach().double())[:2]

    def __call__(self, x, y):
        return ((x - y).flatten(1) @ self.back.T).square().sum(1)


@pytest.mark.parametrize("sampling", ["full", "end"])
def test_linear_generator_and_linear_features_give_the_exact_value(sampling):
    """|w2 - w1|^2 over two dimensions is exponential with mean 4; its mean between two percentiles is known.

    The mean of x over [a, b] under exp(-x) is ((a + 1) exp(-a) - (b + 1) exp(-b)) / (exp(-a) - exp(-b)).
    """
    a, b = -math.log(0.99), -math.log(0.01)
    expected = 4 * ((a + 1) * 0.99 - (b + 1) * 0.01) / 0.98
    player = Linear()
    found = path_length(player, Pixels(player), 4000, sampling=sampling, batch=500)
    assert found["low"] < expected < found["high"]
    assert found["high"] - found["low"] < 0.3
    assert found["n"] == 4000
    assert player.g.weight.dtype == torch.float32


def test_pairs_do_not_depend_on_the_batch():
    player = Linear()
    values = [path_length(player, Pixels(player), 10, batch=batch)["value"] for batch in (1, 4, 10)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_random_maps_give_the_derivative_also_of_a_generator_that_hardly_moves(scale):
    """As eps goes to 0 the formula becomes |d features / dt|^2, which forward differentiation knows exactly."""
    player, distance = Linear(scale=scale), RandomMaps()
    seen = []
    found = path_length(player, distance, 3, batch=3)  # of three, none is trimmed
    weight = player.g.weight.detach().double()

    def maps(x):
        out = []
        for layer in distance.layers:
            x = F.relu(layer(x))
            out.append(x.flatten(1) / math.sqrt(x[0, 0].numel()))
        return torch.cat(out, 1)

    draws = module.rng("path length", 0)
    for _ in range(3):
        z1, z2 = torch.randn(2, 4, generator=draws).double()
        t = torch.rand(1, generator=draws).double()
        images = [(v @ weight.T).view(1, 3, 16, 16) for v in (torch.lerp(z1, z2, t), z2 - z1)]
        seen.append(float(torch.func.jvp(maps, (images[0],), (images[1],))[1].square().sum()))
    assert found["value"] == pytest.approx(np.mean(seen), rel=2e-3)
    assert found["name"] == "path-length-conv352-s0"
    assert "float64" in found["features"]


def test_a_style_generator_plays_in_double_and_comes_back_untouched():
    player = ALAE(size=16, latent=8, width=4, max_width=8)
    before = [p.clone() for p in player.g_ema.parameters()]
    found = path_length(player, RandomMaps(), 6, batch=2)
    assert 0 <= found["low"] < found["value"] < found["high"]
    assert all(torch.equal(a, b) for a, b in zip(before, player.g_ema.parameters(), strict=True))


def test_noise_is_the_same_for_both_images_of_a_pair():
    class Noisy(Linear):
        def decode(self, w, *, rng=None):
            return super().decode(w) + torch.randn(len(w), 3, 16, 16, generator=rng, dtype=torch.float64)

    assert path_length(Noisy(), Pixels(Noisy()), 6)["value"] == pytest.approx(
        path_length(Linear(), Pixels(Linear()), 6)["value"], rel=1e-6
    )


def test_the_crop_and_the_reduction_are_the_published_ones():
    image = torch.arange(64.0 * 64).view(1, 1, 64, 64)
    assert torch.equal(shown(image, crop=True), image[:, :, 24:56, 16:48])
    assert shown(torch.zeros(1, 3, 256, 256), crop=False).shape[-1] == 256
    large = torch.rand(1, 3, 512, 512)
    torch.testing.assert_close(shown(large, crop=False)[0, 0, 0, 0], large[0, 0, :2, :2].mean())


def test_trimmed_mean_and_interval_are_scipys():
    x = np.random.default_rng(0).exponential(size=200)
    value, low, high = trimmed_mean(x)
    assert value == pytest.approx(stats.trim_mean(x, 1 / 200))
    assert (low, high) == pytest.approx(tuple(stats.mstats.trimmed_mean_ci(x, limits=(1 / 200, 1 / 200))), rel=1e-6)


# PPL


def no_weights(monkeypatch, tmp_path):
    for variable in ("ARENA_VGG16_WEIGHTS", "ARENA_LPIPS_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights of the right shapes, and their state dicts."""
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    trunk = {f"features.{k}": v for k, v in make_layers(cfgs["D"]).state_dict().items()}
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(Lpips.channels)}
    paths = folder / "trunk.pth", folder / "heads.pth"
    for path, state in zip(paths, (trunk, heads), strict=True):
        torch.save(state, path)
    return paths, trunk, heads


@pytest.fixture
def accepted(files, monkeypatch, tmp_path):
    """The lab takes these files for the official ones."""
    no_weights(monkeypatch, tmp_path)
    for name, path in zip(("TRUNK", "HEADS"), files[0], strict=True):
        what = getattr(module, name)
        monkeypatch.setattr(module, name, (*what[:3], hashlib.sha256(path.read_bytes()).hexdigest()))
        monkeypatch.setenv(what[0], str(path))
    return files


def test_lpips_by_a_second_derivation(accepted):
    _, trunk, heads = accepted
    lpips = find_distance()
    assert isinstance(lpips, Lpips)
    x, y = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def taps(image):
        """VGG16's thirteen convolutions by their numbers in torchvision's file."""
        mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
        h, found = ((image.double() / 2 + 0.5) - mean.view(3, 1, 1)) / std.view(3, 1, 1), []
        for number in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
            if number in (5, 10, 17, 24):
                found.append(h)
                h = F.max_pool2d(h, 2)
            weight, bias = (trunk[f"features.{number}.{part}"].double() for part in ("weight", "bias"))
            h = F.conv2d(h, weight, bias, padding=1).relu()
        return [*found, h]

    expected = 0
    for i, (a, b) in enumerate(zip(taps(x), taps(y), strict=True)):
        a, b = (h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10) for h in (a, b))
        expected = expected + (heads[f"lin{i}.model.1.weight"].double() * (a - b) ** 2).sum(1).mean((1, 2))
    torch.testing.assert_close(lpips(x, y).double(), expected, rtol=3e-3, atol=0)  # 0.229 / 0.5 is 0.458, but rounded
    torch.testing.assert_close(lpips(x, x), torch.zeros(2))


def test_only_the_official_weights_make_it_ppl(accepted, monkeypatch):
    player = Linear(size=32)
    found = path_length(player, find_distance(), 3)
    assert found["name"] == "ppl"
    for what in (module.TRUNK, module.HEADS):
        assert what[3] in found["features"]
    monkeypatch.setattr(module, "HEADS", (*module.HEADS[:3], "0" * 64))
    with pytest.raises(InputError, match=r"heads\.pth"):
        find_distance()


def test_without_weights_it_goes_by_another_name(monkeypatch, tmp_path, files):
    no_weights(monkeypatch, tmp_path)
    assert isinstance(find_distance(), RandomMaps)
    with pytest.raises(InputError, match=r"lpips-v0\.1-vgg\.pth"):
        Lpips()
    monkeypatch.setenv("ARENA_VGG16_WEIGHTS", str(files[0][0]))  # one of the two is not enough
    assert isinstance(find_distance(), RandomMaps)
    monkeypatch.setenv("ARENA_LPIPS_WEIGHTS", str(tmp_path / "gone.pth"))
    with pytest.raises(InputError, match=r"gone\.pth"):
        find_distance()


def test_weights_that_do_not_fit_are_refused(accepted, monkeypatch, tmp_path):
    bad = tmp_path / "bad.pth"
    torch.save({"lin0.model.1.weight": torch.zeros(1, 3, 1, 1)}, bad)
    monkeypatch.setenv("ARENA_LPIPS_WEIGHTS", str(bad))
    monkeypatch.setattr(module, "HEADS", (*module.HEADS[:3], hashlib.sha256(bad.read_bytes()).hexdigest()))
    with pytest.raises(InputError, match="does not fit"):
        Lpips()
    bad.write_bytes(b"no weights")
    monkeypatch.setattr(module, "HEADS", (*module.HEADS[:3], hashlib.sha256(b"no weights").hexdigest()))
    with pytest.raises(InputError, match=r"bad\.pth"):
        Lpips()

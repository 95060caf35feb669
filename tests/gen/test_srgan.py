"""SRGAN against the paper's figures, second derivations of its equations, and PIL's bicubic."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gen.perceptual import Perceptual
from gen.srgan import SRGAN, SRResNet, discriminator, random_crop, shrink

TINY = {"width": 8, "blocks": 1, "d_width": 4, "crop": 16, "content_steps": 2, "content": "random"}


@pytest.fixture
def fabric():
    from arena.build import fabric

    return fabric("cpu", "32-true")


def images(n=4, size=16, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def waves(n, seed, size=32):
    """Grey waves of 10 to 16 px: shrunk four times they are near the limit of sampling, where bicubic weakens them."""
    rng = torch.Generator().manual_seed(seed)
    turn, phase, period = (torch.rand(n, 1, 1, 1, generator=rng) for _ in range(3))
    y, x = torch.meshgrid(*[torch.arange(size)] * 2, indexing="ij")
    along = x * torch.cos(2 * torch.pi * turn) + y * torch.sin(2 * torch.pi * turn)
    return torch.sin(2 * torch.pi * (along / (10 + 6 * period) + phase)).expand(n, 3, size, size)


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_parameter_counts():
    """Summed by hand from figure 4; 734,219 (5 blocks) and 5,215,425 are published for two implementations of it."""
    block = 2 * (64 * 64 * 9 + 64) + 2 * 2 * 64 + 1
    enlarging = 2 * (64 * 256 * 9 + 256 + 1)
    rest = (3 * 64 * 81 + 64 + 1) + (64 * 64 * 9 + 64 + 2 * 64) + (64 * 3 * 81 + 3)
    assert count(SRResNet()) == 16 * block + enlarging + rest == 1_549_462
    assert count(SRResNet(blocks=5)) == 734_219
    assert count(discriminator()) == 5_215_425
    convolutions = [m for m in discriminator() if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [m.stride[0] for m in convolutions] == [1, 2, 1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_sizes(scale):
    model = SRGAN(**TINY | {"scale": scale})
    assert model.g(torch.zeros(2, 3, 5, 4)).shape == (2, 3, 5 * scale, 4 * scale)
    assert model.d(images(2, 32)).shape == (2, 1)
    with torch.inference_mode():
        x = images(2, 40)
        fake = model.sample(x, rng=torch.Generator())
    assert fake.shape == model.baseline(x).shape == x.shape


def test_pixel_shuffle_lays_channels_out_in_rows():
    """Shi et al. 2016, eq. 4: channel 4c + 2i + j becomes row i, column j of channel c's 2x2 pixels."""
    net = SRResNet(2, 0, 2)
    shuffle = next(m for m in net.tail if isinstance(m, torch.nn.PixelShuffle))
    x = torch.arange(8.0).view(1, 8, 1, 1)
    assert shuffle(x).tolist() == [[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]]


@pytest.mark.parametrize("scale", [2, 4])
def test_images_are_shrunk_as_pil_shrinks_them(scale):
    """PIL's bicubic is antialiased; so is this: noise comes out far weaker than by a bicubic that is not."""
    x = images(1, 32)
    small = shrink(x, scale)
    for found, channel in zip(small[0], x[0], strict=True):
        picture = Image.fromarray(channel.numpy(), mode="F").resize(
            (32 // scale, 32 // scale), Image.Resampling.BICUBIC
        )
        np.testing.assert_allclose(found.numpy(), np.asarray(picture).clip(-1, 1), atol=1e-5)
    aliased = F.interpolate(x, scale_factor=1 / scale, mode="bicubic")
    assert small.std() < 0.7 * aliased.std()


def test_baseline_is_pils_enlargement_of_the_shrunk_image():
    model, x = SRGAN(**TINY), images(1, 32)
    for found, small in zip(model.baseline(x)[0], shrink(x, 4)[0], strict=True):
        picture = Image.fromarray(small.numpy(), mode="F").resize((32, 32), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(found.numpy(), np.asarray(picture).clip(-1, 1), atol=1e-5)


def test_skip_adds_to_the_baseline():
    torch.manual_seed(0)
    plain, skipping = SRGAN(**TINY), SRGAN(**TINY, skip=True)
    skipping.g.load_state_dict(plain.g.state_dict())
    x = images(2, 32)
    with torch.inference_mode():
        small = plain.small(x)
        torch.testing.assert_close(skipping.g.eval()(small), plain.g.eval()(small) + plain.baseline(x))


def test_random_crop_cuts_windows():
    torch.manual_seed(0)
    x = images(64, 20)
    cut = random_crop(x, 16)
    places = set()
    for image, window in zip(x, cut, strict=True):
        at = [(i, j) for i in range(5) for j in range(5) if torch.equal(image[:, i : i + 16, j : j + 16], window)]
        places.add(*at)
    assert len(places) > 15
    assert torch.equal(random_crop(x, 96), x)


def test_content_steps_equal_the_mean_squared_error(fabric):
    torch.manual_seed(0)
    model, x = SRGAN(**TINY), images()
    g, d = copy.deepcopy(model.g), copy.deepcopy(model.d.state_dict())
    losses = next(model.fit(fabric, [(x,)], penalty=lambda y: 3 * y.square().mean()))
    with torch.no_grad():
        fake = g.train()((shrink(x, 4) + 1) / 2)
    expected = (fake - x).square().mean()
    for name in ("loss_g", "mse", "content"):
        torch.testing.assert_close(losses[name], expected)
    torch.testing.assert_close(losses["penalty"], 3 * fake.clamp(-1, 1).square().mean())
    assert losses["adversarial"] == losses["loss_d"] == 0
    assert all(torch.equal(d[k], v) for k, v in model.d.state_dict().items())


@pytest.mark.parametrize("content", ["random", "mse"])
def test_adversarial_losses_equal_the_equations(fabric, content):
    """Eq. 2, 3, 5 and 6 with plain torch, the logarithms written out."""
    torch.manual_seed(0)
    more = {"content_steps": 0, "content": content, "layers": ("relu2_2",), "lr": 1e-9}
    model, x = SRGAN(**TINY | more), images()
    g, d = copy.deepcopy(model.g), copy.deepcopy(model.d)
    losses = next(model.fit(fabric, [(x,)]))
    with torch.no_grad():
        fake = g.train()((shrink(x, 4) + 1) / 2)
        p_real, p_fake = d.train()(x).sigmoid(), d(fake).sigmoid()
        features = Perceptual("random", layers=("relu2_2",))
        found = 0.006 * features.content(fake, x) if content == "random" else (fake - x).square().mean()
        expected = {"mse": (fake - x).square().mean(), "content": found, "adversarial": -p_fake.log().mean()}
        expected |= {"loss_g": found + 1e-3 * expected["adversarial"], "penalty": torch.zeros(())}
        expected |= {"loss_d": -p_real.log().mean() - (1 - p_fake).log().mean()}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name, rtol=1e-4, atol=1e-6)
        assert not losses[name].requires_grad


def test_each_net_moves_and_only_by_its_own_loss(fabric):
    torch.manual_seed(0)
    model = SRGAN(**TINY | {"content_steps": 0, "adversarial": 0.0, "feature_weight": 0.0})
    before = {name: [p.clone() for p in getattr(model, name).parameters()] for name in "gd"}
    next(model.fit(fabric, [(images(),)]))
    moved = {n: any((a != b).any() for a, b in zip(before[n], getattr(model, n).parameters())) for n in "gd"}  # noqa: B905
    assert moved == {"g": False, "d": True}


def test_stages_and_rates(fabric):
    """3 content steps and 4 adversarial ones, the last 2 at a tenth of the rate; counted over two fits."""
    model = SRGAN(**TINY | {"content_steps": 3, "steps": 7})
    found = []
    for n in (2, 5):
        fit = model.fit(fabric, [(images(),)] * n)
        for _ in range(n):
            rate = model.opt_g.param_groups[0]["lr"]
            found.append((bool(next(fit)["loss_d"] > 0), pytest.approx(rate)))
    assert found == [(False, 1e-4)] * 3 + [(True, 1e-4)] * 2 + [(True, 1e-5)] * 2


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_resume_across_the_switch_is_bit_equal(fabric, tmp_path, cut):
    """Stopped before, at and after the switch, saved as the arena saves, and continued by a new player."""
    from arena.ledger import parts
    from arena.seeds import reseed

    def played(cuts):
        for start, stop in zip((0, *cuts), (*cuts, 5), strict=True):
            reseed(9)
            player = SRGAN(**TINY)
            if start:
                saved = torch.load(tmp_path / "save", weights_only=True)
                for name, part in parts(player).items():
                    part.load_state_dict(saved[name])
            fit = player.fit(fabric, [(images(seed=step),) for step in range(start, stop)])
            for step in range(start, stop):
                reseed(0, step)
                losses = next(fit)
            torch.save({name: part.state_dict() for name, part in parts(player).items()}, tmp_path / "save")
        return losses, torch.load(tmp_path / "save", weights_only=True)

    (losses, whole), (again, pieces) = played(()), played((cut,))
    assert losses == again
    assert losses["loss_d"] > 0
    assert whole["features"] == {}  # the features' weights are not saved
    for net in "gd":
        for key, value in whole[net].items():
            assert torch.equal(value, pieces[net][key]), key


def test_beats_bicubic_after_seconds_of_content_training(fabric):
    """PSNR, counted by hand on images that were not trained on."""
    torch.manual_seed(0)
    model = SRGAN(width=16, blocks=1, d_width=4, crop=32, skip=True, content="mse", lr=2e-3)
    for _ in model.fit(fabric, [(waves(8, seed=step),) for step in range(80)]):
        pass
    x = waves(32, seed=10**6)
    with torch.inference_mode():
        fakes, plain = model.sample(x, rng=torch.Generator()), model.baseline(x)

    def psnr(found):
        return (10 * torch.log10(4 / (found - x).square().mean((1, 2, 3)))).mean()

    assert 15 < psnr(plain) < 25
    assert psnr(fakes) > psnr(plain) + 3, (psnr(fakes), psnr(plain))


def test_unusable_values_are_refused():
    with pytest.raises(ValueError, match="at least"):
        SRGAN(**TINY | {"width": 0})
    with pytest.raises(ValueError, match="scale is 2, 4 or 8, not 3"):
        SRGAN(**TINY | {"scale": 3})
    with pytest.raises(ValueError, match="weights of losses"):
        SRGAN(**TINY | {"adversarial": -1.0})
    with pytest.raises(ValueError, match="crop is a multiple of scale"):
        SRGAN(**TINY | {"crop": 18})
    with pytest.raises(ValueError, match="multiples of 4 px"):
        SRGAN(**TINY).sample(images(1, 18), rng=torch.Generator())


def test_without_weights_the_default_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(ValueError, match=r"vgg19-dcbb9e9d\.pth, found no .*random.*content=mse need no file") as found:
        SRGAN()
    assert "\n" not in str(found.value)
    assert SRGAN(**TINY | {"content": "mse"}).provenance == "from scratch"
    assert SRGAN(**TINY).provenance == "from scratch, content loss on fixed random features"

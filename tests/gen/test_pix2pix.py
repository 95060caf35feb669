"""pix2pix against the paper's architecture counted by hand, and second derivations of its equations."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from gen.blocks import patch_discriminator
from gen.perceptual import Perceptual
from gen.pix2pix import Pix2Pix, UNet

TINY = {"size": 32, "width": 4, "d_width": 4, "d_layers": 2, "jitter": 1.0, "flip": False}


@pytest.fixture
def fabric():
    from arena.build import fabric

    return fabric("cpu", "32-true")


def images(n=2, size=32, seed=0, dtype=torch.float32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def count(net):
    return sum(p.numel() for p in net.parameters())


# The networks


def test_the_generator_has_the_papers_54_4_million_parameters():
    """Layer by layer from appendix 6.1.1: 4x4 kernels, gain and shift of each norm, a bias in the last alone."""
    down = [3, 64, 128, 256, 512, 512, 512, 512, 512]
    up = [(512, 512), (1024, 512), (1024, 512), (1024, 512), (1024, 256), (512, 128), (256, 64)]
    by_hand = sum(16 * a * b for a, b in pairwise(down)) + sum(2 * k for k in down[2:-1])
    by_hand += sum(16 * a * b + 2 * b for a, b in up) + 16 * 128 * 3 + 3
    assert by_hand == 54_413_955
    assert count(UNet()) == by_hand


def test_the_discriminator_sees_pairs_by_70x70_patches():
    by_hand = 16 * (6 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1 + 2 * (128 + 256 + 512)
    assert by_hand == 2_768_705
    net = patch_discriminator(channels=6, affine=True)
    assert count(net) == by_hand
    field = 1
    for kernel, stride in [(4, 1), (4, 1), (4, 2), (4, 2), (4, 2)]:
        field = (field - 1) * stride + kernel
    assert field == 70
    assert net(torch.zeros(1, 6, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize(("size", "deep"), [(32, 5), (64, 6), (96, 5), (128, 7), (256, 8), (512, 8)])
def test_depth_follows_the_size(size, deep):
    model = Pix2Pix(size=size, width=2, d_width=2)
    assert len(model.g.down) == deep
    found = []
    model.g.down[-1].register_forward_hook(lambda net, given, out: found.append(out.shape[-1]))
    assert model.sample(images(1, size), rng=draws()).shape == (1, 3, size, size)
    assert found == [size // 2**deep]


def test_published_initialisation():
    model = Pix2Pix(size=64, width=32, d_width=32)
    for net in (model.g, model.d):
        named = dict(net.named_parameters())
        weights = torch.cat([p.flatten() for n, p in named.items() if n.endswith("weight") and p.ndim == 4])
        gains = torch.cat([p for n, p in named.items() if n.endswith("weight") and p.ndim == 1])
        assert abs(weights.mean()) < 1e-3
        assert abs(weights.std() - 0.02) < 1e-3
        assert abs(gains.mean() - 1) < 0.01
        assert abs(gains.std() - 0.02) < 5e-3
        assert all((p == 0).all() for n, p in named.items() if n.endswith("bias"))


def by_hand(g, x, masks):
    """The U-Net of one image in plain functions: batch norm over a batch of one, in training mode (section 3.3)."""

    def norm(x, layer):
        return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True)

    skips = [F.conv2d(x, g.down[0].weight, stride=2, padding=1)]
    for layer in list(g.down)[1:]:
        x = F.conv2d(F.leaky_relu(skips[-1], 0.2), layer[1].weight, stride=2, padding=1)
        skips.append(norm(x, layer[2]) if layer is not g.down[-1] else x)
    x = skips.pop()
    for n, layer in enumerate(g.up):
        x = norm(F.conv_transpose2d(F.relu(x), layer[1].weight, stride=2, padding=1), layer[2])
        x = torch.cat([x * masks[n] if n < 3 else x, skips.pop()], 1)
    return F.conv_transpose2d(F.relu(x), g.last[1].weight, g.last[1].bias, stride=2, padding=1).tanh()


def test_the_u_net_is_the_papers_with_batch_norm_of_one_image():
    torch.manual_seed(0)
    g, x = UNet(4, 5).double(), images(3, dtype=torch.float64)
    with torch.inference_mode():
        whole, masks = g(x, draws(1)), g.masks(x.shape, draws(1))
        for i in range(3):
            expected = by_hand(g, x[i : i + 1], [mask[i : i + 1] for mask in masks])
            torch.testing.assert_close(whole[i : i + 1], expected, rtol=1e-9, atol=1e-9)


# Dropout, the only noise


def test_dropout_keeps_half_and_doubles_it_in_three_layers():
    masks = UNet(8, 6).masks(torch.Size((40, 3, 64, 64)), draws())
    assert [tuple(mask.shape) for mask in masks] == [(40, 64, 2, 2), (40, 64, 4, 4), (40, 32, 8, 8)]
    for mask in masks:
        assert set(mask.unique().tolist()) == {0.0, 2.0}
        assert abs(mask.mean() - 1) < 0.03


def test_sample_is_noisy_and_its_noise_comes_from_rng_alone():
    torch.manual_seed(0)
    model, x = Pix2Pix(**TINY), images(5)
    with torch.inference_mode():
        one = model.sample(x, rng=draws(1))
        torch.manual_seed(9)
        assert torch.equal(one, model.sample(x, rng=draws(1)))
        before = torch.get_rng_state()
        other = model.sample(x, rng=draws(2))
        assert torch.equal(before, torch.get_rng_state())
        assert (one - other).abs().amax((1, 2, 3)).min() > 1e-3  # every image has noise
        model.g.eval()
        assert torch.equal(one, model.sample(x, rng=draws(1)))


def test_sample_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    model, x = Pix2Pix(**TINY), images(7)
    with torch.inference_mode():
        whole = model.sample(x, rng=draws(1))
        rng = draws(1)
        torch.testing.assert_close(torch.cat([model.sample(part, rng=rng) for part in x.split(3)]), whole)
        others = torch.cat([x[:3], 0 * x[3:]])
        torch.testing.assert_close(model.sample(others, rng=draws(1))[:3], whole[:3])


# The losses


def fakes_of(model):
    """What g makes from now on: its dropout differs from call to call."""
    made = []
    model.g.register_forward_hook(lambda net, given, out: made.append(out.detach()))
    return made


def test_losses_equal_the_equations(fabric):
    """Every loss of the first step from equations 1, 3 and 4 and section 3.3, with the logarithms written out."""
    torch.manual_seed(0)
    model = Pix2Pix(**TINY, lr=0.01)
    a, b = images(seed=1), images(seed=2)
    d, made = copy.deepcopy(model.d), fakes_of(model)
    losses = next(model.fit(fabric, [(a, b)], penalty=lambda x: 3 * x.square().mean()))
    (fake,) = made
    with torch.no_grad():

        def says(d, result):
            return d(torch.cat([a, result], 1)).sigmoid()

        loss_d = -0.5 * (says(d, b).log().mean() + (1 - says(d, fake)).log().mean())
        adversarial = -says(model.d, fake).log().mean()  # by the discriminator that has just learnt
        l1 = (fake - b).abs().mean()
        penalty = 3 * fake.square().mean()
    expected = {"loss_g": adversarial + 100 * l1, "adversarial": adversarial, "l1": l1}
    expected |= {"penalty": penalty, "loss_d": loss_d}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name, rtol=1e-4, atol=1e-5)


def test_a_perceptual_loss_compares_the_fake_with_its_truth(fabric):
    torch.manual_seed(0)
    model = Pix2Pix(**TINY, perceptual=5.0, features="random")
    assert model.provenance == "from scratch, perceptual loss on fixed random features"
    a, b = images(seed=1), images(seed=2)
    made = fakes_of(model)
    losses = next(model.fit(fabric, [(a, b)]))
    content = Perceptual("random", layers=("relu3_3",)).content(made[0], b)
    assert content > 0.001
    torch.testing.assert_close(losses["perceptual"], content)
    whole = losses["adversarial"] + 100 * losses["l1"] + 5 * content
    torch.testing.assert_close(losses["loss_g"], whole)
    with pytest.raises(ValueError, match=r"vgg16-397923af\.pth, found no such file"):
        Pix2Pix(**TINY, perceptual=5.0)


def test_the_first_step_is_adams_with_the_papers_numbers(fabric):
    """Adam's first step is lr times the gradient's sign: d moves by its halved loss, g by its own alone."""
    torch.manual_seed(0)
    model = Pix2Pix(**TINY)
    before = copy.deepcopy(model.d)
    a, b = images(seed=1), images(seed=2)
    made = fakes_of(model)
    next(model.fit(fabric, [(a, b)]))
    (fake,) = made
    real, false = (before(torch.cat([a, x], 1)) for x in (b, fake))
    loss = 0.5 * (F.softplus(-real).mean() + F.softplus(false).mean())
    loss.backward()
    for new, old in zip(model.d.parameters(), before.parameters(), strict=True):
        sure = old.grad.abs() > 1e-5
        torch.testing.assert_close((new - old)[sure], -2e-4 * old.grad.sign()[sure], rtol=0, atol=2e-6)
    assert all(group["betas"] == (0.5, 0.999) for opt in (model.opt_g, model.opt_d) for group in opt.param_groups)


def test_each_net_moves_by_its_own_loss(fabric):
    torch.manual_seed(0)
    model = Pix2Pix(**TINY, adversarial=0.0, l1=0.0)
    before = {name: copy.deepcopy(getattr(model, name).state_dict()) for name in ("g", "d")}
    next(model.fit(fabric, [(images(seed=1), images(seed=2))]))
    moved = {n: any((before[n][k] != v).any() for k, v in getattr(model, n).state_dict().items()) for n in before}
    assert moved == {"g": False, "d": True}


def test_the_discriminator_judges_the_pair_not_the_result():
    torch.manual_seed(0)
    d, a, b = Pix2Pix(**TINY).d, images(seed=1), images(seed=2)
    assert (d(torch.cat([a, b], 1)) - d(torch.cat([a.flip(0), b], 1))).abs().max() > 1e-3


def test_both_of_a_pair_are_cropped_and_mirrored_alike(fabric):
    """With a = b the first losses' l1 is that of g's fake to its own source, whatever window was cut."""
    torch.manual_seed(0)
    model = Pix2Pix(**TINY | {"jitter": 1.25, "flip": True})
    seen = []
    model.g.register_forward_hook(lambda net, given, out: seen.append((given[0], out.detach())))
    a = images(6)
    losses = next(model.fit(fabric, [(a, a)]))
    (source, fake), *_ = seen
    assert not torch.equal(source, a)
    torch.testing.assert_close(losses["l1"], (fake - source).abs().mean())


def test_it_learns_a_known_map(fabric):
    """b is a with its colours turned: after some steps the fakes are nearer to b than a is, and than grey is."""
    torch.manual_seed(0)
    model = Pix2Pix(size=32, width=8, d_width=4, d_layers=1, lr=2e-3, jitter=1.0)
    grid = F.interpolate(torch.rand(64, 3, 4, 4, generator=draws(3)) * 2 - 1, scale_factor=8)

    def turned(a):
        return -a[:, [1, 2, 0]]

    batches = ((grid[i : i + 8], turned(grid[i : i + 8])) for k in range(12) for i in range(0, 56, 8))
    for _ in model.fit(fabric, batches):
        pass
    held = grid[56:]
    with torch.inference_mode():
        error = (model.sample(held, rng=draws()) - turned(held)).abs().mean()
    assert error < 0.6 * turned(held).abs().mean()
    assert error < 0.6 * (held - turned(held)).abs().mean()


def test_ema_is_the_running_average(fabric):
    torch.manual_seed(0)
    model, average = Pix2Pix(**TINY, ema=0.9), {}
    for _ in model.fit(fabric, [(images(seed=i), images(seed=9 + i)) for i in range(3)]):
        now = {k: v.clone() for k, v in model.g.state_dict().items()}
        average = {k: 0.9 * average[k] + 0.1 * v for k, v in now.items()} if average else now
    for k, v in model.g_ema.module.state_dict().items():
        torch.testing.assert_close(v, average[k])
    with torch.inference_mode():
        expected = model.g_ema.module(images(), draws(4))
        assert torch.equal(model.sample(images(), rng=draws(4)), expected)
        assert not torch.equal(model.g(images(), draws(4)), expected)


def test_unusable_values_are_refused():
    for size in (16, 48, 100):
        with pytest.raises(ValueError, match="multiple of 32"):
            Pix2Pix(size=size)
    with pytest.raises(ValueError, match="at least 1"):
        Pix2Pix(size=32, width=0)
    with pytest.raises(ValueError, match="decay"):
        Pix2Pix(**TINY, ema=1.5)
    with pytest.raises(ValueError, match="weights of losses"):
        Pix2Pix(**TINY, l1=-5)

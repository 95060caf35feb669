"""CycleGAN against the paper's counts and second derivations of its equations."""

import copy
import random

import pytest
import torch
import torch.nn.functional as F

from gen.cyclegan import CycleGAN, Pool, crop_flip, patch_discriminator, resnet_generator
from gen.diffaugment import diff_augment

TINY = {"width": 4, "blocks": 1, "d_width": 4, "d_layers": 2, "pool": 2, "jitter": 1.0, "flip": False}


@pytest.fixture
def fabric():
    from arena.build import fabric

    return fabric("cpu", "32-true")


def images(n=2, size=16, seed=0, dtype=torch.float32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_published_parameter_counts():
    assert count(resnet_generator(blocks=9)) == 11_378_179
    assert count(resnet_generator(blocks=6)) == 7_837_699
    assert count(patch_discriminator()) == 2_764_737


def test_published_initialisation():
    weights = torch.cat([p.flatten() for n, p in resnet_generator().named_parameters() if n.endswith("weight")])
    assert abs(weights.mean()) < 1e-4
    assert abs(weights.std() - 0.02) < 1e-4


@pytest.mark.parametrize(("layers", "field"), [(1, 16), (2, 34), (3, 70)])
def test_receptive_field_of_the_patch_discriminator(layers, field):
    """Count the pixels that one logit's gradient reaches, with all weights positive and no normalisation."""
    net = patch_discriminator(2, layers).double()
    for name, module in list(net.named_children()):
        if isinstance(module, torch.nn.InstanceNorm2d):
            setattr(net, name, torch.nn.Identity())
    for p in net.parameters():
        torch.nn.init.constant_(p, 0.1)
    x = torch.ones(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    logits = net(x)
    (grad,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2], x)
    assert (grad[0, 0].abs().sum(0) > 0).sum() == field


def test_patch_discriminator_has_30x30_logits_at_256():
    assert patch_discriminator(2)(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_losses_equal_the_equations(fabric):
    """Every loss of the first step, derived again from the paper's formulas with plain torch."""
    torch.manual_seed(0)
    model = CycleGAN(**TINY)
    a, b = images(seed=1), images(seed=2)
    g, f, d_a, d_b = (copy.deepcopy(net) for net in (model.g, model.f, model.d_a, model.d_b))
    losses = next(model.fit(fabric, [(a, b)], penalty=lambda x: 3 * x.square().mean()))
    with torch.no_grad():
        adversarial = ((d_b(g(a)) - 1) ** 2).mean() + ((d_a(f(b)) - 1) ** 2).mean()
        cycle = (f(g(a)) - a).abs().mean() + (g(f(b)) - b).abs().mean()
        identity = (f(a) - a).abs().mean() + (g(b) - b).abs().mean()
        critic = [
            ((d(real) - 1) ** 2).mean() + (d(fake) ** 2).mean() for d, real, fake in ((d_a, a, f(b)), (d_b, b, g(a)))
        ]
        penalty = 3 * torch.cat([f(b), g(a)]).square().mean()
    expected = {"adversarial": adversarial, "cycle": cycle, "identity": identity, "penalty": penalty}
    expected |= {"loss_g": adversarial + 10 * cycle + 5 * identity, "loss_d": 0.5 * sum(critic)}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)
        assert losses[name].shape == ()
        assert not losses[name].requires_grad


def test_each_net_moves_and_only_by_its_own_loss(fabric):
    torch.manual_seed(0)
    model = CycleGAN(**TINY, adversarial=0.0, cycle=0.0, identity=0.0)
    before = {name: copy.deepcopy(getattr(model, name).state_dict()) for name in ("g", "f", "d_a", "d_b")}
    next(model.fit(fabric, [(images(seed=1), images(seed=2))]))
    moved = {n: any((before[n][k] != v).any() for k, v in getattr(model, n).state_dict().items()) for n in before}
    assert moved == {"g": False, "f": False, "d_a": True, "d_b": True}


def test_joint_call_equals_two_calls(fabric):
    torch.manual_seed(0)
    two = CycleGAN(**TINY)
    for name in ("g", "f", "d_a", "d_b"):
        getattr(two, name).double()
    one = copy.deepcopy(two)
    one.joint = True
    a, b = images(seed=3, dtype=torch.float64), images(seed=4, dtype=torch.float64)
    for net in ("g", "f"):
        for x, y in zip(one.translate(getattr(one, net), a, b), two.translate(getattr(two, net), a, b), strict=True):
            assert (x - y).abs().max() < 1e-12


def test_learning_rate_is_constant_then_falls_to_zero(fabric):
    model = CycleGAN(**TINY, steps=10)
    rates = [model.opt_g.param_groups[0]["lr"]]
    for _ in model.fit(fabric, [(images(), images())] * 10):
        rates.append(model.opt_d.param_groups[0]["lr"])
    expected = [2e-4] * 6 + [2e-4 * k / 5 for k in (4, 3, 2, 1, 0)]
    assert rates == pytest.approx(expected, abs=1e-12)


def test_pool_behaves_like_a_list_with_coin_tosses():
    """Batches of one against the sequential algorithm on a plain list, with the same draws."""
    pool, past = Pool(3), []
    for i in range(40):
        torch.manual_seed(i)
        found = pool(torch.full((1, 1, 1, 1), float(i))).item()
        torch.manual_seed(i)
        if len(past) < 3:
            past.append(i)
            expected = i
        else:
            row = torch.randperm(3)[0].item()
            if torch.rand(1).item() < 0.5:
                expected, past[row] = past[row], i
            else:
                expected = i
        assert found == expected
    assert pool.past.flatten().tolist() == past


def test_pool_never_loses_or_doubles_an_image():
    pool, given, returned = Pool(5), [], []
    for batch in range(30):
        x = torch.arange(batch * 4, batch * 4 + 4.0).view(4, 1, 1, 1)
        given += x.flatten().tolist()
        returned += pool(x).flatten().tolist()
    kept = pool.past.flatten().tolist()
    first = given[:5]  # while the history fills, an image is both stored and returned
    assert sorted(returned + kept) == sorted(given + first)
    again = Pool(5)
    again.load_state_dict(pool.state_dict())
    assert again.past.flatten().tolist() == kept


def test_pool_swaps_half_the_time():
    torch.manual_seed(0)
    pool = Pool(10)
    pool(torch.full((10, 1, 1, 1), -1.0))
    swaps = sum((pool(torch.full((10, 1, 1, 1), float(i))) != i).sum().item() for i in range(200))
    assert 0.45 < swaps / 2000 < 0.55


def test_ema_is_the_running_average(fabric):
    torch.manual_seed(0)
    model = CycleGAN(**TINY, ema=0.9)
    average = None
    for step, _ in enumerate(model.fit(fabric, [(images(seed=i), images(seed=9 + i)) for i in range(4)])):
        now = model.g.state_dict()
        if step == 0:  # torch's AveragedModel starts from the first weights it sees
            average = {k: v.clone() for k, v in now.items()}
        else:
            average = {k: 0.9 * average[k] + 0.1 * v for k, v in now.items()}
    for k, v in model.g_ema.module.state_dict().items():
        torch.testing.assert_close(v, average[k])
    rng = torch.Generator()
    x = images()
    with torch.inference_mode():
        assert torch.equal(model.sample(x, rng=rng), model.g_ema.module.eval()(x))
        assert torch.equal(model.sample(x, rng=rng, reverse=True), model.f_ema.module.eval()(x))


def test_crop_flip_cuts_windows_of_the_enlarged_image():
    torch.manual_seed(0)
    random.seed(0)
    ramp = torch.linspace(-1, 1, 16).expand(64, 3, 16, 16)
    out = crop_flip(ramp, 1.25, True)
    assert out.shape == ramp.shape
    slope = out[:, 0, 8, -2] - out[:, 0, 8, 1]
    big = F.interpolate(ramp[:1], [20, 20], mode="bicubic", antialias=True)[0, 0, 10]
    windows = torch.stack([big[i : i + 16] for i in range(5)])
    windows = torch.cat([windows, windows.flip(1)]).clamp(-1, 1)
    nearest = (out[:, None, 0, 8] - windows).abs().amax(-1).min(1)
    assert nearest.values.max() < 1e-5
    assert len(nearest.indices.unique()) == 10
    assert 0.3 < (slope > 0).float().mean() < 0.7
    assert torch.equal(crop_flip(ramp, 1.0, False), ramp)


def test_diffaugment_policies():
    torch.manual_seed(0)
    x = images(64, 16)
    shifted = diff_augment(x, ["translation"])
    padded = F.pad(x, (2, 2, 2, 2))
    for i in range(8):
        windows = [padded[i, :, r : r + 16, c : c + 16] for r in range(5) for c in range(5)]
        assert any(torch.equal(shifted[i], w) for w in windows)
    hidden = (diff_augment(x, ["cutout"]) == 0).all(1).sum((1, 2))
    assert hidden.max() == 64
    assert hidden.min() >= 16
    colour = diff_augment(x, ["color"])
    grey_before, grey_after = (t - t.mean(1, keepdim=True) for t in (x, colour))
    ratio = grey_after.flatten(1).norm(dim=1) / grey_before.flatten(1).norm(dim=1)
    assert ratio.min() >= 0
    assert ratio.max() <= 3.0
    leaf = x.clone().requires_grad_()
    diff_augment(leaf, ["color", "translation", "cutout"]).sum().backward()
    assert leaf.grad.abs().sum() > 0


def test_unusable_values_are_refused():
    with pytest.raises(ValueError, match="at least"):
        CycleGAN(width=0)
    with pytest.raises(ValueError, match="decay"):
        CycleGAN(**TINY, ema=1.5)

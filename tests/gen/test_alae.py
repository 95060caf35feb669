"""ALAE against counts by formula, closed forms and second derivations of its equations."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from gen.alae import ALAE, MLPALAE, mix
from gen.alae_nets import Blur, Conv, InstanceNorm, Linear, adain, latent_discriminator, pixel_norm, stage
from gen.blocks import gradient_penalty

TINY = {"size": 16, "latent": 8, "width": 4, "max_width": 8, "mapping_layers": 2, "flip": False}
TINY_MLP = {"size": 16, "latent": 8, "width": 16, "mapping_layers": 2}
NETS = ("f", "g", "e", "d")


@pytest.fixture
def fabric():
    from arena.build import fabric

    return fabric("cpu", "32-true")


def images(n=4, size=16, seed=0, dtype=torch.float32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def count(net):
    return sum(p.numel() for p in net.parameters())


def seeded(cls, **options):
    torch.manual_seed(0)
    return cls(**options)


def awake(model):
    """Zero-initialised weights (noise strengths, biases) made random, and the averages too, so that all shows."""
    for net in (model.f, model.g, model.e, model.d, model.f_ema, model.g_ema, model.e_ema):
        for p in net.parameters():
            p.data.add_(0.3 * torch.randn_like(p))
    return model


# Nets


def test_parameter_counts_of_the_published_celeba_nets():
    """128 px, 64 to 256 channels, latents of 256, 8 mapping layers: counted layer by layer from the description."""
    channels = [256, 256, 256, 256, 128, 64]  # at 4, 8, ..., 128 px
    k = 256
    g = channels[0] * 16 + (channels[-1] * 3 + 3)  # the constant, to RGB
    for level, c in enumerate(channels):
        if level > 0:
            g += 9 * channels[level - 1] * c
        g += 9 * c * c + 2 * (k * 2 * c + 2 * c) + 2 * c + 2 * c  # convolution, styles, biases, noise strengths
    e = 3 * channels[-1] + channels[-1]
    for level, c in enumerate(channels):
        to = channels[max(0, level - 1)]
        e += 9 * c * c + c + 9 * c * to + to + (2 * c * k + k) + (2 * to * k + k)
    with torch.device("meta"):
        model = ALAE(size=128)
    assert count(model.f) == 8 * (k * k + k)
    assert count(model.g) == g
    assert count(model.e) == e
    assert count(model.d) == 2 * (k * k + k) + k + 1
    assert model.levels == 12


def test_parameter_counts_of_the_mlp():
    model = MLPALAE(size=28)
    pixels = 3 * 28 * 28
    assert count(model.f) == 6 * (50 * 50 + 50)
    assert count(model.g) == 50 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * pixels + pixels
    assert count(model.e) == pixels * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 50 + 50
    assert count(model.d) == 2 * (50 * 50 + 50) + 51


def test_equalised_rate_keeps_variance_and_scales_the_step():
    """Unit variance out for unit variance in at gain 1, whatever the rate, which scales what a step of weights does."""
    x = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    moves = []
    for rate in (1.0, 0.1):
        torch.manual_seed(0)
        layer = Linear(64, 64, gain=1, rate=rate)
        assert layer(x).var().item() == pytest.approx(1, rel=0.1)
        before = layer(x)
        layer.weight.data += 0.01
        layer.bias.data += 0.01
        moves.append(layer(x) - before)
    torch.testing.assert_close(moves[1], 0.1 * moves[0], rtol=1e-3, atol=1e-5)
    assert Linear(64, 64, gain=1, start=0.05)(x).std().item() == pytest.approx(0.05, rel=0.1)
    weight = Conv(16, 16).weight
    assert weight.std().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("scale", ["up", "down"])
def test_fused_resizing_equals_the_pair_it_stands_for(scale):
    torch.manual_seed(0)
    conv = Conv(3, 5, scale=scale).double()
    x = images(dtype=torch.float64)
    weight = conv.weight * conv.gain
    if scale == "up":
        expected = F.conv2d(F.interpolate(x, scale_factor=2), weight, conv.bias, padding=1)
    else:
        expected = F.avg_pool2d(F.conv2d(x, weight, conv.bias, padding=1), 2)
    torch.testing.assert_close(conv(x), expected)


def test_blur_and_instance_norm_have_right_gradients_of_both_orders():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    for function in (Blur.apply, InstanceNorm.apply):
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)
    point = torch.zeros(1, 1, 5, 5)
    point[..., 2, 2] = 16
    assert Blur.apply(point)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_norms_give_the_moments_they_promise():
    x = 3 * images(seed=1, dtype=torch.float64) + 2
    y, mean, deviation = InstanceNorm.apply(x)
    torch.testing.assert_close(y, F.instance_norm(x))
    torch.testing.assert_close(mean, x.mean((2, 3)))
    torch.testing.assert_close(deviation, x.std((2, 3), correction=0), rtol=1e-4, atol=0)
    style = torch.randn(4, 6, dtype=torch.float64)
    for source in (x, x[:1]):
        y = adain(source, style)
        torch.testing.assert_close(y.mean((2, 3)), style[:, 3:])
        torch.testing.assert_close(y.std((2, 3), correction=0), (1 + style[:, :3]).abs())
    torch.testing.assert_close(pixel_norm(x.flatten(1)).square().mean(1), torch.ones(4, dtype=torch.float64))


def test_discriminator_is_linear_only_where_the_code_is():
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, 8)
    for linear in (False, True):
        d = latent_discriminator(8, linear)
        flat = torch.allclose(d(a) + d(b), d(a + b) + d(torch.zeros(1, 8)), atol=1e-5)
        assert flat == linear


# Losses and updates


def test_r1_of_a_linear_critic_is_its_squared_weight():
    weight = torch.randn(3 * 16 * 16, 1, requires_grad=True)
    x = images().requires_grad_()
    r1 = gradient_penalty(x.flatten(1) @ weight, x)
    torch.testing.assert_close(r1, weight.square().sum())
    (grad,) = torch.autograd.grad(r1, weight)
    torch.testing.assert_close(grad, 2 * weight)


@pytest.mark.parametrize("cls", [ALAE, MLPALAE])
def test_r1_reaches_the_weights_as_finite_differences_say(cls):
    model = seeded(cls, **(TINY if cls is ALAE else TINY_MLP))
    e, d = awake(model).e.double(), model.d.double()
    x = images(2, dtype=torch.float64).requires_grad_()

    def r1():
        return gradient_penalty(d(e(x)), x)

    parameters = [p for p in (*e.parameters(), *d.parameters()) if p.dim() > 1]
    grads = torch.autograd.grad(r1(), parameters)
    for p, grad in zip(parameters, grads, strict=True):
        direction = torch.randn_like(p)
        h = 1e-5
        with torch.no_grad():
            p += h * direction
        above = r1().item()
        with torch.no_grad():
            p -= 2 * h * direction
        below = r1().item()
        with torch.no_grad():
            p += h * direction
        assert (grad * direction).sum().item() == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-7)


def test_losses_of_the_first_update_equal_the_equations(fabric):
    model = awake(seeded(MLPALAE, **TINY_MLP, gamma=0.0))
    f, g, e, d = (copy.deepcopy(getattr(model, name)) for name in NETS)
    x = images(seed=1)
    torch.manual_seed(5)
    losses = next(model.fit(fabric, [(x,)]))
    torch.manual_seed(5)
    fake = g(f(torch.randn(4, 8))[:, None])
    adversarial = torch.log1p(d(e(fake)).exp()).mean() + torch.log1p((-d(e(x))).exp()).mean()
    torch.testing.assert_close(losses["loss_ed"], adversarial.detach())
    assert all(loss.shape == () and not loss.requires_grad for loss in losses.values())


class Watch:
    """A fabric that notes the nets at each backward pass: what changed between two is what the step between moved."""

    def __init__(self, fabric, model):
        self.fabric, self.model, self.seen = fabric, model, []

    def __getattr__(self, name):
        return getattr(self.fabric, name)

    def note(self):
        self.seen.append({name: copy.deepcopy(getattr(self.model, name).state_dict()) for name in NETS})

    def backward(self, loss):
        self.note()
        self.fabric.backward(loss)

    def moved(self):
        self.note()
        return [
            "".join(n for n in NETS if any((new[n][k] != v).any() for k, v in old[n].items() if k != "mean_w"))
            for old, new in zip(self.seen, self.seen[1:], strict=False)
        ]


@pytest.mark.parametrize("cls", [ALAE, MLPALAE])
@pytest.mark.parametrize(("move_f", "third"), [(False, "ge"), (True, "fge")])
def test_each_update_moves_the_nets_it_names(cls, move_f, third, fabric):
    model = awake(seeded(cls, **(TINY if cls is ALAE else TINY_MLP), move_f=move_f))
    watch = Watch(fabric, model)
    batches = [(images(seed=1),), (images(seed=2),)]
    for _ in model.fit(watch, batches):
        pass
    assert watch.moved() == ["ed", "fg", third] * 2


def test_second_and_third_losses_equal_the_equations(fabric):
    """From the nets as they stood before each update, and the same draws."""
    model = awake(seeded(MLPALAE, **TINY_MLP))
    watch = Watch(fabric, model)
    x = images(seed=1)
    torch.manual_seed(5)
    losses = next(model.fit(watch, [(x,)], penalty=lambda fakes: 3 * fakes.square().mean()))
    torch.manual_seed(5)
    z = [torch.randn(4, 8) for _ in range(3)]
    loss = {}
    for update in (1, 2):
        nets = [copy.deepcopy(getattr(model, name)) for name in NETS]
        for name, net in zip(NETS, nets, strict=True):
            net.load_state_dict(watch.seen[update][name])
        f, g, e, d = nets
        w = f(z[update])
        fake = g(w[:, None])
        if update == 1:
            loss["loss_fg"] = torch.log1p((-d(e(fake))).exp()).mean()
            loss["penalty"] = 3 * fake.clamp(-1, 1).square().mean()
        else:
            loss["reciprocity"] = (e(fake) - w).square().mean()
    for name, value in loss.items():
        torch.testing.assert_close(losses[name], value.detach(), msg=name)


def toy(n, seed):
    """Images of two numbers each: a bar of a random shade at a random place."""
    rng = torch.Generator().manual_seed(seed)
    place, shade = torch.rand(2, n, 1, 1, 1, generator=rng)
    x = torch.linspace(0, 1, 16)
    return ((2 * shade - 1) * torch.exp(-(((x - place) / 0.2) ** 2))).expand(n, 3, 16, 16).contiguous()


def test_reciprocity_falls_and_encode_decode_encode_closes(fabric):
    """||w - E(G(w))||^2 against the variance of w, for w of the prior, and of images made from other z."""
    model = seeded(
        MLPALAE,
        size=16,
        latent=8,
        width=32,
        mapping_layers=2,
        mapping_rate=1,
        gamma=1,
        reciprocity=10,
        ema_half_life=500,
    )

    @torch.no_grad()
    def gap(w):
        return ((model.encode(model.decode(w)) - w).square().mean() / w.var(0).mean()).item()

    @torch.no_grad()
    def gaps():
        w = model.map(torch.randn(256, 8, generator=torch.Generator().manual_seed(1)))
        return gap(w), gap(model.encode(model.decode(w)))

    before = gaps()
    batches = [(toy(32, step),) for step in range(400)]
    losses = [losses["reciprocity"].item() for losses in model.fit(fabric, batches)]
    after = gaps()
    assert sum(losses[-20:]) < 0.2 * sum(losses[:20])
    assert min(before) > 0.8
    assert max(after) < 0.3


# Styles and latents


def test_mixing_at_level_k_leaves_the_layers_before_k(fabric):
    model = awake(seeded(ALAE, **TINY))
    g, seen = model.g_ema, []
    g_layer = type(g.blocks[0]).layer

    def layer(block, i, x, w, rng):
        seen.append(g_layer(block, i, x, w, rng))
        return seen[-1]

    for block in g.blocks:
        block.layer = layer.__get__(block)
    a, b = (model.map(torch.randn(2, 8))[:, None].expand(-1, model.levels, -1) for _ in range(2))

    def run(w):
        seen.clear()
        image = model.decode(w)
        return [*seen, image]

    of_a, of_b = run(a), run(b)
    assert len(of_a) == model.levels + 1 == 7
    for k in range(model.levels + 1):
        mixed = run(mix(a, b, k))
        same = [torch.equal(x, y) for x, y in zip(mixed, of_a, strict=True)]
        assert same == [i < k for i in range(model.levels)] + [k == model.levels]
    assert all(torch.equal(x, y) for x, y in zip(run(mix(a, b, 0)), of_b, strict=True))


def test_training_mixes_with_its_probability():
    model = seeded(ALAE, **{**TINY, "mixing": 0.9})
    torch.manual_seed(0)
    cuts = []
    for _ in range(400):
        w = model.mixed(model.f, images(2))
        assert w.shape == (2, 6, 8)
        same = (w == w[:, :1]).all(2)
        assert torch.equal(same[0], same[1])
        cuts.append(int(same[0].sum()))
        assert same[0, : cuts[-1]].all()
    assert cuts.count(6) / 400 == pytest.approx(0.1, abs=0.04)
    assert set(cuts) == {1, 2, 3, 4, 5, 6}


def test_truncation():
    model = seeded(ALAE, **TINY)
    model.f_ema.mean_w.normal_()
    w = torch.randn(3, 8)
    torch.testing.assert_close(model.truncate(w, 0), model.mean_w.expand(3, 8))
    torch.testing.assert_close(model.truncate(w, 1), w)
    torch.testing.assert_close(model.truncate(w, 0.7), 0.7 * w + 0.3 * model.mean_w)
    cut = model.truncate(w, 0.7, 2)
    assert cut.shape == (3, model.levels, 8)
    torch.testing.assert_close(cut[:, 1], model.truncate(w, 0.7))
    torch.testing.assert_close(cut[:, 2], w)
    torch.testing.assert_close(model.truncate(cut, 0.7, 0), cut)


@pytest.mark.parametrize("cls", [ALAE, MLPALAE])
def test_latents_interface(cls):
    model = awake(seeded(cls, **(TINY if cls is ALAE else TINY_MLP)))
    x = images(3)
    with torch.inference_mode():
        w = model.encode(x)
        assert w.shape == model.map(torch.randn(3, model.latent)).shape == (3, 8)
        assert model.mean_w.shape == (8,)
        once = model.decode(w)
        assert once.shape == x.shape
        assert once.abs().max() <= 1
        assert torch.equal(once, model.decode(w))
        assert torch.equal(once, model.decode(w[:, None].expand(-1, model.levels, -1)))
        assert torch.equal(once, model.reconstruct(x))
        drawn = [model.sample(source, rng=torch.Generator().manual_seed(s)) for source, s in ((x, 0), (-x, 0), (x, 1))]
        assert drawn[0].shape == x.shape
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
        noisy = [model.decode(w, rng=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(noisy[0], noisy[1])
    assert torch.equal(noisy[0], noisy[2]) == torch.equal(noisy[0], once) == (cls is MLPALAE)


def test_average_halves_the_distance_in_a_half_life(fabric):
    model = seeded(MLPALAE, **TINY_MLP, ema_half_life=8)
    start = copy.deepcopy(model.e.state_dict())
    now = []
    for _ in model.fit(fabric, [(images(8, seed=1),), (images(4, seed=2),)]):
        now.append(copy.deepcopy(model.e.state_dict()))
    for name, average in model.e_ema.state_dict().items():
        first = (start[name] + now[0][name]) / 2
        expected = first + (1 - math.sqrt(0.5)) * (now[1][name] - first)
        torch.testing.assert_close(average, expected)
    assert model.mean_w.abs().sum() > 0
    assert torch.equal(model.mean_w, model.f.mean_w)


# Growing


def test_stage_blends_over_the_first_half_of_a_level():
    assert [stage(phase, 3) for phase in (0, 0.2, 0.99, 1.5, 2.75, 3.5, 99)] == [
        (0, 1), (0, 1), (0, 1), (1, 1), (2, 1), (3, 1), (3, 1),
    ]  # fmt: skip
    assert stage(1, 3) == (1, 0)
    assert stage(2.25, 3) == (2, pytest.approx(0.5))
    assert stage(2.125, 3) == (2, pytest.approx(0.5 - 0.5 * math.sqrt(0.5)))
    assert stage(math.inf, 3) == (3, 1)


def test_a_level_grows_out_of_the_one_below():
    model = awake(seeded(ALAE, **TINY, grow=True))
    g, e = model.g.eval(), model.e
    w, x = torch.randn(2, model.levels, 8), images(2)

    def at(phase):
        for net in (g, e):
            net.phase.fill_(phase)
        return g(w), e(e.shrink(x))

    for level in (1, 2):
        (lower, w_lower), (higher, _) = at(level - 0.1), at(level + 0.5)
        assert higher.shape[-1] == 2 * lower.shape[-1] == 4 << level
        image, code = at(level)
        torch.testing.assert_close(image, F.interpolate(lower, scale_factor=2))
        torch.testing.assert_close(code, w_lower)
        torch.testing.assert_close(at(level + 0.25)[0], (F.interpolate(lower, scale_factor=2) + higher) / 2)
    fixed = awake(seeded(ALAE, **TINY))
    for net, grown in ((fixed.g.eval(), g), (fixed.e, e)):
        net.load_state_dict({k: v for k, v in grown.state_dict().items() if k in net.state_dict()})
    image, code = at(9)
    assert torch.equal(fixed.g(w), image)
    assert torch.equal(fixed.e(x), code)


def test_training_grows_and_restarts_adam(fabric):
    model = seeded(ALAE, **{**TINY, "size": 32}, grow=True, images_per_level=8)
    levels, sides = [], []
    batches = [(images(4, 32, seed=i),) for i in range(8)]
    for _ in model.fit(fabric, batches, penalty=lambda x: sides.append(x.shape[-1]) or 0 * x.sum()):
        levels.append(model.g.stage()[0])
        assert (len(model.opt_ed.state) == 0) == (len(levels) in (2, 4, 6))
    assert levels == [0, 1, 1, 2, 2, 3, 3, 3]
    assert set(sides) == {32}
    assert model.sample(images(2, 32), rng=torch.Generator()).shape == (2, 3, 32, 32)
    again = seeded(ALAE, **{**TINY, "size": 32}, grow=True, images_per_level=8)
    again.g_ema.load_state_dict(model.g_ema.state_dict())
    assert again.g_ema.stage() == model.g.stage() == (3, 1)
    assert [ALAE(**TINY).rate(side) for side in (4, 128, 256, 512)] == [0.0015, 0.0015, 0.002, 0.003]


def test_flat_images_do_not_break_r1(fabric):
    """Every instance norm then meets a variance of nearly nothing."""
    model = seeded(ALAE, **TINY)
    for losses in model.fit(fabric, [(torch.zeros(2, 3, 16, 16),)] * 2):
        assert all(loss.isfinite() for loss in losses.values())
    assert all(p.isfinite().all() for net in (model.e, model.g) for p in net.parameters())


@pytest.mark.parametrize("option", [{"size": 48}, {"size": 8}, {"latent": 0}, {"mixing": 2.0}, {"ema_half_life": 0}])
def test_unusable_values_are_refused(option):
    with pytest.raises(ValueError, match="must be"):
        ALAE(**{**TINY, **option})


@pytest.mark.parametrize("option", [{"size": 0}, {"latent": 0}, {"lr": 0.0}, {"gamma": -1.0}])
def test_unusable_values_of_the_mlp_are_refused(option):
    with pytest.raises(ValueError, match="must be"):
        MLPALAE(**{**TINY_MLP, **option})

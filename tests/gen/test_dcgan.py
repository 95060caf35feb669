"""DCGAN against published counts, the mathematics of each way to enlarge, and losses and penalties by hand."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from gen.dcgan import DCGAN, UP, Nails, channels, discriminator, generator
from gen.diffaugment import diff_augment

TINY = {"size": 16, "latent": 6, "width": 4, "d_width": 4}


@pytest.fixture
def fabric():
    from arena.build import fabric

    return fabric("cpu", "32-true")


def images(n=4, size=16, seed=0, dtype=torch.float32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def count(net):
    return sum(p.numel() for p in net.parameters())


def rows(n=5, k=7, seed=0):
    return torch.randn(n, k, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_published_parameter_counts():
    assert count(generator()) == 3_576_704
    assert count(discriminator()) == 2_765_568


def test_published_initialisation():
    torch.manual_seed(0)
    for net in (generator(), discriminator()):
        kernels = torch.cat([p.flatten() for p in net.parameters() if p.dim() == 4])
        assert abs(kernels.mean()) < 1e-4
        assert abs(kernels.std() - 0.02) < 1e-4
        gains = torch.cat([p for name, p in net.named_parameters() if p.dim() == 1 and name.endswith("weight")])
        assert abs(gains.mean() - 1) < 3e-3
        assert abs(gains.std() - 0.02) < 3e-3
        assert all((p == 0).all() for name, p in net.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(("size", "expected"), [(32, [8, 4, 2]), (64, [16, 8, 4, 2]), (128, [16, 16, 8, 4, 2])])
@pytest.mark.parametrize("up", UP)
def test_every_size_and_way_makes_images_and_judges_them(size, expected, up):
    assert channels(size, 2) == expected
    fake = generator(size, 5, 2, up)(torch.randn(3, 5))
    assert fake.shape == (3, 3, size, size)
    assert fake.abs().max() <= 1
    assert discriminator(size, 2)(fake).shape == (3,)


# The ways to enlarge


def test_nails_stand_at_the_right_places():
    x = rows()
    bed = Nails()(x)
    for down in range(6):
        for across in range(8):
            wanted = x[..., down // 2, across // 2] if down % 2 == 0 and across % 2 == 0 else torch.zeros(5, 7).double()
            assert torch.equal(bed[..., down, across], wanted)


def test_transposed_convolution_is_a_bed_of_nails_and_a_flipped_convolution():
    """A 4x4 transposed convolution, stride 2, padding 1: nails, 2 zeros before, 1 after, the kernel turned."""
    (layer,) = UP["transposed"](7, 6)
    layer.double()
    bed = F.pad(Nails()(rows()), (2, 1, 2, 1))
    flipped = layer.weight.flip(2, 3).transpose(0, 1)
    torch.testing.assert_close(layer(rows()), F.conv2d(bed, flipped))


def test_nails_overlap_unevenly_and_a_transposed_convolution_evenly():
    """How many kernel taps meet a pixel of the input: 1, 2, 2 and 4 of nine, but 4 of sixteen everywhere."""
    ones = torch.ones(1, 1, 6, 6)
    inside = (slice(None), slice(None), slice(4, 8), slice(4, 8))
    taps = {}
    for up in ("nails", "transposed"):
        layers = torch.nn.Sequential(*UP[up](1, 1))
        torch.nn.init.ones_(layers[-1].weight)
        taps[up] = layers(ones)[inside][0, 0]
    assert torch.equal(taps["nails"], torch.tensor([[1.0, 2.0], [2.0, 4.0]]).repeat(2, 2))
    assert torch.equal(taps["transposed"], torch.full((4, 4), 4.0))


def test_nearest_is_a_transposed_convolution_with_summed_kernels():
    """Each pixel four times, then 3x3: nails, each spread over 2x2, then 3x3, which together is one 4x4 kernel."""
    enlarge, conv = (layer.double() for layer in UP["nearest"](7, 6))
    spread = torch.zeros(6, 7, 4, 4, dtype=torch.float64)
    for down in (0, 1):
        for across in (0, 1):
            spread[..., down : down + 3, across : across + 3] += conv.weight
    wanted = F.conv2d(F.pad(Nails()(rows()), (2, 1, 2, 1)), spread)
    torch.testing.assert_close(conv(enlarge(rows())), wanted)


def test_bilinear_is_the_tent_filter_inside():
    enlarge, _ = UP["bilinear"](1, 1)
    x = rows(1, 1)
    tent = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 4
    kernel = (tent[:, None] * tent)[None, None]
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(enlarge(x)[inside], F.conv_transpose2d(x, kernel, stride=2, padding=1)[inside])


def test_shuffle_deals_four_channels_to_a_block():
    conv, shuffle = (layer.double() for layer in UP["shuffle"](7, 6))
    deep = conv(rows())
    found = shuffle(deep)
    for channel in range(6):
        for down in (0, 1):
            for across in (0, 1):
                wanted = deep[:, 4 * channel + 2 * down + across]
                assert torch.equal(found[:, channel, down::2, across::2], wanted)


# Losses and penalties


def logits_of(monkeypatch, model):
    """Every pair of logits that the losses are computed from."""
    seen = []
    for name in ("loss_d", "loss_g"):
        inner = getattr(model, name)
        monkeypatch.setattr(
            model, name, lambda real, fake, inner=inner: (seen.append((real, fake)), inner(real, fake))[1]
        )
    return seen


def test_cross_entropy_in_closed_form(fabric, monkeypatch):
    """-log D(x) - log(1 - D(G(z))), and -log D(G(z)) of the D that has learned from it; penalty on the fakes."""
    torch.manual_seed(0)
    model = DCGAN(**TINY)
    g, d, seen = copy.deepcopy(model.g), copy.deepcopy(model.d), logits_of(monkeypatch, model)
    torch.manual_seed(1)
    losses = next(model.fit(fabric, [(images(),)], penalty=lambda x: 3 * x.square().mean()))
    torch.manual_seed(1)
    fake = g(torch.erf(torch.randn(4, 6) / math.sqrt(2)))
    real, false = torch.sigmoid(d(images())), torch.sigmoid(d(fake))
    torch.testing.assert_close(losses["loss_d"], -(real.log().mean() + (1 - false).log().mean()).detach())
    torch.testing.assert_close(losses["loss_g"], -torch.sigmoid(seen[1][1]).log().mean().detach())
    torch.testing.assert_close(losses["penalty"], 3 * fake.square().mean().detach())
    assert losses["r1"] == losses["r2"] == 0
    assert torch.sigmoid(seen[1][1]).mean() < false.mean()  # D has learned before G asks it


def linear_critic(model, seed=0):
    """D(x) = w . x, whose gradient is w everywhere."""
    torch.manual_seed(seed)
    model.d = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 1, bias=False), torch.nn.Flatten(0))
    model.opt_d = torch.optim.SGD(model.d.parameters(), 0.1)
    return model.d[1].weight.detach()[0].clone()


@pytest.mark.parametrize("loss", ["bce", "relativistic"])
def test_penalties_and_pairs_by_hand_on_a_linear_critic(loss, fabric):
    """|grad|^2 = |w|^2, so the step's gradient is gamma w for each penalty, beside the loss's own in closed form."""
    torch.manual_seed(0)
    model = DCGAN(**TINY, loss=loss, r1=0.5)
    w = linear_critic(model)
    g = copy.deepcopy(model.g)
    torch.manual_seed(1)
    losses = next(model.fit(fabric, [(images(),)]))
    torch.manual_seed(1)
    with torch.no_grad():
        fake, real = g(model.map(torch.randn(4, 6))).flatten(1), images().flatten(1)
    square = w @ w
    torch.testing.assert_close(losses["r1"], square)
    torch.testing.assert_close(losses["r2"], square if loss == "relativistic" else torch.tensor(0.0))
    if loss == "relativistic":  # -log sigmoid(D(x_i) - D(G(z_i))): only pairs of the same row meet
        gap = (real - fake) @ w
        expected = torch.stack([torch.log(1 + torch.exp(-each)) for each in gap]).mean()
        slope = (-(real - fake) * torch.sigmoid(-gap)[:, None]).mean(0) + 2 * 0.5 * w
    else:
        on_real, on_fake = real @ w, fake @ w
        expected = torch.log(1 + torch.exp(-on_real)).mean() + torch.log(1 + torch.exp(on_fake)).mean()
        slope = (-real * torch.sigmoid(-on_real)[:, None] + fake * torch.sigmoid(on_fake)[:, None]).mean(0) + 0.5 * w
    torch.testing.assert_close(losses["loss_d"], expected)
    now = model.d[1].weight.detach()[0]
    torch.testing.assert_close(now, w - 0.1 * slope)
    asked = torch.sigmoid((fake - real) @ now) if loss == "relativistic" else torch.sigmoid(fake @ now)
    torch.testing.assert_close(losses["loss_g"], -asked.log().mean())


def test_with_a_gradient_penalty_no_logit_depends_on_another_image():
    x = images(3, dtype=torch.float64).requires_grad_()

    def reach(**keywords):
        d = DCGAN(**TINY, **keywords).d.double()
        (grad,) = torch.autograd.grad(d(x)[0], x)
        return grad.flatten(1).abs().sum(1) > 0

    assert reach().tolist() == [True, True, True]
    assert reach(r1=1.0).tolist() == [True, False, False]
    assert reach(loss="relativistic").tolist() == [True, False, False]


def test_each_net_moves_by_its_own_loss_alone(fabric, monkeypatch):
    for frozen, moving in (("loss_g", "d"), ("loss_d", "g")):
        torch.manual_seed(0)
        model = DCGAN(**TINY)
        before = {name: copy.deepcopy(getattr(model, name)) for name in "gd"}
        inner = getattr(model, frozen)
        monkeypatch.setattr(model, frozen, lambda real, fake, inner=inner: 0 * inner(real, fake))
        next(model.fit(fabric, [(images(),)]))
        for name, net in before.items():
            pairs = zip(net.parameters(), getattr(model, name).parameters(), strict=True)
            assert any((a != b).any() for a, b in pairs) == (name == moving)


def test_the_discriminator_sees_both_kinds_changed(fabric, monkeypatch):
    torch.manual_seed(0)
    model, seen = DCGAN(**TINY, diffaugment=("color", "translation")), []
    monkeypatch.setattr("gen.dcgan.diff_augment", lambda x, p: (seen.append((x, p)), diff_augment(x, p))[1])
    next(model.fit(fabric, [(images(),)]))
    assert torch.equal(seen[0][0], images())
    assert torch.equal(seen[1][0], seen[2][0])  # the fakes, for D and then for G
    assert [policies for _, policies in seen] == [("color", "translation")] * 3


# Samples


def test_noise_is_uniform():
    """The Kolmogorov-Smirnov distance of 60,000 entries to uniform: above 1.95 / sqrt n once in 1000."""
    torch.manual_seed(0)
    w = DCGAN(**TINY).map(torch.randn(10_000, 6, dtype=torch.float64)).flatten().sort().values
    distance = (w.add(1).div(2) - torch.arange(1, 60_001) / 60_000).abs().max()
    assert distance < 1.95 / math.sqrt(60_000)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_an_image_is_the_same_alone_and_among_others(ema, fabric):
    torch.manual_seed(0)
    model = DCGAN(**TINY, ema=ema)
    for _ in model.fit(fabric, [(images(seed=i),) for i in range(5)]):
        pass
    with torch.inference_mode():
        many = model.sample(images(8), rng=torch.Generator().manual_seed(3))
        again = model.sample(torch.zeros(8, 3, 16, 16), rng=torch.Generator().manual_seed(3))
        w = torch.rand(8, 6) * 2 - 1
        alone, among = torch.cat([model.decode(each) for each in w.split(1)]), model.decode(w)
    assert torch.equal(many, again)
    torch.testing.assert_close(alone, among, rtol=1e-4, atol=1e-6)
    assert not torch.equal(among[0], among[1])


def test_ema_averages_weights_and_the_statistics_of_batch_norm(fabric):
    torch.manual_seed(0)
    model, average = DCGAN(**TINY, ema=0.9), None
    for _ in model.fit(fabric, [(images(seed=i),) for i in range(4)]):
        now = {k: v.clone() for k, v in model.g.state_dict().items() if v.is_floating_point()}
        average = now if average is None else {k: 0.9 * average[k] + 0.1 * v for k, v in now.items()}
    assert any("running_var" in name for name in average)
    found = model.g_ema.module.state_dict()
    for name, value in average.items():
        torch.testing.assert_close(found[name], value, msg=name)
    with torch.inference_mode():
        w = torch.rand(3, 6) * 2 - 1
        assert torch.equal(model.decode(w), model.g_ema.module.eval()(w))


def test_latents(fabric):
    model = DCGAN(**TINY)
    w = torch.rand(3, 6) * 2 - 1
    assert torch.equal(model.truncate(w, 1.0), w)
    assert torch.equal(model.truncate(w, 0.0), torch.zeros(3, 6))
    assert model.levels == 1
    assert not hasattr(model, "encode")


@pytest.mark.parametrize("keywords", [{}, {"loss": "relativistic", "r1": 0.1}])
def test_learns_two_colours_in_seconds(keywords, fabric):
    """Flags, red on the left and blue on the right, of any brightness: from grey towards that."""
    torch.manual_seed(0)
    flag = torch.tensor([[0.8, -0.8, -0.8], [-0.8, -0.8, 0.8]]).T.repeat_interleave(8, 1)[:, None].expand(3, 16, 16)
    model = DCGAN(size=16, latent=8, width=8, d_width=8, lr=2e-3, **keywords)

    def far():
        with torch.inference_mode():
            fakes = model.sample(torch.zeros(50, 3, 16, 16), rng=torch.Generator().manual_seed(0))
        return (fakes.mean(0) - flag).abs().mean()

    before = far()
    for _ in model.fit(fabric, ((flag * (0.8 + 0.4 * torch.rand(16, 1, 1, 1)),) for _ in range(160))):
        pass
    assert before > 0.75
    assert far() < 0.65 * before


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"size": 48}, "power of two from 16 to 1024 px, not 48"),
        ({"width": 0}, "at least 1"),
        ({"ema": 1.0}, "decay between 0 and 1"),
        ({"r1": -1.0}, "at least 0"),
        ({"loss": "relativistic", "r1": 0.0}, "more than 0 with loss"),
    ],
)
def test_unusable_values_are_refused(keywords, said):
    with pytest.raises(ValueError, match=said):
        DCGAN(**keywords)

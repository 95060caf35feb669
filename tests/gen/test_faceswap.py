"""The face swap against the published counts, OpenCV's warps, and a second derivation of its updates."""

import copy

import cv2
import numpy as np
import pytest
import torch
from kornia.metrics import ssim

from gen.faceswap import FaceSwap, control_points, decoder, encoder, look, spread
from gen.perceptual import Perceptual

STILL = {"rotation": 0.0, "zoom": 0.0, "shift": 0.0, "flip": 0.0, "warp": 0.0}
TINY = {"size": 32, "width": 4, "lr": 1e-3}


@pytest.fixture
def fabric():
    from arena.build import fabric

    return fabric("cpu", "32-true")


@pytest.fixture(scope="module")
def people():
    """Two people at 32 px, 64 pictures each."""
    from arena.data.faces import render

    return tuple(render(0, range(k, k + 64), 32, identity=k).image / 127.5 - 1 for k in (0, 1))


def images(n=2, size=32, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def smooth(n=2, size=64):
    """Images without sharp edges, in [0, 1]: neighbouring pixels differ little, so methods of interpolation agree."""
    y, x = torch.meshgrid(*[(torch.arange(size) + 0.5) / size] * 2, indexing="ij")
    waves = [torch.sin((3 + k % 5) * x + 4 * y + k) * 0.5 + 0.5 for k in range(3 * n)]
    return torch.stack(waves).view(n, 3, size, size)


def count(net):
    return sum(p.numel() for p in net.parameters())


def parameters(model):
    return {name: p.detach().clone() for name, p in model.net.named_parameters()}


# The nets


def test_published_parameter_counts():
    with torch.device("meta"):
        assert count(encoder()) == 69_662_976
        assert count(decoder()) == 6_199_747


@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_every_size_comes_back(size):
    model = FaceSwap(size=size, width=2)
    assert model.net.encoder(torch.zeros(2, 3, size, size)).shape == (2, 8, size // 8, size // 8)
    out = model.sample(images(2, size), rng=torch.Generator())
    assert out.shape == (2, 3, size, size)
    assert out.abs().max() <= 1


def test_width_scales_every_layer():
    """Half the width: a quarter of the weights between inner layers, half of those at the border."""
    wide, narrow = encoder(64, 16), encoder(64, 8)
    for p, q in zip(wide.parameters(), narrow.parameters(), strict=True):
        ratio = [m / n for m, n in zip(p.shape, q.shape, strict=True)]
        assert set(ratio) <= {1.0, 2.0}
    inner = [n for n, p in wide.named_parameters() if p.ndim > 1][1:]
    sizes = dict(wide.named_parameters()), dict(narrow.named_parameters())
    assert all(sizes[0][n].numel() == 4 * sizes[1][n].numel() for n in inner)


def test_weights_are_keras_glorot_uniform():
    """Limit sqrt(6 / (fan_in + fan_out)), standard deviation limit / sqrt(3), biases 0."""
    torch.manual_seed(0)
    for net in (encoder(64, 16), decoder(16)):
        for module in net.modules():
            if hasattr(module, "weight"):
                field = module.weight[0, 0].numel() if module.weight.ndim == 4 else 1
                limit = (6 / (field * sum(module.weight.shape[:2]))) ** 0.5
                assert module.weight.abs().max() <= limit
                assert module.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)
                assert not module.bias.any()


def test_both_sides_share_one_encoder_call():
    torch.manual_seed(0)
    net = FaceSwap(**TINY).net.double()
    a, b = (images(seed=k).double().abs() for k in (1, 2))
    calls = []
    net.encoder.register_forward_hook(lambda *_: calls.append(1))
    both = net(a, b)
    assert len(calls) == 1
    alone = net(a, None), net(None, b)
    assert alone[0][1] is None
    assert alone[1][0] is None
    assert (both[0] - alone[0][0]).abs().max() < 1e-12
    assert (both[1] - alone[1][1]).abs().max() < 1e-12
    assert torch.equal(net(b, None)[0], net.decoder_a(net.encoder(b)))


# The augmentation


def test_nothing_drawn_nothing_changed():
    x = images(3, 64)
    for points in control_points(3, **STILL):
        torch.testing.assert_close(look(x, spread(points, 64)), x, atol=1e-5, rtol=0)


def test_target_of_a_zero_warp_is_the_input():
    torch.manual_seed(0)
    warped, target = control_points(5, rotation=10, zoom=0.05, shift=0.08, flip=0.4, warp=0)
    torch.testing.assert_close(warped, target)
    warped, target = control_points(5, **STILL | {"warp": 5 / 160})
    assert (warped - target).abs().amax((1, 2, 3)).min() > 0.02


def test_warp_equals_the_published_one_by_opencv():
    """Grid, resize, remap as published for the central 160 of 256 px, written anew for a crop of 64 px."""
    torch.manual_seed(3)
    (points, _), size = control_points(2, **STILL | {"warp": 5 / 160}), 64
    torch.manual_seed(3)
    noise = torch.randn(2, 5, 5, 2).numpy() * 5  # the same draws, in pixels of 256
    found = spread(points, size)
    for i in range(2):
        maps = []
        for k in range(2):
            line = np.broadcast_to(np.linspace(128 - 80, 128 + 80, 5), (5, 5))
            moved = (line if k == 0 else line.T) + noise[i, ..., k]
            maps.append(cv2.resize(moved, (80, 80))[8:72, 8:72].astype(np.float32))
        published = (np.stack(maps, -1) - 128) / 80
        np.testing.assert_allclose(found[i].numpy(), published, atol=2e-6)
        image = smooth()[i]
        x, y = (m * (size / 160) - 0.5 - (128 - 80) * size / 160 for m in maps)  # the crop's own pixels, centres at 0
        remapped = cv2.remap(image.permute(1, 2, 0).numpy(), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        ours = look(image[None], found[i : i + 1])[0].permute(1, 2, 0).numpy()
        assert np.abs(ours - remapped).max() < 5e-3  # OpenCV rounds places to 1/32 px


def test_target_follows_umeyama():
    """The similarity from the warped points to the regular ones, by the singular values of Umeyama's paper."""
    torch.manual_seed(4)
    warped, target = control_points(3, **STILL | {"warp": 5 / 160})
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * 2), -1).reshape(25, 2)
    for src, places in zip(warped.double().numpy().reshape(3, 25, 2), target.double().numpy(), strict=True):
        mean, away = src.mean(0), src - src.mean(0)
        u, s, vt = np.linalg.svd(grid.T @ away / 25)
        sign = np.diag([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
        turn = u @ sign @ vt * np.trace(np.diag(s) @ sign) / away.var(0).sum()
        back = (places.reshape(25, 2) - mean) @ turn.T + grid.mean(0)
        np.testing.assert_allclose(back, grid, atol=1e-5)


def test_similarity_equals_opencv():
    """Turn and zoom about the centre, move, then mirror, as cv2.warpAffine does; every image draws its own."""
    size, n = 64, 6
    kw = {"rotation": 10.0, "zoom": 0.05, "shift": 0.08, "flip": 0.5}
    torch.manual_seed(5)
    points, _ = control_points(n, **kw, warp=0)
    torch.manual_seed(5)
    torch.randn(n, 5, 5, 2)
    scale, angle, x, y = ((2 * torch.rand(n) - 1).numpy() for _ in range(4))
    mirror = torch.rand(n) < kw["flip"]
    assert mirror.any()
    assert not mirror.all()
    ours = look(smooth(n), spread(points, size))
    for i, image in enumerate(smooth(n)):
        # OpenCV turns counter-clockwise for positive angles, about a pixel's centre
        matrix = cv2.getRotationMatrix2D(((size - 1) / 2,) * 2, -10 * float(angle[i]), 1 + 0.05 * float(scale[i]))
        matrix[:, 2] += np.array([x[i], y[i]]) * 0.08 * size
        expected = cv2.warpAffine(
            image.permute(1, 2, 0).numpy(), matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        expected = expected[:, ::-1] if mirror[i] else expected
        assert np.abs(ours[i].permute(1, 2, 0).numpy() - expected).max() < 5e-3


def test_draws_have_the_published_spread():
    torch.manual_seed(0)
    n = 4000
    points, target = control_points(n, rotation=10, zoom=0.05, shift=0.08, flip=0.4, warp=0)
    right, left = (torch.view_as_complex(points[:, 2, k].contiguous()) for k in (4, 0))
    turn = 2 / (right - left)
    mirrored = turn.real < 0
    assert mirrored.float().mean() == pytest.approx(0.4, abs=0.03)
    turn = torch.where(mirrored, -turn, turn)
    assert turn.angle().rad2deg().abs().max() == pytest.approx(10, abs=0.1)
    assert 1 - turn.abs().min() == pytest.approx(0.05, abs=1e-3)
    moves = torch.view_as_complex(target[:, 2, 2].contiguous()) * turn.abs()
    assert moves.abs().max() / 2 <= 0.08 * 2**0.5 + 1e-4
    points, _ = control_points(n, **STILL | {"warp": 5 / 160})
    still, _ = control_points(1, **STILL)
    assert (points - still).std() / 2 == pytest.approx(5 / 160, rel=0.01)


# The loss and the updates


def test_two_updates_equal_plain_torch(fabric):
    """The published loop: MAE and Adam of autoencoder A on a batch of A, then the same for B, from equal weights."""
    torch.manual_seed(0)
    model = FaceSwap(**TINY)
    enc, dec_a, dec_b = (copy.deepcopy(x) for x in (model.net.encoder, model.net.decoder_a, model.net.decoder_b))
    adams = [
        torch.optim.Adam([*enc.parameters(), *dec.parameters()], lr=1e-3, betas=(0.5, 0.999)) for dec in (dec_a, dec_b)
    ]
    batches = [(images(3, seed=k), images(3, seed=9 + k)) for k in range(3)]
    torch.manual_seed(7)
    found = list(model.fit(fabric, batches))
    torch.manual_seed(7)
    for k, (losses, pair) in enumerate(zip(found, batches, strict=True)):
        crops = [model.augment((x + 1) / 2) for x in pair]
        seen = [(torch.cat(side) + 1) / 2 for side in zip(*batches[: k + 1], strict=True)]
        tint = (seen[1].mean((0, 2, 3)) - seen[0].mean((0, 2, 3)))[:, None, None]  # A's colours are moved to B's mean
        for name, dec, adam, crop, move in zip(
            ("loss_a", "loss_b"), (dec_a, dec_b), adams, crops, (tint, 0), strict=True
        ):
            loss = torch.nn.functional.l1_loss(dec(enc(crop.input + move)), crop.target + move)
            adam.zero_grad()
            loss.backward()
            adam.step()
            torch.testing.assert_close(losses[name], loss.detach())
        assert losses.keys() == {"loss_a", "loss_b", "penalty"}
        assert losses["penalty"] == 0
    for ours, theirs in ((model.net.encoder, enc), (model.net.decoder_a, dec_a), (model.net.decoder_b, dec_b)):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-4)


def test_joint_is_one_update_of_the_sum(fabric):
    torch.manual_seed(0)
    model = FaceSwap(**TINY, joint=True, colour=False)
    net = copy.deepcopy(model.net)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.999))
    batches = [(images(3, seed=k), images(3, seed=9 + k)) for k in range(3)]
    torch.manual_seed(7)
    for _ in model.fit(fabric, batches):
        pass
    torch.manual_seed(7)
    for pair in batches:
        x, y = (model.augment((x + 1) / 2) for x in pair)
        loss = (net.decoder_a(net.encoder(x.input)) - x.target).abs().mean()
        loss = loss + (net.decoder_b(net.encoder(y.input)) - y.target).abs().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    for p, q in zip(model.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4)


def test_joint_starts_with_the_same_losses(fabric):
    """A's loss is equal; B's too where A's update has not moved the encoder (rate 0)."""
    found = []
    for joint in (False, True):
        torch.manual_seed(0)
        model = FaceSwap(size=32, width=4, lr=0, joint=joint)
        found.append(next(model.fit(fabric, [(images(seed=1), images(seed=2))])))
    torch.testing.assert_close(found[0], found[1])


def test_colours_of_a_meet_b_and_come_back(fabric):
    """Two domains that differ by a colour alone look alike to the nets; what leaves decoder A wears A's colour."""
    torch.manual_seed(0)
    model = FaceSwap(size=32, width=4, lr=0)
    b = images(4) * 0.4
    a = b - torch.tensor([0.3, 0.1, -0.2])[:, None, None]
    for _ in model.fit(fabric, [(a, b)] * 3):
        pass
    model.net.decoder_a.load_state_dict(model.net.decoder_b.state_dict())
    rng = torch.Generator()
    with torch.inference_mode():
        torch.testing.assert_close(model.sample(a, rng=rng), model.reconstruct(b, reverse=True))
        torch.testing.assert_close(model.reconstruct(a), model.sample(b, rng=rng, reverse=True))
        gap = model.reconstruct(b, reverse=True) - model.reconstruct(a)
    torch.testing.assert_close(gap, torch.tensor([0.3, 0.1, -0.2])[:, None, None].expand_as(gap), atol=1e-5, rtol=0)


@pytest.mark.parametrize("joint", [False, True])
def test_penalty_is_on_plain_swaps_of_both_directions(fabric, joint):
    """Its value, and that it moves every net as the penalty on the concatenated swaps does."""
    torch.manual_seed(0)
    model = FaceSwap(size=32, width=4, lr=0, joint=joint, ema=0.9)
    a, b = images(seed=1), images(seed=2) * 0.5
    next(model.fit(fabric, [(a, b)]))  # the colours' means
    swaps = torch.cat([model.sample(b, rng=torch.Generator(), reverse=True), model.sample(a, rng=torch.Generator())])
    losses = next(model.fit(fabric, [(a, b)], penalty=lambda x: x.square().mean()))
    torch.testing.assert_close(losses["penalty"], swaps.square().mean().detach())
    moved = FaceSwap(**TINY, joint=joint)
    before = parameters(moved)
    moved.loss = lambda rebuilt, crops: 0 * rebuilt.mean()
    next(moved.fit(fabric, [(a, b)], penalty=lambda x: x.square().mean()))
    after = parameters(moved)
    for part in ("encoder", "decoder_a", "decoder_b"):
        assert any((before[n] != after[n]).any() for n in before if n.startswith(part)), part


def test_without_a_penalty_no_swap_is_made(fabric):
    torch.manual_seed(0)
    model = FaceSwap(**TINY)
    calls = []
    model.net.encoder.register_forward_hook(lambda *_: calls.append(1))
    for penalty, expected in (({}, 2), ({"penalty": lambda x: x.mean()}, 4)):
        calls.clear()
        next(model.fit(fabric, [(images(), images())], **penalty))
        assert len(calls) == expected


# Switches


def test_ssim_is_the_one_of_the_metric():
    model = FaceSwap(**TINY, ssim=0.7)
    crops = model.augment(smooth(2, 32))
    rebuilt = (crops.target * 0.8 + 0.1).clamp(0, 1)
    mae = (rebuilt - crops.target).abs().mean()
    dissimilar = (1 - ssim(rebuilt, crops.target, 11).mean()) / 2
    assert dissimilar > 0.001
    torch.testing.assert_close(model.loss(rebuilt, crops), mae + 0.7 * dissimilar)
    torch.testing.assert_close(FaceSwap(**TINY).loss(rebuilt, crops), mae)


def test_perceptual_loss_compares_features_of_images():
    model = FaceSwap(**TINY, perceptual=0.7, features="random")
    assert model.provenance == "from scratch, perceptual loss on fixed random features"
    crops = model.augment(model.to_unit(images()))
    rebuilt = (crops.target + 0.1).clamp(0, 1)
    mae = (rebuilt - crops.target).abs().mean()
    content = Perceptual("random", layers=("relu3_3",)).content(2 * rebuilt - 1, 2 * crops.target - 1)
    assert content > 0.001
    torch.testing.assert_close(model.loss(rebuilt, crops), mae + 0.7 * content)
    with pytest.raises(ValueError, match=r"vgg16-397923af\.pth, found no such file"):
        FaceSwap(**TINY, perceptual=0.7)


def test_mask_weighs_the_face_and_follows_it():
    """With all maps still the ellipse is where `face` says; errors elsewhere do not count in the extra term."""
    model = FaceSwap(**TINY, **STILL, mask_weight=2.0, face=(0.5, 0.75, 0.25, 0.125))
    crops = model.augment(images(1).abs())
    y, x = torch.meshgrid(*[(torch.arange(32) + 0.5) / 32] * 2, indexing="ij")
    inside = ((x - 0.5) / 0.25) ** 2 + ((y - 0.75) / 0.125) ** 2 <= 1
    assert torch.equal(crops.face[0, 0] == 1, inside)
    error = torch.where(inside, 0.1, 0.3)
    expected = error.mean() + 2 * 0.1
    torch.testing.assert_close(model.loss(crops.target + error, crops), expected)

    dot = torch.zeros(1, 3, 32, 32)  # a mark on the ellipse's centre stays in the ellipse, wherever it goes
    dot[:, :, 23:25, 15:17] = 1
    moving = FaceSwap(size=32, width=4, rotation=30.0, shift=0.2, flip=1.0, face=(0.5, 0.75, 0.25, 0.125))
    torch.manual_seed(0)
    for _ in range(10):
        crops = moving.augment(dot)
        assert (crops.target * (1 - crops.face)).sum() < 1e-4


def test_ema_is_the_running_average_and_speaks(fabric):
    torch.manual_seed(0)
    model = FaceSwap(**TINY, ema=0.9, colour=False)
    average = None
    for _ in model.fit(fabric, [(images(seed=k), images(seed=9 + k)) for k in range(4)]):
        now = parameters(model)
        average = now if average is None else {k: 0.9 * average[k] + 0.1 * v for k, v in now.items()}
    for name, p in model.net_ema.module.named_parameters():
        torch.testing.assert_close(p.detach(), average[name])
    x, mean = images(), model.net_ema.module.eval()
    with torch.inference_mode():
        swapped = 2 * mean.decoder_b(mean.encoder((x + 1) / 2)) - 1
        assert torch.equal(model.sample(x, rng=torch.Generator()), swapped)
        assert torch.equal(model.reconstruct(x, reverse=True), swapped)


def test_directions():
    torch.manual_seed(0)
    model, x, rng = FaceSwap(**TINY), images(), torch.Generator()
    with torch.inference_mode():
        as_a, as_b = (2 * out - 1 for out in model.net((x + 1) / 2, (x + 1) / 2))
        close = {"atol": 1e-6, "rtol": 0}
        torch.testing.assert_close(model.sample(x, rng=rng), as_b, **close)
        torch.testing.assert_close(model.sample(x, rng=rng, reverse=True), as_a, **close)
        torch.testing.assert_close(model.reconstruct(x), as_a, **close)
        torch.testing.assert_close(model.reconstruct(x, reverse=True), as_b, **close)
    assert (as_a - as_b).abs().max() > 1e-3


@pytest.mark.parametrize("joint", [False, True])
def test_learns_to_rebuild_and_to_swap(fabric, people, joint):
    """The losses fall, and swapped faces come nearer to the exact swap than their sources are."""
    from arena.data.faces import swap

    torch.manual_seed(0)
    model = FaceSwap(size=32, width=16, lr=5e-4, joint=joint)
    a, b = people

    def batches():
        for _ in range(100):
            yield a[torch.randint(64, (8,))], b[torch.randint(64, (8,))]

    losses = [(step["loss_a"] + step["loss_b"]).item() for step in model.fit(fabric, batches())]
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:5])
    exact = swap(0, range(64), 32, identity=1)
    with torch.inference_mode():
        swapped = model.sample(a, rng=torch.Generator())

    def error(x):
        return ((x - (exact.image / 127.5 - 1)).abs().mean(1) * exact.mask).sum() / exact.mask.sum()

    assert error(swapped) < 0.5 * error(a)


# Refusals


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"size": 72}, "multiple of 16"),
        ({"size": 16}, "at least 32"),
        ({"width": 3}, "even"),
        ({"width": 0}, "even"),
        ({"flip": 1.5}, "flip"),
        ({"warp": -0.1}, "negative"),
        ({"face": (0.5, 0.5, 0.0, 0.2)}, "half axes"),
        ({"ema": 1.0}, "decay"),
    ],
)
def test_unusable_values_are_refused(keywords, said):
    with pytest.raises(ValueError, match=said):
        FaceSwap(**{"width": 4, **keywords})


def test_images_of_another_size_are_refused(fabric):
    model = FaceSwap(**TINY)
    with pytest.raises(ValueError, match=r"3 x 32 x 32 images .*, not 3 x 64 x 64"):
        next(model.fit(fabric, [(images(size=64), images(size=64))]))
    with pytest.raises(ValueError, match="not 3 x 48 x 32"):
        model.sample(torch.zeros(1, 3, 48, 32), rng=torch.Generator())

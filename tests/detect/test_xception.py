"""Xception against published figures, a second derivation from figure 5, timm where it is there, and made files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from detect import xception as module
from detect.xception import SeparableConv2d, Xception, xception

NARROW = {"width": 1 / 16, "resize": None}


def images(count, size, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batches(count, size=32, batch=4):
    return [(images(batch, size, seed), torch.arange(batch) % 2.0) for seed in range(count)]


def count(net):
    return sum(p.numel() for p in net.parameters())


def lived_in(net):
    """The net with normalisations that are no longer the identity."""
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for value, low, high in ((norm.running_mean, -0.2, 0.2), (norm.running_var, 0.5, 2), (norm.weight, 0.5, 2)):
                nn.init.uniform_(value, low, high)
            nn.init.uniform_(norm.bias, -0.2, 0.2)
    return net.eval()


# the net


def test_published_parameter_counts():
    with torch.device("meta"):
        net, player = xception(1000), Xception(weights=None)
    assert count(net) == 22_855_952  # table 3
    assert count(player.net) == 22_855_952 - 2_049_000 + 2_049
    group = player.opt.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (2e-4, (0.9, 0.999), 0)
    assert (player.resize, player.frames) == (299, 1)


def shapes(net, size):
    """Channels and side of the map behind each block and each convolution of the stem and the exit."""
    found = {}
    for name, part in net.named_children():
        if name.startswith(("conv", "block", "fc")):
            part.register_forward_hook(lambda _, x, y, name=name: found.update({name: tuple(y.shape[1:3])}))
    net.to("meta").eval()(torch.zeros(1, 3, size, size, device="meta"))
    return found


def test_maps_of_figure_5():
    found = shapes(xception(), 299)
    # Entry flow: 299 px, stride 2, then unpadded, then three halvings to the 19x19x728 feature maps of the figure
    assert [found[name] for name in ("conv1", "conv2", "block1", "block2", "block3")] == [
        (32, 149), (64, 147), (128, 74), (256, 37), (728, 19)
    ]  # fmt: skip
    assert [found[f"block{n}"] for n in range(4, 12)] == [(728, 19)] * 8
    assert [found[name] for name in ("block12", "conv3", "conv4")] == [(1024, 10), (1536, 10), (2048, 10)]
    assert found["fc"] == (1,)


@pytest.mark.parametrize(("stride", "side"), [(4, 8), (2, 15), (1, 32)])  # 36 px less the unpadded edges
def test_stem_stride_is_the_stems_down_sampling_and_changes_no_parameter(stride, side):
    net = xception(width=1 / 16, stem_stride=stride)
    state, published = net.state_dict(), xception(width=1 / 16).state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in published.items()}
    assert shapes(net, 36)["block1"] == (8, side)


def test_width_multiplies_every_channel():
    assert shapes(xception(width=0.5), 40) == {
        name: (channels // 2 if name != "fc" else 1, *side)
        for name, (channels, *side) in shapes(xception(), 40).items()
    }


def test_separable_convolution_is_one_convolution_of_rank_one_kernels():
    """Depthwise then pointwise with nothing between is a plain convolution whose kernels are their products."""
    layer = SeparableConv2d(5, 7).double()
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64)
    kernel = layer.pointwise.weight[:, :, 0, 0, None, None] * layer.conv1.weight[:, 0]
    torch.testing.assert_close(layer(x), F.conv2d(x, kernel, padding=1))
    assert count(layer) == 5 * 9 + 5 * 7


def by_figure_5(state, x):
    """Figure 5 written down operation by operation, on the values of a state dict."""

    def norm(x, name):
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-5)

    def separable(x, name):
        depthwise = state[f"{name}.conv1.weight"]
        return F.conv2d(F.conv2d(x, depthwise, padding=1, groups=len(depthwise)), state[f"{name}.pointwise.weight"])

    def block(x, number, operations):
        y, at = x, f"block{number}"
        for place, operation in enumerate(operations.split()):
            name = f"{at}.rep.{place}"
            if operation == "relu":
                y = F.relu(y)
            elif operation == "sep":
                y = separable(y, name)
            elif operation == "norm":
                y = norm(y, name)
            elif operation == "pool":
                y = F.max_pool2d(y, 3, stride=2, padding=1)
        halved = operations.endswith("pool")
        return y + (norm(F.conv2d(x, state[f"{at}.skip.weight"], stride=2), f"{at}.skipbn") if halved else x)

    x = F.relu(norm(F.conv2d(x, state["conv1.weight"], stride=2), "bn1"))
    x = F.relu(norm(F.conv2d(x, state["conv2.weight"]), "bn2"))
    x = block(x, 1, "sep norm relu sep norm pool")
    for number in (2, 3):
        x = block(x, number, "relu sep norm relu sep norm pool")
    for number in range(4, 12):
        x = block(x, number, "relu sep norm relu sep norm relu sep norm")
    x = block(x, 12, "relu sep norm relu sep norm pool")
    x = F.relu(norm(separable(x, "conv3"), "bn3"))
    x = F.relu(norm(separable(x, "conv4"), "bn4"))
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def test_the_net_is_figure_5():
    net = lived_in(xception(width=1 / 16).double())
    x = images(2, 75).double()
    torch.testing.assert_close(net(x), by_figure_5(net.state_dict(), x))


def test_logits_are_timms():
    timm = pytest.importorskip("timm")
    twin = lived_in(timm.create_model("legacy_xception"))
    net = xception(1000).eval()
    net.load_state_dict(twin.state_dict())
    x = images(1, 150)
    with torch.no_grad():
        torch.testing.assert_close(net(x), twin(x), rtol=1e-5, atol=1e-6)


# score


def test_score_is_the_net_on_the_images_as_they_are():
    player = Xception(weights=None, **NARROW)
    lived_in(player.net).train()  # score must not care
    x = images(2, 41).requires_grad_()
    logits = player.score(x)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, by_figure_5(player.net.state_dict(), x)[:, 0], rtol=1e-4, atol=1e-5)
    logits.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad.abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("size", [(128, 96), (48, 48)])
def test_resize_is_pillows_antialiased_bilinear(size):
    player = Xception(weights=None, width=1 / 16, resize=64)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    x = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1).requires_grad_()
    resized = player._prepared(x)
    expected = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR), dtype=np.float32)
    grey = (resized[0].detach().permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(grey - expected).max() < 1.01  # Pillow rounds after each of its two passes
    player.score(x).sum().backward()
    assert (x.grad != 0).float().mean() > 0.9
    assert torch.equal(player._prepared(images(1, 64)), images(1, 64))


def test_grad_cam_finds_a_map_and_its_gradient():
    player = Xception(weights=None, **NARROW)
    maps = []
    hook = player.layer.register_forward_hook(lambda _, x, y: maps.append(y))
    logit = player.score(images(1, 96)).sum()
    hook.remove()
    assert maps[0].shape == (1, 128, 3, 3)
    assert maps[0].min() == 0
    (grad,) = torch.autograd.grad(logit, maps[0])
    torch.testing.assert_close(
        grad, (player.net.fc.weight / 9)[..., None, None].expand_as(grad)
    )  # of the mean, then fc


# weights


def write(folder: Path, state, name="net.pth"):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / name)
    return folder / name


def in_the_cache(monkeypatch, tmp_path, state, place):
    """Write `state` as the published file number `place`, with its own hash in its name."""
    file = write(tmp_path / "hub" / "checkpoints", state)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    named = file.rename(file.with_name(f"xception-{sha256[:8]}.pth"))
    files = list(module.IMAGENET)
    files[place] = named.name
    monkeypatch.setattr(module, "IMAGENET", tuple(files))
    return f"ImageNet weights from {named.name}, sha256 {sha256}, last layer new"


def same_trunk(net, state):
    own = net.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items() if not name.startswith("fc."))


@pytest.mark.parametrize("place", [0, 1])
def test_imagenet_weights_come_from_the_cache_and_are_named(monkeypatch, tmp_path, place):
    state = lived_in(xception(1000, width=1 / 16)).state_dict()
    file = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if place == 0:  # the older file: flat 1x1 convolutions
        file = {k: v[:, :, 0, 0] if k.endswith("pointwise.weight") else v for k, v in file.items()}
    said = in_the_cache(monkeypatch, tmp_path, file, place)
    player = Xception(**NARROW, stem_stride=1)
    assert player.provenance == said
    assert same_trunk(player.net, state)
    assert player.net.fc.weight.shape == (1, 128)


def test_missing_imagenet_weights_are_said():
    assert Xception(**NARROW).provenance == (
        "from scratch: no ImageNet weights in torch.hub's cache (xception-43020ad28.pth)"
    )
    assert Xception(weights=None, **NARROW).provenance == "from scratch"


@pytest.mark.parametrize("file", module.IMAGENET)
def test_a_damaged_file_in_the_cache_is_refused(tmp_path, file):
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / file).write_bytes(b"half a file")
    with pytest.raises(ValueError, match=f"{file} is not the published file .* delete it"):
        Xception(**NARROW)


@pytest.mark.parametrize("head", ["last_linear.", "model.last_linear.", "model.last_linear.1."])
def test_two_classes_become_the_logit_of_the_same_probability(tmp_path, head):
    """FaceForensics++'s models end in a softmax over (real, fake), under names of their own."""
    net = lived_in(xception(2, width=1 / 16))
    prefix = "model." if head.startswith("model.") else ""
    state = {k.replace("fc.", head) if k.startswith("fc.") else prefix + k: v for k, v in net.state_dict().items()}
    player = Xception(weights=str(write(tmp_path, {"state_dict": state})), **NARROW)
    assert "last layer new" not in player.provenance
    x = images(3, 48)
    torch.testing.assert_close(player.score(x).sigmoid(), net(x).softmax(1)[:, 1])


def test_a_detectors_own_weights_come_back_whole(tmp_path):
    state = lived_in(xception(width=1 / 16)).state_dict()
    player = Xception(weights=str(write(tmp_path, state)), **NARROW)
    assert "last layer new" not in player.provenance
    assert all(torch.equal(value, state[key]) for key, value in player.net.state_dict().items())


def test_weights_of_another_net_are_named(tmp_path):
    file = str(write(tmp_path, xception(width=1 / 8).state_dict()))
    with pytest.raises(ValueError, match=r"expected an Xception of width 0.0625 in .*net.pth: size mismatch for conv1"):
        Xception(weights=file, **NARROW)
    state = xception(width=1 / 16).state_dict()
    del state["block7.rep.4.pointwise.weight"]
    with pytest.raises(ValueError, match=r"an Xception .*net.pth, but it lacks block7.rep.4.pointwise.weight"):
        Xception(weights=str(write(tmp_path, state)), **NARROW)


@pytest.mark.parametrize(
    "wrong", [{"stem_stride": 3}, {"width": 0}, {"resize": 0}, {"head_steps": -1}, {"p_blur": 1.5}, {"p_jpeg": -0.1}]
)
def test_a_wrong_keyword_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Xception(weights=None, **wrong)


# the fit


@pytest.fixture
def loaded(tmp_path):
    """Make a player whose trunk is loaded and whose last layer is new: the case that the first stage is for."""
    file = str(write(tmp_path, lived_in(xception(1000, width=1 / 16)).state_dict(), "trunk.pth"))

    def make(head_steps, seed=0, **keywords):
        torch.manual_seed(seed)
        return Xception(weights=file, head_steps=head_steps, **NARROW, **keywords)

    return make


def moved(net, before):
    """Names of the parameters and buffers that differ from a copy of the state dict."""
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


def copy_of(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_first_the_head_alone_then_everything(loaded, fabric):
    player = loaded(head_steps=2)
    fit, before = player.fit(fabric, batches(4)), copy_of(player.net)
    for _ in range(2):
        next(fit)
    assert moved(player.net, before) == {"fc.weight", "fc.bias"}  # of the batch norms nothing, running statistics too
    assert player.opt.state.keys() == {player.net.fc.weight, player.net.fc.bias}
    next(fit)
    assert moved(player.net, before) == before.keys()
    assert len(list(fit)) == 1


def test_the_first_stage_is_a_logistic_regression_on_fixed_features(loaded, fabric):
    player, data = loaded(head_steps=5), batches(5)
    trunk, head = player.net[:-1].eval(), nn.Linear(128, 1)
    head.load_state_dict(player.net.fc.state_dict())
    opt = torch.optim.Adam(head.parameters(), lr=2e-4)
    for x, labels in data:
        with torch.no_grad():
            features = trunk(x)
        fake = head(features)[:, 0].sigmoid()
        opt.zero_grad()
        (-(labels * fake.log() + (1 - labels) * (1 - fake).log()).mean()).backward()
        opt.step()
    first = player.net.fc.weight.detach().clone()
    assert len(list(player.fit(fabric, data))) == 5
    assert (player.net.fc.weight - first).abs().max() > 5e-4
    torch.testing.assert_close(player.net.fc.weight, head.weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(player.net.fc.bias, head.bias, rtol=0, atol=1e-6)


def test_the_first_stage_is_counted_over_all_fits(loaded, fabric):
    player = loaded(head_steps=3)
    assert len(list(player.fit(fabric, batches(2)))) == 2
    assert all(p.requires_grad for p in player.net.parameters())
    before = copy_of(player.net)
    fit = player.fit(fabric, batches(2))
    next(fit)
    assert moved(player.net, before) == {"fc.weight", "fc.bias"}
    next(fit)
    assert moved(player.net, before) == before.keys()
    fit.close()
    next(fit := player.fit(fabric, batches(1)))  # a later round: no new first stage
    assert "conv1.weight" in moved(player.net, before)
    assert int(player.opt.state[player.net.conv1.weight]["step"]) == 2


def test_a_closed_fit_leaves_nothing_frozen(loaded, fabric):
    player = loaded(head_steps=3)
    fit = player.fit(fabric, batches(2))
    next(fit)
    assert not player.net.conv1.weight.requires_grad
    fit.close()
    assert all(p.requires_grad for p in player.net.parameters())


def test_without_a_new_head_on_loaded_layers_there_is_no_first_stage(tmp_path, fabric):
    file = str(write(tmp_path, xception(width=1 / 16).state_dict()))
    for weights in (None, "imagenet", file):
        player = Xception(weights=weights, head_steps=5, **NARROW)
        before = copy_of(player.net)
        next(player.fit(fabric, batches(1)))
        assert "conv1.weight" in moved(player.net, before)


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_killed_and_resumed_is_bit_equal(loaded, fabric, tmp_path, killed_at):
    """Killed in the first stage, at its end, and in the second; resumed where the weights' file is gone."""

    def run(fit, start, stop):
        for step in range(start, stop):
            torch.manual_seed(100 + step)
            losses.append(next(fit)["loss"])

    augmented = {"p_blur": 0.5, "p_jpeg": 0.5}
    data = batches(4)
    losses: list = []
    whole = loaded(2, seed=1, **augmented)
    run(whole.fit(fabric, data), 0, 4)
    expected, losses = losses, []

    killed = loaded(2, seed=1, **augmented)
    run(killed.fit(fabric, data), 0, killed_at)
    torch.save({name: getattr(killed, name).state_dict() for name in ("net", "opt")}, tmp_path / "state.pt")
    torch.manual_seed(2)
    resumed = Xception(weights=None, head_steps=2, **NARROW, **augmented)
    for name, state in torch.load(tmp_path / "state.pt", weights_only=True).items():
        getattr(resumed, name).load_state_dict(state)
    run(resumed.fit(fabric, data[killed_at:]), killed_at, 4)

    assert torch.equal(torch.stack(losses), torch.stack(expected))
    assert not moved(whole.net, resumed.net.state_dict())
    for key, state in whole.opt.state_dict()["state"].items():
        assert all(torch.equal(value, resumed.opt.state_dict()["state"][key][name]) for name, value in state.items())


def test_learns_a_planted_trace(fabric):
    sign = 1 - 2 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2)

    def mixed(seed):
        labels = torch.arange(16) % 2.0
        return images(16, 32, seed) * 0.3 + 0.5 * sign * labels[:, None, None, None], labels

    player = Xception(weights=None, lr=2e-3, **NARROW)
    losses = [float(step["loss"]) for step in player.fit(fabric, [mixed(seed) for seed in range(20)])]
    assert sum(losses[-3:]) / 3 < 0.3 < 0.6 < losses[0]

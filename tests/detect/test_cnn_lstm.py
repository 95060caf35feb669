"""CNN + LSTM against the published figures, gates written out by hand, torchvision's own nets and files made here."""

import hashlib
from types import SimpleNamespace

import pytest
import torch
from narrow import narrow_net
from torch import nn
from torchvision.models import inception_v3

from detect import cnn_lstm, trunks
from detect.cnn_lstm import CNNLSTM
from detect.trunks import Trunk, augment, frames_of
from detect.weights import imagenet


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(trunks, "get_model", narrow_net)


SMALL = {"trunk": "resnet18", "resize": None, "hidden": 12, "dense": 7}


def clips(count, t=3, size=24, seed=0):
    return torch.rand(count, t, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batches(count, batch=4):
    return [(clips(batch, seed=seed), torch.arange(batch) % 2.0) for seed in range(count)]


def weights_of(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


def changed(net, before):
    return [key for key, value in net.state_dict().items() if not torch.equal(value, before[key])]


# the net


def test_the_published_net():
    player = CNNLSTM(weights=None, train_trunk=False)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in player.net.named_children()}
    assert sizes == {"trunk": 21_785_568, "drop": 0, "lstm": 33_570_816, "dense": 1_049_601}
    assert [module.p for module in player.net.modules() if isinstance(module, nn.Dropout | nn.Dropout1d)][-2:] == [
        0.5
    ] * 2
    group = player.opt.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-5, (0.9, 0.999), 0)
    assert sum(p.numel() for p in group["params"]) == 33_570_816 + 1_049_601  # the CNN is not trained
    assert player.sched.lr_lambdas[0](1_000_000) == 0.5  # a decay of 1e-6
    assert (player.frames, player.net.trunk.resize, player.net.trunk.width) == (20, 299, 2048)


def test_score_is_torchvisions_features_and_an_lstm_by_its_gates(narrow):
    player = CNNLSTM(weights=None, **SMALL)
    net, x = player.net, clips(2, 4)
    twin = narrow_net().eval()
    twin.fc = nn.Identity()
    twin.load_state_dict(net.trunk.net.state_dict())
    w, b = net.lstm.weight_ih_l0, net.lstm.bias_ih_l0
    u, c = net.lstm.weight_hh_l0, net.lstm.bias_hh_l0
    expected = []
    for clip in x:
        h = cell = torch.zeros(12)
        for frame in clip:
            feature = twin(imagenet(frame[None]))[0]
            i, f, g, o = (w @ feature + b + u @ h + c).chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            h = o.sigmoid() * cell.tanh()
        expected.append(
            (net.dense[3].weight @ (net.dense[0].weight @ h + net.dense[0].bias).relu() + net.dense[3].bias)[0]
        )
    net.train()  # score must not care
    logits = player.score(x)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize("t", [1, 2, 7])
def test_any_number_of_frames_is_scored_and_clips_do_not_touch(narrow, t):
    player = CNNLSTM(weights=None, **SMALL)
    x = clips(3, t)
    logits = player.score(x)
    assert logits.shape == (3,)
    assert torch.allclose(logits, torch.cat([player.score(clip[None]) for clip in x]), atol=1e-6)
    if t > 1:
        assert (player.score(x.flip(1)) - logits).abs().min() > 1e-6  # the order of the frames counts


def test_a_frozen_trunk_passes_gradients_to_the_clip(narrow):
    player = CNNLSTM(weights=None, train_trunk=False, **SMALL)
    seen = []
    player.layer.register_forward_hook(lambda _, args, out: seen.append(out.shape))
    x = clips(2, 3).requires_grad_()
    player.score(x).sum().backward()
    assert (x.grad.abs().amax((2, 3, 4)) > 0).all()
    assert seen == [(6, 512, 4, 4)]  # one call on all frames
    assert player.net.lstm.training  # cuDNN refuses a backward pass otherwise
    assert not any(module.training for module in (*player.net.trunk.modules(), *player.net.dense.modules()))


def test_frames_are_brought_to_the_trunks_size(narrow):
    player = CNNLSTM(weights=None, **SMALL | {"resize": 40})
    seen = []
    player.net.trunk.net.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.tensor([-1.0, 0.5, 1.0])[:, None, None].expand(2, 3, 3, 24, 24)
    player.score(x)
    assert seen[0].shape == (6, 3, 40, 40)
    assert torch.allclose(seen[0], imagenet(x[0, :1]).mean((2, 3), keepdim=True).expand(6, 3, 40, 40), atol=1e-6)


# the trunk


def test_inception_sees_what_its_published_file_was_trained_on():
    """torchvision's own preparation of that file: ImageNet's statistics in, and back to [-1, 1] inside the net."""
    trunk = Trunk("inception_v3", None, None).eval()
    twin = inception_v3(transform_input=True, aux_logits=False, init_weights=False).eval()
    twin.fc = nn.Identity()
    twin.load_state_dict(trunk.net.state_dict())
    x = clips(1, 2, 80)[0]
    with torch.no_grad():
        features, expected, plain = trunk(x), twin(imagenet(x)), twin(x)
    assert (features - expected).norm() < 1e-4 * expected.norm()
    assert (features - plain).norm() > 1e-2 * expected.norm()
    seen = []
    trunk.net.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-2:]))
    for size in (64, 80):  # the first is too small for the net
        trunk(clips(1, 1, size)[0])
    assert seen == [(75, 75), (80, 80)]


def test_the_published_inception_file_fits_without_its_heads(tmp_path):
    state = {key: value.half() for key, value in inception_v3(aux_logits=True, init_weights=False).state_dict().items()}
    assert any(key.startswith("AuxLogits.") for key in state)
    assert "fc.weight" in state
    torch.save(state, tmp_path / "inception.pth")
    trunk = Trunk("inception_v3", str(tmp_path / "inception.pth"), None)
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in trunk.net.state_dict().items())


def test_weights_from_the_cache_leave_the_trunk_frozen(narrow, monkeypatch, tmp_path):
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    state = narrow_net().state_dict()
    torch.save(state, cache / "net.pth")
    sha256 = hashlib.sha256((cache / "net.pth").read_bytes()).hexdigest()
    file = (cache / "net.pth").rename(cache / f"resnet18-{sha256[:8]}.pth")
    published = {"IMAGENET1K_V1": SimpleNamespace(url=f"https://example.org/{file.name}")}
    monkeypatch.setattr(trunks, "get_model_weights", {"resnet18": published}.get)
    player = CNNLSTM(**SMALL)
    assert player.provenance == f"ImageNet weights from {file.name}, sha256 {sha256}; trunk frozen"
    assert torch.equal(player.net.trunk.net.conv1.weight, state["conv1.weight"])
    assert not any(p.requires_grad for p in player.net.trunk.parameters())
    player = CNNLSTM(**SMALL, train_trunk=True)
    assert player.provenance.endswith("; trunk trained with the rest")
    assert all(p.requires_grad for p in player.net.trunk.parameters())


def test_a_trunk_from_scratch_is_trained_unless_forbidden(narrow):
    missing = "from scratch: no ImageNet weights in torch.hub's cache (resnet18-f37072fd.pth); trunk "
    assert CNNLSTM(**SMALL).provenance == missing + "trained with the rest"
    assert CNNLSTM(**SMALL, train_trunk=False).provenance == missing + "frozen"
    assert all(p.requires_grad for p in CNNLSTM(**SMALL).net.parameters())


def test_weights_of_another_net_are_named(narrow, tmp_path):
    torch.save(nn.Linear(3, 1).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"expected a ResNet-18 in .*net.pth, but it lacks conv1.weight"):
        CNNLSTM(**SMALL, weights=str(tmp_path / "net.pth"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"trunk": "vgg"},
        {"resize": 64, "trunk": "inception_v3"},
        {"frames": 0},
        {"dropout": 1.0},
        {"p_blur": 2},
        {"decay": -1},
    ],
)
def test_a_wrong_keyword_is_named(narrow, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CNNLSTM(**SMALL | {"weights": None} | wrong)


# augmentation


def test_augmentation_does_not_flicker():
    still = clips(8, 1, 32).expand(8, 5, 3, 32, 32)
    out = augment(still, p_blur=0.5, p_jpeg=0.5, flip=True)
    assert torch.equal(out, out[:, :1].expand_as(out))
    touched = (out != still).flatten(1).any(1)
    assert 0 < touched.sum() <= 8
    moving = clips(8, 5, 32)
    out = augment(moving, p_blur=0, p_jpeg=0, flip=True)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(out, moving, strict=True)]
    assert 0 < sum(mirrored) < 8
    assert all(torch.equal(a, b.flip(-1) if m else b) for a, b, m in zip(out, moving, mirrored, strict=True))
    assert torch.equal(augment(moving, p_blur=0, p_jpeg=0, flip=False), moving)


# the fit


def test_a_frozen_trunk_stands_still_to_its_statistics(narrow, fabric):
    player = CNNLSTM(weights=None, train_trunk=False, **SMALL)
    trunk, head = weights_of(player.net.trunk), weights_of(player.net.lstm)
    list(player.fit(fabric, batches(2)))
    assert changed(player.net.trunk, trunk) == []
    assert len(changed(player.net.lstm, head)) == 4


def test_a_trunk_in_training_learns(narrow, fabric):
    player = CNNLSTM(weights=None, **SMALL)
    trunk = weights_of(player.net.trunk)
    list(player.fit(fabric, batches(1)))
    assert {"net.conv1.weight", "net.bn1.running_mean"} <= set(changed(player.net.trunk, trunk))


def test_frozen_frames_in_parts_are_the_same_frames(narrow, fabric, monkeypatch):
    losses, sizes = [], []
    for at_once in (64, 5):
        monkeypatch.setattr(cnn_lstm, "AT_ONCE", at_once)
        torch.manual_seed(3)
        player = CNNLSTM(weights=None, train_trunk=False, **SMALL)
        player.layer.register_forward_hook(lambda _, args, out: sizes.append((len(out), out.requires_grad)))
        losses.append(float(next(player.fit(fabric, batches(1)))["loss"]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert sizes == [(12, False), (5, False), (5, False), (2, False)]


def test_a_dropped_feature_is_dropped_in_all_frames(narrow, fabric):
    player = CNNLSTM(weights=None, train_trunk=False, dropout=0.5, **SMALL)
    seen = []
    player.net.lstm.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    x = clips(4, 1).expand(4, 6, 3, 24, 24)
    next(player.fit(fabric, [(x, torch.tensor([0.0, 1.0, 0.0, 1.0]))]))
    player.net.eval()
    features = player.net.trunk(frames_of(x)).detach().view(4, 6, -1)
    kept = seen[0] != 0
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert 0.4 < kept.sum() / (features != 0).sum() < 0.6
    assert torch.allclose(seen[0][kept], 2 * features[kept], atol=1e-5)


def stepped(fit, start, stop):
    found = []
    for step in range(start, stop):
        torch.manual_seed(100 + step)
        found.append({name: float(value) for name, value in next(fit).items()})
    return found


@pytest.mark.parametrize("train_trunk", [True, False])
def test_killed_and_resumed_is_bit_equal_and_the_rate_decays_on(narrow, fabric, tmp_path, train_trunk):
    def player(seed):
        torch.manual_seed(seed)
        keywords = {"lr": 1e-3, "decay": 0.5, "p_blur": 0.5, "flip": True, "train_trunk": train_trunk}
        return CNNLSTM(weights=None, **SMALL, **keywords)

    data, whole, killed, resumed = batches(4), player(1), player(1), player(2)
    expected = stepped(whole.fit(fabric, data), 0, 4)
    assert [step["lr"] for step in expected] == pytest.approx([1e-3, 1e-3 / 1.5, 1e-3 / 2, 1e-3 / 2.5])

    found = stepped(killed.fit(fabric, data), 0, 2)
    parts = ("net", "opt", "sched")
    torch.save({name: getattr(killed, name).state_dict() for name in parts}, tmp_path / "state.pt")
    for name, state in torch.load(tmp_path / "state.pt", weights_only=True).items():
        getattr(resumed, name).load_state_dict(state)
    assert found + stepped(resumed.fit(fabric, data[2:]), 2, 4) == expected
    assert changed(resumed.net, whole.net.state_dict()) == []
    for key, state in whole.opt.state_dict()["state"].items():
        assert all(torch.equal(value, resumed.opt.state_dict()["state"][key][name]) for name, value in state.items())

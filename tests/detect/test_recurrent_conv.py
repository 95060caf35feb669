"""Recurrent convolution against gates written out by hand, a shift known beforehand, its two stages and old files."""

import re

import pytest
import torch
from narrow import narrow_net
from torch import nn
from torchvision.models import densenet121

from detect import trunks
from detect.recurrent_conv import RecurrentConv, SpatialTransformer
from detect.trunks import Trunk
from detect.weights import imagenet


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(trunks, "get_model", narrow_net)


SMALL = {"trunk": "resnet18", "weights": None, "resize": None, "hidden": 9}


def clips(count, t=3, size=24, seed=0):
    return torch.rand(count, t, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batches(count, batch=4):
    return [(clips(batch, seed=seed), torch.arange(batch) % 2.0) for seed in range(count)]


def weights_of(*nets):
    return [{key: value.clone() for key, value in net.state_dict().items()} for net in nets]


def changed(net, before):
    return [key for key, value in net.state_dict().items() if not torch.equal(value, before[key])]


def trained(**keywords):
    """A player whose GRU speaks, as after a step of the second stage."""
    player = RecurrentConv(**SMALL | {"trunk_steps": 0} | keywords)
    player.rnn.steps = 1
    return player


# the net


@pytest.mark.parametrize(("trunk", "size"), [("densenet121", 6_953_856), ("resnet50", 23_508_032)])
def test_the_published_nets(trunk, size):
    player = RecurrentConv(trunk=trunk, weights=None)
    width = {"densenet121": 1024, "resnet50": 2048}[trunk]
    assert sum(p.numel() for p in player.trunk.parameters()) == size
    assert sum(p.numel() for p in player.rnn.gru.parameters()) == 2 * 3 * 512 * (width + 512 + 2)  # two directions
    assert (player.rnn.gru.input_size, player.rnn.fc.in_features) == (width, 1024)
    group = player.opt.param_groups[0]
    assert (group["lr"], group["betas"], player.frames) == (1e-4, (0.9, 0.999), 5)
    nets = (player.trunk, player.still, player.rnn)
    assert len(group["params"]) == sum(len(list(net.parameters())) for net in nets)  # from end to end
    assert player.trunk[-1].layer(torch.zeros(1, {"densenet121": 512, "resnet50": 1024}[trunk], 4, 4)).shape[1] == width


def gru(cell, features, suffix):
    """The last state of a GRU over features T D, by its gates (Cho et al. 2014, with PyTorch's place of the reset)."""
    w, u, b, c = (getattr(cell, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h = torch.zeros(cell.hidden_size)
    for feature in features:
        (r, z, n), (hr, hz, hn) = (w @ feature + b).chunk(3), (u @ h + c).chunk(3)
        z = (z + hz).sigmoid()
        h = (1 - z) * (n + (r + hr).sigmoid() * hn).tanh() + z * h
    return h


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("t", [1, 4])
def test_score_is_the_trunks_features_and_grus_by_their_gates(narrow, bidirectional, t):
    player, x = trained(bidirectional=bidirectional), clips(2, t)
    twin = narrow_net().eval()
    twin.fc = nn.Identity()
    twin.load_state_dict(player.trunk[-1].net.state_dict())
    expected = []
    for clip in x:
        features = twin(imagenet(clip))
        last = [gru(player.rnn.gru, features, "")]
        if bidirectional:
            last.append(gru(player.rnn.gru, features.flip(0), "_reverse"))
        expected.append((player.rnn.fc.weight @ torch.cat(last) + player.rnn.fc.bias)[0])
    player.trunk.train()  # score must not care
    logits = player.score(x)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, torch.stack(expected), atol=1e-5)


def test_gradients_reach_every_frame_and_the_layer_sees_all_in_one_call(narrow):
    player, x, seen = trained(), clips(2, 5).requires_grad_(), []
    player.layer.register_forward_hook(lambda _, args, out: seen.append(out.shape))
    player.score(x).sum().backward()
    assert (x.grad.abs().amax((2, 3, 4)) > 0).all()
    assert seen == [(10, 512, 4, 4)]
    assert player.rnn.gru.training  # cuDNN refuses a backward pass otherwise
    assert not any(module.training for module in player.trunk.modules())


def test_densenets_published_file_with_its_old_names_fits(tmp_path):
    state = densenet121().state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")  # files of that time have none
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    trunk = Trunk("densenet121", str(tmp_path / "densenet.pth"), None)
    assert all(torch.equal(value, state[key]) for key, value in trunk.net.state_dict().items())
    with pytest.raises(ValueError, match=r"expected a ResNet-18 in .*densenet.pth, but it lacks conv1.weight"):
        RecurrentConv(**SMALL | {"weights": str(tmp_path / "densenet.pth")})


@pytest.mark.parametrize(
    "wrong",
    [{"align": "landmarks"}, {"trunk": "vgg"}, {"resize": 0}, {"hidden": 0}, {"trunk_steps": -1}, {"p_jpeg": 2}],
)
def test_a_wrong_keyword_is_named(narrow, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RecurrentConv(**SMALL | wrong)


# alignment


def test_the_spatial_transformer_begins_as_the_identity_and_moves_as_told():
    stn, x = SpatialTransformer(), clips(1, 4, 16)[0]
    assert torch.allclose(stn(x), x, atol=1e-5)
    with torch.no_grad():
        stn.affine.bias[2] += 2 * 3 / 16  # three of sixteen pixels to the right, in a picture from -1 to 1
    assert torch.allclose(stn(x)[..., :13], x[..., 3:], atol=1e-5)
    assert torch.allclose(stn(x)[..., 13:], x[..., -1:].expand(4, 3, 16, 3), atol=1e-5)


def test_the_spatial_transformer_learns_with_the_rest(narrow, fabric):
    player = RecurrentConv(**SMALL, align="stn", trunk_steps=1)
    assert isinstance(player.trunk[0], SpatialTransformer)
    for _ in range(2):  # a step of either stage
        (before,) = weights_of(player.trunk[0])
        next(player.fit(fabric, batches(1)))
        assert {"affine.weight", "affine.bias"} <= set(changed(player.trunk[0], before))
    assert not any(isinstance(module, SpatialTransformer) for module in trained().trunk)


# the fit


def test_first_the_stills_then_all(narrow, fabric):
    player = RecurrentConv(**SMALL, trunk_steps=2)
    nets, stages = (player.trunk, player.still, player.rnn), []
    for step in (1, 2):
        before = weights_of(*nets)
        stages += [int(losses["stage"]) for losses in player.fit(fabric, batches(2))]
        moved = [
            {key for key in changed(net, old) if "extra" not in key} for net, old in zip(nets, before, strict=True)
        ]
        assert {"0.net.conv1.weight", "0.net.bn1.running_mean", "0.net.layer4.0.weight"} <= moved[0]
        assert moved[1] == ({"weight", "bias"} if step == 1 else set())
        assert len(moved[2]) == (0 if step == 1 else 10)
    assert stages == [1, 1, 2, 2]


def test_until_the_gru_has_learned_a_score_is_the_mean_over_the_frames(narrow, fabric):
    player, x = RecurrentConv(**SMALL, trunk_steps=1), clips(2, 3)
    next(player.fit(fabric, batches(1)))
    singly = torch.stack([player.score(x[:, [t]]) for t in range(3)]).mean(0)
    assert torch.allclose(player.score(x), singly, atol=1e-6)
    assert torch.allclose(player.score(x), player.score(x.flip(1)), atol=1e-6)
    next(player.fit(fabric, batches(1)))
    assert (player.score(x) - player.score(x.flip(1))).abs().min() > 1e-6


def stepped(fit, start, stop):
    found = []
    for step in range(start, stop):
        torch.manual_seed(100 + step)
        found.append({name: float(value) for name, value in next(fit).items()})
    return found


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_killed_and_resumed_is_bit_equal_before_at_and_behind_the_switch(narrow, fabric, tmp_path, cut):
    def player(seed):
        torch.manual_seed(seed)
        return RecurrentConv(**SMALL, align="stn", trunk_steps=2, lr=1e-3, p_blur=0.5, flip=True)

    data, whole, killed, resumed = batches(4), player(1), player(1), player(2)
    expected = stepped(whole.fit(fabric, data), 0, 4)
    found = stepped(killed.fit(fabric, data), 0, cut)
    parts = ("trunk", "still", "rnn", "opt")
    torch.save({name: getattr(killed, name).state_dict() for name in parts}, tmp_path / "state.pt")
    for name, state in torch.load(tmp_path / "state.pt", weights_only=True).items():
        getattr(resumed, name).load_state_dict(state)
    assert found + stepped(resumed.fit(fabric, data[cut:]), cut, 4) == expected
    assert [step["stage"] for step in expected] == [1, 1, 2, 2]
    for name in ("trunk", "still", "rnn"):
        assert changed(getattr(resumed, name), getattr(whole, name).state_dict()) == []
    for key, state in whole.opt.state_dict()["state"].items():
        assert all(torch.equal(value, resumed.opt.state_dict()["state"][key][name]) for name, value in state.items())


def test_an_opened_player_scores_as_the_one_that_was_trained(narrow, fabric, tmp_path):
    """Which of its two heads speaks hangs on the steps it has taken: they must come along with the weights."""
    from arena.ledger import Ledger
    from arena.weights import load, read_state

    player = RecurrentConv(trunk_steps=0, **SMALL)
    for _ in player.fit(fabric, [(clips(2), torch.tensor([0.0, 1.0]))] * 2):
        pass
    with Ledger(tmp_path / "run") as ledger:
        ledger.write_weights(player, "weights.safetensors")
        ledger.save(player, "detector", round=0, step=2, seconds=0.0)
    for file in (tmp_path / "run/weights.safetensors", next((tmp_path / "run/state").glob("*.ckpt"))):
        other = RecurrentConv(trunk_steps=0, **SMALL)
        load(other, read_state(file), file)
        torch.testing.assert_close(other.score(clips(2)), player.score(clips(2)))

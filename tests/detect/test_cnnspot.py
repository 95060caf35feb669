"""CNNSpot against the published figures, a hand-written published counter, and files made here."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models import ResNet, ResNet50_Weights, resnet50
from torchvision.models.resnet import BasicBlock

from detect import cnnspot
from detect.cnnspot import CNNSpot


def narrow_net(num_classes=1000):
    """A ResNet with the same names and a fifth of the parameters: what is tested on it does not depend on its size."""
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(cnnspot, "resnet50", narrow_net)


def images(count, size, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batches(count, size=32, batch=4):
    return [(images(batch, size, seed), torch.arange(batch) % 2.0) for seed in range(count)]


# the net


def test_the_published_net():
    player = CNNSpot(weights=None)
    assert sum(p.numel() for p in player.net.parameters()) == 23_510_081
    assert player.net.fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert abs(player.net.fc.bias.item()) <= 2048**-0.5  # torch's default for a linear layer
    group = player.opt.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.9, 0.999), 0)
    assert (player.augment.keywords["p_blur"], player.augment.keywords["p_jpeg"], player.crop) == (0.5, 0.5, 224)
    assert player.frames == 1


@pytest.mark.parametrize("stride", [4, 2, 1])
def test_stem_stride_is_the_stems_down_sampling_and_changes_no_parameter(stride):
    player = CNNSpot(weights=None, stem_stride=stride)
    shapes = {}
    player.net.layer1.register_forward_pre_hook(lambda _, args: shapes.update(stem=args[0].shape))
    player.layer.register_forward_hook(lambda _, args, out: shapes.update(layer=out.shape))
    assert player.score(images(1, 32)).shape == (1,)
    assert shapes["stem"] == (1, 64, 32 // stride, 32 // stride)
    assert shapes["layer"] == (1, 2048, 4 // stride, 4 // stride)
    assert {k: v.shape for k, v in player.net.state_dict().items() if "fc" not in k} == {
        k: v.shape for k, v in resnet50(weights=None).state_dict().items() if "fc" not in k
    }


def test_score_is_torchvisions_net_on_imagenet_normalised_images():
    player = CNNSpot(weights=None)
    twin = resnet50(num_classes=1).eval()
    twin.load_state_dict(player.net.state_dict())
    x = images(2, 40)
    preset = ResNet50_Weights.IMAGENET1K_V1.transforms()
    mean, std = torch.tensor(preset.mean)[:, None, None], torch.tensor(preset.std)[:, None, None]
    player.net.train()  # score must not care
    logits = player.score(x)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, twin(((x + 1) / 2 - mean) / std)[:, 0], atol=1e-5)
    x.requires_grad_()
    player.score(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad.abs().amax((1, 2, 3)) > 0).all()


# weights


def write(folder: Path, state, name="net.pth"):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / name)
    return folder / name


def test_missing_imagenet_weights_are_said(narrow):
    assert CNNSpot().provenance == ("from scratch: no ImageNet weights in torch.hub's cache (resnet50-0676ba61.pth)")
    assert CNNSpot(weights=None).provenance == "from scratch"


def test_imagenet_weights_come_from_the_cache_and_are_named(narrow, monkeypatch, tmp_path):
    state = narrow_net().state_dict()
    cache = tmp_path / "hub" / "checkpoints"
    file = write(cache, state)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    named = file.rename(cache / f"resnet50-{sha256[:8]}.pth")
    monkeypatch.setattr(cnnspot, "IMAGENET", SimpleNamespace(name="IMAGENET1K_V1", url=f"https://x.org/{named.name}"))
    player = CNNSpot(stem_stride=1)
    assert player.provenance == (f"ImageNet weights from {named.name}, sha256 {sha256}, last layer new")
    assert torch.equal(player.net.conv1.weight, state["conv1.weight"])
    assert player.net.fc.weight.shape == (1, 512)


def test_a_damaged_file_in_the_cache_is_refused(tmp_path):
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"resnet50-0676ba61.pth is not the published file .* delete it"):
        CNNSpot()


def test_a_detectors_own_weights_come_back_whole(narrow, tmp_path):
    state = CNNSpot(weights=None).net.state_dict()
    player = CNNSpot(weights=str(write(tmp_path, {"model": state, "total_steps": 3})))
    assert torch.equal(player.net.fc.weight, state["fc.weight"])
    assert "last layer new" not in player.provenance
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(state, tmp_path / "net.safetensors")
    player = CNNSpot(weights=str(tmp_path / "net.safetensors"))
    assert all(torch.equal(value, state[key]) for key, value in player.net.state_dict().items())


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_file_of_something_else_is_named(narrow, tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(ValueError, match=f"expected a state dict in .*{name}"):
        CNNSpot(weights=str(tmp_path / name))


def test_weights_of_another_net_are_named(narrow, tmp_path):
    with pytest.raises(ValueError, match=r"expected a ResNet-50 in .*net.pth, but it lacks conv1.weight"):
        CNNSpot(weights=str(write(tmp_path, nn.Linear(3, 1).state_dict())))
    state = narrow_net().state_dict() | {"conv1.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(ValueError, match=r"expected a ResNet-50 in .*net.pth: size mismatch for conv1.weight"):
        CNNSpot(weights=str(write(tmp_path, state)))
    with pytest.raises(ValueError, match=r"found no .*nowhere.pth"):
        CNNSpot(weights=str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize(
    "wrong", [{"stem_stride": 3}, {"mode": "quick"}, {"p_blur": 1.5}, {"crop": -1}, {"val_every": 0}, {"patience": 0}]
)
def test_a_wrong_keyword_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CNNSpot(weights=None, **wrong)


# the fit


class PublishedStop:
    """The published rule from its description: count bad looks to five, then start afresh with a larger step."""

    def __init__(self, lr=1e-4):
        self.lr, self.gain, self.best, self.bad = lr, 0.001, None, 0

    def look(self, accuracy):
        if self.best is None or not accuracy < self.best + self.gain - 1e-12:
            self.best, self.bad = accuracy, 0
            return
        self.bad += 1
        if self.bad == 5:
            self.lr, self.gain, self.best, self.bad = self.lr / 10, 0.002, None, 0

    @property
    def stopped(self):
        return self.lr < 1e-6


class FakeFabric:
    """One process, and no net worth training: for the rule alone."""

    device = torch.device("cpu")

    def all_reduce(self, tensor, reduce_op):
        return tensor


@pytest.mark.parametrize("seed", range(4))
def test_the_learning_rate_follows_the_published_counter(narrow, monkeypatch, seed):
    player, truth = CNNSpot(weights=None), PublishedStop()
    rng = torch.Generator().manual_seed(seed)
    walk = (torch.randn(300, generator=rng) * 0.002 + torch.linspace(0, 0.01, 300)).cumsum(0) * 0.05 + 0.6
    falls = 0
    for hits in (walk.clamp(0, 1) * 1000).round().int().tolist():  # gains of exactly 0.001 and 0.002 do occur
        labels = torch.cat([torch.ones(hits), torch.zeros(1000 - hits)])
        monkeypatch.setattr(player, "score", lambda images: torch.ones(len(images)))
        before = player._lr()
        player._look(FakeFabric(), [(torch.zeros(1000, 1), labels)])
        truth.look(hits / 1000)
        falls += player._lr() < before
        assert player._lr() == pytest.approx(truth.lr, rel=1e-9)
        assert (player._lr() < player.min_lr) == truth.stopped
        if truth.stopped:
            break
    assert truth.stopped
    assert falls == 3  # 1e-4, 1e-5, 1e-6, stop


def test_without_validation_images_the_rate_stays(narrow, fabric):
    player = CNNSpot(weights=None, val_every=1, patience=1, p_blur=0, p_jpeg=0)
    steps = list(player.fit(fabric, batches(3)))
    assert [float(step["lr"]) for step in steps] == pytest.approx([1e-4] * 3)
    assert all(step["loss"].ndim == 0 and not step["loss"].requires_grad for step in steps)


def test_killed_and_resumed_is_bit_equal(narrow, fabric, tmp_path):
    def player(seed):
        torch.manual_seed(seed)
        return CNNSpot(weights=None, stem_stride=2, crop=24, val_every=2, patience=1)

    def run(fit, start, stop):
        for step in range(start, stop):
            torch.manual_seed(100 + step)
            losses.append(next(fit)["loss"])

    data, val = batches(5), [(images(4, 32, 99), torch.tensor([0.0, 1.0, 1.0, 1.0]))]
    losses: list = []
    whole = player(1)
    run(whole.fit(fabric, data, val=val), 0, 5)
    expected, losses = losses, []

    killed = player(1)
    run(killed.fit(fabric, data, val=val), 0, 3)
    parts = ("net", "opt", "plateau")
    torch.save({name: getattr(killed, name).state_dict() for name in parts}, tmp_path / "state.pt")
    resumed = player(2)
    for name, state in torch.load(tmp_path / "state.pt", weights_only=True).items():
        getattr(resumed, name).load_state_dict(state)
    run(resumed.fit(fabric, data[3:], val=val), 3, 5)

    assert torch.equal(torch.stack(losses), torch.stack(expected))
    assert whole.plateau.state_dict() == resumed.plateau.state_dict()
    assert whole.plateau.last_epoch == 2
    assert whole._lr() == resumed._lr()
    for key, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[key]), key
    for key, state in whole.opt.state_dict()["state"].items():
        assert all(torch.equal(value, resumed.opt.state_dict()["state"][key][name]) for name, value in state.items())


def test_learns_a_planted_trace(narrow, fabric):
    sign = 1 - 2 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2)

    def mixed(seed):
        labels = torch.arange(16) % 2.0
        return images(16, 32, seed) * 0.3 + 0.5 * sign * labels[:, None, None, None], labels

    player = CNNSpot(weights=None, lr=2e-4, p_blur=0, p_jpeg=0)
    losses = [float(step["loss"]) for step in player.fit(fabric, [mixed(seed) for seed in range(10)])]
    assert sum(losses[-3:]) / 3 < 0.3 < 0.6 < losses[0]


def test_a_rule_that_has_ended_one_fit_starts_the_next_afresh(narrow, fabric):
    """Rounds bring new data: a detector that was done with the last round's has to learn again."""
    player = CNNSpot(weights=None, val_every=1, patience=1, lr=1e-5, min_lr=5e-6)
    batch = (torch.rand(4, 3, 32, 32) * 2 - 1, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    worse = [(batch[0], 1 - batch[1])]
    for _ in range(2):
        steps = len(list(player.fit(fabric, [batch] * 50, val=worse)))
        assert 1 <= steps < 50
        assert player._lr() == 1e-5
        assert player.plateau.num_bad_epochs == 0

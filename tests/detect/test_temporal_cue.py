"""Fakes whose single frames are reals' frames: only who looks at their order can tell, and must."""

import pytest
import torch
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from arena.metrics.detection import auc
from detect import cnnspot, trunks
from detect.cnn_lstm import CNNLSTM
from detect.cnnspot import CNNSpot
from detect.recurrent_conv import RecurrentConv

T, SIZE = 6, 16
STRIPES = ((-1.0) ** (torch.arange(SIZE) // 4))[:, None]  # across the picture: mirroring leaves them as they are


def signs(count):
    """Evenly many of +1 and -1 for either label, count 1."""
    return (1.0 - torch.arange(count) // 2 % 2 * 2)[:, None]


def noise(count, rng):
    return 0.1 * torch.randn(count, T, 3, SIZE, SIZE, generator=rng)


def order(count, rng):
    """Brightness rises or falls evenly; fakes are such clips with their frames shuffled."""
    labels = torch.arange(count) % 2.0
    level = torch.linspace(-0.6, 0.6, T) * signs(count)
    shuffled = level.gather(1, torch.rand(count, T, generator=rng).argsort(1))
    level = torch.where(labels[:, None] > 0, shuffled, level)
    return noise(count, rng) + level[:, :, None, None, None], labels


def flicker(count, rng):
    """Faint stripes, of either sign: reals hold it, in fakes it alternates."""
    labels = torch.arange(count) % 2.0
    turn = torch.where(labels[:, None] > 0, (-1.0) ** torch.arange(T), torch.ones(T))
    return noise(count, rng) + 0.1 * (signs(count) * turn)[:, :, None, None, None] * STRIPES, labels


def held(count, rng):
    """Not temporal at all: the stripes' sign is the label. What a still detector must find, to be worth its 0.5."""
    labels = torch.arange(count) % 2.0
    return noise(count, rng) + 0.1 * (2 * labels - 1)[:, None, None, None, None] * STRIPES, labels


def narrow_net(name="resnet18", num_classes=1000, **keywords):
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)


VIDEO = {"frames": T, "trunk": "resnet18", "weights": None, "resize": None, "hidden": 32}
STILL = {"weights": None, "crop": None, "p_blur": 0.0, "p_jpeg": 0.0, "lr": 1e-3}
MAKERS = {
    "cnnspot": lambda: CNNSpot(**STILL),
    "cnn_lstm": lambda: CNNLSTM(**VIDEO, dense=16, dropout=0.0, lr=1e-3),
    "recurrent_conv": lambda: RecurrentConv(**VIDEO, trunk_steps=2, lr=1e-3),
}


def judged(name, cue, monkeypatch, steps):
    """AUC on 100 + 100 clips after a fit on fresh ones; a still detector's logit is the mean of its frames'."""
    lightning_fabric = pytest.importorskip("lightning_fabric")
    monkeypatch.setattr(trunks, "get_model", narrow_net)
    monkeypatch.setattr(cnnspot, "resnet50", narrow_net)
    torch.manual_seed(0)
    player, rng = MAKERS[name](), torch.Generator().manual_seed(1)
    fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1)
    batches = (cue(16, rng) for _ in range(steps))
    if player.frames == 1:
        batches = (
            (clips[torch.arange(16), torch.randint(T, (16,), generator=rng)], labels) for clips, labels in batches
        )
    for _ in player.fit(fabric, batches):
        pass
    clips, labels = cue(200, torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = player.score(clips) if player.frames > 1 else player.score(clips.flatten(0, 1)).view(200, T).mean(1)
    return auc(logits[labels == 0], logits[labels == 1])


def test_the_cues_are_in_no_frame():
    """Mean and deviation of every pixel agree: order's over all frames of a clip, flicker's in every place of time."""
    for cue, axes in ((order, (0, 1)), (flicker, (0,))):
        clips, labels = cue(4000, torch.Generator().manual_seed(3))
        real, fake = (clips[labels == label][..., ::8, ::8] for label in (0, 1))
        assert (real.mean(axes) - fake.mean(axes)).abs().max() < 0.02
        assert (real.std(axes) - fake.std(axes)).abs().max() < 0.02


@pytest.mark.parametrize("cue", [order, flicker])
def test_a_still_detector_guesses(cue, monkeypatch):
    assert abs(judged("cnnspot", cue, monkeypatch, steps=25) - 0.5) < 0.15


def test_a_still_detector_would_have_seen_what_a_frame_shows(monkeypatch):
    assert judged("cnnspot", held, monkeypatch, steps=25) > 0.95


@pytest.mark.parametrize("cue", [order, flicker])
@pytest.mark.parametrize("name", ["cnn_lstm", "recurrent_conv"])
def test_a_video_detector_tells(name, cue, monkeypatch):
    assert judged(name, cue, monkeypatch, steps=30) > 0.95

"""What the video detectors share: torchvision nets that turn frames into features, and augmentation without flicker.

Shapes: B clips of T frames, N = B T frames, C channels (3), H height, W width, D features. Images lie in [-1, 1].
"""

import re
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from detect.augment import Plan, apply, draw
from detect.weights import State, imagenet, start_from

TrunkName = Literal["inception_v3", "resnet18", "resnet34", "resnet50", "densenet121", "mobilenet_v3_small"]

HEADS = ("fc.", "classifier.", "AuxLogits.")  # a published file's keys that a trunk has no use for


class Kind(NamedTuple):
    """What a torchvision net is called in errors, where it ends, and what is particular about it."""

    what: str
    head: str  # the attribute that turns features into classes
    layer: str  # the last block of convolutions
    width: int  # D
    smallest: int = 1  # frames, px
    normalised: bool = True  # whether it expects ImageNet's mean and deviation, or [-1, 1] itself
    keywords: Mapping[str, Any] = MappingProxyType({})


KINDS = {
    "inception_v3": Kind(
        "an InceptionV3", "fc", "Mixed_7c", 2048, smallest=75, normalised=False,
        keywords={"aux_logits": False, "init_weights": True, "dropout": 0.0},
    ),
    "resnet18": Kind("a ResNet-18", "fc", "layer4", 512),
    "resnet34": Kind("a ResNet-34", "fc", "layer4", 512),
    "resnet50": Kind("a ResNet-50", "fc", "layer4", 2048),
    "densenet121": Kind("a DenseNet-121", "classifier", "features.denseblock4", 1024),
    "mobilenet_v3_small": Kind(
        "a MobileNetV3-Small", "classifier", "features", 576,
        keywords={"norm_layer": partial(nn.BatchNorm2d, eps=1e-3)},  # its own momentum, 0.01, wants thousands of steps
    ),
}  # fmt: skip


class Trunk(nn.Module):
    """A torchvision net without its last layer: frames N 3 H W in [-1, 1] -> features N D, D = `width`.

    resize: frames are brought to that size in pixels; None takes them as they come (enlarged to 75 for InceptionV3).
    weights: "imagenet" takes torchvision's ImageNet weights if their file lies in torch.hub's cache and starts from
        scratch if not, without ever downloading; a path takes a state dict of such a net (.pth, .safetensors), its last
        layer passed over; None starts from scratch. What happened stands in `provenance`.
    Raises ValueError for a name that is none of `TrunkName` and for a file that does not fit.
    """

    def __init__(self, name: str, weights: str | None, resize: int | None):
        super().__init__()
        if name not in KINDS:
            raise ValueError(f"trunk: expected one of {', '.join(KINDS)}, got {name!r}")
        kind = KINDS[name]
        if resize is not None and resize < kind.smallest:
            raise ValueError(f"resize: expected at least {kind.smallest} px for {name}, got {resize}")
        self.resize, self.width, self._kind = resize, kind.width, kind
        self.net = get_model(name, **kind.keywords)
        setattr(self.net, kind.head, nn.Identity())
        published = get_model_weights(name)["IMAGENET1K_V1"].url  # of the papers' time
        self.provenance = start_from(self.net, weights, published=published, what=kind.what, adapt=headless)

    @property
    def layer(self) -> nn.Module:
        """The last block of convolutions, for Grad-CAM: its output is N c h w."""
        return self.net.get_submodule(self._kind.layer)

    def forward(self, frames: Tensor) -> Tensor:
        side = self.resize
        if side is None and min(frames.shape[-2:]) < self._kind.smallest:
            side = self._kind.smallest
        if side is not None and frames.shape[-2:] != (side, side):
            frames = F.interpolate(frames, (side, side), mode="bilinear", antialias=True)
        return self.net(imagenet(frames) if self._kind.normalised else frames)


def headless(state: State) -> State:
    """A published file's state dict without last layers, DenseNet's old key names (`norm.1`) brought to today's."""
    return {
        re.sub(r"\b(norm|conv)\.([12])\.", r"\1\2.", key): value
        for key, value in state.items()
        if not key.startswith(HEADS)
    }


def frames_of(clips: Tensor) -> Tensor:
    """Clips B T 3 H W as frames N 3 H W, clip by clip."""
    assert (clips.ndim, clips.shape[2]) == (5, 3), f"expected clips B T 3 H W, got {tuple(clips.shape)}"
    return clips.flatten(0, 1)


@torch.no_grad()
def augment(clips: Tensor, *, p_blur: float, p_jpeg: float, flip: bool) -> Tensor:
    """Blur, JPEG-code (see `detect.augment`) and mirror a random part of the clips, B T 3 H W.

    All frames of a clip get the same sigma, the same quality and the same side: else the augmentation would itself be
    a flicker, which is what a video detector looks for.
    """
    b, t = clips.shape[:2]
    plan = Plan(*(drawn.repeat_interleave(t) for drawn in draw(b, p_blur=p_blur, p_jpeg=p_jpeg)))
    clips = apply(clips.flatten(0, 1), plan).unflatten(0, (b, t))
    if flip:
        at = (torch.rand(b) < 0.5).nonzero()[:, 0].to(clips.device)
        clips[at] = clips[at].flip(-1)
    return clips

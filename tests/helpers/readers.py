"""Detectors that read one known thing of a picture, and are as good as they will ever be from the start."""

import torch
import torch.nn.functional as F
from torch import nn


class Reader:
    """gain x (what it reads - offset); nothing is learnt. Images B 3 H W, or clips B T 3 H W, in [-1, 1]."""

    frames = 1

    def __init__(self, gain: float = 10.0, offset: float = 0.0):
        self.net = nn.Linear(1, 1)
        self.layer = self.net
        nn.init.constant_(self.net.weight, gain)
        nn.init.constant_(self.net.bias, -gain * offset)

    def fit(self, fabric, batches, *, val=()):
        for images, _ in batches:
            yield {"loss": images.new_zeros(())}

    def score(self, images):
        return self.net(self.read(images)[:, None]).squeeze(1).float()


class Red(Reader):
    """Mean red less mean blue: survives what leaves colours alone."""

    def read(self, images):
        return (images[:, 0] - images[:, 2]).mean((1, 2))


class Fine(Reader):
    """Mean distance of a pixel from its 3 x 3 surroundings: what high frequencies there are."""

    def read(self, images):
        return (images - F.avg_pool2d(F.pad(images, (1, 1, 1, 1), "replicate"), 3, 1)).abs().mean((1, 2, 3))


class Flicker(Reader):
    """Mean step from frame to frame of a clip; of one frame alone 0."""

    def __init__(self, frames: int = 4, gain: float = 10.0, offset: float = 0.0):
        super().__init__(gain, offset)
        self.frames = frames

    def read(self, clips):
        steps = (clips[:, 1:] - clips[:, :-1]).abs().mean((2, 3, 4))
        return steps.mean(1) if steps.shape[1] else clips.new_zeros(len(clips))


class Broken(Reader):
    """Not a number, for red pictures."""

    def read(self, images):
        red = (images[:, 0] - images[:, 2]).mean((1, 2))
        return torch.where(red > 0.3, torch.nan, red)

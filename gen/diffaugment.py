"""DiffAugment: let a discriminator see reals and fakes alike through random, differentiable changes.

Zhao, Liu, Lin, Zhu, Han, "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020, arXiv 2006.10738,
appendix A. Images: B C H W, float in [-1, 1]. Draws come from torch's global CPU state.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def diff_augment(images: Tensor, policies: Sequence[str]) -> Tensor:
    """Apply the policies "color", "translation", "cutout" in the order given. B C H W -> B C H W."""
    for policy in policies:
        images = POLICIES[policy](images)
    return images


def color(x: Tensor) -> Tensor:
    """Brightness + U(-0.5, 0.5), saturation x U(0, 2), contrast x U(0.5, 1.5), one draw an image."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1).to(x)
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * saturation) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def translation(x: Tensor, ratio: float = 1 / 8) -> Tensor:
    """Shift by up to `ratio` of the side each way; what comes in is 0."""
    b, _, h, w = x.shape
    up, left = round(h * ratio), round(w * ratio)
    rows = torch.arange(h) + torch.randint(2 * up + 1, (b, 1))
    columns = torch.arange(w) + torch.randint(2 * left + 1, (b, 1))
    rows, columns, n = rows.to(x.device), columns.to(x.device), torch.arange(b, device=x.device)
    padded = F.pad(x, (left, left, up, up))
    return padded[n[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor, ratio: float = 1 / 2) -> Tensor:
    """Set a square of `ratio` of the side to 0, its centre anywhere in the image."""
    b, _, h, w = x.shape

    def outside(length: int) -> Tensor:
        size = round(length * ratio)
        start = torch.randint(length + 1 - size % 2, (b, 1)) - size // 2
        at = torch.arange(length)
        return (at < start) | (at >= start + size)

    rows, columns = outside(h), outside(w)
    return x * (rows[:, None, :, None] | columns[:, None, None, :]).to(x)


POLICIES = {"color": color, "translation": translation, "cutout": cutout}

"""A swapped face takes on the colours of the picture that it goes into.

N faces of S x S pixels at once, RGB in [-1, 1], statistics through a mask: hair and background do not count.
"""

import torch
from torch import Tensor

LEVELS = 256


def transfer(kind: str, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """`image` with the colours of `target` by "lab", "histogram" or "none": N 3 S S in [-1, 1]; `mask` N 1 S S."""
    if kind == "lab":
        return match_lab(image, target, mask)
    if kind == "histogram":
        return match_histograms(image, target, mask)
    return image


def match_lab(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean and standard deviation of each Lab channel from `target` (Reinhard et al. 2001, section 3, in CIELAB)."""
    from kornia.color import lab_to_rgb, rgb_to_lab

    x, y = rgb_to_lab(image / 2 + 0.5), rgb_to_lab(target / 2 + 0.5)
    (mean_x, std_x), (mean_y, std_y) = moments(x, mask), moments(y, mask)
    matched = (x - mean_x) * (std_y / std_x.clamp(min=0.1)) + mean_y  # a flat face keeps its noise as small as it is
    return lab_to_rgb(matched) * 2 - 1


def moments(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation of each channel, N C 1 1."""
    weight = mask / mask.sum((2, 3), keepdim=True).clamp(min=1e-6)
    mean = (weight * image).sum((2, 3), keepdim=True)
    return mean, (weight * (image - mean) ** 2).sum((2, 3), keepdim=True).sqrt()


def match_histograms(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Each channel's histogram from `target`: level v becomes the first level there that as many pixels lie below.

    Pixels count where the mask is above 1/2. The result has 256 levels.
    """
    counted = (mask > 0.5).float().expand_as(image).flatten(2)

    def levels(x: Tensor) -> Tensor:
        return ((x.flatten(2) + 1) * (LEVELS - 1) / 2).round().clamp(0, LEVELS - 1).long()

    def cumulative(x: Tensor) -> Tensor:  # N 3 LEVELS, in whole pixels, so that equal pictures give equal sums
        return torch.zeros(*x.shape[:2], LEVELS).to(counted).scatter_add_(2, x, counted).cumsum(2)

    x = levels(image)
    table = torch.searchsorted(cumulative(levels(target)), cumulative(x)).clamp(max=LEVELS - 1)
    return (table.gather(2, x).float() * 2 / (LEVELS - 1) - 1).view_as(image)

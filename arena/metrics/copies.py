"""Which images are copies of known ones: handed in as they are, or lightly edited.

An image, less a sixteenth at each edge, is described by its colours at 8 x 8 and 16 x 16 px, less their local mean,
each channel standardised: light, contrast and colour balance fall out, and fine grain never enters. Its distance to a
known image is 1 - the correlation of the two; of the known image as it is, turned by 3 degrees either way and cropped
to 90 % at 25 places, and of the image and its mirror image, the nearest count. No network, nothing learnt.

How near is too near depends on the domain (faces are all alike), so the threshold comes from there: half of the
distance that the nearest 5 % of honest images stay within, and no more than the nearest 1 % do.

Found, at least 95 of 100, on embedded faces and photographs (docs/results/copies.md): copies after JPEG (quality 50),
brightness +-20 %, a brighter channel, mirroring, a crop to the middle 90 %, a turn of 3 degrees, blur (sigma 1 px),
noise (sd 8 of 255), half size and back; from 64 px on also after flip, brightness and JPEG together. Left alone, at
least 99 of 100: other reals of the domain, samples of their principal components, the fakes of CycleGAN, ALAE and the
face swap after short trainings.

Not found, or half of the time: copies in grey, crops to 80 %, turns of 8 degrees, many edits at once, pictures glued
together. Not told apart: a copy and a translation that repaints little. Of exact swaps, which differ from their source
by the face alone, about 2 in 100 are called copies; a generator that hardly changes its source will be. Look at the
pairs before you accuse. In a domain of near-duplicates (turning objects, frames of one film) honest images are as near
as edited copies: the threshold is low, few edited copies are found, and some 4 in 100 honest images are called copies.
"""

from dataclasses import dataclass
from itertools import product
from math import cos, radians, sin
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from arena.metrics.features import signed
from arena.metrics.intervals import Interval
from arena.metrics.shares import wilson

SCALES = (8, 16)  # px
CROPS = [(0.9, x, y) for x, y in product((-0.1, -0.05, 0.0, 0.05, 0.1), repeat=2)]  # side, and centre in half sides
VIEWS = [(0.0, (1.0, 0.0, 0.0)), (3.0, (1.0, 0.0, 0.0)), (-3.0, (1.0, 0.0, 0.0))] + [(0.0, crop) for crop in CROPS]
_FLAT = 1 / 127.5  # a channel that varies by less than one grey level is not stretched
_SAME = 1e-4  # so near are the same pixels alone, whatever the threshold
_KNOWN, _ASKED = 256, 2048  # images at a time

Nearest = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]  # distance, number, mirrored


@dataclass(frozen=True)
class Copies:
    """What `find_copies` found: N images asked about."""

    share: Interval  # of the images that are copies, with Wilson's 95 % interval (the threshold held fixed)
    is_copy: NDArray[np.bool_]  # N
    mirrored: NDArray[np.bool_]  # N: the mirror image is nearer than the image
    nearest: NDArray[np.int64]  # N: the number of the nearest image of the bank
    distance: NDArray[np.float64]  # N: 0 (the same) to 2; about 1 for unrelated images and for flat ones
    threshold: float  # copies are at most so far


def find_copies(images: Any, bank: Any, honest: Any) -> Copies:
    """Which of the images are copies of one of the bank, judged by honest images that are certainly none.

    images: N 3 S S, bank: M 3 S S, honest: H 3 S S, tensors or arrays, uint8 or float in [-1, 1]; S may differ.
    `honest` are of the same domain: held-out reals, 20 or more (of fewer, the nearest alone sets the threshold). For
    two teams' fakes: `find_copies(mine, theirs, reals)`. Raises ValueError for other shapes and for an empty set.
    """
    described = [_both_ways(_checked(some)) for some in (honest, images)]
    of_honest, (distance, nearest, mirrored) = _nearest(described, _checked(bank))
    limit = honest_threshold(of_honest[0])
    is_copy = distance <= limit
    return Copies(wilson(int(is_copy.sum()), len(is_copy)), is_copy, mirrored, nearest, distance, limit)


def nearest_images(images: Any, bank: Any) -> Nearest:
    """For each image the distance to the nearest of the bank, that one's number, and whether it is mirrored.

    Sets as for `find_copies`. Of equally near ones the first counts, and unmirrored comes before mirrored.
    """
    return _nearest([_both_ways(_checked(images))], _checked(bank))[0]


def honest_threshold(distance: NDArray[np.float64]) -> float:
    """The distance up to which an image is called a copy, from those of honest images to the same bank."""
    return max(_SAME, min(float(np.quantile(distance, 0.05)) / 2, float(np.quantile(distance, 0.01))))


def _nearest(asked: list[Tensor], bank: Tensor) -> list[Nearest]:
    """For several sets of descriptions (each 2 N x D, the mirror images' after the images'), the bank seen once."""
    rows = torch.cat(asked)
    best, nearest = torch.full((len(rows),), -2.0), torch.zeros(len(rows), dtype=torch.int64)
    for first in range(0, len(bank), _KNOWN):
        views = _views(bank[first : first + _KNOWN])
        for part in torch.arange(len(rows)).split(_ASKED):
            alike = (rows[part] @ views.flatten(0, 1).T).view(len(part), *views.shape[:2])
            top, at = alike.amax(1).max(1)
            nearer = top > best[part]
            best[part] = torch.where(nearer, top, best[part])
            nearest[part] = torch.where(nearer, first + at, nearest[part])
    found = []
    for alike, which in zip(best.split([len(a) for a in asked]), nearest.split([len(a) for a in asked]), strict=True):
        as_is, flipped = alike.chunk(2)
        mirrored = flipped > as_is + 1e-6  # a symmetrical image is not mirrored
        distance = (1 - torch.maximum(as_is, flipped).double()).clamp(min=0)
        straight, turned = which.chunk(2)
        found.append((distance.numpy(), torch.where(mirrored, turned, straight).numpy(), mirrored.numpy()))
    return found


def _both_ways(images: Tensor) -> Tensor:
    return torch.cat([describe(part) for half in (images, images.flip(3)) for part in half.split(_ASKED)])


def _checked(images: Any) -> Tensor:
    tensor = torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images).detach().cpu()
    if tensor.ndim != 4 or tensor.shape[1] != 3 or len(tensor) == 0:
        raise ValueError(f"expected images of shape N 3 S S with N >= 1, got {tuple(tensor.shape)}.")
    return tensor


def describe(images: Tensor) -> Tensor:
    """Unit rows of 960 numbers, zeros for a flat image."""
    edge = round(images.shape[-1] / 16)  # what a turn fills with black or white
    inner = signed(images)[..., edge : images.shape[-2] - edge, edge : images.shape[-1] - edge]
    parts = []
    for side in SCALES:
        small = F.adaptive_avg_pool2d(inner, side)
        detail = small - F.avg_pool2d(F.pad(small, (2, 2, 2, 2), mode="reflect"), 5, 1)
        channels = detail.flatten(2)
        channels = channels - channels.mean(2, keepdim=True)
        channels = channels / channels.std(2, keepdim=True).clamp(min=_FLAT)
        parts.append(F.normalize(channels.flatten(1), dim=1))
    return F.normalize(torch.cat(parts, 1), dim=1)


def _views(images: Tensor) -> Tensor:
    """Descriptions of the images as they are, turned and cropped: V K 960. Turned and cropped at 32 px at most."""
    small = signed(images)
    if small.shape[-1] > 32:
        small = F.adaptive_avg_pool2d(small, 32)
    described = [describe(images)]
    for angle, (side, x, y) in VIEWS[1:]:
        c, s = side * cos(radians(angle)), side * sin(radians(angle))
        grid = F.affine_grid(
            torch.tensor([[c, -s, x], [s, c, y]]).expand(len(small), 2, 3), list(small.shape), align_corners=False
        )
        described.append(describe(F.grid_sample(small, grid, padding_mode="reflection", align_corners=False)))
    return torch.stack(described)

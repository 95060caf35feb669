"""An instrument that reads 68 landmarks and the pose off a face, fitted to the embedded faces in seconds.

A cascade of linear regressions from what the picture shows around the points to where the points should move
(supervised descent: Xiong and De la Torre 2013, CVPR, eq. 5 to 9), each solved in closed form: nothing is downloaded
and nothing is trained by steps. The features are gradients in eight directions over local contrast, so that light and
colour matter little. Each regression is fitted where its forerunners leave the faces *that they have not seen*: the
leave-one-out residuals of ridge regression, which cost nothing more (Allen 1974, PRESS).

The instrument knows the embedded faces alone; it is no landmark detector for photographs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arena.data.faces import SIZES, render
from arena.errors import InputError

SIZE = 64  # px: larger pictures are reduced to this before they are read
SEED = 680_068  # of the people and pictures that it is fitted to: no run should have this one
FACES = 2000
SPREADS = (4.0, 3.0, 2.0)  # px at 64 px between the 3 x 3 places looked at around each point, one cascade stage each
RIDGE = 0.1  # of the mean squared length of a feature row
BLURS = (0.0, 0.7, 1.2, 1.8)  # px at 64 px, a quarter of the faces each: fakes are often soft, and must be read too
DIRECTIONS = 8

JAW, BROWS, NOSE, EYES, MOUTH = slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68)
OUTER_CORNERS = (36, 45)  # of the eyes: their distance is the unit of landmark errors


@dataclass(frozen=True)
class Measured:
    """What the instrument reads off N pictures."""

    points: Tensor  # N 68 2: x, y in pixels of the picture (the first pixel's centre is 0.5), iBUG's order
    pose: Tensor  # N 3: yaw, pitch, roll in degrees, signs as in `arena.data.faces.Faces`


class Landmarks:
    """Call it with pictures (uint8, N 3 S S) to get what it measures. Made by `fit_landmarks` or `from_arrays`.

    `size` is the side that it reads at: it takes pictures of just that side, or of any larger one where it is 64 px.
    """

    def __init__(self, size: int, first: Tensor, stages: list[Tensor], pose: Tensor):
        self.size, self.first, self.stages, self.pose = size, first, stages, pose

    def __call__(self, images: Tensor) -> Measured:
        """Measure pictures, uint8 N 3 S S. Raises InputError where they are smaller than those it was fitted to."""
        side = images.shape[-1]
        if side != self.size and not side > self.size == SIZE:
            raise InputError(f"these landmarks are read off {self.size} px pictures, got {side} px. Fit them anew.")
        read = [self._read(part) for part in images.split(256)]
        points, pose = (torch.cat(part) for part in zip(*read, strict=True))
        return Measured(points * (side / self.size), pose)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as plain arrays, for an .npz file."""
        stages = {f"stage{k}": weights.numpy() for k, weights in enumerate(self.stages)}
        return {"size": np.array(self.size), "first": self.first.numpy(), **stages, "pose": self.pose.numpy()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The instrument that `arrays` came from, to the bit."""
        names = ("first", "pose", *(f"stage{k}" for k in range(len(SPREADS))))
        first, pose, *stages = (torch.from_numpy(np.array(arrays[name])) for name in names)
        return cls(int(arrays["size"]), first, stages, pose)

    @torch.inference_mode()
    def _read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = _maps(images, self.size)
        points = _apply(self.first, _overview(maps)).unflatten(1, (68, 2))
        for weights, spread in zip(self.stages, SPREADS, strict=True):
            points = points + _apply(weights, _around(maps, points, spread)).unflatten(1, (68, 2))
        return points, _apply(self.pose, _around(maps, points, SPREADS[-1]))


@lru_cache(maxsize=4)
def instrument(size: int, close: float = 1.0) -> Landmarks:
    """The instrument for pictures of `size` px (32 to 256), fitted once in a process."""
    return fit_landmarks(size, close=close)


@torch.inference_mode()
def fit_landmarks(size: int = SIZE, *, seed: int = SEED, faces: int = FACES, close: float = 1.0) -> Landmarks:
    """Fit the instrument for pictures of `size` px to `faces` rendered ones of as many people, camera and all,
    drawn as `close` as the pictures will be.

    The same arguments give the same instrument. Raises InputError for a size that is never rendered.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise InputError(f"size: expected {SIZES[0]} to {SIZES[1]} pixels, got {size}.")
    size = min(size, SIZE)
    known = render(seed, range(faces), size, close=close)
    maps = torch.cat([_maps(_soften(part, size), size) for part in known.image.float().split(256)])
    first, missed = _ridge(_overview(maps), known.landmarks.flatten(1))
    stages = []
    for spread in SPREADS:
        points = known.landmarks - missed.unflatten(1, (68, 2))
        weights, missed = _ridge(_around(maps, points, spread), missed)
        stages.append(weights)
    points = known.landmarks - missed.unflatten(1, (68, 2))
    pose, _ = _ridge(_around(maps, points, SPREADS[-1]), known.pose)
    return Landmarks(size, first, stages, pose)


def _ridge(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weights d + 1 x k from rows n x d to y n x k, bias last, and y less what a fit without the row itself predicts.

    In the dual form, G = (X X' + lambda I)^-1: weights X' G y, and leave-one-out residuals (G y)_i / G_ii.
    """
    mean, bias = x.mean(0), y.mean(0)
    x = x - mean
    gram = (x @ x.T).double()
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    dual = inverse @ (y - bias).double()
    missed = (dual / inverse.diagonal()[:, None]).float()
    weights = x.T @ dual.float()
    return torch.cat((weights, (bias - mean @ weights)[None])), missed


def _apply(weights: Tensor, x: Tensor) -> Tensor:
    return x @ weights[:-1] + weights[-1]


def _maps(images: Tensor, size: int) -> Tensor:
    """What the picture shows at each place, N 9 size size: gradients by direction, and grey, over local contrast."""
    x = images.float() / 255
    if x.shape[-1] != size:
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    grey = _blur((x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True), 0.6)
    wide = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    gx, gy = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2], wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    near, far = 6.0 * size / SIZE, 8.0 * size / SIZE
    strength = (_spread(gx * gx + gy * gy, near) + 1e-4).rsqrt()
    turn = torch.arange(DIRECTIONS)[:, None, None] * (2 * math.pi / DIRECTIONS)
    directed = F.relu((gx * turn.cos() + gy * turn.sin()) * strength)
    apart = grey - _spread(grey, far)
    return _blur(torch.cat((directed, apart * (_spread(apart * apart, far) + 1e-4).rsqrt()), 1), 1.0)


def _overview(maps: Tensor) -> Tensor:
    """The whole picture on a 16 x 16 grid: N (9 x 256)."""
    return F.adaptive_avg_pool2d(maps, 16).flatten(1)


def _around(maps: Tensor, points: Tensor, spread: float) -> Tensor:
    """The maps at 3 x 3 places around each point (N 68 2, pixels): N (9 x 68 x 9)."""
    size = maps.shape[-1]
    offset = torch.tensor([-1.0, 0.0, 1.0]) * (spread * size / SIZE)
    places = points[:, :, None] + torch.cartesian_prod(offset, offset)
    at = places.flatten(1, 2)[:, :, None] * (2 / size) - 1
    return F.grid_sample(maps, at, padding_mode="border", align_corners=False).flatten(1)


def _soften(images: Tensor, size: int) -> Tensor:
    """Each quarter of the images blurred by one of BLURS."""
    soft = images.clone()
    for k, sigma in enumerate(BLURS):
        if sigma:
            soft[k :: len(BLURS)] = _blur(images[k :: len(BLURS)], sigma * size / SIZE)
    return soft


def _spread(images: Tensor, sigma: float) -> Tensor:
    """A wide blur by about sigma pixels, at a quarter of the resolution."""
    small = _blur(F.avg_pool2d(images, 4), sigma / 4)
    return F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of N C S S by sigma pixels, edges repeated."""
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma * sigma))
    weights = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
    wide = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(wide, weights, groups=len(weights)), weights.transpose(2, 3), groups=len(weights))

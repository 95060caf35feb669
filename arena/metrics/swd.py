"""Sliced Wasserstein distance between patches of Laplacian pyramids: do the fakes have the reals' local structure?

Every image is split into bands (full size, half ... down to 16 px, the last one holding all that is coarser); from each
band random 7 x 7 patches are taken, each colour channel of a set's patches is brought to mean 0 and sd 1, and the two
sets are compared along random directions, where the Wasserstein-1 distance is the area between the sorted values.

Source: Karras et al. 2018 (arXiv 1710.10196, section 5): 128 patches an image, 512 directions; their tables show the
value times 1000. No network, nothing learnt. Blind, by its normalisation, to the mean colour and to the contrast of a
band, and to anything larger than 7 px of the coarsest band.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from arena.metrics.features import signed
from arena.metrics.intervals import Interval, clipped, cut, jackknife

SIDE, COARSEST = 7, 16  # px
_SHARE = 4  # the interval looks along one direction in so many

Floats = NDArray[np.float32]


class Patches:
    """Extractor: `count` patches of every band of an image, as one row of bands * count * 147 numbers.

    Where they lie depends on the image's place in the set alone, so that a set has the same rows every time.
    """

    dims, resizes = None, False

    def __init__(self, count: int = 128, directions: int = 512, device: str | torch.device = "cpu"):
        self.count, self.directions, self.device = count, directions, torch.device(device)
        self.name = f"patches-{count}"
        self.distance = f"swd-{count}x{directions}"
        self.describe = (
            f"{count} patches of 7 x 7 px an image and band of its Laplacian pyramid (to {COARSEST} px), each channel "
            f"standardised, {directions} directions, seed 0, images at their own size"
        )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        places = [torch.rand(len(images), self.count, 2, generator=rng) for _ in bands(images[:1])]
        rows = []
        for part in torch.arange(len(images)).split(32):
            found = []
            for band, place in zip(bands(signed(images[part].to(self.device))), places, strict=True):
                windows = band.unfold(2, SIDE, 1).unfold(3, SIDE, 1)  # B 3 H-6 W-6 7 7
                room = torch.tensor(windows.shape[2:4])
                y, x = (place[part] * room).long().to(self.device).unbind(-1)
                image = torch.arange(len(part), device=self.device)[:, None]
                found.append(windows[image, :, y, x].flatten(1))
            rows.append(torch.cat(found, 1).cpu())
        return torch.cat(rows)


def bands(images: Tensor) -> list[Tensor]:
    """The Laplacian pyramid of B 3 H W, finest first; the last band is the low-pass rest, of less than 32 px."""
    x, found = signed(images), []
    while min(x.shape[-2:]) >= 2 * COARSEST:
        down = _smooth(x)[..., ::2, ::2]
        up = torch.zeros_like(x)
        up[..., ::2, ::2] = down
        found.append(x - 4 * _smooth(up))
        x = down
    return [*found, x]


def sides(size: int) -> list[int]:
    """The side of every band of images of `size` px, finest first."""
    found = [size]
    while found[-1] >= 2 * COARSEST:
        found.append((found[-1] + 1) // 2)
    return found


class Sliced:
    """The reference side: every band's patches along every direction, sorted once. `rows` are `Patches`' (N x D)."""

    def __init__(self, rows: ArrayLike, count: int, directions: int):
        self.count, self.directions = count, directions
        self.bands = [np.sort(values, axis=1) for values in self._along(rows)]

    def distances(self, rows: ArrayLike) -> list[float]:
        """Of every band, finest first: the mean over the directions of the exact Wasserstein-1 distance."""
        pairs = zip(self.bands, self._along(rows), strict=True)
        return [_wasserstein(reals, np.sort(fakes, axis=1)) for reals, fakes in pairs]

    def distance(self, rows: ArrayLike) -> float:
        """The mean over the bands."""
        return float(np.mean(self.distances(rows)))

    def interval(self, rows: ArrayLike, blocks: int = 10) -> tuple[Interval, list[float]]:
        """(value, low, high) of the mean over the bands, and every band's distance: N >= 3 images.

        The block jackknife over the images, along a quarter of the directions; a set's normalisation is held fixed.
        """
        n = len(np.asarray(rows))
        parts = cut(n, blocks)
        whole, few, without = [], [], np.zeros((len(self.bands), len(parts)))
        for band, (reals, fakes) in enumerate(zip(self.bands, self._along(rows), strict=True)):
            some = fakes[::_SHARE]
            order = np.argsort(some, axis=1)
            ranked, image = np.take_along_axis(some, order, 1), order // self.count
            whole.append(_wasserstein(reals, np.sort(fakes, axis=1)))
            few.append(_wasserstein(reals[::_SHARE], ranked))
            for i, part in enumerate(parts):
                stay = (image < part.start) | (image >= part.stop)
                without[band, i] = _wasserstein(reals[::_SHARE], ranked[stay].reshape(len(some), -1))
        value = float(np.mean(whole))
        return clipped(jackknife(value, value + without.mean(0) - np.mean(few)), 0.0), whole

    def _along(self, rows: ArrayLike) -> list[Floats]:
        """Every band's standardised patches along the directions: K x N count."""
        values = np.asarray(rows, dtype=np.float32)
        width = 3 * SIDE**2
        found = []
        for part in values.reshape(len(values), -1, self.count, width).swapaxes(0, 1):  # a band at a time
            patches = part.reshape(-1, 3, SIDE**2)
            patches = patches - patches.mean((0, 2), keepdims=True)
            patches = patches / np.maximum(patches.std((0, 2), keepdims=True), 1e-8)
            along = np.random.default_rng(0).normal(size=(width, self.directions)).astype(np.float32)
            along /= np.linalg.norm(along, axis=0)
            found.append(np.ascontiguousarray((patches.reshape(-1, width) @ along).T))
        return found


def _wasserstein(x: Floats, y: Floats) -> float:
    """Mean over the rows of the Wasserstein-1 distance between sorted samples, K x n and K x m: exact for any n and m.

    The two quantile functions are steps; between two neighbouring ends of steps, i / n or j / m, both are constant.
    """
    n, m = x.shape[1], y.shape[1]
    if n == m:
        return float(np.abs(x - y).mean(dtype=np.float64))
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(ends, prepend=0) / (n * m)
    gaps = np.abs(x[:, (ends - 1) // m] - y[:, (ends - 1) // n])
    return float((gaps @ widths.astype(np.float32)).mean(dtype=np.float64))


def wasserstein(x: ArrayLike, y: ArrayLike) -> float:
    """The Wasserstein-1 distance between two samples of numbers, of n and m of them."""
    pair = (np.sort(np.asarray(some, dtype=np.float32))[None] for some in (x, y))
    return _wasserstein(*pair)


def _smooth(x: Tensor) -> Tensor:
    """The binomial 5 x 5 filter, mirrored at the edges."""
    for dim in (2, 3):
        wide = F.pad(x, (0, 0, 2, 2) if dim == 2 else (2, 2, 0, 0), mode="reflect")
        a, b, c, d, e = (wide.narrow(dim, shift, x.shape[dim]) for shift in range(5))
        x = ((b + d).mul_(4).add_(a).add_(e).add_(c, alpha=6)).div_(16)  # a third of the time of a convolution
    return x

"""Light, layers and noise for the synthetic faces: what arena/data/_face_paint.py mixes its picture from.

Surfaces are lit by one coloured key light with a wrapped, reddish terminator (as light that has scattered in skin), a
sky above and a specular lobe. Planes are N S S, colours N 3 S S or N 3 1 1 in linear light, parameters N 1 1.
"""

from functools import lru_cache
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional

from arena.data._face_shape import edge

TILE = 256  # texels of a noise tile, which repeats
SKIN_WRAP = (0.34, 0.20, 0.14)


@lru_cache(maxsize=64)
def tile(cut: float, slope: float, stream: int) -> Tensor:
    """A periodic noise tile, 1 1 257 257: amplitudes 1 / f^slope up to `cut` cycles, unit variance before the cut."""
    white = torch.randn(TILE, TILE, generator=torch.Generator().manual_seed(stream))
    f = torch.fft.fftfreq(TILE, 1 / TILE)
    f = (f[:, None] ** 2 + f[None] ** 2).sqrt()
    gain = f.clamp(min=2) ** -slope * (f > 0)
    gain = gain / (gain**2).mean().sqrt()
    noise = torch.fft.ifft2(torch.fft.fft2(white) * gain * torch.exp(-((f / cut) ** 4))).real
    return functional.pad(noise[None, None], (0, 1, 0, 1), mode="circular").contiguous()


def texture(noise: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A tile's value at (u, v), in tiles: N S S."""
    at = torch.stack((u, v), -1)
    at = at.sub_(at.floor()).mul_(2).sub_(1)
    return functional.grid_sample(noise.expand(len(at), -1, -1, -1), at, align_corners=True)[:, 0]


def over(below: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    """A layer on top, in place: below N 3 S S, colour N 3 (S S or 1 1), cover N S S."""
    return below.add_((colour - below).mul_(cover[:, None]))


def tint(albedo: Tensor, by: tuple[float, float, float], amount: Tensor) -> Tensor:
    """Multiply each channel by 1 + by * amount, in place."""
    for channel, weight in enumerate(by):
        albedo[:, channel].mul_((amount * weight).add_(1))
    return albedo


def slope(z: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences of N S S along x and y, with pixels `step` wide."""
    gx, gy = torch.empty_like(z), torch.empty_like(z)
    torch.sub(z[:, :, 2:], z[:, :, :-2], out=gx[:, :, 1:-1])
    torch.sub(z[:, 2:], z[:, :-2], out=gy[:, 1:-1])
    gx[:, :, 0], gx[:, :, -1] = gx[:, :, 1], gx[:, :, -2]
    gy[:, 0], gy[:, -1] = gy[:, 1], gy[:, -2]
    half = 0.5 / step
    return gx.mul_(half), gy.mul_(half)


def normal(depth: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gx, gy = slope(depth, step)
    nz = (gx * gx).add_(gy * gy).add_(1).rsqrt_()
    return gx.neg_().mul_(nz), gy.neg_().mul_(nz), nz


def coverage(inside: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage and signed distance (head units) of the region where `inside` > 0."""
    gx, gy = slope(inside, step)
    distance = inside * (gx.mul_(gx).add_(gy.mul_(gy)).add_(1e-6)).rsqrt_()
    return edge(distance, 1.2 * step), distance


def lit(
    p: SimpleNamespace, albedo: Tensor, n: tuple[Tensor, Tensor, Tensor], shade: Tensor, wrap: tuple[float, ...]
) -> Tensor:
    """Diffuse light on an albedo: N 3 S S. `shade` N S S darkens the key light fully and the sky by half."""
    nx, ny, nz = n
    facing = nx * p.light_x + ny * p.light_y + nz * p.light_z
    sky = (0.85 - 0.35 * ny).mul_(0.5 + 0.5 * shade)
    out = torch.empty(facing.shape[0], 3, *facing.shape[1:])
    for channel, w in enumerate(wrap):
        key = (facing + w).mul_(1 / (1 + w)).clamp_(min=0).mul_(shade).mul_(p.key_colour[:, channel])
        out[:, channel] = key.add_(sky * p.fill_colour[:, channel])
    return out.mul_(albedo)


def gleam(p: SimpleNamespace, n: tuple[Tensor, Tensor, Tensor], squarings: int) -> Tensor:
    """Blinn's specular lobe, (n . h) ^ (2 ^ squarings)."""
    nx, ny, nz = n
    scale = (p.light_x**2 + p.light_y**2 + (p.light_z + 1) ** 2).rsqrt()
    lobe = (nx * (p.light_x * scale) + ny * (p.light_y * scale) + nz * ((p.light_z + 1) * scale)).clamp_(0, 1)
    for _ in range(squarings):
        lobe.mul_(lobe)
    return lobe

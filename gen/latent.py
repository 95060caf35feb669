"""Moving about in a latent space: straight and round paths, style mixing, principal directions.

Pure functions on the latents of anything with `decode` (and `encode`, where images have latents, too). Shapes: N
points, D dimensions, L levels: a style-based generator takes one latent per level (N L D), coarse first, and any one
latent at all levels (N D).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Curve = Callable[[Tensor, Tensor, Tensor], Tensor]


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The straight line from a (t = 0) to b (t = 1). t broadcasts against a and b (... D)."""
    return torch.lerp(a, b, t)


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From a to b along a great circle, the norm changing linearly. Shapes as `lerp`; a, b not zero.

    Shoemake 1985 (SIGGRAPH), "Animating rotation with quaternion curves", section 3.3, with sin(x) / x written as sinc,
    so that nothing is divided by zero where a and b meet. The angle by Kahan's formula, exact where arccos is not.
    Raises ValueError where a and b are opposite: no one great circle joins them.
    """
    norm_a, norm_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / norm_a, b / norm_b
    angle = 2 * torch.atan2((unit_a - unit_b).norm(dim=-1, keepdim=True), (unit_a + unit_b).norm(dim=-1, keepdim=True))
    if (angle > math.pi - 1e-3).any():
        raise ValueError("slerp between opposite latents: no one great circle joins them")

    def sinc(x: Tensor) -> Tensor:
        return torch.sinc(x / math.pi)

    from_a, from_b = (1 - t) * sinc((1 - t) * angle), t * sinc(t * angle)
    return torch.lerp(norm_a, norm_b, t) * (from_a * unit_a + from_b * unit_b) / sinc(angle)


def interpolate(points: Tensor, n: int, curve: Curve = lerp) -> Tensor:
    """n latents, both ends among them, evenly spaced in t on the path through K points (K D or K L D), K >= 2."""
    last = len(points) - 1
    assert min(last, n - 1) >= 1, (points.shape, n)
    place = torch.linspace(0, last, n, dtype=torch.float64)
    start = place.long().clamp(max=last - 1)
    t = (place - start).to(points).view(-1, *[1] * (points.dim() - 1))
    start = start.to(points.device)
    return curve(points[start], points[start + 1], t)


def per_level(w: Tensor, levels: int) -> Tensor:
    """One latent for all levels (N D) as one for each (N L D); what is that already passes."""
    return w if w.dim() == 3 else w[:, None].expand(-1, levels, -1)


def mix(coarse: Tensor, fine: Tensor, level: int) -> Tensor:
    """Style mixing: the levels below `level` from coarse, from it on from fine. N L D each (or 1 L D) -> N L D.

    Karras, Laine, Aila 2019, arXiv 1812.04948, section 3.1.
    """
    below = torch.arange(coarse.shape[1], device=coarse.device)[:, None] < level
    return torch.where(below, coarse, fine)


def principal_directions(w: Tensor) -> tuple[Tensor, Tensor]:
    """Directions along which latents (N D) vary, most first: unit rows (k D), standard deviations (k), k = min(N, D).

    Principal components as in Härkönen et al. 2020, arXiv 2004.02546, section 2. A direction's sign means nothing; its
    largest entry is made positive, so that the same latents give the same directions.
    """
    _, spread, rows = torch.linalg.svd(w - w.mean(0), full_matrices=False)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * largest.sign(), spread / math.sqrt(len(w) - 1)


def walk(w: Tensor, direction: Tensor, distances: Tensor) -> Tensor:
    """Points at `distances` (n) from w (D or L D) along a direction (D): n D or n L D."""
    return w + distances.view(-1, *[1] * w.dim()) * direction

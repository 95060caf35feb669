"""The organiser's own fakes, so that a challenge has some before any team has handed one in."""

import torch
from torch import Tensor


def eigenfaces(reals: Tensor, count: int, rng: torch.Generator, components: int = 64) -> Tensor:
    """`count` images drawn from a Gaussian with the mean and the leading principal components of `reals`.

    reals: uint8 N ... of any one shape, N >= 2; the result has that shape. Blurred, overlaid faces: the
    oldest generator of faces there is, and an easy one to catch.
    Source: Turk and Pentland 1991, "Eigenfaces for Recognition", section 2; drawing from them, Moghaddam and Pentland
    1997, section 3.
    """
    rows = reals.flatten(1).double()
    mean = rows.mean(0)
    _, scale, axes = torch.linalg.svd(rows - mean, full_matrices=False)
    k = min(components, len(rows) - 1)
    deviations = scale[:k] / (len(rows) - 1) ** 0.5
    weights = torch.randn(count, k, generator=rng, dtype=torch.float64) * deviations
    drawn = mean + weights @ axes[:k]
    return drawn.round().clamp(0, 255).to(torch.uint8).unflatten(1, reals.shape[1:])

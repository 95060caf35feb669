"""The protocol that every generator keeps. Shapes: B batch, C channels (3), H height, W width."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

Penalty = Callable[[Tensor], Tensor]


def no_penalty(images: Tensor) -> Tensor:
    """The penalty of a generator that evades nobody: 0 for every batch of images (B C H W)."""
    return images.new_zeros(())


class Generator(Protocol):
    """A method that makes fakes. Its nets, EMAs, optimizers and schedulers are plain attributes.

    Images are float, B C H W, in [-1, 1]. `needs` says what a batch is: (x,) stills, (a, b) unpaired images of two
    domains, (a, b) pairs, a[i] and b[i] of one thing. A generator that can also give an image back has, besides,
    `reconstruct(images, *, reverse)`; one with a latent space has what gen/latent.py lists. One of stills whose fake i
    is a guess at source i itself (super-resolution) has `restores = True`, and may have `baseline(source)`: what one
    guesses without learning.
    """

    needs: Literal["stills", "domains", "pairs"]

    def fit(
        self, fabric, batches: Iterable[tuple[Tensor, ...]], *, penalty: Penalty = no_penalty
    ) -> Iterator[dict[str, Tensor]]:
        """Train: one batch, one update, one yielded dict of detached 0-d losses; ends with `batches`.

        The first element of a batch is the source, the last a real of the fake's own kind. `penalty` maps fakes
        (B C H W) to a scalar to add to the generator's loss.
        """
        ...

    def sample(self, source: Tensor, *, rng: torch.Generator, reverse: bool = False) -> Tensor:
        """Fakes (B C H W) for a batch of sources; for stills only their number, size and device matter.

        `reverse` takes the second domain to the first (domains only).
        """
        ...

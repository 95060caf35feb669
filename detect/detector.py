"""The protocol that every detector keeps. Shapes: B batch, T frames, C channels (3), H height, W width."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from torch import Tensor, nn

Labelled = tuple[Tensor, Tensor]


class Detector(Protocol):
    """A method that tells fakes from reals. Label 1, a high logit and the word positive all mean fake.

    Its nets, optimizers and schedulers are plain attributes. Images are float, B C H W (clips: B T C H W), in [-1, 1].
    """

    frames: int
    layer: nn.Module

    def fit(self, fabric, batches: Iterable[Labelled], *, val: Iterable[Labelled] = ()) -> Iterator[dict[str, Tensor]]:
        """Train: one batch of (images, labels in {0., 1.}, B), one update, one yielded dict of detached 0-d losses.

        `val` can be run through again and again; it is the only data that a stopping rule or schedule may look at.
        Ends with `batches`, or earlier where the method has a stopping rule of its own.
        """
        ...

    def score(self, images: Tensor) -> Tensor:
        """Logits, B, float32; differentiable with respect to `images`, so that a generator can evade."""
        ...

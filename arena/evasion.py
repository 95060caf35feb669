"""The penalty: how much a frozen detector sees in a generator's fakes, as a plain function that gradients pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from arena.ledger import parts


@contextmanager
def evading(detector: Any, weight: float) -> Iterator[Callable[[Tensor], Tensor]]:
    """images (B C H W) -> weight * mean of -log P(real), with the detector frozen while the block lasts.

    A detector of clips is shown the images as clips, in their order: B must be a multiple of its frames.

    -log P(real) = softplus(logit), the cross-entropy towards the label real: its gradient does not vanish where the
    detector is sure.
    """
    nets = [part for part in parts(detector).values() if isinstance(part, nn.Module)]
    before = [(p, p.requires_grad) for net in nets for p in net.parameters()]
    for net in nets:
        net.requires_grad_(False)
    try:
        yield lambda images: weight * F.softplus(detector.score(as_clips(images, detector.frames))).mean()
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


def as_clips(images: Tensor, frames: int) -> Tensor:
    """B C H W as B/T T C H W for T frames > 1."""
    assert len(images) % frames == 0, f"{len(images)} images are no clips of {frames} frames"
    return images.unflatten(0, (-1, frames)) if frames > 1 else images

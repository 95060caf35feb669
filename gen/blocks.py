"""What several methods use. Images: B C H W."""

import torch
from torch import Tensor, nn


def set_grad(flag: bool, *nets: nn.Module) -> None:
    """Freeze nets, or let them learn again."""
    for net in nets:
        net.requires_grad_(flag)


def gradient_penalty(logits: Tensor, x: Tensor) -> Tensor:
    """R1 or R2: the mean over the batch of |d logits / d x|^2, differentiable itself. B or B 1, B C H W -> scalar.

    Mescheder, Geiger, Nowozin, ICML 2018, arXiv 1801.04406, eq. 9 and 10 without gamma / 2. Nothing between x and the
    logits may mix the images of a batch.
    """
    (grad,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return grad.square().sum((1, 2, 3)).mean()

"""DCGAN: a generator and a discriminator of strided convolutions and batch norm, images from noise.

Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks",
ICLR 2016, arXiv 1511.06434. Section numbers below are the paper's. Its figure 1 draws 1024 channels at 4x4 and the text
leaves kernels and the discriminator open; the nets here are the usual reading, that of the Torch and PyTorch examples
(S. Chintala, one of the authors): 512 channels at 4x4, 4x4 kernels, no biases.

g: z -> x, d: x -> logit. Latents z: B K. Images x: B 3 S S, float in [-1, 1], S a power of two.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gen.blocks import gradient_penalty, init_normal, set_grad
from gen.diffaugment import diff_augment
from gen.generator import Penalty, no_penalty

Up = Literal["transposed", "nearest", "bilinear", "shuffle", "nails"]


class Nails(nn.Module):
    """Bed of nails: every pixel at the upper left of a 2x2 block of zeros. B C H W -> B C 2H 2W."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        bed = x.new_zeros(b, c, 2 * h, 2 * w)
        bed[..., ::2, ::2] = x
        return bed


conv = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)

UP: dict[
    str, Callable[[int, int], list[nn.Module]]
] = {  # layers that take k_in channels to k_out and double the side; the paper's is the first one
    "transposed": lambda k_in, k_out: [nn.ConvTranspose2d(k_in, k_out, 4, 2, 1, bias=False)],
    "nearest": lambda k_in, k_out: [nn.Upsample(scale_factor=2, mode="nearest"), conv(k_in, k_out)],
    "bilinear": lambda k_in, k_out: [nn.Upsample(scale_factor=2, mode="bilinear"), conv(k_in, k_out)],
    "shuffle": lambda k_in, k_out: [conv(k_in, 4 * k_out), nn.PixelShuffle(2)],
    "nails": lambda k_in, k_out: [Nails(), conv(k_in, k_out)],
}


def channels(size: int, width: int) -> list[int]:
    """From 4x4 to half of `size` px: `width` at the finest, twice as many at each coarser side, 8 x width at most."""
    levels = size.bit_length() - 3
    return [width * min(8, 2 ** (levels - 1 - level)) for level in range(levels)]


def generator(size: int = 64, latent: int = 100, width: int = 64, up: Up = "transposed") -> nn.Sequential:
    """z to 4x4, then doublings with batch norm and ReLU; the last one to RGB and tanh (section 3). B K -> B 3 S S.

    3,576,704 parameters as published. Of the ways to enlarge all but "transposed" have 3x3 kernels.
    """

    def norm(k: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(k), nn.ReLU(True)]

    k = channels(size, width)
    net: list[nn.Module] = [
        nn.Unflatten(1, (latent, 1, 1)),
        nn.ConvTranspose2d(latent, k[0], 4, bias=False),
        *norm(k[0]),
    ]
    for k_in, k_out in pairwise(k):
        net += [*UP[up](k_in, k_out), *norm(k_out)]
    return nn.Sequential(*net, *UP[up](k[-1], 3), nn.Tanh()).apply(init_normal)


def discriminator(size: int = 64, width: int = 64, norm: bool = True) -> nn.Sequential:
    """Strided convolutions to 4x4 with leaky ReLU, batch norm on all but the first, one logit. B 3 S S -> B.

    2,765,568 parameters as published; without batch norm the convolutions have biases. D always sees whole batches, so
    its batch norm keeps no running statistics, and several forward passes may share one backward pass.
    """
    k = channels(size, width)[::-1]
    net: list[nn.Module] = [nn.Conv2d(3, k[0], 4, 2, 1, bias=not norm), nn.LeakyReLU(0.2, True)]
    for k_in, k_out in pairwise(k):
        net.append(nn.Conv2d(k_in, k_out, 4, 2, 1, bias=not norm))
        net += [nn.BatchNorm2d(k_out, track_running_stats=False)] if norm else []
        net.append(nn.LeakyReLU(0.2, True))
    return nn.Sequential(*net, nn.Conv2d(k[-1], 1, 4, bias=not norm), nn.Flatten(0)).apply(init_normal)


class DCGAN:
    """G and D of the paper, at any power of two; non-saturating cross-entropy.

    Args: `size` of the images, a power of two from 16 to 1024; `latent`, the size of z; `width`, `d_width`, channels of
    G and D at their finest side; `up`, how G enlarges: transposed convolution (the paper), or a 3x3 convolution after
    nearest or bilinear enlargement or a bed of nails, or before a pixel shuffle; `lr`, `betas` of Adam (section 4).
    Switches: `ema` is the decay of an average of G, with its batch norm's statistics, that `sample` then uses;
    `diffaugment` the policies that D sees both kinds through; `r1` gamma of the gradient penalty on reals; `loss`
    "relativistic" pairs each fake with a real and penalises gradients on both (R1 + R2), as R3GAN does (Huang et al.,
    NeurIPS 2024, arXiv 2501.05441, section 2); `r1` None is then 2, theirs at 64 px, and else 0. With a gradient
    penalty D has no batch norm: a logit's gradient is that by its own image alone (as in arXiv 1704.00028, section 4).
    """

    needs: Literal["stills"] = "stills"
    levels = 1

    def __init__(
        self,
        size: int = 64,
        latent: int = 100,
        width: int = 64,
        d_width: int = 64,
        up: Up = "transposed",
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        loss: Literal["bce", "relativistic"] = "bce",
        r1: float | None = None,
        ema: float | None = None,
        diffaugment: tuple[Literal["color", "translation", "cutout"], ...] = (),
    ):
        if not 16 <= size <= 1024 or size & (size - 1):
            raise ValueError(f"size must be a power of two from 16 to 1024 px, not {size}")
        if min(latent, width, d_width) < 1:
            raise ValueError("latent, width and d_width must be at least 1")
        if ema is not None and not 0 < ema < 1:
            raise ValueError(f"ema is a decay between 0 and 1 (0.999, say), not {ema}")
        self.relativistic = loss == "relativistic"
        self.r1 = 2.0 * self.relativistic if r1 is None else r1
        if self.r1 < 0 or (self.relativistic and not self.r1):
            raise ValueError('r1 must be at least 0, and more than 0 with loss "relativistic", which rests on it')
        self.size, self.latent, self.diffaugment = size, latent, tuple(diffaugment)

        self.g, self.d = generator(size, latent, width, up), discriminator(size, d_width, norm=not self.r1)
        if ema is not None:
            self.g_ema = AveragedModel(self.g, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True)
        self.has_ema = ema is not None
        self.opt_g = torch.optim.Adam(self.g.parameters(), lr, betas)
        self.opt_d = torch.optim.Adam(self.d.parameters(), lr, betas)

    def fit(
        self, fabric, batches: Iterable[tuple[Tensor, ...]], *, penalty: Penalty = no_penalty
    ) -> Iterator[dict[str, Tensor]]:
        """D, then G on the same fakes, one batch a step."""
        g, d = fabric.setup_module(self.g), fabric.setup_module(self.d)
        opt_g, opt_d = fabric.setup_optimizers(self.opt_g, self.opt_d)

        for batch in batches:
            real = batch[-1].detach().requires_grad_(bool(self.r1))
            assert real.shape[1:] == (3, self.size, self.size), f"expected 3 x {self.size} x {self.size}: {real.shape}"
            self.g.train()  # which `sample` leaves in eval mode
            fake = g(self.map(torch.randn(len(real), self.latent, device=real.device)))

            # D tells reals from fakes
            set_grad(True, d)
            old = fake.detach().requires_grad_(self.relativistic)
            on_real, on_fake = d(self.augment(real)), d(self.augment(old))
            loss_d = self.loss_d(on_real, on_fake)
            r1 = gradient_penalty(on_real, real) if self.r1 else loss_d.new_zeros(())
            r2 = gradient_penalty(on_fake, old) if self.relativistic else loss_d.new_zeros(())
            opt_d.zero_grad()
            fabric.backward(loss_d + self.r1 / 2 * (r1 + r2))
            opt_d.step()

            # G fools it
            set_grad(False, d)
            on_fake = d(self.augment(fake))
            on_real = d(self.augment(real.detach())) if self.relativistic else None
            loss_g = self.loss_g(on_real, on_fake)
            evasion = penalty(fake)
            opt_g.zero_grad()
            fabric.backward(loss_g + evasion)
            opt_g.step()

            if self.has_ema:
                self.g_ema.update_parameters(self.g)
            losses = {"loss_d": loss_d, "r1": r1, "r2": r2, "loss_g": loss_g, "penalty": evasion}
            yield {name: value.detach() for name, value in losses.items()}

    def loss_d(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log D(x) - log(1 - D(G(z))), or -log sigmoid(real - fake) of the pairs; of logits, B each."""
        if self.relativistic:
            return F.softplus(fake - real).mean()
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def loss_g(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """-log D(G(z)), or -log sigmoid(fake - real) of the pairs."""
        return F.softplus(-fake if real is None else real - fake).mean()

    def augment(self, images: Tensor) -> Tensor:
        return diff_augment(images, self.diffaugment) if self.diffaugment else images

    def sample(self, source: Tensor, *, rng: torch.Generator, reverse: bool = False) -> Tensor:
        """As many fakes as `source` has images, of its device and dtype; its content does not matter. -> B 3 S S."""
        return self.decode(self.map(torch.randn(len(source), self.latent, generator=rng).to(source)))

    # The latents

    def map(self, z: Tensor) -> Tensor:
        """Normal to uniform: B K from N(0, I) -> B K, each entry uniform in [-1, 1], the paper's noise (figure 1)."""
        return torch.erf(z / 2**0.5)

    def decode(self, w: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """G: B K, uniform in [-1, 1] -> B 3 S S in [-1, 1]; `rng` is not drawn from.

        With the batch norm's running statistics: an image is the same alone and among others.
        """
        return (self.g_ema if self.has_ema else self.g).eval()(w)

    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """psi w: towards 0, the mean. There is one level, so a cutoff cuts nothing off. B K -> B K."""
        return psi * w

"""pix2pix: an image from an image, learnt from pairs, by a U-Net whose critic sees the source beside the result.

Isola, Zhu, Zhou, Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017,
arXiv 1611.07004. Section and appendix numbers below are the paper's.

Images: B C H W, float in [-1, 1], C = 3; a is the source, b its true counterpart.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gen.blocks import crop_flip, init_normal, patch_discriminator, set_grad
from gen.generator import Penalty, no_penalty
from gen.perceptual import Features, Perceptual

DEEPEST = 8  # halvings: 256 px to 1 px
DROPPED = 3  # innermost decoder layers with dropout


class UNet(nn.Module):
    """C64-C128-C256-C512-...-C512 down, CD512-CD512-CD512-C512-C256-C128-C64 up, with skips (appendix 6.1.1).

    54,413,955 parameters with 8 halvings at width 64: every convolution 4x4 with stride 2, no bias before a norm, no
    norm in the outermost layers nor in the innermost (of 1x1 nothing would be left). With fewer halvings the 512s
    in the middle go first.

    An image is normalised by its own statistics, in training and ever after: that is the paper's batch normalisation
    with the statistics of the test batch, whose batch is one (section 3.3). So no image depends on its batch.
    """

    def __init__(self, width: int = 64, halvings: int = DEEPEST):
        super().__init__()
        k = [width * min(2**n, 8) for n in range(halvings)]
        self.down = nn.ModuleList([nn.Conv2d(3, k[0], 4, 2, 1, bias=False)])
        for n, (k_in, k_out) in enumerate(pairwise(k), 1):
            norm = [nn.InstanceNorm2d(k_out, affine=True)] if n < halvings - 1 else []
            self.down.append(nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(k_in, k_out, 4, 2, 1, bias=False), *norm))
        self.up = nn.ModuleList()
        self.dropped = k[-2::-1][:DROPPED]  # channels of the innermost decoder layers, which have dropout
        for k_in, k_out in zip([k[-1], *(2 * some for some in k[-2:0:-1])], k[-2::-1], strict=True):
            conv = nn.ConvTranspose2d(k_in, k_out, 4, 2, 1, bias=False)
            self.up.append(nn.Sequential(nn.ReLU(), conv, nn.InstanceNorm2d(k_out, affine=True)))
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * k[0], 3, 4, 2, 1), nn.Tanh())
        self.apply(init_normal)

    def forward(self, source: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """B 3 H W -> B 3 H W. `rng` draws dropout's masks; None: torch's global state does."""
        skips: list[Tensor] = []
        x = source
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        masks = self.masks(source.shape, rng)
        x = skips.pop()
        for n, layer in enumerate(self.up):
            x = layer(x)
            if n < len(masks):
                x = x * masks[n].to(x)
            x = torch.cat([x, skips.pop()], 1)
        return self.last(x)

    def masks(self, shape: torch.Size, rng: torch.Generator | None) -> list[Tensor]:
        """Dropout's masks, 0 or 2 with equal odds, of the innermost decoder layers: B k h w each.

        Image after image, all layers of one at a time: an image's masks depend on how many came before it alone.
        """
        h, w = (side >> len(self.down) for side in shape[2:])
        sizes = [(k, h << n, w << n) for n, k in enumerate(self.dropped, 1)]
        counts = [k * h * w for k, h, w in sizes]
        drawn = torch.rand(shape[0], sum(counts), generator=rng).lt_(0.5).mul_(2)
        return [part.unflatten(1, size) for part, size in zip(drawn.split(counts, 1), sizes, strict=True)]


class Pix2Pix:
    """A U-Net with dropout for noise, a PatchGAN on source and result together, cGAN + L1 losses.

    Args: `size` of the images, which says how deep the U-Net is (the paper: 256 px, 8 halvings down to 1 px); `width`;
    `d_width`, `d_layers` of the discriminator (64 and 3: 70x70 patches); weights `adversarial` and `l1` (1 and
    lambda = 100, section 4.2); `lr`, `betas` of Adam (section 3.3); `jitter` and `flip` of the training pairs (appendix
    6.2: 286 to 256 px).
    Switches: `ema` is the decay of an average of the generator's weights that `sample` then uses; `perceptual` the
    weight of a feature reconstruction loss (Johnson et al. 2016) between fake and b, on the layer relu3_3 of the net
    that `features` names, with its weights from `weights` (see gen/perceptual.py).
    """

    needs: Literal["pairs"] = "pairs"

    def __init__(
        self,
        size: int = 256,
        width: int = 64,
        d_width: int = 64,
        d_layers: int = 3,
        adversarial: float = 1.0,
        l1: float = 100.0,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        jitter: float = 286 / 256,
        flip: bool = True,
        ema: float | None = None,
        perceptual: float = 0.0,
        features: Features = "vgg16",
        weights: str = "imagenet",
    ):
        if size < 32 or size % 32:
            raise ValueError(f"size is a multiple of 32 (32, 64, 128, 256), which the U-Net halves again, not {size}")
        if width < 1 or d_width < 1 or d_layers < 1 or jitter < 1:
            raise ValueError("width, d_width and d_layers must be at least 1, jitter >= 1")
        if ema is not None and not 0 < ema < 1:
            raise ValueError(f"ema is a decay between 0 and 1 (0.999, say), not {ema}")
        if min(adversarial, l1, perceptual) < 0:
            raise ValueError("adversarial, l1 and perceptual are weights of losses, 0 or more")
        self.weights = {"adversarial": adversarial, "l1": l1, "perceptual": perceptual}
        self.features, self.provenance = None, "from scratch"
        if perceptual:
            self.features = Perceptual(features, weights, style_layers=())
            self.provenance += f", perceptual loss on {self.features.provenance}"
        self.jitter, self.flip = jitter, flip
        self.g = UNet(width, halvings(size))
        self.d = patch_discriminator(d_width, d_layers, channels=6, affine=True)
        self.has_ema = ema is not None
        if ema is not None:
            self.g_ema = AveragedModel(self.g, multi_avg_fn=get_ema_multi_avg_fn(ema))
        self.opt_g = torch.optim.Adam(self.g.parameters(), lr, betas)
        self.opt_d = torch.optim.Adam(self.d.parameters(), lr, betas)

    def fit(
        self, fabric, batches: Iterable[tuple[Tensor, ...]], *, penalty: Penalty = no_penalty
    ) -> Iterator[dict[str, Tensor]]:
        """Section 3.3: one step on the discriminator, then one on the generator, a batch of pairs (a, b) each."""
        g, d = (fabric.setup_module(net.train()) for net in (self.g, self.d))
        opt_g, opt_d = fabric.setup_optimizers(self.opt_g, self.opt_d)
        if self.features is not None:
            fabric.to_device(self.features)

        for a, b in batches:
            a, b = crop_flip(torch.cat([a, b], 1), self.jitter, self.flip).chunk(2, 1)
            fake = g(a)

            # Discriminator: is b, or the fake, a's? (eq. 1, "divide the objective by 2", section 3.3)
            set_grad(True, d)
            loss_d = 0.5 * (cgan(d, a, b, True) + cgan(d, a, fake.detach(), False))
            opt_d.zero_grad()
            fabric.backward(loss_d)
            opt_d.step()

            # Generator: fool it (maximise log D, section 3.3) and stay near b (eq. 3 and 4)
            set_grad(False, d)
            terms = {"adversarial": cgan(d, a, fake, True), "l1": F.l1_loss(fake, b)}
            if self.features is not None:
                terms["perceptual"] = self.features.content(fake, b)
            loss_g = torch.stack([self.weights[name] * loss for name, loss in terms.items()]).sum()
            evasion = penalty(fake)
            opt_g.zero_grad()
            fabric.backward(loss_g + evasion)
            opt_g.step()
            if self.has_ema:
                self.g_ema.update_parameters(self.g)

            losses = {"loss_g": loss_g, **terms, "penalty": evasion, "loss_d": loss_d}
            yield {name: loss.detach() for name, loss in losses.items()}

    def sample(self, source: Tensor, *, rng: torch.Generator, reverse: bool = False) -> Tensor:
        """b's for a's, B 3 H W -> B 3 H W. Dropout is on and `rng` draws its masks (section 3.3): the only noise.

        The same sources in the same order with the same `rng` give the same images, in batches of any size.
        """
        return (self.g_ema if self.has_ema else self.g)(source, rng)


def cgan(d: nn.Module, a: Tensor, b: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of the discriminator's patches for the pair (a, b), which it sees on 6 channels (eq. 1)."""
    logits = d(torch.cat([a, b], 1))
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def halvings(size: int) -> int:
    """How often a side of `size` px can be halved, at most 8 times."""
    return min(DEEPEST, (size & -size).bit_length() - 1)

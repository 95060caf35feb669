"""SRGAN: enlarge images four times; first as near as possible to the truth, then so that nobody sees the difference.

Ledig, Theis, Huszar et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network",
CVPR 2017, arXiv 1609.04802. Section, equation and figure numbers below are the paper's.

g (SRResNet) enlarges, d judges. Small images are B 3 H/r W/r in [0, 1], large ones B 3 H W in [-1, 1] (section 3.2),
H and W multiples of r = `scale`. The source of a fake is the large image: g gets what `shrink` leaves of it.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.generator import Penalty, no_penalty
from gen.perceptual import Perceptual


class Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to the input (figure 4). B k h w -> B k h w."""

    def __init__(self, k: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(k, k, 3, padding=1), nn.BatchNorm2d(k), nn.PReLU(),
            nn.Conv2d(k, k, 3, padding=1), nn.BatchNorm2d(k),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SRResNet(nn.Module):
    """The enlarger (figure 4): B 3 h w in [0, 1] -> B 3 rh rw around [-1, 1], r = `scale`.

    1,549,462 parameters with 16 blocks, width 64, scale 4, where every PReLU has one parameter and the enlarging
    convolutions have no batch normalisation, as drawn (with it there are 1,550,486). With `skip` it makes what is to be
    added to the bicubic enlargement.
    """

    def __init__(self, width: int = 64, blocks: int = 16, scale: int = 4, skip: bool = False):
        super().__init__()
        w, self.scale, self.skip = width, scale, skip
        self.head = nn.Sequential(nn.Conv2d(3, w, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(Residual(w) for _ in range(blocks)), nn.Conv2d(w, w, 3, padding=1), nn.BatchNorm2d(w)
        )
        double: list[nn.Module] = []
        for _ in range(scale.bit_length() - 1):
            double += [nn.Conv2d(w, 4 * w, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        self.tail = nn.Sequential(*double, nn.Conv2d(w, 3, 9, padding=4))

    def forward(self, small: Tensor) -> Tensor:
        x = self.head(small)
        large = self.tail(x + self.body(x))
        return large + enlarge(2 * small - 1, self.scale) if self.skip else large


def discriminator(width: int = 64) -> nn.Sequential:
    """Eight convolutions from w to 8w channels and two dense layers (figure 4): B 3 H W -> B 1, logits.

    5,215,425 parameters at width 64. As drawn, the first dense layer sees all pixels of the last map, which ties the
    net to one size (at 96 px: 23,565,505 parameters); here it sees their mean, so that every size from 16 px fits.
    """
    w = width
    net: list[nn.Module] = [nn.Conv2d(3, w, 3, padding=1), nn.LeakyReLU(0.2, True)]
    for k_in, k, stride in ((1, 1, 2), (1, 2, 1), (2, 2, 2), (2, 4, 1), (4, 4, 2), (4, 8, 1), (8, 8, 2)):
        net += [nn.Conv2d(k_in * w, k * w, 3, stride, padding=1), nn.BatchNorm2d(k * w), nn.LeakyReLU(0.2, True)]
    head = [nn.Linear(8 * w, 16 * w), nn.LeakyReLU(0.2, True), nn.Linear(16 * w, 1)]
    return nn.Sequential(*net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def shrink(images: Tensor, scale: int) -> Tensor:
    """Bicubic and antialiased, as PIL and MATLAB shrink. B 3 H W in [-1, 1] -> B 3 H/r W/r in [-1, 1]."""
    h, w = images.shape[-2:]
    if h % scale or w % scale:
        raise ValueError(f"expected images whose sides are multiples of {scale} px (scale), not {h} x {w}")
    return F.interpolate(images, (h // scale, w // scale), mode="bicubic", antialias=True).clamp(-1, 1)


def enlarge(images: Tensor, scale: int) -> Tensor:
    """Bicubic, as PIL and MATLAB enlarge. B 3 h w in [-1, 1] -> B 3 rh rw in [-1, 1].

    `antialias` changes the kernel here, a = -0.5 instead of -0.75: an enlargement needs no blur, and gets none.
    """
    h, w = images.shape[-2:]
    return F.interpolate(images, (h * scale, w * scale), mode="bicubic", antialias=True).clamp(-1, 1)


def random_crop(images: Tensor, side: int) -> Tensor:
    """A random window of each image, the whole of images that are no larger."""
    h, w = (min(side, length) for length in images.shape[-2:])
    if images.shape[-2:] == (h, w):
        return images
    tops = torch.randint(images.shape[-2] - h + 1, (len(images),)).tolist()
    lefts = torch.randint(images.shape[-1] - w + 1, (len(images),)).tolist()
    windows = zip(images, tops, lefts, strict=True)
    return torch.stack([image[:, top : top + h, left : left + w] for image, top, left in windows])


class SRGAN:
    """An enlarger that learns its content alone at first, and then to deceive a discriminator too.

    Args: `width`, `blocks` of the enlarger, `scale` 2, 4 or 8; `d_width` of the discriminator; `crop`: side of the
    random windows that both learn from; `content_steps` on the mean squared error alone (SRResNet: section 3.2, 10^6),
    `steps` in all: the rest is adversarial, its second half at a tenth of the rate (10^5 + 10^5); both count over all
    fits. `lr` and `beta1` of Adam.
    `content` is what the adversarial steps compare: "vgg19" features after ReLU at `layers` (relu5_4 is VGG54 of table
    2, relu2_2 VGG22), times `feature_weight` (section 3.2: 0.006), with their weights from `weights` (see
    gen/perceptual.py); features of "vgg16"; "random" ones; or "mse", the pixels (SRGAN-MSE of table 2). `adversarial`
    is the weight of the adversarial loss (eq. 3: 10^-3).
    Switch: with `skip` the enlarger adds to the bicubic enlargement (Kim et al., CVPR 2016, section 3.2) instead of
    painting everything anew: short runs get further.

    Eq. 5 sums over a map's places and does not speak of its channels: their mean is taken, as in the pixels' error.
    """

    needs: Literal["stills"] = "stills"
    restores = True

    def __init__(
        self,
        width: int = 64,
        blocks: int = 16,
        scale: Literal[2, 4, 8] = 4,
        skip: bool = False,
        d_width: int = 64,
        crop: int = 96,
        content_steps: int = 1_000_000,
        steps: int = 1_200_000,
        lr: float = 1e-4,
        beta1: float = 0.9,
        content: Literal["vgg19", "vgg16", "random", "mse"] = "vgg19",
        weights: str = "imagenet",
        layers: tuple[str, ...] = ("relu5_4",),
        feature_weight: float = 0.006,
        adversarial: float = 1e-3,
    ):
        if width < 1 or blocks < 0 or d_width < 1 or content_steps < 0 or steps < 1:
            raise ValueError("width, d_width, steps must be at least 1, blocks, content_steps at least 0")
        if min(feature_weight, adversarial) < 0:
            raise ValueError("feature_weight and adversarial are weights of losses, 0 or more")
        if scale not in (2, 4, 8):
            raise ValueError(f"scale is 2, 4 or 8, not {scale}")
        if crop < 16 or crop % scale:
            raise ValueError(f"crop is a multiple of scale ({scale}), at least 16, not {crop}")
        self.scale, self.crop, self.content_steps = scale, crop, content_steps
        self.feature_weight, self.adversarial = feature_weight, adversarial
        self.g, self.d = SRResNet(width, blocks, scale, skip), discriminator(d_width)
        self.features, self.provenance = None, "from scratch"
        if content != "mse":
            try:
                self.features = Perceptual(content, weights, layers, style_layers=())
            except ValueError as error:
                raise ValueError(f"{error}; content=random and content=mse need no file") from None
            self.provenance += f", content loss on {self.features.provenance}"

        def decay(adversarial_steps: int) -> float:
            return 1.0 if adversarial_steps < (steps - content_steps) / 2 else 0.1

        self.opt_g = torch.optim.Adam(self.g.parameters(), lr, (beta1, 0.999))
        self.opt_d = torch.optim.Adam(self.d.parameters(), lr, (beta1, 0.999))
        self.sched_g = torch.optim.lr_scheduler.LambdaLR(self.opt_g, lambda step: decay(step - content_steps))
        self.sched_d = torch.optim.lr_scheduler.LambdaLR(self.opt_d, decay)

    def fit(
        self, fabric, batches: Iterable[tuple[Tensor, ...]], *, penalty: Penalty = no_penalty
    ) -> Iterator[dict[str, Tensor]]:
        """Section 3.2: the enlarger alone, then discriminator and enlarger in turn, one batch of images a step.

        `sched_g` counts the steps, so a later fit goes on where the last one ended.
        """
        g, d = fabric.setup_module(self.g.train()), fabric.setup_module(self.d.train())
        opt_g, opt_d = fabric.setup_optimizers(self.opt_g, self.opt_d)
        if self.features is not None:
            fabric.to_device(self.features)

        for (images,) in batches:
            real = random_crop(images, self.crop)
            fake = g(self.small(real))
            mse = F.mse_loss(fake, real)
            content, adversarial, loss_d = mse, mse.new_zeros(()), mse.new_zeros(())

            if self.sched_g.last_epoch >= self.content_steps:
                # Discriminator (eq. 2); batch normalisation sees reals and fakes apart, so each has its backward pass
                d.requires_grad_(True)
                opt_d.zero_grad()
                for images, label in ((real, 1.0), (fake.detach(), 0.0)):
                    loss = bce(d(images), label)
                    fabric.backward(loss)
                    loss_d = loss_d + loss.detach()
                opt_d.step()
                self.sched_d.step()
                d.requires_grad_(False)

                # What the enlarger has to please from now on (eq. 5 and 6)
                if self.features is not None:
                    content = self.feature_weight * self.features.content(fake, real)
                adversarial = bce(d(fake), 1.0)

            loss_g = content + self.adversarial * adversarial
            evasion = penalty(fake.clamp(-1, 1))
            opt_g.zero_grad()
            fabric.backward(loss_g + evasion)
            opt_g.step()
            self.sched_g.step()
            losses = {"loss_g": loss_g, "mse": mse, "content": content, "adversarial": adversarial}
            losses |= {"penalty": evasion, "loss_d": loss_d}
            yield {name: loss.detach() for name, loss in losses.items()}

    def small(self, images: Tensor) -> Tensor:
        """What g gets of images: B 3 H W in [-1, 1] -> B 3 H/r W/r in [0, 1]."""
        return (shrink(images, self.scale) + 1) / 2

    def sample(self, source: Tensor, *, rng: torch.Generator) -> Tensor:
        """Shrink images and enlarge them again. B 3 H W -> B 3 H W; `rng` is not drawn from."""
        return self.g.eval()(self.small(source)).clamp(-1, 1)

    def baseline(self, source: Tensor) -> Tensor:
        """What enlarging by bicubic interpolation makes of the same small images. B 3 H W -> B 3 H W."""
        return enlarge(shrink(source, self.scale), self.scale)


def bce(logits: Tensor, label: float) -> Tensor:
    """Binary cross-entropy to one label for all (eq. 2 and 6). B 1 -> a number."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

"""The nets of the adversarial latent autoencoder: F (mapping), G (generator), E (encoder) and D (on latents).

G is StyleGAN's synthesis net (Karras, Laine, Aila, CVPR 2019, arXiv 1812.04948), E its mirror (Pidhorskyi, Adjeroh,
Doretto, CVPR 2020, arXiv 2004.04467, section 5 and figure 2). "code" is the latter's published implementation.

B images of side S, K numbers in a latent, level l = 0, 1, ... of the nets works at 4 * 2^l px. Images B 3 S S.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAIN = math.sqrt(2 / (1 + 0.2**2))  # He's, for leaky ReLU of slope 0.2


class Linear(nn.Linear):
    """A linear layer of equalised learning rate: weights from N(0, 1), scaled as they are used (arXiv 1710.10196, 4.1).

    `rate` multiplies the layer's learning rate and leaves its initial output as it was; `start` does the reverse.
    """

    def __init__(self, k_in: int, k_out: int, gain: float = GAIN, rate: float = 1.0, start: float = 1.0):
        super().__init__(k_in, k_out)
        nn.init.normal_(self.weight, 0.0, start / rate)
        nn.init.zeros_(self.bias)
        self.scale, self.rate = gain / math.sqrt(k_in) * rate, rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Conv(nn.Conv2d):
    """A convolution of equalised learning rate that keeps the side, halves ("down") or doubles it ("up").

    Doubling is nearest-neighbour enlargement and then a 3x3 convolution, halving a 3x3 convolution and then a mean over
    2x2. Both pairs are one 4x4 convolution of stride 2 with the sums of the 3x3 kernel's shifts, which costs 4/9.
    """

    def __init__(self, k_in: int, k_out: int, side: int = 3, scale: str = "", gain: float = GAIN, bias: bool = True):
        super().__init__(k_in, k_out, side, padding=side // 2, bias=bias)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.gain, self.resize = gain / math.sqrt(k_in * side**2), scale

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain
        if not self.resize:
            return F.conv2d(x, weight, self.bias, padding=self.padding)
        weight = F.pad(weight, (1, 1, 1, 1))
        weight = weight[..., 1:, 1:] + weight[..., 1:, :-1] + weight[..., :-1, 1:] + weight[..., :-1, :-1]
        if self.resize == "down":
            return F.conv2d(x, weight / 4, self.bias, stride=2, padding=1)
        return F.conv_transpose2d(x, weight.flip(2, 3).transpose(0, 1), self.bias, stride=2, padding=1)


class Blur(torch.autograd.Function):
    """The binomial filter [1 2 1] x [1 2 1] / 16, with zeros about the image. B C H W -> B C H W.

    It is its own adjoint, so its gradients of every order are blurs, at half the cost of autograd's (CPU, with R1).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        row = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
        kernel = (row[:, None] * row).expand(x.shape[1], 1, 3, 3).contiguous()
        return F.conv2d(x, kernel, padding=1, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return Blur.apply(grad)


def pixel_norm(z: Tensor) -> Tensor:
    """Every row to mean square 1. B K -> B K."""
    return z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)


class Mapping(nn.Module):
    """F: pixel norm, then fully connected layers with leaky ReLU after each. z, B K -> w, B K.

    `rate` multiplies their learning rate: 0.1 in the code, 0.01 in StyleGAN (appendix C). The buffer `mean_w` (K) is
    the running mean of w, for truncation.
    """

    def __init__(self, latent: int, layers: int, rate: float):
        super().__init__()
        self.layers = nn.ModuleList(Linear(latent, latent, rate=rate) for _ in range(layers))
        self.register_buffer("mean_w", torch.zeros(latent))
        self.mean_w: Tensor

    def forward(self, z: Tensor) -> Tensor:
        w = pixel_norm(z)
        for layer in self.layers:
            w = F.leaky_relu(layer(w), 0.2)
        return w


def latent_discriminator(latent: int, linear: bool) -> nn.Sequential:
    """D: three fully connected layers, learning rate x 0.1 (code). w, B K -> logits, B 1.

    Between them leaky ReLU (paper), or nothing with `linear` (code: the three layers then make one linear map).
    """

    def activation() -> nn.Module:
        return nn.Identity() if linear else nn.LeakyReLU(0.2)

    return nn.Sequential(
        Linear(latent, latent, rate=0.1), activation(),
        Linear(latent, latent, rate=0.1), activation(),
        Linear(latent, 1, rate=0.1),
    )  # fmt: skip


def stage(phase: float, top: int) -> tuple[int, float]:
    """The level being trained and how far it is blended in (0..1) after `phase` levels' worth of images.

    A level is blended in along a half sine wave in the first half of its images and stands alone in the second (code).
    """
    level = min(int(min(phase, top)), top)
    if level == 0 or phase >= level + 0.5:
        return level, 1.0
    return level, 0.5 - 0.5 * math.cos(2 * math.pi * (phase - level))


class Growing(nn.Module):
    """What G and E share: the channels of each level, and the `phase` of progressive growing, a buffer."""

    phase: Tensor | float

    def __init__(self, size: int, width: int, max_width: int, grow: bool):
        super().__init__()
        self.top = size.bit_length() - 3
        self.channels = [min(max_width, width << (self.top - level)) for level in range(self.top + 1)]
        self.rgb_levels = range(self.top + 1) if grow else range(self.top, self.top + 1)
        if grow:
            self.register_buffer("phase", torch.zeros((), dtype=torch.float64))
        else:
            self.phase = math.inf

    def stage(self) -> tuple[int, float]:
        return stage(float(self.phase), self.top)


class StyleBlock(nn.Module):
    """A level of G: two convolutions (the constant and one, at 4x4), each with noise, leaky ReLU and AdaIN.

    B C H W and w, B 2 K -> B C' 2H 2W.
    """

    def __init__(self, k_in: int, k_out: int, latent: int, first: bool, noise: bool):
        super().__init__()
        self.conv_1 = None if first else Conv(k_in, k_out, scale="up", bias=False)
        self.conv_2 = Conv(k_out, k_out, bias=False)
        self.styles = nn.ModuleList(Linear(latent, 2 * k_out, gain=1) for _ in range(2))
        self.biases = nn.ParameterList(torch.zeros(1, k_out, 1, 1) for _ in range(2))
        self.strengths = nn.ParameterList(torch.zeros(1, k_out, 1, 1) for _ in range(2 if noise else 0))

    def forward(self, x: Tensor, w: Tensor, rng: torch.Generator | None) -> Tensor:
        if self.conv_1 is not None:
            x = Blur.apply(self.conv_1(x))
        x = self.layer(0, x, w[:, 0], rng)
        return self.layer(1, self.conv_2(x), w[:, 1], rng)

    def layer(self, i: int, x: Tensor, w: Tensor, rng: torch.Generator | None) -> Tensor:
        x = x + self.biases[i]
        if self.strengths and (self.training or rng is not None):
            shape = (len(w), 1, *x.shape[2:])
            noise = torch.randn(shape, device=x.device) if rng is None else torch.randn(shape, generator=rng).to(x)
            x = torch.addcmul(x, self.strengths[i], noise.to(x.dtype))
        return adain(F.leaky_relu(x, 0.2), self.styles[i](w))


def adain(x: Tensor, style: Tensor) -> Tensor:
    """Adaptive instance norm (arXiv 1812.04948, eq. 1): each channel of each image to mean y_b, deviation 1 + y_s.

    x B C H W, or 1 C H W for all; style B 2C: y_s, y_b. As the batch norm of one image of B C channels it is one pass.
    """
    b, c = len(style), x.shape[1]
    y_s, y_b = style.to(torch.promote_types(x.dtype, torch.float32)).view(b, 2, c).unbind(1)
    flat = x.expand(b, -1, -1, -1).reshape(1, b * c, *x.shape[2:])
    y = F.batch_norm(flat, None, None, (y_s + 1).flatten(), y_b.flatten(), training=True, eps=1e-8)
    return y.view(b, c, *x.shape[2:])


class StyleGenerator(Growing):
    """G: a learned 4x4 constant, a StyleBlock for each level, 1x1 to RGB. w, B 2(l + 1) K -> B 3 s s, s = 4 * 2^l.

    In training mode the noise is random; else it is drawn from `rng`, or left out without one. `rgb_gain` is the
    contrast of the first images (and the learning rate of the last layer): 0.03 in the code, 1 in StyleGAN.
    """

    def __init__(self, size: int, latent: int, width: int, max_width: int, noise: bool, rgb_gain: float, grow: bool):
        super().__init__(size, width, max_width, grow)
        k = self.channels
        self.const = nn.Parameter(torch.ones(1, k[0], 4, 4))
        self.blocks = nn.ModuleList(
            StyleBlock(k[max(0, i - 1)], k[i], latent, i == 0, noise) for i in range(self.top + 1)
        )
        self.to_rgb = nn.ModuleDict({str(i): Conv(k[i], 3, 1, gain=rgb_gain) for i in self.rgb_levels})

    def forward(self, w: Tensor, rng: torch.Generator | None = None) -> Tensor:
        level, blend = self.stage()
        x, older = self.const, None
        for i in range(level + 1):
            if i == level and blend < 1:
                older = F.interpolate(self.to_rgb[str(i - 1)](x), scale_factor=2)
            x = self.blocks[i](x, w[:, 2 * i : 2 * i + 2], rng)
        image = self.to_rgb[str(level)](x)
        return image if older is None else torch.lerp(older, image, blend)


class EncoderBlock(nn.Module):
    """A level of E: two convolutions, and each one's instance norm tells its style. B C H W -> B C' H/2 W/2 and B K."""

    def __init__(self, k_in: int, k_out: int, latent: int):
        super().__init__()
        self.conv_1 = Conv(k_in, k_in)
        self.conv_2 = Conv(k_in, k_out, scale="down")
        self.style_1, self.style_2 = Linear(2 * k_in, latent), Linear(2 * k_out, latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, style_1 = instance_norm(F.leaky_relu(self.conv_1(x), 0.2))
        x, style_2 = instance_norm(F.leaky_relu(self.conv_2(Blur.apply(x)), 0.2))
        return x, self.style_1(style_1) + self.style_2(style_2)


class InstanceNorm(torch.autograd.Function):
    """Each channel of each image to mean 0, deviation 1; and what they were. B C H W -> B C H W, B C, B C.

    The gradient is written in the outputs, so that R1 differentiates it again, at half of autograd's own cost.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.reshape(1, -1, *x.shape[2:])
        y, mean, inverse = torch.native_batch_norm(flat, None, None, None, None, True, 0.0, 1e-5)
        y, mean, deviation = y.view(x.shape), mean.view(x.shape[:2]), inverse.reciprocal().view(x.shape[:2])
        ctx.save_for_backward(y, deviation)
        return y, mean, deviation

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_mean: Tensor, grad_deviation: Tensor) -> Tensor:
        y, deviation = ctx.saved_tensors
        pixels = y.shape[2] * y.shape[3]
        shift = (grad_mean - grad_y.sum((2, 3)) / deviation) / pixels
        slope = (grad_deviation - (grad_y * y).sum((2, 3)) / deviation) / pixels
        shift, slope, deviation = (t[..., None, None] for t in (shift, slope, deviation))
        return torch.addcmul(torch.addcdiv(shift, grad_y, deviation), y, slope)


def instance_norm(x: Tensor) -> tuple[Tensor, Tensor]:
    """The normalised x and its style, B 2C: each channel's mean and deviation."""
    y, mean, deviation = InstanceNorm.apply(x)
    return y, torch.cat([mean, deviation], 1)


class StyleEncoder(Growing):
    """E: 1x1 from RGB, an EncoderBlock for each level from the finest; w is the sum of their styles. B 3 s s -> B K.

    The last block ends at 2x2 (code).
    """

    def __init__(self, size: int, latent: int, width: int, max_width: int, grow: bool):
        super().__init__(size, width, max_width, grow)
        k = [*self.channels, min(max_width, 2 * self.channels[0])]  # k[-1] follows the level of 4 px
        self.blocks = nn.ModuleList(EncoderBlock(k[i], k[i - 1], latent) for i in range(self.top + 1))
        self.from_rgb = nn.ModuleDict({str(i): Conv(3, k[i], 1) for i in self.rgb_levels})

    def forward(self, image: Tensor) -> Tensor:
        level, blend = self.stage()
        x = F.leaky_relu(self.from_rgb[str(level)](image), 0.2)
        x, w = self.blocks[level](x)
        if blend < 1:
            older = F.leaky_relu(self.from_rgb[str(level - 1)](F.avg_pool2d(image, 2)), 0.2)
            x, w = torch.lerp(older, x, blend), w * blend
        for i in reversed(range(level)):
            x, style = self.blocks[i](x)
            w = w + style
        return w

    def shrink(self, images: Tensor) -> Tensor:
        """Images to the side of the level being trained, as blurred as it is blended in. B 3 S S -> B 3 s s."""
        level, blend = self.stage()
        images = F.avg_pool2d(images, 2 ** (self.top - level))
        if blend == 1:
            return images
        return torch.lerp(F.interpolate(F.avg_pool2d(images, 2), scale_factor=2), images, blend)


class MLPGenerator(nn.Sequential):
    """G of fully connected layers: two hidden ones of `width`, no activation at the end (code). B 1 K -> B 3 S S."""

    def __init__(self, size: int, latent: int, width: int, pixel_init: float):
        super().__init__(
            Linear(latent, width), nn.LeakyReLU(0.2),
            Linear(width, width), nn.LeakyReLU(0.2),
            Linear(width, 3 * size**2, start=pixel_init), nn.Unflatten(1, (3, size, size)),
        )  # fmt: skip

    def forward(self, w: Tensor, rng: torch.Generator | None = None) -> Tensor:
        return super().forward(w[:, 0])


def mlp_encoder(size: int, latent: int, width: int, pixel_init: float) -> nn.Sequential:
    """E of fully connected layers, G's mirror, leaky ReLU at the end as in F (code). B 3 S S -> w, B K."""
    return nn.Sequential(
        nn.Flatten(),
        Linear(3 * size**2, width, start=pixel_init), nn.LeakyReLU(0.2),
        Linear(width, width), nn.LeakyReLU(0.2),
        Linear(width, latent), nn.LeakyReLU(0.2),
    )  # fmt: skip

"""What several methods use: PatchGAN, N(0, 0.02), random crops, gradient penalties. Images: B C H W, in [-1, 1]."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def patch_discriminator(width: int = 64, layers: int = 3, channels: int = 3, affine: bool = False) -> nn.Sequential:
    """C64-C128-C256-C512 and a 1-channel convolution: one logit per 70x70 patch. B channels H W -> B 1 h w.

    2,764,737 parameters at width 64 with 3 layers (CycleGAN, appendix 7.2); `affine`: the norms have a gain and a shift
    in place of the convolutions' biases before them: 2,768,705 for 6 channels (pix2pix, appendix 6.1.2). Receptive
    field 16, 34, 70, 142 px with 1, 2, 3, 4 layers.
    """
    w = width
    net: list[nn.Module] = [nn.Conv2d(channels, w, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
    for n in range(1, layers + 1):
        k_in, k_out = w * min(2 ** (n - 1), 8), w * min(2**n, 8)
        stride = 2 if n < layers else 1
        net += [nn.Conv2d(k_in, k_out, 4, stride, padding=1, bias=not affine)]
        net += [nn.InstanceNorm2d(k_out, affine=affine), nn.LeakyReLU(0.2, True)]
    net.append(nn.Conv2d(k_out, 1, 4, padding=1))
    return nn.Sequential(*net).apply(init_normal)


def init_normal(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 0.02), gains of norms from N(1, 0.02), biases and shifts 0."""
    norms = nn.InstanceNorm2d | nn.BatchNorm2d
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) or (isinstance(module, norms) and module.affine):
        nn.init.normal_(module.weight, float(isinstance(module, norms)), 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def crop_flip(images: Tensor, jitter: float, flip: bool) -> Tensor:
    """Enlarge by `jitter`, crop a random window of the old size, mirror half of them (load 286, crop 256).

    Images that must be treated alike are handed in on each other's channels.
    """
    b, _, h, w = images.shape
    if jitter > 1:
        scaled = [round(h * jitter), round(w * jitter)]
        images = F.interpolate(images, scaled, mode="bicubic", antialias=True, align_corners=False).clamp_(-1, 1)
    top = torch.randint(images.shape[2] - h + 1, (b, 1))
    left = torch.randint(images.shape[3] - w + 1, (b, 1))
    rows, columns = top + torch.arange(h), left + torch.arange(w)
    if flip:
        columns = torch.where(torch.rand(b, 1) < 0.5, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    n = torch.arange(b, device=images.device)
    return images[n[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


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

"""Blur, JPEG, crop and flip as CNNSpot was trained with: what makes a detector survive the world's post-processing.

Wang et al., "CNN-generated images are surprisingly easy to spot ... for now", CVPR 2020, arXiv 1912.11035. With
probability p an image is blurred, sigma ~ U[0, 3]; independently, with probability p, it goes through JPEG, quality
~ U{30 .. 100}, by OpenCV or Pillow; then a random crop and a flip.

Two modes. `exact` is, pixel for pixel, what the published training did image by image: SciPy filters the bytes in place
and cuts the fraction off after each of its two passes, so that a blurred image comes out one grey level darker on
average. `fast`, the default, does a whole batch at once on its own device and differs in three ways: it rounds instead
of cutting (no darkening), the kernel ends at 3 sigma instead of 4 (within a grey level), and JPEG is computed up to the
quantisation and back, leaving out the entropy coding, which loses nothing. Its pixels are within about one grey level
of libjpeg-turbo's on average (a coefficient between two steps may fall either way). OpenCV and Pillow both carry
libjpeg-turbo today and decode to identical pixels, so `fast` needs no second encoder.

Shapes: B batch, C channels (3), H height, W width. Images lie in [-1, 1]; grey levels are 0 .. 255.
"""

import io
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Mode = Literal["fast", "exact"]

CACHED_PIXELS = 2**19

# ITU-T T.81, tables K.1 (luma) and K.2 (chroma): the quantisation at quality 50.
LUMA = """16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55   14 13 16 24  40  57  69  56
          14 17 22 29  51  87  80  62   18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92
          49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99"""
CHROMA = """17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99   24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
            99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99"""


class Plan(NamedTuple):
    """What happens to each of B images, on the CPU: `sigma` in pixels and `quality` (0 = leave it), `opencv` (bool)."""

    sigma: Tensor
    quality: Tensor
    opencv: Tensor


def draw(
    count: int,
    *,
    p_blur: float,
    p_jpeg: float,
    sigma: tuple[float, float] = (0.0, 3.0),
    quality: tuple[int, int] = (30, 100),
    rng: torch.Generator | None = None,
) -> Plan:
    """Draw a Plan for `count` images; blur and JPEG fall independently, and so do the two encoders.

    Both modes and every device draw the same. Without `rng` (a CPU generator) torch's global one is used.
    """
    blurred, coded, u, v, opencv = torch.rand(5, count, generator=rng, dtype=torch.float64)
    sigmas = sigma[0] + (sigma[1] - sigma[0]) * u
    qualities = quality[0] + ((quality[1] - quality[0] + 1) * v).long()
    return Plan(sigmas * (blurred < p_blur), qualities * (coded < p_jpeg), opencv < 0.5)


def blur_jpeg(
    images: Tensor,
    *,
    p_blur: float,
    p_jpeg: float,
    sigma: tuple[float, float] = (0.0, 3.0),
    quality: tuple[int, int] = (30, 100),
    mode: Mode = "fast",
    rng: torch.Generator | None = None,
) -> Tensor:
    """Blur and JPEG-code a random part of the batch, independently of each other, as published.

    Images: float, B 3 H W, in [-1, 1], on any device; the result is like them, on the grid of the 256 grey levels where
    it was touched. `sigma` in pixels, `quality` in 1 .. 100, both ends included. No gradient passes.
    """
    return apply(images, draw(len(images), p_blur=p_blur, p_jpeg=p_jpeg, sigma=sigma, quality=quality, rng=rng), mode)


@torch.no_grad()
def apply(images: Tensor, plan: Plan, mode: Mode = "fast") -> Tensor:
    """Do what the plan says; shapes and ranges as in `blur_jpeg`. `exact` works on the CPU, image by image."""
    assert images.shape[1:-2] == (3,), f"expected images B 3 H W, got {tuple(images.shape)}"
    if mode == "exact":
        return _exact(images, plan)
    if mode != "fast":
        raise ValueError(f"mode: expected 'fast' or 'exact', got {mode!r}")
    images = images.clone()
    order = plan.sigma.argsort(descending=True)  # images of like kernels side by side
    for rows in _parts(order[: int(plan.sigma.count_nonzero())], images):
        at = rows.to(images.device)
        images[at] = _on_grid(gaussian_blur(images[at], plan.sigma[rows]))
    for rows in _parts(plan.quality.nonzero()[:, 0], images):
        at = rows.to(images.device)
        images[at] = jpeg(images[at], plan.quality[rows])
    return images


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with its own Gaussian, cut off at 3 sigma; the edge mirrors the image, edge pixel included.

    Images: float, B C H W, any range; sigma: B, positive, in pixels, on the CPU.
    """
    b, channels, h, w = images.shape
    radius = (3 * sigma).round().clamp(max=min(h, w))
    r = int(radius.max())
    offset = torch.arange(-r, r + 1).abs()
    taps = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2) * (offset <= radius[:, None])
    taps = (taps / taps.sum(1, keepdim=True)).to(images).repeat_interleave(channels, 0)
    x = images.reshape(1, b * channels, h, w)
    for axis, size, kernel in ((2, h, taps[:, None, :, None]), (3, w, taps[:, None, None, :])):
        before, after = x.narrow(axis, 0, r).flip(axis), x.narrow(axis, size - r, r).flip(axis)
        x = F.conv2d(torch.cat([before, x, after], axis), kernel, groups=b * channels)
    return x.view(b, channels, h, w)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Take each image through baseline JPEG (4:2:0, libjpeg's tables and its smooth chroma upsampling) and back.

    Images: float, B 3 H W, in [-1, 1]; quality: B, integers in 1 .. 100, on the CPU. Result: the same, on the grid
    of the 256 grey levels. Source: ITU-T T.81 annexes A and K, JFIF 1.02 for the colours.
    """
    height, width = images.shape[-2:]
    x = images
    if height % 16 or width % 16:
        x = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")

    # Luma, and chroma at half the size: grey levels about zero, of which the lab's range is 1 / 127.5.
    red, green, blue = x.unbind(1)
    y = (red * (0.299 * 127.5)).add_(green, alpha=0.587 * 127.5).add_(blue, alpha=0.114 * 127.5).sub_(0.5).round_()
    quarter = x.new_tensor([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]) * (127.5 / 4)
    c = (quarter @ (x[:, :, 0::2] + x[:, :, 1::2]).flatten(2)).view(len(x), 2, x.shape[2] // 2, x.shape[3])
    c = (c[..., 0::2] + c[..., 1::2]).round_()

    y = _through_blocks(y[:, None], _table(LUMA, quality)).round_().add_(128)[:, 0]
    c = _through_blocks(c, _table(CHROMA, quality)).round_()
    cb, cr = _doubled(_doubled(c, 2), 3).round_().unbind(1)

    out = torch.empty_like(x)
    torch.add(y, cr, alpha=1.402, out=out[:, 0])
    torch.add(y, cb, alpha=-0.344136, out=out[:, 1]).add_(cr, alpha=-0.714136)
    torch.add(y, cb, alpha=1.772, out=out[:, 2])
    return out.round_().clamp_(0, 255).mul_(1 / 127.5).sub_(1)[..., :height, :width]


def random_crop_flip(images: Tensor, size: int | None, *, rng: torch.Generator | None = None) -> Tensor:
    """Cut a random `size` x `size` window out of each image (at most the image; None: all of it), mirror half of them.

    Images: B C H W. Without `rng` (a CPU generator) torch's global one is used.
    """
    b, _, height, width = images.shape
    h, w = min(size or height, height), min(size or width, width)
    u, v, mirrored = torch.rand(3, b, generator=rng)
    top, left = (u * (height - h + 1)).long().to(images.device), (v * (width - w + 1)).long().to(images.device)
    windows = images.unfold(2, h, 1).unfold(3, w, 1)  # a view: B C, every top, every left, h w
    crops = windows[torch.arange(b, device=images.device), :, top, left]
    at = (mirrored < 0.5).nonzero()[:, 0].to(images.device)
    crops[at] = crops[at].flip(3)
    return crops


def _parts(rows: Tensor, images: Tensor) -> tuple[Tensor, ...]:
    """Rows to work on at once: on a CPU a few (its cache, and memory that need not be fetched anew), else all."""
    if len(rows) == 0:
        return ()
    pixels = images.shape[-2] * images.shape[-1]
    return rows.split(max(1, CACHED_PIXELS // pixels) if images.device.type == "cpu" else len(rows))


def _on_grid(images: Tensor) -> Tensor:
    return images.add_(1).mul_(127.5).round_().mul_(1 / 127.5).sub_(1)


def _dct() -> Tensor:
    """The orthonormal 8-point DCT-II, 8 8 (T.81 A.3.3, one dimension of it)."""
    k = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * k + 1) * k[:, None] * torch.pi / 16) / 2
    basis[0] /= 2**0.5
    return basis


def _table(base: str, quality: Tensor) -> Tensor:
    """Quantisation steps, B 8 8, by the Independent JPEG Group's rule for its 1 .. 100 scale."""
    q = quality[:, None, None]
    scale = torch.where(q < 50, 5000 // q.clamp(max=50), 200 - 2 * q)
    return ((torch.tensor([int(n) for n in base.split()]).view(8, 8) * scale + 50) // 100).clamp(1, 255)


def _through_blocks(planes: Tensor, table: Tensor) -> Tensor:
    """Quantise planes, B C H W (H, W multiples of 8), in the DCT domain of their 8 x 8 blocks, with steps B 8 8."""
    b, channels, h, w = planes.shape
    dct = _dct().to(planes)
    pair = torch.block_diag(dct, dct) if w % 16 == 0 else dct  # two blocks at a time: a matrix product of a better size
    steps = table.to(planes).repeat(1, 1, w // 8)[:, None, None]
    x = dct @ planes.view(b * channels, h // 8, 8, w)
    x = (x.view(-1, len(pair)) @ pair.T).view(b, channels, h // 8, 8, w)
    x = x.mul_(1 / steps).round_().mul_(steps)
    x = (x.view(-1, len(pair)) @ pair).view(b * channels, h // 8, 8, w)
    return (dct.T @ x).view(b, channels, h, w)


def _doubled(x: Tensor, axis: int) -> Tensor:
    """Twice the samples along an axis, each 3/4 of its own and 1/4 of the next one: libjpeg's smooth upsampling."""
    n = x.shape[axis]
    out = x.new_empty(*x.shape[: axis + 1], 2, *x.shape[axis + 1 :])
    first, second = out.unbind(axis + 1)
    first.narrow(axis, 0, 1).copy_(x.narrow(axis, 0, 1))
    second.narrow(axis, n - 1, 1).copy_(x.narrow(axis, n - 1, 1))
    torch.lerp(x.narrow(axis, 1, n - 1), x.narrow(axis, 0, n - 1), 0.25, out=first.narrow(axis, 1, n - 1))
    torch.lerp(x.narrow(axis, 0, n - 1), x.narrow(axis, 1, n - 1), 0.25, out=second.narrow(axis, 0, n - 1))
    return out.flatten(axis, axis + 1)


def _exact(images: Tensor, plan: Plan) -> Tensor:
    """The published behaviour on bytes: see the head of this file."""
    import numpy as np
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    try:
        import cv2
    except ImportError:
        raise ValueError(
            "mode 'exact': expected OpenCV, one of the two published JPEG encoders, found none; "
            "run pip install 'deepfake-arena[exact]' or take mode 'fast'"
        ) from None

    levels = images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    pixels = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    for i, (sigma, quality, opencv) in enumerate(zip(*(t.tolist() for t in plan), strict=True)):
        image = pixels[i]
        if sigma:
            for c in range(3):
                gaussian_filter(image[..., c], output=image[..., c], sigma=sigma)
        if quality and opencv:
            coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            pixels[i] = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1]
        elif quality:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "jpeg", quality=quality)
            pixels[i] = np.asarray(Image.open(file))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(images).div(127.5).sub(1)

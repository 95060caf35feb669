"""A small camera: linear light to the JPEG that a phone would have stored.

Order of a real one: vignette and exposure, defocus, photon (shot) and read noise on the sensor, tone curve, and JPEG by
libjpeg through Pillow (4:2:0, quality drawn per image). The noise passes a 2 x 2 mix, as demosaicing leaves it:
neighbouring pixels are correlated, so that "real" has no white noise floor.
"""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arena.data._face_shape import root

GOLDEN = 0x9E3779B9


def expose(linear: Tensor) -> Tensor:
    """Linear light N 3 S S to display values in [0, 1]: a soft shoulder, then gamma 2."""
    linear = linear.clamp(min=0)
    return root((linear * 1.28 / (1 + 0.28 * linear)).clamp_(max=1))


def _shift32(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _int32(x: int) -> int:
    return x - (1 << 32) if x >= 1 << 31 else x


def grain(key: Tensor, size: int) -> Tensor:
    """Noise of mean 0 and variance 1, N 3 size size: the sum of a hash's four bytes (Irwin-Hall), then a 2 x 2 mix."""
    place = torch.arange(3 * (size + 1) * (size + 1), dtype=torch.int32) * _int32(GOLDEN)
    low, high = (key & 0xFFFFFFFF), (key >> 32) & 0xFFFFFFFF
    low, high = ((half << 32 >> 32).int()[:, None] for half in (low, high))
    x = place + low
    x = (x ^ _shift32(x, 16)) * 0x21F0AAAD  # lowbias32 (Wellons 2018), keyed before and within
    x = (x ^ _shift32(x, 15) ^ high) * 0x735A2D97
    x ^= _shift32(x, 15)
    total = (x & 255) + (_shift32(x, 8) & 255) + (_shift32(x, 16) & 255) + _shift32(x, 24)
    noise = (total.float() - 510).reshape(-1, 3, size + 1, size + 1)
    noise = noise[..., 1:, :] + 0.5 * noise[..., :-1, :]
    noise = noise[..., 1:] + 0.5 * noise[..., :-1]
    return noise * (1 / (1.25 * (4 * (256**2 - 1) / 12) ** 0.5))


def blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian defocus of N 3 S S with sigma N 1 1 1 pixels, at most 1.2; seven taps each way, edges repeated."""
    weights = [torch.exp(-(k * k) / (2 * sigma * sigma)) for k in range(4)]
    total = weights[0] + 2 * (weights[1] + weights[2] + weights[3])
    weights = [w / total for w in weights]
    for dim in (2, 3):
        size = image.shape[dim]
        place = torch.arange(-3, size + 3).clamp(0, size - 1)
        padded = image.index_select(dim, place)
        image = padded.narrow(dim, 3, size) * weights[0]
        for k in (1, 2, 3):
            image += (padded.narrow(dim, 3 - k, size) + padded.narrow(dim, 3 + k, size)) * weights[k]
    return image


def store(display: Tensor) -> Tensor:
    """Display values in [0, 1] to the stored bytes."""
    return (display * 255 + 0.5).clamp_(0, 255).to(torch.uint8)


def jpeg(image: np.ndarray, quality: int) -> Tensor:
    """One picture, S S 3 bytes, to JPEG and back."""
    size = image.shape[:2]
    with BytesIO() as file:
        Image.frombuffer("RGB", size, image, "raw", "RGB", 0, 1).save(file, "JPEG", quality=quality)
        file.seek(0)
        pixels = Image.open(file, formats=("JPEG",)).tobytes()
    return torch.frombuffer(bytearray(pixels), dtype=torch.uint8).reshape(*size, 3)


def photograph(p: SimpleNamespace, linear: Tensor, key: Tensor) -> Tensor:
    """Linear light N 3 S S to the decoded JPEG, uint8 N 3 S S.

    `key` is a 64-bit number per image for the sensor's noise; of p, all N 1 1: `defocus`, a sigma in pixels at 64 px
    (it grows with the root of the size), `shot_noise` and `read_noise`, standard deviations at linear light 1,
    `vignette`, `exposure` and `quality` (of JPEG, 1 to 100).
    """
    size = linear.shape[-1]
    across = (torch.arange(size) + 0.5) / size - 0.5
    r2 = across[:, None] ** 2 + across**2
    linear = linear * (p.exposure * (1 - p.vignette * r2))[:, None]
    linear = blur(linear, (p.defocus * (size / 64) ** 0.5).clamp(max=1.2)[:, None])
    spread = root(linear.clamp(min=0) * (p.shot_noise * p.shot_noise)[:, None] + (p.read_noise * p.read_noise)[:, None])
    stored = store(expose(linear + grain(key, size) * spread))
    qualities = p.quality.flatten().long().tolist()
    rows = stored.permute(0, 2, 3, 1).contiguous().numpy()
    return torch.stack([jpeg(image, q) for image, q in zip(rows, qualities, strict=True)]).permute(0, 3, 1, 2)

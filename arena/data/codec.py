"""The one codec that reals and fakes alike pass through on their way to a detector."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def store_as(images: Tensor, codec: str) -> Tensor:
    """Images, uint8 n 3 s s, or clips, n T 3 s s, after `codec`.

    "png" changes nothing, "jpeg-90" is Pillow's JPEG at quality 90; "raw", "c23" and "c40" are FaceForensics++'s levels
    of H.264 (arena/data/compression.py).
    """
    if codec == "png":
        return images
    if not codec.startswith("jpeg-"):
        from arena.data.compression import compress

        return compress(images, codec)
    quality = int(codec.removeprefix("jpeg-"))
    coded = [_jpeg(image, quality) for image in images.flatten(0, -4).permute(0, 2, 3, 1).cpu().numpy()]
    return torch.from_numpy(np.stack(coded)).permute(0, 3, 1, 2).reshape(images.shape)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))

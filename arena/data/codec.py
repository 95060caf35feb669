"""The one codec that reals and fakes alike pass through on their way to a detector."""

import torch
from torch import Tensor


def store_as(images: Tensor, codec: str) -> Tensor:
    """uint8 n 3 s s -> the same after `codec`: "png" changes nothing, "jpeg-90" compresses at quality 90."""
    if codec == "png":
        return images
    from torchvision.io import decode_jpeg, encode_jpeg

    quality = int(codec.removeprefix("jpeg-"))
    return torch.stack([decode_jpeg(encoded) for encoded in encode_jpeg(list(images.cpu()), quality=quality)])

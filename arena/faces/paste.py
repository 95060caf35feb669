"""A face goes back where it came from: by the inverse of its crop's transform, through its mask, into the picture."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arena.faces import need
from arena.faces.align import reach, scale

MARGIN = 2  # pixels that seamlessClone wants around a mask


def paste(picture: np.ndarray, face: Tensor, mask: Tensor, matrix: Tensor, blend: str = "alpha") -> None:
    """Lay a face into a picture (uint8 H W 3), in place; where the mask is 0 no byte changes.

    `face` is 3 S S in [-1, 1], `mask` 1 S S in [0, 1] with 0 along its border, `matrix` (2 3, on the CPU) leads from
    picture to crop. `blend` is "alpha", or "poisson": the face's gradients under the picture's colours along the mask's
    edge (Perez, Gangnet, Blake 2003). A face may lie partly outside the picture.
    """
    window = reach(matrix, face.shape[-1], *picture.shape[:2])
    if window is None:
        return
    patch = picture[window]
    top, left = window[0].start, window[1].start
    layer = warp_back(torch.cat([face, mask]), matrix, top, left, *patch.shape[:2])
    rgb, cover = (layer[:3] + 1) * 127.5, layer[3:].clamp(0, 1)
    if blend == "poisson":
        clone = seamless(patch, to_bytes(rgb), cover[0].cpu().numpy() > 0.5)
        rgb = torch.from_numpy(clone).to(rgb).permute(2, 0, 1)
    under = torch.from_numpy(patch).to(rgb).permute(2, 0, 1)
    patch[...] = to_bytes(under + cover * (rgb - under))


def warp_back(layer: Tensor, matrix: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A crop's layer, C S S, seen through a window of the picture's pixels: C height width.

    Bicubic; where the picture is coarser than the crop each of its pixels averages k x k points, against aliasing.
    """
    k = max(1, math.ceil(float(scale(matrix)) - 0.01))
    x = left + (torch.arange(width * k, dtype=matrix.dtype) + 0.5) / k
    y = top + (torch.arange(height * k, dtype=matrix.dtype) + 0.5) / k
    a, b, c = (matrix * 2 / layer.shape[-1]).unbind(1)  # -1 to 1 across the crop
    grid = a * x[:, None] + b * y[:, None, None] + (c - 1)
    found = F.grid_sample(layer[None], grid[None].to(layer), "bicubic", padding_mode="border", align_corners=False)
    return F.avg_pool2d(found, k)[0]


def seamless(picture: np.ndarray, face: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Poisson blending of `face` over `picture` (uint8 h w 3 both) where `mask` (h w) is true, by OpenCV.

    seamlessClone wants a mask that keeps clear of the edges, centres the mask's bounding box (not the picture) on the
    point given, and writes into the mask: hence margins, a computed centre and a copy.
    """
    cv2 = need("cv2")
    around = ((MARGIN, MARGIN), (MARGIN, MARGIN))
    under, over = (np.pad(x, (*around, (0, 0)), "edge") for x in (picture, face))
    where = np.pad(mask.astype(np.uint8) * 255, around)
    box_x, box_y, box_w, box_h = cv2.boundingRect(where)
    if min(box_w, box_h) < 3:  # nothing inside the edge, and OpenCV fails
        return face
    centre = (box_x + box_w // 2, box_y + box_h // 2)
    clone = cv2.seamlessClone(over, under, where, centre, cv2.NORMAL_CLONE)
    return clone[MARGIN:-MARGIN, MARGIN:-MARGIN]


def to_bytes(rgb: Tensor) -> np.ndarray:
    """3 h w in 0..255 -> uint8 h w 3."""
    return rgb.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()

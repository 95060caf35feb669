"""From five points of a face to an upright crop of it, and the matrix that leads back.

Coordinates are continuous: a picture spans 0 to its width, the first pixel's centre is 0.5 (as in `arena.data.faces`).
A matrix is 2x3 and maps picture to crop: crop = M[:, :2] @ picture + M[:, 2]. Points: left eye, right eye, tip of the
nose, left and right corner of the mouth; left is the picture's left.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# A face seen from the front, in distances between the eyes, from the middle of the crop.
FACE = ((-0.5, -0.35), (0.5, -0.35), (0.0, 0.22), (-0.41, 0.77), (0.41, 0.77))
SIDE = 3.2  # the crop's side at coverage 1: hairline to chin (about 3) and a little
WIDEST = 10  # times the longer side of its picture that a crop may show, mostly of what lies beyond the edge
SAMPLES = 1 << 22  # at a time: a crop of a huge face takes no more memory


def template(size: int, coverage: float = 1.0) -> Tensor:
    """Where the five points stand in a crop of `size` pixels: float64, 5 2.

    coverage 1 shows a face from hairline to chin; more shows more around it (1.45 what the embedded faces show), less
    shows less (0.55, brow to brow, the classic model's central 160 of 256 pixels).
    """
    return (torch.tensor(FACE, dtype=torch.float64) / (SIDE * coverage) + 0.5) * size


def similarity(points: Tensor, target: Tensor) -> Tensor:
    """The rotation, scaling and shift that bring points (N K 2) nearest to a target (K 2 or N K 2): N 2 3.

    Least squares without mirroring (Umeyama 1991, equations 40 to 42). In the plane, with points as complex numbers
    about their means, that is one quotient: sum(conj(p) q) / sum(|p|^2). Points that coincide give infinite entries.
    """
    target = target.expand_as(points)
    middle, centre = points.mean(1, keepdim=True), target.mean(1, keepdim=True)
    p, q = points - middle, target - centre
    square = p.square().sum((1, 2))
    a = (p * q).sum((1, 2)) / square  # scale * cosine
    b = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(1) / square  # scale * sine
    turn = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -2)
    return torch.cat([turn, centre.mT - turn @ middle.mT], -1)


def invert(matrices: Tensor) -> Tensor:
    """The way back, crop to picture: N 2 3 -> N 2 3."""
    turn = torch.linalg.inv(matrices[..., :2])
    return torch.cat([turn, -turn @ matrices[..., 2:]], -1)


def move(matrices: Tensor, points: Tensor) -> Tensor:
    """Points (N K 2) through matrices (N 2 3): N K 2."""
    return points @ matrices[..., :2].mT + matrices[..., 2].unsqueeze(-2)


def scale(matrices: Tensor) -> Tensor:
    """Pixels of the crop for one of the picture: N 2 3 -> N."""
    return torch.linalg.det(matrices[..., :2]).abs().sqrt()


def reach(matrix: Tensor, size: int, height: int, width: int) -> tuple[slice, slice] | None:
    """The rows and columns of a height x width picture that a crop of `size` touches; None where there are none."""
    corners = torch.tensor([[0, 0], [size, 0], [0, size], [size, size]]).to(matrix)
    places = move(invert(matrix), corners)
    left, top = places.amin(0).floor().long().clamp(min=0).tolist()
    right, bottom = places.amax(0).ceil().long().minimum(torch.tensor([width, height])).tolist()
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def usable(points: Tensor, target: Tensor, size: int, height: int, width: int) -> bool:
    """Whether a face's crop touches its height x width picture and has at most `WIDEST` times its longer side."""
    matrix = similarity(points[None], target)
    least = size / (WIDEST * max(height, width))
    return bool(least <= scale(matrix) < math.inf) and reach(matrix[0], size, height, width) is not None


def crop(frames: Tensor, matrices: Tensor, size: int, rows: Tensor | None = None) -> Tensor:
    """Cut faces out: frames B 3 H W (uint8 or float, whose range stays), matrices N 2 3 -> float N 3 size size.

    Crop n is cut from frame rows[n] (n itself without `rows`). A pixel of a reduced crop is the mean over its whole
    footprint, from bilinear samples no further than a pixel apart; an enlarged crop is bicubic. Beyond the frame its
    edge goes on.
    """
    matrices = matrices.cpu().double()
    finer = (1 / scale(matrices)).clamp(1, 64).ceil().long()
    places = torch.arange(len(matrices)) if rows is None else rows.cpu()
    crops = torch.empty(len(matrices), 3, size, size, device=frames.device)
    for n, (back, k, row) in enumerate(zip(invert(matrices), finer.tolist(), places.tolist(), strict=True)):
        crops[n] = _sample(frames[row], back, size, k)
    return crops


def _sample(frame: Tensor, back: Tensor, size: int, finer: int) -> Tensor:
    """One crop from one frame (3 H W) by finer^2 samples a pixel: 3 size size. Only the part it needs is read."""
    height, width = frame.shape[-2:]
    corners = move(back[None], size * torch.tensor([[[0, 0], [0, 1], [1, 0], [1, 1]]], dtype=torch.float64))[0]
    left, top = (corners.min(0).values.floor() - 2).long().tolist()
    right, bottom = (corners.max(0).values.ceil() + 2).long().tolist()
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    part = frame[None, :, top : max(bottom, top + 1), left : max(right, left + 1)].float()

    # crop's samples -> part's pixels -> grid_sample's -1 to 1
    sides = torch.tensor([part.shape[-1], part.shape[-2]], dtype=torch.float64)
    turn = (2 * back[:, :2] / sides[:, None]).float().to(frame.device)
    shift = (2 * (back[:, 2] - torch.tensor([left, top])) / sides - 1).float().to(frame.device)
    ticks = (torch.arange(size * finer, device=frame.device) + 0.5) / finer
    mode = "bicubic" if finer == 1 else "bilinear"
    strips = []
    for rows in ticks.split(finer * max(1, SAMPLES // (size * finer**2))):
        y, x = torch.meshgrid(rows, ticks, indexing="ij")
        grid = torch.stack([x, y], -1) @ turn.mT + shift
        fine = F.grid_sample(part, grid[None], mode, padding_mode="border", align_corners=False)
        strips.append(F.avg_pool2d(fine, finer)[0])
    return torch.cat(strips, 1)

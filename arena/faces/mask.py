"""Which pixels of a crop are face: the hull of its landmarks, an ellipse or all of it, with a soft edge.

Lengths and points are in the crop's pixels, the first pixel's centre at 0.5. A mask comes from how deep each pixel lies
inside a shape, so that its edge is smooth at any size and erosion and feather mean what they say.
"""

import math

import numpy as np
import torch
from torch import Tensor

DIRECTIONS = 64  # of a hull's supporting lines: its outline is at most 2.5 % of an edge's length too far out

# A frontal face by its five points (eyes, nose, corners of the mouth), in distances between the eyes: the mean of the
# lab's own faces, made symmetrical. The right half of its jaw from the chin up, then of its brows.
FIVE = np.array([-0.5, 0.5, 0.54j, -0.43 + 0.95j, 0.43 + 0.95j])
JAW = np.array([1.63j, 0.15 + 1.54j, 0.44 + 1.42j, 0.73 + 1.27j, 0.87 + 1.09j, 0.99 + 0.87j, 1.09 + 0.63j, 1.15 + 0.34j,
                1.18 + 0.03j])  # fmt: skip
BROWS = np.array([0.2 - 0.27j, 0.51 - 0.32j, 0.81 - 0.31j])
TURN = -1.5  # the jaw's outline goes so much against the nose's way when a head turns (regression on the lab's faces)


def face_masks(kind: str, points: np.ndarray, size: int, *, feather: float = 10.0, erosion: float = 0.0) -> Tensor:
    """Masks of N crops of `size` x `size`, "hull", "ellipse" or "none": N 1 S S in [0, 1], 0 along the border.

    `points`: N P 2, the landmarks in the crop; with 5 of them (left eye, right eye, nose, corners of the mouth, as the
    picture shows them) the outline of jaw and brows is estimated. Erosion moves the shape's edge inwards (outwards
    where negative), the feather is how wide the mask takes from 0 to 1 about that edge; both in % of the crop.
    """
    xy = torch.arange(size) + 0.5
    x, y = xy, xy[:, None]
    feather = max(feather * size / 100, 1.0)  # one pixel: an edge without steps
    border = torch.minimum(torch.minimum(x, size - x), torch.minimum(y, size - y)) - 0.5 - feather / 2
    shape = torch.from_numpy(outline(points)).float()
    if kind == "hull":
        depth = hull_depth(shape, x, y)
    elif kind == "ellipse":
        depth = ellipse_depth(shape, x, y)
    else:
        depth = border.expand(len(points), -1, -1)
    edge = ((torch.minimum(depth - erosion * size / 100, border)) / feather + 0.5).clamp(0, 1)
    return (edge * edge * (3 - 2 * edge))[:, None]  # smoothstep


def hull_depth(points: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """How far inside the convex hull of each N P 2 pixels lie, N S S: from the nearest supporting line, < 0 outside."""
    depth = torch.full((len(points), *torch.broadcast_shapes(x.shape, y.shape)), math.inf)
    for k in range(DIRECTIONS):
        c, s = math.cos(2 * math.pi * k / DIRECTIONS), math.sin(2 * math.pi * k / DIRECTIONS)
        furthest = (c * points[..., 0] + s * points[..., 1]).amax(1)
        torch.minimum(depth, furthest[:, None, None] - (c * x + s * y), out=depth)
    return depth


def ellipse_depth(points: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """How far inside the upright ellipse that fills the bounding box of each N P 2 pixels lie, along its minor axis."""
    low, high = points.amin(1), points.amax(1)
    (cx, cy), (a, b) = ((v[:, None, None] for v in half.unbind(1)) for half in ((low + high) / 2, (high - low) / 2))
    return (1 - (((x - cx) / a) ** 2 + ((y - cy) / b) ** 2).sqrt()) * torch.minimum(a, b)


def outline(points: np.ndarray) -> np.ndarray:
    """Points whose hull is the face: those given, N P 2, and, where they are only five, an outline after them."""
    if points.shape[1] != 5:
        return points
    found = points[..., 0] + 1j * points[..., 1]
    four = [0, 1, 3, 4]  # the nose leaves the plane of the others when the head turns: it tells how far
    offset, middle = FIVE[four] - FIVE[four].mean(), found[:, four].mean(1, keepdims=True)
    turn = (found[:, four] - middle) @ offset.conj() / (abs(offset) ** 2).sum()  # least squares: scale and rotation
    nose = (found[:, 2:3] - middle) / turn[:, None] - (FIVE[2] - FIVE[four].mean())
    jaw, brows = (np.concatenate([half, -half.conj()]) - FIVE[four].mean() for half in (JAW, BROWS))
    around = np.concatenate([jaw + TURN * nose, np.repeat(brows[None], len(points), 0)], 1) * turn[:, None] + middle
    return np.concatenate([points, np.stack([around.real, around.imag], -1)], 1)

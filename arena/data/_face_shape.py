"""The shape of a synthetic head: what varies, the surface that a pixel sees, and the 68 landmarks on it.

Head frame: x to the image's right, y down, z towards the viewer; the cranium's top is y = -1, the eyes lie near y = 0,
the chin is y = 1. A horizontal cut is an ellipse whose half axes w(y), d(y) are roots of polynomials, so that a ray
meets the head in closed form under any yaw; nose, sockets, lips and chin are compact polynomial bumps b(x, y) along z
("relief"), met by a few fixed-point steps. Projection is orthographic: roll, pitch and yaw about the head's centre.

Only sums, products, quotients, rsqrt and clamps meet pixels: their results do not depend on the place in a batch.
Shapes: N images, H = W = S pixels; a face's parameter is N 1 1.
"""

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

MIDDLE = 0.485  # where in the image's height the head's centre stands, on average
RELIEF_STEPS, LANDMARK_STEPS = 3, 10
LIPS_OUT = 0.045


class Surface(NamedTuple):
    """What each pixel sees of the head; every field is N S S, in units of half a head's height."""

    x: Tensor
    y: Tensor
    z: Tensor  # in the head frame
    depth: Tensor  # towards the viewer, after rotation
    inside: Tensor  # squared half chord: positive on the head, negative beside it


def root(x: Tensor) -> Tensor:
    """Square root of x >= 0, exactly the same number wherever in a batch x stands (and faster than torch.sqrt here)."""
    x = x.clamp(min=1e-12)
    return x * x.rsqrt()


def bump(x: Tensor, width: Tensor | float, y: Tensor, height: Tensor | float) -> Tensor:
    """A smooth hill of height 1 at x = y = 0 that ends at the ellipse with half axes `width` and `height`."""
    u, v = x / width, y / height
    hill = u.mul_(u).add_(v.mul_(v)).neg_().add_(1).clamp_(min=0)
    return hill.mul_(hill)


def edge(distance: Tensor, soft: Tensor | float) -> Tensor:
    """Coverage of a half plane: 0 where distance < -soft / 2, 1 where > soft / 2, a smooth step between."""
    t = (distance / soft).add_(0.5).clamp_(0, 1)
    return t * t * (3 - 2 * t)


def unroll(p: SimpleNamespace, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x * p.cos_roll + y * p.sin_roll, y * p.cos_roll - x * p.sin_roll


def outline(p: SimpleNamespace, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(1 - t^2, w^2 / (1 - t^2), d^2 / (1 - t^2)) at height y; t runs from -1 at the crown over 0 to 1 at the chin."""
    above = y < p.cheek_y
    rise, fall = (y - p.cheek_y) / (p.crown + p.cheek_y), (y - p.cheek_y) / (p.chin_y - p.cheek_y)
    t2 = torch.where(above, rise, fall)
    t2 = (t2 * t2).clamp_(max=1.25)
    jaw = p.jaw * t2 + p.chin * (t2 * t2)
    wide = torch.where(above, p.skull * t2, jaw).add_(1).mul_(p.width * p.width)
    deep = torch.where(above, 0.10 * t2, 0.75 * t2).add_(1).mul_(p.deep * p.deep)
    return 1 - t2, wide, deep


def nose(p: SimpleNamespace, x: Tensor, y: Tensor) -> Tensor:
    """The nose's ridge: rising from between the eyes to the tip, then a quick return under it."""
    v = ((y - p.nose_top) / (p.nose_tip - p.nose_top)).clamp_(min=0)
    under = ((p.nose_base - y - 0.45 * x * x / p.nose_wide) / (p.nose_base - p.nose_tip)).clamp_(0, 1)
    under = under * under * (3 - 2 * under)
    ridge = torch.minimum(v * (p.nose_bridge + (1 - p.nose_bridge) * v), under).mul_(p.nose_high)
    across = x / (p.nose_wide * (0.62 + 0.46 * torch.minimum(v * v, under)))
    across = across.mul_(across).neg_().add_(1).clamp_(min=0)
    return ridge * across * (0.15 + 0.85 * across)


def relief(p: SimpleNamespace, x: Tensor, y: Tensor) -> Tensor:
    """How far the face stands out in front of the smooth head at (x, y)."""
    ax = x.abs()
    b = nose(p, x, y)
    b += 0.095 * bump(ax - 0.66 * p.nose_wide, 0.48 * p.nose_wide, y - p.wing_y, 0.085)
    # eyes in their sockets under the brow ridge
    b -= p.socket * bump(ax - p.eye_x + 0.02, 0.27, y - p.eye_y + 0.01, 0.20)
    b += 0.065 * bump(ax - p.eye_x, p.eye_w * 1.25, y - p.eye_y, p.eye_w * 0.95)
    b += p.brow_ridge * bump(ax - 0.25, 0.42, y - p.brow_y - 0.02, 0.15)
    # cheeks, mouth and chin
    b += p.cheek * bump(ax - 0.43, 0.34, y - p.cheek_low, 0.30)
    b += 0.07 * bump(x, 0.40, y - p.mouth_y, 0.33)
    b += LIPS_OUT * bump(x, p.mouth_w * 0.95, y - p.upper_y, p.lip_high * 1.35)
    b += LIPS_OUT * 1.25 * bump(x, p.mouth_w * 0.80, y - p.lower_y, p.lip_low * 1.25)
    b -= 0.035 * bump(x, 0.24, y - p.lower_y - p.lip_low - 0.07, 0.09)
    b += 0.075 * bump(x, 0.25, y - p.chin_y + 0.14, 0.20)
    return b


def swell(p: SimpleNamespace, x: Tensor, y: Tensor) -> Tensor:
    """About how far the head comes forward at the view position (x, y): what pitch moves up or down, and by how much.

    Near sqrt(1 - r^2) for r^2 < 0.5, but of finite slope at the rim, so that pitch never folds the picture.
    """
    far = torch.where(y < 0, p.crown, p.chin_y)
    r2 = ((x / p.width) ** 2 + (y / far) ** 2).clamp_(max=1)
    return (1 - 0.5 * (r2 + r2 * r2)) * p.deep


def cast(p: SimpleNamespace, x: Tensor, y: Tensor, *, steps: int = RELIEF_STEPS) -> Surface:
    """The head's point under each view position (x, y), roll already taken out; with steps = 1 the smooth head."""
    tilt = p.sin_pitch / p.cos_pitch
    b = torch.zeros_like(x)
    level = y / p.cos_pitch + swell(p, x, y) * tilt
    for step in range(steps):
        side = x - b * p.sin_yaw
        hy = level + b * (p.cos_yaw * tilt)
        rim, wide, deep = outline(p, hy)
        chord = deep * p.sin_yaw**2 + wide * p.cos_yaw**2
        inside = rim * chord - side * side
        lean = side * (p.sin_yaw * p.cos_yaw) * (deep - wide)
        front = (lean + root((wide * deep).mul_(inside.clamp(min=0)))) / chord
        hx = side * p.cos_yaw - front * p.sin_yaw
        if step < steps - 1:
            b = relief(p, hx, hy)
    depth = hy * p.sin_pitch + (front + b * p.cos_yaw) * p.cos_pitch
    z = side * p.sin_yaw + front * p.cos_yaw + b
    return Surface(hx, hy, z, depth, inside)


def lids(p: SimpleNamespace, u: Tensor) -> tuple[Tensor, Tensor]:
    """Heights of the upper and the lower lid at u, from -1 at the eye's inner to 1 at its outer corner."""
    arch = (1 - u * u).clamp(min=0)
    line = p.eye_y - p.eye_tilt * u
    lower = line + p.eye_low * arch
    upper = line - p.eye_high * arch * (1.08 - 0.16 * u)
    return upper + p.blink * (lower - upper), lower


def brow_line(p: SimpleNamespace, u: Tensor) -> Tensor:
    """Height of the brow's middle at u, from -1 at its inner to 1 at its outer end."""
    return p.brow_y - p.brow_tilt * u - p.brow_arch * (1 - 0.7 * (u - 0.12) * (u - 0.12))


def lips(p: SimpleNamespace, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Heights of the upper lip's rim, its lower edge, the lower lip's upper edge and its rim at u in [-1, 1]."""
    u2 = u * u
    arch = (1 - u2).clamp(min=0)
    line = p.mouth_y - p.mouth_lift * (u2 - 0.35)
    bow = (1 - u.abs() / 0.42).clamp(min=0)
    top, bottom = line - 0.3 * p.gap * arch, line + 0.7 * p.gap * arch
    rim = top - p.lip_high * arch * (1 - p.lip_bow * bow * bow)
    return rim, top, bottom, bottom + p.lip_low * arch * (0.9 + 0.1 * arch)


def landmarks(p: SimpleNamespace) -> tuple[Tensor, Tensor]:
    """The 68 points of the iBUG scheme in the view frame, x and y N 68.

    The jaw's points are those of the visible outline where the head hides the point itself, as annotators draw them.
    """

    def row(*values: float) -> Tensor:
        return torch.tensor(values)[None, None]

    # jaw 0-16: from ear to ear, by height along the outline
    along = row(*(abs(k) / 8 for k in range(-8, 9)))
    sign = row(*(-1.0 if k < 0 else 1.0 for k in range(-8, 9)))
    jaw_y = p.chin_y - 0.012 - (p.chin_y - p.eye_y - 0.03) * (0.35 * along + 0.65 * along * along)
    rim, wide, deep = outline(p, jaw_y)
    out = row(*(min(1.0, abs(k) / 2.6) * 0.985 for k in range(-8, 9)))  # how far out on the cut: 1 = the side
    w, d = root((rim * wide).clamp(min=0)), root((rim * deep).clamp(min=0))
    sin_out, cos_out = sign * out, root(1 - out * out)
    # beyond the silhouette, the point of the cut where it bends out of sight
    chord = root((w * p.cos_yaw) ** 2 + (d * p.sin_yaw) ** 2)
    sin_rim, cos_rim = w * p.cos_yaw / chord.clamp(min=1e-3), d * p.sin_yaw / chord.clamp(min=1e-3)
    hidden = (sin_out * cos_rim - cos_out * sin_rim) > 0
    sin_out = torch.where(hidden, sin_rim * sign, sin_out)
    cos_out = torch.where(hidden, cos_rim * sign, cos_out)
    points = [(w * sin_out, jaw_y, d * cos_out, relief(p, w * sin_out, jaw_y))]

    def add(x: Tensor, y: Tensor) -> None:
        rim, wide, deep = outline(p, y)
        points.append((x, y, root((deep * (rim - x * x / wide)).clamp(min=0)), relief(p, x, y)))

    u = row(1, 0.5, 0, -0.5, -1)
    brow = brow_line(p, u)
    add(-(p.brow_x + u * p.brow_w), brow)
    add(p.brow_x + u.flip(-1) * p.brow_w, brow.flip(-1))
    bridge = row(0.05, 0.37, 0.68, 1)
    add(0 * p.nose_tip * bridge, p.nose_top + (p.nose_tip - p.nose_top) * bridge)
    across = row(-1, -0.5, 0, 0.5, 1)
    add(0.88 * p.nose_wide * across, p.nose_base - 0.035 * across * across)
    u = row(1, 0.4, -0.4, -1, -0.4, 0.4)
    upper, lower = lids(p, u)
    lid = torch.cat((upper[..., :4], lower[..., 4:]), -1)
    order = [3, 2, 1, 0, 5, 4]
    add(-(p.eye_x + u * p.eye_w), lid)
    add(p.eye_x + u[..., order] * p.eye_w, lid[..., order])
    u = row(-1, -0.62, -0.2, 0, 0.2, 0.62, 1, 0.6, 0.25, 0, -0.25, -0.6)
    rim, _, _, under = lips(p, u)
    add(u * p.mouth_w, torch.cat((rim[..., :7], under[..., 7:]), -1))
    u = row(-0.88, -0.4, 0, 0.4, 0.88, 0.4, 0, -0.4)
    _, top, bottom, _ = lips(p, u)
    add(u * p.mouth_w, torch.cat((top[..., :5], bottom[..., 5:]), -1))
    x, y, z, b = (torch.cat([torch.broadcast_tensors(*q)[i] for q in points], -1) for i in range(4))
    vx = x * p.cos_yaw + (z + b) * p.sin_yaw
    vy = y * p.cos_pitch
    for _ in range(LANDMARK_STEPS):  # the view height that `cast` sends to y
        vy = y * p.cos_pitch - (swell(p, vx, vy) + b * p.cos_yaw) * p.sin_pitch
    return (vx * p.cos_roll - vy * p.sin_roll)[:, 0], (vx * p.sin_roll + vy * p.cos_roll)[:, 0]

"""Synthetic faces with known truths: no real person, nothing to download, the same picture for the same (seed, index).

A face is drawn from two sets of numbers, both hashes of their address: the identity's (shape, skin, hair, eyes,
glasses, beard) and the image's (pose, expression, gaze, light, background, clothes, camera). So the exact swap exists:
the identity of B under all the numbers of A's image. See docs/faces.md for a contact sheet.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from arena.data import _face_draws
from arena.data._camera import expose, photograph, store
from arena.data._face_draws import EXPRESSION, IDENTITY, IMAGE, MOTION, POOL, SENSOR, SHOT, STYLES, WHO
from arena.data._face_paint import paint
from arena.data._face_shape import MIDDLE, landmarks
from arena.errors import InputError

SIZES = (32, 256)
HEART = 0.618  # the middle of a face's landmarks below the top of the picture, where cy is 0
CHUNK_PIXELS = 1 << 17  # the planes of a chunk stay in the processor's cache

# Motion in a clip: how far each number swings about the image's own, in its unit, and how many swings a second.
SWINGS = {
    "yaw": (12.0, 0.23), "pitch": (4.0, 0.31), "roll": (4.0, 0.19), "smile": (0.5, 0.27), "mouth_open": (0.8, 0.9),
    "brow_raise": (0.5, 0.4), "gaze_x": (0.5, 0.37), "gaze_y": (0.3, 0.29), "cx": (0.010, 0.21), "cy": (0.006, 0.26),
}  # fmt: skip
BLINK_EVERY, BLINK_LASTS = 3.2, 0.36  # seconds

PARTS = ("background", "hair", "skin", "cloth", "glasses")
SEEN = {"glasses": 0.3}  # coverage from which a pixel shows a part (others: half of it): frames are thin


@dataclass(frozen=True)
class Faces:
    """Images with their truths, N of them, S pixels square."""

    image: Tensor  # uint8, N 3 S S
    landmarks: Tensor  # N 68 2: x, y in pixels (the first pixel's centre is 0.5), iBUG's order
    mask: Tensor  # N S S in [0, 1]: skin of the face with its features, without hair, ears and neck
    identity: Tensor  # N, int64
    pose: Tensor  # N 3: yaw, pitch, roll in degrees; positive yaw looks to the image's right, pitch up, roll clockwise
    expression: Tensor  # N 6: smile, mouth open, brow raise, blink in [0, 1]; gaze x, y in about [-1, 1]
    parts: Tensor  # uint8, N S S: what each pixel shows, a number in PARTS


def render(
    seed: int,
    indices: Tensor | Sequence[int],
    size: int = 64,
    *,
    identities: int | None = None,
    identity: Tensor | Sequence[int] | int | None = None,
    style: str = "any",
    camera: bool = True,
    close: float = 1.0,
) -> Faces:
    """Draw the images `indices` (N, each >= 0) of a seed at `size` x `size` pixels, 32 to 256.

    Image i shows identity hash(seed, i) % `identities`, or identity i where `identities` is None; `identity` (one or N
    numbers) overrides who is drawn and changes nothing else of the image. `style` "dark" gives everybody black or brown
    hair, "fair" blond or red; nobody is bald or wears glasses there, and all else is drawn alike. `camera=False` leaves
    out vignette, defocus, noise and JPEG. `close` (0.4 to 1) draws the image larger and keeps the square about the face
    whose side is that share of it; where it lies does not depend on who is shown. An image does not depend on the
    others that are asked for with it.

    Raises InputError for a size, index, identity, style or closeness out of range.
    """
    index = _check(seed, indices, size, identities, style, close)
    who = _who(seed, index, identities, identity)
    shot = _face_draws.draw(_face_draws.address(seed, IMAGE, index), SHOT)
    sensor = _face_draws.address(seed, SENSOR, index)
    return _render(seed, who, shot, sensor, size, style, camera, close)


def swap(
    seed: int,
    indices: Tensor | Sequence[int],
    size: int = 64,
    *,
    identity: Tensor | Sequence[int] | int,
    style: str = "any",
    camera: bool = True,
    close: float = 1.0,
) -> Faces:
    """The exact swap: the images `indices` with other people in them; pose, expression, light, camera noise stay.

    With an image's own identity the result is `render`'s, bit for bit. Arguments as for `render`.
    """
    return render(seed, indices, size, identity=identity, style=style, camera=camera, close=close)


def clip(
    seed: int,
    index: int,
    frames: int,
    size: int = 64,
    *,
    identities: int | None = None,
    identity: int | None = None,
    style: str = "any",
    fps: float = 25.0,
    camera: bool = True,
    close: float = 1.0,
) -> Faces:
    """A film of `frames` images (N = frames): pose, expression and gaze move smoothly about those of image `index`.

    Identity, light, background and the camera's settings stay; the sensor's noise is new in every frame. `fps` is in
    frames a second. Other arguments and errors as for `render`.
    """
    first = _check(seed, [index], size, identities, style, close)
    if frames < 1 or not fps > 0:
        raise InputError(f"a clip needs frames >= 1 and fps > 0, got {frames} and {fps}.")
    who = _who(seed, first, identities, identity).expand(frames)
    key = _face_draws.address(seed, IMAGE, first)
    shot = {name: value.expand(frames, 1, 1) for name, value in _face_draws.draw(key, SHOT).items()}
    shot |= _motion(shot, _face_draws.address(seed, MOTION, first), torch.arange(frames, dtype=torch.float64) / fps)
    sensor = _face_draws.mix(_face_draws.address(seed, SENSOR, first) + 1 + torch.arange(frames))
    return _render(seed, who, shot, sensor, size, style, camera, close)


def _motion(shot: dict[str, Tensor], key: Tensor, seconds: Tensor) -> dict[str, Tensor]:
    """The moving numbers at each time: two sines of unrelated pace about the image's own, and now and then a blink."""
    u = _face_draws.uniform(key, 3 * len(SWINGS) + 1)[0]
    moved = {}
    for k, (name, (far, pace)) in enumerate(SWINGS.items()):
        phase, second, hurry = u[3 * k : 3 * k + 3]
        turn = 2 * math.pi * (pace * (0.8 + 0.4 * hurry) * seconds + phase)
        sway = torch.sin(turn) + 0.4 * torch.sin(1.73 * turn + 2 * math.pi * second)
        moved[name] = shot[name] + far * sway[:, None, None]
    since = torch.remainder(seconds + BLINK_EVERY * u[-1], BLINK_EVERY) / BLINK_LASTS
    shut = (1 - (2 * since - 1) ** 2).clamp(min=0) ** 2
    return moved | {"blink": shut[:, None, None]}


def _check(
    seed: int,
    indices: Tensor | Sequence[int],
    size: int,
    identities: int | None,
    style: str,
    close: float = 1.0,
) -> Tensor:
    low, high = SIZES
    if not low <= size <= high:
        raise InputError(f"size: expected {low} to {high} pixels, got {size}. Draw at {high} and resize for more.")
    if seed < 0:
        raise InputError(f"seed: expected an integer >= 0, got {seed}.")
    if style not in STYLES:
        raise InputError(f"style: expected one of {', '.join(STYLES)}, got {style!r}.")
    if not 0.4 <= close <= 1:
        raise InputError(f"close: expected a share of the picture from 0.4 to 1, got {close}.")
    if identities is not None and identities < 1:
        raise InputError(f"identities: expected None or a number of people >= 1, got {identities}.")
    index = torch.as_tensor(indices, device="cpu")
    if index.ndim != 1 or (len(index) and index.is_floating_point()):
        raise InputError(f"indices: expected a list of integers, got shape {tuple(index.shape)} of {index.dtype}.")
    if len(index) and int(index.min()) < 0:
        raise InputError(f"indices: expected integers >= 0, got {int(index.min())}.")
    return index.long()


def _who(seed: int, index: Tensor, identities: int | None, identity: Tensor | Sequence[int] | int | None) -> Tensor:
    if identity is None:
        return (
            index if identities is None else (_face_draws.address(seed, POOL, index) >> 1 & (1 << 62) - 1) % identities
        )
    who = torch.as_tensor(identity, device="cpu").long()
    if who.ndim > 1 or (who.ndim == 1 and len(who) != len(index)) or bool((who < 0).any()):
        raise InputError(f"identity: expected one number >= 0 or {len(index)} of them, got shape {tuple(who.shape)}.")
    return who.expand(len(index))


def _render(
    seed: int,
    who: Tensor,
    shot: dict[str, Tensor],
    sensor: Tensor,
    size: int,
    style: str,
    camera: bool,
    close: float = 1.0,
) -> Faces:
    people = _face_draws.draw(_face_draws.address(seed, IDENTITY, who), WHO)
    p = _face_draws.settle(people, shot, style)
    full = round(size / close)
    left, top = ((middle[:, 0, 0] * full - size / 2).round() for middle in (p.cx + 0.5, p.cy + HEART))
    corner = torch.stack((left, top), -1).long().clamp(0, full - size)
    x, y = landmarks(p)
    points = torch.stack((x * p.scale[:, 0] + p.cx[:, 0] + 0.5, y * p.scale[:, 0] + p.cy[:, 0] + MIDDLE), -1) * full
    pose = torch.cat([shot[name] for name in ("yaw", "pitch", "roll")], 1)[:, :, 0].float()
    expression = torch.cat([getattr(p, name) for name in EXPRESSION], 1)[:, :, 0]
    images, masks = torch.empty(len(who), 3, size, size, dtype=torch.uint8), torch.empty(len(who), size, size)
    parts = torch.zeros(len(who), size, size, dtype=torch.uint8)
    step = max(1, CHUNK_PIXELS // full**2)
    for start in range(0, len(who), step):
        part = slice(start, start + step)
        few = SimpleNamespace(**{name: value[part] for name, value in vars(p).items()})
        linear, mask, layers = paint(few, full)
        shown = torch.zeros(mask.shape, dtype=torch.uint8)
        for name, cover in layers:
            shown[cover > SEEN.get(name, 0.5)] = PARTS.index(name)
        image = photograph(few, linear, sensor[part]) if camera else store(expose(linear))
        for row, (left, top) in enumerate(corner[part].tolist(), start):
            window = (..., slice(top, top + size), slice(left, left + size))
            images[row], masks[row] = image[row - start][window], mask[row - start][window]
            parts[row] = shown[row - start][window]
    return Faces(images, points - corner[:, None], masks, who.clone(), pose, expression, parts)

"""A synthetic person before a camera: a wide picture or a film of one embedded face, with its truths in every frame.

The renderer of arena/data/faces.py draws a face in a tight square. Here the square becomes a window in a wider picture:
the same wall behind it, the same body below it, drawn by the same formulas over more pixels, so that there is no seam.
The person moves as in `arena.data.faces.clip`, and drifts and leans a little besides; the camera stands still.
Nobody real is shown, so that video -> extract -> train -> swap -> video can be tried and shown without anybody's face.
"""

import json
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arena.data import _face_draws, faces
from arena.data._camera import expose, photograph, store
from arena.data._face_draws import IDENTITY, IMAGE, MOTION, SENSOR, SHOT, WHO
from arena.data._face_paint import _background, paint
from arena.data._face_shape import MIDDLE, landmarks
from arena.errors import InputError
from arena.faces import need
from arena.faces.locate import five
from arena.faces.sound import Silence, Sound
from arena.faces.video import Plain, Video, Writer
from arena.files import atomic

SIDES = (64, 2048)  # px of the picture
HEAD = 2 * 0.355  # a head's height in the renderer's square, on average
EYE_LINE = 0.45  # where the head's centre stands, as a share of the picture's height
FIRST = 250  # frames whose numbers are drawn at a time

# Motion beyond the clip's own: how far (a share of the picture's lesser side; of the head's size) and how many a second
DRIFTS = {"across": (0.07, 0.067), "down": (0.012, 0.11), "lean": (0.035, 0.083)}


class Shot(NamedTuple):
    """One frame and its truths, in pixels of the frame (the first one's centre is 0.5)."""

    number: int
    seconds: float
    image: np.ndarray  # uint8 H W 3
    landmarks: np.ndarray  # 68 2, iBUG's order
    points: np.ndarray  # 5 2: left eye, right eye (in the picture), tip of the nose, left and right mouth corner
    box: tuple[float, float, float, float]  # left, top, right, bottom: jaw to jaw, forehead to chin
    pose: np.ndarray  # yaw, pitch, roll in degrees
    identity: int


def scene(
    seed: int,
    index: int,
    frames: int,
    width: int = 480,
    height: int = 360,
    *,
    identity: int,
    style: str = "any",
    fps: float = 25.0,
    head: float = 0.5,
    camera: bool = True,
) -> Iterator[Shot]:
    """Film person `identity` of `seed` for `frames` frames of width x height pixels, one frame at a time.

    `index` >= 0 chooses all else: pose, light, wall, clothes, camera. `head` is the head's height as a share of the
    picture's (0.3 to 0.8; never more than fits). A frame depends on its number alone, not on how many there are.

    Raises InputError for arguments out of range.
    """
    faces._check(seed, [index], faces.SIZES[0], None, style)
    for name, value, (low, high) in (("width", width, SIDES), ("height", height, SIDES), ("head", head, (0.3, 0.8))):
        if not low <= value <= high:
            raise InputError(f"{name}: expected {low} to {high}, got {value}.")
    if frames < 1 or not fps > 0 or identity < 0:
        raise InputError(f"a scene needs frames >= 1, fps > 0 and identity >= 0, got {frames}, {fps:g} and {identity}.")
    return _shots(_Stage(seed, index, identity, style, width, height, head, fps), frames, camera)


def _shots(stage: "_Stage", frames: int, camera: bool) -> Iterator[Shot]:
    for start in range(0, frames, FIRST):
        yield from stage.shoot(torch.arange(start, min(start + FIRST, frames)), camera)


class _Stage:
    """What stays the same in all frames: who, where, and the wall behind."""

    def __init__(
        self, seed: int, index: int, identity: int, style: str, width: int, height: int, head: float, fps: float
    ):
        self.identity, self.style, self.fps = identity, style, fps
        self.width, self.height = width, height
        self.size = round(min(head * height / HEAD, 0.8 * width, 0.95 * height))
        if self.size < faces.SIZES[0]:
            raise InputError(f"a head of {head:g} of {width} x {height} px is too small to draw. Make either larger.")
        image = torch.tensor([index])
        self.who = _face_draws.draw(_face_draws.address(seed, IDENTITY, torch.tensor([identity])), WHO)
        self.shot = _face_draws.draw(_face_draws.address(seed, IMAGE, image), SHOT)
        self.motion = _face_draws.address(seed, MOTION, image)
        self.sensor = _face_draws.address(seed, SENSOR, image)
        first = self.settled(torch.zeros(1, dtype=torch.int64))
        across = (torch.arange(width) + 0.5 - width / 2) / height
        down = (torch.arange(height) + 0.5) / height - 0.5
        gx, gy = across[None, None].expand(1, height, width), down[None, :, None].expand(1, height, width)
        self.wall = _background(first, gx, gy, self.size)

    def settled(self, number: Tensor) -> SimpleNamespace:
        """The numbers that drawing needs, for each of some frames; cx, cy and scale with the drift."""
        n, seconds = len(number), number.double() / self.fps
        shot = {name: value.expand(n, 1, 1) for name, value in self.shot.items()}
        shot |= faces._motion(shot, self.motion, seconds)
        phase = _face_draws.uniform(_face_draws.mix(self.motion + 1), len(DRIFTS))[0]
        drift = {
            name: far * torch.sin(2 * math.pi * (pace * seconds + start))[:, None, None]
            for (name, (far, pace)), start in zip(DRIFTS.items(), phase, strict=True)
        }
        shot["cx"] = shot["cx"] + drift["across"] * min(self.width, self.height) / self.size
        shot["cy"] = shot["cy"] + drift["down"] * self.height / self.size
        shot["scale"] = shot["scale"] * (1 + drift["lean"])
        who = {name: value.expand(n, 1, 1) for name, value in self.who.items()}
        return _face_draws.settle(who, shot, self.style)

    def shoot(self, number: Tensor, camera: bool) -> Iterator[Shot]:
        p = self.settled(number)
        sines = torch.cat([getattr(p, f"sin_{name}") for name in ("yaw", "pitch", "roll")], 1)[:, :, 0]
        pose = torch.rad2deg(torch.asin(sines)).numpy()
        sensor = _face_draws.mix(self.sensor + 1 + number)
        for k, frame in enumerate(number.tolist()):
            one = SimpleNamespace(**{name: value[k : k + 1] for name, value in vars(p).items()})
            image, points = self.paint(one, sensor[k : k + 1], camera)
            yield Shot(
                frame, frame / self.fps, image, points, five(points), face_box(points), pose[k], self.identity
            )  # fmt: skip

    def paint(self, p: SimpleNamespace, sensor: Tensor, camera: bool) -> tuple[np.ndarray, np.ndarray]:
        """A frame, uint8 H W 3, and its landmarks, 68 2."""
        size = self.size
        left = (self.width - size) / 2 + float(p.cx) * size
        top = EYE_LINE * self.height - MIDDLE * size + float(p.cy) * size
        # whole pixels move the square, and the rest moves the head in it
        column = min(max(round(left), 0), self.width - size)
        row = min(max(round(top), 0), self.height - size)
        p.cx, p.cy = p.cx * 0 + (left - column) / size, p.cy * 0 + (top - row) / size
        margins = (column, row, self.width - size - column, self.height - size - row)
        linear, _, _ = paint(p, size, margins, self.wall)
        x, y = landmarks(p)
        points = torch.stack((x * p.scale[:, 0] + p.cx[:, 0] + 0.5, y * p.scale[:, 0] + p.cy[:, 0] + MIDDLE), -1)[0]
        points = points * size + torch.tensor([column, row])
        side = max(self.width, self.height)
        x0, y0 = (side - self.width) // 2, (side - self.height) // 2
        wide = F.pad(linear, (x0, side - self.width - x0, y0, side - self.height - y0), mode="replicate")
        image = photograph(p, wide, sensor) if camera else store(expose(wide))
        image = image[0, :, y0 : y0 + self.height, x0 : x0 + self.width]
        return image.permute(1, 2, 0).contiguous().numpy(), points.double().numpy()


def face_box(points: np.ndarray) -> tuple[float, float, float, float]:
    """A face's box from its 68 landmarks: left, top, right, bottom; the forehead is a third of brows to chin."""
    (left, top), (right, bottom) = points.min(0), points.max(0)
    return float(left), float(top - (bottom - top) / 3), float(right), float(bottom)


def film(
    out: Path,
    shots: Iterator[Shot],
    fps: float = 25.0,
    *,
    tone: bool = False,
    marks: dict[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write shots as a video (H.264), and their truths beside it as OUT.landmarks.jsonl: what was written, for JSON.

    A line of the truths is {"source": OUT's name, "frame", "points": 68 pairs, "box", "score": 1.0, "identity",
    "pose"}: what `--locator given --landmarks` of `arena extract` and `arena swap` reads. `tone` adds a soft sound of
    440 Hz. `marks` go into the container beside "Synthetic: true". `progress` hears the number of frames done.

    Raises InputError where a file exists already, or cannot be written.
    """
    truths = out.with_name(f"{out.stem}.landmarks.jsonl")
    for path in (out, truths):
        if path.exists():
            raise InputError(f"{path} exists, and nothing is overwritten. Name another OUT.")
    like, count = Plain(Fraction(fps).limit_denominator(1001)), 0
    tags = {"title": "a synthetic person", **(marks or {})}
    with atomic(truths) as lines, (_Sounding if tone else Writer)(out, like, tags, synthetic="true") as writer:
        for shot in shots:
            writer.write(shot.image, shot.seconds)
            row = {"source": out.name, "frame": shot.number, "box": shot.box, "points": shot.landmarks.tolist()}
            row |= {"score": 1.0, "identity": shot.identity, "pose": shot.pose.tolist()}
            lines.write(json.dumps(_rounded(row)).encode() + b"\n")
            count += 1
            if progress:
                progress(count)
    return {"out": str(out), "landmarks": str(truths), "frames": count, "fps": float(like.rate), "sound": tone}


def _rounded(value: Any) -> Any:
    """Floats to a thousandth of a pixel or degree, in lists and dicts."""
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    return round(value, 3) if isinstance(value, float) else value


class _Tone(Silence):
    """A sound without a source: 440 Hz at a tenth of full scale, AAC."""

    RATE, HERTZ, BLOCK = 48000, 440, 1024
    end = 0.0  # seconds of picture so far

    def join(self, out: Any) -> None:
        self.out, self.stream, self.done = out, out.add_stream("aac", rate=self.RATE, layout="mono"), 0

    def pump(self, until: float | None) -> None:
        self.end = self.end if until is None else until
        while self.done < self.end * self.RATE:
            wave = 0.1 * np.sin(2 * np.pi * self.HERTZ / self.RATE * (self.done + np.arange(self.BLOCK)))
            frame = need("av").AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = self.RATE, self.done, Fraction(1, self.RATE)
            self.out.mux(self.stream.encode(frame))
            self.done += self.BLOCK
        if until is None:
            self.out.mux(self.stream.encode(None))


class _Sounding(Writer):
    """A writer whose video has a tone where its model has no sound."""

    def _sound_of(self, like: Video | Plain) -> Sound | Silence:
        return _Tone()

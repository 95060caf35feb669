"""Who finds the faces: one protocol, three ways (`--locator`).

mtcnn   Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
        2016, arXiv 1604.02878, by facenet-pytorch, whose wheel holds the weights: nothing to download. The default.
yunet   Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023, by OpenCV: faster and better, with a model
        file that the user brings (`--face-model` or $ARENA_FACE_MODEL).
given   points from a JSON Lines file (`--landmarks`): what a renderer knows, another program found, or an earlier
        extraction's faces.jsonl.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from arena.errors import InputError
from arena.faces import need

NAMES = ("mtcnn", "yunet", "given")
YUNET = "face_detection_yunet_2023mar.onnx (230 kB, MIT) from github.com/opencv/opencv_zoo, models/face_detection_yunet"
MOST_LINE, MOST_LINES = 1 << 16, 5_000_000
FARTHEST = 1e5  # pixels: no picture that is read is so wide

Places = Sequence[tuple[str, int]]  # of each frame: its source's name and its number there


@dataclass(frozen=True)
class Face:
    """A face in a picture, in its pixels (the first one's centre is 0.5)."""

    box: tuple[float, float, float, float]  # left, top, right, bottom
    points: (
        np.ndarray
    )  # float64 5 2: left and right eye, nose, left and right mouth corner, as an upright face has them
    score: float  # 0 to 1
    landmarks: np.ndarray | None = None  # float64 68 2 in iBUG's order, where they are known

    @property
    def area(self) -> float:
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


class FaceLocator(Protocol):
    """Finds the faces of frames (uint8 H W 3 each, of any sizes): for each frame a list, the largest face first."""

    name: str
    version: str

    def __call__(self, frames: Sequence[np.ndarray], places: Places | None = None) -> list[list[Face]]: ...


class MTCNN:
    """Three cascaded nets over a pyramid of scales; frames of one size go through them together.

    smallest: side in pixels of the smallest face to look for (time falls with its square); least: lowest score.
    """

    name = "mtcnn"

    def __init__(self, device: str = "cpu", smallest: float = 20, least: float = 0.9):
        package = need("facenet_pytorch")
        self.version = f"facenet-pytorch {version('facenet-pytorch')}"
        self.smallest, self.least = max(12.0, smallest), least
        self.net = package.MTCNN(keep_all=True, min_face_size=self.smallest, device=device).eval()

    def __call__(self, frames: Sequence[np.ndarray], places: Places | None = None) -> list[list[Face]]:
        found: list[list[Face]] = [[] for _ in frames]
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i, frame in enumerate(frames):
            if min(frame.shape[:2]) >= self.smallest:
                sizes.setdefault(frame.shape, []).append(i)
        for group in sizes.values():
            for i, faces in zip(group, self._batch(np.stack([frames[i] for i in group])), strict=True):
                found[i] = faces
        return found

    def _batch(self, frames: np.ndarray) -> list[list[Face]]:
        try:
            boxes, scores, points = self.net.detect(frames, landmarks=True)
        except RuntimeError as error:
            if "non-empty" not in str(error):
                raise
            if len(frames) == 1:  # facenet-pytorch trips where every candidate lies beyond the frame's edge
                return [[]]
            return [self._batch(frame[None])[0] for frame in frames]
        return [
            [] if box is None else _sorted(zip(box, point, score, strict=True), self.least)
            for box, point, score in zip(boxes, points, scores, strict=True)
        ]


class YuNet:
    """OpenCV's detector with a model file of the user's; one frame at a time on the CPU. least: lowest score."""

    name = "yunet"

    def __init__(self, model: Path | None = None, least: float = 0.7):
        cv2 = need("cv2")
        path = model or (Path(os.environ["ARENA_FACE_MODEL"]) if os.environ.get("ARENA_FACE_MODEL") else None)
        if path is None or not path.is_file():
            what = "needs its model file" if path is None else f"finds no model file at {path}"
            raise InputError(f"yunet {what}: give --face-model PATH or set ARENA_FACE_MODEL. It is {YUNET}.")
        try:
            self.net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), least)
        except (cv2.error, AttributeError) as error:
            raise InputError(
                f"{path} is no YuNet model that OpenCV {cv2.__version__} can read. Take {YUNET}."
            ) from error
        self.version = f"opencv {cv2.__version__}, model {_sha256(path)[:12]}"

    def __call__(self, frames: Sequence[np.ndarray], places: Places | None = None) -> list[list[Face]]:
        found = []
        for frame in frames:
            self.net.setInputSize((frame.shape[1], frame.shape[0]))
            rows = self.net.detect(np.ascontiguousarray(frame[..., ::-1]))[1]  # a picture in BGR
            rows = np.zeros((0, 15)) if rows is None else np.asarray(rows, float)
            # x, y, width, height; the five points, the picture's left first; score
            boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1)
            found.append(_sorted(zip(boxes, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14], strict=True), 0.0))
        return found


@dataclass
class Given:
    """Points that are known beforehand, one face a line of JSON.

    A line: {"source": name of the file, "frame": number (0), "points": 5 or 68 pairs x, y, "box": 4 numbers (optional),
    "score": (optional)}. Of 68 points (iBUG's order) the five are taken, and all kept. Raises InputError naming file
    and line.
    """

    path: Path
    name: str = "given"
    version: str = ""
    faces: dict[tuple[str, int], list[Face]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.version = f"{self.path.name} {_sha256(self.path)[:12]}"
        with self.path.open("rb") as file:
            for number in range(1, MOST_LINES + 2):
                line = file.readline(MOST_LINE + 1)
                if not line:
                    break
                where = f"{self.path}, line {number}"
                if len(line) > MOST_LINE or number > MOST_LINES:
                    raise InputError(f"{where}: too long; at most {MOST_LINES} lines of {MOST_LINE} bytes are read.")
                if line.strip():
                    self._add(line, where)
        for faces in self.faces.values():
            faces.sort(key=lambda face: -face.area)

    def __call__(self, frames: Sequence[np.ndarray], places: Places | None = None) -> list[list[Face]]:
        if places is None:
            raise InputError(f"points from {self.path.name} need to know which source and frame a picture is.")
        return [self.faces.get(place, []) for place in places]

    def _add(self, line: bytes, where: str) -> None:
        try:
            row = json.loads(line)
            source, number = row["source"], row.get("frame", 0)
            points, score = np.asarray(row["points"], float), float(row.get("score", 1.0))
            box = np.asarray(row.get("box") or _around(points), float)
            fine = isinstance(source, str) and type(number) is int and points.shape in ((5, 2), (68, 2))
            numbers = np.array([*points.ravel(), *box, score])
            fine = fine and box.shape == (4,) and bool((np.isfinite(numbers) & (np.abs(numbers) < FARTHEST)).all())
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, OverflowError):
            fine = False
        if not fine:
            raise InputError(
                f'{where}: expected {{"source": "name", "frame": 0, "points": [[x, y], ...]}}, 5 or 68 in pixels.'
            )
        known = points if len(points) == 68 else None
        faces = [replace(face, landmarks=known) for face in _sorted([(box, five(points), score)], 0.0)]
        self.faces.setdefault((source, number), []).extend(faces)


def locator(
    name: str = "mtcnn",
    *,
    device: str = "cpu",
    model: Path | None = None,
    landmarks: Path | None = None,
    smallest: float = 20,
) -> FaceLocator:
    """The locator of a name: mtcnn, yunet (with `model`) or given (with `landmarks`).

    smallest: side in pixels of the smallest face worth finding. Raises InputError for an unknown name, and where a
    package or a file is missing.
    """
    if name == "mtcnn":
        return MTCNN(device, smallest)
    if name == "yunet":
        return YuNet(model)
    if name == "given":
        if landmarks is None or not landmarks.is_file():
            raise InputError(
                f"--locator given takes its points from --landmarks FILE; {landmarks or 'none'} is no file."
            )
        return Given(landmarks)
    raise InputError(f"unknown locator {name!r}: use {', '.join(NAMES)}.")


def five(points: np.ndarray) -> np.ndarray:
    """Five points of 68 in iBUG's order (middle of each eye's six, tip of the nose, mouth's corners); five stay."""
    if len(points) == 5:
        return points
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def _sorted(found: Any, least: float) -> list[Face]:
    """Faces of (box, points, score) that make sense, the largest first."""
    faces = []
    for box, points, score in found:
        points = np.asarray(points, float)
        eyes = math.dist(points[0], points[1])
        if float(score) >= least and np.isfinite(points).all() and eyes > 1:
            left, top, right, bottom = (float(v) for v in box)
            faces.append(Face((left, top, right, bottom), points, min(1.0, float(score))))
    return sorted(faces, key=lambda face: -face.area)


def _around(points: np.ndarray) -> list[float]:
    """A box for points without one: theirs, wider by half on each side."""
    low, high = points.min(0), points.max(0)
    return [*(low - (high - low) / 2), *(high + (high - low) / 2)]


def _sha256(path: Path) -> str:
    import hashlib

    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error

"""A trained detector at work: is this picture, or this video, a fake?"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from arena.config import DataConfig
from arena.data import decode, media
from arena.data.codec import store_as
from arena.data.media import Media
from arena.data.videos import Window, reason, starts, windows_of
from arena.errors import InputError
from arena.faces.video import open_video
from arena.player import frozen_threshold, open_player
from arena.training import place, to_float

MOST_WINDOWS = 64  # of a video, unless somebody asks for more
AHEAD_BYTES = 1 << 28  # of pictures that wait for the detector

Count = int | Literal["all"] | None  # windows of a video; None: as many as fit, at most MOST_WINDOWS


class WindowScore(NamedTuple):
    start: int  # first frame, from 0
    seconds: float
    logit: float


@dataclass(frozen=True)
class VideoScore:
    """logit: the mean of the windows'. top: the window most like a fake, uint8 T 3 s s. lost: frames not decoded."""

    logit: float
    windows: tuple[WindowScore, ...]
    top: Tensor
    n_frames: int
    fps: float
    lost: int


class Scorer:
    """A detector from a run folder or a checkpoint, with all that scoring takes: logits are high for fakes.

    threshold: the logit at or above which something is called fake: that frozen on the run's validation split, 0 where
    the run has frozen none yet, or the one given; `threshold_from` says which. size: side of a picture, px. frames: 1
    for a detector of stills. batch: pictures (frames of clips) at a time. Pictures and videos are brought to the
    training's size by its filter, crop and codec.
    Raises InputError for a path that holds no detector.
    """

    def __init__(
        self,
        path: Path | str,
        device: str | torch.device = "cpu",
        batch: int = 64,
        *,
        threshold: float | None = None,
        size: int | None = None,
    ):
        self.opened = open_player(Path(path), "detector")
        self.detector, self.device, self.batch = self.opened.player, torch.device(device), batch
        place(self.detector, self.device)
        self.frames: int = self.detector.frames
        self.data: DataConfig = self.opened.config.data
        self.size = size or self.data.size
        self.threshold, self.threshold_from = self._threshold(Path(path)) if threshold is None else (threshold, "given")

    def score_images(self, images: Tensor | np.ndarray) -> np.ndarray:
        """Logits, float64 n, of pictures uint8 n 3 s s. A detector of clips sees each as a clip of one frame."""
        images = torch.as_tensor(images)
        return self._logits(images if self.frames == 1 else images[:, None], self.batch)

    def score_windows(self, images: Tensor | np.ndarray) -> np.ndarray:
        """Logits, float64 W, of windows uint8 W T 3 s s; of a detector of stills the means of their frames'."""
        images = torch.as_tensor(images)
        count, frames = images.shape[:2]
        if self.frames == 1:
            return self._logits(images.flatten(0, 1), self.batch).reshape(count, frames).mean(1)
        return self._logits(images, max(1, self.batch // frames))

    def read_image(self, path: Path) -> Tensor:
        """A picture as the detector wants it, uint8 3 s s. Raises BadImage. Safe in threads."""
        image = decode.read(path, self.data.max_pixels)
        pixels = torch.from_numpy(decode.fitted(image, self.size, self.data.resize).copy()).permute(2, 0, 1)
        return store_as(pixels[None], self.data.codec)[0]

    def score_video(self, path: Path | str, windows: Count = None, tally: "Tally | None" = None) -> VideoScore:
        """Score a video: windows evenly over its whole length, of a detector of stills single frames.

        windows: how many (they overlap in a short video); "all" that fit without overlap; None: the same, but at most
        64. Of a long video no more than a batch is in memory. A window that lies wholly behind the last frame that can
        be decoded counts only where there is no other. Raises InputError for a file that cannot be read.
        """
        tally = tally or Tally()
        data, video = self.data, open_video(path)
        fit = len(starts(video.count, self.frames, None, data.every))
        count = windows if isinstance(windows, int) else fit if windows == "all" else min(fit, MOST_WINDOWS)
        found = windows_of(
            video, frames=self.frames, windows=count,
            every=data.every, size=self.size, crop=data.crop, resize=data.resize, max_pixels=data.max_pixels,
        )  # fmt: skip
        scores: list[WindowScore] = []
        top = (-np.inf, torch.empty(0))
        while lot := self._lot(found, bool(scores), tally):
            images = store_as(torch.from_numpy(np.stack([window.images for window in lot])), data.codec)
            with tally.timing("scoring"):
                logits = self.score_windows(images)
            best = int(logits.argmax())
            if not scores or logits[best] > top[0]:
                top = (logits[best], images[best].clone())
            scores += [WindowScore(w.start, w.seconds, float(z)) for w, z in zip(lot, logits, strict=True)]
            tally.frames += images.shape[0] * images.shape[1]
        mean = float(np.mean([score.logit for score in scores]))
        return VideoScore(mean, tuple(scores), top[1], video.count, float(video.rate), video.lost)

    def _lot(self, windows: Iterator[Window], begun: bool, tally: "Tally") -> list[Window]:
        """The next windows, a batch of frames; not those that lie wholly behind the end, save where they are all."""
        lot: list[Window] = []
        with tally.timing("decoding"):
            for window in windows:
                if window.padded < self.frames or not (lot or begun):
                    lot.append(window)
                if len(lot) * self.frames >= self.batch:
                    break
        return lot

    def _logits(self, items: Tensor, batch: int) -> np.ndarray:
        if not len(items):
            return np.zeros(0)
        try:
            with torch.inference_mode():
                found = [self.detector.score(to_float(some.to(self.device))).double() for some in items.split(batch)]
                return torch.cat(found).cpu().numpy()
        except (RuntimeError, AssertionError) as error:
            shown = " ".join(str(error).split())[:120]
            raise InputError(
                f"the detector cannot score images of {items.shape[-1]} px, {batch} at a time ({shown}). Take the size"
                f" it was trained on ({self.data.size}), or a smaller --batch-size."
            ) from error

    def _threshold(self, path: Path) -> tuple[float, str]:
        value = frozen_threshold(path, self.opened)
        if value is None:
            return 0.0, "0, for the run has not frozen one for these weights"
        return value, f"frozen on the validation split of round {self.opened.marks['Round']}"


class Result(NamedTuple):
    """What became of a file. pixels: what the detector saw of it (of a video its top window), uint8 T 3 s s."""

    file: Media
    kind: str = ""
    logit: float = float("nan")
    windows: tuple[WindowScore, ...] = ()
    pixels: Tensor | None = None
    error: str = ""


@dataclass
class Tally:
    """What went through a detector, and the seconds spent on waiting for decoded pictures, and on scoring them."""

    images: int = 0
    videos: int = 0
    frames: int = 0  # of the videos
    lost: int = 0  # of these, frames that could not be decoded
    seconds: dict[str, float] = field(default_factory=lambda: {"decoding": 0.0, "scoring": 0.0})

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - began


def detect(
    scorer: Scorer, files: Iterable[Media], windows: Count = None, tally: Tally | None = None
) -> Iterator[Result]:
    """Score files one after the other, in their order: a result each, an error where one cannot be read.

    Pictures of many files go through the detector in one batch while threads decode the next ones.
    """
    tally = tally or Tally()
    ahead = min(2 * scorer.batch, AHEAD_BYTES // (3 * scorer.size**2))
    results = decode.in_threads(partial(_read, scorer), files, ahead=ahead)
    waiting: list[Result] = []

    def scored() -> Iterator[Result]:
        """The waiting files: all their pictures in one batch."""
        pictures = [result.pixels for result in waiting if result.pixels is not None]
        tally.images += len(pictures)
        with tally.timing("scoring"):
            logits = iter(scorer.score_images(torch.cat(pictures)) if pictures else ())
        for result in waiting:
            yield result if result.pixels is None else result._replace(logit=float(next(logits)))
        waiting.clear()

    while True:
        with tally.timing("decoding"):
            result = next(results, None)
        if result is None:
            break
        if result.kind == "video" and not result.error:
            yield from scored()
            yield _video(scorer, result, windows, tally)
            continue
        waiting.append(result)
        if len(waiting) >= scorer.batch:
            yield from scored()
    yield from scored()


def _read(scorer: Scorer, file: Media) -> Result:
    """A picture's pixels; of a video so far that it is one."""
    kind = ""
    try:
        kind = media.kind(file.path)
        return Result(file, kind, pixels=scorer.read_image(file.path)[None] if kind == "image" else None)
    except (InputError, decode.BadImage) as error:
        return Result(file, kind, error=_short(file, error))


def _video(scorer: Scorer, result: Result, windows: Count, tally: Tally) -> Result:
    try:
        found = scorer.score_video(result.file.path, windows, tally)
    except InputError as error:
        return result._replace(error=_short(result.file, error))
    tally.videos += 1
    tally.lost += found.lost
    return result._replace(logit=found.logit, windows=found.windows, pixels=found.top)


def _short(file: Media, error: Exception) -> str:
    return reason(file.path, error).replace(" (--max-pixels)", "").replace("--max-pixels", "shrink it")

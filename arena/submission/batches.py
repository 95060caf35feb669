"""Images through a stranger's detector, batch by batch: one logit an item, whatever the detector's own rank."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO

import numpy as np

from arena.submission.worker import Answer, Refused

Detector = Callable[[np.ndarray], np.ndarray]
ALONE = 2  # items that are scored once more, each by itself
FAR = float(np.finfo(np.float32).max)  # JSON has no infinity


def opened(file: str | Path) -> np.ndarray:
    """Images, uint8 N 3 S S, or clips, N F 3 S S, read as they are asked for."""
    images = np.load(file, mmap_mode="r", allow_pickle=False)
    if images.dtype != np.uint8 or images.ndim not in (4, 5):
        raise Refused(f"expected images as uint8 N 3 S S or N F 3 S S, got {images.dtype} {images.shape}")
    return images


def score(detector: Detector, rank: int, images: Sequence[str], batch: int, out: BinaryIO) -> Answer:
    """Logits, float32, of all items of the files in order, and counts, milliseconds and what else was seen.

    detector: float32 B 3 S S (rank 4) or B T 3 S S (rank 5) in [-1, 1] -> B. A clip before a detector of stills gets
    the mean of its frames' logits; a still before a detector of clips is a clip of one frame. batch: frames at once.
    """

    def logits_of(items: np.ndarray) -> np.ndarray:
        floats = items.astype(np.float32) / np.float32(127.5) - np.float32(1)
        if rank == 4 and items.ndim == 5:
            frames = floats.reshape(-1, *items.shape[2:])
            return one_each(detector(frames), len(frames)).reshape(items.shape[:2]).mean(1)
        return one_each(detector(floats[:, None] if rank > items.ndim else floats), len(items))

    counts: list[int] = []
    milliseconds: list[float] = []
    difference, not_finite = 0.0, 0
    for number, file in enumerate(images):
        items = opened(file)
        step = max(1, batch // (items.shape[1] if items.ndim == 5 else 1))
        for start in range(0, len(items), step):
            part = items[start : start + step]
            began = time.perf_counter()
            logits = logits_of(part)
            milliseconds.append(1000 * (time.perf_counter() - began) / len(part))
            not_finite += int((~np.isfinite(logits)).sum())
            out.write(logits.astype(np.float32).tobytes())
            if number == start == 0:
                alone = np.concatenate([logits_of(part[i : i + 1]) for i in range(min(ALONE, len(part)))])
                difference = _apart(logits[: len(alone)], alone)
        counts.append(len(items))
    about: dict[str, Any] = {
        "counts": counts,
        "milliseconds_per_item": median(milliseconds[1:] or milliseconds or [0.0]),  # the first one warms up
        "not_finite": not_finite,
        "batch_difference": difference,
    }
    return about, ("float32", (sum(counts),))


def one_each(output: np.ndarray, count: int) -> np.ndarray:
    """A detector's output as float32 B. Raises Refused where it is anything else than one value an item."""
    if output.dtype != np.float32:
        raise Refused(f"expected logits of float32, got {output.dtype}")
    if output.size != count or output.shape[:1] != (count,):
        raise Refused(f"expected one logit an image, {count} for a batch of {count}, got the shape {output.shape}")
    return output.reshape(count)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0, np.abs(one.astype(np.float64) - other))
    return float(np.nan_to_num(apart, nan=FAR, posinf=FAR).max(initial=0))

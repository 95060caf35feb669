"""The search for a threshold, and the reading of a video's windows, each beside what one would otherwise take.

    python benchmarks/thresholds_videos.py

Thresholds: arena.metrics.detection.best_threshold against trying every score as the threshold (numpy, quadratic, as
detection code often does), and against Youden's J on scikit-learn's ROC curve. All three must find the same accuracy.
Videos: arena.data.videos.read_windows (4 windows of 8 frames, 64 px) against decoding every frame with imageio's PyAV
plugin and with OpenCV and resizing the frames that are wanted. CPU seconds, interleaved, median of five.
"""

import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from arena.data.decode import fitted
from arena.data.videos import read_windows, starts
from arena.metrics.detection import best_threshold
from arena.provenance import cpu_name


def main() -> None:
    print(f"{date.today()}, {cpu_name()}, {torch.get_num_threads()} threads\n")
    print("| scores | ours, s | every score, s | ratio | scikit-learn, s | ratio |\n|---|---|---|---|---|---|")
    for n in (2_000, 4_000, 8_000, 16_000):
        rng = np.random.default_rng(n)
        real, fake = rng.normal(0, 1, n // 2), rng.normal(1, 1, n // 2)
        found, seconds = race([partial(find, real, fake) for find in (best_threshold, tried, youden)])
        reached = [balanced(real, fake, threshold) for threshold in found]
        assert max(reached) - min(reached) < 1e-9, reached
        ours, every, sklearn = seconds
        print(f"| {n:,} | {ours:.4f} | {every:.3f} | {every / ours:.0f} | {sklearn:.4f} | {sklearn / ours:.1f} |")

    print("\n| video | windows, s | imageio, all frames, s | ratio | OpenCV, all frames, s | ratio |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for width, height, frames in ((360, 288, 75), (640, 360, 250), (1280, 720, 250)):
            path = film(Path(folder) / f"{height}.mp4", width, height, frames)
            wanted = {start + k for start in starts(frames, 8, 4) for k in range(8)}
            runs = [
                lambda path=path: read_windows(path, frames=8, windows=4, size=64).images,
                lambda path=path, wanted=wanted: by_imageio(path, wanted),
                lambda path=path, wanted=wanted: by_opencv(path, wanted),
            ]
            (ours, theirs, others), seconds = race(runs)
            assert ours.flatten(0, 1).shape[0] == len(theirs) == len(others)
            a, b, c = seconds
            print(f"| {width} x {height}, {frames} frames | {a:.2f} | {b:.2f} | {b / a:.1f} | {c:.2f} | {c / a:.1f} |")


def race(runs: list[Callable[[], Any]], turns: int = 5) -> tuple[list[Any], list[float]]:
    found, seconds = [run() for run in runs], [[] for _ in runs]
    for _ in range(turns):
        for run, spent in zip(runs, seconds, strict=True):
            began = time.process_time()
            run()
            spent.append(time.process_time() - began)
    return found, [median(spent) for spent in seconds]


def balanced(real: np.ndarray, fake: np.ndarray, threshold: float) -> float:
    return float((np.mean(fake >= threshold) + np.mean(real < threshold)) / 2)


def tried(real: np.ndarray, fake: np.ndarray) -> float:
    return max(np.concatenate([real, fake]), key=lambda threshold: balanced(real, fake, threshold))


def youden(real: np.ndarray, fake: np.ndarray) -> float:
    from sklearn.metrics import roc_curve

    labels = np.r_[np.zeros(len(real)), np.ones(len(fake))]
    fpr, tpr, thresholds = roc_curve(labels, np.concatenate([real, fake]), drop_intermediate=False)
    return float(thresholds[np.argmax(tpr - fpr)])


def film(path: Path, width: int, height: int, frames: int) -> Path:
    import imageio.v3 as iio

    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (height // 8, width // 8 + frames, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    shots = (scene[:height, 2 * i : 2 * i + width] for i in range(frames))
    iio.imwrite(path, np.stack(list(shots)), plugin="pyav", codec="libx264", fps=25)
    return path


def by_imageio(path: Path, wanted: set[int]) -> list[np.ndarray]:
    import imageio.v3 as iio

    return [small(frame) for i, frame in enumerate(iio.imiter(path, plugin="pyav")) if i in wanted]


def by_opencv(path: Path, wanted: set[int]) -> list[np.ndarray]:
    import cv2

    cv2.setNumThreads(1)
    video, found, i = cv2.VideoCapture(str(path)), [], 0
    while True:
        fine, frame = video.read()
        if not fine:
            return found
        if i in wanted:
            found.append(small(frame[:, :, ::-1]))
        i += 1


def small(frame: np.ndarray) -> np.ndarray:
    from PIL import Image

    return fitted(Image.fromarray(np.ascontiguousarray(frame)), 64)


if __name__ == "__main__":
    main()

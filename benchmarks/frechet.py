"""The Fréchet distance at 2048 dims, beside pytorch-fid's: one process, one thread, turn about, CPU seconds.

    python benchmarks/frechet.py [ROUNDS]

The features are synthetic and Inception-like (correlated, not negative); fakes and reals differ by a small shift. Both
sides get what they want to hold: pytorch-fid means and covariances (their making is not counted), ours the reals as a
Reference that the rounds share. "fresh" builds that Reference anew within the time, "from features" counts the fakes'
covariance too. The true value is taken from the singular values of the two centred feature matrices (N <= d), or of the
two Cholesky factors.
"""
# ruff: noqa: E402 - the number of threads is read when numpy is imported

import os

for _pool in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_pool}_NUM_THREADS"] = "1"

import datetime
import platform
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pytorch_fid.fid_score import calculate_frechet_distance
from scipy.linalg import svdvals

from arena.metrics.frechet import Reference, frechet_distance, frechet_from_statistics

D = 2048
TARGETS = {256: 1000, 2048: 10, 10_000: 10}


def features(n: int, seed: int, shift: float) -> np.ndarray:
    mixing = np.random.default_rng(0).normal(size=(D, D)) * np.arange(1, D + 1) ** -0.5 / 8
    return np.maximum(np.random.default_rng(seed).normal(size=(n, D)) @ mixing.T + 0.3 + shift, 0)


def exact(real: np.ndarray, fake: np.ndarray) -> float:
    def factor(rows: np.ndarray) -> np.ndarray:
        centred = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
        return centred if len(rows) <= D else np.linalg.cholesky(centred.T @ centred).T

    a, b = factor(real), factor(fake)
    shift = real.mean(0) - fake.mean(0)
    return float(shift @ shift + (a**2).sum() + (b**2).sum() - 2 * svdvals(a @ b.T).sum())


def timed(call: Callable[[], float]) -> tuple[float, float]:
    start = time.process_time()
    value = call()
    return time.process_time() - start, float(value)


def main(rounds: int) -> None:
    warnings.simplefilter("ignore")  # scipy 1.17 on sqrtm's arguments
    cpu = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")][:1]
    print(f"{', '.join(cpu) or platform.processor()}, 1 thread, Python {platform.python_version()},", end=" ")
    print(", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "pytorch-fid")), datetime.date.today())
    print(f"d = {D}, CPU seconds, the least of {rounds} interleaved rounds; error = relative, against singular values")
    print(f"{'N':>6}  {'':<24}{'CPU s':>9}{'times faster':>14}{'error':>10}{'distance':>11}")
    for n, target in TARGETS.items():
        real, fake = features(n, 1, 0.0), features(n, 2, 0.05)
        truth = exact(real, fake)
        statistics = [(rows.mean(0), np.cov(rows, rowvar=False)) for rows in (real, fake)]
        reals, fakes = Reference(real), Reference.from_statistics(*statistics[1])
        calls: dict[str, Callable[[], float]] = {
            "pytorch-fid": partial(calculate_frechet_distance, *statistics[0], *statistics[1]),
            "ours": partial(reals.distance, fake if n <= D else fakes),
        }
        if n > D:
            _ = reals.factor
            calls["ours, fresh"] = partial(frechet_from_statistics, *statistics[0], *statistics[1])
            calls["ours, from features"] = partial(reals.distance, fake)
        else:
            calls["ours, fresh"] = partial(frechet_distance, real, fake)
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                results[name].append(timed(call))
        peer = min(results["pytorch-fid"])[0]
        for name, found in results.items():
            seconds, value = min(found)
            ratio = peer / seconds
            verdict = f" (target {target}: {'met' if ratio >= target else 'MISSED'})" if name == "ours" else ""
            error = abs(value / truth - 1)
            print(f"{n:>6}  {name:<24}{seconds:>9.4f}{ratio:>14.1f}{error:>10.0e}{value:>11.4f}{verdict}", flush=True)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)

"""KID at N = 4000, d = 2048, beside torch-fidelity's: one process, one thread, turn about, CPU seconds.

    pip install --no-deps --target PEER torch-fidelity && PYTHONPATH=PEER python benchmarks/kid.py [ROUNDS]

torch-fidelity averages 100 random subsets of 1000; ours takes every pair once, so it has no noise of drawing. Both get
the same float32 features, correlated and not negative, as Inception's are. `float32` multiplies in float32 and sums in
float64; `truth` is a plain double sum over every pair in float64. ours with interval: the jackknife's over both sides.
"""
# ruff: noqa: E402 - the number of threads is read when numpy is imported

import os

for _pool in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_pool}_NUM_THREADS"] = "1"

import datetime
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from arena.metrics.intervals import kernel_interval
from arena.metrics.kernel import KernelReference, kid

N, D, TARGET = 4000, 2048, 5.0


def features(seed: int, shift: float) -> np.ndarray:
    mixing = np.random.default_rng(0).normal(size=(D, D)) * np.arange(1, D + 1) ** -0.5 / 8
    rows = np.random.default_rng(seed).normal(size=(N, D)) @ mixing.T + 0.3 + shift
    return np.maximum(rows, 0).astype(np.float32)


def brute(real: np.ndarray, fake: np.ndarray) -> float:
    def total(x: np.ndarray, y: np.ndarray, own: bool) -> float:
        sums = 0.0
        for start in range(0, len(x), 500):
            k = (x[start : start + 500] @ y.T / D + 1) ** 3
            sums += k.sum() - (np.trace(k[:, start : start + 500]) if own else 0.0)
        return sums / (len(x) * (len(y) - own))

    x, y = real.astype(np.float64), fake.astype(np.float64)
    return total(x, x, True) + total(y, y, True) - 2 * total(x, y, False)


def timed(call: Callable[[], float]) -> tuple[float, float]:
    start = time.process_time()
    value = call()
    return time.process_time() - start, float(value)


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    real, fake = features(1, 0.0), features(2, 0.01)
    truth = brute(real, fake)
    tensors = torch.from_numpy(fake), torch.from_numpy(real)
    seeds = iter(range(10**6))

    def peer() -> float:
        found = kid_features_to_metric(
            *tensors, kid_subsets=100, kid_subset_size=1000, rng_seed=next(seeds), verbose=False
        )
        return found["kernel_inception_distance_mean"]

    ready = KernelReference(real, np.float32)
    _ = ready.pairs
    calls: dict[str, Callable[[], float]] = {
        "torch-fidelity, 100 x 1000": peer,
        "ours, float32": partial(kid, real, fake, np.float32),
        "ours, float32, reference ready": partial(ready.distance, fake),
        "ours, float32, with interval": lambda: kernel_interval(KernelReference(real, np.float32), fake)[0],
        "ours, float64": partial(kid, real, fake),
    }
    names = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch", "torch-fidelity"))
    print(
        f"{platform.processor() or platform.machine()}, 1 thread, Python {platform.python_version()}, {names},", end=" "
    )
    print(datetime.date.today())
    print(f"N = {N}, d = {D}, CPU seconds, the least of {rounds} interleaved rounds; KID of every pair {truth:.6e}")
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            results[name].append(timed(call))
    slow = min(results["torch-fidelity, 100 x 1000"])[0]
    for name, found in results.items():
        seconds = min(found)[0]
        error = max(abs(value / truth - 1) for _, value in found)
        ratio = slow / seconds
        verdict = f" (target {TARGET:g}: {'met' if ratio >= TARGET else 'MISSED'})" if name == "ours, float32" else ""
        print(f"{name:<32}{seconds:>8.3f}{ratio:>8.1f}  error {error:.0e}{verdict}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)

"""An AUC's interval at N = 10,000: DeLong's beside the bootstrap of scikit-learn's AUC, B = 1000.

    python benchmarks/delong.py [ROUNDS]

One process, one thread, turn about, CPU seconds. The bootstrap draws reals and fakes anew, apart, 1000 times.
"""
# ruff: noqa: E402 - the number of threads is read when numpy is imported

import os

for _pool in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_pool}_NUM_THREADS"] = "1"

import datetime
import platform
import sys
import time
from importlib.metadata import version

import numpy as np
from sklearn.metrics import roc_auc_score

from arena.metrics.detection import auc, delong, delong_variance

PER_CLASS, B, TARGET = 5000, 1000, 500.0


def bootstrap(real: np.ndarray, fake: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    label = np.r_[np.zeros(len(real)), np.ones(len(fake))]
    draws = (np.r_[rng.choice(real, len(real)), rng.choice(fake, len(fake))] for _ in range(B))
    return np.array([roc_auc_score(label, scores) for scores in draws])


def main(rounds: int) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=PER_CLASS), rng.normal(1.0, 1.0, PER_CLASS)
    label, scores = np.r_[np.zeros(PER_CLASS), np.ones(PER_CLASS)], np.r_[real, fake]
    spent: dict[str, list[float]] = {name: [] for name in ("bootstrap", "DeLong", "AUC, scikit-learn", "AUC, ours")}
    for _ in range(rounds):
        began = time.process_time()
        drawn = bootstrap(real, fake, rng)
        spent["bootstrap"].append(time.process_time() - began)
        for name, call, turns in (
            ("DeLong", lambda: delong(real, fake), 50),
            ("AUC, scikit-learn", lambda: roc_auc_score(label, scores), 20),
            ("AUC, ours", lambda: auc(real, fake), 50),
        ):
            began = time.process_time()
            for _ in range(turns):
                call()
            spent[name].append((time.process_time() - began) / turns)
    names = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scikit-learn"))
    print(
        f"{platform.processor() or platform.machine()}, 1 thread, Python {platform.python_version()}, {names},", end=" "
    )
    print(datetime.date.today())
    print(f"N = {2 * PER_CLASS}, CPU seconds, the least of {rounds} interleaved rounds")
    for name, found in spent.items():
        print(f"{name:<20}{min(found):>10.5f}")
    ratio = min(spent["bootstrap"]) / min(spent["DeLong"])
    print(f"DeLong {ratio:.0f} times faster (target {TARGET:g}: {'met' if ratio >= TARGET else 'MISSED'})")
    value, low, high = delong(real, fake)
    quantiles = np.quantile(drawn, (0.025, 0.975))
    print(f"AUC {value:.5f}: DeLong {low:.4f} to {high:.4f}, bootstrap {quantiles[0]:.4f} to {quantiles[1]:.4f}")
    print(f"standard error: DeLong {delong_variance(real, fake) ** 0.5:.5f}, bootstrap {drawn.std(ddof=1):.5f}")
    print(f"AUC against scikit-learn: {abs(auc(real, fake) - roc_auc_score(label, scores)):.0e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)

"""The lines of the quality panel: what each looks at, how it compares two sets, and which direction is better."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from arena.metrics.features import Extractor, Spectrum
from arena.metrics.frechet import Reference
from arena.metrics.inception_score import SPLITS, class_weights, inception_score
from arena.metrics.intervals import Interval, frechet_interval, kernel_interval
from arena.metrics.kernel import KernelReference
from arena.metrics.manifold import manifold_scores
from arena.metrics.swd import Patches, Sliced, sides

LOWER, HIGHER, NEAR_1 = "lower", "higher", "near 1"
MANIFOLD = {"precision": HIGHER, "recall": HIGHER, "density": NEAR_1, "coverage": HIGHER}

Score = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """One comparison of two sets, and the figures that come of it (mostly one, of the same name).

    `reference` makes of the reals' rows what is kept; `compare` of it, the fakes' rows and the images' shorter side
    gives each figure's `value`, `low`, `high` and what else is known; `floor` of it and other reals' rows each figure's
    value. `fewest` images a set.
    """

    name: str
    extractor: Extractor
    better: Mapping[str, str]  # by figure: "lower", "higher" or "near 1"
    reference: Callable[[Tensor], Any]
    compare: Callable[[Any, Tensor, int], dict[str, Score]]
    floor: Callable[[Any, Tensor], dict[str, float]]
    fewest: int = 3


def frechet(extractor: Extractor) -> Measure:
    return _distance(extractor.distance, extractor, Reference, frechet_interval)


def kernel(extractor: Extractor) -> Measure:
    """KID. Features come in float32 and are multiplied so, which is 2.2 times as fast as in float64."""
    reference = partial(KernelReference, dtype=np.float32)
    return _distance(f"kid-{extractor.name}", extractor, reference, kernel_interval)


def spectrum(extractor: Spectrum) -> Measure:
    """The spectrum distance, with the two curves that it compares as `curve` (see `Curves`)."""

    def compare(kept: Curves, rows: Tensor, size: int) -> dict[str, Score]:
        return {"sfd": {**_figures(frechet_interval(kept.reference, rows)), "curve": kept.beside(rows, size)}}

    return Measure("sfd", extractor, {"sfd": LOWER}, Curves, compare, lambda kept, rows: {"sfd": kept.distance(rows)})


class Curves:
    """Reals' azimuthal spectra: the reference of the spectrum distance, and the mean curve for a plot."""

    def __init__(self, rows: Tensor):
        self.rows, self.reference = np.asarray(rows, dtype=np.float64), Reference(rows)

    def distance(self, rows: Tensor) -> float:
        return self.reference.distance(rows)

    def beside(self, rows: Tensor, size: int) -> dict[str, list[float]]:
        """`frequency` in cycles per pixel; per frequency the mean of the images' power in decibels (0 dB: variance 1 of
        an image in [-1, 1]): `fakes`, `reals`, and `reals_low`, `reals_high`, which hold 80 % of the single reals.
        """
        fakes = np.asarray(rows, dtype=np.float64)
        low, high = np.quantile(self.rows, (0.1, 0.9), axis=0)
        curves = {"fakes": fakes.mean(0), "reals": self.rows.mean(0), "reals_low": low, "reals_high": high}
        decibels = 10 / np.log(10)
        found = {name: (decibels * curve).round(2).tolist() for name, curve in curves.items()}
        return {"frequency": (np.arange(1, fakes.shape[1] + 1) / size).round(4).tolist(), **found}


def manifold(extractor: Extractor, k: int = 5, k_pr: int = 3) -> Measure:
    """Precision, recall (`k_pr` neighbours), density and coverage (`k`) in one set of features."""

    def scores(reals: NDArray, rows: Tensor, size: int = 0) -> dict[str, Score]:
        found = manifold_scores(reals, rows, k, k_pr)
        return {f"{name}-{extractor.name}": _figures(interval) for name, interval in found.items()}

    better = {f"{name}-{extractor.name}": direction for name, direction in MANIFOLD.items()}
    fewest = max(k, k_pr) + 3
    return Measure(
        f"manifold-{extractor.name}", extractor, better, np.asarray, scores, partial(_values, scores), fewest
    )


def sliced(extractor: Patches) -> Measure:
    """Sliced Wasserstein distance, its mean over the bands; `levels` has every band's own, by the band's side in px."""
    name = extractor.distance

    def compare(kept: Sliced, rows: Tensor, size: int) -> dict[str, Score]:
        interval, of_bands = kept.interval(rows)
        levels = {str(side): far for side, far in zip(sides(size), of_bands, strict=True)}
        return {name: {**_figures(interval), "levels": levels}}

    def reference(rows: Tensor) -> Sliced:
        return Sliced(rows, extractor.count, extractor.directions)

    return Measure(name, extractor, {name: LOWER}, reference, compare, lambda kept, rows: {name: kept.distance(rows)})


def inception(extractor: Extractor, weights: str | Path) -> Measure:
    """Inception Score from FID's features and its network's last layer, read from the file of its weights."""
    classes = class_weights(weights)

    def compare(kept: NDArray, rows: Tensor, size: int = 0) -> dict[str, Score]:
        value, low, high, sd = inception_score(np.asarray(rows, dtype=np.float64) @ kept.T)
        return {"is": {**_figures((value, low, high)), "sd": sd, "splits": SPLITS}}

    return Measure("is", extractor, {"is": HIGHER}, lambda _: classes, compare, partial(_values, compare), 4)


def _distance(
    name: str,
    extractor: Extractor,
    reference: Callable[[Any], Any],
    interval: Callable[[Any, Any], Interval],
) -> Measure:
    def compare(kept: Any, rows: Tensor, size: int) -> dict[str, Score]:
        return {name: _figures(interval(kept, rows))}

    return Measure(name, extractor, {name: LOWER}, reference, compare, lambda kept, rows: {name: kept.distance(rows)})


def _values(compare: Callable[[Any, Tensor], dict[str, Score]], kept: Any, rows: Tensor) -> dict[str, float]:
    return {name: score["value"] for name, score in compare(kept, rows).items()}


def _figures(interval: Interval) -> Score:
    return dict(zip(("value", "low", "high"), interval, strict=True))

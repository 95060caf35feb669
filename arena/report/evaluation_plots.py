"""The plots of an evaluation, in the report's style (arena/report/plots.py): ROC, reliability, AUC under conditions."""

from collections.abc import Mapping, Sequence
from typing import Any

from arena.report.ledger_view import Estimate
from arena.report.plots import STAND_IN, WIDE, WIDTH, as_svg, new_figure

DOTTED = (0, (1, 2))
Series = tuple[str, str, Sequence[tuple[float, Estimate]]]  # colour, line style, (place, figure) ...


def roc_plot(curves: Sequence[tuple[str, str, Mapping[str, Any]]], point: tuple[float, float]) -> str:
    """ROC curves, (colour, style, {fpr, tpr, band}) each, with bands; the frozen threshold as a point (FPR, TPR)."""
    figure, axes = _square()
    for ink, _, curve in curves:
        if band := curve.get("band"):
            axes.fill_between(band["fpr"], band["low"], band["high"], color=STAND_IN[ink], alpha=0.16, linewidth=0)
    for ink, style, curve in curves:
        axes.plot(curve["fpr"], curve["tpr"], style, color=STAND_IN[ink], linewidth=1.6)
    axes.plot(*point, "o", color=STAND_IN["ink"], markersize=5, markeredgewidth=0, zorder=3)
    axes.set_xlabel("share of reals called fake (FPR)")
    axes.set_ylabel("share of fakes found (TPR)")
    return as_svg(figure)


def reliability_plot(bins: Sequence[Mapping[str, float]], ink: str) -> str:
    """Share of fakes against mean probability of bins of equal mass, with intervals; perfect is the diagonal."""
    figure, axes = _square()
    x, y = [entry["confidence"] for entry in bins], [entry["share"] for entry in bins]
    axes.vlines(x, [b["low"] for b in bins], [b["high"] for b in bins], color=STAND_IN[ink], linewidth=1.1, alpha=0.6)
    axes.plot(x, y, "o-", color=STAND_IN[ink], linewidth=1.2, markersize=4.2, markeredgewidth=0)
    axes.set_xlabel("probability of fake that the detector gives")
    axes.set_ylabel("share that is fake")
    return as_svg(figure)


def curve_plot(
    series: Sequence[Series],
    ticks: Sequence[tuple[float, str]],
    label: str,
    limits: tuple[float, float],
    *,
    falling: bool = False,
    width: float = WIDTH,
) -> str:
    """AUC under rising strength of one perturbation, intervals as bars; `falling`: stronger means a smaller number."""
    figure, axes = new_figure(0.3 + 0.52 * width, width)
    axes.axhline(0.5, color=STAND_IN["muted"], linewidth=0.9, linestyle=DOTTED)
    ends = [place for place, _ in ticks]
    spare = 0.06 * (max(ends) - min(ends)) or 1.0
    for at, (ink, style, points) in enumerate(series):
        dodge = 0.18 * spare * (at - (len(series) - 1) / 2)
        x, y = [place + dodge for place, _ in points], [found.value for _, found in points]
        axes.plot(x, y, style, color=STAND_IN[ink], linewidth=1.6, markersize=4.2, markeredgewidth=0)
        bounds = [(found.low, found.high) if found.bounded else (found.value, found.value) for _, found in points]
        lows, highs = zip(*bounds, strict=True)
        axes.vlines(x, lows, highs, color=STAND_IN[ink], linewidth=1.1, alpha=0.6)
    left, right = min(ends) - spare, max(ends) + spare
    axes.set_xlim((right, left) if falling else (left, right))
    axes.set_ylim(*limits)
    axes.set_xticks(ends, [text for _, text in ticks])
    axes.set_xlabel(label)
    return as_svg(figure)


def _square() -> tuple[Any, Any]:
    """A figure with both axes from 0 to 1 and a dotted diagonal."""
    figure, axes = new_figure(WIDE * 0.86, WIDE, left=44)
    axes.plot([0, 1], [0, 1], color=STAND_IN["muted"], linewidth=0.9, linestyle=DOTTED)
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(-0.015, 1.015)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    return figure, axes

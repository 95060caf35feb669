"""The report's plots: matplotlib's SVG, made fit to stand inside the page.

A plot holds numbers and lines only; titles and legends are the page's own text, so that nothing a user wrote passes
through matplotlib and colours follow the page (light, dark, print). To that end plots are drawn in stand-in colours,
which become CSS variables, and in a width that a phone shows at its natural size.
"""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from arena.report.ledger_view import Estimate

if TYPE_CHECKING:
    import numpy as np

CROWD = 40  # rounds beyond which points and dividers would only blacken the plot
WIDTH, WIDE = 3.6, 4.7  # inches of 72 px: the width of a phone, once with room to spare and once without
INKS = (
    "ink", "muted", "rule", "real", "fake", "before", "after", "baseline", "way0", "way1",
    "phase0", "phase1", "phase2", "phase3", "phase4", "phase5",
)  # fmt: skip
STAND_IN = {ink: f"#0a0b{place:02x}" for place, ink in enumerate(INKS)}
Series = tuple[str, str, list[tuple[int, Estimate]]]  # colour, line style, (round, figure) ...


def rounds_plot(
    series: Sequence[Series],
    *,
    floors: Sequence[Series] = (),
    faint: Sequence[Series] = (),
    chance: float | None = None,
    limits: tuple[float, float] | None = None,
    shares: bool = False,
    width: float = WIDTH,
) -> str:
    """Figures over rounds, their intervals as bars; floors as dotted steps; a line at chance; faint lines beneath."""
    figure, axes = new_figure(0.3 + 0.52 * width, width)
    numbers = sorted({number for _, _, points in series for number, _ in points})
    if chance is not None:
        axes.axhline(chance, color=STAND_IN["muted"], linewidth=0.9, linestyle=(0, (1, 2)))
    wide = max(0.06, 0.012 * (numbers[-1] - numbers[0]))
    for place, (ink, style, points) in enumerate(series):
        dodge = wide * (place - (len(series) - 1) / 2)  # so that bars do not hide each other
        x, y = [number + dodge for number, _ in points], [found.value for _, found in points]
        style = style if len(points) <= CROWD else style.lstrip("os")
        axes.plot(x, y, style, color=STAND_IN[ink], linewidth=1.6, markersize=4.2, markeredgewidth=0)
        bars = [(at, found) for at, (_, found) in zip(x, points, strict=True) if found.bounded]
        ends = [end for _, found in bars for end in (found.low, found.high, None)]  # None: a gap between two bars
        axes.plot(
            [at for at, _ in bars for _ in range(3)],
            ends,
            color=STAND_IN[ink],
            linewidth=1.1,
            alpha=0.6,
            solid_capstyle="butt",
        )
    for ink, style, points in faint:
        x, y = [number for number, _ in points], [found.value for _, found in points]
        axes.plot(x, y, style, color=STAND_IN[ink], linewidth=1.0, alpha=0.4, zorder=1.5)
        if len(points) == 1:
            axes.plot(x, y, "_", color=STAND_IN[ink], markersize=6, alpha=0.4)
    for ink, style, points in floors:
        x = [number + side for number, _ in points for side in (-0.5, 0.5)]
        axes.plot(x, [found.value for _, found in points for _ in "lr"], style, color=STAND_IN[ink], linewidth=1.0)
    axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    _quantity_axis(axes, [*series, *faint], floors, limits)
    _round_axis(axes, numbers)
    if shares:
        axes.yaxis.set_major_formatter(lambda value, _: f"{round(100 * value, 3):g} %")
    return as_svg(figure)


def _quantity_axis(
    axes: Any, series: Sequence[Series], floors: Sequence[Series], limits: tuple[float, float] | None
) -> None:
    """Linear from zero, or logarithmic where the figures span more than a factor of thirty."""
    if limits:
        axes.set_ylim(*limits)
        return
    ends = [end for _, _, points in series for _, found in points for end in (found.low, found.value, found.high)]
    figures = [end for end in ends if end is not None]
    if min(figures) > 0 and max(figures) > 30 * min(figures):
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return
    figures += [found.value for _, _, points in floors for _, found in points]
    low, high = min(0.0, *figures), max(0.0, *figures)
    spare = 0.06 * (high - low) or 1.0
    axes.set_ylim(low - spare if low < 0 else 0, high + spare)


def histogram(real: "np.ndarray", fake: "np.ndarray", threshold: float | None, span: tuple[float, float]) -> str:
    """Logits of reals and fakes as shares of images per bin, and the threshold; what lies outside joins the ends."""
    import numpy as np

    figure, axes = new_figure(2.2, WIDE)
    edges = np.linspace(*span, 37)
    for ink, scores in (("real", real), ("fake", fake)):
        if scores.size:
            counts, _ = np.histogram(np.clip(scores, *span), edges)
            share = counts / scores.size
            axes.stairs(share, edges, fill=True, color=STAND_IN[ink], alpha=0.32, linewidth=0)
            axes.stairs(share, edges, color=STAND_IN[ink], linewidth=1.2)
    if threshold is not None and span[0] <= threshold <= span[1]:
        axes.axvline(threshold, color=STAND_IN["ink"], linewidth=1.0, linestyle=(0, (4, 2)))
    axes.set_xlim(*span)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("logit")
    axes.yaxis.set_major_formatter(lambda value, _: f"{round(100 * value, 3):g} %")
    axes.yaxis.get_major_locator().set_params(nbins=4)
    return as_svg(figure)


def score_span(scores: Sequence["np.ndarray"], thresholds: Sequence[float]) -> tuple[float, float]:
    """The range of logits that shows all but the outermost half percent, and the thresholds."""
    import numpy as np

    low, high = np.percentile(np.concatenate(list(scores)), [0.5, 99.5])
    low, high = min([low, *thresholds]), max([high, *thresholds])
    spare = 0.04 * (high - low) or 1.0
    return float(low - spare), float(high + spare)


def loss_plot(curves: Sequence["np.ndarray"], ink: str, points: int = 600) -> str:
    """One loss over the steps of all rounds on end: the raw curve faint, its running mean clear, rounds divided."""
    import numpy as np

    figure, axes = new_figure(1.5)
    thin = max(1, -(-sum(len(curve) for curve in curves) // points))
    steps: list[Any] = []
    raw: list[Any] = []
    smooth: list[Any] = []
    start = 0
    for place, curve in enumerate(curves):
        steps += [start + 1 + np.arange(len(curve))[::thin], [start + len(curve)]]
        raw += [curve[::thin], [np.nan]]  # a gap: no line runs from one round into the next
        smooth += [_running_mean(curve, max(1, len(curve) // 20))[::thin], [np.nan]]
        start += len(curve)
        if place < len(curves) - 1 <= CROWD:
            axes.axvline(start + 0.5, color=STAND_IN["rule"], linewidth=0.9)
    axes.plot(np.concatenate(steps), np.concatenate(raw), color=STAND_IN[ink], linewidth=0.6, alpha=0.28)
    axes.plot(np.concatenate(steps), np.concatenate(smooth), color=STAND_IN[ink], linewidth=1.3)
    seen = np.concatenate(list(curves))
    seen = seen[np.isfinite(seen)]
    if seen.size:
        low, high = min(0.0, float(seen.min())), float(np.percentile(seen, 99.5))
        axes.set_ylim(low, (high + 0.06 * (high - low)) if high > low else low + 1)
    axes.set_xlim(0.5, start + 0.5)
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(nbins=5, integer=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.get_major_locator().set_params(nbins=4)
    return as_svg(figure)


def _running_mean(curve: "np.ndarray", width: int) -> "np.ndarray":
    """The mean of the finite values among the `width` steps around each step."""
    import numpy as np

    window, finite = np.ones(2 * (width // 2) + 1), np.isfinite(curve)
    half = width // 2
    total = np.convolve(np.where(finite, curve, 0.0), window)[half : half + len(curve)]
    count = np.convolve(finite, window)[half : half + len(curve)]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def map_plot(points: "np.ndarray", rounds: "np.ndarray") -> str:
    """Points in two dimensions without axes: reals (round -1), earlier rounds' fakes pale, the last round's clear."""
    figure, axes = new_figure(0.75 * WIDE, WIDE, left=6)
    last = max(rounds)
    for number in sorted(set(rounds)):
        mine = points[rounds == number]
        ink, mark = ("real", "o") if number < 0 else ("fake", "D")
        axes.plot(
            *mine.T, mark, color=STAND_IN[ink], markersize=3.2, markeredgewidth=0,
            alpha=0.75 if number in (-1, last) else 0.25,
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.margins(0.05)
    return as_svg(figure)


def time_plot(numbers: Sequence[int], phases: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Seconds per round, one bar a round, stacked by phase: (colour, seconds of each round) ..."""
    figure, axes = new_figure(max(1.3, 0.6 + 0.26 * len(numbers)), WIDE)
    left = [0.0] * len(numbers)
    for ink, seconds in phases:
        axes.barh(range(len(numbers)), seconds, left=left, height=0.62, color=STAND_IN[ink], linewidth=0)
        left = [a + b for a, b in zip(left, seconds, strict=True)]
    axes.set_yticks(range(len(numbers)), [str(number) for number in numbers])
    axes.set_ylim(len(numbers) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=STAND_IN["rule"], linewidth=0.6)
    axes.set_xlabel("seconds")
    axes.set_ylabel("round")
    axes.xaxis.get_major_locator().set_params(nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    return as_svg(figure)


def dot_plot(
    entries: Sequence[tuple[str, Estimate]], ink: str, span: tuple[float, float], label: str, left: float = 64
) -> str:
    """One line an entry: its name in `left` px, a dot and its interval. Names come in afterwards, escaped."""
    from markupsafe import Markup, escape

    figure, axes = new_figure(0.65 + 0.27 * len(entries), WIDE, left)
    colour, places = STAND_IN[ink], range(len(entries))
    for place, (_, found) in enumerate(entries):
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [place, place], color=colour, linewidth=2.0, alpha=0.45)
    axes.plot([found.value for _, found in entries], places, "o", color=colour, markersize=6, markeredgewidth=0)
    spare = 0.05 * (span[1] - span[0]) or 1.0
    axes.set_xlim(span[0] - spare, span[1] + spare)
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.set_yticks(places, [f"@{place}@" for place in places])
    axes.tick_params(axis="y", labelcolor=STAND_IN["ink"])
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=STAND_IN["rule"], linewidth=0.6)
    axes.set_xlabel(label)
    axes.xaxis.get_major_locator().set_params(nbins=5)
    return Markup(re.sub(r"@(\d+)@", lambda found: str(escape(entries[int(found[1])][0])), as_svg(figure)))


def _round_axis(axes: Any, numbers: Sequence[int]) -> None:
    step = max(1, -(-len(numbers) // 12))
    axes.set_xticks(numbers[::step], [str(number) for number in numbers[::step]])
    axes.set_xlabel("round")


def new_figure(height: float, width: float = WIDTH, left: float = 40) -> tuple[Any, Any]:
    """A figure of so many inches and its axes in the house style; `left` is the margin in px for the axis labels."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no state shared with the caller

    figure, size = Figure(figsize=(width, height), dpi=72), 9.0 if width == WIDTH else 9.5
    axes = figure.add_axes((left / 72 / width, 30 / 72 / height, 1 - (left + 6) / 72 / width, 1 - 36 / 72 / height))
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(STAND_IN["rule"])
    axes.grid(visible=True, axis="y", color=STAND_IN["rule"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=size, labelcolor=STAND_IN["muted"], pad=4)
    axes.xaxis.label.set(color=STAND_IN["muted"], size=size)
    axes.yaxis.label.set(color=STAND_IN["muted"], size=size)
    return figure, axes


def as_svg(figure: Any) -> str:
    """The figure as an <svg> for a page, which need not be escaped (`markupsafe.Markup`).

    It has no prologue, ids, styles or metadata of its own, and the same bytes each time.
    """
    from markupsafe import Markup
    from matplotlib import rc_context

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "arena", "path.simplify": True}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    head, body = svg[svg.index("<svg") :].split(">", 1)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", head) + ">" + body
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r"\s*\n\s*", " ", svg.replace("xlink:href", "href"))
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)  # coordinates, not labels
    svg = re.sub(r"(font-size: [\d.]+px); font-family: [^;\"]*", r"\1", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = _own_ids(svg)
    svg = re.sub(r'<path d="[^"]*" style="fill: none; opacity: 0"/>', "", re.sub(r">\s+<", "><", svg))
    svg = svg.replace("<g/>", "").replace("<g></g>", "").replace("<defs></defs>", "")
    for ink, colour in STAND_IN.items():
        svg = svg.replace(colour, f"var(--{ink})")
    return Markup(svg.strip())


def _own_ids(svg: str) -> str:
    """Drop ids that nothing refers to; name the others by the plot's own content, so that a page may hold many."""
    import hashlib

    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r'\sid="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    salt = hashlib.sha256(svg.encode()).hexdigest()[:8]
    for place, name in enumerate(sorted(used, key=svg.index)):
        svg = re.sub(rf"(?<=[#\"]){re.escape(name)}(?=[)\"])", f"s{salt}-{place}", svg)
    return svg

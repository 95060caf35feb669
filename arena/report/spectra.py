"""The spectrum distance as a picture: the fakes' azimuthal power spectrum beside the reals', per direction."""

import math
from collections.abc import Sequence
from typing import Any

from arena.report import plots, table
from arena.report.ledger_view import Distance, Round, directions

Curve = dict[str, list[float]]
LINES = ("frequency", "reals", "reals_low", "reals_high", "fakes")


def views(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Per direction the first and the last round's curves as SVG, the rounds' numbers, and the widest gap in words."""
    found = []
    for way in directions(rounds, "sfd"):
        seen = [(entry.number, distance) for entry in rounds if (distance := entry.distance("sfd", way))]
        curves = [(number, curve) for number, distance in seen if (curve := whole(distance))]
        if curves:
            (first, before), (last, now) = curves[0], curves[-1]
            earlier = before if first != last and before["frequency"] == now["frequency"] else None
            found.append({
                "way": table.arrow(way), "first": first if earlier else None, "last": last,
                "gap": _widest(now), "svg": _plot(now, earlier),
            })  # fmt: skip
    return found


def whole(distance: Distance) -> Curve | None:
    """The distance's curves; None unless every line is there, of one length of at least two, and finite."""
    lines = {name: distance.curve.get(name) for name in LINES}
    lengths = {len(line) for line in lines.values() if isinstance(line, list)}
    if any(not isinstance(line, list) for line in lines.values()) or len(lengths) != 1 or lengths < {2}:
        return None
    numbers = [entry for line in lines.values() for entry in line or ()]
    sound = all(isinstance(entry, int | float) and math.isfinite(entry) for entry in numbers)
    return {name: list(line) for name, line in lines.items() if line} if sound else None


def _widest(curve: Curve) -> str:
    gaps = [fake - real for fake, real in zip(curve["fakes"], curve["reals"], strict=True)]
    place = max(range(len(gaps)), key=lambda k: abs(gaps[k]))
    side = "more" if gaps[place] > 0 else "less"
    return f"{abs(gaps[place]):.1f} dB {side} power than reals at {curve['frequency'][place]:.2f} cycles per pixel"


def _plot(now: Curve, earlier: Curve | None) -> str:
    figure, axes = plots.new_figure(2.2)
    at, inks = now["frequency"], plots.STAND_IN
    axes.fill_between(at, now["reals_low"], now["reals_high"], color=inks["real"], alpha=0.2, linewidth=0)
    axes.plot(at, now["reals"], color=inks["real"], linewidth=1.4)
    if earlier:
        axes.plot(at, earlier["fakes"], "--", color=inks["fake"], linewidth=1.0, alpha=0.6)
    axes.plot(at, now["fakes"], color=inks["fake"], linewidth=1.6)
    axes.set_xlim(at[0], at[-1] + 0.02 * (at[-1] - at[0]))
    axes.set_xlabel("cycles per pixel")
    axes.set_ylabel("dB", rotation=0, labelpad=8)
    axes.yaxis.get_major_locator().set_params(nbins=5)
    return plots.as_svg(figure)

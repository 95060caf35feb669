"""The table of rounds as plain strings, the same for the report and for the terminal."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from arena.report.ledger_view import REFERENCES, Estimate, Score, directions, forged, main_distance, rounds_of

Form = Callable[[float | None], str]
MISSING = "–"
PERCENT = "\N{NO-BREAK SPACE}%"  # so that no line breaks between a figure and its unit


class Table(NamedTuple):
    """Headers and rows of strings. A cell may hold a second line (after a newline): its 95 % interval or its floor."""

    headers: list[str]
    rows: list[list[str]]


def round_table(summary: Mapping[str, Any], *, brief: bool = False) -> Table:
    """One row a round: scores before and after, the baseline if there is one, the main distance, the time.

    `summary` is the content of summary.json, of a finished or of a running run. AP, EER, TPR and accuracy are those
    after the detector was trained; escape is shown before and after; figures not there are shown as a dash. `brief`
    suits a terminal of 100 characters: no AP, EER, TPR, accuracy, nor escape after.
    """
    rounds = rounds_of(summary)
    distance = main_distance(rounds)
    ways = directions(rounds, distance) if distance else []
    baseline = [entry.baseline.name or "baseline" for entry in rounds if entry.baseline][:1]
    headers = ["round", "AUC before", "AUC after", "AP", "EER", "TPR at 1 % FPR", "accuracy", "escape before"]
    headers += ["escape after", *(f"{name} AUC" for name in baseline)]
    headers += [f"{distance} {arrow(way)}".rstrip() for way in ways] + ["time"]
    rows = []
    for entry in rounds:
        before, after = entry.before or Score(), entry.after or Score()
        row = [str(entry.number), _auc(before), _auc(after), unit(after.ap), percent(after.eer)]
        row += [
            percent(after.tpr_at_1_fpr),
            percent(after.accuracy_frozen),
            percent(before.escape),
            percent(after.escape),
        ]
        row += [_auc(entry.baseline or Score()) for _ in baseline]
        for way in ways:
            found = entry.distance(distance, way)
            row.append(two_lines(found.estimate, amount) if found else MISSING)
        rows.append([*row, duration(sum(entry.seconds.values())) if entry.seconds else MISSING])
    left_out = {3, 4, 5, 6, 8} if brief else set()
    if not forged(summary):  # the fakes were given: there is one round, and no detector met them before
        left_out = {0, 1, 7} | ({3, 4, 5} if brief else set())
        headers[2], headers[8] = "AUC", "fakes called real"
    if left_out:
        kept = [place for place in range(len(headers)) if place not in left_out]
        headers, rows = [headers[place] for place in kept], [[row[place] for place in kept] for row in rows]
    return Table(headers, rows)


def _auc(score: Score) -> str:
    return two_lines(score.auc, unit) if score.auc else MISSING


def truth_table(summary: Mapping[str, Any], *, most: int = 5) -> Table:
    """Measures against the known truth: one row each, a column a round (`most` of them), then what references reach."""
    rounds = [entry for entry in rounds_of(summary) if entry.truths]
    if not rounds:
        return Table([], [])
    if len(rounds) > most:
        rounds = [rounds[place * (len(rounds) - 1) // (most - 1)] for place in range(most)]
    kinds = [kind for kind in REFERENCES if any(kind in truth.references for truth in rounds[-1].truths)]
    headers = ["measure", *(f"round {entry.number}" for entry in rounds), *(REFERENCES[kind] for kind in kinds)]
    rows = []
    for truth in rounds[-1].truths:
        cells = [f"{truth.what} {arrow(truth.direction)}".rstrip()]
        for entry in rounds:
            same = [t for t in entry.truths if (t.name, t.direction) == (truth.name, truth.direction)]
            cells.append(two_lines(same[0].estimate, amount) if same else MISSING)
        rows.append([*cells, *(amount(truth.references.get(kind)) for kind in kinds)])
    return Table(headers, rows)


def two_lines(estimate: Estimate, form: Form) -> str:
    """The figure, and on a second line its interval if it has one."""
    return f"{form(estimate.value)}\n{interval(estimate, form)}" if estimate.bounded else form(estimate.value)


def interval(estimate: Estimate, form: Form) -> str:
    """Like 0.971–0.988, with "to" where a minus sign would make the dash unreadable; a dash where it has none."""
    if not estimate.bounded:
        return MISSING
    low, high = form(estimate.low), form(estimate.high)
    return f"{low} to {high}" if "-" in low + high else f"{low}–{high}"


def unit(value: float | None) -> str:
    """A figure from 0 to 1 with three decimals, and with as many as it takes not to call 0.9997 a 1."""
    if value is None:
        return MISSING
    decimals = 3
    while decimals < 6 and value not in (0, 1) and float(f"{value:.{decimals}f}") in (0, 1):
        decimals += 1
    return f"{value:.{decimals}f}"


def percent(value: float | None) -> str:
    """A share as percent with one decimal."""
    return MISSING if value is None else f"{100 * value:.1f}{PERCENT}"


def amount(value: float | None) -> str:
    """A distance or rate with three significant figures: 1.23, 0.850, 12.3, 1,234, 1.2e-05."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(float(f"{value:.3g}"))))
    return f"{value:.2e}" if size < -3 else f"{value:,.{max(0, 2 - size)}f}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 4.2 s, 75 s, 12 min 5 s, 3 h 20 min."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def arrow(direction: str) -> str:
    """A direction ("a2b") as a reader writes it: a→b."""
    left, two, right = direction.partition("2")
    return f"{left}→{right}" if two and left and right else direction

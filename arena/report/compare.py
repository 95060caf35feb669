"""The page of runs side by side, its tables and its verdict, from the comparison's figures alone (docs/compare.md)."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from arena.faces import plural
from arena.report import plots
from arena.report.ledger_view import Estimate, Round, directions, distance_names, mapping, rounds_of, versus
from arena.report.page import flat
from arena.report.table import MISSING, PERCENT, Table, amount, arrow, duration, interval, percent, two_lines, unit
from arena.report.templates import fill

INKS = ("way0", "fake", "after", "before", "way1", "baseline")
Found = Mapping[str, Any]


def render(found: Found) -> str:
    """The page, self-contained. The same figures give the same bytes."""
    runs = found["runs"]
    return fill(
        "compare.html",
        title=f"{plural(len(runs), 'run')} side by side", verdict=verdict(found), legend=legend(runs),
        who=[(run["name"], versus(run), run["status"]) for run in runs], curves=curves(runs),
        differences=difference_table(found), finals=final_table(runs), tests=paired_table(found),
        untested=found["untested"], holm=len(found["tests"]) > 1,
        provenance=[(run["name"], flat(mapping(run["provenance"]))) for run in runs],
        folders=[run["folder"] for run in runs],
    )  # fmt: skip


def style(place: int) -> tuple[str, str]:
    """The colour and the line of a run: six colours, then dashed, so that no two of twelve look alike."""
    return INKS[place % len(INKS)], "o-" if place < len(INKS) else "s--"


def legend(runs: Sequence[Found]) -> list[tuple[str, str, str]]:
    return [(style(place)[0], "dashed" if "--" in style(place)[1] else "", run["name"])
            for place, run in enumerate(runs)]  # fmt: skip


# ---- curves ----------------------------------------------------------------------------------------------------------


def curves(runs: Sequence[Found]) -> list[dict[str, Any]]:
    """AUC after and before training, the share of fakes that escaped, and every distance: all runs on one plot each."""
    played = [rounds_of(run) for run in runs]
    asked: list[tuple[str, str, Callable[[Round], Estimate | None], bool, bool]] = [
        ("AUC after training", "the detector on fakes of the round it was trained on", _auc("after"), True, False),
        ("AUC before training", "last round’s detector on fakes it has never seen", _auc("before"), True, False),
        ("Escaped, before training", "share of fakes called real", _escape, False, True),
    ]
    for name, way in families(played):
        asked.append((f"{name} {arrow(way)}".strip(), "distance; lower is closer", _distance(name, way), False, False))
    made = []
    for title, about, figure, auc, shares in asked:
        series = []
        for place, rounds in enumerate(played):
            points = [(entry.number, found) for entry in rounds if (found := figure(entry))]
            if points:
                series.append((*style(place), points))
        if series:
            lows = [found.value if found.low is None else found.low for _, _, points in series for _, found in points]
            highs = [found.high or found.value for _, _, points in series for _, found in points]
            limits = (min(0.47, min(lows) - 0.03), 1.02) if auc else None
            limits = (0.0, min(1.02, max(0.05, 1.15 * max(highs)))) if shares else limits
            svg = plots.rounds_plot(series, chance=0.5 if auc else None, limits=limits, shares=shares, width=plots.WIDE)
            made.append({"title": title, "about": about, "svg": svg})
    return made


def families(played: Sequence[Sequence[Round]]) -> list[tuple[str, str]]:
    """Each distance once, with each of its directions: of several seeds of the same features the first speaks."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for rounds in played:
        for name in distance_names(rounds):
            for way in directions(rounds, name):
                found.setdefault((re.sub(r"-s\d+$", "", name), way), (name, way))
    return list(found.values())


def _auc(when: str) -> Callable[[Round], Estimate | None]:
    return lambda entry: score.auc if (score := getattr(entry, when)) else None


def _escape(entry: Round) -> Estimate | None:
    return entry.before.escape_interval if entry.before else None


def _distance(name: str, way: str) -> Callable[[Round], Estimate | None]:
    return lambda entry: found.estimate if (found := entry.distance(name, way)) else None


# ---- tables ----------------------------------------------------------------------------------------------------------


def difference_table(found: Found) -> Table:
    """The settings in which runs differ, a column a run."""
    rows = [[row["key"], *(_value(value) for value in row["values"])] for row in found["differences"]]
    return Table(["setting", *(run["name"] for run in found["runs"])], rows)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text}" for key, text in flat(value)) or MISSING
    return MISSING if value is None else flat({"": value})[0][1]


def final_table(runs: Sequence[Found]) -> Table:
    """The figures of each run's last round, a column a run."""
    played = [rounds_of(run) for run in runs]
    last = [rounds[-1] if rounds else None for rounds in played]
    rows: list[list[str]] = [["round", *(MISSING if entry is None else str(entry.number) for entry in last)]]

    def row(title: str, figure: Callable[[Round], str | None]) -> None:
        cells = [figure(entry) if entry else None for entry in last]
        if any(cells):
            rows.append([title, *(cell or MISSING for cell in cells)])

    def score(when: str, key: str, form: Callable[[float | None], str]) -> Callable[[Round], str | None]:
        def figure(entry: Round) -> str | None:
            value = getattr(getattr(entry, when), key, None)
            return None if value is None else two_lines(value, form) if isinstance(value, Estimate) else form(value)

        return figure

    row("AUC after training", score("after", "auc", unit))
    row("AUC before training", score("before", "auc", unit))
    row("AP", score("after", "ap", unit))
    row("EER", score("after", "eer", percent))
    row(f"TPR at 1{PERCENT} FPR", score("after", "tpr_at_1_fpr", percent))
    row("accuracy, frozen threshold", score("after", "accuracy_frozen", percent))
    row("escaped before training", score("before", "escape_interval", percent))
    row("escaped after training", score("after", "escape_interval", percent))
    row("baseline’s AUC", score("baseline", "auc", unit))

    def distance(name: str, way: str) -> Callable[[Round], str | None]:
        return lambda entry: two_lines(found.estimate, amount) if (found := entry.distance(name, way)) else None

    for name, way in families(played):
        row(f"{name} {arrow(way)}".strip(), distance(name, way))

    counts = [f"{e.after.n_real:.0f} + {e.after.n_fake:.0f}" if e and e.after and e.after.n_real and e.after.n_fake else
              MISSING for e in last]  # fmt: skip
    rows.append(["judged: reals + fakes", *counts])
    times = [sum(sum(entry.seconds.values()) for entry in rounds) for rounds in played]
    rows.append(["time, all rounds", *(duration(seconds) if seconds else MISSING for seconds in times)])
    return Table(["last round", *(run["name"] for run in runs)], rows)


def paired_table(found: Found) -> Table:
    """A row a test: the two detectors, whose fakes, both AUCs, the difference with its interval, p."""
    headers = ["detectors of", "on fakes of", "AUC, first", "AUC, second", "difference", "p", "p (Holm)"]
    rows = []
    for test in found["tests"]:
        gap = Estimate(test["difference"], test["low"], test["high"])
        rows.append([
            f"{test['a']}\n{test['b']}", f"{test['fakes_of']}\n{test['n_real']:,} + {test['n_fake']:,}",
            unit(test["auc_a"]), unit(test["auc_b"]), f"{signed(gap.value)}\n{interval(gap, signed)}",
            chance(test["p"]), chance(test["p_holm"]),
        ])  # fmt: skip
    return Table(headers, rows)


def signed(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.3f}"


def chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


# ---- words -----------------------------------------------------------------------------------------------------------


def verdict(found: Found) -> list[str]:
    """What the tests say; a difference is claimed only where Holm's p is below 0.05."""
    count = len(found["differences"])
    made = [f"They differ in {plural(count, 'setting')}." if count else "They have the same settings."]
    for test in found["tests"]:
        better, worse = ("a", "b") if test["difference"] > 0 else ("b", "a")
        on = f"On fakes of {test['fakes_of']}"
        figures = f"AUC {unit(test[f'auc_{better}'])} against {unit(test[f'auc_{worse}'])}, p {_equals(test['p_holm'])}"
        if test["p_holm"] < 0.05:
            made.append(f"{on} the detector of {test[better]} sees more than that of {test[worse]}: {figures}.")
        else:
            made.append(f"{on} the detectors of {test['a']} and {test['b']} show no clear difference: {figures}.")
    if found["untested"]:
        first = found["untested"][0]
        who = "No two detectors" if not found["tests"] else f"The detectors of {first['a']} and {first['b']}"
        made.append(f"{who} can{'' if not found['tests'] else 'not'} be tested on the same images: {first['why']}.")
    return made


def _equals(p: float) -> str:
    return chance(p) if p < 0.001 else f"= {p:.3f}"

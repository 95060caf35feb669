"""The game across rounds as the page and the terminal show it, from game.json alone (docs/matrix.md)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arena.errors import InputError
from arena.faces import plural
from arena.files import read_json
from arena.report import plots
from arena.report.ledger_view import Estimate, mapping
from arena.report.round_files import Damaged
from arena.report.table import MISSING, Table, interval, percent, two_lines, unit

SCHEMA = 1
HEAT = 40  # percent of colour at most in a cell: its text keeps a contrast of 5 on light and on dark
TOLD = 3  # sentences of one kind
ANCHORS = {"source": "source unchanged", "blur": "blurred source", "noise": "noise"}
KEYS = ("rounds", "matrix", "moves", "retention", "foresight", "worst", "gap", "nash", "skill", "cyclic", "fresh")
Found = Mapping[str, Any]


def read(path: Path) -> Found | None:
    """game.json; None where there is none. Raises Damaged where it cannot be used."""
    if not path.is_file():
        return None
    try:
        found = read_json(path)
    except InputError as error:
        raise Damaged(str(error)) from error
    if not isinstance(found, Mapping) or found.get("schema") != SCHEMA or any(key not in found for key in KEYS):
        raise Damaged("it is no matrix of this version; `arena matrix` makes it anew")
    return found


def view(path: Path) -> dict[str, Any] | None:
    """What game.html shows of RUN/game/game.json; None where there is none. Raises Damaged."""
    found = read(path)
    if found is None:
        return None
    try:
        return _view(found)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise Damaged(f"it is no whole matrix ({error!r}); `arena matrix` makes it anew") from error


def _view(found: Found) -> dict[str, Any]:
    return {
        "sentences": sentences(found), "columns": [column(key) for key in found["matrix"]["columns"]],
        "rounds": len(found["rounds"]), "rows": heat(found), "swatches": [(k, _heat(k)) for k in (0.5, 0.75, 1.0)],
        "counts": counts(found), "left_out": found["left_out"], "domains": domains(found),
        "blur": f"{found['blur_sigma']:g}", "baseline": found["baseline"], "pairs": found.get("pairs", False),
        "curves": curves(found), "skills": skills(found), "mixtures": mixtures(found),
        "moves": move_table(found), "table": round_table(found),
        "fresh": honest(found), "cyclic": cyclic(found), "run": found["run"],
    }  # fmt: skip


def of(given: Mapping[str, Any]) -> Estimate:
    return Estimate(given["value"], given["low"], given["high"])


def said(given: Mapping[str, Any]) -> str:
    """A figure with its interval in brackets."""
    return f"{unit(given['value'])} ({interval(of(given), unit)})"


def counts(found: Found) -> str:
    return f"{found['n_real']:,} real + {found['n_fake']:,} fake {found['unit']}s"


def column(key: str) -> str:
    return ANCHORS.get(key, key)


def row_name(found: Found, key: str) -> str:
    if key.startswith("fresh-"):
        return f"fresh, seed {key.removeprefix('fresh-')}"
    return f"{found['baseline']}, frozen" if key == "spectrum" else f"after round {key}"


# ---- words -----------------------------------------------------------------------------------------------------------


def sentences(found: Found) -> list[str]:
    """What the matrix says, in plain words; a difference is claimed only where it is sure among all that were asked."""
    made = [*_moves(found), *_forgotten(found), *_blind(found), _skilled(found), _rings(found), _rest(found)]
    return [sentence for sentence in [*made, _committee(found), *_anchored(found), fresh_said(found)] if sentence]


def _moves(found: Found) -> list[str]:
    made = []
    took = [move for move in found["moves"] if move["generator"]["sure"] and move["generator"]["value"] > 0]
    for move in sorted(took, key=lambda move: -move["generator"]["value"])[:TOLD]:
        before = unit(move["before"]["value"] + move["generator"]["value"])
        text = (
            f"From round {move['from']} to {move['to']} the generator got ahead: the detector of round {move['from']} "
            f"falls from AUC {before} on the old fakes to {said(move['before'])} on the new ones"
        )
        back = move["detector"]
        after = f"once trained on them, the detector has {said(move['after'])}"
        caught = "; " + after if back["sure"] and back["value"] > 0 else "; training on them brings no sure gain"
        made.append(f"{text}{caught}.")
    for move in found["moves"]:
        back = move["detector"]
        if back["sure"] and back["value"] < 0:
            made.append(
                f"Round {move['to']}’s training made the detector worse on that round’s own fakes: AUC "
                f"{said(move['before'])} before, {said(move['after'])} after."
            )
    if found["moves"] and not took:
        made.append("In no step did the generator surely get ahead of the detector that it met.")
    return made


def _forgotten(found: Found) -> list[str]:
    """Of what had been learnt: a detector that never told a round's fakes from reals has nothing to forget."""
    worst = [(entry["round"], entry["worst"]) for entry in found["retention"]]
    lost = [(r, w) for r, w in worst if w["lost"]["sure"] and w["lost"]["value"] > 0 and w["before"]["low"] > 0.5]
    made = [
        f"The detector of round {r} forgot round {w['round']}: AUC {said(w['there'])} there, "
        f"{unit(w['before']['value'])} when these fakes were new."
        for r, w in sorted(lost, key=lambda entry: -entry[1]["lost"]["value"])[:TOLD]
    ]
    if worst and not made:
        made.append("No detector surely forgot fakes that it had surely learnt to tell (AUC above 0.5).")
    return made


def _blind(found: Found) -> list[str]:
    """Foresight, of the first detector: it has the longest future."""
    made = []
    for entry in found["foresight"][:1]:
        future = f"On the fakes of later rounds, which it never saw, the detector of round {entry['round']} has"
        judged = ""
        if entry["low"] <= 0.5:
            judged = ": no better than guessing" if entry["high"] >= 0.5 else ": it takes them for the realer ones"
        made.append(f"{future} a mean AUC of {said(entry)}{judged}.")
    return made


def _skilled(found: Found) -> str:
    parts = []
    for side, name in (("detectors", "detector"), ("generators", "generator")):
        entries = found["skill"][side]
        if len(entries) < 2:
            return ""
        change = of(entries[-1]).compare(of(entries[0]))
        words = {1: "clearly better", -1: "clearly worse"}.get(change or 0, "neither clearly better nor worse")
        parts.append(f"the last {name} is {words} than the first")
    return f"Over all pairings, {' and '.join(parts)}."


def _rings(found: Found) -> str:
    ring = found["cyclic"]
    if ring is None:
        return ""
    if ring["found"] and ring["value"] < 0.2:
        return (
            f"One skill per player tells most of the story; {percent(ring['value'])} of the differences it cannot "
            f"express (p {_p(ring['p'])})."
        )
    if ring["found"]:
        return (
            "No single ranking tells the whole story: who beats whom goes in rings, as in rock, paper, scissors "
            f"({percent(ring['value'])} of the differences are of that kind, p {_p(ring['p'])})."
        )
    return f"One skill per player tells the whole story, as far as these images show (p {_p(ring['p'])} for rings)."


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _rest(found: Found) -> str:
    if len(found["rounds"]) < 2:
        return ""
    gap, last = found["gap"], found["rounds"][-1]
    if gap["low"] <= 0:
        return (
            "Among these players, nobody surely does better against the last pair than the pair itself: duality gap "
            f"{said(gap)}."
        )
    parts = []
    if gap["detector"] != last:
        parts.append(f"the detector of round {gap['detector']} against the last generator")
    if gap["generator"] != last:
        parts.append(f"the generator of round {gap['generator']} against the last detector")
    together = "would together gain" if len(parts) == 2 else "would gain"
    return f"The last pair is no resting point: {' and '.join(parts)} {together} {said(gap)} of AUC, the duality gap."


def _committee(found: Found) -> str:
    if len(found["rounds"]) < 2:
        return ""
    best = [entry for entry in found["nash"]["detectors"] if entry["value"] > 0.005]
    shares = ", ".join(f"round {entry['round']} ({percent(entry['value'])})" for entry in best)
    who = (
        f"the detector of {shares.partition(' (')[0]} alone" if len(best) == 1 else f"a mixture of detectors, {shares},"
    )
    return f"Whatever generator of these comes, {who} is sure of AUC {said(found['nash'])}."


def _anchored(found: Found) -> list[str]:
    matrix, last, made = found["matrix"], str(found["rounds"][-1]), []
    i = matrix["rows"].index(last)
    for key, what in (("noise", "pure noise"), ("blur", "blurred sources")):
        j = matrix["columns"].index(key)
        cell = cell_of(matrix, i, j)
        if cell.high is not None and cell.high < 0.5:
            made.append(
                f"The last detector takes {what} for more real than the reals: AUC {unit(cell.value)} "
                f"({interval(cell, unit)}). It knows its generator’s faults, not what is real."
            )
    return made


def fresh_said(found: Found) -> str:
    """The honesty row in words; that it was not done, where it was not."""
    fresh = found["fresh"]
    if not fresh:
        return (
            "Whether a detector trained from scratch would see what this whole line of detectors missed was not tried: "
            f"`arena matrix {found['run']} --fresh 3` tries it."
        )
    who = f"Detectors trained from scratch on the fakes of round {fresh['round']} alone"
    figures = (
        f"AUC {said(fresh['auc'])}, mean of {plural(len(fresh['seeds']), 'seed')}; best of the line "
        f"{said(fresh['lineage'])}; difference {fresh['difference']['value']:+.3f} "
        f"({fresh['difference']['low']:+.3f} to {fresh['difference']['high']:+.3f})"
    )
    verdict = {
        "more": "see what the whole line missed",
        "less": "see less than the best of the line, so they found no blind spot in it",
        "same": "do not surely see more or less than the best of the line: whether it has a blind spot stays open",
    }[fresh["verdict"]]
    alone = " (one seed says nothing of how much another would differ)" if len(fresh["seeds"]) == 1 else ""
    return f"{who} {verdict}: {figures}{alone}."


# ---- tables ----------------------------------------------------------------------------------------------------------


def cell_of(matrix: Mapping[str, Any], i: int, j: int) -> Estimate:
    return Estimate(matrix["auc"][i][j], matrix["low"][i][j], matrix["high"][i][j])


def _heat(auc: float) -> int:
    return round(HEAT * min(1.0, abs(auc - 0.5) * 2))


def heat(found: Found) -> list[dict[str, Any]]:
    """The matrix: a row's name, and its cells: figure, interval, colour, whether a round's detector and fakes meet."""
    matrix = found["matrix"]
    return [
        {
            "name": row_name(found, key),
            "cells": [
                {
                    "text": unit(cell.value), "below": interval(cell, unit), "heat": _heat(cell.value),
                    "ink": "after" if cell.value >= 0.5 else "fake", "own": key == matrix["columns"][j],
                }
                for j in range(len(matrix["columns"]))
                for cell in [cell_of(matrix, i, j)]
            ],
        }
        for i, key in enumerate(matrix["rows"])
    ]  # fmt: skip


def matrix_table(found: Found, width: int = 80) -> tuple[Table, int]:
    """The matrix for a terminal of so many characters, and how many rounds' columns are left out of it.

    Intervals stand below the figures where they fit.
    """
    matrix, rounds = found["matrix"], len(found["rounds"])
    rows = [row_name(found, key) for key in matrix["rows"]]
    room = width - max(map(len, rows)) - 2
    bounded = room // 13 >= len(matrix["columns"])
    most = room // 13 if bounded else max(2, room // 8 - 3)
    kept = list(range(rounds))
    if not bounded and rounds > most:
        kept = sorted({round(k * (rounds - 1) / (most - 1)) for k in range(most)})
    shown = [*kept, *range(rounds, len(matrix["columns"]))]
    text = two_lines if bounded else lambda cell, form: form(cell.value)
    cells = [[text(cell_of(matrix, i, j), unit) for j in shown] for i in range(len(rows))]
    headers = ["detector, on fakes of", *(matrix["columns"][j] for j in shown)]
    return Table(headers, [[name, *row] for name, row in zip(rows, cells, strict=True)]), rounds - len(kept)


def round_table(found: Found) -> Table:
    """A row a round: its own fakes, those of past and of future rounds, the worst; whom its generator meets at best."""
    rounds, matrix = found["rounds"], found["matrix"]
    past = {entry["round"]: entry for entry in found["retention"]}
    future = {entry["round"]: entry for entry in found["foresight"]}
    rows = []
    for k, r in enumerate(rounds):
        weak, strong = found["worst"]["detectors"][k], found["worst"]["generators"][k]
        rows.append([
            str(r), two_lines(cell_of(matrix, k, k), unit),
            two_lines(of(past[r]), unit) if r in past else MISSING,
            two_lines(of(future[r]), unit) if r in future else MISSING,
            f"{two_lines(of(weak), unit)}", str(weak["against"]), f"{two_lines(of(strong), unit)}", str(strong["by"]),
        ])  # fmt: skip
    return Table(["round", "own", "past", "future", "worst", "on", "best foe", "of"], rows)


def move_table(found: Found, *, brief: bool = False) -> Table:
    """A row a step: what the new generator took from the old detector, and what training gave back.

    `brief` suits a terminal of 80 characters: without the new detector on the old fakes.
    """
    rows = [
        [
            f"{move['from']} to {move['to']}", two_lines(of(move["before"]), unit),
            _signed(move["generator"]), two_lines(of(move["after"]), unit), _signed(move["detector"]),
            two_lines(of(move["back"]), unit),
        ]
        for move in found["moves"]
    ]  # fmt: skip
    headers = ["step", "old on new", "generator gains", "new on new", "detector gains", "new on old"]
    return Table(headers[:-1], [row[:-1] for row in rows]) if brief else Table(headers, rows)


def _signed(given: Mapping[str, Any]) -> str:
    return f"{given['value']:+.3f}\n{given['low']:+.3f} to {given['high']:+.3f}"


def domains(found: Found) -> list[str]:
    """Where sources are the other domain's reals: how well each detector tells the domains, as text."""
    if not found["domains"]:
        return []
    return [f"after round {entry['round']} AUC {said(entry)}" for entry in (found["domains"][0], found["domains"][-1])]


def mixtures(found: Found) -> list[dict[str, Any]]:
    """The equilibrium's mixtures, the rounds without a share left out."""
    return [
        {
            "title": title,
            "rows": [
                {"round": entry["round"], "width": round(100 * entry["value"]), "share": percent(entry["value"]),
                 "below": f"{percent(entry['low'])} to {percent(entry['high'])}"}
                for entry in found["nash"][side] if entry["value"] > 0.005
            ],
        }
        for side, title in (("detectors", "Detectors"), ("generators", "Generators"))
    ]  # fmt: skip


def honest(found: Found) -> dict[str, Any] | None:
    fresh = mapping(found["fresh"])
    if not fresh:
        return None
    rows = [(f"fresh, seed {seed}", said(entry)) for seed, entry in enumerate(fresh["seeds"])]
    rows.append((f"best of the line, of round {fresh['lineage']['round']}", said(fresh["lineage"])))
    return {"rows": rows, "steps": f"{fresh['steps']:,}", "capped": fresh["capped"], "round": fresh["round"]}


def cyclic(found: Found) -> str:
    ring = found["cyclic"]
    return f"{percent(ring['value'])} ({interval(of(ring), percent)}), p {_p(ring['p'])}" if ring else ""


# ---- plots -----------------------------------------------------------------------------------------------------------

CURVES = (
    ("own", "after", "o-", "own round’s fakes"), ("next", "before", "o--", "next round’s fakes, never seen"),
    ("past", "way0", "s-", "past rounds: retention"), ("future", "way1", "s:", "rounds to come: foresight"),
)  # fmt: skip


def curves(found: Found) -> dict[str, Any] | None:
    """Each detector on its own fakes, the next ones, past and future ones; None of a single round."""
    rounds, matrix = found["rounds"], found["matrix"]
    if len(rounds) < 2:
        return None
    points = {
        "own": [(r, cell_of(matrix, k, k)) for k, r in enumerate(rounds)],
        "next": [(r, cell_of(matrix, k, k + 1)) for k, r in enumerate(rounds[:-1])],
        "past": [(entry["round"], of(entry)) for entry in found["retention"]],
        "future": [(entry["round"], of(entry)) for entry in found["foresight"]],
    }
    low = min(figure.low or 0.0 for series in points.values() for _, figure in series)
    svg = plots.rounds_plot(
        [(ink, style, points[key]) for key, ink, style, _ in CURVES], chance=0.5,
        limits=(min(0.47, low - 0.03), 1.02), width=plots.WIDE,
    )  # fmt: skip
    styles = {"--": "dashed", ":": "dotted"}
    legend = [(ink, styles.get(style.lstrip("os"), ""), name) for _, ink, style, name in CURVES]
    return {"svg": svg, "legend": legend}


def skills(found: Found) -> list[dict[str, Any]]:
    """A dot plot of the skills of detectors, and one of generators, on one scale."""
    skill = found["skill"]
    if len(found["rounds"]) < 2:
        return []

    def named(side: str) -> list[tuple[str, Estimate]]:
        return [(f"round {entry['round']}", of(entry)) for entry in skill[side]]

    ends = [end for side in ("detectors", "generators") for x in skill[side] for end in (x["low"], x["high"])]
    return [
        {"title": title, "svg": plots.dot_plot(named(side), ink, (min(ends), max(ends)), "skill, in units of d′")}
        for side, ink, title in (("detectors", "real", "Detectors"), ("generators", "fake", "Generators"))
    ]

"""The page of a tournament, its tables and its verdict, from tournament.json alone (docs/tournament.md)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arena.errors import InputError
from arena.faces import plural
from arena.files import atomic, read_json
from arena.report import board
from arena.report.ledger_view import Estimate, Round, main_distance, mapping, number, rounds_of
from arena.report.page import flat
from arena.report.table import MISSING, PERCENT, Table, amount, arrow, duration, interval, unit
from arena.report.templates import fill

SCHEMA = 1
HEAT = 40  # percent of colour at most in a cell: its text keeps a contrast of 5 on light and on dark
WORKS = {"generate": "generators", "fit": "detectors", "score": "scores"}
Found = Mapping[str, Any]


class Cell(NamedTuple):
    """A figure, what stands small below it, its look and heat, and a mark."""

    text: str
    below: list[str]
    look: str = ""
    heat: int = 0
    mark: str = ""


def write_page(folder: Path) -> Path:
    """Write FOLDER/tournament.html and FOLDER/matrix.svg from FOLDER/tournament.json; return the page's path."""
    where = Path(folder) / "tournament.json"
    found = read_json(where)
    if not isinstance(found, Mapping) or not {"matrix", "columns", "detectors", "generators"} <= found.keys():
        raise InputError(f"{where} is damaged. `arena tournament` with the same --out writes it anew.")
    if found.get("schema") != SCHEMA:
        raise InputError(f"{where} has schema {found.get('schema')!r}, this version reads {SCHEMA}. Play it again.")
    path = Path(folder) / "tournament.html"
    for name, content in (("matrix.svg", heat_map(found)), (path.name, render(found).encode("utf-8", "replace"))):
        with atomic(Path(folder) / name) as file:
            file.write(content)
    return path


def render(found: Found) -> str:
    """The page, self-contained. The same result gives the same bytes."""
    import yaml

    config = {key: value for key, value in found["config"].items() if value}
    return fill(
        "tournament.html",
        title=f"{plural(len(found['columns']), 'generator')}, {plural(len(found['detectors']), 'detector')}",
        about=found["about"], verdict=verdict(found), badges=badges(found), columns=found["columns"],
        matrices=matrices(found), seeds=len(found["config"]["seeds"]), crosses=crosses(found),
        crossed=cross_table(found), detectors=detector_table(found), generators=generator_table(found),
        made=made_table(found),
        ratings=ratings(found), league=mapping(found.get("league")), failed=found["failed"], skipped=found["skipped"],
        swatches=[(level, round(2 * HEAT * (level - 0.5))) for level in (0.5, 0.75, 1.0)],
        players=flat(found["players"] | {}), who=[*found["players"]["generators"], *found["players"]["detectors"]],
        flat=flat, provenance=flat(found["provenance"]), seconds=spent(found),
        config=yaml.safe_dump(config, sort_keys=False, width=100, allow_unicode=True),
    )  # fmt: skip


def estimate(given: Any) -> Estimate | None:
    """An AUC with its limits; None where there is none."""
    given = mapping(given)
    value = number(given.get("auc", given.get("value")))
    return None if value is None else Estimate(value, number(given.get("low")), number(given.get("high")))


def heated(given: Found | None, look: str = "", mark: str = "") -> Cell:
    """A cell of a matrix: its colour is its distance from chance."""
    auc = estimate(given)
    if auc is None or given is None:
        return Cell(MISSING, ["not played"] if given is None else [])
    below = [interval(auc, unit)] if auc.bounded else []
    if given.get("sd") is not None:
        below.append(f"± {given['sd']:.3f} over seeds")
    sees = "sees" if auc.value >= 0.5 else "fooled"
    return Cell(unit(auc.value), below, f"{sees} {look}".strip(), round(HEAT * min(1, 2 * abs(auc.value - 0.5))), mark)


# ---- tables ----------------------------------------------------------------------------------------------------------


def matrices(found: Found) -> list[dict[str, Any]]:
    """For each detector trained here its table: trained on one, tested on all; last, trained on all but the column's.

    Then one table of the detectors that came trained.
    """
    made = []
    for name in dict.fromkeys(line["detector"] for line in found["matrix"] if line["kind"] != "own"):
        mine = [line for line in found["matrix"] if line["detector"] == name]
        rows = [(line["trained_on"][0], line_cells(line)) for line in mine if line["kind"] == "one"]
        others = [line for line in mine if line["kind"] == "others"]
        left_out = []
        for place, column in enumerate(found["columns"] if others else ()):
            line = next((line for line in others if column not in line["trained_on"]), None)
            left_out.append(heated(line["cells"][place] if line else None))
        made.append({"name": name, "rows": rows, "left_out": left_out, "own": False})
    own = [line for line in found["matrix"] if line["kind"] == "own"]
    if own:
        rows = [(line["detector"], line_cells(line)) for line in own]
        made.append({"name": "Detectors that came trained", "rows": rows, "left_out": [], "own": True})
    return made


def line_cells(line: Found) -> list[Cell]:
    return [
        heated(cell, "own", "trained on") if cell and cell["seen"] else heated(cell) for cell in line["cells"]
    ]  # fmt: skip


def figures(row: Found, keys: Sequence[str]) -> list[str]:
    """AUCs as text with their intervals on a second line."""
    made = []
    for key in keys:
        auc = estimate(row.get(key))
        made.append(
            MISSING if auc is None else f"{unit(auc.value)}\n{interval(auc, unit)}" if auc.bounded else unit(auc.value)
        )
    rating = estimate(row.get("rating"))
    if rating is None:
        return [*made, MISSING]
    return [*made, f"{rating.value:+.2f}\n{rating.low:+.2f} to {rating.high:+.2f}"]


def detector_table(found: Found, *, brief: bool = False) -> Table:
    crossed = found["cross"] is not None and not brief
    keys = ("unseen", "seen", "leave_one_out", *(("cross",) if crossed else ()))
    headers = ["rank", "detector", "unseen", "seen", "all but one", *(("cross-domain",) if crossed else ()), "rating"]
    rows = []
    for row in found["detectors"]:
        name = row["name"] + ("\nas it came" if row["own"] else "")
        rows.append([str(row["rank"] or MISSING), name, *figures(row, keys)])
    return Table(headers, rows)


def generator_table(found: Found) -> Table:
    headers = ["rank", "generator", "unseen", "seen", "all but one", "rating"]
    rows = []
    for row in found["generators"]:
        name = f"{row['name']}\n{row['data']}{', as it came' if row['trained'] else ''}"
        rows.append([str(row["rank"] or MISSING), name, *figures(row, ("unseen", "seen", "leave_one_out"))])
    return Table(headers, rows)


def made_table(found: Found) -> Table | None:
    """What each generator that was trained here has, costs and comes to; several directions side by side."""
    rows = []
    for row in found["players"]["generators"]:
        made = mapping(row.get("made"))
        if not made:
            continue
        entries = rounds_of({"rounds": [{"round": 0, "quality": made.get("quality")}]})
        seconds, count = number(made.get("seconds_per_step")), number(made.get("parameters"))
        rows.append([
            f"{row['name']}\n{row['data']}", f"{count:,.0f}" if count else MISSING,
            f"{row['generator_steps']:,} × {row['generator_batch']}",
            f"{1000 * seconds:,.0f} ms" if seconds else MISSING, far(entries),
        ])  # fmt: skip
    return Table(["generator", "parameters", "steps × batch", "a step", "distance"], rows) if rows else None


def far(rounds: Sequence[Round]) -> str:
    """The main distance of a run's last round, its directions side by side, with intervals, floors and its name."""
    seen = [distance for distance in rounds[-1].distances if distance.name == main_distance(rounds)]
    if not seen:
        return MISSING
    ways = ", ".join(arrow(distance.direction) for distance in seen if distance.direction)
    columns = [(amount(d.estimate.value), interval(d.estimate, amount), amount(d.floor)) for d in seen]
    figures, intervals, floors = (" / ".join(line) for line in zip(*columns, strict=True))
    return "\n".join((figures, intervals, f"floor {floors}", f"{seen[0].name} {ways}".strip()))


def crosses(found: Found) -> list[dict[str, Any]]:
    """Of each line with crossed pairs its table: reals down, fakes across."""
    given = found["cross"]
    made = []
    for line in given["lines"] if given else ():
        rows = []
        for real, cells in zip(given["reals"], line["cells"], strict=True):
            marked = [heated(c, "own", "its own") if c and c["matched"] else heated(c) for c in cells]
            rows.append((real["name"], marked))
        on = " + ".join(line["trained_on"]) or "other fakes"
        columns = [fake["name"] for fake in given["fakes"]]
        made.append({"name": f"{line['detector']} trained on {on}", "columns": columns, "rows": rows})
    return made


def cross_table(found: Found) -> Table | None:
    """A row a line: matched pairs, crossed pairs, and the worst of these by name."""
    if not found["cross"]:
        return None
    rows = []
    for line in found["cross"]["lines"]:
        worst = line["worst"]
        on = " + ".join(line["trained_on"]) or "other fakes"
        cells = [figures({"auc": line[key]}, ("auc",))[0] for key in ("matched", "crossed")]
        rows.append([f"{line['detector']}\n{on}", *cells, f"{unit(worst['auc'])}\n{worst['fake']} | {worst['real']}"])
    return Table(["detector, trained on", "matched", "crossed", "lowest: fakes of | reals of"], rows)


# ---- words -----------------------------------------------------------------------------------------------------------


def verdict(found: Found) -> list[str]:
    """Sentences for the head of the page: where intervals overlap, they claim no difference."""
    made = []
    ranked = [row for row in found["detectors"] if row["rank"]]
    unseen = [row for row in ranked if row["unseen"]["auc"] is not None]
    if unseen:
        best, rest = unseen[0], unseen[1:]
        first = estimate(best["unseen"])
        assert first
        lead = f"{best['name']} carries farthest" if rest else f"{best['name']} meets the unseen"
        if first.low is None or first.low <= 0.5:
            lead = "No detector clearly tells fakes that it was not trained on; first of all stands " + best["name"]
        said = f"{lead}: AUC {_said(first)} on fakes of generators that it was not trained on"
        seen = estimate(best["seen"])
        said += f", {_said(seen)} on those of its training." if seen else "."
        if rest:
            rival = estimate(rest[0]["unseen"])
            clear = rival is not None and first.compare(rival) == 1
            follows = f" {rest[0]['name']} follows with {_said(rival)}" if rival else ""
            said += f"{follows}." if clear else f"{follows}, and the intervals overlap: no clear difference."
        made.append(said)
        drops = [(r["seen"]["auc"], r["unseen"]["auc"]) for r in unseen if r["seen"]["auc"] is not None]
        if drops:
            before, after = (sum(side) / len(drops) for side in zip(*drops, strict=True))
            made.append(
                f"Over all detectors, AUC is {unit(before)} on generators seen in training, {unit(after)} on others."
            )
    elif ranked:
        made.append("With one generator there is nothing unseen: the figures are of what was trained on.")
    hardest = [row for row in found["generators"] if row["rank"] and row["unseen"]["auc"] is not None]
    if len(hardest) > 1 and hardest[1]["rank"] > 1:
        first, second = estimate(hardest[0]["unseen"]), estimate(hardest[1]["unseen"])
        how = "clearly " if first and second and first.compare(second) == -1 else ""
        made.append(f"{hardest[0]['name']} is {how}the hardest to catch unseen: AUC {_said(first)}.")
    if found["failed"]:
        count = plural(len(found["failed"]), "job")
        made.append(f"{count} failed and {len(found['skipped'])} built on them: these cells are empty (named below).")
    return made or ["Nothing could be played."]


def _said(auc: Estimate | None) -> str:
    if auc is None:
        return MISSING
    return f"{unit(auc.value)} ({interval(auc, unit)})" if auc.bounded else unit(auc.value)


def badges(found: Found) -> list[str]:
    first, config = found["players"]["generators"][0], found["config"]
    made = [f"{first['size']} px", first["codec"], f"{config['preset']} preset", plural(len(config["seeds"]), "seed")]
    return [*made, f"{found['jobs']:,} jobs", f"95{PERCENT} intervals over images"]


def spent(found: Found) -> list[tuple[str, str]]:
    return [(WORKS.get(work, work), duration(seconds)) for work, seconds in found["seconds"].items()]


# ---- plots -----------------------------------------------------------------------------------------------------------


def ratings(found: Found) -> list[dict[str, Any]]:
    """A dot plot of the generators' ratings and one of the detectors', as on a leaderboard."""
    rows = {"generation": found["generators"], "detection": found["detectors"]}
    return board.ratings({
        part: [{"key": row["name"], "team": row["name"], "rank": row["rank"], "rating": row["rating"]} for row in some]
        for part, some in rows.items()
    })  # fmt: skip


def heat_map(found: Found) -> bytes:
    """The matrix as one picture that stands alone (SVG): a row a detector and what it was trained on."""
    import io

    import numpy as np
    from matplotlib import rc_context
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    lines, columns = found["matrix"], found["columns"]
    table = np.array([[cell["auc"] if cell else np.nan for cell in line["cells"]] for line in lines], float)
    figure = Figure(figsize=(3.4 + 0.85 * len(columns), 1.0 + 0.3 * max(1, len(lines))), layout="constrained")
    axes = figure.add_subplot()
    if table.size:
        colours = LinearSegmentedColormap.from_list("auc", ["#c2502b", "#ffffff", "#10706a"])
        axes.imshow(table, vmin=0, vmax=1, cmap=colours, aspect="auto", alpha=0.75)
        for (row, column), value in np.ndenumerate(table):
            seen = bool(lines[row]["cells"][column]) and lines[row]["cells"][column]["seen"]
            text = f"{value:.2f}{'*' if seen else ''}" if np.isfinite(value) else MISSING
            axes.text(column, row, text, ha="center", va="center", size=8)
    names = [f"{line['detector']}: {_on(line, columns)}" for line in lines]
    axes.set_yticks(range(len(lines)), [name.replace("$", "") for name in names], size=8)
    axes.set_xticks(range(len(columns)), [name.replace("$", "") for name in columns], size=8, rotation=20, ha="right")
    axes.set_title("AUC; rows: trained on, columns: tested on; * in training", size=9, loc="left")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "arena"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _on(line: Found, columns: Sequence[str]) -> str:
    """What a line was trained on, in short."""
    if line["kind"] == "others":
        return "all but " + ", ".join(name for name in columns if name not in line["trained_on"])
    return " + ".join(line["trained_on"]) or "other fakes"

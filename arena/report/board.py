"""The leaderboard of an event as a page, from board.json alone; its strings are strangers'."""

import base64
import re
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arena.faces import plural
from arena.files import atomic, read_json
from arena.report import plots
from arena.report.board_data import (
    PARTS,
    Board,
    checked,
    estimate,
    fitting,
    name_of,
    pairs_of,
    plain,
    rows_of,
)  # fmt: skip
from arena.report.ledger_view import Estimate, mapping, number
from arena.report.table import MISSING, amount, interval, percent, unit
from arena.report.templates import fill

PREVIEW_BYTES, ALL_PREVIEWS = 400_000, 3_000_000  # base64 adds a third, and the page stays below 5 MB
PREVIEW_SIDE = 4096  # px: a small file may unpack to a picture that stops the reader's browser
UP, DOWN = "ascending", "descending"
HEAT = 40  # percent of colour at most in a cell of the matrix: its text keeps a contrast of 5 on light and on dark
Form = Callable[[float | None], str]


def write_board(folder: Path) -> Path:
    """Write FOLDER/leaderboard.html from FOLDER/board.json (whole or not at all) and return its path.

    FOLDER/teams/KEY/preview.png is shown where it is a PNG below 400 kB, for teams that were scored alone: what was
    thrown out may hold copies of real people's pictures. Raises InputError where board.json is missing or damaged.
    """
    board = checked(read_json(Path(folder) / "board.json"), Path(folder) / "board.json")
    html = render(board, previews(Path(folder), board)).encode("utf-8", "replace")
    path = Path(folder) / "leaderboard.html"
    with atomic(path) as file:
        file.write(html)
    return path


def render(board: Board, shown: Mapping[str, "Preview"] | None = None) -> str:
    """The page, self-contained; `shown` holds previews by the team's key. The same board gives the same bytes."""
    board = checked(board, "board.json")
    challenge, teams = mapping(board["challenge"]), rows_of(board, "teams")
    return fill(
        "board.html", {"plain": plain, "name_of": name_of, "sha256": _sha256},
        id=challenge.get("id"), title=challenge.get("title") or "A duel of generators and detectors",
        sentences=standings(board), badges=badges(challenge), tiles=tiles(board), warnings=board.get("warnings") or [],
        generation=table(rows_of(board, "generation"), GENERATION), scores=table(rows_of(board, "scores"), SCORES),
        detection=table(rows_of(board, "detection"), DETECTION), matrix=matrix(mapping(board.get("matrix"))),
        ratings=ratings(board), league=mapping(board.get("league")).get("text"), cyclic=_cyclic(board),
        scored=[team for team in teams if team.get("status") == "scored"],
        distances=sorted({str(mapping(row.get("distance")).get("name") or "") for row in rows_of(board, "generation")}),
        refused=[team for team in teams if team.get("status") != "scored"],
        previews=shown or {}, protocol=[(plain(row[0]), plain(row[1])) for row in board.get("protocol") or []],
        protections=board.get("protections") or [],
    )  # fmt: skip


# ---- tables ----------------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """A figure, lines that stand small below it, what it is sorted by (None: missing, and last), its look."""

    text: str
    below: list[str]
    sort: float | str | None
    look: str = ""
    heat: int = 0


class Column(NamedTuple):
    """A header, the way of its first sorting (best on top), and what it shows of a row."""

    title: str
    first: str
    cell: Callable[[Mapping[str, Any]], Cell]


class Row(NamedTuple):
    name: str
    marks: list[str]
    why: list[str]
    cells: list[Cell]
    ranked: bool


def _figure(found: Estimate | None, form: Form, *more: str) -> Cell:
    if found is None:
        return Cell(MISSING, [], None)
    return Cell(form(found.value), [*([interval(found, form)] if found.bounded else []), *more], found.value)


def _column(title: str, first: str, key: str, form: Form) -> Column:
    return Column(title, first, lambda row: _figure(estimate(row.get(key)), form))


def _distance(row: Mapping[str, Any]) -> Cell:
    given = mapping(row.get("distance"))
    floor = number(given.get("floor"))
    more = [f"floor {amount(floor)}"] if floor is not None else []
    return _figure(estimate(given), amount, *more)


def _worst(row: Mapping[str, Any]) -> Cell:
    given = mapping(row.get("worst"))
    return _figure(estimate(given), unit, name_of(given))


def short(value: float | None) -> str:
    """A count with three figures and its thousands as a letter: 980, 12.3 k, 4.56 M, 1.2 G."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value is not None and abs(value) >= size:
            return f"{amount(value / size)}\N{NO-BREAK SPACE}{letter}"
    return MISSING if value is None else f"{value:g}"


RANK = _column("rank", UP, "rank", lambda value: MISSING if value is None else f"{value:g}")
GENERATION = (
    _column("fooled", DOWN, "fooled", percent), _column("rating", DOWN, "rating", amount),
    Column("distance", UP, _distance), _column("coverage", DOWN, "coverage", unit),
    _column("density", DOWN, "density", unit), _column("copied", UP, "copied", percent),
    _column("container AUC", UP, "container_auc", unit), _column("fakes", DOWN, "n", short),
)  # fmt: skip
DETECTION = (
    _column("AUC", DOWN, "auc", unit), Column("worst team", DOWN, _worst),
    _column("TPR at 1 % FPR", DOWN, "tpr_at_1_fpr", percent), _column("ECE", UP, "ece", unit),
    _column("Brier", UP, "brier", unit), _column("rating", DOWN, "rating", amount),
    _column("test AUC", DOWN, "test_auc", unit), _column("control AUC", UP, "control_auc", unit),
    _column("parameters", UP, "parameters", short), _column("FLOPs", UP, "flops", short),
    _column("ms", UP, "ms", amount), _column("MB", UP, "megabytes", amount),
)  # fmt: skip
SCORES = (
    _column("AUC", DOWN, "auc", unit), _column("TPR at 1 % FPR", DOWN, "tpr_at_1_fpr", percent),
    _column("ECE", UP, "ece", unit),
)  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> dict[str, Any] | None:
    """Columns and rows for the page; a column that nobody has a figure in is left out. None without rows."""
    if not rows:
        return None
    kept = [column for column in columns if any(column.cell(row).sort is not None for row in rows)]
    made = []
    told = Counter(name_of(row).casefold() for row in rows)
    for row in rows:
        marks = [mark for mark in ("house", "model") if row.get(mark) is True]
        cells = [column.cell(row) for column in (RANK, *kept)]
        why = [plain(row.get("key"), 60)] if told[name_of(row).casefold()] > 1 else []  # two of one name
        why += [plain(row["why_unranked"])] if row.get("why_unranked") else []
        made.append(Row(name_of(row), marks, why, cells, cells[0].sort is not None))
    return {"columns": [(column.title, column.first) for column in kept], "rows": made}


def matrix(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Detectors down, generators across, AUC in each cell, the colour its distance from chance."""
    generators = [mapping(row) for row in given.get("generators") or []]
    lines: dict[int, tuple[str, list[Cell]]] = {}
    for place, (detector, generator, found) in enumerate(pairs_of(given)):
        cell = _figure(estimate(found), unit)
        if isinstance(cell.sort, float | int):
            own = " own" if _is_own(given, detector, generator, found) else ""
            heat = round(HEAT * min(1.0, abs(cell.sort - 0.5) * 2))
            cell = cell._replace(look=("sees" if cell.sort >= 0.5 else "fooled") + own, heat=heat)
        lines.setdefault(place // len(generators), (name_of(detector), []))[1].append(cell)
    if not lines:
        return None
    with_own = any("own" in cell.look for _, cells in lines.values() for cell in cells)
    swatches = [(level, round(2 * HEAT * (level - 0.5))) for level in (0.5, 0.75, 1.0)]
    columns = [name_of(row) for row in generators]
    return {"columns": columns, "rows": list(lines.values()), "own": with_own, "swatches": swatches}


def _is_own(given: Board, detector: Board, generator: Board, found: Any) -> bool:
    """Whether a team met its own fakes: said of the pair itself, or of the whole matrix."""
    return found.get("own") is True or (given.get("own") is True and detector.get("key") == generator.get("key"))


# ---- words -----------------------------------------------------------------------------------------------------------


def standings(board: Board) -> list[str]:
    """Who leads each track, and how surely; where intervals overlap, the lead is called unsure."""
    made = []
    for part, track, key, claim, form in (
        ("generation", "generation", "fooled", "its fakes bring detectors {} of the way to guessing", percent),
        ("detection", "detection", "auc", "its detector tells the field’s fakes from reals with AUC {}", unit),
        ("scores", "scores handed in", "auc", "AUC {} on the test images", unit),
    ):
        rows = [row for row in rows_of(board, part) if row.get("model") is not True]
        if part in (mapping(board["challenge"]).get("tracks") or ()) or rows:
            made.append(_standing(f"In {track}" if part != "scores" else f"Among {track}", rows, key, claim, form))
    return made or ["There is nothing to rank yet."]


def _standing(where: str, rows: Sequence[Mapping[str, Any]], key: str, claim: str, form: Form) -> str:
    ranked = [row for row in rows if number(row.get("rank")) is not None]
    if not ranked:
        return f"{where} nobody is ranked."
    leaders = [row for row in ranked if row["rank"] == ranked[0]["rank"]]
    if len(leaders) > 1:
        return f"{where} {', '.join(map(name_of, leaders[:-1]))} and {name_of(leaders[-1])} share the first place."
    best = estimate(ranked[0].get(key))
    said = claim.format(_said(best, form))
    if len(ranked) == 1:
        return f"{where} {name_of(ranked[0])} is the only one ranked: {said}."
    rival = estimate(ranked[1].get(key))
    sure = best.compare(rival) if best and rival else None
    follows = f"{name_of(ranked[1])} follows with {_said(rival, form)}"
    if sure is None:
        return f"{where} {name_of(ranked[0])} stands first, how surely cannot be told: {said}; {follows}."
    if sure:
        return f"{where} {name_of(ranked[0])} leads clearly: {said}; {follows}."
    return f"{where} {name_of(ranked[0])} stands first, but not surely: {said}; {follows}, and the intervals overlap."


def _said(found: Estimate | None, form: Form) -> str:
    if found is None:
        return "an unknown figure"
    if not found.bounded:
        return form(found.value)
    joined = interval(found, form).replace("–", "\u2060–\u2060")  # no line ends within an interval
    return f"{form(found.value)} ({joined})"


def badges(challenge: Mapping[str, Any]) -> list[str]:
    """What was played: size, medium, codec, counts."""
    frames = number(challenge.get("frames")) or 1
    found = [f"{challenge['size']} px"] if challenge.get("size") else []
    found += ["stills" if frames == 1 else f"clips of {frames:g} frames"]
    found += [plain(challenge["codec"], 40)] if challenge.get("codec") else []
    for key, what in (("n_real", "secret reals"), ("n_fakes", "fakes a team"), ("n_test", "test images")):
        count = number(challenge.get(key))
        found += [f"{count:,.0f} {what}"] if count else []
    return found


def tiles(board: Board) -> list[dict[str, Any]]:
    """Teams, ranked, out, refused, pairs that count."""
    teams, given = rows_of(board, "teams"), mapping(board.get("matrix"))
    parts = {
        part: {
            row.get("key") for row in rows_of(board, part) if number(row.get("rank")) and row.get("model") is not True
        }
        for part in PARTS
    }
    ranked = {team.get("key") for team in teams} & set().union(*parts.values())
    told = [f"{len(keys)} in {part}" for part, keys in parts.items() if keys]
    counts = {status: sum(team.get("status") == status for team in teams) for status in ("out", "refused")}
    own = [_is_own(given, *pair) for pair in pairs_of(given) if estimate(pair[2])]
    below = f"and {plural(sum(own), 'own pair')}, not counted" if any(own) else "detector against fakes"
    return [
        {"title": "Teams", "figure": len(teams), "below": "handed in"},
        {"title": "Ranked", "figure": len(ranked), "below": ", ".join(told) or "nobody"},
        {"title": "Out", "figure": counts["out"], "below": "does not count"},
        {"title": "Refused", "figure": counts["refused"], "below": "could not be read"},
        {"title": "Pairs played", "figure": len(own) - sum(own), "below": below},
    ]


# ---- plots and pictures ----------------------------------------------------------------------------------------------


def ratings(board: Board) -> list[dict[str, Any]]:
    """A dot plot of ratings for generators and one for detectors, on one scale, the strongest on top."""
    found = []
    for part in ("generation", "detection"):
        entries = [
            (fitting(name_of(row)), rating) for row in rows_of(board, part) if (rating := estimate(row.get("rating")))
        ]
        if entries:
            found.append((part, sorted(entries, key=lambda entry: -entry[1].value)))
    ends = [end for _, entries in found for _, r in entries for end in (r.low, r.value, r.high) if end is not None]
    inks = {"generation": ("fake", "Generators"), "detection": ("real", "Detectors")}
    return [
        {"title": inks[part][1], "svg": plots.dot_plot(entries, inks[part][0], (min(ends), max(ends)), "rating", 124)}
        for part, entries in found
    ]


class Preview(NamedTuple):
    source: Any
    width: int
    height: int


def previews(folder: Path, board: Board) -> dict[str, Preview]:
    """Scored teams' preview.png as data URIs by key, as they are; only their headers are read here, never a pixel."""
    found: dict[str, Preview] = {}
    room = ALL_PREVIEWS
    for team in rows_of(board, "teams"):
        key = str(team.get("key") or "")
        path = folder / "teams" / key / "preview.png"
        if team.get("status") != "scored" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", key):
            continue
        if path.is_symlink() or not path.is_file() or path.stat().st_size >= min(PREVIEW_BYTES, room):
            continue
        content = path.read_bytes()
        if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 33:
            continue
        width, height = struct.unpack(">II", content[16:24])
        if 0 < width <= PREVIEW_SIDE and 0 < height <= PREVIEW_SIDE:
            source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            found[key] = Preview(source, width, height)
            room -= len(content)
    return found


def _cyclic(board: Board) -> str:
    found = estimate(mapping(board.get("league")).get("cyclic"))
    return _said(found, percent) if found else ""


def _sha256(script: str) -> str:
    import hashlib

    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"

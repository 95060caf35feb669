"""board.json as the leaderboard's page and spreadsheets read it: its parts, pairs and figures, and strangers' words."""

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arena.errors import InputError
from arena.report.ledger_view import Estimate, mapping, number

SCHEMA = 1
PARTS = ("generation", "detection", "scores")
BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters by the book, yet nothing to see
JOINERS = "\u200c\u200d"  # Persian, Hindi and emoji need them
Board = Mapping[str, Any]


def checked(board: Any, where: Path | str) -> Board:
    if not isinstance(board, Mapping) or not mapping(board.get("challenge")):
        raise InputError(f"{where} is damaged: expected a board with its challenge. `arena submit score` rewrites it.")
    if board.get("schema") != SCHEMA:
        raise InputError(f"{where} has schema {board.get('schema')!r}, this version reads {SCHEMA}. Score again.")
    return board


def rows_of(board: Board, part: str) -> list[Mapping[str, Any]]:
    """The rows of one part of the board, those with a rank first and in its order."""
    found = [mapping(row) for row in board.get(part) or []]
    return sorted(found, key=lambda row: (rank is None, rank or 0) if (rank := number(row.get("rank"))) else (True, 0))


def estimate(given: Any) -> Estimate | None:
    """A figure with or without an interval; None where there is none."""
    given = given if isinstance(given, Mapping) else {"value": given}
    value = number(given.get("value"))
    return None if value is None else Estimate(value, number(given.get("low")), number(given.get("high")))


def pairs_of(given: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], Any]]:
    """Each detector with each generator and what came of it, row by row; None where they did not meet."""
    rows = given.get("cells") or []
    for down, detector in enumerate(given.get("detectors") or []):
        cells = (rows[down] or []) if down < len(rows) else []
        for across, generator in enumerate(given.get("generators") or []):
            yield mapping(detector), mapping(generator), cells[across] if across < len(cells) else None


def plain(text: Any, most: int = 600) -> str:
    """A stranger's text made fit to print: control, bidi and unseen characters named, accents not piled up, cut."""
    found, marks = list[str](), 0
    for sign in str("" if text is None else text).strip()[: 2 * most]:
        kind = unicodedata.category(sign)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if sign in "\n\r\t\v\f" or kind in ("Zs", "Zl", "Zp"):
            found.append(" ")
        elif (kind[0] == "C" and sign not in JOINERS) or sign in BLANK:
            found.append(f"⟨U+{ord(sign):04X}⟩")
        elif marks <= 3:
            found.append(sign)
    whole = "".join(found)
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def name_of(row: Mapping[str, Any]) -> str:
    """What a team is called on the page; its key where its name shows nothing. What runs to the left is isolated."""
    name = plain(row.get("team"), 60)
    if not name.strip(JOINERS + " "):
        return plain(row.get("key"), 60) or "(no name)"
    return f"\u2068{name}\u2069" if any(unicodedata.bidirectional(sign) in ("R", "AL") for sign in name) else name


def fitting(name: str, room: int = 19) -> str:
    """The name as far as it fits beside a plot, wide letters counted twice."""
    widths = [2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in name]
    if sum(widths) <= room:
        return name
    while name and sum(widths) > room - 1:
        name, widths = name[:-1], widths[:-1]
    return name + "…"

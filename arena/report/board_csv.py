"""The leaderboard as spreadsheets: teams.csv and matrix.csv."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arena.files import atomic
from arena.report.board_data import PARTS, Board, checked, estimate, pairs_of, plain, rows_of
from arena.report.ledger_view import mapping


def write_csv(folder: Path, board: Board) -> None:
    """Write FOLDER/teams.csv (a row a team, all figures) and FOLDER/matrix.csv (a row a pair that was played)."""
    board = checked(board, "board.json")
    rows: dict[str, dict[str, Any]] = {}
    for part in ("teams", *PARTS):
        for row in rows_of(board, part):
            key = str(row.get("key"))
            entry = rows.setdefault(key, {"key": key, "team": row.get("team"), "status": "house"})
            prefix = "" if part == "teams" else "model_" if row.get("model") is True else f"{part}_"
            for name, value in row.items():
                if isinstance(value, Mapping):
                    entry |= {f"{prefix}{name}_{inner}".removesuffix("_value"): value[inner] for inner in value}
                elif name not in ("key", "team"):
                    entry[f"{prefix}{name}"] = value
    header = list(dict.fromkeys(name for row in rows.values() for name in row))
    _write_rows(Path(folder) / "teams.csv", header, [[row.get(name) for name in header] for row in rows.values()])
    figures = ("value", "low", "high", "n_real", "n_fake")
    pairs = [
        [detector.get("key"), generator.get("key"), *(found.get(name) for name in figures)]
        for detector, generator, found in pairs_of(mapping(board.get("matrix")))
        if estimate(found)
    ]
    _write_rows(Path(folder) / "matrix.csv", ["detector", "generator", "auc", *figures[1:]], pairs)


def _write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_spreadsheet(cell) for cell in row] for row in (header, *rows)])
    with atomic(path) as file:
        file.write(text.getvalue().encode())


def _spreadsheet(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula."""
    if isinstance(value, list | tuple):
        value = "; ".join(plain(entry) for entry in value)
    text = plain(value)
    numeric = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII)
    return f"'{text}" if text[:1] in tuple("=+-@＝＋－＠") and not numeric else text

"""The tables and the page of an audit, from its figures alone (docs/audit.md)."""

from collections.abc import Mapping, Sequence
from typing import Any

from arena.report.ledger_view import Estimate
from arena.report.table import MISSING, Table, interval, unit
from arena.report.templates import fill

Found = Mapping[str, Any]


def tables(found: Found, after: Found | None = None, *, brief: bool = False) -> dict[str, Table]:
    """The tables by title; those without rows are left out. after: the audit once both classes were equalised."""
    later = ["after"] if after else []
    made = {}
    rows = []
    for row in found["container"]:
        if row["tried"] or _named(after, "container", row["name"], "tried"):
            sides = [] if brief else [_sides(row, word) for word in ("real", "fake")]
            rows.append([row["name"], _auc(row), *_after(after, "container", row["name"]), row["severity"], *sides])
    headers = ["classifier", "AUC", *later, "verdict", *([] if brief else ["reals", "fakes"])]
    made["The container"] = Table(headers, rows)
    rows = [[row["name"], _auc(row), *_after(after, "baselines", row["name"])] for row in found["baselines"]]
    made["Baselines: the pictures themselves, never a leak"] = Table(["classifier", "AUC", *later], rows)
    rows = [
        [split, f"{sides['real']:,}", f"{sides['fake']:,}"] for split, sides in found["counts"].items()
    ]  # fmt: skip
    made["Counts"] = Table(["split", "reals", "fakes"], rows)
    return {title: table for title, table in made.items() if table.rows}


def constant(found: Found) -> list[str]:
    """Classifiers that found every file alike."""
    return [row["name"] for row in found["container"] if not row["tried"]]


def _named(found: Found | None, kind: str, name: str, key: str) -> Any:
    return next((row[key] for row in (found or {}).get(kind, ()) if row["name"] == name), None)


def _auc(row: Found) -> str:
    return f"{unit(row['auc'])}\n{interval(Estimate(row['auc'], row['low'], row['high']), unit)}"


def _after(after: Found | None, kind: str, name: str) -> list[str]:
    if after is None:
        return []
    rows: Sequence[Found] = [row for row in after[kind] if row["name"] == name and row.get("tried", True)]
    return [_auc(rows[0]) if rows else "all alike"]


def _sides(row: Found, word: str) -> str:
    told = [(name, sides[word]) for name, sides in row["fields"].items() if sides["real"] != sides["fake"]]
    return "; ".join(f"{name} {text or 'none'}" for name, text in told) or MISSING


def render(found: Found) -> str:
    """The page, self-contained."""
    after = found.get("after")
    return fill(
        "audit.html",
        found=found, after=after, tables=tables(found, after), constant=constant(found),
        told=[entry for entry in found["findings"] if entry["severity"] != "fine"],
    )  # fmt: skip

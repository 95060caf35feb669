"""A tournament's figures from its logits: matrix, leave-one-out, cross-AUC, ranking, ratings (no model, no clock).

A *line* is a detector and what it was trained on; it has a judge for each seed. A cell's AUC is the mean over seeds;
its interval is over images, DeLong's for one seed and the mean of the seeds' limits for several (as if their errors had
one cause: never too narrow); `sd` is the standard deviation over seeds, what training again would change.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from arena.errors import InputError
from arena.jobs import Result
from arena.metrics.detection import delong
from arena.ratings import League, league_auc, rate
from arena.tournament_plan import Contender, Judge, Plan

Logits = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A detector, what it was trained on (entries' names), how ("one", "others", "own"), and its judge of each seed."""

    detector: str
    on: tuple[str, ...]
    kind: str
    judges: tuple[Judge, ...]

    @property
    def head(self) -> Row:
        return {"detector": self.detector, "kind": self.kind, "trained_on": list(self.on)}


class Logbook:
    """The logits that a tournament left behind, read when asked for; None where a job failed."""

    def __init__(self, plan: Plan, results: Mapping[str, Result], root: Path):
        self.plan, self.results, self.root = plan, results, root
        self._read: dict[str, dict[str, Logits]] = {}

    def of(self, judge: Judge, contender: Contender, side: str) -> dict[str, Logits] | None:
        """Logits by domain ("reals") or by way ("fakes")."""
        job = self.plan.scores[judge, contender.name, side]
        if self.results[job.key].status not in ("done", "kept"):
            return None
        if job.key not in self._read:
            path = self.root / job.output
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    self._read[job.key] = dict(arrays)
            except (OSError, ValueError, EOFError, BadZipFile) as error:
                raise InputError(f"{path} is damaged. Delete it, and the same command makes it again.") from error
        return self._read[job.key]

    def both(self, judge: Judge, contender: Contender) -> tuple[Logits, Logits] | None:
        """All logits of an entry's reals, and of its fakes."""
        reals, fakes = self.of(judge, contender, "reals"), self.of(judge, contender, "fakes")
        if reals is None or fakes is None:
            return None
        return np.concatenate(list(reals.values())), np.concatenate(list(fakes.values()))

    def seeds(self, line: Line, contender: Contender) -> list[Judge]:
        """The line's judges, one where all are the same (a trained detector on a trained run's fakes)."""
        jobs = {self.plan.scores[judge, contender.name, "fakes"].key: judge for judge in reversed(line.judges)}
        return [judge for judge in line.judges if judge in jobs.values()]


def tables(plan: Plan, results: Mapping[str, Result], root: Path) -> Row:
    """All figures, plain: matrix, generalisation, generators, cross, league."""
    book, lines = Logbook(plan, results, root), lines_of(plan)
    matrix = [line.head | {"cells": [cell(book, line, contender) for contender in plan.contenders]} for line in lines]
    crossed = cross(book, lines)
    of_detectors, of_generators, whole = league(book, lines)
    return {
        "columns": [contender.name for contender in plan.contenders],
        "matrix": matrix,
        "detectors": detectors(matrix, of_detectors, crossed),
        "generators": generators(plan, matrix, of_generators),
        "cross": crossed,
        "league": whole,
    }


def lines_of(plan: Plan) -> list[Line]:
    groups: dict[tuple[str, tuple[str, ...], str], list[Judge]] = {}
    for judge in plan.judges:
        groups.setdefault((judge.detector, judge.on, judge.kind), []).append(judge)
    return [Line(*head, tuple(judges)) for head, judges in groups.items()]


def cell(book: Logbook, line: Line, contender: Contender) -> Row | None:
    """One line on one entry's fakes, against the reals of the same data; None where it could not be played."""
    found = []
    for judge in book.seeds(line, contender):
        both = book.both(judge, contender)
        if both is not None:
            found.append({"seed": judge.seed, **estimate(*both)})
    if not found:
        return None
    seen = contender.name in line.on
    return {"seen": seen, **mean(found), "sd": spread(found), "n_real": found[0]["n_real"],
            "n_fake": found[0]["n_fake"], "seeds": found}  # fmt: skip


def estimate(real: Logits, fake: Logits) -> Row:
    value, low, high = delong(real, fake)
    return {"auc": value, "low": low, "high": high, "n_real": len(real), "n_fake": len(fake)}


def mean(rows: Iterable[Mapping[str, Any] | None]) -> Row:
    """The mean of AUCs and of their limits."""
    there = [row for row in rows if row]
    return {key: float(np.mean([row[key] for row in there])) if there else None for key in ("auc", "low", "high")}


def spread(rows: Sequence[Mapping[str, Any]]) -> float | None:
    return float(np.std([row["auc"] for row in rows], ddof=1)) if len(rows) > 1 else None


# Who is best


def detectors(matrix: Sequence[Row], ratings: Mapping[str, Row], crossed: Row | None) -> list[Row]:
    """The ranked table: `unseen`, the mean over generators that it was not trained on, decides.

    seen, unseen: of the detectors trained on one generator. leave_one_out: of those trained on all but one, on that
    one. cross: reals of one domain against fakes of another.
    """
    found = []
    for name in dict.fromkeys(line["detector"] for line in matrix):
        mine = [line for line in matrix if line["detector"] == name]
        single = [cell for line in mine if line["kind"] != "others" for cell in line["cells"] if cell]
        others = [cell for line in mine if line["kind"] == "others" for cell in line["cells"] if cell]
        across = [row for row in (crossed or {}).get("lines", []) if row["detector"] == name]
        row: Row = {
            "name": name, "own": mine[0]["kind"] == "own", "rank": None,
            "seen": mean(cell for cell in single if cell["seen"]),
            "unseen": mean(cell for cell in single if not cell["seen"]),
            "leave_one_out": mean(cell for cell in others if not cell["seen"]),
            "cross": mean(row["crossed"] for row in across if row["kind"] != "others"),
            "rating": ratings.get(name),
        }  # fmt: skip
        found.append(row)
    return ranked(found, -1)


def generators(plan: Plan, matrix: Sequence[Row], ratings: Mapping[str, Row]) -> list[Row]:
    """The ranked table: the lowest `unseen`, mean AUC of the detectors that were trained on another one, is best."""
    found = []
    for place, contender in enumerate(plan.contenders):
        single = [line["cells"][place] for line in matrix if line["kind"] != "others" and line["cells"][place]]
        others = [line["cells"][place] for line in matrix if line["kind"] == "others" and line["cells"][place]]
        found.append({
            "name": contender.name, "data": contender.home, "trained": contender.trained, "rank": None,
            "seen": mean(cell for cell in single if cell["seen"]),
            "unseen": mean(cell for cell in single if not cell["seen"]),
            "leave_one_out": mean(cell for cell in others if not cell["seen"]),
            "rating": ratings.get(contender.name),
        })  # fmt: skip
    return ranked(found, 1)


def ranked(rows: list[Row], sign: int) -> list[Row]:
    """By `unseen`, equals sharing a rank; with one generator, where nothing is unseen, by `seen`."""
    key = "unseen" if any(row["unseen"]["auc"] is not None for row in rows) else "seen"
    there = [row for row in rows if row[key]["auc"] is not None]
    for row in there:
        row["rank"] = 1 + sum(sign * other[key]["auc"] < sign * row[key]["auc"] for other in there)
    best_first = sorted(there, key=lambda row: (row["rank"], row["name"]))
    return best_first + [row for row in rows if row not in there]


# Reals of one domain, fakes of another


def cross(book: Logbook, lines: Sequence[Line]) -> Row | None:
    """Every set of reals (a domain) against every set of fakes (a way); None where there is one set of reals only.

    `matched` pairs are fakes that pass for a domain, against that domain's reals; all others are crossed.
    """
    reals, fakes = domains(book, lines)
    if len(reals) < 2:
        return None
    found = []
    for line in lines:
        cells = [[crossing(book, line, real, fake) for fake in fakes] for real in reals]
        flat = [(cell, real, fake) for row, real in zip(cells, reals, strict=True)
                for cell, fake in zip(row, fakes, strict=True) if cell]  # fmt: skip
        if not flat:
            continue
        crossed = [entry for entry in flat if not entry[0]["matched"]]
        worst, real, fake = min(crossed, key=lambda entry: entry[0]["auc"])
        found.append(line.head | {
            "cells": cells, "matched": mean(c for c, *_ in flat if c["matched"]),
            "crossed": mean(c for c, *_ in crossed),
            "worst": {**mean([worst]), "real": real["name"], "fake": fake["name"]},
        })  # fmt: skip
    names = [[{key: some[key] for key in ("name", "entry", "domain")} for some in sets] for sets in (reals, fakes)]
    return {"reals": names[0], "fakes": names[1], "lines": found}


def domains(book: Logbook, lines: Sequence[Line]) -> tuple[list[Row], list[Row]]:
    """The sets of reals, each once, and the sets of fakes with the set of reals that they pass for."""
    reals: dict[tuple[str, str], Row] = {}
    fakes: list[Row] = []
    for contender in book.plan.contenders:
        judges = [judge for line in lines for judge in line.judges]
        told = next((judge for judge in judges if book.both(judge, contender)), None)
        if told is None:
            continue
        data = contender.played[told.seed].data
        inside = list(book.of(told, contender, "reals") or {})
        for domain in inside:
            name = contender.home if domain == "all" else f"{contender.home}, {domain}"
            taken = any(row["name"] == name for key, row in reals.items() if key != (data, domain))
            row = {"name": f"{name} ({contender.name})" if taken else name, "entry": contender.name, "domain": domain}
            reals.setdefault((data, domain), row | {"contender": contender, "key": (data, domain)})
        for way in book.of(told, contender, "fakes") or {}:
            target = inside[-1 if way == "a2b" else 0]  # of pairs b alone is there
            name = contender.name if way == "all" else f"{contender.name}, to {target}"
            fakes.append({"name": name, "entry": contender.name, "domain": way, "contender": contender,
                          "key": (data, target)})  # fmt: skip
    return list(reals.values()), fakes


def crossing(book: Logbook, line: Line, real: Row, fake: Row) -> Row | None:
    found = []
    for judge in book.seeds(line, fake["contender"]):
        of_real = book.of(judge, real["contender"], "reals")
        of_fake = book.of(judge, fake["contender"], "fakes")
        if of_real is not None and of_fake is not None:
            found.append(estimate(of_real[real["domain"]], of_fake[fake["domain"]]))
    return {**mean(found), "matched": real["key"] == fake["key"]} if found else None


# Ratings


def league(book: Logbook, lines: Sequence[Line]) -> tuple[dict[str, Row], dict[str, Row], Row | None]:
    """Ratings by name from meetings of what was never trained on: detectors, generators, what is said of the whole.

    A detector's cell is the mean over what it was trained on; DeLong's covariance of all cells, which share images,
    is carried along. With one generator nothing is unseen, and the cells that there are count.
    """
    lines = [line for line in lines if line.kind != "others"]
    contenders = book.plan.contenders
    rows = list(dict.fromkeys(line.detector for line in lines))
    unseen = np.array([[c.name not in line.on for c in contenders] for line in lines], bool).reshape(len(lines), -1)
    counted = unseen if unseen.any() else np.ones_like(unseen)
    aucs, covariances = [], []
    for seed in book.plan.config.seeds:
        judges = [next(judge for judge in line.judges if judge.seed == seed) for line in lines]
        auc, covariance = whole_table(book, judges)
        weights = np.zeros((len(rows), len(contenders), *auc.shape))
        for at, line in enumerate(lines):
            for place in np.flatnonzero(counted[at] & ~np.isnan(auc[at])):
                weights[rows.index(line.detector), place, at, place] = 1
        flat = weights.reshape(len(rows) * len(contenders), -1)
        there = flat.sum(1) > 0
        flat = flat / np.maximum(flat.sum(1, keepdims=True), 1)
        aucs.append(np.where(there, flat @ np.nan_to_num(auc.ravel()), np.nan))
        covariances.append(flat @ np.nan_to_num(covariance) @ flat.T)
    played = ~np.isnan(aucs).any(0)
    if played.sum() < 2:
        return {}, {}, None
    table = np.where(played, np.mean(aucs, axis=0), np.nan).reshape(len(rows), -1)
    sizes = [[_least(book, contender, side) for contender in contenders] for side in ("reals", "fakes")]
    shaped = [np.broadcast_to(counts, table.shape) for counts in sizes]
    found = rate(table, np.mean(covariances, axis=0), n_real=shaped[0], n_fake=shaped[1])
    names = [contender.name for contender in contenders]
    return _named(rows, found.detectors), _named(names, found.generators), said(found, bool(unseen.any()))


def whole_table(book: Logbook, judges: Sequence[Judge]) -> tuple[Logits, Logits]:
    """AUCs (judges x entries) and their covariance; entries of different data share no image, so they have none."""
    contenders = book.plan.contenders
    auc = np.full((len(judges), len(contenders)), np.nan)
    covariance = np.zeros((auc.size, auc.size))
    blocks: dict[str, list[int]] = {}
    for place, contender in enumerate(contenders):
        blocks.setdefault(contender.played[judges[0].seed].data, []).append(place)
    for places in blocks.values():
        both = [[book.both(judge, contenders[place]) for place in places] for judge in judges]
        there = [row for row, found in enumerate(both) if any(found)]
        if not there:
            continue
        reals = [next(pair[0] for pair in both[row] if pair) for row in there]
        fakes = [[pair[1] if pair else None for pair in both[row]] for row in there]
        some, shared = league_auc(reals, fakes)
        auc[np.ix_(there, places)] = some
        index = (np.array(there)[:, None] * len(contenders) + np.array(places)).ravel()
        covariance[np.ix_(index, index)] = shared
    return auc, covariance


def _least(book: Logbook, contender: Contender, side: str) -> int:
    """How many images of an entry there are."""
    counts = [sum(map(len, found.values())) for judge in book.plan.judges if (found := book.of(judge, contender, side))]
    return min(counts, default=1)


def _named(names: Sequence[str], ratings: Sequence[Any]) -> dict[str, Row]:
    pairs = zip(names, ratings, strict=True)
    return {name: {"value": r.value, "low": r.low, "high": r.high} for name, r in pairs if np.isfinite(r.value)}


def said(found: League, unseen: bool) -> Row:
    """What a reader of the ratings must know."""
    text = "" if unseen else "With one generator there is nothing unseen: these ratings are of what was trained on. "
    text += "" if found.connected else "Not all players are joined by meetings: ratings compare within a group only. "
    cyclic = None
    if np.isfinite(found.cyclic.share):
        cyclic = {"value": found.cyclic.share, "low": found.cyclic.low, "high": found.cyclic.high, "p": found.cyclic.p}
        text += (
            "One rating per player hides something: who sees whom goes in rings (p < 0.01)." if found.cyclic.found else
            "One rating per player tells the whole story, as far as these images can show."
        )  # fmt: skip
    else:
        text += "Too few meetings to see whether who sees whom goes in rings."
    return {"text": text, "cyclic": cyclic, "found": found.cyclic.found, "connected": found.connected}

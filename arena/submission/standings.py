"""Who won: the tables of a leaderboard from logits and qualities alone (no files, no models, no clock).

A cell is the AUC of one detector on one team's fakes against the secret reals. A team's own cell is shown and does not
count: a team could train its detector on its own fakes, or make it blind to them. Fakes that are out (copies, noise)
count for nobody.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arena.metrics.calibration import brier, ece
from arena.metrics.detection import auc, delong, tpr_at_fpr
from arena.ratings import league_auc, rate

HOUSE = "house"  # the key of the organiser's own detector
Logits = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class Fakes:
    """A team's fakes. figures: distance, coverage, density, copied, container_auc, n; out: why they do not count."""

    key: str
    team: str
    figures: Row
    out: str | None = None
    owner: str = ""  # who made them, where several submissions are of one team; else the key


@dataclass(frozen=True)
class Judge:
    """A detector and what it said. real, test, control: logits of the secret reals, the test images, and the reals
    recompressed; fakes: by the key of the team. Of the house, `reals` holds the reals' logits by team instead."""

    key: str
    team: str
    fakes: Mapping[str, Logits]
    real: Logits | None = None
    reals: Mapping[str, Logits] = field(default_factory=dict)
    test: Logits | None = None
    control: Logits | None = None
    cost: Row = field(default_factory=dict)
    out: str | None = None
    owner: str = ""

    def of_reals(self, team: str) -> Logits:
        found = self.reals.get(team, self.real)
        assert found is not None
        return found

    def owns(self, fakes: Fakes) -> bool:
        return (self.owner or self.key) == (fakes.owner or fakes.key)

    def counts_for(self, fakes: Fakes) -> bool:
        return self.out is None and fakes.out is None and not self.owns(fakes) and fakes.key in self.fakes

    def sees(self, fakes: Sequence[Fakes]) -> bool:
        """Whether it does better than chance over all that counts for it; else nobody is to gain by fooling it."""
        met = [some for some in fakes if self.counts_for(some)]
        cells = [auc(self.of_reals(some.key), self.fakes[some.key]) for some in met]
        return bool(cells) and float(np.mean(cells)) > 0.5


def estimate(real: Logits, fake: Logits) -> Row:
    """AUC with DeLong's interval and its counts."""
    value, low, high = delong(real, fake)
    return {"value": value, "low": low, "high": high, "n_real": len(real), "n_fake": len(fake)}


def matrix(judges: Sequence[Judge], fakes: Sequence[Fakes]) -> Row:
    """Every detector that is not out against every team's fakes that are not out; None where not played."""
    rows, columns = [judge for judge in judges if not judge.out], [some for some in fakes if not some.out]

    def cell(judge: Judge, some: Fakes) -> Row | None:
        if some.key not in judge.fakes:
            return None
        return estimate(judge.of_reals(some.key), judge.fakes[some.key]) | {"own": judge.owns(some)}

    return {
        "detectors": [{"key": judge.key, "team": judge.team} for judge in rows],
        "generators": [{"key": some.key, "team": some.team} for some in columns],
        "cells": [[cell(judge, some) for some in columns] for judge in rows],
    }


def generation(judges: Sequence[Judge], fakes: Sequence[Fakes], ratings: Mapping[str, Row]) -> list[Row]:
    """The generation table, best first.

    `fooled`: the mean over the other teams' detectors, of those that do better than chance over all that they meet, of
    2 (1 - AUC), at most 1 each: 0 where all is seen, 1 at chance. Its interval is the mean of the cells' limits, as if
    all their errors had one cause: never too narrow.
    """
    rows = []
    able = [judge for judge in judges if judge.key == HOUSE or judge.sees(fakes)]
    for some in fakes:
        field_of = [judge for judge in able if judge.counts_for(some)]
        cells = [estimate(judge.of_reals(some.key), judge.fakes[some.key]) for judge in field_of]
        fooled = None
        if cells:
            value, high, low = (float(np.mean([chance(cell[k]) for cell in cells])) for k in ("value", "low", "high"))
            fooled = {"value": value, "low": low, "high": high, "n_detectors": len(cells)}
        why = some.out or (None if fooled else "no other team's detector met these fakes")
        rows.append({
            "key": some.key, "team": some.team, "rank": None, "fooled": fooled, "rating": ratings.get(some.key),
            **some.figures, "why_unranked": why,
        })  # fmt: skip
    return ranked(rows, lambda row: row["fooled"]["value"])


def chance(auc: float) -> float:
    """How near to chance a detector is brought: 0 at AUC 1, 1 at AUC 0.5 and below."""
    return min(1.0, 2 * (1 - auc))


def detection(judges: Sequence[Judge], fakes: Sequence[Fakes], ratings: Mapping[str, Row], test: Logits) -> list[Row]:
    """The detection table, best first: AUC over all other teams' fakes in one pool; `test`: the test images' labels.

    Where no team has fakes that count, the test images decide.
    """
    rows = []
    any_fakes = any(not some.out for some in fakes)
    for judge in judges:
        met = [some for some in fakes if judge.counts_for(some)]
        row: Row = {
            "key": judge.key, "team": judge.team, "rank": None, "house": judge.key == HOUSE, "auc": None, "worst": None,
            "tpr_at_1_fpr": None, "ece": None, "brier": None, "rating": ratings.get(judge.key), **judge.cost,
            "test_auc": None, "control_auc": None, "why_unranked": judge.out,
        }  # fmt: skip
        if judge.out is None:
            cells = [(some.team, estimate(judge.of_reals(some.key), judge.fakes[some.key])) for some in met]
            if judge.test is not None:
                row["test_auc"] = estimate(judge.test[test == 0], judge.test[test == 1])
            if judge.control is not None and judge.real is not None:
                row["control_auc"] = estimate(judge.real, judge.control)
            if cells:
                team, worst = min(cells, key=lambda cell: (cell[1]["value"], cell[0]))
                row["worst"] = {"team": team, **worst}
            if met and judge.real is not None:
                row |= pooled(judge.real, np.concatenate([judge.fakes[some.key] for some in met]))
            elif not any_fakes and judge.test is not None:
                row |= pooled(judge.test[test == 0], judge.test[test == 1])
            elif cells:  # the house: another detector for each team, so no pool
                means = {k: float(np.mean([cell[k] for _, cell in cells])) for k in ("value", "low", "high")}
                row["auc"] = means
            if row["auc"] is None:
                row["why_unranked"] = "no other team's fakes to meet"
            elif row["house"]:
                row["why_unranked"] = "the organiser's own, for comparison"
        rows.append(row)
    return ranked(rows, lambda row: row["auc"]["value"])


def pooled(real: Logits, fake: Logits) -> Row:
    """All figures of one detector on one pool of reals and fakes."""
    return {
        "auc": estimate(real, fake), "tpr_at_1_fpr": tpr_at_fpr(real, fake), "ece": ece(real, fake),
        "brier": brier(real, fake).score,
    }  # fmt: skip


def on_test(judges: Sequence[Judge], given: Mapping[tuple[str, str], Logits], test: Logits) -> list[Row]:
    """The table of the test images: scores that teams handed in, by (key, team), as logits; and every model's own."""
    rows = [(key, team, logits, False) for (key, team), logits in given.items()]
    rows += [(j.key, j.team, j.test, True) for j in judges if j.out is None and j.test is not None and j.key != HOUSE]
    table = [
        {"key": key, "team": team, "rank": None, "model": model, **pooled(logits[test == 0], logits[test == 1])}
        for key, team, logits, model in rows
    ]
    return ranked(table, lambda row: row["auc"]["value"])


def ranked(rows: list[Row], value: Callable[[Row], float]) -> list[Row]:
    """Rows best first with their ranks, equals sharing one; those that are not ranked come last, by name."""
    in_race = [row for row in rows if not row.get("why_unranked")]
    best_first = sorted(in_race, key=lambda row: (-value(row), row["team"], row["key"]))
    for row in best_first:
        row["rank"] = 1 + sum(value(other) > value(row) for other in in_race)
    return best_first + sorted((row for row in rows if row.get("why_unranked")), key=lambda row: row["team"])


def league(judges: Sequence[Judge], fakes: Sequence[Fakes]) -> tuple[dict[str, Row], dict[str, Row], Row | None]:
    """Ratings of detectors and of generators by key, and what is said of the whole; own pairings left out."""
    rows = [judge for judge in judges if judge.out is None and judge.real is not None]
    columns = [some for some in fakes if some.out is None]
    scores = [[judge.fakes[some.key] if judge.counts_for(some) else None for some in columns] for judge in rows]
    reals = [judge.real for judge in rows if judge.real is not None]
    if sum(cell is not None for row in scores for cell in row) < 2 or len(reals[0]) < 2:
        return {}, {}, None
    table, covariance = league_auc(reals, scores)
    counts = [[len(cell) if cell is not None else 2 for cell in row] for row in scores]
    found = rate(table, covariance, n_real=len(reals[0]), n_fake=counts)

    def by_key(players: Sequence[Any], ratings: Sequence[Any]) -> dict[str, Row]:
        pairs = zip(players, ratings, strict=True)
        return {p.key: {"value": r.value, "low": r.low, "high": r.high} for p, r in pairs if np.isfinite(r.value)}

    text = "Not all teams are joined by matches: ratings compare within a group only. " if not found.connected else ""
    cyclic = None
    if np.isfinite(found.cyclic.share):
        cyclic = {"value": found.cyclic.share, "low": found.cyclic.low, "high": found.cyclic.high}
        text += (
            "One rating per team hides something: who beats whom goes in rings (p < 0.01)." if found.cyclic.found else
            "One rating per team tells the whole story, as far as these images can show."
        )  # fmt: skip
    else:
        text += "Too few matches to see rings (A beats B, B beats C, C beats A)."
    whole = {"cyclic": cyclic, "text": text}
    return by_key(rows, found.detectors), by_key(columns, found.generators), whole

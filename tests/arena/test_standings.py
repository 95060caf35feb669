"""The leaderboard's tables from planted logits: the truth is known before the table is made."""

import numpy as np
import pytest

from arena.submission import standings
from arena.submission.standings import HOUSE, Fakes, Judge

rng = np.random.default_rng(0)
N = 400


def logits(shift):
    """Of images whose detector has d' = `shift`."""
    return rng.normal(shift, 1, N)


def event(skill, craft, **more):
    """Detectors of teams with skill s, fakes with craft c: d' = s - c."""
    fakes = [Fakes(team, team.title(), {"n": N}) for team in craft]
    judges = [
        Judge(team, team.title(), {some: logits(s - c) for some, c in craft.items()}, logits(0), **more.get(team, {}))
        for team, s in skill.items()
    ]
    return judges, fakes


def test_the_better_side_leads_both_tables():
    judges, fakes = event({"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 1.0, "b": 0.5, "c": 0.0})
    of_judges, of_fakes, whole = standings.league(judges, fakes)
    made, found = (
        standings.generation(judges, fakes, of_fakes),
        standings.detection(judges, fakes, of_judges, np.zeros(0)),
    )
    assert [row["key"] for row in made] == ["a", "b", "c"]
    assert [row["key"] for row in found] == ["a", "b", "c"]
    assert [row["rank"] for row in made] == [1, 2, 3]
    assert of_judges["a"]["value"] - of_judges["c"]["value"] == pytest.approx(2.0, abs=0.35)  # in units of d'
    assert of_fakes["a"]["value"] - of_fakes["c"]["value"] == pytest.approx(1.0, abs=0.35)
    assert "tells the whole story" in whole["text"]


def test_a_teams_own_pairing_does_not_count():
    judges, fakes = event({"a": 2.0, "b": 2.0}, {"a": 0.0, "b": 0.0})
    blind = Judge("a", "A", judges[0].fakes | {"a": logits(-9)}, judges[0].real)  # says that its own fakes are real
    before, after = (standings.generation([first, judges[1]], fakes, {}) for first in (judges[0], blind))
    assert before == after
    cell = standings.matrix([blind, judges[1]], fakes)["cells"][0][0]
    assert cell["own"]  # shown all the same
    assert cell["value"] < 0.01


def test_fakes_that_are_out_count_for_nobody():
    judges, fakes = event({"a": 3.0, "b": 3.0}, {"a": 0.0, "b": 0.0, "copier": 3.0})
    out = [*fakes[:2], Fakes("copier", "Copier", {"n": N}, out="copies")]
    kept = standings.detection(judges, out, {}, np.zeros(0))
    assert kept == standings.detection(judges, fakes[:2], {}, np.zeros(0))
    assert kept[0]["auc"]["value"] > 0.95
    last = standings.generation(judges, out, {})[-1]
    assert (last["key"], last["rank"], last["why_unranked"]) == ("copier", None, "copies")
    assert [g["key"] for g in standings.matrix(judges, out)["generators"]] == ["a", "b"]


def test_a_detector_that_is_out_counts_for_nobody():
    judges, fakes = event({"a": 2.0, "b": 2.0}, {"a": 0.0, "b": 0.0})
    out = Judge("c", "C", {}, None, out="it says 0 to every image")
    assert standings.generation([*judges, out], fakes, {}) == standings.generation(judges, fakes, {})
    assert standings.detection([*judges, out], fakes, {}, np.zeros(0))[-1]["why_unranked"].startswith("it says")


@pytest.mark.parametrize(("auc", "fooled"), [(1.0, 0.0), (0.75, 0.5), (0.5, 1.0), (0.2, 1.0)])
def test_fooled_is_how_near_a_detector_is_to_chance(auc, fooled):
    assert standings.chance(auc) == pytest.approx(fooled)


def test_the_worst_team_is_named():
    judges, fakes = event({"a": 2.0}, {"b": 0.0, "c": 1.5, "d": 0.5})
    worst = standings.detection(judges, fakes, {}, np.zeros(0))[0]["worst"]
    assert worst["team"] == "C"
    assert worst["low"] < worst["value"] < worst["high"]


def test_equals_share_a_rank():
    rows = [{"team": t, "key": t, "v": v, "rank": None} for t, v in (("x", 1.0), ("y", 2.0), ("z", 2.0))]
    assert [(r["key"], r["rank"]) for r in standings.ranked(rows, lambda r: r["v"])] == [("y", 1), ("z", 1), ("x", 3)]


def test_the_house_has_reals_of_its_own_for_each_team_and_is_not_ranked():
    _, fakes = event({}, {"a": 0.0, "b": 0.0})
    house = Judge(
        HOUSE, "the house", {"a": logits(3), "b": logits(0)}, reals={"a": logits(0), "b": logits(0)},
    )  # fmt: skip
    made = standings.generation([house], fakes, {})
    assert [row["key"] for row in made] == ["b", "a"]
    row = standings.detection([house], fakes, {}, np.zeros(0))[0]
    assert row["house"]
    assert row["rank"] is None
    assert row["worst"]["team"] == "B"


def test_without_any_fakes_the_test_images_decide():
    labels = np.repeat([0, 1], N)
    good = Judge("a", "A", {}, logits(0), test=np.concatenate([logits(0), logits(3)]))
    poor = Judge("b", "B", {}, logits(0), test=np.concatenate([logits(0), logits(0.3)]))
    table = standings.detection([poor, good], [], {}, labels)
    assert [row["key"] for row in table] == ["a", "b"]
    given = {("c", "C"): np.concatenate([logits(0), logits(1.5)])}
    assert [row["key"] for row in standings.on_test([poor, good], given, labels)] == ["a", "c", "b"]


def test_one_team_alone_is_not_ranked_by_its_own_pairing():
    judges, fakes = event({"a": 2.0}, {"a": 0.0})
    assert standings.generation(judges, fakes, {})[0]["why_unranked"]
    assert standings.detection(judges, fakes, {}, np.zeros(0))[0]["why_unranked"]
    assert standings.league(judges, fakes) == ({}, {}, None)

"""Tournaments of planted players: what must come out, and that jobs are resumed, isolated and redone as they should."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from browser import Browser, chromium
from click.testing import CliRunner

from arena.config import names
from arena.errors import InputError
from arena.jobs import Job, Local, Result, perform
from arena.metrics.detection import delong
from arena.report.table import amount
from arena.report.tournament import made_table, render, write_page
from arena.tournament import play
from arena.tournament_command import tournament
from arena.tournament_config import TournamentConfig, read_config
from arena.tournament_plan import plan

PLANTED = {
    "identity": {"of": "planted:Identity"}, "grey": {"of": "planted:Grey"}, "shift": {"of": "planted:Shift"},
    "colour": {"of": "planted:Colour"}, "diverging": {"of": "planted:Diverging"},
}  # fmt: skip
RESULTS = ("columns", "matrix", "detectors", "generators", "cross", "league", "players", "failed", "skipped")


@pytest.fixture(scope="module")
def yamls(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("players")
    for name, content in PLANTED.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="module")
def config(yamls) -> dict:
    """Shift and Grey on some embedded faces, Identity on others; two detectors."""
    named = {name: {"name": str(yamls / f"{name}.yaml")} for name in PLANTED}
    return {
        "preset": "smoke",
        "settings": {"data": {"size": 32, "train": 24, "val": 8, "judge": 20}},
        "data": {"one": {"source": "faces"}, "two": {"source": "faces", "seed": 1}},
        "generators": {
            "grey": {**named["grey"], "data": "one"}, "shift": {**named["shift"], "data": "one"},
            "identity": {**named["identity"], "data": "two"},
        },
        "detectors": {"spectrum": {"steps": 40}, "colour": {**named["colour"], "steps": 60}},
    }  # fmt: skip


def settle(given: dict) -> TournamentConfig:
    return TournamentConfig.model_validate(given)


def statuses():
    """A progress callback, and what it is told: (status, what) of each job."""
    told: list[tuple[str, str]] = []
    return told, lambda plan, result: result and told.append((result.status, result.job.about))


@pytest.fixture(scope="module")
def played(config, tmp_path_factory):
    """The tournament, played without a stop: its folder and its result."""
    folder = tmp_path_factory.mktemp("tournament") / "played"
    return folder, play(settle(config), folder)


def cell(found: dict, detector: str, on: str, tested: str) -> dict:
    line = next(row for row in found["matrix"] if (row["detector"], row["trained_on"]) == (detector, [on]))
    return line["cells"][found["columns"].index(tested)]


def test_planted_players_come_out_as_they_must(played):
    _, found = played
    assert found["failed"] == found["skipped"] == []
    for detector in ("spectrum", "colour"):
        assert cell(found, detector, "grey", "grey")["low"] > 0.7
        for line in (row for row in found["matrix"] if row["detector"] == detector):
            auc = line["cells"][found["columns"].index("identity")]
            assert auc["auc"] == 0.5  # the same images on both sides
            assert auc["low"] < 0.5 < auc["high"]
    for on in ("grey", "shift"):  # the diagonal beats what was learnt from identical images: nothing
        assert cell(found, "colour", on, on)["low"] > cell(found, "colour", "identity", on)["high"]
    colour = next(row for row in found["detectors"] if row["name"] == "colour")
    assert colour["seen"]["low"] > colour["unseen"]["high"]
    assert found["generators"][0]["name"] in ("identity", "shift")
    assert found["generators"][-1]["name"] == "grey"


def test_what_the_generators_are_and_cost_is_told(played):
    found = played[1]
    made = {row["name"]: row["made"] for row in found["players"]["generators"]}
    assert {name: row["parameters"] for name, row in made.items()} == {"grey": 0, "shift": 3, "identity": 0}
    assert all(row["seconds_per_step"] > 0 for row in made.values())
    rows = {row[0].partition("\n")[0]: row for row in made_table(found).rows}
    far = made["shift"]["quality"]["rfd-conv704-s0:a2b"]
    assert rows["shift"][1] == "3"
    assert rows["shift"][4].startswith(amount(far["value"]))
    assert f"floor {amount(far['floor'])}" in rows["shift"][4]
    trained = {**found, "players": {"generators": [{"name": "x", "data": "y"}]}}
    assert made_table(trained) is None


def test_cells_are_those_of_the_stored_logits(played, config):
    folder, found = played
    settled = plan(settle(config), "cpu")
    for line in found["matrix"]:
        judge = next(j for j in settled.judges if [j.detector, list(j.on)] == [line["detector"], line["trained_on"]])
        for contender, entry in zip(settled.contenders, line["cells"], strict=True):
            logits = [
                np.concatenate(list(np.load(folder / settled.scores[judge, contender.name, side].output).values()))
                for side in ("reals", "fakes")
            ]
            assert [entry[key] for key in ("auc", "low", "high")] == list(delong(*logits))
            assert entry["seen"] == (contender.name in line["trained_on"])
            assert (entry["n_real"], entry["n_fake"]) == (40, 40)
    with open(folder / "matrix.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 6 * 3
    assert ",".join(rows[0]) == "detector,trained on,seed,tested on,auc,low,high,n_real,n_fake,seen"
    grey = next(row for row in rows if (row["trained on"], row["tested on"]) == ("grey", "shift"))
    assert float(grey["auc"]) == cell(found, "spectrum", "grey", "shift")["auc"]
    assert json.loads((folder / "matrix.json").read_text())["matrix"] == found["matrix"]


def test_leave_one_out_and_generalisation_are_the_means_that_they_claim(played):
    _, found = played
    for row in found["detectors"]:
        mine = [line for line in found["matrix"] if line["detector"] == row["name"]]
        one = [c["auc"] for line in mine if line["kind"] == "one" for c in line["cells"] if not c["seen"]]
        others = [c["auc"] for line in mine if line["kind"] == "others" for c in line["cells"] if not c["seen"]]
        assert (len(one), len(others)) == (6, 3)
        assert row["unseen"]["auc"] == pytest.approx(np.mean(one), abs=1e-12)
        assert row["leave_one_out"]["auc"] == pytest.approx(np.mean(others), abs=1e-12)
        assert row["rating"]["low"] < row["rating"]["value"] < row["rating"]["high"]
    assert [row["rank"] for row in found["detectors"]] == [1, 2]
    assert found["league"]["connected"]


def test_cross_auc_holds_any_reals_against_any_fakes(played, config):
    folder, found = played
    cross = found["cross"]
    assert [row["name"] for row in cross["reals"]] == ["one, a", "one, b", "two, a", "two, b"]
    assert [row["name"] for row in cross["fakes"]][:2] == ["grey, to b", "grey, to a"]
    line = next(row for row in cross["lines"] if (row["detector"], row["trained_on"]) == ("colour", ["grey"]))
    settled = plan(settle(config), "cpu")
    judge = next(j for j in settled.judges if (j.detector, j.on) == ("colour", ("grey",)))
    reals = np.load(folder / settled.scores[judge, "identity", "reals"].output)
    fakes = np.load(folder / settled.scores[judge, "shift", "fakes"].output)
    auc, low, high = delong(reals["a"], fakes["b2a"])  # reals of the pair's a, fakes that pass for the faces' a
    assert line["cells"][2][3] == {"auc": auc, "low": low, "high": high, "matched": False}
    matched = [[bool(c["matched"]) for c in row] for row in line["cells"]]
    assert matched == [
        [False, True, False, True, False, False], [True, False, True, False, False, False],
        [False, False, False, False, False, True], [False, False, False, False, True, False],
    ]  # fmt: skip
    assert line["worst"]["auc"] == min(c["auc"] for row in line["cells"] for c in row if not c["matched"])


def test_a_killed_tournament_goes_on_cell_by_cell_to_the_same_bits(played, config, tmp_path):
    folder, found = played
    copy = tmp_path / "killed"
    shutil.copytree(folder / "runs", copy / "runs")  # what arena run makes is resumed by test_resume.py
    (copy / "jobs").mkdir()
    settled = plan(settle(config), "cpu")
    for contender in settled.contenders:
        for done in contender.played.values():
            shutil.copy(folder / "jobs" / f"{done.job.key}.json", copy / "jobs")
    count = 0

    def kill(_, result):
        nonlocal count
        count += result is not None
        if count == 31:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(settle(config), copy, progress=kill)
    assert not (copy / "tournament.json").exists()
    told, progress = statuses()
    again = play(settle(config), copy, progress=progress)
    assert [status for status, _ in told] == ["kept"] * 31 + ["done"] * (len(told) - 31)
    assert {key: again[key] for key in RESULTS} == {key: found[key] for key in RESULTS}
    for name in ("matrix.csv", "matrix.json", "matrix.svg"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
    for job in settled.jobs:
        if job.path.startswith("scores"):
            a, b = (np.load(root / job.output) for root in (copy, folder))
            assert all(np.array_equal(a[key], b[key]) for key in b)


def test_a_changed_configuration_plays_again_what_changed_and_nothing_else(played, config, tmp_path):
    folder, _ = played
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    changed = {**config, "detectors": {**config["detectors"], "spectrum": {"steps": 41}}}
    told, progress = statuses()
    found = play(settle(changed), copy, progress=progress)
    assert found["failed"] == []
    for status, about in told:
        assert status == ("done" if about.startswith("spectrum") else "kept"), about
    fewer = {**config, "generators": {k: v for k, v in config["generators"].items() if k != "identity"}}
    told, progress = statuses()
    found = play(settle(fewer), copy, progress=progress)
    assert {status for status, _ in told} == {"kept"}
    assert found["columns"] == ["grey", "shift"]
    assert not any(line["kind"] == "others" for line in found["matrix"])  # all but one of two is one


def test_a_failing_job_is_named_and_the_rest_goes_on(played, config, yamls, tmp_path):
    folder, found = played
    copy = tmp_path / "failing"
    shutil.copytree(folder, copy)
    generators = {**config["generators"], "bad": {"name": str(yamls / "diverging.yaml"), "data": "one"}}
    file = tmp_path / "failing.yaml"
    file.write_text(yaml.safe_dump({**config, "generators": generators, "leave_one_out": False}))
    answer = CliRunner().invoke(tournament, [str(file), "--out", str(copy), "--json"])
    assert answer.exit_code == 1, answer.output
    assert "failed: bad is trained and forges, seed 0: loss of the generator became nan" in answer.stderr
    with_bad = json.loads((copy / "tournament.json").read_text())
    assert [entry["job"] for entry in with_bad["failed"]] == ["bad is trained and forges, seed 0"]
    # the others score its fakes; trained on it, and their scores: 4 of fakes, 2 of reals
    assert len(with_bad["skipped"]) == 6 + 2 * (1 + 4 + 2)
    assert cell(with_bad, "colour", "grey", "bad") is None
    assert cell(with_bad, "colour", "bad", "grey") is None
    assert cell(with_bad, "colour", "grey", "shift") == cell(found, "colour", "grey", "shift")
    page = (copy / "tournament.html").read_text()
    assert "What could not be played" in page
    assert "bad is trained and forges" in page


def test_any_engine_may_do_the_jobs(played, config):
    """Jobs that went through JSON, done by a stranger who knows nothing but the folder."""
    folder, found = played

    class Shipped:
        def run(self, jobs):
            for job in jobs:
                again = Job.from_dict(json.loads(json.dumps(job.to_dict())))
                assert again.key == job.key
                record = perform(again, folder)
                yield Result(job, "done", record["found"], seconds=record["seconds"])

    again = play(settle(config), folder, engine=Shipped())
    assert {key: again[key] for key in RESULTS} == {key: found[key] for key in RESULTS}


def test_trained_runs_take_part_as_they_are(played, config, tmp_path):
    """A run of the first tournament as a generator, one of its detectors as a judge, by two seeds."""
    folder, found = played
    grey, shift = (next((folder / "runs").glob(f"{name}-*")) for name in ("grey", "shift"))
    judges = plan(settle(config), "cpu").judges
    judge = folder / next(j.place for j in judges if (j.detector, j.on) == ("colour", ("grey",)))
    given = {
        "preset": "smoke", "seeds": [0, 1],
        "generators": {"old": {"run": str(grey)}, "other": {"run": str(shift)}},
        "detectors": {"spectrum": {"steps": 40}, "brought": {"run": str(judge)}},
    }  # fmt: skip
    out = tmp_path / "given"
    told, progress = statuses()
    result = play(settle(given), out, progress=progress)
    assert result["failed"] == []
    assert not (out / "runs").exists()
    brought = next(line for line in result["matrix"] if line["detector"] == "brought")
    assert brought["cells"][0]["auc"] == cell(found, "colour", "grey", "grey")["auc"]
    assert brought["cells"][0]["sd"] is None  # the same detector and the same fakes, whatever the seed
    assert len(brought["cells"][0]["seeds"]) == 1
    mine = cell(result, "spectrum", "old", "other")
    assert [row["seed"] for row in mine["seeds"]] == [0, 1]
    assert mine["auc"] == pytest.approx(np.mean([row["auc"] for row in mine["seeds"]]))
    assert mine["sd"] == pytest.approx(np.std([row["auc"] for row in mine["seeds"]], ddof=1))
    own = {line["detector"]: line["trained_on"] for line in result["matrix"] if line["kind"] == "own"}
    assert own == {"brought": [], "old’s own": ["old"], "other’s own": ["other"]}
    moved = tmp_path / "moved"
    shutil.copytree(grey, moved)
    told, progress = statuses()
    again = play(
        settle({**given, "generators": {**given["generators"], "old": {"run": str(moved)}}}), out, progress=progress
    )
    assert {status for status, _ in told} == {"kept"}  # the content counts, not the place
    assert again["matrix"] == result["matrix"]


def test_several_data_sets_make_an_entry_each(config):
    given = {**config, "generators": {"cyclegan": {"steps": 3}, "alae_mlp": {"data": "one"}}}
    settled = plan(settle(given), "cpu")
    assert [c.name for c in settled.contenders] == ["cyclegan on one", "cyclegan on two", "alae_mlp"]
    data = [c.played[0].data for c in settled.contenders]
    assert len(set(data)) == 3  # a maker of stills sees the faces' two domains as one
    whole = [job.key for job in settled.jobs]
    assert len(whole) == len(set(whole)) == 3 + 2 * 6 + 2 * 6 * 3 * 2
    at = {key: place for place, key in enumerate(whole)}
    assert all(at[key] < at[job.key] for job in settled.jobs for key in job.inputs)


def test_entries_of_other_names_and_the_same_content_are_one(played, config, tmp_path):
    folder, found = played
    generators = {**config["generators"], "again": {**config["generators"]["grey"]}}
    told, progress = statuses()
    shutil.copytree(folder, tmp_path / "twice")
    twice = play(
        settle({**config, "generators": generators, "leave_one_out": False}), tmp_path / "twice", progress=progress
    )
    assert {status for status, _ in told} == {"kept"}
    for detector in ("spectrum", "colour"):
        assert cell(twice, detector, "again", "shift") == cell(found, detector, "grey", "shift")


def test_shared_reals_are_scored_once(config):
    settled = plan(settle(config), "cpu")
    reals = [job for job in settled.jobs if job.arguments.get("side") == "reals"]
    assert len(reals) == 2 * 6 * 2  # detectors x trainings x data sets, of three generators


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"generators": {"cyclegon": {}}}, "unknown generator 'cyclegon'; did you mean 'cyclegan'"),
        ({"generators": {"cyclegan": {"options": {"widht": 3}}}}, "unknown key 'widht'; did you mean 'width'"),
        ({"generators": {}}, "generators: "),
        ({"generators": {"cyclegan": {"data": "three"}}}, "no data set 'three' under `data` \\(one, two\\)"),
        ({"generators": {"x": {"run": "/nowhere", "steps": 3}}}, "takes part as it is; leave out steps"),
        ({"generators": {"x": {"run": "/nowhere"}}}, "/nowhere is no run"),
        ({"generators": {"=x": {"name": "cyclegan"}}}, "'=x' is no name for a generator"),
        ({"detectors": {"cnn_lstm": {}}}, "looks at clips of 3 frames, and the generators forge 1 at a time"),
        ({"settings": {"seed": 3}}, "settings.seed: a tournament settles that itself"),
        ({"settings": {"generator_step": 3}}, "unknown key 'generator_step'"),
        ({"data": {"one": {"size": 64}, "two": {"source": "faces-two"}}}, "images of one size are needed"),
        ({"seeds": [0, 1, 0]}, "expected different seeds, not"),
        ({"preset": "smok"}, "unknown preset 'smok'"),
        ({"detectors": {}}, "no detector takes part"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_played(config, tmp_path, change, said):
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump({**config, **change}))
    with pytest.raises(InputError, match=said) as error:
        play(read_config(str(file)), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_detectors_of_clips_and_of_stills_meet_on_clips(yamls, tmp_path):
    """A clip of grey frames is told by both kinds; a clip is one item of the cells' counts."""
    found = play(settle({
        "preset": "smoke", "data": {"clips": {"source": "faces-clips", "frames": 3}},
        "generators": {name: {"name": str(yamls / f"{name}.yaml"), "steps": 2} for name in ("grey", "identity")},
        "detectors": {"colour": {"name": str(yamls / "colour.yaml"), "steps": 40}, "cnn_lstm": {"steps": 4}},
        "leave_one_out": False,
    }), tmp_path / "out")  # fmt: skip
    assert found["failed"] == found["skipped"] == []
    told = cell(found, "colour", "grey", "grey")
    assert told["auc"] > 0.9
    assert (told["n_real"], told["n_fake"]) == (32, 32)  # judge clips of both directions, not frames
    assert cell(found, "cnn_lstm", "grey", "identity")["auc"] == 0.5


def test_folders_of_others_and_unknown_names_are_refused(config, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files and is no tournament"):
        play(settle(config), tmp_path)
    with pytest.raises(InputError, match="no tournament 'facez': give a YAML file, or one of"):
        read_config("facez")
    for name in names("tournament"):
        assert len(plan(read_config(name), "cpu").contenders) >= 3


def test_a_damaged_record_is_named(tmp_path):
    job = Job("json:dumps", {}, path="out/{key}.json")
    (tmp_path / "out").mkdir()
    (tmp_path / job.output).write_text("{}")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / f"{job.key}.json").write_text("[]")
    (result,) = Local(tmp_path).run([job])
    assert result.status == "failed"
    assert "is damaged. Delete it" in result.error


def test_what_was_cut_off_is_made_again_or_named(played, config, tmp_path):
    folder, before = tmp_path / "copy", played[1]
    shutil.copytree(played[0], folder)
    next((folder / "jobs").glob("*.json")).write_text('{"job": ')
    assert play(settle(config), folder)["matrix"] == before["matrix"]
    torn = next((folder / "scores").glob("*.npz"))
    torn.write_bytes(torn.read_bytes()[:60])
    with pytest.raises(InputError, match=f"{torn.name} is damaged. Delete it"):
        play(settle(config), folder)
    torn.unlink()
    assert play(settle(config), folder)["matrix"] == before["matrix"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_that_is_too_wide_is_told_in_paragraphs(width):
    from rich.console import Console

    from arena.report.table import Table
    from arena.tournament_command import print_table

    console = Console(width=width, file=io.StringIO())
    headers = ["fakes of", "detector of the first run", "of the second", "difference", "p", "p (Holm)", "N"]
    figures = ["0.123\n0.100–0.200", "0.223\n0.200–0.300", "+0.100\n+0.001 to +0.201", "0.0021", "0.0042", "1234+1234"]
    print_table(console, "Do they differ?", Table(headers, [["a-run-of-a-long-name", *figures]]))
    said = console.file.getvalue()
    assert max(map(len, said.splitlines())) <= width
    for figure in "\n".join(figures).split("\n"):
        assert figure in said, figure
    assert "p (Holm)" in said


def test_the_page_speaks_of_one_generator_and_of_none(played):
    _, found = played
    alone = {
        **found,
        "columns": ["grey"],
        "matrix": [],
        "detectors": [],
        "generators": [],
        "cross": None,
        "league": None,
    }
    assert "Nothing could be played." in render(alone)
    assert render(found) == render(json.loads(json.dumps(found)))


@pytest.mark.skipif(chromium() is None, reason="no Chromium here")
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_the_page_opens_without_error_and_fits(played, width, dark):
    folder, _ = played
    page = write_page(folder)
    assert page.stat().st_size < 1_000_000
    with Browser() as browser:
        browser.open(page, width=width, dark=dark)
        browser.run("document.querySelectorAll('details').forEach((entry) => { entry.open = true; })")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("document.querySelectorAll('.duels .tag').length") > 6
        assert browser.errors == browser.requests == []

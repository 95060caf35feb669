"""Runs side by side: what is tested, on which images, and why not where not."""

import json
import shutil

import numpy as np
import pytest
import yaml
from browser import Browser, chromium
from click.testing import CliRunner

from arena.compare import adjusted, compare, differing
from arena.compare_command import compare as command
from arena.config import resolve
from arena.errors import InputError
from arena.files import write_json
from arena.match import logits
from arena.metrics.detection import delong_paired
from arena.player import open_player
from arena.report.compare import final_table, render, verdict
from arena.run import run
from arena.tournament_work import Forged
from arena.watch import Silent


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same faces (another rate, another seed), one on other faces, one behind another codec."""
    folder = tmp_path_factory.mktemp("runs")
    for name, of in (("shift", "planted:Shift"), ("colour", "planted:Colour"), ("blind", "planted:Blind")):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"of": of}))
    asked = {
        "a": {},
        "b": {"seed": 1, "generator": {"start": 0.05}, "detector": {"name": str(folder / "blind.yaml")}},
        "other": {"data": {"seed": 5}, "rounds": 1}, "coded": {"data": {"codec": "jpeg-90"}, "rounds": 1},
    }  # fmt: skip
    both = {
        "generator": {"name": str(folder / "shift.yaml"), "start": 0.1},
        "detector": {"name": str(folder / "colour.yaml")},
    }
    for name, layer in asked.items():
        settings = resolve([both | {"baseline": None, "detector_steps": 20, "device": "cpu"}, layer], "smoke")
        run(settings, folder / name, Silent())
    return folder


@pytest.fixture(scope="module")
def found(runs):
    return compare([runs / name for name in ("a", "b", "other", "coded")])


def of(run, path, which="a"):
    """The logits of a run's last detector on the judge split of a run: reals, fakes."""
    import torch

    detector = open_player(run / "rounds/01/detector.safetensors", "detector").player
    forged = Forged(path)
    return [
        logits(detector, list(stores.values()), torch.device("cpu"))
        for stores in (forged.reals("judge"), forged.fakes("judge"))
    ]


def test_detectors_meet_on_the_very_same_images(runs, found):
    tests = {test["fakes_of"]: test for test in found["tests"]}
    assert list(tests) == ["a", "b"]
    for name, test in tests.items():
        truth = delong_paired(*of(runs / "a", runs / name), *of(runs / "b", runs / name))
        told = [test[key] for key in ("difference", "low", "high", "p")]
        assert told == pytest.approx(truth, abs=1e-9)
        assert (test["a"], test["b"], test["n_real"], test["n_fake"]) == ("a", "b", 32, 32)
        assert test["difference"] == pytest.approx(test["auc_a"] - test["auc_b"])
        assert not test["stored"]
    last = json.loads((runs / "a/rounds/01/round.json").read_text())
    assert tests["a"]["auc_a"] == last["after"]["auc"]
    last = json.loads((runs / "b/rounds/01/round.json").read_text())
    assert tests["b"]["auc_b"] == last["after"]["auc"]


def test_a_run_and_its_copy_are_told_from_stored_scores_and_do_not_differ(runs, tmp_path):
    shutil.copytree(runs / "a", tmp_path / "a")
    for weights in tmp_path.rglob("detector*.*t*"):
        if weights.suffix in (".safetensors", ".ckpt"):
            weights.unlink()  # not needed: both were judged on identical images
    found = compare([runs / "a", tmp_path / "a"])
    (test,) = found["tests"]
    assert test["stored"]
    assert (test["difference"], test["p"], test["p_holm"]) == (0, 1, 1)
    assert found["differences"] == []
    assert "They have the same settings." in verdict(found)


def test_why_there_is_no_test(found):
    why = {(pair["a"], pair["b"]): pair["why"] for pair in found["untested"]}
    assert len(why) == 5
    assert "different images (reference " in why["a", "other"]
    assert why["a", "coded"] == (
        "their judge reals are the same files, but not the same pixels in the same order (codec png and jpeg-90)"
    )


def test_a_run_without_a_round_is_compared_as_far_as_it_goes(runs, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(runs / "a" / "run.json", begun)
    found = compare([runs / "a", begun])
    assert found["tests"] == []
    assert found["untested"][0]["why"] == "begun has no round that is over"
    assert "begun" in render(found)
    assert final_table(found["runs"]).rows[0] == ["round", "1", "–"]


def test_damaged_images_are_named_and_no_traceback(runs, tmp_path):
    shutil.copytree(runs / "a", tmp_path / "cut")
    fakes = tmp_path / "cut" / "rounds/01/fakes/judge-a2b.npy"
    fakes.write_bytes(fakes.read_bytes()[:50])
    found = compare([runs / "b", tmp_path / "cut"])
    assert "judge-a2b.npy is damaged" in found["untested"][0]["why"]


def test_differences_over_several_runs(found):
    rows = {row["key"]: row["values"] for row in found["differences"]}
    assert rows["seed"] == [0, 1, 0, 0]
    assert rows["data.seed"] == [0, 0, 5, 0]
    assert rows["data.codec"] == ["png", "png", "png", "jpeg-90"]
    assert rows["rounds"] == [2, 2, 1, 1]
    assert differing([{"a": {"x": 1}}, {"a": None}]) == [{"key": "a", "values": [{"x": 1}, None]}]


def test_holm_equals_its_definition():
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([0.9, 0.8]) == [1.0, 1.0]
    assert adjusted([]) == []
    rng = np.random.default_rng(0)
    assert np.mean([min(adjusted(rng.random(10))) < 0.05 for _ in range(2000)]) == pytest.approx(0.05, abs=0.02)


def test_mistakes(runs, tmp_path):
    with pytest.raises(InputError, match="2 to 12 runs, got 1"):
        compare([runs / "a"])
    with pytest.raises(InputError, match="is given twice"):
        compare([runs / "a", runs / "." / "a"])
    with pytest.raises(InputError, match="is no run folder"):
        compare([runs / "a", tmp_path])
    write_json(tmp_path / "run.json", {})
    write_json(tmp_path / "summary.json", {"rounds": 3})
    with pytest.raises(InputError, match="is damaged"):
        compare([runs / "a", tmp_path])
    assert CliRunner().invoke(command, [str(runs / "a")]).exit_code == 2


def test_the_command_prints_tables_and_json(runs):
    folders = [str(runs / "a"), str(runs / "b")]
    answer = CliRunner().invoke(command, [*folders, "--json"])
    assert answer.exit_code == 0
    assert len(json.loads(answer.stdout)["tests"]) == 2
    answer = CliRunner().invoke(command, folders)
    for title in ("Settings that differ", "Last figures", "Do the detectors differ?", "detector.name"):
        assert title in answer.stdout


@pytest.mark.skipif(chromium() is None, reason="no Chromium here")
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_the_page_opens_without_error_and_fits(found, tmp_path, width, dark):
    page = tmp_path / "compare.html"
    page.write_text(render(found))
    with Browser() as browser:
        browser.open(page, width=width, dark=dark)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("document.querySelectorAll('svg').length") > 4
        assert browser.errors == browser.requests == []

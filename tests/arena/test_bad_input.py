"""A user's mistake is one line with the remedy and exit code 2; nothing is half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from arena.cli import main

WHO = ["--generator", "cyclegan", "--detector", "spectrum", "--preset", "smoke"]


def arena(*words, cwd=None):
    runner = CliRunner()
    result = runner.invoke(main, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(result, *words):
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith(("arena:", "Error:"))]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    for word in words:
        assert word in lines[0], lines[0]


def write_images(folder, n, size=40, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(abs(hash(folder.name)) % 2**32)
    for i in range(n):
        Image.fromarray(draws.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"img-{i}{suffix}")


def domains(root, n=12):
    for name in ("trainA", "trainB", "testA", "testB"):
        write_images(root / name, n)
    return root


def test_unknown_names(tmp_path):
    refused(arena("run", "--generator", "cyclegam", "--detector", "cnnspot"), "cyclegam", "did you mean 'cyclegan'")
    refused(arena("run", "--generator", "cyclegan", "--detector", "cnspot"), "did you mean 'cnnspot'")
    refused(arena("run", *WHO, "--set", "generator.wdth=3"), "wdth", "did you mean 'width'")
    refused(arena("run", *WHO, "--set", "roundz=3"), "did you mean 'rounds'")
    refused(arena("run", *WHO, "--set", "generator.width=wide"), "width", "integer", "'wide'")
    refused(arena("run", *WHO, "--precision", "fp8"), "precision")
    refused(arena("run", *WHO, "--rounds", "0"), "rounds")
    refused(arena("run", *WHO, "--preset", "papper"), "did you mean 'paper'")
    refused(arena("rn"), "did you mean 'run'")
    refused(arena("run", "--generator", "cyclegan"), "detector")


def test_devices(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(arena("run", *WHO, "--device", "cuda"), "no cuda device", "--device cpu")
    refused(arena("run", *WHO, "--device", "gpu"), "expected auto, cpu, cuda")


def test_data_folders(tmp_path):
    out = tmp_path / "run"
    refused(arena("run", *WHO, "--out", out, "--data", tmp_path / "nowhere"), "nowhere")
    (tmp_path / "empty").mkdir()
    refused(arena("run", *WHO, "--out", out, "--data", tmp_path / "empty"), "empty")
    write_images(tmp_path / "one" / "A", 1)
    write_images(tmp_path / "one" / "B", 1)
    refused(arena("run", *WHO, "--out", out, "--data", tmp_path / "one"))
    write_images(tmp_path / "flat", 30)
    refused(arena("run", *WHO, "--out", out, "--data", tmp_path / "flat"), "two domains")
    assert not out.exists()


@pytest.mark.parametrize("harm", ["zero", "text", "cut", "huge"])
def test_bad_images_are_skipped_up_to_a_limit(tmp_path, harm):
    root = domains(tmp_path / "data")
    victim = root / "trainA" / "img-3.png"
    if harm == "zero":
        victim.write_bytes(b"")
    elif harm == "text":
        victim.write_text("no image")
    elif harm == "cut":
        victim.write_bytes(victim.read_bytes()[:200])
    else:
        Image.new("1", (20_000, 20_000)).save(victim)
    words = ["run", *WHO, "--data", root, "--rounds", "1", "--steps", "2", "--set", "detector_steps=2"]
    refused(arena(*words, "--out", tmp_path / "strict", "--max-bad", "0"), "img-3.png", "--max-bad")
    assert not (tmp_path / "strict").exists()
    result = arena(*words, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "run" / "summary.json").read_text())["data"]
    assert data["skipped"] == 1
    assert "img-3.png" in data["bad"][0][0]


def test_out_folders(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("x")
    refused(arena("run", *WHO, "--out", tmp_path / "mine"), "is no run")
    refused(arena("run", *WHO, "--out", tmp_path / "mine" / "thesis.doc"), "is a file")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    refused(arena("run", "--out", tmp_path / "broken"), "run.json")
    refused(arena("report", tmp_path / "mine"), "is no run")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.doc"]


def test_config_files(tmp_path):
    path = tmp_path / "my.yaml"
    refused(arena("run", *WHO, "--config", path), "my.yaml")
    for text, words in [("rounds: [", "YAML"), ("rounds: 2\nrounds: 3", "twice"), ("- 1", "expected")]:
        path.write_text(text)
        refused(arena("run", *WHO, "--config", path), "my.yaml", words)
    path.write_text("of: nothing.here:Nobody")
    refused(arena("run", "--generator", path, "--detector", "spectrum"), "nothing.here")


def test_a_damaged_checkpoint(tmp_path):
    out = tmp_path / "run"
    words = ["run", *WHO, "--out", out, "--rounds", "2", "--steps", "2"]
    assert arena(*words).exit_code == 0
    for name in ("summary.json", "rounds/01/round.json", "rounds/01/phases/4-train-detector.json"):
        (out / name).unlink()
    checkpoint = next((out / "state").glob("detector-*.ckpt"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    refused(arena("run", "--out", out), checkpoint.name, "damaged", "Delete it")


@pytest.mark.parametrize("size", ["600k", "2m", "8m"])
def test_a_disk_that_fills_up(tmp_path, size):
    """A real small file system where one can be mounted; the atomic writer's own test covers the rest."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("needs root to mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], capture_output=True
    ).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        result = arena("run", *WHO, "--out", small / "run")
        refused(result, "No space left on device", "--out")
        assert not list((small / "run").rglob("*.part"))
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)  # the images may still be mapped


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "rounds=2024-13-45"],
        ["--set", "rounds=" + "[" * 5000],
        ["--set", "players={cyclegan: 3}"],
        ["--evade", "inf"],
        ["--set", "generator.lr=nan"],
        ["--set", "generator.lr=-1"],
        ["--set", "save_seconds=.inf"],
        ["--set", "generator.jitter=0.5"],
        ["--set", "generator.betas=[1.5, 2]"],
        ["--set", "preset=paper"],
        ["--out", "x" * 300],
    ],
)
def test_strange_values(tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(arena("run", *WHO, "--out", tmp_path / "run", *words))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("of", ["5", ".x:Y", "builtins:print", "os:system", "gen.cyclegan:Residual", "[1, 2]", ""])
def test_strange_players(tmp_path, of):
    path = tmp_path / "player.yaml"
    path.write_text(f"of: {of}")
    refused(arena("run", "--generator", path, "--detector", "spectrum"), "of")
    refused(arena("run", "--generator", "cyclegan", "--detector", path), "of")


def test_set_a_name_and_then_its_keywords(tmp_path):
    result = arena("run", *WHO[2:], "--set", "generator=cyclegan", "--set", "generator.widht=3")
    refused(result, "did you mean 'width'")


def test_a_damaged_ledger_is_named(tmp_path):
    out = tmp_path / "run"
    assert arena("run", *WHO, "--out", out, "--rounds", "1", "--steps", "2").exit_code == 0
    summary = (out / "summary.json").read_text()
    round_json = (out / "rounds/00/round.json").read_text()
    for name in ("summary.json", "rounds/00/round.json", "rounds/00/phases/6-record.json", "state/generator.json",
                 "data/data.json", "data/manifest.jsonl", "run.json"):  # fmt: skip
        kept = (out / name).read_text()
        (out / "summary.json").unlink(missing_ok=True)
        if "phases" in name:
            (out / "rounds/00/round.json").unlink()
        for text in ("{}", "[1]", "{", "7"):
            (out / name).write_text(text)
            refused(arena("run", "--out", out), Path(name).name)
        (out / name).write_text(kept)
        (out / "summary.json").write_text(summary)
        (out / "rounds/00/round.json").write_text(round_json)


def test_a_runs_settings_can_be_repeated(tmp_path):
    words = ["run", *WHO, "--rounds", "1", "--steps", "2", "--set", "generator.width=4"]
    assert arena(*words, "--out", tmp_path / "one").exit_code == 0
    assert arena("run", "--config", tmp_path / "one" / "run.json", "--out", tmp_path / "two").exit_code == 0
    one, two = (json.loads((tmp_path / name / "run.json").read_text())["settings"] for name in ("one", "two"))
    assert one == two

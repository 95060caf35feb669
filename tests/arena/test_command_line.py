"""The command line itself: quick, helpful, machine-readable."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from arena.cli import main


def arena(*words):
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.mark.parametrize("command", ["", *main.commands])
def test_every_help_has_an_example(command):
    result = arena(*([command] if command else []), "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"arena {command}".strip() in result.output.split("Examples:")[1]


def test_help_and_list_import_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from arena.cli import main\n"
        "for words in (['--help'], ['run', '--help'], ['list'], ['fid', '--help'], ['--version']):\n"
        "    assert CliRunner().invoke(main, words, catch_exceptions=False).exit_code == 0\n"
        "print(sorted({'torch', 'torchvision', 'numpy', 'scipy', 'matplotlib', 'kornia', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_list_names_everything_with_a_line():
    found = json.loads(arena("list", "--json").output)
    assert {"cyclegan"} <= found["generators"].keys()
    assert {"cnnspot", "spectrum"} <= found["detectors"].keys()
    assert {"quick", "paper", "smoke"} <= found["presets"].keys()
    assert {"faces"} <= found["data"].keys()
    assert all(line for group in found.values() for line in group.values())
    assert "cyclegan" in arena("list").output


def test_doctor_says_what_there_is():
    rows = {row["what"]: row for row in json.loads(arena("doctor", "--json").output)}
    assert rows["import gen"]["fine"]
    assert rows["import configs"]["fine"]
    for what in ("torch", "cpu", "disk", "FID's Inception weights", "ImageNet ResNet-50"):
        assert rows[what]["found"]


def folder(path, shift, n=6):
    path.mkdir()
    draws = np.random.default_rng(shift)
    for i in range(n):
        Image.fromarray(draws.integers(0, 200, (32, 32, 3)).astype(np.uint8) + np.uint8(shift)).save(path / f"{i}.PNG")
    return path


def test_fid_and_stats_from_the_command_line(tmp_path):
    real, fake = folder(tmp_path / "real", 0), folder(tmp_path / "fake", 50)
    found = json.loads(arena("fid", real, fake, "--features", "conv704", "--json").output)
    assert (found["n"], found["n_real"]) == (6, 6)
    assert "fid" not in found["name"]
    out = tmp_path / "real.npz"
    shown = arena("fid", real, fake, "--features", "conv704").output
    assert f"{found['value']:.6g}" in shown
    assert "6 from" in shown
    assert "6 images" in arena("stats", real, out, "--features", "conv704").output
    again = json.loads(arena("fid", out, fake, "--features", "conv704", "--json").output)
    assert again["value"] == pytest.approx(found["value"], rel=1e-6)
    result = arena("fid", real, tmp_path / "faek", "--features", "conv704")
    assert result.exit_code == 2
    assert "faek" in result.output


def test_fid_without_its_weights_says_where_they_go(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("ARENA_FID_WEIGHTS", raising=False)
    result = arena("fid", folder(tmp_path / "real", 0), folder(tmp_path / "fake", 50))
    assert result.exit_code == 2
    assert "pt_inception-2015-12-05-6726825d.pth" in result.output
    assert "--features conv704" in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_saves_the_step_in_hand(tmp_path, number):
    out = tmp_path / "run"
    words = ["run", "--generator", "cyclegan", "--detector", "spectrum", "--preset", "smoke", "--steps", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "arena", *words, "--out", str(out)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    while not (out / "state" / "generator.json").exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert b"arena run --out" in errors
    step = json.loads((out / "state" / "generator.json").read_text())[0]["step"]
    losses = (out / "rounds" / "00" / "generator.csv").read_text().splitlines()
    assert step == len(losses) - 1 > 0

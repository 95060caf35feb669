"""A run killed at any moment and run again ends equal to the bit."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bitwise import equal, saved_values

COMMAND = [
    sys.executable, "-m", "arena", "run", "--generator", "cyclegan", "--detector", "cnnspot", "--preset", "smoke",
    "--seed", "3", "--evade", "0.3", "--set", "save_seconds=0", "--set", "detector_steps=3", "--set",
    "generator.ema=0.9",
    "--device", "cpu",
]  # fmt: skip


def start(out: Path) -> subprocess.Popen:
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.Popen([*COMMAND, "--out", str(out)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run, and how long it took."""
    out = tmp_path_factory.mktemp("straight") / "run"
    began = time.monotonic()
    process = start(out)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output.decode()
    return out, time.monotonic() - began


def test_killed_five_times_it_ends_equal_to_the_bit(straight, tmp_path):
    """SIGKILL at five random moments of the part that writes (with save_seconds=0 that is all the time)."""
    reference, seconds = straight
    out, moments = tmp_path / "run", random.Random(0)
    kills = 0
    while kills < 5:
        process = start(out)
        while not (out / "run.json").exists() and process.poll() is None:
            time.sleep(0.02)
        wait = moments.uniform(0.0, 0.35 * seconds)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        if process.returncode == 0:  # faster than the reference was, on a machine with less to do: again, sooner
            shutil.rmtree(out)
            kills, seconds = 0, seconds / 2
    process = start(out)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output.decode()

    expected, found = saved_values(reference), saved_values(out)
    assert found.keys() == expected.keys()
    different = [name for name in expected if not equal(expected[name], found[name])]
    assert not different
    assert len(expected) > 300


def test_a_finished_run_is_shown_again_at_once(straight):
    out, _ = straight
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.ckpt")}
    process = start(out)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert b"report.html" in output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.ckpt")} == before


def test_another_configuration_is_refused(straight):
    out, _ = straight
    words = [sys.executable, "-m", "arena", "run", "--out", str(out), "--rounds", "7"]
    process = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert process.returncode == 2
    assert "rounds: 2 there, 7 asked for" in process.stderr
    assert "Traceback" not in process.stderr

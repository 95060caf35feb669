"""`arena train`: a detector on labelled folders; its weights are chosen by the validation split alone."""

import json

import numpy as np
import pytest
import torch
from bitwise import equal
from click.testing import CliRunner
from PIL import Image

from arena.cli import main
from arena.data.feeds import Store
from arena.match import logits
from arena.metrics.detection import auc
from arena.player import open_player
from arena.training import stopping
from arena.weights import read_state


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Reals are noise, fakes a little redder noise, in two folders of theirs."""
    root, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    for name, red, count in (("real", 0, 90), ("gan", 12, 50), ("diffusion", 12, 40)):
        (root / name).mkdir()
        for i in range(count):
            image = rng.integers(0, 200, (40, 36, 3)) + np.array([red, 0, 0])
            Image.fromarray(image.astype(np.uint8)).save(root / name / f"{i:03d}.png")
    return root


def train(*args, code=0):
    result = CliRunner().invoke(main, ["train", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def colour(folders, out, player_file, *more):
    fakes = "--fake", folders / "gan", "--fake", folders / "diffusion"
    small = "--preset", "smoke", "--set", "data.size=32", "--set", "detector_steps=40"
    return train(player_file("planted:Colour"), "--real", folders / "real", *fakes, *small, "--out", out, *more)


def test_a_training_is_a_run_with_one_judged_split(folders, tmp_path, player_file):
    out = tmp_path / "run"
    said = colour(folders, out, player_file)
    assert "before" not in said.partition("Report")[0].partition("judge after")[2]
    summary = json.loads((out / "summary.json").read_text())
    (only,) = summary["rounds"]
    assert summary["settings"]["generator"] is None
    assert only["before"] is None
    assert only["after"]["auc"] > 0.9
    assert only["baseline"]["name"] == "spectrum"
    rows = [json.loads(line) for line in (out / "data/manifest.jsonl").read_text().splitlines()]
    counts = summary["data"]["images"]
    assert counts["judge"]["real"] == counts["judge"]["fake"] == only["after"]["n_real"]
    assert {row["domain"] for row in rows} == {"real", "fake"}
    assert len({row["sha256"] for row in rows}) == len(rows)
    assert {name for row in rows for name in row["name"].split("/")[:2]} >= {"real", "fake", "0-gan", "1-diffusion"}
    page = (out / "report.html").read_text()
    assert "Colour tells the given fakes from reals" in page
    assert str(folders) not in (out / "data/manifest.jsonl").read_text()


def test_the_kept_weights_are_the_best_look_at_val(folders, tmp_path, player_file):
    """A learning rate that walks away from what it found: the last weights are not the best ones."""
    out = tmp_path / "run"
    detector = player_file("planted:Colour", lr=5.0)
    args = "--real", folders / "real", "--fake", folders / "gan", "--preset", "smoke", "--set", "data.size=32"
    train(detector, *args, "--steps", 12, "--look-every", 1, "--out", out)
    looks = json.loads((out / "rounds/00/detector-looks.json").read_text())
    assert [look["step"] for look in looks] == list(range(1, 13))
    opened = open_player(out, "detector")
    val = {
        domain: Store(images, range(len(images)))
        for domain in ("real", "fake")
        for images in [np.load(out / f"data/val-{domain}.npy")]
    }
    found = [logits(opened.player, [val[domain]], torch.device("cpu")) for domain in ("real", "fake")]
    assert auc(*found) == pytest.approx(max(look["value"] for look in looks))
    best = read_state(out / "rounds/00/detector-best.safetensors")
    assert equal(best, read_state(out / "rounds/00/detector.safetensors"))


def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(folders, tmp_path, player_file, monkeypatch):
    from arena import training

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    more = "--look-every", 5, "--set", "save_seconds=0"
    colour(folders, whole, player_file, *more)
    steps = iter(range(1000))
    monkeypatch.setattr(training, "reseed", lambda *_: stopping.set() if next(steps) == 22 else None)
    fakes = "--fake", folders / "gan", "--fake", folders / "diffusion"
    small = "--preset", "smoke", "--set", "data.size=32", "--set", "detector_steps=40"
    name = player_file("planted:Colour")
    said = train(name, "--real", folders / "real", *fakes, *small, "--out", cut, *more, code=130)
    assert f"Go on with: arena train --out {cut}" in said
    monkeypatch.undo()
    train("--out", cut)
    for file in ("detector.safetensors", "detector-best.safetensors"):
        assert equal(read_state(whole / "rounds/00" / file), read_state(cut / "rounds/00" / file))
    assert (whole / "rounds/00/detector-looks.json").read_text() == (cut / "rounds/00/detector-looks.json").read_text()


def test_what_cannot_be_trained_on_is_refused_in_one_line(folders, tmp_path, player_file):
    real, fake = ("--real", folders / "real"), ("--fake", folders / "gan")
    assert "give --real DIR and --fake DIR" in train("cnnspot", *real, code=2)
    assert "name a DETECTOR" in train(*real, *fake, code=2)
    assert "is no training yet. Name a DETECTOR" in train("--out", tmp_path / "new", code=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / "a.png").write_bytes(b"")
    for hollow in ("empty", "zero"):
        said = train("cnnspot", *real, "--fake", tmp_path / hollow, "--out", tmp_path / "h", code=2)
        assert "no usable image or video lies in the folders given with --fake" in said
        assert not (tmp_path / "h").exists()
    assert "did you mean 'cnnspot'" in train("cnnspott", *real, *fake, code=2)
    assert "the same file" in train("cnnspot", *real, "--fake", folders / "real", "--out", tmp_path / "x", code=2)
    assert "no folder" in train("cnnspot", *real, "--fake", folders / "nowhere", "--out", tmp_path / "y", code=2)
    stills = train("cnn_lstm", *real, *fake, "--preset", "smoke", "--out", tmp_path / "z", code=2)
    assert "these folders hold stills" in stills
    assert not (tmp_path / "z").exists()
    colour(folders, tmp_path / "run", player_file)
    result = CliRunner().invoke(main, ["run", "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "a run of `arena train`" in result.output
    assert "no generator" in CliRunner().invoke(main, ["sample", str(tmp_path / "run"), str(tmp_path / "s")]).output


def test_a_run_that_was_handed_on_without_its_state_opens_by_its_weights(folders, tmp_path, player_file):
    import shutil

    out = tmp_path / "run"
    colour(folders, out, player_file)
    opened = open_player(out, "detector")
    shutil.rmtree(out / "state")
    again = open_player(out, "detector")
    assert equal(opened.player.net.state_dict(), again.player.net.state_dict())
    assert again.marks["Round"] == "0"
    (out / "rounds/00/detector.safetensors").unlink()
    said = CliRunner().invoke(main, ["detect", str(out), str(folders / "real")]).output
    assert f"Let `arena train --out {out}` get further" in said

"""Clips in the arena: what is stored, who is shown what, and who can find a fake that only its motion betrays."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from planted import Identity, Motion

from arena.cli import main
from arena.config import DataConfig, resolve
from arena.data.faces import clip
from arena.data.feeds import Held, Labelled, Store, Unlabelled
from arena.data.source import FacesSource
from arena.errors import InputError
from arena.evasion import as_clips, evading
from arena.match import logits, score
from arena.training import to_float


def numbered(clips, frames, videos=None):
    """A store whose every frame is one grey level: clip 0 has 0, 1, 2, clip 1 has 3, 4, 5 ..."""
    images = np.arange(clips * frames, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 4), np.uint8)
    return Store(images, [f"clip {i}" for i in range(clips)], frames, videos)


def test_a_store_of_clips_hands_out_clips_and_its_frames_in_order():
    store = numbered(4, 3)
    assert len(store) == 4
    assert store[[2, 0]].shape == (2, 3, 3, 4, 4)
    assert store[[2, 0]][:, :, 0, 0, 0].tolist() == [[6, 7, 8], [0, 1, 2]]
    assert store.covers([0, 3])[:, 0, 0, 0].tolist() == [1, 10]
    stills = store.stills()
    assert (len(stills), stills.names[4]) == (12, "clip 1, frame 1")
    assert stills[:][:, 0, 0, 0].tolist() == list(range(12))
    assert [len(chunk) for chunk in store.chunks(7)] == [2, 2]
    assert numbered(4, 1).stills().names == numbered(4, 1).names


def test_batches_are_of_clips_for_one_and_of_stills_for_another():
    store = numbered(6, 3)
    images, labels = Labelled([store], [store], [], 4, 0.0, "key")[0]
    assert images.shape == (4, 3, 3, 4, 4)
    assert labels.tolist() == [0, 0, 1, 1]
    (stills,) = Unlabelled([store], 4, "key")[0]
    assert stills.shape == (4, 3, 4, 4)
    (whole,) = Unlabelled([store], 4, "key", whole=True)[0]
    assert whole.shape == (6, 3, 4, 4)
    levels = whole[:, 0, 0, 0].view(2, 3)
    assert (levels.diff(dim=1) == 1).all()
    assert (levels[:, 0] % 3 == 0).all()
    assert [len(batch) for batch, _ in (Held([store], [store], 7)[i] for i in range(6))] == [2, 2, 2, 2, 2, 2]


def test_a_detector_of_stills_says_of_a_clip_the_mean_of_its_frames():
    class Level:
        frames = 1

        def score(self, images):
            assert images.ndim == 4
            return images.mean((1, 2, 3)) * 127.5 + 127.5

    store = numbered(5, 3)
    assert logits(Level(), [store], torch.device("cpu")) == pytest.approx([1, 4, 7, 10, 13], abs=1e-4)
    together = numbered(5, 3, videos=["v", "w", "w", "v", "w"])
    assert logits(Level(), [together, store], torch.device("cpu"))[:3] == pytest.approx([5.5, 8, 1], abs=1e-4)
    assert score(Level(), torch.zeros(2, 3, 4, 4)).shape == (2,)


def test_evading_a_detector_of_clips_reaches_every_frame():
    detector = Motion(frames=3)
    levels = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.1, 0.7])
    images = levels[:, None, None, None].expand(6, 3, 4, 4).clone().requires_grad_()
    with evading(detector, 1.0) as penalty:
        (grad,) = torch.autograd.grad(penalty(images), images)
    assert grad.abs().sum((1, 2, 3)).gt(0).all()
    assert as_clips(images, 3).shape == (2, 3, 3, 4, 4)
    with pytest.raises(AssertionError, match="no clips"):
        as_clips(images, 4)


def test_the_embedded_clips_are_the_renderers_own():
    config = DataConfig(source="faces-clips", size=32, frames=3, train=3, val=2, judge=3)
    source = FacesSource(config)
    assert (source.frames, source.domains) == (3, ("a", "b"))
    row = next(row for row in source.manifest if (row["split"], row["domain"]) == ("judge", "b"))
    (found,) = source.images([row])
    assert torch.equal(found, clip(0, row["index"], 3, 32, identity=1, close=0.6).image)
    assert "people" not in source.summary


def test_a_detector_of_clips_is_refused_on_stills():
    asked = {"generator": "cyclegan", "detector": "cnn_lstm"}
    with pytest.raises(InputError, match=r"looks at clips of .* faces are stills"):
        resolve([asked | {"data": {"source": "faces"}}], "smoke")
    with pytest.raises(InputError, match=r"detector\.frames is 3 and data\.frames 5"):
        resolve(
            [{**asked, "detector": {"name": "cnn_lstm", "frames": 3}, "data": {"source": "faces-clips", "frames": 5}}]
        )
    found = resolve([{**asked, "detector": {"name": "cnn_lstm", "frames": 3}, "data": {"source": "faces-clips"}}])
    assert found.data.frames == 3


def play(tmp_path, name, generator, detector, *more):
    out = tmp_path / name
    args = ["run", "--generator", generator, "--detector", detector, "--preset", "smoke", "--out", str(out)]
    args += ["--data", "faces-clips", "--set", "baseline=null", "--set", "detector_steps=40", "--rounds", "1", *more]
    result = CliRunner().invoke(main, [*args, "--set", "data.judge=40"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads((out / "summary.json").read_text()), out


def test_only_a_detector_of_clips_finds_what_flickers(tmp_path, player_file):
    """Planted: frames brightened or darkened by lot. One frame shows a brightness that reals have too."""
    flicker, motion = player_file("planted:Flicker"), player_file("planted:Motion", frames=4)
    summary, out = play(tmp_path, "clips", flicker, motion)
    after = summary["rounds"][0]["after"]
    assert after["auc"] > 0.9  # one fake in eight is brightened, or darkened, all the way
    assert (after["n_real"], after["n_fake"]) == (80, 80)
    stills, _ = play(tmp_path, "stills", flicker, player_file("planted:Colour"))
    assert stills["rounds"][0]["after"]["auc"] < 0.75
    same, _ = play(tmp_path, "same", player_file("planted:Identity"), motion)
    assert 0.4 < same["rounds"][0]["after"]["auc"] < 0.6
    assert np.load(out / "rounds/00/fakes/judge-a2b.npy").shape == (160, 3, 32, 32)
    rows = [json.loads(line) for line in (out / "rounds/00/fakes/manifest.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows if row["split"] == "val" and "a2b" in row["file"]][:3] == [0, 4, 8]
    assert "report.html" in [path.name for path in out.iterdir()]


def test_the_stills_of_a_clip_pass_through_a_generator_unmixed(tmp_path, player_file):
    _, out = play(tmp_path, "same", player_file("planted:Identity"), player_file("planted:Motion", frames=4))
    for split in ("train", "judge"):
        fakes = np.load(out / f"rounds/00/fakes/{split}-a2b.npy")
        assert np.array_equal(fakes, np.load(out / f"data/{split}-a.npy"))
    assert to_float(torch.from_numpy(fakes)).abs().max() <= 1
    assert Identity.needs == "domains"


def test_a_folder_of_videos_plays_and_is_judged_by_the_video(tmp_path, player_file):
    iio = pytest.importorskip("imageio.v3")
    pytest.importorskip("av")
    for domain in "AB":
        (tmp_path / "films" / domain).mkdir(parents=True)
        for i in range(10):
            shot = clip(3, 10 * "AB".index(domain) + i, 11, 32, identity="AB".index(domain)).image
            path = tmp_path / "films" / domain / f"{i}.mp4"
            iio.imwrite(path, shot.permute(0, 2, 3, 1).numpy(), plugin="pyav", codec="libx264", fps=25)
    out = tmp_path / "run"
    args = ["run", "--generator", player_file("planted:Flicker"), "--detector", player_file("planted:Motion", frames=4)]
    args += ["--data", str(tmp_path / "films"), "--preset", "smoke", "--rounds", "1", "--out", str(out)]
    more = [
        "--set",
        "data.windows=3",
        "--set",
        "data.codec=c23",
        "--set",
        "baseline=null",
        "--set",
        "detector_steps=30",
    ]
    result = CliRunner().invoke(main, [*args, *more], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (out / "data/manifest.jsonl").read_text().splitlines()]
    splits = {}
    for row in rows:
        splits.setdefault(row["video"], set()).add(row["split"])
    assert all(len(where) == 1 for where in splits.values())
    starts = sorted(row["start"] for row in rows if row["video"] == rows[0]["video"])
    assert starts == [0, 4, 7]  # from the first of 11 frames to the last
    judged = len({row["video"] for row in rows if row["split"] == "judge"})
    after = json.loads((out / "summary.json").read_text())["rounds"][0]["after"]
    assert (after["n_real"], after["n_fake"]) == (judged, judged)
    plain, coded = (np.load(out / f"data/judge-a{suffix}.npy") for suffix in ("", "-c23"))
    assert plain.shape == coded.shape
    assert 0.5 < np.abs(plain.astype(int) - coded).mean() < 15

"""`arena evaluate`: figures computed again from scores.csv, planted detectors, grouping, and hostile input."""

import csv
import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn import metrics as oracle

from arena.build import build
from arena.cli import Commands
from arena.config import resolve
from arena.evaluate_command import evaluate
from arena.evaluate_data import Shelf
from arena.ledger import Ledger
from arena.metrics.calibration import fit_scaling

SIZE = 32
THRESHOLD = 0.25


def arena(*words):
    result = CliRunner().invoke(Commands("arena", {"evaluate": evaluate}), ["evaluate", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*words):
    result = arena(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(words, *said):
    result = arena(*words)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    for word in said:
        assert word in result.stderr, result.stderr


def make_run(root, of, data=None, **keywords):
    """A run's folder as a finished run leaves it, of a detector that needs no training, with a frozen threshold."""
    player = root.parent / f"{of}.yaml"
    player.write_text(f"of: readers:{of}\n" + "\n".join(f"{k}: {v}" for k, v in keywords.items()))
    layer = {"detector": str(player), "generator": None, "data": {"size": SIZE, **(data or {})}}
    config = resolve([layer], "smoke")
    with Ledger(root) as ledger:
        ledger.write("run.json", {"schema": 1, "settings": config.model_dump(), "provenance": {}})
        ledger.save(build(config.detector, 0, "detector"), "detector", round=0, step=1, seconds=1.0)
        ledger.write("rounds/00/phases/4-train-detector.json", {"threshold": THRESHOLD})
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "red": make_run(folder / "red", "Red", gain=12.0, offset=0.12),
        "fine": make_run(folder / "fine", "Fine", gain=100.0, offset=0.05),
        "flicker": make_run(folder / "flicker", "Flicker", {"source": "faces-clips"}, frames=4, gain=20.0, offset=0.15),
        "broken": make_run(folder / "broken", "Broken"),
    }


def picture(rng, red=0.0, fine=0.0):
    """A smooth grey picture, uint8 s s 3, with a red cast and fine noise as wanted (grey levels)."""
    smooth = gaussian_filter(rng.normal(0, 1, (SIZE, SIZE)), 5, mode="wrap")[..., None]
    image = 128 + 200 * smooth + np.array([red / 2, 0, -red / 2]) + rng.normal(0, 1, (SIZE, SIZE, 3)) * fine
    return image.round().clip(0, 255).astype(np.uint8)


def draw(rng, fake):
    return picture(rng, red=rng.normal(22 if fake else 8, 12), fine=abs(rng.normal(7 if fake else 4, 2)))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """50 reals and 60 fakes as PNG, the fakes redder and finer, but not all of them."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for name, count in (("real", 50), ("fake", 60)):
        (folder / name).mkdir()
        for i in range(count):
            Image.fromarray(draw(rng, name == "fake")).save(folder / name / f"{i}.png")
    return folder


def rows_of(out):
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def truth_of(rows, column="logit"):
    return np.array([int(row["label"]) for row in rows]), np.array([float(row[column]) for row in rows])


def agrees(found, labels, scores):
    """The figures are scikit-learn's."""
    fpr, tpr, _ = oracle.roc_curve(labels, scores, drop_intermediate=False)
    wanted = {
        "auc": oracle.roc_auc_score(labels, scores), "ap": oracle.average_precision_score(labels, scores),
        "tpr_at_1_fpr": tpr[fpr <= 0.01].max(), "accuracy": oracle.accuracy_score(labels, scores >= 0),
        "accuracy_frozen": oracle.accuracy_score(labels, scores >= THRESHOLD),
        "escape": np.mean(scores[labels == 1] < THRESHOLD), "false_alarms": np.mean(scores[labels == 0] >= THRESHOLD),
        "n_real": int(np.sum(labels == 0)), "n_fake": int(np.sum(labels == 1)),
    }  # fmt: skip
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=1e-12)
    assert found["auc_low"] <= found["auc"] <= found["auc_high"]


# The whole way


def test_every_figure_can_be_computed_again_from_the_scores(runs, sets, tmp_path):
    grid = "jpeg:30,blur:1,blur:3,resize:0.5,crop:0.75,noise:10,blur:1+jpeg:50"
    out = tmp_path / "out"
    words = (runs["red"], "--real", sets / "real", "--fake", sets / "fake", "--robustness", grid, "--out", out)
    found = done(*words)
    assert found == json.loads((out / "evaluation.json").read_text())
    rows = rows_of(out)
    assert list(rows[0]) == ["path", "label", "video", "frame", "sha256", "logit", *grid.split(",")]
    labels, scores = truth_of(rows)
    agrees(found["items"], labels, scores)
    assert 0.7 < found["items"]["auc"] < 0.95
    assert found["videos"] is None
    assert [entry["name"] for entry in found["robustness"]] == grid.split(",")
    for entry in found["robustness"]:
        agrees(entry["items"], *truth_of(rows, entry["name"]))
    assert found["protocol"]["threshold"] == THRESHOLD
    p = 1 / (1 + np.exp(-scores))
    assert found["items"]["calibration"]["score"] == pytest.approx(oracle.brier_score_loss(labels, p), abs=1e-12)
    for row in rows[::17]:  # the logits themselves, by numpy
        image = np.asarray(Image.open(row["path"])) / 127.5 - 1
        assert float(row["logit"]) == pytest.approx(12 * (image[..., 0] - image[..., 2]).mean() - 12 * 0.12, abs=1e-4)
    low, high = found["items"]["intervals"]["ap"]
    assert low < found["items"]["ap"] < high
    roc = found["items"]["roc"]
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(found["items"]["auc"], abs=1e-4)


def test_a_reader_of_fine_detail_falls_under_blur_and_a_reader_of_colour_stays(runs, sets):
    words = ("--real", sets / "real", "--fake", sets / "fake", "--robustness", "blur:2,resize:0.25,crop:0.75")
    fine, red = done(runs["fine"], *words), done(runs["red"], *words)
    assert fine["items"]["auc"] > 0.8
    for entry in fine["robustness"][:2]:
        assert entry["items"]["auc"] < 0.72
        assert entry["items"]["auc_high"] < fine["items"]["auc_low"]
    for entry in red["robustness"][:2]:
        assert abs(entry["items"]["auc"] - red["items"]["auc"]) < 0.01


def test_compression_takes_fine_detail(runs, sets, tmp_path):
    pytest.importorskip("av")
    words = (runs["fine"], "--real", sets / "real", "--fake", sets / "fake", "--levels", "raw,c23,c40")
    found = done(*words, "--cache", tmp_path / "cache", "--out", tmp_path / "out")
    assert [entry["name"] for entry in found["levels"]] == ["raw", "c23", "c40"]
    raw, c23, c40 = (entry["items"]["auc"] for entry in found["levels"])
    assert abs(raw - found["items"]["auc"]) < 0.05
    assert c40 < c23 < raw
    for entry in found["levels"]:
        agrees(entry["items"], *truth_of(rows_of(tmp_path / "out"), entry["name"]))
    assert len(list((tmp_path / "cache").rglob("*.h264"))) == 3 * 110
    again = done(*words, "--cache", tmp_path / "cache")
    assert again["levels"] == found["levels"] == done(*words)["levels"]


def test_batches_change_nothing(runs, sets, tmp_path):
    words = (runs["fine"], "--real", sets / "real", "--fake", sets / "fake", "--robustness", "noise:5,blur:1+noise:2")
    done(*words, "--out", tmp_path / "a")
    done(*words, "--out", tmp_path / "b", "--batch-size", 7)
    for name in ("logit", "noise:5", "blur:1+noise:2"):
        a, b = (truth_of(rows_of(tmp_path / folder), name)[1] for folder in "ab")
        assert a == pytest.approx(b, abs=1e-5)


# Videos


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Folders of frames as FaceForensics++ has them: two methods whose videos have the same names."""
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(1)
    for method, count, red in (("real", 8, 8), ("DF", 6, 30), ("F2F", 6, 16)):
        for video in range(count):
            place = folder / method / f"{video:03d}_{video + 1:03d}"
            place.mkdir(parents=True)
            level = rng.normal(red, 10)
            for frame in range(5):
                Image.fromarray(picture(rng, red=level + rng.normal(0, 4), fine=3)).save(place / f"{frame}.png")
    return folder


def by_hand(rows):
    """Video means, by the folder's whole path."""
    videos = defaultdict(list)
    for row in rows:
        videos[int(row["label"]), str(Path(row["path"]).parent)].append(float(row["logit"]))
    return np.array([label for label, _ in videos]), np.array([np.mean(some) for some in videos.values()])


def test_videos_are_told_apart_by_their_whole_path(runs, frames, tmp_path):
    words = (runs["red"], "--real", frames / "real", "--fake", frames / "DF", "--fake", frames / "F2F")
    found = done(*words, "--video-id", "parent", "--out", tmp_path)
    labels, scores = by_hand(rows_of(tmp_path))
    assert (found["videos"]["n_real"], found["videos"]["n_fake"]) == (8, 12)
    agrees(found["videos"], labels, scores)
    agrees(found["items"], *truth_of(rows_of(tmp_path)))
    assert found["items"]["n_fake_videos"] == 12
    assert found["data"]["unit"] == "frame"
    apart = {Path(entry["folder"]).name: entry for entry in found["folders"]}
    for method in ("DF", "F2F"):
        rows = [row for row in rows_of(tmp_path) if row["label"] == "0" or f"/{method}/" in row["path"]]
        agrees(apart[method]["videos"], *by_hand(rows))
        agrees(apart[method]["items"], *truth_of(rows))
    assert apart["DF"]["items"]["auc"] > apart["F2F"]["items"]["auc"]

    alone = done(*words)
    assert alone["videos"] is None
    assert alone["items"]["auc"] == found["items"]["auc"]
    width, honest = ([each["items"][key] for key in ("auc_low", "auc_high")] for each in (alone, found))
    assert honest[1] - honest[0] > 1.3 * (width[1] - width[0])  # frames of a video are not independent
    halves = done(*words, "--video-id", "prefix:[0-2]")  # frames 0 to 4: three bear the same prefix only by chance
    assert halves["videos"] is None
    halves = done(*words, "--video-id", "prefix:()[0-2]")
    assert halves["videos"]["n_fake"] == 12 * 3  # in each folder one video of frames 0 to 2, and 3 and 4 alone


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Videos of one colour each, fakes redder and flickering, and the same frames in folders."""
    pytest.importorskip("av")
    from arena.faces.video import Plain, Writer

    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(2)
    for name, red, flicker in (("real", 5, 2), ("fake", 40, 40)):
        for video in range(4):
            base, step = picture(rng, red=red + rng.normal(0, 2)), rng.uniform(0.5, 1) * flicker
            shots = [np.clip(base + step * (i % 2), 0, 255).astype(np.uint8) for i in range(10)]
            place = folder / "videos" / name / f"{video}.mp4"
            place.parent.mkdir(parents=True, exist_ok=True)
            with Writer(place, Plain(), crf=1) as writer:
                for number, shot in enumerate(shots):
                    writer.write(shot, number / 25)
            frames = folder / "frames" / name / str(video)
            frames.mkdir(parents=True)
            for number, shot in enumerate(shots):
                Image.fromarray(shot).save(frames / f"{number}.png")
    return folder


def test_a_video_file_is_a_video(runs, films, tmp_path):
    found = done(runs["red"], "--real", films / "videos/real", "--fake", films / "videos/fake", "--out", tmp_path)
    rows = rows_of(tmp_path)
    assert (found["items"]["n_real"], found["videos"]["n_real"]) == (40, 4)  # all ten frames: fewer than 32
    assert [int(row["frame"]) for row in rows[:10]] == list(range(10))
    assert {row["video"] for row in rows} == {row["path"] for row in rows}
    assert found["videos"]["auc"] == 1
    few = done(runs["red"], "--real", films / "videos/real", "--fake", films / "videos/fake", "--windows", 2,
               "--out", tmp_path / "few")  # fmt: skip
    assert few["items"]["n_fake"] == 8
    assert [int(row["frame"]) for row in rows_of(tmp_path / "few")[:2]] == [0, 9]  # the whole length


def test_a_clip_detector_gets_windows_of_videos_and_of_folders_of_frames(runs, films, tmp_path):
    videos = done(runs["flicker"], "--real", films / "videos/real", "--fake", films / "videos/fake", "--windows", 3,
                  "--levels", "c23", "--robustness", "blur:1", "--out", tmp_path / "a")  # fmt: skip
    folders = done(runs["flicker"], "--real", films / "frames/real", "--fake", films / "frames/fake", "--windows", 3,
                   "--video-id", "parent", "--out", tmp_path / "b")  # fmt: skip
    assert videos["data"]["unit"] == folders["data"]["unit"] == "window"
    a, b = rows_of(tmp_path / "a"), rows_of(tmp_path / "b")
    assert [row["frame"] for row in a] == [row["frame"] for row in b] == ["0", "3", "6"] * 8
    assert truth_of(a)[1] == pytest.approx(truth_of(b)[1], abs=0.5)  # what H.264 changes of the pictures
    assert videos["videos"]["auc"] == folders["videos"]["auc"] == 1
    assert videos["levels"][0]["videos"]["auc"] == 1
    for row in b[:1]:
        shots = [np.asarray(Image.open(Path(row["path"]).parent / f"{i}.png")) / 127.5 - 1 for i in range(4)]
        steps = np.abs(np.diff(shots, axis=0)).mean()
        assert float(row["logit"]) == pytest.approx(20 * steps - 20 * 0.15, abs=1e-3)
    stills = done(runs["flicker"], "--real", films / "frames/real", "--fake", films / "frames/fake")
    assert stills["items"]["auc"] == 0.5  # single frames do not flicker


# What would flatter


def test_files_of_the_training_are_found_and_left_out(runs, frames, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["red"], run)
    words = (run, "--real", frames / "real", "--fake", frames / "DF", "--video-id", "parent", "--out", tmp_path / "out")
    clean = done(*words)
    assert clean["seen"]["files"] == 0
    assert clean["held_out"] is None
    rows = rows_of(tmp_path / "out")
    known = [(rows[0], "train"), (rows[7], "val"), (rows[12], "judge"), (rows[41], "train")]
    (run / "data").mkdir()
    lines = [json.dumps({"name": "x", "sha256": row["sha256"], "split": split}) for row, split in known]
    (run / "data" / "manifest.jsonl").write_text("\n".join([*lines, "{damaged", "[]", ""]))
    found = done(*words)
    assert found["seen"]["files"] == 3
    assert any("3 of these files were in the training data" in note for note in found["notes"])
    assert found["items"] == clean["items"]
    tainted = {row["video"] for row, split in known if split != "judge"}
    rest = [row for row in rows if row["video"] not in tainted]
    assert len(rest) == len(rows) - 15  # with each file its whole video
    agrees(found["held_out"]["items"], *truth_of(rest))
    agrees(found["held_out"]["videos"], *by_hand(rest))
    assert "training data" in arena(*words).stderr
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "never seen" in page


def test_formats_that_give_the_label_away_are_said(runs, sets, tmp_path):
    for i, path in enumerate(sorted((sets / "real").iterdir())):
        image = Image.open(path)
        (tmp_path / "real").mkdir(exist_ok=True)
        image.save(tmp_path / "real" / f"{i}.jpg", quality=95)
    found = done(runs["red"], "--real", tmp_path / "real", "--fake", sets / "fake")
    assert found["header"]["format"]["auc"] == 1.0
    assert any("Format and size of the files alone" in note for note in found["notes"])
    assert found["header"]["fields"]["format"] == {"real": "JPEG", "fake": "PNG"}
    assert found["header"]["fields"]["jpeg"]["real"] == "95"
    fair = done(runs["red"], "--real", sets / "real", "--fake", sets / "fake")
    assert fair["header"]["format"]["auc"] == 0.5
    assert not any("Format" in note for note in fair["notes"])
    assert fair["header"]["format_and_length"]["auc"] > 0.6  # finer pictures make longer PNGs: content, not a trick


def test_a_file_that_is_both_real_and_fake_is_refused_and_copies_count_once(runs, sets, tmp_path):
    for name in ("real", "fake"):
        shutil.copytree(sets / name, tmp_path / name)
    shutil.copy(sets / "fake" / "3.png", tmp_path / "fake" / "again.png")
    words = [runs["red"], "--real", tmp_path / "real", "--fake", tmp_path / "fake"]
    twice = done(*words, "--fake", tmp_path / "fake", "--fake", tmp_path / "fake" / "5.png")
    assert twice["items"]["n_fake"] == 60
    assert twice["data"]["copies"] == 1
    assert any("1 file with the bytes of another" in note for note in twice["notes"])
    refused([*words, "--fake", tmp_path / "real"], "are the same file", "real")
    shutil.copy(sets / "fake" / "3.png", tmp_path / "real" / "hidden.png")
    refused(words, "hidden.png", "3.png", "take it out")


# Calibration taught elsewhere


def test_a_scaling_from_validation_scores(runs, sets, tmp_path):
    rng = np.random.default_rng(3)
    for name in ("real", "fake"):
        (tmp_path / name).mkdir()
        for i in range(40):
            Image.fromarray(draw(rng, name == "fake")).save(tmp_path / name / f"{i}.png")
    done(runs["red"], "--real", tmp_path / "real", "--fake", tmp_path / "fake", "--out", tmp_path / "val")
    words = (runs["red"], "--real", sets / "real", "--fake", sets / "fake", "--out", tmp_path / "test")
    found = done(*words, "--calibrate", tmp_path / "val" / "scores.csv")
    labels, scores = truth_of(rows_of(tmp_path / "val"))
    scaling = fit_scaling(scores[labels == 0], scores[labels == 1])
    again = found["recalibrated"]
    assert (again["slope"], again["shift"]) == pytest.approx(tuple(scaling))
    labels, scores = truth_of(rows_of(tmp_path / "test"))
    p = 1 / (1 + np.exp(-scaling(scores)))
    assert again["score"] == pytest.approx(oracle.brier_score_loss(labels, p), abs=1e-12)
    assert again["accuracy"] == pytest.approx(oracle.accuracy_score(labels, p >= 0.5))
    assert found["items"]["auc"] == done(*words)["items"]["auc"]
    refused([*words, "--calibrate", tmp_path / "test" / "scores.csv"], "--calibrate", "110 files")
    (tmp_path / "damaged.csv").write_text("path,label\nx,1\n")
    refused([*words, "--calibrate", tmp_path / "damaged.csv"], "damaged.csv")
    (tmp_path / "one.csv").write_text("label,logit,sha256\n1,0.5,a\n")
    refused([*words, "--calibrate", tmp_path / "one.csv"], "no reals")
    refused([*words, "--calibrate", tmp_path / "none.csv"], "none.csv")


# The page


def test_the_page_is_one_file_that_stands_alone(runs, frames, tmp_path):
    evil = tmp_path / "<script>alert(1)</script>"
    shutil.copytree(frames / "DF", evil)
    (evil / "broken & bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    words = (runs["red"], "--real", frames / "real", "--fake", evil, "--fake", frames / "F2F", "--video-id", "parent")
    found = done(*words, "--robustness", "standard", "--out", tmp_path / "out")
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert len(page) < 5_000_000
    assert "<script" not in page
    assert "http:" not in page.replace("http://www.w3.org/", "")
    assert "https:" not in page
    assert "&lt;script&gt;" in page
    assert "broken &amp; bad.png" in page
    assert page.count("<svg") == 1 + 1 + 2 + 5  # ROC, logits, reliability of frames and videos, five perturbations
    for word in ("Robustness", "Chains", "Calibration", "Fakes by folder", "blur:1+jpeg:70", "of 8 + 12 videos"):
        assert word in page
    assert f"{found['videos']['auc']:.3f}" in page
    assert "#0a0b" not in page  # no stand-in colour is left


def test_the_terminal_shows_the_same_figures(runs, sets):
    result = arena(runs["red"], "--real", sets / "real", "--fake", sets / "fake", "--robustness", "blur:1")
    assert result.exit_code == 0
    found = done(runs["red"], "--real", sets / "real", "--fake", sets / "fake", "--robustness", "blur:1")
    for figure in (found["items"]["auc"], found["robustness"][0]["items"]["auc"]):
        assert f"{figure:.3f}" in result.stdout
    assert "blur:1" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


# Hostile input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--robustness", "blurr:1"], "did you mean 'blur'"), (["--robustness", "jpeg:500"], "jpeg:500"),
        (["--levels", "c24"], "c24"), (["--video-id", "prefix:("], "--video-id"), (["--max-bad", "some"], "--max-bad"),
        (["--max-bad", "1.5"], "--max-bad"), (["--max-bad", "nan"], "--max-bad"), (["--device", "tpu"], "--device"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused_before_anything_is_read(runs, words, said):
    refused([runs["red"], "--real", "no such folder", "--fake", "nor this", *words], said)


def test_folders_that_hold_nothing_are_refused(runs, sets, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_bytes(b"no picture")
    (tmp_path / "file").touch()
    real = ["--real", sets / "real"]
    refused([runs["red"], *real, "--fake", tmp_path / "empty"], "no image or video", "empty")
    refused([runs["red"], *real, "--fake", tmp_path / "nowhere"], "--fake", "nowhere")
    refused([runs["red"], *real, "--fake", tmp_path / "bad"], "--fake holds no usable", "1.png")
    refused([runs["red"], *real, "--fake", sets / "fake", "--out", tmp_path / "file"], "--out", "is a file")
    refused([tmp_path / "empty", *real, "--fake", sets / "fake"], "run")
    refused([runs["broken"], *real, "--fake", sets / "fake"], "not a number", ".png")


def test_unusable_files_are_counted_named_and_limited(runs, sets, tmp_path):
    shutil.copytree(sets / "fake", tmp_path / "fake")
    whole = (tmp_path / "fake" / "0.png").read_bytes()
    (tmp_path / "fake" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "fake" / "no.mp4").write_bytes(b"no film at all" * 50)
    (tmp_path / "fake" / "text.txt").write_text("passed over by its suffix")
    words = [runs["red"], "--real", sets / "real", "--fake", tmp_path / "fake"]
    found = done(*words)
    assert {Path(name).name for name, _ in found["data"]["bad"]} == {"cut.png", "no.mp4"}
    assert found["items"]["n_fake"] == 60
    assert any("2 files could not be used" in note for note in found["notes"])
    refused([*words, "--max-bad", 1], "2 of 112", "at most 1", "--max-bad")
    refused([*words, "--max-bad", 0.01], "at most 1")
    assert done(*words, "--max-bad", 0.02)["items"] == found["items"]


def test_one_of_each_is_enough(runs, sets):
    found = done(runs["red"], "--real", sets / "real" / "0.png", "--fake", sets / "fake" / "0.png",
                 "--robustness", "blur:1")  # fmt: skip
    assert found["items"]["n_real"] == found["items"]["n_fake"] == 1
    assert found["header"]["format"] is None
    assert found["items"]["roc"]["band"] is None


def test_the_shelf_gives_back_what_was_put_there_in_memory_and_on_disk():
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    for most in (10**9, 1000):
        shelf = Shelf(8, most)
        assert shelf.add(images[:7], [str(i) for i in range(7)]) == range(7)
        assert torch.equal(shelf.take([3, 0]), images[[3, 0]])
        assert shelf.add(images[7:], [str(i) for i in range(7, 20)]) == range(7, 20)
        assert torch.equal(shelf.take([19, 5, 5, 7]), images[[19, 5, 5, 7]])
        assert shelf.addresses == [str(i) for i in range(20)]

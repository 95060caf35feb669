"""`arena detect`: its rows against the detector's own scores, whatever lies among the files."""

import csv
import io
import json
import os
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

av = pytest.importorskip("av")

from arena.cli import Commands  # noqa: E402
from arena.config import resolve  # noqa: E402
from arena.data import decode, media  # noqa: E402
from arena.data.codec import store_as  # noqa: E402
from arena.data.videos import read_windows, starts  # noqa: E402
from arena.detect_command import detect, probability  # noqa: E402
from arena.detection import Scorer  # noqa: E402
from arena.detection import detect as work  # noqa: E402
from arena.errors import InputError  # noqa: E402
from arena.faces.video import Plain, Writer, open_video  # noqa: E402
from arena.ledger import Ledger  # noqa: E402
from arena.run import run  # noqa: E402
from arena.training import to_float  # noqa: E402
from arena.watch import Silent  # noqa: E402

CLIPS = """
import torch
from torch import nn

class Motion:
    \"\"\"The mean change from frame to frame, ten times, less 1; a detector of clips that keeps a diary.\"\"\"
    def __init__(self, frames: int = 4):
        self.frames, self.net = frames, nn.Linear(1, 1)
        self.layer, self.shapes = self.net, []
    def fit(self, fabric, batches, *, val=()):
        yield from ()
    def score(self, x):
        assert x.ndim == 5
        self.shapes.append(tuple(x.shape))
        change = x.diff(dim=1).abs().flatten(1).sum(1) / max(1, x[:, 1:].numel() / len(x))
        return self.net(change[:, None]).squeeze(1)
"""
group = Commands(name="arena", commands=[detect])


def arena(*words, given=None):
    return CliRunner().invoke(group, ["detect", *map(str, words)], input=given, catch_exceptions=False)


def rows(result):
    return list(csv.DictReader(io.StringIO(result.stdout, newline="")))


def make_run(root, of, weight, bias, threshold=0.0, **data):
    """A run folder as a finished round leaves it, its detector's one linear layer set by hand."""
    root.mkdir(parents=True)
    for name, player in (("gen", "planted:Identity"), ("det", of)):
        (root.parent / f"{name}.yaml").write_text(f"of: {player}\n")
    players = {"generator": str(root.parent / "gen.yaml"), "detector": str(root.parent / "det.yaml")}
    config = resolve([{**players, "data": {"size": 32, **data}}], "smoke")
    from arena.build import build

    detector = build(config.detector, 0)
    with torch.no_grad():
        detector.net.weight.copy_(torch.tensor([weight]))
        detector.net.bias.fill_(bias)
    with Ledger(root) as ledger:
        ledger.write("run.json", {"settings": config.model_dump()})
        ledger.write_weights(detector, "rounds/00/detector.safetensors")
        ledger.save(detector, "detector", round=0, step=1, seconds=0.0)
        if threshold is not None:
            ledger.write("rounds/00/phases/4-train-detector.json", {"threshold": threshold})
    return root


@pytest.fixture(scope="module")
def reds(tmp_path_factory):
    """A run whose detector takes red for fake and blue for real: logit = 4 (red - blue) of the means in -1 .. 1."""
    return make_run(tmp_path_factory.mktemp("reds") / "run", "planted:Colour", [4.0, 0.0, -4.0], 0.0, 0.5)


@pytest.fixture
def motion(tmp_path, monkeypatch):
    """A run of a detector of clips of four frames; and its scores' shapes, as they come."""
    (tmp_path / "moving_clips.py").write_text(CLIPS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "moving_clips", raising=False)
    return make_run(tmp_path / "m" / "run", "moving_clips:Motion", [10.0], -1.0, source="faces-clips", frames=4)


def picture(path, seed=0, size=(40, 30), colour=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if colour is not None:
        image[:] = colour
    Image.fromarray(image).save(path, "JPEG" if path.suffix == ".jpg" else "PNG")
    return path


def film(path, colours, height=32, width=48):
    with Writer(path, Plain(rate=Fraction(25)), synthetic="true", preset="ultrafast") as writer:
        for k, colour in enumerate(colours):
            writer.write(np.full((height, width, 3), colour, np.uint8), k / 25)
    return path


RED, BLUE = (230, 20, 20), (20, 20, 230)


def truth(run_folder, images):
    """The detector's own logits of PIL pictures, one at a time, by no more than Pillow."""
    detector = Scorer(run_folder).detector
    found = []
    for image in images:
        fitted = torch.from_numpy(decode.fitted(image, 32).copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            found.append(float(detector.score(to_float(fitted))))
    return found


def test_a_run_s_fakes_get_the_logits_that_the_run_recorded(tmp_path, player_file):
    layer = {
        "generator": player_file("planted:Shift"), "detector": player_file("planted:Colour"), "rounds": 2,
        "data": {"size": 32, "train": 20, "val": 10, "judge": 20}, "generator_steps": 2, "detector_steps": 10,
        "detector_batch": 16, "baseline": None,
    }  # fmt: skip
    run(resolve([layer], "smoke"), tmp_path / "run", Silent())
    for number, checkpoint in ((0, "run/rounds/00/detector.safetensors"), (1, "run")):
        folder = tmp_path / "run/rounds" / f"{number:02d}"
        found = rows(arena(tmp_path / checkpoint, folder / "fakes", "--batch-size", 7))
        recorded = np.load(folder / "scores.npz")["after_fake"]
        threshold = json.loads((folder / "phases/4-train-detector.json").read_text())["threshold"]
        assert len(found) == len(recorded) == 40
        assert [float(row["logit"]) for row in found] == pytest.approx(recorded.tolist(), abs=1e-5)
        assert {float(row["threshold"]) for row in found} == {threshold}
        for row in found:
            assert (row["decision"] == "fake") == (float(row["logit"]) >= threshold)
            assert float(row["probability"]) == pytest.approx(1 / (1 + np.exp(-float(row["logit"]))))


def test_rows_come_in_order_whatever_lies_between(reds, tmp_path):
    images = {f"{i}.png": picture(tmp_path / f"{i}.png", i, (33 + 7 * i, 64 - 3 * i)) for i in range(9)}
    images["9.jpg"] = picture(tmp_path / "9.jpg", 9)
    (tmp_path / "3a.png").touch()
    (tmp_path / "5a.jpg").write_text("no picture at all")
    (tmp_path / "5b.png").write_bytes(images["5.png"].read_bytes()[:900])
    film(tmp_path / "4a.mp4", [RED] * 5)
    (tmp_path / "6a.mkv").write_bytes(b"\x1a\x45\xdf\xa3 and no more")
    Image.new("1", (9000, 9000)).save(tmp_path / "7a.png")
    result = arena(reds, tmp_path, "--batch-size", 3)
    assert result.exit_code == 0
    found = rows(result)
    names = [os.path.basename(row["path"]) for row in found]
    assert names == [
        "0.png", "1.png", "2.png", "3.png", "3a.png", "4.png", "4a.mp4", "5.png", "5a.jpg", "5b.png", "6.png",
        "6a.mkv", "7.png", "7a.png", "8.png", "9.jpg",
    ]  # fmt: skip
    bad = {name: row["error"] for name, row in zip(names, found, strict=True) if row["error"]}
    assert bad.keys() == {"3a.png", "5a.jpg", "5b.png", "6a.mkv", "7a.png"}
    assert bad["3a.png"].startswith("has zero bytes")
    assert bad["5a.jpg"] == "not a PNG, JPEG, WEBP or BMP picture"
    assert bad["5b.png"] == "truncated"
    assert bad["7a.png"] == "9000 x 9000 px is over the limit of 40 Mpx"
    good = {name: float(row["logit"]) for name, row in zip(names, found, strict=True) if not row["error"]}
    expected = truth(reds, [Image.open(path) for path in images.values()])
    assert [good[name] for name in images] == pytest.approx(expected, abs=1e-5)
    assert all(row["logit"] == row["probability"] == row["decision"] == "" for row in found if row["error"])
    assert {row["kind"] for row in found} == {"image", "video", ""}
    assert "10 images and 1 video (5 frames) in" in result.stderr
    assert "5 files could not be read" in result.stderr
    assert "not calibrated" in result.stderr


def test_pictures_of_many_files_go_through_in_one_batch(reds, tmp_path, monkeypatch):
    for i in range(10):
        picture(tmp_path / f"{i}.png", i)
    sizes = []
    score = Scorer.score_images
    monkeypatch.setattr(Scorer, "score_images", lambda self, x: sizes.append(len(x)) or score(self, x))
    arena(reds, tmp_path, "--batch-size", 4)
    assert sizes == [4, 4, 2]


def test_a_video_with_a_red_half(reds, tmp_path):
    path = film(tmp_path / "half.mp4", [BLUE] * 20 + [RED] * 10 + [BLUE] * 10)
    out = tmp_path / "windows.csv"
    result = arena(reds, path, "--format", "jsonl", "--windows", 8, "--windows-out", out)
    (row,) = map(json.loads, result.stdout.splitlines())
    frames = [Image.fromarray(frame.image) for frame in open_video(path)]
    where = starts(40, 1, 8)
    assert [window["start"] for window in row["windows"]] == where == [0, 6, 11, 17, 22, 28, 33, 39]
    logits = [window["logit"] for window in row["windows"]]
    assert logits == pytest.approx(truth(reds, [frames[i] for i in where]), abs=1e-5)
    assert [logit > 0 for logit in logits] == [20 <= i < 30 for i in where]
    assert row["logit"] == pytest.approx(np.mean(logits), abs=1e-5)
    assert (row["kind"], row["n_windows"], row["decision"], row["calibrated"]) == ("video", 8, "real", False)
    assert [window["seconds"] for window in row["windows"]] == pytest.approx([i / 25 for i in where])
    written = list(csv.DictReader(out.open()))
    assert [(float(w["logit"]), int(w["start"])) for w in written] == list(zip(logits, where, strict=True))


def test_the_top_window_and_means_of_windows(reds, tmp_path):
    colours = [(20 * k, 0, 128) for k in (3, 5, 2, 12, 4, 1, 7, 0, 6)]
    found = Scorer(reds, batch=2).score_video(film(tmp_path / "a.mp4", colours))
    assert found.top.shape == (1, 3, 32, 32)
    assert abs(int(found.top[0, 0].float().mean()) - 240) < 4
    assert (found.n_frames, found.fps, found.lost) == (9, 25, 0)
    images = torch.tensor(colours, dtype=torch.uint8)[:8, :, None, None].expand(8, 3, 32, 32)
    each = Scorer(reds).score_images(images)
    assert Scorer(reds, batch=3).score_windows(images.unflatten(0, (4, 2))) == pytest.approx(
        each.reshape(4, 2).mean(1), abs=1e-5
    )


def test_how_many_windows_there_are(reds, tmp_path):
    path = film(tmp_path / "long.mp4", [RED] * 100)
    counts = [rows(arena(reds, path, *words))[0]["windows"] for words in ([], ["--windows", "all"], ["--windows", 3])]
    assert counts == ["64", "100", "3"]


def test_frames_that_cannot_be_decoded_do_not_count(reds, tmp_path):
    whole = film(tmp_path / "a.mp4", [RED] * 20 + [BLUE] * 20)
    data = bytearray(whole.read_bytes())
    begin = data.index(b"mdat")
    end = data.index(b"moov") if data.index(b"moov") > begin else len(data)
    with open_video(whole) as video:
        assert video.lost == 0
    half = begin + (end - begin) * 6 // 10
    data[half:end] = bytes(end - half)
    (broken := tmp_path / "b.mp4").write_bytes(data)
    (row,) = rows(arena(reds, broken))
    count = sum(1 for _ in open_video(broken))
    assert 0 < count < 40
    assert int(row["windows"]) == count
    assert "frames could not be decoded" in arena(reds, broken).stderr


def test_a_detector_of_clips_sees_windows_and_pictures_as_clips(motion, tmp_path, monkeypatch):
    grey = np.random.default_rng(0).integers(40, 200, 42)
    path = film(tmp_path / "moves.mp4", [(v, v, v) for v in grey])
    made = []
    opened = Scorer.__init__
    monkeypatch.setattr(Scorer, "__init__", lambda self, *a, **k: opened(self, *a, **k) or made.append(self))
    result = arena(motion, path, picture(tmp_path / "still.png"), "--format", "jsonl", "--batch-size", 12)
    video, still = map(json.loads, result.stdout.splitlines())
    frames = [to_float(torch.from_numpy(frame.image.copy())) for frame in open_video(path)]
    assert [window["start"] for window in video["windows"]] == starts(42, 4, None)
    assert video["n_windows"] == 10
    for window in video["windows"]:
        four = torch.stack(frames[window["start"] : window["start"] + 4])
        assert window["logit"] == pytest.approx(10 * float(four.diff(dim=0).abs().mean()) - 1, abs=0.03)
    assert (still["logit"], still["n_windows"]) == (-1.0, 0)
    assert max(shape[0] * shape[1] for shape in made[0].detector.shapes) == 12
    assert made[0].detector.shapes[-1] == (1, 1, 3, 32, 32)


@pytest.mark.parametrize("codec", ["jpeg-40", "c40"])
def test_windows_pass_through_the_run_s_codec_as_clips(motion, tmp_path, monkeypatch, codec):
    shades = np.random.default_rng(1).integers(0, 256, (12, 8, 12, 3), dtype=np.uint8)
    path = tmp_path / "noise.mp4"
    with Writer(path, Plain(), synthetic="true", crf=0) as writer:
        for k, shade in enumerate(shades):
            writer.write(shade.repeat(8, 0).repeat(8, 1), k / 25)
    scorer = Scorer(motion)
    plain = scorer.score_windows(read_windows(path, frames=4, windows=3, size=32).images)
    coded = store_as(read_windows(path, frames=4, windows=3, size=32).images, codec)
    scorer.data = scorer.data.model_copy(update={"codec": codec})
    found = [window.logit for window in scorer.score_video(path).windows]
    assert found == pytest.approx(scorer.score_windows(coded), abs=1e-4)
    assert np.abs(np.asarray(found) - plain).max() > 0.01


def test_a_gif_is_a_video(reds, tmp_path):
    shots = [Image.new("RGB", (40, 40), colour) for colour in (RED, (90, 90, 90), (200, 0, 0))]
    shots[0].save(tmp_path / "a.gif", save_all=True, append_images=shots[1:], duration=100)
    (row,) = rows(arena(reds, tmp_path / "a.gif"))
    assert (row["kind"], row["windows"], row["decision"]) == ("video", "3", "fake")


def test_lists_on_standard_input(reds, tmp_path):
    odd = ["plain.png", "with, comma.png", 'quo"te.png', "ümläut 猫.png", "new\nline.png", " lead.png"]
    paths = [picture(tmp_path / name, i) for i, name in enumerate(odd)]
    nul = b"\0".join(os.fsencode(path) for path in paths) + b"\0"
    found = rows(arena(reds, "-", "-0", given=nul))
    assert [row["path"] for row in found] == [str(path) for path in paths]
    expected = truth(reds, [Image.open(path) for path in paths])
    assert [float(row["logit"]) for row in found] == pytest.approx(expected, abs=1e-5)
    lines = "".join(f"{path}\r\n" for path in paths if "\n" not in path.name) + "\n"
    found = rows(arena(reds, tmp_path / "new\nline.png", "-", given=lines.encode()))
    assert [os.path.basename(row["path"]) for row in found] == [odd[4], *odd[:4], odd[5]]
    jsonl = arena(reds, "-", "-0", "--format", "jsonl", given=nul).stdout.splitlines()
    assert [json.loads(line)["path"] for line in jsonl] == [str(path) for path in paths]


@pytest.mark.skipif(sys.platform == "darwin", reason="APFS takes no such names")
def test_a_name_that_is_no_utf_8(reds, tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    with open(name, "wb") as file:
        Image.new("RGB", (40, 40), RED).save(file, "PNG")
    (row,) = rows(arena(reds, tmp_path))
    assert row["path"].endswith(r"caf\udce9.png")
    assert row["decision"] == "fake"
    (row,) = map(json.loads, arena(reds, tmp_path, "--format", "jsonl").stdout.splitlines())
    assert row["path"] == name
    assert "error" not in arena(reds, tmp_path, "--format", "table").stdout


def test_folders_copies_and_links(reds, tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    for name in ("10.png", "9.png", "sub/1.png"):
        picture(root / name, 5)
    picture(other / "out.png")
    (root / "link.png").symlink_to(other / "out.png")
    (root / "folder").symlink_to(other)
    (root / "inner.png").symlink_to(root / "9.png")
    (root / ".hidden.png").write_bytes(b"")
    (root / "notes.txt").write_text("no")
    found = rows(arena(reds, root / "sub", root))
    # a link within the folder is the file that it leads to: once
    assert [row["path"].removeprefix(f"{root}/") for row in found] == ["sub/1.png", "9.png", "10.png"]
    assert len({row["logit"] for row in found}) == 1


def test_out_is_written_whole_or_not_at_all(reds, tmp_path, monkeypatch):
    for i in range(4):
        picture(tmp_path / "in" / f"{i}.png", i)
    for name in ("a.jsonl", "a.csv", "a.txt"):
        result = arena(reds, tmp_path / "in", "--out", tmp_path / name)
        assert result.stdout == ""
    assert [json.loads(line)["kind"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == ["image"] * 4
    assert len(list(csv.DictReader((tmp_path / "a.csv").open()))) == 4
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "a.csv").read_text()
    before = (tmp_path / "a.csv").read_bytes()

    calls = []

    def breaks(self, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise InputError("out of memory, say")
        return np.zeros(len(images))

    monkeypatch.setattr(Scorer, "score_images", breaks)
    assert arena(reds, tmp_path / "in", "--batch-size", 2, "--out", tmp_path / "a.csv").exit_code == 2
    assert (tmp_path / "a.csv").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"in", "a.csv", "a.jsonl", "a.txt"}


def test_thresholds(reds, tmp_path):
    path = picture(tmp_path / "a.png", colour=(140, 0, 128))
    logit = 4 * (140 - 128) / 127.5
    (row,) = rows(arena(reds, path))
    assert float(row["logit"]) == pytest.approx(logit, abs=1e-5)
    assert (row["decision"], row["threshold"]) == ("real", "0.5")
    (row,) = rows(arena(reds, path, "--threshold", logit - 1e-3))
    assert row["decision"] == "fake"
    young = make_run(tmp_path / "young" / "run", "planted:Colour", [1.0, 1.0, 1.0], 0.0, threshold=None)
    result = arena(young, path)
    assert rows(result)[0]["threshold"] == "0.0"
    assert "has not frozen one for these weights" in result.stderr
    assert [probability(z) for z in (-1000, 0, 1000)] == [0.0, 0.5, 1.0]


def test_preprocessing_is_the_training_s(tmp_path):
    path = picture(tmp_path / "a.png", 3, (90, 70))
    ends = {}
    for name, data in {"plain": {}, "filter": {"resize": "bilinear"}, "codec": {"codec": "jpeg-30"}}.items():
        folder = make_run(tmp_path / name / "run", "planted:Colour", [4.0, 2.0, -9.0], 0.0, **data)
        scorer = Scorer(folder)
        image = Image.open(path)
        how = Image.Resampling.BILINEAR if name == "filter" else Image.Resampling.BICUBIC
        image = image.resize((32, 32), how, box=(10, 0, 80, 70))
        if name == "codec":
            image.save(tmp_path / "c.jpg", quality=30)
            image = Image.open(tmp_path / "c.jpg")
        expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
        assert torch.equal(scorer.read_image(path), expected)
        ends[name] = rows(arena(folder, path))[0]["logit"]
        assert float(ends[name]) == pytest.approx(float(scorer.score_images(expected[None])[0]), abs=1e-6)
    assert len(set(ends.values())) == 3
    assert Scorer(folder, size=48).read_image(path).shape == (3, 48, 48)


def test_the_table_is_for_people(reds, tmp_path):
    picture(tmp_path / "red.png", colour=RED)
    picture(tmp_path / "[bold]\x1b[31mblue.png", colour=BLUE)
    (tmp_path / "zero.png").touch()
    film(tmp_path / "f.mp4", [RED] * 3)
    shown = arena(reds, tmp_path, "--format", "table").stdout
    lines = {line.split()[0].rpartition("/")[2]: line.split()[1:] for line in shown.splitlines() if ".png" in line}
    assert lines["red.png"][2] == "fake"
    assert "\x1b" not in shown
    assert "[bold]" in shown
    assert "has zero bytes" in shown
    assert next(line for line in shown.splitlines() if "f.mp4" in line).split()[-2:] == ["fake", "3"]


def test_heat_maps_get_names_of_their_own_and_marks(reds, tmp_path):
    half = np.full((32, 32, 3), BLUE, np.uint8)
    half[:, 16:] = RED
    for name in ("a/x.png", "b/x.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(half if name == "a/x.png" else half[:, ::-1]).save(tmp_path / name)
    film(tmp_path / "b/x.mp4", [BLUE] * 4 + [RED] + [BLUE] * 4)
    (tmp_path / "b/zero.png").touch()
    words = (reds, tmp_path / "a", tmp_path / "b", "--explain", tmp_path / "heat", "--method", "occlusion")
    found = rows(arena(*words))
    files = {row["path"].removeprefix(f"{tmp_path}/"): row["heat"] for row in found}
    assert files.pop("b/zero.png") == ""
    assert len(set(files.values())) == 3 == len(list((tmp_path / "heat").iterdir()))
    again = rows(arena(*words))
    assert [row["heat"] for row in again] == [row["heat"] for row in found]
    redness = {}
    for name, file in files.items():
        with Image.open(file) as image:
            assert image.text["Synthetic"].startswith("the colours")
            assert (image.text["Heat"], image.text["Made from"]) == ("occlusion", name.rpartition("/")[2])
            assert image.text["Detector-Run"] == "run"
            pixels = np.asarray(image).astype(int)
        row = pixels[17 + 17 + 192 + 4 + 17 :][96]  # the middle of the heat, below a title, the image and a title
        redness[name] = [row[4 + at, 0] - row[4 + at, 2] for at in (24, 168)]
    assert redness["a/x.png"][0] < -50 < 50 < redness["a/x.png"][1]
    assert redness["b/x.png"][1] < -50 < 50 < redness["b/x.png"][0]


def test_exit_codes_and_what_is_refused(reds, tmp_path):
    good = picture(tmp_path / "a.png")
    (tmp_path / "zero.png").touch()
    (tmp_path / "empty").mkdir()
    assert arena(reds, good, tmp_path / "gone.png").exit_code == 0
    result = arena(reds, tmp_path / "zero.png", tmp_path / "gone.png")
    assert result.exit_code == 1
    assert [row["error"].split(". ")[0] for row in rows(result)] == [
        "has zero bytes",
        f"there is no {tmp_path}/gone.png",
    ]
    for words, text in {
        (tmp_path / "no-run", good): "does not exist",
        (tmp_path / "empty", good): "is no run",
        (reds, tmp_path / "empty"): "no image or video lies in",
        (reds, good, "--windows", "0"): "expected a number of windows",
        (reds, good, "-0"): "give - as a PATH",
        (reds, good, "--threshold", "nan"): "--threshold is a logit",
        (reds, good, "--method", "cam"): "--method is for --explain",
        (reds, good, "--explain", tmp_path / "h", "--method", "nose"): "unknown --method 'nose'",
        (reds, good, "--explain", tmp_path / "h", "--method", "cam"): "--method cam does not fit this detector",
        (reds, good, "--device", "abacus"): "--device abacus",
        (reds,): "Missing argument",
    }.items():
        result = arena(*words)
        assert result.exit_code == 2, words
        assert text in result.stderr, (words, result.stderr)
        assert "Traceback" not in result.stderr


def test_a_size_that_the_detector_refuses_is_said_in_a_line(reds, tmp_path):
    scorer = Scorer(reds)
    scorer.detector = SimpleNamespace(score=lambda x: x.reshape(-1, 5))
    with pytest.raises(InputError, match=r"cannot score images of 32 px.*--batch-size"):
        scorer.score_images(np.zeros((2, 3, 32, 32), np.uint8))
    assert scorer.score_images(np.zeros((0, 3, 32, 32), np.uint8)).shape == (0,)


def test_only_a_few_pictures_wait_for_the_detector(reds, tmp_path, monkeypatch):
    path = picture(tmp_path / "a.png")
    read = []
    reading = Scorer.read_image
    monkeypatch.setattr(Scorer, "read_image", lambda self, file: read.append(file) or reading(self, file))
    files = [media.Media(path, str(i)) for i in range(400)]
    results = work(Scorer(reds, batch=4), files)
    assert next(results).file.name == "0"
    assert 4 <= len(read) <= 60
    assert [result.file.name for result in results] == [str(i) for i in range(1, 400)]
    assert len(read) == 400


def test_no_input_is_written_over(reds, tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "mine.png")
    before = (tmp_path / "mine.png").read_bytes()
    for words in (("--out", tmp_path / "mine.png"), ("--windows-out", tmp_path / "mine.png")):
        result = arena(reds, tmp_path / "mine.png", *words)
        assert result.exit_code == 2
        assert "is one of the files to be scored" in result.output
    assert "is named twice" in arena(reds, tmp_path, "--out", "x.csv", "--windows-out", "x.csv").output
    assert "is a file. Name a folder" in arena(reds, tmp_path, "--explain", tmp_path / "mine.png").output
    assert (tmp_path / "mine.png").read_bytes() == before


def test_an_older_save_of_a_round_has_no_threshold_of_its_own(reds):
    older, newer = (reds / "state" / f"detector-00-{step:06d}.ckpt" for step in (0, 1))
    older.write_bytes(newer.read_bytes())
    try:
        assert (Scorer(newer).threshold, Scorer(older).threshold) == (0.5, 0.0)
        assert "for these weights" in Scorer(older).threshold_from
    finally:
        older.unlink()

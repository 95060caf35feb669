"""A whole event at tiny size: from `pack` to the leaderboard, with an honest order that is known beforehand."""

import hashlib
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import hostile
from browser import Browser, chromium

from arena.cli import main
from arena.data import faces
from arena.data.codec import store_as
from arena.submission import challenge as challenges
from arena.submission import score as scoring
from arena.submission.challenge import ChallengeConfig
from arena.submission.house import eigenfaces

pytestmark = pytest.mark.timeout(900)
SIZE, COUNT = 32, 60


def arena(*words, code=0):
    found = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert found.exit_code == code, found.output
    return found.output


def write_folder(folder: Path, images: torch.Tensor) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:03d}.png")
    return folder


def read_folder(folder: Path) -> torch.Tensor:
    files = sorted(folder.rglob("*.png"))
    return torch.from_numpy(np.stack([np.array(Image.open(file)) for file in files])).permute(0, 3, 1, 2)


@pytest.fixture(scope="module", autouse=True)
def _same_secrets():
    """Secrets that are drawn alike in every run of the tests, and never twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(challenges.secrets, "randbits", random.Random(0).getrandbits)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("event")


@pytest.fixture(scope="module")
def challenge(place):
    config = {
        "title": "A tiny event", "data": {"source": "faces", "size": SIZE, "train": 40, "val": 15, "judge": 30},
        "fakes": COUNT,
    }  # fmt: skip
    return challenges.make(ChallengeConfig.model_validate(config), place / "challenge")


@pytest.fixture(scope="module")
def event(place, challenge):
    """Aurora draws new faces, all but real; Borealis eigenfaces. Copycat hands in public reals, Hostile a zip slip."""
    public = place / "challenge" / "public"
    reals = read_folder(public / "train")
    rng = torch.Generator().manual_seed(0)
    write_folder(place / "drawn", faces.render(99, range(COUNT), SIZE).image)
    write_folder(place / "eigen", eigenfaces(reals, COUNT, rng, 8))
    write_folder(place / "copied", store_as(reals[:COUNT].flip(-1), "jpeg-80"))
    noise = torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), generator=rng, dtype=torch.uint8)
    write_folder(place / "noise", noise)
    for name, fakes in (("good", "eigen"), ("poor", "noise")):  # whom a detector of noise helps against nobody
        arena("train", "spectrum", "--preset", "smoke", "--real", public / "train", "--fake", place / fakes,
              "--set", "detector_steps=30", "--set", f"data.size={SIZE}", "--allow-leak",
              "--out", place / name)  # fmt: skip
    zips = place / "submissions"
    zips.mkdir()
    pack = ("submit", "pack", "--challenge", public)
    arena(*pack, "--team", "Aurora", "--fakes", place / "drawn", "--detector", place / "good", "--out",
          zips / "aurora.zip")  # fmt: skip
    arena(*pack, "--team", "Borealis", "--fakes", place / "eigen", "--detector", place / "poor", "--out",
          zips / "borealis.zip")  # fmt: skip
    arena(*pack, "--team", "Copycat", "--fakes", place / "copied", "--out", zips / "copycat.zip")
    hostile.with_member("../../evil.png")(zips / "hostile.zip", challenge.id)
    text = arena("submit", "score", place / "challenge", zips, "--out", place / "board")
    return json.loads((place / "board" / "board.json").read_text()), text


def row(board, table, team):
    return next(row for row in board[table] if row["team"] == team)


def test_the_honest_order_is_right(event):
    board, _ = event
    assert [(r["team"], r["rank"]) for r in board["generation"]] == [("Aurora", 1), ("Borealis", 2), ("Copycat", None)]
    ranked = [(r["team"], r["rank"]) for r in board["detection"] if r["rank"]]
    assert ranked == [("Aurora", 1), ("Borealis", 2)]
    assert row(board, "generation", "Aurora")["fooled"]["low"] > row(board, "generation", "Borealis")["fooled"]["high"]


def test_the_copier_and_the_hostile_one_are_named_with_their_reasons(event):
    board, text = event
    status = {team["team"]: (team["status"], " ".join(team["reasons"])) for team in board["teams"]}
    assert status["Copycat"][0] == "out"
    assert "copy a public image" in status["Copycat"][1]
    assert status["hostile"][0] == "refused"
    assert "leaves its folder" in status["hostile"][1]
    assert status["Aurora"] == ("scored", "")
    assert status["Borealis"] == ("scored", "")
    for team in ("Copycat", "hostile"):
        assert team in text


def test_figures_stand_with_intervals_and_costs(event, place):
    board, _ = event
    made, found = row(board, "generation", "Aurora"), row(board, "detection", "Aurora")
    for figure in (made["fooled"], made["coverage"], made["copied"], found["auc"], found["worst"], found["test_auc"]):
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert made["copied"]["value"] <= 0.02  # of drawn faces that nobody has seen
    assert made["coverage"]["value"] > 0.3
    assert found["flops"] > 0
    assert found["parameters"] > 0
    assert found["ms"] > 0
    assert found["worst"]["team"] == "Borealis"
    assert board["matrix"]["cells"][0][0]["own"]
    assert board["protections"]
    assert (place / "board" / "teams" / made["key"] / "nearest.png").is_file()


def test_the_page_opens_without_a_console_error(event, place):
    if chromium() is None:
        pytest.skip("no Chromium here")
    with Browser() as page:
        page.open(place / "board" / "leaderboard.html", 390, 800)
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        assert page.run("document.body.innerText.includes('Aurora')")
        assert page.errors == []
        assert page.requests == []


def without_ms(board):
    for detector in board["detection"]:
        detector["ms"] = None
    return board


def test_scoring_twice_gives_the_same_board(event, place):
    arena("submit", "score", place / "challenge", place / "submissions", "--out", place / "again")
    again = json.loads((place / "again" / "board.json").read_text())
    assert without_ms(again) == without_ms(json.loads((place / "board" / "board.json").read_text()))


def test_a_scoring_that_is_stopped_goes_on_where_it_stood(event, place):
    class Stop(Exception):
        pass

    def stop(what, done, total):
        if what == "checking" and done == 2:
            raise Stop

    folders = place / "challenge", place / "submissions", place / "stopped"
    with pytest.raises(Stop):
        scoring.score(*folders, stop)
    kept = {path: path.stat().st_mtime_ns for path in (place / "stopped" / "work").rglob("check.json")}
    assert len(kept) == 2
    board = scoring.score(*folders)
    assert without_ms(board) == without_ms(json.loads((place / "board" / "board.json").read_text()))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_the_board_is_of_one_challenge(event, place, tmp_path):
    other = challenges.make(
        ChallengeConfig.model_validate({"title": "Another", "fakes": 10, "data": {"size": 32, "train": 6, "val": 4,
                                                                                "judge": 6}}), tmp_path / "other",
    )  # fmt: skip
    assert other.id.startswith("another-")
    text = arena("submit", "score", tmp_path / "other", place / "submissions", "--out", place / "board", code=2)
    assert "another challenge" in text


# The challenge


def test_nothing_private_is_in_the_public_part(place, challenge):
    """No private file, its hash, its pixels or its secret: neither in a public file nor in the sample zip."""
    public, private = place / "challenge" / "public", place / "challenge" / "private"
    shown = {path.relative_to(public).as_posix(): path.read_bytes() for path in public.rglob("*") if path.is_file()}
    with zipfile.ZipFile(public / "sample_submission.zip") as sample:
        shown |= {f"sample/{name}": sample.read(name) for name in sample.namelist()}
    hidden = {path.name: path.read_bytes() for path in private.rglob("*") if path.is_file()}
    assert len(hidden) > 60
    text = b"\n".join(shown.values())
    for name, data in hidden.items():
        sha = hashlib.sha256(data).hexdigest()
        assert sha.encode() not in text, name
        assert data not in shown.values(), name
    keys = json.loads(hidden["keys.json"])
    for secret in keys["secrets"].values():
        for form in (str(secret), f"{secret:x}"):
            assert form.encode() not in text
    pixels = {np.array(Image.open(path)).tobytes() for path in (private / "judge").glob("*.png")}
    for path in public.rglob("*.png"):
        assert np.array(Image.open(path)).tobytes() not in pixels, path


def test_the_test_images_tell_their_label_in_no_way_but_their_pixels(place, challenge):
    """Names, dates and text are the same for reals and fakes, and sizes of files do not sort them."""
    folder = place / "challenge"
    rows = [line.split(",") for line in (folder / "private" / "test.csv").read_text().splitlines()[1:]]
    labels = np.array([int(label) for _, label, _ in rows])
    assert labels.sum() * 2 == len(labels) == challenge.n_test
    files = [folder / "public" / "test" / f"{name}.png" for name, _, _ in rows]
    texts = {json.dumps(Image.open(file).text, sort_keys=True) for file in files}
    assert len(texts) == 1
    assert "undisclosed" in texts.pop()
    halves = labels[: len(labels) // 2].mean()
    assert 0.1 < halves < 0.9  # an order that tells nothing


def test_two_challenges_share_no_secret_real(place, challenge, tmp_path):
    config = ChallengeConfig.model_validate({"title": "A tiny event", "fakes": 10,
                                             "data": {"size": SIZE, "train": 6, "val": 4, "judge": 30}})  # fmt: skip
    again = challenges.make(config, tmp_path / "again")
    assert again.id != challenge.id
    hashes = [
        {hashlib.sha256(np.array(Image.open(p)).tobytes()).hexdigest() for p in (root / "private/judge").glob("*.png")}
        for root in (place / "challenge", tmp_path / "again")
    ]
    assert not hashes[0] & hashes[1]


def test_a_private_part_that_was_altered_is_refused(place, challenge, tmp_path):
    import shutil

    shutil.copytree(place / "challenge", tmp_path / "altered")
    next((tmp_path / "altered" / "private" / "judge").glob("*.png")).unlink()
    text = arena("submit", "score", tmp_path / "altered", place, "--out", tmp_path / "board", code=2)
    assert "Restore" in text
    shutil.rmtree(tmp_path / "altered" / "private")
    text = arena("submit", "score", tmp_path / "altered", place, "--out", tmp_path / "board", code=2)
    assert "private" in text


def test_the_sample_submission_passes_its_own_check(place, challenge):
    public = place / "challenge" / "public"
    assert "passed" in arena("submit", "check", public / "sample_submission.zip", "--challenge", public)


# Packing


def test_packing_twice_gives_the_same_bytes(event, place):
    public = place / "challenge" / "public"
    out = [place / f"twice-{i}.zip" for i in range(2)]
    for file in out:
        arena("submit", "pack", "--challenge", public, "--team", "Aurora", "--fakes", place / "drawn", "--detector",
              place / "good", "--out", file)  # fmt: skip
    assert out[0].read_bytes() == out[1].read_bytes()
    with zipfile.ZipFile(out[0]) as file:
        said = json.loads(file.read("submission.json"))
        assert said["files"].keys() == set(file.namelist()) - {"submission.json"}
        for name, sha in said["files"].items():
            assert hashlib.sha256(file.read(name)).hexdigest() == sha
        card = file.read("MODEL_CARD.md").decode()
    for heading in ("What it is", "What it was trained on", "Scores", "Limits", "Intended use"):
        assert f"## {heading}" in card


def test_packed_fakes_say_that_they_are_synthetic(event, place):
    with zipfile.ZipFile(place / "submissions" / "aurora.zip") as file, file.open("fakes/00000.png") as fake:
        assert Image.open(fake).text["Synthetic"] == "true"


def test_packing_what_does_not_fit_says_so(event, place, tmp_path):
    public = place / "challenge" / "public"
    pack = ("submit", "pack", "--challenge", public, "--team", "Aurora", "--out", tmp_path / "a.zip")
    assert "nothing to pack" in arena(*pack, code=2)
    few = write_folder(tmp_path / "few", faces.render(1, range(3), SIZE).image)
    assert f"{COUNT} are needed" in arena(*pack, "--fakes", few, code=2)
    large = write_folder(tmp_path / "large", faces.render(1, range(COUNT), 64).image)
    assert "64 x 64" in arena(*pack, "--fakes", large, code=2)
    bad = tmp_path / "scores.csv"
    bad.write_text("id,score\n00000,2\n")
    assert "no probability" in arena(*pack, "--scores", bad, code=2)
    assert not (tmp_path / "a.zip").exists()
    team = ("submit", "pack", "--fakes", place / "drawn", "--out", tmp_path / "b.zip", "--team")
    assert "team" in arena(*team, "<b>x</b>", code=2)
    (tmp_path / "b.zip").write_bytes(b"")
    assert "exists" in arena(*team, "Aurora", code=2)


def test_weights_and_settings_alone_say_what_the_graph_says(event, place, challenge, tmp_path):
    """The same detector as safetensors with its YAML, without the ONNX: the lab's own net is built and scores alike."""
    from arena.submission.archive import write_zip
    from arena.submission.check import check, run_detector

    with zipfile.ZipFile(place / "submissions" / "aurora.zip") as file:
        members = {name: file.read(name) for name in file.namelist() if name != "detector.onnx"}
    said = json.loads(members.pop("submission.json"))
    said["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    write_zip(tmp_path / "nets.zip", {**members, "submission.json": json.dumps(said).encode()})
    found = check(tmp_path / "nets.zip", challenge, tmp_path / "nets")
    both = check(place / "submissions" / "aurora.zip", challenge, tmp_path / "both")
    assert found.problems == both.problems == []
    images = tmp_path / "images.npy"
    np.save(images, found.items[:20])
    net, graph = (run_detector(folder, [images], challenge.limits)[0] for folder in (found.folder, both.folder))
    assert np.allclose(net, graph, atol=1e-3)
    assert np.ptp(net) > 0.1


def test_clips_are_packed_and_scored_like_images(tmp_path):
    pytest.importorskip("av")
    config = {
        "title": "Moving", "fakes": 10, "codec": "c23",
        "floors": {"coverage": 0, "copied": 1, "repeated": 1, "distance": 9},
        "data": {"source": "faces-clips", "size": SIZE, "frames": 3, "train": 20, "val": 4, "judge": 6},
    }  # fmt: skip
    made = challenges.make(ChallengeConfig.model_validate(config), tmp_path / "challenge")
    public = tmp_path / "challenge" / "public"
    assert made.frames == 3
    assert sorted((public / "train" / "a").iterdir())[0].suffix == ".mp4"
    arena("run", "--generator", "faceswap", "--detector", "cnn_lstm", "--preset", "smoke", "--data", public / "train",
          "--set", "rounds=1", "--set", "generator_steps=2", "--set", "detector_steps=12", "--set", "baseline=null",
          "--out", tmp_path / "run")  # fmt: skip
    (tmp_path / "zips").mkdir()
    arena(
        "submit", "pack", tmp_path / "run", "--team", "Movers", "--challenge", public, "--out", tmp_path / "zips/m.zip"
    )
    (tmp_path / "zips" / "s.zip").write_bytes((public / "sample_submission.zip").read_bytes())
    arena("submit", "score", tmp_path / "challenge", tmp_path / "zips", "--out", tmp_path / "board")
    board = json.loads((tmp_path / "board" / "board.json").read_text())
    assert {team["team"]: team["status"] for team in board["teams"]}["Sample"] == "scored"
    found = row(board, "detection", "Movers")
    assert found["auc"]["n_fake"] == 10  # the clips of the other team
    assert found["auc"]["n_real"] == 12


def test_a_model_of_another_framework_is_packed(event, place, tmp_path):
    model = tmp_path / "mine.onnx"
    model.write_bytes(hostile.onnx_model())
    public = place / "challenge" / "public"
    arena("submit", "pack", "--challenge", public, "--team", "Own", "--detector", model, "--out", tmp_path / "own.zip")
    with zipfile.ZipFile(tmp_path / "own.zip") as file:
        assert file.read("detector.onnx") == model.read_bytes()
        assert "model of the team's own" in file.read("MODEL_CARD.md").decode()


def test_scores_may_be_what_detect_wrote(event, place, challenge, tmp_path):
    public = place / "challenge" / "public"
    arena("detect", place / "good", public / "test", "--out", tmp_path / "found.csv")
    arena("submit", "pack", "--challenge", public, "--team", "Kept", "--scores", tmp_path / "found.csv", "--out",
          tmp_path / "kept.zip")  # fmt: skip
    with zipfile.ZipFile(tmp_path / "kept.zip") as file:
        lines = file.read("scores.csv").decode().splitlines()
    assert lines[0] == "id,score"
    assert len(lines) == 1 + challenge.n_test


def test_the_same_zip_twice_counts_once(event, place, tmp_path):
    zips = tmp_path / "zips"
    zips.mkdir()
    for name in ("a", "b"):
        (zips / f"{name}.zip").write_bytes((place / "submissions" / "aurora.zip").read_bytes())
    board = scoring.score(place / "challenge", zips, tmp_path / "board")
    assert [team["file"] for team in board["teams"]] == ["a.zip"]
    assert "same file" in board["teams"][0]["notes"][0]


def test_what_a_file_manager_left_is_no_change_and_a_change_is_named(place, challenge, tmp_path):
    import shutil

    shutil.copytree(place / "challenge", tmp_path / "copy")
    (tmp_path / "copy" / "public" / ".DS_Store").write_bytes(b"x")
    found = challenges.open_challenge(tmp_path / "copy")
    challenges.open_keys(tmp_path / "copy", found)
    (tmp_path / "copy" / "public" / "train" / "a" / "00000.png").write_bytes(b"x")
    with pytest.raises(challenges.InputError, match=r"train/a/00000.png is altered"):
        challenges.open_keys(tmp_path / "copy", found)


def one_team(place, tmp_path, images, **more):
    """The board of one team that hands in these images, and what the board says of it."""
    out = tmp_path / "zips" / "team.zip"
    out.parent.mkdir(exist_ok=True)
    arena("submit", "pack", "--challenge", place / "challenge" / "public", "--team", "Team", "--fakes",
          write_folder(tmp_path / "fakes", images), "--out", out)  # fmt: skip
    board = scoring.score(place / "challenge", out.parent, tmp_path / "board", **more)
    return board["teams"][0]


def test_one_good_picture_many_times_is_out(event, place, tmp_path):
    team = one_team(place, tmp_path, faces.render(7, [3] * COUNT, SIZE).image)
    assert team["status"] == "out"
    assert "repeat another of them" in team["reasons"][0]


def test_public_test_images_are_no_fakes(event, place, tmp_path):
    team = one_team(place, tmp_path, read_folder(place / "challenge" / "public" / "test")[:COUNT])
    assert "100% of its fakes copy a public image" in team["reasons"][0]


def test_noise_is_out(event, place, tmp_path):
    rng = torch.Generator().manual_seed(1)
    team = one_team(place, tmp_path, torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), generator=rng, dtype=torch.uint8))
    assert "its distance to the reals is" in " ".join(team["reasons"])


def test_links_pipes_and_folders_are_refused_and_hide_nobody(event, place, tmp_path):
    import os

    zips = tmp_path / "zips"
    zips.mkdir()
    (zips / "team.zip").write_bytes((place / "submissions" / "copycat.zip").read_bytes())
    (zips / "a.zip").symlink_to(zips / "team.zip")
    (zips / "folder.zip").mkdir()
    os.mkfifo(zips / "pipe.zip")
    (zips / "._team.zip").write_bytes(b"what macOS leaves")
    board = scoring.score(place / "challenge", zips, tmp_path / "board")
    status = {team["file"]: (team["status"], " ".join(team["reasons"])) for team in board["teams"]}
    assert status.keys() == {"a.zip", "folder.zip", "pipe.zip", "team.zip"}
    assert status["team.zip"][0] == "out"
    for name in ("a.zip", "folder.zip", "pipe.zip"):
        assert status[name][0] == "refused"
        assert str(tmp_path) not in status[name][1]


def test_a_folder_is_dealt_by_the_secret_whatever_splits_it_suggests(tmp_path):
    """As CycleGAN's sets lie: the judge's pictures come from all of them, others each time, as many as were asked."""
    for i, split in enumerate(("trainA", "testA")):
        write_folder(tmp_path / "set" / split, faces.render(i, range(40), SIZE).image)
    data = {"source": str(tmp_path / "set"), "size": SIZE, "train": 20, "val": 5, "judge": 12}
    config = ChallengeConfig.model_validate({"title": "Dealt", "fakes": 10, "data": data})
    names = []
    for again in range(2):
        challenges.make(config, tmp_path / f"dealt{again}")
        folder = tmp_path / f"dealt{again}"
        rows = (folder / "private" / "judge.csv").read_text().splitlines()[1:]
        names.append([row.split(",")[2] for row in rows])
        assert len(rows) == 12
        assert len(list((folder / "public" / "train").rglob("*.png"))) == 20
        assert "set" not in json.loads((folder / "public" / "challenge.json").read_text())["data"]
    assert names[0] != names[1]
    assert {name.partition("/")[0] for name in names[0]} == {"trainA", "testA"}


def test_two_zips_of_one_name_are_own_to_each_other(event, place, tmp_path):
    zips, public = tmp_path / "zips", place / "challenge" / "public"
    zips.mkdir()
    pack = ("submit", "pack", "--challenge", public)
    arena(*pack, "--team", "Twins", "--fakes", place / "drawn", "--out", zips / "fakes.zip")
    arena(*pack, "--team", "TWINS", "--detector", place / "good", "--out", zips / "model.zip")
    board = scoring.score(place / "challenge", zips, tmp_path / "board")
    assert board["matrix"]["cells"][0][0]["own"]
    assert board["detection"][0]["why_unranked"]


def test_a_time_that_ran_out_is_tried_again_with_more(event, place, tmp_path, monkeypatch):
    folders = place / "challenge", place / "submissions", tmp_path / "board"
    judged = scoring.judged
    monkeypatch.setattr(scoring, "judged", lambda *_: (_ for _ in ()).throw(scoring.sandbox.Refused("took too long")))
    board = scoring.score(*folders)
    assert "took too long" in str(board["teams"])
    monkeypatch.setattr(scoring, "judged", judged)
    assert "took too long" in str(scoring.score(*folders)["teams"])
    assert "took too long" not in str(scoring.score(*folders, seconds=600)["teams"])

"""Every attack is refused with a line that says why; the scoring goes on, and nothing outside its folder changes."""

import hashlib
import json
import os
import random
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import hostile
from hostile import ATTACKS

from arena.submission import challenge as challenges
from arena.submission import check as checks
from arena.submission.challenge import ChallengeConfig
from arena.submission.score import score

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", autouse=True)
def _same_secrets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(challenges.secrets, "randbits", random.Random(0).getrandbits)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def challenge(place):
    config = ChallengeConfig.model_validate({
        "title": "Attack me", "data": {"source": "faces", "size": 32, "train": 8, "val": 10, "judge": 10},
        "fakes": hostile.COUNT, "limits": {"seconds": 5, "memory_bytes": 1 << 30},
        "floors": {"coverage": 0, "distance": 9},
    })  # fmt: skip
    return challenges.make(config, place / "challenge")


@pytest.fixture(scope="module")
def submissions(place, challenge):
    folder = place / "submissions"
    folder.mkdir()
    for name, (make, _) in ATTACKS.items():
        make(folder / f"{name.replace('/', ' ')}.zip", challenge.id)
    hostile.write(folder / "Aurora.zip", hostile.good(challenge.id, team="Aurora"))
    hostile.write(folder / "Borealis.zip", hostile.good(challenge.id, team="Borealis", with_fakes=False))
    (folder / "notes.txt").write_text("not a submission")
    return folder


def tree(*roots):
    """Everything below some folders, with its content's hash."""
    found = {}
    for root in roots:
        for folder, _, files in os.walk(root):
            for name in files:
                path = Path(folder) / name
                if path.is_file() and not path.is_symlink():
                    found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def scored(place, submissions, challenge, tmp_path_factory):
    outside = place / "outside"
    outside.mkdir()
    before = tree(place)
    here = Path.cwd()
    os.chdir(outside)
    try:
        board = score(place / "challenge", submissions, place / "board")
    finally:
        os.chdir(here)
    after = {path: sha for path, sha in tree(place).items() if not path.startswith(str(place / "board"))}
    return board, before, after


def test_at_least_forty_attacks():
    assert len(ATTACKS) >= 40


@pytest.mark.parametrize("name", ATTACKS)
def test_is_refused_with_its_reason(scored, name):
    board, _, _ = scored
    team = next(team for team in board["teams"] if team["file"] == f"{name.replace('/', ' ')}.zip")
    assert team["status"] == "refused"
    text = "\n".join(team["reasons"])
    assert ATTACKS[name][1].lower() in text.lower(), text
    assert text.isprintable() or set(text) & {"\n"}
    for line in team["reasons"]:
        assert line.isprintable()
        assert "Traceback" not in line
        assert "the check itself failed" not in line, line


def test_the_scorer_lives_and_scores_the_others(scored):
    board, _, _ = scored
    assert {team["team"]: team["status"] for team in board["teams"] if team["status"] != "refused"} == {
        "Aurora": "scored", "Borealis": "scored",
    }  # fmt: skip
    assert board["detection"][0]["team"] == "Borealis"  # whose detector met Aurora's fakes


def test_nothing_outside_the_board_has_changed(scored):
    _, before, after = scored
    assert after == before
    assert not Path("/tmp/deepfake-arena-was-here").exists()
    assert not Path("/tmp/evil.png").exists()


def test_each_gets_a_report_of_its_own(scored, place):
    board, _, _ = scored
    for team in board["teams"]:
        report = json.loads((place / "board" / "teams" / team["key"] / "report.json").read_text())
        assert report["reasons"] == team["reasons"]


def test_nothing_of_a_refused_zip_stays_unpacked(scored, place):
    board, _, _ = scored
    refused = next(t for t in board["teams"] if t["file"] == "zip slip.zip")
    assert not list((place / "board" / "work" / refused["sha256"][:32]).glob("unpacked/*"))


def test_the_page_is_inert(scored, place):
    page = (place / "board" / "leaderboard.html").read_text()
    assert "<script>alert" not in page
    assert "onload=alert" not in page
    assert "\x1b" not in page


def test_the_same_check_at_home(submissions, challenge, tmp_path):
    found = checks.check(submissions / "zip slip.zip", challenge, tmp_path / "unpacked")
    assert any("leaves its folder" in str(problem) for problem in found.problems)
    fine = checks.check(submissions / "Aurora.zip", challenge, tmp_path / "fine")
    assert fine.problems == []
    assert fine.items.shape == (hostile.COUNT, 3, 32, 32)

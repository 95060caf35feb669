"""The bundle for Codabench, held against the platform's documented schema, and its scoring program run as it would be.

The platform itself is not here: its unpacker needs Django and a database. What it asks is written down below, from
docs.codabench.org (Yaml-Structure, Competition-Bundle-Structure, Leaderboard-Functionality) and, for its traps, from
what its unpacker and worker do.
"""

import csv
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from arena.errors import InputError
from arena.submission import codabench
from arena.submission.archive import write_zip
from arena.submission.challenge import make, open_challenge, read_config
from arena.submission.codabench import bundle, columns, judge, repack
from arena.submission.schema import Limits

ROOT = Path(codabench.__file__).parents[2]
DAY = date(2030, 5, 4)


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("event") / "challenge"
    make(read_config("tiny"), folder)
    return folder


@pytest.fixture(scope="module")
def packed(challenge, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    said = bundle(challenge, out, start=DAY)
    return out, said


@pytest.fixture(scope="module")
def unpacked(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(packed[0]) as archive:
        archive.extractall(folder)
    return folder


# The documented schema: key -> (type, required)

COMPETITION = {
    "version": (int, True), "title": (str, True), "image": (str, True), "terms": (str, True), "pages": (list, True),
    "phases": (list, True), "tasks": (list, True), "leaderboards": (list, True), "description": (str, False),
    "registration_auto_approve": (bool, False), "docker_image": (str, True), "make_programs_available": (bool, False),
    "make_input_data_available": (bool, False), "queue": (str, False), "enable_detailed_results": (bool, False),
    "show_detailed_results_in_submission_panel": (bool, False), "show_detailed_results_in_leaderboard": (bool, False),
    "contact_email": (str, False), "reward": (str, False), "auto_run_submissions": (bool, False),
    "can_participants_make_submissions_public": (bool, False), "forum_enabled": (bool, False),
    "solutions": (list, False), "fact_sheet": (dict, False),
}  # fmt: skip
PAGE = {"title": (str, True), "file": (str, True)}
PHASE = {
    "index": (int, False), "name": (str, True), "description": (str, False), "start": (str, True), "end": (str, False),
    "tasks": (list, True), "max_submissions": (int, False), "max_submissions_per_day": (int, False),
    "auto_migrate_to_this_phase": (bool, False), "execution_time_limit": (int, False), "hide_output": (bool, False),
    "hide_prediction_output": (bool, False), "hide_score_output": (bool, False), "starting_kit": (str, False),
    "public_data": (str, False), "accepts_only_result_submissions": (bool, False),
}  # fmt: skip
TASK = {
    "index": (int, True), "name": (str, True), "description": (str, False), "scoring_program": (str, True),
    "reference_data": (str, False), "input_data": (str, False), "ingestion_program": (str, False),
    "ingestion_only_during_scoring": (bool, False),
}  # fmt: skip
LEADERBOARD = {
    "title": (str, True), "key": (str, True), "columns": (list, True), "submission_rule": (str, False),
    "hidden": (bool, False),
}  # fmt: skip
COLUMN = {
    "title": (str, True), "key": (str, True), "index": (int, True), "sorting": (str, False),
    "computation": (str, False), "computation_indexes": (list, False), "precision": (int, False),
    "hidden": (bool, False),
}  # fmt: skip
RULES = {"Add", "Add_And_Delete", "Add_And_Delete_Multiple", "Force_Last", "Force_Latest_Multiple", "Force_Best"}


def complaints(folder: Path) -> list[str]:
    """What the platform would not take, or would take otherwise than it is meant."""
    value = yaml.safe_load((folder / "competition.yaml").read_text())
    wrong: list[str] = []

    def keys(entry, schema, where):
        wrong.extend(f"{where}: {key} is not documented" for key in entry.keys() - schema.keys())
        for key, (kind, required) in schema.items():
            if key not in entry:
                wrong.extend([f"{where}: {key} is missing"] if required else [])
            elif type(entry[key]) is not kind or (required and entry[key] in ("", [])):
                wrong.append(f"{where}: {key} is {entry[key]!r}, expected {kind.__name__}")

    def exists(name, where, text=False):
        path = folder / str(name)
        if not path.exists():
            wrong.append(f"{where}: {name} is not in the bundle")
        elif text and not path.read_text().strip():
            wrong.append(f"{where}: {name} is empty")

    keys(value, COMPETITION, "competition")
    if value.get("version") != 2:
        wrong.append("competition: version is not 2")
    exists(value.get("image"), "image")
    exists(value.get("terms"), "terms", text=True)
    for page in value.get("pages", []):
        keys(page, PAGE, "page")
        exists(page.get("file"), "page", text=True)
    tasks = value.get("tasks", [])
    for task in tasks:
        keys(task, TASK, "task")
        for name in ("scoring_program", "reference_data"):
            exists(task.get(name), name)
        program = folder / str(task.get("scoring_program")) / "metadata.yaml"
        command = yaml.safe_load(program.read_text()).get("command") if program.is_file() else None
        if not command:
            wrong.append("scoring_program: no command in metadata.yaml")
    indices = [task.get("index") for task in tasks]
    if len(set(indices)) < len(indices):
        wrong.append("tasks: an index stands twice")
    ended = None
    for i, phase in enumerate(sorted(value.get("phases", []), key=lambda phase: phase.get("index", 0))):
        keys(phase, PHASE, "phase")
        if not set(phase.get("tasks", [])) <= set(indices):
            wrong.append("phase: a task that there is not")
        for name in ("starting_kit", "public_data"):
            if name in phase:
                exists(phase[name], name)
        dates = [phase.get(name) for name in ("start", "end") if isinstance(phase.get(name), str)]
        times = [datetime.strptime(text, "%Y-%m-%d %H:%M:%S") for text in dates]
        if sorted(set(times)) != times or (i and (ended is None or times[0] <= ended)):
            wrong.append("phases: they overlap, or end before they start")
        ended = times[1] if len(times) > 1 else None
    for board in value.get("leaderboards", []):
        keys(board, LEADERBOARD, "leaderboard")
        if board.get("submission_rule", "Add") not in RULES:
            wrong.append(f"leaderboard: no such submission_rule {board['submission_rule']}")
        for column in board.get("columns", []):
            keys(column, COLUMN, "column")
            if column.get("sorting", "desc") not in ("asc", "desc"):
                wrong.append("column: sorting is asc or desc")
            if max(len(column.get("key", "")), len(column.get("title", ""))) > 36:
                wrong.append("column: the platform keeps 36 characters of a key and of a title")
        for name in ("key", "index"):
            seen = [column.get(name) for column in board.get("columns", [])]
            if len(set(seen)) < len(seen):
                wrong.append(f"columns: a {name} stands twice")
    return wrong


def test_the_bundle_is_what_the_platform_documents(unpacked, packed):
    assert complaints(unpacked) == []
    value = yaml.safe_load((unpacked / "competition.yaml").read_text())
    assert value["docker_image"] == codabench.IMAGE
    assert value["phases"][0]["start"] == "2030-05-04 00:00:00"
    assert [column["key"] for column in value["leaderboards"][0]["columns"]] == packed[1]["columns"]
    assert Image.open(unpacked / value["image"]).size == (360, 360)
    compile((unpacked / "scoring_program/score.py").read_text(), "score.py", "exec")


@pytest.mark.parametrize(("change", "expected"), [
    (lambda v: v.update(leaderboard=v.pop("leaderboards")), "leaderboards is missing"),
    (lambda v: v.pop("terms"), "terms is missing"),
    (lambda v: v.pop("docker_image"), "docker_image is missing"),
    (lambda v: v.update(image="nowhere.png"), "nowhere.png is not in the bundle"),
    (lambda v: v["pages"].append({"title": "Empty", "file": "empty.md"}), "empty.md is empty"),
    (lambda v: v["phases"][0].update(tasks=[]), "tasks is []"),
    (lambda v: v["phases"][0].update(tasks=[7]), "a task that there is not"),
    (lambda v: v["phases"][0].update(start=datetime(2030, 5, 4, 12)), "expected str"),
    (lambda v: v["phases"][0].update(end="2030-05-03 00:00:00"), "end before they start"),
    (lambda v: v["leaderboards"][0].update(submission_rule="Force Last"), "no such submission_rule"),
    (lambda v: v["leaderboards"][0]["columns"][1].update(key="fooled"), "a key stands twice"),
    (lambda v: v["leaderboards"][0]["columns"][0].update(title="x" * 37), "36 characters"),
    (lambda v: v["tasks"][0].update(scoring_program="pages/"), "no command in metadata.yaml"),
])  # fmt: skip
def test_the_schema_of_this_test_can_fail(unpacked, tmp_path, change, expected):
    copy = tmp_path / "copy"
    shutil.copytree(unpacked, copy, ignore=shutil.ignore_patterns("*.png"))
    (copy / "logo.png").touch()
    (copy / "empty.md").write_text("\n")
    value = yaml.safe_load((copy / "competition.yaml").read_text())
    change(value)
    (copy / "competition.yaml").write_text(yaml.safe_dump(value))
    assert any(expected in text for text in complaints(copy)), complaints(copy)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, and those in zips among them."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name, data in list(found.items()):
        if name.endswith(".zip"):
            archive = zipfile.ZipFile(io.BytesIO(data))
            found |= {f"{name}/{member}": archive.read(member) for member in archive.namelist()}
    return found


def pixels(files: dict[str, bytes]) -> set[str]:
    return {
        hashlib.sha256(np.array(Image.open(io.BytesIO(data)).convert("RGB")).tobytes()).hexdigest()
        for name, data in files.items() if name.endswith(".png")
    }  # fmt: skip


def test_nothing_private_is_in_what_the_teams_see(challenge, unpacked):
    private = contents(challenge / "private")
    everything = contents(unpacked)
    shown = {name: data for name, data in everything.items() if not name.startswith("reference_data/")}
    assert {name.split("/")[0] for name in shown} == {
        "competition.yaml", "logo.png", "pages", "scoring_program", "starting_kit",
    }  # fmt: skip
    hashes = {hashlib.sha256(data).hexdigest() for data in private.values()}
    assert not hashes & {hashlib.sha256(data).hexdigest() for data in shown.values()}
    assert not pixels(private) & pixels(shown)
    text = b"\n".join(shown.values())
    secrets = json.loads(private["keys.json"])
    assert not [sha for sha in hashes if sha.encode() in text]
    assert secrets["judge"].encode() not in text
    labels = b"\n".join(private["test.csv"].splitlines()[1:5])
    assert labels not in text
    # the platform gets the secret reals and the labels, not what they were drawn from
    for secret in secrets["secrets"].values():
        assert str(secret).encode() not in b"\n".join(everything.values())
    assert "reference_data/challenge/private/judge.csv" not in everything
    assert all(
        f"reference_data/challenge/private/{name}" in everything for name in private if name.startswith("judge/")
    )
    kit = {name.removeprefix("starting_kit/") for name in everything if name.startswith("starting_kit/")}
    assert kit == contents(challenge / "public").keys()


def test_the_same_bundle_is_the_same_bytes(challenge, packed, tmp_path):
    again = bundle(challenge, tmp_path / "again.zip", start=DAY)
    assert again["sha256"] == packed[1]["sha256"]
    assert (tmp_path / "again.zip").read_bytes() == packed[0].read_bytes()
    assert again["field"] == ["Sample"]


# The scoring program, as the platform runs it


def run(unpacked: Path, place: Path, fill) -> tuple[dict[str, float], str]:
    """The command of metadata.yaml with the platform's folders moved to `place`; `fill` writes the submission."""
    res, out = place / "input" / "res", place / "output"
    res.mkdir(parents=True)
    out.mkdir()
    fill(res)
    os.symlink(unpacked / "reference_data", place / "input" / "ref")
    command = yaml.safe_load((unpacked / "scoring_program/metadata.yaml").read_text())["command"]
    moved = command.replace("/app/program", str(unpacked / "scoring_program")).replace("/app/", f"{place}/")
    program, *arguments = shlex.split(moved)
    assert program == "python3"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=unpacked / "scoring_program", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"scores.json", "detailed_results.html"}
    return json.loads((out / "scores.json").read_text()), (out / "detailed_results.html").read_text()


def auc(negative: list[float], positive: list[float]) -> float:
    """By its definition: the share of pairs in order, ties half."""
    pairs = [(x < y) + (x == y) / 2 for x in negative for y in positive]
    return sum(pairs) / len(pairs)


def test_the_scoring_program_scores_the_sample(challenge, unpacked, tmp_path):
    def fill(res):
        with zipfile.ZipFile(challenge / "public/sample_submission.zip") as archive:
            archive.extractall(res)

    scores, page = run(unpacked, tmp_path, fill)
    found = open_challenge(challenge)
    assert scores.keys() == {column.key for column in columns(found)}
    assert all(0 <= value <= 1 for value in scores.values())
    assert scores["fooled"] > 0.1
    assert scores["coverage"] > found.floors.coverage
    assert scores["copied"] < found.floors.copied
    assert scores["auc"] == scores["worst"] == 0  # it hands in no detector
    given = {row["id"]: float(row["score"]) for row in csv.DictReader((tmp_path / "input/res/scores.csv").open())}
    with (challenge / "private/test.csv").open() as file:
        labels = {row["id"]: row["label"] for row in csv.DictReader(file)}
    truth = auc(*([given[name] for name in given if labels[name] == label] for label in "01"))
    assert scores["test_auc"] == pytest.approx(truth, abs=1e-9)
    assert "Sample" in page
    assert "Duel" in page or found.title in page
    # the sample is the field, and does not meet itself
    assert page.count("submissions name this team") == 0


def detector_only(folder: Path, challenge: Path, team: str) -> Path:
    """A submission of an ONNX detector: how little of an image varies from column to column."""
    from onnx import TensorProto, helper

    from arena.submission.pack import Parts, describe

    found = open_challenge(challenge)
    size = found.size
    axis = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    nodes = [
        helper.make_node("Slice", ["images", "zero", "last", "three"], ["left"]),
        helper.make_node("Slice", ["images", "one", "end", "three"], ["right"]),
        helper.make_node("Sub", ["left", "right"], ["step"]),
        helper.make_node("Abs", ["step"], ["size"]),
        helper.make_node("ReduceMean", ["size", "axes"], ["mean"], keepdims=0),
        helper.make_node("Neg", ["mean"], ["logits"]),
    ]
    numbers = {"zero": 0, "one": 1, "last": size - 1, "end": size, "three": 3}
    graph = helper.make_graph(
        nodes, "planted",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch"])],
        [axis, *(helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in numbers.items())],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    parts = Parts(team=team, licence="CC0-1.0", data="nothing", tracks=["detection"], detector={"method": "planted"})
    files = {"detector.onnx": model.SerializeToString(), "MODEL_CARD.md": b"Planted.\n"}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    folder.mkdir(exist_ok=True)
    out = folder / f"{team.lower()}.zip"
    write_zip(out, files | {"submission.json": json.dumps({**describe(parts, found), "files": hashes}).encode()})
    return out


def test_a_detector_meets_the_field_and_the_field_meets_fakes(challenge, tmp_path):
    """In one process, with a field of the sample and a detector: the one gives figures to the other."""
    sample = challenge / "public/sample_submission.zip"
    field = [sample, detector_only(tmp_path, challenge, "Reference")]
    bundle(challenge, tmp_path / "bundle.zip", field=field, start=DAY, end=date(2030, 6, 1), image="example.org/a:1")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert complaints(tmp_path / "unpacked") == []
    value = yaml.safe_load((tmp_path / "unpacked/competition.yaml").read_text())
    assert (value["docker_image"], value["phases"][0]["end"]) == ("example.org/a:1", "2030-06-01 00:00:00")
    source = tmp_path / "input"
    shutil.copytree(tmp_path / "unpacked/reference_data", source / "ref")
    (source / "res").mkdir()
    shutil.copy(detector_only(tmp_path / "other", challenge, "Newcomer"), source / "res/newcomer.zip")  # a zip as it is
    scores = judge(source, tmp_path / "output")
    assert json.loads((tmp_path / "output/scores.json").read_text()) == scores
    page = (tmp_path / "output/detailed_results.html").read_text()
    assert all(team in page for team in ("Newcomer", "Reference", "Sample"))
    assert scores["auc"] == scores["worst"] != 0.5  # one team's fakes alone
    assert 0 < scores["auc"] < 1
    assert scores["test_auc"] > 0
    assert scores["fooled"] == scores["coverage"] == 0
    assert scores["copied"] == 1


def test_what_is_refused_gets_the_worst_and_its_reasons_escaped(challenge, unpacked, tmp_path):
    worst = {column.key: column.worst for column in columns(open_challenge(challenge))}

    def judged(name, fill):
        source = tmp_path / name
        shutil.copytree(unpacked / "reference_data", source / "ref")
        (source / "res").mkdir()
        fill(source / "res")
        assert judge(source, tmp_path / f"{name}-out") == worst
        return (tmp_path / f"{name}-out/detailed_results.html").read_text()

    page = judged("script", lambda res: (res / "<img src=x onerror=alert(1)>.txt").write_text("hello"))
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.txt" in page
    assert "no file of a submission" in page
    page = judged("link", lambda res: (res / "<b>").symlink_to("/etc/hostname"))
    assert "&lt;b&gt;: a link, a device or a pipe" in page
    assert "<b>" not in page


def test_only_plain_files_are_packed_again(tmp_path):
    limits, out = Limits(members=3, total_bytes=100), tmp_path / "out.zip"

    def said(name, *fills):
        folder = tmp_path / name
        folder.mkdir()
        for fill in fills:
            fill(folder)
        return repack(folder, out, limits)

    assert "no file" in said("empty")
    assert "a link" in said("link", lambda f: (f / "scores.csv").symlink_to(tmp_path / "secret"))
    (tmp_path / "elsewhere").mkdir()
    assert "a link" in said("folder", lambda f: (f / "fakes").symlink_to(tmp_path / "elsewhere"))
    assert "a pipe" in said("pipe", lambda f: os.mkfifo(f / "scores.csv"))
    assert "more than 3 files" in said("many", *(lambda f, i=i: (f / f"{i}").touch() for i in range(4)))
    assert "0.0001 MB" in said("large", lambda f: (f / "big").write_bytes(bytes(101)))
    assert "plain ASCII" in said("name", lambda f: (f / "caf\u00e9.png").touch())
    assert not out.exists()
    assert said("plain", lambda f: (f / "fakes").mkdir(), lambda f: (f / "fakes/a.png").write_bytes(b"a")) is None
    assert zipfile.ZipFile(out).namelist() == ["fakes/a.png"]
    assert said("zip", lambda f: (f / "team.ZIP").write_bytes(b"any bytes: the check comes later")) is None
    assert out.read_bytes() == b"any bytes: the check comes later"


def test_what_cannot_be_bundled_is_said_in_one_line(challenge, tmp_path):
    out = tmp_path / "bundle.zip"
    sample = challenge / "public/sample_submission.zip"
    bad = tmp_path / "bad.zip"
    write_zip(bad, {"run.py": b"print()"})
    stranger = tmp_path / "bundled.zip"
    stranger.write_text("kept")
    for args, options, expected in (
        ((challenge / "public", out), {}, "has no private/keys.json"),
        ((tmp_path / "nowhere", out), {}, "holds no challenge.json"),
        ((challenge, tmp_path / "bundle"), {}, "ends in .zip"),
        ((challenge, stranger), {}, "exists already"),
        ((challenge, out), {"field": [bad]}, "cannot be in the field: run.py: no file of a submission"),
        ((challenge, out), {"field": [tmp_path / "none.zip"]}, "none.zip is no file"),
        ((challenge, out), {"field": [sample, sample]}, "a submission twice"),
        ((challenge, out), {"start": DAY, "end": DAY}, "has to end later"),
        ((challenge, out), {"image": "two words"}, "name of a Docker image"),
    ):
        with pytest.raises(InputError, match=re.escape(expected)):
            bundle(*args, **options)
    assert not out.exists()
    assert stranger.read_text() == "kept"


def test_a_damaged_challenge_is_the_organisers_fault(unpacked, tmp_path):
    """No scores.json: the platform then shows a failed run instead of a team's zero."""
    source = tmp_path / "input"
    shutil.copytree(unpacked / "reference_data", source / "ref")
    (source / "res").mkdir()
    (source / "res/scores.csv").write_text("id,score\n")
    next((source / "ref/challenge/private/judge").iterdir()).unlink()
    with pytest.raises(SystemExit, match="is not what the challenge was made with"):
        codabench.main(str(source), str(tmp_path / "output"))
    assert not (tmp_path / "output").exists()

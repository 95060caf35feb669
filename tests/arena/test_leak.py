"""The grid of blocks and the classifiers behind an audit against independent truths; and runs that an audit stops."""

import io
import json
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from arena.audit_run import audit_run
from arena.cli import main
from arena.config import resolve
from arena.data import decode, headers
from arena.data.faces import render
from arena.metrics import leak
from arena.metrics.header import folds, log_odds
from arena.run import run
from arena.watch import Silent


@pytest.fixture(scope="module")
def faces():
    """Faces of 80 px that no JPEG has seen, uint8 60 3 80 80."""
    return render(2, range(60), 80, camera=False).image.numpy()


def coded(image, form="JPEG", **keywords):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form, **keywords)
    return file.getvalue()


def through_jpeg(images, quality):
    rows = [np.asarray(Image.open(io.BytesIO(coded(x.transpose(1, 2, 0), quality=quality)))) for x in images]
    return np.stack(rows).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(("left", "top"), [(0, 0), (1, 0), (3, 5), (7, 6)])
def test_the_grid_is_found_at_every_offset(faces, left, top):
    blocky = through_jpeg(faces, 80)[..., top : top + 64, left : left + 64]
    found = leak.grid(leak.edges(blocky))
    assert (found.column, found.row) == (-left % 8, -top % 8)
    assert found.strength > 2


def test_the_coarse_grid_of_halved_chroma(faces):
    found = leak.grid(leak.edges(through_jpeg(faces, 75), 16))
    assert (found.column, found.row) == (0, 0)
    assert found.strength > 2


def test_strength_falls_with_quality_and_none_is_seen_without(faces):
    strengths = [leak.grid(leak.edges(through_jpeg(faces, q))).strength for q in (60, 80, 90)]
    assert strengths == sorted(strengths, reverse=True)
    assert leak.grid(leak.edges(faces)).strength < leak.PRESENT < strengths[-1]


@pytest.mark.parametrize("period", [2, 4])
def test_checkerboards_of_two_and_four_are_no_grid(period):
    """What transposed convolutions leave: flat noise with a pattern of that period has nothing at 8."""
    rng = np.random.default_rng(0)
    pattern = np.tile(rng.normal(0, 12, (period, period)), (64 // period, 64 // period))
    images = (128 + pattern + rng.normal(0, 5, (80, 1, 64, 64))).clip(0, 255).astype(np.uint8).repeat(3, 1)
    assert leak.grid(leak.edges(images)).strength < leak.PRESENT
    assert period == 2 or np.ptp(leak.edges(images).mean(0)) > 0.05  # the pattern is seen, and left out


def test_logistic_is_scikit_learns(faces):
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(1)
    rows, labels = rng.normal(size=(300, 4)) * [1, 5, 0.1, 2] + 3, np.repeat([False, True], [200, 100])
    rows[labels] += [0.5, 0, 0.05, 1]
    fold = np.arange(300) % 3
    found = leak.logistic(rows, labels, fold)
    seen = fold != 0
    mean, deviation = rows[seen].mean(0), rows[seen].std(0)
    theirs = linear.LogisticRegression(C=0.1, class_weight="balanced", tol=1e-10, max_iter=1000)
    theirs.fit((rows[seen] - mean) / deviation, labels[seen])
    assert found[~seen] == pytest.approx(theirs.decision_function((rows[~seen] - mean) / deviation), abs=2e-3)
    assert np.isfinite(leak.logistic(np.zeros((300, 2)), labels, fold)).all()


def test_nothing_is_learnt_from_a_source_in_its_own_fold():
    """Every source has a header and a colour of its own: what is of one teaches nothing of another."""
    rng = np.random.default_rng(3)
    sources = [str(i // 10) for i in range(400)]
    is_fake = np.repeat([False, True], 200)
    fold = folds(sources, is_fake)
    assert all(len(set(fold[is_fake & (np.array(sources) == s)])) <= 1 for s in set(sources))
    assert len(set(fold)) == 5
    rows = rng.normal(size=(40, 6)).repeat(10, 0)
    score = log_odds([{"w": f"w{s}"} for s in sources], is_fake, fold) + leak.logistic(rows, is_fake, fold)
    assert 0.3 < np.mean(score[is_fake][:, None] > score[~is_fake]) < 0.7


def test_headers_say_how_a_file_was_coded(faces):
    image = faces[0].transpose(1, 2, 0)

    def said(data):
        return headers.of_image(data, decode.header(data))

    plain = said(coded(image, quality=83))
    assert {k: plain[k] for k in ("format", "jpeg", "subsampling", "process", "huffman", "metadata", "marked")} == {
        "format": "JPEG", "jpeg": 83, "subsampling": "2x2,1x1,1x1", "process": "baseline", "huffman": "standard",
        "metadata": "JFIF", "marked": 0,
    }  # fmt: skip
    assert said(coded(image, quality=83))["tables"] == plain["tables"] != said(coded(image, quality=84))["tables"]
    assert said(coded(image, quality=83, optimize=True))["huffman"] == "optimised"
    assert said(coded(image, quality=83, progressive=True))["process"] == "progressive"
    assert said(coded(image, quality=83, subsampling=0))["subsampling"] == "1x1,1x1,1x1"
    assert said(coded(image, quality=83, comment=b"a scan"))["metadata"] == "JFIF, comment"
    assert said(coded(image[..., 0], quality=83))["huffman"] == "standard"
    assert said(coded(image) + b"x" * 100)["after the end"] == 128
    png = said(coded(image, "PNG", compress_level=9))
    assert (png["depth"], png["colour type"], png["zlib level"], png["interlaced"]) == (8, 2, "3", 0)
    assert said(coded(image, "PNG", icc_profile=b"x" * 200))["metadata"] == "ICC profile"
    assert said(coded(image, "PNG") + b"x")["after the end"] == 2
    assert [said(coded(image, "WEBP", lossless=a))["variant"] for a in (True, False)] == ["lossless", "lossy"]
    for damaged in (coded(image)[:-400], coded(image, "PNG")[:60]):  # whatever stands there, no crash
        assert said(damaged)["format"]


def folders(tmp_path, faces, quality):
    """Labelled folders of faces at 32 px; the fakes are JPEG at `quality`, the reals at 95."""
    for word, some, q in (("real", faces[:30], 95), ("fake", faces[30:], quality)):
        (tmp_path / word).mkdir()
        for i, image in enumerate(some):
            picture = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((32, 32)))
            (tmp_path / word / f"{i:03d}.jpg").write_bytes(coded(picture, quality=q))
    return ["--real", str(tmp_path / "real"), "--fake", str(tmp_path / "fake")]


def test_a_training_on_a_planted_leak_stops_until_it_is_allowed(faces, tmp_path):
    words = ["train", "spectrum", *folders(tmp_path, faces, 60), "--preset", "smoke", "--steps", "3", "--device", "cpu"]
    words += ["--out", str(tmp_path / "run"), "--set", "data.group=none", "--json"]
    stopped = CliRunner().invoke(main, words)
    assert stopped.exit_code == 1, stopped.output
    assert "arena: stopped before the detector of round 0 trains: leak: JPEG quality alone" in stopped.stderr
    assert "--equalise" in stopped.stderr
    assert "--allow-leak" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    audited = json.loads((tmp_path / "run/rounds/00/audit.json").read_text())
    assert (audited["leak"], audited["allowed"], audited["stops"][0]) == (True, False, "JPEG quality")
    assert not (tmp_path / "run/rounds/00/detector.safetensors").exists()
    again = CliRunner().invoke(main, ["train", "--out", str(tmp_path / "run")])
    assert again.exit_code == 1  # it stays stopped

    allowed = CliRunner().invoke(main, ["train", "--out", str(tmp_path / "run"), "--allow-leak", "--json"])
    assert allowed.exit_code == 0, allowed.output
    entry = json.loads(allowed.stdout)["rounds"][0]["audit"]
    assert (entry["leak"], entry["allowed"], entry["stops"][0]) == (True, True, "JPEG quality")
    assert next(row for row in entry["container"] if row["name"] == "JPEG quality")["low"] > 0.6
    assert CliRunner().invoke(main, ["train", "--out", str(tmp_path / "run")]).exit_code == 0  # finished: shown again
    html = (tmp_path / "run" / "report.html").read_text()
    assert html.index("The label leaks, and the run went on all the same") < html.index('<dl class="tiles">')


@pytest.mark.parametrize("rate", [25, 30])
def test_a_training_on_videos_of_two_frame_rates_stops(faces, tmp_path, rate):
    pytest.importorskip("av")
    from arena.faces.video import Plain, Writer

    for word, some, fps in (("real", faces[:24], 25), ("fake", faces[24:48], rate)):
        (tmp_path / word).mkdir()
        for i, image in enumerate(some.transpose(0, 2, 3, 1)):
            path = tmp_path / word / f"{i:02d}.mp4"
            with Writer(path, Plain(Fraction(fps)), synthetic=None, crf=18, preset="ultrafast") as writer:
                for k in range(4):
                    writer.write(np.roll(image, k, 0), k / fps)
    words = ["train", "spectrum", "--real", str(tmp_path / "real"), "--fake", str(tmp_path / "fake"), "--json"]
    words += ["--preset", "smoke", "--steps", "3", "--device", "cpu", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, words)
    audited = json.loads((tmp_path / "run/rounds/00/audit.json").read_text())
    if rate == 25:
        assert (result.exit_code, audited["leak"]) == (0, False), result.output
    else:
        assert (result.exit_code, audited["stops"][0]) == (1, "frame rate"), result.output
        assert "stopped before the detector of round 0 trains: leak: frame rate alone" in result.stderr


def test_a_training_on_clean_folders_is_not_stopped(faces, tmp_path):
    words = ["train", "spectrum", *folders(tmp_path, faces, 95), "--preset", "smoke", "--steps", "3", "--device", "cpu"]
    result = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "run"), "--json"])
    assert result.exit_code == 0, result.output
    entry = json.loads(result.stdout)["rounds"][0]["audit"]
    assert (entry["leak"], entry["allowed"], entry["stops"]) == (False, False, [])


@pytest.mark.parametrize(
    ("generator", "source"),
    [("cyclegan", "faces"), ("faceswap", "faces-two"), ("alae", "faces"), ("identity", "faces")],
)
def test_no_generator_is_stopped_by_its_own_pixels(generator, source, tmp_path, player_file, monkeypatch):
    """Nets leave patterns that look like blocks: of a run's own fakes the grid is told, and stops nothing."""
    for what in ("truth_scores", "look_inside"):  # slow, and not what is asked here
        monkeypatch.setattr(f"arena.round.Arena.{what}", lambda *_: {})
    named = player_file("planted:Identity") if generator == "identity" else generator
    layer = {
        "generator": named, "detector": "spectrum", "rounds": 1, "generator_steps": 2, "detector_steps": 2,
        "baseline": None, "data": {"source": source, "train": 10, "val": 4, "judge": 6},
    }  # fmt: skip
    summary = run(resolve([layer], "smoke"), tmp_path / "run", Silent())
    entry = summary["rounds"][0]["audit"]
    assert (entry["leak"], entry["stops"], entry["container"]) == (False, [], [])
    assert "spectrum" in {row["name"] for row in entry["baselines"]}
    assert entry["verdict"].startswith("no leak")
    now = audit_run(tmp_path / "run")
    n = 10 if generator == "alae" else 20
    assert (now["round"], now["counts"]["train"]) == (0, {"real": n, "fake": n})

"""`arena export`: the ONNX file against the detector it was made from, and what the command says of both."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from arena import build, export  # noqa: E402
from arena.cli import Commands  # noqa: E402
from arena.config import names, resolve  # noqa: E402
from arena.data import decode  # noqa: E402
from arena.errors import InputError  # noqa: E402
from arena.export_command import export as command  # noqa: E402
from arena.ledger import Ledger  # noqa: E402
from arena.player import frozen_threshold, open_player  # noqa: E402
from arena.run import run  # noqa: E402
from arena.training import to_float  # noqa: E402
from arena.watch import Silent  # noqa: E402

SIZE = 32
OTHER = {  # than the smoke preset's: nets that tell one picture of 32 px from the next, and all that they have
    "cnn_lstm": {"trunk": "resnet18"},
    "recurrent_conv": {"trunk": "resnet18", "trunk_steps": 0, "align": "stn"},
}
group = Commands(name="arena", commands=[command])


def arena(*words):
    return CliRunner().invoke(group, ["export", *map(str, words)], catch_exceptions=False)


def settings(name):
    return resolve([{"generator": "cyclegan", "detector": {"name": name, **OTHER.get(name, {})}}], "smoke")


def trained(name):
    """A detector after two steps on noise: nothing in it is at its first value."""
    player = build.build(settings(name).detector, 0)
    rng = torch.Generator().manual_seed(0)
    length = [] if player.frames == 1 else [player.frames]
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0])
    clips = torch.rand(2, 4, *length, 3, SIZE, SIZE, generator=rng) * 2 - 1
    batches = ((clip * (1 - labels / 2).view(-1, *[1] * (clip.ndim - 1)), labels) for clip in clips)
    list(player.fit(build.fabric("cpu", "32-true"), batches))
    return player


def said(model, images):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@pytest.mark.parametrize("name", names("detect"))
def test_every_detector_says_the_same_in_onnxruntime(name):
    """Pictures of the test's own, any batch, the detector's nets unharmed by the export."""
    player = trained(name)
    length = None if player.frames == 1 else player.frames
    shape = (3, SIZE, SIZE) if length is None else (length, 3, SIZE, SIZE)
    images = torch.rand(7, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    images[1:4] *= torch.linspace(-1, 1, SIZE)
    with torch.no_grad():
        before = player.score(images)
    assert before.std() > 1e-5, "a constant detector proves nothing"
    model = export.to_onnx(player, SIZE, length, name)
    onnx.checker.check_model(model, full_check=True)
    for batch in (1, 2, 7):
        found = said(model, images[:batch])
        assert (found.dtype, found.shape) == (torch.float32, (batch,))
        torch.testing.assert_close(found, before[:batch], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(player.score(images), before)
    assert export.compare(player, lambda x: said(model, x), SIZE, [length])["max"] < 1e-3
    left = [text for text in (b"/export.py", b"/detect/", b"stack_trace") if text in model.SerializeToString()]
    assert not left, "the file tells where this machine keeps its files"


class Looping:
    """Reads its frames one by one in Python, as a hand-written cell does."""

    frames = 3

    def __init__(self, batch=None):
        self.net, self.batch = nn.Linear(3, 1), batch

    def score(self, clips):
        state = clips.new_zeros(self.batch or clips.shape[0], 3)
        for t in range(clips.shape[1]):
            state = torch.tanh(state + clips[:, t].mean((2, 3)))
        return self.net(state).squeeze(1)


class Running(Looping):
    """Reads them with an LSTM of torch's."""

    def __init__(self):
        self.net = nn.LSTM(3, 4, num_layers=2, batch_first=True)

    def score(self, clips):
        return self.net(clips.mean((3, 4)))[0].sum((1, 2))


def test_clips_of_any_length():
    player = Running()
    try:
        model = export.to_onnx(player, 8, 3, "running", any_length=True)
    except InputError:
        if torch.__version__ >= "2.15":
            raise
        pytest.skip("this torch unrolls an LSTM over its frames, and says so")
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", "frames", 3, 8, 8,
    ]  # fmt: skip
    for frames in (1, 2, 9):
        clips = torch.rand(2, frames, 3, 8, 8)
        torch.testing.assert_close(said(model, clips), player.score(clips).detach(), rtol=1e-4, atol=1e-6)


def test_what_cannot_be_exported_is_refused_in_a_line():
    player = Looping()
    clips = torch.rand(4, 3, 3, 8, 8)
    model = export.to_onnx(player, 8, 3, "looping")
    torch.testing.assert_close(said(model, clips), player.score(clips).detach())
    with pytest.raises(InputError, match=r"looping.*--frames any") as found:
        export.to_onnx(player, 8, 3, "looping", any_length=True)
    assert "\n" not in str(found.value)
    with pytest.raises(InputError, match="stuck"):
        export.to_onnx(Looping(batch=2), 8, 3, "stuck")
    player.net = nn.Linear(4, 1)
    with pytest.raises(InputError, match=r"running.*8 px.*--size"):
        export.to_onnx(player, 8, 3, "running")


def test_compare_sees_every_difference():
    """A hair too much on one image of one batch, nan, and a detector that itself says nan."""
    player = trained("spectrum")

    def slip(batch, amount):
        def run(images):
            logits = player.score(images).clone()
            if len(images) == batch:
                logits[-1] += amount
            return logits

        return run

    fine = export.compare(player, slip(0, 0), SIZE, [None])
    assert fine["max"] == 0
    assert [(row["images"], row["batch"]) for row in fine["rows"]] == [
        (what, batch) for what in ("noise", "faces") for batch in (1, 3, 5)
    ]
    allowed = 1e-3 * max(abs(fine["lowest_logit"]), abs(fine["highest_logit"]))
    assert fine["allowed"] == pytest.approx(allowed)
    assert export.compare(player, slip(3, allowed / 2), SIZE, [None])["max"] == pytest.approx(allowed / 2, rel=0.01)
    for batch, amount in ((1, 2 * allowed), (3, -2 * allowed), (5, float("nan"))):
        with pytest.raises(export.ParityError, match=f"batch {batch}"):
            export.compare(player, slip(batch, amount), SIZE, [None])
    player.model.weight[0] = float("inf")
    with pytest.raises(export.ParityError, match="diverged"):
        export.compare(player, slip(0, 0), SIZE, [None])


def test_flops_are_those_of_the_textbook():
    class Known:
        def __init__(self, net):
            self.net = net

        def score(self, images):
            return self.net(images)

    def lstm(clips):
        return cell(clips.mean((3, 4)))[0]

    conv = nn.Conv2d(3, 8, 3, padding=1)
    assert export.flops(Known(conv), torch.zeros(1, 3, 16, 16)) == 2 * 16 * 16 * 8 * 3 * 3 * 3
    cell = nn.LSTM(3, 5, batch_first=True)
    assert export.flops(Known(lstm), torch.zeros(1, 7, 3, 4, 4)) == 7 * 2 * 4 * 5 * (3 + 5)


# The command, on a run that was played


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "played"
    layers = [{"generator": "cyclegan", "detector": "spectrum", "rounds": 1, "baseline": None}]
    run(resolve([*layers, {"data": {"resize": "lanczos"}}], "smoke"), root, Silent())
    return root


@pytest.fixture(scope="module")
def exported(played, tmp_path_factory):
    out = tmp_path_factory.mktemp("new") / "folder" / "detector.onnx"
    result = arena(played, out, "--json")
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def test_figures_and_labels(played, exported):
    out, found = exported
    assert [file.name for file in out.parent.iterdir()] == ["detector.onnx"]
    frozen = json.loads((played / "rounds/00/phases/4-train-detector.json").read_text())["threshold"]
    assert (found["threshold"], found["detector"], found["size"], found["frames"]) == (frozen, "spectrum", SIZE, 1)
    assert found["megabytes"] == out.stat().st_size / 1e6 < 1, "the images that Spectrum remembers are no part of it"
    assert 0 <= found["parity"]["mean"] <= found["parity"]["max"] <= found["parity"]["allowed"]
    assert [row["batch"] for row in found["speed"]["rows"]] == [1, 8]
    for row in found["speed"]["rows"]:
        assert row["times"] >= 5
        assert row["torch"] > 0
        assert row["onnxruntime"] > 0
    assert found["flops"] > 0
    assert found["parameters"] == 0
    session = ort.InferenceSession(out)
    labels = session.get_modelmeta().custom_metadata_map
    assert float(labels["threshold"]) == frozen
    assert (labels["run"], labels["round"], labels["seed"], labels["resize"]) == ("played", "0", "0", "lanczos")
    assert labels["input"] == "images: float32, B 3 32 32, RGB in [-1, 1] (8-bit values / 127.5 - 1)"
    assert labels["made_by"].startswith("deepfake-arena ")
    assert {"label", "license", "weights", "codec"} <= labels.keys()
    assert str(played.parent) not in out.read_bytes().decode("latin-1")
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("images", "tensor(float)", ["batch", 3, SIZE, SIZE])
    ]
    detector = open_player(played, "detector").player
    images = torch.rand(4, 3, SIZE, SIZE) * 2 - 1
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), detector.score(images), rtol=1e-4, atol=1e-4
    )


def test_the_table_and_another_size(played, tmp_path):
    weights = played / "rounds/00/detector.safetensors"
    result = arena(weights, tmp_path / "a.onnx", "--size", 48)
    assert result.exit_code == 0, result.output
    for text in (
        "B 3 48 48",
        "spectrum of played, round 0",
        "FLOPs",
        "ms an image",
        "fake from",
        "differ from torch's",
    ):
        assert text in result.stdout
    assert ort.InferenceSession(tmp_path / "a.onnx").get_inputs()[0].shape == ["batch", 3, 48, 48]


def test_the_page_s_program_says_what_the_detector_says(played, exported, tmp_path):
    """The lines of docs/export.md, on a picture that is neither square nor as small as the run's."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert not re.search(
        r"\b(torch|arena|detect)\b", "\n".join(re.findall(r"^(?:import|from).*", program, re.MULTILINE))
    )
    draws = np.random.default_rng(0)
    image = Image.fromarray(draws.integers(0, 256, (90, 140, 3)).astype(np.uint8))
    image.save(tmp_path / "photo.png")
    (tmp_path / "detector.onnx").write_bytes(exported[0].read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    word, number = done.stdout.split()
    fitted = torch.from_numpy(decode.fitted(image, SIZE, "lanczos").copy()).permute(2, 0, 1)[None]
    logit = open_player(played, "detector").player.score(to_float(fitted)).item()
    assert float(number) == pytest.approx(logit, abs=1e-3)
    assert word == ("fake" if logit >= exported[1]["threshold"] else "real")


def test_a_graph_that_says_something_else_is_not_written(played, tmp_path, monkeypatch):
    honest = export.to_onnx

    def tampered(detector, *words, **options):
        detector.model.weight[-1] += 1
        try:
            return honest(detector, *words, **options)
        finally:
            detector.model.weight[-1] -= 1

    monkeypatch.setattr(export, "to_onnx", tampered)
    result = arena(played, tmp_path / "a.onnx")
    assert result.exit_code == 1
    assert "differs from the detector by 1" in result.stderr
    monkeypatch.setattr(export, "to_onnx", lambda *_, **__: onnx.ModelProto())
    result = arena(played, tmp_path / "a.onnx")
    assert result.exit_code == 1
    assert "does not run" in result.stderr
    assert not list(tmp_path.iterdir())


def test_mistakes_are_named_before_any_work(played, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "to_onnx", lambda *_, **__: pytest.fail("the work began"))
    there = tmp_path / "there.onnx"
    there.write_bytes(b"mine")
    new = tmp_path / "untrained"
    with Ledger(new) as ledger:
        ledger.write("run.json", {"settings": settings("spectrum").model_dump()})
    for words, expected in (
        ((played, tmp_path / "a.pt"), "a.pt"),
        ((played, there), "exists already"),
        ((played, there / "a.onnx"), "cannot write"),
        ((new, tmp_path / "a.onnx"), "no trained detector"),
        ((tmp_path / "nowhere", tmp_path / "a.onnx"), "does not exist"),
        ((played, tmp_path / "a.onnx", "--frames", "any"), "single images"),
        ((played, tmp_path / "a.onnx", "--frames", "some"), "or any"),
    ):
        result = arena(*words)
        assert result.exit_code == 2
        assert expected in result.stderr, words
    assert there.read_bytes() == b"mine"
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = arena(played, tmp_path / "a.onnx")
    assert result.exit_code == 2
    assert "onnxscript: pip install 'deepfake-arena[export]'" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.onnx", "untrained"]


def test_a_full_disk_leaves_nothing(played, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("arena.files.os.fsync", full)
    result = arena(played, tmp_path / "a.onnx")
    assert result.exit_code == 2
    assert "No space left" in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_threshold_is_that_of_the_weights(tmp_path):
    """Frozen at the end of a round: not yet there in the middle of one, and not of an older save."""
    player = trained("spectrum")
    with Ledger(tmp_path) as ledger:
        ledger.write("run.json", {"settings": settings("spectrum").model_dump()})
        for round, step in ((0, 3), (0, 6), (1, 2)):
            ledger.save(player, "detector", round=round, step=step, seconds=0.0)
            if (round, step) == (0, 3):
                early = (tmp_path / "state/detector-00-000003.ckpt").read_bytes()
        (tmp_path / "state/detector-00-000003.ckpt").write_bytes(early)
        ledger.write("rounds/00/phases/4-train-detector.json", {"threshold": -0.25})
        ledger.write_weights(player, "rounds/00/detector.safetensors")

    def threshold(name):
        return frozen_threshold(tmp_path / name, open_player(tmp_path / name, "detector"))

    assert threshold("state/detector-00-000006.ckpt") == -0.25
    assert threshold("rounds/00/detector.safetensors") == -0.25
    assert threshold("state/detector-00-000003.ckpt") is None
    assert threshold("") is None  # round 1, step 2
    (tmp_path / "rounds/00/phases/4-train-detector.json").write_text("{}")
    with pytest.raises(InputError, match=r"4-train-detector\.json is damaged"):
        threshold("rounds/00/detector.safetensors")

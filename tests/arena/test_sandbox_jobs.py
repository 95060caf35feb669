"""What the limited child does with strangers' pictures, clips and models: taken as they are meant, or refused."""

import io
import pickle
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from arena import build
from arena.ledger import parts
from arena.submission import net_job, sandbox, worker
from arena.submission.sandbox import Box, Refused

SIZE = 32


# Pictures and clips


def as_png(image, **keywords):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **keywords)
    return buffer.getvalue()


def test_fakes_are_decoded_or_each_is_told_what_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    good = Image.fromarray(pixels[0])
    plain = as_png(good)
    gif = io.BytesIO()
    good.save(gif, "GIF")
    huge = bytearray(plain)
    huge[16:24] = (20_000).to_bytes(4, "big") * 2
    colour = bytearray(plain)
    colour[25] = 77  # no colour type; its check sum is wrong, too
    bad = {
        "huge.png": (bytes(huge), "expected 32 x 32 px, got 20000 x 20000"),
        "other.png": (as_png(good.resize((33, 32))), "got 33 x 32"),
        "cut.png": (plain[:-200], "truncated"),
        "head.png": (plain[:20], "truncated"),
        "empty.png": (b"", "zero bytes"),
        "gif.png": (gif.getvalue(), "its content is a GIF"),
        "palette.png": (as_png(good.convert("P")), "got 8 bit, palette"),
        "alpha.png": (as_png(good.convert("RGBA")), "got 8 bit, RGBA"),
        "grey.png": (as_png(good.convert("L")), "got 8 bit, grey"),
        "deep.png": (as_png(Image.fromarray(np.zeros((SIZE, SIZE), np.uint16))), "got 16 bit, grey"),
        "clear.png": (as_png(good, transparency=(1, 2, 3)), "with transparency"),
        "moving.png": (as_png(good, save_all=True, append_images=[Image.fromarray(pixels[1])]), "animated"),
        "colour.png": (bytes(colour), "unknown colours"),
        "pickle.png": (pickle.dumps([1]), "perhaps a pickle"),
        "large.png": (plain + bytes(2**21), "a file of more than"),
        "\x1b[2J.png": (b"\x1b]0;", "of no known kind"),
    }
    for name, (data, _) in bad.items():
        (tmp_path / name).write_bytes(data)
    for number, image in enumerate(pixels):
        (tmp_path / f"{number}.png").write_bytes(as_png(Image.fromarray(image), optimize=number == 1))
    fine = [str(tmp_path / f"{number}.png") for number in range(3)]
    asked = {"size": SIZE, "frames": 1}
    result, array = sandbox.call("decode", {"files": fine, **asked}, reads=[tmp_path])
    assert np.array_equal(array, pixels.transpose(0, 3, 1, 2))
    assert (result["problems"], result["bad"], len(result["headers"])) == ([], 0, 3)
    header = {"format": "PNG", "depth": 8, "interlace": 0, "mode": "RGB", "chunks": "IDAT,IEND,IHDR"}
    assert result["headers"][0] == header | {"bytes": Path(fine[0]).stat().st_size}

    files = [*fine, *(str(tmp_path / name) for name in bad), *[str(tmp_path / "cut.png")] * 9]
    result, array = sandbox.call("decode", {"files": files, **asked}, reads=[tmp_path])
    assert array is None
    assert (len(result["problems"]), result["bad"]) == (20, len(bad) + 9)
    for (name, text), (given, (_, word)) in zip(result["problems"], bad.items(), strict=False):
        assert name == given.replace("\x1b", "\\x1b")
        assert word in text, name


def test_clips_are_decoded_or_each_is_told_what_it_is(tmp_path):
    pytest.importorskip("av")
    from arena.faces.video import Plain, Writer, open_video

    drawn = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)

    def clip(name, frames):
        with Writer(tmp_path / name, Plain(Fraction(25)), audio=False) as writer:
            for number, frame in enumerate(frames):
                writer.write(frame, number / 25)
        return tmp_path / name

    good = clip("good.mp4", drawn)
    bad = {
        clip("short.mp4", drawn[:4]): "expected 5 frames, got 4",
        clip("long.mp4", [*drawn, drawn[0]]): "expected 5 frames, got more",
        clip("wide.mp4", drawn[:, :16]): "got 32 x 16",
        tmp_path / "cut.mp4": "cut short",
        tmp_path / "still.mp4": "its content is a PNG",
        tmp_path / "list.mp4": "of no known kind",
        clip("other.mkv", drawn).rename(tmp_path / "mkv.mp4"): "of no known kind",
    }
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:300])
    (tmp_path / "still.mp4").write_bytes(as_png(Image.fromarray(drawn[0])))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    files = [str(file) for file in (good, *bad)]
    asked = {"size": SIZE, "frames": 5}
    result, array = sandbox.call("decode", {"files": files, **asked}, reads=[tmp_path])
    assert array is None
    assert [name for name, _ in result["problems"]] == [file.name for file in bad]
    for (_, text), word in zip(result["problems"], bad.values(), strict=True):
        assert word in text
    result, array = sandbox.call("decode", {"files": files[:1], **asked}, reads=[tmp_path])
    assert np.array_equal(array[0], np.stack([frame.image for frame in open_video(good)]).transpose(0, 3, 1, 2))
    header = result["headers"][0]
    assert (header["format"], header["codec"], header["pix_fmt"], header["streams"]) == ("MP4", "h264", "yuv420p", 1)


# Models


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files of 5 images, of 3 more, and of 2 clips of 3 frames."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, shape in {"a": (5,), "b": (3,), "clips": (2, 3)}.items():
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (*shape, 3, SIZE, SIZE), dtype=np.uint8))
    return folder


def graph(nodes, weights=(), *, images=("batch", 3, SIZE, SIZE), name="images", kind=1, opset=20, domains=(), extra=()):
    """A model of nodes (kind, inputs, output, attributes) from `images` to `logits`, as bytes."""
    from onnx import helper, numpy_helper

    made = [helper.make_node(k, i, [o], name=f"{k}{n}", **a) for n, (k, i, o, a) in enumerate(nodes)]
    value = helper.make_tensor_value_info
    inputs = [value(name, kind, images), *(value(key, 1, [1]) for key in extra)]
    stored = [numpy_helper.from_array(array, key) for key, array in dict(weights).items()]
    body = helper.make_graph(made, "g", inputs, [value("logits", 1, None)], stored)
    known = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(body, opset_imports=known, ir_version=10)


MEAN = ("ReduceMean", ["images", "axes"], "logits", {"keepdims": 0})
AXES = {"axes": np.array([1, 2, 3])}


def looping_sum():
    """An endless loop whose result is needed."""
    from onnx import helper

    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Add", ["x", "x"], ["y"])]
    ins = [value("i", 7, []), value("go", 9, []), value("x", 1, None)]
    body = helper.make_graph(nodes, "body", ins, [value("again", 9, []), value("y", 1, None)])
    mean = ("ReduceMean", ["images", "axes"], "mean", {"keepdims": 0})
    return graph([mean, ("Loop", ["", "start", "mean"], "logits", {"body": body})], {"start": np.array(True), **AXES})


def outside(where):
    """Weights in another file: the graph's own, or one inside a node."""
    from onnx import TensorProto

    model = graph([("Constant", [], "c", {"value": tensor()}), MEAN], AXES)
    held = model.graph.initializer[0] if where == "weights" else model.graph.node[0].attribute[0].t
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value="../../../../etc/passwd")
    return model


def tensor():
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ones(4, np.float32), "t")


def with_function():
    from onnx import helper

    model = graph([MEAN], AXES, domains=["mine"])
    node = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(helper.make_function("mine", "f", ["x"], ["y"], [node], [helper.make_opsetid("", 20)]))
    return model


def giant():
    """Some hundred bytes that ask for 160 GB."""
    nodes = [("ConstantOfShape", ["huge"], "c", {}), ("ReduceSum", ["c"], "s", {"keepdims": 0}),
             ("ReduceMean", ["images", "axes"], "m", {"keepdims": 0}), ("Add", ["m", "s"], "logits", {})]  # fmt: skip
    return graph(nodes, {"huge": np.array([40_000_000_000]), **AXES})


def many():
    return graph([*(("Relu", ["images"], f"r{i}", {}) for i in range(50)), MEAN], AXES)


REFUSED = {  # what inspect refuses
    "another file": lambda: outside("weights"),
    "another file, inside a node": lambda: outside("node"),
    "domain 'mine'": lambda: graph([("Evil", ["images"], "logits", {"domain": "mine"})], domains=["mine"]),
    "domain 'com.microsoft'": lambda: graph([MEAN], AXES, domains=["com.microsoft"]),
    "functions": with_function,
    "random numbers": lambda: graph([("RandomNormal", [], "logits", {"shape": [1]})]),
    "51 nodes, at most 30": many,
    "opset 3": lambda: graph([MEAN], AXES, opset=3),
    "opset 99": lambda: graph([MEAN], AXES, opset=99),
    "one input called images, got pixels": lambda: graph([("Relu", ["pixels"], "logits", {})], name="pixels"),
    "got images, more": lambda: graph([MEAN], AXES, extra=["more"]),
    "images as float32": lambda: graph([MEAN], AXES, kind=11),
    "got freex3x16x16": lambda: graph([MEAN], AXES, images=("batch", 3, 16, 16)),
    "got freex3xfreexfree": lambda: graph([MEAN], AXES, images=("batch", 3, "h", "w")),
    "got 8x3x32x32": lambda: graph([MEAN], AXES, images=(8, 3, SIZE, SIZE)),
    "got freex1x32x32": lambda: graph([MEAN], AXES, images=("batch", 1, SIZE, SIZE)),
    "clips of 1 frames": lambda: graph([MEAN], AXES, images=("batch", 7, 3, SIZE, SIZE)),
    "does not load it": lambda: graph([("ReduceMean", ["images", "nothing"], "logits", {})]),
    "cannot be read": lambda: b"\x80\x04 no model at all",
    "not one node": lambda: b"",
}


def saved(folder, model):
    path = folder / "detector.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


@pytest.mark.parametrize("word", REFUSED)
def test_a_model_that_may_not_be_is_refused(word, tmp_path):
    pytest.importorskip("onnxruntime")
    path = saved(tmp_path, REFUSED[word]())
    asked = {"model": path, "size": SIZE, "frames": 1, "nodes": 30}
    with pytest.raises(Refused) as refused:
        sandbox.call("inspect", asked, reads=[path], box=Box(memory_bytes=1 << 30, cpu_seconds=20))
    expected = {"another file, inside a node": "another file", "not one node": "without a single node"}
    assert expected.get(word, word) in str(refused.value)
    assert list(tmp_path.iterdir()) == [path]


def floats(path):
    return np.load(path).astype(np.float64) / 127.5 - 1


def test_a_model_scores_images_and_clips_in_order(images, tmp_path):
    pytest.importorskip("onnxruntime")
    path = saved(tmp_path, graph([MEAN], AXES))
    files = [images / name for name in ("a.npy", "b.npy", "clips.npy")]
    asked = {"model": str(path), "images": [str(file) for file in files], "batch": 4}
    about, logits = sandbox.call("score", asked, reads=[path, images])
    wanted = np.concatenate([floats(file).reshape(len(np.load(file)), -1).mean(1) for file in files])
    np.testing.assert_allclose(logits, wanted, atol=1e-6)
    assert logits.dtype == np.float32
    assert (about["counts"], about["not_finite"]) == ([5, 3, 2], 0)
    assert about["batch_difference"] < 1e-6
    assert about["milliseconds_per_item"] > 0


def test_a_model_of_clips_meets_clips_of_any_length(images, tmp_path):
    pytest.importorskip("onnxruntime")
    later = ("ReduceMean", ["images", "axes"], "frames", {"keepdims": 0})
    last = ("Gather", ["frames", "last"], "logits", {"axis": 1})  # the last frame's mean
    axes = {"axes": np.array([2, 3, 4]), "last": np.array(-1)}
    path = saved(tmp_path, graph([later, last], axes, images=("batch", "frames", 3, SIZE, SIZE)))
    asked = {"model": str(path), "images": [str(images / "clips.npy")], "batch": 1}
    _, logits = sandbox.call("score", asked, reads=[path, images])
    np.testing.assert_allclose(logits, floats(images / "clips.npy")[:, -1].mean((1, 2, 3)), atol=1e-6)


MISBEHAVED = {  # what happens when it runs
    "processor time": looping_sum,
    "memory allowed": giant,
    "got the shape (1,)": lambda: graph([("ReduceMean", ["images"], "m", {"keepdims": 0}),
                                         ("Reshape", ["m", "one"], "logits", {})], {"one": np.array([1])}),
    "got the shape (4, 3)": lambda: graph([MEAN], {"axes": np.array([2, 3])}),
    "said: ": lambda: graph([("Reshape", ["images", "odd"], "logits", {})], {"odd": np.array([7, 11])}),
    "another file": lambda: outside("weights"),
}  # fmt: skip


@pytest.mark.parametrize("word", MISBEHAVED)
def test_a_model_that_misbehaves_is_refused(word, images, tmp_path):
    pytest.importorskip("onnxruntime")
    path = saved(tmp_path, MISBEHAVED[word]())
    asked = {"model": str(path), "images": [str(images / "a.npy")], "batch": 4}
    with pytest.raises(Refused) as refused:
        sandbox.call("score", asked, reads=[path, images], box=Box(memory_bytes=1 << 30, cpu_seconds=1))
    assert word in str(refused.value)


def test_scores_that_are_no_numbers_or_depend_on_the_neighbours_are_told(images, tmp_path):
    pytest.importorskip("onnxruntime")
    mean = ("ReduceMean", ["images", "axes"], "mean", {"keepdims": 0})
    asked = {"images": [str(images / "a.npy")], "batch": 4}
    path = saved(tmp_path, graph([mean, ("Sub", ["mean", "ten"], "low", {}), ("Log", ["low"], "logits", {})],
                                 {"ten": np.array(10, np.float32), **AXES}))  # fmt: skip
    about, logits = sandbox.call("score", {"model": path, **asked}, reads=[path, images])
    assert (about["not_finite"], np.isnan(logits).all()) == (5, True)
    most = ("ReduceMax", ["mean"], "most", {"keepdims": 1})
    path = saved(tmp_path, graph([mean, most, ("Sub", ["mean", "most"], "logits", {})], AXES))
    about, _ = sandbox.call("score", {"model": path, **asked}, reads=[path, images])
    mean = floats(images / "a.npy").mean((1, 2, 3))
    assert about["batch_difference"] == pytest.approx(np.abs(mean[:2] - mean[:4].max()).max(), rel=1e-4)


class Small(nn.Module):
    """All kinds of layers that are counted, for clips B T 3 H W."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 4, 3, stride=2), nn.ConvTranspose2d(4, 6, 2, groups=2)
        self.rnn, self.fc = nn.LSTM(6, 5, batch_first=True, bidirectional=True), nn.Linear(10, 1)

    def forward(self, clips):
        frames = self.up(self.conv(clips.flatten(0, 1)).relu()).mean((2, 3))
        return self.fc(self.rnn(frames.unflatten(0, clips.shape[:2]))[0][:, -1]).squeeze(1)


def test_what_a_model_costs_is_what_torch_says_of_it(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from arena import export

    torch.manual_seed(0)
    net = Small().eval()
    detector = SimpleNamespace(net=net, score=net)
    path = saved(tmp_path, export.to_onnx(detector, SIZE, 3, "small"))
    result, _ = sandbox.call("inspect", {"model": path, "size": None, "frames": 3}, reads=[path])
    assert result["flops"] == export.flops(detector, torch.zeros(1, 3, 3, SIZE, SIZE))
    assert result["parameters"] == pytest.approx(sum(weight.numel() for weight in net.parameters()), rel=0.05)
    assert (result["rank"], result["size"], result["opset"]) == (5, SIZE, export.OPSET)
    assert result["bytes"] == path.stat().st_size
    assert (result["ops"]["Conv"], result["ops"]["ConvTranspose"], result["ops"]["LSTM"]) == (1, 1, 1)


# The lab's own detectors


def spectrum(folder, **changes):
    """A spectrum detector, and its weights in a file, some of them changed."""
    config = net_job.settings("spectrum", {"bins": 8, "capacity": 16})
    detector = build.build(config, 0)
    with torch.no_grad():
        detector.model.weight += torch.linspace(-1, 1, len(detector.model.weight), dtype=torch.float64)
    state = {f"model.{key}": value for key, value in detector.model.state_dict().items()}
    path = folder / "detector.safetensors"
    save_file({key: value.contiguous() for key, value in (state | changes).items() if value is not None}, path)
    return detector, path


def test_a_detector_of_the_lab_scores_as_it_does_here(images, tmp_path):
    detector, path = spectrum(tmp_path)
    asked = {
        "name": "spectrum",
        "keywords": {"bins": 8, "capacity": 16},
        "weights": path,
        "images": [str(images / "a.npy")],
    }
    about, logits = sandbox.call("net", asked, reads=[path, images])
    with torch.inference_mode():
        wanted = detector.score(torch.from_numpy(np.load(images / "a.npy")) / 127.5 - 1)
    assert wanted.std() > 0
    np.testing.assert_allclose(logits, wanted.numpy(), rtol=1e-5)
    assert (about["counts"], about["bytes"], about["rank"]) == ([5], path.stat().st_size, 4)


@pytest.mark.parametrize(
    ("name", "keywords", "word"),
    [
        ("/tmp/mine.yaml", {}, "expected one of"), ("mine.yaml", {}, "expected one of"), (["x"], {}, "expected one of"),
        ("spectrum", {"of": "os:system"}, "may not name"), ("spectrum", {"bins": "/etc/passwd"}, "may not name"),
        ("cnnspot", {"weights": "/etc/passwd"}, "may not name"), ("cnnspot", {"weights": "mine.pth"}, "may not name"),
        ("cnnspot", {"weights": "https://a.b/c"}, "may not name"), ("spectrum", {"bins": {"a": 1}}, "may not name"),
        ("spectrum", {"trunk": "resnet18"}, "unknown key"), ("spectrum", {"bins": "many"}, "bins"),
    ],
)  # fmt: skip
def test_settings_choose_among_the_labs_detectors_alone(name, keywords, word):
    with pytest.raises(worker.Refused, match=word):
        net_job.settings(name, keywords)


def test_published_weights_are_never_looked_for():
    assert net_job.settings("cnnspot", {"weights": "imagenet"}).options["weights"] is None
    assert net_job.settings("cnnspot", {}).options["weights"] is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model.weight": torch.full((49,), torch.nan, dtype=torch.float64)}, "not finite"),
        ({"model.weight": torch.zeros(9, dtype=torch.float64)}, "does not fit"),
        ({"model.weight": None}, "does not match"),
        ({"model.more": torch.zeros(1)}, "does not match"),
        ({"other.weight": torch.zeros(1)}, "no part for other.weight"),
    ],
)
def test_weights_fit_or_are_refused(tmp_path, changes, word):
    detector, path = spectrum(tmp_path, **changes)
    with pytest.raises(worker.Refused, match=word) as refused:
        net_job.load(detector, path)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, (2**60).to_bytes(8, "little") + b"{}", pickle.dumps([1]), bytes(8) + b"{}"]
)
def test_weights_that_are_no_safetensors_are_refused(tmp_path, data):
    detector, path = spectrum(tmp_path)
    path.write_bytes(data)
    with pytest.raises(worker.Refused, match=r"safetensors file|damaged"):
        net_job.load(detector, path)
    assert len(parts(detector)) == 1

"""Submissions that mean harm: each is a good one with one thing wrong, and the words that its refusal must hold."""

import hashlib
import io
import json
import pickle
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

Members = dict[str, bytes]
SIZE, COUNT = 32, 10


def onnx_model(nodes=None, inits=(), *, size=SIZE, name="images", dtype=TensorProto.FLOAT, opset=17, **graph) -> bytes:
    """A detector as `nodes` from `images` to `logits`; by default the mean of the pixels."""
    nodes = nodes or [
        helper.make_node("ReduceMean", [name], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Identity", ["m"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info(name, dtype, ["batch", 3, size, size])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch"])]
    made = helper.make_graph(nodes, "g", inputs, outputs, initializer=list(inits), **graph)
    domains = {node.domain for node in nodes}
    opsets = [helper.make_opsetid(domain, opset if domain == "" else 1) for domain in domains | {""}]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


def png(size=SIZE, seed=0, mode="RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels).convert(mode), "PNG")


def saved(image, form, **keywords) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **keywords)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def huge_png(side=20_000) -> bytes:
    """A header of 20,000 px, and pixels that unpack to 1.2 GB of zeros."""
    head = chunk(b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0))
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def submission(fakes: Members, event: str, detector: Members, /, **more) -> dict:
    tracks = [t for t, there in (("generation", fakes), ("detection", detector)) if there]
    return {
        "schema": 1, "team": "Hostile", "challenge": event, "tracks": tracks,
        "fakes": {"count": len(fakes), "size": SIZE, "frames": 1} if fakes else None,
        "licence": "none", "data": "none", "made_by": "hand", **more,
    }  # fmt: skip


def bundle(members: Members, said: dict, *, hashes=True) -> Members:
    files = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()} if hashes else {}
    return {**members, "submission.json": json.dumps({**said, "files": files}).encode()}


def good(event: str, /, *, with_fakes=True, with_detector=True, **more) -> Members:
    some = {f"fakes/{i:05d}.png": png(seed=i) for i in range(COUNT)} if with_fakes else {}
    model = {"detector.onnx": onnx_model()} if with_detector else {}
    return bundle({**some, **model, "MODEL_CARD.md": b"# A card\n"}, submission(some, event, model, **more))


def write(path: Path, members: Members, extra: list[tuple[zipfile.ZipInfo | str, bytes]] = ()) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
        for name, data in extra:
            file.writestr(name, data)


# What is attacked: the members of a good submission -> its parts, or a path -> a zip


def with_member(name: str, data: bytes = b"x") -> Callable:
    """One more file beside good ones; its hash is listed, too."""

    def make(path: Path, challenge: str) -> None:
        members = good(challenge)
        members.pop("submission.json")
        said = submission({k: v for k, v in members.items() if k[0] == "f"}, challenge, {"detector.onnx": b""})
        write(path, bundle({**members, name: data}, said))

    return make


def with_extra(info: Callable[[], zipfile.ZipInfo | str], data: bytes = b"x") -> Callable:
    return lambda path, challenge: write(path, good(challenge), [(info(), data)])


def link(mode: int, name="fakes/link.png") -> Callable[[], zipfile.ZipInfo]:
    def info() -> zipfile.ZipInfo:
        entry = zipfile.ZipInfo(name)
        entry.create_system, entry.external_attr = 3, (mode | 0o777) << 16
        return entry

    return info


def said(**more) -> Callable:
    return lambda path, challenge: write(path, good(challenge, **more))


def papers(text: bytes) -> Callable:
    return lambda path, challenge: write(path, {**good(challenge), "submission.json": text})


def fake(data: Callable[[], bytes]) -> Callable:
    """The third fake is this."""

    def make(path: Path, challenge: str) -> None:
        some = {f"fakes/{i:05d}.png": png(seed=i) for i in range(COUNT)} | {"fakes/00002.png": data()}
        write(path, bundle({**some, "MODEL_CARD.md": b"x"}, submission(some, challenge, {})))

    return make


def model(data: Callable[[], bytes]) -> Callable:
    def make(path: Path, challenge: str) -> None:
        files = {"detector.onnx": data()}
        write(path, bundle({**files, "MODEL_CARD.md": b"x"}, submission({}, challenge, files)))

    return make


def net(yaml: bytes, weights: bytes) -> Callable:
    def make(path: Path, challenge: str) -> None:
        files = {"detector.safetensors": weights, "detector.yaml": yaml}
        write(path, bundle({**files, "MODEL_CARD.md": b"x"}, submission({}, challenge, files)))

    return make


def scores(text: Callable[[int], str]) -> Callable:
    def make(path: Path, challenge: str, n_test: int = 40) -> None:
        files = {"scores.csv": text(n_test).encode("utf-8", "surrogateescape")}
        write(path, bundle({**files, "MODEL_CARD.md": b"x"}, submission({}, challenge, files)))

    return make


def rows(n: int, **odd: str) -> str:
    return "id,score\n" + "".join(f"{i:05d},{odd.get(f'at{i}', '0.5')}\n" for i in range(n))


def patched(find: bytes, put: bytes, count: int = -1) -> Callable:
    """Bytes of a good zip replaced: what zipfile itself would not write."""

    def make(path: Path, challenge: str) -> None:
        write(path, good(challenge))
        path.write_bytes(path.read_bytes().replace(find, put, count))

    return make


def cut(path: Path, challenge: str) -> None:
    write(path, good(challenge))
    path.write_bytes(path.read_bytes()[:-100])


def many(path: Path, challenge: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for i in range(25_000):
            file.writestr(f"fakes/{i:05d}.png", b"")


def encrypted(path: Path, challenge: str) -> None:
    write(path, good(challenge))
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)


def looping() -> bytes:
    """A loop of 2^62 turns."""
    turns = helper.make_tensor("turns", TensorProto.INT64, [], [1 << 62])
    going = helper.make_tensor("going", TensorProto.BOOL, [], [True])
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Sin", ["x"], ["x2"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x2", TensorProto.FLOAT, ["batch"])],
    )  # fmt: skip
    return onnx_model(
        [helper.make_node("ReduceMean", ["images"], ["m"], axes=[1, 2, 3], keepdims=0),
         helper.make_node("Loop", ["turns", "going", "m"], ["logits"], body=body)],
        [turns, going],
    )  # fmt: skip


def giant() -> bytes:
    """104 bytes that ask for 160 GB."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [200_000, 200_000])
    return onnx_model(
        [helper.make_node("ConstantOfShape", ["shape"], ["big"]),
         helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
         helper.make_node("ReduceMean", ["images"], ["m"], axes=[1, 2, 3], keepdims=0),
         helper.make_node("Add", ["m", "sum"], ["logits"])],
        [shape],
    )  # fmt: skip


def external() -> bytes:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], np.ones(1, np.float32).tobytes(), raw=True)
    found = onnx.load_model_from_string(onnx_model(inits=[weight]))
    onnx.external_data_helper.set_external_data(found.graph.initializer[0], "../../../etc/passwd")
    found.graph.initializer[0].ClearField("raw_data")
    return found.SerializeToString()


def logits_by(*nodes, inits=()) -> Callable[[], bytes]:
    mean = helper.make_node("ReduceMean", ["images"], ["m"], axes=[1, 2, 3], keepdims=0)
    return lambda: onnx_model([mean, *nodes], inits)


def across_batch() -> bytes:
    """Each logit less the batch's mean."""
    return logits_by(
        helper.make_node("ReduceMean", ["m"], ["all"], keepdims=1), helper.make_node("Sub", ["m", "all"], ["s"]),
        helper.make_node("Mul", ["s", "k"], ["logits"]), inits=[helper.make_tensor("k", TensorProto.FLOAT, [1], [1e4])],
    )()  # fmt: skip


def safetensors_header(size: int) -> bytes:
    return struct.pack("<Q", size) + b"{}"


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/deepfake-arena-was-here", "w"))


BOMB = bytes(150_000_000)
ALIASES = b"name: spectrum\na: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n"

# what -> (maker, words of the refusal)
ATTACKS: dict[str, tuple[Callable, str]] = {
    # the zip
    "zip slip": (with_member("../../evil.png"), "leaves its folder"),
    "absolute path": (with_member("/tmp/evil.png"), "absolute"),
    "drive letter": (with_member("C:\\evil.png"), "evil.png"),
    "backslashes": (with_extra(lambda: "fakes\\..\\..\\evil.png"), "evil.png"),
    "symbolic link": (with_extra(link(stat.S_IFLNK), b"/etc/passwd"), "link"),
    "device": (with_extra(link(stat.S_IFCHR, "fakes/tty.png")), "device"),
    "named pipe": (with_extra(link(stat.S_IFIFO, "fakes/pipe.png")), "pipe"),
    "duplicate name": (with_extra(lambda: "fakes/00001.png", png()), "twice"),
    "names that differ in case": (with_extra(lambda: "fakes/A.png", png()), "not listed"),
    "case clash": (with_extra(lambda: "MODEL_card.md"), "MODEL_card.md"),
    "nested zip": (with_member("fakes/more.zip", b"PK\x03\x04"), "archive"),
    "zip named png": (with_member("fakes/zip.png", b"PK\x03\x04" + bytes(100)), "zip"),
    "pickle": (with_member("detector.pt", pickle.dumps(Evil())), "pickle"),
    "pickle named png": (with_member("fakes/pickle.png", pickle.dumps(Evil())), "pickle"),
    "program": (with_member("run.py", b"import os; os.system('true')"), "run.py"),
    "bomb": (with_member("preview.png", BOMB), "bomb"),
    "25,000 files": (many, "25000 members"),
    "encrypted": (encrypted, "encrypted"),
    "cut short": (cut, "zip"),
    "no zip at all": (lambda path, challenge: path.write_bytes(b"#!/bin/sh\nrm -rf /\n"), "zip"),
    "empty": (lambda path, challenge: path.write_bytes(b""), "zip"),
    "control characters in a name": (with_member("fakes/\x1b[2J.png"), "\\x1b"),
    "right-to-left name": (with_member("fakes/\u202egnp.exe"), "\\u202e"),
    "very long name": (with_member("fakes/" + "a" * 5000 + ".png"), "5010 characters"),
    "local header of another name": (patched(b"fakes/00003.png", b"fakes/../../3.p", 1), "fakes/"),
    # the papers
    "no submission.json": (lambda path, challenge: write(path, {"MODEL_CARD.md": b"x"}), "missing"),
    "no JSON": (papers(b"{'team': 1}"), "submission.json"),
    "deep JSON": (papers(b"[" * 200_000), "submission.json"),
    "NaN in JSON": (papers(b'{"schema": NaN}'), "NaN"),
    "key twice": (papers(b'{"schema": 1, "schema": 1}'), "twice"),
    "unknown key": (said(exec="rm -rf /"), "exec"),
    "script in the team's name": (said(team="<script>alert(1)</script>"), "letters"),
    "escape in the team's name": (said(team="\x1b]0;owned\x07"), "letters"),
    "very long name of a team": (said(team="x" * 1000), "60"),
    "another challenge": (said(challenge="other-12345678"), "other-12345678"),
    "wrong count": (said(fakes={"count": 7, "size": SIZE, "frames": 1}), "7"),
    "wrong size": (said(fakes={"count": COUNT, "size": 4096, "frames": 1}), "4096"),
    "a trillion fakes": (said(fakes={"count": 10**12, "size": SIZE, "frames": 1}), "20000"),
    # the pictures
    "20,000 px": (fake(huge_png), "20000"),
    "truncated picture": (fake(lambda: png()[:200]), "truncated"),
    "GIF": (fake(lambda: saved(Image.new("RGB", (SIZE, SIZE)), "GIF")), "GIF"),
    "JPEG": (fake(lambda: saved(Image.new("RGB", (SIZE, SIZE)), "JPEG")), "JPEG"),
    "grey picture": (fake(lambda: png(mode="L")), "RGB"),
    "palette": (fake(lambda: png(mode="P")), "RGB"),
    "another size": (fake(lambda: png(48)), "48"),
    "animated": (
        fake(lambda: saved(Image.new("RGB", (SIZE, SIZE)), "PNG", save_all=True,
                           append_images=[Image.new("RGB", (SIZE, SIZE), "red")])), "animated",
    ),
    "text as a picture": (fake(lambda: b"<svg onload=alert(1)>"), "PNG"),
    # the models
    "ONNX with external data": (model(external), "external"),
    "ONNX of a foreign operator": (
        model(logits_by(helper.make_node("Evil", ["m"], ["logits"], domain="com.evil"))), "com.evil"),
    "ONNX of 160 GB": (model(giant), "memory"),
    "ONNX without end": (model(looping), "time"),
    "ONNX that says NaN": (
        model(logits_by(helper.make_node("Sub", ["m", "m"], ["z"]), helper.make_node("Div", ["z", "z"], ["logits"]))),
        "finite"),
    "ONNX with too few logits": (
        model(logits_by(helper.make_node("ReduceMean", ["m"], ["logits"], keepdims=1))), "one logit an image"),
    "ONNX of another input": (model(lambda: onnx_model(name="pixels")), "images"),
    "ONNX of another type": (model(lambda: onnx_model(dtype=TensorProto.DOUBLE)), "float"),
    "ONNX of another size": (model(lambda: onnx_model(size=64)), "64"),
    "ONNX that looks across the batch": (model(across_batch), "batch"),
    "noise as ONNX": (model(lambda: np.random.default_rng(0).bytes(5000)), "ONNX"),
    "safetensors with a giant header": (net(b"name: spectrum\n", safetensors_header(1 << 60)), "safetensors"),
    "pickle as safetensors": (net(b"name: spectrum\n", pickle.dumps(Evil())), "pickle"),
    "YAML that calls Python": (net(b"!!python/object/apply:os.system [true]\n", safetensors_header(2)), "YAML"),
    "YAML of aliases": (net(ALIASES, safetensors_header(2)), "alias"),
    "YAML with a class of its own": (net(b"name: spectrum\nof: os:system\n", safetensors_header(2)), "of"),
    "YAML with a path": (net(b"name: ../../evil.yaml\n", safetensors_header(2)), "evil.yaml"),
    "YAML with a download": (net(b"name: cnnspot\nweights: http://x.y/z.pth\n", safetensors_header(2)), "weights"),
    "net of 10^9 channels": (net(b"name: xception\nwidth: 100000\nweights: null\n", safetensors_header(2)), "memory"),
    # the scores
    "scores that are NaN": (scores(lambda n: rows(n, at3="nan")), "nan"),
    "scores over 1": (scores(lambda n: rows(n, at3="1e9")), "1e9"),
    "a score missing": (scores(lambda n: rows(n - 1)), "no score"),
    "a score twice": (scores(lambda n: rows(n) + "00001,0.5\n"), "twice"),
    "a formula": (scores(lambda n: rows(n) + '"=HYPERLINK(""http://x"")",0.5\n'), "unknown"),
    "bytes as scores": (scores(lambda n: "\udcff\udcfe\x00"), "scores.csv"),
}  # fmt: skip


def wrong_hash(path: Path, challenge: str) -> None:
    write(path, {**good(challenge), "MODEL_CARD.md": b"# Another card\n"})


ATTACKS["a file of another hash"] = (wrong_hash, "sha256")

"""The jobs `inspect` and `score`: a stranger's ONNX model looked over, and run on the CPU by onnxruntime.

Neither runs what the other would refuse. The model is read from bytes: it has no place from which it could name files.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import onnxruntime

from arena.submission import batches, onnx_cost
from arena.submission.archive import printable
from arena.submission.worker import OUT_OF_MEMORY, Answer, Refused

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})  # the standard; `arena export` writes "" alone
FIRST_OPSET = 7  # the first that onnxruntime knows (its docs, Compatibility)
NODES = 20_000
KINDS_SHOWN = 200
RANDOM = frozenset({
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip


def inspect(
    model: str,
    size: int | None = None,
    frames: int = 1,
    nodes: int = NODES,
    *,
    out: BinaryIO,
) -> Answer:
    """Look a model over and load it: its size, its cost for one image or clip, what it is made of.

    size: the side that its images must have (None: any); frames: of a clip. The result has parameters, bytes, flops
    (None where they cannot be told), ops (kind -> count), opset, rank (4: images, 5: clips), size.
    """
    data, found = read(model, size, frames, nodes)
    rank, side = _input(found)
    session(data, 1)
    ops = Counter(node.op_type for graph in onnx_cost.graphs(found.graph) for node in graph.node)
    return {
        "parameters": onnx_cost.parameters(found.graph),
        "bytes": len(data),
        "flops": onnx_cost.flops(found, frames),
        "ops": dict(ops.most_common(KINDS_SHOWN)),
        "opset": _opset(found),
        "rank": rank,
        "size": side,
    }, None


def score(
    model: str,
    images: Sequence[str],
    batch: int = 32,
    threads: int = 1,
    nodes: int = NODES,
    *,
    out: BinaryIO,
) -> Answer:
    """Logits, float32 of all items, of the images in .npy files (batches.score)."""
    first = batches.opened(images[0])
    data, found = read(model, first.shape[-1], first.shape[1] if first.ndim == 5 else 1, nodes)
    runs = session(data, threads)

    def detector(floats: np.ndarray) -> np.ndarray:
        return runs.run(["logits"], {"images": floats})[0]

    return batches.score(detector, _input(found)[0], images, batch, out)


def session(data: bytes, threads: int) -> Any:
    """The model in onnxruntime, on the CPU. Raises Refused where it does not load."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what kills it; errors come as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # else bytes may choose ORT's own format
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's, of many kinds
        if any(words in str(error) for words in OUT_OF_MEMORY):
            raise MemoryError from error
        raise Refused(f"onnxruntime does not load it: {_line(error)}") from error


def read(path: str, size: int | None, frames: int, nodes: int) -> tuple[bytes, Any]:
    """A model's bytes, and the model, everything about it checked that can be without running it. Raises Refused."""
    data = Path(path).read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's, of many kinds
        raise Refused(f"expected an ONNX model, this one cannot be read ({_line(error)}): export it anew") from error
    if not model.graph.node:
        raise Refused("expected an ONNX model, found one without a single node: export it anew")
    if model.functions:
        raise Refused("functions of its own are not allowed: inline them (onnx.inliner.inline_local_functions)")
    if model.training_info:
        raise Refused("training information is not allowed: export it for inference")
    everywhere = list(onnx_cost.graphs(model.graph))
    count = sum(len(graph.node) for graph in everywhere)
    if count > nodes:
        raise Refused(f"{count} nodes, at most {nodes} are allowed: export a smaller graph")
    foreign = {entry.domain for entry in model.opset_import} | {node.domain for g in everywhere for node in g.node}
    if foreign - DOMAINS:
        name = printable(min(foreign - DOMAINS))
        raise Refused(f"operators of the domain {name!r} are not allowed: use those of standard ONNX alone")
    if any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in onnx_cost.tensors(model.graph)):
        raise Refused("weights in another file are not allowed: export it with them inside (external_data=False)")
    if drawn := RANDOM & {node.op_type for graph in everywhere for node in graph.node}:
        raise Refused(f"it draws random numbers ({min(drawn)}): one image must have one score. Export it in eval mode")
    newest = onnx.defs.onnx_opset_version()
    if not FIRST_OPSET <= _opset(model) <= newest:
        raise Refused(f"opset {_opset(model)}, expected {FIRST_OPSET} to {newest}: export it with another one")
    _signature(model.graph, size, frames)
    return data, model


def _signature(graph: Any, size: int | None, frames: int) -> None:
    """Refuse anything else than `images` in, float32 B 3 S S or B T 3 S S, and `logits` out, float32."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if [value.name for value in inputs] != ["images"] or graph.input[0].name != "images":
        names = ", ".join(printable(value.name, 30) for value in inputs[:5]) or "none"
        raise Refused(f"expected one input called images, got {names}")
    if [value.name for value in graph.output] != ["logits"]:
        names = ", ".join(printable(value.name, 30) for value in graph.output[:5]) or "none"
        raise Refused(f"expected one output called logits, got {names}")
    for value in (inputs[0], graph.output[0]):
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise Refused(f"expected {value.name} as float32, got another type")
    dims = inputs[0].type.tensor_type.shape.dim
    shown = "x".join(str(dim.dim_value) if dim.HasField("dim_value") else "free" for dim in dims[:8])
    side = size or "S"
    wanted = f"expected images of the shape free x 3 x {side} x {side}, or free x T x 3 x {side} x {side}, got {shown}"
    if len(dims) not in (4, 5) or dims[0].HasField("dim_value"):
        raise Refused(wanted)
    channels, height, width = (dim.dim_value for dim in dims[-3:])
    if channels != 3 or height != width or height < 1 or (size is not None and height != size):
        raise Refused(wanted)
    if len(dims) == 5 and dims[1].HasField("dim_value") and dims[1].dim_value != frames:
        raise Refused(f"expected clips of {frames} frames, or of any number, got {dims[1].dim_value}")


def _input(model: Any) -> tuple[int, int]:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return len(dims), dims[-1].dim_value


def _opset(model: Any) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _line(error: Exception) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__, 200)

"""What an ONNX graph costs: floating-point operations of its convolutions and matrix products, and its weights."""

from collections.abc import Iterator
from math import prod
from typing import Any

import onnx

Shapes = dict[str, tuple[int, ...] | None]
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"}) | RECURRENT
HEAVY = frozenset({
    "ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul", "DeformConv", "Attention", "RotaryEmbedding",
})  # fmt: skip
NO_WEIGHTS = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.STRING})


def graphs(graph: Any) -> Iterator[Any]:
    """A graph and all graphs inside its nodes' attributes (branches and bodies of loops)."""
    waiting = [graph]
    while waiting:
        one = waiting.pop()
        yield one
        for node in one.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that a graph and those inside it hold: weights, sparse weights, attributes."""
    for one in graphs(graph):
        yield from one.initializer
        for sparse in one.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in one.node:
            for attribute in node.attribute:
                sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
                yield from [attribute.t] if attribute.HasField("t") else []
                yield from attribute.tensors
                for held in (*sparse, *attribute.sparse_tensors):
                    yield from (held.values, held.indices)


def parameters(graph: Any) -> int:
    """How many numbers the graph holds, whole ones (shapes, indices) aside."""
    held = [tensor for tensor in tensors(graph) if tensor.data_type not in NO_WEIGHTS]
    return sum(prod(max(0, side) for side in tensor.dims) for tensor in held)


def flops(model: Any, frames: int) -> int | None:
    """Floating-point operations for one image, or one clip of so many frames; a multiply-add is 2.

    Convolutions, matrix products and recurrent layers alone, as `arena export` counts them. None where a shape is not
    known without running the graph, and where such a layer stands in a branch or a loop.
    """
    copy = type(model)()
    copy.CopyFrom(model)
    dims = copy.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value = 1
    if len(dims) == 5:
        dims[1].dim_value = frames
    del copy.graph.value_info[:]
    try:
        graph = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    except Exception:  # of several kinds; a graph that runs may still have shapes that cannot be inferred
        return None
    shapes: Shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = _shape(value.type.tensor_type)
    total = 0
    for inner in graphs(model.graph):
        for node in inner.node:
            if node.op_type in HEAVY or (node.op_type in COUNTED and inner is not model.graph):
                return None
    for node in graph.node:
        if node.op_type in COUNTED:
            of = [shapes.get(name) for name in node.input]
            result = shapes.get(node.output[0]) or shapes.get(node.output[-1])
            try:
                total += 2 * _products(node, of, result)
            except (TypeError, IndexError, ValueError, KeyError):  # a shape is not known, or not what it should be
                return None
    return total


def _products(node: Any, of: list[Any], result: Any) -> int:
    """Multiplications of a node, by the shapes of what goes in and comes out."""
    kind = node.op_type
    if kind == "Conv":  # weight: C_out, C_in / groups, sides
        return prod(result) * prod(of[1][1:])
    if kind == "ConvTranspose":  # weight: C_in, C_out / groups, sides
        return prod(of[0]) * prod(of[1][1:])
    if kind == "Gemm":
        turned = next((attribute.i for attribute in node.attribute if attribute.name == "transB"), 0)
        return prod(result) * of[1][1 if turned else 0]
    if kind == "MatMul":
        return prod(result) * (of[0][-1] if of[0] else of[1][-2])
    if kind == "Einsum":
        equation = next(attribute.s for attribute in node.attribute if attribute.name == "equation").decode()
        terms = equation.replace(" ", "").partition("->")[0].split(",")
        return prod({letter: side for term, shape in zip(terms, of, strict=True)
                     for letter, side in zip(term, shape, strict=True)}.values())  # fmt: skip
    return of[0][0] * of[0][1] * (prod(of[1]) + prod(of[2]))  # recurrent: T, B; all gates' weights


def _shape(kind: Any) -> tuple[int, ...] | None:
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return tuple(dim.dim_value for dim in kind.shape.dim)

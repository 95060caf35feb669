"""A trained detector as one ONNX file that runs without the lab: labelled, compared with torch, and measured.

The graph is `detector.score` with all that it does to a picture. In: `images`, float32 B 3 H W in [-1, 1], or B T 3 H W
of a detector of clips. Out: `logits`, float32 B; high means fake. B is free, H and W are one fixed side, T is fixed
unless asked for. See docs/export.md.

Shapes: B batch, T frames, H height, W width.
"""

import importlib.util
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import arena
from arena.data import faces
from arena.errors import InputError
from arena.files import atomic
from arena.ledger import parts
from arena.player import Opened, frozen_threshold, open_player
from arena.provenance import cpu_name
from arena.seeds import rng
from arena.training import to_float

Progress = Callable[[int, int], None]
NEEDS = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
TOLERANCE = 1e-3  # of the largest logit: some 25 times what rounding in float32 was seen to cost
LEAST = 1e-5  # that much is always allowed: a net that says next to nothing rounds, too
BATCHES = (1, 3, 5)
MANY = 8  # images, or frames of clips, of the larger batch that is timed
COUNTED = "a multiply-add is 2; convolutions and matrix products alone, no FFT, normalisation, activation or pooling"


class ParityError(Exception):
    """The exported graph does not say what the detector says. Exit code 1: nothing was written."""


class Score(nn.Module):
    """`detector.score` as a module that holds the detector's nets, as the exporter wants it."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector
        self.nets = nn.ModuleList(part for part in parts(detector).values() if isinstance(part, nn.Module))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.detector.score(images)


def export(
    path: Path,
    out: Path,
    *,
    size: int | None = None,
    frames: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the detector of a run, checkpoint or weights file to `out`; return what it is and how it does.

    `size` is the side of the images (None: the run's), `frames` the length of clips (None: the detector's, 0: any). The
    file appears only after onnxruntime said what torch says, on noise and on drawn faces; else ParityError. Raises
    InputError for a wrong path, an `out` that exists, missing libraries, and a detector that cannot be exported so.
    """
    path, out = Path(path), Path(out)
    opened = open_player(path, "detector")
    check(out)
    detector, name = opened.player, opened.marks["Method"]
    if detector.frames == 1 and frames is not None:
        raise InputError(f"--frames is for detectors of clips, and {name} looks at single images. Leave it out.")
    size = size or opened.config.data.size
    length = None if detector.frames == 1 else frames or detector.frames
    shown = progress or (lambda done, total: None)
    shown(1, 4)
    model = to_onnx(detector, size, length, name, any_length=frames == 0)
    labels = describe(path, opened, size, length, any_length=frames == 0)
    label(model, labels)
    data = model.SerializeToString()
    shown(2, 4)
    try:
        run = Runtime(data)
        lengths = sorted({1, 3, length + 1}) if length and frames == 0 else [length]
        parity = compare(detector, run, size, lengths)
    except ParityError:
        raise
    except Exception as error:  # onnxruntime's, of many kinds
        raise ParityError(f"the exported graph does not run ({one_line(error)}). Nothing was written.") from error
    shown(3, 4)
    figures = {
        "parameters": sum(weight.numel() for weight in Score(detector).parameters()),
        "flops": flops(detector, pictures(1, length, size)),
        "flops_counted": COUNTED,
        "megabytes": len(data) / 1e6,
        "parity": parity,
        "speed": speed(detector, run, size, length),
    }
    with atomic(out) as file:
        file.write(data)
    shown(4, 4)
    return {"out": str(out), **labels, **figures}


def check(out: Path) -> None:
    """Refuse an OUT that is no free .onnx name or cannot be written, and a machine without the libraries."""
    if out.suffix.lower() != ".onnx":
        raise InputError(f"expected a file name that ends in .onnx to write the detector to, got {out}.")
    if out.exists():
        raise InputError(f"{out} exists already. Delete it or choose another name.")
    missing = [module for module in NEEDS if importlib.util.find_spec(module) is None]
    if missing:
        raise InputError(f"arena export needs {' and '.join(missing)}: pip install 'deepfake-arena[export]'")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}. Choose another OUT.") from error


# The graph


def to_onnx(detector: Any, size: int, length: int | None, name: str, *, any_length: bool = False) -> Any:
    """The graph as an onnx.ModelProto, its batch free; clips have `length` frames (None: stills), or any number."""
    images = pictures(2, length, size)
    try:
        with torch.no_grad():
            detector.score(images)  # what a detector keeps by image size must be real tensors before the tracing
    except Exception as error:  # whatever a net says to a size it cannot have
        raise InputError(
            f"{name} cannot score images of {size} px ({one_line(error)}). Choose another --size."
        ) from error
    free = {0: "batch"} | ({1: "frames"} if any_length else {})
    try:
        with quiet(), torch.enable_grad():  # some nets take their images in parts where no gradient is kept
            program = torch.onnx.export(
                Score(detector), (images,), dynamo=True, external_data=False, opset_version=OPSET, verbose=False,
                input_names=["images"], output_names=["logits"], dynamic_shapes={"images": free},
            )  # fmt: skip
    except Exception as error:  # the exporter's, of many kinds
        cure = "Leave --frames any out." if any_length else "Report it, with this line."
        raise InputError(f"{name} cannot be exported ({one_line(error)}). {cure}") from error
    assert program is not None
    model = program.model_proto
    logits = model.graph.output[0].type.tensor_type.shape
    del logits.dim[:]  # torch 2.11 declares too many behind an LSTM
    logits.dim.add().dim_param = free[0]
    forget_origin(model)
    return model


def forget_origin(message: Any) -> None:
    """Take out what the exporter noted beside the graph.

    Stack traces, with this machine's paths in them, and shapes of what lies between nodes, which nobody needs and which
    torch 2.11 gets wrong behind an LSTM.
    """
    from google.protobuf.message import Message

    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string", "value_info"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                forget_origin(part)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's warnings, which are about its own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def one_line(error: BaseException) -> str:
    """The first cause's text, short: the exporter wraps what went wrong in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


# What the file says of itself


def describe(path: Path, opened: Opened, size: int, length: int | None, *, any_length: bool = False) -> dict[str, Any]:
    """Everything that somebody needs who has the file alone; frames 0 = any number."""
    clip = "" if length is None else "T " if any_length else f"{length} "
    data = opened.config.data
    return {
        "detector": opened.marks["Method"],
        "run": opened.marks["Run"],
        "round": int(opened.marks["Round"]),
        "seed": int(opened.marks["Seed"]),
        "threshold": frozen_threshold(path, opened),
        "size": size,
        "frames": 0 if any_length else length or 1,
        "input": f"images: float32, B {clip}3 {size} {size}, RGB in [-1, 1] (8-bit values / 127.5 - 1)",
        "output": "logits: float32, B",
        "label": "fake where the logit is the threshold or above it; the threshold was frozen on the validation split",
        "resize": data.resize,
        "crop": data.crop,
        "codec": data.codec,
        "every": data.every,
        "weights": f"trained in this run, {getattr(opened.player, 'provenance', 'from scratch')}",
        "made_by": f"deepfake-arena {arena.__version__}",
        "license": "The lab's code is Apache-2.0. The weights are bound by the licences of the images and of the "
        "weights that training started from.",
    }


def label(model: Any, labels: dict[str, Any]) -> None:
    """Write the labels into the model's own metadata, as text; what there is none of is left out."""
    import onnx

    onnx.helper.set_model_props(model, {key: str(value) for key, value in labels.items() if value is not None})
    model.doc_string = f"{labels['detector']}: {labels['label']}. In: {labels['input']}. Out: {labels['output']}."


# Does it say the same, and how fast?


class Runtime:
    """The graph in onnxruntime, on the CPU with as many threads as torch: images to logits, both tensors."""

    def __init__(self, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # while torch is timed in turn
        self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"images": images.numpy()})[0])


def pictures(count: int, length: int | None, size: int) -> Tensor:
    """Drawn faces, float B 3 H W in [-1, 1], or films of `length` frames, B T 3 H W."""
    drawn = min(max(size, faces.SIZES[0]), faces.SIZES[1])
    if length is None:
        images = to_float(faces.render(0, range(count), drawn).image)
    else:
        images = to_float(torch.cat([faces.clip(0, i, length, drawn).image for i in range(count)]))
    if drawn != size:
        images = interpolate(images, (size, size), mode="bilinear", antialias=True)
    return images.contiguous() if length is None else images.unflatten(0, (count, length)).contiguous()


@torch.inference_mode()
def compare(detector: Any, run: Callable[[Tensor], Tensor], size: int, lengths: Sequence[int | None]) -> dict[str, Any]:
    """The differences of the graph's logits to the detector's over noise and drawn faces, in batches of 1, 3 and 5.

    Raises ParityError where the largest is above TOLERANCE x the largest logit, or a logit is not finite.
    """
    rows, expected, differences = [], [], []
    for length in lengths:
        drawn = pictures(max(BATCHES), length, size)
        noise = torch.rand(drawn.shape, generator=rng("export", size)) * 2 - 1
        for what, images in (("noise", noise), ("faces", drawn)):
            wanted = detector.score(images)
            expected.append(wanted)
            for batch in BATCHES:
                difference = (run(images[:batch]) - wanted[:batch]).abs()
                row = {"images": what, "batch": batch, "frames": length or 1}
                rows.append({**row, "max": difference.max().item(), "mean": difference.mean().item()})
                differences.append(difference)
    logits, difference = torch.cat(expected), torch.cat(differences)
    most = max(LEAST, TOLERANCE * logits.abs().max().item())
    if not logits.isfinite().all():
        raise ParityError("the detector itself says nan or infinity: its training diverged. Nothing was written.")
    if not difference.max().item() <= most:  # nan too
        row = next(row for row in rows if not row["max"] <= most)
        where = f"{row['images']}, batch {row['batch']}, frames {row['frames']}"
        raise ParityError(
            f"the exported graph differs from the detector by {row['max']:.3g} ({where}; allowed {most:.3g}). Nothing "
            "was written."
        )
    return {
        "max": difference.max().item(), "mean": difference.mean().item(), "allowed": most, "n": len(difference),
        "lowest_logit": logits.min().item(), "highest_logit": logits.max().item(), "rows": rows,
    }  # fmt: skip


def flops(detector: Any, images: Tensor) -> int:
    """Floating-point operations of one score of `images`, as COUNTED says."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # oneDNN's fused recurrent layers are one operation that the counter does not know
    with quiet(), torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), counter:
        detector.score(images)
    return counter.get_total_flops()


@torch.inference_mode()
def speed(detector: Any, run: Callable[[Tensor], Tensor], size: int, length: int | None) -> dict[str, Any]:
    """Median milliseconds an image (or clip) of torch and onnxruntime, in turn: 5 times, or as fit in half a second."""
    rows = []
    for batch in (1, max(2, MANY // (length or 1))):
        images = pictures(batch, length, size)
        ways = {"torch": detector.score, "onnxruntime": run}
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way(images)
        end = time.perf_counter() + 0.5
        while len(taken["torch"]) < 5 or time.perf_counter() < end:
            for name, way in ways.items():
                began = time.perf_counter()
                way(images)
                taken[name].append((time.perf_counter() - began) * 1000 / batch)
        rows.append({"batch": batch, "times": len(taken["torch"])} | {k: median(v) for k, v in taken.items()})
    return {"unit": "ms", "frames": length or 1, "threads": torch.get_num_threads(), "cpu": cpu_name(), "rows": rows}

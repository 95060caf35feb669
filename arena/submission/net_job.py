"""The job `net`: one of this package's own detectors, with a team's settings and weights.

A stranger's settings choose among the detectors in configs/detect and their keywords, nothing else: no class, no file,
no weights from elsewhere.
"""

import struct
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from arena import weights as saved
from arena.build import build, find
from arena.config import PlayerConfig, names, player, read_named
from arena.errors import InputError
from arena.ledger import parts
from arena.submission import batches
from arena.submission.archive import printable
from arena.submission.worker import Answer, Refused

MOST_HEADER = 10 << 20  # bytes; the largest detector here has 0.1 MB


def prepare(arguments: dict[str, Any], threads: int) -> None:
    """Import the detector's own libraries, while that is still possible."""
    import_module("torch._dynamo")  # an optimizer's first use does so, and makes a folder
    torch.set_num_threads(threads)
    if arguments["name"] in names("detect"):
        find(read_named("detect", arguments["name"])["of"])


def net(
    name: str,
    keywords: dict[str, Any],
    weights: str,
    images: Sequence[str],
    batch: int = 32,
    *,
    out: BinaryIO,
) -> Answer:
    """Logits, float32 of all items, of the images in .npy files (batches.score); also parameters, bytes and rank."""
    config = settings(name, keywords)
    try:
        detector = build(config, 0, "detector")
    except InputError as error:
        raise Refused(f"detector.yaml: {error}") from error
    load(detector, Path(weights))
    first = batches.opened(images[0])
    if detector.frames > 1 and first.ndim == 4:
        raise Refused(f"{name} looks at clips, and this challenge has images: hand in a detector of images")
    for part in parts(detector).values():
        if isinstance(part, nn.Module):
            part.eval()

    def score(floats: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return detector.score(torch.from_numpy(floats)).float().numpy()

    rank = 4 if detector.frames == 1 else 5
    about, array = batches.score(score, rank, images, batch, out)
    figures = {"parameters": _parameters(detector), "bytes": Path(weights).stat().st_size, "rank": rank}
    return about | figures, array


def settings(name: str, keywords: dict[str, Any]) -> PlayerConfig:
    """The detector that a team's YAML asks for. Raises Refused."""
    if name not in names("detect"):
        raise Refused(f"detector.yaml: expected one of {', '.join(names('detect'))}, got {printable(str(name))!r}")
    for key, value in keywords.items():
        text = isinstance(value, str) and (any(mark in value for mark in "/\\:~") or Path(value).suffix != "")
        start = key == "weights" and value not in (None, "imagenet")
        if key in ("name", "of") or text or start or isinstance(value, dict):
            raise Refused(
                f"detector.yaml: {printable(str(key))} may not name a file, an address or a class: leave it out"
            )
    try:
        config = player("detector", "detect", {"name": name, **keywords}, {})
    except InputError as error:
        raise Refused(f"detector.yaml: {error}") from error
    # all weights come from the team's own file
    return config.model_copy(update={"options": {**config.options, **_from_scratch(config.of)}})


def _from_scratch(of: str) -> dict[str, Any]:
    import inspect

    return {"weights": None} if "weights" in inspect.signature(find(of)).parameters else {}


def load(detector: Any, path: Path) -> None:
    """Bring the detector to the weights of a .safetensors file, all of them and no others, every number finite."""
    with path.open("rb") as file:
        head = file.read(8)
    if len(head) < 8 or struct.unpack("<Q", head)[0] > MOST_HEADER:
        raise Refused("expected a .safetensors file, found something else: pack the detector anew")
    try:
        state = saved.read_state(path)
        strange = next(
            (key for key in state if not isinstance(parts(detector).get(key.split(".")[0]), nn.Module)), None
        )
        if strange is not None:
            raise Refused(f"the detector has no part for {printable(strange)}: pack the detector anew")
        for key, value in state.items():
            if not value.isfinite().all():
                raise Refused(f"{printable(key)} holds numbers that are not finite: its training diverged")
        saved.load(detector, state, path)
    except InputError as error:
        raise Refused(str(error).replace(str(path), path.name)) from error


def _parameters(detector: Any) -> int:
    modules = nn.ModuleList(part for part in parts(detector).values() if isinstance(part, nn.Module))
    return sum(weight.numel() for weight in modules.parameters())

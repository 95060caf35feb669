"""Equality to the bit, through dicts, lists, tensors, arrays and NaN; and all that a run folder holds."""

import json
from pathlib import Path

import numpy as np
import torch


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and equal(a.detach().cpu().numpy(), b.detach().cpu().numpy())
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b or (a != a and b != b)


UNTIMED = ("seconds", "images_per_second", "started", "ended", "command", "run")
OF_A_FILE = (
    "sha256",
)  # of a checkpoint, whose entries are compared one by one: torch may lay equal ones out differently


def untimed(value):
    """A JSON value without what a clock or the folder's name put into it."""
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if k not in UNTIMED}
    return [untimed(v) for v in value] if isinstance(value, list) else value


def saved_values(root: Path) -> dict[str, object]:
    """Every value in a run folder, by file (and by key within a checkpoint)."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".json":
            found[name] = untimed(json.loads(path.read_text()))
            if path.parent.name == "state":
                found[name] = [{k: v for k, v in entry.items() if k not in OF_A_FILE} for entry in found[name]]
        elif path.suffix == ".ckpt":
            state = torch.load(path, weights_only=True)
            found |= {
                f"{name}/{part}/{key}": value for part, entries in state.items() for key, value in entries.items()
            }
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found |= {f"{name}/{key}": arrays[key] for key in arrays}
        elif path.is_file() and path.suffix in (".npy", ".csv", ".safetensors", ".jsonl", ".png"):
            found[name] = path.read_bytes()
    return found

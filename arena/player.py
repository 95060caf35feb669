"""A trained player from what a run left behind: its folder, one of its checkpoints, or one round's weights."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from arena.build import build
from arena.config import RunConfig
from arena.errors import InputError
from arena.files import read_json
from arena.stored import stored_config
from arena.weights import load, read_state


class Opened(NamedTuple):
    """A player on the CPU, where it comes from (Method, Run, Round, Seed), and its run: the folder and the settings."""

    player: Any
    marks: dict[str, str]
    root: Path
    config: RunConfig


def open_player(path: Path, kind: str) -> Opened:
    """A run's "generator" or "detector".

    `path` is a run folder (its newest save), a `state/*.ckpt` or a `rounds/*/*.safetensors` inside one. Nothing is
    unpickled. Raises InputError naming the file and what to do.
    """
    path = Path(path)
    root = next((folder for folder in (path, *path.resolve().parents) if (folder / "run.json").is_file()), None)
    if not path.exists():
        raise InputError(f"{path} does not exist. Give a run folder, or a checkpoint inside one.")
    if root is None:
        raise InputError(
            f"{path} is no run, nor a file of one: there is no run.json. Give the folder `arena run` named."
        )
    config = stored_config(root)
    assert config is not None
    if getattr(config, kind) is None:
        raise InputError(f"{root} has no {kind}: it trained a detector on fakes that were given.")
    player = build(getattr(config, kind), config.seed, kind)
    file = path if path.is_file() else newest(root, kind, config)
    if not file.name.startswith(kind):
        raise InputError(f"{file} holds no {kind}. Give the run folder, or a file whose name begins with {kind}.")
    state = read_state(file)
    load(player, state, file)
    number = file.parent.name if file.suffix == ".safetensors" else file.stem.split("-")[1]
    marks = {"Method": getattr(config, kind).short, "Run": root.resolve().name, "Round": str(int(number))}
    return Opened(player, marks | {"Seed": str(config.seed)}, root, config)


def newest(root: Path, kind: str, config: RunConfig) -> Path:
    """The newest save of a run; where its state is gone, the weights of its last round."""
    pointer = root / "state" / f"{kind}.json"
    entries = read_json(pointer) if pointer.exists() else []
    for entry in entries if isinstance(entries, list) else []:
        file = root / str(entry.get("file")) if isinstance(entry, dict) else root
        if file.is_file():
            return file
    weights = sorted(root.glob(f"rounds/[0-9]*/{kind}.safetensors"), key=lambda file: int(file.parent.name))
    if weights:
        return weights[-1]
    raise InputError(f"{root} holds no trained {kind} yet. Let `{config.command} --out {root}` get further.")


def frozen_threshold(path: Path, opened: Opened) -> float | None:
    """The logit frozen at the end of the checkpoint's round; None for a checkpoint from the middle of its training."""
    round = f"{int(opened.marks['Round']):02d}"
    record = opened.root / "rounds" / round / "phases" / "4-train-detector.json"
    if not record.is_file():
        return None
    if path.suffix == ".ckpt" and path.name != max(save.name for save in path.parent.glob(f"detector-{round}-*.ckpt")):
        return None  # an older save of that round
    stored = read_json(record)
    value = stored.get("threshold") if isinstance(stored, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{record} is damaged: it has no threshold (a finite number). Restore the file.")
    return float(value)

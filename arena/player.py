"""A trained player from what a run left behind: its folder, one of its checkpoints, or one round's weights."""

from pathlib import Path
from typing import Any, NamedTuple

from arena.build import build
from arena.config import RunConfig
from arena.errors import InputError
from arena.files import read_json
from arena.run import stored_config

MAX_BYTES = 8 << 30


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


def read_state(file: Path) -> dict[str, Any]:
    """part.entry -> tensor, of the player's modules."""
    import torch

    if file.stat().st_size > MAX_BYTES:
        raise InputError(f"{file} is larger than {MAX_BYTES >> 30} GB: that is no checkpoint of the lab.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        saved = torch.load(file, map_location="cpu", weights_only=True)
        return {
            f"{part}.{key}": value
            for part, state in saved.items()
            if isinstance(state, dict)
            for key, value in state.items()
            if isinstance(value, torch.Tensor)
        }
    except Exception as error:  # every library has its own way to say that a file is damaged
        reason = "it is cut short or altered" if len(str(error)) > 120 else " ".join(str(error).split())
        raise InputError(
            f"{file} is damaged or no checkpoint ({reason}). Name another save, such as rounds/00/*.safetensors."
        ) from error


def load(player: Any, state: dict[str, Any], file: Path) -> None:
    """Bring the player's modules to a state; everything that the modules have must be there."""
    from torch import nn

    from arena.ledger import is_weight, parts

    for name, part in parts(player).items():
        if not isinstance(part, nn.Module):
            continue
        own = {key[len(name) + 1 :]: value for key, value in state.items() if key.startswith(f"{name}.")}
        own = {key: value for key, value in own.items() if is_weight(key, value)}
        try:
            missing, unexpected = part.load_state_dict(own, strict=False)
        except RuntimeError as error:
            raise InputError(f"{file} does not fit {name}: {' '.join(str(error).split())[:160]}.") from error
        missing = [key for key in missing if not key.endswith("_extra_state")]
        if missing or unexpected:
            raise InputError(f"{file} does not fit {name}: {[*missing, *unexpected][0]} does not match.")

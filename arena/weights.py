"""A player's weights out of a file: what a checkpoint or a .safetensors file holds, and back into its modules."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from arena.errors import InputError
from arena.ledger import is_weight, parts

MAX_BYTES = 8 << 30


def read_state(file: Path) -> dict[str, Any]:
    """part.entry -> tensor, of the player's modules."""
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

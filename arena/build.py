"""From names to objects: the one place that imports players, devices and Fabric."""

import importlib
from typing import Any

from arena.errors import InputError


def find(of: str) -> Any:
    """The class at `module:Class`."""
    module, _, name = of.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"`of: {of}` names no class ({error}). Expected module:Class, as in gen.cyclegan:CycleGAN"
        ) from None


def build(config: Any, *seed: int | str) -> Any:
    """A player from its PlayerConfig, its weights drawn from the address `seed`."""
    from arena.seeds import reseed

    reseed(*seed)
    try:
        return find(config.of)(**config.options)
    except (ValueError, TypeError) as error:
        raise InputError(f"{config.name}: {error}") from error


def device(name: str) -> str:
    """ "auto" -> the best there is; anything else is checked. Returns "cpu", "cuda", "cuda:1" or "mps"."""
    import torch

    kind, _, number = name.partition(":")
    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if have[kind])
    if kind not in have or (number and not number.isdigit()):
        raise InputError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")
    if not have[kind]:
        raise InputError(
            f"--device {name}: no {kind} device on this machine (`arena doctor` says what there is). Use --device cpu."
        )
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise InputError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA device(s), counted from 0."
        )
    return name


def fabric(device: str, precision: str) -> Any:
    """A launched Lightning Fabric on one device."""
    import warnings

    try:
        from lightning.fabric import Fabric
    except ImportError:
        from lightning_fabric import Fabric

    kind, _, number = device.partition(":")
    devices = [int(number)] if number else 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*srun.*")
        made = Fabric(accelerator=kind, devices=devices, precision=precision)
    made.launch()
    return made

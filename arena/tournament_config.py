"""A tournament's file: generators, detectors, data sets, seeds (docs/tournament.md)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from arena.config import Strict, names, read_named, read_yaml, validate
from arena.errors import InputError

OWN = ("generator", "detector", "rounds", "seed", "evade", "replay", "baseline", "preset")  # not for `settings`


class Entry(Strict):
    """A player: a trained `run` that takes part as it is, or one trained here: by default what its key names."""

    run: str | None = None
    name: str | None = None
    options: dict[str, Any] = Field({})
    steps: int | None = Field(None, ge=1)
    batch: int | None = Field(None, ge=1)


class GeneratorEntry(Entry):
    data: list[str] | None = None  # of the tournament's data sets; None: all

    @field_validator("data", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class TournamentConfig(Strict):
    """A tournament's file. `settings` lie over the preset's, for every training; `data` names data sets.

    Without `data` every generator plays on what it plays on at home (faceswap on faces-two, others on faces).
    """

    about: str = ""
    preset: str = "quick"
    seeds: list[int] = Field([0], min_length=1)
    settings: dict[str, Any] = Field({})
    data: dict[str, dict[str, Any]] = Field({})
    generators: dict[str, GeneratorEntry] = Field(min_length=1)
    detectors: dict[str, Entry] = Field({})
    leave_one_out: bool = True

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> Any:
        if isinstance(value, list) and len({*map(str, value)}) < len(value):
            raise ValueError("expected different seeds")
        return [value] if isinstance(value, int) else value

    @field_validator("data", mode="before")
    @classmethod
    def _data(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = {str(name): None for name in value}
        if isinstance(value, Mapping):
            value = {n: {"source": v} if isinstance(v, str) else v or {"source": n} for n, v in value.items()}
        return value

    @field_validator("generators", "detectors", mode="before")
    @classmethod
    def _entries(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = dict.fromkeys(value)
        return {name: entry or {} for name, entry in value.items()} if isinstance(value, Mapping) else value


def read_config(name: str) -> TournamentConfig:
    """A packaged configuration by its name, or a YAML file. Raises InputError in one line."""
    if Path(name).suffix in (".yaml", ".yml"):
        where, given = name, read_yaml(Path(name))
    elif name in names("tournament"):
        where, given = name, read_named("tournament", name)
    else:
        known = ", ".join(names("tournament"))
        raise InputError(f"no tournament {name!r}: give a YAML file, or one of {known} (docs/tournament.md).")
    config = validate(TournamentConfig, given, where)
    for kind, of in (("generator", config.generators), ("detector", config.detectors), ("data set", config.data)):
        for key in of:
            if not re.fullmatch(r"\w[\w.+ -]{0,39}", key):
                rule = "letters, digits, _, and after the first one . + - and spaces"
                raise InputError(f"{where}: {key!r} is no name for a {kind}: {rule}.")
    for key in config.settings:
        if key in OWN:
            raise InputError(f"{where}: settings.{key}: a tournament settles that itself; leave it out.")
    entries: list[tuple[str, Entry]] = [*config.generators.items(), *config.detectors.items()]
    for key, entry in entries:
        extra = [what for what in ("name", "options", "steps", "batch") if getattr(entry, what)]
        extra += ["data"] if isinstance(entry, GeneratorEntry) and entry.data else []
        if entry.run and extra:
            raise InputError(f"{where}: {key}: a trained run takes part as it is; leave out {', '.join(extra)}.")
    for key, generator in config.generators.items():
        unknown = [data for data in generator.data or () if data not in config.data]
        if unknown:
            known = ", ".join(config.data) or "none are named"
            raise InputError(f"{where}: {key}: no data set {unknown[0]!r} under `data` ({known}).")
    return config

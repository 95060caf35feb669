"""One RunConfig from defaults, a preset, a file, options and --set, each over the one before. Imports no torch."""

import difflib
import inspect
import re
import reprlib
from collections.abc import Hashable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from arena.errors import InputError

KINDS = {"generator": "gen", "detector": "detect"}
PAIRED = ("faces-drawing", "faces-segments")  # of the lab's own data, those in pairs
EMBEDDED = ("faces", "faces-two", "faces-clips", *PAIRED)  # the data that the lab draws itself
LABELLED = "labelled"  # the source of a run without a generator: folders of reals and of fakes
STILLS = ("faces", "faces-two", *PAIRED)  # of these, the ones without clips


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PlayerConfig(Strict):
    """A player: the name of its YAML, its class as module:Class, and the keywords of its __init__."""

    name: str
    of: str
    options: dict[str, Any] = {}

    @property
    def short(self) -> str:
        return Path(self.name).stem


class DataConfig(Strict):
    """What is played on: `source` is one of the embedded sets, a folder of images or of videos, or "labelled".

    Labelled data, for a run without a generator, are the folders `real` and `fake`.
    """

    source: str = "faces"
    size: int = Field(64, ge=32, le=1024, multiple_of=4, description="side of every image, px")
    resize: Literal["bicubic", "lanczos", "bilinear"] = Field("bicubic", description="Pillow's antialiased filter")
    codec: str = Field(
        "png", pattern=r"^(png|jpeg-\d{1,3}|raw|c23|c40)$", description="what reals and fakes alike are stored as"
    )
    seed: int = Field(0, ge=0, description="of the faces and of the split")
    real: list[str] = Field([], description="labelled: folders of reals")
    fake: list[str] = Field([], description="labelled: folders of fakes")
    people: list[int] = Field(
        [0, 1], min_length=2, max_length=2, description="faces-two, faces-clips: who they are (identities)"
    )
    close: float = Field(
        0.6, ge=0.4, le=1, description="faces-two, faces-clips: side of the crop about the face, share of the picture"
    )
    train: int = Field(300, ge=2, le=1_000_000, description="faces (or clips) a domain")
    val: int = Field(50, ge=2, le=1_000_000, description="faces (or clips) a domain")
    judge: int = Field(200, ge=2, le=1_000_000, description="faces (or clips) a domain")
    frames: int = Field(8, ge=1, le=1000, description="clips: frames of a window; what a video detector asks for")
    windows: int = Field(4, ge=1, le=1000, description="videos: windows of each, spread over its whole length")
    every: int = Field(1, ge=1, le=1000, description="videos: a window takes every n-th frame")
    crop: Literal["whole", "face", "aligned"] = Field("whole", description="videos: the frame's middle, or the face")
    pairs: Literal["a2b", "b2a"] = Field(
        "a2b", description="pairs: make b (the right half, the second folder) of a, or a of b"
    )
    group: str = Field("auto", description="folders: auto, none, parent or prefix:REGEX")
    max_bad: float = Field(10, ge=0, description="folders: unreadable images to skip (a count, or a share)")
    max_pixels: int = Field(40_000_000, ge=1, description="folders: larger images are bad")


class RunConfig(Strict):
    """All that decides a run's result."""

    preset: str = "quick"
    generator: PlayerConfig | None = None  # None: the fakes are given
    detector: PlayerConfig
    data: DataConfig = DataConfig()
    rounds: int = Field(3, ge=1, le=1000)
    generator_steps: int = Field(ge=1, description="a round")
    detector_steps: int = Field(ge=1, description="a round")
    generator_batch: int = Field(1, ge=1)
    detector_batch: int = Field(64, ge=4, multiple_of=2, description="half reals, half fakes")
    replay: float = Field(0.5, ge=0, le=1, description="share of a batch's fakes that come from older rounds")
    look_every: int = Field(
        0, ge=0, description="detector steps between two looks at val, of which the best is kept; 0: the last is kept"
    )
    evade: float = Field(0.0, ge=0, description="weight of the penalty: the generator feels last round's detector")
    baseline: str | None = Field("spectrum", description="the detector that stands beside every other")
    seed: int = Field(0, ge=0)
    device: str = "cpu"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    save_seconds: float = Field(60.0, ge=0, description="between two saves of a fit")
    workers: int = Field(0, ge=0, description="processes that read batches ahead")
    allow_leak: bool = Field(False, description="go on although the audit finds that the container tells the label")

    @property
    def command(self) -> str:
        """What plays, and continues, such a run."""
        return "arena run" if self.generator else "arena train"


# Names that the packaged YAML files define


def names(folder: str) -> list[str]:
    """The names in configs/FOLDER ("gen", "detect" or "run")."""
    return sorted(entry.name[:-5] for entry in (files("configs") / folder).iterdir() if entry.name.endswith(".yaml"))


def read_named(folder: str, name: str) -> dict[str, Any]:
    """configs/FOLDER/NAME.yaml, or the YAML file at the path NAME."""
    if name.endswith((".yaml", ".yml")):
        return read_yaml(Path(name))
    if name not in names(folder):
        what = {"gen": "generator", "detect": "detector", "run": "preset"}.get(folder, folder)
        raise InputError(f"unknown {what} {name!r}{nearest(name, names(folder))} (`arena list` shows them all)")
    return parse_yaml((files("configs") / folder / f"{name}.yaml").read_text(), f"configs/{folder}/{name}.yaml")


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' or '; known: ...'."""
    known = sorted(known)
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(known)}"


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > 1_000_000:
            raise InputError(f"{path} is larger than 1 MB: that is no configuration.")
        return parse_yaml(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}. Expected a YAML file.") from error


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Safe YAML with duplicate keys refused. Raises InputError naming the place."""
    try:
        value = yaml.load(text, Loader=_Strict)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected `key: value` lines, found {type(value).__name__}.")
    return value


class _Strict(yaml.SafeLoader):
    """Refuses keys that stand twice, and aliases: a few lines of them can unfold to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases (*{self.peek_event().anchor}) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]  # type: ignore[no-untyped-call]
        seen: set[Any] = set()
        for key in keys:
            if isinstance(key, Hashable) and key in seen:
                raise yaml.YAMLError(f"key {key!r} stands twice{node.start_mark}")
            seen.update([key] if isinstance(key, Hashable) else [])
        return super().construct_mapping(node, deep)


# Layers


def resolve(layers: Iterable[Mapping[str, Any]], preset: str = "quick") -> RunConfig:
    """A RunConfig from a preset and layers over it (a file, options, --set), later ones winning.

    A layer has RunConfig's keys; `generator` and `detector` are a name, or {name: ..., KEYWORD: ...}; `players` maps
    names to keywords that hold where that player plays.
    """
    merged: dict[str, Any] = {"generator": {}, "detector": {}, "data": {}, "players": {}}
    base = {**read_named("run", preset), "preset": preset}
    base.pop("about", None)
    layers = list(layers)
    for layer in (base, *at_home(base, layers), *layers):
        for key, value in layer.items():
            if key == "preset" and layer is not base:
                raise InputError("preset: it is chosen with --preset, since everything else stands on it.")
            if key in KINDS and isinstance(value, Mapping) and "options" in value:  # as run.json has it
                value = {"name": value.get("name"), **(value["options"] or {})}
            if key in KINDS and isinstance(value, str):
                value = {"name": value}
            if key == "generator" and value is None:  # the fakes are given
                merged[key] = None
            elif key in merged and isinstance(merged[key], dict):
                if not isinstance(value, Mapping):
                    raise InputError(f"{key}: expected keywords, found {reprlib.repr(value)}.")
                if key == "players":
                    if not all(isinstance(options, Mapping | None) for options in value.values()):
                        raise InputError(f"players: expected keywords for each name, found {reprlib.repr(value)}.")
                    value = {name: {**merged[key].get(name, {}), **(options or {})} for name, options in value.items()}
                merged[key] = {**merged[key], **value}
            else:
                merged[key] = value
    players = merged.pop("players")
    for kind, folder in KINDS.items():
        if merged[kind] is not None:
            merged[kind] = player(kind, folder, merged[kind], players).model_dump()
    if merged.get("baseline"):
        read_named("detect", merged["baseline"])
    return fill_from_run(validate(RunConfig, merged))


def at_home(base: dict[str, Any], layers: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What is chosen brings along: a player's YAML its `data`, and the preset what holds `with` players and data."""
    settings = base.pop("with", {})
    layers, brought = [base, *layers], []
    for kind, folder in KINDS.items():
        given = [layer[kind] for layer in layers if kind in layer]
        named = [value if isinstance(value, str) else value.get("name") for value in given if value]
        name = next((name for name in reversed(named) if isinstance(name, str)), None)
        if name:
            data = read_named(folder, name).get("data")
            brought += [{"data": {"source": data}}] if data else []
            brought.append(settings.get(name, {}))
    layers = [layer["data"] for layer in [*brought, *layers] if isinstance(layer.get("data"), Mapping)]
    sources = [data["source"] for data in layers if "source" in data]
    return [*brought, settings.get(str(sources[-1]), {}) if sources else {}]


def player(kind: str, folder: str, given: Mapping[str, Any], players: Mapping[str, Any]) -> PlayerConfig:
    """Resolve {name, KEYWORD...} against its YAML and the preset's `players`."""
    from arena.build import find

    options = dict(given)
    if "name" not in options:
        raise InputError(f"no {kind} given: --{kind} NAME, one of {', '.join(names(folder))}")
    name = str(options.pop("name"))
    own = read_named(folder, name)
    own.pop("about", None)
    own.pop("data", None)
    of = own.pop("of", None)
    if not (isinstance(of, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", of)):
        raise InputError(f"{kind} {name}: expected `of: module:Class`, found {reprlib.repr(of)}.")
    needs = {"generator": ("fit", "sample"), "detector": ("fit", "score")}[kind]
    if not (inspect.isclass(find(of)) and all(hasattr(find(of), method) for method in needs)):
        raise InputError(f"{kind} {name}: {of} is no {kind}: expected a class with {' and '.join(needs)}.")
    preset = dict(players.get(name, {}))
    return PlayerConfig(name=name, of=of, options=check_options(f"{kind} {name}", of, {**own, **preset, **options}))


def over(stored: RunConfig, layers: Iterable[Mapping[str, Any]]) -> RunConfig:
    """A run's own settings with layers over them: what somebody asks of a run that exists."""
    base = stored.model_dump()
    for kind in KINDS:
        if base[kind] is None:
            continue
        base[kind] = {"name": base[kind]["name"], **base[kind]["options"]}
        asked = [layer[kind] for layer in layers if kind in layer]
        asked_names = [value if isinstance(value, str) else value.get("name") for value in asked]
        if any(name not in (None, base[kind]["name"]) for name in asked_names):
            base[kind] = {}
    return resolve([base, *layers], base.pop("preset"))


def check_options(who: str, of: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check keywords against the class's signature and bring each to its type. Returns those given."""
    from arena.build import find

    signature = inspect.signature(find(of), eval_str=True)
    fields: dict[str, Any] = {
        name: (parameter.annotation, ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in signature.parameters.items()
    }
    for key in options:
        if key not in fields:
            raise InputError(f"{who}: unknown key {key!r}{nearest(str(key), fields)}")
    model = create_model("Options", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)
    checked = validate(model, dict(options), who)
    return {key: _plain(getattr(checked, key)) for key in options}


def fill_from_run(config: RunConfig) -> RunConfig:
    """Give a player that asks for them the run's length (`steps`) and image size (`size`), unless they were said."""
    from arena.build import find

    filled: dict[str, Any] = {}
    for kind in KINDS:
        found: PlayerConfig | None = getattr(config, kind)
        if found is None:
            continue
        known = {"steps": config.rounds * getattr(config, f"{kind}_steps"), "size": config.data.size}
        asked = inspect.signature(find(found.of)).parameters
        if "size" in asked and found.options.get("size", config.data.size) != config.data.size:
            size = found.options["size"]
            raise InputError(
                f"{kind}.size is {size} and the images' size {config.data.size}: they must be equal. Set the images' "
                f"alone (--size {size}); the {kind} follows."
            )
        options = {key: value for key, value in known.items() if key in asked and key not in found.options}
        if kind == "detector" and "frames" in asked:
            options["frames"] = frames = found.options.get("frames", asked["frames"].default)
            if "frames" in config.data.model_fields_set and config.data.frames != frames:
                raise InputError(
                    f"detector.frames is {frames} and data.frames {config.data.frames}: they must be equal. Set the "
                    f"detector's alone (--set detector.frames={config.data.frames}); the data follow."
                )
            if frames > 1 and config.data.source in STILLS:
                raise InputError(
                    f"{found.name} looks at clips of {frames} frames, and {config.data.source} are stills. "
                    "Use --data faces-clips, or a folder of videos (a generator of pairs has no clips to play on)."
                )
            filled["data"] = config.data.model_copy(update={"frames": frames})
        filled[kind] = found.model_copy(update={"options": {**found.options, **options}})
    return config.model_copy(update=filled)


def validate(model: type[BaseModel], value: Mapping[str, Any], who: str = "") -> Any:
    """Validate, or raise an InputError of one line: where, what was expected, what came, the nearest known key."""
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        prefix = f"{who}: " if who else ""
        if first["type"] == "extra_forbidden":
            known = _fields(model, first["loc"][:-1])
            raise InputError(f"{prefix}unknown key {where!r}{nearest(str(first['loc'][-1]), known)}") from None
        if first["type"] == "missing":
            raise InputError(f"{prefix}{where} is missing.") from None
        raise InputError(
            f"{prefix}{where}: {first['msg'][0].lower()}{first['msg'][1:]}, not {reprlib.repr(first['input'])}"
        ) from None


def _fields(model: Any, path: Iterable[Any]) -> list[str]:
    for part in path:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def parse_set(pairs: Iterable[str]) -> dict[str, Any]:
    """--set key=value ... as a layer: values are YAML; data.KEY, generator.KEY and detector.KEY go one deeper."""
    layer: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set {pair}: expected KEY=VALUE, as in --set generator.width=32")
        try:
            value = yaml.load(text, Loader=_Strict)
        except (yaml.YAMLError, RecursionError, ValueError):
            value = text
        *outer, last = key.split(".")
        if len(outer) > 1 or (outer and outer[0] not in ("data", *KINDS)):
            raise InputError(f"--set {key}: expected KEY, data.KEY, generator.KEY or detector.KEY")
        if outer and not isinstance(layer.setdefault(outer[0], {}), dict):
            layer[outer[0]] = {"name": layer[outer[0]]}  # --set generator=NAME before --set generator.KEY=...
        (layer[outer[0]] if outer else layer)[last] = value
    return layer


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """'key: old here, new asked for' for every leaf that differs."""
    found = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a!r} there, {b!r} asked for")
    return found

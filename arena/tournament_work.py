"""What the jobs of a tournament do: play a generator's run, train a detector on stored fakes, score stored images."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arena import build
from arena.config import RunConfig
from arena.data.feeds import Held, Labelled, Store
from arena.data.source import Data, open_data
from arena.errors import InputError
from arena.jobs import Job
from arena.ledger import Ledger, parts
from arena.match import frozen_threshold, logits
from arena.player import open_player
from arena.run import run
from arena.stored import stored_config
from arena.training import Feed, place, train
from arena.watch import Silent
from arena.ways import Way, ways


class Forged:
    """The images that a run left behind: its reals after the codec, and the fakes of a round (None: of its last).

    A training on labelled folders has the fakes that it was given. Raises InputError where the folder is no run, or its
    first round is not over.
    """

    def __init__(self, root: Path, round: int | None = None):
        self.ledger, config = Ledger(root), stored_config(root)
        if config is None:
            raise InputError(f"{root} is no run: it has no run.json. Give the folder that `arena run` named.")
        self.config: RunConfig = config
        mark = "rounds/{:02d}/fakes/manifest.jsonl" if config.generator else "data/data.json"
        done = [r for r in range(config.rounds) if self.ledger.has(mark.format(r))]
        if not done:
            raise InputError(f"{root} holds no fakes yet. Let `{config.command} --out {root}` get further.")
        self.round = done[-1] if round is None else round
        self.data: Data = open_data(self.ledger, config.data.codec)
        needs = build.find(config.generator.of).needs if config.generator else "labels"
        self.ways: list[Way] = ways(needs, self.data.domains)

    @property
    def frames(self) -> int:
        return int(self.data.summary.get("frames", 1))

    def reals(self, split: str) -> dict[str, Store]:
        return {domain: self.data.reals[split, domain] for domain in self.data.kinds}

    def fakes(self, split: str) -> dict[str, Store]:
        """One store a way; `all` where there is one way only."""
        if not self.ways:
            return {"all": self.data.fakes[split]}
        found = {}
        for way in self.ways:
            source, name = self.data.reals[split, way.source], way.name or "all"
            images = self.ledger.read_images(f"rounds/{self.round:02d}/fakes/{split}-{name}.npy")
            names = [f"fake of {self.ledger.root.name}: {i}" for i in range(len(source))]
            found[name] = Store(images, names, source.frames, source.videos)
        return found


def one(stores: dict[str, Store]) -> Store:
    """Stores of one kind on end."""
    found = list(stores.values())
    if len(found) == 1:
        return found[0]
    frames = found[0].frames
    images = np.concatenate([np.asarray(some.images) for some in found])
    videos = [video for some in found for video in some.videos or ()]
    flat = images.reshape(-1, *images.shape[-3:])
    return Store(flat, [name for some in found for name in some.names], frames, videos or None)


def fingerprint(stores: dict[str, Store]) -> str:
    """A hash of the images of some stores in their order, however divided, and of what video each is from."""
    whole = hashlib.sha256()
    for store in stores.values():
        whole.update(f"{store.frames} {store.videos}".encode())
        for chunk in store.chunks():
            whole.update(chunk.numpy().tobytes())
    return whole.hexdigest()


def generate(job: Job, root: Path) -> dict[str, Any]:
    """A run of one round, its detector a by-product: OUT/runs/NAME. Goes on where it stopped."""
    config = RunConfig.model_validate(job.arguments["settings"])
    summary = run(config, root / job.output, Silent())
    last = summary["rounds"][-1]
    return {
        "data": summary["data"], "quality": last["quality"], "notes": summary["notes"],
        "parameters": parameters(build.build(config.generator, config.seed, "generator")),
        "seconds_per_step": last["seconds"]["train generator"] / config.generator_steps,
    }  # fmt: skip


def parameters(player: Any) -> int:
    """How many numbers a player's optimizers move: discriminators included, moving averages not."""
    moved = [part for part in parts(player).values() if isinstance(part, torch.optim.Optimizer)]
    return sum(p.numel() for p in {p for optimizer in moved for g in optimizer.param_groups for p in g["params"]})


def fit(job: Job, root: Path) -> dict[str, Any]:
    """A detector from scratch on the fakes of some runs and on these runs' reals, each run weighing alike.

    It leaves OUT/detectors/NAME, which is a run folder as far as `arena detect` and `arena evaluate` are concerned.
    """
    config = RunConfig.model_validate(job.arguments["settings"])
    runs = [Forged(root / place) for place in job.places["runs"]]
    fabric = build.fabric(config.device, config.precision)
    detector = build.build(config.detector, config.seed, "detector")
    place(detector, fabric.device)
    clips, batch, steps = detector.frames > 1, config.detector_batch, config.detector_steps

    def pools(split: str) -> tuple[list[Store], list[Store]]:
        both = [one(some.reals(split)) for some in runs], [one(some.fakes(split)) for some in runs]
        reals, fakes = ([store if clips else store.stills() for store in stores] for stores in both)
        return reals, fakes

    held = Held(*pools("val"))

    class Again:
        def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
            return iter(Feed(held, 0, len(held), fabric.device))

    with Ledger(root / job.output) as ledger:
        feed = Labelled(*pools("train"), [], batch, 0.0, f"{config.seed}/tournament/detector")
        done = train(
            fabric, detector, feed, name="detector", round=0, steps=steps, seed=config.seed, ledger=ledger,
            save_seconds=config.save_seconds, workers=config.workers, val=Again(),
        )  # fmt: skip
        reals, fakes = ([one(getattr(some, side)("val")) for some in runs] for side in ("reals", "fakes"))
        threshold = frozen_threshold(detector, reals, fakes, fabric.device)
        ledger.write_weights(detector, "rounds/00/detector.safetensors")
        images = done.steps * batch
        phase = {"seconds": done.seconds, "images": images, "threshold": threshold}
        ledger.write("rounds/00/phases/4-train-detector.json", phase)
        ledger.write("run.json", {"schema": 1, "settings": config.model_dump(), "provenance": {"command": job.about}})
        for name in [entry["file"] for entry in ledger.saves("detector")] + ["state/detector.json"]:
            ledger.forget(name)  # the weights stay: a detector's optimizer may take three times their room
    return {"threshold": threshold, "images": images}


def score(job: Job, root: Path) -> dict[str, Any]:
    """A detector's logits of a run's judge split, its reals by domain or its fakes by way: OUT/scores/NAME.npz."""
    of = Forged(root / job.places["run"])
    stores = of.reals("judge") if job.arguments["side"] == "reals" else of.fakes("judge")
    detector, device = opened(str(root / job.places["detector"]), job.arguments["device"])
    found = {name: logits(detector, [store], device) for name, store in stores.items()}
    Ledger(root).write_arrays(job.output, **found)
    return {"n": {name: len(values) for name, values in found.items()}}


@lru_cache(maxsize=1)  # jobs come detector by detector
def opened(path: str, device: str) -> tuple[Any, torch.device]:
    detector = open_player(Path(path), "detector").player
    place(detector, torch.device(device))
    return detector, torch.device(device)

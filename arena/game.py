"""The game across rounds: every detector of a run against every generator's fakes, frozen anchors, a fresh detector.

    RUN/game/detector-00.npz    logits of the detector after round 0: the judged reals, each round's fakes, the anchors
    RUN/game/spectrum.npz       those of the frozen baseline detector, trained on round 0 alone
    RUN/game/fresh-02-0.npz     those of a detector trained from scratch on round 2's fakes alone (seed 0)
    RUN/game/game.json          the figures (docs/matrix.md)

What stands there is not scored again. Every fake is of the judge split: it, and the picture it was made from, trained
nobody. A detector is its file of weights in the round's folder, so the run's own players are not touched.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from arena.build import build, find
from arena.config import RunConfig
from arena.config import player as resolve_player
from arena.data.codec import store_as
from arena.data.feeds import Labelled, Store, spread
from arena.data.source import open_data
from arena.errors import InputError, StoppedError
from arena.ledger import Ledger
from arena.lineage import figures, honesty, table
from arena.match import logits
from arena.metrics.detection import auc, delong
from arena.perturb import gaussian_blur
from arena.round import Arena
from arena.seeds import address, rng
from arena.training import Feed, Look, place, stopping, train
from arena.truth import restores
from arena.watch import Silent
from arena.weights import load, read_state

SCHEMA = 1
FILE = "game/game.json"
MOST = 32  # rounds in a matrix: the first, the last and evenly chosen ones between
FRESH_STEPS = 10_000  # of a fresh detector, at most
Logits = dict[str, np.ndarray]
Progress = Callable[[int, int], None]


class Changed(Store):
    """The images of a store after a change of uint8 n 3 s s, and after the run's codec: an anchor's fakes."""

    def __init__(self, source: Store, change: Callable[[torch.Tensor], torch.Tensor], codec: str):
        self.images, self.names, self.frames, self.videos = source.images, source.names, source.frames, source.videos
        self.change, self.codec = change, codec

    def chunks(self, size: int = 64) -> Iterator[torch.Tensor]:
        for chunk in super().chunks(size):
            yield store_as(self.change(chunk.flatten(0, -4)).view(chunk.shape), self.codec)


class Seats(Arena):
    """A run's arena seen from outside: its data and fakes, without its players' saves."""

    def __init__(self, config: RunConfig, ledger: Ledger, fabric: Any):
        assert config.generator
        made_by = find(config.generator.of)
        maker = SimpleNamespace(needs=made_by.needs, restores=restores(made_by))
        detector = build(config.detector, config.seed, "detector")
        super().__init__(config, (maker, detector), open_data(ledger, config.data.codec), ledger, fabric, Silent())

    def catch_up(self, player: Any, name: str) -> None:
        """Nothing: no player goes on from here."""


class Game:
    """One run's matrix. `keep`: write what is found to the ledger (which this process must then hold)."""

    def __init__(self, ledger: Ledger, config: RunConfig, fabric: Any, keep: bool = True, progress: Any = None):
        played = rounds_played(ledger, config)
        self.ledger, self.config, self.keep = ledger, config, keep
        self.rounds = [played[place] for place in spread(len(played), MOST)]
        self.left_out = len(played) - len(self.rounds)
        self.arena = Seats(config, ledger, fabric)
        self.reals = self.arena.data.reals_of("judge")
        self.progress: Progress = progress or (lambda done, total: None)
        self.done = 0

    def play(self, fresh: int = 0) -> dict[str, Any]:
        """Score what is not scored yet, train `fresh` fresh detectors (those that stand there count) and take all
        figures; the content of game.json."""
        began = time.perf_counter()
        lineage = [
            self.row(f"detector-{r:02d}", self.stamp(r), partial(self.after, r), self.recorded(r)) for r in self.rounds
        ]
        frozen = self.row("spectrum", "", self.frozen)
        scored = time.perf_counter()
        fresh = max(fresh, self.fresh_held())
        seeds = [self.fresh(seed) for seed in range(fresh)]
        trained = time.perf_counter()
        found = self.figures(lineage, frozen, seeds)
        found["seconds"] = {
            "matrix": scored - began, "fresh": trained - scored, "figures": time.perf_counter() - trained,
        }  # fmt: skip
        if self.keep:
            self.ledger.write(FILE, found)
        return found

    # Rows: what a detector says of the reals and of every column

    @property
    def columns(self) -> list[str]:
        sources = ["source"] if self.arena.data.paired else []  # else they are the reals
        return [f"{r:02d}" for r in self.rounds] + [*sources, "blur", "noise"]

    def row(self, name: str, stamp: str, detector: Callable[[], Any], known: Logits | None = None) -> Logits:
        """A detector's logits by column, and of the "real"s; only what neither its file nor the run has is scored."""
        stored = self.held(name, stamp)
        row = {**(known or {}), **stored}
        missing = [column for column in ("real", *self.columns) if column not in row]
        player = detector() if missing else None
        for column in missing:
            if stopping.is_set():
                raise StoppedError("stopped before the matrix was whole; what is scored stands")
            row[column] = logits(player, self.stores(column), self.arena.device)
        if self.keep and row.keys() != stored.keys():
            self.ledger.write_arrays(f"game/{name}.npz", stamp=np.array(stamp), **dict(sorted(row.items())))
        self.done += 1
        self.progress(self.done, max(self.done, len(self.rounds) + 1))
        return row

    def recorded(self, r: int) -> Logits:
        """What the rounds themselves had their detector say: of the reals, of its own fakes, of the next round's."""
        own = self.ledger.read_arrays(f"rounds/{r:02d}/scores.npz")
        found, following = {"real": own["after_real"], f"{r:02d}": own["after_fake"]}, f"{r + 1:02d}"
        if r + 1 in self.rounds:
            found[following] = self.ledger.read_arrays(f"rounds/{following}/before.npz")["fake"]
        return found

    def held(self, name: str, stamp: str) -> Logits:
        """What a row's file holds, if it is of these weights; nothing where it is damaged."""
        try:
            found = self.ledger.read_arrays(f"game/{name}.npz")
        except InputError:
            return {}
        return found if str(found.pop("stamp", None)) == stamp else {}

    def stores(self, column: str) -> list[Store]:
        arena, codec = self.arena, self.config.data.codec
        if column == "real":
            return self.reals
        if column.isdigit():
            return arena.fakes(int(column), "judge")
        if column == "source":
            return [arena.data.reals["judge", way.source] for way in arena.ways]
        sources = [(way.name, arena.data.sources["judge", way.source]) for way in arena.ways]
        if column == "blur":
            return [Changed(source, partial(gaussian_blur, sigma=self.blur_sigma), codec) for _, source in sources]
        return [Changed(source, partial(noise, draws=rng("anchor", name)), codec) for name, source in sources]

    @property
    def blur_sigma(self) -> float:
        """2 px at 64 px."""
        return self.config.data.size / 32

    # Detectors

    def stamp(self, r: int) -> str:
        return hashlib.sha256(self.ledger.path(weights_of(r)).read_bytes()).hexdigest()

    def after(self, r: int) -> Any:
        """The run's detector as it stood after a round."""
        file = self.ledger.path(weights_of(r))
        load(self.arena.detector, read_state(file), file)
        return self.arena.detector

    @property
    def baseline(self) -> str:
        return self.config.baseline or "spectrum"

    def frozen(self) -> Any:
        """The baseline detector as round 0 trained it (`Arena.baseline`): the same in every later round."""
        arena, r = self.arena, 0
        player = build(
            resolve_player("detector", "detect", {"name": self.baseline}, {}), self.config.seed, r, "baseline"
        )
        place(player, arena.device)
        clips = player.frames > 1
        feed = Feed(arena.labelled(r, 128, "baseline", clips), 0, 40, arena.device)
        for _ in player.fit(arena.fabric, feed, val=arena.held(r, clips)):
            pass
        return player

    @property
    def fresh_steps(self) -> int:
        """As many as the lineage had in all, at most `FRESH_STEPS`."""
        return min(self.config.detector_steps * (self.rounds[-1] + 1), FRESH_STEPS)

    def fresh(self, seed: int) -> Logits:
        """The logits of a detector trained from scratch on the last round's fakes alone."""
        return self.row(*self.fresh_name(seed), partial(self.trained_afresh, seed))

    def fresh_name(self, seed: int) -> tuple[str, str]:
        return f"fresh-{self.rounds[-1]:02d}-{seed}", f"{self.fresh_steps} steps"

    def fresh_held(self) -> int:
        """How many there are already."""
        return next(seed for seed in count() if "real" not in self.held(*self.fresh_name(seed)))

    def trained_afresh(self, seed: int) -> Any:
        """Class and settings of the run's detector; other weights, other batches. A fit that was stopped goes on."""
        config, arena, r, steps = self.config, self.arena, self.rounds[-1], self.fresh_steps
        options = dict(config.detector.options) | ({"steps": steps} if "steps" in config.detector.options else {})
        player = build(config.detector.model_copy(update={"options": options}), config.seed, "fresh", seed)
        place(player, arena.device)
        clips = player.frames > 1
        pools = [arena.data.reals_of("train"), arena.fakes(r, "train")]
        reals, fakes = ([store if clips else store.stills() for store in stores] for stores in pools)
        feed = Labelled(reals, fakes, [], config.detector_batch, 0.0, f"{config.seed}/fresh/{seed}")

        def found() -> float:
            return auc(
                *(logits(player, some, arena.device) for some in (arena.data.reals_of("val"), arena.fakes(r, "val")))
            )

        folder = self.ledger.path(f"game/fresh-{r:02d}-{seed}")
        with Ledger(folder) as ledger:
            train(
                arena.fabric, player, feed, name="detector", round=0, steps=steps,
                seed=address(config.seed, "fresh", seed), ledger=ledger, save_seconds=max(config.save_seconds, 60),
                workers=config.workers, look=Look(config.look_every, found) if config.look_every else None,
                val=arena.held(r, clips),
            )  # fmt: skip
        shutil.rmtree(folder)  # what counts is what it says of the judge split; weights of a rival nobody plays again
        return player

    # Figures

    def figures(self, lineage: list[Logits], frozen: Logits, fresh: list[Logits]) -> dict[str, Any]:
        rounds, arena = self.rounds, self.arena
        names = [f"{r:02d}" for r in rounds]
        paired = arena.has_source
        rows, source = [*lineage, frozen, *fresh], "source" if arena.data.paired else "real"
        whole = table(
            [row["real"] for row in rows],
            [[*(row[name] for name in [*names, source, "blur", "noise"])] for row in rows], paired,
        )  # fmt: skip
        own = table([row["real"] for row in lineage], [[row[name] for name in names] for row in lineage], paired)
        keys = [*map(str, rounds), "spectrum", *(f"fresh-{seed}" for seed in range(len(fresh)))]
        honest = None
        if fresh:
            both = [*lineage, *fresh]
            judged = table([row["real"] for row in both], [[row[name] for name in names] for row in both], paired)
            honest = honesty(rounds, judged, len(fresh)) | {
                "round": rounds[-1], "steps": self.fresh_steps,
                "capped": self.fresh_steps < self.config.detector_steps * (rounds[-1] + 1),
            }  # fmt: skip
        return {
            "schema": SCHEMA, "run": arena.run, "rounds": rounds, "left_out": self.left_out,
            "planned": self.config.rounds, "n_real": whole.n_real, "n_fake": whole.n_fake,
            "unit": "video" if self.reals[0].videos else "image" if arena.frames == 1 else "clip",
            "baseline": self.baseline, "blur_sigma": self.blur_sigma,
            "domains": self.domains(lineage), "pairs": arena.data.paired,
            "matrix": {
                "rows": keys, "columns": [*map(str, rounds), "source", "blur", "noise"],
                "auc": whole.auc.tolist(), "low": whole.low.tolist(), "high": whole.high.tolist(),
                "error": whole.error.tolist(),
            },
            **figures(rounds, own),
            "fresh": honest,
        }  # fmt: skip

    def domains(self, lineage: list[Logits]) -> list[dict[str, Any]] | None:
        """Where sources are the other domain's reals: how well a detector tells these from the target's, of a way.

        Over both ways together sources are the reals themselves, so that their column is 0.5 whatever a detector does.
        """
        if len(self.reals) != 2:
            return None
        way, found, first = self.arena.ways[0], [], self.reals[0]
        n = len(set(first.videos)) if first.videos else len(first)
        for r, row in zip(self.rounds, lineage, strict=True):
            source, target = np.split(row["real"], [n])
            value, low, high = delong(target, source)
            found.append({"round": r, "way": way.name, "value": value, "low": low, "high": high})
        return found


def noise(images: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Every value of every pixel by lot."""
    return torch.randint(0, 256, images.shape, generator=draws, dtype=torch.uint8)


def weights_of(r: int) -> str:
    return f"rounds/{r:02d}/detector.safetensors"


def rounds_played(ledger: Ledger, config: RunConfig) -> list[int]:
    """The rounds that are over. Raises InputError where there is no generator, or no round is over yet."""
    if config.generator is None:
        raise InputError(
            f"{ledger.root} has no generator: its fakes were given, so there are no rounds to play against each other "
            "and no matrix. Use `arena run`, or `arena tournament` for detectors of several runs."
        )
    played = [r for r in range(config.rounds) if ledger.has(f"rounds/{r:02d}/round.json")]
    if not played:
        raise InputError(f"{ledger.root} has no round that is over yet. Let `arena run --out {ledger.root}` go on.")
    gone = next((r for r in played if not ledger.has(weights_of(r))), None)
    if gone is not None:
        raise InputError(f"{ledger.path(weights_of(gone))} is not there: without it round {gone} cannot play.")
    return played

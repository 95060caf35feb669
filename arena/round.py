"""One round: train the generator, forge, judge before, train the detector, judge after, record.

Every phase leaves a file in the ledger as its last act, and a phase that stands there is not played again.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from arena import truth
from arena.alarms import Seen, alarms, line
from arena.audit_run import brief, pass_audit
from arena.build import build
from arena.config import RunConfig
from arena.data.codec import store_as
from arena.data.feeds import Held, Labelled, Store, Unlabelled
from arena.data.source import SPLITS, Data
from arena.errors import InputError
from arena.evasion import evading
from arena.ledger import Ledger
from arena.match import frozen_threshold, judge, logits
from arena.pictures import png
from arena.seeds import rng
from arena.sheets import draw_sheets
from arena.training import Feed, Fit, Look, place, to_float, to_uint8, train
from arena.ways import Way, ways

RESULTS = {  # what a phase hands on, besides its time
    "judge before": ("scores",), "train detector": ("threshold",), "judge after": ("scores", "baseline"),
    "record": ("quality",),
}  # fmt: skip


Players = tuple[Any, Any]


class Arena:
    """What all rounds of a run share: the players, the data, the ledger and the clock's settings."""

    def __init__(self, config: RunConfig, players: Players, data: Data, ledger: Ledger, fabric: Any, watch: Any):
        self.config, self.data, self.ledger, self.fabric, self.watch = config, data, ledger, fabric, watch
        self.device: torch.device = fabric.device
        self.generator, self.detector = players
        needs = self.generator.needs if self.generator else "labels"
        self.ways = ways(needs, data.domains)
        self.has_source = self.generator is not None and truth.from_sources(self.generator)
        self.frames = data.summary.get("frames", 1)
        self.run = ledger.root.resolve().name
        self.marks = {
            "Synthetic": "true",
            "Source": "deepfake-arena",
            "Method": self.method,
            "Run": self.run,
            "Seed": str(config.seed),
        }
        for name, player in self.players:
            place(player, self.device)
            self.catch_up(player, name)

    @property
    def players(self) -> list[tuple[str, Any]]:
        both = (("generator", self.generator), ("detector", self.detector))
        return [(name, player) for name, player in both if player is not None]

    @property
    def method(self) -> str:
        return self.config.generator.short if self.config.generator else "given"

    def catch_up(self, player: Any, name: str) -> None:
        """Bring a player to its newest save. Where that is older than a fit that is recorded (somebody had to delete a
        damaged one), let the run do the fit again; all else that is recorded stands, since it comes to the same end.
        """
        entry, steps = self.ledger.load(player, name), getattr(self.config, f"{name}_steps")
        number = {"generator": 1, "detector": 4}[name]
        for r in range(self.config.rounds):
            phase = f"rounds/{r:02d}/phases/{number}-train-{name}.json"
            if self.ledger.has(phase) and (entry["round"], entry["step"]) < (r, steps):
                newest = self.ledger.saves("detector")[:1]
                if name == "generator" and self.config.evade and newest and newest[0]["round"] >= r:
                    raise InputError(
                        f"round {r}'s generator cannot be trained again: the detector that it evaded has moved on. "
                        "Start again with a new --out."
                    )
                self.ledger.forget(phase, f"rounds/{r:02d}/round.json")

    def play(self, r: int) -> dict[str, Any]:
        """Play round r to its end and return its entry of summary.json."""
        name = f"rounds/{r:02d}/round.json"
        if not self.ledger.has(name):
            phases: list[tuple[str, Callable[[int], dict[str, Any]]]] = [
                ("train generator", self.train_generator), ("forge", self.forge), ("judge before", self.judge_before),
                ("train detector", self.train_detector), ("judge after", self.judge_after), ("record", self.record),
            ]  # fmt: skip
            first = 0 if self.generator else 3
            done = {phase: self.phase(r, i, phase, work) for i, (phase, work) in enumerate(phases) if i >= first}
            self.ledger.write(name, {
                "round": r,
                "quality": done["record"]["quality"],
                "truth": done["record"].get("truth", {}),
                "insight": done["record"].get("insight", {}),
                "alarms": done["record"].get("alarms", []),
                "before": done["judge before"]["scores"] if self.generator else None,
                "after": done["judge after"]["scores"],
                "baseline": done["judge after"]["baseline"],
                "audit": brief(self.ledger, r),
                "seconds": {phase: result["seconds"] for phase, result in done.items()},
                "images_per_second": {
                    phase: result["images"] / max(result["seconds"], 1e-9)
                    for phase, result in done.items() if result["images"]
                },
            })  # fmt: skip
        return self.ledger.read(name, "round", "quality", "before", "after", "seconds")

    def phase(self, r: int, i: int, phase: str, work: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
        name = f"rounds/{r:02d}/phases/{i + 1}-{phase.replace(' ', '-')}.json"
        if not self.ledger.has(name):
            self.watch.phase(r, phase)
            began = time.perf_counter()
            result = work(r)
            self.ledger.write(name, {"seconds": time.perf_counter() - began, "images": 0, **result})
        return self.ledger.read(name, "seconds", "images", *RESULTS.get(phase, ()))

    # 1 and 4: fits

    def fit(self, name: str, player: Any, dataset: Any, r: int, steps: int, **keywords: Any) -> Fit:
        config = self.config
        return train(
            self.fabric, player, dataset, name=name, round=r, steps=steps, seed=config.seed, ledger=self.ledger,
            save_seconds=config.save_seconds, workers=config.workers, progress=self.watch.steps(r, name, steps),
            **keywords,
        )  # fmt: skip

    def train_generator(self, r: int) -> dict[str, Any]:
        config = self.config
        stores, batch = self.data.sources_of("train"), config.generator_batch
        whole = bool(config.evade) and self.detector.frames > 1
        dataset = Unlabelled(stores, batch, f"{config.seed}/{r}/generator", whole, self.data.paired)
        evade = evading(self.detector, config.evade) if config.evade and r > 0 else nullcontext()
        with evade as penalty:
            keywords = {"penalty": penalty} if penalty else {}
            fit = self.fit("generator", self.generator, dataset, r, config.generator_steps, **keywords)
        self.ledger.write_weights(self.generator, f"rounds/{r:02d}/generator.safetensors")
        return {"seconds": fit.seconds, "images": fit.steps * batch * len(stores)}

    def train_detector(self, r: int) -> dict[str, Any]:
        config, batch = self.config, self.config.detector_batch
        pass_audit(self.ledger, config, self.data, {split: self.fakes(r, split) for split in SPLITS}, r)
        clips = self.detector.frames > 1
        feed, held = self.labelled(r, batch, "detector", clips), self.held(r, clips)
        fit = self.fit("detector", self.detector, feed, r, config.detector_steps, look=self.look(r), val=held)
        self.ledger.write_weights(self.detector, f"rounds/{r:02d}/detector.safetensors")
        threshold = frozen_threshold(self.detector, self.data.reals_of("val"), self.fakes(r, "val"), self.device)
        return {"seconds": fit.seconds, "images": fit.steps * batch, "threshold": threshold}

    def labelled(self, r: int, batch: int, player: str, clips: bool) -> Labelled:
        """What a detector of clips, or one of stills, trains on."""
        pools = [self.data.reals_of("train"), self.fakes(r, "train")]
        pools.append([store for old in range(r) for store in self.fakes(old, "train")])
        reals, fakes, older = ([store if clips else store.stills() for store in stores] for stores in pools)
        return Labelled(reals, fakes, older, batch, self.config.replay, f"{self.config.seed}/{r}/{player}")

    def look(self, r: int) -> Look | None:
        """The looks at the validation split by which the best weights are kept: its AUC, per video where there are."""
        if not self.config.look_every:
            return None
        from arena.metrics.detection import auc

        def found() -> float:
            stores = self.data.reals_of("val"), self.fakes(r, "val")
            return auc(*(logits(self.detector, some, self.device) for some in stores))

        return Look(self.config.look_every, found)

    def held(self, r: int, clips: bool) -> Any:
        """The validation split, to be run through again and again."""
        pools = self.data.reals_of("val"), self.fakes(r, "val")
        reals, fakes = ([store if clips else store.stills() for store in stores] for stores in pools)
        held = Held(reals, fakes)
        device = self.device

        class Again:
            def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
                return iter(Feed(held, 0, len(held), device))

        return Again()

    # 2: forge

    def forge(self, r: int) -> dict[str, Any]:
        images = 0
        for split in SPLITS:
            for way in self.ways:
                source = self.data.sources[split, way.source]
                n, size = len(source) * source.frames, self.config.data.size
                self.ledger.write_images(self.fakes_name(r, split, way), self.forged(r, source, way, split), n, size)
                images += n
        for way, store in zip(self.ways, self.fakes(r, "judge"), strict=True):
            self.write_pngs(r, way, store)
        self.ledger.write_lines(f"rounds/{r:02d}/fakes/manifest.jsonl", self.fakes_manifest(r))
        return {"images": images}

    def forged(self, r: int, source: Store, way: Way, split: str) -> Iterator[torch.Tensor]:
        """Fakes of every image of a store, as the detector gets them: uint8 n 3 s s, through the run's codec."""
        draws = rng(self.config.seed, r, "forge", split, way.name)
        keywords = {"reverse": True} if way.reverse else {}
        for chunk in source.chunks():
            with torch.inference_mode():
                images = to_float(chunk.flatten(0, -4).to(self.device))
                fakes = to_uint8(self.generator.sample(images, rng=draws, **keywords)).cpu()
            yield store_as(fakes.view(chunk.shape), self.config.data.codec).flatten(0, -4)

    def write_pngs(self, r: int, way: Way, store: Store) -> None:
        """The judged fakes as files that people and other tools can open, each with its marks."""
        marks = self.marks | {"Round": str(r)}
        for i, source in enumerate(self.data.sources["judge", way.source].names):
            origin = {"Made from": source} if self.has_source else {}
            strip = store[[i]].flatten(0, -4)  # of a clip all its frames, from left to right
            picture = png(torch.cat([*strip], -1).permute(1, 2, 0).numpy(), marks | origin)
            self.ledger.write_bytes(self.png_name(r, way, i), picture, durable=False)

    def png_name(self, r: int, way: Way, i: int) -> str:
        return f"rounds/{r:02d}/fakes/judge-{way.name or 'all'}/{i:05d}.png"

    def fakes_name(self, r: int, split: str, way: Way) -> str:
        return f"rounds/{r:02d}/fakes/{split}-{way.name or 'all'}.npy"

    def fakes_manifest(self, r: int) -> Iterator[dict[str, Any]]:
        for split in SPLITS:
            for way in self.ways:
                for i, name in enumerate(self.data.sources[split, way.source].names):
                    png = {"png": self.png_name(r, way, i)} if split == "judge" else {}
                    origin = {"source": name} if self.has_source else {}
                    yield {
                        "synthetic": True, "file": self.fakes_name(r, split, way), "row": i * self.frames,
                        **({"frames": self.frames} if self.frames > 1 else {}), **png, "split": split, **origin,
                        "method": self.method, "run": self.run, "round": r, "seed": self.config.seed,
                    }  # fmt: skip

    def fakes(self, r: int, split: str) -> list[Store]:
        """A round's fakes of a split, one store a way; the given ones where nobody forges."""
        if not self.ways:
            return [self.data.fakes[split]]
        found = []
        for way in self.ways:
            source = self.data.reals[split, way.source]
            names = [f"fake of round {r}: {name if self.has_source else i}" for i, name in enumerate(source.names)]
            images = self.ledger.read_images(self.fakes_name(r, split, way))
            found.append(Store(images, names, source.frames, source.videos))
        return found

    # 3 and 5: matches

    def threshold(self, r: int) -> float:
        return self.ledger.read(f"rounds/{r:02d}/phases/4-train-detector.json", "threshold")["threshold"]

    def judge_before(self, r: int) -> dict[str, Any]:
        """Last round's detector meets fakes that it has never seen. Nothing in round 0: there was no detector."""
        if r == 0:
            return {"scores": None}
        reals, fakes = self.data.reals_of("judge"), self.fakes(r, "judge")
        scores, real, fake = judge(self.detector, reals, fakes, self.threshold(r - 1), self.device)
        self.ledger.write_arrays(f"rounds/{r:02d}/before.npz", real=real, fake=fake)
        return {"scores": scores, "images": len(real) + len(fake)}

    def judge_after(self, r: int) -> dict[str, Any]:
        reals, fakes = self.data.reals_of("judge"), self.fakes(r, "judge")
        scores, real, fake = judge(self.detector, reals, fakes, self.threshold(r), self.device)
        baseline, arrays = self.baseline(r, reals, fakes)
        arrays |= {"after_real": real, "after_fake": fake}
        if self.ledger.has(f"rounds/{r:02d}/before.npz"):
            before = self.ledger.read_arrays(f"rounds/{r:02d}/before.npz")
            arrays |= {"before_real": before["real"], "before_fake": before["fake"]}
        self.ledger.write_arrays(f"rounds/{r:02d}/scores.npz", **arrays)
        return {"scores": scores, "baseline": baseline, "images": len(real) + len(fake)}

    def baseline(self, r: int, reals: list[Store], fakes: list[Store]) -> tuple[Any, dict[str, np.ndarray]]:
        """The baseline detector, trained afresh on what the detector trained on, on the same judge split."""
        config = self.config
        if not config.baseline or config.baseline == config.detector.name:
            return None, {}
        from arena.config import player as resolve_player

        found = resolve_player("detector", "detect", {"name": config.baseline}, {})
        rival = build(found, config.seed, r, "baseline")
        place(rival, self.device)
        steps, batch = 40, 128
        clips = rival.frames > 1
        feed = Feed(self.labelled(r, batch, "baseline", clips), 0, steps, self.device)
        for _ in rival.fit(self.fabric, feed, val=self.held(r, clips)):
            pass
        threshold = frozen_threshold(rival, self.data.reals_of("val"), self.fakes(r, "val"), self.device)
        scores, real, fake = judge(rival, reals, fakes, threshold, self.device)
        return {"name": config.baseline, **scores}, {"baseline_real": real, "baseline_fake": fake}

    # 6: record

    def record(self, r: int) -> dict[str, Any]:
        fakes = self.fakes(r, "judge")
        quality: dict[str, Any] = {}
        seen = []
        for way, store in zip(self.ways, fakes, strict=False):  # of given fakes no distance is taken
            reals, others = self.data.reals["judge", way.target], self.data.reals["train", way.target]
            images, real, train = (some.stills()[:] for some in (store, reals, others))
            scores = self.panel.score(images, real, train, known=train)
            quality |= {way.of(metric): value for metric, value in scores.items()}
            sources = self.data.sources["judge", way.source].stills()[:] if self.has_source else None
            truths = truth.truths_of(self, way)
            seen.append(Seen(images, real, sources, way.name, scores, None if truths is None else truths.stills()[:]))
        drawn = draw_sheets(self, r, fakes)
        inside = self.look_inside(r, fakes)
        if "method" in inside:
            drawn |= {"explained": ["image", "heat", "counter-evidence"]}
            drawn |= {"neighbours": ["fakes", "their nearest neighbours"]}
        folder, about = f"rounds/{r:02d}", {"contains": "synthetic images", **self.marks, "Round": r}
        rows = ({"file": f"{folder}/{name}.png", "rows": what, **about} for name, what in drawn.items())
        self.ledger.write_lines(f"{folder}/pictures.jsonl", rows)
        judged = (self.ledger.read_arrays(f"rounds/{old:02d}/scores.npz") for old in range(r + 1))
        found = alarms(seen, [(arrays["after_real"], arrays["after_fake"]) for arrays in judged])
        for alarm in found:
            self.watch.note(line(alarm))
        return {"quality": quality, "truth": self.truth_scores(r, fakes), "insight": inside, "alarms": found}

    def look_inside(self, r: int, fakes: list[Store]) -> dict[str, Any]:
        """Why the detector decides as it does on a fixed panel, and how its features lie (arena/insight.py)."""
        from arena.insight import look

        every = {old: self.fakes(old, "judge") for old in range(r)} | {r: fakes}
        swaps = ((way.name, store, wanted) for way, store, wanted in truth.swaps(self, fakes))
        marks = self.marks | {"Synthetic": "contains synthetic images: all but the reals", "Round": str(r)}
        try:
            reals = self.data.reals_of("judge")
            found = look(self.detector, reals, every, swaps, self.device, self.config.seed, marks)
        except ValueError as error:  # a detector without a layer that can be looked at
            return {"left_out": str(error)}
        for name, picture in found.pictures.items():
            self.ledger.write_bytes(f"rounds/{r:02d}/{name}.png", picture)
        self.ledger.write(f"rounds/{r:02d}/space.json", found.space)
        return found.figures

    def truth_scores(self, r: int, fakes: list[Store]) -> dict[str, Any]:
        return truth.scores(self, fakes)

    @property
    def panel(self) -> Any:
        if not hasattr(self, "_panel"):
            from arena.metrics.quality import quality_panel

            self._panel = quality_panel(self.device, scores="round")
        return self._panel

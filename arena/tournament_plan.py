"""Who takes part in a tournament, and the jobs that it takes.

A generator's *entry* is a generator on one data set; with a seed it is a run: one played on the spot (generator and
data from the configuration, one round), or a trained one, which is the same for all seeds. A *judge* is a trained
detector: a detector's name, the entries whose fakes it was trained on, a seed. Every judge scores the judge split of
every run of its seed, fakes and reals apart, so that any reals can be held against any fakes.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arena.config import EMBEDDED, RunConfig, resolve
from arena.errors import InputError
from arena.jobs import Job
from arena.tournament_config import Entry, TournamentConfig

WORK = "arena.tournament_work"


@dataclass(frozen=True)
class Played:
    """An entry by one seed: where its images lie (below OUT, or absolute), and the job that makes them, if any."""

    place: str
    job: Job | None
    content: str  # what its images depend on: the job's key, or the trained run's hash
    data: str  # the same for runs whose reals are the same


@dataclass(frozen=True)
class Contender:
    """A generator on one data set. `home` is its data set's name, `trained` says that it is a given run."""

    name: str
    home: str
    frames: int
    size: int
    codec: str
    played: Mapping[int, Played]
    trained: bool = False


@dataclass(frozen=True, eq=False)
class Judge:
    """A trained detector. on: the entries that it was trained on; kind: "one", "others" (all but one), or "own"."""

    detector: str
    on: tuple[str, ...]
    seed: int
    kind: str
    place: str
    content: str
    job: Job | None


@dataclass(frozen=True)
class Plan:
    """All that is played. `scores`: (judge, entry, side) -> the job that scores that side of that entry's images."""

    config: TournamentConfig
    contenders: tuple[Contender, ...]
    judges: tuple[Judge, ...]
    scores: Mapping[tuple[Judge, str, str], Job]
    device: str

    @property
    def runs(self) -> list[Job]:
        """The jobs that make images; all others build on them."""
        return [played.job for contender in self.contenders for played in contender.played.values() if played.job]

    @property
    def jobs(self) -> list[Job]:
        """Each once, inputs first: runs, then detector by detector its training and its scores."""
        found = self.runs
        for judge in self.judges:
            found += [judge.job] if judge.job else []
            found += [job for (whose, _, _), job in self.scores.items() if whose == judge]
        return list({job.key: job for job in found}.values())

    def without(self, lost: set[str]) -> "Plan":
        """The same with reals taken from where there are some, once it is known which runs failed (their keys)."""
        return replace(self, scores=scores_of(self.judges, self.contenders, self.device, lost))


def plan(config: TournamentConfig, device: str) -> Plan:
    """Settle everything that takes part, and its jobs. Raises InputError before anything is played."""
    contenders = tuple(entrants(config, device))
    for of in ("size", "codec"):
        kinds = {getattr(c, of): c.name for c in contenders}
        if len(kinds) > 1:
            said = " and ".join(f"{kind} ({name})" for kind, name in kinds.items())
            raise InputError(f"images of one {of} are needed, so that it gives nothing away: here are {said}.")
    judges = tuple(judges_of(config, contenders, device))
    if not judges:
        raise InputError("no detector takes part: name some under `detectors`, or give trained runs.")
    return Plan(config, contenders, judges, scores_of(judges, contenders, device, set()), device)


def scores_of(
    judges: tuple[Judge, ...], contenders: tuple[Contender, ...], device: str, lost: set[str]
) -> dict[tuple[Judge, str, str], Job]:
    """Who scores what. Reals that several entries share are scored once."""
    scores = {}
    for judge in judges:

        def gone(contender: Contender, seed: int = judge.seed) -> bool:
            job = contender.played[seed].job
            return job is not None and job.key in lost

        known: dict[str, Job] = {}
        for contender in sorted(contenders, key=gone):
            played = contender.played[judge.seed]
            scores[judge, contender.name, "fakes"] = score_job(judge, contender, played, "fakes", device)
            known.setdefault(played.data, score_job(judge, contender, played, "reals", device))
            scores[judge, contender.name, "reals"] = known[played.data]
    return scores


def score_job(judge: Judge, contender: Contender, played: Played, side: str, device: str) -> Job:
    made = tuple(job.key for job in (judge.job, played.job) if job)
    arguments = {"detector": judge.content, "images": played.content, "side": side, "device": device}
    return Job(
        f"{WORK}:score", arguments, made, f"scores/{side}-{{key}}.npz",
        f"{judge.detector} trained on {trained_on(judge)} scores {side} of {contender.name}, seed {judge.seed}",
        {"detector": judge.place, "run": played.place},
    )  # fmt: skip


def trained_on(judge: Judge) -> str:
    return " + ".join(judge.on) or "other fakes"


def entrants(config: TournamentConfig, device: str) -> Iterator[Contender]:
    for key, entry in config.generators.items():
        if entry.run:
            yield given(key, Path(entry.run), config.seeds)
            continue
        homes = entry.data or list(config.data) or [""]
        for home in homes:
            name = key if len(homes) == 1 else f"{key} on {home}"
            yield fresh(name, entry, key, home, config, device)


def fresh(name: str, entry: Entry, key: str, home: str, config: TournamentConfig, device: str) -> Contender:
    """A generator that is trained here, one run a seed."""
    from arena.build import find

    layers: list[Mapping[str, Any]] = [
        config.settings,
        {"generator": {"name": entry.name or key, **entry.options}, "detector": "spectrum", "baseline": None},
        {"rounds": 1, "device": device, **({"data": source_of(config.data[home])} if home else {})},
        {k: v for k, v in (("generator_steps", entry.steps), ("generator_batch", entry.batch)) if v},
    ]
    played = {}
    for seed in config.seeds:
        settled = resolve([*layers, {"seed": seed}], config.preset)
        arguments = {"settings": settled.model_dump()}
        assert settled.generator is not None
        path = f"runs/{slug(settled.generator.short, Path(settled.data.source).name)}-s{seed}-{{key}}"
        job = Job(f"{WORK}:generate", arguments, (), path, f"{name} is trained and forges, seed {seed}")
        needs = find(settled.generator.of).needs
        played[seed] = Played(job.output, job, job.key, digest([judged(settled.data.model_dump()), needs]))
    frames = settled.data.frames if settled.data.source == "faces-clips" else 1
    home = home or Path(settled.data.source).name
    return Contender(name, home, frames, settled.data.size, settled.data.codec, played)


def judged(data: dict[str, Any]) -> dict[str, Any]:
    """What the judge split's reals depend on: of drawn data not how many there are to train on."""
    return {k: v for k, v in data.items() if data["source"] not in EMBEDDED or k not in ("train", "val")}


def source_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's settings with a folder's path made absolute."""
    source = str(data.get("source", "faces"))
    return {**data, "source": source if source in EMBEDDED else str(Path(source).expanduser().resolve())}


def given(key: str, folder: Path, seeds: list[int]) -> Contender:
    """A trained run. What its images depend on is a hash of its fakes and reals, so it may be moved, not changed."""
    from arena.tournament_work import Forged, fingerprint

    forged = Forged(folder)
    made = [fingerprint(forged.fakes(split)) for split in ("train", "val", "judge")]
    data = digest([fingerprint(forged.reals(split)) for split in ("train", "val", "judge")])
    played = Played(str(folder.resolve()), None, digest([made, data]), data)
    source, codec = forged.config.data, forged.config.data.codec
    home = Path(source.source).name if forged.ways else key  # labelled folders have no one source
    return Contender(key, home, forged.frames, source.size, codec, dict.fromkeys(seeds, played), trained=True)


def judges_of(config: TournamentConfig, contenders: tuple[Contender, ...], device: str) -> Iterator[Judge]:
    every = [contender.name for contender in contenders]
    groups: list[tuple[tuple[str, ...], str]] = [((name,), "one") for name in every]
    if config.leave_one_out and len(every) > 2:
        groups += [(tuple(other for other in every if other != name), "others") for name in every]
    for key, entry in config.detectors.items():
        if entry.run:
            met = tuple(c.name for c in contenders if c.trained and c.played[config.seeds[0]].place == _root(entry.run))
            yield from own(key, Path(entry.run), met, config.seeds)
            continue
        for seed in config.seeds:
            for on, kind in groups:
                yield learner(key, entry, on, kind, seed, config, contenders, device)
    for key, generator in config.generators.items():
        if generator.run:
            yield from own(f"{key}’s own", Path(generator.run), (key,), config.seeds)


def _root(run: str) -> str:
    """The run folder that a path lies in, as `given` writes it."""
    path = Path(run).resolve()
    return str(next((folder for folder in (path, *path.parents) if (folder / "run.json").is_file()), path))


def own(name: str, folder: Path, on: tuple[str, ...], seeds: list[int]) -> Iterator[Judge]:
    """A trained run's own detector, the same for all seeds."""
    from arena.player import newest, open_player

    opened = open_player(folder, "detector")
    file = folder if folder.is_file() else newest(opened.root, "detector", opened.config)
    player = opened.config.detector.model_dump(exclude={"name"})
    content = digest([file_digest(file), player, opened.config.data.size])
    for seed in seeds:
        yield Judge(name, on, seed, "own", str(file.resolve()), content, None)


def learner(
    key: str, entry: Entry, on: tuple[str, ...], kind: str, seed: int, config: TournamentConfig,
    contenders: tuple[Contender, ...], device: str,
) -> Judge:  # fmt: skip
    """A detector that is trained here on some entries' fakes."""
    runs = [c.played[seed] for c in contenders if c.name in on]
    settled = detector_settings(key, entry, seed, config, contenders, device)
    arguments = {"settings": settled.model_dump(), "runs": [played.content for played in runs]}
    made = tuple(played.job.key for played in runs if played.job)
    said = " + ".join(on)
    job = Job(f"{WORK}:fit", arguments, made, f"detectors/{slug(settled.detector.short)}-s{seed}-{{key}}",
              f"{key} is trained on {said}, seed {seed}", {"runs": [played.place for played in runs]})  # fmt: skip
    return Judge(key, on, seed, kind, job.output, job.key, job)


def detector_settings(
    key: str, entry: Entry, seed: int, config: TournamentConfig, contenders: tuple[Contender, ...], device: str
) -> RunConfig:
    frames = {c.frames for c in contenders}
    data = {"size": contenders[0].size, "codec": contenders[0].codec}
    data |= {"source": "faces-clips"} if frames != {1} else {}
    layers: list[Mapping[str, Any]] = [
        {k: v for k, v in config.settings.items() if k != "data"},
        {"generator": None, "detector": {"name": entry.name or key, **entry.options}, "baseline": None},
        {"rounds": 1, "device": device, "seed": seed, "data": data, "replay": 0.0},
        {k: v for k, v in (("detector_steps", entry.steps), ("detector_batch", entry.batch)) if v},
    ]
    settled = resolve(layers, config.preset)
    asked = settled.detector.options.get("frames", 1)
    if asked > 1 and frames != {asked}:
        forged = " and ".join(map(str, sorted(frames)))
        raise InputError(
            f"detector {key} looks at clips of {asked} frames, and the generators forge {forged} at a time. Expected "
            f"data with `source: faces-clips, frames: {asked}` for every generator."
        )
    return settled


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. The run's files should all be there.") from error


def slug(*words: str) -> str:
    """Words as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-").lower()[:60]

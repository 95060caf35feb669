"""Runs side by side: what they were asked, how they went, and whether their detectors differ where that can be tested.

The test (DeLong's for correlated AUCs) needs both detectors' scores of the same images in the same order. So it is made
where two runs' judge reals are the same bytes: then each run's detector, that of its last round, scores the judge fakes
of both. Scores that a run has stored are taken; the others are made here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena.errors import InputError
from arena.report.ledger_view import read_summary

if TYPE_CHECKING:
    import numpy as np

    from arena.tournament_work import Forged

SCHEMA = 1
MOST = 12  # runs
Row = dict[str, Any]


@dataclass
class Run:
    """A run as it is compared. `last`: its last round that is over; None where none is."""

    name: str
    root: Path
    summary: Mapping[str, Any]
    logits: dict[str, "np.ndarray"] = field(default_factory=dict)  # of its detector, by the hash of the images

    @property
    def last(self) -> int | None:
        rounds = self.summary["rounds"]
        return rounds[-1]["round"] if rounds else None


def compare(
    folders: Sequence[Path], device: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """All that there is to say of some runs beside each other, plain. Raises InputError for what is no run."""
    if not 2 <= len(folders) <= MOST:
        raise InputError(f"compare takes 2 to {MOST} runs, got {len(folders)}.")
    summaries = [read_summary(Path(folder)) for folder in folders]
    runs = [Run(name, Path(f), s) for name, f, s in zip(names_of(folders), folders, summaries, strict=True)]
    tests, untested = tested(runs, device, progress)
    kept = ("status", "settings", "provenance", "data", "rounds", "notes")
    return {
        "schema": SCHEMA,
        "runs": [{"name": r.name, "folder": str(r.root), **{key: r.summary.get(key) for key in kept}} for r in runs],
        "differences": differing([run.summary["settings"] for run in runs]),
        "tests": tests,
        "untested": untested,
    }


def names_of(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents' as it takes to tell them apart."""
    whole = [Path(folder).resolve() for folder in folders]
    if len(set(whole)) < len(whole):
        twice = next(path for path in whole if whole.count(path) > 1)
        raise InputError(f"{twice} is given twice: a run is compared with others.")
    depth = 1
    while len({path.parts[-depth:] for path in whole}) < len(whole):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in whole]


def differing(settings: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The settings in which any two runs differ: `key`, and a value a run (None where it has no such setting)."""
    from arena.config import differences

    keys: dict[str, None] = {}
    for other in settings[1:]:
        keys |= dict.fromkeys(found.partition(": ")[0] for found in differences(settings[0], other))
    return [{"key": key, "values": [_at(some, key) for some in settings]} for key in keys]


def _at(settings: Any, key: str) -> Any:
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, Mapping) else None
    return settings


# The test


def tested(
    runs: Sequence[Run], device: str, progress: Callable[[int, int], None] | None
) -> tuple[list[Row], list[Row]]:
    """For each pair of runs: the paired test on each one's judge fakes, or why there is none."""
    images: dict[str, Judged | str] = {run.name: judged(run) for run in runs}
    pairs, tests, untested = list(combinations(runs, 2)), [], []
    for done, (a, b) in enumerate(pairs):
        if progress:
            progress(done, len(pairs))
        mine, theirs = images[a.name], images[b.name]
        why = mine if isinstance(mine, str) else theirs if isinstance(theirs, str) else unlike(a, mine, b, theirs)
        if why or isinstance(mine, str) or isinstance(theirs, str):
            untested.append({"a": a.name, "b": b.name, "why": why})
            continue
        same = mine.fakes == theirs.fakes
        for home, of in ((f"{a.name} and {b.name}" if same else a.name, mine), *(() if same else ((b.name, theirs),))):
            tests.append({"a": a.name, "b": b.name, "fakes_of": home, **paired(a, mine, b, theirs, of, device)})
    for test, p in zip(tests, adjusted([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p
    return tests, untested


@dataclass
class Judged:
    """What a run's detector was judged on in its last round: hashes of reals and of fakes, and where they are."""

    forged: "Forged"
    reals: str
    fakes: str


def judged(run: Run) -> "Judged | str":
    """A run's judge split, or why it has none to test on."""
    from arena.tournament_work import Forged, fingerprint

    if run.last is None:
        return f"{run.name} has no round that is over"
    try:
        forged = Forged(run.root, run.last)
        return Judged(forged, fingerprint(forged.reals("judge")), fingerprint(forged.fakes("judge")))
    except InputError as error:
        return str(error)


def unlike(a: Run, mine: Judged, b: Run, theirs: Judged) -> str:
    """Why two runs' detectors cannot be tested against each other; empty where they can."""
    if mine.reals == theirs.reals:
        for run, of in ((a, mine), (b, theirs)):
            frames = (run.summary["settings"]["detector"].get("options") or {}).get("frames", 1)
            if frames != 1 and frames != of.forged.frames:
                return (
                    f"the detector of {run.name} looks at clips of {frames} frames, and not all images are such clips"
                )
        return ""
    references = [run.summary["data"].get("reference") for run in (a, b)]
    if references[0] != references[1]:
        short = " and ".join(str(reference)[:12] for reference in references)
        return f"their judge reals are different images (reference {short})"
    found = differing([run.summary["settings"].get("data") or {} for run in (a, b)])
    said = ", ".join(f"{row['key']} {row['values'][0]} and {row['values'][1]}" for row in found)
    return (
        f"their judge reals are the same files, but not the same pixels in the same order ({said or 'domains differ'})"
    )


def paired(a: Run, mine: Judged, b: Run, theirs: Judged, of: Judged, device: str) -> Row:
    """DeLong's paired test of two runs' detectors on the common reals and on one run's judge fakes."""
    from arena.metrics.detection import auc, delong_paired

    scores = []
    stored = 0
    for run, own in ((a, mine), (b, theirs)):
        for kind, wanted in (("real", own.reals), ("fake", of.fakes)):
            if wanted not in run.logits and wanted == getattr(own, f"{kind}s"):
                arrays = own.forged.ledger.read_arrays(f"rounds/{run.last:02d}/scores.npz")
                run.logits[wanted] = arrays[f"after_{kind}"]
            stored += wanted == getattr(own, f"{kind}s")
            if wanted not in run.logits:
                stores = of.forged.reals("judge") if kind == "real" else of.forged.fakes("judge")
                run.logits[wanted] = scored(run, list(stores.values()), device)
            scores.append(run.logits[wanted])
    difference, low, high, p = delong_paired(scores[0], scores[1], scores[2], scores[3])
    return {
        "auc_a": auc(scores[0], scores[1]), "auc_b": auc(scores[2], scores[3]), "difference": difference, "low": low,
        "high": high, "p": p, "n_real": len(scores[0]), "n_fake": len(scores[1]), "stored": stored == 4,
    }  # fmt: skip


def scored(run: Run, stores: list[Any], device: str) -> "np.ndarray":
    """The logits of a run's detector as it was at the end of its last round."""
    import torch

    from arena.match import logits
    from arena.player import open_player
    from arena.training import place

    detector = open_player(run.root / f"rounds/{run.last:02d}/detector.safetensors", "detector").player
    place(detector, torch.device(device))
    return logits(detector, stores, torch.device(device))


def adjusted(ps: Sequence[float]) -> list[float]:
    """Holm's p values: of many tests, those that stay below 0.05 all hold together in 95 of 100 comparisons."""
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    found, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        found[place] = largest
    return found

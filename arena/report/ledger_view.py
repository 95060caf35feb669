"""What summary.json says, typed: rounds, scores and distances, with None wherever a figure is not there (yet)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from arena.errors import InputError
from arena.files import read_json
from arena.metrics.shares import wilson

SCHEMA = 1
PREFERRED = ("fid", "rfd", "kid", "sfd")  # which family of distances speaks for a run in table and headline


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; `low` and `high` are None where the ledger holds no interval."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None

    def compare(self, other: "Estimate") -> int | None:
        """1 = clearly above the other, -1 = clearly below, 0 = the intervals overlap, None = there are no intervals."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return None
        return 1 if self.low > other.high else -1 if self.high < other.low else 0


@dataclass(frozen=True)
class Score:
    """How one detector did on the judge split of one round (positive = fake; the threshold is a logit)."""

    auc: Estimate | None = None
    name: str = ""
    ap: float | None = None
    eer: float | None = None
    n_real: float | None = None
    n_fake: float | None = None
    threshold: float | None = None
    accuracy_frozen: float | None = None
    tpr_at_1_fpr: float | None = None
    escape: float | None = None

    @property
    def escape_interval(self) -> Estimate | None:
        """The share of fakes called real, with the Wilson 95 % interval of a share of `n_fake` (Wilson 1927)."""
        if self.escape is None or not 0 <= self.escape <= 1:
            return None
        return Estimate(*wilson(self.escape * self.n_fake, self.n_fake)) if self.n_fake else Estimate(self.escape)


@dataclass(frozen=True)
class Distance:
    """One image distance of one round: name without direction, direction ("a2b", or "" where there is one only)."""

    name: str
    direction: str
    estimate: Estimate
    n: float | None = None
    floor: float | None = None
    features: str = ""
    better: str = "lower"
    curve: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Truth:
    """One measure against the known truth: what the fakes reach, and what `references` (a copy, a mean picture) reach.

    `gains`: the fakes' lead over a reference, image by image.
    """

    name: str
    direction: str
    estimate: Estimate
    n: float | None
    what: str
    how: str
    references: dict[str, float]
    gains: dict[str, Estimate] = field(default_factory=dict)


REFERENCES = {
    "copy": "copying the source", "mean": "mean picture", "plain": "plain enlargement",
    "floor": "the exact swap itself", "chance": "chance",
}  # fmt: skip


@dataclass(frozen=True)
class Round:
    number: int
    before: Score | None = None
    after: Score | None = None
    baseline: Score | None = None
    distances: list[Distance] = field(default_factory=list)
    truths: list[Truth] = field(default_factory=list)
    insight: Mapping[str, Any] = field(default_factory=dict)
    alarms: list[Mapping[str, Any]] = field(default_factory=list)
    audit: Mapping[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def distance(self, name: str | None, direction: str) -> Distance | None:
        return next((d for d in self.distances if (d.name, d.direction) == (name, direction)), None)


class Judged(NamedTuple):
    """A round whose detector has been judged after its training."""

    round: Round
    after: Score
    auc: Estimate


def read_summary(run: Path) -> dict[str, Any]:
    """Read RUN/summary.json. Raises InputError where there is no run, or where the file is not a summary we know."""
    path = Path(run) / "summary.json"
    if not path.is_file():
        return _begun(Path(run))
    summary = read_json(path)
    if not isinstance(summary, dict) or not isinstance(summary.get("rounds"), list):
        raise InputError(f"{path} is damaged: expected an object with a list of rounds. `arena run --out` rewrites it.")
    if summary.get("schema") != SCHEMA:
        raise InputError(
            f"{path} has schema {summary.get('schema')!r}, this version reads {SCHEMA}. Use the version that wrote it."
        )
    for place, entry in enumerate(summary["rounds"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("round"), int):
            raise InputError(
                f"{path} is damaged: rounds[{place}] has no round number. `arena run --out` on the run rewrites it."
            )
    return summary


def _begun(run: Path) -> dict[str, Any]:
    """The summary of a run whose first round is not over: its settings and provenance, no rounds."""
    if not (run / "run.json").is_file():
        raise InputError(f"{run} is no run folder: no summary.json in it. Give the folder that `arena run` named.")
    settled = mapping(read_json(run / "run.json"))
    data = mapping(read_json(run / "data" / "data.json")) if (run / "data" / "data.json").is_file() else {}
    parts = {"settings": mapping(settled.get("settings")), "provenance": mapping(settled.get("provenance"))}
    return {"schema": SCHEMA, "run": run.resolve().name, "status": "running", **parts, "data": data, "rounds": []}


def rounds_of(summary: Mapping[str, Any]) -> list[Round]:
    """The rounds of a summary in their order; what is missing or no finite number becomes None or is left out."""
    return sorted((_round(entry) for entry in summary.get("rounds") or []), key=lambda entry: entry.number)


def judged(rounds: Iterable[Round]) -> list[Judged]:
    """The rounds that have an AUC after training."""
    return [Judged(entry, entry.after, entry.after.auc) for entry in rounds if entry.after and entry.after.auc]


def _round(entry: Mapping[str, Any]) -> Round:
    distances = []
    for key, given in mapping(entry.get("quality")).items():
        estimate = _estimate(given, "value", "low", "high")
        if estimate is None:
            continue
        name, _, direction = key.partition(":")
        n, floor, features = number(given.get("n")), number(given.get("floor")), str(given.get("features") or "")
        better = str(given.get("better") or "lower")
        curve = mapping(given.get("curve"))
        distances.append(Distance(name, direction, estimate, n, floor, features, better, curve))
    truths = []
    for key, given in mapping(entry.get("truth")).items():
        estimate = _estimate(given, "value", "low", "high")
        if estimate is not None:
            name, _, direction = key.partition(":")
            references = {kind: found for kind in REFERENCES if (found := number(given.get(kind))) is not None}
            over = {kind: _estimate(given.get(f"over_{kind}"), "value", "low", "high") for kind in REFERENCES}
            gains = {kind: gain for kind, gain in over.items() if gain}
            unit, how = (str(given.get(key) or "") for key in ("unit", "how"))
            better = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}"}.get(str(given.get("better")), "")
            what = f"{name}{f', {unit}' if unit else ''} {better}".rstrip()
            truths.append(Truth(name, direction, estimate, number(given.get("n")), what, how, references, gains))
    return Round(
        truths=truths,
        insight=mapping(entry.get("insight")),
        alarms=[mapping(alarm) for alarm in entry.get("alarms") or []],
        audit=mapping(entry.get("audit")),
        number=entry["round"],
        before=_score(entry.get("before")),
        after=_score(entry.get("after")),
        baseline=_score(entry.get("baseline")),
        distances=distances,
        seconds=_numbers(entry.get("seconds")),
        rates=_numbers(entry.get("images_per_second")),
    )


def _score(given: Any) -> Score | None:
    if not mapping(given):
        return None
    figures = {entry.name: number(given.get(entry.name)) for entry in fields(Score)[2:]}
    return Score(_estimate(given, "auc", "auc_low", "auc_high"), str(given.get("name") or ""), **figures)


def _estimate(given: Any, value: str, low: str, high: str) -> Estimate | None:
    given = mapping(given)
    centre = number(given.get(value))
    return None if centre is None else Estimate(centre, number(given.get(low)), number(given.get(high)))


def _numbers(given: Any) -> dict[str, float]:
    return {key: found for key, value in mapping(given).items() if (found := number(value)) is not None}


def mapping(given: Any) -> Mapping[str, Any]:
    """`given` if it is a mapping, else an empty one."""
    return given if isinstance(given, Mapping) else {}


def number(value: Any) -> float | None:
    """`value` as a finite number, else None (a missing figure is shown as missing, never as 0)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def main_distance(rounds: Iterable[Round]) -> str | None:
    """The distance that speaks for the run: FID where there is one, else the first of the panel."""
    names = distance_names(rounds)
    rank = {family: place for place, family in enumerate(PREFERRED)}
    return min(names, key=lambda name: rank.get(family_of(name), len(rank)), default=None)


def distance_names(rounds: Iterable[Round]) -> list[str]:
    """Names of all distances without directions, each once, in the ledger's order."""
    return list(dict.fromkeys(d.name for entry in rounds for d in entry.distances))


def directions(rounds: Iterable[Round], name: str) -> list[str]:
    """The directions in which a distance was taken ("a2b", "b2a", or "" alone), in the ledger's order."""
    return list(dict.fromkeys(d.direction for entry in rounds for d in entry.distances if d.name == name))


def family_of(name: str) -> str:
    """fid, rfd, kid, sfd ...: the name up to the first dash."""
    return name.partition("-")[0].lower()


def forged(summary: Mapping[str, Any]) -> bool:
    """Whether a generator made the fakes; else they were given, in labelled folders."""
    return mapping(summary.get("settings")).get("generator", {}) is not None


def fakes(summary: Mapping[str, Any]) -> str:
    """Whose fakes: "CycleGAN's fakes", or "the given fakes"."""
    return f"{player(summary, 'generator')}’s fakes" if forged(summary) else "the given fakes"


def versus(summary: Mapping[str, Any]) -> str:
    """ "CycleGAN against CNNSpot", or "CNNSpot"."""
    both = [player(summary, role) for role in ("generator", "detector") if role == "detector" or forged(summary)]
    return " against ".join(both)


def player(summary: Mapping[str, Any], role: str) -> str:
    """The display name of the run's "generator" or "detector": its class's, else its configuration's."""
    given = mapping(mapping(summary.get("settings")).get(role))
    return str(given.get("of") or "").rpartition(":")[2] or str(given.get("name") or f"the {role}")

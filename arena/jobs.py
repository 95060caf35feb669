"""Work as plain descriptions, and the engine that does it: the seam where another machine may take over.

A `Job` names a function, its arguments and the jobs whose results it builds on, all of which make its key. What a job
leaves behind lies in one folder `root`: its output, and as its last act `jobs/KEY.json` with what it found. So a job
that stands there is not done again, one that was killed is, and one whose arguments (or whose inputs' arguments)
changed is another job.

An `Engine` takes jobs, inputs before what builds on them, and hands back a result each as it comes: the local one here
does one at a time. An engine of several processes or machines needs no more than a folder that all of them see: for
each job whose inputs are done, let somebody call `perform(Job.from_dict(...), root)`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from arena.errors import DivergedError, InputError, StoppedError
from arena.files import read_json, write_json


@dataclass(frozen=True)
class Job:
    """One piece of work; all of it is plain, so that it can be written as JSON.

    work: the function, module:name; it is called with the job and `root`, and returns what it found (plain, too).
    arguments: all that decides the result. inputs: keys of the jobs it builds on. path: of its output, a folder or a
    file below `root`; {key} in it is the job's, all else follows from the arguments (two jobs of one key are one job).
    about: what a person reads. places: where its inputs lie, below `root` or absolute. The last three are no part of
    the key.
    """

    work: str
    arguments: dict[str, Any]
    inputs: tuple[str, ...] = ()
    path: str = "out/{key}"
    about: str = ""
    places: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        said = json.dumps([self.work, self.arguments, self.inputs], sort_keys=True, allow_nan=False)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    @property
    def output(self) -> str:
        return self.path.replace("{key}", self.key)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(given: dict[str, Any]) -> "Job":
        return Job(**{**given, "inputs": tuple(given["inputs"])})


@dataclass(frozen=True)
class Result:
    """What became of a job: "done", "kept" (it was done before), "failed", or "skipped" (an input failed)."""

    job: Job
    status: str
    found: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0  # that the work took when it was done


class Engine(Protocol):
    def run(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """A result for each job. Jobs come after their inputs, if not in an earlier call; one whose input is not done
        (it failed) is skipped, and nothing else."""
        ...


def record_of(key: str, root: Path) -> Path:
    return root / "jobs" / f"{key}.json"


def finished(job: Job, root: Path) -> dict[str, Any] | None:
    """The record of a job that is done and whose output is there; else None."""
    record = record_of(job.key, root)
    if not record.is_file() or not (root / job.output).exists():
        return None
    try:
        found = read_json(record)
    except InputError:
        return None  # a record that was cut off: the job is done again
    if not isinstance(found, dict) or not {"found", "seconds"} <= found.keys():
        raise InputError(f"{record} is damaged. Delete it, and the job is done again.")
    return found


def perform(job: Job, root: Path) -> dict[str, Any]:
    """Do a job whose inputs are done, or find it done; return its record: `found`, `seconds`."""
    from arena.build import find

    kept = finished(job, root)
    if kept is not None:
        return kept
    work: Callable[[Job, Path], dict[str, Any]] = find(job.work)
    (root / job.output).parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    found = work(job, root)
    record = {"job": job.to_dict(), "found": found, "seconds": time.perf_counter() - began}
    write_json(record_of(job.key, root), record)
    return record


class Local:
    """Does the jobs in this process, one after the other. `starting` is told of each that is not done yet."""

    def __init__(self, root: Path, starting: Callable[[Job], None] = lambda job: None):
        self.root, self.starting = root, starting
        self._lost: dict[str, str] = {}  # key -> the job whose failure took it along

    def run(self, jobs: Iterable[Job]) -> Iterator[Result]:
        from arena.training import stopping

        for job in jobs:
            if stopping.is_set():
                raise StoppedError(f"before: {job.about}")
            yield self._one(job)

    def _one(self, job: Job) -> Result:
        missing = next((key for key in job.inputs if not record_of(key, self.root).is_file()), None)
        if missing is not None:
            self._lost[job.key] = self._lost.get(missing, missing)
            return Result(job, "skipped", error=f"builds on: {self._lost[job.key]}")
        try:
            kept = finished(job, self.root)
            if kept is not None:
                return Result(job, "kept", kept["found"], seconds=kept["seconds"])
            self.starting(job)
            record = perform(job, self.root)
            return Result(job, "done", record["found"], seconds=record["seconds"])
        except StoppedError:
            raise
        except Exception as error:  # whatever it is: the other jobs go on, and this one is named
            self._lost[job.key] = job.about
            said = " ".join(str(error).split())
            named = said if isinstance(error, InputError | DivergedError) else f"{type(error).__name__}: {said}"
            return Result(job, "failed", error=named)

"""A tournament: every generator's fakes before every detector, trained on one, on all but one, or brought along.

Everything is a job (arena/jobs.py), so a tournament that was stopped goes on, and one whose configuration changed does
again only what changed. OUT holds

    tournament.json     the result; matrix.json the matrix alone, matrix.csv a row a detector, seed and test
    tournament.html     the page; matrix.svg the heat map alone
    runs/ detectors/    a run folder for every generator and every detector trained here
    scores/ jobs/       logits, and what is done
"""

import csv
import fcntl
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arena.errors import InputError
from arena.files import atomic, write_json
from arena.jobs import Engine, Job, Local, Result
from arena.tournament_config import TournamentConfig
from arena.tournament_plan import Plan, plan

SCHEMA = 1
MADE = ("parameters", "seconds_per_step", "quality")
HEADER = ("detector", "trained on", "seed", "tested on", "auc", "low", "high", "n_real", "n_fake", "seen")


def play(
    config: TournamentConfig, out: Path, device: str = "cpu", engine: Engine | None = None,
    progress: Callable[[Plan, Result | None], None] = lambda plan, result: None,
) -> dict[str, Any]:  # fmt: skip
    """Play (or continue, or find finished) a tournament in `out`; return its result and leave its page.

    `progress` is called with None before the runs and again before the rest, and with each result. A job that fails is
    named in the result under `failed`, and whatever does not build on it is played all the same. Raises InputError
    before anything is written where the configuration cannot be played.
    """
    from arena.report.tournament import write_page
    from arena.tournament_tables import tables

    settled, engine = plan(config, device), engine or Local(out)
    with held(out):
        results: dict[str, Result] = {}

        def do(jobs: Iterable[Job]) -> None:
            progress(settled, None)
            for result in engine.run(jobs):
                results[result.job.key] = result
                progress(settled, result)

        do(settled.runs)
        lost = {key for key, result in results.items() if result.status == "failed"}
        settled = settled.without(lost)
        do(job for job in settled.jobs if job.key not in results)
        found = {
            "schema": SCHEMA, "about": config.about, "config": config.model_dump(), **tables(settled, results, out),
            "players": players(settled, results), **of_jobs(settled, results), "provenance": provenance(settled),
        }  # fmt: skip
        write_json(out / "matrix.json", {key: found[key] for key in ("schema", "columns", "matrix")})
        write_csv(out / "matrix.csv", found)
        write_json(out / "tournament.json", found)
        write_page(out)
    return found


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder: one process at a time, and no folder of somebody else's."""
    strange = out.is_dir() and {entry.name for entry in out.iterdir()} - {".lock", ".DS_Store"}
    if strange and "jobs" not in strange:
        raise InputError(f"--out {out} holds files and is no tournament (it has no jobs/). Choose a new folder.")
    try:
        (out / "jobs").mkdir(parents=True, exist_ok=True)
        lock = open(out / ".lock", "a")  # noqa: SIM115 - closed below, once the tournament is over
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}. Choose another --out.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out} is in use by another tournament. Wait for it, or choose another --out.") from None
        yield


def players(settled: Plan, results: Mapping[str, Result]) -> dict[str, Any]:
    """What played, with all its settings, so that a reader can play it again; of generators what training them gave."""
    first = settled.config.seeds[0]

    def settings(job: Any, of: str) -> dict[str, Any]:
        asked = job.arguments["settings"]
        return {of: asked[of], **{key: asked[key] for key in (f"{of}_steps", f"{of}_batch")}}

    generators = []
    for contender in settled.contenders:
        played = contender.played[first]
        row = {"name": contender.name, "data": contender.home, "place": played.place, "trained": contender.trained}
        row |= {"size": contender.size, "codec": contender.codec, "frames": contender.frames}
        if played.job:
            row |= settings(played.job, "generator") | {"data_settings": played.job.arguments["settings"]["data"]}
            row["made"] = {k: v for k, v in results[played.job.key].found.items() if k in MADE}
        generators.append(row)
    detectors: dict[str, dict[str, Any]] = {}
    for judge in settled.judges:
        row = {"name": judge.detector, "trained": judge.job is None}
        row |= settings(judge.job, "detector") if judge.job else {"place": judge.place}
        detectors.setdefault(judge.detector, row)
    return {"generators": generators, "detectors": list(detectors.values())}


def of_jobs(settled: Plan, results: Mapping[str, Result]) -> dict[str, Any]:
    """How many jobs there were, which failed and why, and what they cost."""
    failed = [
        {"job": r.job.about, "key": r.job.key, "error": r.error} for r in results.values() if r.status == "failed"
    ]
    skipped = [{"job": r.job.about, "error": r.error} for r in results.values() if r.status == "skipped"]
    seconds: dict[str, float] = {}
    for result in results.values():
        work = result.job.work.partition(":")[2]
        seconds[work] = seconds.get(work, 0.0) + result.seconds
    return {"jobs": len(results), "failed": failed, "skipped": skipped, "seconds": seconds}


def provenance(settled: Plan) -> dict[str, Any]:
    from types import SimpleNamespace

    from arena.provenance import provenance

    return provenance(SimpleNamespace(device=settled.device))


def write_csv(path: Path, found: Mapping[str, Any]) -> None:
    """A row for each detector, seed and test."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for line in found["matrix"]:
        on = " + ".join(line["trained_on"])
        for column, cell in zip(found["columns"], line["cells"], strict=True):
            for row in cell["seeds"] if cell else ():
                figures = [repr(row[key]) for key in ("auc", "low", "high", "n_real", "n_fake")]
                writer.writerow([line["detector"], on, row["seed"], column, *figures, int(cell["seen"])])
    with atomic(path) as file:
        file.write(text.getvalue().encode())

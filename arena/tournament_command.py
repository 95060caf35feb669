"""`arena tournament`: the command line of arena/tournament.py."""

import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arena.errors import StoppedError
from arena.run_command import saving_on_signals
from arena.terminal import example

if TYPE_CHECKING:
    from arena.jobs import Job, Result
    from arena.report.table import Table
    from arena.tournament_plan import Plan

PLAIN_SECONDS = 15.0  # between two plain lines, but for failures


@click.command(epilog=example("""
arena tournament tiny                         a minute: does it work here?
arena tournament faces --out tournaments/faces
arena tournament mine.yaml --out tournaments/mine        goes on where it stopped; plays again what changed
"""))  # fmt: skip
@click.argument("config", metavar="CONFIG")
@click.option("--out", type=click.Path(path_type=Path), help="Its folder; one that exists goes on. [tournaments/NAME]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of tables.")
def tournament(config: str, out: Path | None, device: str, as_json: bool) -> None:
    """Every generator's fakes before every detector: who sees whom, and whose skill carries to the unseen.

    CONFIG is a YAML file, or the name of a packaged one (docs/tournament.md): generators, detectors, data and seeds. A
    detector is trained on one generator's fakes and tested on all, trained on all but one and tested on that one;
    trained runs take part as they are. Everything is resumed job by job. OUT gets tournament.html, tournament.json,
    matrix.csv.

    Exits with 1 where a job failed: the rest is played and the page names what is missing.
    """
    from arena.build import device as check_device
    from arena.jobs import Local
    from arena.tournament import play
    from arena.tournament_config import read_config

    settled, used = read_config(config), check_device(device)
    out = out or Path("tournaments") / Path(config).stem
    click.echo(f"Tournament folder: {out}", err=True)
    shown = Live() if sys.stderr.isatty() else Plain()
    try:
        with saving_on_signals():
            found = play(settled, out, used, Local(out, shown.starting), shown)
    except (StoppedError, KeyboardInterrupt) as stop:
        shown.close()
        said = f" ({stop})" if str(stop) else ""
        again = f"arena tournament {shlex.quote(config)} --out {shlex.quote(str(out))}"
        click.echo(f"arena: stopped{said}. Go on with: {again}", err=True)
        raise click.exceptions.Exit(130) from None
    finally:
        shown.close()
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        print_tables(found)
        click.echo(f"Page: {out / 'tournament.html'}")
    for entry in found["failed"]:
        click.echo(f"arena: failed: {entry['job']}: {entry['error']}", err=True)
    if found["failed"]:
        raise click.exceptions.Exit(1)


class Plain:
    """A line every now and then, with the time that is left as far as the jobs done so far tell."""

    def __init__(self) -> None:
        self.said, self.done, self.kept, self.failed = 0.0, 0, 0, 0
        self.groups: dict[str, tuple[str, str]] = {}
        self.left: dict[str, tuple[str, str]] = {}
        self.over: set[str] = set()
        self.took: dict[tuple[str, str], list[float]] = {}

    def __call__(self, plan: "Plan", result: "Result | None") -> None:
        if result is None:
            first, self.groups = not self.groups, groups(plan)
            self.left = {key: group for key, group in self.groups.items() if key not in self.over}
            return self.begin() if first else None
        self.left.pop(result.job.key, None)
        self.over.add(result.job.key)
        self.done += 1
        self.kept += result.status == "kept"
        if result.status in ("done", "kept"):
            self.took.setdefault(self.groups[result.job.key], []).append(result.seconds)
        if result.status == "failed":
            self.failed += 1
            self.say(f"failed: {result.job.about}: {result.error}")
        self.step()

    def remaining(self) -> float | None:
        """Seconds, from the mean of what was done of the same player, else of the same kind of work; None: unknown."""
        means = {group: sum(took) / len(took) for group, took in self.took.items()}
        kinds: dict[str, list[float]] = {}
        for (kind, _), took in means.items():
            kinds.setdefault(kind, []).append(took)
        if any(kind not in kinds for kind, _ in self.left.values()):
            return None
        return sum(means.get(group, sum(kinds[group[0]]) / len(kinds[group[0]])) for group in self.left.values())

    def eta(self) -> str:
        from arena.report.table import duration

        left = self.remaining()
        return "" if left is None or not self.left else f", about {duration(left)} left"

    def begin(self) -> None:
        self.say(f"{len(self.groups)} jobs")

    def starting(self, job: "Job") -> None:
        if time.monotonic() - self.said > PLAIN_SECONDS:
            self.say(f"[{self.done + 1}/{len(self.groups)}] {job.about}{self.eta()}")

    def step(self) -> None: ...
    def close(self) -> None: ...

    def say(self, text: str) -> None:
        self.said = time.monotonic()
        print(text, file=sys.stderr, flush=True)


class Live(Plain):
    """A bar with the job in hand and the time that is left."""

    def begin(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        now = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
        left = TextColumn("{task.fields[left]}", style="dim")
        columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), left, now)
        self.bar = Progress(*columns, console=Console(stderr=True), expand=True)
        self.task = self.bar.add_task("", total=len(self.groups), left="")
        self.bar.start()

    def starting(self, job: "Job") -> None:
        self.bar.update(self.task, description=job.about.replace("[", "("))

    def step(self) -> None:
        self.bar.update(self.task, completed=self.done, left=self.eta().removeprefix(", "))

    def say(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()


def groups(plan: "Plan") -> dict[str, tuple[str, str]]:
    """Of each job the kind of work and whose it is: jobs that should take alike."""
    found = {p.job.key: ("run", c.name) for c in plan.contenders for p in c.played.values() if p.job}
    found |= {judge.job.key: ("fit", judge.detector) for judge in plan.judges if judge.job}
    return found | {job.key: ("score", judge.detector) for (judge, _, _), job in plan.scores.items()}


def print_tables(found: dict[str, Any]) -> None:
    from rich.console import Console

    from arena.report.table import Table
    from arena.report.tournament import detector_table, generator_table, matrices, verdict

    console = Console()
    for sentence in verdict(found):
        console.print(sentence, highlight=False, markup=False)
    print_table(console, "Detectors", detector_table(found, brief=console.width < 100))
    print_table(console, "Generators", generator_table(found))
    for matrix in matrices(found):
        lines = [*matrix["rows"], *([("all but the column’s", matrix["left_out"])] if matrix["left_out"] else [])]
        rows = [[name, *("\n".join([c.text + "*" * bool(c.mark), *c.below]) for c in cells)] for name, cells in lines]
        corner = "came with" if matrix["own"] else "trained on"
        print_table(console, f"{matrix['name']}, AUC (* trained on)", Table([corner, *found["columns"]], rows))


def print_table(console: Any, title: str, table: "Table") -> None:
    from rich import box
    from rich.table import Table as RichTable

    shown = RichTable(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1), pad_edge=False)
    least = 0
    for place, header in enumerate(table.headers):
        text = header in ("detector", "generator") or not place
        cells = [line for row in table.rows for line in row[place].split("\n")]
        words = header.split() if len(header) > 10 else [header]
        width = min(14, max(map(len, [*words, *cells]), default=0))
        least += width + 3
        shown.add_column(header, justify="left" if text else "right", overflow="fold", min_width=width)
    for row in table.rows:
        shown.add_row(*row)
    if least <= console.width:
        console.print(shown, markup=False)
        return
    console.print(f"{title}:", markup=False, style="italic")  # too wide: a paragraph a row
    for name, *cells in table.rows:
        console.print(" ".join(name.split("\n")), markup=False, highlight=False, style="bold")
        for header, cell in zip(table.headers[1:], cells, strict=True):
            console.print(f"    {header}: {' '.join(cell.split(chr(10)))}", markup=False, highlight=False)
    console.print()

"""`arena matrix`: the command line of arena/game.py."""

import csv
import io
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from arena.errors import InputError, StoppedError
from arena.run_command import saving_on_signals
from arena.terminal import bar, example

FILE = click.Path(path_type=Path)


@click.command(epilog=example("""
arena matrix runs/my-run
arena matrix runs/my-run --fresh 3        does a detector from scratch see what the whole line missed?
arena matrix runs/my-run --csv matrix.csv
"""))  # fmt: skip
@click.argument("folder", metavar="RUN", type=FILE)
@click.option(
    "--fresh", metavar="N", type=click.IntRange(0, 20), default=0,
    help="Also train N detectors (3 will do) from scratch on the last generator's fakes alone.",
)  # fmt: skip
@click.option("--device", help="auto, cpu, cuda, cuda:1 or mps. [the run's]")
@click.option("--csv", "file", metavar="FILE", type=FILE, help="Also write the matrix, a row a pairing.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def matrix(folder: Path, fresh: int, device: str | None, file: Path | None, as_json: bool) -> None:
    """Let every detector of a run meet every round's fakes, and say who forgot, who foresaw, who is ahead.

    Only what has not met yet is scored, so it can be called at any time, on a run that still plays as well. The report
    of the run shows the matrix afterwards. A fresh detector takes about as long as all detector training of the run;
    stopped, it goes on from there.
    """
    found = play(folder, fresh, device, as_json)
    if file is not None:
        write_csv(file, found)
    if as_json:
        from arena.report.game import sentences

        click.echo(json.dumps({**found, "sentences": sentences(found)}, indent=1))
        return
    print_tables(found)


def play(folder: Path, fresh: int, device: str | None, quiet: bool) -> dict[str, Any]:
    """The figures of game.json, kept in the run where it is not in use."""
    from arena.stored import stored_config

    if not (folder / "run.json").exists():
        raise InputError(f"{folder} is no run: it has no run.json. Give the folder that `arena run` named.")
    config = stored_config(folder)
    assert config is not None

    from arena import build
    from arena.game import Game, rounds_played
    from arena.ledger import Ledger
    from arena.report import write_report

    ledger, keep = Ledger(folder), True
    rounds_played(ledger, config)
    fabric = build.fabric(build.device(device or config.device), config.precision)
    with ExitStack() as stack:
        try:
            stack.enter_context(ledger)
        except InputError as busy:
            if fresh:
                raise
            keep = False
            click.echo(f"note: the matrix is shown, not kept: {busy}", err=True)
        progress = stack.enter_context(bar("detectors", quiet))
        stack.enter_context(saving_on_signals())
        try:
            found = Game(ledger, config, fabric, keep, progress).play(fresh)
        except StoppedError as stop:
            click.echo(f"arena: {stop}. The same command goes on from there.", err=True)
            raise click.exceptions.Exit(130) from None
        if keep:
            write_report(folder)
    return found


def write_csv(path: Path, found: Mapping[str, Any]) -> None:
    """A row a pairing: detector, fakes, auc, low, high, error, n_real, n_fake."""
    from arena.files import atomic

    text, table = io.StringIO(), found["matrix"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["detector", "fakes", "auc", "low", "high", "error", "n_real", "n_fake"])
    for i, row in enumerate(table["rows"]):
        for j, column in enumerate(table["columns"]):
            figures = [table[key][i][j] for key in ("auc", "low", "high", "error")]
            writer.writerow([row, column, *figures, found["n_real"], found["n_fake"]])
    with atomic(path) as file:
        file.write(text.getvalue().encode())


def print_tables(found: Mapping[str, Any]) -> None:
    """Sentences and tables on the terminal."""
    from rich.console import Console

    from arena.faces import plural
    from arena.report.game import counts, matrix_table, move_table, round_table, sentences

    console = Console()
    for sentence in sentences(found):
        console.print(sentence, highlight=False, markup=False)
    table, hidden = matrix_table(found, console.width)
    more = f"; {plural(hidden, 'round')} not shown" if hidden else ""
    show(console, f"AUC, {counts(found)} a cell{more}", table)
    if found["moves"]:
        show(console, "Each round's detector, and the best foe of its generator", round_table(found))
        show(console, "Who moved", move_table(found, brief=console.width < 100))


def show(console: Any, title: str, table: Any) -> None:
    from rich import box
    from rich.table import Table

    shown = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1), pad_edge=False)
    for place, header in enumerate(table.headers):
        widest = max(len(line) for row in table.rows for line in row[place].split("\n"))
        shown.add_column(header, justify="right" if place else "left", overflow="fold", min_width=min(widest, 24))
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown, markup=False)

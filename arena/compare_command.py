"""`arena compare`: the command line of arena/compare.py."""

import json
from pathlib import Path
from typing import Any

import click

from arena.terminal import bar, example

FILE = click.Path(path_type=Path)


@click.command(epilog=example("""
arena compare runs/evading runs/plain --out compare.html
arena compare runs/seed-*
arena compare runs/a runs/b --json
"""))  # fmt: skip
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=FILE)
@click.option("--out", type=FILE, metavar="FILE.html", help="Write a page there.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def compare(runs: tuple[Path, ...], out: Path | None, device: str, as_json: bool) -> None:
    """Runs side by side: settings that differ, curves, last figures, and whether their detectors differ.

    Where two runs were judged on the same reals, each one's detector scores the fakes of both, and DeLong's paired test
    says whether one sees more; where they were not, it says why there is no test.
    """
    from arena import compare as work
    from arena.build import device as check_device
    from arena.files import atomic
    from arena.report.compare import render

    if len(runs) < 2:
        raise click.UsageError("name at least two runs.")
    with bar("tests", as_json) as progress:
        found = work.compare(runs, check_device(device), progress)
    if out is not None:
        with atomic(out) as file:
            file.write(render(found).encode("utf-8", "replace"))
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    print_tables(found)
    if out is not None:
        click.echo(f"Page: {out}")


def print_tables(found: dict[str, Any]) -> None:
    from rich.console import Console

    from arena.report.compare import difference_table, final_table, paired_table, verdict
    from arena.tournament_command import print_table

    console = Console()
    for sentence in verdict(found):
        console.print(sentence, highlight=False, markup=False)
    tables = {
        "Settings that differ": difference_table(found), "Last figures": final_table(found["runs"]),
        "Do the detectors differ?": paired_table(found),
    }  # fmt: skip
    for title, table in tables.items():
        if table.rows:
            print_table(console, title, table)

"""`arena evaluate`: the command line of arena/evaluate.py."""

import json
from pathlib import Path
from typing import Any

import click

from arena.errors import InputError
from arena.terminal import bar, example

FILE = click.Path(path_type=Path)


@click.command(epilog=example("""
arena evaluate runs/my-run --real test/real --fake test/fake
arena evaluate runs/my-run --real photos/ --fake stylegan/ --fake diffusion/ --robustness standard --out eval/
arena evaluate runs/my-run --real real/ --fake fake/ --robustness jpeg:90,jpeg:50,blur:1+jpeg:70
arena evaluate runs/my-run --real videos/real --fake videos/fake --levels raw,c23,c40
arena evaluate runs/my-run --real frames/real --fake frames/DF --fake frames/F2F --video-id parent
"""))  # fmt: skip
@click.argument("path", metavar="RUN_OR_CHECKPOINT", type=FILE)
@click.option("--real", required=True, multiple=True, metavar="DIR", help="Real images or videos (repeatable).")
@click.option("--fake", required=True, multiple=True, metavar="DIR", help="Fakes (repeatable: each scored apart too).")
@click.option("--robustness", metavar="GRID", default="none", show_default=True,
              help="none, standard (20 conditions), full (52), or specs such as jpeg:50,blur:1+jpeg:70.")  # fmt: skip
@click.option("--levels", metavar="LIST", default="", help="H.264 as FaceForensics++ has it: some of raw,c23,c40.")
@click.option("--video-id", metavar="RULE", default="none", show_default=True,
              help="Which images are frames of one video: parent (their folder), prefix:REGEX, or none.")  # fmt: skip
@click.option("--windows", type=click.IntRange(1, 10_000), help="Windows of each video. [as many as hold 32 frames]")
@click.option("--calibrate", metavar="SCORES.csv", type=FILE,
              help="Also rescale logits as these scores of validation data (of another --out) teach.")  # fmt: skip
@click.option("--out", metavar="DIR", type=FILE, help="Write evaluation.html, evaluation.json and scores.csv there.")
@click.option("--cache", metavar="DIR", type=FILE, help="Keep compressed pictures there, for the next evaluation.")
@click.option("--max-bad", default="10", show_default=True, help="Unusable files to skip: a count, or a share as 0.05.")
@click.option("--batch-size", type=click.IntRange(1, 65536), default=64, show_default=True, help="Pictures at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate(
    path: Path, device: str, batch_size: int, max_bad: str, levels: str, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Judge a trained detector on held-out reals and fakes.

    AUC, AP, EER, TPR at 1 % FPR, accuracy and calibration, with intervals over videos; with --robustness and --levels
    the same once JPEG, blur, resizing, cropping, noise or a video codec has been over reals and fakes alike. Says what
    would flatter the figures: files that the detector was trained on, and formats that give the label away.
    """
    from arena import evaluate as work
    from arena.build import device as check_device
    from arena.detection import Scorer
    from arena.evaluate_data import Wishes

    asked = tuple(dict.fromkeys(level.strip() for level in levels.lower().split(",") if level.strip()))
    wishes = Wishes(levels=asked, max_bad=count_or_share(max_bad), **options)
    scorer = Scorer(path, check_device(device), batch_size)
    found = work.evaluate(scorer, wishes, out, lambda what: bar(what, as_json))
    for note in found["notes"]:
        click.echo(f"note: {note}", err=True)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    print_tables(found)
    if out is not None:
        click.echo(f"Page: {out / 'evaluation.html'}")


def count_or_share(text: str) -> float:
    """ "10" or "0.05" as a number >= 0, a whole one from 1 on."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 <= value < 1 or (value < 1e12 and value == int(value))):
        raise InputError(f"--max-bad is a count such as 10, or a share such as 0.01, not {text!r}.")
    return value


def print_tables(found: dict[str, Any]) -> None:
    """The figures as tables on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    from arena.report.evaluation import tables, verdict

    console = Console()
    for sentence in verdict(found):
        console.print(sentence, highlight=False, markup=False)
    for title, table in tables(found, brief=console.width < 120).items():
        shown = RichTable(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1), pad_edge=False)
        for place, header in enumerate(table.headers):
            longest = max(len(line) for row in table.rows for line in row[place].split("\n"))
            width = min(longest, 13 if place else 24)  # an interval, a condition: what must not be folded
            shown.add_column(header, justify="right" if place else "left", overflow="fold", min_width=width)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown, markup=False)

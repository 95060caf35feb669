"""`arena quality`: the whole panel for two folders of images."""

import json
from pathlib import Path
from typing import Any

import click

from arena.terminal import bar, example

FOLDER = click.Path(path_type=Path)


@click.command(epilog=example("""
arena quality real/ fake/
arena quality real/ fake/ --known train/ --full              copies of training images; the costly figures
arena quality real/ fake/ --features torchvision:resnet50    weights from the cache, nothing is downloaded
arena quality real/ fake/ --features mypkg.nets:Encoder --json
"""))  # fmt: skip
@click.argument("real", type=FOLDER)
@click.argument("fake", type=FOLDER)
@click.option("--known", metavar="DIR", type=FOLDER, help="What the generator was trained on: finds copies.")
@click.option("--floor", metavar="DIR", type=FOLDER, help="Other reals, for the floors. [half of REAL]")
@click.option("--features", "of", metavar="MODULE:ATTR", multiple=True, help="Look through this network, too.")
@click.option("--full", is_flag=True, help="128 patches an image, copies turned and cropped, KID of Inception.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--weights", type=FOLDER, help="The Inception file, if not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quality(real: Path, fake: Path, as_json: bool, device: str, **options: Any) -> None:
    """Every figure of the panel for two folders of images of one size: distances, precision and recall, patches,
    spectrum, copies. Where --known has a sub-folder a class, how many classes the fakes show.
    """
    from arena.build import device as check_device
    from arena.metrics.quality_folders import quality_of

    with bar("images", as_json) as progress:
        found = quality_of(real, fake, device=check_device(device), progress=progress, **options)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        print_table(found)


def print_table(found: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from arena.report.table import MISSING

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for header in ("figure", "value", "95 %", "floor", "better"):
        table.add_column(header, justify="left" if header in ("figure", "better") else "right")
    for name, score in found["scores"].items():
        bounds = [score[end] for end in ("low", "high") if end in score]  # a count of modes has none
        interval = " to ".join(f"{end:.4g}" for end in bounds) if None not in bounds else MISSING
        floor = "" if score["floor"] is None else f"{score['floor']:.4g}"
        of = f" of {score['of']}" if "of" in score else ""
        table.add_row(name, f"{score['value']:.4g}{of}", interval, floor, score["better"])
    console = Console()
    console.print(table)
    counts = f"{found['n']} fakes against {found['n_real']} reals; floor: the figure of {found['n_floor']} other reals."
    console.print(counts, highlight=False)
    for note in found["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)

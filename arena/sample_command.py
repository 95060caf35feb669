"""`arena sample`: the command line of arena/sample.py."""

import json
from pathlib import Path
from typing import Any

import click

from arena.sample_wishes import MOST, Wishes, parse_seeds
from arena.terminal import bar, example

FILE = click.Path(path_type=Path)


@click.command(epilog=example("""
arena sample runs/my-run samples/ --n 64 --psi 0.7
arena sample runs/my-run mixed/ --mix 4 6 --level 4 --seeds 10-19
arena sample runs/my-run between/ --interpolate slerp --seeds 0,3,0 --video walk.mp4
arena sample runs/my-run known/ --reconstruct photos/ --directions 5
arena sample runs/my-run score/ --path-length 2000 --json
arena sample runs/my-cyclegan fair/ --source photos/ --reverse
"""))  # fmt: skip
@click.argument("path", metavar="RUN_OR_CHECKPOINT", type=FILE)
@click.argument("out", metavar="OUT", type=FILE)
@click.option("--n", type=click.IntRange(1, MOST), help="How many images. [64; of images: as many as there are]")
@click.option("--seeds", metavar="LIST", help="Which images, instead of the first: 0-63, or 3,5,8-11.")
@click.option("--psi", type=float, help="Truncation, -1 to 1: 1 is none, 0 the mean image. [1]")
@click.option("--cutoff", type=click.IntRange(1), help="Truncate only so many of the coarsest levels. [all]")
@click.option("--reconstruct", type=FILE, multiple=True, help="Rebuild images: a folder, or a file (repeatable).")
@click.option("--interpolate", type=click.Choice(["lerp", "slerp"]), help="Go from image to image, as a sheet.")
@click.option("--video", metavar="NAME.mp4", help="The same as a film, in OUT.")
@click.option("--frames", type=click.IntRange(1, 10_000), help="Frames from image to image, 25 a second. [50]")
@click.option("--mix", type=click.IntRange(1, 32), nargs=2, metavar="ROWS COLS", help="A matrix of mixed styles.")
@click.option("--level", type=int, help="From which level on a style is the column's. [the middle]")
@click.option("--directions", type=click.IntRange(1, 64), metavar="K", help="Walk the K directions that vary most.")
@click.option("--path-length", type=click.IntRange(3, 1_000_000), is_flag=False, flag_value=1000, metavar="[PAIRS]",
              help="Score how smoothly images follow their latents. [1000; the paper: 100000]")  # fmt: skip
@click.option("--source", type=FILE, multiple=True,
              help="Images, a folder or a file: to translate, or to start from instead of seeds.")  # fmt: skip
@click.option("--reverse", is_flag=True, help="Translate, or rebuild, the second domain instead of the first.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written, and the figures, as JSON.")
def sample(path: Path, out: Path, seeds: str | None, device: str, as_json: bool, **options: Any) -> None:
    """Make images with a trained generator, and look around in its latents.

    OUT becomes a folder of PNG files with a manifest; every file says what of it is synthetic. Without further options
    it holds the images of 64 seeds or, of a generator that translates, the run's judge images translated. The options
    --reconstruct, --interpolate, --mix, --directions and --path-length can be asked for together.
    """
    from arena import sample as work
    from arena.build import device as check_device

    wishes = Wishes(seeds=None if seeds is None else parse_seeds(seeds), **options)
    with bar("images", as_json) as progress:
        found = work.sample(path, out, wishes, device=check_device(device), progress=progress)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for row in found["written"]:
        count = f"{row['n']} x " if row["file"].endswith("/") else ""
        click.echo(f"{out / row['file']}: {count}{row['what']}")
    for row in found["figures"].get("path_length", []):
        interval = f"(95 %: {row['low']:.6g} to {row['high']:.6g}; {row['n']} pairs)"
        click.echo(f"{row['name']}, {row['sampling']}: {row['value']:.6g}  {interval}")
    if note := found["figures"].get("note"):
        click.echo(f"  note   {note}")

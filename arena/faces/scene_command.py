"""`arena scene`: a film of a synthetic person, with its truths beside it."""

import json
import re
from pathlib import Path
from typing import Any

import click

from arena.errors import InputError
from arena.terminal import bar, example


@click.command(epilog=example("""
arena scene a.mp4 --person 3
arena scene b.mp4 --person 7 --index 1 --frames 250 --tone
arena extract a.mp4 faces/a --landmarks a.landmarks.jsonl --locator given
"""))  # fmt: skip
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--person", type=click.IntRange(0, 1 << 62), required=True, help="Who: a number of the seed's people.")
@click.option("--seed", type=click.IntRange(0, 1 << 62), default=0, show_default=True, help="Of people and pictures.")
@click.option(
    "--index",
    type=click.IntRange(0, 1 << 62),
    default=0,
    show_default=True,
    help="All but who: pose, light, wall, clothes, camera.",
)
@click.option("--frames", type=click.IntRange(1), default=75, show_default=True, help="Length of the film.")
@click.option("--fps", type=click.FloatRange(1, 240), default=25.0, show_default=True, help="Frames a second.")
@click.option("--size", default="480x360", show_default=True, metavar="WxH", help="Of the picture, px.")
@click.option(
    "--head",
    type=click.FloatRange(0.3, 0.8),
    default=0.5,
    show_default=True,
    help="The head's height, as a share of the picture's.",
)
@click.option("--tone", is_flag=True, help="With a soft sound of 440 Hz.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def scene(out: Path, size: str, as_json: bool, **options: Any) -> None:
    """Film a synthetic person, so that videos can be tried without anybody's face.

    Writes the video OUT and, as OUT.landmarks.jsonl, the 68 landmarks, box and pose of every frame, as `arena extract`
    and `arena swap` read them with --locator given. The same options give the same film. OUT says that it is synthetic.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if not found:
        raise InputError(f"--size {size}: expected WIDTHxHEIGHT in pixels, such as 480x360.")
    from arena.faces.scene import film
    from arena.faces.scene import scene as filmed

    frames, fps, person, tone = (options[name] for name in ("frames", "fps", "person", "tone"))
    shots = filmed(
        options["seed"], options["index"], frames, int(found[1]), int(found[2]), identity=person, fps=fps,
        head=options["head"],
    )  # fmt: skip
    marks = {
        "Method": "arena.faces.scene",
        "Person": str(person),
        "Seed": str(options["seed"]),
        "Index": str(options["index"]),
    }
    with bar("frames", as_json) as progress:
        wrote = film(
            out, shots, fps, tone=tone, marks=marks, progress=progress and (lambda done: progress(done, frames))
        )
    if as_json:
        click.echo(json.dumps(wrote))
    else:
        click.echo(f"{wrote['out']}: {frames} frames of person {person}\n{wrote['landmarks']}: their landmarks")

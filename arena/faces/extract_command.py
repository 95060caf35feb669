"""`arena extract`: faces out of images and videos."""

import json
from pathlib import Path
from typing import Any

import click

from arena.errors import InputError
from arena.faces import plural
from arena.terminal import bar, example


@click.command(epilog=example("""
arena extract holiday/ interview.mp4 faces/
arena extract clips/A_s1 people/A --size 64 --every 5
arena extract crowd.jpg faces/ --all --min-size 80
arena extract clips/ faces256/ --size 256 --locator given --landmarks faces/faces.jsonl
"""))  # fmt: skip
@click.argument("paths", metavar="INPUT... OUT", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--size", type=int, default=128, show_default=True, help="Side of a crop, px.")
@click.option("--coverage", type=float, default=1.0, show_default=True, help="How much: 1 = hairline to chin.")
@click.option("--largest/--all", default=True, show_default=True, help="The largest face of a frame, or all.")
@click.option("--min-size", type=float, default=48, show_default=True, help="Smallest face, hairline to chin, px.")
@click.option("--min-sharpness", type=float, default=0.0, show_default=True, help="Least sharpness (docs/swap.md).")
@click.option("--every", type=int, default=1, show_default=True, metavar="N", help="Take each N-th frame of a video.")
@click.option("--keep-duplicates", is_flag=True, help="Keep crops that hardly differ from the last ones.")
@click.option(
    "--locator",
    type=click.Choice(["mtcnn", "yunet", "given"]),
    default="mtcnn",
    show_default=True,
    help="Who finds the faces: built in; OpenCV's, with a model file; or your points.",
)
@click.option("--face-model", type=click.Path(path_type=Path), help="YuNet's model file. [$ARENA_FACE_MODEL]")
@click.option("--landmarks", type=click.Path(path_type=Path), help="JSON Lines of points, for --locator given.")
@click.option("--device", metavar="DEVICE", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--batch-size", type=click.IntRange(1, 1024), default=16, show_default=True, help="Frames at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print what extract.json holds.")  # fmt: skip
def extract(paths: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Cut the faces out of images, folders and videos: aligned crops in OUT, with what it takes to put them back.

    OUT then is data for `arena run --data`, and OUT/faces.jsonl says of each crop where it comes from. The same call
    again goes on where it was stopped; more inputs may be given then. Use only pictures of people who agreed to it.
    """
    *inputs, out = paths
    if not inputs:
        raise InputError(f"expected INPUT... and OUT, got {out} alone. Say where the faces go: arena extract {out} OUT")
    from arena.build import device as check_device
    from arena.faces import extract as extracting
    from arena.faces.locate import locator

    if options["landmarks"] and options["locator"] != "given":
        raise InputError("--landmarks is for --locator given. Add that, or leave --landmarks out.")
    device = check_device(options.pop("device"))
    batch_size, landmarks = options.pop("batch_size"), options.pop("landmarks")
    name, model = options.pop("locator"), options.pop("face_model")
    smallest = max(20.0, 0.7 * options["min_size"])  # MTCNN's boxes are narrower than hairline to chin
    finder = locator(name, device=device, model=model, landmarks=landmarks, smallest=smallest)
    settings = extracting.Settings(**options)
    try:
        with bar("sources", as_json) as progress:
            found = extracting.extract(
                inputs, out, finder, settings, device=device, batch_size=batch_size, progress=progress
            )
    except KeyboardInterrupt:
        click.echo("The same command goes on from the last source that was done.", err=True)
        raise
    counts = found["counts"]
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        click.echo(report(out, found))
    if counts["lost_frames"]:
        click.echo(f"arena: {plural(counts['lost_frames'], 'frame')} could not be decoded.", err=True)
    if not counts["crops"]:
        unseen = landmarks and counts["without_face"] == counts["frames"]
        cure = f"{landmarks} has no usable line for INPUT" if unseen else "Lower --min-size, or try another --locator"
        click.echo(f"arena: no face came out. {cure}.", err=True)
        raise click.exceptions.Exit(1)


def report(out: Path, found: dict[str, Any]) -> str:
    """What came out, in a few lines."""
    counts = found["counts"]
    crops, frames, sources = (plural(counts[name], name[:-1]) for name in ("crops", "frames", "sources"))
    lines = [f"{crops} in {out} from {frames} of {sources}"]
    share = f" ({found['frames_with_face']:.1%} have one)" if counts["frames"] else ""
    words = {
        "without_face": f"frames without a face{share}",
        "too_small": "faces too small (--min-size)",
        "blurred": "faces too blurred (--min-sharpness)",
        "duplicates": "crops that hardly differ from the last ones (--keep-duplicates keeps them)",
        "lost_frames": "frames that could not be decoded",
        "copies": "inputs that repeat another's bytes",
    }
    lines += [f"  {counts[name]:6} {text}" for name, text in words.items() if counts[name] or name == "without_face"]
    lines += [f"  not usable: {bad['source']}: {bad['reason']}" for bad in found["bad"][:10]]
    if len(found["bad"]) > 10:
        lines.append(f"  and {len(found['bad']) - 10} more that are not usable: see {out / 'extract.json'}")
    if counts["crops"]:
        lines.append(f"  look at {out / '.extract' / 'sheet.png'}")
    return "\n".join(lines)

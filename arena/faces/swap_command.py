"""`arena swap`: a trained face swap back into images and videos."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from arena.errors import InputError
from arena.faces import plural
from arena.terminal import bar, example

FILE = click.Path(path_type=Path)
RANGES = {"coverage": (0.2, 5), "feather": (0, 100), "erosion": (-50, 50), "min-size": (0, 10_000)}


@click.command(epilog=example("""
arena swap runs/my-run interview.mp4 swapped.mp4 --consent "A and B, colleagues, own footage; agreed by mail 2026-05-04"
arena swap runs/my-run photos/ swapped/ --reverse --faces all
arena swap runs/my-run photo.jpg swapped.png --mask ellipse --colour histogram --blend poisson
arena swap runs/my-run/rounds/02/generator.safetensors clip.mp4 early.mp4 --locator given --landmarks points.jsonl
"""))  # fmt: skip
@click.argument("path", metavar="RUN_OR_CHECKPOINT", type=FILE)
@click.argument("source", metavar="INPUT", type=FILE)
@click.argument("out", metavar="OUT", type=FILE)
@click.option("--consent", metavar="TEXT", help="Who agreed to this. [consent.yaml beside INPUT or the trained faces]")
@click.option("--reverse", is_flag=True, help="From the second person to the first.")
@click.option(
    "--faces",
    type=click.Choice(["largest", "all"]),
    default="largest",
    show_default=True,
    help="Which faces of a picture to swap.",
)
@click.option(
    "--min-size", type=float, default=48, show_default=True, help="Smallest face to find, hairline to chin, px."
)
@click.option("--coverage", type=float, help="How much of a face is cropped (1: hairline to chin). [as in training]")
@click.option(
    "--mask",
    type=click.Choice(["hull", "ellipse", "none"]),
    default="hull",
    show_default=True,
    help="What of the crop is pasted: jaw to brows, an ellipse, or all.",
)
@click.option(
    "--feather", type=float, default=10, show_default=True, help="Width of the mask's soft edge, % of the crop."
)
@click.option("--erosion", type=float, default=4, show_default=True, help="Shrink the mask, % of the crop (< 0: grow).")
@click.option(
    "--colour",
    type=click.Choice(["lab", "histogram", "none"]),
    default="lab",
    show_default=True,
    help="Match the picture's colours: mean and spread in Lab, or histograms.",
)
@click.option(
    "--blend",
    type=click.Choice(["alpha", "poisson"]),
    default="alpha",
    show_default=True,
    help="Lay over by the mask, or without a seam.",
)
@click.option("--visible-mark", is_flag=True, help='Write "synthetic" into a corner.')
@click.option(
    "--locator",
    type=click.Choice(["mtcnn", "yunet", "given"]),
    default="mtcnn",
    show_default=True,
    help="Who finds the faces: built in; OpenCV's, with a model file; or your points.",
)
@click.option("--face-model", type=FILE, help="YuNet's model file. [$ARENA_FACE_MODEL]")
@click.option("--landmarks", type=FILE, help="JSON Lines of points, for --locator given.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--batch-size", type=click.IntRange(1, 1024), default=16, show_default=True, help="Faces at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def swap(path: Path, source: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Swap the faces in an image, a folder of images or a video, by a generator between two people.

    OUT is a PNG, a folder of PNGs, or a video with INPUT's frames, rate and sound. Pictures without a face pass through
    as they are; where nothing has one, the exit code is 1. All that is written says that it is synthetic, and carries
    the consent: without one it says "not stated". Swap nobody's face who did not agree to it.
    """
    for name, (low, high) in RANGES.items():
        value = options[name.replace("-", "_")]
        if value is not None and not low <= value <= high:
            raise InputError(f"--{name} {value:g}: expected {low} to {high}.")
    if options["landmarks"] and options["locator"] != "given":
        raise InputError("--landmarks is for --locator given. Add that, or leave --landmarks out.")
    from arena.build import device as check_device
    from arena.faces.consent import NOT_STATED, statement
    from arena.faces.convert import Converter, Look, open_net, trained_coverage, training_folders
    from arena.faces.locate import locator
    from arena.faces.swap import Work

    device = check_device(options["device"])
    net = open_net(path, device, options["reverse"])
    if options["coverage"] is None:
        options["coverage"] = trained_coverage(net.data)
    look = Look(**{field.name: options[field.name] for field in fields(Look)})
    finder = locator(
        options["locator"],
        device=device,
        model=options["face_model"],
        landmarks=options["landmarks"],
        smallest=max(20.0, 0.7 * options["min_size"]),  # MTCNN's boxes are narrower than hairline to chin
    )
    folder = source if source.is_dir() else source.parent
    consent = statement(options["consent"], [folder, *training_folders(net.data)])
    converter = Converter(net, finder, look, options["batch_size"])
    with bar("pictures", as_json) as progress:
        work = Work(converter, consent, visible_mark=options["visible_mark"], progress=progress)
        found = work.swap(source, out)
    click.echo(json.dumps(found, indent=1) if as_json else report(found))
    if found["faces"] and consent == NOT_STATED:
        click.echo("arena: consent: not stated. Say who agreed with --consent, or in a consent.yaml.", err=True)
    if found["lost"]:
        click.echo(f"arena: {plural(found['lost'], 'frame')} could not be decoded.", err=True)
    if not found["faces"]:
        given = options["landmarks"]
        cure = f"{given} has no usable line for {source.name}" if given else "Another --locator may see one"
        click.echo(f"arena: no face was found, so nothing was swapped. {cure}.", err=True)
        raise click.exceptions.Exit(1)


def report(found: dict[str, Any]) -> str:
    """What was done, in a few lines."""
    lines = [f"{found['out'] or 'nothing written'}: faces swapped: {found['faces']}, pictures: {found['frames']}"]
    lines += [f"  {found[name]:6} {text}" for name, text in (
        ("without_face", "pictures without a face, passed through"), ("lost", "frames that could not be decoded"),
    ) if found[name]]  # fmt: skip
    unreadable = found.get("unreadable", [])
    lines += [f"  not usable: {text}" for text in unreadable[:10]]
    lines += [f"  and {len(unreadable) - 10} more"] if len(unreadable) > 10 else []
    return "\n".join([*lines, f"  consent: {found['consent']}"])

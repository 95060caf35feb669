"""`arena export`: the command line of arena/export.py."""

import json
from pathlib import Path
from typing import Any

import click

from arena.terminal import bar, example

FILE = click.Path(path_type=Path)


class Frames(click.ParamType):
    """A number of frames, or "any" (0)."""

    name = "frames"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if value == "any":
            return 0
        if not (str(value).isdecimal() and 1 <= int(value) <= 1000):
            self.fail(f"expected a number of frames from 1 to 1000, or any, got {value!r}.", param, ctx)
        return int(value)


@click.command(epilog=example("""
arena export runs/my-run detector.onnx
arena export runs/my-run/rounds/01/detector.safetensors round1.onnx --size 128
arena export runs/my-video-run clips.onnx --frames any --json
"""))  # fmt: skip
@click.argument("path", metavar="RUN_OR_CHECKPOINT", type=FILE)
@click.argument("out", metavar="OUT.onnx", type=FILE)
@click.option("--size", type=click.IntRange(8, 2048), help="Side of the images, px. [the run's]")
@click.option("--frames", type=Frames(), metavar="N|any", help="Frames of a clip. [as the detector was trained]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(path: Path, out: Path, size: int | None, frames: int | None, as_json: bool) -> None:
    """Write a trained detector as one ONNX file, which runs without the lab.

    All that the detector does to a picture lies in the file, and so does how to read its answer. It is written only if
    onnxruntime says what torch says; else the exit code is 1. Prints size, cost and speed. See docs/export.md.
    """
    from arena import export as work

    try:
        with bar("export", as_json) as progress:
            found = work.export(path, out, size=size, frames=frames, progress=progress)
    except work.ParityError as error:
        click.echo(f"arena: {error}", err=True)
        raise click.exceptions.Exit(1) from None
    click.echo(json.dumps(found, indent=1) if as_json else report(found))


def report(found: dict[str, Any]) -> str:
    """What was written, in a few lines."""
    parity, speed = found["parity"], found["speed"]
    threshold, each = found["threshold"], "an image" if found["frames"] == 1 else f"a clip of {speed['frames']} frames"
    limit = "no threshold was frozen yet" if threshold is None else f"fake from {threshold:.6g} on"
    lines = [
        f"{found['out']}: {found['detector']} of {found['run']}, round {found['round']}, {found['megabytes']:.1f} MB",
        f"  in          {found['input']}",
        f"  out         {found['output']}; {limit}",
        f"  checked     {parity['n']} logits from {parity['lowest_logit']:.3g} to {parity['highest_logit']:.3g}: they "
        "differ from torch's",
        f"              by {parity['max']:.2g} at most, {parity['mean']:.2g} on average (allowed: "
        f"{parity['allowed']:.2g})",
        f"  parameters  {found['parameters']:,}",
        f"  FLOPs       {found['flops']:,} {each}",
        f"              ({found['flops_counted']})",
        f"  speed       ms {each}, median; threads: {speed['threads']}, {speed['cpu']}",
        "                batch      torch  onnxruntime",
    ]
    lines += [
        f"              {row['batch']:7} {row['torch']:10.2f} {row['onnxruntime']:12.2f}" for row in speed["rows"]
    ]
    return "\n".join(lines)

"""The command line. Everything heavy is imported inside the commands: --help and list answer at once."""

import json
import os
from pathlib import Path
from typing import Any

import click

import arena
from arena.audit_command import audit
from arena.compare_command import compare
from arena.detect_command import detect
from arena.errors import DivergedError, InputError
from arena.evaluate_command import evaluate
from arena.export_command import export
from arena.faces.extract_command import extract
from arena.faces.scene_command import scene
from arena.faces.swap_command import swap
from arena.matrix_command import matrix
from arena.quality_command import quality
from arena.run_command import run, train
from arena.sample_command import sample
from arena.submit_command import submit
from arena.terminal import bar, example
from arena.tournament_command import tournament

# Torch's threads (GNU OpenMP's) by default spin for long while they wait for each other: on a machine that does
# anything else beside, a step then takes up to ten times as long. Read when torch is imported, inside the commands.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")


class Commands(click.Group):
    """Prints a user's mistake as one line and exits with 2; names the nearest command."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (InputError, DivergedError) as error:
            click.echo(f"arena: {error}", err=True)
            ctx.exit(2 if isinstance(error, InputError) else 1)
        except KeyboardInterrupt:
            click.echo("arena: stopped.", err=True)
            ctx.exit(130)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from arena.config import nearest

            raise click.UsageError(f"no command {args[0]!r}{nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=example("""
arena run --generator cyclegan --detector cnnspot
arena list
arena doctor
"""))  # fmt: skip
@click.version_option(arena.__version__, "-V", "--version", prog_name="arena")
def main() -> None:
    """The adversarial lab for generated images: generators make fakes, detectors hunt them, the arena keeps score."""


COMMANDS = (
    run, train, detect, evaluate, export, sample, extract, swap, scene,
    audit, matrix, tournament, compare, quality, submit,
)  # fmt: skip
for command in COMMANDS:
    main.add_command(command)


@main.command(epilog=example("arena report runs/my-run"))
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write report.html of a run anew, from its ledger alone (a run that still plays, too)."""
    from arena.report import write_report

    if not (folder / "run.json").exists():
        raise InputError(f"{folder} is no run: it has no run.json. Give the folder that `arena run` named.")
    click.echo(f"Report: {write_report(folder)}")


@main.command("list", epilog=example("arena list\narena list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """Show the generators, detectors, data, presets, tournaments and challenges there are, one line each."""
    from arena.config import names, read_named

    found = {
        "generators": {name: read_named("gen", name).get("about", "") for name in names("gen")},
        "detectors": {name: read_named("detect", name).get("about", "") for name in names("detect")},
        "data": {
            "faces": "Embedded synthetic faces, dark-haired and fair-haired; no real person, nothing to download",
            "faces-clips": "Clips of two people of the embedded faces, for detectors that look at motion",
            "faces-drawing": "Pairs of a drawing (outlines, no colour) and the embedded face that it was made of",
            "faces-segments": "Pairs of a map of hair, skin, eyes, clothes ... and the embedded face",
            "faces-two": "Two people of the embedded faces; the exact swap is known, so a face swap can be scored",
            "FOLDER": "Your images or videos: trainA/ trainB/ testA/ testB/, A/ B/, class folders, or any folder; "
            "pairs: two folders with equal names, or montages",
        },
        "presets": {name: read_named("run", name).get("about", "") for name in names("run")},
        "tournaments": {name: read_named("tournament", name).get("about", "") for name in names("tournament")},
        "challenges": {name: read_named("challenge", name).get("about", "") for name in names("challenge")},
    }
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    width = max(len(name) for group in found.values() for name in group)
    for title, group in found.items():
        click.secho(title, bold=True)
        for name, about in group.items():
            click.echo(f"  {name:{width}}  {about}")


@main.command(epilog=example("arena doctor"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine has: versions, devices, threads, disk, weights. Exits with 1 where something is wrong."""
    from arena.provenance import doctor as examine

    rows = examine()
    if as_json:
        click.echo(json.dumps([{"what": what, "fine": fine, "found": found} for what, fine, found in rows], indent=1))
    else:
        for what, fine, found in rows:
            mark = {True: "ok", False: "!!", None: "  "}[fine]
            click.secho(f"{mark} {what:26} {found}", fg="red" if fine is False else None)
    if any(fine is False for _, fine, _ in rows):
        raise click.exceptions.Exit(1)


def quality_options(command: Any) -> Any:
    """The options that `fid` and `stats` share."""
    options = (
        click.option("--dims", type=click.Choice(["64", "192", "768", "2048"]), default="2048", show_default=True),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."),
        click.option("--weights", type=click.Path(path_type=Path), help="The Inception file, if not in the cache."),
        click.option("--features", default="inception", show_default=True, help="inception, conv704, spectrum, "
                     "torchvision:NAME or module:attr; all but inception give a distance of another name."),
        click.option("--batch-size", type=click.IntRange(1, 4096), default=50, show_default=True),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@main.command(epilog=example("""
arena fid horse2zebra/testB fakes/
arena fid reference.npz fakes/ --json
arena fid real/ fake/ --features conv704        without the Inception weights
"""))  # fmt: skip
@click.argument("real", type=click.Path(path_type=Path))
@click.argument("fake", type=click.Path(path_type=Path))
@quality_options
def fid(real: Path, fake: Path, dims: str, device: str, as_json: bool, **options: Any) -> None:
    """Frechet Inception distance between two folders of images (sub-folders too), or their .npz statistics."""
    from arena.build import device as check_device
    from arena.metrics.folders import fid_of

    with bar("images", as_json) as progress:
        found = fid_of(real, fake, dims=int(dims), device=check_device(device), progress=progress, **options)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    low, high, floor = found.get("low"), found.get("high"), found.get("floor")
    click.echo(
        f"{found['name']} {found['value']:.6g}" + (f"  (95 %: {low:.6g} to {high:.6g})" if low is not None else "")
    )
    click.echo(f"  fakes  {found['n']} from {fake}\n  reals  {found['n_real']} from {real}")
    if floor is not None:
        click.echo(f"  floor  {floor:.6g}: {found['floor_n']} reals against {found['floor_n_real']} others of them")
        if found["floor_n"] < (found["n"] or 0) or found["floor_n_real"] < (found["n_real"] or 0):
            click.echo("         (a Fréchet distance is higher with fewer images: this floor is above that of as many)")
    click.echo(f"  seen by {found['features']}")
    if found.get("note"):
        click.echo(f"  note   {found['note']}")


@main.command(epilog=example("arena stats horse2zebra/testB testB.npz"))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT.npz", type=click.Path(path_type=Path))
@quality_options
def stats(folder: Path, out: Path, dims: str, device: str, as_json: bool, **options: Any) -> None:
    """Write a folder's feature statistics once, for `arena fid` and for pytorch-fid."""
    from arena.build import device as check_device
    from arena.metrics.folders import write_statistics

    with bar("images", as_json) as progress:
        found = write_statistics(folder, out, dims=int(dims), device=check_device(device), progress=progress, **options)
    click.echo(json.dumps(found, indent=1) if as_json else f"{out}: statistics of {found['n']} images")

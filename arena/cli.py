"""The command line. Everything heavy is imported inside the commands: --help and list answer at once."""

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import arena
from arena.errors import DivergedError, InputError, StoppedError
from arena.faces.extract_command import extract
from arena.faces.scene_command import scene
from arena.faces.swap_command import swap
from arena.sample_command import sample
from arena.terminal import bar, example

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


for command in (sample, extract, swap, scene):
    main.add_command(command)


@main.command(epilog=example("""
arena run --generator cyclegan --detector cnnspot
arena run --generator cyclegan --detector cnnspot --data horse2zebra/ --preset paper
arena run --generator cyclegan --detector cnnspot --evade 0.5 --set generator.ema=0.999
arena run --out runs/my-run        continue it where it stopped, whatever stopped it
"""))  # fmt: skip
@click.option("--generator", metavar="NAME", help="Who makes the fakes: a name of `arena list`, or a YAML file.")
@click.option("--detector", metavar="NAME", help="Who hunts them: a name of `arena list`, or a YAML file.")
@click.option("--data", metavar="FOLDER", help="faces or faces-two (embedded, synthetic), or a folder of images.")
@click.option("--rounds", type=int, help="Rounds to play.")
@click.option("--steps", type=int, help="Training steps of each player in each round.")
@click.option("--size", type=int, help="Side of the images, px.")
@click.option("--batch-size", type=int, help="Images in a batch, of both players (a detector wants 4 or more).")
@click.option("--device", metavar="DEVICE", help="auto (the default), cpu, cuda, cuda:1 or mps.")
@click.option("--precision", metavar="NAME", help="32-true (the default), bf16-mixed or 16-mixed.")
@click.option("--seed", type=int, help="Of everything random: weights, batches, augmentation.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; an existing run is continued. [runs/NAME]")
@click.option("--config", "file", type=click.Path(path_type=Path), help="A YAML file of settings, over the preset's.")
@click.option("--preset", metavar="NAME", help="quick (the default), paper or smoke: where settings start from.")
@click.option("--evade", type=float, help="Weight with which the generator feels last round's detector. [0]")
@click.option("--max-bad", help="Unreadable images to skip: a count, or a share such as 0.05.")
@click.option("--max-pixels", type=int, help="Images with more pixels than this are unreadable. [40000000]")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any other setting, as in generator.width=64.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead of a table.")
def run(**options: Any) -> None:
    """Play rounds of a generator against a detector, or continue a run.

    Each round trains the generator, forges, lets last round's detector judge what it has never seen, trains the
    detector, judges again on a held-out split, and records scores with intervals. The run folder holds everything:
    report.html to look at, summary.json for machines.

    Without a preset the quick one holds: small nets, 64 px, three rounds, minutes on two CPU cores.
    """
    from arena import run as running
    from arena.build import device
    from arena.config import over, read_yaml, resolve
    from arena.watch import watch

    out, as_json = options.pop("out"), options.pop("as_json")
    stored = running.stored_config(out) if out else None
    file = read_yaml(options["file"]) if options["file"] else {}
    file = file.get("settings", file)  # a run.json repeats that run
    preset = options["preset"] or file.pop("preset", None)
    layers = option_layers(options, file)
    asked_device = next((str(layer["device"]) for layer in reversed(layers) if "device" in layer), None)
    if stored is None or asked_device:
        layers.append({"device": device(asked_device or "auto")})
    else:
        device(stored.device)
    if stored is None:
        config = resolve(layers, preset or "quick")
        out = out or Path("runs") / running.new_run_name(config)
        if preset is None and not as_json:
            click.echo(
                "No --preset given, so the quick one holds (small nets, 64 px, 3 rounds). See `arena list`.", err=True
            )
    else:
        config = stored
        if any(layers) or preset:
            asked = over(stored, layers)
            asked = asked.model_copy(update={"preset": preset or stored.preset})
            running.check_same(out, stored, asked)
    click.echo(f"{'Continuing' if stored else 'Run folder:'} {out}", err=True)
    shown = watch(config.rounds)
    try:
        with saving_on_signals():
            summary = running.run(config, out, shown, command="arena " + shlex.join(sys.argv[1:]))
    except StoppedError as stop:
        shown.close()
        click.echo(f"arena: {stop}. Go on with: arena run --out {shlex.quote(str(out))}", err=True)
        raise click.exceptions.Exit(130) from None
    except KeyboardInterrupt:
        if (out / "run.json").exists():
            click.echo(f"\nGo on from the last save with: arena run --out {shlex.quote(str(out))}", err=True)
        raise
    finally:
        shown.close()
    if as_json:
        click.echo(json.dumps(summary))
    else:
        print_table(summary)
        click.echo(f"Report: {out / 'report.html'}")


@contextmanager
def saving_on_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM let the step in hand end, save, and stop; a second Ctrl-C stops at once."""
    from arena.training import stopping

    def ask(number: int, frame: Any) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        click.echo("arena: stopping after this step or phase (once more to stop at once)", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        stopping.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def option_layers(options: dict[str, Any], file: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers over the preset: the file, the options, --set; only what was given."""
    from arena.config import EMBEDDED, parse_set

    direct = {key: options[key] for key in ("rounds", "precision", "seed", "evade", "generator", "detector", "device")}
    if options["steps"] is not None:
        direct |= {"generator_steps": options["steps"], "detector_steps": options["steps"]}
    if options["batch_size"] is not None:
        direct |= {"generator_batch": options["batch_size"], "detector_batch": options["batch_size"]}
    direct = {key: value for key, value in direct.items() if value is not None}
    data = {"source": options["data"], "size": options["size"], "max_bad": options["max_bad"]}
    data["max_pixels"] = options["max_pixels"]
    data = {key: value for key, value in data.items() if value is not None}
    if data.get("source") in EMBEDDED and Path(data["source"]).is_dir():
        raise InputError(
            f"--data {data['source']} is data of the lab's own, and a folder of that name lies here: write "
            f"./{data['source']} for the folder, or call from elsewhere."
        )
    if data.get("source") not in (None, *EMBEDDED):
        data["source"] = str(Path(data["source"]).resolve())
    if data:
        direct["data"] = data
    return [file, {**direct}, parse_set(options["pairs"])]


def print_table(summary: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from arena.report.table import round_table

    console = Console()
    headers, rows = round_table(summary, brief=console.width < 160)
    table = Table(title=summary["run"], title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1), pad_edge=False)
    for header in headers:
        table.add_column(header, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


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
    """Show the generators, detectors, data and presets there are, one line each."""
    from arena.config import names, read_named

    found = {
        "generators": {name: read_named("gen", name).get("about", "") for name in names("gen")},
        "detectors": {name: read_named("detect", name).get("about", "") for name in names("detect")},
        "data": {
            "faces": "Embedded synthetic faces, dark-haired and fair-haired; no real person, nothing to download",
            "faces-two": "Two people of the embedded faces; the exact swap is known, so a face swap can be scored",
            "FOLDER": "Your images: trainA/ trainB/ testA/ testB/, A/ B/, class folders, or any folder",
        },
        "presets": {name: read_named("run", name).get("about", "") for name in names("run")},
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
        click.option("--features", type=click.Choice(["inception", "conv704", "spectrum"]), default="inception",
                     show_default=True, help="Anything but inception gives a distance of another name."),
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

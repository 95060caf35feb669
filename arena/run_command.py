"""`arena run`, the rounds, and `arena train`, a detector alone: one run folder, one way to continue it."""

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from arena.errors import InputError, StoppedError
from arena.terminal import example


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `run` and `train` share."""
    options = (
        click.option("--size", type=int, help="Side of the images, px."),
        click.option("--device", metavar="DEVICE", help="auto (the default), cpu, cuda, cuda:1 or mps."),
        click.option("--precision", metavar="NAME", help="32-true (the default), bf16-mixed or 16-mixed."),
        click.option("--seed", type=int, help="Of everything random: weights, batches, augmentation."),
        click.option(
            "--out", type=click.Path(path_type=Path), help="Run folder; an existing run is continued. [runs/NAME]"
        ),
        click.option(
            "--config", "file", type=click.Path(path_type=Path), help="A YAML file of settings, over the preset's."
        ),
        click.option(
            "--preset", metavar="NAME", help="quick (the default), paper or smoke: where settings start from."
        ),
        click.option("--max-bad", help="Unreadable files to skip: a count, or a share such as 0.05."),
        click.option("--max-pixels", type=int, help="Images with more pixels than this are unreadable. [40000000]"),
        click.option(
            "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any other setting, as in detector.lr=1e-4."
        ),
        click.option(
            "--allow-leak", is_flag=True, help="Go on although the audit finds that the files give the label away."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON instead of a table."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(epilog=example("""
arena run --generator cyclegan --detector cnnspot
arena run --generator cyclegan --detector cnnspot --data horse2zebra/ --preset paper
arena run --generator cyclegan --detector cnnspot --evade 0.5 --set generator.ema=0.999
arena run --generator faceswap --detector cnn_lstm --data faces-clips
arena run --out runs/my-run        continue it where it stopped, whatever stopped it
"""))  # fmt: skip
@click.option("--generator", metavar="NAME", help="Who makes the fakes: a name of `arena list`, or a YAML file.")
@click.option("--detector", metavar="NAME", help="Who hunts them: a name of `arena list`, or a YAML file.")
@click.option(
    "--data", metavar="FOLDER",
    help="faces, faces-two or faces-clips (embedded, synthetic), or a folder of images or videos.",
)  # fmt: skip
@click.option("--rounds", type=int, help="Rounds to play.")
@click.option("--steps", type=int, help="Training steps of each player in each round.")
@click.option("--batch-size", type=int, help="Images (or clips) in a batch, of both players (a detector wants >= 4).")
@click.option("--evade", type=float, help="Weight with which the generator feels last round's detector. [0]")
@run_options
def run(**options: Any) -> None:
    """Play rounds of a generator against a detector, or continue a run.

    Each round trains the generator, forges, lets last round's detector judge what it has never seen, trains the
    detector, judges again on a held-out split, and records scores with intervals. The run folder holds everything:
    report.html to look at, summary.json for machines.

    Without a preset the quick one holds: small nets, 64 px, three rounds, minutes on two CPU cores.
    """
    keys = ("rounds", "precision", "seed", "evade", "generator", "detector", "device")
    direct = {key: options.pop(key) for key in keys}
    steps, batch = options.pop("steps"), options.pop("batch_size")
    direct |= {"generator_steps": steps, "detector_steps": steps, "generator_batch": batch, "detector_batch": batch}
    data = embedded_or_folder(options.pop("data"))
    play(direct, data, "no --preset given, so the quick one holds (small nets, 64 px, 3 rounds)", **options)


@click.command(epilog=example("""
arena train cnnspot --real photos/ --fake fakes/ --out runs/spotter
arena train cnnspot --real photos/ --fake stylegan/ --fake diffusion/ --size 128 --steps 2000
arena train cnn_lstm --real videos/real --fake videos/swapped --set data.crop=face
arena train --out runs/spotter        continue it where it stopped
"""))  # fmt: skip
@click.argument("detector", metavar="DETECTOR", required=False)
@click.option("--real", multiple=True, metavar="DIR", help="Folder of real images, or of real videos. [repeatable]")
@click.option("--fake", multiple=True, metavar="DIR", help="Folder of fake ones. [repeatable]")
@click.option("--steps", type=int, help="Training steps.")
@click.option("--batch-size", type=int, help="Images (or clips) in a batch, half of them fakes.")
@click.option("--look-every", type=int, help="Steps between two looks at the validation split. [a tenth of --steps]")
@click.option("--group", metavar="RULE", help="What is of one source: auto (the default), none, parent, prefix:REGEX.")
@run_options
def train(real: tuple[str, ...], fake: tuple[str, ...], group: str | None, **options: Any) -> None:
    """Train DETECTOR on labelled folders of images or videos, or continue such a training.

    The files are split into train, val and judge by source (sub-folders train, val and test are taken as they are). The
    weights kept are those of the best look at the validation split; the judge split is met once, at the end. The run
    folder is one of `arena run`'s: report.html, summary.json (the figures stand under `after`), checkpoints.
    """
    if not (options["detector"] or options["out"] or options["file"]):
        raise click.UsageError("name a DETECTOR (`arena list` shows them), or continue a training with --out.")
    keys = ("precision", "seed", "detector", "device", "look_every")
    direct = {key: options.pop(key) for key in keys}
    steps, batch = options.pop("steps"), options.pop("batch_size")
    direct |= {"detector_steps": steps, "detector_batch": batch}
    folders = {"real": list(map(str, map(resolved, real))), "fake": list(map(str, map(resolved, fake)))}
    data: dict[str, Any] = {key: value for key, value in folders.items() if value} | ({"group": group} if group else {})
    if direct["detector"] or data:
        from arena.config import LABELLED

        direct |= {"baseline": "spectrum"}
        data["source"] = LABELLED
    note = "no --preset given, so the quick one holds (small nets, 64 px)"
    play(direct, data, note, alone=True, **options)


def resolved(folder: str) -> Path:
    return Path(folder).expanduser().resolve()


def embedded_or_folder(source: str | None) -> dict[str, Any]:
    """--data as a layer."""
    from arena.config import EMBEDDED

    if source is None:
        return {}
    if source in EMBEDDED:
        if Path(source).is_dir():
            raise InputError(
                f"--data {source} is data of the lab's own, and a folder of that name lies here: write "
                f"./{source} for the folder, or call from elsewhere."
            )
        return {"source": source}
    return {"source": str(Path(source).resolve())}


def play(
    direct: dict[str, Any], data: dict[str, Any], note: str, *, out: Path | None, file: Path | None,
    preset: str | None, size: int | None, max_bad: str | None, max_pixels: int | None, pairs: tuple[str, ...],
    as_json: bool, allow_leak: bool, alone: bool = False,
) -> None:  # fmt: skip
    """Settle the settings, play or continue the run, and print its figures. `alone`: a detector without a generator."""
    from arena import run as running
    from arena.build import device
    from arena.config import over, parse_set, read_yaml, resolve
    from arena.stored import stored_config

    stored = stored_config(out) if out else None
    if alone and stored is None and not (direct["detector"] or file):
        raise InputError(f"{out} is no training yet. Name a DETECTOR (`arena list`) and its --real and --fake folders.")
    if stored is not None and alone != (stored.generator is None):
        raise InputError(f"{out} is a run of `{stored.command}`: continue it with that.")
    settings = read_yaml(file) if file else {}
    settings = settings.get("settings", settings)  # a run.json repeats that run
    preset = preset or settings.pop("preset", None)
    data |= {
        key: value
        for key, value in (("size", size), ("max_bad", max_bad), ("max_pixels", max_pixels))
        if value is not None
    }
    direct = {key: value for key, value in direct.items() if value is not None} | ({"data": data} if data else {})
    layers = [settings, direct, parse_set(pairs)]
    asked_device = next((str(layer["device"]) for layer in reversed(layers) if "device" in layer), None)
    if stored is None or asked_device:
        layers.append({"device": device(asked_device or "auto")})
    else:
        device(stored.device)
    if stored is None:
        if alone:
            layers = [{"generator": None, "rounds": 1, "replay": 0.0}, *layers]
        config = resolve([*layers, *([{"allow_leak": True}] if allow_leak else [])], preset or "quick")
        if alone:
            config = with_looks(config)
            if not (config.data.real and config.data.fake):
                raise InputError("a detector learns from reals and fakes: give --real DIR and --fake DIR.")
        out = out or Path("runs") / running.new_run_name(config)
        if preset is None and not as_json:
            click.echo(f"{note[0].upper()}{note[1:]}. See `arena list`.", err=True)
    else:
        assert out is not None
        config = stored.model_copy(update={"allow_leak": stored.allow_leak or allow_leak})
        if any(layers) or preset:
            asked = over(stored, layers)
            running.check_same(out, stored, asked.model_copy(update={"preset": preset or stored.preset}))
    show(config, out, as_json, "train" if alone else "run", continuing=stored is not None)


def with_looks(config: Any) -> Any:
    """A training's settings with the looks that choose the weights: ten of them, unless something was said."""
    if config.look_every:
        return config
    return config.model_copy(update={"look_every": max(1, config.detector_steps // 10)})


def show(config: Any, out: Path, as_json: bool, command: str, continuing: bool) -> None:
    """Play and print."""
    from arena import run as running
    from arena.errors import LeakError
    from arena.watch import watch

    go_on = f"arena {command} --out {shlex.quote(str(out))}"
    click.echo(f"{'Continuing' if continuing else 'Run folder:'} {out}", err=True)
    shown = watch(config.rounds)
    try:
        with saving_on_signals():
            summary = running.run(config, out, shown, command="arena " + shlex.join(sys.argv[1:]))
    except StoppedError as stop:
        shown.close()
        click.echo(f"arena: {stop}. Go on with: {go_on}", err=True)
        raise click.exceptions.Exit(130) from None
    except LeakError as leak:
        shown.close()
        click.echo(f"arena: {leak}\nGo on all the same with: {go_on} --allow-leak", err=True)
        raise click.exceptions.Exit(1) from None
    except KeyboardInterrupt:
        if (out / "run.json").exists():
            click.echo(f"\nGo on from the last save with: {go_on}", err=True)
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


def print_table(summary: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from arena.report.ledger_view import rounds_of
    from arena.report.table import round_table
    from arena.report.words import restored

    console = Console()
    headers, rows = round_table(summary, brief=console.width < 160)
    table = Table(
        title=summary["run"], title_justify="left", box=box.SIMPLE, padding=0, pad_edge=False, show_edge=False
    )
    for place, header in enumerate(headers):
        lines = [line for row in rows for line in row[place].split("\n")]
        widest = max(map(len, lines), default=0)  # headers may be folded, figures may not
        word = min(9, max(map(len, header.split())))
        table.add_column(header, justify="right", overflow="fold", width=max(widest, word))
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if sentence := restored(rounds_of(summary)):
        console.print(sentence, highlight=False, markup=False)

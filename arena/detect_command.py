"""`arena detect`: is this picture, or this video, a fake?"""

import csv
import hashlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arena.errors import InputError
from arena.files import atomic
from arena.terminal import bar, example

if TYPE_CHECKING:
    from arena.detection import Result, Scorer, Tally

FILE = click.Path(path_type=Path)
FORMATS = ("table", "csv", "jsonl")
Row = dict[str, Any]
Sink = Callable[[bytes], Any]


class Count(click.ParamType):
    """A number of windows, or "all"."""

    name = "count"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "all":
            return value
        if not (str(value).isdecimal() and 1 <= int(value) <= 1_000_000):
            self.fail(f"expected a number of windows from 1 on, or all, got {value!r}.", param, ctx)
        return int(value)


@click.command(epilog=example("""
arena detect runs/my-run photo.jpg clip.mp4 folder/
arena detect runs/my-run inbox/ --format csv --out scores.csv
find . -name '*.png' -print0 | arena detect runs/my-run - -0 --format jsonl
arena detect runs/my-run inbox/ --explain heat/ --method grad-cam
arena detect runs/my-run film.mp4 --windows all --windows-out film.csv
"""))  # fmt: skip
@click.argument("checkpoint", metavar="RUN_OR_CHECKPOINT", type=FILE)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=FILE)
@click.option("-0", "nul", is_flag=True, help="The list that PATH - reads has NUL after each path, not a line's end.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="[by OUT's suffix; table on a terminal; else csv]")
@click.option("--out", type=FILE, help="Write there, whole or not at all. [standard output]")
@click.option("--windows", type=Count(), metavar="N|all", help="Windows of a video. [all that fit, at most 64]")
@click.option("--windows-out", type=FILE, help="Write a CSV of each window's score.")
@click.option("--threshold", type=float, help="Fake from this logit on. [frozen on the run's validation split]")
@click.option("--size", type=click.IntRange(8, 4096), help="Side of a picture, px. [as the detector was trained]")
@click.option("--explain", "heat", metavar="DIR", type=FILE, help="Write a heat map (PNG) of each file there.")
@click.option("--method", help="Of --explain: grad-cam, cam, occlusion, saliency ... (docs/detect.md). [grad-cam]")
@click.option("--batch-size", type=click.IntRange(1, 4096), default=64, show_default=True, help="Pictures at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
def detect(checkpoint: Path, paths: tuple[Path, ...], heat: Path | None, method: str | None, **options: Any) -> None:
    """Score images, videos and folders of them: one row a file, with the probability that it is fake.

    The probability is the sigmoid of the detector's logit and not calibrated; the decision is made at the threshold
    that was frozen on the validation split. A video's score is the mean of its windows', which lie over its whole
    length. PATH - reads a list of paths, one a line. A file that cannot be read is a row with its error. Exit code: 0;
    1 if no file could be scored; 2 for wrong input.
    """
    if method and not heat:
        raise InputError("--method is for --explain DIR. Add that, or leave --method out.")
    if options["threshold"] is not None and not math.isfinite(options["threshold"]):
        raise InputError(f"--threshold is a logit such as 0, not {options['threshold']}.")
    listed = list(listing(paths, options["nul"]))
    form = options["form"] or wanted_form(options["out"])
    streams = form != "table" and options["out"] is None and _is_terminal()  # rows and a bar would mix

    from arena.build import device
    from arena.data import media
    from arena.detection import Scorer, Tally
    from arena.detection import detect as work

    files = media.find(listed)
    check_outputs([options["out"], options["windows_out"]], heat, files)
    scorer = Scorer(
        checkpoint, device(options["device"]), options["batch_size"],
        threshold=options["threshold"], size=options["size"],
    )  # fmt: skip
    draw = _drawer(scorer, heat, method or "grad-cam") if heat else None
    tally, good, began = Tally(), 0, time.perf_counter()
    with ExitStack() as stack:
        write = _sink(stack, options["out"])
        write_window = _sink(stack, options["windows_out"]) if options["windows_out"] else None

        def rows() -> Iterator[Row]:
            nonlocal good
            with bar("files", quiet=streams) as progress:
                for done, result in enumerate(work(scorer, files, options["windows"], tally), 1):
                    row = row_of(result, scorer.threshold)
                    if draw:
                        row["heat"] = draw(result) if result.pixels is not None else None
                    good += not result.error
                    if write_window:
                        for window in result.windows:
                            write_window(csv_line([row["path"], *window]))
                    yield row
                    if progress:
                        progress(done, len(files))

        if write_window:
            write_window(csv_line(["path", "start", "seconds", "logit"]))
        FORMAT[form](rows(), write, bool(heat))
    click.echo(closing(scorer, tally, len(files) - good, time.perf_counter() - began), err=True)
    if not good:
        raise click.exceptions.Exit(1)


def check_outputs(outs: list[Path | None], heat: Path | None, files: Iterable[Any]) -> None:
    """Raise InputError where what is written would fall on an input, or on itself."""
    given = [out.resolve() for out in outs if out]
    read = {file.path.resolve() for file in files}
    for out in given:
        if out in read or given.count(out) > 1:
            why = "is one of the files to be scored" if out in read else "is named twice"
            raise InputError(f"{out} {why}: it would be overwritten. Name another file.")
    if heat and heat.exists() and not heat.is_dir():
        raise InputError(f"--explain {heat} is a file. Name a folder, which may be new.")


def listing(paths: Iterable[Path], nul: bool) -> Iterator[Path]:
    """The paths, those on standard input in the place of "-"."""
    paths = list(paths)
    if nul and Path("-") not in paths:
        raise InputError("-0 says how a list on standard input is separated: give - as a PATH, or leave -0 out.")
    for path in paths:
        if path != Path("-"):
            yield path
            continue
        data = sys.stdin.buffer.read()
        for name in data.split(b"\0") if nul else (line.rstrip(b"\r") for line in data.split(b"\n")):
            if name:
                yield Path(os.fsdecode(name))


def wanted_form(out: Path | None) -> str:
    suffix = out.suffix.lower().removeprefix(".") if out else ""
    if suffix in FORMATS:
        return suffix
    return "table" if out is None and _is_terminal() else "csv"


def row_of(result: "Result", threshold: float) -> Row:
    """What is said of a file; None where there is nothing to say."""
    fine = not result.error
    return {
        "path": result.file.name,
        "kind": result.kind or None,
        "probability": probability(result.logit) if fine else None,
        "logit": result.logit if fine else None,
        "decision": ("fake" if result.logit >= threshold else "real") if fine else None,
        "threshold": threshold,
        "windows": [window._asdict() for window in result.windows],
        "error": result.error or None,
    }


def probability(logit: float) -> float:
    """The logit's sigmoid."""
    small = math.exp(-abs(logit))
    return (1 if logit >= 0 else small) / (1 + small)


def write_jsonl(rows: Iterable[Row], write: Sink, heat: bool) -> None:
    for row in rows:
        counted = {**row, "n_windows": len(row["windows"]), "calibrated": False}
        write(json.dumps(counted, allow_nan=False).encode() + b"\n")


def write_csv(rows: Iterable[Row], write: Sink, heat: bool) -> None:
    names = ["path", "kind", "probability", "logit", "decision", "threshold", "windows", "error"] + ["heat"] * heat
    write(csv_line(names))
    for row in rows:
        counted = {**row, "windows": len(row["windows"])}
        write(csv_line(counted[name] for name in names))


def write_table(rows: Iterable[Row], write: Sink, heat: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("file", overflow="fold")
    for name in ("P(fake)", "logit", "", "windows"):
        table.add_column(name, justify="right", no_wrap=True)
    cells: list[str | Text]
    for row in rows:
        if row["error"]:
            cells = ["", "", Text("error", "yellow"), ""]
            shown = f"{_printable(row['path'])}\n  {_printable(row['error'])}"
        else:
            verdict = Text(row["decision"], "red" if row["decision"] == "fake" else "green")
            windows = str(len(row["windows"])) if row["kind"] == "video" else ""
            cells = [f"{row['probability']:.3f}", f"{row['logit']:+.2f}", verdict, windows]
            shown = _printable(row["path"])
        table.add_row(Text(shown), *cells)
    text, terminal = io.StringIO(), _is_terminal()
    Console(file=text, force_terminal=terminal, width=None if terminal else 120).print(table)
    write(text.getvalue().encode())


FORMAT: dict[str, Callable[[Iterable[Row], Sink, bool], None]] = {
    "table": write_table,
    "csv": write_csv,
    "jsonl": write_jsonl,
}


def csv_line(values: Iterable[Any]) -> bytes:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode("utf-8", "backslashreplace")


def closing(scorer: "Scorer", tally: "Tally", bad: int, seconds: float) -> str:
    """What was done, how fast, and what the figures mean."""
    from arena.faces import plural

    what = [plural(tally.images, "image")] if tally.images or not tally.videos else []
    what += [f"{plural(tally.videos, 'video')} ({plural(tally.frames, 'frame')})"] if tally.videos else []
    rate = (tally.images + tally.frames) / max(seconds, 1e-9)
    times = ", ".join(f"{value:.1f} s {name}" for name, value in tally.seconds.items())
    lines = [f"{' and '.join(what)} in {seconds:.1f} s: {rate:.3g} images per second ({times})"]
    lines += [f"{plural(bad, 'file')} could not be read"] if bad else []
    lines += [f"{plural(tally.lost, 'frame')} could not be decoded"] if tally.lost else []
    lines += [f"fake from logit {scorer.threshold:.4g} on ({scorer.threshold_from}); probabilities are not calibrated"]
    return "\n".join(lines)


def _drawer(scorer: "Scorer", folder: Path, method: str) -> Callable[["Result"], str]:
    """Draws what speaks for and against a fake: returns the name of the file, which no other path's is."""
    from arena.heat import heat_png
    from arena.training import to_float
    from detect.explain import METHODS, explain

    if method not in METHODS:
        raise InputError(f"unknown --method {method!r}: use {', '.join(METHODS)}.")

    def draw(result: "Result") -> str:
        assert result.pixels is not None
        shown = result.pixels if scorer.frames > 1 or len(result.pixels) == 1 else result.pixels[:1]
        try:
            found = explain(scorer.detector, to_float(shown[None].to(scorer.device)), method)
        except ValueError as error:
            raise InputError(f"--method {method} does not fit this detector: {error}.") from error
        first = replace(found, values=found.values[:, :1])  # the colours' limit is that of the whole window
        name = result.file.name
        marks = {
            "Synthetic": "the colours: a detector's heat map",
            "Source": "deepfake-arena",
            "Made from": _printable(Path(name).name),
            **{f"Detector-{key}": value for key, value in scorer.opened.marks.items()},
        }
        stem = "".join(c if (c.isascii() and c.isalnum()) or c in "_-" else "~" for c in Path(name).stem)[:60]
        digest = hashlib.sha256(os.fsencode(result.file.path.absolute())).hexdigest()[:16]
        path = folder / f"{stem}-{digest}.png"
        with atomic(path, durable=False) as file:
            file.write(heat_png(shown[:1], first, marks, found.limit))
        return str(path)

    return draw


def _sink(stack: ExitStack, out: Path | None) -> Sink:
    if out is None:
        return sys.stdout.buffer.write
    return stack.enter_context(atomic(out)).write


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _printable(name: str) -> str:
    """A name without what a terminal would take as an order."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)

"""`arena audit`: the command line of arena/audit.py."""

import json
from pathlib import Path
from typing import Any

import click

from arena.errors import InputError
from arena.terminal import bar, example

FILE = click.Path(path_type=Path)


@click.command(epilog=example("""
arena audit --real photos/ --fake fakes/
arena audit --real real/ --fake stylegan/ --fake diffusion/ --group parent --out audit/
arena audit --real real/ --fake fake/ --equalise even/        then train on even/real and even/fake
arena audit --real real/ --fake fake/ --equalise even/ --size 128 --codec jpeg-90
arena audit --real videos/real --fake videos/fake
arena audit runs/my-run
"""))  # fmt: skip
@click.argument("run", metavar="[RUN]", required=False, type=FILE)
@click.option("--real", multiple=True, metavar="DIR", help="Folder of real images or videos. [repeatable]")
@click.option("--fake", multiple=True, metavar="DIR", help="Folder of fake ones. [repeatable]")
@click.option("--group", metavar="RULE", default="auto", show_default=True,
              help="What is of one source: auto, none, parent or prefix:REGEX.")  # fmt: skip
@click.option("--equalise", metavar="OUT", type=FILE,
              help="Write both classes anew, alike, to OUT/real and OUT/fake, and audit those.")  # fmt: skip
@click.option("--size", type=click.IntRange(32, 4096), help="With --equalise: side, px. [the smaller median]")
@click.option("--codec", metavar="NAME", help="With --equalise: png or jpeg-QUALITY; of videos raw, c23 or c40.")
@click.option("--most", type=click.IntRange(4), default=5000, show_default=True, help="Files of a class to look at.")
@click.option("--max-bad", default="10", show_default=True, help="Unusable files to skip: a count, or a share as 0.05.")
@click.option("--out", metavar="DIR", type=FILE, help="Write audit.html and audit.json there.")
@click.option("--json", "as_json", is_flag=True, help="Print all that was found as JSON.")
@click.pass_context
def audit(
    ctx: click.Context, run: Path | None, real: tuple[str, ...], fake: tuple[str, ...], equalise: Path | None,
    size: int | None, codec: str | None, out: Path | None, as_json: bool, **reading: Any,
) -> None:  # fmt: skip
    """Does anything but the picture give the label away?

    Tries to tell fakes from reals without looking at what they show: by format, size, JPEG quality, the grid that JPEG
    leaves, metadata; of videos by codec, rate and bit rate. Finds duplicates between classes and splits. Exit code 1
    where there is a leak, 0 where there is none.
    """
    from arena.evaluate_command import count_or_share

    max_bad = count_or_share(reading.pop("max_bad"))
    if bool(run) == bool(real or fake) or bool(real) != bool(fake):
        raise InputError("give a RUN, or --real DIR and --fake DIR (see arena audit --help).")
    if (size or codec or run) and not equalise and (size or codec):
        raise InputError("--size and --codec belong to --equalise OUT.")
    if run and equalise:
        raise InputError("--equalise takes --real DIR and --fake DIR: what a run has stored is of one size already.")
    if run:
        from arena.audit_run import audit_run

        found: dict[str, Any] = {"what": str(run), **audit_run(run)}
    else:
        found = of_folders(real, fake, {**reading, "max_bad": max_bad}, (equalise, size, codec), as_json)
    if out is not None:
        from arena.files import atomic, write_json
        from arena.report.audit import render

        write_json(out / "audit.json", found)
        with atomic(out / "audit.html") as file:
            file.write(render(found).encode())
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        show(found)
        if out is not None:
            click.echo(f"Page: {out / 'audit.html'}")
    ctx.exit(1 if found.get("after", found)["leak"] else 0)


def of_folders(
    real: tuple[str, ...], fake: tuple[str, ...], reading: dict[str, Any],
    wish: tuple[Path | None, int | None, str | None], quiet: bool,
) -> dict[str, Any]:  # fmt: skip
    """The audit of two classes' folders, and with a wish to equalise, of what that made of them."""
    from arena.audit import audit as work
    from arena.audit_files import read

    out, size, codec = wish
    if out is not None:
        reading = {**reading, "most": 10**9}  # all are written
    with bar("reading", quiet) as progress:
        files = read(real, fake, progress=progress, **reading)
    found = {"what": f"{', '.join(real)} against {', '.join(fake)}", **facts(files), **work(files.looks)}
    if out is None:
        return found
    from arena.equalise import equalise, plan

    with bar("writing", quiet) as progress:
        found["equalised"] = equalise(files, plan(files, size, codec), out, progress)
    with bar("reading again", quiet) as progress:
        again = read([str(out / "real")], [str(out / "fake")], progress=progress, **reading)
    found["after"] = {"what": str(out), **facts(again), **without_cure(work(again.looks))}
    return found


def without_cure(found: dict[str, Any]) -> dict[str, Any]:
    """What an audit of equalised files found, which does not advise to equalise them."""
    from arena.audit import CURE, LEFT

    for entry in found["findings"]:
        entry["remedy"] = entry["remedy"].replace(CURE, LEFT)
    return {**found, "verdict": found["verdict"].replace(CURE, LEFT)}


def facts(files: Any) -> dict[str, Any]:
    """What was read, and what was not."""
    return {
        "kind": "videos" if files.videos else "pictures", "group_rule": files.group_rule,
        "bad": [list(entry) for entry in files.bad], "left_out": files.left_out,
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    """Verdict, findings and tables on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from arena.report.audit import constant, tables

    console, after = Console(), found.get("after")
    console.print(found["verdict"], style="bold red" if found["leak"] else "bold", highlight=False, markup=False)
    for entry in found["findings"]:
        if entry["severity"] != "fine":
            console.print(f"{entry['severity']}: {entry['text']}.", highlight=False, markup=False)
            for name in entry["examples"][:5]:
                console.print(f"    {name}", highlight=False, markup=False, style="dim")
    for title, table in tables(found, after, brief=console.width < 120).items():
        shown = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1), pad_edge=False)
        for place, header in enumerate(table.headers):
            shown.add_column(header, justify="left" if not place or place > 2 else "right", overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown, markup=False)
    if alike := constant(found):
        console.print(f"The same in every file: {', '.join(alike)}.", highlight=False)
    if found.get("left_out"):
        console.print(f"{found['left_out']:,} files beyond --most were not looked at.", highlight=False)
    if found.get("bad"):
        name, why = found["bad"][0]
        console.print(f"{len(found['bad'])} unusable files, such as {name} ({why}).", highlight=False, markup=False)
    if after:
        done = found["equalised"]
        console.print(f"Equalised in {done['out']}: {done['why']}.", highlight=False, markup=False)
        console.print(done["cannot"], highlight=False, style="dim")
        console.print(
            f"After it: {after['verdict']}", style="bold red" if after["leak"] else "bold green",
            highlight=False, markup=False,
        )  # fmt: skip

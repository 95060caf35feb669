"""`arena submit`: the command line of arena/submission."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from arena.terminal import bar, example

FILE = click.Path(path_type=Path)
CHALLENGE = "The challenge's folder, or its public part."
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(epilog=example("""
arena submit challenge faces --out challenge/                     organiser: make a challenge
arena submit pack runs/my-run --team Aurora --challenge challenge/public --out aurora.zip
arena submit check aurora.zip --challenge challenge/public        team and organiser: the same check
arena submit score challenge/ submissions/ --out board/           organiser: everybody against everybody
arena submit bundle challenge/ --format codabench --out bundle.zip
"""))  # fmt: skip
def submit() -> None:
    """Hackathons: pack and check what a team hands in; make a challenge, score it, publish it."""


@submit.command(epilog=example("""
arena submit pack runs/my-run --team Aurora --challenge challenge/public --out aurora.zip
arena submit pack runs/my-run --team Aurora --track detection --challenge challenge/public --out aurora.zip
arena submit pack --fakes fakes/ --detector runs/my-detector --team Aurora --challenge challenge/public --out aurora.zip
arena submit pack --scores scores.csv --team Aurora --challenge challenge/public --out aurora.zip
"""))  # fmt: skip
@click.argument("run", metavar="[RUN]", required=False, type=FILE)
@click.option("--team", required=True, metavar="NAME", help="Your team's name.")
@click.option("--out", required=True, metavar="ZIP", type=FILE, help="The zip to write; it must not exist.")
@click.option("--challenge", "folder", metavar="DIR", type=FILE, help="The challenge's public part: counts and sizes.")
@click.option("--track", type=click.Choice(["generation", "detection"]), help="This track alone. [all there is]")
@click.option("--fakes", metavar="DIR", type=FILE, help="Hand in these images instead of a run's.")
@click.option(
    "--detector",
    metavar="CHECKPOINT",
    type=FILE,
    help="Hand in this detector (a run, a save of one, or an .onnx) instead of the run's.",
)
@click.option(
    "--scores",
    metavar="CSV",
    type=FILE,
    help="Hand in scores of the test images (id,score, or what `arena detect` wrote).",
)
@click.option("--count", type=click.IntRange(1, 20_000), help="Fakes, where no challenge says how many. [200]")
@click.option("--licence", default="", metavar="TEXT", help="The licence of what you hand in.")
@click.option("--data", default="", metavar="TEXT", help="What it was trained on. [what the run says]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@as_json_option
def pack(run: Path | None, folder: Path | None, device: str, as_json: bool, **options: Any) -> None:
    """Pack what you hand in: fakes, a detector, or scores, as one zip that has passed the organiser's check.

    Out of a RUN come fakes of its generator and its detector (as ONNX, and as safetensors with its settings). The same
    things packed twice are the same bytes.
    """
    from arena.build import device as check_device
    from arena.submission import pack as work
    from arena.submission.challenge import open_challenge

    challenge = open_challenge(folder) if folder else None
    with bar("fakes", as_json) as progress:
        found = work.pack(
            options.pop("out"), options.pop("team"), run=run, challenge=challenge, device=check_device(device),
            progress=progress, **options,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    tracks = " and ".join(found["tracks"])
    click.echo(f"{found['out']}: {tracks}, {found['files']} files, {found['bytes'] / 1e6:.1f} MB")
    click.echo(f"sha256 {found['sha256']}")
    for note in found["notes"]:
        click.echo(f"note: {note}", err=True)


@submit.command(epilog=example("arena submit check aurora.zip --challenge challenge/public"))
@click.argument("file", metavar="ZIP", type=FILE)
@click.option("--challenge", "folder", metavar="DIR", type=FILE, help=CHALLENGE)
@as_json_option
def check(file: Path, folder: Path | None, as_json: bool) -> None:
    """Check a submission as the organiser will: every problem is one line with its remedy.

    Exits with 1 where there is one.
    """
    import tempfile

    from arena.submission import check as work
    from arena.submission.challenge import open_challenge

    challenge = open_challenge(folder) if folder else None
    with tempfile.TemporaryDirectory() as place:
        found = work.check(file, challenge, Path(place) / "unpacked")
    notes = [*found.notes, *([] if challenge else ["checked without --challenge: counts and sizes are its own"])]
    if as_json:
        problems = [{"where": problem.where, "text": problem.text} for problem in found.problems]
        said = {"team": found.team, "sha256": found.sha256, "passed": not problems}
        click.echo(json.dumps({**said, "problems": problems, "notes": notes}, indent=1))
    else:
        for problem in found.problems:
            click.echo(str(problem))
        for note in notes:
            click.echo(f"note: {note}", err=True)
        click.echo(f"{found.team}: {'passed' if not found.problems else f'{len(found.problems)} problem(s)'}")
    if found.problems:
        raise click.exceptions.Exit(1)


@submit.command(epilog=example("""
arena submit challenge faces --out challenge/                     embedded faces: a packaged challenge
arena submit challenge my-challenge.yaml --out challenge/         your own pictures; see docs/hackathon-organiser.md
"""))  # fmt: skip
@click.argument("config", metavar="CONFIG")
@click.option("--out", required=True, metavar="DIR", type=FILE, help="A new folder.")
@as_json_option
def challenge(config: str, out: Path, as_json: bool) -> None:
    """Make a challenge: a public folder for the teams, a private one for you. CONFIG is a name or a YAML file."""
    from arena.submission import challenge as work

    with bar("images", as_json) as progress:
        found = work.make(work.read_config(config), out, progress)
    if as_json:
        click.echo(json.dumps({"out": str(out), **found.model_dump(mode="json", by_alias=True)}, indent=1))
        return
    click.echo(f"Challenge: {found.id}")
    click.echo(f"  {out / 'public'}   give this to the teams")
    click.echo(f"  {out / 'private'}  keep this: the secret reals, the test labels, the seeds")


@submit.command(epilog=example("arena submit score challenge/ submissions/ --out board/"))
@click.argument("folder", metavar="CHALLENGE", type=FILE)
@click.argument("submissions", metavar="SUBMISSIONS", type=FILE)
@click.option("--out", required=True, metavar="DIR", type=FILE, help="The board; an unfinished one is gone on with.")
@click.option("--seconds", type=click.IntRange(5), help="What a job may take on this machine. [the challenge's]")
@as_json_option
def score(folder: Path, submissions: Path, out: Path, seconds: int | None, as_json: bool) -> None:
    """Check all zips in SUBMISSIONS, play every detector against every team's fakes, and write the leaderboard.

    No code of a stranger runs: models are ONNX or this package's own nets, in a limited process. Stopped and started
    again it goes on; new zips are added.
    """
    from arena.submission import score as work

    with stages(as_json) as progress:
        board = work.score(folder, submissions, out, progress, seconds)
    if as_json:
        click.echo(json.dumps(board, indent=1))
        return
    print_board(board)
    click.echo(f"Leaderboard: {out / 'leaderboard.html'}")


@submit.command(epilog=example("""
arena submit bundle challenge/ --format codabench --out bundle.zip
arena submit bundle challenge/ --field aurora.zip --image registry.example.org/arena:1 --out bundle.zip
"""))  # fmt: skip
@click.argument("folder", metavar="CHALLENGE", type=FILE)
@click.option("--format", "form", type=click.Choice(["codabench"]), default="codabench", show_default=True)
@click.option("--out", required=True, metavar="ZIP", type=FILE, help="The bundle to write; it must not exist.")
@click.option("--field", multiple=True, metavar="ZIP", type=FILE,
              help="A submission that all others are met with (repeatable). [the sample]")  # fmt: skip
@click.option("--image", metavar="NAME", help="The workers' Docker image, with this package. [one on localhost:5000]")
@click.option("--start", metavar="DATE", type=click.DateTime(["%Y-%m-%d"]), help="First day (UTC). [today]")
@click.option("--end", metavar="DATE", type=click.DateTime(["%Y-%m-%d"]), help="Day of the end. [none]")
@as_json_option
def bundle(
    folder: Path, form: str, out: Path, field: tuple[Path, ...], image: str | None, start: Any, end: Any, as_json: bool
) -> None:
    """Make a competition bundle for Codabench, which scores each submission against a field as it comes."""
    from arena.submission import codabench as work

    found = work.bundle(
        folder, out, field=field, image=image or work.IMAGE, start=start.date() if start else None,
        end=end.date() if end else None,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(
        f"{out}: {found['bytes'] / 1e6:.1f} MB, {len(found['columns'])} columns, field: {', '.join(found['field'])}"
    )
    click.echo(f"Docker image of the workers: {found['image']}")


@contextmanager
def stages(quiet: bool) -> Iterator[Any]:
    """A line for each stage of a long work on a terminal, moved on as it goes; nothing elsewhere."""
    import sys

    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as shown:
        tasks: dict[str, Any] = {}

        def move(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what)
            shown.update(tasks[what], completed=done, total=total)

        yield move


def print_board(board: dict[str, Any]) -> None:
    """Who leads, who is out and why, in plain lines."""

    def figure(row: dict[str, Any], key: str) -> str:
        of = row[key]
        return f"{of['value']:.3f} ({of['low']:.3f} to {of['high']:.3f})" if of else "none"

    for title, table, key in (
        ("Generation (fooled: 1 = every detector at chance)", "generation", "fooled"),
        ("Detection (AUC over the other teams' fakes)", "detection", "auc"),
        ("On the test images (AUC; scores handed in, and models)", "scores", "auc"),
    ):
        if not board[table]:
            continue
        click.secho(title, bold=True)
        for row in board[table]:
            rank = row["rank"] if row["rank"] is not None else "-"
            why = f"  {row['why_unranked']}" if row.get("why_unranked") else ""
            click.echo(f"  {rank:>3}  {row['team']:24}  {figure(row, key)}{why}")
    for team in board["teams"]:
        for reason in team["reasons"]:
            click.secho(f"{team['status']}: {team['team']}: {reason}", fg="red")
        for note in team["notes"]:
            click.echo(f"note: {team['team']}: {note}")

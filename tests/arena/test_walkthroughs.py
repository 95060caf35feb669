"""Every command of the two walk-throughs is run, in order and in one folder, and says what they print.

In a ```console block a line after `$ ` is a command and the rest is what it prints: `...` stands for anything, alone on
a line for any lines. `# exit code N` marks one that is meant to fail. A ```bash block is a script. Commands inside
sentences are held against the command line's own options.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from arena.cli import main
from arena.submission.schema import TEAM_NAME, Floors, Limits

ROOT = Path(__file__).parents[2]
TEAM, ORGANISER = ROOT / "docs/hackathon-team.md", ROOT / "docs/hackathon-organiser.md"
BOTH = pytest.mark.parametrize("page", [TEAM, ORGANISER], ids=lambda page: page.stem)


@dataclass
class Step:
    """A command with the lines it should print, or a script."""

    line: int
    command: str
    script: bool = False
    code: int = 0
    prints: list[str] = field(default_factory=list)


def steps(page: Path) -> list[Step]:
    found: list[Step] = []
    kind = None
    for number, text in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if text.startswith("```"):
            kind = None if kind is not None else text[3:]
            if kind == "bash":
                found.append(Step(number, "", script=True))
        elif kind == "console" and text.startswith("$ "):
            command, _, code = text[2:].partition("# exit code ")
            found.append(Step(number, command.strip(), code=int(code or 0)))
        elif kind == "console":
            found[-1].prints.append(text)
        elif kind == "bash":
            found[-1].command += f"{text}\n"
    return found


def fits(printed: str, expected: list[str]) -> bool:
    """Whether that is what was printed, spaces aside."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*") + r"\n"
        for line in expected
    )
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines if line)) is not None


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Where scripts find `arena` and `python`: those of these tests."""
    folder = tmp_path_factory.mktemp("bin")
    for name, words in (("arena", [sys.executable, "-m", "arena"]), ("python", [sys.executable])):
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def play(step: Step, shell: dict[str, str]) -> tuple[int, str]:
    words = shlex.split(step.command)
    if not step.script and words[0] == "arena":  # in this process: to import torch takes longer than most commands
        found = CliRunner(env={"COLUMNS": "200"}).invoke(main, words[1:])
        if found.exception and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found.exit_code, found.output
    done = subprocess.run(
        ["sh", "-e", "-c", step.command], env=shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


@BOTH
def test_every_command_does_what_the_page_says(page, shell, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    found = steps(page)
    for step in found:
        code, said = play(step, shell)
        where = f"{page.name}:{step.line}: {step.command}"
        assert code == step.code, f"{where}\n{said}"
        assert step.script or fits(said, step.prints), f"{where}\nexpected {step.prints}\nprinted {said}"
    commands = " ".join(step.command for step in found)
    assert all(f"arena submit {name} " in commands for name in ("challenge", "check", "pack"))
    assert sum(step.code != 0 for step in found) >= 4
    if page == ORGANISER:
        assert all(f"arena submit {name} " in commands for name in ("score", "bundle"))
        assert Path("board/leaderboard.html").stat().st_size > 10_000


@BOTH
def test_no_command_escapes(page):
    """A command stands in a block that is run, or in a sentence as code whose options exist."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    assert {kind for kind, _ in blocks} <= {"console", "bash", "dockerfile"}
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    assert not re.search(r"^(    |\$ )\s*(arena|python|pip)", prose, re.M)
    for code in re.findall(r"`(arena [^`]+)`", prose):
        command, words = main, shlex.split(code)[1:]
        while words and isinstance(command, click.Group) and words[0] in command.list_commands(click.Context(command)):
            command = command.get_command(click.Context(command), words.pop(0))
        assert not isinstance(command, click.Group), code
        known = {name for option in command.params for name in option.opts}
        assert {word for word in words if word.startswith("-")} <= known, code


def test_steps_and_prints_are_read_as_meant(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ arena list   # exit code 2\none\n...\n$ mkdir x\n```\ntext\n"
        "```bash\ncat <<END\n$ no\nEND\n```\n```dockerfile\nRUN x\n```\n"
    )
    assert steps(page) == [
        Step(2, "arena list", code=2, prints=["one", "..."]), Step(5, "mkdir x"),
        Step(8, "cat <<END\n$ no\nEND\n", script=True),
    ]  # fmt: skip
    assert fits("one\ntwo\nthree\n", ["one", "..."])
    assert fits("one\n", ["one", "..."])
    assert fits("  sha256  abc\n", ["sha256 ..."])
    assert fits("a\nb\nc\n", ["...", "c"])
    assert not fits("one\ntwo\n", ["one"])
    assert not fits("one\n", ["..."[:2]])
    assert not fits("", ["one"])
    assert not fits("a.b\n", ["a+b"])


def test_the_table_of_limits_is_true():
    limits, text = Limits(), TEAM.read_text(encoding="utf-8")
    for row in (
        f"| zip | {limits.zip_bytes / 1e6:g} MB |",
        f"| files | {limits.members:,} |",
        f"| a file, unpacked | {limits.member_bytes / 1e6:g} MB |",
        f"| all files, unpacked | {limits.total_bytes / 1e6:,.0f} MB |",
        f"| unpacked to packed, of a file above 1 MiB | {limits.ratio} to 1 |",
        f"| a name | {limits.name_length} characters |",
        f"| decoding your fakes; your detector, for each 1,000 images | {limits.seconds} s on one thread |",
        f"| memory | {limits.memory_bytes >> 30} GiB |",
        f"| nodes of an ONNX graph | {limits.nodes:,} |",
    ):
        assert row in text, row
    assert f"at most {TEAM_NAME}." in text
    assert f"At least {100 * Floors().coverage:g} %" in text
    assert f"at most {100 * Floors().copied:g} % of the fakes" in text

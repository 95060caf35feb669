"""A challenge as a competition bundle of Codabench (version 2), and the scoring program that runs on its machines.

    competition.yaml, logo.png, pages/      what the platform shows; nothing secret
    starting_kit/                           the challenge's public part, for the teams
    reference_data/challenge/, field/       what scoring needs of both parts; submissions that everybody is met with
    scoring_program/                        metadata.yaml and a script that calls this module

The platform scores one submission at a time, so each meets the field alone; `arena submit score` on all zips that were
handed in is the duel of everybody with everybody. Keys and folders: docs.codabench.org, Yaml-Structure and
Competition-Bundle-Structure; what its unpacker and its worker do beyond them: github.com/codalab/codabench,
src/apps/competitions/unpackers and compute_worker (2026).
"""

import html
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import arena
from arena.errors import InputError
from arena.files import atomic, write_json
from arena.submission import archive
from arena.submission.archive import printable
from arena.submission.challenge import open_challenge, open_keys
from arena.submission.check import check, sha256
from arena.submission.schema import Challenge, Limits

IMAGE = f"localhost:5000/deepfake-arena:{arena.__version__}"  # a registry of the worker's own: nobody else can fill it
SUBMISSION = "submission.zip"
PER_DAY, IN_ALL = 5, 100  # submissions of a participant
PAGES = {"Overview": "overview.md", "Rules": "rules.md", "Data": "data.md", "Terms": "terms.md"}
COMMAND = "python3 /app/program/score.py /app/input /app/output"
PROGRAM = '''"""Score one submission. Arguments: the platform's input folder (ref, res) and its output folder."""

import sys

from arena.submission.codabench import main

main(*sys.argv[1:])
'''


class Column(NamedTuple):
    """Of the platform's leaderboard; `worst` is what a submission without that figure gets."""

    key: str
    title: str
    sorting: str = "desc"
    worst: float = 0.0


def columns(challenge: Challenge) -> list[Column]:
    """What is shown of a submission. The platform ranks by the first."""
    found = []
    both = len(challenge.tracks) == 2
    if "generation" in challenge.tracks:
        found += [
            Column("fooled", "Fooled (1: detectors at chance)"),
            Column("coverage", "Coverage of the secret reals"),
            Column("copied", "Copies of public reals", "asc", 1.0),
        ]
    if both:
        found += [Column("auc", "AUC over the field's fakes"), Column("worst", "AUC, worst team's fakes")]
    if "detection" in challenge.tracks:
        found += [Column("test_auc", "AUC on the test images")]
        found += [Column("tpr_at_1_fpr", "TPR at 1 % FPR"), Column("ece", "Calibration error", "asc", 1.0)]
    return found


# The bundle


def bundle(
    folder: Path, out: Path, *, image: str = IMAGE, field: Sequence[Path] = (), start: date | None = None,
    end: date | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the bundle `out` of the challenge in `folder`; return what it holds.

    image: the Docker image with this package that the platform's workers run. field: submissions that each new one is
    met with; none: the challenge's own sample. start, end: of the only phase, days in UTC; none: today, and never.
    Raises InputError for a challenge without its private part, an `out` that exists, and a field that would be refused.
    """
    if out.suffix.lower() != ".zip":
        raise InputError(f"expected a file name that ends in .zip to write the bundle to, got {out}.")
    if out.exists():
        raise InputError(f"{out} exists already. Delete it or choose another name.")
    start = start or datetime.now(UTC).date()
    if end is not None and end <= start:
        raise InputError(f"the event ends on {end}, and starts on {start}: it has to end later.")
    if not image.strip() or any(c.isspace() for c in image):
        raise InputError(f"expected the name of a Docker image, such as registry.example.org/arena:1, got {image!r}.")
    challenge = open_challenge(folder)
    keys = open_keys(folder, challenge)
    public, private = folder / "public", folder / "private"
    teams = {path: _team(path, challenge) for path in field or [public / "sample_submission.zip"]}
    hashes = {sha256(path) for path in teams}
    if len(hashes) < len(field):
        raise InputError("the field holds a submission twice. Give each file once.")

    kit = dict(_files(public))
    members: dict[str, bytes | Path] = {f"starting_kit/{name}": path for name, path in kit.items()}
    truth = {f"challenge/public/{name}": path for name, path in kit.items()}
    truth |= {f"challenge/private/judge/{name}": path for name, path in _files(private / "judge")}
    if challenge.n_test:
        truth["challenge/private/test.csv"] = private / "test.csv"
    truth |= {f"field/{i:03d}.zip": path for i, path in enumerate(teams)}
    members |= {f"reference_data/{name}": path for name, path in truth.items()}
    # all that scoring reads of it: neither the seeds nor where the secret reals come from
    reduced = {"challenge": keys.challenge, "secrets": {}, "public": keys.public, "judge": keys.judge}
    members["reference_data/challenge/private/keys.json"] = json.dumps(reduced, indent=1).encode()
    members["scoring_program/score.py"] = PROGRAM.encode()
    members["scoring_program/metadata.yaml"] = _yaml({"command": COMMAND})
    sizes = {"kit": sum(path.stat().st_size for path in kit.values()), "files": len(kit)}
    for name, text in pages(challenge, public, sizes, len(teams)).items():
        members[f"pages/{name}"] = text.encode()
    members["logo.png"] = logo()
    members["competition.yaml"] = _yaml(competition(challenge, image, len(teams), start, end))
    archive.write_zip(out, members)
    return {
        "out": str(out), "bytes": out.stat().st_size, "sha256": sha256(out), "files": len(members), "image": image,
        "field": list(teams.values()), "columns": [column.key for column in columns(challenge)],
        "starting_kit_bytes": sizes["kit"], "start": str(start), "end": str(end) if end else None,
    }  # fmt: skip


def competition(challenge: Challenge, image: str, field: int, start: date, end: date | None) -> dict[str, Any]:
    """competition.yaml."""
    jobs = 2 * (1 + field)  # decoding fakes and running a detector, of the submission and of all that it meets
    phase = {
        "index": 0, "name": "The event", "description": "Each submission meets the organisers' field.",
        # a string: of an unquoted time the unpacker keeps the day alone
        "start": f"{start} 00:00:00", **({"end": f"{end} 00:00:00"} if end else {}),
        "max_submissions_per_day": PER_DAY, "max_submissions": IN_ALL,
        "execution_time_limit": jobs * (challenge.limits.seconds + 60) + 600,
        "accepts_only_result_submissions": True, "hide_output": True, "starting_kit": "starting_kit/", "tasks": [0],
    }  # fmt: skip
    return {
        "version": 2, "title": challenge.title, "description": challenge.about or challenge.title, "image": "logo.png",
        "terms": "pages/terms.md", "docker_image": image, "registration_auto_approve": False,
        "enable_detailed_results": True, "make_programs_available": False, "make_input_data_available": False,
        "can_participants_make_submissions_public": False,
        "pages": [{"title": title, "file": f"pages/{name}"} for title, name in PAGES.items()],
        "tasks": [{
            "index": 0, "name": challenge.title, "description": f"Challenge {challenge.id}",
            "scoring_program": "scoring_program/", "reference_data": "reference_data/",
        }],
        "phases": [phase],
        "leaderboards": [{
            "title": "Against the field", "key": "main", "submission_rule": "Force_Last",
            "columns": [
                {"index": i, "key": column.key, "title": column.title, "sorting": column.sorting, "precision": 4}
                for i, column in enumerate(columns(challenge))
            ],
        }],
    }  # fmt: skip


def pages(challenge: Challenge, public: Path, sizes: Mapping[str, int], field: int) -> dict[str, str]:
    """The platform's pages, in Markdown: out of the public part alone."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "codabench"), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, autoescape=False, keep_trailing_newline=True,
    )  # fmt: skip
    known = {"c": challenge, "sizes": sizes, "field": field, "per_day": PER_DAY, "columns": columns(challenge)}
    found = {"rules.md": (public / "RULES.md").read_text(encoding="utf-8")}
    for name in ("overview.md", "data.md", "terms.md"):
        found[name] = environment.get_template(f"{name}.j2").render(known)
    return found


def logo(side: int = 360, teams: int = 6) -> bytes:
    """A PNG of a matrix, teams by teams, their own pairings left out."""
    import numpy as np

    from arena.pictures import png

    picture = np.full((side, side, 3), 244, np.uint8)
    step = side // teams
    for row in range(teams):
        for column in range(teams):
            shade = 244 if row == column else 90 + 150 * ((5 * row + 3 * column) % 7) // 7
            picture[row * step + 3 : (row + 1) * step - 3, column * step + 3 : (column + 1) * step - 3] = shade
    return png(picture, {"Synthetic": "a drawing by a program", "Source": "deepfake-arena"})


def _team(path: Path, challenge: Challenge) -> str:
    """The team of a submission of the field, which has to pass the check."""
    with tempfile.TemporaryDirectory() as folder:
        found = check(path, challenge, Path(folder) / "unpacked")
    if found.problems:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        raise InputError(f"{path} cannot be in the field: {found.problems[0]}{more}")
    return found.team


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """All files below a folder by their relative names."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _yaml(value: dict[str, Any]) -> bytes:
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=False, width=120)
    return text.encode()


# The scoring program


def main(source: str, out: str) -> None:
    """What the platform runs: `source` holds ref and res, `out` gets scores.json and detailed_results.html."""
    try:
        judge(Path(source), Path(out))
    except InputError as error:
        sys.exit(f"scoring: {error}")


def judge(source: Path, out: Path) -> dict[str, float]:
    """Score the submission in SOURCE/res for the challenge and against the field in SOURCE/ref; return its scores.

    A submission that is refused gets the worst of everything, and its reasons on the page. Raises InputError for what
    is the organiser's fault alone.
    """
    from arena.submission.score import score

    ref = source / "ref"
    challenge = open_challenge(ref / "challenge")
    with tempfile.TemporaryDirectory() as folder:
        board, submissions = Path(folder) / "board", Path(folder) / "submissions"
        submissions.mkdir()
        refused = repack(source / "res", submissions / SUBMISSION, challenge.limits)
        if refused:
            scores, page = as_scores(challenge, {}), _refusal(challenge, refused)
        else:
            mine = sha256(submissions / SUBMISSION)
            for path in sorted((ref / "field").glob("*.zip")):
                if sha256(path) != mine:  # who hands in the sample as it is meets the others
                    shutil.copyfile(path, submissions / f"field-{path.name}")
            found = score(ref / "challenge", submissions, board)
            key = next(team["key"] for team in found["teams"] if team["file"] == SUBMISSION)
            scores, page = as_scores(challenge, figures(found, key)), (board / "leaderboard.html").read_text("utf-8")
    write_json(out / "scores.json", scores)
    with atomic(out / "detailed_results.html") as file:
        file.write(page.encode())
    return scores


def repack(folder: Path, out: Path, limits: Limits) -> str | None:
    """What lies in a folder as one zip for the check, or a zip that lies there alone; say why not, else None."""
    members: dict[str, bytes | Path] = {}
    total = 0
    for where, folders, names in os.walk(folder, followlinks=False):
        for name in [*folders, *names]:
            path = Path(where) / name
            found, inside = path.lstat(), path.relative_to(folder).as_posix()
            if stat.S_ISDIR(found.st_mode):
                continue
            if not stat.S_ISREG(found.st_mode):
                return f"{printable(inside)}: a link, a device or a pipe. Hand in the file itself."
            members[inside] = path
            total += found.st_size
            if len(members) > limits.members or total > limits.total_bytes:
                return f"more than {limits.members} files or {limits.total_bytes / 1e6:g} MB. Hand in less."
    if not members:
        return "no file. Upload the zip that `arena submit pack` wrote."
    alone = next(iter(members.values()))
    try:
        if len(members) == 1 and isinstance(alone, Path) and alone.suffix.lower() == ".zip":
            shutil.copyfile(alone, out, follow_symlinks=False)
        else:
            archive.write_zip(out, members)
    except InputError as error:  # a name that no zip of ours may hold
        return str(error)
    return None


def figures(board: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The board's figures of one submission, by the leaderboard's keys; none where it is out of a table."""

    def row_of(table: str) -> dict[str, Any]:
        return next((row for row in board[table] if row["key"] == key and not row.get("why_unranked")), {})

    given, made, judged = map(row_of, ("scores", "generation", "detection"))
    found = {"test_auc": given.get("auc"), "tpr_at_1_fpr": given.get("tpr_at_1_fpr"), "ece": given.get("ece")}
    found |= {name: made.get(name) for name in ("fooled", "coverage", "copied")}
    measured = ("auc", "worst", "test_auc", "tpr_at_1_fpr", "ece")
    return found | {name: judged[name] for name in measured if judged.get(name) is not None}


def as_scores(challenge: Challenge, found: Mapping[str, Any]) -> dict[str, float]:
    """scores.json: a finite number for every column."""
    scores = {}
    for column in columns(challenge):
        value = found.get(column.key)
        value = value.get("value") if isinstance(value, Mapping) else value
        usable = isinstance(value, int | float) and math.isfinite(value)
        scores[column.key] = float(value) if usable else column.worst  # type: ignore[arg-type]
    return scores


def _refusal(challenge: Challenge, why: str) -> str:
    title, reason = html.escape(challenge.title), html.escape(why)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f"<h1>{title}</h1>\n<p>This submission was refused: {reason}</p>\n</html>\n"
    )

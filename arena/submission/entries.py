"""What was handed in: each zip copied, checked once, and known by the sha256 of what it holds from then on."""

import hashlib
import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from arena.errors import InputError
from arena.files import read_json, write_json
from arena.submission.archive import Problem, printable
from arena.submission.check import Checked, check
from arena.submission.schema import Challenge, Submission
from arena.submission.standings import Row

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass
class Entry:
    """A team's submission on its way through the scoring."""

    key: str
    team: str
    file: str
    sha256: str
    problems: list[Problem]
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    submission: Submission | None = None
    folder: Path | None = None
    headers: list[Row] = field(default_factory=list)
    model: Row | None = None
    scores: np.ndarray | None = None
    owner: str = ""

    def __post_init__(self) -> None:
        """Two names that look or read alike are one team."""
        self.owner = unicodedata.normalize("NFKC", self.team).casefold()

    @property
    def fakes(self) -> bool:
        return self.submission is not None and self.submission.fakes is not None and not self.problems


class Entrance:
    """Checks submissions for a challenge into a folder; `keep` stores the fakes of one that passed, as an array."""

    def __init__(self, challenge: Challenge, work: Path, keep: Callable[[Path, np.ndarray], None], progress: Progress):
        self.challenge, self.work, self.keep, self.progress = challenge, work, keep, progress

    def checked(self, zips: Sequence[Path]) -> list[Entry]:
        entries: list[Entry] = []
        for i, path in enumerate(zips):
            entry = self.entry(path)
            twin = next((other for other in entries if entry.sha256 and other.sha256 == entry.sha256), None)
            if twin:
                twin.notes.append(f"{printable(path.name)} is the same file, and was left out")
            else:
                entries.append(entry)
            self.progress("checking", i + 1, len(zips))
        owners = [entry.owner for entry in entries]
        for entry in entries:
            if owners.count(entry.owner) > 1:
                count = owners.count(entry.owner)
                entry.notes.append(f"{count} submissions name this team: told apart by file, and own to each other")
                entry.team = f"{entry.team} ({printable(entry.file)})"
        return entries

    def entry(self, path: Path) -> Entry:
        """Check a submission, or find what an earlier check found; a copy of it, which cannot change meanwhile."""
        taken = self.work / "incoming" / path.name
        taken.parent.mkdir(exist_ok=True)
        try:
            digest = take(path, taken, self.challenge.limits.zip_bytes)
            home = self.work / digest[:32]
            if not stands(home / "check.json", self.challenge.limits.seconds):
                shutil.rmtree(home, ignore_errors=True)
                found = check(taken, self.challenge, home / "unpacked")
                found.file = path
                self.remember(found, home)
            return self.recall(path, home)
        except (InputError, ValueError, OSError, MemoryError, RuntimeError) as error:
            text = str(error) if isinstance(error, InputError) else f"the check itself failed: {type(error).__name__}"
            name = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
            problem = Problem(printable(path.name), printable(text, 200))
            return Entry(f"{_slug(path.stem)}-{name}", printable(path.stem), printable(path.name), "", [problem])
        finally:
            taken.unlink(missing_ok=True)

    def remember(self, found: Checked, home: Path) -> None:
        if found.items is not None and not found.problems:
            self.keep(home / "items.npy", found.items)
            shutil.rmtree(home / "unpacked" / "fakes")  # they are in items.npy now
        write_json(home / "check.json", {
            "sha256": found.sha256, "team": found.team, "seconds": self.challenge.limits.seconds,
            "problems": [[p.where, p.text] for p in found.problems],
            "notes": found.notes, "headers": found.headers, "model": found.model,
            "scores": None if found.scores is None else found.scores.tolist(),
            "submission": found.submission.model_dump(mode="json", by_alias=True) if found.submission else None,
        })  # fmt: skip

    def recall(self, path: Path, home: Path) -> Entry:
        known = read_json(home / "check.json")
        said = known["submission"]
        return Entry(
            key=f"{_slug(known['team'])}-{known['sha256'][:12]}", team=known["team"], file=printable(path.name),
            sha256=known["sha256"], problems=[Problem(*p) for p in known["problems"]], notes=list(known["notes"]),
            submission=Submission.model_validate(said) if said else None, folder=home / "unpacked",
            headers=known["headers"], model=known["model"],
            scores=None if known["scores"] is None else np.array(known["scores"]),
        )  # fmt: skip


def stands(file: Path, seconds: int) -> bool:
    """Whether a check or a run has an end that stands: a failure does for as long as the seconds are the same."""
    if not file.is_file():
        return False
    found = read_json(file)
    return not (found.get("problems") or found.get("why")) or found.get("seconds") == seconds


def take(path: Path, to: Path, most: int) -> str:
    """Copy a regular file and return its sha256. Raises InputError for a link, anything else, and one too large."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InputError("a link, or a file that cannot be read: hand in the zip itself") from error
    digest, size = hashlib.sha256(), 0
    with os.fdopen(handle, "rb") as source:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            raise InputError("no regular file: hand in the zip itself")
        with to.open("wb") as copy:
            while block := source.read(1 << 20):
                size += len(block)
                if size > most:
                    raise InputError(f"a file of more than {most / 1e6:g} MB: hand in less")
                digest.update(block)
                copy.write(block)
    return digest.hexdigest()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32] or "team"

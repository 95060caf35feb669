"""Score an event: every detector against every team's fakes and the secret reals, one step at a time, each kept.

    BOARD/work/                   what is known already, by the sha256 of what it was made from; delete it to begin anew
    BOARD/teams/KEY/report.json   what was found of one submission; preview.png: its first fakes
    BOARD/board.json              all figures; leaderboard.html, teams.csv, matrix.csv are made from it

Killed and started again it goes on where it stood. One broken submission stops nobody else.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import arena
from arena.data.codec import store_as
from arena.data.splits import natural
from arena.errors import InputError
from arena.files import atomic, read_json, write_json
from arena.seeds import rng
from arena.submission import quality, sandbox, standings
from arena.submission.archive import Problem, printable
from arena.submission.challenge import Keys, manifest, open_challenge, open_keys
from arena.submission.check import Checked, box, check, complaints, run_detector, sha256
from arena.submission.media import preview
from arena.submission.schema import Challenge, Submission
from arena.submission.standings import HOUSE, Fakes, Judge, Row

Progress = Callable[[str, int, int], None]  # what, done, total
NEEDS = ("onnx", "onnxruntime")
CONTROL = "jpeg-75"  # what reals are recompressed as, to find detectors that look at the codec


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

    @property
    def fakes(self) -> bool:
        return self.submission is not None and self.submission.fakes is not None and not self.problems


def score(folder: Path, submissions: Path, out: Path, progress: Progress | None = None) -> Row:
    """Score all zips in `submissions` for the challenge in `folder` into `out`; return the board.

    Raises InputError for a challenge that is not whole, a folder without zips, and an `out` of another event.
    """
    folder, submissions, out = folder.resolve(), submissions.resolve(), out.resolve()
    challenge = open_challenge(folder)
    keys = open_keys(folder, challenge)
    missing = [name for name in NEEDS if "detection" in challenge.tracks and find_spec(name) is None]
    if missing:
        raise InputError(f"scoring detectors needs {' and '.join(missing)}: pip install 'deepfake-arena[export]'")
    if not submissions.is_dir():
        raise InputError(f"{submissions} is no folder. Give the one that the teams' zips lie in.")
    zips = sorted((p for p in submissions.iterdir() if p.suffix.lower() == ".zip"), key=lambda p: natural(p.name))
    if not zips:
        raise InputError(f"{submissions} holds no .zip. Put every team's submission there.")
    others = [p for p in submissions.iterdir() if p.suffix.lower() != ".zip" and not p.name.startswith(".")]
    return Event(folder, challenge, keys, out, progress or (lambda *_: None)).play(zips, len(others))


class Event:
    """One scoring: the challenge, the secret reals, and the folder in which results gather."""

    def __init__(self, folder: Path, challenge: Challenge, keys: Keys, out: Path, progress: Progress):
        self.folder, self.challenge, self.keys, self.out, self.progress = folder, challenge, keys, out, progress
        self.work = out / "work"
        state = {"challenge": challenge.id, "judge": keys.judge, "public": keys.public, "arena": arena.__version__}
        if (self.work / "event.json").is_file():
            if read_json(self.work / "event.json") != state:
                raise InputError(f"{out} is the board of another challenge or version. Choose a new --out.")
        elif out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out} is not empty and no board. Choose a new --out.")
        else:
            write_json(self.work / "event.json", state)

    def play(self, zips: Sequence[Path], others: int) -> Row:
        """All stages, in order."""
        entries = self.checked(zips)
        reals, train = self.reals(), self.train()
        fakes = {entry.key: self.fakes(entry) for entry in entries if entry.fakes}
        qualities = [self.rated(entry, fakes, reals, train) for entry in entries if entry.key in fakes]
        counted = [some for some in qualities if not some.out]
        judges = [judge for entry in entries if (judge := self.judge(entry, fakes, reals))]
        house = self.house(counted, fakes, reals, train)
        board = self.board(entries, qualities, [*judges, *([house] if house else [])], others)
        self.publish(board, entries, fakes)
        return board

    # 1: the checks

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
        names = [entry.team.casefold() for entry in entries]
        for entry, name in zip(entries, names, strict=True):
            if names.count(name) > 1:
                entry.notes.append(f"{names.count(name)} submissions name this team: told apart by their files")
                entry.team = f"{entry.team} ({printable(entry.file)})"
        return entries

    def entry(self, path: Path) -> Entry:
        """Check a submission, or find what an earlier check found."""
        try:
            digest = sha256(path)
            home = self.work / digest[:32]
            done = home / "check.json"
            if not done.is_file():
                shutil.rmtree(home, ignore_errors=True)
                found = check(path, self.challenge, home / "unpacked")
                self.remember(found, home)
            entry = self.recall(path, home)
        except Exception as error:  # whatever one submission does, the others are scored
            text = f"the check itself failed ({printable(f'{type(error).__name__}: {error}', 200)})"
            entry = Entry(f"{_slug(path.stem)}-unread", printable(path.stem), path.name, "", [Problem(path.name, text)])
        return entry

    def remember(self, found: Checked, home: Path) -> None:
        if found.items is not None and not found.problems:
            self.keep_images(home / "items.npy", found.items)
            shutil.rmtree(home / "unpacked" / "fakes")  # they are in items.npy now
        write_json(home / "check.json", {
            "sha256": found.sha256, "team": found.team, "problems": [[p.where, p.text] for p in found.problems],
            "notes": found.notes, "headers": found.headers, "model": found.model,
            "scores": None if found.scores is None else found.scores.tolist(),
            "submission": found.submission.model_dump(mode="json", by_alias=True) if found.submission else None,
        })  # fmt: skip

    def recall(self, path: Path, home: Path) -> Entry:
        known = read_json(home / "check.json")
        said = known["submission"]
        return Entry(
            key=f"{_slug(known['team'])}-{known['sha256'][:8]}", team=known["team"], file=path.name,
            sha256=known["sha256"], problems=[Problem(*p) for p in known["problems"]], notes=list(known["notes"]),
            submission=Submission.model_validate(said) if said else None, folder=home / "unpacked",
            headers=known["headers"], model=known["model"],
            scores=None if known["scores"] is None else np.array(known["scores"]),
        )  # fmt: skip

    # 2: the images, all on one path: decoded in the limited process, then through the challenge's codec

    def keep_images(self, file: Path, items: np.ndarray) -> None:
        coded = store_as(torch.from_numpy(np.ascontiguousarray(items)), self.challenge.codec).numpy()
        with atomic(file) as handle:
            np.lib.format.write_array(handle, coded, allow_pickle=False)

    def fakes(self, entry: Entry) -> Tensor:
        return _images(self.work / entry.sha256[:32] / "items.npy")

    def decoded(self, name: str, where: str, codec: str = "") -> Tensor:
        """Files of the challenge, decoded and coded as the fakes are; `codec` comes before the challenge's own."""
        kept, folder = self.work / f"{name}.npy", self.folder / where
        if not kept.is_file():
            files = [str(folder / row[0]) for row in manifest(folder)]
            asked = {"files": files, "size": self.challenge.size, "frames": self.challenge.frames}
            answer, items = sandbox.call("decode", asked, reads=[folder], box=box(self.challenge.limits))
            if items is None:
                file, text = answer["problems"][0]
                raise InputError(f"{folder}: {file}: {text}. Restore the challenge's files.")
            write_json(self.work / f"{name}.json", answer["headers"])
            if codec:
                items = store_as(torch.from_numpy(items), codec).numpy()
            self.keep_images(kept, items)
        return _images(kept)

    def reals(self) -> Tensor:
        return self.decoded("reals", "private/judge")

    def control(self) -> Tensor:
        return self.decoded("control", "private/judge", CONTROL)

    def train(self) -> Tensor:
        return self.decoded("train", "public/train")

    def test(self) -> Tensor:
        return self.decoded("test", "public/test")

    @property
    def labels(self) -> np.ndarray:
        """Of the test images: 1 for a fake."""
        lines = (self.folder / "private" / "test.csv").read_text().splitlines()[1:]
        return np.array([int(line.split(",")[1]) for line in lines])

    # 3: are the fakes any good, and are they fakes?

    def rated(self, entry: Entry, fakes: dict[str, Tensor], reals: Tensor, train: Tensor) -> Fakes:
        """Distance, coverage, density, copies of public reals, what the files alone give away, and the floors."""
        home, mine, floors = entry.sha256[:32], fakes[entry.key], self.challenge.floors
        find = partial(quality.measure, mine, reals, train, entry.headers, self.headers())
        figures = self.kept(f"{home}/quality.json", find)
        copied, coverage, reasons = figures["copied"]["value"], figures["coverage"]["value"], []
        if copied > floors.copied:
            reasons.append(f"{copied:.0%} of its fakes copy a public real (at most {floors.copied:.0%} may)")
        if coverage < floors.coverage:
            asked = f"(at least {floors.coverage:.0%} are asked)"
            reasons.append(f"its fakes cover {coverage:.0%} of the secret reals {asked}")
        for other, theirs in fakes.items():
            if other != entry.key:
                find = partial(quality.twins, mine, theirs, reals)
                share = self.kept(f"{home}/twins-{other[-8:]}.json", find)["share"]
                if share > floors.copied:
                    entry.notes.append(f"{share:.0%} of its fakes are near-duplicates of {other}'s")
        entry.reasons += reasons
        return Fakes(entry.key, entry.team, figures, "; ".join(reasons) or None)

    def headers(self) -> list[Row]:
        found = read_json(self.work / "reals.json")
        assert isinstance(found, list)
        return found

    # 4: the detectors

    def judge(self, entry: Entry, fakes: dict[str, Tensor], reals: Tensor) -> Judge | None:
        """What a submission's detector says of all that is judged; None where it hands in none."""
        if entry.model is None or entry.problems:
            return None
        sets = {"reals": self.work / "reals.npy", "control": self.work / "control.npy"}
        self.control()
        if self.challenge.n_test:
            self.test()
            sets["test"] = self.work / "test.npy"
        sets |= {key: self.path_of(key) for key in fakes}
        said, about, failure = self.logits(entry, sets)
        cost = {
            "parameters": entry.model.get("parameters"), "flops": entry.model.get("flops"),
            "ms": about.get("milliseconds_per_item"), "megabytes": self.megabytes(entry),
        }  # fmt: skip
        judge = Judge(
            entry.key, entry.team, {key: said[key] for key in fakes if key in said}, said.get("reals"),
            test=said.get("test"), control=said.get("control"), cost=cost, out=failure,
        )  # fmt: skip
        if failure:
            entry.reasons.append(failure)
        else:
            self.suspect(entry, judge)
        return judge

    def path_of(self, key: str) -> Path:
        return next(self.work.glob(f"{key[-8:]}*/items.npy"))

    def megabytes(self, entry: Entry) -> float:
        assert entry.folder
        files = [entry.folder / name for name in ("detector.onnx", "detector.safetensors")]
        return next(file.stat().st_size for file in files if file.exists()) / 1e6

    def logits(self, entry: Entry, sets: dict[str, Path]) -> tuple[dict[str, np.ndarray], Row, str | None]:
        """Logits by set, what the run told, and why there are none. What was scored before is not scored again."""
        home, digests = self.work / entry.sha256[:32], {name: sha256(path)[:32] for name, path in sets.items()}
        if (home / "failed.json").is_file():
            return {}, {}, read_json(home / "failed.json")["why"]
        missing = [name for name in sets if not (home / f"logits-{digests[name]}.npy").is_file()]
        if missing:
            images = [_images(sets[name]) for name in missing]
            counts = [len(some) for some in images]
            self.progress(f"{entry.team} scores", 0, sum(counts))
            failure: str | None
            try:
                found, about = self.shuffled(entry, torch.cat(images))
            except sandbox.Refused as error:
                found, about, failure = np.zeros(0), {}, str(error)
            else:
                failure = next(iter(complaints(found, about)), None)
                if failure is None and "reals" in missing and np.ptp(found) == 0:
                    failure = f"it says {found[0]:.6g} to every image: a constant is no detector"
            if failure:
                write_json(home / "failed.json", {"why": failure})
                return {}, {}, failure
            if not (home / "run.json").is_file():
                write_json(home / "run.json", {key: about[key] for key in about if key != "counts"})
            for name, some in zip(missing, np.split(found, np.cumsum(counts)[:-1]), strict=True):
                with atomic(home / f"logits-{digests[name]}.npy") as file:
                    np.lib.format.write_array(file, some, allow_pickle=False)
            self.progress(f"{entry.team} scores", sum(counts), sum(counts))
        kept = {name: np.load(home / f"logits-{digests[name]}.npy", allow_pickle=False) for name in sets}
        return kept, read_json(home / "run.json"), None

    def shuffled(self, entry: Entry, images: Tensor) -> tuple[np.ndarray, Row]:
        """Logits of the images in their order, shown in one that only the private part knows: reals and fakes of all
        teams are mixed, so that neither a batch nor a place in the row tells anything."""
        assert entry.folder
        order = torch.randperm(len(images), generator=rng(self.keys.judge, entry.sha256, len(images)))
        place = self.work / f"images-{entry.sha256[:8]}.npy"
        try:
            with atomic(place, durable=False) as file:
                np.lib.format.write_array(file, images[order].numpy(), allow_pickle=False)
            found, about = run_detector(entry.folder, [place], self.challenge.limits, len(images))
        finally:
            place.unlink(missing_ok=True)
        back = np.empty_like(found)
        back[order.numpy()] = found
        return back, about

    def suspect(self, entry: Entry, judge: Judge) -> None:
        """Note a detector that tells recompressed reals from reals better than fakes from reals."""
        assert judge.real is not None
        assert judge.control is not None
        met = [logits for key, logits in judge.fakes.items() if key != judge.key]
        if not met:
            return
        control = standings.estimate(judge.real, judge.control)
        main = standings.estimate(judge.real, np.concatenate(met))
        if abs(control["value"] - 0.5) > max(abs(main["value"] - 0.5), 0.1):
            entry.notes.append(
                f"its detector tells reals recompressed as {CONTROL} from reals (AUC {control['value']:.2f}) better "
                f"than fakes from reals ({main['value']:.2f}): it looks at the codec, not at the picture"
            )

    def house(self, counted: Sequence[Fakes], fakes: dict[str, Tensor], reals: Tensor, train: Tensor) -> Judge | None:
        """The organiser's own detector: the spectrum baseline, for each team trained on all other teams' fakes."""
        if not counted:
            return None
        said, of_reals = {}, {}
        for some in counted:
            others = sorted((other.key for other in counted if other.key != some.key), key=lambda key: key[-8:])
            names = " ".join(key[-8:] for key in (some.key, *others))
            find = partial(quality.house_scores, [fakes[key] for key in others], fakes[some.key], reals, train)
            kept = self.kept(f"house-{hashlib.sha256(names.encode()).hexdigest()[:32]}.json", find)
            said[some.key], of_reals[some.key] = np.array(kept["fakes"]), np.array(kept["reals"])
        return Judge(HOUSE, "the house (spectrum)", said, reals=of_reals)

    # 5: the board

    def board(self, entries: list[Entry], qualities: list[Fakes], judges: list[Judge], others: int) -> Row:
        labels = self.labels if self.challenge.n_test else np.zeros(0, int)
        given = {
            (entry.key, entry.team): logit(entry.scores)
            for entry in entries if entry.scores is not None and not entry.problems
        }  # fmt: skip
        constant = {key for key, logits in given.items() if np.ptp(logits) == 0}
        for entry in entries:
            if (entry.key, entry.team) in constant:
                entry.reasons.append("scores.csv says the same of every image: a constant is no detector")
        given = {key: logits for key, logits in given.items() if key not in constant}
        of_judges, of_fakes, whole = standings.league(judges, qualities)
        challenge = self.challenge
        warnings = [f"{others} other files lie beside the zips and were left alone"] if others else []
        return {
            "schema": 1,
            "challenge": {
                "id": challenge.id, "title": challenge.title, "size": challenge.size, "frames": challenge.frames,
                "tracks": list(challenge.tracks), "codec": challenge.codec, "n_real": len(self.headers()),
                "n_fakes": challenge.fakes, "n_test": challenge.n_test,
            },
            "protocol": self.protocol(),
            "protections": sandbox.protections(),
            "warnings": warnings,
            "teams": [self.row(entry) for entry in entries],
            "generation": standings.generation(judges, qualities, of_fakes),
            "detection": standings.detection(judges, qualities, of_judges, labels),
            "scores": standings.on_test(judges, given, labels) if given else [],
            "matrix": standings.matrix(judges, qualities),
            "league": whole,
        }  # fmt: skip

    def row(self, entry: Entry) -> Row:
        said = entry.submission
        status = "refused" if entry.problems else "out" if entry.reasons else "scored"
        return {
            "key": entry.key, "team": entry.team, "file": entry.file, "status": status,
            "reasons": [str(problem) for problem in entry.problems] + entry.reasons, "notes": entry.notes,
            "tracks": list(said.tracks) if said else [], "licence": said.licence if said else "",
            "generator": said.generator.method if said and said.generator else None,
            "detector": said.detector.method if said and said.detector else None, "sha256": entry.sha256,
        }  # fmt: skip

    def protocol(self) -> list[list[str]]:
        challenge, floors = self.challenge, self.challenge.floors
        return [
            ["reals", f"{len(self.headers())} secret ones; sha256 of their listing {self.keys.judge[:16]}"],
            ["images", f"decoded in the limited process, {challenge.size} px, then {challenge.codec}: reals and fakes"],
            ["what counts", "other teams' pairings; fakes and detectors that are out count for nobody"],
            ["fooled", "mean over detectors of min(1, 2 (1 - AUC)); its interval is the mean of the cells' limits"],
            ["AUC", "DeLong's 95 % interval (logit form); of a detector over all other teams' fakes in one pool"],
            ["floors", f"coverage at least {floors.coverage:g}, copies of public reals at most {floors.copied:g}"],
            ["house", "the spectrum baseline, trained for each team on the public reals and all other teams' fakes"],
            ["control", f"reals against the same reals recompressed as {CONTROL}: 0.5 where the codec tells nothing"],
            ["cost", "parameters and FLOPs (multiply-add = 2) from the graph; milliseconds measured here, on one "
                     "thread, and no part of any rank"],
            ["made by", f"deepfake-arena {arena.__version__}"],
        ]  # fmt: skip

    def publish(self, board: Row, entries: list[Entry], fakes: dict[str, Tensor]) -> None:
        from arena.report.board import write_board, write_csv

        tables = {table: {row["key"]: row for row in board[table]} for table in ("generation", "detection", "scores")}
        for entry, row in zip(entries, board["teams"], strict=True):
            home = self.out / "teams" / entry.key
            write_json(home / "report.json", {**row, **{table: rows.get(entry.key) for table, rows in tables.items()}})
            if entry.key in fakes:
                marks = {"Synthetic": "true", "Source": "deepfake-arena", "Description": f"fakes of {entry.team}"}
                with atomic(home / "preview.png", durable=False) as file:
                    file.write(preview(fakes[entry.key], marks))
        write_json(self.out / "board.json", board)
        write_csv(self.out, board)
        write_board(self.out)

    def kept(self, name: str, make: Callable[[], Row]) -> Row:
        """A result as it was kept, or made now and kept."""
        file = self.work / name
        if not file.is_file():
            write_json(file, make())
        found = read_json(file)
        assert isinstance(found, dict)
        return found


def logit(scores: np.ndarray) -> np.ndarray:
    """Of probabilities; 0 and 1 stay finite."""
    p = np.clip(scores, 1e-9, 1 - 1e-9)
    return np.log(p / (1 - p))


def _images(file: Path) -> Tensor:
    return torch.from_numpy(np.load(file, allow_pickle=False))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32] or "team"

"""Score an event: every detector against every team's fakes and the secret reals, one step at a time, each kept.

    BOARD/work/                   what is known already, by the sha256 of what it was made from; delete it to begin anew
    BOARD/teams/KEY/report.json   what was found of one submission; preview.png: its first fakes
    BOARD/board.json              all figures; leaderboard.html, teams.csv, matrix.csv are made from it

Killed and started again it goes on where it stood. One broken submission stops nobody else.
"""

import hashlib
from collections.abc import Callable, Sequence
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
from arena.pictures import png, sheet
from arena.seeds import rng
from arena.submission import quality, sandbox, standings
from arena.submission.challenge import Keys, manifest, open_challenge, open_keys
from arena.submission.check import box, judged, sha256
from arena.submission.entries import Entrance, Entry, Progress, stands
from arena.submission.media import preview
from arena.submission.schema import Challenge
from arena.submission.standings import HOUSE, Fakes, Judge, Row

NEEDS = ("onnx", "onnxruntime")
CONTROL = "jpeg-75"  # what reals are recompressed as, to find detectors that look at the codec


def score(
    folder: Path, submissions: Path, out: Path, progress: Progress | None = None, seconds: int | None = None
) -> Row:
    """Score all zips in `submissions` for the challenge in `folder` into `out`; return the board.

    seconds: what a job may take instead of what the challenge says; who failed with another figure is tried again.
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
    here = sorted((p for p in submissions.iterdir() if not p.name.startswith(".")), key=lambda p: natural(p.name))
    zips = [path for path in here if path.suffix.lower() == ".zip"]
    if not zips:
        raise InputError(f"{submissions} holds no .zip. Put every team's submission there.")
    if seconds:
        limits = challenge.limits.model_copy(update={"seconds": seconds})
        challenge = challenge.model_copy(update={"limits": limits})
    return Event(folder, challenge, keys, out, progress or (lambda *_: None)).play(zips, len(here) - len(zips))


class Event:
    """One scoring: the challenge, the secret reals, and the folder in which results gather."""

    def __init__(self, folder: Path, challenge: Challenge, keys: Keys, out: Path, progress: Progress):
        self.folder, self.challenge, self.keys, self.out, self.progress = folder, challenge, keys, out, progress
        self.work = out / "work"
        self.files_of: dict[str, Path] = {}  # a team's fakes, by its key
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
        entries = Entrance(self.challenge, self.work, self.keep_images, self.progress).checked(zips)
        reals, train = self.reals(), self.train()
        fakes = {entry.key: self.fakes(entry) for entry in entries if entry.fakes}
        qualities = [self.rated(entry, entries, fakes, reals, train) for entry in entries if entry.key in fakes]
        counted = [some for some in qualities if not some.out]
        judges = [judge for entry in entries if (judge := self.judge(entry, fakes))]
        house = self.house(counted, fakes, reals, train)
        board = self.board(entries, qualities, [*judges, *([house] if house else [])], others)
        self.publish(board, entries, fakes)
        return board

    # 1: the images, all on one path: decoded in the limited process, then through the challenge's codec

    def keep_images(self, file: Path, items: np.ndarray, plain: bool = False) -> None:
        coded = (
            items if plain else store_as(torch.from_numpy(np.ascontiguousarray(items)), self.challenge.codec).numpy()
        )
        with atomic(file) as handle:
            np.lib.format.write_array(handle, coded, allow_pickle=False)

    def fakes(self, entry: Entry) -> Tensor:
        self.files_of[entry.key] = self.work / entry.sha256[:32] / "items.npy"
        return _images(self.files_of[entry.key])

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
            self.keep_images(kept, items, plain=name == "test")  # which are written after the codec
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

    # 2: are the fakes any good, and are they fakes?

    def rated(
        self, entry: Entry, entries: list[Entry], fakes: dict[str, Tensor], reals: Tensor, train: Tensor
    ) -> Fakes:
        """Distance, coverage, density, copies of public images, repeats, what the files alone give away; the floors."""
        home, mine, floors = self.work / entry.sha256[:32], fakes[entry.key], self.challenge.floors
        public = torch.cat([train, self.test()]) if self.challenge.n_test else train
        seen = entry.headers, self.headers()
        find = partial(quality.measure, mine, reals, train, public, *seen, self.challenge.codec)
        figures = self.kept(home / "quality.json", find)
        copied, repeated, coverage = (figures[key]["value"] for key in ("copied", "repeated", "coverage"))
        reasons = []
        if copied > floors.copied:
            reasons.append(f"{copied:.0%} of its fakes copy a public image (at most {floors.copied:.0%} may)")
        if repeated > floors.repeated:
            reasons.append(f"{repeated:.0%} of its fakes repeat another of them (at most {floors.repeated:.0%} may)")
        if coverage < floors.coverage:
            asked = f"(at least {floors.coverage:.0%} are asked)"
            reasons.append(f"its fakes cover {coverage:.0%} of the secret reals {asked}")
        if figures["of_noise"] > floors.distance:
            share = f"{figures['of_noise']:.0%} of noise's (at most {floors.distance:.0%} may be)"
            reasons.append(f"its distance to the reals is {share}")
        others = sorted((other for other in entries if other.key in fakes and other is not entry), key=_by_sha)
        tag = hashlib.sha256(" ".join(other.sha256 for other in others).encode()).hexdigest()[:32]
        find = partial(quality.twins, mine, [fakes[other.key] for other in others], reals)
        twins = self.kept(home / f"twins-{tag}.json", find)
        if twins["share"] > floors.copied:
            whose = [f"{other.team} ({n})" for other, n in zip(others, twins["of"], strict=True) if n]
            more = f" and {len(whose) - 3} more" if len(whose) > 3 else ""
            note = (
                f"{twins['share']:.0%} of its fakes are near-duplicates of other teams': {', '.join(whose[:3])}{more}"
            )
            entry.notes.append(note)
        entry.reasons += reasons
        return Fakes(entry.key, entry.team, figures, "; ".join(reasons) or None, entry.owner)

    def headers(self) -> list[Row]:
        found = read_json(self.work / "reals.json")
        assert isinstance(found, list)
        return found

    # 3: the detectors

    def judge(self, entry: Entry, fakes: dict[str, Tensor]) -> Judge | None:
        """What a submission's detector says of all that is judged; None where it hands in none."""
        if entry.model is None or entry.problems:
            return None
        sets = {"reals": self.work / "reals.npy", "control": self.work / "control.npy"}
        self.control()
        if self.challenge.n_test:
            self.test()
            sets["test"] = self.work / "test.npy"
        sets |= {key: self.files_of[key] for key in fakes}
        said, about, failure = self.logits(entry, sets)
        cost = {
            "parameters": entry.model.get("parameters"), "flops": entry.model.get("flops"),
            "ms": about.get("milliseconds_per_item"), "megabytes": self.megabytes(entry),
        }  # fmt: skip
        judge = Judge(
            entry.key, entry.team, {key: said[key] for key in fakes if key in said}, said.get("reals"),
            test=said.get("test"), control=said.get("control"), cost=cost, out=failure, owner=entry.owner,
        )  # fmt: skip
        if failure:
            entry.reasons.append(failure)
        else:
            self.suspect(entry, judge)
        return judge

    def megabytes(self, entry: Entry) -> float:
        assert entry.folder
        files = [entry.folder / name for name in ("detector.onnx", "detector.safetensors")]
        return next(file.stat().st_size for file in files if file.exists()) / 1e6

    def logits(self, entry: Entry, sets: dict[str, Path]) -> tuple[dict[str, np.ndarray], Row, str | None]:
        """Logits by set, what the run told, and why there are none. What was scored before is not scored again."""
        home, digests = self.work / entry.sha256[:32], {name: sha256(path)[:32] for name, path in sets.items()}
        if stands(home / "failed.json", self.challenge.limits.seconds):
            return {}, {}, read_json(home / "failed.json")["why"]
        missing = [name for name in sets if not (home / f"logits-{digests[name]}.npy").is_file()]
        if missing:
            images = [_images(sets[name]) for name in missing]
            counts = [len(some) for some in images]
            self.progress(f"{entry.team} scores", 0, sum(counts))
            failure: str | None
            try:
                found, about, wrong = self.shuffled(entry, torch.cat(images))
                if not wrong and "reals" in missing and np.ptp(found) == 0:
                    wrong = [f"it says {found[0]:.6g} to every image: a constant is no detector"]
                failure = next(iter(wrong), None)
            except sandbox.Refused as error:
                found, about, failure = np.zeros(0), {}, str(error)
            if failure:
                write_json(home / "failed.json", {"why": failure, "seconds": self.challenge.limits.seconds})
                return {}, {}, failure
            if not (home / "run.json").is_file():
                write_json(home / "run.json", {key: about[key] for key in about if key != "counts"})
            for name, some in zip(missing, np.split(found, np.cumsum(counts)[:-1]), strict=True):
                with atomic(home / f"logits-{digests[name]}.npy") as file:
                    np.lib.format.write_array(file, some, allow_pickle=False)
            self.progress(f"{entry.team} scores", sum(counts), sum(counts))
        kept = {name: np.load(home / f"logits-{digests[name]}.npy", allow_pickle=False) for name in sets}
        return kept, read_json(home / "run.json"), None

    def shuffled(self, entry: Entry, images: Tensor) -> tuple[np.ndarray, Row, list[str]]:
        """Logits of the images in their order, shown in one that only the private part knows: reals and fakes of all
        teams are mixed, so that neither a batch nor a place in the row tells anything."""
        assert entry.folder
        order = torch.randperm(len(images), generator=rng(self.keys.judge, entry.sha256, len(images)))
        found, about, wrong = judged(entry.folder, images[order].numpy(), self.challenge.limits)
        back = np.empty_like(found)
        back[order.numpy()] = found
        return back, about, wrong

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
            others = sorted(other.key for other in counted if other.key != some.key)
            names = " ".join(self.files_of[key].parent.name for key in (some.key, *others))
            find = partial(quality.house_scores, [fakes[key] for key in others], fakes[some.key], reals, train)
            kept = self.kept(self.work / f"house-{hashlib.sha256(names.encode()).hexdigest()[:32]}.json", find)
            said[some.key], of_reals[some.key] = np.array(kept["fakes"]), np.array(kept["reals"])
        return Judge(HOUSE, "the house (spectrum)", said, reals=of_reals)

    # 4: the board

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
            ["what counts", "other teams' pairings; fakes and detectors that are out count for nobody; a detector that "
                            "does no better than chance over all that it meets earns nobody points for fooling it"],
            ["fooled", "mean over detectors of min(1, 2 (1 - AUC)); its interval is the mean of the cells' limits"],
            ["AUC", "DeLong's 95 % interval (logit form); of a detector over all other teams' fakes in one pool"],
            ["floors", f"coverage at least {floors.coverage:g}; copies of public images at most {floors.copied:g}, "
                       f"repeats at most {floors.repeated:g}; distance at most {floors.distance:g} of uniform noise's"],
            ["house", "the spectrum baseline, trained for each team on the public reals and all other teams' fakes"],
            ["control", f"reals against the same reals recompressed as {CONTROL}: 0.5 where the codec tells nothing"],
            ["cost", "parameters and FLOPs (multiply-add = 2) from the graph; milliseconds measured here, on one "
                     "thread, and no part of any rank"],
            ["made by", f"deepfake-arena {arena.__version__}"],
        ]  # fmt: skip

    def publish(self, board: Row, entries: list[Entry], fakes: dict[str, Tensor]) -> None:
        from arena.report.board import write_board
        from arena.report.board_csv import write_csv

        tables = {table: {row["key"]: row for row in board[table]} for table in ("generation", "detection", "scores")}
        for entry, row in zip(entries, board["teams"], strict=True):
            home = self.out / "teams" / entry.key
            write_json(home / "report.json", {**row, **{table: rows.get(entry.key) for table, rows in tables.items()}})
            if entry.key in fakes:
                marks = {"Synthetic": "true", "Source": "deepfake-arena", "Description": f"fakes of {entry.team}"}
                with atomic(home / "preview.png", durable=False) as file:
                    file.write(preview(fakes[entry.key], marks))
                with atomic(home / "nearest.png", durable=False) as file:
                    file.write(self.beside(entry, fakes[entry.key], marks))
        write_json(self.out / "board.json", board)
        write_csv(self.out, board)
        write_board(self.out)

    def beside(self, entry: Entry, fakes: Tensor, marks: dict[str, str]) -> bytes:
        """For the organiser's eyes: the first fakes, each above the public image that it is nearest to."""
        nearest = read_json(self.work / entry.sha256[:32] / "quality.json")["nearest"][:24]
        public = torch.cat([self.train(), self.test()]) if self.challenge.n_test else self.train()
        pairs = (quality.stills(fakes)[: len(nearest)], quality.stills(public)[nearest])
        rows = [row for start in range(0, len(nearest), 8) for row in (some[start : start + 8] for some in pairs)]
        about = "every second row: the public image that is nearest to the fake above"
        return png(sheet(rows), marks | {"Synthetic": f"contains synthetic images; {about}", "Description": about})

    def kept(self, file: Path, make: Callable[[], Row]) -> Row:
        """A result as it was kept, or made now and kept."""
        if not file.is_file():
            write_json(file, make())
        found = read_json(file)
        assert isinstance(found, dict)
        return found


def _by_sha(entry: Entry) -> str:
    return entry.sha256


def logit(scores: np.ndarray) -> np.ndarray:
    """Of probabilities; 0 and 1 stay finite."""
    p = np.clip(scores, 1e-9, 1 - 1e-9)
    return np.log(p / (1 - p))


def _images(file: Path) -> Tensor:
    return torch.from_numpy(np.load(file, allow_pickle=False))

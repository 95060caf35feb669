"""How well a trained detector does on held-out reals and fakes: every figure, perturbed and compressed as well.

Everything is judged twice where videos are known: by items (images, frames, windows) and by videos, whose logit is the
mean of their items'. Intervals are over videos in both.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from arena import perturb
from arena.data.compression import LEVELS, Compressed, codec_version, compress
from arena.detection import Scorer
from arena.errors import InputError
from arena.evaluate_data import Gathered, Progress, Wishes, gather
from arena.evaluate_figures import recalibrated, summary
from arena.faces import plural
from arena.files import atomic, write_json
from arena.metrics.calibration import Scaling, fit_scaling
from arena.metrics.grouping import parse_rule

Bars = Callable[[str], AbstractContextManager[Progress]]


def evaluate(
    scorer: Scorer, wishes: Wishes, out: Path | None = None, bars: Bars = lambda what: nullcontext()
) -> dict[str, Any]:
    """The evaluation as plain numbers; with `out` also evaluation.json, evaluation.html and scores.csv there.

    Raises InputError, before anything is read, for wishes that cannot be met; and what `gather` and `score` raise.
    """
    chains = perturb.parse_grid(wishes.robustness)
    parse_rule(wishes.video_id)
    for level in wishes.levels:
        if level not in LEVELS:
            raise InputError(f"--levels: no level {level!r}. Use some of {', '.join(LEVELS)}, between commas.")
    if wishes.levels:
        codec_version()  # that a codec is missing is better known before
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file. Name a folder.")
    cache = Compressed(wishes.cache) if wishes.cache else None
    scaling, learnt = read_scaling(wishes.calibrate) if wishes.calibrate else (None, set[str]())
    with bars("reading") as progress:
        data = gather(scorer, wishes, progress)
    if same := {file.sha256 for file in data.files} & learnt:
        raise InputError(
            f"{plural(len(same), 'file')} of this evaluation lie among those of --calibrate {wishes.calibrate}: a"
            " scaling is fitted on other files than those it is judged on."
        )
    with bars("scoring") as progress:
        logits = score(scorer, data, chains, wishes.levels, cache, progress)
    found = summary(scorer, wishes, data, logits, chains)
    if scaling:
        found["recalibrated"] = {"from": str(wishes.calibrate)} | recalibrated(scaling, logits["logit"], data.fakes())
    if out is not None:
        write(out, found, data, logits)
    return found


def score(
    scorer: Scorer,
    data: Gathered,
    chains: Sequence[perturb.Chain] = (),
    levels: Sequence[str] = (),
    cache: Compressed | None = None,
    progress: Progress = None,
) -> dict[str, np.ndarray]:
    """Logits of all items: "logit" as they are, then under each chain and level, by its name.

    Raises InputError where a logit is not a number.
    """
    changes: dict[str, Callable[[Tensor, Sequence[str]], Tensor]] = {"logit": lambda clips, _: clips}
    changes |= {str(chain): partial(_perturbed, chain) for chain in chains}
    changes |= {level: partial(_compressed, level, cache) for level in levels}
    logits = {name: np.empty(len(data.items)) for name in changes}
    done, total = 0, len(data.items) * len(changes)
    for rows in _lots(data, scorer.batch):
        places = [place for row in rows for place in data.items[row].frames]
        clips = data.shelf.take(places).unflatten(0, (len(rows), -1))
        addresses = [data.shelf.addresses[place] for place in places]
        for name, change in changes.items():
            changed = change(clips, addresses)
            alone = changed.shape[1] == 1
            found = scorer.score_images(changed[:, 0]) if alone else scorer.score_windows(changed)
            if np.isnan(found).any():
                path = data.files[data.items[rows[int(np.isnan(found).argmax())]].file].path
                under = "" if name == "logit" else f" under {name}"
                raise InputError(
                    f"{path}{under}: the detector's logit is not a number. It has diverged: train it anew."
                )
            logits[name][rows] = found
            done += len(rows)
            if progress is not None:
                progress(done, total)
    return logits


def read_scaling(path: Path) -> tuple[Scaling, set[str]]:
    """What the scores.csv of validation data teaches: the scaling of logits, and which files it knows (sha256)."""
    try:
        with path.open(newline="") as file:
            rows = [(row["label"], float(row["logit"]), row["sha256"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"--calibrate {path}: expected the scores.csv of an evaluation on validation data, found {error!r}."
        ) from error
    real, fake = ([logit for label, logit, _ in rows if label == wanted] for wanted in ("0", "1"))
    if not (real and fake and np.isfinite([*real, *fake]).all()):
        raise InputError(f"--calibrate {path} holds no reals, no fakes or no finite logits. Give another scores.csv.")
    return fit_scaling(real, fake), {digest for _, _, digest in rows}


def write(out: Path, found: dict[str, Any], data: Gathered, logits: dict[str, np.ndarray]) -> None:
    """evaluation.json, scores.csv and evaluation.html in `out`."""
    from arena.report.evaluation import render

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "label", "video", "frame", "sha256", *logits])
    for row, item in enumerate(data.items):
        file = data.files[item.file]
        scores = [repr(float(values[row])) for values in logits.values()]
        table.writerow([file.path, int(file.fake), file.video, item.number, file.sha256, *scores])
    page = render(found, logits["logit"][~data.fakes()], logits["logit"][data.fakes()])
    write_json(out / "evaluation.json", found)
    for name, content in (("scores.csv", text.getvalue()), ("evaluation.html", page)):
        with atomic(out / name) as stream:
            stream.write(content.encode("utf-8", "replace"))


def _lots(data: Gathered, batch: int) -> Iterator[list[int]]:
    """Rows of items of one length, in order, at most `batch` pictures (but one item) at a time."""
    lot: list[int] = []
    for row, item in enumerate(data.items):
        length = len(item.frames)
        if lot and (length != len(data.items[lot[0]].frames) or (len(lot) + 1) * length > batch):
            yield lot
            lot = []
        lot.append(row)
    if lot:
        yield lot


def _perturbed(chain: perturb.Chain, clips: Tensor, addresses: Sequence[str]) -> Tensor:
    return perturb.apply(clips.flatten(0, 1), chain, addresses).unflatten(0, clips.shape[:2])


def _compressed(level: str, cache: Compressed | None, clips: Tensor, _: Sequence[str]) -> Tensor:
    return compress(clips, level, cache)

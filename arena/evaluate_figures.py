"""The figures of an evaluation: from items, their logits and the files they came from (keys: docs/evaluate.md)."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from arena.detection import Scorer
from arena.evaluate_data import File, Gathered, Wishes
from arena.faces import plural
from arena.metrics import calibration, detection, grouping
from arena.metrics.header import header_auc
from arena.perturb import Chain

SCHEMA = 1
SUSPECT = 0.6  # AUC of the headers alone from which on a warning stands beside the detector's
ROC_POINTS = 200
INTERVAL = "95 %, over videos: DeLong's, symmetric in logit(AUC); percentiles of draws of videos for other figures"


class Judge:
    """Judges items, and their videos where these hold several, at one threshold. fakes: bool N; videos: an id each."""

    def __init__(self, fakes: np.ndarray, videos: Sequence[str], threshold: float):
        self.fakes, self.videos, self.threshold = fakes, np.array(videos, dtype=object), threshold
        self.grouped = len(set(zip(fakes.tolist(), videos, strict=True))) < len(videos)

    def __call__(self, logits: np.ndarray, rows: np.ndarray | None = None, full: bool = False) -> dict[str, Any]:
        """Scores of all items or of some rows, as "items" and "videos" (None where an item is a video).

        full: with the intervals of all figures, calibration and the ROC curve.
        """
        rows = np.ones(len(logits), dtype=bool) if rows is None else rows
        of_reals, of_fakes = rows & ~self.fakes, rows & self.fakes
        reals, fakes = ((self.videos[mine].tolist(), logits[mine]) for mine in (of_reals, of_fakes))
        found = {"items": self._scores(reals, fakes, full), "videos": None}
        if self.grouped:
            reals, fakes = (grouping.by_video(scores, videos) for videos, scores in (reals, fakes))
            found["videos"] = self._scores(reals, fakes, full)
        return found

    def _scores(
        self, reals: tuple[list[str], np.ndarray], fakes: tuple[list[str], np.ndarray], full: bool
    ) -> dict[str, Any]:
        (real_videos, real), (fake_videos, fake) = reals, fakes
        found: dict[str, Any] = detection.detection_scores(real, fake, self.threshold)
        _, found["auc_low"], found["auc_high"] = grouping.clustered_delong(real, fake, real_videos, fake_videos)
        found["false_alarms"] = float(np.mean(real >= self.threshold))
        found |= {"n_real_videos": len(set(real_videos)), "n_fake_videos": len(set(fake_videos))}
        if full:
            spread = grouping.Spread(real, fake, real_videos, fake_videos, self.threshold)
            found["intervals"] = spread.intervals
            bins = bins_for(len(real) + len(fake))
            found["calibration"] = {
                "bins": bins, "ece": calibration.ece(real, fake, bins),
                **calibration.brier(real, fake, bins)._asdict(),
                "reliability_curve": [entry._asdict() for entry in calibration.reliability(real, fake, bins)],
            }  # fmt: skip
            found["roc"] = _roc(real, fake, spread)
        return found


def summary(
    scorer: Scorer, wishes: Wishes, data: Gathered, logits: Mapping[str, np.ndarray], chains: Sequence[Chain]
) -> dict[str, Any]:
    """All figures, and what a reader must know of them."""
    judge = Judge(data.fakes(), data.videos(), scorer.threshold)
    plain = logits["logit"]
    seen = _seen(scorer.opened.root, data.files)
    tainted = {file.video for file in seen}
    fresh = np.array([video not in tainted for video in data.videos()])
    both = fresh.any() and 0 < data.fakes()[fresh].sum() < fresh.sum()
    settings = scorer.data
    found = {
        "schema": SCHEMA,
        "detector": scorer.opened.marks["Method"],
        "checkpoint": dict(scorer.opened.marks),
        "protocol": {
            "size": scorer.size, "resize": settings.resize, "codec": settings.codec, "crop": settings.crop,
            "frames": scorer.frames, "every": settings.every, "windows": wishes.windows, "video_id": wishes.video_id,
            "threshold": scorer.threshold, "threshold_from": scorer.threshold_from, "interval": INTERVAL,
        },
        "data": _facts(wishes, data, judge.grouped),
        "seen": {"files": len(seen), "examples": [file.path for file in seen[:5]]},
        "header": _header(data.files),
        **judge(plain, full=True),
        "held_out": judge(plain, fresh) if seen and both else None,
        "folders": _by_folder(judge, data, plain),
        "robustness": [
            {"name": str(chain), "steps": [list(step) for step in chain.steps], **judge(logits[str(chain)])}
            for chain in chains
        ],
        "levels": [{"name": level, **judge(logits[level])} for level in wishes.levels],
        "recalibrated": None,
    }  # fmt: skip
    found["notes"] = _notes(found)
    found["provenance"] = _provenance(scorer)
    return found


def bins_for(n: int) -> int:
    """Of calibration: 15, and fewer where a bin would hold under 20."""
    return max(2, min(calibration.BINS, n // 20))


def recalibrated(scaling: calibration.Scaling, logits: np.ndarray, fakes: np.ndarray) -> dict[str, Any]:
    """Calibration of the items once their logits are scaled as validation data taught."""
    real, fake = scaling(logits[~fakes]), scaling(logits[fakes])
    return {
        "slope": scaling.slope, "shift": scaling.shift, "ece": calibration.ece(real, fake, bins_for(len(logits))),
        "score": calibration.brier(real, fake).score, "accuracy": detection.accuracy(real, fake),
    }  # fmt: skip


def _roc(real: np.ndarray, fake: np.ndarray, spread: grouping.Spread) -> dict[str, Any]:
    """The ROC curve's corners, thinned for drawing, and the edges of its band at fixed false alarms."""
    _, false_alarms, hits = detection.sweep(real, fake)
    up, right = np.diff(hits) > 0, np.diff(false_alarms) > 0
    corner = np.r_[True, (up[1:] != up[:-1]) | (right[1:] != right[:-1]) | (up[1:] & right[1:]), True]
    kept = np.flatnonzero(corner)
    if len(kept) > ROC_POINTS:
        kept = kept[np.linspace(0, len(kept) - 1, ROC_POINTS).astype(int)]
    band = None
    if spread.band is not None:
        low, high = spread.band.round(5).tolist()
        band = {"fpr": grouping.GRID.round(5).tolist(), "low": low, "high": high}
    fpr, tpr = (false_alarms[kept] / real.size).round(5), (hits[kept] / fake.size).round(5)
    return {"fpr": fpr.tolist(), "tpr": tpr.tolist(), "band": band}


def _by_folder(judge: Judge, data: Gathered, logits: np.ndarray) -> list[dict[str, Any]]:
    """Where fakes come from several arguments (methods, say): each one's fakes against all reals."""
    fakes = data.fakes()
    folder_of = np.array([data.files[item.file].folder for item in data.items], dtype=object)
    folders = list(dict.fromkeys(folder_of[fakes].tolist()))
    if len(folders) < 2:
        return []
    return [{"folder": name, **judge(logits, ~fakes | (folder_of == name))} for name in folders]


def _header(files: Sequence[File]) -> dict[str, Any]:
    """What format and size of the files give away, without and with their length; and what they are like."""
    reals, fakes = ([file for file in files if file.fake == label] for label in (False, True))
    names = list(dict.fromkeys(key for file in files for key in file.header))
    found: dict[str, Any] = {}
    for kind, left_out in (("format", "bytes/pixel"), ("format_and_length", "")):
        real, fake = ([{k: v for k, v in f.header.items() if k != left_out} for f in side] for side in (reals, fakes))
        value = header_auc(real, fake, [file.video for file in reals], [file.video for file in fakes])
        found[kind] = None if value is None else dict(zip(("auc", "auc_low", "auc_high"), value, strict=True))
    found["fields"] = {
        name: {
            side: _described([file.header[name] for file in some if name in file.header])
            for side, some in (("real", reals), ("fake", fakes))
        }
        for name in names
    }
    return found


def _described(values: Sequence[str | int | float]) -> str:
    """A field of many files in a few words: its values where they are few, else its range and median."""
    count = Counter(values)
    if len(count) <= 3:
        return ", ".join(f"{value} ({n:,})" if len(count) > 1 else f"{value}" for value, n in count.most_common())
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) < len(values):
        return f"{len(count)} different"
    return f"{min(numbers):g} to {max(numbers):g}, median {float(np.median(numbers)):g}"


def _seen(root: Path, files: Sequence[File]) -> list[File]:
    """The files that the run trained on or chose its threshold by (train, val), by the hashes in its manifest."""
    manifest, known = root / "data" / "manifest.jsonl", set()
    if manifest.is_file():
        for line in manifest.read_text(errors="replace").splitlines():
            try:
                row = json.loads(line)
                known |= {row["sha256"]} if row["split"] in ("train", "val") else set()
            except (ValueError, KeyError, TypeError):  # a damaged line hides one file only
                continue
    return [file for file in files if file.sha256 in known]


def _facts(wishes: Wishes, data: Gathered, grouped: bool) -> dict[str, Any]:
    fake_files, fake_items = sum(file.fake for file in data.files), int(data.fakes().sum())
    unit = "frame" if grouped or data.video_files else "image"
    if any(len(item.frames) > 1 for item in data.items):
        unit = "window"
    return {
        "real": list(wishes.real), "fake": list(wishes.fake), "unit": unit,
        "files_real": len(data.files) - fake_files, "files_fake": fake_files,
        "items_real": len(data.items) - fake_items, "items_fake": fake_items,
        "video_files": data.video_files, "copies": data.copies, "bad": [list(entry) for entry in data.bad],
    }  # fmt: skip


def _notes(found: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing a figure, the worst first."""
    notes, data, seen, header = [], found["data"], found["seen"], found["header"]["format"]
    if seen["files"]:
        notes.append(
            f"{seen['files']} of these files were in the training data (train or val of the run): figures flatter."
            f" {'The figures without them stand below.' if found['held_out'] else 'Nothing is left without them.'}"
        )
    if header and header["auc_low"] > 0.5 and header["auc"] >= SUSPECT:
        notes.append(
            f"Format and size of the files alone tell fakes from reals with AUC {header['auc']:.3f}: bring both"
            " into one format and size, or these figures may speak of that."
        )
    if data["copies"]:
        notes.append(f"{plural(data['copies'], 'file')} with the bytes of another left out.")
    if data["bad"]:
        name, why = data["bad"][0]
        notes.append(
            f"{plural(len(data['bad']), 'file')} could not be used: {name} ({why}){' ...' * (len(data['bad']) > 1)}"
        )
    if (found["videos"] or found["items"])["n_real"] < 1000:
        notes.append("With fewer than 1000 reals, TPR at 1 % FPR hangs on a handful of them.")
    return notes


def _provenance(scorer: Scorer) -> dict[str, Any]:
    from arena.provenance import device_name, git_commit, versions

    time = datetime.now(UTC).isoformat(timespec="seconds")
    return {**versions(), "device": device_name(str(scorer.device)), "git": git_commit(), "time": time}

"""From frames to videos: what a video scores, and intervals that know that frames of one video are not independent.

A video is named by an id that the caller gives for each frame; ids are compared within their class only, so a real and
a fake video are two whatever they are called. `video_id` makes ids unique: the whole path counts, never the bare name
of a folder. (In FaceForensics++ four methods have a folder 000_003 each; by the bare name 700 videos become 280.)

m = number of fakes, n = number of reals; scores are logits as in arena/metrics/detection.py.
"""

import re
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arena.errors import InputError
from arena.metrics.detection import checked, clopper_pearson, placements, sweep

Floats = NDArray[np.float64]
Ids = Sequence[str]
Rule = str | re.Pattern[str]
DRAWS = 500
GRID = np.concatenate([[0.0, 0.001, 0.002, 0.005], np.linspace(0.01, 1, 100)])  # false alarms where a ROC band is taken


def parse_rule(text: str) -> Rule:
    """The rule "none", "parent" or "prefix:REGEX", this one compiled. Raises InputError for anything else."""
    if text in ("none", "parent"):
        return text
    if not text.startswith("prefix:"):
        raise InputError(
            f"--video-id {text!r}: expected parent (a folder of frames is a video), none or prefix:REGEX (the start of"
            f" the file's name is)."
        )
    try:
        return re.compile(text.removeprefix("prefix:"))
    except re.error as error:
        raise InputError(f"--video-id {text!r} holds no regular expression: {error}. Try 'prefix:[^_]+'.") from error


def video_id(path: str, rule: Rule) -> str:
    """The id of the video that a frame is of, from its path as the user named it (posix).

    none: every frame on its own; parent: the folder that it lies in; prefix: that folder and what the expression finds
    at the start of the file's name (its group 1, or all of it); a name that it does not fit stands alone.
    """
    folder, _, name = path.rpartition("/")
    if isinstance(rule, str):
        return path if rule == "none" else folder
    match = rule.match(name)
    if match is None:
        return path
    return f"{folder}/{match[0] if rule.groups == 0 or match[1] is None else match[1]}"


def by_video(logits: ArrayLike, videos: Ids) -> tuple[list[str], Floats]:
    """The ids in order of their first frame, and each one's mean logit."""
    order, place, count = _clusters(videos)
    return order, np.bincount(place, np.asarray(logits, dtype=np.float64), len(order)) / count


def clustered_delong(
    real: ArrayLike, fake: ArrayLike, real_videos: Ids, fake_videos: Ids, level: float = 0.95
) -> tuple[float, float, float]:
    """AUC of frames with an interval over videos: (auc, low, high). DeLong's where every frame is its own video.

    The variance is of sums over videos (Obuchowski 1997, equation 3, no video being of both classes), the interval
    symmetric in logit(AUC). Where there is no variance (classes separated, or one video in a class), it is
    Clopper-Pearson's for as many pairs as the smaller class has videos.
    """
    real, fake = checked(real, fake)
    value, of_fakes, of_reals = placements(real, fake)
    parts = [_sum_variance(of_fakes - value, fake_videos), _sum_variance(of_reals - value, real_videos)]
    variance = sum(parts)
    if 0 < value < 1 and variance > 0:
        reach = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(variance) / (value * (1 - value))
        low, high = 1 / (1 + np.exp(-(np.log(value / (1 - value)) + np.array([-reach, reach]))))
        return value, float(low), float(high)
    return value, *clopper_pearson(value, min(len(set(real_videos)), len(set(fake_videos))), level)


class Spread:
    """How far figures move when videos are drawn anew with replacement, each class apart (percentiles of 500 draws).

    `intervals`: name of `detection_scores`, or false_alarms -> (low, high) at 95 %, None where nothing moves or a class
    has one video only; `band`: the ROC curve's TPR, low and high, at the false alarms of `GRID`.
    """

    def __init__(
        self, real: ArrayLike, fake: ArrayLike, real_videos: Ids, fake_videos: Ids, threshold: float, seed: int = 0
    ):
        real, fake = checked(real, fake)
        scores = sweep(real, fake)[0]  # distinct, from high to low
        drawn = np.random.default_rng(seed)
        classes = []
        for logits, videos in ((real, real_videos), (fake, fake_videos)):
            order, place, _ = _clusters(videos)
            classes.append((np.searchsorted(-scores, -logits), place, len(order)))
        cuts = {"accuracy": int(np.sum(scores >= 0.0)), "accuracy_frozen": int(np.sum(scores >= threshold))}
        rows, curves = [], []
        for _ in range(DRAWS):
            sums = []
            for at, place, k in classes:
                times = drawn.multinomial(k, np.full(k, 1 / k))
                sums.append(np.concatenate([[0.0], np.cumsum(np.bincount(at, times[place], scores.size))]))
            false_alarms, hits = sums
            rows.append(_figures(false_alarms, hits, cuts))
            curves.append(np.interp(GRID, false_alarms / false_alarms[-1], hits / hits[-1]))
        alone = min(k for _, _, k in classes) < 2
        self.intervals: dict[str, tuple[float, float] | None] = {}
        for name in rows[0]:
            low, high = np.percentile([row[name] for row in rows], [2.5, 97.5]).tolist()
            self.intervals[name] = None if alone or low == high else (low, high)
        self.band = None if alone else np.percentile(curves, [2.5, 97.5], axis=0)


def _figures(false_alarms: Floats, hits: Floats, cuts: dict[str, int]) -> dict[str, float]:
    """The figures of arena/metrics/detection.py from weighted counts; none called fake, then down to each score."""
    fpr, tpr = false_alarms / false_alarms[-1], hits / hits[-1]
    called = np.maximum(hits[1:] + false_alarms[1:], 1e-300)
    right = int(np.argmax(fpr >= 1 - tpr))
    before, after = 1 - tpr[right - 1] - fpr[right - 1], fpr[right] - 1 + tpr[right]
    found = {
        "auc": float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)),
        "ap": float(np.sum(np.diff(tpr) * hits[1:] / called)),
        "eer": float(fpr[right - 1] + before / (before + after) * (fpr[right] - fpr[right - 1])),
        "tpr_at_1_fpr": float(tpr[fpr <= 0.01].max()),
        "escape": float(1 - tpr[cuts["accuracy_frozen"]]),
        "false_alarms": float(fpr[cuts["accuracy_frozen"]]),
    }
    whole = hits[-1] + false_alarms[-1]
    for name, k in cuts.items():
        found[name] = float((hits[k] + false_alarms[-1] - false_alarms[k]) / whole)
    return found


def _sum_variance(centred: Floats, videos: Ids) -> float:
    """Variance of a mean over frames, from its videos' sums: k / (k - 1) x sum of squared sums / frames^2."""
    order, place, _ = _clusters(videos)
    if len(order) < 2:
        return float("nan")
    sums = np.bincount(place, centred, len(order))
    return float(len(order) / (len(order) - 1) * np.sum(sums**2) / centred.size**2)


def _clusters(videos: Ids) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """The ids in order of appearance, each frame's place among them, and each one's number of frames."""
    numbers: dict[str, int] = {}
    place = np.array([numbers.setdefault(video, len(numbers)) for video in videos], dtype=np.int64)
    return list(numbers), place, np.bincount(place, minlength=len(numbers))

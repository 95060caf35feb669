"""Alarms of a round: failures that a mean score hides, found in what the round has judged anyway.

Pure functions of images and logits; nothing is trained, read or written. A threshold stands beside what honest runs and
planted failures measured, in docs/quality.md. An alarm is a dict ready for JSON:

    name      collapse, copied-input, ignored-input, inverted, copied-training, saturated or overflow
    level     "alarm" (the round's scores do not mean what they seem to) or "warning"
    way       the direction ("a2b"), or ""
    figure, threshold    what was measured, and where the alarm begins
    sentence  what was found, with both numbers
    remedy    what to try
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from arena.metrics.features import signed

FEWEST = 8  # images: with fewer, no alarm about a set of them
SIDE = 16  # px: images are compared by their colours at this size
MOST = 500  # images of a set that are compared with each other

APART = 0.3  # of the reals' mean distance from each other
ALONE = 0.2  # of the reals' median distance to the nearest other
COPIED = 0.1  # of the distance between two sources
FOLLOWS = 0.15  # correlation of distances among fakes with those among sources
INVERTED = -0.25  # correlation of a fake with its source, both less their mean images
NEARER = 0.5  # of the mean fake's distance to the mean real, after inverting it
MEMORISED = 0.05  # share of fakes that copy a training image: its interval's lower end
ROUNDS = 2  # in a row with all fakes above all reals
LARGEST = 88.0  # float32's exp overflows above 88.7
BEYOND = 0.5  # share of logits beyond it

Alarm = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """The judged images of one direction, N 3 S S, uint8 or float in [-1, 1]; fake i was made from source i, if any.

    `truths`: what fake i should be, where that is known (pairs, restored images).
    `quality`: the direction's figures by name, without the direction (`coverage-...` and `copied` are used, if there).
    """

    fakes: Tensor
    reals: Tensor
    sources: Tensor | None = None
    way: str = ""
    quality: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    truths: Tensor | None = None


def alarms(seen: Sequence[Seen], logits: Sequence[tuple[ArrayLike, ArrayLike]] = ()) -> list[Alarm]:
    """Everything that is wrong with a round, the generator's failures first; empty where nothing is.

    logits: the detector's logits of the judged reals and fakes after its training, (reals, fakes) a round, this round
    last; earlier rounds may be missing.
    """
    found: list[Alarm] = []
    for way in seen:
        if min(len(way.fakes), len(way.reals)) >= FEWEST:
            small = Small(way)
            checks = (collapse(way, small), input_copied(small), input_ignored(small), inverted(small))
            some = [alarm for alarm in checks if alarm]
            found += [{**alarm, "way": way.way} for alarm in some]
        found += [{**alarm, "way": way.way} for alarm in training_copied(way)]
    return found + [{**alarm, "way": ""} for alarm in detector(logits)]


class Small:
    """The images of a direction at 16 px, as rows of colours in [-1, 1]: N 3 256."""

    def __init__(self, seen: Seen):
        self.fakes, self.reals = rows(seen.fakes), rows(seen.reals)
        self.sources = rows(seen.sources) if seen.sources is not None else None
        self.truths = rows(seen.truths) if seen.truths is not None else None

    def away(self, images: Tensor) -> float:
        """How far images are from the sources, as a share of how far two sources are apart."""
        assert self.sources is not None
        apart = (self.sources - self.sources.roll(len(self.sources) // 2, 0)).abs().mean()
        return ratio((images - self.sources).abs().mean(), apart)

    def follows(self, images: Tensor) -> float:
        """Mantel's correlation of the distances among images with those among the sources; NaN where none vary."""
        assert self.sources is not None
        both = [torch.pdist(some.mean(1)) for some in (images, self.sources)]
        if min(float(some.std()) for some in both) < 1e-3:  # nothing varies: that is a collapse
            return float("nan")
        return float(torch.corrcoef(torch.stack(both))[0, 1])


def rows(images: Tensor) -> Tensor:
    keep = np.linspace(0, len(images) - 1, min(len(images), MOST)).round().astype(int)
    return F.adaptive_avg_pool2d(signed(images[torch.from_numpy(keep)]), SIDE).flatten(2).cpu()


def collapse(seen: Seen, small: Small) -> Alarm | None:
    """The fakes are all alike, or a few pictures repeated."""
    fakes, reals = (some.flatten(1) for some in (small.fakes, small.reals))
    spread = ratio(torch.pdist(fakes).mean(), torch.pdist(reals).mean())
    alone = [nearest(reals)] if small.sources is None else [nearest(reals), nearest(small.sources.flatten(1))]
    gap = ratio(nearest(fakes), min(alone))
    coverage = next((score for name, score in seen.quality.items() if name.startswith("coverage")), None)
    beside = ""
    if coverage and coverage.get("floor") is not None:
        beside = f"; coverage {coverage['value']:.2f}, where reals have {coverage['floor']:.2f}"
    remedy = "Train longer or with a lower rate; more or more varied data, DiffAugment, or an earlier save."
    if spread < APART:
        sentence = f"The fakes are nearly all alike: {spread:.2f} of the reals' mean distance from each other"
        return alarm("collapse", "alarm", spread, APART, f"{sentence} (alarm below {APART}){beside}.", remedy)
    if gap < ALONE:
        sentence = f"The fakes repeat each other: the nearest other is at {gap:.2f} of the distance that reals keep"
        return alarm("collapse", "alarm", gap, ALONE, f"{sentence} (alarm below {ALONE}){beside}.", remedy)
    return None


def input_copied(small: Small) -> Alarm | None:
    """A translator hands its source back (and that is not what it should do)."""
    if small.sources is None or (small.truths is not None and small.away(small.truths) < COPIED):
        return None
    share = small.away(small.fakes)
    if share >= COPIED:
        return None
    step = (small.fakes - small.sources).abs().mean()
    levels = float(step) * 127.5
    sentence = f"The fakes are their sources: {levels:.1f} grey levels apart, {share:.2f} of what two sources are"
    remedy = "Less weight on cycle and identity losses, or more steps; a low AUC means nothing here."
    return alarm("copied-input", "alarm", share, COPIED, f"{sentence} (alarm below {COPIED}).", remedy)


def input_ignored(small: Small) -> Alarm | None:
    """A translator's fakes do not vary as their sources do (though the truths, where they are known, would)."""
    if small.sources is None or (small.truths is not None and not small.follows(small.truths) >= FOLLOWS):
        return None
    follows = small.follows(small.fakes)
    if not follows < FOLLOWS:
        return None
    sentence = f"The fakes do not follow their sources: distances among them correlate at {follows:.2f}"
    remedy = "More weight on cycle or reconstruction; check that fakes and sources are paired as they should be."
    return alarm("ignored-input", "alarm", follows, FOLLOWS, f"{sentence} (alarm below {FOLLOWS}).", remedy)


def inverted(small: Small) -> Alarm | None:
    """Colours are turned round, in all channels or in one."""
    remedy = "A known sink of cycle losses: start again with another seed, or with more weight on the identity loss."
    known = small.sources if small.truths is None else small.truths
    if known is not None:
        fakes, sources = ((some - some.mean(0)) for some in (small.fakes, known))
        fakes, sources = (some - some.mean(2, keepdim=True) for some in (fakes, sources))
        alike = F.cosine_similarity(fakes, sources, dim=2).median(0).values  # of every channel
        low = float(alike.min())
        if low >= INVERTED:
            return None
        what = "sources" if small.truths is None else "truths"
        sentence = f"Colours are inverted in {channels(alike < INVERTED)}: fakes and {what} correlate at {low:.2f}"
        return alarm("inverted", "alarm", low, INVERTED, f"{sentence} (alarm below {INVERTED}).", remedy)
    fake, real = small.fakes.mean(0), small.reals.mean(0)
    away = (fake - real).norm(dim=1)
    share = (fake + real).norm(dim=1) / away.clamp(min=1e-6)
    low = float(share[away > 1].min()) if bool((away > 1).any()) else 1.0  # 1: 8 grey levels at every place
    if low >= NEARER:
        return None
    sentence = (
        f"Colours are inverted in {channels((share < NEARER) & (away > 1))}: turned round, the mean fake would be"
    )
    sentence += f" at {low:.2f} of its distance to the mean real (alarm below {NEARER})."
    return alarm("inverted", "alarm", low, NEARER, sentence, remedy)


def training_copied(seen: Seen) -> Iterator[Alarm]:
    """Training images handed in again."""
    score = seen.quality.get("copied")
    if score and score["low"] > MEMORISED:
        share = f"{score['value']:.0%} of {score['n']} fakes copy one of {score['n_real']} training images"
        sentence = f"{share} (at least {score['low']:.0%}; alarm above {MEMORISED:.0%})."
        remedy = "Look at the pairs (copied.nearest); fewer steps or more data. A low distance is no merit here."
        yield alarm("copied-training", "alarm", score["low"], MEMORISED, sentence, remedy)


def detector(logits: Sequence[tuple[ArrayLike, ArrayLike]]) -> Iterator[Alarm]:
    """The detector has nothing left to say: all fakes above all reals round after round, or logits out of range."""
    pairs = [tuple(np.asarray(some, dtype=np.float64) for some in pair) for pair in logits]
    if not pairs or not all(len(some) for pair in pairs for some in pair):
        return
    last = np.concatenate(pairs[-1])
    beyond = float(np.mean(~(np.abs(last) <= LARGEST)))  # NaN is beyond, too
    finite = bool(np.isfinite(last).all())
    if beyond > BEYOND or not finite:
        sentence = f"{beyond:.0%} of the detector's logits are beyond {LARGEST:.0f}, where float32's exp ends "
        sentence += f"(warning above {BEYOND:.0%})." if finite else "or are no numbers at all."
        remedy = "A lower learning rate for the detector; the generator learns nothing from such a penalty."
        yield alarm("overflow", "warning" if finite else "alarm", beyond, BEYOND, sentence, remedy)
    margins = [float(fake.min() - real.max()) for real, fake in pairs]
    if len(margins) >= ROUNDS and min(margins[-ROUNDS:]) > 0:
        sentence = f"AUC 1 for {ROUNDS} rounds: the lowest fake lies above the highest real, now by {margins[-1]:.3g}."
        remedy = (
            "`arena audit` says whether something else gives the label away. If nothing does: a weaker detector, "
            "fewer of its steps or more of the generator's."
        )
        yield alarm("saturated", "warning", margins[-1], 0.0, sentence, remedy)


def alarm(name: str, level: str, figure: float, threshold: float, sentence: str, remedy: str) -> Alarm:
    figures = {"figure": figure if np.isfinite(figure) else None, "threshold": threshold}
    return {"name": name, "level": level, **figures, "sentence": sentence, "remedy": remedy}


def line(alarm: Alarm) -> str:
    """An alarm as one line of a terminal."""
    way = f" {alarm['way']}" if alarm["way"] else ""
    return f"{alarm['level']}: {alarm['name']}{way}: {alarm['sentence']} {alarm['remedy']}"


def nearest(x: Tensor) -> Tensor:
    """Median distance of a row to the nearest other row."""
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf).amin(1).median()


def ratio(value: Any, other: Any) -> float:
    return float(value) / max(float(other), 1e-9)


def channels(which: Tensor) -> str:
    names = [name for name, some in zip(("red", "green", "blue"), which.tolist(), strict=True) if some]
    return "all channels" if len(names) == 3 else " and ".join(names)

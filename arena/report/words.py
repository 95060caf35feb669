"""The verdict in plain words, computed from the figures and their intervals: where these overlap, it claims nothing."""

from collections.abc import Mapping
from typing import Any

from arena.report.ledger_view import (
    Distance,
    Estimate,
    Judged,
    Round,
    Score,
    Truth,
    directions,
    fakes,
    forged,
    judged,
    main_distance,
    mapping,
    number,
    player,
    rounds_of,
    versus,
)
from arena.report.table import PERCENT, amount, arrow, interval, percent, unit

BESIDE = {"copy": "the sources themselves", "mean": "the mean picture", "plain": "plain enlargement"}


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """Sentences for the head of the report: detection, baseline, escape, distance. Never empty."""
    rounds = rounds_of(summary)
    scored = judged(rounds)
    if scored:
        sentences = [_detection(summary, scored[-1]), _trend(scored), _baseline(summary, scored[-1])]
    else:
        sentences = ["No round has been judged yet."]
    escaped = [entry for entry in rounds if entry.before and entry.before.escape is not None]
    if escaped and escaped[-1].before:
        sentences.append(_escape(escaped[-1].number, escaped[-1].before))
    sentences += [_distance(rounds), _swaps(rounds), restored(rounds)]
    return [sentence for sentence in sentences if sentence]


def _detection(summary: Mapping[str, Any], last: Judged) -> str:
    auc, theirs, detector = last.auc, fakes(summary), player(summary, "detector")
    details = [f"95{PERCENT} CI {interval(auc, unit)}"] if auc.bounded else ["no interval"]
    details += [_counts(last.after)] if _counts(last.after) else []
    if auc.low is not None and auc.low > 0.5:
        claim = f"{detector} tells {theirs} from reals with AUC {unit(auc.value)}"
    elif auc.high is not None and auc.high < 0.5:
        claim = f"{detector} ranks {theirs} as more real than the reals: AUC {unit(auc.value)}"
    elif auc.bounded:
        claim = f"{detector} does not clearly tell {theirs} from reals: AUC {unit(auc.value)}"
        details.append("chance is 0.5")
    else:
        claim = f"{detector} scores AUC {unit(auc.value)} on {theirs}"
    claim = f"{_played(summary, last.round)} {claim}" if forged(summary) else claim
    return f"{claim} ({', '.join(details)}){_surprise(last)}."


def _counts(score: Score) -> str:
    both = score.n_real is not None and score.n_fake is not None
    return f"{score.n_real:,.0f} real + {score.n_fake:,.0f} fake" if both else ""


def _played(summary: Mapping[str, Any], last: Round) -> str:
    done = last.number + 1
    planned = number(mapping(summary.get("settings")).get("rounds"))
    count = f"{done} round{'s' * (done != 1)}"
    if summary.get("status") != "finished":
        return f"So far, after {done} of {planned:.0f} rounds," if planned else f"So far, after {count},"
    return f"After {count}"


def _surprise(last: Judged) -> str:
    """How the detector of the round before did on the same fakes."""
    if not last.round.before or not last.round.before.auc:
        return ""
    before = last.round.before.auc
    worse, same = ": training on them made it worse", ": no clear change"
    judgement = {1: "", 0: same, -1: worse, None: ""}[last.auc.compare(before)]
    return f"; before it had seen this round’s fakes, {_with_interval(before)}{judgement}"


def _with_interval(auc: Estimate) -> str:
    return f"{unit(auc.value)} ({interval(auc, unit)})" if auc.bounded else unit(auc.value)


def _trend(scored: list[Judged]) -> str:
    if len(scored) < 2:
        return ""
    (first, _, start), (last, _, end) = scored[0], scored[-1]
    figures = f"AUC {unit(start.value)} in round {first.number}, {unit(end.value)} in round {last.number}"
    return {
        1: f"Over the rounds the detector pulled ahead: {figures}.",
        -1: f"Over the rounds the generator pulled ahead: {figures}.",
        0: f"Over the rounds there is no clear change in how well fakes are detected: {figures}.",
        None: f"Over the rounds: {figures}.",
    }[end.compare(start)]


def _baseline(summary: Mapping[str, Any], last: Judged) -> str:
    baseline, detector = last.round.baseline, player(summary, "detector")
    if not baseline or not baseline.auc:
        return ""
    judgement = {
        1: f": {detector} clearly beats it",
        -1: f": it clearly beats {detector}",
        0: f": no clear difference from {detector}",
        None: "",
    }[last.auc.compare(baseline.auc)]
    name = baseline.name or "simple"
    return f"The {name} baseline, trained on the same data, reaches {_with_interval(baseline.auc)}{judgement}."


def _escape(number: int, before: Score) -> str:
    count = f" of {before.n_fake:,.0f}" if before.n_fake else ""
    share = f"Of round {number}’s fakes, {percent(before.escape)}{count}"
    return f"{share} passed as real with the detector of the round before."


def _distance(rounds: list[Round]) -> str:
    name = main_distance(rounds)
    if name is None:
        return ""
    parts: dict[int | None, list[str]] = {}
    span = ""
    for way in directions(rounds, name):
        seen = [(entry.number, found) for entry in rounds if (found := entry.distance(name, way))]
        (start, first), (end, last) = seen[0], seen[-1]
        label = f" {arrow(way)}" if way else ""
        if start == end:
            parts.setdefault(2, []).append(f"{name}{label} {amount(last.estimate.value)}{_floor(last)}")
            continue
        span = f" from round {start} to round {end}"
        change = last.estimate.compare(first.estimate)
        figures = f"{name}{label} {amount(first.estimate.value)} → {amount(last.estimate.value)}{_floor(last)}"
        parts.setdefault(change, []).append(figures)
    said = {
        -1: f"Fakes came closer to the reals{span}",
        1: f"Fakes moved away from the reals{span}",
        0: f"No clear change in the fakes’ distance to the reals{span}",
        None: f"Distance to the reals{span} (no intervals, so no verdict)",
        2: "Distance of the fakes to the reals",
    }
    return " ".join(f"{said[change]}: {', '.join(figures)}." for change, figures in parts.items())


def _swaps(rounds: list[Round]) -> str:
    """Where the exact swap is known: who the last fakes show, and whether they beat the mean face."""
    if not rounds or not rounds[-1].truths:
        return ""
    found = {(truth.name, truth.direction): truth for truth in rounds[-1].truths}
    parts = []
    for way in dict.fromkeys(truth.direction for truth in rounds[-1].truths):
        who, likeness = found.get(("identity", way)), found.get(("swap-psnr", way))
        said = []
        if who:
            said.append(f"{percent(who.estimate.value)} show the person wanted{_beside(who)}")
        if likeness:
            lead = _lead(likeness.gains.get("mean"), "the mean face")
            said.append(f"PSNR to the exact swap {likeness.estimate.value:.1f} dB{lead}")
        if said:
            parts.append(f"{arrow(way)}: {'; '.join(said)}")
    return f"Of the last round’s swaps, {'. '.join(parts)}." if parts else ""


def _beside(who: Truth) -> str:
    """What stands beside the share of swaps that show the person wanted: chance, the mean face, a copy."""
    low, chance = who.estimate.low, who.references.get("chance")
    found = ["no better than chance"] if low is not None and chance is not None and low <= chance else []
    names = {"chance": "chance", "mean": "the mean face", "copy": "a copy of the source"}
    found += [f"{name} {percent(who.references[key])}" for key, name in names.items() if key in who.references]
    return f" ({', '.join(found)})" if found else ""


def known(rounds: list[Round]) -> str:
    """How the truth of every fake is known, and what stands beside the figures."""
    found = {truth.name: truth for entry in rounds for truth in entry.truths}
    if "swap-psnr" in found:
        return (
            "the picture that a perfect swap between two people of the embedded faces would give. Beside the figures "
            "stands what copying the source, the mean face of the person wanted, and the exact swap itself reach."
        )
    if "psnr" in found and "copy" in found["psnr"].references:
        return (
            "it is the other picture of the pair. Beside the figures stands what copying the source and the mean of "
            "the training pictures reach. What the source does not say (colours, light) has to be made up, and counts "
            "as an error here."
        )
    return "it is the source itself. Beside the figures stands what a plain enlargement reaches, where it was taken."


def restored(rounds: list[Round]) -> str:
    """Where every fake has a truth (pairs, restored images): how near the last ones come, and whether they beat what
    nobody had to learn.
    """
    found = {truth.name: truth for truth in rounds[-1].truths} if rounds else {}
    near, alike = found.get("psnr"), found.get("ssim")
    if not near or not alike:
        return ""
    best = max(near.gains, key=lambda kind: near.references[kind], default="")
    lead = _lead(near.gains.get(best), BESIDE.get(best, best))
    return (
        f"Against the true pictures the last round’s fakes reach SSIM {alike.estimate.value:.3f} and PSNR "
        f"{near.estimate.value:.1f} dB{lead}."
    )


def _lead(gain: Estimate | None, over: str) -> str:
    if gain is None or gain.low is None or gain.high is None:
        return ""
    low, high = sorted((abs(gain.low), abs(gain.high)))
    if gain.low > 0 or gain.high < 0:
        side = "above" if gain.low > 0 else "below"
        return f", {abs(gain.value):.1f} dB ({low:.1f} to {high:.1f}) {side} {over}"
    return f", no clear difference from {over} ({gain.low:+.1f} to {gain.high:+.1f} dB)"


def _floor(distance: Distance) -> str:
    return "" if distance.floor is None else f" (floor {amount(distance.floor)})"


def citation(summary: Mapping[str, Any]) -> str:
    """One paragraph to copy into a paper: figure, interval, protocol, version."""
    settings, provenance = mapping(summary.get("settings")), mapping(summary.get("provenance"))
    data = mapping(summary.get("data"))
    text = f"{versus(summary)} on {data.get('name') or 'unnamed data'}"
    scored = judged(rounds_of(summary))
    if scored:
        last, after, auc = scored[-1]
        spread = f" (95{PERCENT} CI {interval(auc, unit)}, DeLong on the logit scale)" if auc.bounded else ""
        counts = f", {_counts(after)} images" if _counts(after) else ""
        text += f", round {last.number}: AUC {unit(auc.value)}{spread}{counts}"
    reference = str(data.get("reference") or "")
    text += f", judge reals {reference[:12]}" if reference else ""
    text += f", {settings['preset']} preset" if settings.get("preset") else ""
    text += f", seed {settings['seed']}" if settings.get("seed") is not None else ""
    text += f"; deepfake-arena {provenance.get('arena') or '(version unknown)'}"
    text += f", commit {provenance['git']}" if provenance.get("git") else ""
    return text + "."

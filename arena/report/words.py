"""The verdict in plain words, computed from the figures and their intervals: where these overlap, it claims nothing."""

from collections.abc import Mapping
from typing import Any

from arena.report.ledger_view import Distance, Round, directions, main_distance, mapping, number, player, rounds_of
from arena.report.table import PERCENT, amount, arrow, interval, percent, unit


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """Sentences for the head of the report: detection, baseline, escape, distance. Never empty."""
    rounds = rounds_of(summary)
    judged = [entry for entry in rounds if entry.after and entry.after.auc]
    sentences = []
    if judged:
        sentences += [_detection(summary, judged[-1]), _trend(judged), _baseline(summary, judged[-1])]
    else:
        sentences.append("No round has been judged yet.")
    escaped = [entry for entry in rounds if entry.before and entry.before.escape is not None]
    if escaped:
        sentences.append(_escape(escaped[-1]))
    sentences.append(_distance(rounds))
    return [sentence for sentence in sentences if sentence]


def _detection(summary: Mapping[str, Any], last: Round) -> str:
    assert last.after and last.after.auc
    auc, n_real, n_fake = last.after.auc, last.after.n_real, last.after.n_fake
    generator, detector = player(summary, "generator"), player(summary, "detector")
    details = [f"95{PERCENT} CI {interval(auc, unit)}"] if auc.bounded else ["no interval"]
    if n_real is not None and n_fake is not None:
        details.append(f"{n_real:,.0f} real + {n_fake:,.0f} fake")
    if auc.low is not None and auc.low > 0.5:
        claim = f"{detector} tells {generator}’s fakes from reals with AUC {unit(auc.value)}"
    elif auc.high is not None and auc.high < 0.5:
        claim = f"{detector} ranks {generator}’s fakes as more real than the reals: AUC {unit(auc.value)}"
    elif auc.bounded:
        claim = f"{detector} does not clearly tell {generator}’s fakes from reals: AUC {unit(auc.value)}"
        details.append("chance is 0.5")
    else:
        claim = f"{detector} scores AUC {unit(auc.value)} on {generator}’s fakes"
    return f"{_played(summary, last)} {claim} ({', '.join(details)}){_surprise(last)}."


def _played(summary: Mapping[str, Any], last: Round) -> str:
    done = last.number + 1
    planned = number(mapping(summary.get("settings")).get("rounds"))
    count = f"{done} round{'s' * (done != 1)}"
    if summary.get("status") != "finished":
        return f"So far, after {done} of {planned:.0f} rounds," if planned else f"So far, after {count},"
    return f"After {count}"


def _surprise(last: Round) -> str:
    assert last.after and last.after.auc
    if not last.before or not last.before.auc:
        return ""
    before = last.before.auc
    clear = {0: ": no clear change", -1: ": training on them made it worse", None: "", 1: ""}[last.after.auc.compare(before)]
    spread = f" ({interval(before, unit)})" if before.bounded else ""
    return f"; before it had seen this round’s fakes, {unit(before.value)}{spread}{clear}"


def _trend(judged: list[Round]) -> str:
    if len(judged) < 2:
        return ""
    first, last = judged[0], judged[-1]
    assert first.after and first.after.auc and last.after and last.after.auc
    change = last.after.auc.compare(first.after.auc)
    figures = f"AUC {unit(first.after.auc.value)} in round {first.number}, {unit(last.after.auc.value)} in round {last.number}"
    return {
        1: f"Over the rounds the detector pulled ahead: {figures}.",
        -1: f"Over the rounds the generator pulled ahead: {figures}.",
        0: f"Over the rounds there is no clear change in how well fakes are detected: {figures}.",
        None: f"Over the rounds: {figures}.",
    }[change]


def _baseline(summary: Mapping[str, Any], last: Round) -> str:
    if not last.baseline or not last.baseline.auc:
        return ""
    assert last.after and last.after.auc
    base, name = last.baseline.auc, last.baseline.name or "simple"
    spread = f" ({interval(base, unit)})" if base.bounded else ""
    detector = player(summary, "detector")
    judgement = {
        1: f": {detector} clearly beats it",
        -1: f": it clearly beats {detector}",
        0: f": no clear difference from {detector}",
        None: "",
    }[last.after.auc.compare(base)]
    return f"The {name} baseline, trained on the same data, reaches {unit(base.value)}{spread}{judgement}."


def _escape(last: Round) -> str:
    assert last.before
    count = f" of {last.before.n_fake:,.0f}" if last.before.n_fake else ""
    return (
        f"Of round {last.number}’s fakes, {percent(last.before.escape)}{count} passed as real "
        "with the detector of the round before."
    )


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


def _floor(distance: Distance) -> str:
    return "" if distance.floor is None else f" (floor {amount(distance.floor)})"


def citation(summary: Mapping[str, Any]) -> str:
    """One paragraph to copy into a paper: figure, interval, protocol, version."""
    settings, provenance = mapping(summary.get("settings")), mapping(summary.get("provenance"))
    data = mapping(summary.get("data"))
    judged = [entry for entry in rounds_of(summary) if entry.after and entry.after.auc]
    text = f"{player(summary, 'detector')} against {player(summary, 'generator')} on {data.get('name') or 'unnamed data'}"
    if judged:
        after = judged[-1].after
        assert after and after.auc
        spread = f" (95{PERCENT} CI {interval(after.auc, unit)}, DeLong on the logit scale)" if after.auc.bounded else ""
        counts = f", {after.n_real:,.0f} real + {after.n_fake:,.0f} fake images" if after.n_real and after.n_fake else ""
        text += f", round {judged[-1].number}: AUC {unit(after.auc.value)}{spread}{counts}"
    reference = str(data.get("reference") or "")
    text += f", judge reals {reference[:12]}" if reference else ""
    text += f", {settings['preset']} preset" if settings.get("preset") else ""
    text += f", seed {settings['seed']}" if settings.get("seed") is not None else ""
    text += f"; deepfake-arena {provenance.get('arena') or '(version unknown)'}"
    text += f", commit {provenance['git']}" if provenance.get("git") else ""
    return text + "."

"""The page: gathers what each part of report.html shows and fills the template."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from arena.report import game, plots, round_files, spectra, table, words
from arena.report import ledger_view as view
from arena.report.ledger_view import Estimate, Round, Score, directions, distance_names, family_of, mapping, player
from arena.report.round_files import Damaged, Picture, round_folder, shown_rounds
from arena.report.templates import fill

PICTURE_BYTES = 3_000_000  # of all pictures together; base64 adds a third, and the page stays below 5 MB
LOSSES = 24  # loss curves shown per player
PHASE_INKS = {
    "train generator": "phase0", "forge": "phase1", "judge before": "phase2", "train detector": "phase3",
    "judge after": "phase4", "record": "phase5",
}  # fmt: skip
INSIDE = ("explained", "neighbours")  # pictures of the last round alone
FAMILIES = {
    "fid": "Fréchet distance of Inception features",
    "rfd": "Fréchet distance of random-convolution features",
    "kid": "kernel distance (unbiased, may be negative)",
    "fd": "Fréchet distance of another network's features",
    "sfd": "Fréchet distance of log-power spectra",
    "swd": "sliced Wasserstein distance of patches",
    "precision": "share of fakes among the reals",
    "recall": "share of reals among the fakes",
    "density": "how densely reals lie about the fakes",
    "coverage": "share of reals with a fake near by",
    "is": "Inception Score, of the fakes alone",
    "copied": "share of fakes that copy a training image",
}
T = TypeVar("T")


class Gatherer:
    """Reads one run's files; remembers which parts had to be left out, and why."""

    def __init__(self, run: Path):
        self.run, self.left_out = run, list[str]()
        self.summary = view.read_summary(run)
        self.rounds = view.rounds_of(self.summary)
        self.shown = shown_rounds([entry.number for entry in self.rounds])

    def file(self, reader: Callable[[Path], T | None], path: Path) -> T | None:
        """What a reader finds, or None where the file is not there or damaged (which is remembered)."""
        try:
            return reader(path)
        except Damaged as reason:
            self.left_out.append(f"{path.relative_to(self.run)}: {reason}")
            return None

    def folder(self, number: int) -> Path:
        return round_folder(self.run, number)


def render(run: Path) -> str:
    """The whole page. Raises InputError where there is no run, or its summary is damaged."""
    here = Gatherer(run)
    summary = here.summary
    settings, provenance = mapping(summary.get("settings")), mapping(summary.get("provenance"))
    filters = {form.__name__: form for form in (table.unit, table.percent, table.amount, table.duration, table.arrow)}
    return fill(
        "report.html",
        filters,
        run=str(summary.get("run") or run.resolve().name),
        status=str(summary.get("status") or "unknown"),
        versus=view.versus(summary),
        fakes=view.fakes(summary),
        forged=view.forged(summary),
        marked="contains synthetic images" if view.forged(summary) else "contains images given as fake",
        data_name=str(mapping(summary.get("data")).get("name") or mapping(settings.get("data")).get("source") or ""),
        all_synthetic=mapping(summary.get("data")).get("rendered") is True,
        verdict=words.verdict(summary),
        citation=words.citation(summary),
        badges=badges(summary, here.rounds),
        tiles=tiles(here.rounds, view.forged(summary)),
        table=table.round_table(summary),
        curves=detection_curves(here.rounds),
        distances=distance_curves(here.rounds),
        spectra=spectra.views(here.rounds),
        game=here.file(game.view, here.run / "game" / "game.json"),
        audits=[{"round": entry.number, **entry.audit} for entry in here.rounds if entry.audit],
        alarms=[{"round": entry.number, **alarm} for entry in here.rounds for alarm in entry.alarms],
        truths=table.truth_table(summary),
        restored=any("plain" in truth.references for entry in here.rounds for truth in entry.truths),
        known=words.known(here.rounds),
        how={truth.name: truth.how for entry in here.rounds for truth in entry.truths},
        histograms=histograms(here),
        **pictures(here),
        insight=insight(here),
        losses=losses(here),
        time=time_spent(here.rounds),
        data=data_facts(here),
        settings=flat(settings),
        provenance=flat(provenance),
        notes=[str(note) for note in summary.get("notes") or []],
        shown=here.shown,
        total=len(here.rounds),
        left_out=here.left_out,
    )


def badges(summary: Mapping[str, Any], rounds: Sequence[Round]) -> list[str]:
    """What a reader must know before believing a figure, in two or three words each."""
    settings, provenance = mapping(summary.get("settings")), mapping(summary.get("provenance"))
    found = ["still running"] if summary.get("status") != "finished" else []
    found += [f"{settings['preset']} preset"] if settings.get("preset") else []
    for name, origin in mapping(provenance.get("weights")).items():
        found.append(f"{name}: {str(origin).partition(':')[0].partition('(')[0].strip() or 'weights unknown'}")
    names = distance_names(rounds)
    if names:
        found.append("FID" if any(family_of(name) == "fid" for name in names) else "no FID: stand-in distances")
    found += [f"evade {settings['evade']}"] if settings.get("evade") else []
    size = mapping(settings.get("data")).get("size")
    found += [f"{size} px"] if size else []
    found += [f"seed {settings['seed']}"] if settings.get("seed") is not None else []
    return found


def tiles(rounds: Sequence[Round], forged: bool = True) -> list[dict[str, str]]:
    """The run's few key figures: name, figure, what stands below it."""
    found = []
    scored = view.judged(rounds)
    if scored:
        last, after, auc = scored[-1]
        found.append(_tile(f"AUC after round {last.number}" if forged else "AUC", auc, table.unit))
        if not forged and after.escape_interval:
            found.append(_tile("Fakes called real", after.escape_interval, table.percent))
        if last.before and last.before.auc:
            found.append(_tile("AUC before: fakes never seen", last.before.auc, table.unit))
        if last.before and last.before.escape_interval:
            found.append(_tile("Escaped last round’s detector", last.before.escape_interval, table.percent))
    name = view.main_distance(rounds)
    for way in directions(rounds, name) if name else []:
        newest = [seen for entry in rounds if (seen := entry.distance(name, way))][-1]
        tile = _tile(f"{name} {table.arrow(way)}".strip(), newest.estimate, table.amount)
        if newest.floor is not None:
            tile["below"] += f", floor {table.amount(newest.floor)}"
        found.append(tile)
    return found


def _tile(title: str, estimate: Estimate, form: Callable[[float | None], str]) -> dict[str, str]:
    below = table.interval(estimate, form) if estimate.bounded else "no interval"
    return {"title": title, "figure": form(estimate.value), "below": below}


def detection_curves(rounds: Sequence[Round]) -> dict[str, Any]:
    """AUC and escape rate over the rounds: after, before, baseline."""
    kinds = {"after": "o-", "before": "o--", "baseline": "s:"}
    scored = {kind: [(r.number, score) for r in rounds if (score := getattr(r, kind))] for kind in kinds}
    aucs = {kind: [(number, score.auc) for number, score in scored[kind] if score.auc] for kind in kinds}
    escapes = {
        kind: [(number, score.escape_interval) for number, score in scored[kind] if score.escape_interval]
        for kind in ("after", "before")
    }
    found: dict[str, Any] = {"auc": None, "escape": None, "kinds": [kind for kind in kinds if aucs[kind]]}
    series = [(kind, kinds[kind], points) for kind, points in aucs.items() if points]
    if series:
        low = min(auc.value if auc.low is None else auc.low for _, _, points in series for _, auc in points)
        limits = (min(0.47, low - 0.03), 1.02)
        found["auc"] = plots.rounds_plot(series, chance=0.5, limits=limits, width=plots.WIDE)
    series = [(kind, kinds[kind], points) for kind, points in escapes.items() if points]
    if series:
        high = max(escape.high or escape.value for _, _, points in series for _, escape in points)
        limits = (0.0, min(1.02, max(0.05, 1.15 * high)))
        found["escape"] = plots.rounds_plot(series, limits=limits, shares=True, width=plots.WIDE)
    return found


def distance_curves(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """One plot a family of distances: its directions as lines with their floors, more seeds of its features faint."""
    families: dict[str, list[str]] = {}
    for name in distance_names(rounds):
        families.setdefault(re.sub(r"-s\d+$", "", name), []).append(name)
    found = []
    for family, (first, *others) in families.items():
        series, floors, faint, labels = [], [], [], []
        for place, way in enumerate(directions(rounds, first)):
            ink, style = f"way{place % 2}", "o-" if place < 2 else "s--"
            seen = [(entry.number, distance) for entry in rounds if (distance := entry.distance(first, way))]
            series.append((ink, style, [(number, distance.estimate) for number, distance in seen]))
            floors.append((ink, ":", [(number, Estimate(d.floor)) for number, d in seen if d.floor is not None]))
            labels.append((ink, table.arrow(way) or "fakes"))
            for other in others:
                seen = [(entry.number, distance) for entry in rounds if (distance := entry.distance(other, way))]
                faint.append((ink, "-", [(number, Estimate(distance.estimate.value)) for number, distance in seen]))
        floors, faint = [part for part in floors if part[2]], [part for part in faint if part[2]]
        last = next(d for entry in reversed(rounds) for d in entry.distances if d.name == first)
        found.append({
            "name": family if others else first, "what": FAMILIES.get(family_of(first), ""), "labels": labels,
            "n": last.n, "seeds": [name.removeprefix(f"{family}-") for name in (first, *others)] if others else [],
            "features": last.features, "floors": bool(floors), "better": last.better,
            "svg": plots.rounds_plot(series, floors=floors, faint=faint),
        })  # fmt: skip
    return found


def histograms(here: Gatherer) -> list[dict[str, Any]]:
    """Per shown round: logits of reals and fakes, before and after, on one scale."""
    import numpy as np

    found, no_scores = [], np.empty(0)
    for entry in here.rounds:
        if entry.number not in here.shown:
            continue
        logits = here.file(round_files.read_scores, here.folder(entry.number) / "scores.npz") or {}
        both = {
            kind: [logits.get(f"{kind}_{who}", no_scores) for who in ("real", "fake")] for kind in ("before", "after")
        }
        both = {kind: pair for kind, pair in both.items() if pair[0].size or pair[1].size}
        judged: dict[str, Score] = {kind: getattr(entry, kind) or Score() for kind in both}
        thresholds = [score.threshold for score in judged.values() if score.threshold is not None]
        panels = []
        for kind, (real, fake) in both.items():
            span = plots.score_span([scores for pair in both.values() for scores in pair], thresholds)
            svg = plots.histogram(real, fake, judged[kind].threshold, span)
            panels.append({"kind": kind, "auc": judged[kind].auc, "svg": svg})
        if panels:
            found.append({"round": entry.number, "panels": panels})
    return found


def pictures(here: Gatherer) -> dict[str, Any]:
    """Sample sheets and extremes of the shown rounds; the first and the last first when the room is scarce."""
    paths = {
        (kind, number): here.folder(number) / f"{kind}.png"
        for number in here.shown
        for kind in ("sheet", "extremes", *(INSIDE if number == here.shown[-1] else ()))
    }
    paths = {key: path for key, path in paths.items() if path.is_file()}
    sizes = {key: path.stat().st_size for key, path in paths.items()}
    budgets = dict(sizes)
    if sum(sizes.values()) > PICTURE_BYTES:
        ends = {here.shown[0], here.shown[-1]}
        first = [key for key in paths if key[1] in ends]
        rest = [key for key in paths if key[1] not in ends]
        share = PICTURE_BYTES // 2 if rest else PICTURE_BYTES
        budgets = {key: share // len(first) for key in first}
        budgets |= {key: (PICTURE_BYTES - share) // len(rest) for key in rest}
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for key, path in paths.items():
        picture = here.file(lambda path, budget=budgets[key]: round_files.read_picture(path, budget), path)  # type: ignore[misc]
        if picture:
            found[key] = _picture(key[1], picture, path.relative_to(here.run))
    extremes = []
    for number in reversed(here.shown):
        lists = here.file(round_files.read_extremes, here.folder(number) / "extremes.json") or {}
        if ("extremes", number) in found or lists:
            listed = {kind: entries[:16] for kind, entries in lists.items()}
            extremes.append({"round": number, "picture": found.get(("extremes", number)), "lists": listed})
    sheets = [found["sheet", number] for number in here.shown if ("sheet", number) in found]
    rows = here.file(round_files.read_rows, here.folder(sheets[0]["round"]) / "pictures.jsonl") if sheets else None
    inside = {kind: found[key] for kind in INSIDE if (key := (kind, here.shown[-1] if here.shown else -1)) in found}
    return {"sheets": sheets, "extremes": extremes, "rows": rows or [], "inside": inside}


def insight(here: Gatherer) -> dict[str, Any]:
    """Of the last round: the map of features, how well heat finds the swapped face, the share of real neighbours."""
    found: dict[str, Any] = {"map": None, "how": "", "rounds": [], "regions": [], "method": "", "real_neighbours": None}
    if not here.rounds:
        return found
    last = here.rounds[-1]
    space = here.file(round_files.read_space, here.folder(last.number) / "space.json")
    regions = []
    for key, given in mapping(last.insight.get("regions")).items():
        name, _, way = key.partition(":")
        value, low, high, chance, n = (
            view.number(mapping(given).get(k)) for k in ("value", "low", "high", "chance", "n")
        )
        if value is not None:
            cells = [table.two_lines(Estimate(value, low, high), table.unit), table.unit(chance), f"{n or 0:,.0f}"]
            regions.append(
                [f"{name} of {given.get('method')} {table.arrow(way)}".strip(), *cells, str(given.get("how") or "")]
            )
    found |= {"round": last.number, "regions": regions, "method": str(last.insight.get("method") or "")}
    found["real_neighbours"] = view.number(last.insight.get("real_neighbours"))
    if space:
        rounds = sorted({int(r) for r in space["round"]})
        found |= {
            "map": plots.map_plot(space["points"], space["round"]),
            "how": space["how"],
            "rounds": rounds,
        }
    return found


def _picture(number: int, picture: Picture, path: Path) -> dict[str, Any]:
    source = f"data:{picture.mime};base64,{base64.b64encode(picture.content).decode()}"
    return {"round": number, "source": source, "width": picture.width, "height": picture.height,
            "reduced": picture.reduced, "path": path.as_posix()}  # fmt: skip


def losses(here: Gatherer) -> list[dict[str, Any]]:
    """Per player: one plot a loss, the rounds on end; rounds that still play included."""
    import numpy as np

    numbers = sorted(int(path.name) for path in (here.run / "rounds").glob("[0-9]*") if path.name.isdecimal())
    found = []
    for who, ink in (("generator", "phase0"), ("detector", "phase3")):
        read = [here.file(round_files.read_losses, here.folder(number) / f"{who}.csv") for number in numbers]
        fits = [fit for fit in read if fit and any(len(curve) for curve in fit.values())]
        names = list(dict.fromkeys(name for fit in fits for name in fit))[:LOSSES]
        curves = []
        for name in names:
            parts = [fit.get(name, np.full(len(next(iter(fit.values()))), np.nan)) for fit in fits]
            curves.append({"name": name, "svg": plots.loss_plot(parts, ink)})
        if curves:
            found.append({"player": player(here.summary, who), "role": who, "curves": curves, "rounds": len(fits)})
    return found


def time_spent(rounds: Sequence[Round]) -> dict[str, Any] | None:
    """Seconds per phase and round as a plot; total, share and median images per second of each phase."""
    timed = [entry for entry in rounds if entry.seconds]
    if not timed:
        return None
    phases = list(dict.fromkeys([*PHASE_INKS, *(name for entry in timed for name in entry.seconds)]))
    phases = [name for name in phases if any(name in entry.seconds for entry in timed)]
    inks = {name: PHASE_INKS.get(name, f"phase{place % 6}") for place, name in enumerate(phases)}
    shown = shown_rounds([entry.number for entry in timed])
    drawn = [entry for entry in timed if entry.number in shown]
    stacks = [(inks[name], [entry.seconds.get(name, 0.0) for entry in drawn]) for name in phases]
    whole = sum(sum(entry.seconds.values()) for entry in timed)
    rows = []
    for name in phases:
        spent = sum(entry.seconds.get(name, 0.0) for entry in timed)
        rates = [entry.rates[name] for entry in timed if name in entry.rates]
        rows.append({"name": name, "ink": inks[name], "seconds": spent, "share": spent / whole if whole else None,
                     "rate": median(rates) if rates else None})  # fmt: skip
    return {"svg": plots.time_plot(shown, stacks), "rows": rows, "total": whole}


def data_facts(here: Gatherer) -> dict[str, Any]:
    """Counts per split and domain, what else the summary says of the data, and the manifest in figures."""
    data = mapping(here.summary.get("data"))
    images = {str(split): mapping(counts) for split, counts in mapping(data.get("images")).items()}
    domains = list(dict.fromkeys(domain for counts in images.values() for domain in counts))
    facts = [(key, value) for key, value in flat(data) if not key.startswith("images.") and key != "manifest"]
    manifest = here.file(round_files.read_manifest, here.run / "data" / "manifest.jsonl")
    if manifest:
        megabytes = manifest.size_bytes / 1e6
        facts.append(("images in the manifest", f"{manifest.images:,} ({megabytes:,.1f} MB)"))
        facts.append(("formats", ", ".join(f"{name} {count:,}" for name, count in manifest.formats.most_common(8))))
        sizes = [f"{w} × {h} px: {count:,}" for (w, h), count in manifest.sizes.most_common(5)]
        others = len(manifest.sizes) - len(sizes)
        facts.append(("sizes", ", ".join(sizes) + (f" and {others:,} other sizes" if others > 0 else "")))
        facts.append(("groups", f"{len(manifest.groups):,} ({_straddle(manifest.straddling_groups)})"))
        facts.append(("different contents", f"{len(manifest.contents):,} ({_straddle(manifest.straddling_contents)})"))
        if manifest.bad_lines:
            here.left_out.append(f"data/manifest.jsonl: {manifest.bad_lines} of its lines are no JSON objects")
    return {"images": images, "domains": domains, "facts": facts}


def _straddle(count: int) -> str:
    return f"{count:,} of them in more than one split: scores may flatter" if count else "none in more than one split"


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """("generator.options.width", "32") ... of nested settings, at most 300 of at most 1,000 characters each."""
    found: list[tuple[str, str]] = []
    for key, entry in value.items():
        if isinstance(entry, Mapping) and entry:
            found += flat(entry, f"{prefix}{key}.")
        else:
            text = "none" if entry is None else str(entry)
            if isinstance(entry, bool):
                text = "yes" if entry else "no"
            elif isinstance(entry, float):
                text = f"{entry:g}"
            elif isinstance(entry, list):
                text = ", ".join(map(str, entry)) or "none"
            found.append((f"{prefix}{key}", text[:1000]))
    return found[:300]

"""The page of an evaluation, its tables and its verdict, from the evaluation's figures alone (docs/evaluate.md)."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from arena.faces import plural
from arena.report import evaluation_plots, plots
from arena.report.ledger_view import Estimate, mapping
from arena.report.page import flat
from arena.report.table import MISSING, PERCENT, Table, interval, percent, two_lines, unit
from arena.report.templates import fill

if TYPE_CHECKING:
    import numpy as np

INKS = {"items": "way0", "videos": "after"}
STYLES = {"items": "o-", "videos": "s--"}
WAYS = {  # of each perturbation: its name, its axis, whether stronger means a smaller number, its level without effect
    "jpeg": ("JPEG", "quality", True, None),
    "blur": ("Blur", "sigma, px", False, 0.0),
    "resize": ("Resize and back", "share of the side", True, 1.0),
    "crop": ("Crop", "share of the side", True, 1.0),
    "noise": ("Noise", "sigma, grey levels", False, 0.0),
}
FIGURES: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("AUC", "auc", unit), ("AP", "ap", unit), ("EER", "eer", percent), ("TPR at 1 % FPR", "tpr_at_1_fpr", percent),
    ("accuracy at probability 0.5", "accuracy", percent),
    ("accuracy at the frozen threshold", "accuracy_frozen", percent), ("reals called fake", "false_alarms", percent),
    ("fakes that pass", "escape", percent),
)  # fmt: skip
Found = Mapping[str, Any]


def render(found: Found, real: "np.ndarray", fake: "np.ndarray") -> str:
    """The page, self-contained. real, fake: the items' logits."""
    best = found["videos"] or found["items"]
    shown = [kind for kind in INKS if found[kind]]
    point = best["false_alarms"], 1 - best["escape"]
    threshold = found["protocol"]["threshold"]
    curves, chains = robustness(found)
    return fill(
        "evaluation.html",
        detector=found["detector"], run=found["checkpoint"].get("Run", ""),
        title=f"{found['data']['files_real']:,} reals and {found['data']['files_fake']:,} fakes",
        verdict=verdict(found), notes=found["notes"], badges=badges(found), tiles=tiles(found), tables=tables(found),
        series=[(INKS[kind], "dashed" if kind == "videos" else "", names(found)[kind]) for kind in shown],
        roc=evaluation_plots.roc_plot(curves_of(found), point),
        grouped=bool(found["videos"]) or found["data"]["unit"] != "image",
        banded=any(found[kind]["roc"]["band"] for kind in shown),
        histogram=plots.histogram(real, fake, threshold, plots.score_span([real, fake], [threshold])),
        reliability=[reliability(found, kind) for kind in shown],
        recalibrated=found["recalibrated"], curves=curves, chains=chains, levels=levels_plot(found),
        bad=found["data"]["bad"][:50], more_bad=max(0, len(found["data"]["bad"]) - 50), seen=found["seen"],
        protocol=flat({**found["protocol"], "reals": found["data"]["real"], "fakes": found["data"]["fake"]}),
        provenance=flat({**found["checkpoint"], **found["provenance"]}),
    )  # fmt: skip


def names(found: Found) -> dict[str, str]:
    """What an item is called, and a video."""
    return {"items": f"{found['data']['unit']}s", "videos": "videos"}


def curves_of(found: Found) -> list[tuple[str, str, Found]]:
    """The ROC curves of items and videos: colour, line style, points."""
    return [(INKS[kind], STYLES[kind].lstrip("os"), found[kind]["roc"]) for kind in INKS if found[kind]]


def reliability(found: Found, kind: str) -> dict[str, Any]:
    """The reliability curve of items or videos."""
    of = found[kind]["calibration"]
    svg = evaluation_plots.reliability_plot(of["reliability_curve"], INKS[kind])
    return {"name": names(found)[kind], "ece": of["ece"], "svg": svg}


def counts(found: Found) -> str:
    """Like "500 real + 500 fake images of 20 + 20 videos"."""
    items, videos = found["items"], found["videos"]
    text = f"{items['n_real']:,} real + {items['n_fake']:,} fake {names(found)['items']}"
    return text + (f" of {videos['n_real']:,} + {videos['n_fake']:,} videos" if videos else "")


def estimate(scores: Found, name: str = "auc") -> Estimate:
    """A figure of some scores with its interval, where it has one."""
    low, high = mapping(scores.get("intervals")).get(name) or (None, None)
    if name == "auc":
        low, high = scores.get("auc_low"), scores.get("auc_high")
    return Estimate(scores[name], low, high)


def _best(condition: Found) -> Estimate:
    return estimate(condition["videos"] or condition["items"])


def verdict(found: Found) -> list[str]:
    """Sentences for the head of the page: where intervals overlap, they claim nothing."""
    best = found["videos"] or found["items"]
    level = "video by video" if found["videos"] else f"{found['data']['unit']} by {found['data']['unit']}"
    auc = estimate(best)
    if auc.low is not None and auc.low > 0.5:
        claim = f"tells these fakes from reals with AUC {unit(auc.value)}"
    elif auc.high is not None and auc.high < 0.5:
        claim = f"ranks these fakes as more real than the reals: AUC {unit(auc.value)}"
    else:
        claim = f"does not clearly tell these fakes from reals: AUC {unit(auc.value)}"
    sentences = [f"{found['detector']} {claim}, {level} (95{PERCENT} CI {interval(auc, unit)}; {counts(found)})."]
    sentences.append(
        f"At the threshold that it brought along, {percent(best['false_alarms'])} of the reals are called fake and"
        f" {percent(best['escape'])} of the fakes pass."
    )
    if found["held_out"]:
        without = _best(found["held_out"])
        sentences.append(
            f"Without what its run has seen: AUC {unit(without.value)} (95{PERCENT} CI {interval(without, unit)})."
        )
    for what, conditions in (("perturbation", found["robustness"]), ("compression level", found["levels"])):
        if conditions:
            sentences.append(_worst(auc, what, conditions))
    return sentences


def _worst(auc: Estimate, what: str, conditions: Sequence[Found]) -> str:
    fallen = [entry for entry in conditions if _best(entry).compare(auc) == -1]
    worst = min(conditions, key=lambda entry: _best(entry).value)
    figure = f"{worst['name']} with AUC {unit(_best(worst).value)} ({interval(_best(worst), unit)})"
    if not fallen:
        return f"Under none of {plural(len(conditions), what)} does it clearly fall; lowest is {figure}."
    return f"It falls clearly under {len(fallen)} of {plural(len(conditions), what)}, farthest under {figure}."


def badges(found: Found) -> list[str]:
    """What a reader must know before believing a figure, in two or three words each."""
    protocol = found["protocol"]
    said = [f"{protocol['size']} px", protocol["codec"], f"video ids: {protocol['video_id']}"]
    said.append("stills" if protocol["frames"] == 1 else f"clips of {protocol['frames']} frames")
    return [*said, f"round {found['checkpoint'].get('Round', '?')}", f"seed {found['checkpoint'].get('Seed', '?')}"]


def tiles(found: Found) -> list[dict[str, str]]:
    """The key figures: name, figure, what stands below it."""
    best, header = found["videos"] or found["items"], found["header"]["format"]
    level = "videos" if found["videos"] else names(found)["items"]
    made = []
    for title, name, form in (
        (f"AUC of {level}", "auc", unit), ("Fakes found at 1 % false alarms", "tpr_at_1_fpr", percent),
        ("Right at the frozen threshold", "accuracy_frozen", percent),
    ):  # fmt: skip
        figure = estimate(best, name)
        below = interval(figure, form) if figure.bounded else "no interval"
        made.append({"title": title, "figure": form(figure.value), "below": below})
    error, score = best["calibration"]["ece"], best["calibration"]["score"]
    made.append({"title": "Calibration error (ECE)", "figure": unit(error), "below": f"Brier {unit(score)}"})
    told, below = (header["auc"], interval(estimate(header), unit)) if header else (None, "too few files")
    return [*made, {"title": "AUC of file headers alone", "figure": unit(told), "below": below}]


def tables(found: Found, *, brief: bool = False) -> dict[str, Table]:
    """The tables of the page, by title; those without rows are left out. `brief` suits a terminal of 80 characters."""
    rows = {names(found)[kind]: found[kind] for kind in INKS if found[kind]}
    if found["held_out"]:
        rows |= {
            f"{names(found)[kind]} never seen": found["held_out"][kind] for kind in INKS if found["held_out"][kind]
        }
    scores = [["reals + fakes", *(f"{row['n_real']:,} + {row['n_fake']:,}" for row in rows.values())]]
    scores += [[title, *(two_lines(estimate(row, key), form) for row in rows.values())] for title, key, form in FIGURES]
    made = {"Scores": Table(["", *rows], scores)}
    brier = ("ece", "score", "reliability", "resolution", "uncertainty", "within")[: 2 if brief else 6]
    calibrated = [
        [names(found)[kind], *(unit(found[kind]["calibration"][key]) for key in brier)] for kind in INKS if found[kind]
    ]
    if again := found["recalibrated"]:
        calibrated.append(
            [f"{names(found)['items']}, rescaled", unit(again["ece"]), unit(again["score"]), *[MISSING] * 4]
        )
    made["Calibration"] = Table(["", "ECE", "Brier", *(f"Brier: {key}" for key in brier[2:])], calibrated)
    for title, key, label in (
        ("Robustness", "robustness", "name"), ("Compression", "levels", "name"),
        ("Fakes by folder", "folders", "folder"),
    ):  # fmt: skip
        if found[key]:
            made[title] = _conditions(found, found[key], label, key != "folders", brief)
    made["What the files give away"] = _header_table(found["header"], brief)
    return made


def _conditions(
    found: Found, conditions: Sequence[Found], label: str, plain: bool = True, brief: bool = False
) -> Table:
    """One row a condition, `plain` first what is as it is: AUC of items and videos, and what the threshold does."""
    kinds = [kind for kind in INKS if found[kind]]
    best = "videos" if found["videos"] else "items"
    headers = ["", *(f"AUC of {names(found)[kind]}" for kind in kinds)]
    shares = {"tpr_at_1_fpr": "TPR at 1 % FPR", "accuracy_frozen": "accuracy", "false_alarms": "reals called fake"}
    shares |= {"escape": "fakes that pass"}
    if brief:
        shares = {key: shares[key] for key in ("false_alarms", "escape")}
    headers += shares.values()
    rows = []
    for entry in [*([{label: "as they are", **found}] if plain else []), *conditions]:
        aucs = [two_lines(estimate({**entry[kind], "intervals": None}), unit) for kind in kinds]
        rows.append([str(entry[label]), *aucs, *(percent(entry[best][key]) for key in shares)])
    return Table(headers, rows)


def _header_table(header: Found, brief: bool) -> Table:
    rows = []
    for title, key in (("AUC by format and size", "format"), ("AUC by these and length", "format_and_length")):
        told = header[key]
        rows.append([title, f"{unit(told['auc'])} ({interval(estimate(told), unit)})" if told else "too few files"])
    if brief:
        return Table(["", "of the headers"], rows)
    fields = [[name, sides["real"] or MISSING, sides["fake"] or MISSING] for name, sides in header["fields"].items()]
    return Table(["", "reals", "fakes"], [*([*row, ""] for row in rows), *fields])


def robustness(found: Found) -> tuple[list[dict[str, Any]], Table | None]:
    """A plot for each perturbation that stands alone somewhere, and the table of chains."""
    kinds = [kind for kind in INKS if found[kind]]
    limits = _limits(found, found["robustness"])
    plotted = []
    for way, (title, axis, falling, none) in WAYS.items():
        entries = [e for e in found["robustness"] if len(e["steps"]) == 1 and e["steps"][0][0] == way]
        if not entries:
            continue
        series = []
        strengths = [entry["steps"][0][1] for entry in entries]
        start = none if none is not None else max(strengths) + max(6, 0.15 * (max(strengths) - min(strengths)))
        for kind in kinds:
            points = [(entry["steps"][0][1], estimate(entry[kind])) for entry in entries]
            series.append(
                (INKS[kind], STYLES[kind], sorted([(start, estimate(found[kind])), *points], key=lambda p: p[0]))
            )
        ticks = [(place, f"{place:g}" if none is not None or place != start else "none") for place, _ in series[0][2]]
        svg = evaluation_plots.curve_plot(series, ticks, axis, limits, falling=falling)
        plotted.append({"title": title, "svg": svg})
    chains = [entry for entry in found["robustness"] if len(entry["steps"]) > 1]
    return plotted, _conditions(found, chains, "name") if chains else None


def levels_plot(found: Found) -> Any:
    if not found["levels"]:
        return None
    entries = [{"name": "as they are", **found}, *found["levels"]]
    series = [
        (INKS[kind], STYLES[kind], [(float(place), estimate(entry[kind])) for place, entry in enumerate(entries)])
        for kind in INKS
        if found[kind]
    ]
    ticks = [(float(place), entry["name"]) for place, entry in enumerate(entries)]
    return evaluation_plots.curve_plot(series, ticks, "H.264", _limits(found, found["levels"]), width=plots.WIDE)


def _limits(found: Found, conditions: Sequence[Found]) -> tuple[float, float]:
    lows = [entry[kind]["auc_low"] for entry in (found, *conditions) for kind in INKS if entry[kind]]
    return min(0.47, *lows) - 0.02, 1.02

"""How the fakes were enlarged shows in their spectra: DCGANs that differ in nothing but that, and detectors of each.

    arena tournament upsampling --out TOURNAMENT
    python benchmarks/upsampling.py TOURNAMENT docs/results/upsampling

Writes OUT.md, OUT.json and OUT.svg. What stands in an older OUT.md from "**What theory" on is written by hand and kept.

Of the judge split's fakes and of the reals: the azimuthal power spectrum (as in the spectrum distance), the mean
two-dimensional spectrum, and peaks where doublings leave copies of the mean colour. Doubling by inserted zeros repeats
the spectrum at 1/2 cycle per pixel, the doubling before it, enlarged with it, at 1/4. A copy's *peak* is its mean
log power (dB) at (f, 0), (0, f) and (f, f) above that two to five bins to both sides on the same lines; its interval
(95 %) is Student's over images. From the tournament: every detector's AUC on every way's fakes.
"""

import argparse
import json
from datetime import date
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from arena.build import build
from arena.config import PlayerConfig
from arena.files import atomic, read_json
from arena.tournament_work import Forged

HAND = "**What theory"
COPIES = {"1/2": 2, "1/4": 4}  # cycles per pixel: S over this is the bin
DECIBELS = 10 / np.log(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tournament", type=Path)
    parser.add_argument("out", type=Path, help="without suffix: OUT.md, OUT.svg and OUT.json are written")
    args = parser.parse_args()
    result = args.tournament / "tournament.json"
    played = read_json(result)
    played["provenance"].pop("platform", None)
    ways = {row["name"]: way(args.tournament / row["place"], row) for row in played["players"]["generators"]}
    reals = Forged(args.tournament / played["players"]["generators"][0]["place"]).reals("judge")["all"][:]
    found = {
        "about": played["about"], "date": str(date.fromtimestamp(result.stat().st_mtime)),
        "ways": ways, "reals": {"peaks": peaks(reals), "n": len(reals)},
        **{key: played[key] for key in ("columns", "matrix", "detectors", "players", "seconds", "provenance")},
    }  # fmt: skip
    page = args.out.with_suffix(".md")
    old = page.read_text() if page.exists() else ""
    with atomic(page) as file:
        file.write((written(found, args.out.stem) + old[old.index(HAND) if HAND in old else len(old) :]).encode())
    with atomic(args.out.with_suffix(".json")) as file:
        file.write(json.dumps(found, indent=1).encode() + b"\n")
    fakes = {name: Forged(args.tournament / row["place"]).fakes("judge")["all"][:] for name, row in ways.items()}
    draw(found, planes(reals).mean(0), {name: planes(images).mean(0) for name, images in fakes.items()}, args.out)


def way(run: Path, row: dict[str, Any]) -> dict[str, Any]:
    """What a generator's run says of its fakes, and their peaks."""
    summary = read_json(run / "summary.json")
    last = summary["rounds"][-1]
    generator = build(PlayerConfig(**row["generator"]), 0)
    return {
        "place": row["place"],
        "parameters": sum(p.numel() for p in generator.g.parameters()),
        "seconds": last["seconds"]["train generator"],
        "quality": {name: last["quality"][name] for name in ("sfd", "rfd-conv704-s0")},
        "peaks": peaks(Forged(run).fakes("judge")["all"][:]),
    }


def planes(images: Tensor) -> Tensor:
    """Images' log power in dB: uint8 N 3 S S -> N S S, frequency zero in the corner."""
    grey = torch.einsum("bchw,c->bhw", images.double() / 127.5 - 1, torch.tensor([0.299, 0.587, 0.114]).double())
    rounding = (2 / 255) ** 2 / 12
    return DECIBELS * (torch.fft.fft2(grey, norm="ortho").abs() ** 2 + rounding).log()


def peaks(images: Tensor) -> dict[str, dict[str, float]]:
    """How far the copies of the zero frequency stand out, in dB, with 95 % intervals over the images."""
    power, size = planes(images), images.shape[-1]

    def mean(at: list[int]) -> Tensor:
        lines = [power[:, at, 0], power[:, 0, at], power[:, at, at]]
        return torch.stack([line.mean(1) for line in lines]).mean(0)

    found = {}
    for name, part in COPIES.items():
        copy = size // part
        each = mean([copy]) - mean([copy + side * k for side in (-1, 1) for k in (2, 3, 4, 5)])
        reach = float(stdtrit(len(each) - 1, 0.975) * each.std() / len(each) ** 0.5)
        found[name] = {
            "value": float(each.mean()),
            "low": float(each.mean()) - reach,
            "high": float(each.mean()) + reach,
        }
    return found


def written(found: dict[str, Any], name: str) -> str:
    facts, ways, players = found["provenance"], found["ways"], found["players"]
    first = players["generators"][0]
    data, settings, options = first["data_settings"], first, first["generator"]["options"]
    kept = ", ".join(f"{key} {value}" for key, value in options.items() if key != "up")
    spent = ", ".join(f"{what} {seconds / 60:.1f}" for what, seconds in found["seconds"].items())
    n_fake = found["matrix"][0]["cells"][0]["n_fake"]
    tests = "; ".join(
        f"{d['name']}, {d['detector_steps']} steps of {d['detector_batch']}" for d in players["detectors"]
    )
    rows = [
        [up, f"{row['parameters']:,}", f"{row['seconds'] / 60:.1f}",
         *(figure(row["quality"][metric], 3) for metric in ("sfd", "rfd-conv704-s0")),
         *(plus(excess(row["quality"]["sfd"]["curve"], at)) for at in ((0.2, 0.3), (0.45, 0.5), (0.6, 0.71))),
         *(figure(row["peaks"][copy], 2) for copy in COPIES)]
        for up, row in ways.items()
    ]  # fmt: skip
    floors = [f"{next(iter(ways.values()))['quality'][m]['floor']:.3g}" for m in ("sfd", "rfd-conv704-s0")]
    rows.append(["reals", "", "", *floors, "", "", "", *(figure(found["reals"]["peaks"][copy], 2) for copy in COPIES)])
    bands = ["dB at 0.2 to 0.3", "dB at 0.45 to 0.5", "dB at 0.6 to 0.71"]
    headers = ["up", "parameters of G", "minutes", "sfd", "rfd-conv704-s0", *bands]
    headers += [f"peak at {copy}, dB" for copy in COPIES]
    matrices = ""
    for detector in dict.fromkeys(line["detector"] for line in found["matrix"]):
        lines = [line for line in found["matrix"] if line["detector"] == detector and line["kind"] == "one"]
        cells = [[", ".join(line["trained_on"]), *(auc(cell) for cell in line["cells"])] for line in lines]
        mean = next(row for row in found["detectors"] if row["name"] == detector)
        matrices += f"\n**{detector}** (seen {auc(mean['seen'])}, unseen {auc(mean['unseen'])})\n\n"
        matrices += table(["trained on", *found["columns"]], cells)
    protocol = f"""{found["date"]}; {facts["device"]}; torch {facts["torch"]}; deepfake-arena {facts["arena"]} at
    {facts["git"]}. {len(ways)} DCGANs on the embedded faces at {data["size"]} px that differ in `up` alone (and with it
    in the kernels: 4x4 of the transposed convolution, 3x3 of the others): {kept}; {settings["generator_steps"]} steps
    of {settings["generator_batch"]} on {data["train"]} faces. Figures are of {n_fake} fakes and {found["reals"]["n"]}
    reals that nobody trained on. Detectors, from scratch, each on one way's fakes: {tests}. One seed (0). Minutes of
    wall clock on a busy machine: {spent}. All figures: [{name}.json]({name}.json)."""
    return f"""# How the fakes were enlarged shows in their spectra

    arena tournament upsampling --out TOURNAMENT
    python benchmarks/upsampling.py TOURNAMENT docs/results/{name}

{fill(" ".join(protocol.split()), 120, break_long_words=False, break_on_hyphens=False)}

![Power spectra of the five ways and of the reals]({name}.svg)

Above: azimuthal power spectra, the shade holding 80 % of the single reals, and their difference from the reals' mean.
Below: the mean two-dimensional spectrum of each way minus that of the reals, frequency zero in the middle.

{table(headers, rows)}
In brackets 95 % intervals: block jackknife over the fakes for the distances (`reals`: other reals against these), over
images for the peaks. "dB at" is the mean spectrum above the reals', between these frequencies in cycles per pixel. A
peak is how far the points that repeat every 2 (1/2) or 4 pixels (1/4) stand out from their neighbours.

## Who sees whom

AUC with DeLong's 95 % interval. Rows: trained on; columns: tested on. The diagonal is what was trained on.
{matrices}
"""


def excess(curve: dict[str, list[float]], span: tuple[float, float]) -> float:
    """The fakes' mean power above the reals', in dB, over frequencies in `span`."""
    inside = [low <= f <= high for f, low, high in ((f, *span) for f in curve["frequency"])]
    return float(np.mean(np.subtract(curve["fakes"], curve["reals"])[inside]))


def plus(value: float) -> str:
    return f"{value:+.1f}"


def figure(found: dict[str, float], digits: int) -> str:
    return "{value:.{d}g} ({low:.{d}g} to {high:.{d}g})".format(d=digits, **found)


def auc(cell: dict[str, float]) -> str:
    return f"{cell['auc']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})"


def table(headers: list[str], rows: list[list[str]]) -> str:
    return "".join("| " + " | ".join(line) + " |\n" for line in [headers, ["---"] * len(headers), *rows])


def draw(found: dict[str, Any], reals: Tensor, fakes: dict[str, Tensor], out: Path) -> None:
    plt.rcParams |= {"svg.hashsalt": "deepfake-arena", "font.size": 9}
    plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}
    figure = plt.figure(figsize=(11, 6.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    left, right = upper.subplots(1, 2)
    curve: dict[str, Any] = {}
    for place, (up, row) in enumerate(found["ways"].items()):
        curve = row["quality"]["sfd"]["curve"]
        left.plot(curve["frequency"], curve["fakes"], color=f"C{place}", linewidth=1.3, label=up)
        gap = np.subtract(curve["fakes"], curve["reals"])
        right.plot(curve["frequency"], gap, color=f"C{place}", linewidth=1.3, label=up)
    at = curve["frequency"]
    left.fill_between(at, curve["reals_low"], curve["reals_high"], color="grey", alpha=0.25, linewidth=0)
    left.plot(at, curve["reals"], color="black", linewidth=1.6, label="reals")
    right.axhline(0, color="black", linewidth=1.0)
    left.set(title="power, dB", xlabel="cycles per pixel")
    right.set(title="power above the reals', dB", xlabel="cycles per pixel")
    for axes in (left, right):
        for f in (0.25, 0.5):
            axes.axvline(f, color="grey", linewidth=0.6, linestyle=":")
    left.legend(frameon=False, fontsize=8)
    maps = lower.subplots(1, len(fakes))
    shown = None
    for axes, (up, plane) in zip(maps, fakes.items(), strict=True):
        shown = axes.imshow(
            torch.fft.fftshift(plane - reals),
            cmap="RdBu_r",
            vmin=-20,
            vmax=20,
            extent=(-0.5, 0.5, 0.5, -0.5),
            interpolation="none",
        )
        axes.set(title=up, xticks=(-0.5, 0, 0.5), yticks=(-0.5, 0, 0.5))
    lower.colorbar(shown, ax=list(maps), shrink=0.8, label="dB")
    figure.savefig(out.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()

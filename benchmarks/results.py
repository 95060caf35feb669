"""Write a run's figures for docs/results: a table, curves and the command, from its ledger alone.

python benchmarks/results.py RUN docs/results/NAME [--sheets]

Images only where asked for, and then of the embedded faces only: the rounds' sample sheets, one below the other.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from arena.config import EMBEDDED
from arena.files import atomic
from arena.pictures import png
from arena.report.table import duration, round_table, truth_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path, help="without suffix: OUT.md, OUT.svg and OUT.json are written")
    parser.add_argument("--sheets", action="store_true", help="write OUT.png, too")
    args = parser.parse_args()
    text = (args.run / "summary.json").read_text()
    source = json.loads(text)["settings"]["data"]["source"]
    summary = json.loads(text.replace(source, Path(source).name))  # a folder's name, not where it lay
    summary["provenance"].pop("platform", None)
    if args.sheets and source not in EMBEDDED:
        parser.error(f"--sheets: {source} is somebody's images; only the embedded faces are shown")
    with atomic(args.out.with_suffix(".md")) as file:
        file.write(page(summary, args.out.stem, args.sheets).encode())
    if args.sheets:
        stack(args.run, summary, args.out.with_suffix(".png"))
    with atomic(args.out.with_suffix(".json")) as file:
        file.write(json.dumps(summary, indent=1).encode() + b"\n")
    draw(summary, args.out.with_suffix(".svg"))


def stack(run: Path, summary: dict, path: Path) -> None:
    """The rounds' sheets, the first on top, in one picture that says that it holds synthetic images."""
    sheets = [np.asarray(Image.open(run / f"rounds/{r['round']:02d}/sheet.png")) for r in summary["rounds"]]
    marks = {"Synthetic": "contains synthetic images", "Source": "deepfake-arena", "Run": summary["run"]}
    with atomic(path) as file:
        file.write(png(np.concatenate(sheets), marks))


def page(summary: dict, name: str, sheets: bool) -> str:
    settings, facts, data, rounds = (summary[key] for key in ("settings", "provenance", "data", "rounds"))
    headers, rows = round_table(summary)
    truth = truth_table(summary)
    known = (
        f"""
## Against the truth

{table(*truth)}
"""
        if truth.rows
        else ""
    )
    shown = f"\n![Sample sheets, the first round on top]({name}.png)\n" if sheets else ""
    images = [f"{split} {', '.join(f'{n} {d}' for d, n in of.items())}" for split, of in data["images"].items()]
    columns = [f"round {r['round']}" for r in rounds]
    distances = [
        [metric] + [estimate(r["quality"][metric]) for r in rounds] + [f"{first['floor']:.3g}", str(first["n"])]
        for metric, first in rounds[0]["quality"].items()
    ]
    phases = [
        [phase] + [duration(r["seconds"][phase]) + pace(r["images_per_second"].get(phase)) for r in rounds]
        for phase in rounds[0]["seconds"]
    ]
    return f"""# {summary["run"]}

    {facts["command"]}

{facts["ended"][:10]}; {facts["device"]}; torch {facts["torch"]}, torchvision {facts["torchvision"]}, Python
{facts["python"]}; deepfake-arena {facts["arena"]} at {facts["git"]}; {settings["precision"]}, seed {settings["seed"]}.

Images: {"; ".join(images)}; {settings["data"]["size"]} px, {data["resize"]}.

{"".join(f"- {note}{chr(10)}" for note in summary["notes"])}
{table(headers, rows)}
AUC with 95 % DeLong intervals (logit form); distances with 95 % block-jackknife intervals over the fakes (KID:
over both sides). Before: the detector of the round before, on fakes that it has never seen. Every figure is in
[{name}.json]({name}.json).

![Curves]({name}.svg)
{shown}
{table(["distance", *columns, "real-vs-real floor", "N"], distances)}{known}
{table(["phase", *columns], phases)}"""


def table(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    safe = [[cell.replace("|", "\\|").replace("\n", "<br>") for cell in line] for line in lines]
    return "".join("| " + " | ".join(line) + " |\n" for line in safe)


def estimate(found: dict) -> str:
    bounds = "" if found["low"] is None else f" ({found['low']:.4g} to {found['high']:.4g})"
    return f"{found['value']:.4g}{bounds}"


def pace(images_per_second: float | None) -> str:
    return f", {images_per_second:.1f} images/s" if images_per_second else ""


def draw(summary: dict, path: Path) -> None:
    plt.rcParams |= {"svg.hashsalt": "deepfake-arena", "font.size": 9}
    plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    rounds = summary["rounds"]
    for key in ("before", "after", "baseline"):
        found = [(r["round"], r[key]) for r in rounds if r[key]]
        label = found[0][1]["name"] if key == "baseline" else key
        line(left, [(x, s["auc"], s["auc_low"], s["auc_high"]) for x, s in found], label=label)
    left.axhline(0.5, color="grey", linewidth=0.7, linestyle=":")
    left.set(title="AUC on the judge split", ylim=(0.4, 1.02))
    for axes, metric in ((middle, "rfd-conv704-s0"), (right, "sfd")):
        ways = [key for key in rounds[0]["quality"] if key.partition(":")[0] == metric]
        for key, colour in zip(ways, ("C0", "C3"), strict=False):
            found = [(r["round"], r["quality"][key]) for r in rounds]
            label = key.partition(":")[2] or "fakes"
            line(axes, [(x, q["value"], q["low"], q["high"]) for x, q in found], label=label, color=colour)
            axes.axhline(found[0][1]["floor"], color=colour, linewidth=0.7, linestyle=":")
        axes.set(title=f"{metric} (dotted: floor)", ylim=(0, None))
    for axes in (left, middle, right):
        axes.set_xlabel("round")
        axes.set_xticks([r["round"] for r in rounds])
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def line(axes, points: list[tuple[float, ...]], **style) -> None:
    """A line through (x, value, low, high) with its intervals."""
    x, value, low, high = zip(*points, strict=True)
    below = [0 if a is None else v - a for v, a in zip(value, low, strict=True)]
    above = [0 if b is None else b - v for v, b in zip(value, high, strict=True)]
    axes.errorbar(x, value, [below, above], marker="o", markersize=3, capsize=2, **style)


if __name__ == "__main__":
    main()

"""Write a run's figures for docs/results: a table, curves and the command, from its ledger alone; no images.

python benchmarks/results.py RUN docs/results/NAME
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from arena.files import atomic
from arena.report.table import duration, round_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path, help="without suffix: OUT.md, OUT.svg and OUT.json are written")
    args = parser.parse_args()
    summary = json.loads((args.run / "summary.json").read_text())
    summary["provenance"].pop("platform", None)
    for key in ("source",):
        summary["settings"]["data"][key] = Path(summary["settings"]["data"][key]).name
    with atomic(args.out.with_suffix(".md")) as file:
        file.write(page(summary, args.out.stem).encode())
    with atomic(args.out.with_suffix(".json")) as file:
        file.write(json.dumps(summary, indent=1).encode() + b"\n")
    draw(summary, args.out.with_suffix(".svg"))


def page(summary: dict, name: str) -> str:
    settings, facts, data = summary["settings"], summary["provenance"], summary["data"]
    headers, rows = round_table(summary)
    command = (
        facts["command"].replace(facts["command"].split("--data ")[-1].split()[0], data["name"])
        if "--data" in facts["command"]
        else facts["command"]
    )
    lines = [
        f"# {summary['run']}", "", f"    {command}", "",
        f"{facts['ended'][:10]}; {facts['device']}; torch {facts['torch']}, torchvision {facts['torchvision']}, Python "
        f"{facts['python']}; deepfake-arena {facts['arena']} at {facts['git']}; {settings['precision']}, seed {settings['seed']}.", "",
        "Images: " + "; ".join(f"{split} {', '.join(f'{n} {d}' for d, n in of.items())}" for split, of in data["images"].items())
        + f"; {settings['data']['size']} px, {data['resize']}.", "",
        *(f"- {note}" for note in summary["notes"]), "",
        "| " + " | ".join(headers) + " |", "|" + "---|" * len(headers),
        *("| " + " | ".join(cell.replace("\n", "<br>") for cell in row) + " |" for row in rows), "",
        "AUC with 95 % DeLong intervals (logit form); distances with 95 % block-jackknife intervals over the fakes. Before: the",
        "detector of the round before, on fakes that it has never seen. N, floors and every other figure: "
        f"[{name}.json]({name}.json).", "", f"![Curves]({name}.svg)", "",
        "| distance | " + " | ".join(f"round {r['round']}" for r in summary["rounds"]) + " | real-vs-real floor | N |",
        "|---" * (len(rows) + 3) + "|",
    ]  # fmt: skip
    for metric in summary["rounds"][0]["quality"]:
        found = [r["quality"][metric] for r in summary["rounds"]]
        cells = " | ".join(f"{q['value']:.4g} ({q['low']:.4g} to {q['high']:.4g})" for q in found)
        lines.append(f"| {metric} | {cells} | {found[0]['floor']:.3g} | {found[0]['n']} |")
    lines += [
        "",
        "| phase | " + " | ".join(f"round {r['round']}" for r in summary["rounds"]) + " |",
        "|---" * (len(rows) + 1) + "|",
    ]
    for phase in summary["rounds"][0]["seconds"]:
        cells = []
        for r in summary["rounds"]:
            speed = r["images_per_second"].get(phase)
            cells.append(duration(r["seconds"][phase]) + (f", {speed:.1f} images/s" if speed else ""))
        lines.append(f"| {phase} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(summary: dict, path: Path) -> None:
    plt.rcParams |= {
        "svg.hashsalt": "deepfake-arena",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    rounds = summary["rounds"]

    def line(axes, points, label, keys=("value", "low", "high"), **style):
        points = [(r, p) for r, p in points if p]
        x, (value, low, high) = [r for r, _ in points], zip(*([p[k] for k in keys] for _, p in points), strict=True)
        error = [[v - a for v, a in zip(value, low, strict=True)], [b - v for v, b in zip(value, high, strict=True)]]
        axes.errorbar(x, value, error, label=label, marker="o", markersize=3, capsize=2, **style)

    scores = ("auc", "auc_low", "auc_high")
    for key in ("before", "after", "baseline"):
        line(
            left,
            [(r["round"], r[key]) for r in rounds],
            key if key != "baseline" else rounds[0]["baseline"]["name"],
            scores,
        )
    left.axhline(0.5, color="grey", linewidth=0.7, linestyle=":")
    left.set(title="AUC on the judge split", ylim=(0.4, 1.02))
    for axes, metric in ((middle, "rfd-conv704-s0"), (right, "sfd")):
        for way, colour in (("a2b", "C0"), ("b2a", "C3")):
            found = [(r["round"], r["quality"][f"{metric}:{way}"]) for r in rounds]
            line(axes, found, way, color=colour)
            axes.axhline(found[0][1]["floor"], color=colour, linewidth=0.7, linestyle=":")
        axes.set(title=f"{metric} (dotted: floor)", ylim=(0, None))
    for axes in (left, middle, right):
        axes.set_xlabel("round")
        axes.set_xticks([r["round"] for r in rounds])
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()

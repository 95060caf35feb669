"""The claim of Wang et al. (CVPR 2020) in small: detectors trained with blur and JPEG hold where a plain one falls.

    arena run --generator cyclegan --detector spectrum --rounds 1 --out RUN
    python benchmarks/robustness.py RUN [--steps 250] [--out docs/results/robustness-faces]

Three CNNSpots that differ in nothing but the augmentation (none, p 0.1, p 0.5) learn the fakes of one generator from a
run's train split; the best of ten looks at the validation split is kept. The judge split is then coded as JPEG or
blurred, reals and fakes alike. Printed as Markdown: AUC with DeLong's 95 % interval; OUT.json and OUT.svg hold it too.
"""

import argparse
import copy
import json
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch

from arena import build, perturb
from arena.config import resolve
from arena.data.feeds import Labelled, Store
from arena.data.source import open_data
from arena.ledger import Ledger
from arena.match import logits
from arena.metrics.detection import auc, delong
from arena.provenance import cpu_name
from arena.seeds import reseed
from arena.stored import stored_config
from arena.training import Feed

QUALITIES = (0, 100, 90, 70, 50, 30)  # 0: not coded
SIGMAS = (0, 0.5, 1, 2, 4)
NAMES = {0.0: "none", 0.1: "p 0.1", 0.5: "p 0.5"}
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    config = stored_config(args.run)
    assert config is not None
    ledger = Ledger(args.run)
    data, last = open_data(ledger, config.data.codec), config.rounds - 1
    reals = {split: data.reals_of(split) for split in ("train", "val", "judge")}
    fakes = {split: given(ledger, last, split) for split in reals}
    print(f"{date.today()}, {cpu_name()}, {torch.get_num_threads()} threads; {config.generator.short} on", end=" ")
    print(f"{config.data.source}, {config.data.size} px; {args.steps} steps of {args.batch}, {args.precision}\n")

    chains = [f"jpeg:{q}" for q in QUALITIES] + [f"blur:{s:g}" for s in SIGMAS if s]
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for p, name in NAMES.items():
        began = time.perf_counter()
        detector = trained(p, reals, fakes, args)
        found[name] = {
            spec: delong(*(logits(detector, [perturbed(store, spec) for store in side["judge"]], CPU)
                           for side in (reals, fakes))) for spec in chains
        }  # fmt: skip
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)

    n = [sum(map(len, side["judge"])) for side in (reals, fakes)]
    print(
        f"\nAUC on {n[0]} reals and {n[1]} fakes, 95 %\n\n| level | {' | '.join(found)} |\n|---|" + "---|" * len(found)
    )
    for spec in chains:
        cells = ("{:.3f} ({:.3f} to {:.3f})".format(*found[name][spec]) for name in found)
        print(f"| {spec} | {' | '.join(cells)} |")
    if args.out:
        about = {"run": config.model_dump(), "steps": args.steps, "batch": args.batch, "n_real": n[0], "n_fake": n[1]}
        args.out.with_suffix(".json").write_text(json.dumps({"about": about, "auc": found}, indent=1) + "\n")
        draw(found, args.out.with_suffix(".svg"))


def given(ledger: Ledger, r: int, split: str) -> list[Store]:
    paths = sorted(ledger.path(f"rounds/{r:02d}/fakes").glob(f"{split}-*.npy"))
    arrays = [np.load(path, mmap_mode="r") for path in paths]
    return [
        Store(array, [f"{path.stem}/{i}" for i in range(len(array))]) for path, array in zip(paths, arrays, strict=True)
    ]


def trained(p: float, reals, fakes, args):
    asked = {"name": "cnnspot", "p_blur": p, "p_jpeg": p, "val_every": 10**9}
    config = resolve([{"generator": "cyclegan", "detector": asked}])
    detector = build.build(config.detector, args.seed, "robustness")  # the same weights for all three
    feed = Feed(Labelled(reals["train"], fakes["train"], [], args.batch, 0.0, f"{args.seed}"), 0, args.steps, CPU)
    best, kept = -1.0, {}
    fit = detector.fit(build.fabric("cpu", args.precision), feed)
    for step in range(1, args.steps + 1):
        reseed(args.seed, "robustness", step)
        next(fit)
        if step % max(1, args.steps // 10) == 0:
            value = auc(*(logits(detector, side["val"], CPU) for side in (reals, fakes)))
            if value > best:
                best, kept = value, copy.deepcopy(detector.net.state_dict())
    detector.net.load_state_dict(kept)
    return detector


def perturbed(store: Store, spec: str) -> Store:
    return Store(perturb.apply(store[:], perturb.parse(spec), list(store.names)).numpy(), store.names)


def draw(found, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3))
    for place, (kind, levels, label) in enumerate(
        (("jpeg", QUALITIES[1:], "JPEG quality"), ("blur", SIGMAS[1:], "blur, sigma in px")), 1
    ):
        axes = figure.add_subplot(1, 2, place)
        for name, colour in zip(found, ("#767676", "#1f77b4", "#d1431f"), strict=True):
            values = np.array([found[name][f"{kind}:{level:g}"] for level in levels])
            axes.plot(levels, values[:, 0], "o-", color=colour, markersize=3, label=name)
            axes.fill_between(levels, values[:, 1], values[:, 2], color=colour, alpha=0.15, linewidth=0)
        axes.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
        axes.set_xlabel(label)
        axes.set_ylim(0.3, 1.02)
        if kind == "jpeg":
            axes.invert_xaxis()
            axes.set_ylabel("AUC")
            axes.legend(frameon=False, fontsize=8, title="augmentation", title_fontsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()

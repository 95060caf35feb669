"""How good each explanation is where the manipulated region is known: a CNNSpot trained on blended swaps, asked why.

    python benchmarks/explain_quality.py [--steps 100] [--sheet docs/explanations.png]

Reals: embedded faces of two people. Fakes: the same with the other person's face put in, through the exact face mask,
at half the resolution; all else is the real picture, so the mask is the truth. ResNet-50 with a stem of stride 2 (a
grid of 4 x 4 for Grad-CAM at 64 px; layer2's is 16 x 16).
"""

import argparse
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from arena import build
from arena.data.faces import render, swap
from arena.heat import heat_png
from arena.metrics.detection import auc
from arena.metrics.explanation import curve_scores, curves, region_scores
from arena.provenance import cpu_name
from arena.seeds import reseed, rng
from arena.training import to_float, to_uint8
from detect.cnnspot import CNNSpot
from detect.explain import METHODS, explain

SIZE, CLOSE = 64, 0.6


def blended(first: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Reals, fakes (uint8 N 3 S S) and the fakes' regions (N S S): `n` pictures from `first` on."""
    indices, who = torch.arange(first, first + n), torch.arange(n) % 2
    real = render(3, indices, SIZE, identity=who, close=CLOSE)
    other = swap(3, indices + 500_000, SIZE, identity=1 - who, close=CLOSE)
    under = render(3, indices + 500_000, SIZE, identity=who, close=CLOSE)
    small = interpolate(to_float(other.image), scale_factor=0.5, mode="bilinear", antialias=True)
    face, mask = interpolate(small, scale_factor=2.0, mode="bilinear"), other.mask[:, None]
    return real.image, to_uint8(to_float(under.image) * (1 - mask) + face * mask), other.mask


def train(steps: int) -> CNNSpot:
    reseed(0, "explain quality")
    player = CNNSpot(weights=None, stem_stride=2, crop=56, p_blur=0, p_jpeg=0, lr=5e-4)
    real, fake, _ = blended(0, 400)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        labels = torch.arange(16) % 2.0
        for _ in range(steps):
            rows = torch.randint(400, (16,))
            yield to_float(torch.where(labels[:, None, None, None] == 1, fake[rows], real[rows])), labels

    for _ in player.fit(build.fabric("cpu", "32-true"), batches()):
        pass
    return player


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--sheet", type=Path, help="write a picture of every method here")
    args = parser.parse_args()
    print(f"{date.today()}, {cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    began = time.process_time()
    player = train(args.steps)
    real, fake, mask = blended(100_000, args.images)
    images = to_float(fake)
    with torch.no_grad():
        value = auc(player.score(to_float(real)).numpy(), player.score(images).numpy())
    print(
        f"{args.steps} steps, {time.process_time() - began:.0f} CPU s, AUC {value:.3f}, {args.images} images a class\n"
    )
    print(
        "| method | IoU | pointing | energy | deletion over random | insertion over random |\n|---|---|---|---|---|---|"
    )
    ways = {name: (name, {}) for name in METHODS if name != "counterfactual"}
    ways["grad-cam at layer2"] = ("grad-cam", {"layer": player.net.layer2})
    ways["random"] = ("random", {})
    for name, (method, keywords) in ways.items():
        if method == "random":
            heat = torch.rand(mask.shape, generator=rng(0, "random heat"))
        else:
            heat = torch.cat([explain(player, x, method, **keywords).values[:, 0] for x in images.split(16)])
            heat = heat.abs() if method in ("saliency", "guided-backprop") else heat
        regions = region_scores(heat, mask)
        few = slice(args.images // 2)  # a curve takes 36 scores an image
        walk = curve_scores(curves(player.score, images[few], heat[few], rng=rng(0, "curves"), steps=8))
        cells = [three(regions[key]) if key in regions else "" for key in ("iou", "pointing", "energy")]
        cells += [three(walk[key]["over_random"]) for key in ("deletion", "insertion")]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print("| chance | " + " | ".join(f"{regions[key]['chance']:.2f}" for key in regions) + " | 0 | 0 |")
    if args.sheet:
        shown = torch.cat([fake[:3], real[:3]])
        for name in ("grad-cam", "occlusion"):
            marks = {"Synthetic": "embedded faces and heat", "Method": "CNNSpot"}
            path = args.sheet.with_stem(f"{args.sheet.stem}-{name}")
            path.write_bytes(heat_png(shown, explain(player, to_float(shown), name), marks))


def three(found: dict[str, float]) -> str:
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


if __name__ == "__main__":
    main()

"""What a detector costs: scoring and a training step of Xception and CNNSpot, against the plain nets of two libraries.

    python benchmarks/detectors.py [--repeats 5] [--batch 4]

Plain means: timm's or torchvision's own net with the same weights, a script's usual loop around it (normalise, and for
CNNSpot's step crop and flip image by image), one Adam. Blur and JPEG are off on both sides: benchmarks/augment.py has
them. The sides take turns in one process, in CPU milliseconds an image on one thread; the median of the repeats counts,
a ratio is the median of the turns' own ratios (range). Where timm is not installed Xception's rows are left out.
"""

import argparse
import os
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models import resnet50
from torchvision.transforms import v2

from arena import build
from arena.provenance import cpu_name
from detect.cnnspot import CNNSpot
from detect.xception import Xception

IMAGENET_NORM = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CROP_FLIP = v2.Compose([v2.RandomCrop(224), v2.RandomHorizontalFlip()])


def plain_score(net: nn.Module, prepare: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    with torch.no_grad():
        return net(prepare(images))[:, 0]


def plain_fit(net: nn.Module, prepare: Callable[[Tensor], Tensor], lr: float, batch: tuple[Tensor, Tensor]) -> Any:
    opt = torch.optim.Adam(net.parameters(), lr)
    images, labels = batch
    while True:
        net.train()
        loss = binary_cross_entropy_with_logits(net(prepare(images))[:, 0], labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        yield loss.item()


def score(player: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        return player.score(images)


def rows(batch: int) -> list[tuple[str, dict[str, Callable[[], Any]]]]:
    """What is measured: the row's name, and each side's one turn, the plain one first."""
    fabric, labels = build.fabric("cpu", "32-true"), torch.arange(batch) % 2.0
    noise = torch.rand(batch, 3, 299, 299) * 2 - 1
    found: list[tuple[str, dict[str, Callable[[], Any]]]] = []

    def add(name: str, net: nn.Module, prepare: Any, prepare_step: Any, make: Any, size: int, size_step: int) -> None:
        players = {"ours": make(), "channels_last": make(channels_last=True)}
        for player in players.values():
            player.net.load_state_dict(net.state_dict())
        images, images_step = noise[..., :size, :size].contiguous(), noise[..., :size_step, :size_step].contiguous()
        expected = plain_score(net.eval(), prepare, images)
        for player in players.values():
            torch.testing.assert_close(score(player, images), expected, rtol=1e-3, atol=1e-4)
        diff = float((score(players["ours"], images) - expected).abs().max())
        turns: dict[str, Callable[[], Any]] = {"plain": lambda: plain_score(net.eval(), prepare, images)}
        turns |= {side: lambda player=player: score(player, images) for side, player in players.items()}
        found.append((f"{name}, score {size} px (logits differ by {diff:.0e})", turns))
        data = images_step, labels
        fits = {"plain": plain_fit(net, prepare_step, players["ours"].opt.param_groups[0]["lr"], data)}
        fits |= {side: player.fit(fabric, [data] * 10_000) for side, player in players.items()}
        found.append((f"{name}, step {size_step} px", {side: lambda fit=fit: next(fit) for side, fit in fits.items()}))

    try:
        import timm
    except ImportError:
        print("timm is not installed: no rows for Xception (pip install timm)")
    else:
        net = timm.create_model("legacy_xception", num_classes=1)
        add("Xception", net, lambda x: x, lambda x: x, lambda **k: Xception(weights=None, **k), 299, 299)

    def step(images: Tensor) -> Tensor:
        return torch.stack([IMAGENET_NORM((CROP_FLIP(image) + 1) / 2) for image in images])

    def cnnspot(**keywords: Any) -> CNNSpot:
        return CNNSpot(weights=None, p_blur=0, p_jpeg=0, **keywords)

    add("CNNSpot", resnet50(num_classes=1), lambda x: IMAGENET_NORM((x + 1) / 2), step, cnnspot, 224, 256)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    libraries = []
    for name in ("torch", "torchvision", "timm"):
        try:
            libraries.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    print(
        f"{date.today()}, {cpu_name()}, 1 thread, {', '.join(libraries)}; batch {args.batch}, {args.repeats} repeats\n"
    )
    print("| | plain, ms/image | ours | plain / ours (range) | channels_last | plain / channels_last (range) |")
    print("|---|---|---|---|---|---|")
    for name, turns in rows(args.batch):
        times: dict[str, list[float]] = {side: [] for side in turns}
        for _ in range(args.repeats + 1):
            for side, turn in turns.items():
                began = time.process_time()
                turn()
                times[side].append((time.process_time() - began) * 1000 / args.batch)
        plain, *others = ([*taken[1:]] for taken in times.values())  # the first turn is for warming up
        cells = [f"{median(plain):.0f}"]
        for taken in others:
            ratios = [a / b for a, b in zip(plain, taken, strict=True)]
            cells += [f"{median(taken):.0f}", f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""How many copies are found, and how many honest images are called copies, by edit and by domain.

    python benchmarks/copies.py --data ../shared/data --run runs/cyclegan-quick --run runs/alae

Embedded faces at 32, 64 and 128 px; real sets below --data where they are (fruits_apple_tomato, cifake_10k); the fakes
of finished runs, held against the images they were made from. Prints the tables of docs/results/copies.md.
"""

import argparse
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arena.data.faces import render, swap
from arena.metrics.copies import find_copies, honest_threshold, nearest_images
from arena.metrics.shares import wilson
from arena.perturb import apply, parse
from arena.provenance import cpu_name

COPIED = 120
Edit = Callable[[Tensor], Tensor]


def perturbed(spec: str) -> Edit:
    return lambda images: apply(images, parse(spec), [str(i) for i in range(len(images))])


def brighter(factor: float) -> Edit:
    return lambda images: (images * factor).round().clamp(0, 255).to(torch.uint8)


def redder(images: Tensor) -> Tensor:
    return (images.int() + torch.tensor([25, 0, 0]).view(3, 1, 1)).clamp(0, 255).to(torch.uint8)


def flip(images: Tensor) -> Tensor:
    return images.flip(3)


def grey(images: Tensor) -> Tensor:
    return images.float().mean(1, keepdim=True).expand(-1, 3, -1, -1).round().to(torch.uint8)


def pictures(change: Callable[[Image.Image, np.random.Generator], Image.Image]) -> Edit:
    def edit(images: Tensor) -> Tensor:
        rng = np.random.default_rng(0)
        rows = [np.asarray(change(Image.fromarray(image), rng)) for image in images.permute(0, 2, 3, 1).numpy()]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)

    return edit


def turned(degrees: float, corners: tuple[int, int, int] = (0, 0, 0)) -> Edit:
    return pictures(lambda image, _: image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=corners))


def cropped_anywhere(share: float) -> Edit:
    def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        side = image.width
        x, y = rng.uniform(0, (1 - share) * side, 2)
        return image.resize((side, side), Image.Resampling.BICUBIC, box=(x, y, x + share * side, y + share * side))

    return pictures(crop)


def chain(*edits: Edit) -> Edit:
    def do(images: Tensor) -> Tensor:
        for edit in edits:
            images = edit(images)
        return images

    return do


EDITS: dict[str, Edit] = {
    "as it is": lambda images: images,
    "JPEG 75": perturbed("jpeg:75"), "JPEG 50": perturbed("jpeg:50"), "JPEG 30": perturbed("jpeg:30"),
    "brightness +20 %": brighter(1.2), "brightness -20 %": brighter(0.8), "red +25": redder,
    "mirrored": flip, "crop 90 %, middle": perturbed("crop:0.9"), "crop 90 %, anywhere": cropped_anywhere(0.9),
    "turned by 3 degrees, corners black": turned(3), "turned back, corners white": turned(-3, (255, 255, 255)),
    "blur, sigma 1": perturbed("blur:1"), "noise, sd 8": perturbed("noise:8"),
    "half size and back": perturbed("resize:0.5"),
    "flip, +20 %, JPEG 50": chain(flip, brighter(1.2), perturbed("jpeg:50")),
    "flip, crop anywhere, +20 %, noise 8, JPEG 50":
        chain(flip, cropped_anywhere(0.9), brighter(1.2), perturbed("noise:8+jpeg:50")),
    "blur, sigma 2": perturbed("blur:2"), "crop 80 %, middle": perturbed("crop:0.8"),
    "turned by 8 degrees, corners black": turned(8), "grey": grey,
}  # fmt: skip


def folder(path: Path, count: int, size: int) -> Tensor:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = np.random.default_rng(0).permutation(len(files))[:count]
    rows = [np.asarray(Image.open(files[i]).convert("RGB").resize((size, size))) for i in chosen]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()


def domains(data: Path) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Name to (bank, honest reals that set the threshold, other honest reals)."""
    sets = {}
    for size, style in ((32, "any"), (64, "any"), (64, "dark"), (64, "fair"), (128, "any")):
        images = render(7, range(1000), size, style=style).image
        sets[f"faces {style}, {size} px"] = (images[:500], images[500:700], images[700:])
    if (data / "cifake_10k").is_dir():
        images = folder(data / "cifake_10k" / "real", 2000, 32)
        sets["photographs, 32 px"] = (images[:1500], images[1500:1700], images[1700:])
    if (data / "fruits_apple_tomato").is_dir():
        train, test = (folder(data / "fruits_apple_tomato" / part, 400, 64) for part in ("trainA", "testA"))
        sets["fruits, 64 px"] = (train, test[:100], test[100:])
    return sets


def of_runs(folders: list[Path]) -> None:
    print("\n| fakes | n | called copies | nearest, in thresholds | 5 % within |\n|---|---|---|---|---|")
    for run in folders:
        for path in sorted(run.glob("rounds/*/fakes/train-*.npy")):
            way = path.stem.removeprefix("train-")
            bank, honest = (np.load(run / "data" / f"{split}-{way.split('2')[0]}.npy") for split in ("train", "judge"))
            report(f"{run.name}, round {int(path.parent.parent.name)}, {way}", np.load(path)[:500], bank, honest)
    bank, honest = (render(7, indices, 64).image for indices in (range(500), range(500, 700)))
    swapped = swap(7, range(300), 64, identity=range(10_000, 10_300)).image
    report("embedded faces, the exact swap of who is shown", swapped, bank, honest)
    flat = bank[:200].flatten(1).double()
    centred = flat - flat.mean(0)
    _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
    drawn = torch.randn(300, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    samples = drawn * spread[:50] / 200**0.5 @ axes[:50] + flat.mean(0)
    eigenfaces = samples.round().clamp(0, 255).to(torch.uint8).view(300, 3, 64, 64)
    report("embedded faces, samples of 50 principal components", eigenfaces, bank, honest)
    report("uniform noise", torch.randint(0, 256, (300, 3, 64, 64), dtype=torch.uint8), bank, honest)


def report(name: str, fakes: Tensor | np.ndarray, bank: Tensor | np.ndarray, honest: Tensor | np.ndarray) -> None:
    found = find_copies(fakes, bank, honest)
    far = found.distance / found.threshold
    share, low, high = found.share
    least, some = np.quantile(far, [0, 0.05])
    print(f"| {name} | {len(far)} | {share:.3f} ({low:.3f} to {high:.3f}) | {least:.2f} | {some:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--run", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    print(f"{date.today()}, {cpu_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    began, rows, sets = time.process_time(), {edit: [] for edit in EDITS}, domains(arguments.data)
    heads = []
    for name, (bank, honest, others) in sets.items():
        distance = nearest_images(honest, bank)[0]
        limit = honest_threshold(distance)
        share, low, high = wilson(int(np.sum(nearest_images(others, bank)[0] <= limit)), len(others))
        lowest = np.quantile(distance, [0, 0.01, 0.05, 0.5])
        heads.append(
            f"| {name} | {len(bank)} | {limit:.4f} | {', '.join(f'{x:.3f}' for x in lowest)} "
            f"| {share:.3f} ({low:.3f} to {high:.3f}) of {len(others)} |"
        )
        chosen = bank[:COPIED]
        for edit, do in EDITS.items():
            far, nearest, _ = nearest_images(do(chosen), bank)
            right = (far <= limit) & (nearest == np.arange(len(chosen)))
            rows[edit].append(right.mean())
    print(
        "| domain | bank | threshold | honest: least, 1 %, 5 %, median | honest called copies |\n|---|---|---|---|---|"
    )
    print(*heads, sep="\n")
    print(f"\n| edit | {' | '.join(sets)} |\n|---|{'---|' * len(sets)}")
    for edit, shares in rows.items():
        print(f"| {edit} | {' | '.join(f'{share:.3f}' for share in shares)} |")
    of_runs(arguments.run)
    print(f"\n{time.process_time() - began:.0f} CPU-s")


if __name__ == "__main__":
    main()

"""Does a swapped film show the other person, with its own expression? Figures only, from `arena extract`ed crops.

    python benchmarks/nearer.py TRAIN_A TRAIN_B SOURCE SWAPPED [RUN]

Each argument is a folder of crops (same size and coverage); SOURCE and SWAPPED of the same film before and after
`arena swap`. Grey values inside an ellipse are correlated with the mean crop of A and of B; of a RUN, its judged fakes
as well, as the net made them. The five points' shift tells what of pose and expression moved.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

PLACES = {"whole face": (0.5, 0.45, 0.40, 0.45), "eyes, nose, mouth": (0.5, 0.52, 0.26, 0.30)}
SIDE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train_a", "train_b", "source", "swapped"):
        parser.add_argument(name, type=Path)
    parser.add_argument("run", type=Path, nargs="?")
    args = parser.parse_args()
    a, b, source, swapped = (crops(folder) for folder in (args.train_a, args.train_b, args.source, args.swapped))
    sets = {"source": source, "swapped": swapped}
    if args.run:
        last = sorted((args.run / "rounds").iterdir())[-1]
        sets["net's output"] = np.load(last / "fakes" / "judge-a2b.npy").transpose(0, 2, 3, 1).astype(float)
    print(f"{'where':20}{'crops':16}{'N':>5}{'with mean A':>13}{'with mean B':>13}{'nearer to B':>13}")
    for place, ellipse in PLACES.items():
        mean_a, mean_b = (within(images.mean(0)[None], ellipse)[0] for images in (a, b))
        for name, images in sets.items():
            rows = within(images, ellipse)
            to_a, to_b = rows @ mean_a, rows @ mean_b
            share = f"{(to_b > to_a).mean():.1%}"
            print(f"{place:20}{name:16}{len(rows):5}{to_a.mean():13.3f}{to_b.mean():13.3f}{share:>13}")
    before, after = points(args.source), points(args.swapped)
    shift = [
        100 * np.linalg.norm(before[n] - after[n], axis=1).mean() / np.linalg.norm(before[n][0] - before[n][1])
        for n in before.keys() & after.keys()
    ]
    moved = f"{np.mean(shift):.1f} % of the distance between the eyes (at most {np.max(shift):.1f})"
    print(f"five points moved by {moved}, N {len(shift)}")


def crops(folder: Path) -> np.ndarray:
    files = sorted(folder.glob("*.png"))
    return np.stack([np.asarray(Image.open(f).convert("RGB").resize((SIDE, SIDE)), dtype=float) for f in files])


def within(images: np.ndarray, ellipse: tuple[float, float, float, float]) -> np.ndarray:
    """Grey values inside the ellipse as rows of mean 0 and length 1: N S S 3 -> N d."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    cx, cy, rx, ry = ellipse
    rows = images.mean(-1)[:, ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1]
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def points(folder: Path) -> dict[int, np.ndarray]:
    rows = map(json.loads, (folder / "faces.jsonl").read_text().splitlines())
    return {row["frame"]: np.array(row["points"]) for row in rows}


if __name__ == "__main__":
    main()

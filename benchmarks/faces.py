"""How fast the synthetic faces are drawn, and the contact sheet of docs/faces.md.

python benchmarks/faces.py                       prints images a second by size, with and without the camera
python benchmarks/faces.py --sheet docs/faces.png    draws the contact sheet
"""

import argparse
import platform
import time
from datetime import date
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from arena.data.faces import Faces, clip, render, swap
from arena.files import atomic

SIZES = {32: 768, 64: 384, 128: 96, 256: 24}  # images a turn
TURNS = 5
TILE, GAP, LABEL, COLUMNS = 104, 3, 15, 10
SEED = 1


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def speed() -> None:
    """Settings take turns, so that a busy moment of the machine hits all alike; the best turn counts."""
    torch.set_num_threads(1)
    best: dict[tuple[int, bool], float] = {}
    for turn in range(TURNS):
        for size, count in SIZES.items():
            for camera in (True, False):
                start = time.perf_counter()
                render(turn, range(count), size, camera=camera)
                rate = count / (time.perf_counter() - start)
                best[size, camera] = max(rate, best.get((size, camera), 0.0))
    print(
        f"Synthetic faces, 1 thread of {processor()}, torch {torch.__version__}, {date.today()}, best of {TURNS} turns"
    )
    print("| size | images/s | without camera |\n|---|---|---|")
    for size in SIZES:
        print(f"| {size} px | {best[size, True]:.0f} | {best[size, False]:.0f} |")


def sheet(path: Path) -> None:
    """Identities; one person in many images; exact swaps; a clip; the two styles; truths: one PNG."""
    rows: list[tuple[str, list[Tensor | None]]] = []
    people = render(SEED, range(2 * COLUMNS), TILE)
    rows += [("people: every image its own identity", list(people.image[:COLUMNS])), ("", list(people.image[COLUMNS:]))]
    one = render(SEED, range(40, 40 + COLUMNS), TILE, identity=3)
    rows.append(("one person: pose, expression, gaze, light, background, clothes and camera vary", list(one.image)))
    triples: list[Tensor | None] = []
    for a, b in ((60, 73), (61, 74), (0, 2)):
        triples += [*render(SEED, [a, b], TILE).image, swap(SEED, [a], TILE, identity=b).image[0], None]
    rows.append(("the exact swap: A, B, and B in A's picture (three times)", triples))
    film = clip(SEED, 5, 5 * COLUMNS, TILE, fps=12.5)
    rows.append(("a clip: every fifth frame at 12.5 frames a second", list(film.image[::5])))
    for style in ("dark", "fair"):
        rows.append((f'style "{style}"', list(render(SEED, range(80, 80 + COLUMNS), TILE, style=style).image)))
    rows.append(("truths: 68 landmarks, mask", _truths(render(SEED, range(100, 100 + COLUMNS // 2), TILE))))
    _save(path, rows)


def _truths(faces: Faces) -> list[Tensor | None]:
    tiles: list[Tensor | None] = []
    for image, points, mask in zip(faces.image, faces.landmarks, faces.mask, strict=True):
        marked = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        draw = ImageDraw.Draw(marked)
        for x, y in points.tolist():
            draw.ellipse((x - 1.5, y - 1.5, x + 0.5, y + 0.5), fill=(60, 255, 90))
        tiles.append(
            torch.frombuffer(bytearray(marked.tobytes()), dtype=torch.uint8).reshape(TILE, TILE, 3).permute(2, 0, 1)
        )
        tiles.append((image * (0.15 + 0.85 * mask)).byte())
    return tiles


def _save(path: Path, rows: list[tuple[str, list[Tensor | None]]]) -> None:
    width = COLUMNS * (TILE + GAP) + GAP
    page = Image.new("RGB", (width, sum(TILE + GAP + (LABEL if label else 0) for label, _ in rows) + GAP), "white")
    draw, font, top = ImageDraw.Draw(page), ImageFont.load_default(11), GAP
    for label, tiles in rows:
        if label:
            draw.text((GAP, top), label, fill=(40, 40, 40), font=font)
            top += LABEL
        left = GAP
        for tile in tiles:
            if tile is not None:
                page.paste(Image.fromarray(tile.permute(1, 2, 0).contiguous().numpy()), (left, top))
            left += TILE + GAP if tile is not None else TILE // 2
        top += TILE + GAP
    note = PngImagePlugin.PngInfo()
    note.add_text("Description", "synthetic: procedural faces of deepfake-arena, no real person")
    # 256 colours: a third of the bytes
    palette = page.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4)
    small = page.quantize(256, palette=palette, dither=Image.Dither.NONE)
    data = BytesIO()
    small.save(data, "PNG", optimize=True, pnginfo=note)
    with atomic(path) as file:
        file.write(data.getvalue())
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="draw the contact sheet into this PNG instead")
    given = parser.parse_args()
    sheet(given.sheet) if given.sheet else speed()

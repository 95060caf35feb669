"""Heat on a picture: red speaks for fake, blue for real, and where there is no evidence the picture stays grey.

Colours end at one limit for everything on a sheet, symmetric about 0 and printed on it: two sheets with the same limit
can be compared, and a picture without evidence shows none.
"""

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from arena.pictures import png

if TYPE_CHECKING:
    from torch import Tensor

    from detect.explain import Heat

FAKE, REAL = (215, 48, 31), (0, 90, 200)  # apart for colour-blind eyes too, at half strength on any grey
SLOPES = ("saliency", "guided-backprop")  # their sign says which way to change a pixel, not what it speaks for
SIDE = 192  # pixels that every picture is enlarged to at least, by a whole number
GAP, LINE, FONT = 4, 17, 13
PALE = 0.65  # how light black becomes below the heat, so that colours can be told apart everywhere


def overlay(images: "Tensor", values: "Tensor", limit: float) -> np.ndarray:
    """Heat (N H W) over pictures (uint8 N 3 H W) in pale grey: uint8 N H W 3. Colours are full at +-`limit`."""
    from PIL import Image

    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images.permute(0, 2, 3, 1).numpy()])
    strength = np.clip(values.numpy() / limit, -1, 1) if limit > 0 else np.zeros(values.shape)
    colour = np.where(strength[..., None] > 0, FAKE, REAL) / 255
    ink = 1 - np.abs(strength)[..., None] * (1 - colour)
    return np.rint((PALE + (1 - PALE) * grey[..., None] / 255) * ink * 255).astype(np.uint8)


def heat_sheet(images: "Tensor", heat: "Heat", limit: float | None = None) -> np.ndarray:
    """Three rows of pictures, one column an image or frame: the image, all evidence, and the counter-evidence alone.

    images: uint8 B 3 H W; for clips B*T 3 H W. limit: where the colours end (default: the heat's own); the same for all
    columns, and printed below with the method and what its numbers are; the logits stand above their columns.
    Returns uint8 h w 3. Raises ValueError where images and heat do not fit.
    """
    from PIL import Image, ImageDraw, ImageFont

    values = heat.values.flatten(0, 1).cpu()
    images = images.cpu()
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[0::2] + images.shape[3:] != values.shape:
        raise ValueError(f"expected one image for each heat map, got {tuple(images.shape)} and {tuple(values.shape)}")
    limit = heat.limit if limit is None else limit
    factor = -(-SIDE // min(images.shape[-2:]))
    rows = {
        "image": images.permute(0, 2, 3, 1).numpy(),
        "red speaks for fake, blue for real": overlay(images, values, limit),
        "what speaks for real, alone": overlay(images, values.clamp(max=0), limit),
    }
    if heat.method in SLOPES:
        rows = dict(zip(("image", "brighter is: red fake, blue real", "blue alone"), rows.values(), strict=True))
    n, (height, width) = len(images), (side * factor for side in images.shape[-2:])
    across = GAP + n * (width + GAP)
    about = textwrap.wrap(f"{heat.method}: {heat.scale}", max(20, across // 7))
    down = LINE + len(rows) * (LINE + height + GAP) + (2 + len(about)) * LINE + GAP
    picture = Image.new("RGB", (across, down), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)
    for column in range(n):
        logit = float(heat.logits[column // heat.values.shape[1]])
        draw.text((GAP + column * (width + GAP), 1), f"logit {logit:+.2f}", "black", font)
    top = LINE
    for title, row in rows.items():
        draw.text((GAP, top), title, "dimgrey", font)
        top += LINE
        for column, tile in enumerate(row):
            enlarged = Image.fromarray(tile.repeat(factor, 0).repeat(factor, 1))
            picture.paste(enlarged, (GAP + column * (width + GAP), top))
        top += height + GAP

    bar = min(width, 2 * SIDE)
    ramp = np.linspace(-1, 1, bar)
    ink = 1 - np.abs(ramp)[:, None] * (1 - np.where(ramp[:, None] > 0, FAKE, REAL) / 255)
    picture.paste(Image.fromarray(np.rint(ink * 255).astype(np.uint8)[None].repeat(LINE - 5, 0)), (GAP, top + 2))
    top += LINE
    draw.text((GAP, top), f"-{limit:.3g}", "black", font)
    draw.text((GAP + bar / 2, top), "0", "black", font, anchor="ma")
    draw.text((GAP + bar, top), f"+{limit:.3g}", "black", font, anchor="ra")
    for line in about:
        top += LINE
        draw.text((GAP, top), line, "black", font)
    return np.asarray(picture)


def heat_png(images: "Tensor", heat: "Heat", marks: dict[str, str], limit: float | None = None) -> bytes:
    """`heat_sheet` as a PNG that says in its text what is drawn: Heat, Heat-Scale, Heat-Limit beside the `marks`."""
    limit = heat.limit if limit is None else limit
    said = {"Heat": heat.method, "Heat-Scale": heat.scale, "Heat-Limit": f"{limit:.6g}"}
    return png(heat_sheet(images, heat, limit), marks | said)

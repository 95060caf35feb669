"""What is drawn of a synthetic face for a generator that makes a photograph of it: a map of its parts, or a drawing.

Both follow from the renderer's truths, not from the photograph: parts, face mask and 68 landmarks. Neither knows the
colour of skin, hair, clothes and background, nor the light. The map tells hair from cloth; the drawing has outlines.
"""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from arena.data.faces import Faces

FINER = 4  # lines and polygons are drawn this much larger
COLOURS = {  # of the map
    "background": (40, 44, 90), "hair": (120, 70, 20), "skin": (230, 180, 150), "cloth": (60, 140, 90),
    "glasses": (20, 20, 20), "nose": (205, 150, 120), "brows": (90, 40, 100), "eyes": (245, 245, 245),
    "lips": (200, 40, 60), "mouth": (90, 0, 20),
}  # fmt: skip
AREAS = {  # landmarks around a feature, in iBUG's order
    "nose": ([27, 31, 32, 33, 34, 35],), "eyes": (range(36, 42), range(42, 48)), "lips": (range(48, 60),),
    "mouth": (range(60, 68),),
}  # fmt: skip
LINES = {"brows": (range(17, 22), range(22, 27))}
STROKES = (  # of the drawing: jaw, brows, nose, eyes, lips
    range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36), [*range(36, 42), 36], [*range(42, 48), 42],
    [*range(48, 60), 48], [*range(60, 68), 60],
)  # fmt: skip


def segments(faces: Faces) -> Tensor:
    """A map of hair, skin, clothes, glasses, brows, eyes, nose and mouth, a colour each: uint8 N 3 S S."""
    from arena.data.faces import PARTS

    size = faces.image.shape[-1]
    palette = np.array([COLOURS[part] for part in PARTS], np.uint8)
    maps = []
    for parts, mask, points in _each(faces):
        image = Image.fromarray(palette[parts])
        bare = Image.fromarray(((mask > 0.5) & (parts == PARTS.index("skin"))).astype(np.uint8) * 255)
        features = Image.new("RGB", (FINER * size, FINER * size), COLOURS["skin"])
        pen = ImageDraw.Draw(features)
        for name, areas in AREAS.items():
            for area in areas:
                pen.polygon([tuple(points[k]) for k in area], fill=COLOURS[name])
        for name, lines in LINES.items():
            for line in lines:
                pen.line([tuple(points[k]) for k in line], COLOURS[name], round(FINER * size / 40))
        image.paste(features.resize((size, size), Image.Resampling.NEAREST), mask=bare)
        maps.append(np.asarray(image))
    return _stacked(maps)


def drawing(faces: Faces) -> Tensor:
    """Dark lines on white: the 68 landmarks joined up, and the outlines of hair, clothes and glasses: uint8 N 3 S S."""
    from arena.data.faces import PARTS

    size, glasses = faces.image.shape[-1], PARTS.index("glasses")
    drawings = []
    for parts, mask, points in _each(faces):
        large = Image.new("L", (FINER * size, FINER * size), 255)
        pen = ImageDraw.Draw(large)
        for stroke in STROKES:
            pen.line([tuple(points[k]) for k in stroke], 0, round(FINER * size / 64), joint="curve")
        image = np.where(mask > 0.5, np.asarray(large.resize((size, size), Image.Resampling.BOX)), 255)
        edges = np.zeros((size, size), bool)
        edges[:, 1:] |= parts[:, 1:] != parts[:, :-1]
        edges[1:] |= parts[1:] != parts[:-1]
        frames = parts == glasses
        image = np.where(frames | (edges & ~_beside(frames)), 0, image)
        drawings.append(np.repeat(image[..., None], 3, 2).astype(np.uint8))
    return _stacked(drawings)


MAPS = {"faces-drawing": drawing, "faces-segments": segments}


def _beside(where: np.ndarray) -> np.ndarray:
    """The pixels right of and below those."""
    found = np.zeros_like(where)
    found[:, 1:] |= where[:, :-1]
    found[1:] |= where[:-1]
    return found


def _each(faces: Faces) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Parts, mask and the landmarks on the finer grid, of one face after the other."""
    points = FINER * faces.landmarks.numpy() - 0.5
    yield from zip(faces.parts.numpy(), faces.mask.numpy(), points, strict=True)


def _stacked(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()

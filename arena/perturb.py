"""What the world does to pictures, at named strengths: JPEG, blur, resize, crop, noise, chains of them.

A spec is `name:level`, several of them joined by + and done in that order: `jpeg:50`, `resize:0.5+jpeg:70`.

    jpeg    quality 100 .. 1 (Pillow, 4:2:0); 0 leaves it out
    blur    Gaussian, sigma in pixels of the picture as the detector gets it, cut off at 4 sigma, mirrored at the edge
    resize  to this share of the side (Pillow, bicubic, antialiased), and up again
    crop    the middle, this share of the side, resized (bicubic) to the full side
    noise   Gaussian, sigma in grey levels, each picture's own whatever its batch

After each step pictures are uint8 again, rounded to the nearest. At the level of no effect (jpeg 0, blur 0, resize 1,
crop 1, noise 0) a step hands its pictures back as they are. Pictures: uint8 n 3 s s, on the CPU.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arena.data.codec import store_as
from arena.data.decode import in_threads
from arena.errors import InputError
from arena.seeds import rng

MOST_STEPS = 5


class Kind(NamedTuple):
    """One perturbation: the level without effect, the range of levels, what a level is, and what does it."""

    none: float
    low: float
    high: float
    unit: str
    do: Callable[[Tensor, float, Sequence[str]], Tensor]


class Step(NamedTuple):
    name: str
    level: float

    def __str__(self) -> str:
        return f"{self.name}:{self.level:g}"


class Chain(NamedTuple):
    """Steps in their order; as text its spec."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.steps))


def parse(spec: str) -> Chain:
    """A spec as steps. Raises InputError that names the step at fault and what it may be."""
    from arena.config import nearest

    steps = []
    for part in spec.strip().lower().split("+"):
        name, _, text = (piece.strip() for piece in part.partition(":"))
        if name not in KINDS:
            raise InputError(
                f"--robustness {spec!r}: no perturbation {name!r}{nearest(name, KINDS)}. Try jpeg:50+blur:1."
            )
        kind = KINDS[name]
        try:
            level = float(text)
        except ValueError:
            level = math.nan
        whole = name != "jpeg" or level % 1 == 0
        if not (level == kind.none or kind.low <= level <= kind.high) or not whole:
            raise InputError(
                f"--robustness {spec!r}: {name} takes {kind.unit} from {kind.low:g} to {kind.high:g} ({kind.none:g} for"
                f" none), not {text!r}. Write {name}:{kind.low:g}, for example."
            )
        steps.append(Step(name, level))
    if len(steps) > MOST_STEPS:
        raise InputError(f"--robustness {spec!r} has {len(steps)} steps, at most {MOST_STEPS} make a chain.")
    return Chain(tuple(steps))


def parse_grid(text: str) -> list[Chain]:
    """`none`, `standard`, `full`, or specs between commas: the chains, each once."""
    grid = {"none": (), "standard": GRID, "full": FULL}.get(text.strip().lower())
    if grid is None:
        grid = tuple(part for part in text.split(",") if part.strip())
        if not grid:
            raise InputError("--robustness: expected none, standard, full or specs such as jpeg:50,blur:1+jpeg:70.")
    return list(dict.fromkeys(map(parse, grid)))


def apply(images: Tensor, chain: Chain, addresses: Sequence[str]) -> Tensor:
    """The pictures (uint8 n 3 s s) after all steps. addresses: a name of each, from which its noise is drawn."""
    assert images.dtype == torch.uint8, images.dtype
    assert images.shape[:-2] == (len(addresses), 3), (images.shape, len(addresses))
    for place, (name, level) in enumerate(chain.steps):
        kind = KINDS[name]
        if level != kind.none and len(images):
            images = kind.do(images, level, [f"{address}/{place}" for address in addresses])
    return images


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur uint8 n 3 s s: float throughout, rounded once at the end, so that no picture gets darker.

    The filter along an axis, mirror included, is one matrix: blurring is two matrix products, however wide it is.
    """
    down, across = (_blur_matrix(side, sigma) for side in images.shape[-2:])
    return (down @ images.float() @ across.T).round_().clamp_(0, 255).to(torch.uint8)


def _blur_matrix(n: int, sigma: float) -> Tensor:
    """n x n; row i holds what the blurred sample i takes of each sample. Edges: d c b a | a b c d | d c b a."""
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    taps = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    source = (torch.arange(n)[:, None] + offsets) % (2 * n)
    source = torch.minimum(source, 2 * n - 1 - source)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(1, source, (taps / taps.sum()).expand(n, -1)).float()


def _noise(images: Tensor, sigma: float, addresses: Sequence[str]) -> Tensor:
    drawn = torch.stack([torch.randn(images.shape[1:], generator=rng("noise", address)) for address in addresses])
    return (images + sigma * drawn).round_().clamp_(0, 255).to(torch.uint8)


def _resize(images: Tensor, share: float, _: Sequence[str]) -> Tensor:
    side = images.shape[-1]
    small = max(1, round(share * side))

    def down_and_up(image: Image.Image) -> Image.Image:
        return image.resize((small, small), Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.BICUBIC)

    return _each(images, down_and_up)


def _crop(images: Tensor, share: float, _: Sequence[str]) -> Tensor:
    side = images.shape[-1]
    edge = (1 - share) / 2 * side
    box = (edge, edge, side - edge, side - edge)
    return _each(images, lambda image: image.resize((side, side), Image.Resampling.BICUBIC, box=box))


def _each(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    pictures = images.permute(0, 2, 3, 1).numpy()
    done = in_threads(lambda picture: np.asarray(change(Image.fromarray(picture))), pictures)
    return torch.from_numpy(np.stack(list(done))).permute(0, 3, 1, 2).contiguous()


KINDS = {
    "jpeg": Kind(0, 1, 100, "a whole quality", lambda images, level, _: store_as(images, f"jpeg-{level:.0f}")),
    "blur": Kind(0, 0.1, 32, "a sigma in pixels", lambda images, level, _: gaussian_blur(images, level)),
    "resize": Kind(1, 0.05, 1, "a share of the side", _resize),
    "crop": Kind(1, 0.1, 1, "a share of the side", _crop),
    "noise": Kind(0, 0.1, 128, "a sigma in grey levels", _noise),
}

GRID = (
    "jpeg:90", "jpeg:70", "jpeg:50", "jpeg:30",
    "blur:0.5", "blur:1", "blur:2", "blur:4",
    "resize:0.75", "resize:0.5", "resize:0.25",
    "crop:0.9", "crop:0.75", "crop:0.5",
    "noise:2", "noise:5", "noise:10",
    "blur:1+jpeg:70", "resize:0.5+jpeg:50", "crop:0.75+jpeg:70",
)  # fmt: skip
FULL = (
    *(f"jpeg:{quality}" for quality in range(100, 20, -10)),
    *(f"blur:{sigma / 2:g}" for sigma in range(1, 9)),
    *(f"resize:{share / 8:g}" for share in range(7, 1, -1)),
    *(f"crop:{share / 10:g}" for share in range(9, 4, -1)),
    *(f"noise:{sigma}" for sigma in (1, 2, 5, 10, 20)),
    *(
        f"{first}+{second}"
        for first in ("jpeg:70", "blur:1", "resize:0.5", "crop:0.75", "noise:5")
        for second in ("jpeg:70", "blur:1", "resize:0.5", "crop:0.75", "noise:5")
        if first != second
    ),
)

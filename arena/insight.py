"""A look inside the detector at the end of a round: why it decides as it does, and how its features lie.

For the fixed panel, heat and counter-evidence (arena/heat.py); where the swapped region is known, how well the heat
finds it; the nearest neighbours of the panel's fakes in the detector's features; a map of those features by round.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from arena.data.feeds import Store, spread
from arena.heat import SLOPES, heat_png
from arena.metrics.explanation import region_scores, swapped_region
from arena.metrics.feature_space import feature_space, layer_features, neighbours
from arena.metrics.swap import Swaps
from arena.pictures import png, sheet
from arena.training import to_float
from detect.explain import Heat, explain

COLUMNS, NEAREST = 6, 4
CELLS = 4  # of a layer's grid, a side: with fewer Grad-CAM says "upper left", no more
FAINT = 0.02  # colours end no earlier than at this share of the largest logit: next to no evidence stays pale
SCORED, MAPPED = 64, 150  # images a way whose heat is scored; images of a kind and round on the map
FRAME = {False: (0, 90, 200), True: (215, 48, 31)}  # of a neighbour: real, fake


class Panel(NamedTuple):
    """A few reals and fakes: uint8 n 3 S S (or clips n T 3 S S), and which of them are fakes."""

    images: Tensor
    fake: list[bool]


class Insight(NamedTuple):
    """What a look found: PNG files by name, the map of features, and figures ready for JSON."""

    pictures: dict[str, bytes]
    space: dict[str, Any]
    figures: dict[str, Any]


def look(
    detector: Any,
    reals: Sequence[Store],
    fakes: Mapping[int, Sequence[Store]],
    swaps: Iterable[tuple[str, Store, Swaps]],
    device: torch.device,
    seed: int,
    marks: dict[str, str],
) -> Insight:
    """Look inside with the judged reals and each round's judged fakes, the newest round last.

    swaps: where the exact swap is known, fakes and what they should show, by the name of their direction.
    Raises ValueError for a detector whose layer cannot be looked at.
    """
    if detector.frames == 1:
        reals = [store.stills() for store in reals]
        fakes = {r: [store.stills() for store in stores] for r, stores in fakes.items()}
    newest = fakes[max(fakes)]
    shown = panel(reals, newest)
    method = method_of(detector, shown.images[:1].to(device))
    heat = heat_of(detector, shown.images, device, method)
    near, share = lookalikes(detector, shown, first(reals), first(newest), device)
    regions = {
        f"{name}:{way}": score
        for way, store, wanted in swaps
        for name, score in found_regions(detector, store[:SCORED], wanted, device).items()
    }
    limit = heat.limit if method in SLOPES else max(heat.limit, FAINT * float(heat.logits.abs().max()))
    return Insight(
        {"explained": heat_png(covers(shown.images), heat, marks, limit), "neighbours": png(near, marks)},
        feature_map(detector, reals, fakes, device, seed),
        {"method": method, "shown": shown.fake, "real_neighbours": share, "regions": regions},
    )


def method_of(detector: Any, image: Tensor) -> str:
    """Grad-CAM where the detector's layer has places enough for it; else occlusion of stills, saliency of clips."""
    sides: list[int] = []
    handle = detector.layer.register_forward_hook(lambda module, args, output: sides.extend(output.shape[2:]))
    try:
        with torch.inference_mode():
            detector.score(to_float(image))
    finally:
        handle.remove()
    convolutions = any(isinstance(part, nn.Conv2d) for part in detector.layer.modules())
    if convolutions and sides and min(sides) >= CELLS:
        return "grad-cam"
    return "occlusion" if detector.frames == 1 else "saliency"


def panel(reals: Sequence[Store], fakes: Sequence[Store]) -> Panel:
    """Two reals and four fakes or thereabouts, the same ones in every round."""
    chosen: list[tuple[Store, int, bool]] = []
    for stores, count, fake in ((reals, 2, False), (fakes, 4, True)):
        for store in stores:
            rows = spread(len(store), max(1, count // len(stores)) + 2)[1:-1]
            chosen += [(store, row, fake) for row in rows]
    chosen = chosen[:COLUMNS]
    return Panel(torch.cat([store[[row]] for store, row, _ in chosen]), [fake for _, _, fake in chosen])


def first(stores: Sequence[Store]) -> Tensor:
    return torch.cat([store[: MAPPED // len(stores)] for store in stores])


def covers(images: Tensor) -> Tensor:
    """Of clips the frame in the middle."""
    return images if images.ndim == 4 else images[:, images.shape[1] // 2]


def heat_of(detector: Any, images: Tensor, device: torch.device, method: str) -> Heat:
    """The heat of uint8 images, 16 at a time; of clips that of the frame in the middle. On the CPU."""
    found = [explain(detector, to_float(part.to(device)), method) for part in images.split(16)]
    values = torch.cat([heat.values[:, heat.values.shape[1] // 2].cpu() for heat in found])
    return replace(found[0], values=values[:, None], logits=torch.cat([heat.logits.cpu() for heat in found]))


def found_regions(detector: Any, fakes: Tensor, swaps: Swaps, device: torch.device) -> dict[str, Any]:
    """How well heat over fakes finds the face that was swapped: by the gradient at the pixels, sharp and cheap."""
    method = "saliency"
    heat = heat_of(detector, fakes, device, method).values[:, 0]
    few = replace(swaps, **{key: getattr(swaps, key)[: len(fakes)] for key in ("index", "shown", "wanted")})
    scores = region_scores(heat.abs() if method in SLOPES else heat, swapped_region(few, fakes.shape[-1]).face)
    return {name: {**score, "method": method} for name, score in scores.items()}


def lookalikes(
    detector: Any, shown: Panel, reals: Tensor, fakes: Tensor, device: torch.device
) -> tuple[np.ndarray, float]:
    """The panel's fakes, and below each its nearest neighbours among reals (framed blue) and fakes (framed red).

    Returns the picture, uint8 h w 3, and the share of neighbours that are reals.
    """
    chosen = shown.images[torch.tensor(shown.fake)]
    bank = torch.cat([chosen, reals, fakes])
    features = layer_features(detector, bank.to(device))
    rows = []
    for place, near in enumerate(neighbours(features, torch.arange(len(chosen)), k=len(bank) - 1).index):
        itself = (bank[near] == chosen[place]).flatten(1).all(1)  # it stands among the fakes, too
        rows.append(near[~itself & (near >= len(chosen))][:NEAREST])
    count = min(map(len, rows))
    if count == 0:
        raise ValueError("neighbours: expected fakes that differ from each other")
    rows = [near[:count] for near in rows]
    is_fake = [[row >= len(chosen) + len(reals) for row in near.tolist()] for near in rows]
    columns = [
        torch.stack(
            [framed(image, True), *(framed(image, f) for image, f in zip(covers(bank[near]), fake, strict=True))]
        )
        for image, near, fake in zip(covers(chosen), rows, is_fake, strict=True)
    ]
    return sheet([*torch.stack(columns).transpose(0, 1)]), 1 - float(np.mean(is_fake))


def framed(image: Tensor, fake: bool, width: int = 2) -> Tensor:
    """uint8 3 s s with a frame around it, 3 s+2w s+2w."""
    side = image.shape[-1] + 2 * width
    larger = torch.tensor(FRAME[fake], dtype=torch.uint8)[:, None, None].expand(3, side, side).clone()
    larger[:, width:-width, width:-width] = image
    return larger


def feature_map(
    detector: Any, reals: Sequence[Store], fakes: Mapping[int, Sequence[Store]], device: torch.device, seed: int
) -> dict[str, Any]:
    """The features of judged reals and of every round's judged fakes in two dimensions, ready for JSON."""

    def features(stores: Sequence[Store]) -> Tensor:
        few = [store[spread(len(store), MAPPED // len(stores))] for store in stores]
        return layer_features(detector, torch.cat(few).to(device))

    space = feature_space(features(reals), {r: features(stores) for r, stores in fakes.items()}, seed=seed)
    return {"points": space.points.round(4).tolist(), "round": space.round.tolist(), "how": space.how}

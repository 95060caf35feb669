"""How good an explanation is: does the heat lie where the picture was changed, and does the score hang on it?

Everywhere: heat N H W, positive where it speaks for fake. Of methods whose sign is a direction (saliency,
guided-backprop) hand in the absolute values. Each score stands beside what chance gets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from arena.metrics.likeness import student
from arena.metrics.swap import Swaps, wilson

Score = dict[str, Any]
Baseline = Literal["mean", "blur"]


@dataclass(frozen=True)
class Region:
    """Where a swap changes a picture."""

    face: Tensor  # N S S in [0, 1]: the skin and features of either face, the one that was there and the one that came
    changed: Tensor  # N S S, 0 or 1: where the exact swap differs from the picture at all; hair, ears and neck too


def swapped_region(swaps: Swaps, size: int) -> Region:
    """The true region of swaps of embedded faces (faces-two).

    With `swaps.camera`, sensor noise and JPEG carry the change over much of the picture: `face` says where to look.
    """
    before, after = swaps.render(size, swaps.shown), swaps.render(size, swaps.wanted)
    changed = (before.image != after.image).any(1).float()
    return Region(torch.maximum(before.mask, after.mask), changed)


def region_scores(heat: Tensor, mask: Tensor, *, tolerance: float = 0) -> dict[str, Score]:
    """Score heat N H W against the true regions, mask N H W in [0, 1], as plain numbers ready for JSON.

    A name maps to `value`, `low`, `high` (95 %), `chance` (what heat that knows nothing gets), `n`, `left_out` (images
    of which the score says nothing), `unit`, `better`, `how`. A pixel belongs to the region from 0.5 on.

    iou: intersection over union with the k hottest pixels, k being the region's area, so that no threshold is chosen.
    pointing: share of images whose hottest pixel lies in the region or at most `tolerance` pixels from it (Zhang et
        al., ECCV 2016, arXiv 1608.00507, who take 15).
    energy: share of the positive heat that lies in the region (Wang et al., CVPRW 2020, arXiv 1910.01279). Images
        without positive heat are left out, and the score with them if fewer than two are left.

    Of equally hot pixels each counts for its share, so that heat without evidence gets what chance gets. Images with an
    empty region are left out. Raises ValueError where heat and mask do not fit or fewer than two images are left.
    """
    if heat.ndim != 3 or heat.shape != mask.shape:
        raise ValueError(f"expected heat and mask N H W, got {tuple(heat.shape)} and {tuple(mask.shape)}")
    if not bool(heat.isfinite().all()) or float(mask.min()) < 0 or float(mask.max()) > 1:
        raise ValueError("expected finite heat, and a mask in [0, 1]")
    total, inside = len(heat), mask.cpu() >= 0.5
    some = inside.flatten(1).any(1)
    rows, inside = heat.cpu().double().flatten(1)[some], inside[some]
    if len(rows) < 2:
        raise ValueError(f"expected at least 2 images with a region, got {len(rows)}")
    truth, near = inside.flatten(1), _grown(inside, tolerance).flatten(1)

    k = truth.sum(1)
    overlap = _hottest(rows, truth, k)
    iou, by_lot = overlap / (2 * k - overlap), k**2 / truth.shape[1]
    hits = _hottest(rows, near, torch.ones_like(k))
    warm = rows.clamp(min=0)
    lit = warm.sum(1) > 0
    energy = (warm * truth).sum(1)[lit] / warm.sum(1)[lit]

    found = float(hits.sum())
    share = wilson(found, len(hits))  # type: ignore[arg-type]  # a tie is part of a hit
    scores = {
        "iou": (_mean(iou), by_lot / (2 * k - by_lot), "top-k pixels, k the region's area; mean, Student's t"),
        "pointing": (share, near.double().mean(1), f"hottest pixel, tolerance {tolerance:g} px; Wilson"),
    }
    if len(energy) > 1:
        how = "share of the positive heat; mean over images, Student's t"
        scores["energy"] = (_mean(energy), truth.double().mean(1)[lit], how)
    return {
        name: {
            **dict(zip(("value", "low", "high"), interval, strict=True)),
            "chance": float(chance.mean()), "n": len(chance), "left_out": total - len(chance),
            "unit": "share of images" if name == "pointing" else "share", "better": "higher", "how": how,
        }
        for name, (interval, chance, how) in scores.items()
    }  # fmt: skip


def _hottest(rows: Tensor, truth: Tensor, k: Tensor) -> Tensor:
    """How many of the k (N) hottest pixels of each row (N P) are true; of ties as many as a draw by lot would give."""
    edge = rows.sort(1, descending=True).values.gather(1, k[:, None] - 1)
    above, tied = rows > edge, rows == edge
    rest = (k - above.sum(1)).double() / tied.sum(1)
    return (above & truth).sum(1) + rest * (tied & truth).sum(1)


def _grown(inside: Tensor, reach: float) -> Tensor:
    """The region and every pixel whose centre is at most `reach` from one of it. N H W, bool."""
    r = int(reach)
    steps = torch.arange(-r, r + 1)
    disc = (steps[:, None] ** 2 + steps**2 <= reach**2).float()
    return conv2d(inside[:, None].float(), disc[None, None], padding=r)[:, 0] > 0.5


def _mean(values: Tensor) -> tuple[float, float, float]:
    value, low, high = student(values)
    return value, max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Curves:
    """Logits while pixels are taken away or put back in the order of an explanation, and in an order by lot."""

    share: Tensor  # K + 1: the share of pixels that were touched, 0 to 1
    deletion: Tensor  # N K+1: the hottest pixels go first
    insertion: Tensor  # N K+1: the hottest pixels come first
    random_deletion: Tensor
    random_insertion: Tensor


@torch.no_grad()
def curves(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    heat: Tensor,
    *,
    rng: torch.Generator,
    steps: int = 20,
    deletion: Baseline = "mean",
    insertion: Baseline = "blur",
    batch: int = 64,
) -> Curves:
    """Deletion and insertion curves (Petsiuk, Das and Saenko, BMVC 2018, arXiv 1806.07421) of fakes.

    score: images N 3 H W -> logits N. images: float in [-1, 1]. heat: N H W. rng: for the order by lot, and for pixels
    that are equally hot. deletion, insertion: what stands where pixels are missing: the image's mean colour, or the
    image blurred (11 x 11 Gaussian of sigma 5); the defaults are the paper's. Costs 4 (steps + 1) scores an image, at
    most `batch` at once.
    """
    from kornia.filters import gaussian_blur2d

    if images.ndim != 4 or heat.shape != images.shape[:1] + images.shape[2:] or steps < 1:
        got = f"{tuple(images.shape)}, {tuple(heat.shape)} and {steps}"
        raise ValueError(f"expected images N 3 H W, heat N H W and steps >= 1, got {got}")
    missing: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda x: x.mean((2, 3), keepdim=True).expand_as(x),
        "blur": lambda x: gaussian_blur2d(x, (11, 11), (5.0, 5.0)),
    }
    lots = torch.stack([torch.randperm(heat[0].numel(), generator=rng) for _ in heat]).to(images.device)
    places = _places(heat.to(images.device).flatten(1), lots)
    share = torch.linspace(0, 1, steps + 1)
    walks: dict[str, Tensor] = {}
    for order, ranks in (("", places), ("random_", lots)):
        for name, baseline in (("deletion", deletion), ("insertion", insertion)):
            logits = torch.empty(len(images), steps + 1)
            for rows in torch.arange(len(images)).split(batch):
                mine, hidden = images[rows], missing[baseline](images[rows])
                first, then = (mine, hidden) if name == "deletion" else (hidden, mine)
                rank = ranks[rows].view(len(rows), 1, *heat.shape[1:])
                for step, part in enumerate(share.tolist()):
                    touched = rank < round(part * lots.shape[1])
                    logits[rows, step] = score(torch.where(touched, then, first)).float().cpu()
            walks[order + name] = logits
    return Curves(share, **walks)


def _places(rows: Tensor, lots: Tensor) -> Tensor:
    """The place of every pixel in the order from hot to cold, ties by lot. N P."""
    shuffled = lots.argsort(1)
    order = shuffled.gather(1, rows.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return order.argsort(1)


def curve_scores(found: Curves) -> dict[str, Score]:
    """Areas under the curves of P(fake) = sigmoid(logit) over the share of pixels, in 0 .. 1, ready for JSON.

    `deletion` is better lower, `insertion` higher; each has `value`, `low`, `high` (95 %, Student's t over images),
    `random` (the same with an order by lot), `over_random` (the difference image by image, with its own interval: read
    this), `n`, `better`, `how`. Raises ValueError for fewer than two images.
    """
    if len(found.deletion) < 2:
        raise ValueError(f"expected curves of at least 2 images, got {len(found.deletion)}")
    scores: dict[str, Score] = {}
    for name, better in (("deletion", "lower"), ("insertion", "higher")):
        mine, lot = (
            torch.trapezoid(getattr(found, walk).double().sigmoid(), found.share.double())
            for walk in (name, f"random_{name}")
        )
        names = ("value", "low", "high")
        scores[name] = {
            **dict(zip(names, _mean(mine), strict=True)), "random": float(lot.mean()),
            "over_random": dict(zip(names, student(mine - lot), strict=True)), "n": len(mine), "better": better,
            "how": f"area under P(fake), {len(found.share) - 1} steps; mean over images, Student's t",
        }  # fmt: skip
    return scores

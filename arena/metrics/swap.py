"""What the lab can score of a face swap because the exact swap is known: is it that picture, that pose, that person?

Every score stands beside references that took no training: `copy` hands the source back, `mean` shows the average
training picture of the person wanted, `floor` reads the exact swap itself with the same instrument. No score sees
everything: a copy keeps pose and expression and nobody's new face, a mean face has the identity and no pose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arena.data.faces import Faces, render
from arena.errors import InputError
from arena.metrics.landmarks import BROWS, EYES, MOUTH, OUTER_CORNERS, Landmarks, instrument
from arena.metrics.likeness import CHUNK_PIXELS, Score, psnr_and_ssim, score
from arena.metrics.shares import wilson

PEOPLE = 8  # known identities that a fake is compared with: the two players and strangers
STRANGERS = 1_000_000_000  # identity numbers from here on belong to nobody in a run
EXPRESSIVE = [*range(68)[BROWS], *range(68)[EYES], *range(68)[MOUTH]]


@dataclass(frozen=True)
class Swaps:
    """Which swaps were asked for, as addresses of embedded faces (arena/data/faces.py): N of them."""

    seed: int
    index: Tensor | Sequence[int]  # N: pose, expression, light, background ... of the source images
    shown: Tensor | Sequence[int]  # N identities: who the sources show
    wanted: Tensor | Sequence[int]  # N identities: who the fakes should show
    style: str = "any"
    camera: bool = True
    close: float = 1.0

    def render(self, size: int, identity: Tensor | Sequence[int], part: slice = slice(None)) -> Faces:
        """The asked images, or a part of them, with `identity` (N) in them."""
        who = torch.as_tensor(identity)[part]
        index = torch.as_tensor(self.index)[part]
        return render(self.seed, index, size, identity=who, style=self.style, camera=self.camera, close=self.close)


@torch.inference_mode()
def swap_scores(
    fakes: Tensor,
    swaps: Swaps,
    pictures: Mapping[int, Tensor] | None = None,
    *,
    landmarks: Landmarks | None = None,
) -> dict[str, Score]:
    """Score fakes against the exact swaps, as plain numbers ready for JSON.

    fakes: uint8 N 3 S S, N >= 3, in the order of `swaps`. pictures: identity wanted -> its training pictures, uint8
    M 3 S S; with them each score has the reference `mean`. landmarks: the instrument (fitted here where None).

    A name maps to `value`, `low`, `high` (95 %), `n`, `unit`, `better` ("higher" or "lower"), `how` and the references
    (`copy`; `mean`; `floor`). `over_copy` and `over_mean` hold `value`, `low`, `high` of the difference image by image,
    fakes less reference. Names: `swap-psnr` and `swap-ssim` inside the face, the same `-frame` over the whole picture;
    `landmark-error`, `expression-error`, `pose-error`; `identity` and `identity-margin`. See docs/swap-scores.md.

    Raises InputError where the numbers of images or their sizes do not fit, and where shown and wanted are the same.
    """
    size, shown, wanted = _check(fakes, swaps, pictures)
    truth, source = swaps.render(size, wanted), swaps.render(size, shown)
    shots = {"fakes": fakes, "copy": source.image}
    if pictures is not None:
        means = {who: images.double().mean(0).round().to(torch.uint8) for who, images in pictures.items()}
        shots["mean"] = torch.stack([means[who] for who in wanted.tolist()])
    return (
        _pictures(shots, truth)
        | _geometry(shots, truth, landmarks or instrument(size, swaps.close))
        | _identity(shots, swaps, truth, source)
    )


def _pictures(shots: dict[str, Tensor], truth: Faces) -> dict[str, Score]:
    """PSNR and SSIM to the exact swap, inside its face mask and over the frame."""
    scores = {}
    for suffix, mask, where in (
        ("", truth.mask, "inside the exact swap's face mask"),
        ("-frame", torch.ones_like(truth.mask), "whole frame"),
    ):
        both = psnr_and_ssim(shots, truth.image, mask, where)
        scores[f"swap-psnr{suffix}"], scores[f"swap-ssim{suffix}"] = both
    return scores


def _geometry(shots: dict[str, Tensor], truth: Faces, instrument: Landmarks) -> dict[str, Score]:
    """Landmarks, expression and pose, read off each set of pictures by one instrument, against the renderer's truth."""
    left, right = (truth.landmarks[:, corner] for corner in OUTER_CORNERS)
    unit = (right - left).norm(dim=-1) / 100
    points, expression, pose = {}, {}, {}
    for name, images in (shots | {"floor": truth.image}).items():
        read = instrument(images)
        points[name] = (read.points - truth.landmarks).norm(dim=-1).mean(1) / unit
        expressive, true = read.points[:, EXPRESSIVE], truth.landmarks[:, EXPRESSIVE]
        expression[name] = (_aligned(expressive, true) - true).norm(dim=-1).mean(1) / unit
        pose[name] = (read.pose - truth.pose).abs().mean(1)
    by = f"landmark instrument fitted to embedded faces at {instrument.size} px; mean over images, Student's t"
    share = "% of eye distance"
    corners = f"100 = from outer eye corner to outer eye corner, {by}"
    return {
        "landmark-error": score(points, share, "lower", f"all 68 points, {corners}"),
        "expression-error": score(
            expression, share, "lower", f"brows, lids and mouth, aligned by similarity, {corners}"
        ),
        "pose-error": score(pose, "degrees", "lower", f"mean of yaw, pitch and roll, {by}"),
    }


def _aligned(points: Tensor, onto: Tensor) -> Tensor:
    """Points N P 2 moved, turned and scaled to least squares onto others: as complex numbers, w = a z."""
    z, w = (torch.view_as_complex(q - q.mean(1, keepdim=True)) for q in (points, onto))
    turn = (z.conj() * w).sum(1, keepdim=True) / (z.abs() ** 2).sum(1, keepdim=True).clamp(min=1e-12)
    return torch.view_as_real(turn * z) + onto.mean(1, keepdim=True)


def _identity(shots: dict[str, Tensor], swaps: Swaps, truth: Faces, source: Faces) -> dict[str, Score]:
    """Who a fake shows, by synthesis: the same image is rendered with each known person, and the most alike wins.

    Alike: the correlation of the two pictures' values over the faces' pixels and the three channels. Colours count,
    while brightness and contrast of the whole do not; a grey or noise picture is like nobody.
    """
    size, n = truth.image.shape[-1], len(truth.image)
    near: dict[str, list[Tensor]] = {name: [] for name in shots}
    margin: dict[str, list[Tensor]] = {name: [] for name in shots}
    step = max(1, CHUNK_PIXELS // size**2)
    for start in range(0, n, step):
        part = slice(start, start + step)
        strangers = [swaps.render(size, torch.full((n,), STRANGERS + k), part) for k in range(PEOPLE - 2)]
        known = torch.stack([truth.image[part], source.image[part], *(s.image for s in strangers)], 1)
        mask = torch.stack([truth.mask[part], source.mask[part], *(s.mask for s in strangers)]).amax(0)
        known = _unit(known.float(), mask)
        apart = 1 - (known[:, 0] * known[:, 1]).sum(-1)
        for name, images in shots.items():
            alike = (_unit(images[part, None].float(), mask) * known).sum(-1)
            near[name].append(alike.argmax(1))
            margin[name].append((alike[:, 0] - alike[:, 1]) / apart)
    nearest = {name: torch.cat(parts) for name, parts in near.items()}
    value, low, high = wilson(int((nearest["fakes"] == 0).sum()), n)
    share = {
        "value": value, "low": low, "high": high, "n": n, "unit": "share of images", "better": "higher",
        **{name: float((nearest[name] == 0).double().mean()) for name in shots if name != "fakes"},
        "source": float((nearest["fakes"] == 1).double().mean()), "chance": 1 / PEOPLE,
        "how": f"nearest of {PEOPLE} people rendered into the same image: the wanted, the source's, "
        f"{PEOPLE - 2} strangers; correlation inside the faces; Wilson",
    }  # fmt: skip
    how = "correlation with the exact swap less that with the source, inside the faces: copying the source = -1, "
    how += "exact swap = 1, neither = 0; mean over images, Student's t"
    margins = {name: torch.cat(parts) for name, parts in margin.items()}
    return {"identity": share, "identity-margin": score(margins, "", "higher", how)}


def _unit(images: Tensor, mask: Tensor) -> Tensor:
    """Pictures N K 3 S S inside masks N S S as rows of mean 0 and length 1, N K d: their products are correlations."""
    weight = mask[:, None, None] / (3 * mask.sum((1, 2)))[:, None, None, None, None]
    rows = ((images - (images * weight).sum((2, 3, 4), keepdim=True)) * weight.sqrt()).flatten(2)
    return rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def _check(fakes: Tensor, swaps: Swaps, pictures: Mapping[int, Tensor] | None) -> tuple[int, Tensor, Tensor]:
    if fakes.ndim != 4 or fakes.dtype != torch.uint8 or fakes.shape[1] != 3 or fakes.shape[2] != fakes.shape[3]:
        raise InputError(f"fakes: expected uint8 N 3 S S, got {fakes.dtype} of shape {tuple(fakes.shape)}.")
    shown, wanted = torch.as_tensor(swaps.shown), torch.as_tensor(swaps.wanted)
    if not len(fakes) == len(swaps.index) == len(shown) == len(wanted):
        raise InputError(
            f"expected one swap for each fake: {len(fakes)} fakes, {len(swaps.index)} indices, {len(shown)} identities "
            f"shown, {len(wanted)} wanted."
        )
    if len(fakes) < 3:
        raise InputError(f"expected at least 3 fakes for an interval, got {len(fakes)}.")
    if bool((shown == wanted).any()):
        raise InputError("a swap wants another person than the source shows, and here some want the same.")
    for who in set(wanted.tolist()) if pictures is not None else ():
        found = pictures.get(who) if pictures is not None else None
        if found is None or len(found) == 0 or found.shape[1:] != fakes.shape[1:]:
            raise InputError(f"pictures: expected some of identity {who}, of the fakes' size, for their mean face.")
    return fakes.shape[-1], shown, wanted

"""How near pictures come to the pictures that they should be: PSNR and SSIM, image by image, beside references.

A reference is what somebody hands in who has learnt nothing: the source, the mean picture, a plain enlargement.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from arena.errors import InputError

ROUNDING = 1 / 12  # squared grey levels that 8 bits lose: no PSNR is above 58.9 dB
CHUNK_PIXELS = 1 << 20

Score = dict[str, Any]
Shots = Mapping[str, Tensor]


@torch.inference_mode()
def restoration_scores(fakes: Tensor, truths: Tensor, references: Shots | None = None) -> dict[str, Score]:
    """`psnr` and `ssim` of fakes to their truths, over the whole picture, ready for JSON (as in arena/metrics/swap.py).

    fakes, truths and each reference: uint8 N 3 S S, N >= 3. Raises InputError where their shapes differ.
    """
    shots = {"fakes": fakes, **(references or {})}
    for name, images in shots.items():
        if images.shape != truths.shape or images.dtype != torch.uint8:
            raise InputError(
                f"{name}: expected uint8 of shape {tuple(truths.shape)}, as the truths have, got {images.dtype} of "
                f"shape {tuple(images.shape)}."
            )
    if len(truths) < 3:
        raise InputError(f"expected at least 3 fakes for an interval, got {len(truths)}.")
    whole = torch.ones(len(truths), *truths.shape[2:])
    near, alike = psnr_and_ssim(shots, truths, whole, "whole picture")
    return {"psnr": near, "ssim": alike}


def psnr_and_ssim(shots: Shots, truths: Tensor, mask: Tensor, where: str) -> tuple[Score, Score]:
    """PSNR and SSIM to truths (uint8 N 3 S S) inside masks (N S S): of the fakes, and of the references by name."""
    from kornia.metrics import ssim

    window = 11 if truths.shape[-1] >= 64 else 7

    def psnr(images: Tensor, truths: Tensor, mask: Tensor) -> Tensor:
        return 10 * (255**2 / inside((images - truths) ** 2, mask).clamp(min=ROUNDING)).log10()

    def likeness(images: Tensor, truths: Tensor, mask: Tensor) -> Tensor:
        return inside(ssim(images, truths, window, 255.0), mask)

    def inside(plane: Tensor, mask: Tensor) -> Tensor:
        return (plane.mean(1) * mask).sum((1, 2)) / mask.sum((1, 2))

    def each(measure: Callable[[Tensor, Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        step = max(1, CHUNK_PIXELS // mask[0].numel())
        parts = [slice(start, start + step) for start in range(0, len(mask), step)]
        return {
            name: torch.cat([measure(images[p].float(), truths[p].float(), mask[p]) for p in parts])
            for name, images in shots.items()
        }

    how = f"per image over RGB, {where}, at most 58.9 dB (8-bit rounding); mean over images, Student's t"
    near = score(each(psnr), "dB", "higher", how)
    how = f"kornia, Gaussian window {window} px (sigma 1.5), RGB, map averaged {where}; mean, Student's t"
    return near, score(each(likeness), "", "higher", how)


def student(values: Tensor, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of the mean of n >= 2 independent values: Student's t with n - 1 degrees of freedom."""
    values = values.double()
    mean, n = float(values.mean()), len(values)
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * float(values.std()) / n**0.5
    return mean, mean - reach, mean + reach


def score(values: dict[str, Tensor], unit: str, better: str, how: str) -> Score:
    """One score from the values of each image: of the fakes, and of the references by name."""
    mean, low, high = student(values["fakes"])
    found: Score = {"value": mean, "low": low, "high": high, "n": len(values["fakes"]), "unit": unit, "better": better}
    references = {name: value for name, value in values.items() if name != "fakes"}
    found |= {name: float(value.double().mean()) for name, value in references.items()}
    for name in references.keys() - {"floor"}:
        gain = student(values["fakes"] - references[name])
        found[f"over_{name}"] = dict(zip(("value", "low", "high"), gain, strict=True))
    return found | {"how": how}

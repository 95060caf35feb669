"""A match: one detector, one set of reals, one set of fakes, and what it scored."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from arena.data.feeds import Store
from arena.training import to_float


def score(detector: Any, images: torch.Tensor) -> torch.Tensor:
    """Logits B of images B 3 H W, or of clips B T 3 H W; a detector of stills says of a clip the mean of its frames."""
    if images.ndim == 5 and detector.frames == 1:
        return detector.score(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(1)
    return detector.score(images)


def logits(detector: Any, stores: Iterable[Store], device: torch.device, batch: int = 64) -> np.ndarray:
    """The detector's logits in order, float64: one for every image or clip, but one for a video that gave several."""
    from arena.metrics.grouping import by_video

    found = []
    for store in stores:
        with torch.inference_mode():
            chunks = [score(detector, to_float(chunk.to(device))).double() for chunk in store.chunks(batch)]
        values = torch.cat(chunks).cpu().numpy()
        found.append(values if store.videos is None else by_video(values, store.videos)[1])
    return np.concatenate(found)


def judge(
    detector: Any, reals: Sequence[Store], fakes: Sequence[Store], threshold: float, device: torch.device
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Scores of a held-out split at a threshold frozen elsewhere (logit), and the logits of reals and fakes."""
    from arena.metrics.detection import detection_scores

    real, fake = logits(detector, reals, device), logits(detector, fakes, device)
    return detection_scores(real, fake, threshold), real, fake


def frozen_threshold(detector: Any, reals: Sequence[Store], fakes: Sequence[Store], device: torch.device) -> float:
    """The threshold (logit) with the best balanced accuracy on the validation split."""
    from arena.metrics.detection import best_threshold

    return float(best_threshold(logits(detector, reals, device), logits(detector, fakes, device)))

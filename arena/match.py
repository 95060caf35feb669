"""A match: one detector, one set of reals, one set of fakes, and what it scored."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from arena.data.feeds import Store
from arena.training import to_float


def logits(detector: Any, stores: Iterable[Store], device: torch.device, batch: int = 64) -> np.ndarray:
    """The detector's logits for every image of the stores, in order, float64 n."""
    with torch.inference_mode():
        found = [
            detector.score(to_float(chunk.to(device))).double() for store in stores for chunk in store.chunks(batch)
        ]
        return torch.cat(found).cpu().numpy()


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

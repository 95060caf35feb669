"""The memorisation guard: how many fakes are copies of images that the generator was trained on.

Images are described and compared as in arena/metrics/copies.py, which says what counts as a copy, what is found and
what is not. The cheap guard, for every round, compares with the known images as they are and mirrored (in JPEG, light,
colour, noise and blur they may differ); the full one also with them turned and cropped.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from arena.metrics import copies
from arena.metrics.shares import wilson

SHOWN = 5  # nearest pairs that are written down


class Known:
    """The known (training) images, M 3 S S, and the threshold that honest images (H 3 S S, certainly no copies) set."""

    def __init__(self, known: Tensor, honest: Tensor, full: bool = False):
        how = "as they are, mirrored, turned and cropped" if full else "as they are and mirrored"
        self.known, self.full = known, full
        self.describe = (
            f"colours at 8 and 16 px against {len(known)} known images {how}; limit from {len(honest)} reals"
        )
        self._rows = torch.empty(0) if full else torch.cat([copies.describe(part) for part in known.split(512)])
        self.honest = self.nearest(honest)[0]
        self.threshold = copies.honest_threshold(self.honest)

    def nearest(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """For each image the distance to the nearest known one (0 the same, about 1 unrelated), and its number."""
        if self.full:
            return copies.nearest_images(images, self.known)[:2]
        best = torch.full((len(images),), -2.0)
        place = torch.zeros(len(images), dtype=torch.int64)
        for way in (images, images.flip(3)):
            rows = torch.cat([copies.describe(part) for part in way.split(512)])
            top, at = (rows @ self._rows.T).max(1)
            best, place = torch.where(top > best, top, best), torch.where(top > best, at, place)
        return (1 - best.double()).clamp(min=0).numpy(), place.numpy()

    def score(self, images: Tensor) -> dict[str, Any]:
        """`value`, `low`, `high`: the share of copies with Wilson's interval; `floor`: the honest images' own share.

        `nearest`: `median` distance, `honest_median`, `threshold`, and `pairs`, the nearest ones as [fake, known,
        distance].
        """
        distance, index = self.nearest(images)
        value, low, high = wilson(int((distance <= self.threshold).sum()), len(distance))
        pairs = [[int(i), int(index[i]), round(float(distance[i]), 5)] for i in np.argsort(distance)[:SHOWN]]
        return {
            "value": value,
            "low": low,
            "high": high,
            "floor": float(np.mean(self.honest <= self.threshold)),
            "floor_n": len(self.honest),
            "nearest": {
                "median": float(np.median(distance)),
                "honest_median": float(np.median(self.honest)),
                "threshold": self.threshold,
                "pairs": pairs,
            },
        }

"""Inception Score: are the fakes told apart into many classes, each with confidence? It looks at the fakes alone.

    IS = exp( mean over the images of KL( p(y | x) || p(y) ) )

with p(y | x) the classes that FID's network sees in an image and p(y) their mean over a split of the images. From 1 to
the number of classes; the mean over the splits is reported (Salimans et al. 2016, arXiv 1606.03498, section 4: 50,000
images, 10 splits). A split of n images cannot score above n, so that small sets score low: compare it with the reals'
own at the same count alone. It knows the classes of ImageNet and no others, and sees neither one image repeated in
every class nor anything of the reals.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from arena.metrics.intervals import clipped, jackknife

SPLITS = 10


def class_weights(path: str | Path) -> NDArray[np.float32]:
    """The last layer of FID's network, 1008 x 2048 (its bias is left out, as in the authors' code), from its file."""
    return torch.load(path, map_location="cpu", weights_only=True)["fc.weight"].float().numpy()


def inception_score(logits: ArrayLike, splits: int = SPLITS) -> tuple[float, float | None, float | None, float]:
    """(mean over the splits, low, high, sd over the splits) of N x C logits; the interval is Student's over the splits.

    Splits that score all the same set no bounds: low and high are None.
    Images are split in their given order; fewer splits where there are not 2 images for each. ValueError for N < 4.
    """
    x = np.asarray(logits, dtype=np.float64)
    if x.ndim != 2 or len(x) < 4 or not np.isfinite(x).all():
        raise ValueError(f"expected finite logits of shape N x C with N >= 4, got shape {x.shape}.")
    x = x - x.max(1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    edges = np.linspace(0, len(x), min(splits, len(x) // 2) + 1).round().astype(int)
    values = []
    for start, stop in pairwise(edges):
        log_part = log_p[start:stop]
        part = np.exp(log_part)
        log_mean = np.log(np.maximum(part.mean(0), np.finfo(np.float64).tiny))
        values.append(np.exp((part * (log_part - log_mean)).sum(1).mean()))
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    without = (np.sum(values) - values) / (len(values) - 1)  # the jackknife of a mean is its standard error
    return *clipped(jackknife(mean, without), 1.0), sd

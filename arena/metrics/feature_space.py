"""What a detector's features look like from outside: nearest neighbours, and a map in two dimensions.

Shapes: N images (or clips), D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from arena.training import to_float


@torch.no_grad()
def layer_features(detector: Any, images: Tensor, *, layer: nn.Module | None = None, batch: int = 64) -> Tensor:
    """The outputs of a layer (default: the detector's own), averaged over places and frames: N x D, float32, CPU.

    images: N 3 H W, or clips N T 3 H W for a detector of clips; uint8, or float in [-1, 1]. The layer may see all
    frames of a clip in one call, one after the other, or be called once a frame; channels are its dimension 1.
    """
    layer = detector.layer if layer is None else layer
    calls: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: calls.append(output))
    rows = []
    try:
        for chunk in images.split(batch):
            calls.clear()
            detector.score(to_float(chunk))
            rows.append(_pooled(calls, len(chunk)))
    finally:
        handle.remove()
    return torch.cat(rows)


def _pooled(calls: list[Tensor], n: int) -> Tensor:
    if not calls or any(not isinstance(call, Tensor) or call.ndim < 2 for call in calls):
        raise ValueError("layer: expected a module that the detector calls and whose output is one tensor, N x C ...")
    frames = [call.float().flatten(2).mean(2) if call.ndim > 2 else call.float() for call in calls]
    if len(frames) == 1 and len(frames[0]) % n == 0:
        return frames[0].unflatten(0, (n, -1)).mean(1).cpu()
    if all(len(frame) == n for frame in frames):
        return torch.stack(frames).mean(0).cpu()
    raise ValueError(f"layer: expected outputs for {n} images or clips, got {[len(frame) for frame in frames]} rows")


@dataclass(frozen=True)
class Neighbours:
    """The k nearest of each chosen image, nearest first."""

    index: Tensor  # Q k: rows of the features
    distance: Tensor  # Q k, float64: Euclidean, or 1 - cosine (0 to 2)


def neighbours(
    features: Tensor,
    chosen: Tensor,
    *,
    k: int = 5,
    metric: Literal["cosine", "euclidean"] = "cosine",
    batch: int = 256,
) -> Neighbours:
    """The exact nearest neighbours of the rows `chosen` (Q) among all rows of features (N x D) but themselves.

    Every distance is computed, in float64, `batch` chosen rows at a time; of equally near rows the first comes first.
    Raises ValueError for a `k` that is not 1 to N - 1, and for another metric.
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric: expected 'cosine' or 'euclidean', got {metric!r}")
    if not 1 <= k < len(features):
        raise ValueError(f"k: expected 1 to {len(features) - 1}, got {k}")
    bank, chosen = features.double(), torch.as_tensor(chosen)
    if metric == "cosine":
        bank = bank / bank.norm(dim=1, keepdim=True).clamp(min=1e-12)
    found = []
    for rows in chosen.split(batch):
        if metric == "cosine":
            far = 1 - bank[rows] @ bank.T
        else:
            far = torch.cdist(bank[rows], bank, compute_mode="donot_use_mm_for_euclid_dist")
        far[torch.arange(len(rows)), rows] = torch.inf
        found.append(far.sort(dim=1, stable=True))
    return Neighbours(torch.cat([f.indices[:, :k] for f in found]), torch.cat([f.values[:, :k] for f in found]))


@dataclass(frozen=True)
class Space:
    """A map of features, ready to be plotted: one point an image, reals first, then the fakes by round.

    A plot draws `points[~fake]` in the colour of reals, `points[fake & (round == r)]` in the colour of round r, and
    prints `how`. Distances mean something in "PCA"; in "t-SNE" only who is near whom does, so it has no axes.
    """

    points: np.ndarray  # N 2, float32
    fake: np.ndarray  # N, bool
    round: np.ndarray  # N, int64: the round that forged it; -1 for reals
    row: np.ndarray  # N, int64: its row in the features it came with
    how: str  # "t-SNE" or "PCA", with its settings


def feature_space(real: Tensor, fakes: Mapping[int, Tensor], *, seed: int = 0, perplexity: float = 30.0) -> Space:
    """Features of reals (N x D) and of fakes by round in two dimensions.

    t-SNE (van der Maaten and Hinton 2008) of the first 50 principal components, started from the first two, where
    scikit-learn is installed; PCA under its own name where it is not. The same features and seed give the same map.
    Perplexity is at most a third of the images. Raises ValueError for fewer than 4 images.
    """
    parts = [real, *fakes.values()]
    features = torch.cat([part.double().cpu() for part in parts])
    if len(features) < 4:
        raise ValueError(f"a map needs at least 4 images, got {len(features)}")
    reduced = principal(features, 50)
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        points, how = reduced[:, :2].numpy(), "PCA"
    else:
        perplexity = min(perplexity, (len(features) - 1) / 3)
        spread = float(reduced[:, 0].std()) or 1.0  # scikit-learn's start: the first component at 1e-4
        start = (reduced[:, :2] / spread * 1e-4).float().numpy()
        points = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(reduced.float().numpy())
        how = f"t-SNE, perplexity {perplexity:.3g}"
    sizes = [len(part) for part in parts]
    rounds = np.repeat([-1, *fakes], sizes)
    return Space(points.astype(np.float32), rounds >= 0, rounds, np.concatenate([np.arange(n) for n in sizes]), how)


def principal(features: Tensor, count: int) -> Tensor:
    """Scores of the first `count` principal components, N x count, zeros where there are fewer.

    A component's sign is that which makes its largest loading positive.
    """
    centred = features.double() - features.double().mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:count]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    scores = centred @ axes.T
    return torch.cat([scores, scores.new_zeros(len(scores), max(0, count - scores.shape[1]))], 1)

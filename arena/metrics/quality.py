"""How near the fakes are to the reals: a panel of distances, each with its floor.

No single number sees everything: random-convolution distances (rfd-) see colour, content and collapse, the kernel ones
(kid-) compare small sets without bias but do not see collapse, the spectrum distance (sfd) sees blur, noise and
up-sampling artefacts. FID joins them only where its own weights are present; nothing else is ever called so.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arena.errors import InputError
from arena.metrics.features import Extractor, Inception, RandomConv, Spectrum, find_inception_weights
from arena.metrics.frechet import Reference
from arena.metrics.intervals import Interval, frechet_interval, kernel_interval
from arena.metrics.kernel import KernelReference

SEEDS = (0, 1, 2)

Score = dict[str, Any]


@dataclass(frozen=True)
class Distance:
    """One line of the panel: a name, the features it looks at, and how it compares two sets of them."""

    name: str
    extractor: Extractor
    reference: Callable[[Any], Any]
    interval: Callable[[Any, Any], Interval]


@dataclass
class Panel:
    """The distances of one device, with what is known of each real set so far. Made by `quality_panel`."""

    distances: list[Distance]
    note: str | None
    _seen: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False)

    def score(self, fakes: Tensor, reals: Tensor, floor_reals: Tensor) -> dict[str, Score]:
        """Every distance from fakes to reals, as plain numbers ready for JSON.

        Images are N 3 S S, uint8 or float in [-1, 1], at least 3 a set (InputError); reals and fakes should have taken
        the same path (resize, crop, uint8). `floor_reals` shares no image with `reals`. A name maps to
        `value`, `low`, `high` (95 %, block jackknife over the fakes), `n` (fakes), `floor` (the same distance from
        `floor_n` floor reals to the reals: what a perfect generator would get; `floor_n` = n where there are so many),
        `n_real`, `reference` (sha256 of the reals) and `features`. What is computed of a real set is kept, and found
        again by the hash of its pixels.
        """
        for name, images in (("fakes", fakes), ("reals", reals), ("floor reals", floor_reals)):
            if len(images) < 3:
                raise InputError(f"expected at least 3 {name} for a distance, got {len(images)}.")
        floor_n = min(len(fakes), len(floor_reals))
        floor_reals = subset(floor_reals, floor_n)
        of_reals, of_floor = _hash(reals), _hash(floor_reals)
        features: dict[str, Tensor] = {}
        scores = {}
        for distance in self.distances:
            extract = distance.extractor
            if extract.name not in features:
                features[extract.name] = extract(fakes)
            rows = self._once((extract.name, of_reals), extract, reals)
            floor_rows = self._once((extract.name, of_floor), extract, floor_reals)
            reference = self._once((distance.name, of_reals), distance.reference, rows)
            floor = self._once((distance.name, of_reals, of_floor), reference.distance, floor_rows)
            value, low, high = distance.interval(reference, features[extract.name])
            scores[distance.name] = {
                "value": value,
                "low": low,
                "high": high,
                "n": len(fakes),
                "floor": floor,
                "floor_n": floor_n,
                "n_real": len(reals),
                "reference": of_reals,
                "features": extract.describe,
            }
        return scores

    def _once(self, key: tuple[str, ...], make: Callable[..., Any], *arguments: Any) -> Any:
        if key not in self._seen:
            self._seen[key] = make(*arguments)
        return self._seen[key]


def quality_panel(device: str | torch.device = "cpu", inception: str | Path | None = "auto") -> Panel:
    """The panel of a device. `inception`: a file with FID's weights, "auto" (where they are found), or None (without).

    Names, in order: `fid` (only with the weights), `rfd-conv704-s0` to `-s2`, `kid-conv704-s0` to `-s2`, `sfd`.
    `note` is one line about missing weights, or None. Raises InputError for weights that are not FID's.
    """
    weights = find_inception_weights() if inception == "auto" else inception
    panel = []
    if weights is not None:
        panel.append(Distance("fid", Inception(weights, device=device), Reference, frechet_interval))
    nets = [RandomConv(seed, device) for seed in SEEDS]
    panel += [Distance(net.distance, net, Reference, frechet_interval) for net in nets]
    panel += [Distance(f"kid-{net.name}", net, KernelReference, kernel_interval) for net in nets]
    panel.append(Distance("sfd", Spectrum(device), Reference, frechet_interval))
    note = None
    if weights is None:
        why = "its Inception weights are not on this machine (`arena doctor` says where they go)"
        reason = why if inception == "auto" else "asked to do without its Inception weights"
        note = f"No FID: {reason}. The distances rfd, kid and sfd stand in for it; they are not FID."
    return Panel(panel, note)


def subset(images: Tensor, n: int) -> Tensor:
    """`n` of the images, the same ones every time: by a fixed shuffle, so that no order of classes matters."""
    if n >= len(images):
        return images
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:n].sort().values]


def _hash(images: Tensor) -> str:
    pixels = images.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{pixels.dtype} {tuple(pixels.shape)}".encode())
    digest.update(pixels.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

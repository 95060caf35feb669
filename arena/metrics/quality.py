"""How good the fakes are: a panel of figures, each with its interval and with what reals get against other reals.

No single number sees everything: random-convolution distances (rfd-) see colour, content and collapse, the kernel ones
(kid-) compare small sets without bias but do not see collapse, the spectrum distance (sfd) sees blur, noise and
up-sampling artefacts, patches of Laplacian bands (swd-) local structure; precision and density ask whether the fakes
look real, recall and coverage whether they are as varied; `copied` finds training images handed in again. FID and the
Inception Score join them only where the network's own weights are present; nothing else is ever called so.
docs/quality.md says what each sees, and what it is blind to.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from arena.errors import InputError
from arena.metrics import measures
from arena.metrics.features import Extractor, Inception, RandomConv, Spectrum, find_inception_weights
from arena.metrics.measures import LOWER, Measure, Score
from arena.metrics.swd import Patches

SEEDS = (0, 1, 2)
PATCHES = {"round": (16, 128), "full": (128, 512)}  # an image and band, and directions


@dataclass
class Panel:
    """The measures of one device, with what is known of each real set so far. Made by `quality_panel`.

    `distances` are the measures whose figures are distances, `others` the rest; `note` says what is missing and why.
    """

    distances: list[Measure]
    note: str | None
    others: list[Measure] = field(default_factory=list)
    copies: Literal["round", "full"] | None = None  # which guard looks for copies
    _seen: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False)

    def score(self, fakes: Tensor, reals: Tensor, floor_reals: Tensor, known: Tensor | None = None) -> dict[str, Score]:
        """Every figure of the fakes, as plain numbers ready for JSON.

        Images are N 3 S S, uint8 or float in [-1, 1], at least 3 a set (InputError); reals and fakes should have taken
        the same path (resize, crop, uint8). `floor_reals` shares no image with `reals`. Of fakes and floor reals as
        many are looked at as there are of the fewer, drawn by `subset`, so that a figure and its floor compare. A name
        maps to `value`, `low`, `high` (95 %, block jackknife over the fakes, of `kid-` over both sides; None where no
        block moves the figure), `n` (fakes), `floor` (the same figure of `floor_n` = n floor reals against the reals:
        what a perfect generator would get), `n_real`, `reference` (sha256 of the reals), `features` and `better`
        ("lower", "higher" or "near 1"). Beside these: of `sfd` a `curve`, of `swd-` its `levels`, of `is` the `sd` over
        its `splits`.

        `known`, where the panel looks for copies: the images that the generator was trained on. The figure `copied` is
        the share of all fakes that are copies of them; see `arena.metrics.memory.Known.score`.

        What is computed of a real set is kept, and found again by the hash of its pixels. A figure for which a set is
        too small is left out.
        """
        for name, images in (("fakes", fakes), ("reals", reals), ("floor reals", floor_reals)):
            if len(images) < 3:
                raise InputError(f"expected at least 3 {name} for a distance, got {len(images)}.")
        n = min(len(fakes), len(floor_reals))
        everyone, fakes, floor_reals = fakes, subset(fakes, n), subset(floor_reals, n)
        of_reals, of_floor = _hash(reals), _hash(floor_reals)
        features: dict[str, Tensor] = {}
        scores = {}
        for measure in [*self.distances, *self.others]:
            extract = measure.extractor
            if min(n, len(reals)) < measure.fewest:
                continue
            if extract.name not in features:
                features[extract.name] = extract(fakes)
            rows = self._once((extract.name, of_reals), extract, reals)
            floor_rows = self._once((extract.name, of_floor), extract, floor_reals)
            reference = self._once((measure.name, of_reals), measure.reference, rows)
            floors = self._once((measure.name, of_reals, of_floor), measure.floor, reference, floor_rows)
            for name, found in measure.compare(reference, features[extract.name], min(fakes.shape[-2:])).items():
                scores[name] = {
                    **{key: found.pop(key) for key in ("value", "low", "high")},
                    "n": n,
                    "floor": floors[name],
                    "floor_n": n,
                    "n_real": len(reals),
                    "reference": of_reals,
                    "features": extract.describe,
                    "better": measure.better[name],
                    **found,
                }
        if self.copies and known is not None and len(known):
            scores["copied"] = self._copied(everyone, known, reals, of_reals)
        return scores

    def _copied(self, fakes: Tensor, known: Tensor, reals: Tensor, of_reals: str) -> Score:
        from arena.metrics.memory import Known

        of_known = _hash(known)
        guard = self._once(("copied", of_known, of_reals), Known, known, reals, self.copies == "full")
        told = {"n": len(fakes), "n_real": len(known), "reference": of_known, "better": LOWER}
        return {**guard.score(fakes), **told, "features": guard.describe}

    def _once(self, key: tuple[str, ...], make: Callable[..., Any], *arguments: Any) -> Any:
        if key not in self._seen:
            self._seen[key] = make(*arguments)
        return self._seen[key]


def quality_panel(
    device: str | torch.device = "cpu",
    inception: str | Path | None = "auto",
    scores: Literal["distances", "round", "full"] = "distances",
    features: Sequence[Extractor] = (),
) -> Panel:
    """The panel of a device. `inception`: a file with FID's weights, "auto" (where they are found), or None (without).

    Names, in order: `fid` (only with the weights), `rfd-conv704-s0` to `-s2`, `kid-conv704-s0` to `-s2`, `sfd`; then,
    unless `scores` is "distances", `swd-16x128`, `precision-`, `recall-`, `density-` and `coverage-conv704-s0`, with
    the weights these four on `inception-2048` and `is`, and `copied` where known images are given. "full" takes
    `swd-128x512` in place of the cheap one, and `kid-inception-2048`. More `features` get a Fréchet distance under
    their own name, a `kid-` and, unless "distances", the four. `note` is one line about missing weights, or None.
    Raises InputError for weights that are not FID's.
    """
    weights = find_inception_weights() if inception == "auto" else inception
    nets: list[Extractor] = [RandomConv(seed, device) for seed in SEEDS]
    fid = None if weights is None else Inception(weights, device=device)
    panel = [measures.frechet(fid)] if fid else []
    panel += [measures.frechet(net) for net in nets]
    panel += [measures.kernel(net) for net in nets]
    panel.append(measures.spectrum(Spectrum(device)))
    panel += [make(extractor) for extractor in features for make in (measures.frechet, measures.kernel)]
    others: list[Measure] = []
    if scores != "distances":
        if fid and scores == "full":
            panel.append(measures.kernel(fid))
        panel.append(measures.sliced(Patches(*PATCHES[scores], device)))
        others += [measures.manifold(extractor) for extractor in (nets[0], *([fid] if fid else []), *features)]
        if fid and weights is not None:
            others.append(measures.inception(fid, weights))
    note = None
    if weights is None:
        why = "its Inception weights are not on this machine (`arena doctor` says where they go)"
        reason = why if inception == "auto" else "asked to do without its Inception weights"
        score = "" if scores == "distances" else " and no Inception Score"
        note = f"No FID{score}: {reason}. The distances rfd, kid and sfd stand in for it; they are not FID."
    return Panel(panel, note, others, None if scores == "distances" else scores)


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

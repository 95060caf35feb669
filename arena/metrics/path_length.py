"""Path length: how far an image moves, in the eyes of a network, when its latent takes a small step.

    E[ d(G(lerp(w1, w2; t)), G(lerp(w1, w2; t + eps))) / eps^2 ],   w1 = f(z1), w2 = f(z2),  eps = 1e-4

Karras, Laine, Aila 2019, arXiv 1812.04948, section 4.1, eq. 3 (in W). t is uniform in [0, 1] ("full") or 0 ("end"); the
mean leaves out what lies beyond the 1st and 99th percentile (the authors' published code). It is called PPL for one d
alone: LPIPS on VGG16 with the official weights (`Lpips`). Without these files the same formula on the maps of untrained
convolutions (`RandomMaps`) has a name of its own; figures of different names cannot be compared.

A distance has `name`, `score` (what a path length with it is called), `describe` (the protocol), `dtype` (the precision
that it and the generator run in) and `device`; it maps images B 3 H W in [-1, 1], twice, to distances B.
"""

import copy
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.nn import functional as F

from arena.errors import InputError
from arena.metrics.features import RandomConv
from arena.seeds import rng

Progress = Callable[[int, int], None]
# (variable, file in torch.hub's cache, where it comes from, sha256): VGG16's ImageNet weights, and LPIPS v0.1's own
TRUNK = (
    "ARENA_VGG16_WEIGHTS", "vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
)  # fmt: skip
HEADS = (
    "ARENA_LPIPS_WEIGHTS", "lpips-v0.1-vgg.pth",
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
)  # fmt: skip


class Distance(Protocol):
    name: str
    score: str
    describe: str
    dtype: torch.dtype
    device: torch.device

    def __call__(self, x: Tensor, y: Tensor) -> Tensor: ...


class RandomMaps:
    """Squared difference of the maps of `RandomConv`'s four untrained layers: over channels summed, positions averaged.

    Unlike its means and standard deviations, the maps feel where a thing is. In double precision: at eps = 1e-4 the two
    images differ by a ten-thousandth, and of a generator whose images hardly move float32 leaves rounding alone.
    """

    dtype = torch.float64

    def __init__(self, seed: int = 0, device: str | torch.device = "cpu"):
        conv = RandomConv(seed, device)
        self.name = f"conv{sum(conv.widths)}-s{seed}"
        self.score = f"path-length-{self.name}"
        self.describe = conv.describe.replace("mean and std of each channel", "squared difference of maps, float64")
        self.device, self.layers = conv.device, conv.layers.to(self.dtype)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        found = x.new_zeros(len(x))
        for layer in self.layers:
            x, y = F.relu(layer(x)), F.relu(layer(y))
            found = found + (x - y).square().sum(1).mean((1, 2))
        return found


class Lpips:
    """LPIPS v0.1 on VGG16: weighted squared difference of unit-length features after each of five blocks, float32.

    Zhang, Isola, Efros, Shechtman, Wang 2018, arXiv 1801.03924, eq. 1; input scaling and the 1e-10 that keeps a zero
    vector finite are the authors' published code (BSD-2-Clause; `HEADS` are their weights, `TRUNK` torchvision's).
    Raises InputError where a file is missing, damaged or not the official one.
    """

    name, score, dtype = "lpips-vgg-v0.1", "ppl", torch.float32
    channels = (64, 128, 256, 512, 512)

    def __init__(self, device: str | torch.device = "cpu"):
        from torchvision.models.vgg import cfgs, make_layers

        files = find_lpips_weights()
        if files is None:
            raise InputError(missing_weights())
        (trunk, trunk_sha), (heads, heads_sha) = (
            official(file, what) for file, what in zip(files, (TRUNK, HEADS), strict=True)
        )
        self.device = torch.device(device)
        vgg = make_layers(cfgs["D"], batch_norm=False)[:30]  # up to relu5_3
        try:
            vgg.load_state_dict({k: trunk[f"features.{k}"] for k in vgg.state_dict()})
            self.heads = [
                heads[f"lin{i}.model.1.weight"].view(c).to(self.device, self.dtype) for i, c in enumerate(self.channels)
            ]
        except (KeyError, RuntimeError) as error:
            raise InputError(f"{files[0]} or {files[1]} does not fit LPIPS: {' '.join(str(error).split())}.") from error
        self.vgg = vgg.requires_grad_(False).eval().to(self.device)
        self.shift = torch.tensor([-0.030, -0.088, -0.188], device=self.device).view(3, 1, 1)
        self.scale = torch.tensor([0.458, 0.448, 0.450], device=self.device).view(3, 1, 1)
        self.describe = f"LPIPS v0.1 (weights sha256 {heads_sha}) on VGG16 (weights sha256 {trunk_sha}), float32"

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(self.heads, self.units(x), self.units(y), strict=True)
        return sum(torch.einsum("bchw,c->bhw", (a - b).square(), head).mean((1, 2)) for head, a, b in pairs)  # type: ignore[return-value]

    def units(self, images: Tensor) -> Iterator[Tensor]:
        """The features after each block, of length 1 at every position."""
        x = (images - self.shift) / self.scale
        for layer in [*self.vgg, nn.MaxPool2d(2)]:
            if isinstance(layer, nn.MaxPool2d):
                yield x / (x.norm(dim=1, keepdim=True) + 1e-10)
            x = layer(x)


def find_lpips_weights() -> tuple[Path, Path] | None:
    """VGG16's and LPIPS's files, at $ARENA_VGG16_WEIGHTS and $ARENA_LPIPS_WEIGHTS or in torch.hub's cache, else None.

    Raises InputError where a variable names no file.
    """
    found = []
    for variable, name, url, _ in (TRUNK, HEADS):
        named = os.environ.get(variable)
        if named and not Path(named).is_file():
            raise InputError(f"${variable} is {named}: no such file. Point it at {name} ({url}) or unset it.")
        found.append(Path(named) if named else cached(name))
    return (found[0], found[1]) if all(file.is_file() for file in found) else None


def missing_weights() -> str:
    """One line: what PPL needs and where it goes."""
    return "PPL needs two files: " + "; ".join(
        f"{url} (sha256 starts {sha[:8]}) as {cached(name)} or at ${variable}"
        for variable, name, url, sha in (TRUNK, HEADS)
    )


def cached(name: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def official(file: Path, what: tuple[str, ...]) -> tuple[dict[str, Tensor], str]:
    """The state dict of a file whose sha256 has been checked, and that sha256."""
    *_, url, expected = what
    try:
        with open(file, "rb") as handle:
            sha = hashlib.file_digest(handle, "sha256").hexdigest()
        if sha != expected:
            raise InputError(
                f"expected {url} (sha256 {expected[:16]}...) in {file}, got {sha[:16]}... . "
                "Download it anew, or take the file out: then the path length goes by another name than PPL."
            )
        return torch.load(file, map_location="cpu", weights_only=True), sha
    except InputError:
        raise
    except Exception as error:  # whatever open and torch trip over
        raise InputError(f"cannot load {file}: {' '.join(str(error).split())[:120]}. Download {url} anew.") from error


def find_distance(device: str | torch.device = "cpu") -> Distance:
    """LPIPS where its weights are at hand, else the maps of random convolutions."""
    if find_lpips_weights():
        return Lpips(device)
    return RandomMaps(0, "cpu" if torch.device(device).type == "mps" else device)  # mps has no float64


def path_length(
    player: Any,
    distance: Distance,
    n: int,
    *,
    sampling: Literal["full", "end"] = "full",
    seed: int = 0,
    eps: float = 1e-4,
    crop: bool = False,
    batch: int = 16,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Path length in W of a player with `latent`, `map` and `decode`, over n >= 3 pairs (the paper: 100,000).

    Both images of a pair get the same noise. `crop` keeps rows 3/8 to 7/8 and columns 2/8 to 6/8, where FFHQ has its
    faces; images of 512 px and more are averaged down to 256 (both: the authors' published code). Returns `name`,
    `value`, `low`, `high` (95 %, see `trimmed_mean`), `n`, `space`, `sampling`, `eps`, `crop`, `features`.
    """
    draws, found = rng("path length", seed), []
    player = twin(player, distance.device, distance.dtype)
    with torch.inference_mode():
        for start in range(0, n, batch):
            drawn = [
                (torch.randn(2, player.latent, generator=draws), torch.rand(1, generator=draws))
                for _ in range(min(batch, n - start))
            ]  # pair by pair: a pair is the same whatever the batch
            z = torch.stack([z for z, _ in drawn], 1).to(distance.device, distance.dtype)
            t = torch.stack([t for _, t in drawn]).to(z)
            if sampling == "end":
                t.zero_()
            a, b = player.map(z.flatten(0, 1)).chunk(2)
            x, y = (
                shown(player.decode(torch.lerp(a, b, place), rng=rng("path length", seed, start)), crop)
                for place in (t, t + eps)
            )
            found.append(distance(x, y).double().cpu() / eps**2)
            if progress:
                progress(start + len(drawn), n)
    value, low, high = trimmed_mean(torch.cat(found).numpy())
    return {
        "name": distance.score, "value": value, "low": low, "high": high, "n": n, "space": "w", "sampling": sampling,
        "eps": eps, "crop": crop, "features": distance.describe,
    }  # fmt: skip


def shown(images: Tensor, crop: bool) -> Tensor:
    """What of the images is compared."""
    if crop:
        c = images.shape[-1] // 8
        images = images[:, :, 3 * c : 7 * c, 2 * c : 6 * c]
    factor = images.shape[-1] // 256
    return F.avg_pool2d(images, factor) if factor > 1 else images


def trimmed_mean(values: ArrayLike, percent: float = 1.0, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of N >= 3 values, without those below and above the outermost percentiles.

    The interval is Student's t on the winsorised variance (Tukey, McLaughlin 1963); low is never below 0.
    """
    x = np.asarray(values, dtype=np.float64)
    low = np.percentile(x, percent, method="lower")
    high = np.percentile(x, 100 - percent, method="higher")
    kept = x[(low <= x) & (x <= high)]
    error = x.clip(low, high).std(ddof=1) * np.sqrt(len(x)) / len(kept)
    reach = float(stdtrit(len(kept) - 1, (1 + level) / 2) * error)
    return float(kept.mean()), max(0.0, float(kept.mean()) - reach), float(kept.mean()) + reach


def twin(player: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A player like this one whose nets are copies, on this device and in this precision."""
    made = copy.copy(player)
    for name, part in vars(player).items():
        if isinstance(part, nn.Module):
            setattr(made, name, copy.deepcopy(part).to(device, dtype))
    return made

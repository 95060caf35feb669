"""Spectrum: how much power an image has at each radial frequency, and a logistic regression on that. The baseline.

Up-sampling layers leave traces in the spectrum that a linear model already sees: Durall, Keuper and Keuper, "Watch your
up-convolution", CVPR 2020, arXiv 2003.01826 (azimuthal average); Zhang, Karaman and Chang, WIFS 2019, arXiv 1907.06515.
Here: luma and two chroma planes, the mean of the log power in each ring (a smooth fall-off) and the log of its mean (a
few strong peaks, as checkerboards have them).

Shapes: B batch, C channels (3), H height, W width, D features, N rows. Images lie in [-1, 1].
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from detect.detector import Labelled

FLOOR = 1e-6  # power below which nothing is seen: a fifth of what rounding to 256 grey levels adds, (1 / 127.5)^2 / 12


class LogPower(nn.Module):
    """Log power of luma and chroma: images B 3 H W to B 3 H W//2+1, frequency zero in the corner; no parameters."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1:-2] == (3,), f"expected images B 3 H W, got {tuple(images.shape)}"
        # Luma and colour differences of ITU-R BT.601.
        planes = images.new_tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
        spectrum = torch.fft.rfft2(torch.einsum("dc,bchw->bdhw", planes, images), norm="ortho")
        return (spectrum.real**2 + spectrum.imag**2 + FLOOR).log()


class Regression(nn.Module):
    """Features of images, a memory of labelled ones, and the ridge regression on it: all of it buffers, in float64."""

    def __init__(self, bins: int, capacity: int) -> None:
        super().__init__()
        self.bins, size = bins, 6 * bins
        self.power = LogPower()
        self.register_buffer("rows", torch.zeros(capacity, size, dtype=torch.float64))
        self.register_buffer("labels", torch.zeros(capacity, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("std", torch.ones(size, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(size + 1, dtype=torch.float64))  # the last one is the bias

    rows: Tensor
    labels: Tensor
    seen: Tensor
    mean: Tensor
    std: Tensor
    weight: Tensor

    def features(self, images: Tensor) -> Tensor:
        """Ring means, B D with D = 6 bins, float64: of the log power, then the log of the power's."""
        log_power = self.power(images.float()).flatten(2)
        ring = rings(*images.shape[-2:], self.bins, images.device)
        return torch.cat([log_power @ ring.T, (log_power.exp() @ ring.T).log()], dim=2).flatten(1).double()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, B, float32."""
        return ((self.features(images) - self.mean) / self.std @ self.weight[:-1] + self.weight[-1]).float()

    def remember(self, features: Tensor, labels: Tensor, seen: int) -> None:
        """Write rows N D behind the `seen` ones so far, over the oldest once the memory is full."""
        place = torch.arange(seen, seen + len(labels), device=labels.device) % len(self.rows)
        self.rows[place[-len(self.rows) :]] = features[-len(self.rows) :].double()
        self.labels[place[-len(self.rows) :]] = labels[-len(self.rows) :].double()
        self.seen.fill_(seen + len(labels))

    def newton(self, count: int, ridge: float) -> Tensor:
        """Take one Newton step on the first `count` rows; the mean cross-entropy after it.

        Minimises sum(cross-entropy) + ridge / 2 |weight|^2 over standardised features, the bias free: scikit-learn's
        LogisticRegression with C = 1 / ridge. The step is halved while it would not help.
        """
        rows, labels = self.rows[:count], self.labels[:count]
        self.mean.copy_(rows.mean(0))
        std = rows.std(0, correction=0)
        self.std.copy_(torch.where(std > 1e-9, std, 1.0))
        x = torch.cat([(rows - self.mean) / self.std, rows.new_ones(count, 1)], dim=1)
        penalty = torch.full_like(self.weight, ridge)
        penalty[-1] = 1e-9  # only so that there is an answer before both labels have been seen
        fake = torch.sigmoid(x @ self.weight)
        gradient = x.T @ (fake - labels) + penalty * self.weight
        hessian = (x.T * (fake * (1 - fake))) @ x + penalty.diag()
        step = torch.linalg.solve(hessian, gradient)

        lengths = torch.tensor([*(0.5**k for k in range(12)), 0.0]).to(step)
        tried = self.weight[:, None] - step[:, None] * lengths
        logits = x @ tried
        cost = (softplus(logits) - labels[:, None] * logits).sum(0) + (penalty[:, None] * tried**2).sum(0) / 2
        self.weight.copy_(tried.gather(1, cost.argmin().expand(len(tried), 1))[:, 0])
        return binary_cross_entropy_with_logits(x @ self.weight, labels)


class Spectrum:
    """Tell fakes from reals by their radial power spectrum: seconds of training on a CPU, images of any size.

    bins: rings between the lowest frequency and the corner of the spectrum.
    ridge: pull of the standardised weights to zero (see `Regression.newton`).
    capacity: how many of the latest images are remembered, labels included.
    """

    frames = 1

    def __init__(self, *, bins: int = 32, ridge: float = 10.0, capacity: int = 8192) -> None:
        for name, value in {"bins": bins, "capacity": capacity}.items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value!r}")
        if not ridge > 0:
            raise ValueError(f"ridge: expected more than 0, got {ridge!r}")
        self.model = Regression(bins, capacity)
        self.ridge = ridge
        self.provenance = "from scratch"

    @property
    def layer(self) -> nn.Module:
        """The log power spectrum: a heat map on it shows frequencies, not places."""
        return self.model.power

    @torch.no_grad()
    def fit(self, fabric, batches: Iterable[Labelled], *, val: Iterable[Labelled] = ()) -> Iterator[dict[str, Tensor]]:
        """Remember each batch and take one Newton step on all that is remembered; yield the `loss` over it.

        Several processes share what they saw, so that all end with the same weights. `val` is not used.
        """
        model = fabric.to_device(self.model)  # not setup(): there is no gradient to share
        seen = int(model.seen)
        for images, labels in batches:
            features = fabric.all_gather(model.features(images)).reshape(-1, model.rows.shape[1])
            labels = fabric.all_gather(labels).reshape(-1)
            model.remember(features, labels, seen)
            seen += len(labels)
            loss = model.newton(min(seen, len(model.rows)), self.ridge)
            yield {"loss": loss}

    def score(self, images: Tensor) -> Tensor:
        """Logits, B, float32, of images, float B 3 H W in [-1, 1]."""
        return self.model(images)


@lru_cache(maxsize=8)
def rings(height: int, width: int, bins: int, device: torch.device) -> Tensor:
    """Weights that average a half spectrum over each of `bins` overlapping rings: bins H*(W//2+1), rows sum to 1.

    Rings are spaced evenly from 0 to the corner, sqrt(1/2) cycles a pixel, for every image size; a ring is never
    thinner than the spectrum's own grid, so that small images fill every one. Frequency zero, the brightness, is left
    out.
    """
    with torch.inference_mode(False):  # what is cached must serve a later backward pass
        down, across = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
        radius = (down[:, None] ** 2 + across**2).sqrt()
        spacing = 0.5**0.5 / bins
        centre = (torch.arange(bins) + 0.5) * spacing
        thickness = max(spacing, 1 / min(height, width))
        weight = (1 - (radius - centre[:, None, None]).abs() / thickness).clamp(min=0)
        twice = torch.full((width // 2 + 1,), 2.0)  # a column of the half spectrum stands for its mirror image too
        twice[0] = 1
        if width % 2 == 0:
            twice[-1] = 1
        weight = (weight * twice).flatten(1)
        weight[:, 0] = 0
        return (weight / weight.sum(1, keepdim=True)).to(device)

"""CNNSpot: a ResNet-50 with one logit, trained with blur and JPEG so that it holds on generators it has never seen.

Wang, Wang, Zhang, Owens and Efros, "CNN-generated images are surprisingly easy to spot ... for now", CVPR 2020,
arXiv 1912.11035. The five published models are `p_blur` / `p_jpeg` of 0.5 / 0.5 (the default), 0.1 / 0.1, 0 / 0 (no
augmentation), 0.5 / 0 (blur only) and 0 / 0.5 (JPEG only).

Where this differs from the published training: the validation images are not augmented (there: the same p, with
sigma 1.5 and quality 65, which makes the stopping rule noisy), images are scored whole (there: the centre crop, or
`--no_crop`), and an epoch is a number of steps, `val_every`.

Shapes: B batch, C channels (3), H height, W width. Images lie in [-1, 1].
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models import ResNet50_Weights, resnet50

from detect.augment import Mode, blur_jpeg, random_crop_flip
from detect.detector import Labelled
from detect.weights import imagenet, start_from

IMAGENET = ResNet50_Weights.IMAGENET1K_V1  # the weights of the paper's time


class CNNSpot:
    """Tell fakes from reals by a ResNet-50 (23,510,081 parameters).

    weights: "imagenet" takes torchvision's ImageNet weights if their file lies in torch.hub's cache and starts from
        scratch if not, without ever downloading; a path takes a state dict (.pth, .safetensors), its last layer too if
        that has one logit; None starts from scratch. What happened stands in `provenance`.
    stem_stride: early down-sampling of the stem: 4 as published, 2 without max-pooling, 1 without any (for small
        images). The parameters are the same, so every weights file fits.
    crop: side of the random training crop in pixels (smaller images are taken whole); None takes none.
    p_blur, p_jpeg, mode: see `detect.augment`.
    val_every: steps between two looks at the validation set: an epoch of 720,000 images at batch 64.
    patience, min_gain, min_gain_later, min_lr: lr falls tenfold when validation accuracy has not risen by `min_gain`
        for `patience` looks; after the first fall it must rise by `min_gain_later` (published code; the paper has one
        figure, 0.001); training ends when lr falls below `min_lr`.
    channels_last: memory layout; faster on recent GPUs in half precision, results differ by rounding.
    """

    frames = 1

    def __init__(
        self,
        *,
        weights: str | None = "imagenet",
        stem_stride: Literal[4, 2, 1] = 4,
        crop: int | None = 224,
        p_blur: float = 0.5,
        p_jpeg: float = 0.5,
        mode: Mode = "fast",
        lr: float = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.999,
        val_every: int = 11_250,
        patience: int = 5,
        min_gain: float = 0.001,
        min_gain_later: float = 0.002,
        min_lr: float = 1e-6,
        channels_last: bool = False,
    ) -> None:
        if stem_stride not in (1, 2, 4):
            raise ValueError(f"stem_stride: expected 4, 2 or 1, got {stem_stride!r}")
        if mode not in ("fast", "exact"):
            raise ValueError(f"mode: expected 'fast' or 'exact', got {mode!r}")
        if not (0 <= p_blur <= 1 and 0 <= p_jpeg <= 1):
            raise ValueError(f"p_blur, p_jpeg: expected probabilities in 0 .. 1, got {p_blur!r} and {p_jpeg!r}")
        for name, value in {"crop": crop or 1, "val_every": val_every, "patience": patience}.items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value!r}")
        self.net = resnet50(num_classes=1)
        nn.init.normal_(self.net.fc.weight, 0.0, 0.02)
        self.provenance = start_from(self.net, weights, published=IMAGENET.url, what="a ResNet-50")
        if stem_stride < 4:
            self.net.maxpool = nn.Identity()
        if stem_stride == 1:
            self.net.conv1.stride = (1, 1)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.layout)
        self.crop, self.val_every = crop, val_every
        self.augment = partial(blur_jpeg, p_blur=p_blur, p_jpeg=p_jpeg, mode=mode)
        self.min_gain_later, self.min_lr = min_gain_later, min_lr
        self.opt = torch.optim.Adam(self.net.parameters(), lr=lr, betas=(beta1, beta2))
        self.lr = lr
        self.rule: dict[str, Any] = {"patience": patience - 1, "threshold": min_gain - SLACK}
        self._start_rule()

    @property
    def layer(self) -> nn.Module:
        """The last block of convolutions, for Grad-CAM."""
        return self.net.layer4[-1]

    def fit(self, fabric, batches: Iterable[Labelled], *, val: Iterable[Labelled] = ()) -> Iterator[dict[str, Tensor]]:
        """Train; yield the detached `loss` (binary cross-entropy) and `lr` of each step.

        Ends with `batches`, or when the learning rate has fallen below `min_lr`; the next fit starts with the full rate
        and a fresh rule.
        """
        fabric.to_device(self.net)
        self.opt.load_state_dict(self.opt.state_dict())  # torch moves Adam's moments to where the net is now
        net, opt = fabric.setup(self.net, self.opt)
        step = self._steps_done()
        batches = iter(batches)
        while self._lr() >= self.min_lr and (batch := next(batches, None)) is not None:
            images, labels = batch
            images = random_crop_flip(self.augment(images), self.crop)
            net.train()
            logits = net(self._normalise(images)).squeeze(1)
            loss = binary_cross_entropy_with_logits(logits.float(), labels.float())
            opt.zero_grad()
            fabric.backward(loss)
            opt.step()
            step += 1
            losses = {"loss": loss.detach(), "lr": loss.new_full((), self._lr())}
            if step % self.val_every == 0:
                self._look(fabric, val)
            yield losses
        self._start_rule()  # the next fit brings other data

    def score(self, images: Tensor) -> Tensor:
        """Logits, B, float32, of whole images, float B C H W in [-1, 1]; the net is put in eval mode."""
        self.net.eval()
        return self.net(self._normalise(images)).squeeze(1).float()

    def _normalise(self, images: Tensor) -> Tensor:
        assert images.ndim == 4, f"expected images B 3 H W, got {tuple(images.shape)}"
        return imagenet(images).contiguous(memory_format=self.layout)

    def _start_rule(self) -> None:
        """A fresh plateau rule at the full rate.

        Published: a look counts as good if it gains at least so much, torch asks for more than that; published: the lr
        falls at the 5th bad look, torch: at the one after `patience`.
        """
        for group in self.opt.param_groups:
            group["lr"] = self.lr
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.opt, "max", factor=0.1, threshold_mode="abs", eps=0.0, **self.rule
        )

    def _lr(self) -> float:
        return self.opt.param_groups[0]["lr"]

    def _steps_done(self) -> int:
        """Adam's own count: it is saved with the rest, so looks at `val` fall on the same steps after a resume."""
        state = self.opt.state.get(self.net.fc.bias)
        return int(state["step"]) if state else 0

    @torch.no_grad()
    def _look(self, fabric, val: Iterable[Labelled]) -> None:
        """Measure accuracy on the validation set and let the plateau rule act on it."""
        right = torch.zeros(2, dtype=torch.float64, device=fabric.device)
        for images, labels in val:
            hits = (self.score(images) > 0) == (labels > 0.5)
            right += torch.stack([hits.sum(), hits.new_tensor(len(hits), dtype=torch.long)])
        good, count = fabric.all_reduce(right, reduce_op="sum").tolist()
        if count == 0:
            return
        lr = self._lr()
        self.plateau.step(good / count)
        if self._lr() < lr:  # published: a fresh counter, which takes the next look as its first best
            self.plateau.best = -torch.inf
            self.plateau.threshold = self.min_gain_later - SLACK


SLACK = 1e-9  # accuracies are ratios of counts: far coarser than this

"""Xception with one logit, trained as FaceForensics++ trained it: first the last layer alone, then everything.

The net: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, arXiv 1610.02357; figure
and section numbers are this paper's. The training: Roessler, Cozzolino, Verdoliva, Riess, Thies and Niessner,
"FaceForensics++: Learning to Detect Manipulated Facial Images", ICCV 2019, arXiv 1901.08971; its authors published no
training code. Its rate, batch, epochs and frames a video, as given below, are quoted from memory, not from the page.

Where this differs from the published training: one logit (there: a softmax over two classes, the same function of the
logits' difference), and stages are counted in steps. How long the second one lasts and which weights are kept is the
arena's business (there: 15 epochs, the best of them on the validation set), and the face crop, 1.3 times the detected
box, is the data's.

Parameters have the names of the PyTorch port that its ImageNet weights were published with (and its batch norm: epsilon
1e-5, momentum 0.1; Chollet's Keras model has 1e-3 and 0.01).

Shapes: B batch, C channels (3), H height, W width. Images lie in [-1, 1], which is what the published mean and
deviation of 0.5 make of images in [0, 1]: nothing is left to normalise.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice, pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from detect.augment import blur_jpeg
from detect.detector import Labelled
from detect.weights import State, start_from

# The same weights twice: FaceForensics++'s file with flat 1x1 convolutions, and the later one that timm has
IMAGENET = ("xception-b5690688.pth", "xception-43020ad28.pth")


class SeparableConv2d(nn.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 one across channels, nothing between (section 4.7)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """B c_in H W -> B c_out H W."""
        return self.pointwise(self.conv1(x))


class Block(nn.Module):
    """Separable convolutions through the given numbers of channels, each after a ReLU, and a skip (figure 5).

    stride: of the max-pooling at the end and of the skip's 1x1 convolution; with stride 1 and equal channels there is
        neither, and the skip is the input itself.
    relu_first: without it the input goes into the first convolution as it is.
    """

    def __init__(self, *channels: int, stride: int = 1, relu_first: bool = True) -> None:
        super().__init__()
        rep: list[nn.Module] = []
        for c_in, c_out in pairwise(channels):
            rep += [nn.ReLU(inplace=True), SeparableConv2d(c_in, c_out), nn.BatchNorm2d(c_out)]
        rep[0] = nn.ReLU()  # not in place: the skip takes the same input
        if stride > 1:
            rep.append(nn.MaxPool2d(3, stride, padding=1))
        self.rep = nn.Sequential(*(rep if relu_first else rep[1:]))
        self.skip: nn.Module = nn.Identity()
        self.skipbn: nn.Module = nn.Identity()
        if stride > 1 or channels[0] != channels[-1]:
            self.skip = nn.Conv2d(channels[0], channels[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(channels[-1])

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B C' H/stride W/stride, rounded up."""
        return self.rep(x) + self.skipbn(self.skip(x))


def xception(num_classes: int = 1, *, width: float = 1.0, stem_stride: int = 4) -> nn.Sequential:
    """Figure 5, B 3 H W -> B num_classes: 299 px become 19x19x728 by the entry and middle flow, 10x10x2048 at the end.

    22,855,952 parameters with 1000 classes (table 3), 20,809,001 with one logit.
    """

    def c(channels: int) -> int:
        return max(1, round(width * channels))

    return nn.Sequential(
        OrderedDict(
            # Entry flow
            conv1=nn.Conv2d(3, c(32), 3, stride=1 if stem_stride == 1 else 2, bias=False),
            bn1=nn.BatchNorm2d(c(32)),
            relu1=nn.ReLU(inplace=True),
            conv2=nn.Conv2d(c(32), c(64), 3, bias=False),
            bn2=nn.BatchNorm2d(c(64)),
            relu2=nn.ReLU(inplace=True),
            block1=Block(c(64), c(128), c(128), stride=2 if stem_stride == 4 else 1, relu_first=False),
            block2=Block(c(128), c(256), c(256), stride=2),
            block3=Block(c(256), c(728), c(728), stride=2),
            # Middle flow
            **{f"block{n}": Block(c(728), c(728), c(728), c(728)) for n in range(4, 12)},
            # Exit flow
            block12=Block(c(728), c(728), c(1024), stride=2),
            conv3=SeparableConv2d(c(1024), c(1536)),
            bn3=nn.BatchNorm2d(c(1536)),
            relu3=nn.ReLU(inplace=True),
            conv4=SeparableConv2d(c(1536), c(2048)),
            bn4=nn.BatchNorm2d(c(2048)),
            relu4=nn.ReLU(),  # not in place: Grad-CAM looks here
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(c(2048), num_classes),
        )
    )


def own_names(state: State) -> State:
    """A published state dict with the names and shapes of `xception`.

    Undone are the prefix "model." and the name last_linear (FaceForensics++), 1x1 convolutions without their two last
    axes, and a head of two classes (real, fake), which becomes the one logit that has the same probability of a fake.
    """
    own = {}
    for name, value in state.items():
        name = name.removeprefix("model.").replace("last_linear.1.", "fc.").replace("last_linear.", "fc.")
        if name.endswith("pointwise.weight") and value.ndim == 2:
            value = value[:, :, None, None]
        if name.startswith("fc.") and len(value) == 2:
            value = value[1:] - value[:1]
        own[name] = value
    return own


class Xception:
    """Tell fakes from reals by an Xception (20,809,001 parameters).

    weights: "imagenet" takes the published ImageNet weights if their file (see IMAGENET) lies in torch.hub's cache and
        starts from scratch if not, without ever downloading; a path takes a state dict (.pth, .safetensors), its last
        layer too if that has one logit or two classes (real, fake); None starts from scratch. What happened stands in
        `provenance`.
    resize: side in pixels that every image is brought to, squeezed if it is no square (bilinear, antialiased), 299 as
        published; None takes images as they come.
    head_steps: steps in which the last layer learns alone, with all others frozen, their batch statistics too. The
        default is the published 3 epochs for one forgery method: 720 videos x 270 frames, real and fake, are 388,800
        images, at batch 32 12,150 steps. They are a detector's first steps, counted over all its fits: neither a resume
        nor a later round starts them again. The stage protects loaded weights from a last layer that is still random,
        so it falls away where that layer was loaded or nothing was.
    width: all channels times this; weights files fit width 1 alone.
    stem_stride: early down-sampling: 4 as published, 2 without block 1's, 1 without the first convolution's too (for
        small images). The parameters are the same, so every weights file fits.
    p_blur, p_jpeg: augmentation, see `detect.augment`; none as published.
    lr, beta1, beta2: of Adam; the published batch is 32.
    channels_last: memory layout; faster on recent GPUs in half precision, results differ by rounding.
    """

    frames = 1

    def __init__(
        self,
        *,
        weights: str | None = "imagenet",
        resize: int | None = 299,
        head_steps: int = 36_450,
        width: float = 1.0,
        stem_stride: Literal[4, 2, 1] = 4,
        p_blur: float = 0.0,
        p_jpeg: float = 0.0,
        lr: float = 2e-4,
        beta1: float = 0.9,
        beta2: float = 0.999,
        channels_last: bool = False,
    ) -> None:
        if stem_stride not in (1, 2, 4):
            raise ValueError(f"stem_stride: expected 4, 2 or 1, got {stem_stride!r}")
        if not width > 0:
            raise ValueError(f"width: expected more than 0, got {width!r}")
        if resize is not None and resize < 1:
            raise ValueError(f"resize: expected at least 1 or none, got {resize!r}")
        if head_steps < 0:
            raise ValueError(f"head_steps: expected at least 0, got {head_steps!r}")
        if not (0 <= p_blur <= 1 and 0 <= p_jpeg <= 1):
            raise ValueError(f"p_blur, p_jpeg: expected probabilities in 0 .. 1, got {p_blur!r} and {p_jpeg!r}")
        self.net = xception(width=width, stem_stride=stem_stride)
        what = "an Xception" if width == 1 else f"an Xception of width {width:g}"
        for file in IMAGENET:
            self.provenance = start_from(self.net, weights, published=file, what=what, adapt=own_names)
            if not self.provenance.startswith("from scratch"):
                break
        if not self.provenance.endswith("last layer new"):
            head_steps = 0
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.layout)
        self.resize = resize
        self.augment = partial(blur_jpeg, p_blur=p_blur, p_jpeg=p_jpeg)
        # With the optimizer `head_steps` is saved: a resume keeps to it, even where the weights' file is gone
        groups = [{"params": self.net.parameters(), "head_steps": head_steps}]
        self.opt = torch.optim.Adam(groups, lr=lr, betas=(beta1, beta2))

    @property
    def layer(self) -> nn.Module:
        """The last convolution's activations, for Grad-CAM."""
        return self.net.get_submodule("relu4")

    def fit(self, fabric, batches: Iterable[Labelled], *, val: Iterable[Labelled] = ()) -> Iterator[dict[str, Tensor]]:
        """Train; yield the detached `loss` (binary cross-entropy) of each step. `val` is not used."""
        fabric.to_device(self.net)
        self.opt.load_state_dict(self.opt.state_dict())  # torch moves Adam's moments to where the net is now
        batches = iter(batches)
        try:
            left = self.opt.param_groups[0]["head_steps"] - self._steps_done()
            if left > 0:
                for name, parameter in self.net.named_parameters():
                    parameter.requires_grad_(name.startswith("fc."))
                yield from self._steps(fabric, islice(batches, left), training=False)
            self.net.requires_grad_(True)
            yield from self._steps(fabric, batches, training=True)
        finally:
            self.net.requires_grad_(True)

    def _steps(self, fabric, batches: Iterator[Labelled], *, training: bool) -> Iterator[dict[str, Tensor]]:
        """One stage, in the net's training or eval mode.

        Each stage sets the net up anew: several processes agree, at that moment, on which parameters have gradients.
        """
        net, opt = fabric.setup(self.net, self.opt)
        for images, labels in batches:
            net.train(training)
            logits = net(self._prepared(self.augment(images))).squeeze(1)
            loss = binary_cross_entropy_with_logits(logits.float(), labels.float())
            opt.zero_grad()
            fabric.backward(loss)
            opt.step()
            yield {"loss": loss.detach()}

    def score(self, images: Tensor) -> Tensor:
        """Logits, B, float32, of images, float B 3 H W in [-1, 1], after `resize`; the net is put in eval mode."""
        self.net.eval()
        return self.net(self._prepared(images)).squeeze(1).float()

    def _prepared(self, images: Tensor) -> Tensor:
        assert images.shape[1:-2] == (3,), f"expected images B 3 H W, got {tuple(images.shape)}"
        if self.resize is not None and images.shape[-2:] != (self.resize, self.resize):
            images = interpolate(images, (self.resize, self.resize), mode="bilinear", antialias=True)
        return images.contiguous(memory_format=self.layout)

    def _steps_done(self) -> int:
        """Adam's own count for the last layer, which learns in every step: it is saved with the rest."""
        state = self.opt.state.get(self.net.get_parameter("fc.bias"))
        return int(state["step"]) if state else 0

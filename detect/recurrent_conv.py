"""Recurrent convolution: a CNN and a bidirectional GRU over aligned faces, trained together from end to end.

Sabir, Cheng, Jaiswal, AbdAlmageed, Masi and Natarajan, "Recurrent Convolutional Strategies for Face Manipulation
Detection in Videos", CVPR Workshops 2019, arXiv 1905.00582: ResNet-50 or DenseNet-121, clips of 5 frames, GRU; best:
DenseNet-121, bidirectional, faces aligned by their landmarks.

Alignment by landmarks is the data's part (`data.crop: aligned`); the paper's other way, a spatial transformer that
predicts an affine transform of each frame (Jaderberg et al. 2015, arXiv 1506.02025), is `align: stn`.

Recalled from the paper, whose code was not published: the trunk first learns alone, as a still classifier on single
frames, then everything learns together; Adam at 1e-4. Chosen here: how long the first stage lasts, the GRU's width,
224 px, the spatial transformer's own small net.

Shapes: B clips of T frames, N = B T frames, C channels (3), H height, W width, D features. Images lie in [-1, 1].
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from detect.detector import Labelled
from detect.trunks import Trunk, TrunkName, augment, frames_of


class SpatialTransformer(nn.Module):
    """Warp each frame, N 3 H W, by an affine transform predicted from it; the identity to begin with."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(
            nn.Conv2d(3, 16, 7, stride=2, padding=3), nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 32), nn.ReLU(),
        )  # fmt: skip
        self.affine = nn.Linear(32, 6)
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.eye(2, 3).flatten())

    def forward(self, frames: Tensor) -> Tensor:
        theta = self.affine(self.where(frames)).view(-1, 2, 3).to(frames.dtype)
        grid = F.affine_grid(theta, list(frames.shape), align_corners=False)
        return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


class Recurrent(nn.Module):
    """Features B T D in the order of time -> logits B. Its state also holds how many steps have been trained."""

    def __init__(self, width: int, hidden: int, bidirectional: bool):
        super().__init__()
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=bidirectional)
        self.fc = nn.Linear(hidden * (1 + bidirectional), 1)
        self.steps = 0

    def forward(self, features: Tensor) -> Tensor:
        _, last = self.gru(features)  # directions B hidden: each has then seen the whole clip
        return self.fc(last.transpose(0, 1).flatten(1)).squeeze(1)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)


class RecurrentConv:
    """Tell fakes from reals by a CNN and a GRU over its features, trained together.

    frames: of a clip in training; any number is scored.
    trunk, weights: the CNN and where it starts from, see `detect.trunks.Trunk`.
    align: "stn" puts a spatial transformer before the CNN; "none" takes frames as they come.
    bidirectional: whether a second GRU reads the clip backwards; hidden: units of each.
    trunk_steps: so many steps, over all fits, the CNN learns alone, each frame for itself; until the GRU has learned,
        a clip's score is the mean over its frames.
    resize: frames are brought to that size in pixels; None takes them as they come.
    lr: of Adam. p_blur, p_jpeg, flip: see `detect.trunks.augment`.
    """

    def __init__(
        self,
        *,
        frames: int = 5,
        trunk: TrunkName = "densenet121",
        weights: str | None = "imagenet",
        align: Literal["none", "stn"] = "none",
        bidirectional: bool = True,
        hidden: int = 512,
        trunk_steps: int = 1000,
        resize: int | None = 224,
        lr: float = 1e-4,
        p_blur: float = 0.0,
        p_jpeg: float = 0.0,
        flip: bool = False,
    ) -> None:
        for name, value in {"frames": frames, "hidden": hidden}.items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value!r}")
        if align not in ("none", "stn"):
            raise ValueError(f"align: expected 'none' or 'stn', got {align!r}")
        if not (0 <= p_blur <= 1 and 0 <= p_jpeg <= 1 and trunk_steps >= 0):
            raise ValueError("p_blur, p_jpeg, trunk_steps: expected shares in 0 .. 1 and at least 0 steps")
        self.frames, self.trunk_steps = frames, trunk_steps
        cnn = Trunk(trunk, weights, resize)
        self.provenance = cnn.provenance
        self.trunk = nn.Sequential(*([SpatialTransformer()] if align == "stn" else []), cnn)
        self.still = nn.Linear(cnn.width, 1)
        self.rnn = Recurrent(cnn.width, hidden, bidirectional)
        self.augment = partial(augment, p_blur=p_blur, p_jpeg=p_jpeg, flip=flip)
        self.opt = torch.optim.Adam([p for net in (self.trunk, self.still, self.rnn) for p in net.parameters()], lr=lr)

    @property
    def layer(self) -> nn.Module:
        """The trunk's last block of convolutions, for Grad-CAM: its output is B*T c h w, clip by clip."""
        return cast(Trunk, self.trunk[-1]).layer

    def fit(self, fabric, batches: Iterable[Labelled], *, val: Iterable[Labelled] = ()) -> Iterator[dict[str, Tensor]]:
        """Train on clips B T 3 H W; yield the `loss` and `stage` (1 stills, 2 clips) of each step; `val` is unused."""
        trunk, still, rnn = (fabric.setup_module(net) for net in (self.trunk, self.still, self.rnn))
        self.opt.load_state_dict(self.opt.state_dict())  # torch moves Adam's moments to where the nets are now
        opt = fabric.setup_optimizers(self.opt)
        for clips, labels in batches:
            trunk.train()
            rnn.train()
            features = trunk(frames_of(self.augment(clips))).unflatten(0, clips.shape[:2])
            stage = 1 if self.rnn.steps < self.trunk_steps else 2
            if stage == 1:
                logits, labels = still(features).flatten(), labels.repeat_interleave(clips.shape[1])
            else:
                logits = rnn(features)
            loss = binary_cross_entropy_with_logits(logits.float(), labels.float())
            opt.zero_grad()  # to None: what has no part in a stage stands still in it
            fabric.backward(loss)
            opt.step()
            self.rnn.steps += 1
            yield {"loss": loss.detach(), "stage": loss.new_full((), stage)}

    def score(self, images: Tensor) -> Tensor:
        """Logits, B, float32, of clips, float B T 3 H W in [-1, 1], of any T; the trunk is put in eval mode."""
        self.trunk.eval()
        self.rnn.train()  # the same, as it has no dropout, but cuDNN has no backward pass in eval mode
        features = self.trunk(frames_of(images)).unflatten(0, images.shape[:2])
        if self.rnn.steps <= self.trunk_steps:
            return self.still(features).mean((1, 2)).float()
        return self.rnn(features).float()

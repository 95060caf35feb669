"""CNN + LSTM: frames become features by a CNN, and an LSTM reads the features in the order of the frames.

Güera and Delp, "Deepfake Video Detection Using Recurrent Neural Networks", AVSS 2018: the 2048 pool features of an
InceptionV3 at 299 px, an LSTM of 2048 units, a dense layer of 512, a softmax of 2; clips of 20, 40 or 80 frames; Adam
at 1e-5 with a decay of 1e-6.

The CNN has ImageNet weights and is not trained (recalled from the paper, which also speaks of training the complete
model end to end: that can then mean only the LSTM and what follows it). Without ImageNet weights a frozen CNN would be
random, so by default it is trained where it starts from scratch; `provenance` says which.

Also recalled, and otherwise as in Keras, where it was written: the dropout of 0.5 falls on the LSTM's inputs, with one
mask for all frames of a clip, and once more behind the dense layer. One logit stands for the softmax of 2 (the same
function). Clips are whatever the data give: the paper takes consecutive frames of the whole picture.

Shapes: B clips of T frames, C channels (3), H height, W width, D features. Images lie in [-1, 1].
"""

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from detect.detector import Labelled
from detect.trunks import Trunk, TrunkName, augment, frames_of

AT_ONCE = 64  # frames that go through a frozen trunk together in training


class Net(nn.Module):
    """Clips B T 3 H W in [-1, 1] -> logits B. With InceptionV3: 21,785,568 + 33,570,816 + 1,049,601 parameters."""

    def __init__(self, trunk: Trunk, hidden: int, dense: int, dropout: float):
        super().__init__()
        self.trunk = trunk
        self.drop = nn.Dropout1d(dropout)
        self.lstm = nn.LSTM(trunk.width, hidden, batch_first=True)
        self.dense = nn.Sequential(nn.Linear(hidden, dense), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dense, 1))

    def forward(self, clips: Tensor) -> Tensor:
        frames = frames_of(clips)
        if self.training and not self.trunk.training:  # frozen: no gradient, and so no more memory than for a part
            with torch.no_grad():
                features = torch.cat([self.trunk(part) for part in frames.split(AT_ONCE)])
        else:
            features = self.trunk(frames)
        features = features.unflatten(0, clips.shape[:2])
        features = self.drop(features.mT).mT  # B D T: a feature is dropped in all frames or in none
        _, (last, _) = self.lstm(features)
        return self.dense(last[-1]).squeeze(1)


class CNNLSTM:
    """Tell fakes from reals by features of frames and an LSTM over them.

    frames: of a clip in training; any number is scored.
    trunk, weights: the CNN and where it starts from, see `detect.trunks.Trunk`.
    train_trunk: whether the CNN is trained too; None: only where it starts from scratch.
    resize: frames are brought to that size in pixels; None takes them as they come (enlarged to 75 for InceptionV3).
    hidden, dense, dropout: units of the LSTM and of the layer behind it, share of units dropped in front of either.
    lr, decay: of Adam; step t takes lr / (1 + decay t), over all fits.
    p_blur, p_jpeg, flip: see `detect.trunks.augment`; published without.
    """

    def __init__(
        self,
        *,
        frames: int = 20,
        trunk: TrunkName = "inception_v3",
        weights: str | None = "imagenet",
        train_trunk: bool | None = None,
        resize: int | None = 299,
        hidden: int = 2048,
        dense: int = 512,
        dropout: float = 0.5,
        lr: float = 1e-5,
        decay: float = 1e-6,
        p_blur: float = 0.0,
        p_jpeg: float = 0.0,
        flip: bool = False,
    ) -> None:
        for name, value in {"frames": frames, "hidden": hidden, "dense": dense}.items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value!r}")
        if not (0 <= p_blur <= 1 and 0 <= p_jpeg <= 1 and 0 <= dropout < 1 and decay >= 0):
            raise ValueError("p_blur, p_jpeg, dropout, decay: expected shares in 0 .. 1 and a decay of at least 0")
        self.frames = frames
        cnn = Trunk(trunk, weights, resize)
        self.train_trunk = cnn.provenance.startswith("from scratch") if train_trunk is None else train_trunk
        self.provenance = f"{cnn.provenance}; trunk {'trained with the rest' if self.train_trunk else 'frozen'}"
        self.net = Net(cnn.requires_grad_(self.train_trunk), hidden, dense, dropout)
        self.augment = partial(augment, p_blur=p_blur, p_jpeg=p_jpeg, flip=flip)
        self.opt = torch.optim.Adam([p for p in self.net.parameters() if p.requires_grad], lr=lr)
        self.sched = torch.optim.lr_scheduler.LambdaLR(self.opt, lambda t: 1 / (1 + decay * t))

    @property
    def layer(self) -> nn.Module:
        """The trunk's last block of convolutions, for Grad-CAM: its output is B*T c h w, clip by clip."""
        return self.net.trunk.layer

    def fit(self, fabric, batches: Iterable[Labelled], *, val: Iterable[Labelled] = ()) -> Iterator[dict[str, Tensor]]:
        """Train on clips B T 3 H W; yield the `loss` (binary cross-entropy) and `lr` of each step; `val` is unused."""
        fabric.to_device(self.net)
        self.opt.load_state_dict(self.opt.state_dict())  # torch moves Adam's moments to where the net is now
        net, opt = fabric.setup(self.net, self.opt)
        for clips, labels in batches:
            net.train()
            self.net.trunk.train(self.train_trunk)  # a frozen trunk's BatchNorm keeps its statistics
            logits = net(self.augment(clips))
            loss = binary_cross_entropy_with_logits(logits.float(), labels.float())
            opt.zero_grad()
            fabric.backward(loss)
            opt.step()
            losses = {"loss": loss.detach(), "lr": loss.new_full((), opt.param_groups[0]["lr"])}
            self.sched.step()
            yield losses

    def score(self, images: Tensor) -> Tensor:
        """Logits, B, float32, of clips, float B T 3 H W in [-1, 1], of any T; the net is put in eval mode."""
        self.net.eval()
        self.net.lstm.train()  # the same without dropout of its own, but cuDNN has no backward pass in eval mode
        return self.net(images).float()

"""FaceSwap: one encoder for two people and a decoder each; decoding with the other one's decoder swaps the face.

The "deepfakes" program of December 2017. It has no paper: "code" is the program that went round (train.py, model.py,
training_data.py and image_augmentation.py of deepfakes_faceswap), whose 64 px model this is, to the parameter. All that
the encoder passes on has to serve both people, so it comes to hold pose, expression and light; the identity is left to
the decoders.

a and b are pictures of person A and of person B: B C H W, float in [-1, 1], C = 3, H = W = `size`, each already the
aligned crop of a face (the code cuts the central 160 px out of 256 and shrinks them to 64). The nets themselves speak
[0, 1], as in the code: its decoders end in a sigmoid. `FaceSwap` converts at its border, and losses are on [0, 1].
"""

import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from kornia.losses import ssim_loss
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gen.generator import Penalty, no_penalty
from gen.perceptual import Features, Perceptual


def upscale(k_in: int, k: int) -> nn.Sequential:
    """A 3x3 convolution to 4k channels, shuffled to twice the size (code: upscale). B k_in H W -> B k 2H 2W."""
    return nn.Sequential(nn.Conv2d(k_in, 4 * k, 3, padding=1), nn.LeakyReLU(0.1), nn.PixelShuffle(2))


def encoder(size: int = 64, width: int = 128) -> nn.Sequential:
    """B 3 S S in [0, 1] -> B 4w S/8 S/8, through a bottleneck of 8w numbers (code: Encoder).

    69,662,976 parameters at 64 px and width 128. The 5x5 convolutions are padded by 2 all round, which is the mirror
    image of TensorFlow's "same".
    """
    w, low = width, size // 16
    convolutions: list[nn.Module] = []
    for k_in, k in ((3, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)):
        convolutions += [nn.Conv2d(k_in, k, 5, stride=2, padding=2), nn.LeakyReLU(0.1)]
    net = nn.Sequential(
        *convolutions, nn.Flatten(),
        nn.Linear(8 * w * low**2, 8 * w), nn.Linear(8 * w, 8 * w * low**2),
        nn.Unflatten(1, (8 * w, low, low)), upscale(8 * w, 4 * w),
    )  # fmt: skip
    return net.apply(init_glorot)


def decoder(width: int = 128) -> nn.Sequential:
    """B 4w S/8 S/8 -> B 3 S S in [0, 1] (code: Decoder). 6,199,747 parameters at width 128."""
    w = width
    net = nn.Sequential(
        upscale(4 * w, 2 * w), upscale(2 * w, w), upscale(w, w // 2), nn.Conv2d(w // 2, 3, 5, padding=2), nn.Sigmoid()
    )  # fmt: skip
    return net.apply(init_glorot)


def init_glorot(module: nn.Module) -> None:
    """Weights from Glorot and Bengio's uniform distribution, biases 0: Keras's own, which the code leaves alone."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Autoencoders(nn.Module):
    """Both autoencoders, as one module with one `forward`, so that it can be wrapped for several processes.

    `tint` is B's mean colour minus A's, over the `seen` batches: what pictures of A wear on their way through the nets.
    """

    tint: Tensor
    seen: Tensor

    def __init__(self, size: int, width: int):
        super().__init__()
        self.encoder = encoder(size, width)
        self.decoder_a, self.decoder_b = decoder(width), decoder(width)
        self.register_buffer("tint", torch.zeros(3, 1, 1))
        self.register_buffer("seen", torch.zeros(()))

    def meet(self, a: Tensor, b: Tensor) -> None:
        """Take a batch of both into the mean."""
        self.seen += 1
        self.tint += (b.mean((0, 2, 3), keepdim=True)[0] - a.mean((0, 2, 3), keepdim=True)[0] - self.tint) / self.seen

    def forward(self, a: Tensor | None, b: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The first through decoder A, the second through decoder B; None stays None. B 3 S S in [0, 1] -> the same.

        Pictures of A come in with the tint; decoder A's go out without it. So (a + tint, b) rebuilds both people and
        (b, a + tint) swaps them. Two batches share one call of the encoder.
        """
        if a is None or b is None:
            return (
                None if a is None else self.decoder_a(self.encoder(a)) - self.tint,
                None if b is None else self.decoder_b(self.encoder(b)),
            )
        code_a, code_b = self.encoder(torch.cat([a, b])).split([len(a), len(b)])
        return self.decoder_a(code_a) - self.tint, self.decoder_b(code_b)


# Augmentation: every map here is linear between 5x5 control points, so random numbers are drawn and maps composed on
# those alone, and each image is resampled once. A point x, y of the crop is the complex number x + yj, each in [-1, 1].


def control_points(
    n: int, *, rotation: float, zoom: float, shift: float, flip: float, warp: float
) -> tuple[Tensor, Tensor]:
    """Where the control points of inputs and targets lie in the n images: two n 5 5 2, x and y in [-1, 1].

    A random similarity (up to `rotation` degrees, `zoom` and `shift` shares of the crop, each way) and with probability
    `flip` a mirror move both. Each point of the input goes its own way besides, by N(0, `warp`) shares of the crop; the
    target's stay regular, under the similarity nearest to those (Umeyama 1991, eq. 40-42; code: random_warp), so that
    the warp's mean shift, turn and zoom need not be guessed. Draws are from torch's global CPU state.
    """

    def uniform(limit: float) -> Tensor:
        return limit * (2 * torch.rand(n, 1, 1) - 1)

    line = torch.linspace(-1, 1, 5)
    grid = torch.complex(*torch.meshgrid(line, line, indexing="xy"))
    warped = grid + 2 * warp * torch.view_as_complex(torch.randn(n, 5, 5, 2))
    mean = warped.mean((1, 2), keepdim=True)
    away = warped - mean
    fit = (away.conj() * grid).sum((1, 2), keepdim=True) / away.abs().square().sum((1, 2), keepdim=True)
    target = grid / fit + mean  # fit * (target - mean) = grid

    turn = torch.polar(1 + uniform(zoom), uniform(math.radians(rotation)))
    move = 2 * torch.complex(uniform(shift), uniform(shift))
    mirror = torch.rand(n, 1, 1) < flip

    def behind(points: Tensor) -> Tensor:
        """The places of the crop that turn, move and mirror bring to these points."""
        return torch.view_as_real((torch.where(mirror, -points.conj(), points) - move) / turn)

    return behind(warped), behind(target)


def spread(points: Tensor, size: int) -> Tensor:
    """Interpolate control points (n 5 5 2) linearly to the pixels' centres (n size size 2)."""
    at = (torch.arange(size, device=points.device) + 0.5) * (4 / size)
    hat = (1 - (at[:, None] - torch.arange(5, device=points.device)).abs()).clamp(min=0)
    return torch.einsum("iy,jx,nyxc->nijc", hat, hat, points)


def look(images: Tensor, places: Tensor) -> Tensor:
    """Images as seen at places (B S S 2); beyond the crop's edge they are mirrored."""
    return F.grid_sample(images, places.to(images), mode="bilinear", padding_mode="reflection", align_corners=False)


class Crops(NamedTuple):
    """What one update learns from, in [0, 1]: the warped input, the target, where the target's face is (B 1 S S)."""

    input: Tensor
    target: Tensor
    face: Tensor


class FaceSwap:
    """A shared encoder and two decoders, each pair trained to undo a warp of its person's pictures.

    Args: `size` of the images, a multiple of 16 from 32; `width`: channels of the first convolution, which every other
    number of channels and the bottleneck follow; `lr`, `betas` of Adam (code: 5e-5, 0.5, 0.999; batches of 64);
    `rotation` (degrees), `zoom`, `shift` and `warp` (shares of the crop) and `flip` (probability) of the augmentation:
    the code's 10, 0.05, 0.05 of 256 px, 5 of 160 px, 0.4; `colour`: the nets meet A with its mean colour moved to B's
    (code: images_A += mean(B) - mean(A), once, over all images; here over those seen, and taken back behind decoder A).
    Switches: `joint` makes one encoder call, one backward and one fused Adam update for both people; else comes an
    update of A, and then one of B from the encoder that the first left; each has its own Adam, so the encoder has two
    states, as in the code (whose two also share a step count; only the first steps' bias corrections feel that).
    `ssim` and `mask_weight` are weights of losses beside the MAE: (1 - SSIM) / 2 with an 11 px window, and the MAE
    inside the ellipse `face` (centre x, y and half axes, shares of the crop; the default: from hairline to chin).
    `perceptual` is the weight of a feature reconstruction loss, on the layer relu3_3 of the net that `features` names,
    with its weights from `weights` (see gen/perceptual.py).
    `ema` is the decay of an average of the weights that `sample` and `reconstruct` then use.

    On several processes, DDP has to look for unused parameters (an update of A leaves decoder B out) unless `joint`.
    """

    needs: Literal["domains"] = "domains"

    def __init__(
        self,
        size: int = 64,
        width: int = 128,
        lr: float = 5e-5,
        betas: tuple[float, float] = (0.5, 0.999),
        rotation: float = 10.0,
        zoom: float = 0.05,
        shift: float = 0.05 * 256 / 160,
        flip: float = 0.4,
        warp: float = 5 / 160,
        colour: bool = True,
        joint: bool = False,
        ssim: float = 0.0,
        mask_weight: float = 0.0,
        face: tuple[float, float, float, float] = (0.5, 0.45, 0.4, 0.45),
        perceptual: float = 0.0,
        features: Features = "vgg16",
        weights: str = "imagenet",
        ema: float | None = None,
    ):
        if size < 32 or size % 16:
            raise ValueError(f"size is a multiple of 16, at least 32, not {size}")
        if width < 2 or width % 2:
            raise ValueError(f"width is an even number, at least 2, not {width}")
        if min(rotation, zoom, shift, warp, ssim, mask_weight, perceptual) < 0 or zoom >= 1 or not 0 <= flip <= 1:
            raise ValueError(
                "rotation, zoom, shift, warp and the losses' weights must not be negative, zoom < 1, flip in 0 to 1"
            )
        if not (0 <= min(face[:2]) <= max(face[:2]) <= 1 and min(face[2:]) >= 0.05):
            raise ValueError(f"face is centre x, y (0 to 1) and half axes (from 0.05), shares of the crop, not {face}")
        if ema is not None and not 0 < ema < 1:
            raise ValueError(f"ema is a decay between 0 and 1 (0.999, say), not {ema}")
        self.size, self.colour, self.joint = size, colour, joint
        self.ssim, self.mask_weight, self.face = ssim, mask_weight, tuple(face)
        self.changes = {"rotation": rotation, "zoom": zoom, "shift": shift, "flip": flip, "warp": warp}

        net = self.net = Autoencoders(size, width)
        if joint:
            self.opt = torch.optim.Adam(net.parameters(), lr, betas, fused=True)
        else:
            self.opt_a = torch.optim.Adam([*net.encoder.parameters(), *net.decoder_a.parameters()], lr, betas)
            self.opt_b = torch.optim.Adam([*net.encoder.parameters(), *net.decoder_b.parameters()], lr, betas)
        if ema is not None:
            self.net_ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(ema))
        self.has_ema = ema is not None
        self.perceptual, self.features, self.provenance = perceptual, None, "from scratch"
        if perceptual:
            self.features = Perceptual(features, weights, style_layers=())
            self.provenance += f", perceptual loss on {self.features.provenance}"

    def fit(
        self, fabric, batches: Iterable[tuple[Tensor, ...]], *, penalty: Penalty = no_penalty
    ) -> Iterator[dict[str, Tensor]]:
        """Learn to undo the warp: a batch of A, then a batch of B (code: train.py), or both at once (`joint`).

        The penalty is on swaps of the images as they came, as `sample` makes them: one more forward pass a person.
        """
        net = fabric.setup_module(self.net.train())
        if self.features is not None:
            fabric.to_device(self.features)
        names = ("opt",) if self.joint else ("opt_a", "opt_b")
        opts = [fabric.setup_optimizers(getattr(self, name)) for name in names]

        def update(opt, loss: Tensor) -> None:
            opt.zero_grad()
            fabric.backward(loss)
            opt.step()

        def evasion(b: Tensor | None, a: Tensor | None) -> Tensor:
            if penalty is no_penalty:
                return torch.zeros((), device=fabric.device)
            return penalty(from_unit(torch.cat([fake for fake in net(b, a) if fake is not None])))

        for a, b in batches:
            a, b = self.to_unit(a), self.to_unit(b)
            if self.colour:
                self.net.meet(a, b)
            x, y, tint = self.augment(a), self.augment(b), self.net.tint
            if self.joint:
                rebuilt_a, rebuilt_b = net(x.input + tint, y.input)
                loss_a, loss_b, evaded = self.loss(rebuilt_a, x), self.loss(rebuilt_b, y), evasion(b, a + tint)
                update(opts[0], loss_a + loss_b + evaded)
            else:
                loss_a, evaded_a = self.loss(net(x.input + tint, None)[0], x), evasion(b, None) / 2
                update(opts[0], loss_a + evaded_a)
                loss_b, evaded_b = self.loss(net(None, y.input)[1], y), evasion(None, a + tint) / 2
                update(opts[1], loss_b + evaded_b)
                evaded = evaded_a + evaded_b

            if self.has_ema:
                self.net_ema.update_parameters(self.net)
            yield {"loss_a": loss_a.detach(), "loss_b": loss_b.detach(), "penalty": evaded.detach()}

    def augment(self, images: Tensor) -> Crops:
        """Inputs and targets for images in [0, 1], B 3 S S."""
        warped, target = (
            spread(points.to(images.device), self.size) for points in control_points(len(images), **self.changes)
        )
        ellipse = 2 * torch.tensor(self.face, device=images.device)
        face = ((target - (ellipse[:2] - 1)) / ellipse[2:]).square().sum(-1) <= 1
        return Crops(look(images, warped), look(images, target), face[:, None].to(images))

    def loss(self, rebuilt: Tensor, crops: Crops) -> Tensor:
        """MAE (code), and what the switches add."""
        error = (rebuilt - crops.target).abs().mean(1, keepdim=True)
        loss = error.mean()
        if self.ssim:
            loss = loss + self.ssim * ssim_loss(rebuilt, crops.target, window_size=11)
        if self.mask_weight:
            loss = loss + self.mask_weight * (error * crops.face).sum() / crops.face.sum()
        if self.features is not None:
            loss = loss + self.perceptual * self.features.content(2 * rebuilt - 1, 2 * crops.target - 1)
        return loss

    def sample(self, source: Tensor, *, rng: torch.Generator, reverse: bool = False) -> Tensor:
        """Swap: pictures of A as B, or of B as A with `reverse`. B 3 S S -> B 3 S S; `rng` is not drawn from."""
        return self.decode(source, of_b=reverse, as_b=not reverse)

    def reconstruct(self, images: Tensor, *, reverse: bool = False) -> Tensor:
        """Pictures of A (of B with `reverse`) through their own decoder. B 3 S S -> B 3 S S."""
        return self.decode(images, of_b=reverse, as_b=reverse)

    def decode(self, images: Tensor, of_b: bool, as_b: bool) -> Tensor:
        net = (self.net_ema if self.has_ema else self.net).eval()
        x = self.to_unit(images) + (0 if of_b else self.net.tint)
        return from_unit(net(None, x)[1] if as_b else net(x, None)[0])

    def to_unit(self, images: Tensor) -> Tensor:
        """[-1, 1] -> [0, 1]. Raises ValueError where the images are not of the size that the net is built for."""
        if images.shape[1:] != (3, self.size, self.size):
            came = " x ".join(map(str, images.shape[1:]))
            raise ValueError(f"this face swap is built for 3 x {self.size} x {self.size} images (size), not {came}")
        return (images + 1) / 2


def from_unit(images: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1]; what the tint brought beyond is cut off."""
    return (2 * images - 1).clamp(-1, 1)

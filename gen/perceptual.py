"""Perceptual losses: images are compared by what a frozen net sees in them, not pixel by pixel.

Johnson, Alahi, Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016,
arXiv 1603.08155: the feature reconstruction loss (eq. 2) and the style loss (eq. 3 and 4). The nets are VGG-16 and
VGG-19 (Simonyan and Zisserman, ICLR 2015, arXiv 1409.1556, table 1, D and E). Equation numbers are Johnson's.

A layer is called as in these papers: conv3_2 is the second convolution of the third block, relu3_2 what its ReLU makes
of it. Images: B 3 H W, float in [-1, 1].
"""

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, VGG19_Weights

Features = Literal["vgg16", "vgg19", "random"]

PUBLISHED = {"vgg16": VGG16_Weights.IMAGENET1K_V1.url, "vgg19": VGG19_Weights.IMAGENET1K_V1.url}
CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4), "random": (2, 2, 4, 4, 4)}  # of each block
WIDTHS = {"vgg16": (64, 128, 256, 512, 512), "vgg19": (64, 128, 256, 512, 512), "random": (16, 32, 64, 128, 128)}


def trunk(net: Features) -> Iterator[tuple[str, nn.Module]]:
    """A net's layers by name, in torchvision's order, so that the n-th is its `features.n`; without weights."""
    k_in = 3
    for block, (convolutions, k) in enumerate(zip(CONVOLUTIONS[net], WIDTHS[net], strict=True), 1):
        for i in range(1, convolutions + 1):
            yield f"conv{block}_{i}", nn.Conv2d(k_in, k, 3, padding=1, device="meta")
            yield f"relu{block}_{i}", nn.ReLU()
            k_in = k
        yield f"pool{block}", nn.MaxPool2d(2)


class Perceptual(nn.Module):
    """Compare images by the features of a frozen net.

    net: "vgg16" or "vgg19" with ImageNet weights; "random": VGG-19's layers at a quarter of its width with fixed random
        weights (He et al. 2015, eq. 10). Random features see edges, colours and textures at several scales, so they
        ask for sharpness where pixels ask for a mean; of objects they know nothing, and their deep layers tell images
        apart less and less. Their losses compare with no other net's.
    weights: "imagenet" takes torchvision's file from torch.hub's cache, without ever downloading; or the path of a
        state dict of such a net (.pth, .safetensors). What was taken stands in `provenance`.
    layers: what `content` compares; style_layers: what `style` does. The defaults are those of the style transfer
        (section 4.1); the super-resolution there takes relu2_2 (section 4.2).
    Nothing here learns, and the weights are buffers that are left out of the state dict: a player that holds this is
    saved without them.
    Raises ValueError for an unknown net or layer, and for a file that is missing, damaged or of another net.
    """

    def __init__(
        self,
        net: Features = "vgg16",
        weights: str = "imagenet",
        layers: Sequence[str] = ("relu3_3",),
        style_layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
    ):
        super().__init__()
        if net not in CONVOLUTIONS:
            raise ValueError(f"features: expected vgg16, vgg19 or random, got {net!r}")
        every = dict(trunk(net))
        unknown = [layer for layer in (*layers, *style_layers) if layer not in every]
        if unknown or not layers:
            raise ValueError(f"layers: expected names from conv1_1, relu1_1, pool1 to pool5 of {net}, got {unknown}")
        self.layers, self.style_layers = tuple(layers), tuple(style_layers)
        names = list(every)
        depth = 1 + max(names.index(layer) for layer in (*layers, *style_layers))
        self.trunk = nn.ModuleDict({name: every[name] for name in names[:depth]})
        self.smallest = 2 ** sum(name.startswith("pool") for name in names[:depth])

        convolutions = {n: conv for n, conv in enumerate(self.trunk.values()) if isinstance(conv, nn.Conv2d)}
        shapes = {
            f"features.{n}.{key}": w.shape for n, conv in convolutions.items() for key, w in conv.named_parameters()
        }
        if net == "random":
            state, self.provenance = random_weights(shapes), "fixed random features"
        else:
            state, self.provenance = read_weights(net, weights, shapes)
        for n, conv in convolutions.items():
            for key in ("weight", "bias"):
                delattr(conv, key)
                conv.register_buffer(key, state[f"features.{n}.{key}"].float(), persistent=False)

    def forward(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """The features of images at these layers, each B k h w. Raises ValueError for images too small to get there."""
        if min(images.shape[-2:]) < self.smallest:
            came = " x ".join(map(str, images.shape[-2:]))
            raise ValueError(
                f"{self.last} needs images of at least {self.smallest} px, not {came}: take earlier layers"
            )
        x, found = imagenet(images), {}
        for name, layer in self.trunk.items():
            x = layer(x)
            if name in layers:
                found[name] = x
            if len(found) == len(set(layers)):
                break
        return [found[name] for name in layers]

    @property
    def last(self) -> str:
        """The deepest layer that is there."""
        return list(self.trunk)[-1]

    def content(self, fake: Tensor, real: Tensor) -> Tensor:
        """Feature reconstruction loss (eq. 2), summed over `layers`: the mean squared difference of their features."""
        with torch.no_grad():
            wanted = self(real, self.layers)
        losses = [F.mse_loss(x, y) for x, y in zip(self(fake, self.layers), wanted, strict=True)]
        return torch.stack(losses).sum()

    def style(self, fake: Tensor, real: Tensor) -> Tensor:
        """Style loss (eq. 4), summed over `style_layers`, a batch's mean: squared distance of their Gram matrices.

        `real` is a batch like `fake`, or one image (1 3 H W) for all; the sizes may differ.
        """
        with torch.no_grad():
            wanted = [gram(x) for x in self(real, self.style_layers)]
        found = [gram(x) for x in self(fake, self.style_layers)]
        losses = [(x - y).square().sum((1, 2)).mean() for x, y in zip(found, wanted, strict=True)]
        return torch.stack(losses).sum()


def gram(features: Tensor) -> Tensor:
    """Which features occur together, wherever that is (eq. 3). B k h w -> B k k, divided by k h w."""
    rows = features.flatten(2)
    return rows @ rows.mT / rows[0].numel()


def imagenet(images: Tensor) -> Tensor:
    """From [-1, 1] to the mean and deviation of ImageNet, of images in [0, 1], that torchvision's nets expect."""
    assert images.ndim == 4, f"expected images B 3 H W, got {tuple(images.shape)}"
    mean = images.new_tensor([0.485, 0.456, 0.406])[:, None, None]
    std = images.new_tensor([0.229, 0.224, 0.225])[:, None, None]
    return (images + 1 - 2 * mean) / (2 * std)


def random_weights(shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The same weights always: N(0, 2 / fan-in) by a seed of their own; biases 0."""
    rng = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(shape, generator=rng) * (2 / shape[1:].numel()) ** 0.5
        if len(shape) > 1
        else torch.zeros(shape)
        for key, shape in shapes.items()
    }


def read_weights(net: str, weights: str, shapes: dict[str, torch.Size]) -> tuple[dict[str, Tensor], str]:
    """What `weights` holds under these keys, and a sentence on where it came from."""
    path = Path(weights).expanduser()
    if weights == "imagenet":
        path = Path(torch.hub.get_dir(), "checkpoints", PUBLISHED[net].rpartition("/")[2])
        if not path.is_file():
            raise ValueError(
                f"{net}: expected its ImageNet weights in {path}, found no such file. Put {PUBLISHED[net]} there, name "
                "a file that you have (weights), or take random features"
            )
    elif not path.is_file():
        raise ValueError(f"weights: expected imagenet or the path of a .pth or .safetensors file, found no {path}")
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if weights == "imagenet" and not sha256.startswith(path.stem.split("-")[-1]):  # torch.hub's rule: NAME-HASH.pth
        raise ValueError(
            f"weights: {path} is not the published file (sha256 {sha256[:8]}...); delete it or fetch it anew"
        )
    state = read(path)
    for key, shape in shapes.items():
        if key not in state or state[key].shape != shape:
            problem = f"{key} is {tuple(state[key].shape)}, not {tuple(shape)}" if key in state else f"it lacks {key}"
            raise ValueError(f"weights: expected a state dict of torchvision's {net} in {path}, but {problem}")
    name = "ImageNet weights" if weights == "imagenet" else "weights"
    return state, f"{net} features, {name} from {path.name}, sha256 {sha256}"


def read(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors or torch file."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
            return state
        problem = "it holds more than tensors"
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    except Exception as error:  # safetensors raises a class of its own, which is known only where it is installed
        problem = f"{type(error).__name__}: {error}"
    raise ValueError(f"weights: expected a state dict in {path}, but {problem}")

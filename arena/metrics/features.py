"""What the distances look at: images in, one row of features each out.

Every extractor has `name`; `dims` (None where it depends on the image size); `distance`, what a Fréchet distance on
these features may be called ("fid" for FID's own alone); `describe`, the protocol that a figure carries (architecture,
seed, hash of the weights, resize); `resizes`, whether images of any size give comparable features. It is called with
images B 3 H W, uint8 or float in [-1, 1], and returns B x d float32 on the CPU. None trains: the same images give the
same features.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from arena.errors import InputError

WEIGHTS_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
WEIGHTS_VARIABLE = "ARENA_FID_WEIGHTS"
INCEPTION_DIMS = (64, 192, 768, 2048)
_WEIGHTS_NAME = WEIGHTS_URL.rsplit("/", 1)[1]
_EXPECTED_SHA = "6726825d"  # torch.hub's convention: the file's name ends with the start of its sha256


class Extractor(Protocol):
    """Images B 3 H W (uint8, or float in [-1, 1]) to features B x d (float32, CPU)."""

    name: str
    distance: str
    describe: str
    resizes: bool

    @property
    def dims(self) -> int | None: ...

    def __call__(self, images: Tensor) -> Tensor: ...


class Inception:
    """The network of FID: pytorch-fid's InceptionV3 with the official weights, their sha256 checked.

    dims 2048 is FID's layer; 64, 192 and 768 are earlier ones, averaged over their positions. Images of any size are
    scaled to 299 x 299 as pytorch-fid does (bilinear, no antialiasing). Batch norms are folded into the convolutions
    and memory is channels-last: the same features to 1e-5, in two thirds of the time.

    Raises InputError where the weights are missing, damaged or not the official ones.
    """

    resizes = True

    def __init__(
        self,
        weights: str | Path | None = None,
        dims: int = 2048,
        device: str | torch.device = "cpu",
        batch_size: int = 50,
    ):
        if dims not in INCEPTION_DIMS:
            raise InputError(f"expected dims to be one of {', '.join(map(str, INCEPTION_DIMS))}, got {dims}.")
        path = Path(weights) if weights else find_inception_weights()
        if path is None:
            raise InputError(missing_weights())
        state, sha = _official_weights(path)
        self.name, self.dims = f"inception-{dims}", dims
        self.distance = "fid" if dims == 2048 else f"fd-{self.name}"
        self.describe = f"pytorch-fid InceptionV3, {dims} dims, weights sha256 {sha}, resize bilinear 299 no antialias"
        self.device, self.batch_size = torch.device(device), batch_size
        self.net = _inception_net(state, dims, path).to(self.device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        def features(batch: Tensor) -> Tensor:
            # To [0, 1] as torchvision's ToTensor: the network itself resizes and brings them back to [-1, 1].
            x = batch.to(torch.float32).div(255) if batch.dtype == torch.uint8 else (batch + 1) / 2
            return self.net(x.contiguous(memory_format=torch.channels_last))[0].mean((2, 3))

        return _in_batches(images, self.device, self.batch_size, features)


class RandomConv:
    """Mean and standard deviation of every channel in four untrained, He-initialised convolution layers: 704 features.

    Sees colour, modes and strong texture changes with no weights to download (random embeddings: Naeem et al. 2020,
    arXiv 2002.09797). Which direction it is sensitive to depends on the seed: use several. Images of 16 px or more.
    """

    resizes = False
    widths, strides = (32, 64, 128, 128), (2, 2, 2, 1)

    def __init__(self, seed: int = 0, device: str | torch.device = "cpu"):
        rng = torch.Generator().manual_seed(seed)
        layers = []
        for before, width, stride in zip((3, *self.widths), self.widths, self.strides, strict=False):
            layer = nn.Conv2d(before, width, 3, stride, padding=1, padding_mode="reflect", bias=False)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=rng)
            layers.append(layer.requires_grad_(False))
        sha = hashlib.sha256(b"".join(layer.weight.numpy().tobytes() for layer in layers)).hexdigest()
        self.name, self.dims = f"conv704-s{seed}", 2 * sum(self.widths)
        self.distance = f"rfd-{self.name}"
        widths, strides = ("-".join(map(str, values)) for values in (self.widths, self.strides))
        self.describe = (
            f"random conv {widths} (3x3, strides {strides}, He, ReLU), mean and std of each channel, "
            f"seed {seed}, weights sha256 {sha}, images at their own size"
        )
        self.device = torch.device(device)
        self.layers = nn.ModuleList(layers).to(self.device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        def features(batch: Tensor) -> Tensor:
            x, rows = signed(batch).contiguous(memory_format=torch.channels_last), []
            for layer in self.layers:
                x = F.relu_(layer(x))
                mean = x.mean((2, 3), keepdim=True)
                rows += [mean.flatten(1), (x - mean).square_().mean((2, 3)).sqrt_()]  # torch.std: 2 times as slow
            return torch.cat(rows, 1)

        return _in_batches(images, self.device, _batch_size(images, self.device), features)


class Spectrum:
    """Log power of the grey image in rings of equal spatial frequency: int(S / sqrt 2) features for S px.

    The sensor for blur, noise and up-sampling artefacts (Durall et al. 2020, arXiv 2003.01826); blind to colour and,
    without the zero frequency, to brightness. A floor at the power of 8-bit rounding keeps a flat image finite.
    """

    name, dims, distance, resizes = "spectrum", None, "sfd", False
    describe = "azimuthal log power spectrum of Rec. 601 grey, rings 1 to S / sqrt 2, images at their own size"

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        batch_size = _batch_size(images, self.device)
        order, ends = _rings(images.shape[-2], images.shape[-1], self.device)
        counts = ends.diff()
        grey = torch.tensor([0.299, 0.587, 0.114], device=self.device)
        rounding = (2 / 255) ** 2 / 12  # variance of rounding to 8 bits, for images in [-1, 1]

        def features(batch: Tensor) -> Tensor:
            power = torch.fft.fft2(torch.einsum("bchw,c->bhw", signed(batch), grey), norm="ortho").abs() ** 2
            running = power.flatten(1)[:, order].cumsum(1, dtype=torch.float64)[:, ends - 1]
            return (running.diff(dim=1) / counts + rounding).log()

        return _in_batches(images, self.device, batch_size, features)


def _rings(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The pixels of a Fourier plane ordered by ring, and where each ring ends (the zero frequency first, as ring 0)."""
    size = min(height, width)
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None]
    ring = ((down**2 + across**2).sqrt() * size).round().long().clamp(max=int(size / 2**0.5)).flatten()
    return ring.argsort(stable=True).to(device), ring.bincount().cumsum(0).to(device)


def find_inception_weights() -> Path | None:
    """The Inception weights' file at $ARENA_FID_WEIGHTS, else in torch.hub's cache, else None (not opened yet).

    Raises InputError where $ARENA_FID_WEIGHTS names no file.
    """
    named = os.environ.get(WEIGHTS_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise InputError(f"${WEIGHTS_VARIABLE} is {named}: no such file. Point it at {_WEIGHTS_NAME} or unset it.")
        return Path(named)
    cached = _hub_file()
    return cached if cached.is_file() else None


def missing_weights() -> str:
    """One line: the weights of FID are missing, where to get them and where to put them."""
    return (
        f"the Inception weights of FID were not found. Download {WEIGHTS_URL} (sha256 starts {_EXPECTED_SHA}) to "
        f"{_hub_file()} or set ${WEIGHTS_VARIABLE} to the file"
    )


def signed(images: Tensor) -> Tensor:
    """Images as float32 in [-1, 1], from uint8 (0 to 255) or from float that already is."""
    return images.to(torch.float32).div(127.5).sub(1) if images.dtype == torch.uint8 else images.to(torch.float32)


def _hub_file() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS_NAME


def _batch_size(images: Tensor, device: torch.device) -> int:
    """So many images that a layer stays in a CPU's cache, or fills a GPU."""
    height, width = images.shape[-2:]
    if min(height, width) < 16:
        raise InputError(f"expected images of at least 16 x 16 px for these features, got {height} x {width}.")
    return max(1, 2 ** (16 if device.type == "cpu" else 22) // (height * width))


def _in_batches(images: Tensor, device: torch.device, batch_size: int, features: Any) -> Tensor:
    assert images.shape[1:2] == (3,), f"expected B 3 H W, got {tuple(images.shape)}"
    return torch.cat([features(batch.to(device)).float().cpu() for batch in images.split(batch_size)])


def _official_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict of a file whose sha256 has been checked, and that sha256."""
    remedy = f"Download {WEIGHTS_URL} anew, or leave the file out and use other features."
    try:
        with open(path, "rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read the Inception weights {path}: {error.strerror}. {remedy}") from error
    if not sha.startswith(_EXPECTED_SHA):
        raise InputError(
            f"expected the Inception weights of FID (sha256 {_EXPECTED_SHA}...) in {path}, got {sha[:16]}... . {remedy}"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True), sha
    except Exception as error:
        raise InputError(f"cannot load the Inception weights {path}: {str(error).splitlines()[0]} {remedy}") from error


def _inception_net(state: dict[str, Tensor], dims: int, path: Path) -> nn.Module:
    from pytorch_fid.inception import InceptionV3

    with _handing_over(state):
        try:
            net = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[dims]]).eval()
        except (RuntimeError, TypeError) as error:
            raise InputError(f"{path} does not fit the network of FID: {str(error).splitlines()[0]}") from error
    for module in list(net.modules()):
        if isinstance(getattr(module, "conv", None), nn.Conv2d) and isinstance(getattr(module, "bn", None), nn.Module):
            module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
    return net


@contextmanager
def _handing_over(state: dict[str, Tensor]) -> Iterator[None]:
    """Within the block, pytorch-fid's constructor gets this state dict where it would download an unchecked one."""
    from pytorch_fid import inception

    download = inception.load_state_dict_from_url
    inception.load_state_dict_from_url = lambda *_, **__: state
    try:
        yield
    finally:
        inception.load_state_dict_from_url = download

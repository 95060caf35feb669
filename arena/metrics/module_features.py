"""Any torch network as the eyes of a distance: `torchvision:resnet50`, or `mypkg.nets:Encoder` by its dotted path.

A distance in such features is never called FID: it is `fd-torchvision.resnet50`, with the weights' sha256 and the
resize beside it. Distances of different networks, weights or sizes do not compare.
"""

import hashlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arena.errors import InputError
from arena.metrics.features import signed

TORCHVISION = "torchvision"


class ModuleFeatures:
    """Extractor: a network's output, averaged over positions where it has any. Images B 3 H W -> B x d float32, CPU.

    net: takes images B 3 h w and returns B x d, B x d x ..., or a tuple or list whose first element is that. `size`:
    images are brought to size x size px (bilinear, antialiased), None: they keep their own. `mean`, `sd`: what images
    in [0, 1] are normalised with, a channel each; None: the network gets them in [-1, 1].
    """

    dims = None

    def __init__(
        self,
        net: nn.Module,
        name: str,
        size: int | None = None,
        mean: tuple[float, ...] | None = None,
        sd: tuple[float, ...] | None = None,
        device: str | torch.device = "cpu",
        batch_size: int = 32,
    ):
        self.name = name.replace(":", ".")  # a colon parts a figure from its direction
        self.distance = f"fd-{self.name}"
        self.size, self.resizes, self.batch_size = size, size is not None, batch_size
        self.device = torch.device(device)
        self.net = net.eval().to(self.device)
        self.scale = None if mean is None or sd is None else (column(mean, self.device), column(sd, self.device))
        resize = f"resize bilinear {size} antialias" if size else "images at their own size"
        scaled = "in [-1, 1]" if mean is None else f"normalised by {mean} and {sd}"
        self.describe = f"{name}, weights sha256 {weights_hash(net)}, {resize}, {scaled}"

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([self._rows(part.to(self.device)) for part in images.split(self.batch_size)])

    def _rows(self, images: Tensor) -> Tensor:
        x = signed(images)
        if self.size and x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        if self.scale:
            x = ((x + 1) / 2 - self.scale[0]) / self.scale[1]
        try:
            found = self.net(x)
        except (RuntimeError, ValueError, TypeError) as error:
            shape = " x ".join(map(str, x.shape))
            raise InputError(f"{self.name} cannot look at images {shape}: {str(error).splitlines()[0]}") from error
        if isinstance(found, tuple | list) and found:
            found = found[0]
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(x):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"expected {self.name} to return one row of features an image, B x d, got {got}.")
        rows = (found.flatten(2).mean(2) if found.ndim > 2 else found).float().cpu()
        if not bool(rows.isfinite().all()):
            raise InputError(f"{self.name} returned features that are NaN or infinite. Check its weights.")
        return rows


def module_extractor(of: str, device: str | torch.device = "cpu", batch_size: int = 32) -> ModuleFeatures:
    """The features of `module:attr`, or of `torchvision:NAME`, images brought to SIZE px with `...@SIZE`.

    torchvision: the default weights, from the cache alone (nothing is downloaded), without the last linear layer, at
    the size and with the normalisation that they were made for. `module:attr`: a torch.nn.Module, or what returns one
    when it is called with nothing, always with the same random state; images in [-1, 1], at their own size.

    Raises InputError where there is no such module, no weights, or no number behind the @.
    """
    path, _, wanted = of.partition("@")
    module, colon, attribute = path.partition(":")
    if not (module and colon and attribute) or (_ and not wanted.isdecimal()) or wanted == "0":
        raise InputError(f"expected features module:attr or torchvision:NAME, @SIZE at most behind it, got {of!r}.")
    size = int(wanted) if wanted else None
    if module == TORCHVISION:
        return _torchvision(attribute, size, device, batch_size)
    return ModuleFeatures(_found(module, attribute), path, size, device=device, batch_size=batch_size)


def _found(module: str, attribute: str) -> nn.Module:
    """What stands at module:attribute; the current folder counts, as for `python -m`."""
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InputError(f"no features at {module}:{attribute} ({error}). Expected the path of a module.") from error
    finally:
        sys.path.remove(os.getcwd())
    if not isinstance(found, nn.Module) and callable(found):
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                found = found()
        except Exception as error:
            raise InputError(f"{module}:{attribute} cannot be called with nothing: {error}") from error
    if not isinstance(found, nn.Module):
        raise InputError(f"expected a torch.nn.Module at {module}:{attribute}, got {type(found).__name__}.")
    return found


def _torchvision(name: str, size: int | None, device: str | torch.device, batch_size: int) -> ModuleFeatures:
    from torchvision import models

    try:
        weights: Any = models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    except ValueError:
        from arena.config import nearest

        raise InputError(f"torchvision has no model {name!r}{nearest(name, models.list_models(models))}") from None
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    if not file.is_file():
        raise InputError(
            f"the weights of torchvision's {name} were not found at {file}, and nothing is downloaded. Put "
            f"{weights.url} there."
        )
    try:
        net = models.get_model(name, weights=None)
        net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:
        raise InputError(f"{file} does not hold {name}'s weights: {str(error).splitlines()[0]}") from error
    last = [path for path, part in net.named_modules() if isinstance(part, nn.Linear)][-1:]
    for path in last:
        net.set_submodule(path, nn.Identity())
    how = weights.transforms()
    crop = int(how.crop_size[0])
    sd = tuple(how.std)
    return ModuleFeatures(net, f"{TORCHVISION}:{name}", size or crop, tuple(how.mean), sd, device, batch_size)


def weights_hash(net: nn.Module) -> str:
    """sha256 over a network's state: names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().flatten()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def column(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)[:, None, None]

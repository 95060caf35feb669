"""Where a detector's net starts from: published weights where their file is at hand, else from scratch. No download."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def start_from(
    net: nn.Module,
    weights: str | None,
    *,
    published: str,
    what: str,
    head: str = "fc.",
    adapt: Callable[[State], State] = lambda state: state,
) -> str:
    """Load `weights` into the net where there are any, and say in a sentence what the net starts from.

    weights: "imagenet" takes the file that the address `published` ends with from torch.hub's cache, if it lies there;
        a path takes a state dict (.pth, .safetensors); None leaves the net as it is.
    what: the net's name with its article, for errors ("a ResNet-50").
    head: how the last layer's keys begin; they are loaded where their shapes fit, else that layer stays as it is.
    adapt: turns a file's state dict into one with the net's own keys.
    Raises ValueError for a file that is no state dict of this net. A published file is checked by the sha256 in its
    name (torch.hub's rule: NAME-HASH.pth).
    """
    if weights is None:
        return "from scratch"
    path = Path(weights).expanduser()
    if weights == "imagenet":
        path = Path(torch.hub.get_dir(), "checkpoints", published.rpartition("/")[2])
        if not path.is_file():
            return f"from scratch: no ImageNet weights in torch.hub's cache ({path.name})"
    elif not path.is_file():
        raise ValueError(f"weights: expected 'imagenet' or the path of a .pth or .safetensors file, found no {path}")

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if weights == "imagenet" and not sha256.startswith(path.stem.split("-")[-1]):
        raise ValueError(
            f"weights: {path} is not the published file (sha256 {sha256[:8]}...); delete it or fetch it anew"
        )
    state, own = adapt(read(path)), net.state_dict()
    heads = [key for key in own if key.startswith(head)]
    whole = all(key in state and state[key].shape == own[key].shape for key in heads)
    if not whole:
        state = {key: value for key, value in state.items() if not key.startswith(head)}
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a wrong shape; the first of torch's lines that names one
        wrong = str(error).splitlines()[1].strip()
        raise ValueError(f"weights: expected {what} in {path}: {wrong}") from None
    missing = [key for key in missing if not key.startswith(head) and not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        problem = f"it lacks {missing[0]}" if missing else f"it has {unexpected[0]} besides"
        raise ValueError(f"weights: expected {what} in {path}, but {problem}")
    name = "ImageNet weights" if weights == "imagenet" else "weights"
    return f"{name} from {path.name}, sha256 {sha256}" + ("" if whole else ", last layer new")


def read(path: Path) -> State:
    """A state dict from a .safetensors or torch file; one level of wrapping ("model", "state_dict") is undone."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        for wrapper in ("model", "state_dict"):
            state = state.get(wrapper, state)  # the published files have one
        if all(isinstance(value, Tensor) for value in state.values()):
            return state
        problem = "it holds more than tensors"
    except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    except Exception as error:  # safetensors raises a class of its own, which is known only where it is installed
        problem = f"{type(error).__name__}: {error}"
    raise ValueError(f"weights: expected a state dict in {path}, but {problem}")


def imagenet(images: Tensor) -> Tensor:
    """From [-1, 1] to the mean and deviation of ImageNet, of images in [0, 1], that torchvision's nets expect.

    Shape ... 3 H W.
    """
    assert images.shape[-3] == 3, f"expected images ... 3 H W, got {tuple(images.shape)}"
    mean = images.new_tensor([0.485, 0.456, 0.406])[:, None, None]
    std = images.new_tensor([0.229, 0.224, 0.225])[:, None, None]
    return (images + (1 - 2 * mean)).div_(2 * std)

"""Where a figure came from: versions, device, commit, and what this machine has."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch", "torchvision", "lightning-fabric", "lightning", "numpy", "scipy", "kornia", "pytorch-fid", "pillow",
    "av", "imageio", "facenet-pytorch", "opencv-python-headless",
)  # fmt: skip

IMAGENET = {"ResNet-50": "resnet50-0676ba61.pth", "VGG-16": "vgg16-397923af.pth", "VGG-19": "vgg19-dcbb9e9d.pth"}


def versions() -> dict[str, str]:
    import arena

    found = {"arena": arena.__version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the lab's own checkout, with "+changes" where it was edited; None for an installed package."""
    here = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != here:
            return None
        changed = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "--short=12", "HEAD").strip() + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {cpu_name()}, {torch.get_num_threads()} threads"


def provenance(config: Any) -> dict[str, Any]:
    return {**versions(), "platform": platform.platform(), "device": device_name(config.device), "git": git_commit()}


def doctor() -> list[tuple[str, bool | None, str]]:
    """(what, fine?, found) rows of `arena doctor`; None = a matter of information."""
    import torch

    from arena.metrics.features import find_inception_weights

    rows: list[tuple[str, bool | None, str]] = [(name, None, found) for name, found in versions().items()]
    rows.append(("python >= 3.11", sys.version_info >= (3, 11), platform.python_version()))
    for name in ("gen", "detect", "arena", "configs"):
        module = __import__(name)
        mine = Path(module.__file__ or "").resolve().parent.parent == Path(__file__).resolve().parent.parent
        rows.append(
            (f"import {name}", mine, str(module.__file__) if mine else f"{module.__file__}: not this lab's package")
        )
    rows.append(("cpu", None, f"{cpu_name()}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"))
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        rows.append((f"cuda:{i}", None, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    if not torch.cuda.is_available():
        rows.append(("cuda", None, "none: runs will use the CPU"))
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    inception = find_inception_weights()
    missing = f"absent; put pt_inception-2015-12-05-6726825d.pth in {cache} (runs use other, honestly named distances)"
    rows.append(("FID's Inception weights", None, str(inception) if inception else missing))
    for name, file in IMAGENET.items():
        fine = (cache / file).exists()
        rows.append((f"ImageNet {name}", None, str(cache / file) if fine else f"absent; put {file} in {cache}"))
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    rows.append(("disk", free > 2, f"{free:.1f} GiB free in {Path.cwd()}"))
    return rows

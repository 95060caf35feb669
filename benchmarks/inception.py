"""The forward pass of FID's network, beside pytorch-fid's: the same weights and images, one process, one thread.

    python benchmarks/inception.py [ROUNDS]

Speed and equality do not need FID's weights: those here are random, of its architecture, with He's variance and batch
norms that were fitted to noise, so that features are of ordinary size. Images of 64 px, batches of 16.
"""
# ruff: noqa: E402 - the number of threads is read when numpy is imported

import os

for _pool in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_pool}_NUM_THREADS"] = "1"

import datetime
import hashlib
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
import torchvision
from pytorch_fid import inception as peer_module
from torch import nn

from arena.metrics import features

BATCH, TARGET, SAME = 16, 1.4, 1e-4


def random_state() -> dict[str, torch.Tensor]:
    """Weights of our own in the form of FID's file."""
    torch.manual_seed(0)
    net = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.2, 0.2)
            part.momentum = None  # the plain mean of what passes
    with torch.no_grad():
        net.train()(torch.rand(8, 3, 299, 299) * 2 - 1)
    return net.state_dict()


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pth"
        torch.save(random_state(), path)
        features._EXPECTED_SHA = hashlib.sha256(path.read_bytes()).hexdigest()[:8]  # not FID's, and nowhere called so
        ours = features.Inception(path, batch_size=BATCH)
        with features._handing_over(torch.load(path, weights_only=True)):
            peer = peer_module.InceptionV3([3]).eval()
    images = torch.randint(0, 256, (BATCH, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    spent: dict[str, list[float]] = {"pytorch-fid": [], "ours": []}
    found = {}
    for _ in range(rounds + 1):  # the first warms up
        for name in spent:
            began = time.process_time()
            with torch.inference_mode():
                found[name] = ours(images) if name == "ours" else peer(images / 255)[0].flatten(1)
            spent[name].append((time.process_time() - began) / BATCH)
    names = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "pytorch-fid"))
    print(
        f"{platform.processor() or platform.machine()}, 1 thread, Python {platform.python_version()}, {names},", end=" "
    )
    print(datetime.date.today())
    print(f"{BATCH} images of 64 px, CPU ms an image, median of {rounds} interleaved rounds (range)")
    for name, times in spent.items():
        kept = sorted(1000 * seconds for seconds in times[1:])
        print(f"{name:<12}{kept[len(kept) // 2]:>8.1f} ({kept[0]:.1f} to {kept[-1]:.1f})")
    each = sorted(slow / fast for slow, fast in zip(spent["pytorch-fid"][1:], spent["ours"][1:], strict=True))
    ratio = each[len(each) // 2]
    far = float((found["ours"] - found["pytorch-fid"]).abs().max() / found["pytorch-fid"].abs().max())
    print(f"{ratio:.2f} times faster ({each[0]:.2f} to {each[-1]:.2f}; target {TARGET}:", end=" ")
    print(f"{'met' if ratio >= TARGET else 'MISSED'}); largest difference {far:.0e} of the largest feature", end=" ")
    print(f"(at most {SAME:g}: {'met' if far <= SAME else 'MISSED'})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

"""What an explanation costs, in forward passes: ours beside captum and grad-cam where those are installed.

    python benchmarks/explain.py [--batches 1 8] [--turns 5]

CNNSpot's ResNet-50 at 224 px from scratch. Every turn runs a plain forward pass and then each implementation of each
method once, in one process; the figure is a method's CPU seconds over that turn's forward pass, the median of the turns
and their range. Occlusion hides the same 49 windows everywhere, 32 copies at once, and runs every other turn. "Maps" is
how many come back; "agrees" the largest difference from ours over the largest value, where both compute the same.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from datetime import date
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from arena.provenance import cpu_name
from detect.cnnspot import CNNSpot
from detect.explain import METHODS, explain
from detect.weights import imagenet

WINDOW, STRIDE, AT_ONCE = 56, 28, 32


class Net(nn.Module):
    """The detector as peers want it: images in, N 1 out."""

    def __init__(self, player: CNNSpot):
        super().__init__()
        self.net = player.net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(imagenet(images))


def peers(player: CNNSpot, batch: int) -> dict[tuple[str, str], Callable[[Tensor], Tensor]]:
    """(method, who) -> images to heat."""
    found: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {}
    net, layer = Net(player), player.layer
    try:
        from captum import attr
    except ImportError as error:
        print(f"captum: {error}")
    else:
        at_once = max(1, AT_ONCE // batch)
        cam, guided = attr.LayerGradCam(net, layer), attr.GuidedBackprop(net)
        both, gradient, hidden = attr.GuidedGradCam(net, layer), attr.Saliency(net), attr.Occlusion(net)
        window, stride = (3, WINDOW, WINDOW), (3, STRIDE, STRIDE)
        found["grad-cam", "captum"] = lambda x: larger(cam.attribute(x, 0))
        found["guided-backprop", "captum"] = lambda x: strongest(guided.attribute(x.clone(), 0))
        found["guided-grad-cam", "captum"] = lambda x: strongest(
            both.attribute(x.clone(), 0, interpolate_mode="bilinear")
        ).abs()
        found["saliency", "captum"] = lambda x: strongest(gradient.attribute(x.clone(), 0, abs=False))
        found["occlusion", "captum"] = lambda x: hidden.attribute(
            x, window, stride, target=0, baselines=0.0, perturbations_per_eval=at_once
        )[:, :1]
    try:
        import pytorch_grad_cam as other
    except ImportError as error:
        print(f"grad-cam: {error}")
    else:
        theirs = other.GradCAM(net, [layer])
        targets = [lambda y: y[0]] * batch
        found["grad-cam", "grad-cam"] = lambda x: torch.tensor(theirs(input_tensor=x, targets=targets))
        guided_net = other.GuidedBackpropReLUModel(Net(CNNSpot(weights=None)), "cpu")  # it is not the same net after
        found["guided-backprop", "grad-cam"] = lambda x: torch.tensor(guided_net(x.clone(), 0))[None]
    return found


def larger(maps: Tensor) -> Tensor:
    return interpolate(maps.detach(), size=(224, 224), mode="bilinear")


def strongest(gradient: Tensor) -> Tensor:
    return gradient.gather(1, gradient.abs().argmax(1, keepdim=True)).detach()


def ours(player: CNNSpot, method: str) -> Callable[[Tensor], Tensor]:
    keywords = {"window": WINDOW, "stride": STRIDE, "baseline": 0.0, "batch": AT_ONCE} if method == "occlusion" else {}
    keywords |= {"relu": True} if method == "guided-grad-cam" else {}
    return lambda x: explain(player, x, method, **keywords).values


def seconds(work: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, Tensor]:
    began = time.process_time()
    result = work(x)
    return time.process_time() - began, result


def measure(batch: int, turns: int) -> None:
    torch.manual_seed(0)
    player = CNNSpot(weights=None)
    x = torch.rand(batch, 3, 224, 224) * 2 - 1
    run = {(method, "ours"): ours(player, method) for method in METHODS} | peers(player, batch)
    for (method, _), work in run.items():
        if method != "occlusion":
            work(x)  # warms up
    forward: list[float] = []
    cost: dict[tuple[str, str], list[float]] = {name: [] for name in run}
    maps = {}
    for turn in range(turns):
        with torch.no_grad():
            forward.append(seconds(player.score, x)[0])
        for name, work in run.items():
            if name[0] != "occlusion" or turn % 2 == 0:
                took, maps[name] = seconds(work, x)
                cost[name].append(took / forward[-1])
    print(f"\nBatch {batch}; a forward pass takes {median(forward):.3f} CPU s.\n")
    print("| method | who | forward passes (range) | maps | agrees |\n|---|---|---|---|---|")
    for (method, who), passes in sorted(cost.items(), key=lambda item: list(METHODS).index(item[0][0])):
        mine, theirs = maps[method, "ours"][:, 0], maps[method, who].squeeze(1)
        same = who == "captum" and mine.shape == theirs.shape
        gap = f"{float((mine - theirs).abs().max() / mine.abs().max()):.0e}" if same else ""
        span = f"{median(passes):.1f} ({min(passes):.1f}-{max(passes):.1f})"
        print(f"| {method} | {who} | {span} | {len(theirs)} | {gap} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{date.today()}, {cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for batch in args.batches:
        measure(batch, args.turns)


if __name__ == "__main__":
    main()

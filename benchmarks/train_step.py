"""One training step of each generator: plain PyTorch, as its users write it, against gen/, as published and switched.

    python benchmarks/train_step.py [NAME ...] [--small] [--repeats 5] [--device cpu]

All contestants have the same nets and losses and see the same images. "Plain" makes one call a net and batch, a loop
over images where people write one (augmentation, history of fakes), and one unfused Adam a group of weights. They take
turns in one process, step by step; the least of the repeats counts, in CPU seconds on one thread (wall seconds on other
devices). A generator of configs/gen without a plain counterpart here, or that cannot be imported, is left out. To add
one: its loop in PLAIN, what it is timed with in ROWS.
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import chain
from types import MethodType
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arena import build
from arena.config import names, read_named
from arena.errors import InputError
from arena.provenance import cpu_name
from arena.training import place

Batches = Iterator[tuple[Tensor, ...]]


def plain_cyclegan(player: Any, batches: Batches) -> Iterator[None]:
    """The usual script: translate, cycle and identity each a call of its own, a Python list of past fakes."""
    g, f, d_a, d_b = player.g, player.f, player.d_a, player.d_b
    opt_g = torch.optim.Adam(chain(g.parameters(), f.parameters()), 2e-4, (0.5, 0.999), foreach=False)
    opt_d = torch.optim.Adam(chain(d_a.parameters(), d_b.parameters()), 2e-4, (0.5, 0.999), foreach=False)
    pools: tuple[list[Tensor], list[Tensor]] = ([], [])

    def augmented(images: Tensor) -> Tensor:
        out = []
        size = images.shape[-1]
        for image in images:
            big = round(size * 286 / 256)
            image = F.interpolate(image[None], [big, big], mode="bicubic", antialias=True)[0]
            top, left = random.randint(0, big - size), random.randint(0, big - size)
            image = image[:, top : top + size, left : left + size]
            out.append(image.flip(2) if random.random() < 0.5 else image)
        return torch.stack(out)

    def past(pool: list[Tensor], fakes: Tensor) -> Tensor:
        out = []
        for fake in fakes.detach():
            if len(pool) < 50:
                pool.append(fake)
            elif random.random() < 0.5:
                i = random.randrange(50)
                pool[i], fake = fake, pool[i]
            out.append(fake)
        return torch.stack(out)

    def gan(logits: Tensor, target: float) -> Tensor:
        return F.mse_loss(logits, torch.full_like(logits, target))

    for a, b in batches:
        a, b = augmented(a), augmented(b)
        for p in chain(d_a.parameters(), d_b.parameters()):
            p.requires_grad = False
        opt_g.zero_grad()
        fake_b, fake_a = g(a), f(b)
        loss = gan(d_b(fake_b), 1.0) + gan(d_a(fake_a), 1.0)
        loss = loss + 10 * (F.l1_loss(f(fake_b), a) + F.l1_loss(g(fake_a), b))
        loss = loss + 5 * (F.l1_loss(g(b), b) + F.l1_loss(f(a), a))
        loss.backward()
        opt_g.step()
        for p in chain(d_a.parameters(), d_b.parameters()):
            p.requires_grad = True
        opt_d.zero_grad()
        for d, real, fake, pool in ((d_a, a, fake_a, pools[0]), (d_b, b, fake_b, pools[1])):
            (0.5 * (gan(d(real), 1.0) + gan(d(past(pool, fake)), 0.0))).backward()
        opt_d.step()
        yield


def plain_faceswap(player: Any, batches: Batches) -> Iterator[None]:
    """The published trainer: images warped one by one with OpenCV and numpy, an update of A, then one of B."""
    net, rng = player.net, np.random.default_rng(0)
    opts = [
        torch.optim.Adam([*net.encoder.parameters(), *decoder.parameters()], 5e-5, (0.5, 0.999), foreach=False)
        for decoder in (net.decoder_a, net.decoder_b)
    ]

    def fit(src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        """The similarity nearest to src -> dst (Umeyama 1991, eq. 40-42), 2 x 3."""
        away, mean = src - src.mean(0), dst.mean(0)
        u, s, vt = np.linalg.svd((dst - mean).T @ away / len(src))
        sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
        turn = u @ np.diag(sign) @ vt * (s @ sign) / away.var(0).sum()
        return np.hstack([turn, (mean - turn @ src.mean(0))[:, None]])

    def pair_of(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = len(image)
        angle, scale = rng.uniform(-10, 10), rng.uniform(0.95, 1.05)
        matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale)
        matrix[:, 2] = matrix[:, 2] + rng.uniform(-0.08, 0.08, 2) * size
        image = cv2.warpAffine(image, matrix, (size, size), borderMode=cv2.BORDER_REFLECT)
        if rng.random() < 0.4:
            image = image[:, ::-1]
        line = np.broadcast_to(np.linspace(0, size, 5), (5, 5))
        x, y = (side + rng.normal(scale=size / 32, size=(5, 5)) for side in (line, line.T))
        edge = size // 8
        map_x, map_y = (
            cv2.resize(side, (size + 2 * edge,) * 2)[edge:-edge, edge:-edge].astype(np.float32) for side in (x, y)
        )
        warped = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        similarity = fit(np.stack([x.ravel(), y.ravel()], 1), np.stack([line.ravel(), line.T.ravel()], 1))
        return warped, cv2.warpAffine(image, similarity, (size, size), borderMode=cv2.BORDER_REFLECT)

    for people in batches:
        for images, decoder, opt in zip(people, (net.decoder_a, net.decoder_b), opts, strict=True):
            pairs = [pair_of(image) for image in ((images + 1) / 2).permute(0, 2, 3, 1).cpu().numpy()]
            warped, target = (
                torch.from_numpy(np.stack(side)).permute(0, 3, 1, 2).to(images) for side in zip(*pairs, strict=True)
            )
            opt.zero_grad()
            F.l1_loss(decoder(net.encoder(warped)), target).backward()
            opt.step()
        yield


def unfuse(net: nn.Module) -> nn.Module:
    """The style nets with each operation by itself: enlarge, convolve, blur by a depthwise convolution, normalise."""
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = kernel[:, None] * kernel / 16

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel.to(x).expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])

    def conv(self: Any, x: Tensor) -> Tensor:
        if self.resize == "up":
            x = F.interpolate(x, scale_factor=2)
        x = F.conv2d(x, self.weight * self.gain, self.bias, padding=self.padding)
        return F.avg_pool2d(x, 2) if self.resize == "down" else x

    def up(self: Any, x: Tensor, w: Tensor, rng: Any) -> Tensor:
        for i, layer in enumerate((self.conv_1, self.conv_2)):
            if i:
                x = layer(x)
            elif layer is not None:
                x = blur(layer(x))
            x = x.expand(len(w), -1, -1, -1) + self.biases[i]
            if self.strengths:
                x = x + self.strengths[i] * torch.randn(len(w), 1, *x.shape[2:], device=x.device)
            y_s, y_b = self.styles[i](w[:, i])[:, :, None, None].chunk(2, 1)
            x = F.instance_norm(F.leaky_relu(x, 0.2), eps=1e-8) * (y_s + 1) + y_b
        return x

    def down(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        w = []
        for layer, style in ((self.conv_1, self.style_1), (self.conv_2, self.style_2)):
            x = F.leaky_relu(layer(x if layer is self.conv_1 else blur(x)), 0.2)
            mean, std = x.mean((2, 3)), (x.var((2, 3), correction=0) + 1e-5).sqrt()
            w.append(style(torch.cat([mean, std], 1)))
            x = F.instance_norm(x)
        return x, w[0] + w[1]

    plain = {"Conv": conv, "StyleBlock": up, "EncoderBlock": down}
    for module in net.modules():
        if type(module).__name__ in plain:
            module.forward = MethodType(plain[type(module).__name__], module)
    return net


def plain_alae(player: Any, batches: Batches) -> Iterator[None]:
    """The three updates as three scripts: every z mapped by itself, R1 by autograd, averages tensor by tensor."""
    f, g, e, d = (unfuse(net) for net in (player.f, player.g, player.e, player.d))
    averages = [(ema, net) for ema, net in ((player.f_ema, f), (player.g_ema, g), (player.e_ema, e))]
    rate = player.opt_ed.param_groups[0]["lr"]
    opt_ed, opt_fg = (
        torch.optim.Adam(chain(*(net.parameters() for net in nets)), rate, (0.0, 0.99), foreach=False)
        for nets in ((e, d), (f, g))
    )

    def latents(n: int, mixing: float) -> Tensor:
        w = f(torch.randn(n, player.latent))[:, None].repeat(1, player.levels, 1)
        if random.random() < mixing:
            level = random.randrange(1, player.levels)
            w[:, level:] = f(torch.randn(n, player.latent))[:, None]
        return w

    for (x,) in batches:
        x = torch.stack([image.flip(2) if player.flip and random.random() < 0.5 else image for image in x])
        opt_ed.zero_grad()
        fake = g(latents(len(x), player.mixing)).detach()
        x.requires_grad_(True)
        real = d(e(x))
        (grad,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        loss = F.softplus(d(e(fake))).mean() + F.softplus(-real).mean()
        (loss + player.gamma / 2 * grad.square().sum((1, 2, 3)).mean()).backward()
        opt_ed.step()
        opt_fg.zero_grad()
        F.softplus(-d(e(g(latents(len(x), player.mixing))))).mean().backward()
        opt_fg.step()
        opt_ed.zero_grad()
        opt_fg.zero_grad()
        w = latents(len(x), 0.0)
        F.mse_loss(e(g(w)), w[:, 0].detach()).backward()
        opt_ed.step()
        opt_fg.step()
        with torch.no_grad():
            for ema, net in averages:
                for old, new in zip(ema.parameters(), net.parameters(), strict=True):
                    old.mul_(0.999).add_(new, alpha=0.001)
        yield


PLAIN: dict[str, Callable[[Any, Batches], Iterator[None]]] = {
    "cyclegan": plain_cyclegan,
    "faceswap": plain_faceswap,
    "alae": plain_alae,
    "alae_mlp": plain_alae,
}


class Row(NamedTuple):
    """Batch size and keywords as published, keywords for a CPU (--small), and the switches that make it faster."""

    batch: int
    small: dict[str, Any]
    switches: dict[str, Any]


ROWS = {
    "cyclegan": Row(1, {"width": 24, "blocks": 4, "d_width": 32}, {"joint": True}),
    "faceswap": Row(16, {"width": 16}, {"joint": True}),
    "alae": Row(8, {"latent": 64, "width": 8, "max_width": 64, "mapping_layers": 4}, {}),
    "alae_mlp": Row(32, {"width": 256}, {}),
}


def contestants(name: str, row: Row, keywords: dict[str, Any], fabric: Any) -> dict[str, Iterator[Any]]:
    """Plain, ours as published, ours with the switches: each a fit, from equal weights on equal images."""
    of = build.find(read_named("gen", name)["of"])

    def batches() -> Batches:
        rng = torch.Generator().manual_seed(0)
        images = torch.rand(1 if of.needs == "stills" else 2, row.batch, 3, 64, 64, generator=rng) * 2 - 1
        while True:
            yield tuple(images.to(fabric.device, copy=True))

    def player(**switches: Any) -> Any:
        torch.manual_seed(0)
        made = of(**keywords, **switches)
        place(made, fabric.device)
        return made

    fits = {"plain": PLAIN[name](player(), batches()), "as published": player().fit(fabric, batches())}
    switched = {" ".join(row.switches): player(**row.switches).fit(fabric, batches())} if row.switches else {}
    return fits | switched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of configs/gen; all when none is given")
    parser.add_argument("--small", action="store_true", help="nets of a width for CPUs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    fabric = build.fabric(build.device(args.device), "32-true")
    cuda = fabric.device.type == "cuda"
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    cv2.setNumThreads(1)

    def seconds(step: Iterator[Any]) -> float:
        if cuda:
            torch.cuda.synchronize()
        clock = time.process_time if fabric.device.type == "cpu" else time.perf_counter
        began = clock()
        next(step)
        if cuda:
            torch.cuda.synchronize()
        return clock() - began

    where = torch.cuda.get_device_name() if cuda else f"{cpu_name()}, {torch.get_num_threads()} threads"
    print(f"{date.today()}, {where}, torch {torch.__version__}; 64 px, least of {args.repeats} interleaved steps")
    print(f"{'generator':10} {'batch':>5} {'keywords':36} {'step':12} {'seconds':>8} {'times faster':>12}")
    for name in args.names or names("gen"):
        if name not in PLAIN:
            print(f"{name:10} left out: no plain counterpart here")
            continue
        row = ROWS[name]
        keywords = row.small if args.small else {}
        try:
            steps = contestants(name, row, keywords, fabric)
        except (ImportError, InputError) as error:
            print(f"{name:10} left out: {error}")
            continue
        times: dict[str, list[float]] = {kind: [] for kind in steps}
        for _ in range(args.repeats + 1):  # the first is for warming up
            for kind, step in steps.items():
                times[kind].append(seconds(step))
        least = {kind: min(found[1:]) for kind, found in times.items()}
        said = " ".join(f"{k}={v}" for k, v in keywords.items()) or "published"
        for kind, value in least.items():
            times_faster = least["plain"] / value
            print(f"{name:10} {row.batch:5} {said:36} {kind:12} {value:8.3f} {times_faster:12.2f}", flush=True)


if __name__ == "__main__":
    main()

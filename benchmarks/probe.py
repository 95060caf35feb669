"""What a linear probe finds in the latents of MLP-ALAE: W against Z, and against an autoencoder of equal size.

    python benchmarks/probe.py [--steps 6000]

Embedded faces of ten people; the label is who is shown. MLP-ALAE and an autoencoder of the very same E and G (mean
squared error) train on the same images for the same number of steps. Probe: logistic regression on standardised
latents, fitted on one half and scored on the other, with Wilson's 95 % interval.

- Reals: E(x) of MLP-ALAE, the code of the autoencoder, an untrained E of the same shape, and the pixels themselves.
- Fakes, where z is known: z and w = F(z) of the same fakes G(w). Their label is that of a probe on pixels, fitted on
  the reals.
"""

import argparse
import time
from datetime import date

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from arena import build
from arena.config import resolve
from arena.data.faces import render
from arena.metrics.shares import wilson
from arena.provenance import cpu_name
from arena.seeds import reseed
from arena.training import to_float
from gen.alae import MLPALAE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=4000, help="for training, and as many for the probes")
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--gamma", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="the net of the quick preset, not the published one")
    args = parser.parse_args()
    print(f"{date.today()}, {cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}; {vars(args)}")

    faces = render(args.seed, range(2 * args.images), args.size, identities=args.people)
    images, people = to_float(faces.image), faces.identity.numpy()
    train, held = images[: args.images], images[args.images :]
    preset = resolve([{"generator": "alae_mlp", "detector": "spectrum", "data": {"size": args.size}}])
    options = {k: v for k, v in preset.generator.options.items() if k not in ("size", "gamma")} if args.quick else {}
    reseed(args.seed, "probe")
    alae, rival, untrained = (MLPALAE(size=args.size, gamma=args.gamma, **options) for _ in range(3))
    report("MLP-ALAE", fit_alae(alae, train, args))
    report("autoencoder", fit_autoencoder(rival, train, args))

    with torch.inference_mode():
        latents = {"W of MLP-ALAE": alae.encode(held), "code of the autoencoder": rival.e(held)}
        latents |= {"an untrained E": untrained.e(held), "pixels": held.flatten(1)}
        z = torch.randn(args.images, alae.latent)
        w = alae.map(z)
        fakes = alae.decode(w)
    print(f"\n{'reals':26} {'identity':>9} {'95 %':>16}    chance {1 / args.people:.3f}")
    for name, latent in latents.items():
        show(name, latent.numpy(), people[args.images :])

    oracle = probe().fit(held.flatten(1).numpy(), people[args.images :])
    labels = oracle.predict(fakes.flatten(1).numpy())
    share = np.bincount(labels, minlength=args.people).max() / len(labels)
    print(f"\n{'fakes':26} {'identity':>9} {'95 %':>16}    most frequent {share:.3f}")
    show("Z of MLP-ALAE", z.numpy(), labels)
    show("W of MLP-ALAE", w.numpy(), labels)


def report(name: str, found: tuple[float, float]) -> None:
    print(f"{name}: {found[0]:.0f} s, mean squared error of held reconstructions in the end: {found[1]:.4f}")


def batches(train: torch.Tensor, args):
    for step in range(args.steps):
        reseed(args.seed, "probe", step)
        yield (train[torch.randint(len(train), (args.batch,))],)


def fit_alae(player: MLPALAE, train: torch.Tensor, args) -> tuple[float, float]:
    began = time.perf_counter()
    for _ in player.fit(build.fabric("cpu", "32-true"), batches(train, args)):
        pass
    with torch.inference_mode():
        return time.perf_counter() - began, float(F.mse_loss(player.reconstruct(train[:500]), train[:500]))


def fit_autoencoder(player: MLPALAE, train: torch.Tensor, args) -> tuple[float, float]:
    """The same E and G, taught to rebuild their input. Adam at its own defaults, with MLP-ALAE's rate."""
    began = time.perf_counter()
    opt = torch.optim.Adam([*player.e.parameters(), *player.g.parameters()], 0.002)
    for (x,) in batches(train, args):
        loss = F.mse_loss(player.g(player.e(x)[:, None]), x)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return time.perf_counter() - began, float(loss.detach())


def probe():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def show(name: str, latents: np.ndarray, labels: np.ndarray) -> None:
    half = len(latents) // 2
    right = probe().fit(latents[:half], labels[:half]).score(latents[half:], labels[half:])
    _, low, high = wilson(right * (len(latents) - half), len(latents) - half)
    print(f"{name:26} {right:9.3f} {low:7.3f} to {high:.3f}")


if __name__ == "__main__":
    main()

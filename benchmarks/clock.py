"""How much of a fit's wall time the clock takes for itself (feeding, logging, checking, saving).

    python benchmarks/clock.py

Runs the quick preset's generator and detector for a while under the real clock, with the real saves, on embedded faces,
and prints the share of wall time outside the player's own step. Target: below 5 %.
"""

import argparse
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

from arena import build
from arena.config import resolve
from arena.data.feeds import Labelled, Unlabelled
from arena.data.source import open_data, open_source, store
from arena.ledger import Ledger
from arena.provenance import cpu_name
from arena.training import place, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    steps, device = (args := parser.parse_args()).steps, args.device
    config = resolve([{"generator": "cyclegan", "detector": "cnnspot", "data": {"train": 100, "val": 20, "judge": 20}}])
    print(f"{date.today()}, {cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'fit':10} {'steps':>6} {'wall s':>8} {'own step s':>11} {'feed s':>7} {'outside':>8}")
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "run") as ledger:
        store(open_source(config.data, "domains"), ledger)
        data, fabric = open_data(ledger, config.data.codec), build.fabric(device, config.precision)
        for name, player_config, dataset in (
            ("generator", config.generator, Unlabelled(data.sources_of("train"), config.generator_batch, "benchmark")),
            (
                "detector",
                config.detector,
                Labelled(data.reals_of("train"), data.reals_of("val"), [], config.detector_batch, 0, "b"),
            ),
        ):
            player = build.build(player_config, 0)
            place(player, fabric.device)
            train(fabric, player, dataset, name=name, round=0, steps=2, seed=0, ledger=ledger)  # warm up
            began = time.perf_counter()
            fit = train(fabric, player, dataset, name=name, round=1, steps=steps, seed=0, ledger=ledger)
            wall = time.perf_counter() - began  # with loading and the save at the end
            outside = 1 - fit.own_seconds / wall
            print(f"{name:10} {steps:6} {wall:8.2f} {fit.own_seconds:11.2f} {fit.feed_seconds:7.2f} {outside:8.1%}")


if __name__ == "__main__":
    main()

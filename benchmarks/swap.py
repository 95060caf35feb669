"""How many frames a second `arena swap` gives, stage by stage, and what batches gain over one frame at a time.

Run: python benchmarks/swap.py [--device cpu] [--frames 64] [--side 512] [--width 32]

A clip of one embedded face (256 px, on a plain ground of `--side` px) is encoded, then goes through the stages of the
command one after the other: decode, locate (MTCNN, faces from 48 px), crop, net (an untrained FaceSwap of 64 px; its
speed does not depend on its weights), mask + colour (hull, Lab), blend (alpha), encode (H.264). Both ways, batches and
single frames, take turns; the median of the turns counts. On the CPU: one thread, CPU time of the whole process (so the
encoder's own threads count in full); on another device: wall time.
"""

import argparse
import datetime
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from arena.config import DataConfig
from arena.data.faces import clip
from arena.faces.colour import transfer
from arena.faces.convert import EMBEDDED, Converter, Look, Net
from arena.faces.locate import locator
from arena.faces.video import Video, Writer, open_video
from arena.provenance import device_name
from gen.faceswap import FaceSwap

STAGES = ("decode", "locate", "crop", "net", "mask + colour", "blend", "encode")


def film(path: Path, count: int, side: int) -> Video:
    """A clip with a constant rate of 25, written as the command writes."""
    import av

    frames = clip(1, 3, count, 256).image.permute(0, 2, 3, 1).numpy()
    edge = (side - 256) // 2
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width = stream.height = 256 + 2 * edge
        for frame in frames:
            wide = np.pad(frame, ((edge, edge), (edge, edge), (0, 0)), constant_values=110)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(wide, format="rgb24")))
        out.mux(stream.encode(None))
    return open_video(path)


def through(
    video: Video, converter: Converter, batch: int, out: Path, clock: Callable[[], float]
) -> tuple[dict[str, float], int]:
    """One pass over the video; the seconds of each stage, and the faces."""
    seconds: dict[str, float] = defaultdict(float)
    faces = 0

    def timed(stage: str, call: Callable):
        start = clock()
        result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[stage] += clock() - start
        return result

    stream = iter(video)
    with Writer(out, video) as writer:
        while frames := timed("decode", lambda: list(islice(stream, batch))):
            images = [frame.image for frame in frames]
            places = [("clip", frame.number) for frame in frames]
            found = timed("locate", lambda images=images, places=places: converter.locate(images, places))
            faces += sum(map(len, found))
            crops, matrices = timed("crop", lambda images=images, found=found: converter.crop(images, found))
            swapped = timed("net", lambda crops=crops: converter.swap(crops))

            def dress(found=found, crops=crops, matrices=matrices, swapped=swapped):
                masks = converter.masks(found, matrices)
                return masks, transfer(converter.look.colour, swapped, crops, masks)

            masks, dressed = timed("mask + colour", dress)
            laid = (images, found, dressed, masks, matrices)
            pasted = timed("blend", lambda laid=laid: list(converter.paste(*laid)))

            def encode(frames=frames, pasted=pasted):
                for frame, (image, _) in zip(frames, pasted, strict=True):
                    writer.write(image, frame.seconds)

            timed("encode", encode)
        start = clock()
    seconds["encode"] += clock() - start  # what the encoder held back
    return seconds, faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--side", type=int, default=512, help="of the video, px; at least 256")
    parser.add_argument("--width", type=int, default=32, help="of the net: 128 is the classic one")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--blend", default="alpha", choices=["alpha", "poisson"])
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    torch.set_num_threads(1)
    device = torch.device(args.device)
    player = FaceSwap(width=args.width)
    player.net.to(device)
    net = Net(player, 64, device, {"Seed": "0", "Method": "faceswap"}, DataConfig())
    converter = Converter(
        net, locator(device=args.device, smallest=0.7 * 48), Look(coverage=EMBEDDED, blend=args.blend), args.batch_size
    )
    times: dict[int, list[dict[str, float]]] = {args.batch_size: [], 1: []}
    with tempfile.TemporaryDirectory() as folder:
        video = film(Path(folder) / "clip.mp4", args.frames, args.side)
        for turn in range(args.turns + 1):
            for batch, found in times.items():
                seconds, faces = through(video, converter, batch, Path(folder) / "out.mp4", clock)
                found += [seconds] if turn else []  # the first is for warming up
    print(f"{args.frames} frames of {args.side} px, {faces} faces; width {args.width}; ", end="")
    print(f"frames a second by stage, median of {args.turns} turns (range of the ratio)\n")
    print(f"| stage | batches of {args.batch_size} | one at a time | ratio |\n|---|---|---|---|")
    for stage in (*STAGES, "all"):
        many, single = (
            [sum(turn.values()) if stage == "all" else turn[stage] for turn in found] for found in times.values()
        )
        ratios = [b / a for a, b in zip(many, single, strict=True)]
        rates = [f"{args.frames / median(seconds):.3g}" for seconds in (many, single)]
        print(f"| {stage} | {' | '.join(rates)} | {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |")
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "av", "facenet-pytorch"))
    print(f"\n{datetime.date.today()}, {device_name(args.device)}, {libraries}")


if __name__ == "__main__":
    main()

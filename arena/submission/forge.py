"""Fakes to hand in: forged by a run's generator, or read from a folder, each of the size that is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arena.config import RunConfig
from arena.data import decode
from arena.data.feeds import Store
from arena.data.source import SPLITS, open_data
from arena.errors import InputError
from arena.ledger import Ledger
from arena.player import Opened, open_player
from arena.seeds import rng
from arena.submission.schema import Challenge
from arena.training import place, to_float, to_uint8
from arena.truth import from_sources
from arena.ways import Way, ways

Progress = Callable[[int, int], None]
BATCH_PIXELS = 1 << 18


def forge(
    path: Path, count: int, challenge: Challenge | None, device: str = "cpu", progress: Progress | None = None
) -> tuple[Tensor, dict[str, str], dict[str, Any]]:
    """`count` fakes of a run's generator: uint8 N 3 s s or clips N F 3 s s, with the marks they bear.

    A translator works on the run's own images, those first that it was not trained on (judge, then val, then train),
    and on each domain alike. Raises InputError where there are too few, or where size or frames do not fit.
    """
    player, marks, root, config = opened = open_player(path, "generator")
    data, torch_device = open_data(Ledger(root), "png"), torch.device(device)
    frames = data.summary.get("frames", 1)
    check_size(opened, challenge, frames)
    as_clips = frames > 1 and (challenge is None or challenge.frames > 1)
    place(player, torch_device)
    both = ways(player.needs, data.domains)
    made: list[Tensor] = []
    for i, way in enumerate(both):
        mine = count // len(both) + (i < count % len(both))
        stores = [data.sources[split, way.source] for split in reversed(SPLITS)]
        sources = [store if as_clips else store.stills() for store in stores]
        made.append(_forged(player, way, sources, mine, config, torch_device, progress))
    marks = {"Synthetic": "true", "Source": "deepfake-arena", **marks}
    settings = config.generator.options if config.generator else {}
    return torch.cat(made), marks, made_by(marks, settings)


def _forged(
    player: Any, way: Way, sources: list[Store], count: int, config: RunConfig, device: torch.device,
    progress: Progress | None,
) -> Tensor:  # fmt: skip
    draws, have = rng(config.seed, "submission", way.name), sum(map(len, sources))
    if from_sources(player) and have < count:
        raise InputError(
            f"the run has {have} images of domain {way.source} to translate, and {count} are needed. Train it with "
            "more images, or hand in a folder (--fakes DIR)."
        )
    keywords = {"reverse": True} if way.reverse else {}
    made: list[Tensor] = []
    while sum(map(len, made)) < count:  # a maker of stills draws anew for the same sources
        for store in sources:
            step = max(1, BATCH_PIXELS // (store.images.shape[-1] ** 2 * store.frames))
            for start in range(0, len(store), step):
                chunk = store[slice(start, start + step)]
                with torch.inference_mode():
                    images = to_float(chunk.flatten(0, -4).to(device))
                    made.append(to_uint8(player.sample(images, rng=draws, **keywords)).cpu().view(chunk.shape))
                if progress:
                    progress(min(count, sum(map(len, made))), count)
                if sum(map(len, made)) >= count:
                    return torch.cat(made)[:count]
    return torch.cat(made)[:count]


def read_fakes(folder: Path, size: int | None, frames: int, count: int | None) -> Tensor:
    """Fakes out of a folder of pictures (or of videos), in natural order: uint8 N 3 s s or N F 3 s s.

    Raises InputError for one that cannot be read, or of another size than the rest (or the challenge's), and for less
    than `count`.
    """
    from arena.data.layouts import existing_folder, walk
    from arena.data.splits import natural

    if frames > 1:
        return _read_clips(folder, size, frames, count)
    root = existing_folder(folder)
    files = [root / name for name in sorted(walk(root)[0], key=natural)]
    if not files or (count is not None and len(files) < count):
        raise InputError(f"{folder} holds {len(files)} pictures; {count or 'at least 1'} are needed.")
    items = []
    for file in files[:count]:
        try:
            image = decode.read(file)
        except decode.BadImage as error:
            raise InputError(f"{file}: {error}. Take it out or replace it.") from error
        size = size or image.size[0]
        if image.size != (size, size):
            raise InputError(f"{file} is {image.size[0]} x {image.size[1]} px, expected {size} x {size}. Resize it.")
        items.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(items)


def pictures_in(folder: Path, challenge: Challenge | None) -> int:
    """How many pictures (or, for a challenge of clips, videos) lie in a folder."""
    from arena.data.layouts import existing_folder, walk

    if challenge and challenge.frames > 1:
        return len(list(folder.glob("*.mp4")))
    return len(walk(existing_folder(folder))[0])


def _read_clips(folder: Path, size: int | None, frames: int, count: int | None) -> Tensor:
    from arena.data.splits import natural
    from arena.faces.video import open_video

    files = sorted(folder.glob("*.mp4"), key=lambda file: natural(file.name))
    if not files or (count is not None and len(files) < count):
        raise InputError(f"{folder} holds {len(files)} .mp4 videos; {count or 'at least 1'} are needed.")
    items = []
    for file in files[:count]:
        images = [frame.image for frame in open_video(file)]
        side = size or images[0].shape[0]
        if len(images) != frames or images[0].shape != (side, side, 3):
            shape = f"{len(images)} frames of {images[0].shape[1]} x {images[0].shape[0]} px"
            raise InputError(f"{file} has {shape}, expected {frames} of {side} x {side}.")
        items.append(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    return torch.stack(items)


def made_by(marks: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": marks["Method"], "settings": settings, "run": marks["Run"], "round": int(marks["Round"]),
        "seed": int(marks["Seed"]),
    }  # fmt: skip


def check_size(opened: Opened, challenge: Challenge | None, frames: int) -> None:
    if challenge is None:
        return
    if opened.config.data.size != challenge.size:
        raise InputError(
            f"{opened.root} plays at {opened.config.data.size} px, the challenge at {challenge.size}. Train with "
            f"--size {challenge.size}."
        )
    if frames not in (1, challenge.frames):
        raise InputError(f"{opened.root} has clips of {frames} frames, the challenge of {challenge.frames}.")

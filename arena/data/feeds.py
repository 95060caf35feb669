"""Batches as pure functions of a step: item i of these datasets is the whole batch of step i.

So a resumed fit sees what an uninterrupted one sees, and the batch that broke a fit can be named afterwards.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from arena.seeds import rng


class Store:
    """The images of one split and domain (or the fakes of one way) and their names, with `frames` > 1 its clips.

    `images` are uint8, n frames 3 s s; an item is an image, 3 s s, or a clip, frames 3 s s. `videos` says which video
    an item was taken from, where a video gives several.
    """

    def __init__(self, images: np.ndarray, names: Sequence[Any], frames: int = 1, videos: Sequence[str] | None = None):
        assert len(images) == len(names) * frames, (len(images), len(names), frames)
        self.images = images if frames == 1 else images.reshape(-1, frames, *images.shape[1:])
        self.names, self.frames, self.videos = names, frames, videos

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Sequence[int] | slice) -> Tensor:
        return torch.from_numpy(np.array(self.images[rows]))

    def chunks(self, size: int = 64) -> Iterator[Tensor]:
        step = max(1, size // self.frames)
        for start in range(0, len(self), step):
            yield self[slice(start, start + step)]

    def stills(self) -> "Store":
        """The frames, each an item of its own."""
        if self.frames == 1:
            return self
        names = [f"{name}, frame {frame}" for name in self.names for frame in range(self.frames)]
        return Store(self.images.reshape(-1, *self.images.shape[2:]), names)

    def covers(self, rows: Sequence[int]) -> Tensor:
        """The images of these items, n 3 s s, of a clip the frame in the middle."""
        return self[rows] if self.frames == 1 else self[rows][:, self.frames // 2]


def spread(n: int, count: int) -> list[int]:
    """`count` of n rows, evenly spread from the first to the last (all where there are fewer)."""
    return np.linspace(0, n - 1, min(n, count)).round().astype(int).tolist()


@lru_cache(maxsize=64)
def _permutation(n: int, key: str, epoch: int) -> list[int]:
    return torch.randperm(n, generator=rng(key, epoch)).tolist()


def draw(n: int, key: str, start: int, count: int) -> list[int]:
    """Places start, ..., start + count - 1 of an endless row of shuffled epochs over 0, ..., n - 1."""
    return [_permutation(n, key, place // n)[place % n] for place in range(start, start + count)]


class Unlabelled(Dataset):
    """What a generator trains on: a batch from each store, drawn apart, or `paired`: of each the same rows.

    Item: one uint8 B 3 s s a store.

    `whole` draws whole clips, so that a detector of clips can judge what is made of them: B is then a multiple of their
    frames, in order, and at least `batch`.
    """

    def __init__(self, stores: Sequence[Store], batch: int, key: str, whole: bool = False, paired: bool = False):
        self.stores = stores if whole else [store.stills() for store in stores]
        self.batch, self.key, self.paired = -(-batch // self.stores[0].frames), key, paired

    def rows(self, step: int, which: int) -> list[int]:
        return draw(len(self.stores[which]), f"{self.key}/{0 if self.paired else which}", step * self.batch, self.batch)

    def __getitem__(self, step: int) -> tuple[Tensor, ...]:
        drawn = (store[self.rows(step, which)] for which, store in enumerate(self.stores))
        return tuple(images.flatten(0, -4) for images in drawn)

    def names(self, step: int) -> list[str]:
        return [store.names[row] for which, store in enumerate(self.stores) for row in self.rows(step, which)]


class Labelled(Dataset):
    """What a detector trains on: half reals, half fakes, each half in equal parts from its stores.

    `replay` is the share of the fakes that come from older rounds, where there are any. Item: uint8 B 3 s s (of clips
    B T 3 s s) and float labels B (0 real, 1 fake).
    """

    def __init__(
        self,
        reals: Sequence[Store],
        fakes: Sequence[Store],
        older: Sequence[Store],
        batch: int,
        replay: float,
        key: str,
    ):
        n_fake = batch // 2
        n_old = round(n_fake * replay) if older else 0
        self.pools = [(reals, batch - n_fake, "real"), (fakes, n_fake - n_old, "fake"), (older, n_old, "older")]
        self.labels = torch.cat([torch.zeros(batch - n_fake), torch.ones(n_fake)])
        self.key = key

    def rows(self, step: int) -> Iterator[tuple[Store, list[int]]]:
        for stores, count, kind in self.pools:
            for which, store in enumerate(stores):
                # The batch's places are dealt to the stores in turn, going on where the batch before stopped
                k = len(stores)
                start, stop = ((step + i) * count - which + k - 1 for i in (0, 1))
                yield store, draw(len(store), f"{self.key}/{kind}/{which}", start // k, stop // k - start // k)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        return torch.cat([store[rows] for store, rows in self.rows(step) if rows]), self.labels

    def names(self, step: int) -> list[str]:
        return [store.names[row] for store, rows in self.rows(step) for row in rows]


class Held(Dataset):
    """A held-out set, in order, in batches; it can be run through again and again. Item: as of Labelled."""

    def __init__(self, reals: Sequence[Store], fakes: Sequence[Store], batch: int = 64):
        self.batches = [
            (store, slice(start, start + step), float(label))
            for label, stores in enumerate((reals, fakes))
            for store in stores
            for step in [max(1, batch // store.frames)]
            for start in range(0, len(store), step)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        store, rows, label = self.batches[index]
        images = store[rows]
        return images, torch.full((len(images),), label)

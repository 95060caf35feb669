"""What every fake of a round should be, where that is known, and how near the fakes come to it.

It is known of a swap between two people of the embedded faces, of pairs (the other picture), and of a generator that
restores its sources (the source).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from arena.data.feeds import Store
from arena.metrics.likeness import restoration_scores
from arena.training import to_float, to_uint8
from arena.ways import Way

if TYPE_CHECKING:
    from arena.round import Arena


def restores(player: Any) -> bool:
    """Whether a generator of stills makes fake i as a guess at source i itself, as super-resolution does."""
    return bool(getattr(player, "restores", False))


def from_sources(player: Any) -> bool:
    """Whether fake i of a generator is made from source i, and not from noise alone."""
    return player.needs != "stills" or restores(player)


def truths_of(arena: "Arena", way: Way) -> Store | None:
    """What the judged fakes of a direction should be, image by image, where pairs or restoring say it."""
    if arena.data.paired or restores(arena.generator):
        return arena.data.sources["judge", way.target]
    return None


def references(arena: "Arena", way: Way) -> dict[str, torch.Tensor]:
    """What somebody who has learnt nothing would hand in for the judged sources of a direction, uint8 N 3 S S each.

    Of pairs `copy`, the source itself, and `mean`, the mean training picture; of a restored image `plain`, what the
    generator's `baseline` makes of it, if it has one.
    """
    source = arena.data.sources["judge", way.source].stills()
    if arena.data.paired:
        train = arena.data.sources["train", way.target].stills()
        total = torch.stack([chunk.double().sum(0) for chunk in train.chunks()]).sum(0)
        mean = (total / len(train)).round().to(torch.uint8)
        return {"copy": source[:], "mean": mean.expand(len(source), -1, -1, -1)}
    if not (restores(arena.generator) and hasattr(arena.generator, "baseline")):
        return {}
    with torch.inference_mode():
        parts = (arena.generator.baseline(to_float(chunk.to(arena.device))) for chunk in source.chunks())
        return {"plain": torch.cat([to_uint8(part).cpu() for part in parts])}


def scores(arena: "Arena", fakes: list[Store]) -> dict[str, Any]:
    """The measures of the judged fakes against the truth, by name and direction; empty where nobody knows it."""
    from arena.metrics.swap import swap_scores

    found: dict[str, Any] = {}
    for way, store in zip(arena.ways, fakes, strict=False):  # of given fakes there is no way
        truths = truths_of(arena, way)
        if truths is not None:
            near = restoration_scores(store.stills()[:], truths.stills()[:], references(arena, way))
            found |= {way.of(name): score for name, score in near.items()}
    for way, store, asked in swaps(arena, fakes):
        near = swap_scores(store[:], asked, {asked.wanted[0]: arena.data.sources["train", way.target][:]})
        found |= {way.of(name): score for name, score in near.items()}
    return found


def swaps(arena: "Arena", fakes: list[Store]) -> Iterator[tuple[Way, Store, Any]]:
    """Where the exact swap is known: each direction, its fakes of the judge split, and who should be in them."""
    people = arena.data.people
    if not people or arena.generator.needs != "domains":
        return
    from arena.metrics.swap import Swaps

    for way, store in zip(arena.ways, fakes, strict=True):
        shown, wanted = people[way.source], people[way.target]
        index = arena.data.indices["judge", way.source]
        close = people["close"]
        yield way, store, Swaps(people["seed"], index, [shown] * len(index), [wanted] * len(index), close=close)

"""The pictures of a round that people look at: a fixed panel, and the fakes easiest and hardest to detect."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from arena.data.feeds import Store, spread
from arena.pictures import png, sheet
from arena.training import to_float, to_uint8
from arena.truth import references

PANEL = 8  # columns of a sample sheet


def draw_sheets(arena: Any, r: int, fakes: list[Store]) -> dict[str, list[str]]:
    """A fixed panel (source, fake, a real of the fake's kind), and the fakes easiest and hardest to detect.

    Returns the pictures' names and what their rows show.
    """
    folder = f"rounds/{r:02d}"
    rows, labels = [], []
    if not arena.ways:
        rows, labels = [panel(arena.data.reals["judge", "real"]), panel(fakes[0])], ["real", "fake"]
    for way, store in zip(arena.ways, fakes, strict=False):
        for label, images in panel_rows(arena, way, store):
            rows.append(images)
            labels.append(label)
    part = f"contains synthetic images: every row but sources and {'truths' if arena.data.paired else 'reals'}"
    marks = arena.marks | {"Synthetic": part, "Round": str(r), "Description": f"rows: {', '.join(labels)}"}
    arena.ledger.write_bytes(f"{folder}/sheet.png", png(sheet(rows), marks))

    found = arena.ledger.read_arrays(f"{folder}/scores.npz")["after_fake"]
    order = np.argsort(found, kind="stable")
    covers, names = [], []
    for store in fakes:  # a video stands in `found` once, by its first clip here
        ids = store.videos or store.names
        first = [ids.index(video) for video in dict.fromkeys(ids)] if store.videos else range(len(store))
        covers.append(store.covers(list(first)))
        names += [ids[row] for row in first]
    images = torch.cat(covers)
    k = min(PANEL, len(order) // 2)
    easiest, hardest = order[::-1][:k], order[:k]
    marks = arena.marks | {"Round": str(r), "Description": "rows: fakes easiest to detect, hardest to detect"}
    picture = sheet([images[torch.from_numpy(rows.copy())] for rows in (easiest, hardest)])
    arena.ledger.write_bytes(f"{folder}/extremes.png", png(picture, marks))
    arena.ledger.write(f"{folder}/extremes.json", {
        kind: [{"name": names[i], "logit": float(found[i])} for i in rows]
        for kind, rows in (("easiest", easiest), ("hardest", hardest))
    })  # fmt: skip
    return {"sheet": labels, "extremes": ["easiest to detect", "hardest to detect"]}


def panel_rows(arena: Any, way: Any, store: Store) -> Iterator[tuple[str, torch.Tensor]]:
    """The rows of a sample sheet for one direction: source, itself rebuilt, its fake, the truth where it is known."""
    name = {"a2b": ("A", "A as B"), "b2a": ("B", "B as A"), "": ("real", "fake")}[way.name]
    source = arena.data.sources["judge", way.source]
    if arena.data.paired:
        truths = arena.data.sources["judge", way.target]
        yield from (("source", panel(source)), ("fake", panel(store)), ("truth", panel(truths)))
        return
    yield name[0], panel(source)
    guesses = references(arena, way)
    if "plain" in guesses:
        yield "plain", guesses["plain"][spread(len(source), PANEL)]
    if hasattr(arena.generator, "reconstruct"):
        keywords = {"reverse": True} if way.reverse else {}
        with torch.inference_mode():
            rebuilt = arena.generator.reconstruct(to_float(panel(source).to(arena.device)), **keywords)
        yield f"{name[0]} rebuilt", to_uint8(rebuilt).cpu()
    yield name[1], panel(store)
    if arena.data.people and arena.generator.needs == "domains":
        yield f"the exact {name[1]}", arena.data.exact_swap("judge", way.source, way.target, spread(len(store), PANEL))


def panel(store: Store) -> torch.Tensor:
    """The same few images of a store in every round, evenly spread: neighbours may be views of one thing."""
    return store.covers(spread(len(store), PANEL))

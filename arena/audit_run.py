"""The audit of what a run's detector trains on, before it trains: rounds/NN/audit.json, and a stop where that leaks.

What a run stores has one size and one codec, so of the container the grid of blocks is left, and of labelled folders
what their files say. A net that up-samples leaves patterns that no grid of JPEG's can be told from (docs/audit.md has
figures), so of a run's own generator the grid is told and stops nothing.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arena.audit import Looks, audit
from arena.config import LABELLED, RunConfig
from arena.data import decode, headers
from arena.data.feeds import Store, spread
from arena.data.headers import Header
from arena.errors import InputError, LeakError
from arena.ledger import Ledger
from arena.metrics import leak

PIXELS = 6_000_000  # of all pictures looked at, and so the seconds that an audit may take
MOST = {"train": 600, "val": 100, "judge": 200}  # pictures of a class and split
BRIEF = ("leak", "allowed", "stops", "verdict")

Fakes = Mapping[str, Sequence[Store]]


def pass_audit(ledger: Ledger, config: RunConfig, data: Any, fakes: Fakes, r: int) -> None:
    """Audit a round's data unless that stands in the ledger; raise LeakError on a leak that nobody has allowed.

    fakes: of each split, one store a way.
    """
    name = file_name(r)
    if not ledger.has(name):
        ledger.write(name, audit_stores(ledger, config, data, fakes))
    found = ledger.read(name, "stops", "allowed", "verdict")
    if not found["stops"] or found["allowed"]:
        return
    if not config.allow_leak:
        raise LeakError(
            f"stopped before the detector of round {r} trains: {found['verdict']} A detector would learn that, and"
            f" little of fakes. All that was found stands in {ledger.path(name)} (docs/audit.md)."
        )
    ledger.write(name, {**found, "allowed": True})


def brief(ledger: Ledger, r: int) -> dict[str, Any] | None:
    """A round's audit as summary.json has it; None for a round that was played before there were audits."""
    if not ledger.has(file_name(r)):
        return None
    found = ledger.read(file_name(r), *BRIEF, "container", "baselines", "findings")
    keys = ("name", "auc", "low", "high")
    return {key: found[key] for key in BRIEF} | {
        "container": [{key: row[key] for key in (*keys, "severity")} for row in found["container"] if row["tried"]],
        "baselines": [{key: row[key] for key in keys} for row in found["baselines"]],
        "warnings": [entry["text"] for entry in found["findings"] if entry["severity"] == "warning"],
    }


def file_name(r: int) -> str:
    return f"rounds/{r:02d}/audit.json"


def audit_run(root: Path) -> dict[str, Any]:
    """The audit of a run's data and its newest fakes, made now. Raises InputError where there are none yet."""
    from arena.build import find
    from arena.data.source import SPLITS, open_data
    from arena.stored import stored_config
    from arena.ways import ways

    config, ledger = stored_config(root), Ledger(root)
    if config is None or not ledger.has("data/data.json"):
        raise InputError(f"{root} is no run with data. Give a folder of `arena run` or `arena train`.")
    data = open_data(ledger, config.data.codec)
    if config.generator is None:
        return {"round": None, **audit_stores(ledger, config, data, {split: [data.fakes[split]] for split in SPLITS})}
    played = sorted(path.parent.parent.name for path in root.glob("rounds/*/fakes/manifest.jsonl"))
    if not played:
        raise InputError(f"{root} has forged nothing yet: there are no fakes to audit.")
    fakes: dict[str, list[Store]] = {}
    for split in SPLITS:
        for way in ways(find(config.generator.of).needs, data.domains):
            source = data.reals[split, way.source]
            images = ledger.read_images(f"rounds/{played[-1]}/fakes/{split}-{way.name or 'all'}.npy")
            fakes.setdefault(split, []).append(Store(images, source.names, source.frames, source.videos))
    return {"round": int(played[-1]), **audit_stores(ledger, config, data, fakes)}


def audit_stores(ledger: Ledger, config: RunConfig, data: Any, fakes: Fakes) -> dict[str, Any]:
    """The audit of stored reals and fakes of all splits, of each at most as many as it may take time for."""
    given, side = config.generator is None, config.data.size
    share = min(1.0, PIXELS / (side * side * 2 * sum(MOST.values())))
    manifest = {(row["split"], row["name"]): row for row in ledger.read_lines("data/manifest.jsonl", {"name", "split"})}
    paths = _paths(config) if given else {}
    looks = Looks([], np.array([], bool), [], [], given=given, stored=True)
    fake_of, pictures = list[bool](), list[np.ndarray]()
    for split, most in MOST.items():
        for fake, stores in ((False, data.reals_of(split)), (True, fakes[split])):
            for number, store in enumerate(stores):
                rows = spread(len(store), max(4, round(share * most / len(stores))))
                pictures.append(store.covers(rows).numpy())
                for place, image in zip(rows, pictures[-1], strict=True):
                    name = str(store.names[place])  # a forged one bears its source's name behind its own
                    origin = (name.partition(": ")[2] or name) if fake and not given else name
                    row = manifest.get((split, origin), {})
                    looks.names.append(name)
                    fake_of.append(fake)
                    looks.source.append(row.get("group", f"{number}/{split}/{place}"))
                    looks.split.append(split)
                    looks.pixels.append(hashlib.sha256(image.tobytes()).hexdigest())
                    looks.headers.append(_header(row, paths) if given else {})
    looks.is_fake = np.array(fake_of)
    looks.profile = np.concatenate([leak.edges(some, 8) for some in pictures])
    looks.coarse = np.concatenate([leak.edges(some, 16) for some in pictures])
    looks.colour = np.concatenate([leak.colour(some) for some in pictures])
    looks.spectrum = np.concatenate([leak.spectrum(some) for some in pictures])
    looks.small = np.concatenate([_small(some) for some in pictures])
    return audit(looks)


def _small(images: np.ndarray) -> np.ndarray:
    """N 3 S S at a side of 32 px or a little more, by the means of squares; smaller ones as they are."""
    side = max(1, images.shape[-1] // 32)
    kept = images[..., : images.shape[-2] // side * side, : images.shape[-1] // side * side]
    parts = kept.reshape(*kept.shape[:2], kept.shape[2] // side, side, kept.shape[3] // side, side)
    return parts.mean((3, 5)).round().astype(np.uint8)


def _paths(config: RunConfig) -> dict[str, Path]:
    """The labelled files by their names in the manifest, where they still lie."""
    from arena.data import folders, videos

    if config.data.source != LABELLED:
        return {}
    roots = {"real": config.data.real, "fake": config.data.fake}
    medium = folders.PICTURES._replace(suffixes={*decode.SUFFIXES, *videos.SUFFIXES})
    try:
        return {place.name: path for place, path in folders.gather(roots, config.data.group, medium).places}
    except (InputError, OSError):  # moved since: the manifest has the plainest of it
        return {}


def _header(row: Mapping[str, Any], paths: Mapping[str, Path]) -> Header:
    """What a file says, or where it has gone or changed, what the manifest says of it."""
    known: Header = {key: row[key] for key in ("format", "width", "height", "bytes") if key in row}
    if row.get("fps"):
        known["frames/s"] = round(row["fps"], 3)
    path = paths.get(str(row.get("video", row.get("name"))))
    try:
        if path is None or path.stat().st_size != row.get("bytes"):
            return known
        if "video" in row:
            from arena.faces.video import open_video

            return headers.of_video(path, open_video(path))
        data = decode.read_bytes(path)
        return headers.of_image(data, decode.header(data))
    except (InputError, OSError, decode.BadImage):
        return known


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What a person should hear of an audit, the worst first."""
    yield found["verdict"]
    for entry in found["findings"]:
        if entry["severity"] != "fine":
            yield f"{entry['severity']}: {entry['text']}"

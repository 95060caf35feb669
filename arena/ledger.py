"""The run folder: everything a run knows, written whole or not at all, and read back to go on.

    RUN/run.json                  settings and provenance, written first
    RUN/summary.json              the result, rewritten after each round
    RUN/data/                     manifest.jsonl and one array of uint8 images (n 3 s s) a split and domain
    RUN/state/                    the players as they stand: PLAYER.json names the newest saves, PLAYER-*.ckpt are they
    RUN/rounds/00/                phases/*.json (what stands here is done), losses, fakes, scores, pictures, weights
    RUN/game/                     game.json and logits: every round's detector on every round's fakes
    RUN/report.html

No other module writes there.
"""

import fcntl
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arena.errors import InputError
from arena.files import atomic, read_json, write_json


def parts(player: Any) -> dict[str, Any]:
    """What a player is made of: its nets, EMAs, pools, optimizers and schedulers, by attribute name."""
    return {name: part for name, part in vars(player).items() if hasattr(part, "state_dict")}


def is_weight(entry: str, value: Any) -> bool:
    """Whether an entry of a state dict belongs to a player that plays on.

    Of a module's extra state a single number does (a count that it scores by); a pool of images does not.
    """
    return isinstance(value, torch.Tensor) and (not entry.endswith("_extra_state") or value.numel() == 1)


class Ledger:
    """One run's folder, held by one process at a time."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self._lock: Any = None
        self._current: dict[str, tuple[Any, dict[str, Any]]] = {}

    def __enter__(self) -> "Ledger":
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.root / ".lock", "a")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{self.root} is in use by another run. Wait for it, or choose another --out.") from None
        except OSError as error:
            raise InputError(f"cannot write to {self.root}: {error.strerror}. Choose another --out.") from error
        for left in self.root.rglob(".*.part"):  # of a run that was killed in the middle of a write
            left.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: Any) -> None:
        self._lock.close()

    def path(self, name: str) -> Path:
        return self.root / name

    def has(self, name: str) -> bool:
        return self.path(name).exists()

    def write(self, name: str, value: Any) -> None:
        write_json(self.path(name), value)

    def read(self, name: str, *keys: str) -> Any:
        """A JSON file that must hold at least these keys (a list: each of its entries)."""
        value = read_json(self.path(name))
        for entry in value if isinstance(value, list) else [value]:
            if not isinstance(entry, dict) or any(key not in entry for key in keys):
                raise InputError(
                    f"{self.path(name)} is damaged: expected {', '.join(keys)}. Start again with a new --out."
                )
        return value

    def write_bytes(self, name: str, data: bytes, durable: bool = True) -> None:
        with atomic(self.path(name), durable) as file:
            file.write(data)

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        with atomic(self.path(name)) as file:
            for row in rows:
                file.write(json.dumps(row).encode() + b"\n")

    def read_lines(self, name: str, keys: set[str]) -> list[dict[str, Any]]:
        try:
            rows = [json.loads(line) for line in self.path(name).read_bytes().splitlines()]
            if not all(isinstance(row, dict) and keys <= row.keys() for row in rows):
                raise ValueError(f"expected {', '.join(sorted(keys))} in every line")
            return rows
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path(name)} is damaged ({error}). Start again with a new --out.") from error

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)  # type: ignore[arg-type]
        self.write_bytes(name, buffer.getvalue())

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        try:
            with np.load(self.path(name), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(f"{self.path(name)} is damaged ({error}). Start again with a new --out.") from error

    def write_images(self, name: str, chunks: Iterable[torch.Tensor], n: int, size: int) -> None:
        """Store uint8 images (chunks of k 3 s s, n in all) as one .npy file, a chunk in memory at a time."""
        with atomic(self.path(name)) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (n, 3, size, size)}
            np.lib.format.write_array_header_1_0(file, header)
            written = 0
            for chunk in chunks:
                assert (chunk.dtype, chunk.shape[1:]) == (torch.uint8, (3, size, size)), chunk.shape
                file.write(chunk.contiguous().cpu().numpy().tobytes())
                written += len(chunk)
            assert written == n, (written, n)

    def read_images(self, name: str) -> np.ndarray:
        """A read-only memory map, uint8 n 3 s s."""
        try:
            return np.load(self.path(name), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path(name)} is damaged ({error}). Start again with a new --out.") from error

    # Players

    def save(self, player: Any, name: str, *, round: int, step: int, seconds: float) -> None:
        """Save a player's whole state after `step` steps of `round`'s fit. The newest two saves are kept."""
        file = f"state/{name}-{round:02d}-{step:06d}.ckpt"
        with atomic(self.path(file)) as handle:
            hashed = _Hashing(handle)
            state = {key: part.state_dict() for key, part in parts(player).items()}
            try:
                torch.save(state, hashed)  # type: ignore[arg-type]
            except RuntimeError:  # torch's way to say that the file could not be written
                raise hashed.error or OSError("torch could not write it") from None
        losses = self.path(self.losses_name(name, round))
        entry = {
            "file": file, "sha256": hashed.sha256, "round": round, "step": step, "seconds": seconds,
            "losses_bytes": losses.stat().st_size if losses.exists() else 0,
        }  # fmt: skip
        older = [e for e in self.saves(name) if e["file"] != file]
        self.write(f"state/{name}.json", [entry, *older[:1]])
        self._current[name] = (player, entry)
        for old in older[1:]:
            self.path(old["file"]).unlink(missing_ok=True)

    def saves(self, name: str) -> list[dict[str, Any]]:
        """The saves of a player, newest first; one whose file somebody removed is passed over."""
        if not self.has(f"state/{name}.json"):
            return []
        entries = self.read(f"state/{name}.json", "file", "sha256", "round", "step", "seconds", "losses_bytes")
        return [entry for entry in entries if self.has(entry["file"])]

    def load(self, player: Any, name: str, *, anew: bool = False) -> dict[str, Any]:
        """Bring a player to its newest save and return that save's entry (round 0, step 0 when there is none)."""
        saves = self.saves(name)
        if not saves:
            return {"round": 0, "step": 0, "seconds": 0.0, "losses_bytes": 0}
        entry = saves[0]
        if not anew and self._current.get(name) == (player, entry):
            return entry  # this process wrote or read it: the player stands there
        path = self.path(entry["file"])
        damaged = InputError(f"{path} is damaged. Delete it and run again: the run goes on from the save before it.")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise damaged
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            for key, part in parts(player).items():
                part.load_state_dict(state[key])
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            raise damaged from error
        self._current[name] = (player, entry)
        return entry

    def write_weights(self, player: Any, name: str) -> None:
        """Write the tensors of a player's modules as one safetensors file: to keep, to show, to hand on."""
        from safetensors.torch import save

        tensors = {
            f"{key}.{entry}": tensor.detach().cpu().contiguous().clone()
            for key, part in parts(player).items()
            if isinstance(part, torch.nn.Module)
            for entry, tensor in part.state_dict().items()
            if is_weight(entry, tensor)
        }
        self.write_bytes(name, save(tensors))

    def forget(self, *names: str) -> None:
        """Take back that something is done, so that it is done again."""
        for name in names:
            self.path(name).unlink(missing_ok=True)

    def trim_saves(self) -> None:
        """Keep only the newest save of each player: a run that has ended needs no second one."""
        for pointer in self.path("state").glob("*.json"):
            newest, *older = self.saves(pointer.stem)
            self.write(f"state/{pointer.name}", [newest])
            for entry in older:
                self.path(entry["file"]).unlink(missing_ok=True)

    # Losses: one CSV a fit, appended to, and cut back to the save that a resumed fit starts from

    @staticmethod
    def losses_name(player: str, round: int) -> str:
        return f"rounds/{round:02d}/{player}.csv"

    def append_losses(self, player: str, round: int, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        path = self.path(self.losses_name(player, round))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "a") as file:
                for step, losses in rows:
                    if file.tell() == 0:
                        file.write(",".join(["step", *losses]) + "\n")
                    file.write(",".join([str(step), *(repr(value) for value in losses.values())]) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}. Free some space there and run again.") from error

    def cut_losses(self, player: str, round: int, length: int) -> None:
        path = self.path(self.losses_name(player, round))
        if path.exists():
            os.truncate(path, min(length, path.stat().st_size))


class _Hashing:
    """A file that hashes what passes through (torch.save to it writes a zip front to back)."""

    def __init__(self, file: Any):
        self.file, self.hash = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.hash.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()

    @property
    def sha256(self) -> str:
        return self.hash.hexdigest()


def read_losses(path: Path) -> Iterator[dict[str, float]]:
    """The rows of a losses CSV."""
    header, *rows = Path(path).read_text().splitlines()
    for row in rows:
        yield dict(zip(header.split(","), map(float, row.split(",")), strict=True))

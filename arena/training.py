"""The clock: it turns a player's `fit` step by step, seeds it, logs it, saves it and stops it."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from arena.errors import DivergedError, StoppedError
from arena.ledger import Ledger, parts
from arena.seeds import reseed, rng
from arena.weights import load, read_state

stopping = threading.Event()  # set by a signal handler: fits then save after the step they are in, and stop


@dataclass(frozen=True)
class Fit:
    """How a fit went: its steps, and seconds in all, inside the player's own step, and waiting for data."""

    steps: int
    seconds: float
    own_seconds: float = 0.0
    feed_seconds: float = 0.0


@dataclass(frozen=True)
class Look:
    """A look at the validation split every so many steps and at the end; the weights of the highest value are kept."""

    every: int
    value: Callable[[], float]


class Feed:
    """Batches `start`, ..., `stop` - 1 of a dataset whose item number i is the whole batch of step i.

    Images travel as uint8 and become float in [-1, 1] on the device; labels stay as they are.
    """

    def __init__(self, dataset: Dataset, start: int, stop: int, device: torch.device, workers: int = 0):
        cuda = device.type == "cuda"
        self.device, self.seconds = device, 0.0
        self.loader = DataLoader(
            dataset, batch_size=None, sampler=range(start, stop), num_workers=workers, pin_memory=cuda,
            generator=rng("feed"),  # else it would draw from the global state
        )  # fmt: skip

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        batches = iter(self.loader)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            batch = tuple(to_float(item.to(self.device, non_blocking=True)) for item in batch)
            self.seconds += time.perf_counter() - began
            yield batch


def to_float(x: Tensor) -> Tensor:
    """uint8 0..255 -> float -1..1; anything else passes."""
    return x.float().div_(127.5).sub_(1) if x.dtype == torch.uint8 else x


def to_uint8(x: Tensor) -> Tensor:
    """Float -1..1 -> uint8 0..255, rounded to the nearest."""
    return x.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def place(player: Any, device: torch.device) -> None:
    """Move a player's nets to the device; its optimizers' state follows when it is loaded."""
    for part in parts(player).values():
        if isinstance(part, nn.Module):
            part.to(device)


def train(
    fabric: Any,
    player: Any,
    dataset: Dataset,
    *,
    name: str,
    round: int,
    steps: int,
    seed: int,
    ledger: Ledger,
    save_seconds: float = 60.0,
    check_every: int = 10,
    workers: int = 0,
    progress: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
    look: Look | None = None,
    **fit_keywords: Any,
) -> Fit:
    """Run one round's fit of a player to its end, from where the ledger left it, and save it there.

    With `look` the player ends with the weights of its best look, not with its last ones.
    Raises DivergedError when a loss is not finite: the player and the ledger then stand at the last good save.
    """
    at = ledger.load(player, name)
    start = at["step"] if at["round"] == round else 0
    seconds_before = at["seconds"] if at["round"] == round else 0.0
    ledger.cut_losses(name, round, at["losses_bytes"] if at["round"] == round else 0)
    looks = Looks(ledger, player, f"rounds/{round:02d}/{name}", start)
    if at["round"] == round and at.get("step", 0) >= steps:
        return Fit(steps, seconds_before)

    if not ledger.saves(name):
        ledger.save(player, name, round=round, step=0, seconds=0.0)
        at = ledger.saves(name)[0]
    feed = Feed(dataset, start, steps, fabric.device, workers)
    fit = player.fit(fabric, feed, **fit_keywords)
    began = saved = time.perf_counter()
    own, step = 0.0, start
    pending: list[tuple[int, dict[str, Tensor]]] = []

    def keep() -> None:
        """Bring the losses of the last steps to the CPU (the one place that waits for the device) and check them."""
        rows = _to_floats(pending)
        pending.clear()
        bad = next((row for row in rows if not all(map(math.isfinite, row[1].values()))), None)
        if bad is not None:
            roll_back(*bad)
        ledger.append_losses(name, round, rows)
        if rows:
            progress(*rows[-1])

    def roll_back(step: int, losses: dict[str, float]) -> NoReturn:
        fit.close()
        ledger.load(player, name, anew=True)
        ledger.cut_losses(name, round, at["losses_bytes"] if at["round"] == round else 0)
        raise _diverged(name, round, step, losses, dataset, at)

    def save() -> None:
        nonlocal at, saved
        if not _finite(player):  # a finite loss can still have an infinite gradient
            roll_back(step - 1, {"weights": math.nan})
        ledger.save(player, name, round=round, step=step, seconds=seconds_before + time.perf_counter() - began)
        at, saved = ledger.saves(name)[0], time.perf_counter()

    while step < steps:
        reseed(seed, round, name, step, fabric.global_rank)
        entered = time.perf_counter()
        losses = next(fit, None)
        own += time.perf_counter() - entered
        if losses is None:  # the method's own stopping rule
            break
        pending.append((step, losses))
        step += 1
        if look and step % look.every == 0 and step < steps:
            looks.take(step, look.value())
        due = step < steps and (stopping.is_set() or time.perf_counter() - saved >= save_seconds)
        if due or len(pending) >= check_every:
            keep()
        if due:
            save()
        if due and stopping.is_set():
            fit.close()
            raise StoppedError(f"stopped and saved at step {step} of round {round}'s {name} fit")
    keep()
    next(fit, None)  # its batches are over: let it run what stands behind its loop
    if look:
        looks.take(step, look.value())
        looks.restore()
    done, step = step, steps
    save()
    return Fit(done, seconds_before + time.perf_counter() - began, own - feed.seconds, feed.seconds)


class Looks:
    """What the looks of a fit found, and the weights of the best one: STEM-looks.json and STEM-best.safetensors.

    Looks later than `start`, where the fit goes on, are forgotten: they will be taken again and find the same.
    """

    def __init__(self, ledger: Ledger, player: Any, stem: str, start: int):
        self.ledger, self.player, self.stem = ledger, player, stem
        name = f"{stem}-looks.json"
        found = ledger.read(name, "step", "value") if ledger.has(name) else []
        self.found = [look for look in found if look["step"] <= start]

    def take(self, step: int, value: float) -> None:
        if all(value > look["value"] for look in self.found):
            self.ledger.write_weights(self.player, f"{self.stem}-best.safetensors")
        if all(step != look["step"] for look in self.found):
            self.found.append({"step": step, "value": value})
        self.ledger.write(f"{self.stem}-looks.json", self.found)

    def restore(self) -> None:
        file = self.ledger.path(f"{self.stem}-best.safetensors")
        load(self.player, read_state(file), file)


def _to_floats(pending: list[tuple[int, dict[str, Tensor]]]) -> list[tuple[int, dict[str, float]]]:
    if not pending:
        return []
    names = list(pending[0][1])
    table = torch.stack([torch.stack([losses[name].float().cpu() for name in names]) for _, losses in pending]).tolist()
    return [(step, dict(zip(names, row, strict=True))) for (step, _), row in zip(pending, table, strict=True)]


def _finite(player: Any) -> bool:
    tensors = [p for part in parts(player).values() if isinstance(part, nn.Module) for p in part.parameters()]
    return bool(torch.stack([tensor.detach().isfinite().all() for tensor in tensors]).all()) if tensors else True


def _diverged(name: str, round: int, step: int, losses: dict[str, float], dataset: Any, at: dict) -> DivergedError:
    what, value = next((k, v) for k, v in losses.items() if not math.isfinite(v))
    files = ", ".join(dataset.names(step)) if hasattr(dataset, "names") else "unknown"
    return DivergedError(
        f"{what} of the {name} became {value} at step {step} of round {round}, with the batch {files}. The run stands "
        f"at step {at['step']} of round {at['round']}, the last good one. Look at these images, or start again with a "
        f"lower rate (--set {name}.lr=...) and a new --out."
    )

"""What a person sees while a run works: a live line on a terminal, one plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Any

PLAIN_SECONDS = 15.0


class Silent:
    """Shows nothing."""

    def data(self, done: int, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def phase(self, round: int, phase: str) -> None: ...
    def round(self, summary: dict[str, Any]) -> None: ...
    def close(self) -> None: ...
    def steps(self, round: int, player: str, steps: int) -> Callable[[int, dict[str, float]], None]:
        return lambda step, losses: None


class Plain(Silent):
    """A line for each phase and, within a long one, every 15 seconds; to stderr."""

    def __init__(self, rounds: int):
        self.rounds, self.last = rounds, time.monotonic()

    def say(self, text: str) -> None:
        self.last = time.monotonic()
        print(text, file=sys.stderr, flush=True)

    def data(self, done: int, total: int) -> None:
        if time.monotonic() - self.last > PLAIN_SECONDS:
            self.say(f"reading images: {done} of {total}")

    def note(self, text: str) -> None:
        self.say(f"note: {text}")

    def phase(self, round: int, phase: str) -> None:
        self.say(f"round {round} of {self.rounds}: {phase}")

    def round(self, summary: dict[str, Any]) -> None:
        self.say(last_scores(summary))

    def steps(self, round: int, player: str, steps: int) -> Callable[[int, dict[str, float]], None]:
        pace = Pace(steps)

        def show(step: int, losses: dict[str, float]) -> None:
            eta = pace(step)
            if time.monotonic() - self.last > PLAIN_SECONDS:
                self.say(f"round {round} {player} step {step + 1}/{steps} {eta} {shown(losses)}")

        return show


class Live(Silent):
    """A rich progress display with the losses and the last scores; to stderr."""

    def __init__(self, rounds: int):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining
        from rich.table import Column

        console = Console(stderr=True)
        figures = (MofNCompleteColumn(), TimeElapsedColumn(), Remaining())
        bar = (BarColumn(),) if console.width >= 140 else ()
        losses = TextColumn(
            "{task.fields[losses]}", style="dim", table_column=Column(no_wrap=True, overflow="ellipsis")
        )
        name = TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=24))
        self.progress = Progress(name, *bar, *figures, losses, console=console)
        self.rounds = rounds
        self.all = self.progress.add_task("rounds", total=rounds, losses="")
        self.now = self.progress.add_task("data", total=None, losses="")
        self.progress.start()

    def data(self, done: int, total: int) -> None:
        self.progress.update(self.now, completed=done, total=total, description="reading images")

    def note(self, text: str) -> None:
        self.progress.console.print(f"[dim]note:[/] {escape(text)}", highlight=False)

    def phase(self, round: int, phase: str) -> None:
        self.progress.remove_task(self.now)
        self.now = self.progress.add_task(f"round {round}: {phase}", total=None, losses="")

    def round(self, summary: dict[str, Any]) -> None:
        self.progress.update(self.all, completed=len(summary["rounds"]))
        self.progress.console.print(escape(last_scores(summary)), highlight=False)

    def close(self) -> None:
        self.progress.stop()

    def steps(self, round: int, player: str, steps: int) -> Callable[[int, dict[str, float]], None]:
        def show(step: int, losses: dict[str, float]) -> None:
            self.progress.update(self.now, completed=step + 1, total=steps, losses=shown(losses))

        return show


class Pace:
    """The time left of a fit, from the steps since it was first asked."""

    def __init__(self, steps: int):
        self.steps, self.first = steps, (0, time.monotonic())

    def __call__(self, step: int) -> str:
        if self.first[0] == 0:
            self.first = (step + 1, time.monotonic())
            return ""
        done, seconds = step + 1 - self.first[0], time.monotonic() - self.first[1]
        left = (self.steps - step - 1) * seconds / max(done, 1)
        return f"ETA {int(left) // 60}:{int(left) % 60:02d}"


def watch(rounds: int) -> Silent:
    return Live(rounds) if sys.stderr.isatty() else Plain(rounds)


def shown(losses: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in losses.items())


def last_scores(summary: dict[str, Any]) -> str:
    entry = summary["rounds"][-1]

    def auc(scores: dict[str, Any] | None) -> str:
        return f"{scores['auc']:.3f} [{scores['auc_low']:.3f}, {scores['auc_high']:.3f}]" if scores else "-"

    distance = next(iter(entry["quality"].items()), None)
    quality = f"; {distance[0]} {distance[1]['value']:.4g}" if distance else ""
    near = next((truth for name, truth in entry.get("truth", {}).items() if name.partition(":")[0] == "psnr"), None)
    quality += f"; PSNR {near['value']:.1f} dB" if near else ""
    if summary["settings"]["generator"] is None:
        return f"judged: AUC {auc(entry['after'])}"
    return f"round {entry['round']}: AUC before {auc(entry['before'])}, after {auc(entry['after'])}{quality}"


def escape(text: str) -> str:
    from rich.markup import escape as rich_escape

    return rich_escape(text)

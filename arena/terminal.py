"""What the command line's modules share: examples under --help, and a progress bar."""

import sys
from typing import Any


def example(text: str) -> str:
    """An epilog for --help: the lines as they are, under "Examples:"."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in text.strip().splitlines())


class bar:
    """A progress bar on a terminal, nothing elsewhere: `with bar(...) as progress: progress(done, total)`.

    `progress` is None where there is no bar to move.
    """

    def __init__(self, what: str, quiet: bool):
        self.what, self.quiet = what, quiet or not sys.stderr.isatty()

    def __enter__(self) -> Any:
        if self.quiet:
            return None
        from rich.console import Console
        from rich.progress import Progress

        self.progress = Progress(console=Console(stderr=True))
        task = self.progress.add_task(self.what, total=None)
        self.progress.start()
        return lambda done, total: self.progress.update(task, completed=done, total=total)

    def __exit__(self, *_: Any) -> None:
        if not self.quiet:
            self.progress.stop()

"""A folder of synthetic pictures: each file says what it is, a manifest says it again; all is written or nothing."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arena.errors import InputError
from arena.files import atomic, write_json
from arena.pictures import png, sheet

RATE = 25  # frames a second


class Album:
    """Writes into a folder, under the marks of a player (Method, Run, Round, Seed), and keeps the manifest."""

    def __init__(self, folder: Path, marks: dict[str, str]):
        self.folder, self.marks = folder, {"Synthetic": "true", "Source": "deepfake-arena", **marks}
        self.rows: list[dict[str, Any]] = []

    def picture(self, name: str, image: Tensor, what: str, synthetic: str = "true", **facts: Any) -> None:
        """One PNG of uint8 3 h w. `synthetic`: "true", or what of it is; `facts` (None: left out) become marks, too."""
        texts = {key.replace("_", " ").capitalize(): str(value) for key, value in facts.items() if value is not None}
        marks = self.marks | {"Synthetic": synthetic, "Description": what} | texts
        with atomic(self.folder / name, durable=False) as file:
            file.write(png(image.permute(1, 2, 0).numpy(), marks))
        self.note(name, what, synthetic, **facts)

    def sheet(self, name: str, rows: Sequence[Tensor], what: str, synthetic: str = "true", **facts: Any) -> None:
        self.picture(name, torch.from_numpy(sheet(rows)).permute(2, 0, 1), what, synthetic, **facts)

    def film(self, name: str, batches: Iterable[Tensor], what: str, **facts: Any) -> None:
        """Batches of uint8 n 3 h w, one image after the other, as H.264 without sound."""
        from arena.faces.video import Plain, Writer

        tags = {"title": f"Synthetic video: {what}", **self.marks}
        with Writer(self.folder / name, Plain(Fraction(RATE)), tags, synthetic="true") as writer:
            for batch in batches:
                for image in batch.permute(0, 2, 3, 1).numpy():
                    writer.write(image, writer.count / RATE)
        self.note(name, what, **facts)

    def note(self, name: str, what: str, synthetic: str = "true", **facts: Any) -> None:
        """A file's row of the manifest."""
        marks = self.marks
        self.rows.append({
            "file": name, "synthetic": True if synthetic == "true" else synthetic, "what": what,
            "method": marks["Method"], "run": marks["Run"], "round": int(marks["Round"]), "seed": int(marks["Seed"]),
            "psi": None, **facts,
        })  # fmt: skip

    def finish(self, figures: dict[str, Any]) -> list[dict[str, Any]]:
        """Write manifest.jsonl, and figures.json where there are any; what the folder holds, folders as one entry."""
        if figures:
            write_json(self.folder / "figures.json", figures)
            self.note("figures.json", "figures", synthetic="no picture")
        with atomic(self.folder / "manifest.jsonl") as file:
            file.write("".join(json.dumps(row) + "\n" for row in self.rows).encode())
        held: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            folder, slash, _ = row["file"].partition("/")
            entry = held.setdefault(folder + slash, {"file": folder + slash, "what": row["what"], "n": 0})
            entry["n"] += 1
        return [*held.values()]


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder whose content becomes that of `out` when the block ends well, and vanishes when it does not.

    Raises InputError unless `out` is new or empty.
    """
    if (out / "manifest.jsonl").exists():
        raise InputError(f"{out} holds earlier pictures, which stay as they are. Choose a new folder.")
    if out.is_dir() and any(entry.name != ".DS_Store" for entry in out.iterdir()):
        raise InputError(f"{out} is not empty. Choose a new folder.")
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out, prefix=".", suffix=".part"))
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}. Choose another.") from error
    try:
        yield folder
        for entry in sorted(folder.iterdir()):
            os.replace(entry, out / entry.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new:
            with suppress(OSError):
                out.rmdir()  # where nothing came into it

"""What stands beside summary.json: score arrays, loss curves, pictures, the data manifest.

Each reader returns None where the file is not there (a running round) and raises Damaged where it cannot be read: the
report then leaves that part out and says so. One bad picture must not cost a day's run its report.
"""

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena.report.ledger_view import number

if TYPE_CHECKING:
    import numpy as np

SHOWN = 12  # rounds whose pictures and histograms are shown; the others stand in table and curves only
PIXELS = 100_000_000  # a picture beyond this is refused rather than unpacked


class Damaged(Exception):
    """A file of the ledger is there but cannot be read; the message says why."""


@dataclass(frozen=True)
class Picture:
    """An image file as it goes into the page: its bytes, type and size, and whether it had to be reduced."""

    content: bytes
    mime: str
    width: int
    height: int
    reduced: bool = False


@dataclass
class Manifest:
    """data/manifest.jsonl in figures: what the images are, and whether anything straddles two splits."""

    images: int = 0
    size_bytes: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    groups: dict[str, set[str]] = field(default_factory=dict)
    contents: dict[str, set[str]] = field(default_factory=dict)
    bad_lines: int = 0

    @property
    def straddling_groups(self) -> int:
        return sum(len(splits) > 1 for splits in self.groups.values())

    @property
    def straddling_contents(self) -> int:
        return sum(len(splits) > 1 for splits in self.contents.values())


def round_folder(run: Path, number: int) -> Path:
    return Path(run) / "rounds" / f"{number:02d}"


def shown_rounds(numbers: list[int]) -> list[int]:
    """At most SHOWN rounds: the first, the last and evenly chosen ones between."""
    if len(numbers) <= SHOWN:
        return numbers
    step = (len(numbers) - 1) / (SHOWN - 1)
    return [numbers[round(place * step)] for place in range(SHOWN)]


def read_scores(path: Path) -> "dict[str, np.ndarray] | None":
    """Logits per name ("after_fake" ...), finite ones only."""
    if not path.is_file():
        return None
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            scores = {key: np.asarray(arrays[key], dtype=np.float64).ravel() for key in arrays.files}
    except Exception as error:  # zipfile, numpy and zlib each raise their own kinds on a broken file
        raise Damaged(f"not a readable .npz file ({type(error).__name__})") from error
    return {key: values[np.isfinite(values)] for key, values in scores.items()}


def read_losses(path: Path) -> "dict[str, np.ndarray] | None":
    """Loss curves by name: columns of the csv file but the step; NaN where a figure is missing or not finite.

    A last line without its newline is a write in progress and is left out.
    """
    if not path.is_file():
        return None
    import numpy as np

    try:
        text = path.read_text("utf-8")
        header, *lines = csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))
        if not header or any(len(line) != len(header) for line in lines):
            raise ValueError("lines of unequal length")
        table = np.array([[float(cell or "nan") for cell in line] for line in lines]).reshape(len(lines), len(header))
    except (OSError, ValueError, csv.Error) as error:
        raise Damaged(f"not a readable table of losses ({error})") from error
    table[~np.isfinite(table)] = np.nan
    return {name: table[:, place] for place, name in enumerate(header) if name != "step"}


def read_extremes(path: Path) -> dict[str, list[tuple[str, float | None]]] | None:
    """The names and logits of the fakes under "easiest" and under "hardest"."""
    if not path.is_file():
        return None
    try:
        given = json.loads(path.read_bytes())
        return {
            kind: [(str(entry["name"])[:300], number(entry.get("logit"))) for entry in given[kind]]
            for kind in ("easiest", "hardest")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged("not a readable list of the easiest and hardest fakes") from error


def read_rows(path: Path) -> list[str] | None:
    """What the rows of the sample sheet show, from the list of a round's pictures."""
    if not path.is_file():
        return None
    try:
        entries = [json.loads(line) for line in path.read_bytes().splitlines()]
        rows = next(entry["rows"] for entry in entries if str(entry["file"]).endswith("sheet.png"))
        return [str(row)[:100] for row in rows[:16]]
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise Damaged("not a readable list of pictures") from error


def read_space(path: Path) -> dict[str, Any] | None:
    """The map of a detector's features: `points` (N 2), `round` (N; -1 for reals), `how`."""
    if not path.is_file():
        return None
    import numpy as np

    try:
        given = json.loads(path.read_bytes())
        points, rounds = np.array(given["points"], dtype=float), np.array(given["round"], dtype=int)
        if points.shape != (len(rounds), 2) or not np.isfinite(points).all():
            raise ValueError("expected two finite numbers a point")
        return {"points": points, "round": rounds, "how": str(given["how"])[:100]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged("not a readable map of features") from error


def read_manifest(path: Path) -> Manifest | None:
    """Count what stands in the manifest; lines that are no JSON objects are counted, not fatal."""
    if not path.is_file():
        return None
    manifest = Manifest()
    try:
        with path.open("rb") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    _count(manifest, entry)
                except (ValueError, TypeError, AttributeError):
                    manifest.bad_lines += 1
    except OSError as error:
        raise Damaged(f"cannot be read ({error.strerror})") from error
    if not manifest.images:
        raise Damaged("holds no image")
    return manifest


def _count(manifest: Manifest, entry: dict[str, Any]) -> None:
    split, size = str(entry.get("split") or "?"), (entry.get("width"), entry.get("height"))
    manifest.images += 1
    manifest.size_bytes += int(number(entry.get("bytes")) or 0)
    manifest.formats[str(entry.get("format") or "unknown")] += 1
    if isinstance(size[0], int) and isinstance(size[1], int):
        manifest.sizes[size[0], size[1]] += 1
    if entry.get("group") not in (None, ""):
        manifest.groups.setdefault(str(entry["group"]), set()).add(split)
    if entry.get("sha256"):
        manifest.contents.setdefault(str(entry["sha256"]), set()).add(split)


def read_picture(path: Path, budget: int) -> Picture | None:
    """The file's own bytes if they fit into `budget` bytes, else a reduced JPEG that still says "synthetic"."""
    if not path.is_file():
        return None
    from PIL import Image

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width * image.height > PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            image.load()
            if len(content) <= budget:
                return Picture(content, "image/png", image.width, image.height)
            return _reduce(image.convert("RGB"), budget)
    except Exception as error:  # Pillow's decoders raise many kinds on a broken file
        raise Damaged(f"not a readable PNG ({error or type(error).__name__})") from error


def _reduce(image: Any, budget: int) -> Picture:
    from PIL import Image

    width = min(image.width, 1536)
    while True:
        size = (width, max(1, round(image.height * width / image.width)))
        buffer = io.BytesIO()
        smaller = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
        smaller.save(buffer, "JPEG", quality=85, comment=b"synthetic images inside; reduced for the report")
        if buffer.tell() <= budget or width <= 160:
            return Picture(buffer.getvalue(), "image/jpeg", *size, reduced=True)
        width = int(width * 0.8)

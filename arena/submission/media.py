"""Fakes and reals as files, one way for both: PNG for an image, MP4 for a clip."""

from fractions import Fraction
from pathlib import Path

from torch import Tensor

from arena.files import atomic
from arena.pictures import png, sheet

RATE = 25  # frames a second of a clip
ON_SHEET = 24  # fakes on a preview


def write_item(path: Path, item: Tensor, marks: dict[str, str]) -> None:
    """Write an image, uint8 3 s s, as PNG, or a clip, uint8 F 3 s s, as MP4, under its marks."""
    if item.ndim == 3:
        with atomic(path, durable=False) as file:
            file.write(png(item.permute(1, 2, 0).numpy(), marks))
        return
    from arena.faces.video import Plain, Writer

    path.parent.mkdir(parents=True, exist_ok=True)
    with Writer(path, Plain(Fraction(RATE)), dict(marks), synthetic=marks["Synthetic"]) as writer:
        for number, frame in enumerate(item.permute(0, 2, 3, 1).numpy()):
            writer.write(frame, number / RATE)


def preview(items: Tensor, marks: dict[str, str], columns: int = 8) -> bytes:
    """A PNG sheet of the first items, uint8 N 3 s s, or of the middle frames of clips, uint8 N F 3 s s."""
    shown = items[:ON_SHEET]
    if shown.ndim == 5:
        shown = shown[:, shown.shape[1] // 2]
    return png(sheet(shown.split(columns)), marks)

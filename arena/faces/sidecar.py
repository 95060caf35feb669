"""faces.jsonl: one line of JSON a crop, with everything that it takes to put the face back.

A reader of strangers' files: lengths, types and numbers are checked, and no name leads out of its folder.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from arena.errors import InputError
from arena.files import atomic

NAME = "faces.jsonl"
MOST_LINE, MOST_LINES = 1 << 14, 5_000_000

Text = Annotated[str, Field(max_length=1024)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Pair = tuple[FiniteFloat, FiniteFloat]
Triple = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class Crop(BaseModel):
    """Where one crop comes from. Pixels count from the source picture's corner: the first one's centre is 0.5."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Text  # the crop, beside the sidecar
    source: Text  # the name of the image or video, below the folder that was given
    source_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    frame: Count  # from 0; 0 in an image
    seconds: FiniteFloat  # from the video's first frame
    face: Count  # 0 is the largest of its frame
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]  # left, top, right, bottom
    points: tuple[Pair, Pair, Pair, Pair, Pair]  # left eye, right eye, nose, left and right mouth corner
    matrix: tuple[Triple, Triple]  # source's pixels -> crop's pixels: crop = matrix[:, :2] @ source + matrix[:, 2]
    size: Annotated[int, Field(ge=1, le=4096)]  # side of the crop
    coverage: Annotated[FiniteFloat, Field(gt=0)]
    score: FiniteFloat  # the locator's
    sharpness: Annotated[FiniteFloat, Field(ge=0)]
    locator: Text
    locator_version: Text

    @field_validator("file")
    @classmethod
    def _beside(cls, name: str) -> str:
        if not name or name.startswith(".") or any(mark in name for mark in "/\\:\0"):
            raise ValueError("is no plain name of a file beside the sidecar")
        return name

    @field_validator("matrix")
    @classmethod
    def _invertible(cls, matrix: tuple[Triple, Triple]) -> tuple[Triple, Triple]:
        (a, b, _), (c, d, _) = matrix
        if not abs(a * d - b * c) > 1e-12:
            raise ValueError("cannot be inverted")
        return matrix


def write(path: Path, crops: Iterable[Crop]) -> None:
    """Write a sidecar, whole or not at all."""
    with atomic(path) as file:
        for crop in crops:
            file.write(crop.model_dump_json().encode() + b"\n")


def read(path: Path) -> Iterator[Crop]:
    """The crops of a sidecar (a file, or the folder that holds faces.jsonl), one by one.

    Raises InputError naming file, line and field for anything else than `write` writes.
    """
    path = path / NAME if path.is_dir() else path
    try:
        with path.open("rb") as file:
            for number in range(1, MOST_LINES + 2):
                line = file.readline(MOST_LINE + 1)
                if not line:
                    return
                if len(line) > MOST_LINE or number > MOST_LINES:
                    raise InputError(f"{path}, line {number}: over {MOST_LINE} bytes, or over {MOST_LINES} lines.")
                yield parse(line, f"{path}, line {number}")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}. `arena extract` writes it.") from error


def parse(line: bytes, where: str) -> Crop:
    try:
        return Crop.model_validate_json(line)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "too deep"}
        field = ".".join(map(str, first["loc"])) or "the line"
        raise InputError(
            f"{where}: {field}: {first['msg']}. It should be a line that `arena extract` wrote."
        ) from error

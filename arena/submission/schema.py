"""What organisers and teams hand each other: challenge.json and submission.json, their limits and their file names."""

import json
import re
import unicodedata
from typing import Literal

from pydantic import Field, field_validator

from arena.config import Strict

VERSION = 1
Track = Literal["generation", "detection"]
TEAM_NAME = 60  # characters at most
TEAM_RULE = f"at most {TEAM_NAME} letters, digits, spaces and .,'&+!-_ alone, beginning with a letter or digit"
MOST_SETTINGS = 20_000  # characters of a method's settings
DETECTOR_FILES = ("detector.onnx", "detector.safetensors", "detector.yaml")
FILES = ("submission.json", "MODEL_CARD.md", "preview.png", "scores.csv", *DETECTOR_FILES)
_FAKE = re.compile(r"fakes/[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.(png|mp4)")


class Limits(Strict):
    """What a submission may cost the organiser. Bytes, seconds; `ratio` is unpacked to packed size."""

    zip_bytes: int = Field(500_000_000, ge=1)
    members: int = Field(20_000, ge=1)
    member_bytes: int = Field(200_000_000, ge=1)
    total_bytes: int = Field(2_000_000_000, ge=1)
    ratio: int = Field(200, ge=2)
    name_length: int = Field(120, ge=16)
    memory_bytes: int = Field(4 << 30, ge=1 << 28)
    seconds: int = Field(300, ge=5, description="decoding a team's fakes; a detector, for each 1,000 images")
    nodes: int = Field(20_000, ge=1, description="of an ONNX graph")


class Floors(Strict):
    """What fakes must reach to be ranked, so that neither noise nor copies of the public reals can win."""

    coverage: float = Field(0.05, ge=0, le=1, description="share of reals with a fake among their near ones, at least")
    distance: float = Field(0.5, ge=0, description="distance to the reals, of what noise has, at most")
    repeated: float = Field(0.5, ge=0, le=1, description="share of fakes that repeat another one, at most")
    copied: float = Field(0.1, ge=0, le=1, description="share of fakes that copy a public real, at most")


class Challenge(Strict):
    """challenge.json, public: what is played and what counts. `fakes` and `n_test` are counts, `size` is in pixels."""

    schema_version: Literal[1] = Field(1, alias="schema")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")
    title: str = Field(min_length=1, max_length=120)
    about: str = Field("", max_length=5000)
    tracks: tuple[Track, ...] = ("generation", "detection")
    size: int = Field(ge=32, le=1024)
    frames: int = Field(1, ge=1, le=1000, description="1: images; else clips of so many frames")
    fakes: int = Field(ge=10, le=20_000)
    n_test: int = Field(0, ge=0)
    codec: str = Field("jpeg-90", pattern=r"^(png|jpeg-\d{1,3}|raw|c23|c40)$")
    domains: tuple[str, ...] = ()
    licence: str = ""
    data: str = ""
    limits: Limits = Limits()
    floors: Floors = Floors()
    made_by: str = ""

    @property
    def suffix(self) -> str:
        """Of a file of reals or fakes."""
        return ".png" if self.frames == 1 else ".mp4"


class Made(Strict):
    """Where a generator or a detector of a submission comes from."""

    method: str = Field("unknown", max_length=80)
    settings: dict[str, object] = Field({})
    run: str = Field("", max_length=200)
    round: int | None = Field(None, ge=0, lt=10**6)
    seed: int | None = Field(None, ge=0, lt=2**63)

    @field_validator("settings")
    @classmethod
    def _small(cls, settings: dict[str, object]) -> dict[str, object]:
        try:
            size = len(json.dumps(settings, allow_nan=False))
        except (ValueError, RecursionError) as error:
            raise ValueError("settings that are too deep, or no finite numbers") from error
        if size > MOST_SETTINGS:
            raise ValueError(f"settings of {size} characters; at most {MOST_SETTINGS} are allowed")
        return settings


class Fakes(Strict):
    count: int = Field(ge=1, le=20_000)
    size: int = Field(ge=1, le=100_000)
    frames: int = Field(1, ge=1, le=1000)


class Submission(Strict):
    """submission.json: who hands in what, how it was made, and the sha256 of every other file."""

    schema_version: Literal[1] = Field(alias="schema")
    team: str = Field(min_length=1, max_length=TEAM_NAME)
    challenge: str | None = Field(None, max_length=64, description="its id")
    tracks: tuple[Track, ...] = Field(min_length=1, max_length=2)
    generator: Made | None = None
    fakes: Fakes | None = None
    detector: Made | None = None
    licence: str = Field(min_length=1, max_length=500)
    data: str = Field(min_length=1, max_length=2000, description="what the methods were trained on")
    made_by: str = Field("", max_length=200)
    files: dict[str, str] = Field(max_length=20_100)

    @field_validator("team")
    @classmethod
    def _visible(cls, team: str) -> str:
        if not is_team(team):
            raise ValueError(f"expected {TEAM_RULE}")
        return unicodedata.normalize("NFC", team)

    @field_validator("files")
    @classmethod
    def _hashes(cls, files: dict[str, str]) -> dict[str, str]:
        bad = next((name for name, sha in files.items() if not re.fullmatch(r"[0-9a-f]{64}", sha)), None)
        if bad is not None:
            raise ValueError(f"sha256 of {bad[:80]!r} is no 64 hexadecimal digits")
        return files


def is_team(team: str) -> bool:
    """Whether a name can stand on a board: letters and digits of any script, with their accents, and little else."""
    if not team or len(team) > TEAM_NAME or team != team.strip() or unicodedata.category(team[0])[0] not in "LN":
        return False
    return all(unicodedata.category(letter)[0] in "LNM" or letter in " .,'&+!-_" for letter in team)


def allowed(name: str) -> str | None:
    """None for a name that a submission may hold, else why not."""
    if name in FILES or _FAKE.fullmatch(name):
        return None
    return "no file of a submission (RULES.md names them)"

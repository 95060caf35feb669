"""What `arena sample` can be asked for, and whether a player can give it. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from arena.errors import InputError
from arena.faces import need

MOST = 100_000  # seeds
LATENTS = ("latent", "levels", "map", "decode", "truncate")  # and `encode`, where images have latents, too


@dataclass(frozen=True)
class Wishes:
    """The options of `arena sample`, and what follows from them."""

    n: int | None = None
    seeds: tuple[int, ...] | None = None
    psi: float | None = None
    cutoff: int | None = None
    reconstruct: tuple[Path, ...] = ()
    interpolate: Literal["lerp", "slerp"] | None = None
    video: str | None = None
    frames: int | None = None
    mix: tuple[int, int] | None = None
    level: int | None = None
    directions: int | None = None
    path_length: int | None = None
    source: tuple[Path, ...] = ()
    reverse: bool = False

    @property
    def walks(self) -> list[str]:
        """The options that start from images (of seeds, or encoded sources) and move in W."""
        found = {"--interpolate": self.interpolate, "--mix": self.mix, "--directions": self.directions}
        return [option for option, value in found.items() if value]

    @property
    def plain(self) -> bool:
        """Nothing in particular: samples, or translations."""
        return not (self.walks or self.path_length or self.reconstruct)


def has_latents(player: Any) -> bool:
    return all(hasattr(player, name) for name in LATENTS)


def parse_seeds(text: str) -> tuple[int, ...]:
    """ "0-3,8" -> 0, 1, 2, 3, 8. Raises InputError for what is no such list, and for more than 100,000 seeds."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        numbers = all(word.isdecimal() and len(word) <= 15 for word in (first, last))
        if not numbers or int(last) < int(first):
            raise InputError(f"--seeds {text[:40]!r}: expected numbers from 0 on, as in 0-63 or 3,5,8-11.")
        if len(found) + int(last) - int(first) >= MOST:
            raise InputError(f"--seeds {text[:40]!r}: more than {MOST} seeds. Take them in several folders.")
        found += range(int(first), int(last) + 1)
    return tuple(found)


def check(w: Wishes, player: Any, name: str) -> None:
    """Raise InputError for an option that this player cannot follow, is out of range, or would change nothing."""
    needing = [*w.walks, *(["--path-length"] if w.path_length else [])]
    needing += [option for option, value in (("--seeds", w.seeds), ("--psi", w.psi)) if value is not None]
    if needing and not has_latents(player):
        raise InputError(f"{needing[0]}: {name} has no latents. It makes images of images: --source FOLDER.")
    if w.reconstruct and not hasattr(player, "reconstruct"):
        raise InputError(f"--reconstruct: {name} cannot rebuild images.")
    if w.plain and w.source and has_latents(player):
        rather = "To rebuild images, give them to --reconstruct." if hasattr(player, "reconstruct") else "Give --seeds."
        raise InputError(f"--source: {name} translates nothing. {rather}")
    if w.walks and w.source and has_latents(player) and not hasattr(player, "encode"):
        raise InputError(f"--source: {name} cannot find the latent of an image. Start from --seeds.")
    check_fit(w, player, name)
    if has_latents(player):
        check_range(w, player, name)
    if w.video:
        check_film(w.video)


def check_fit(w: Wishes, player: Any, name: str) -> None:
    begins = bool(w.walks) or w.plain
    two_ways = player.needs == "domains" and (w.plain or bool(w.reconstruct))
    for given, fits, text in (
        (w.n and w.seeds, False, "--n and --seeds both say which images to make: give one of them"),
        (w.seeds and w.source, False, "--seeds and --source both say where to start: give one of them"),
        (w.n, w.plain or w.reconstruct, "--n counts samples, translations, reconstructions: none are asked for"),
        (w.seeds, begins, "--seeds: nothing that starts from a seed is asked for"),
        (w.source, begins, "--source: nothing that starts from an image is asked for"),
        (w.psi is not None, begins, "--psi: nothing that it would change is asked for"),
        (w.cutoff, w.psi is not None, "--cutoff needs --psi"),
        (w.video, w.interpolate, "--video needs --interpolate: it films the way from image to image"),
        (w.frames, w.video, "--frames needs --video"),
        (w.level is not None, w.mix, "--level needs --mix"),
        (w.reverse, two_ways, f"--reverse: {name} translates nothing here"),
    ):
        if given and not fits:
            raise InputError(f"{text}.")


def check_range(w: Wishes, player: Any, name: str) -> None:
    levels = player.levels
    if w.psi is not None and not -1 <= w.psi <= 1:
        raise InputError(f"--psi {w.psi}: expected a number from -1 to 1 (1 truncates nothing).")
    if w.cutoff and w.cutoff > levels:
        raise InputError(f"--cutoff {w.cutoff}: {name} has {levels} level{'s' if levels > 1 else ''}.")
    if w.mix and levels == 1:
        raise InputError(f"--mix: {name} has one level, so there is nothing to mix.")
    if w.level is not None and not 0 < w.level < levels:
        raise InputError(f"--level {w.level}: {name} has {levels} levels, so expected 1 to {levels - 1}.")
    if w.directions and w.directions > player.latent:
        raise InputError(f"--directions {w.directions}: {name} has {player.latent} dimensions in W.")


def check_film(video: str) -> None:
    if Path(video).name != video or not video.endswith(".mp4"):
        raise InputError(f"--video {video}: expected a name that ends in .mp4, without a folder: it goes into OUT.")
    need("av")


def check_starts(w: Wishes, given: int, most: int) -> None:
    """Raise InputError unless the seeds or sources that were given are as many as the options need."""
    rows, columns = w.mix or (0, 0)
    for option, needed in (("--interpolate", 2), ("--mix", rows + columns), ("--directions", 1)):
        if option in w.walks and given < needed:
            raise InputError(f"{option} needs {needed} images to start from, {given} given.")
    if w.interpolate and given > most:
        raise InputError(f"--interpolate goes through at most {most} images, {given} given.")

"""The panel for folders of images, read as `arena fid` reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arena.errors import InputError
from arena.metrics.features import Extractor
from arena.metrics.folders import Progress, decoded, image_files
from arena.metrics.modes import appearance, mode_count
from arena.metrics.module_features import module_extractor
from arena.metrics.quality import quality_panel

FEW = 200  # images: with fewer, a note


def quality_of(
    real: str | Path,
    fake: str | Path,
    *,
    known: str | Path | None = None,
    floor: str | Path | None = None,
    of: Sequence[str] = (),
    full: bool = False,
    device: str | torch.device = "cpu",
    weights: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Every figure of the fakes in one folder against the reals in another, as plain numbers ready for JSON.

    All images are of one size, 16 px or more. `floor`: a folder of other reals, from which the floors come; without it
    a random half of the reals is kept for them and the other half is the reference. Fakes are compared as many as there
    are other reals (`Panel.score`); copies and modes are looked for in all. `known`: what the generator was trained on.
    `of`: networks to look through, too (`module_extractor`). Other arguments as in `quality_panel`.

    Keys: `scores` (`Panel.score`, and `modes` where every known image lies in a sub-folder that names its mode),
    `n`, `n_real`, `n_floor` (images compared: fakes, reals, other reals), `real`, `fake`, `notes`. Raises InputError.
    """
    extractors: list[Extractor] = [module_extractor(one, device) for one in of]
    panel = quality_panel(device, weights or "auto", "full" if full else "round", extractors)
    sets: dict[str, tuple[list[Path], Tensor]] = {}
    for name, folder in (("real", real), ("fake", fake), ("floor", floor), ("known", known)):
        if folder is not None:
            sets[name] = read(folder, progress)
            size, first = (tuple(sets[key][1].shape[:-3:-1]) for key in (name, "real"))
            if size != first:
                raise InputError(
                    f"expected images of one size, got {size[0]} x {size[1]} px in {folder} and "
                    f"{first[0]} x {first[1]} in {real}. Resize them first, both in the same way."
                )
    reals, fakes = sets["real"][1], sets["fake"][1]
    notes = [panel.note] if panel.note else []
    for argument, folder in (("FAKE", fake), ("--floor", floor)):
        if folder is not None and Path(folder).resolve() == Path(real).resolve():
            notes.append(f"REAL and {argument} are the same folder, {real}: its images are compared with themselves.")
    if floor is None:
        if len(reals) < 6:
            raise InputError(f"expected at least 6 reals in {real}, or other reals with --floor, got {len(reals)}.")
        order = torch.randperm(len(reals), generator=torch.Generator().manual_seed(0))
        half = len(reals) // 2
        others, reference = reals[order[:half].sort().values], reals[order[half:].sort().values]
        notes.append(f"half of {real} is kept for the floors; --floor names other reals instead.")
    else:
        others, reference = sets["floor"][1], reals
    n = min(len(fakes), len(others))
    if n < len(fakes):
        wish = "with more images " if floor else ""
        notes.append(f"{n} of {len(fakes)} fakes, as many as other reals for the floor; --floor DIR {wish}for all.")
    scores = panel.score(fakes, reference, others, sets["known"][1] if known is not None else None)
    if known is not None:
        modes = known_modes(Path(known), *sets["known"], Path(real), *sets["real"], fakes)
        if modes and modes["value"] is None:
            notes.append(f"no count of modes: {modes['left_out']}.")
        elif modes:
            scores["modes"] = modes
    few = [f"{count} {what}" for count, what in ((n, "fakes"), (len(reference), "reals")) if count < FEW]
    if few:
        notes.append(f"{' and '.join(few)}: with fewer than {FEW} images a side, look at the floor before the value.")
    return {
        "scores": scores, "n": n, "n_real": len(reference), "n_floor": n,
        "real": str(real), "fake": str(fake), "notes": notes,
    }  # fmt: skip


def known_modes(
    known: Path, files: list[Path], images: Tensor, real: Path, real_files: list[Path], reals: Tensor, fakes: Tensor
) -> dict[str, Any] | None:
    """The count of modes where known images lie in two or more sub-folders and nowhere else; else None.

    The rule is measured on the reals where they lie in sub-folders of the same names.
    """
    labels = [file.relative_to(known).parts[0] for file in files]
    held = [file.relative_to(real).parts[0] for file in real_files]
    if any(file.parent == known for file in files) or len(set(labels)) < 2:
        return None
    measured = (appearance(reals), held) if set(held) <= set(labels) else (None, None)
    count = mode_count(appearance(fakes), appearance(images), labels, *measured)
    return {**count, "features": "nearest known image by its colours at 8 and 16 px"}


def read(folder: str | Path, progress: Progress | None) -> tuple[list[Path], Tensor]:
    """A folder's image files and what is in them, uint8 N 3 S S."""
    files = image_files(folder)
    if len(files) < 3:
        raise InputError(f"expected at least 3 images in {folder} and its sub-folders, got {len(files)}.")
    images: list[Tensor] = []
    for file, image in zip(files, decoded(files, 256), strict=True):
        if images and image.shape != images[0].shape:
            one, other = ("{2} x {1} px".format(*some.shape) for some in (image, images[0]))
            raise InputError(f"expected images of one size, got {one} in {file} after {other}. Resize them first.")
        images.append(image)
        if progress:
            progress(len(images), len(files))
    return files, torch.stack(images)

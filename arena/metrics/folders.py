"""The distance between any two image folders, and the statistics files that stand for a folder.

A folder is read with its sub-folders; PNG, JPEG, WEBP and BMP, in any letter case. A statistics file is an .npz with
`mu` and `sigma`, as pytorch-fid writes and reads it; ours also say how they were made (`n`, `protocol`), and a file
made with other features is refused.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from arena.errors import InputError
from arena.files import atomic
from arena.metrics.features import Extractor, Inception, RandomConv, Spectrum, find_inception_weights, missing_weights
from arena.metrics.frechet import Reference
from arena.metrics.intervals import frechet_interval

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_PIXELS = 40_000_000
Progress = Callable[[int, int], None]


@dataclass
class Statistics:
    """What the distance needs of one side: its features (N x d) where it was a folder, and its protocol where known."""

    path: Path
    reference: Reference
    n: int | None
    features: NDArray | None
    protocol: dict[str, str] | None  # distance (its name), features (their description)


def fid_of(
    real: str | Path,
    fake: str | Path,
    *,
    features: str = "inception",
    dims: int = 2048,
    device: str | torch.device = "cpu",
    weights: str | Path | None = None,
    batch_size: int = 50,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fréchet distance between two folders or .npz files, with its protocol, as plain numbers ready for JSON.

    `features`: "inception" (FID's network; `dims` 2048 is FID, 64, 192 and 768 are earlier layers), "conv704" (random
    convolutions, seed 0; "conv704-s1" for another seed) or "spectrum". `weights` as in `Inception`. `progress` is
    called with (images done, images in all of that folder).

    Keys: `name` ("fid" only for the official weights at 2048 dims, else "fd-inception-64", "rfd-conv704-s0", "sfd", or
    "fd-npz-D" for two files that do not say what made them), `value`; `low`, `high` (95 %, block jackknife over the
    fakes; null without their images); `n`, `n_real` (images; null where a file does not say); `floor`, `floor_n`,
    `floor_n_real` (the same distance between two random halves of the reals, the first cut to at most `n`; null unless
    both are folders with enough images); `features` (architecture, weights' sha256, resize), `dims`, `real`, `fake`,
    `note` (a caution, or null).

    Raises InputError for missing weights, folders without enough images, damaged images and files that do not fit.
    """
    paths = Path(real), Path(fake)
    for path in paths:
        if not _is_file(path):
            image_files(path)  # a mistyped folder is said before missing weights are
    extractor: Extractor | None = None
    if not all(_is_file(path) for path in paths):
        extractor = make_extractor(features, dims, device, weights, batch_size)
    read = {path: folder_statistics(path, extractor, batch_size, progress) for path in sorted(set(paths), key=_cheap)}
    reals, fakes = (read[path] for path in paths)
    d = reals.reference.dims
    if d != fakes.reference.dims:
        raise InputError(
            f"expected features of one size, got {d} dims in {real} and {fakes.reference.dims} in {fake}. "
            "Make both with the same features, dims and image size."
        )
    if reals.protocol and fakes.protocol and reals.protocol != fakes.protocol:
        raise InputError(f"{real} and {fake} were made with different features. Make both anew with the same ones.")
    protocol = reals.protocol or fakes.protocol or {"distance": f"fd-npz-{d}", "features": "unknown"}
    low: float | None = None
    high: float | None = None
    if fakes.features is not None:
        value, low, high = frechet_interval(reals.reference, fakes.features)
    else:
        value = reals.reference.distance(fakes.reference)
    floor: dict[str, Any] = {"floor": None, "floor_n": None, "floor_n_real": None}
    if reals.features is not None and fakes.features is not None:
        floor = _floor(reals.features, len(fakes.features))
    silent = sorted({str(side.path) for side in (reals, fakes) if side.protocol is None})
    return {
        "name": protocol["distance"],
        "value": value,
        "low": low,
        "high": high,
        "n": fakes.n,
        "n_real": reals.n,
        **floor,
        "features": protocol["features"],
        "dims": d,
        "real": str(real),
        "fake": str(fake),
        "note": f"{', '.join(silent)}: does not say which features made it; taken on trust." if silent else None,
    }


def write_statistics(
    folder: str | Path,
    out: str | Path,
    *,
    features: str = "inception",
    dims: int = 2048,
    device: str | torch.device = "cpu",
    weights: str | Path | None = None,
    batch_size: int = 50,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a folder's mean and covariance to an .npz that `fid_of` and pytorch-fid read in place of the folder.

    Arguments as in `fid_of`. Returns `out`, `n`, `dims`, `features`. Raises InputError where `out` does not end in .npz
    (pytorch-fid would take it for a folder) or exists already, unless `overwrite`.
    """
    folder, out = Path(folder), Path(out)
    if out.suffix != ".npz":
        raise InputError(f"expected a file name that ends in .npz to write the statistics to, got {out}.")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already. Delete it or choose another name.")
    if _is_file(folder):
        raise InputError(f"expected a folder of images, got the file {folder}.")
    extractor = make_extractor(features, dims, device, weights, batch_size)
    statistics = folder_statistics(folder, extractor, batch_size, progress)
    reference = statistics.reference
    with atomic(out) as file:  # uncompressed: 20 times as fast to write and read as savez_compressed
        np.savez(
            file,
            mu=reference.mean,
            sigma=reference.covariance,
            n=np.int64(statistics.n or 0),
            protocol=np.array(json.dumps(statistics.protocol)),
        )
    return {"out": str(out), "n": statistics.n, "dims": reference.dims, "features": extractor.describe}


def folder_statistics(
    path: str | Path, extractor: Extractor | None, batch_size: int = 50, progress: Progress | None = None
) -> Statistics:
    """The statistics of a folder's images, or of an .npz; `extractor` may be None for an .npz.

    Images are decoded as pytorch-fid does (RGB, no EXIF rotation). Inception scales each to 299 x 299, so sizes may
    differ; other features need images of one size. Raises InputError (fewer than 3 images, a damaged one, ...).
    """
    path = Path(path)
    if _is_file(path):
        return _load_statistics(path, extractor)
    assert extractor is not None, "a folder needs an extractor"
    files = image_files(path)
    if len(files) < 3:
        raise InputError(
            f"expected at least 3 images ({', '.join(s[1:] for s in SUFFIXES)}) in {path} and its sub-folders, "
            f"got {len(files)}. A distance between sets needs many: hundreds at the least."
        )
    features = _features_of(files, extractor, batch_size, progress)
    protocol = {"distance": extractor.distance, "features": extractor.describe}
    return Statistics(path, Reference(features), len(files), features, protocol)


def make_extractor(
    features: str,
    dims: int = 2048,
    device: str | torch.device = "cpu",
    weights: str | Path | None = None,
    batch_size: int = 50,
) -> Extractor:
    """The features of a name: "inception", "conv704" (or "conv704-s7" for seed 7), "spectrum". Else InputError."""
    if features == "inception":
        if weights is None and find_inception_weights() is None:
            raise InputError(f"{missing_weights()}. Or use --features conv704: an honest distance, but not FID.")
        return Inception(weights, dims, device, batch_size)
    name, _, seed = features.partition("-s")
    if name == "conv704" and (seed.isdecimal() or not _):
        return RandomConv(int(seed or 0), device)
    if features == "spectrum":
        return Spectrum(device)
    if ":" in features:
        from arena.metrics.module_features import module_extractor

        return module_extractor(features, device, batch_size)
    raise InputError(
        f"expected features to be inception, conv704, conv704-sSEED, spectrum, torchvision:NAME or module:attr, "
        f"got {features!r}."
    )


def image_files(folder: str | Path) -> list[Path]:
    """The image files of a folder and its sub-folders, sorted; hidden ones are left out."""
    folder = Path(folder)
    if not folder.is_dir():
        what = "a file of another kind" if folder.exists() else "nothing there"
        raise InputError(f"expected a folder of images or an .npz file at {folder}, got {what}. Check the path.")
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def _is_file(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _cheap(path: Path) -> bool:
    return not _is_file(path)


def _floor(reals: NDArray, n: int) -> dict[str, Any]:
    """The distance between two random halves of the reals, one cut to n where it has more."""
    half = len(reals) // 2
    if half < 3:
        return {"floor": None, "floor_n": None, "floor_n_real": None}
    order = np.random.default_rng(0).permutation(len(reals))
    side, other = reals[order[half:]], reals[order[: min(half, n)]]
    return {"floor": Reference(side).distance(other), "floor_n": len(other), "floor_n_real": len(side)}


def _features_of(files: list[Path], extractor: Extractor, batch_size: int, progress: Progress | None) -> NDArray:
    """N x d features in the order of the files. Images of one size are run together, whatever their order."""
    rows: dict[int, NDArray] = {}
    waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}

    def run(group: list[tuple[int, Tensor]]) -> None:
        found = extractor(torch.stack([image for _, image in group])).numpy()
        rows.update(zip((index for index, _ in group), found, strict=True))
        if progress:
            progress(len(rows), len(files))

    for index, image in enumerate(decoded(files, 4 * batch_size)):
        if not extractor.resizes and waiting and tuple(image.shape) not in waiting:
            size, other = next(iter(waiting)), tuple(image.shape)
            raise InputError(
                f"expected images of one size for {extractor.name}, got {other[2]} x {other[1]} px in {files[index]} "
                f"after {size[2]} x {size[1]}. Resize them first, or use --features inception."
            )
        group = waiting.setdefault(tuple(image.shape), [])
        group.append((index, image))
        if len(group) == batch_size:
            run(group)
            group.clear()
    for group in waiting.values():
        if group:
            run(group)
    return np.stack([rows[index] for index in range(len(files))])


def decoded(files: Iterable[Path], ahead: int) -> Iterator[Tensor]:
    """The images of the files in order, `ahead` of them decoded at a time by threads."""
    files = list(files)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), ahead):
            yield from pool.map(_decode, files[start : start + ahead])


def _decode(path: Path) -> Tensor:
    """One image as uint8 3 H W. InputError naming the file where it is too large, damaged or of another kind."""
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            width, height = image.size  # from the header: nothing is decoded yet
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{width} x {height} px")
            pixels = np.array(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise InputError(
            f"expected an image of at most {MAX_PIXELS // 10**6} megapixels in {path}, got more ({error}). Take it out."
        ) from error
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise InputError(f"cannot read the image {path}: {error}. Take it out or replace it.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _load_statistics(path: Path, extractor: Extractor | None) -> Statistics:
    """An .npz of ours or of pytorch-fid, checked: shapes, finite, symmetric, made with this extractor's features."""
    remedy = "Write it anew with `arena stats`."
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = file["mu"], file["sigma"]
            n = int(file["n"]) if "n" in file else None
            protocol = json.loads(str(file["protocol"])) if "protocol" in file else None
        reference = Reference.from_statistics(mean, covariance, n)
        if not np.allclose(reference.covariance, reference.covariance.T, atol=1e-6 * reference.covariance.max()):
            raise ValueError("sigma is not symmetric")
        if (np.diag(covariance) < 0).any():
            raise ValueError("sigma has negative variances")
        if protocol is not None and not {"distance", "features"} <= set(protocol):
            raise ValueError("its protocol does not name the distance and the features")
    except FileNotFoundError as error:
        raise InputError(f"expected a statistics file at {path}, got nothing there. Check the path.") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(f"expected `mu` (d) and `sigma` (d x d) in {path}: {error} {remedy}") from error
    if extractor is not None:
        if protocol is not None and protocol["features"] != extractor.describe:
            raise InputError(f"expected statistics of [{extractor.describe}] in {path}, got [{protocol['features']}].")
        if extractor.dims is not None and extractor.dims != reference.dims:
            raise InputError(f"expected statistics of {extractor.dims} dims in {path}, got {reference.dims}. {remedy}")
    return Statistics(path, reference, n, None, protocol)

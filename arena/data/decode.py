"""Strangers' pictures: checked by their header, decoded to upright RGB, resized with an antialiased filter.

What a picture becomes, whatever it was: the first frame, 8 bit, RGB, upright by its EXIF orientation. Alpha is laid
over white; of 16 bits the high 8 stay; CMYK is multiplied out; colour profiles are ignored.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

MAX_PIXELS = 40_000_000
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp"})
RESIZES = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
}
FITS = ("crop", "stretch")

_KNOWN_BY = {
    "PNG": (0, b"\x89PNG\r\n\x1a\n"),
    "JPEG": (0, b"\xff\xd8\xff"),
    "WEBP": (8, b"WEBP"),
    "BMP": (0, b"BM"),
}
# Pillow's own classes rather than Image.open: that one judges the size by a process-wide limit and a process-wide
# warning filter (not safe in threads), and before it says what the size is.
_CLASSES: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_STRANGERS = {
    "a GIF": (0, b"GIF8"),
    "a little-endian TIFF": (0, b"II*\0"),
    "a big-endian TIFF": (0, b"MM\0*"),
    "a HEIC or AVIF": (4, b"ftyp"),
    "a PDF": (0, b"%PDF"),
    "a Git LFS pointer (git lfs pull fetches the picture)": (0, b"version https://git-lfs"),
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112

T = TypeVar("T")
R = TypeVar("R")


class BadImage(ValueError):
    """A file that is no usable picture; its text is a short reason, without the file's name."""


def read_bytes(path: Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of a picture's file, at most 8 a pixel of the limit. Raises BadImage where they cannot be had."""
    most = 8 * max_pixels + 2**20
    try:
        with Path(path).open("rb") as file:
            data = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except FileNotFoundError:
        raise BadImage("the file is gone") from None
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror or error}") from error
    if not data:
        raise BadImage("zero bytes")
    if len(data) > most:
        raise BadImage(f"a file of more than {most // 10**6} MB for at most {max_pixels / 1e6:g} Mpx (--max-pixels)")
    return data


def header(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in `data`, its size and format known and allowed, nothing of it decoded yet.

    The first bytes say what a file is, not its suffix. Raises BadImage for any other format than PNG, JPEG, WEBP and
    BMP, for a damaged header, and for more than `max_pixels` pixels.
    """
    kind = _kind(data, _KNOWN_BY)
    if kind is None:
        stranger = _kind(data, _STRANGERS)
        raise BadImage(
            f"{stranger}, not PNG, JPEG, WEBP or BMP" if stranger else "not a PNG, JPEG, WEBP or BMP picture"
        )
    if kind == "WEBP":  # the decoder allocates its canvas when it is made
        _check_size(_webp_size(data), max_pixels)
    try:
        image = _CLASSES[kind](BytesIO(data))
    except Exception as error:  # a stranger's bytes: whatever the parser trips over is a bad picture, not a crash
        raise BadImage(_reason(error, data)) from error
    _check_size(image.size, max_pixels)
    return image


def decode(image: Image.Image, at_least: int | None = None) -> Image.Image:
    """Decode what `header` opened into an upright 8-bit RGB picture.

    With `at_least`, a JPEG may come out smaller (by 2, 4 or 8, no side under that many pixels): all its bytes are still
    read, at a fraction of the cost. Raises BadImage for anything damaged or cut short.
    """
    try:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        rgb = _rgb(image)
        return rgb if turn is None else rgb.transpose(turn)
    except Exception as error:  # as above
        raise BadImage(_reason(error)) from error


def read(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in a file, upright and RGB. Raises BadImage with a short reason."""
    return decode(header(read_bytes(path, max_pixels), max_pixels))


def is_sideways(image: Image.Image) -> bool:
    """Whether width and height change places when a picture, opened by `header` and decoded, is set upright."""
    return _orientation(image) >= 5


def fitted(image: Image.Image, size: int, resize: str = "bicubic", fit: str = "crop") -> np.ndarray:
    """A picture as uint8 (size, size, 3): the shorter side resized to `size` and the middle kept, or stretched.

    The filter's support grows with the reduction (Pillow's resize), as it must against aliasing. The middle is cut out
    to a fraction of a pixel and before the resize, whose filter still sees the pixels beyond the cut.
    """
    width, height = image.size
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    else:
        box = (0.0, 0.0, float(width), float(height))
    return np.asarray(image.resize((size, size), RESIZES[resize], box=box))


def in_threads(
    function: Callable[[T], R], things: Iterable[T], workers: int | None = None, ahead: int = 0
) -> Iterator[R]:
    """Map in threads, in order, with at most `ahead` results waiting; Pillow and hashlib work outside Python's lock.

    Closing the iterator, or an error in it, cancels what has not begun.
    """
    workers = workers or min(16, max(2, _cores()))  # more threads than cores only wait for Python's lock
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
    waiting: deque[Future[R]] = deque()
    try:
        for thing in things:
            waiting.append(pool.submit(function, thing))
            if len(waiting) > max(ahead, 2 * workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_picture(head: bytes) -> bool:
    """Whether a file that begins so (64 bytes will do) is in a format that is read here."""
    return _kind(head, _KNOWN_BY) is not None


def _kind(data: bytes, known: dict[str, tuple[int, bytes]]) -> str | None:
    return next((kind for kind, (at, mark) in known.items() if data[at : at + len(mark)] == mark), None)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadImage(f"{width} x {height} px is over the limit of {max_pixels / 1e6:g} Mpx (--max-pixels)")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels by the container's first chunk (RFC 9649, sections 2.5 to 2.7); 0, 0 if cut short."""
    head = data[:30].ljust(30, b"\0")
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF beside a sound picture: take the picture as it lies
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it, while of 16-bit colour it keeps the high byte
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception, data: bytes = b"") -> str:
    text = " ".join(str(error).split())
    short = data[:4] == b"RIFF" and len(data) < int.from_bytes(data[4:8], "little") + 8
    if (
        short
        or isinstance(error, EOFError)
        or any(word in text.lower() for word in ("truncated", "eof", "unexpected end"))
    ):
        return "truncated"
    return f"damaged: {text or type(error).__name__}"[:120]

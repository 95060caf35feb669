"""Both classes through one size, one codec and one quality, into a new folder: the remedy for what an audit finds.

What it cannot cure: what a file went through before stays in its pixels. A JPEG decoded keeps its grid and its rounded
frequencies (so a second JPEG lies over it, as strong or stronger), a picture that was shrunk more is sharper.
"""

import hashlib
import io
import json
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from arena.album import staged
from arena.audit_files import Files
from arena.data import decode
from arena.errors import InputError
from arena.faces.sources import MARK
from arena.files import atomic
from arena.pictures import XMP, png

LEVELS = {"raw": 0, "c23": 23, "c40": 40}  # x264's CRF, FaceForensics++'s names
QUALITIES = (30, 95)  # of JPEG, between which a default lies
CANNOT = (
    "Equalising cannot undo what a file went through before: traces of an earlier JPEG (its grid, frequencies rounded"
    " twice) and of another resize stay in the pixels, and so does what the pictures show. The audit after it says what"
    " is left."
)


class Plan(NamedTuple):
    """What all files become: squares of `size` px in `codec`; of videos `frames` at `rate` a second. why: in words."""

    size: int
    codec: str
    why: str
    rate: Fraction = Fraction(0)
    frames: int = 0


def plan(files: Files, size: int | None, codec: str | None) -> Plan:
    """The wish filled up: the smaller of the classes' median sides; PNG only where both classes are lossless.

    Where one has lost something to JPEG, both go through JPEG at the lower of the classes' median qualities: PNG would
    leave one class's grid bare. Raises InputError for an unknown codec.
    """
    looks = files.looks
    sides = [[h for h, f in zip(looks.headers, looks.is_fake, strict=True) if bool(f) == label] for label in (0, 1)]
    found = size or int(min(median(min(int(h["width"]), int(h["height"])) for h in side) for side in sides))
    why = f"squares of {found} px" + ("" if size else " (the smaller of the two median sides)")
    if files.videos:
        if codec not in (None, *LEVELS):
            raise InputError(f"--codec {codec}: of videos it is one of {', '.join(LEVELS)} (H.264 at CRF 0, 23, 40).")
        rate = Fraction(min(median(float(h["frames/s"]) for h in side) for side in sides)).limit_denominator(1001)
        length = min(median(float(h["frames"]) / float(h["frames/s"]) for h in side) for side in sides)
        count = max(1, round(length * rate))
        why += (
            f", H.264 at {codec or 'c23'}, {count} frames at {float(rate):g} a second (the smaller medians), no sound"
        )
        return Plan(found // 2 * 2, codec or "c23", why, rate, count)
    if codec:
        number = codec.removeprefix("jpeg-")
        if codec != "png" and not (codec.startswith("jpeg-") and number.isdecimal() and 1 <= int(number) <= 100):
            raise InputError(f"--codec {codec}: expected png, or jpeg- and a quality from 1 to 100 such as jpeg-90.")
        return Plan(found, codec, f"{why}, {codec}")
    lossy = [[h for h in side if h["format"] == "JPEG" or h.get("variant") == "lossy"] for side in sides]
    if not any(lossy):
        return Plan(found, "png", f"{why}, PNG (both classes are lossless)")
    known = [[float(h["jpeg"]) for h in side if h["jpeg"]] for side in lossy]
    quality = int(min((median(some) for some in known if some), default=80))
    quality = max(QUALITIES[0], min(QUALITIES[1], quality))
    return Plan(found, f"jpeg-{quality}", f"{why}, JPEG {quality} (the lower of the classes' median qualities)")


def equalise(files: Files, wish: Plan, out: Path, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Write every usable file anew below OUT/real and OUT/fake, and OUT/manifest.jsonl: all of it or nothing.

    Fakes say that they are synthetic; marks that a file has are kept. progress: (files done, all).
    """
    looks, taken, jobs = files.looks, set[str](), []
    suffix = ".mp4" if files.videos else ".png" if wish.codec == "png" else ".jpg"
    for path, name, fake in zip(files.paths, looks.names, looks.is_fake.tolist(), strict=True):
        stem, number = str(Path(name).with_suffix("")), 1
        while (named := f"{stem}{f'~{number}' if number > 1 else ''}{suffix}") in taken:
            number += 1
        taken.add(named)
        jobs.append((path, named, fake))
    with staged(out) as folder:
        write = partial(_video if files.videos else _picture, wish, folder)
        rows = []
        for done, row in enumerate(decode.in_threads(write, jobs), 1):
            rows.append(row)
            if progress is not None:
                progress(done, len(jobs))
        with atomic(folder / "manifest.jsonl") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    count = sum(bool(fake) for fake in looks.is_fake)
    return {
        "out": str(out), "size": wish.size, "codec": wish.codec, "why": wish.why, "cannot": CANNOT,
        "files": {"real": len(jobs) - count, "fake": count},
    }  # fmt: skip


def _row(named: str, path: Path, fake: bool, marks: dict[str, str]) -> dict[str, Any]:
    said = marks.get(MARK)
    return {"file": named, "synthetic": (True if said == "true" else said) if said else fake, "made_from": str(path)}


def _picture(wish: Plan, folder: Path, job: tuple[Path, str, bool]) -> dict[str, Any]:
    path, named, fake = job
    try:
        image = decode.header(decode.read_bytes(path))
        marks = _marks(image) or ({MARK: "true", "Description": "given as a fake, equalised"} if fake else {})
        pixels = decode.fitted(decode.decode(image), wish.size)
    except decode.BadImage as error:
        raise InputError(f"{path}: {error}. It has changed since it was audited: start again.") from error
    with atomic(folder / named, durable=False) as file:
        file.write(_coded(pixels, wish.codec, marks))
    return _row(named, path, fake, marks)


def _marks(image: Image.Image) -> dict[str, str]:
    """What a picture says of its being synthetic: its text chunks, or the lines of its comment."""
    image.load()
    comment = image.info.get("comment", b"")
    lines = comment.decode("utf-8", "replace").splitlines() if isinstance(comment, bytes) else []
    pairs = dict(line.split(": ", 1) for line in lines if ": " in line)
    texts = {key: value for key, value in image.info.items() if isinstance(key, str) and isinstance(value, str)}
    found = texts if MARK in texts else pairs
    return {key: value[:1000] for key, value in found.items() if not key.startswith("XML:")} if MARK in found else {}


def _coded(pixels: np.ndarray, codec: str, marks: dict[str, str]) -> bytes:
    if codec == "png" and marks:
        return png(pixels, marks)
    buffer = io.BytesIO()
    if codec == "png":
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(codec.removeprefix("jpeg-")))
    data = buffer.getvalue()
    if not marks:
        return data
    kind = "trainedAlgorithmicMedia" if marks[MARK] == "true" else "compositeWithTrainedAlgorithmicMedia"
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + XMP.replace("KIND", kind).encode()  # XMP specification, part 3, 1.1.3
    first = {MARK: marks[MARK], **marks}
    comment = "\n".join(f"{key}: {' '.join(value.split())}" for key, value in first.items()).encode()[:60000]
    at = 4 + int.from_bytes(data[4:6], "big")  # behind JFIF's segment
    return data[:at] + _segment(0xE1, xmp) + _segment(0xFE, comment) + data[at:]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def _video(wish: Plan, folder: Path, job: tuple[Path, str, bool]) -> dict[str, Any]:
    from arena.faces.video import Plain, Writer, open_video

    path, named, fake = job
    (folder / named).parent.mkdir(parents=True, exist_ok=True)
    video = open_video(path)
    synthetic = video.synthetic or ("true" if fake else None)
    tags = {"title": "Synthetic video, equalised"} if synthetic else {}
    with Writer(folder / named, Plain(wish.rate), tags, synthetic=synthetic, crf=LEVELS[wish.codec]) as writer:
        for frame in video:
            # every moment k / rate up to this frame's shows this frame: none is drawn that is not due
            while writer.count < wish.frames and frame.seconds >= writer.count / wish.rate - 1e-6:
                pixels = decode.fitted(Image.fromarray(frame.image), wish.size)
                writer.write(pixels, float(writer.count / wish.rate))
            if writer.count >= wish.frames:
                break
    digest = hashlib.sha256((folder / named).read_bytes()).hexdigest()
    return _row(named, path, fake, {MARK: synthetic} if synthetic else {}) | {"sha256": digest}

"""What files say from outside, unread pixels: format, size, how it was coded, what lies beside the picture.

A header is a mapping of plain values. What the lab itself writes into synthetic files (the mark `Synthetic` and what
goes with it) is kept apart as `marked`, the bytes that it takes (of a video, whether there is one): nothing that
decodes a picture ever sees it, and no file should lose it.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from arena.faces.sources import MARK

Header = dict[str, str | int | float]

_PLAIN = frozenset({"IHDR", "PLTE", "IDAT", "IEND", "tRNS"})
_CRF = re.compile(rb"x264 - core[^\0]{0,2000}?(?:crf|qp|bitrate)=[0-9.]+")
_HEAD = 1 << 20  # bytes of a video in which x264 says how it was asked to code
_BASELINE = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive"}
_STANDARD = 208  # bytes of T.81's Huffman tables of a plane (annex K.3): 1 + 16 + 12 for DC, 1 + 16 + 162 for AC


def quality_of(table: Sequence[int]) -> int:
    """The JPEG quality (1 to 100) whose luma table by the IJG's rule is nearest to this one by its sum."""
    mean = sum(table) / 36.88  # in percent of T.81's table K.1, whose sum is 3688
    return round(min(100.0, max(1.0, (200 - mean) / 2 if mean <= 100 else 5000 / mean)))


def outside(length: int, image: Image.Image) -> Header:
    """Format, mode, size, JPEG quality (0: no JPEG) and density of a picture that is opened and not decoded."""
    tables = getattr(image, "quantization", {})
    return {
        "format": image.format or "", "mode": image.mode, "width": image.width, "height": image.height,
        "jpeg": quality_of(tables[0]) if tables else 0,
        "bytes/pixel": round(length / (image.width * image.height), 4),
    }  # fmt: skip


def of_image(data: bytes, image: Image.Image) -> Header:
    """All that the bytes of a picture say beside its pixels."""
    reader = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp}.get(image.format or "")
    found = reader(data, image) if reader else {}
    length = len(data) - int(found.get("marked", 0))  # else the mark would make every fake's file the longer one
    return outside(length, image) | {"aspect": round(image.width / image.height, 3), "bytes": length} | found


def of_video(path: Path, video: Any) -> Header:
    """What a video's file says beside its frames. video: as `arena.faces.video.open_video` opens it."""
    from arena.faces.video import _open, _video_stream

    length, pixels = path.stat().st_size, video.width * video.height * max(1, video.count)
    found = of_video_outside(path, video) | {
        "aspect": round(video.width / video.height, 3), "bytes": length, "sound": int(video.has_audio),
        "bits/pixel": round(8 * length / pixels, 4), "kbit/s": round(8e-3 * length / max(video.seconds, 1e-3)),
    }  # fmt: skip
    with _open(path) as container:
        context = _video_stream(container, path).codec_context
        found |= {
            "codec": context.codec.canonical_name, "profile": str(context.profile), "pix_fmt": str(context.pix_fmt),
        }  # fmt: skip
        # A comment that holds nothing but the lab's mark is no metadata of the user's
        tags = {name for name, value in container.metadata.items() if MARK not in name and MARK not in str(value)}
        marked = len(tags) < len(container.metadata)
    with path.open("rb") as file:
        asked = _CRF.search(file.read(_HEAD))
    found["coded at"] = asked[0].rpartition(b" ")[2].decode("latin-1") if asked else ""
    if marked:
        tags -= {"title", "source", "method", "run", "seed", "round", "comment"}
    return found | {"metadata": ", ".join(sorted(tags)), "marked": int(marked)}


def of_video_outside(path: Path, video: Any) -> Header:
    """Format, size, frames, rate and density of a video."""
    pixels = video.width * video.height * max(1, video.count)
    return {
        "format": path.suffix[1:].upper(), "width": video.width, "height": video.height, "frames": video.count,
        "frames/s": round(float(video.rate), 3), "bytes/pixel": round(path.stat().st_size / pixels, 5),
    }  # fmt: skip


def _jpeg(data: bytes, image: Image.Image) -> Header:
    tables, huffman, process, notes, marked = hashlib.sha256(), 0, "", list[str](), 0
    for marker, body in _segments(data):
        if marker == 0xDB:
            tables.update(body)
        elif marker == 0xC4:
            huffman += len(body)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC8, 0xCC):
            process = _BASELINE.get(marker, f"SOF{marker - 0xC0}")
        elif marker == 0xFE or 0xE0 <= marker <= 0xEF:
            kind = "comment" if marker == 0xFE else _application(marker, body)
            mine = body.startswith(MARK.encode() + b":") or (kind == "XMP" and b"digitalsourcetype" in body)
            marked += mine * (len(body) + 4)
            notes += [] if mine else [kind]
    layers = [layer[1:3] for layer in getattr(image, "layer", [])]
    return {
        "tables": tables.hexdigest()[:8], "process": process,
        "subsampling": ",".join(f"{h}x{v}" for h, v in layers),
        "huffman": "none" if huffman == 0 else "standard" if huffman % _STANDARD == 0 else "optimised",
        "metadata": ", ".join(sorted(set(notes))), "marked": marked,
        "after the end": _after(data, data.rfind(b"\xff\xd9") + 2),
    }  # fmt: skip


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of a JPEG up to its first scan, and of the tables between scans no more."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + max(2, length)


def _application(marker: int, body: bytes) -> str:
    known = {b"JFIF": "JFIF", b"Exif": "EXIF", b"http://ns.adobe.com/xap": "XMP", b"ICC_PROFILE": "ICC profile"}
    return next((name for start, name in known.items() if body.startswith(start)), f"APP{marker - 0xE0}")


def _png(data: bytes, image: Image.Image) -> Header:
    notes, marks, texts, length_of_texts, at = set[str](), False, set[str](), 0, 8
    level = ""
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8].decode("latin-1")
        body = data[at + 8 : at + 8 + min(length, 4096)]
        if name == "IDAT":
            level = level or (str(body[1] >> 6) if len(body) > 1 else "")  # RFC 1950, section 2.2: FLEVEL
        elif name in ("tEXt", "zTXt", "iTXt"):
            key = body.partition(b"\0")[0].decode("latin-1")
            marks |= key == MARK
            texts.add(f"text {key}"[:40])
            length_of_texts += 12 + length
        elif name not in _PLAIN:
            notes.add({"eXIf": "EXIF", "iCCP": "ICC profile"}.get(name, name))
        at += 12 + length
        if name == "IEND":
            break
    notes |= set() if marks else texts
    return {
        "depth": data[24], "colour type": data[25], "interlaced": data[28], "zlib level": level,
        "metadata": ", ".join(sorted(notes)), "marked": marks * length_of_texts, "after the end": _after(data, at),
    }  # fmt: skip


def _webp(data: bytes, image: Image.Image) -> Header:
    kinds = {b"VP8 ": "lossy", b"VP8L": "lossless"}
    chunks, at = list[bytes](), 12
    while at + 8 <= len(data):
        chunks.append(data[at : at + 4])
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    names = {b"EXIF": "EXIF", b"XMP ": "XMP", b"ICCP": "ICC profile"}
    marked = b"digitalsourcetype" in data  # the XMP chunk is the last one that Pillow writes
    notes = {names[chunk] for chunk in chunks if chunk in names} - ({"XMP"} if marked else set())
    variant = next((kinds[chunk] for chunk in chunks if chunk in kinds), "other")
    return {
        "variant": variant,
        "metadata": ", ".join(sorted(notes)),
        "marked": (len(data) - data.rfind(b"XMP ")) * marked,
    }


def _after(data: bytes, end: int) -> int:
    """How many bytes stand behind the picture's end, to a power of two."""
    rest = len(data) - end
    return 1 << rest.bit_length() if rest > 0 else 0

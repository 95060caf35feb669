"""The job `decode`: a stranger's fakes as one array, each exactly of the size and length that was asked for.

Content decides, not the name: PNG, 8 bit, RGB, one frame; or MP4 (MOV) with one video stream. Beside the array stands
what each container looks like from outside, by which a leaking label would show.
"""

import struct
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from arena.data import decode as pictures
from arena.faces import video
from arena.submission.archive import MOST_PROBLEMS
from arena.submission.worker import Answer, Refused

PNG = b"\x89PNG\r\n\x1a\n"
DEMUXER = "mov"  # MOV and MP4 alike
CODECS = frozenset({"h264", "hevc", "mpeg4", "vp9", "av1"})
ANIMATED = frozenset({"acTL", "fcTL", "fdAT"})  # APNG: PNG specification (third edition), section 11.3.6
MOST_CHUNKS = 10_000
OTHERS = {
    b"GIF8": "a GIF", b"\xff\xd8\xff": "a JPEG", b"RIFF": "a WebP or AVI", b"BM": "a BMP", b"PK": "a zip",
    b"\x80": "perhaps a pickle", b"\x1f\x8b": "a gzip", b"%PDF": "a PDF", b"\x7fELF": "a program", b"<": "a text",
}  # fmt: skip


def prepare(arguments: dict[str, Any], threads: int) -> None:
    """Import what clips need, while that is still possible."""
    if arguments["frames"] > 1:
        import_module("av")


def decode(files: Sequence[str], size: int, frames: int, out: BinaryIO) -> Answer:
    """All files decoded into uint8 N 3 S S, or N F 3 S S for clips; no array where one of them is not as asked for.

    The result has `problems` (at most 20 pairs of a file's name and what is wrong), `bad` (how many there are) and
    `headers` (of each file: format, bytes and more).
    """
    problems: list[tuple[str, str]] = []
    headers: list[dict[str, Any]] = []
    for file in files:
        header: dict[str, Any] = {}
        try:
            if frames == 1:
                out.write(_png(Path(file), size, header).tobytes())
            else:
                for frame in _clip(Path(file), size, frames, header):
                    out.write(frame.tobytes())
        except (Refused, pictures.BadImage) as error:
            problems.append((Path(file).name, str(error).replace(" (--max-pixels)", "")))
        except MemoryError:
            raise
        except Exception as error:  # as libraries do where a file is bad enough
            problems.append((Path(file).name, f"damaged ({type(error).__name__}: {error}): save it anew"))
        headers.append(header)
    result = {"problems": problems[:MOST_PROBLEMS], "bad": len(problems), "headers": headers}
    shape = (len(files), 3, size, size) if frames == 1 else (len(files), frames, 3, size, size)
    return result, None if problems else ("uint8", shape)


def _png(path: Path, size: int, header: dict[str, Any]) -> np.ndarray:
    data = pictures.read_bytes(path, size * size)
    header |= {"format": _format(data), "bytes": len(data)}
    if not data.startswith(PNG):
        raise Refused(f"expected a PNG, its content is {_other(data)}: save it as PNG")
    chunks = _chunks(data)
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise Refused("truncated")
    # PNG specification, section 11.2.1: width, height, bit depth, colour type (2: RGB), ..., interlace method
    width, height, depth, colour, _, _, interlace = struct.unpack(">2L5B", data[16:29])
    header |= {"depth": depth, "interlace": interlace, "chunks": ",".join(sorted(set(chunks))[:40])}
    if (width, height) != (size, size):
        raise Refused(f"expected {size} x {size} px, got {width} x {height}")
    if ANIMATED & set(chunks):
        raise Refused("an animated PNG: expected a single picture")
    if (depth, colour) != (8, 2) or "tRNS" in chunks:
        kinds = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
        got = f"{depth} bit, {kinds.get(colour, 'unknown colours')}{' with transparency' if 'tRNS' in chunks else ''}"
        raise Refused(f"expected 8 bit, RGB, got {got}: save it as plain RGB")
    image = pictures.header(data, size * size)
    header["mode"] = image.mode
    return np.asarray(pictures.decode(image)).transpose(2, 0, 1)


def _chunks(data: bytes) -> list[str]:
    """The names of a PNG's chunks, up to where it ends or breaks."""
    names: list[str] = []
    at = len(PNG)
    while at + 12 <= len(data) and len(names) < MOST_CHUNKS:
        names.append(data[at + 4 : at + 8].decode("latin-1"))
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return names


def _clip(path: Path, size: int, count: int, header: dict[str, Any]) -> Iterator[np.ndarray]:
    """The frames of an MP4, uint8 3 S S each."""
    import av

    with path.open("rb") as file:
        head = file.read(64)
        header |= {"format": _format(head), "bytes": file.seek(0, 2)}
        file.seek(0)
        if head[4:8] != b"ftyp":
            raise Refused(f"expected an MP4, its content is {_other(head)}: save it as MP4")
        try:
            # a file object and no protocol: nothing in the container can name another file or an address
            options = {"format_whitelist": DEMUXER, "protocol_whitelist": "none"}
            with av.open(file, format=DEMUXER, options=options, metadata_errors="replace") as container:
                stream = _stream(container, header)
                yield from _frames(container, stream, size, count)
        except av.FFmpegError as error:
            raise Refused(f"damaged or cut short ({error.strerror}): save it anew") from error


def _stream(container: Any, header: dict[str, Any]) -> Any:
    if len(container.streams.video) != 1:
        raise Refused(f"expected one video stream, got {len(container.streams.video)}")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None or context.codec.canonical_name not in CODECS:
        raise Refused(f"expected one of the codecs {', '.join(sorted(CODECS))}: encode it as H.264")
    header |= {
        "codec": context.codec.canonical_name, "pix_fmt": context.pix_fmt, "profile": context.profile,
        "bit_rate": stream.bit_rate, "rate": str(stream.average_rate), "streams": len(container.streams),
    }  # fmt: skip
    return stream


def _frames(container: Any, stream: Any, size: int, count: int) -> Iterator[np.ndarray]:
    import av

    side = (stream.codec_context.width, stream.codec_context.height)
    if side != (size, size):
        raise Refused(f"expected {size} x {size} px, got {side[0]} x {side[1]}")
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    # PyAV that knows of threads here would start some, which this process may not; before, it had none
    alone = {"threads": 1} if "threads" in (av.VideoFrame.reformat.__doc__ or "") else {}
    number = 0
    for frame in container.decode(stream):
        number += 1
        if number > count:
            raise Refused(f"expected {count} frames, got more")
        if (frame.width, frame.height) != (size, size):
            raise Refused(f"expected {size} x {size} px, frame {number} has {frame.width} x {frame.height}")
        if frame.rotation:
            raise Refused("a rotation mark: store the frames as they are meant")
        matrix = video.colour_matrix(frame)
        image = frame.to_ndarray(format="rgb24", src_colorspace=matrix, interpolation=video.EXACT, **alone)
        yield image.transpose(2, 0, 1)
    if number < count:
        raise Refused(f"expected {count} frames, got {number}")


def _format(data: bytes) -> str:
    return "PNG" if data.startswith(PNG) else "MP4" if data[4:8] == b"ftyp" else "other"


def _other(data: bytes) -> str:
    if data.startswith(PNG):
        return "a PNG"
    if data[4:8] == b"ftyp":
        return "an MP4, HEIC or AVIF"
    return next((what for mark, what in OTHERS.items() if data.startswith(mark)), "of no known kind")

"""Videos in and out by PyAV: frames one at a time, whatever the length; times, sound and colours kept.

A frame is uint8 H W 3, RGB, upright by the video's rotation mark. Time counts in seconds from the first frame. What a
video loses on the way through: subtitles and data streams, bits beyond 8, chroma beyond 4:2:0. H.264 in 4:2:0 has even
sides only: an odd picture gets one more column or row, its last one repeated.
"""

import os
import stat
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from PIL import Image

from arena.data import decode
from arena.errors import InputError
from arena.faces import need
from arena.faces.sound import Silence, Sound
from arena.files import atomic

# What is opened at all. Among FFmpeg's other formats are playlists, which name further files and addresses to fetch.
FORMATS = (
    "mov", "matroska", "webm", "avi", "mpeg", "mpegvideo", "mpegts", "h264", "hevc", "m4v", "flv", "ogg", "asf", "mxf",
    "gif", "ivf", "yuv4mpegpipe", "dv", "rm",
)  # fmt: skip
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
TAGS = ("title", "comment", "artist", "copyright", "date", "genre")  # what MP4 and MOV both keep
XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # XMP specification, part 3, section 1.1.7 (MPEG-4)
BT601, BT709 = 5, 1  # swscale's numbers of the colour matrices, as PyAV takes them
STEADY = 0.95  # of the steps from frame to frame are alike: then a wider one is damage, not a variable rate
EXACT = 0x4 | 0x2000 | 0x4000 | 0x40000  # swscale: bicubic, all chroma, exact rounding; else all gets a level darker


@dataclass(frozen=True)
class Frame:
    """A decoded frame; its picture is made when it is asked for, which costs more than the decoding."""

    number: int  # from 0
    seconds: float
    draw: Callable[[], np.ndarray]

    @cached_property
    def image(self) -> np.ndarray:
        """uint8 H W 3, upright."""
        return self.draw()

    def __iter__(self) -> Iterator[Any]:
        return iter((self.number, self.seconds, self.image))


class Video:
    """An open video. Iterating decodes it from its first frame.

    width, height: upright pixels; rate: frames a second (of variable rate: the mean); count: frames that the file
    holds (to within the few that may not decode); seconds: from the first frame to the end of the last; variable:
    whether frame times depart from a constant rate; rotation: degrees counter-clockwise that frames are turned by;
    synthetic: what a `Writer` noted of it, or None; lost: after iterating, how many frames did not
    decode or are missing, by the header's count or by holes in the times of a steady rate.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        with _open(self.path) as container:
            stream = _video_stream(container, self.path)
            self.has_audio = any(s.codec_context is not None for s in container.streams.audio)
            times = array("q")
            held, timed = 0, True
            for packet in _packets(container, stream):
                held += packet.size > 0
                if packet.size and not packet.is_discard:
                    timed &= packet.pts is not None
                    times.append(packet.pts or 0)
            self.synthetic = _synthetic(container.metadata)
            self.time_base: Fraction = stream.time_base
            self.aspect: Fraction | None = stream.codec_context.sample_aspect_ratio
            end = _end(stream)
            rates = [Fraction(r) for r in (stream.average_rate, stream.guessed_rate, stream.base_rate) if r]
        self.count = len(times)
        ticks = np.sort(np.asarray(times, dtype=np.int64))
        self.lost = self._missing = max(0, stream.frames - held, _holes(ticks, end) if timed else 0)
        self._first: int | None = int(ticks[0]) if timed and len(ticks) else None
        self.rate, self.variable = _rate((ticks - ticks[:1]) if timed else None, self.time_base, rates)
        span = float((int(ticks[-1]) - int(ticks[0])) * self.time_base) if timed and len(ticks) else None
        self.seconds = (self.count - 1) / float(self.rate) if span is None else span
        self.seconds += float(1 / self.rate)

        first = next(self._frames(), None)
        if first is None:
            raise InputError(f"{self.path}: not one frame of this video can be decoded. It is damaged: copy it anew.")
        self.rotation = first.rotation
        self.width, self.height = first.width, first.height
        self.matrix = colour_matrix(first)
        if self.rotation % 180:
            self.width, self.height = self.height, self.width
            self.aspect = 1 / self.aspect if self.aspect else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        """Nothing stays open between iterations."""

    def __iter__(self) -> Iterator[Frame]:
        """Decode the frames in order of time. Frames that are damaged beyond decoding are passed over."""
        for number, frame in enumerate(self._frames()):
            if frame.pts is None or self._first is None:
                seconds = float(number / self.rate)
            else:
                seconds = float((frame.pts - self._first) * self.time_base)
            yield Frame(number, seconds, partial(self._image, frame))

    def _image(self, frame: Any) -> np.ndarray:
        image = frame.to_ndarray(format="rgb24", src_colorspace=self.matrix, interpolation=EXACT)
        if self.rotation:
            image = np.ascontiguousarray(np.rot90(image, round(self.rotation / 90)))
        if image.shape != (self.height, self.width, 3):  # a stream may change its size on the way
            image = np.asarray(Image.fromarray(image).resize((self.width, self.height)))
        return image

    def _frames(self) -> Iterator[Any]:
        av = need("av")
        self.lost, shown = self._missing, 0
        with _open(self.path) as container:
            stream = _video_stream(container, self.path)
            stream.thread_type = "AUTO"
            for packet in _packets(container, stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    self.lost += packet.size > 0
                    continue
                shown += len(frames)
                yield from frames
        if self.lost > self._missing:  # more fall with those that fail: what the decoder held, what refers to them
            self.lost = max(self.lost, self._missing + self.count - shown)


def open_video(path: Path | str) -> Video:
    """Open a video of any usual container and codec, told by its content.

    Raises InputError (one line) for a missing file, one that is no video, has no video stream, lacks its index (an MP4
    whose recording or download was broken off), has frames over the limit of `decode.MAX_PIXELS`, or none that
    decodes. A video that is merely cut short is read up to the cut, a damaged one around the damage;
    `lost` counts what is missing.
    """
    return Video(Path(path))


def kind(path: Path | str) -> Literal["image", "folder", "video"]:
    """What an input is, by its content: a folder, a picture (PNG, JPEG, WEBP, BMP), or else to be opened as a video.

    Raises InputError where there is nothing at `path` or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return "folder"
    return "image" if decode.is_picture(_head(path)) else "video"


@dataclass(frozen=True)
class Plain:
    """A silent video of constant rate: what a `Writer` needs to know where there is no source to be like."""

    rate: Fraction = Fraction(25)  # frames a second
    time_base: Fraction = Fraction(1, 90000)
    variable: bool = False
    has_audio: bool = False
    aspect: Fraction | None = None
    matrix: int = BT709


class Writer:
    """Write a video like another: its frame times, its sound, its shape of pixels and its colours. H.264, yuv420p.

    `with Writer(path, like, metadata) as writer: writer.write(image, seconds)`, once a frame with rising `seconds` (as
    `like` gave them); image: uint8 H W 3, all of one size. The sound is copied packet by packet where the container of
    `path` (.mp4, .m4v, .mov, .mkv) takes its codec, and becomes AAC where not. A constant frame rate stays exactly the
    same; under a variable one each frame keeps its own time (in Matroska to 1 ms). metadata: title, comment and more;
    MP4 and MOV keep the usual names alone, so others go into the comment as "name: value" lines. synthetic: what of it
    is, "true" for all, None for nothing; written as `Synthetic` and, into MP4, as XMP's DigitalSourceType. crf: x264's
    quality, 0 (lossless) to 51; 18 is hard to tell from the source. preset: x264's, ultrafast to veryslow.

    `path` appears when the block ends well and not at all otherwise.
    Raises InputError for another suffix, a crf out of range, a full disk, frames of several sizes and no frames.
    """

    def __init__(
        self,
        path: Path | str,
        like: Video | Plain,
        metadata: dict[str, str] | None = None,
        *,
        synthetic: str | None = "the faces",
        crf: float = 18,
        preset: str = "medium",
        audio: bool = True,
    ):
        self.path, self.like, self.synthetic = Path(path), like, synthetic
        if self.path.suffix.lower() not in CONTAINERS:
            raise InputError(f"a video is written as {', '.join(CONTAINERS)}, not as {self.path.name}. Rename OUT.")
        if not 0 <= crf <= 51:
            raise InputError(f"crf is x264's quality from 0 (lossless) to 51 (worst), 18 say, not {crf}.")
        self.format = CONTAINERS[self.path.suffix.lower()]
        self.metadata, self.audio = dict(metadata or {}), audio
        if synthetic:
            self.metadata["Synthetic"] = synthetic
        # swscale makes chroma that lies between its pixels: said so, or readers shift it by half a pixel
        self.options = {"crf": f"{crf:g}", "preset": preset, "x264-params": "chromaloc=1"}
        self.count, self._last = 0, -1
        # Ticks of 1 / rate keep a constant rate exactly; the source's own keep every time of a variable one.
        self._tick = like.time_base if like.variable else 1 / like.rate

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._file = self._stack.enter_context(atomic(self.path))
        return self

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Append a frame: uint8 H W 3, RGB."""
        if self.count == 0:
            self._start(*image.shape[:2])
        if image.shape != self._shape:
            raise InputError(f"{self.path}: frame {self.count} has shape {image.shape}, the first had {self._shape}.")
        frame = need("av").VideoFrame.from_ndarray(self._even(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=self.like.matrix, interpolation=EXACT)
        frame.colorspace, frame.color_range = self.like.matrix, 1
        self._last = max(round(seconds / self._tick), self._last + 1)
        frame.pts, frame.time_base = self._last, self._tick
        frame.duration = max(1, round(1 / self.like.rate / self._tick))
        self._out.mux(self._video.encode(frame))
        self.count += 1
        self._sound.pump(seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end()
        except BaseException as late:
            if not self._stack.__exit__(type(late), late, late.__traceback__):
                raise
        else:
            if kind is not None and self.count:
                with suppress(Exception):
                    self._sound.close()
                    self._out.close()
            self._stack.__exit__(kind, error, trace)

    def _start(self, height: int, width: int) -> None:
        av = need("av")
        self._shape = (height, width, 3)
        self._sound = self._sound_of(self.like)
        early = {"avoid_negative_ts": "make_zero"} if self._sound.start < -0.1 else {}  # before: an encoder's padding
        self._out = av.open(self._file, "w", format=self.format, options=early)
        self._out.metadata.update(_tags(self.metadata, self.format))
        stream = self._video = self._out.add_stream("libx264", rate=self.like.rate, options=self.options)
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        context = stream.codec_context
        context.time_base = self._tick
        context.colorspace, context.color_range = self.like.matrix, 1
        if self.like.aspect:
            context.sample_aspect_ratio = self.like.aspect
        self._sound.join(self._out)

    def _sound_of(self, like: Video | Plain) -> Sound | Silence:
        if not (self.audio and isinstance(like, Video) and like.has_audio):
            return Silence()
        return Sound(_open(like.path), float((like._first or 0) * like.time_base))

    def _even(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        return np.ascontiguousarray(image)

    def _end(self) -> None:
        if not self.count:
            raise InputError(f"{self.path} would have no frames, so it is not written.")
        self._out.mux(self._video.encode(None))
        self._sound.pump(None)
        self._sound.close()
        self._out.close()
        if self.synthetic and self.format == "mp4":
            self._file.seek(0, os.SEEK_END)
            self._file.write(_xmp_box(self.synthetic))
        self._stack.close()


def _head(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would let us wait for ever
            raise InputError(f"{path} is no regular file. Take it out, or give an image or a video.")
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise InputError(f"there is no {path}. Check the path.") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    if not head:
        raise InputError(f"{path} has zero bytes. Copy it anew.")
    return head


def _open(path: Path) -> Any:
    av = need("av")
    head = _head(path)
    try:
        options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
        return av.open(os.fspath(path.absolute()), options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        if head[4:8] == b"ftyp":
            raise InputError(
                f"{path} is cut short: this MP4 or MOV lacks its index (moov), as when a recording or a download was"
                f" broken off. Copy it anew."
            ) from error
        raise InputError(
            f"{path} is no video that can be read ({error.strerror}). Give an MP4, MOV, MKV, AVI, MPEG or the like."
        ) from error


def _video_stream(container: Any, path: Path) -> Any:
    streams = [s for s in container.streams.video if s.codec_context is not None and not s.disposition & 0x400]
    if not streams:  # 0x400: a cover picture beside music (AV_DISPOSITION_ATTACHED_PIC)
        raise InputError(f"{path} has no video stream (or one of an unknown codec). Give a file with moving pictures.")
    stream = streams[0]
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > decode.MAX_PIXELS:
        raise InputError(
            f"{path}: {width} x {height} px is over the limit of {decode.MAX_PIXELS / 1e6:g} Mpx. Shrink it."
        )
    return stream


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """A stream's packets to the end of the file, over damage where the demuxer finds its way again."""
    av = need("av")
    failures = 0
    while failures < 16:
        try:
            for packet in container.demux(stream):
                failures = 0
                yield packet
            return
        except av.FFmpegError:
            failures += 1


def _end(stream: Any) -> float | None:
    """Where a Matroska stream ends by its own tag, in ticks; other containers count their frames or say nothing."""
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return (3600 * int(hours) + 60 * int(minutes) + float(seconds)) / float(stream.time_base)
    except (KeyError, ValueError):
        return None


def _holes(ticks: np.ndarray, end: float | None) -> int:
    """How many frames are missing between the times (sorted), and up to the end, of a video of steady rate."""
    steps = np.diff(ticks)
    if not len(steps) or (usual := float(np.median(steps))) <= 0:
        return 0
    steady = np.abs(steps - usual) <= min(1, usual / 4)
    if steady.mean() < STEADY:
        return 0
    step = steps[steady].mean()
    gaps = [*steps[~steady], *([end - ticks[-1]] if end is not None else [])]
    return sum(max(0, round(float(gap / step)) - 1) for gap in gaps)


def _rate(ticks: np.ndarray | None, time_base: Fraction, rates: list[Fraction]) -> tuple[Fraction, bool]:
    """The frame rate, and whether the times (sorted, from 0) depart from it by more than the clock's own rounding."""
    if ticks is None or len(ticks) < 2 or ticks[-1] == 0:
        return (rates or [Fraction(25)])[0], False
    mean = (len(ticks) - 1) / (int(ticks[-1]) * time_base)
    numbers = np.arange(len(ticks))
    for rate in (*rates, mean.limit_denominator(1001)):
        if np.abs(ticks - numbers * float(1 / (rate * time_base))).max() <= 1:
            return rate, False
    return mean.limit_denominator(1001), True


def colour_matrix(frame: Any) -> int:
    """The colour matrix of a frame; where it does not say, what players assume by the size."""
    if frame.colorspace in (BT709, BT601, 6):
        return BT709 if frame.colorspace == BT709 else BT601
    return BT709 if frame.width >= 1280 or frame.height > 576 else BT601


def _tags(metadata: dict[str, str], form: str) -> dict[str, str]:
    if form == "matroska":
        return metadata
    others = [f"{name}: {value}" for name, value in metadata.items() if name not in TAGS]
    comment = "\n".join([*filter(None, [metadata.get("comment")]), *others])
    return {name: value for name, value in metadata.items() if name in TAGS} | {"comment": comment}


def _synthetic(tags: dict[str, str]) -> str | None:
    """What a video says of its being synthetic: by its own tag, or by a line of its comment."""
    lines = [f"{name}: {value}" for name, value in tags.items()]
    lines += [line for name, value in tags.items() if name.lower() == "comment" for line in value.splitlines()]
    pairs = (line.partition(": ") for line in lines)
    return next((value[:1000] for name, _, value in pairs if name.lower() == "synthetic" and value), None)


def _xmp_box(synthetic: str) -> bytes:
    from arena.pictures import XMP

    kind = "trainedAlgorithmicMedia" if synthetic == "true" else "compositeWithTrainedAlgorithmicMedia"
    body = b"uuid" + XMP_BOX + XMP.replace("KIND", kind).encode()
    return (len(body) + 4).to_bytes(4, "big") + body

"""What a video platform does to pictures: H.264 at the three levels of FaceForensics++, for reals and fakes alike.

raw, c23 and c40 are x264 at constant rate factor 0, 23 and 40, preset medium, 4:2:0 (Roessler et al., ICCV 2019,
section 4). raw is x264's lossless mode, so all that it loses is the way from RGB to 8-bit 4:2:0, which every real video
has behind it: of the embedded faces 0.5 to 0.6 grey levels on average, at most 7 (PSNR 49 to 50 dB).

Clips are coded as they are handed over: at the detector's size, after the crop, the frames of a clip one after another;
a still becomes one intra frame. Odd sides get one more row or column, cut off again behind. One thread codes a clip, so
that the same clip gives the same bytes, on one build of x264; below 48 px without the macroblock tree, whose look-ahead
is not repeatable in pictures so small. Needs PyAV (the extra `faces`).

Clips: uint8 T 3 H W, on the CPU.
"""

import hashlib
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arena.data.decode import in_threads
from arena.errors import InputError
from arena.faces import need
from arena.faces.video import BT601, EXACT
from arena.files import atomic

LEVELS = {"raw": 0, "c23": 23, "c40": 40}
RATE = Fraction(25)
SMALL = 48  # px; at 32 px one clip in a hundred came out otherwise with the macroblock tree, at 48 and 64 px none did


def compress_clip(clip: Tensor, level: str) -> Tensor:
    """A clip (uint8 T 3 H W) after coding and decoding at "raw", "c23" or "c40": the same shape."""
    return _decode(_encode(clip, level), clip)


def compress(images: Tensor, level: str, cache: "Compressed | None" = None) -> Tensor:
    """Many at once: clips, uint8 n T 3 H W, each coded alone; or stills, n 3 H W, each an intra frame."""
    clips = images if images.ndim == 5 else images[:, None]
    one = compress_clip if cache is None else cache.clip
    return torch.stack(list(in_threads(lambda clip: one(clip, level), clips))).view(images.shape)


class Compressed:
    """A cache of coded clips in a folder, by content, level and version of the codec. Damaged entries are made anew.

    An entry is the H.264 stream behind its own sha256; it appears whole or not at all, so processes may share a folder.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"the cache {self.folder} is a file. Name a folder.")

    def clip(self, clip: Tensor, level: str) -> Tensor:
        """As `compress_clip`."""
        path = self.path(clip, level)
        if (stream := _intact(path)) is not None:
            try:
                return _decode(stream, clip)
            except (need("av").FFmpegError, ValueError):  # bytes of another's making: made anew below
                pass
        stream = _encode(clip, level)
        with atomic(path, durable=False) as file:
            file.write(hashlib.sha256(stream).digest() + stream)
        return _decode(stream, clip)

    def path(self, clip: Tensor, level: str) -> Path:
        """Where the entry of a clip lies, be it there or not."""
        content = np.ascontiguousarray(clip.numpy())
        key = hashlib.sha256(f"{level}/{codec_version()}/{content.shape}/".encode() + content.tobytes()).hexdigest()
        return self.folder / key[:2] / f"{key}.h264"


@lru_cache(maxsize=1)
def codec_version() -> str:
    """A hash of what x264 and the colour conversion here make of one picture, and of the libraries' versions."""
    ramp = (torch.arange(3 * 32 * 32) * 37 % 256).to(torch.uint8).view(1, 3, 32, 32)
    return hashlib.sha256(repr(need("av").library_versions).encode() + _encode(ramp, "c23")).hexdigest()[:16]


def _encode(clip: Tensor, level: str) -> bytes:
    """The H.264 stream (Annex B) of a clip."""
    av = need("av")
    if level not in LEVELS:
        raise InputError(f"unknown compression {level!r}: use one of {', '.join(LEVELS)}.")
    assert clip.dtype == torch.uint8, clip.dtype
    assert clip.shape[1:-2] == (3,), clip.shape
    frames = clip.permute(0, 2, 3, 1).numpy()
    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    coder = _context("libx264", "w")
    coder.height, coder.width, coder.pix_fmt = *frames.shape[1:3], "yuv420p"
    coder.framerate, coder.time_base = RATE, 1 / RATE
    # swscale makes chroma that lies between its pixels: said so, or decoders shift it by half a pixel
    params = "threads=1:chromaloc=1" + (":no-mbtree=1" if min(height, width) < SMALL else "")
    coder.options = {"preset": "medium", "crf": str(LEVELS[level]), "x264-params": params}
    stream = bytearray()
    for number, image in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=BT601, interpolation=EXACT)
        frame.pts, frame.time_base = number, 1 / RATE
        for packet in coder.encode(frame):
            stream += bytes(packet)
    for packet in coder.encode(None):
        stream += bytes(packet)
    return bytes(stream)


def _decode(stream: bytes, like: Tensor) -> Tensor:
    """The clip in a stream. Raises ValueError where it is not of the shape of `like`."""
    decoder = _context("h264", "r")
    shots = [
        shot
        for packet in (*decoder.parse(stream), *decoder.parse(None), None)
        for shot in decoder.decode(packet)
    ]  # fmt: skip
    count, _, height, width = like.shape
    if len(shots) != count or any((s.height - height, s.width - width) != (height % 2, width % 2) for s in shots):
        raise ValueError(f"expected {count} frames of {width} x {height} px, found {shots}")
    images = [shot.to_ndarray(format="rgb24", src_colorspace=BT601, interpolation=EXACT) for shot in shots]
    return torch.from_numpy(np.stack(images)[:, :height, :width]).permute(0, 3, 1, 2).contiguous()


def _context(codec: str, mode: str) -> Any:
    made = need("av").CodecContext.create(codec, mode)
    made.thread_count = 1
    return made


def _intact(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None

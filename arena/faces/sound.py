"""The sound of a video that is written like another: its packets as they are, or as AAC where they do not fit."""

from contextlib import suppress
from typing import Any

from arena.faces import need

# Sound that goes over as it is: what players expect in MP4 and MOV; Matroska takes nearly everything.
COPIED = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_f32le"},
}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)  # Hz


class Silence:
    start = 0.0

    def join(self, out: Any) -> None: ...
    def pump(self, until: float | None) -> None: ...
    def close(self) -> None: ...


class Sound:
    """The streams of sound of a container, read beside the frames and handed on no further than those have come.

    video_start: seconds on the container's clock at which the first frame stands, which becomes 0. `start` is when the
    sound begins on that new clock, often a little before 0.
    """

    def __init__(self, source: Any, video_start: float):
        self.source, self.video_start = source, video_start
        self.streams = [s for s in source.streams.audio if s.codec_context is not None]
        starts = [float(s.start_time * s.time_base) for s in self.streams if s.start_time is not None]
        self.start = min(starts, default=video_start) - video_start
        self.outs: dict[int, Any] = {}  # by the stream's index
        self.resamplers: dict[int, Any] = {}  # of the streams that become AAC
        self.packets: Any = None

    def join(self, out: Any) -> None:
        """Give the container `out` a stream for each of ours."""
        self.out = out
        for stream in self.streams:
            context = stream.codec_context
            if context.codec.canonical_name in COPIED.get(out.format.name, out.supported_codecs):
                new = out.add_stream_from_template(stream)
            else:
                rate = context.sample_rate if context.sample_rate in AAC_RATES else 48000
                layout = {1: "mono", 6: "5.1", 8: "7.1"}.get(context.channels, "stereo")
                new = out.add_stream("aac", rate=rate, layout=layout)
                self.resamplers[stream.index] = need("av").AudioResampler("fltp", layout, rate)
            new.metadata.update(stream.metadata)
            self.outs[stream.index] = new
        self.packets = self.source.demux(*self.streams)

    def pump(self, until: float | None) -> None:
        """Hand on the packets up to a time in seconds, or (None) all that are left."""
        av = need("av")
        while self.packets is not None:
            try:
                packet = next(self.packets, None)
            except av.FFmpegError:  # cut short
                packet = None
            if packet is None:
                self.packets = None
                self._flush()
            elif packet.dts is not None:
                seconds = float(packet.dts * packet.time_base) - self.video_start
                self._hand_on(packet)
                if until is not None and seconds > until:
                    return

    def close(self) -> None:
        self.source.close()

    def _hand_on(self, packet: Any) -> None:
        index = packet.stream.index
        if index not in self.resamplers:
            shift = round(self.video_start / packet.time_base)
            packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
            packet.dts -= shift
            packet.stream = self.outs[index]
            self.out.mux(packet)
            return
        frames = []
        with suppress(need("av").FFmpegError):  # a damaged packet is a gap in the sound
            frames = packet.decode()
        for frame in frames:
            if frame.pts is not None:
                frame.pts -= round(self.video_start / frame.time_base)
            self._encode(index, frame)

    def _flush(self) -> None:
        for index in self.resamplers:
            self._encode(index, None)
            self.out.mux(self.outs[index].encode(None))

    def _encode(self, index: int, frame: Any) -> None:
        for piece in self.resamplers[index].resample(frame):
            self.out.mux(self.outs[index].encode(piece))

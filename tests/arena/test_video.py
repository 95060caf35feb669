"""Videos made here with PyAV, read back and written again: times, sound, colours, and what is wrong with a file."""

import os
import sys
import tracemalloc
from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av")

from arena.errors import InputError  # noqa: E402
from arena.faces.video import Plain, Writer, kind, open_video  # noqa: E402

RNG = np.random.default_rng(0)
RED, GREEN, BLUE, GREY = (200, 40, 40), (40, 180, 60), (50, 60, 190), (128, 128, 128)


def picture(k: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Four quarters of colour and a white bar that stands at 4 k: tells frames, turns and mirrors apart."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, GREY
    left = 4 * k % width
    image[height // 2 - 4 : height // 2 + 4, left : left + 4] = 255
    return image


def make(path, times=range(10), clock=Fraction(1, 25), codec="libx264", sound=None, rotate=0, rate=25, **options):
    """A video whose frame k stands at times[k] ticks of the clock; sound: a codec for a sine of the same length."""
    times = list(times)
    with av.open(str(path), "w", **options) as out:
        video = out.add_stream(codec, rate=rate, options={"crf": "12"} if codec == "libx264" else {})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = clock
        if codec != "libx264":
            video.bit_rate = 2_000_000
        if rotate:
            video.set_display_rotation(rotate)
        audio = out.add_stream(sound, rate=44100, layout="mono") if sound else None
        for k, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = at, clock
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            n = round(float((times[-1] + 1) * clock) * 44100)
            wave = (0.5 * np.sin(2 * np.pi * 440 * np.arange(n) / 44100)).astype(np.float32)
            for start in range(0, n, 1024):
                piece = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 44100, start, Fraction(1, 44100)
                out.mux(audio.encode(piece))
            out.mux(audio.encode(None))
    return path


def copy(source, target, **options):
    with open_video(source) as video, Writer(target, video, {"comment": "synthetic"}, **options) as writer:
        for _, seconds, image in video:
            writer.write(image, seconds)
    return open_video(target)


def sound_of(path):
    """(codec, the packets' bytes, samples)"""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return stream.codec_context.codec.canonical_name, packets, samples


def bar_at(image: np.ndarray) -> int:
    row = image[image.shape[0] // 2].astype(int).min(1)
    return int(np.flatnonzero(row > 220).mean()) // 4


def test_frames_come_in_order_with_their_times_and_colours(tmp_path):
    video = open_video(make(tmp_path / "a.mp4"))
    assert (video.width, video.height, video.rate, video.count, video.variable) == (64, 48, 25, 10, False)
    assert (video.seconds, video.has_audio, video.rotation, video.lost) == (pytest.approx(0.4), False, 0, 0)
    for _ in range(2):  # a video can be read again
        frames = list(video)
        assert [frame.number for frame in frames] == list(range(10))
        assert [frame.seconds for frame in frames] == pytest.approx([k / 25 for k in range(10)])
        assert [bar_at(frame.image) for frame in frames] == list(range(10))
    for (y, x), colour in {(8, 12): RED, (8, 52): GREEN, (40, 12): BLUE, (40, 52): GREY}.items():
        assert np.abs(frames[9].image[y, x].astype(int) - colour).max() <= 3


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(12)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_a_constant_rate_stays_exactly_the_same(tmp_path, rate, suffix):
    video = open_video(make(tmp_path / f"a.{suffix}", range(40), 1 / rate, rate=rate))
    assert (video.rate, video.variable, video.count) == (rate, False, 40)
    again = copy(video.path, tmp_path / "b.mp4")
    assert (again.rate, again.variable, again.count) == (rate, False, 40)
    assert again.seconds == pytest.approx(40 / float(rate))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_keeps_every_frame_s_time(tmp_path, suffix):
    times = np.cumsum([0, 40, 40, 15, 200, 33, 33, 80, 1, 40]).tolist()
    video = open_video(make(tmp_path / f"a.{suffix}", times, Fraction(1, 1000)))
    assert video.variable
    assert [frame.seconds for frame in video] == pytest.approx([t / 1000 for t in times])
    again = copy(video.path, tmp_path / f"b.{suffix}")
    assert [frame.seconds for frame in again] == pytest.approx([t / 1000 for t in times])
    assert [bar_at(frame.image) for frame in again] == list(range(10))


def test_a_gap_at_a_constant_clock_stays_a_gap(tmp_path):
    again = copy(make(tmp_path / "a.mp4", [0, 1, 2, 10, 11]), tmp_path / "b.mp4")
    assert [frame.seconds for frame in again] == pytest.approx([0, 0.04, 0.08, 0.4, 0.44])


@pytest.mark.parametrize(("source", "codec", "target"), [("mp4", "aac", "mkv"), ("mkv", "mp2", "mkv")])
def test_sound_is_copied_to_the_byte(tmp_path, source, codec, target):
    made = make(tmp_path / f"a.{source}", range(50), sound=codec)
    copy(made, tmp_path / f"b.{target}")
    before, after = sound_of(made), sound_of(tmp_path / f"b.{target}")
    assert before[:2] == after[:2]


@pytest.mark.parametrize("codec", ["mp2", "pcm_s16le"])
def test_sound_that_mp4_does_not_take_becomes_aac_of_the_same_length_and_tone(tmp_path, codec):
    made = make(tmp_path / "a.mkv", range(50), sound=codec)
    again = copy(made, tmp_path / "b.mp4")
    name, _, samples = sound_of(again.path)
    assert (name, again.seconds) == ("aac", 2.0)
    assert abs(len(samples) - 2 * 44100) < 3 * 1024
    middle = samples[20_000:64_100]  # a second: bins of 1 Hz
    assert abs(np.abs(np.fft.rfft(middle)).argmax() - 440) <= 1
    # Where the tone sets in tells of sync: not before, and no more than two packets after the source's
    onset = [np.flatnonzero(np.abs(s.astype(float)) > 0.2 * np.abs(s).max())[0] for s in (sound_of(made)[2], samples)]
    assert abs(int(onset[1]) - int(onset[0])) < 2200


def test_sound_that_starts_before_the_pictures_keeps_step_with_them(tmp_path):
    made = make(tmp_path / "a.mkv", range(25, 75), sound="aac")
    again = copy(made, tmp_path / "b.mkv")
    with av.open(str(made)) as one, av.open(str(again.path)) as two:
        lags = [
            float(c.streams.video[0].start_time * c.streams.video[0].time_base)
            - float(c.streams.audio[0].start_time * c.streams.audio[0].time_base)
            for c in (one, two)
        ]
    assert lags[0] > 0.9
    assert lags[1] == pytest.approx(lags[0], abs=0.003)


def test_frames_stand_upright_and_are_written_so(tmp_path):
    with av.open(str(make(tmp_path / "a.mp4", rotate=90))) as container:
        angle = next(container.decode(video=0)).rotation
    video = open_video(tmp_path / "a.mp4")
    assert (video.width, video.height, video.rotation) == (48, 64, angle)
    image = next(iter(video)).image
    # A positive angle turns the stored picture counter-clockwise: its top right corner comes to the top left
    corner = GREEN if angle == 90 else BLUE
    assert np.abs(image[8, 8].astype(int) - corner).max() <= 4
    again = copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert (again.width, again.height, again.rotation) == (48, 64, 0)
    assert np.abs(next(iter(again)).image.astype(int) - image).mean() < 3


def test_odd_sizes_gain_a_repeated_column_and_row(tmp_path):
    path = tmp_path / "odd.mp4"
    with Writer(path, Plain(), {}) as writer:
        for k in range(3):
            writer.write(picture(k, 47, 63), k / 25)
    video = open_video(path)
    assert (video.width, video.height, video.count, video.rate) == (64, 48, 3, 25)


@pytest.mark.parametrize("matrix", [1, 5])
def test_colours_survive_under_either_matrix(tmp_path, matrix):
    """A slope through many colours comes back without becoming lighter, darker or of another hue."""
    ramp = np.linspace(30, 220, 64)[None].repeat(48, 0)
    image = np.stack([ramp, ramp[:, ::-1], ramp[:, :1] + 0 * ramp + 60], -1).round().astype(np.uint8)
    with Writer(tmp_path / "a.mp4", Plain(matrix=matrix), crf=1) as writer:
        writer.write(image, 0)
    video = open_video(tmp_path / "a.mp4")
    difference = next(iter(video)).image.astype(int) - image
    assert video.matrix == matrix
    assert np.abs(difference.mean((0, 1))).max() < 0.6
    assert np.abs(difference).max() <= 6


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_a_written_video_says_what_it_is(tmp_path, name):
    marks = {"title": "A as B", "comment": "a swapped face", "consent": "both agreed"}
    with Writer(tmp_path / name, Plain(), marks, synthetic="the face") as writer:
        writer.write(picture(0), 0)
    with av.open(str(tmp_path / name)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    assert tags["title"] == "A as B"
    assert "a swapped face" in tags["comment"]
    assert "both agreed" in tags["comment"] + tags.get("consent", "")
    assert open_video(tmp_path / name).synthetic == "the face"
    data = (tmp_path / name).read_bytes()
    assert (b"digitalsourcetype/compositeWithTrainedAlgorithmicMedia" in data) == name.endswith("mp4")
    assert len(list(open_video(tmp_path / name))) == 1


def test_a_video_of_a_camera_says_nothing_of_the_kind(tmp_path):
    assert open_video(make(tmp_path / "a.mp4")).synthetic is None
    with Writer(tmp_path / "b.mp4", Plain(), synthetic=None) as writer:
        writer.write(picture(0), 0)
    assert open_video(tmp_path / "b.mp4").synthetic is None
    assert b"digitalsourcetype" not in (tmp_path / "b.mp4").read_bytes()


def test_mpeg_1_and_transport_streams_and_gif(tmp_path):
    made = make(tmp_path / "a.mpg", range(30), codec="mpeg1video", sound="mp2", format="mpeg")
    video = open_video(made)
    assert (video.rate, video.count, video.has_audio) == (25, 30, True)
    assert [bar_at(frame.image) for frame in video][:12] == list(range(12))
    again = copy(made, tmp_path / "b.mp4")
    assert (again.count, again.rate, again.has_audio) == (30, 25, True)
    stream = open_video(make(tmp_path / "a.ts", range(30), codec="mpeg2video", format="mpegts"))
    assert (stream.rate, stream.count, len(list(stream))) == (25, 30, 30)


def test_a_video_that_is_cut_short_is_read_up_to_the_cut(tmp_path):
    whole = make(tmp_path / "a.mp4", range(100), options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: int(len(whole) * 0.7)])
    video = open_video(tmp_path / "cut.mp4")
    frames = list(video)
    assert 20 < len(frames) < 95
    assert video.lost >= 100 - len(frames) - 4
    assert copy(tmp_path / "cut.mp4", tmp_path / "b.mp4").count == len(frames)

    whole = make(tmp_path / "a.mpg", range(100), codec="mpeg1video", sound="mp2", format="mpeg").read_bytes()
    (tmp_path / "cut.mpg").write_bytes(whole[: len(whole) // 2])
    frames = list(open_video(tmp_path / "cut.mpg"))
    assert 20 < len(frames) < 80


def test_damage_in_the_middle_costs_frames_not_the_video(tmp_path):
    data = bytearray(make(tmp_path / "a.mkv", range(100)).read_bytes())
    rng = np.random.default_rng(0)
    middle = len(data) // 2
    data[middle : middle + 400] = rng.integers(0, 256, 400, dtype=np.uint8).tobytes()
    (tmp_path / "bad.mkv").write_bytes(bytes(data))
    frames = list(open_video(tmp_path / "bad.mkv"))
    assert 20 < len(frames) <= 100


@pytest.mark.parametrize(("suffix", "options"), [
    ("mkv", {}), ("ts", {"codec": "mpeg2video", "format": "mpegts"}), ("avi", {"codec": "mpeg4"}),
])  # fmt: skip
def test_what_damage_costs_is_counted(tmp_path, suffix, options):
    """With or without a count in the header, the reader finds its way again and knows what is missing."""
    data = bytearray(make(tmp_path / f"a.{suffix}", range(200), **options).read_bytes())
    size, middle = len(data) // 5, len(data) // 2
    data[middle : middle + size] = bytes(size)
    (tmp_path / f"bad.{suffix}").write_bytes(bytes(data))
    video = open_video(tmp_path / f"bad.{suffix}")
    frames = list(video)
    assert bar_at(frames[-1].image) == 199 % 16  # after the damage, too
    assert len(frames) < 190
    assert abs(video.lost - (200 - len(frames))) <= 1


def test_a_cut_matroska_counts_what_its_tag_promised(tmp_path):
    whole = make(tmp_path / "a.mkv", range(200), sound="aac").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    video = open_video(tmp_path / "cut.mkv")
    assert video.lost == 200 - len(list(video)) > 50
    assert open_video(tmp_path / "a.mkv").lost == 0


def test_a_variable_rate_is_no_damage(tmp_path):
    times = np.cumsum(RNG.choice([1, 1, 1, 2, 4], 100)).tolist()
    assert open_video(make(tmp_path / "a.mkv", times)).lost == 0


def wrong_files(folder):
    (folder / "text.mp4").write_text("this is no video, whatever its name says\n" * 50)
    (folder / "empty.mp4").write_bytes(b"")
    whole = make(folder / "whole.mp4", range(50)).read_bytes()
    (folder / "noindex.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(folder / "sound.mka"), "w", format="matroska") as out:
        audio = out.add_stream("aac", rate=44100, layout="mono")
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        piece.sample_rate, piece.pts = 44100, 0
        out.mux(audio.encode(piece))
        out.mux(audio.encode(None))
    (folder / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{folder / 'whole.mp4'}\n#EXT-X-ENDLIST\n"
    )
    (folder / "concat.txt").write_text(f"ffconcat version 1.0\nfile '{folder / 'whole.mp4'}'\n")
    return {
        "text.mp4": "no video that can be read",
        "empty.mp4": "zero bytes",
        "noindex.mp4": "cut short",
        "sound.mka": "no video stream",
        "list.m3u8": "no video that can be read",
        "concat.txt": "no video that can be read",
        "gone.mp4": "there is no",
    }


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    for name, reason in wrong_files(tmp_path).items():
        with pytest.raises(InputError, match=reason) as caught:
            open_video(tmp_path / name)
        assert "\n" not in str(caught.value), name
        assert name in str(caught.value)


def test_bytes_at_random_never_crash_the_reader(tmp_path):
    whole = make(tmp_path / "a.mp4", range(20), options={"movflags": "faststart"}).read_bytes()
    rng = np.random.default_rng(1)
    for k in range(25):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 30):
            data[at] = rng.integers(256)
        path = tmp_path / f"{k}.mp4"
        path.write_bytes(bytes(data[: rng.integers(8, len(data))]))
        with suppress(InputError):
            for frame in open_video(path):
                assert frame.image.dtype == np.uint8


def test_a_writer_leaves_a_whole_file_or_none(tmp_path):
    video = open_video(make(tmp_path / "a.mp4", range(30), sound="aac"))
    target = tmp_path / "b.mp4"
    target.write_bytes(b"old")

    def write(frames, fail):
        with Writer(target, video) as writer:
            for number, image in enumerate(frames):
                writer.write(image, number / 25)
            if fail:
                raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write([picture(k) for k in range(20)], fail=True)
    assert target.read_bytes() == b"old"
    with pytest.raises(InputError, match="no frames"):
        write([], fail=False)
    with pytest.raises(InputError, match="frame 1 has shape"):
        write([picture(0), picture(0, 50, 50)], fail=False)
    assert target.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]


def test_what_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match=r"not as b\.avi"):
        Writer(tmp_path / "b.avi", Plain())
    with pytest.raises(InputError, match="crf"):
        Writer(tmp_path / "b.mp4", Plain(), crf=60)


def test_memory_does_not_grow_with_the_length(tmp_path):
    """200 frames of 640 x 480 are 184 MB: far more than what may stay in hand."""
    image = RNG.integers(0, 255, (30, 40, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    path = tmp_path / "long.mp4"
    tracemalloc.start()
    try:
        with Writer(path, Plain(), preset="ultrafast") as writer:
            for k in range(200):
                writer.write(np.roll(image, k, 1), k / 25)
        assert sum(1 for _ in open_video(path)) == 200
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_an_input_is_known_by_its_content(tmp_path):
    from PIL import Image

    Image.fromarray(picture(0)).save(tmp_path / "picture.mp4", "PNG")
    make(tmp_path / "a.mp4").rename(tmp_path / "video.png")
    assert kind(tmp_path) == "folder"
    assert kind(tmp_path / "picture.mp4") == "image"
    assert kind(tmp_path / "video.png") == "video"
    with pytest.raises(InputError, match="there is no"):
        kind(tmp_path / "nothing")


def test_a_missing_package_is_named_with_its_cure(tmp_path, monkeypatch):
    made = make(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"need the package av .*pip install -e '\.\[faces\]'"):
        open_video(made)

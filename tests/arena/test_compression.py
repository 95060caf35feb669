"""H.264 at FaceForensics++'s levels: what it loses, that it is the same each time, and its cache."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from arena.data import compression
from arena.data.compression import Compressed, compress, compress_clip
from arena.data.faces import clip as film
from arena.data.faces import render
from arena.errors import InputError

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip():
    return film(0, index=3, frames=8, size=64).image


@pytest.fixture(scope="module")
def stills():
    return render(seed=0, indices=range(5), size=64).image


def loss(a, b):
    return (a.int() - b.int()).abs().float()


def test_raw_loses_the_way_through_420_alone(clip):
    after = compress_clip(clip, "raw")
    assert after.shape == clip.shape
    assert after.dtype == torch.uint8
    assert loss(after, clip).mean() < 0.8
    assert loss(after, clip).max() <= 12
    grey = clip[:, :1].expand(-1, 3, -1, -1).contiguous()  # without chroma nothing is left to lose but 8-bit rounding
    assert loss(compress_clip(grey, "raw"), grey).max() <= 1


def test_raw_hands_back_the_planes_that_it_was_given(clip):
    """CRF 0 is x264's lossless mode: by a decoder of its own, in YUV, nothing at all is lost."""
    stream = compression._encode(clip, "raw")
    with av.open(io.BytesIO(stream), format="h264") as container:
        decoded = [frame.to_ndarray() for frame in container.decode(video=0)]
    for image, planes in zip(clip.permute(0, 2, 3, 1).numpy(), decoded, strict=True):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        given = frame.reformat(format="yuv420p", dst_colorspace=compression.BT601, interpolation=compression.EXACT)
        assert np.array_equal(given.to_ndarray(), planes)


def test_levels_lose_more_and_more_and_say_so_to_others(clip):
    losses = [loss(compress_clip(clip, level), clip).mean() for level in ("raw", "c23", "c40")]
    assert losses[0] * 3 < losses[1] < losses[2] / 1.5
    assert losses[2] < 20
    for level, mark in (("raw", b"rc=cqp"), ("c23", b"crf=23.0"), ("c40", b"crf=40.0")):
        stream = compression._encode(clip, level)
        assert mark in stream  # x264 writes its settings into the stream
        assert b"threads=1 " in stream
    assert len(compression._encode(clip, "c40")) < len(compression._encode(clip, "c23"))


def test_colours_stay_where_they_are():
    """An edge between two colours is neither moved by half a pixel nor tinted beside it."""
    edge = torch.zeros(1, 3, 32, 64, dtype=torch.uint8)
    edge[:, 2, :, :32], edge[:, 0, :, 32:] = 255, 255
    row = compress_clip(edge, "raw")[0, 0, 16].float() / 255
    assert abs(float(row.sum()) - 32) < 0.4
    flat = torch.tensor([200, 60, 20], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32).contiguous()
    assert loss(compress_clip(flat, "raw"), flat).max() <= 2


def test_a_clip_is_the_same_alone_and_among_others(clip, stills):
    for level in ("raw", "c23", "c40"):
        assert compression._encode(clip, level) == compression._encode(clip, level)
        together = compress(torch.stack([clip, clip.flip(0)]), level)
        assert torch.equal(together[0], compress_clip(clip, level))
        assert torch.equal(together[1], compress_clip(clip.flip(0), level))
        some = compress(stills, level)
        assert torch.equal(some[2], compress(stills[2:3], level)[0])
        assert torch.equal(some[2], compress_clip(stills[2:3], level)[0])


@pytest.mark.parametrize("size", [32, 64])
def test_the_same_clip_gives_the_same_bytes_each_time(size):
    clip = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (4, 3, size, size), dtype=np.uint8))
    found = {compress_clip(clip, "c40").numpy().tobytes() for _ in range(150)}
    assert len(found) == 1


def test_frames_of_a_clip_lean_on_each_other(clip):
    alone = compress(clip, "c40")
    assert not torch.equal(alone, compress_clip(clip, "c40"))
    assert len(compression._encode(clip, "c40")) < sum(len(compression._encode(f[None], "c40")) for f in clip) / 2


@pytest.mark.parametrize("shape", [(3, 33, 47), (1, 32, 33), (2, 16, 16)])
def test_odd_sizes(shape):
    frames, height, width = shape
    x = torch.arange(width).view(1, 1, 1, -1) + torch.arange(height).view(1, 1, -1, 1)
    clip = (2 * x).expand(frames, 3, -1, -1).to(torch.uint8).contiguous()
    after = compress_clip(clip, "raw")
    assert after.shape == clip.shape
    assert loss(after, clip).max() <= 1


def test_stills_from_jpegs_pass(stills):
    files = []
    for image in stills:
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=50)
        files.append(np.asarray(Image.open(buffer)))
    coded = torch.from_numpy(np.stack(files)).permute(0, 3, 1, 2)  # not contiguous, as decoders hand them over
    assert loss(compress(coded, "raw"), coded).mean() < 0.8


def test_the_cache_gives_what_was_coded_without_coding(clip, tmp_path, monkeypatch):
    cache = Compressed(tmp_path / "cache")
    truth = compress_clip(clip, "c23")
    assert torch.equal(cache.clip(clip, "c23"), truth)
    monkeypatch.setattr(compression, "_encode", None)
    assert torch.equal(Compressed(tmp_path / "cache").clip(clip, "c23"), truth)
    assert torch.equal(compress(clip[None], "c23", cache)[0], truth)


def test_the_cache_tells_content_level_shape_and_codec_apart(clip, tmp_path, monkeypatch):
    cache = Compressed(tmp_path)
    other = clip.clone()
    other[0, 0, 0, 0] ^= 1
    asked = [
        (clip, "c23"),
        (clip, "c40"),
        (other, "c23"),
        (clip.flatten(0, 0)[:4], "c23"),
        (clip.transpose(2, 3), "c23"),
    ]
    paths = [cache.path(*each) for each in asked]
    assert cache.path(clip.clone(), "c23") == paths[0]
    monkeypatch.setattr(compression, "codec_version", lambda: "another")
    paths.append(cache.path(clip, "c23"))
    assert len(set(paths)) == len(paths)
    square = torch.zeros(2, 3, 16, 32, dtype=torch.uint8)
    assert cache.path(square, "raw") != cache.path(square.view(2, 3, 32, 16), "raw")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "zeros", "stranger", "another's"])
def test_a_damaged_entry_is_made_anew(clip, tmp_path, damage):
    import hashlib

    cache = Compressed(tmp_path)
    truth = cache.clip(clip, "c40")
    path = cache.path(clip, "c40")
    whole = path.read_bytes()
    other = compression._encode(clip[:3], "c40")
    junk = b"no stream at all" * 20
    path.write_bytes({
        "flip": whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], "cut": whole[:-20], "empty": b"",
        "zeros": bytes(len(whole)), "stranger": hashlib.sha256(junk).digest() + junk,
        "another's": hashlib.sha256(other).digest() + other,
    }[damage])  # fmt: skip
    assert torch.equal(cache.clip(clip, "c40"), truth)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_cannot_be_done_is_refused(clip, tmp_path):
    with pytest.raises(InputError, match="c24"):
        compress_clip(clip, "c24")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        Compressed(tmp_path / "file")

"""Strangers' pictures: each kind against a closed form or the format's own specification, and everything broken."""

import io
import struct
import threading
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from arena.data import decode
from arena.data.decode import BadImage

RNG = np.random.default_rng(0)
TURNED_BY_NOTHING = Image.Exif()
TURNED_BY_NOTHING[0x0112] = 1


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(decode.decode(decode.header(data)))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand from the specification; rows carry their filter byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def noise(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


# EXIF 2.32, section 4.6.4 A, tag 0x0112: where the 0th row and the 0th column of the stored picture are seen.
SEEN_AT = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Every stored pixel put where the specification says it is seen."""
    rows, columns = stored.shape[:2]
    row_side, column_side = SEEN_AT[orientation]
    swapped = row_side in ("left", "right")
    height, width = (columns, rows) if swapped else (rows, columns)
    seen = np.zeros((height, width, 3), np.uint8)
    for i in range(rows):
        for j in range(columns):
            across, down = (i, j) if swapped else (j, i)
            from_right = "right" in (row_side, column_side)
            from_bottom = "bottom" in (row_side, column_side)
            y, x = height - 1 - down if from_bottom else down, width - 1 - across if from_right else across
            seen[y, x] = stored[i, j]
    return seen


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_exif_orientation(orientation, form, options):
    stored = noise(3, 5)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode.header(encoded(Image.fromarray(stored), form, exif=exif, **options))
    truth = upright(stored, orientation)
    assert np.array_equal(np.asarray(decode.decode(image)), truth)
    assert decode.is_sideways(image) == (truth.shape != stored.shape)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg(orientation):
    stored = np.kron(noise(2, 3), np.ones((32, 32, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(stored), "JPEG", exif=exif, quality=100, subsampling=0)
    truth = upright(stored, orientation)
    assert np.abs(decoded(data).astype(int) - truth).mean() < 2
    half = np.asarray(decode.decode(decode.header(data), at_least=32))
    assert half.shape == (truth.shape[0] // 2, truth.shape[1] // 2, 3)
    assert np.abs(half.astype(int) - truth[::2, ::2]).mean() < 2


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_reason_to_refuse():
    data = encoded(Image.fromarray(noise(8, 8)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 30)
    assert decoded(data).shape == (8, 8, 3)


def test_sixteen_bits_keep_the_high_byte_grey_and_colour_alike():
    values = RNG.integers(0, 2**16, (7, 9), dtype=np.uint16)
    truth = np.repeat((values // 256)[..., None], 3, axis=2)
    assert np.array_equal(decoded(encoded(Image.fromarray(values), "PNG")), truth)
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in values)
    assert np.array_equal(decoded(raw_png(9, 7, 16, 2, rows)), truth)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_alpha_is_laid_over_white(mode, form):
    if (mode, form) == ("LA", "WEBP"):
        pytest.skip("WEBP has no grey with alpha")
    pixels = RNG.integers(0, 256, (16, 16, len(mode)), dtype=np.uint8)
    pixels[:4, :, -1], pixels[4:8, :, -1] = 0, 255
    alpha = pixels[..., -1:].astype(float) / 255
    truth = pixels[..., :-1] * alpha + 255 * (1 - alpha)
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    found = decoded(encoded(Image.fromarray(pixels, mode), form, **options))
    assert np.abs(found - np.broadcast_to(truth, found.shape)).max() <= 1


def test_palettes_with_and_without_transparency():
    palette = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    index = RNG.integers(0, 4, (6, 5), dtype=np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(palette.tobytes())
    assert np.array_equal(decoded(encoded(image, "PNG")), palette[index])
    truth = np.where((index == 2)[..., None], 255, palette[index])
    assert np.array_equal(decoded(encoded(image, "PNG", transparency=2)), truth)
    alpha = np.array([0, 255, 128, 64])
    mixed = palette * (alpha / 255)[:, None] + 255 * (1 - alpha / 255)[:, None]
    found = decoded(encoded(image, "PNG", transparency=bytes(alpha.tolist())))
    assert np.abs(found - mixed[index]).max() <= 1


def test_cmyk_grey_and_one_bit():
    ink = np.array([30, 90, 200, 40])
    image = Image.new("CMYK", (16, 16), tuple(ink.tolist()))
    truth = (255 - ink[:3]) * (255 - ink[3]) / 255
    assert np.abs(decoded(encoded(image, "JPEG", quality=100)).mean((0, 1)) - truth).max() < 3
    grey = RNG.integers(0, 256, (5, 6), dtype=np.uint8)
    assert np.array_equal(decoded(encoded(Image.fromarray(grey), "BMP")), np.repeat(grey[..., None], 3, 2))
    bits = RNG.integers(0, 2, (5, 6)).astype(bool)
    assert np.array_equal(decoded(encoded(Image.fromarray(bits), "PNG"))[..., 1], bits * 255)


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_first_frame_of_an_animation(form):
    frames = [Image.new("RGB", (12, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(decoded(data), np.asarray(frames[0]))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
def test_suffix_does_not_matter_and_the_format_is_known(form, tmp_path):
    (tmp_path / "picture.png").write_bytes(encoded(Image.fromarray(noise(9, 7)), form))
    assert decode.read(tmp_path / "picture.png").size == (7, 9)
    assert decode.header(decode.read_bytes(tmp_path / "picture.png")).format == form


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello, this is text", "not a PNG, JPEG, WEBP or BMP picture"),
        (encoded(Image.new("RGB", (4, 4)), "GIF"), "a GIF, not PNG"),
        (encoded(Image.new("RGB", (4, 4)), "TIFF"), "a little-endian TIFF, not PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC or AVIF, not PNG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"BM", "damaged|truncated"),
        (b"\x89PNG\r\n\x1a\n", "damaged|truncated"),
        (b"RIFF\x10\0\0\0WEBP", "truncated"),
    ],
)
def test_strangers(data, reason):
    with pytest.raises(BadImage, match=reason):
        decode.header(data)


def test_unreadable_files(tmp_path):
    (tmp_path / "empty.png").touch()
    for name, reason in (("empty.png", "zero bytes"), ("none.png", "gone"), (".", "directory")):
        with pytest.raises(BadImage, match=reason):
            decode.read_bytes(tmp_path / name)
    (tmp_path / "long.png").write_bytes(bytes(2**20 + 81))
    with pytest.raises(BadImage, match="--max-pixels"):
        decode.read_bytes(tmp_path / "long.png", max_pixels=10)


def test_bomb_is_refused_by_its_header():
    side = 20_000
    data = raw_png(side, side, 1, 0, bytes(side * (1 + side // 8)))
    assert len(data) < 100_000
    start = time.perf_counter()
    with pytest.raises(BadImage, match=r"20000 x 20000 px is over the limit of 40 Mpx \(--max-pixels\)"):
        decode.header(data)
    assert time.perf_counter() - start < 0.5
    assert decode.header(data, max_pixels=side * side).size == (side, side)  # the limit is ours, not Pillow's


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": TURNED_BY_NOTHING}),
    ],
)
def test_pixel_limit_of_each_format(form, options):
    data = encoded(Image.fromarray(noise(31, 53)), form, **options)
    assert decode.header(data, 31 * 53).size == (53, 31)
    with pytest.raises(BadImage, match=r"^53 x 31 px is over"):
        decode.header(data, 31 * 53 - 1)


def test_webp_canvas_is_not_made_for_a_size_over_the_limit():
    data = bytearray(encoded(Image.fromarray(noise(8, 8)), "WEBP", exif=TURNED_BY_NOTHING))
    assert data[12:16] == b"VP8X"
    data[24:30] = b"\xff\xff\xff" * 2
    with pytest.raises(BadImage, match="16777216 x 16777216 px"):
        decode.header(bytes(data))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("at_least", [None, 8])
def test_every_truncation_is_a_bad_image(form, at_least):
    smooth = np.asarray(Image.fromarray(noise(6, 6)).resize((40, 40)))
    data = encoded(Image.fromarray(smooth), form)
    decode.decode(decode.header(data), at_least)
    for cut in {*range(1, len(data) - 40, max(1, len(data) // 60)), len(data) // 2}:
        with pytest.raises(BadImage) as caught:
            decode.decode(decode.header(data[:cut]), at_least)
        assert len(str(caught.value)) <= 120
        assert "\n" not in str(caught.value)
    with pytest.raises(BadImage, match="truncated"):
        decode.decode(decode.header(data[: len(data) // 2]), at_least)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
def test_flipped_bytes_give_a_picture_or_a_bad_image(form):
    data = encoded(Image.fromarray(noise(24, 24)), form)
    rng = np.random.default_rng(1)
    for _ in range(150):
        broken = bytearray(data)
        for at in rng.integers(0, min(len(data), rng.choice([60, len(data)])), 3):
            broken[at] = rng.integers(256)
        try:
            picture = decode.decode(decode.header(bytes(broken), 10**6))
        except BadImage:
            continue
        assert picture.mode == "RGB"


@pytest.mark.parametrize(("height", "width"), [(64, 96), (128, 64), (160, 160), (32, 48)])
def test_fitted_equals_torch_antialias_and_centre_crop(height, width):
    size = 32
    image = np.asarray(Image.fromarray(noise(8, 12)).resize((width, height)))
    scale = size / min(height, width)
    whole = (round(height * scale), round(width * scale))
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    truth = torch.nn.functional.interpolate(tensor, whole, mode="bicubic", antialias=True).clamp(0, 255)[0]
    top, left = (whole[0] - size) // 2, (whole[1] - size) // 2
    truth = truth[:, top : top + size, left : left + size].permute(1, 2, 0).numpy()
    found = decode.fitted(Image.fromarray(image), size)
    assert found.shape == (size, size, 3)
    assert np.abs(found - truth).max() <= 1.51  # two roundings to 8 bit
    stretched = torch.nn.functional.interpolate(tensor, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
    found = decode.fitted(Image.fromarray(image), size, fit="stretch")
    assert np.abs(found - stretched[0].permute(1, 2, 0).numpy()).max() <= 1.51


def test_a_chessboard_becomes_grey_and_the_filters_differ():
    board = Image.fromarray(np.kron(np.indices((128, 128)).sum(0) % 2 * 255, np.ones((1, 1))).astype(np.uint8))
    for resize in decode.RESIZES:
        small = decode.fitted(board.convert("RGB"), 16, resize)
        assert np.abs(small.astype(int) - 127.5).max() < 4, resize
    photo = Image.fromarray(noise(100, 100))
    assert len({decode.fitted(photo, 16, resize).tobytes() for resize in decode.RESIZES}) == len(decode.RESIZES)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2)])
def test_extreme_shapes(size):
    assert (decode.fitted(Image.new("RGB", size, "red"), 16) == [255, 0, 0]).all()


def test_in_threads_keeps_order_and_reads_ahead_only_so_far():
    begun = []

    def square(n: int) -> int:
        begun.append(n)
        return n * n

    found = decode.in_threads(square, iter(range(1000)), workers=2, ahead=10)
    assert next(found) == 0
    time.sleep(0.05)
    assert len(begun) <= 12
    assert list(found) == [n * n for n in range(1, 1000)]


def test_in_threads_hands_on_errors_and_stops():
    begun = []

    def fail(n: int) -> int:
        begun.append(n)
        time.sleep(0.001)
        if n == 5:
            raise KeyError(n)
        return n

    with pytest.raises(KeyError):
        list(decode.in_threads(fail, range(10_000), workers=2))
    found = decode.in_threads(fail, (n for n in range(6, 10_000)), workers=2)
    next(found)
    found.close()
    assert len(begun) < 50
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pictures")]

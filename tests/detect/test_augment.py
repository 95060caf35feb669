"""Blur and JPEG against SciPy, Pillow and OpenCV; the drawing of chances against their own laws."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from detect import augment
from detect.augment import Plan, apply, blur_jpeg, draw, random_crop_flip


def photographs(count, height, width, seed=0):
    """Bytes B 3 H W with the 1/f spectrum of natural images."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    radius = np.hypot(fy, fx) + 1 / max(height, width)
    noise = rng.standard_normal((count, 1, height, width)) + 0.3 * rng.standard_normal((count, 3, height, width))
    x = np.fft.ifft2(np.fft.fft2(noise) / radius**1.3).real
    x = (x - x.mean((2, 3), keepdims=True)) / x.std((2, 3), keepdims=True)
    return torch.from_numpy(np.clip(x * 50 + 128, 0, 255).round().astype(np.uint8))


def to_lab(levels):
    return levels.float() / 127.5 - 1


def to_levels(images):
    return (images + 1) * 127.5


def pillow(levels, quality):
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).numpy()).save(file, "jpeg", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)


def opencv(levels, quality):
    cv2 = pytest.importorskip("cv2")
    bgr = np.ascontiguousarray(levels.permute(1, 2, 0).numpy()[..., ::-1])
    decoded = cv2.imdecode(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return torch.from_numpy(decoded[..., ::-1].copy()).permute(2, 0, 1)


def plan(sigma, quality, opencv=None):
    quality = torch.tensor(quality)
    return Plan(torch.tensor(sigma, dtype=torch.float64), quality, torch.tensor(opencv or [False] * len(quality)))


# exact


def test_exact_blur_is_scipys_on_bytes():
    pytest.importorskip("cv2")
    levels, sigmas = photographs(5, 48, 40), [0.3, 0.7, 1.5, 2.2, 3.0]
    blurred = to_levels(apply(to_lab(levels), plan(sigmas, [0] * 5), "exact")).round()
    for image, source, sigma in zip(blurred, levels, sigmas, strict=True):
        truth = np.empty_like(source.numpy())
        for channel, out in zip(source.numpy(), truth, strict=True):
            gaussian_filter(channel, sigma, output=out)
        assert np.array_equal(image.numpy(), truth)


def test_exact_blur_cuts_off_the_fraction_of_each_pass_and_so_darkens_by_one_level():
    pytest.importorskip("cv2")
    levels = photographs(1, 96, 96)
    blurred = to_levels(apply(to_lab(levels), plan([2.0], [0]), "exact")).round()
    truth = levels[0].numpy().astype(np.float64)
    for axis in (1, 2):  # the second derivation: floating point passes, cut after each
        truth = np.floor(gaussian_filter1d(truth, 2.0, axis=axis) + 1e-9)
    assert (blurred[0].numpy() != truth).mean() < 1e-3
    assert float(levels.double().mean() - blurred.double().mean()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("size", [(48, 40), (37, 53)])
def test_exact_jpeg_is_pillows_and_opencvs(size):
    pytest.importorskip("cv2")
    levels, qualities = photographs(4, *size), [30, 55, 80, 100]
    for encoder in (pillow, opencv):
        coded = apply(to_lab(levels), plan([0.0] * 4, qualities, [encoder is opencv] * 4), "exact")
        for image, source, quality in zip(coded, levels, qualities, strict=True):
            assert torch.equal(to_levels(image).round().byte(), encoder(source, quality))


def test_exact_blurs_before_it_codes_and_leaves_the_rest():
    pytest.importorskip("cv2")
    levels = photographs(2, 32, 32)
    out = to_levels(apply(to_lab(levels), plan([1.2, 0.0], [60, 0]), "exact")).round().byte()
    blurred = np.stack([gaussian_filter(channel, 1.2) for channel in levels[0].numpy()])
    assert torch.equal(out[0], pillow(torch.from_numpy(blurred), 60))
    assert torch.equal(out[1], levels[1])


def test_exact_without_opencv_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ValueError, match=r"pip install 'deepfake-arena\[exact\]'"):
        apply(torch.zeros(1, 3, 16, 16), plan([1.0], [0]), "exact")


# fast


def test_fast_blur_is_a_gaussian_to_a_grey_level():
    levels, sigmas = photographs(6, 64, 80), [0.1, 0.5, 1.0, 1.7, 2.4, 3.0]
    blurred = to_levels(apply(to_lab(levels), plan(sigmas, [0] * 6)))
    for image, source, sigma in zip(blurred, levels, sigmas, strict=True):
        truth = gaussian_filter(source.double().numpy(), (0, sigma, sigma))
        assert np.abs(image.numpy() - truth).max() < 1.0  # half a level of rounding, and the tails beyond 3 sigma
        assert abs(float(image.mean()) - truth.mean()) < 0.05  # no darkening


def test_fast_blur_of_an_image_smaller_than_the_kernel():
    images = to_lab(photographs(1, 5, 6))
    assert apply(images, plan([3.0], [0])).shape == images.shape


@pytest.mark.parametrize("size", [(64, 64), (100, 100), (37, 53)])
def test_fast_jpeg_is_near_pillows(size):
    qualities = [30, 49, 50, 75, 90, 100]
    levels = photographs(6, *size)
    coded = to_levels(apply(to_lab(levels), plan([0.0] * 6, qualities)))
    for image, source, quality in zip(coded, levels, qualities, strict=True):
        truth = pillow(source, quality).float()
        near, lost = (image - truth).abs().mean(), (source.float() - truth).abs().mean()
        assert near < 1.25  # a coefficient that lies between two steps may fall either way
        assert near < 0.45 * lost or quality == 100
    assert (coded - coded.round()).abs().max() < 1e-3
    assert coded.amin() >= -1e-3
    assert coded.amax() <= 255.001


def test_quantisation_tables_are_those_in_pillows_files():
    for quality in (30, 50, 73, 95, 100):
        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, "jpeg", quality=quality)
        for base, table in zip((augment.LUMA, augment.CHROMA), Image.open(file).quantization.values(), strict=True):
            assert augment._table(base, torch.tensor([quality])).flatten().tolist() == list(table)


def test_fast_touches_only_what_is_planned():
    images = to_lab(photographs(4, 32, 32))
    out = apply(images, plan([0.0, 2.0, 0.0, 1.0], [0, 0, 40, 90]))
    assert torch.equal(out[0], images[0])
    assert not any(torch.equal(a, b) for a, b in zip(out[1:], images[1:], strict=True))
    alone = [
        apply(images[i : i + 1], Plan(*(t[i : i + 1] for t in plan([0, 2, 0, 1], [0, 0, 40, 90])))) for i in (1, 2, 3)
    ]
    assert torch.allclose(out[1:], torch.cat(alone), atol=1e-5)


# chances


def test_blur_and_jpeg_fall_independently_with_their_probabilities():
    n = 40_000
    drawn = draw(n, p_blur=0.5, p_jpeg=0.1, rng=torch.Generator().manual_seed(0))
    blurred, coded = drawn.sigma > 0, drawn.quality > 0
    for share, p in ((blurred, 0.5), (coded, 0.1), (blurred & coded, 0.05), (drawn.opencv[coded], 0.5)):
        assert abs(share.double().mean() - p) < 4 * math.sqrt(p * (1 - p) / len(share))
    sigma, quality = drawn.sigma[blurred], drawn.quality[coded]
    assert 0 < sigma.min() < 0.01 < 2.99 < sigma.max() < 3
    assert sigma.mean() == pytest.approx(1.5, abs=0.03)
    assert sorted(set(quality.tolist())) == list(range(30, 101))
    assert quality.double().mean() == pytest.approx(65, abs=1.5)


def test_none_and_all():
    images = to_lab(photographs(3, 16, 16))
    assert torch.equal(blur_jpeg(images, p_blur=0, p_jpeg=0), images)
    drawn = draw(50, p_blur=1, p_jpeg=1, sigma=(1.5, 1.5), quality=(65, 65))
    assert set(drawn.sigma.tolist()) == {1.5}
    assert set(drawn.quality.tolist()) == {65}


def test_wrong_mode_is_named():
    with pytest.raises(ValueError, match="mode: expected 'fast' or 'exact', got 'quick'"):
        blur_jpeg(torch.zeros(1, 3, 8, 8), p_blur=1, p_jpeg=0, mode="quick")


@pytest.mark.parametrize("size", [5, 8, 99, None])
def test_crop_is_a_window_of_its_image_and_half_are_mirrored(size):
    h, w = 8, 11
    images = torch.arange(600 * 3 * h * w, dtype=torch.float32).view(600, 3, h, w)
    out = random_crop_flip(images, size, rng=torch.Generator().manual_seed(0))
    assert out.shape == (600, 3, min(size or h, h), min(size or w, w))
    mirrored, corners = 0, set()
    for image, cut in zip(images, out, strict=True):
        mirrored += int(cut[0, 0, 0] > cut[0, 0, -1])
        cut = cut if cut[0, 0, 0] < cut[0, 0, -1] else cut.flip(-1)
        top, left = divmod(int(cut[0, 0, 0] - image[0, 0, 0]), w)
        corners.add((top, left))
        assert torch.equal(cut, image[:, top : top + cut.shape[1], left : left + cut.shape[2]])
    assert abs(mirrored - 300) < 4 * math.sqrt(150)
    assert len(corners) == (h - out.shape[2] + 1) * (w - out.shape[3] + 1)

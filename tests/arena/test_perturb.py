"""Perturbations against Pillow, SciPy, torch's own resize and closed forms."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter

from arena import perturb
from arena.data.faces import render
from arena.errors import InputError

SIZE = 48


@pytest.fixture(scope="module")
def images():
    return render(seed=0, indices=range(6), size=SIZE).image


def done(spec, images, addresses=None):
    return perturb.apply(images, perturb.parse(spec), addresses or [str(i) for i in range(len(images))])


def apart(a, b):
    return (a.int() - b.int()).abs()


@pytest.mark.parametrize("spec", ["jpeg:0", "blur:0", "resize:1", "crop:1", "noise:0", "blur:0+jpeg:0+noise:0"])
def test_no_effect_is_the_identity(images, spec):
    assert torch.equal(done(spec, images), images)


@pytest.mark.parametrize("spec", ["jpeg:30", "jpeg:100", "blur:0.5", "resize:0.5", "crop:0.9", "noise:1"])
def test_every_other_level_changes_pictures_and_leaves_the_given_ones_alone(images, spec):
    before = images.clone()
    after = done(spec, images)
    assert after.dtype == torch.uint8
    assert after.shape == images.shape
    assert apart(after, images).float().mean() > 0.1
    assert torch.equal(images, before)


@pytest.mark.parametrize("quality", [30, 75, 100])
def test_jpeg_is_pillows(images, quality):
    after = done(f"jpeg:{quality}", images)
    for image, ours in zip(images, after, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
        assert np.array_equal(np.asarray(Image.open(buffer)), ours.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7, 4.0])
def test_blur_is_scipys_without_its_darkening(images, sigma):
    ours = done(f"blur:{sigma}", images).numpy()
    truth = gaussian_filter(images.numpy().astype(np.float64), (0, 0, sigma, sigma), mode="reflect", truncate=4)
    assert np.abs(ours - truth).max() < 0.501
    assert abs(ours.mean() - truth.mean()) < 0.01
    on_bytes = np.stack([[gaussian_filter(plane, sigma) for plane in image] for image in images.numpy()])
    assert ours.mean() - on_bytes.mean() > 0.5  # what SciPy does to bytes


def test_blur_wider_than_the_picture():
    small = torch.arange(3 * 6 * 9).view(1, 3, 6, 9).to(torch.uint8)
    truth = gaussian_filter(small.numpy().astype(np.float64), (0, 0, 30, 30), mode="reflect", truncate=4)
    assert np.abs(done("blur:30", small).numpy() - truth).max() < 0.501


@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
def test_resize_is_an_antialiased_bicubic_there_and_back(images, share):
    side = round(share * SIZE)
    smaller = F.interpolate(images.float(), (side, side), mode="bicubic", antialias=True).round().clamp(0, 255)
    truth = F.interpolate(smaller, (SIZE, SIZE), mode="bicubic", antialias=True).round().clamp(0, 255)
    difference = done(f"resize:{share}", images) - truth  # Pillow rounds between its two passes, too
    assert difference.abs().max() <= 2
    assert difference.abs().mean() < 0.5
    assert abs(difference.mean()) < 0.05
    aliased = F.interpolate(images.float(), (side, side), mode="bicubic").round().clamp(0, 255)
    aliased = F.interpolate(aliased, (SIZE, SIZE), mode="bicubic").round().clamp(0, 255)
    assert (aliased - truth).abs().mean() > 0.7


def test_crop_enlarges_the_middle():
    """A bicubic filter keeps a ramp a ramp: the picture's middle half, twice as large."""
    x = torch.arange(64).float()
    ramp = (2 * x + 60).expand(1, 3, 64, 64).round().to(torch.uint8)
    truth = 2 * (16 + (x + 0.5) / 2 - 0.5) + 60
    assert (done("crop:0.5", ramp)[0, 0, 30] - truth).abs().max() <= 0.75
    turned = done("crop:0.5", ramp.transpose(2, 3))
    assert torch.equal(turned.transpose(2, 3), done("crop:0.5", ramp))


def test_noise_has_its_strength_and_does_not_wrap_around():
    grey = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    noise = done("noise:10", grey).float() - 128
    assert noise.std() == pytest.approx(10, rel=0.02)
    assert abs(noise.mean()) < 0.2
    assert np.corrcoef(noise.flatten(1).numpy())[~np.eye(4, dtype=bool)].max() < 0.05
    white = done("noise:10", torch.full((1, 3, 64, 64), 255, dtype=torch.uint8))
    assert white.min() > 180


def test_a_pictures_noise_is_its_own_whatever_the_batch(images):
    names = [f"picture {i}" for i in range(len(images))]
    for spec in ("noise:5", "blur:1+noise:5"):
        together = done(spec, images, names)
        for i in (0, 4):
            assert torch.equal(done(spec, images[i : i + 1], names[i : i + 1])[0], together[i])
    assert torch.equal(done("noise:5", images.flip(0), names[::-1]).flip(0), done("noise:5", images, names))
    twice = done("noise:5+noise:5", images, names).float() - images
    assert twice.std() < 9  # sqrt(2) x 5, not 10: the second noise is another one


def test_a_chain_does_its_steps_in_their_order(images):
    assert torch.equal(done("blur:1+jpeg:40", images), done("jpeg:40", done("blur:1", images)))
    assert not torch.equal(done("blur:1+jpeg:40", images), done("jpeg:40+blur:1", images))


def test_stronger_is_farther(images):
    for name, levels in (("jpeg", (95, 70, 30)), ("blur", (0.5, 1, 4)), ("resize", (0.75, 0.5, 0.25)),
                         ("crop", (0.95, 0.8, 0.5)), ("noise", (1, 5, 20))):  # fmt: skip
        distances = [apart(done(f"{name}:{level}", images), images).float().mean() for level in levels]
        assert distances == sorted(distances)
        assert distances[0] < distances[-1] / 1.5


def test_specs_are_read_and_written():
    chain = perturb.parse(" Blur:1.50 + jpeg:50 ")
    assert str(chain) == "blur:1.5+jpeg:50"
    assert chain.steps == (("blur", 1.5), ("jpeg", 50))
    assert perturb.parse(str(chain)) == chain
    assert [str(c) for c in perturb.parse_grid("jpeg:50,blur:1,jpeg:50")] == ["jpeg:50", "blur:1"]
    assert perturb.parse_grid("none") == []
    assert [str(c) for c in perturb.parse_grid("standard")] == list(perturb.GRID)
    assert [str(c) for c in perturb.parse_grid("full")] == list(perturb.FULL)
    assert (len(perturb.GRID), len(perturb.FULL)) == (20, 52)
    for grid in (perturb.GRID, perturb.FULL):
        assert {step.name for spec in grid for step in perturb.parse(spec).steps} == set(perturb.KINDS)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("jpg:50", "did you mean 'jpeg'"), ("jpeg", "from 1 to 100"), ("jpeg:101", "101"), ("jpeg:50.5", "whole"),
        ("jpeg:-1", "-1"), ("blur:x", "sigma"), ("blur:nan", "nan"), ("blur:inf", "inf"), ("blur:33", "32"),
        ("resize:2", "share"), ("resize:0", "0.05"), ("crop:0", "crop"), ("noise:1e9", "grey"), ("", "no perturbation"),
        ("jpeg:50+", "no perturbation ''"), ("jpeg:50;blur:1", "50;blur:1"), ("+".join(["blur:1"] * 6), "at most 5"),
    ],
)  # fmt: skip
def test_bad_specs_are_refused_in_a_line(spec, words):
    with pytest.raises(InputError) as error:
        perturb.parse(spec)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="--robustness"):
        perturb.parse_grid(spec or ",")

"""Heat on pictures: what is drawn where, that nothing is stretched, and that colour-blind eyes can read it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from arena.heat import FAKE, GAP, LINE, REAL, heat_png, heat_sheet, overlay
from detect.explain import Heat


def pictures(n=2, size=64):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def heat(values, method="grad-cam"):
    return Heat(values, "logit per cell of the layer's grid", method, torch.linspace(-1, 1, len(values)))


def rows(sheet, n, size=192):
    """The tiles of a sheet's three rows: 3 n size size 3."""
    tops = [2 * LINE + k * (LINE + size + GAP) for k in range(3)]
    lefts = [GAP + k * (size + GAP) for k in range(n)]
    return np.stack([[sheet[top : top + size, left : left + size] for left in lefts] for top in tops])


def colourfulness(tiles):
    """How much redder than blue, -255 to 255."""
    return tiles[..., 0].astype(int) - tiles[..., 2]


def test_no_evidence_leaves_pale_grey():
    images = pictures()
    found = overlay(images, torch.zeros(2, 64, 64), 1.0)
    assert np.array_equal(found, overlay(images, torch.zeros(2, 64, 64), 0.0))
    assert (colourfulness(found) == 0).all()
    grey = np.asarray(Image.fromarray(images[1].permute(1, 2, 0).numpy()).convert("L")).astype(float)
    assert np.corrcoef(found[1, ..., 0].ravel(), grey.ravel())[0, 1] > 0.999
    assert found.min() > 140  # pale enough for the colours


def test_red_for_fake_blue_for_real_and_full_at_the_limit():
    white = torch.full((1, 3, 1, 5), 255, dtype=torch.uint8)
    found = overlay(white, torch.tensor([[[-9.0, -2.0, 0.0, 2.0, 9.0]]]), 2.0)[0, 0]
    assert found.tolist() == [list(REAL), list(REAL), [255] * 3, list(FAKE), list(FAKE)]
    half = overlay(white[..., :2], torch.tensor([[[-1.0, 1.0]]]), 2.0)[0, 0]
    assert np.allclose(half, (np.array([REAL, FAKE]) + 255) / 2, atol=1)


def test_one_limit_for_all_columns():
    values = torch.ones(2, 1, 64, 64)
    values[1] *= 0.02
    strong, weak = colourfulness(rows(heat_sheet(pictures(), heat(values)), 2))[1]
    assert strong.mean() > 80
    assert 0 < weak.mean() < 0.03 * strong.mean()
    alone = colourfulness(rows(heat_sheet(pictures()[1:], heat(values[1:]), limit=1.0), 1))[1]
    assert abs(alone.mean() - weak.mean()) < 0.5


def test_the_three_rows():
    values = torch.zeros(2, 1, 64, 64)
    values[..., :20], values[..., 40:] = 1.0, -1.0
    image, whole, counter = rows(heat_sheet(pictures(), heat(values)), 2)
    assert np.array_equal(image[1][::3, ::3], pictures()[1].permute(1, 2, 0).numpy())
    assert (colourfulness(whole)[:, :, :60] > 0).all()
    assert (colourfulness(whole)[:, :, 60:120] == 0).all()
    assert (colourfulness(whole)[:, :, 120:] < 0).all()
    assert (colourfulness(counter)[:, :, :120] == 0).all()
    assert np.array_equal(counter[:, :, 120:], whole[:, :, 120:])


@pytest.mark.parametrize(("size", "shown"), [(32, 192), (64, 192), (100, 200), (256, 256)])
def test_pictures_are_enlarged_by_a_whole_number(size, shown):
    sheet = heat_sheet(pictures(3, size), heat(torch.randn(3, 1, size, size)))
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == GAP + 3 * (shown + GAP)
    tile = rows(sheet, 3, shown)[0][2]
    assert np.array_equal(tile[:: shown // size, :: shown // size], pictures(3, size)[2].permute(1, 2, 0).numpy())


def test_a_clip_has_a_column_a_frame():
    values = torch.randn(2, 3, 64, 64)
    sheet = heat_sheet(pictures(6), heat(values))
    assert sheet.shape[1] == GAP + 6 * (192 + GAP)
    by_image = Heat(
        values.flatten(0, 1)[:, None], heat(values).scale, "grad-cam", heat(values).logits.repeat_interleave(3)
    )
    assert np.array_equal(sheet, heat_sheet(pictures(6), by_image))


def test_the_limit_is_printed():
    """Twice the heat at twice the limit has the same colours, and another caption; so has another logit."""
    values = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    one, two = heat_sheet(pictures(), heat(values), 1.0), heat_sheet(pictures(), heat(values * 2), 2.0)
    assert np.array_equal(rows(one, 2), rows(two, 2))
    below = 3 * (LINE + 192 + GAP) + LINE
    assert not np.array_equal(one[below:], two[below:])
    assert np.array_equal(one[:below], two[:below])
    other = Heat(values, heat(values).scale, "grad-cam", heat(values).logits + 1)
    assert not np.array_equal(one[:LINE], heat_sheet(pictures(), other, 1.0)[:LINE])
    assert np.array_equal(
        heat_sheet(pictures(), heat(values)), heat_sheet(pictures(), heat(values), heat(values).limit)
    )


def test_a_gradients_rows_have_other_titles():
    values = torch.randn(1, 1, 64, 64)
    cam, slope = (heat_sheet(pictures(1), heat(values, method)) for method in ("occlusion", "saliency"))
    assert np.array_equal(rows(cam, 1), rows(slope, 1))
    title = slice(2 * LINE + 192 + GAP, 3 * LINE + 192 + GAP)
    assert not np.array_equal(cam[title], slope[title])


def lab(rgb):
    from kornia.color import linear_rgb_to_rgb, rgb_to_lab

    return rgb_to_lab(linear_rgb_to_rgb(rgb.clamp(0, 1)[:, :, None, None]))[:, :, 0, 0]


@pytest.mark.parametrize(
    "eye",
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ],
    ids=["all cones", "protanopia", "deuteranopia"],
)
def test_colour_blind_eyes_tell_the_two_apart(eye):
    """Simulated by Machado et al. 2009; about 2.3 is a difference one just sees."""
    from kornia.color import rgb_to_linear_rgb

    for level in (0, 128, 255):
        grey = torch.full((1, 3, 1, 3), level, dtype=torch.uint8)
        real, none, fake = overlay(grey, torch.tensor([[[-0.5, 0.0, 0.5]]]), 1.0)[0, 0] / 255
        colours = rgb_to_linear_rgb(torch.tensor(np.stack([real, none, fake]))[:, :, None, None])[:, :, 0, 0]
        real, none, fake = lab(colours @ torch.tensor(eye, dtype=colours.dtype).T)
        assert (real - fake).norm() > 25
        assert (real - none).norm() > 12
        assert (fake - none).norm() > 12


def test_a_png_says_what_it_shows():
    found = heat(torch.randn(2, 1, 64, 64))
    marks = {"Synthetic": "the colours", "Method": "CNNSpot"}
    picture = heat_png(pictures(), found, marks, limit=0.25)
    assert picture == heat_png(pictures(), found, marks, limit=0.25)
    with Image.open(io.BytesIO(picture)) as image:
        assert np.array_equal(np.asarray(image), heat_sheet(pictures(), found, 0.25))
        said = image.text
    assert (said["Heat"], said["Heat-Limit"], said["Heat-Scale"]) == ("grad-cam", "0.25", found.scale)
    assert (said["Synthetic"], said["Method"]) == ("the colours", "CNNSpot")


def test_images_that_do_not_fit():
    with pytest.raises(ValueError, match="one image for each heat map"):
        heat_sheet(pictures(3), heat(torch.zeros(2, 1, 64, 64)))
    with pytest.raises(ValueError, match="one image for each heat map"):
        heat_sheet(pictures(2), heat(torch.zeros(2, 1, 32, 32)))

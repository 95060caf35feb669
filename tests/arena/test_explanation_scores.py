"""The scores of explanations where the truth is planted: a detector that reads one square, heat that knows nothing."""

import pytest
import torch
from torch import nn

from arena.metrics.explanation import curve_scores, curves, region_scores, swapped_region
from arena.metrics.swap import Swaps
from detect.explain import METHODS, explain

SIZE, SQUARE = 24, (slice(8, 17), slice(3, 12))


class OneSquare:
    """A detector that sees nothing but one square of the picture."""

    frames = 1

    def __init__(self):
        torch.manual_seed(0)
        self.mask = torch.zeros(SIZE, SIZE)
        self.mask[SQUARE] = 1
        self.layer = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU())
        self.head = nn.Linear(8, 1)
        self.head.weight.data.abs_()

    def score(self, images):
        return self.head(self.layer(images * self.mask).mean((2, 3))).squeeze(1)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# planted truths


@pytest.mark.parametrize("method", [m for m in METHODS if m != "counterfactual"])
def test_a_detector_that_reads_one_square(method):
    """Every right method must find the square. (What it sees speaks for fake alone: there is no counter-evidence.)"""
    detector, images = OneSquare(), noise(12, 3, SIZE, SIZE) * 2 - 1
    keywords = {"window": 3, "stride": 1, "baseline": 0.0} if method == "occlusion" else {}
    heat = explain(detector, images, method, **keywords).values[:, 0]
    heat = heat.abs() if method in ("saliency", "guided-backprop") else heat
    found = region_scores(heat, detector.mask.expand_as(heat))
    assert found["pointing"]["value"] == 1
    assert found["iou"]["value"] > 0.7
    assert found["iou"]["low"] > 4 * found["iou"]["chance"]
    assert found["energy"]["value"] > 0.75  # a window reaches a little beyond
    assert found["pointing"]["chance"] == pytest.approx(81 / SIZE**2)
    walk = curve_scores(curves(detector.score, images, heat, rng=rng(), deletion="mean"))
    assert walk["deletion"]["over_random"]["high"] < 0
    assert explain(detector, images, "counterfactual").values.abs().max() == 0


def test_heat_that_knows_nothing_gets_chance():
    heat = noise(600, 16, 16)
    mask = torch.zeros(600, 16, 16)
    mask[:300, 2:10, 3:9], mask[300:, 5:9, 5:16] = 1, 1
    for name, found in region_scores(heat, mask).items():
        assert found["low"] < found["chance"] * 1.005, name
        assert found["chance"] * 0.995 < found["high"], name
        assert found["high"] - found["low"] < 0.08
    assert region_scores(heat, mask)["energy"]["chance"] == pytest.approx((48 + 44) / 2 / 256)


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.3])
def test_heat_without_differences_gets_chance_exactly(value):
    mask = torch.zeros(5, 8, 8)
    mask[:, :4, :4] = 1
    found = region_scores(torch.full((5, 8, 8), value), mask)
    assert found["iou"]["value"] == pytest.approx(found["iou"]["chance"]) == pytest.approx(4 / 28)
    assert found["pointing"]["value"] == pytest.approx(0.25)
    assert ("energy" in found) == (value > 0)
    if value > 0:
        assert found["energy"]["value"] == pytest.approx(0.25)


# by hand


def test_the_scores_by_hand():
    heat = torch.tensor([[[9.0, 8, 1], [0, -5, 2], [3, 0, 0]], [[1, 2, 3], [0, 0, 0], [0, 0, -9]]])
    mask = torch.tensor([[[1.0, 0.6, 0.5], [0, 0, 0], [0, 0, 0.4]], [[0, 0, 0], [0, 0, 0], [0, 0.9, 1]]])
    found = region_scores(heat, mask)
    # The three hottest of image 0 are 9, 8 and 3, of which the mask has two; of image 1 it has none.
    assert found["iou"]["value"] == pytest.approx((2 / 4 + 0) / 2)
    assert found["iou"]["chance"] == pytest.approx((1 / (6 - 1) + (4 / 9) / (4 - 4 / 9)) / 2)
    assert found["pointing"]["value"] == pytest.approx(1 / 2)
    assert found["pointing"]["chance"] == found["energy"]["chance"] == pytest.approx((3 + 2) / 18)
    assert found["energy"]["value"] == pytest.approx((18 / 23 + 0) / 2)


def test_ties_are_shared():
    """Two places for three equals, one of them true: two thirds of one."""
    heat = torch.tensor([[[5.0, 4, 4], [4, 0, 0], [0, 0, 0]]]).repeat(2, 1, 1)
    mask = torch.tensor([[[1.0, 1, 0], [0, 1, 0], [0, 0, 0]]]).repeat(2, 1, 1)
    overlap = 1 + 2 / 3
    assert region_scores(heat, mask)["iou"]["value"] == pytest.approx(overlap / (6 - overlap))


def test_pointing_with_tolerance():
    heat, mask = torch.zeros(4, 20, 20), torch.zeros(4, 20, 20)
    mask[:, 10, 10] = 1
    for k, (row, column) in enumerate(((10, 10), (10, 13), (12, 12), (13, 13))):  # 0, 3, 2.83 and 4.24 away
        heat[k, row, column] = 1
    for tolerance, hits, area in ((0, 1, 1), (2.5, 1, 21), (2.9, 2, 25), (3, 3, 29), (4.3, 4, 61)):
        found = region_scores(heat, mask, tolerance=tolerance)["pointing"]
        assert found["value"] == hits / 4
        assert found["chance"] == pytest.approx(area / 400)
    corner = torch.zeros(2, 20, 20)
    corner[:, 0, 0] = 1
    assert region_scores(corner, corner, tolerance=1)["pointing"]["chance"] == pytest.approx(3 / 400)


def test_counts_and_intervals():
    heat, mask = noise(30, 8, 8), torch.zeros(30, 8, 8)
    mask[:25, 2:5, 2:5] = 1  # five images without a region
    heat[:4] = -heat[:4]  # four of them without evidence
    found = region_scores(heat, mask)
    assert (found["iou"]["n"], found["iou"]["left_out"]) == (25, 5)
    assert (found["energy"]["n"], found["energy"]["left_out"]) == (21, 9)
    values = torch.stack([heat[k][mask[k] > 0].sum() / heat[k].sum() for k in range(4, 25)]).double()
    reach = 2.0859634 * float(values.std()) / 21**0.5  # Student's t, 20 degrees of freedom
    assert found["energy"]["low"] == pytest.approx(float(values.mean()) - reach, rel=1e-5)
    sure = region_scores(mask[:25], mask[:25])
    assert [s["value"] for s in sure.values()] == pytest.approx([1, 1, 1])
    assert sure["pointing"]["low"] == pytest.approx(25 / (25 + 1.959964**2), abs=1e-6)  # Wilson, all of 25
    assert all(s["high"] == pytest.approx(1) for s in sure.values())


@pytest.mark.parametrize(
    ("heat", "mask", "message"),
    [
        (torch.zeros(3, 8, 8), torch.zeros(3, 8, 9), "heat and mask N H W"),
        (torch.zeros(3, 1, 8, 8), torch.zeros(3, 1, 8, 8), "heat and mask N H W"),
        (torch.full((3, 8, 8), torch.nan), torch.ones(3, 8, 8), "finite heat"),
        (torch.zeros(3, 8, 8), torch.full((3, 8, 8), 255.0), r"mask in \[0, 1\]"),
        (torch.zeros(3, 8, 8), torch.zeros(3, 8, 8), "with a region, got 0"),
        (torch.zeros(1, 8, 8), torch.ones(1, 8, 8), "with a region, got 1"),
    ],
)
def test_what_cannot_be_scored(heat, mask, message):
    with pytest.raises(ValueError, match=message):
        region_scores(heat, mask)


# the true region of a swap


def test_the_region_of_a_swap():
    swaps = Swaps(5, range(4), [1] * 4, [2] * 4, camera=False, close=0.6)
    region = swapped_region(swaps, 48)
    before, after = swaps.render(48, [1] * 4), swaps.render(48, [2] * 4)
    assert region.face.shape == region.changed.shape == (4, 48, 48)
    outside = (region.changed == 0)[:, None].expand_as(before.image)
    assert torch.equal(before.image[outside], after.image[outside])
    assert (before.image != after.image).any(1)[region.changed == 1].all()
    assert (region.changed == 0).float().mean() > 0.05
    assert (region.face >= before.mask).all()
    assert (region.face >= after.mask).all()
    assert 0.2 < region.face.mean() < 0.8
    assert region.changed[region.face > 0.9].mean() > 0.95  # another face is another colour nearly everywhere
    same = swapped_region(Swaps(5, range(2), [1] * 2, [1] * 2), 48)
    assert same.changed.max() == 0


# curves


def brightness(images):
    """A logit that is linear in one square: 1 for every bright pixel less 30."""
    return (images[:, 0, 4:12, 4:12] + 1).sum((1, 2)) / 2 - 30


def bright_square(n=3):
    images = -torch.ones(n, 3, 16, 16)
    images[:, :, 4:12, 4:12] = 1
    return images


def test_curves_of_a_linear_score():
    """64 of 256 pixels count. The mean colour is -1 + 2 * 64 / 256 = -0.5, a quarter of bright."""
    images, steps = bright_square(), 16
    heat = images[:, 0] + noise(3, 16, 16) * 0.1
    found = curves(brightness, images, heat, rng=rng(), steps=steps, insertion="mean")
    gone = (found.share * 256).clamp(max=64)
    assert torch.allclose(found.deletion, (64 - 0.75 * gone - 30).expand(3, -1), atol=1e-4)
    assert torch.allclose(found.insertion, (16 + 0.75 * gone - 30).expand(3, -1), atol=1e-4)
    assert torch.allclose(found.random_deletion.mean(0), 34 - 48 * found.share, atol=6)
    assert torch.equal(found.random_deletion[:, [0, -1]], found.deletion[:, [0, -1]])
    scores = curve_scores(found)
    area = torch.trapezoid(torch.sigmoid(64 - 0.75 * gone.double() - 30), found.share.double())
    assert scores["deletion"]["value"] == pytest.approx(float(area), abs=1e-6)
    assert scores["deletion"]["over_random"]["high"] < 0 < scores["insertion"]["over_random"]["low"]
    assert scores["deletion"]["n"] == 3


def test_curves_of_the_wrong_heat():
    """Heat upside down does worse than an order by lot, heat that knows nothing as well as that."""
    images = bright_square(16)
    wrong = curve_scores(curves(brightness, images, -images[:, 0], rng=rng(), insertion="mean"))
    assert wrong["deletion"]["over_random"]["low"] > 0 > wrong["insertion"]["over_random"]["high"]
    for heat in (noise(16, 16, 16), torch.zeros(16, 16, 16)):
        nothing = curve_scores(curves(brightness, images, heat, rng=rng(), insertion="mean"))
        assert abs(nothing["deletion"]["over_random"]["value"]) < 0.03
        assert abs(nothing["insertion"]["over_random"]["value"]) < 0.03


def test_pixels_go_hottest_first_and_all_in_the_end():
    images, heat, seen = noise(5, 3, 8, 8) * 2 - 1, noise(5, 8, 8, seed=1), []
    found = curves(lambda x: seen.append(x) or x.mean((1, 2, 3)), images, heat, rng=rng(), steps=4, batch=2)
    assert max(map(len, seen)) == 2
    deletion = [torch.cat([seen[part * 5 + step] for part in range(2)]) for step in range(5)]  # of images 0 to 3
    for step, x in enumerate(deletion):
        gone = (x != images[:4]).any(1)
        assert gone.flatten(1).sum(1).tolist() == [16 * step] * 4
        if 0 < step < 4:
            assert (heat[:4][gone].view(4, -1).amin(1) > heat[:4][~gone].view(4, -1).amax(1)).all()
    assert torch.allclose(deletion[4], images[:4].mean((2, 3), keepdim=True).expand(4, 3, 8, 8))
    again = curves(lambda x: x.mean((1, 2, 3)), images, heat, rng=rng(), steps=4, batch=64)
    assert torch.allclose(found.random_insertion, again.random_insertion)
    other = curves(lambda x: x.mean((1, 2, 3)), images, heat, rng=rng(1), steps=4)
    assert not torch.allclose(found.random_insertion, other.random_insertion)


def test_the_insertion_starts_from_a_blurred_image():
    images = noise(2, 3, 32, 32) * 2 - 1
    found = curves(lambda x: x.var((1, 2, 3)), images, noise(2, 32, 32), rng=rng(), steps=2)
    start, end = found.insertion[:, 0], found.insertion[:, -1]
    assert (start < 0.05 * end).all()
    assert (start > 0).all()
    assert torch.allclose(end, images.var((1, 2, 3)))
    flat = curves(lambda x: x.var((1, 2, 3)), images, noise(2, 32, 32), rng=rng(), steps=2, insertion="mean")
    assert flat.insertion[:, 0].max() < start.min()


def test_curves_that_cannot_be():
    with pytest.raises(ValueError, match="images N 3 H W, heat N H W"):
        curves(brightness, bright_square(), torch.zeros(3, 1, 16, 16), rng=rng())
    one = curves(brightness, bright_square(1), torch.zeros(1, 16, 16), rng=rng(), steps=2)
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        curve_scores(one)

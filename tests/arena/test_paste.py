"""Masks, colours and the way back into the picture, each against a truth that is derived here."""

import math

import numpy as np
import pytest
import torch

from arena.data.faces import render
from arena.faces import align
from arena.faces.colour import match_histograms, match_lab, transfer
from arena.faces.mask import face_masks, hull_depth, outline
from arena.faces.paste import paste, seamless

cv2 = pytest.importorskip("cv2")

SIZE = 128


@pytest.fixture(scope="module")
def landmarks():
    """Of 60 faces in many poses, N 68 2, in a crop of 128 px."""
    return render(1, range(60), SIZE, camera=False).landmarks.double().numpy()


def five(points):
    eyes = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    return np.stack([*eyes, points[:, 30], points[:, 48], points[:, 54]], 1)


def filled(points, size):
    """The hull's pixels by OpenCV."""
    picture = np.zeros((size, size), np.uint8)
    corners = np.round((cv2.convexHull(points.astype(np.float32)) - 0.5) * 256).astype(np.int32)
    cv2.fillConvexPoly(picture, corners, 1, cv2.LINE_AA, 8)
    return picture > 0


def likeness(a, b):
    return (a & b).sum() / (a | b).sum()


# Masks


def test_the_hull_holds_every_landmark_and_little_else(landmarks):
    for points in (landmarks, five(landmarks)):
        shape = torch.from_numpy(outline(points)).float()
        for n, own in enumerate(torch.from_numpy(points).float()):
            depth = hull_depth(shape[n : n + 1], own[None, :, 0], own[None, :, 1])
            assert depth.min() > -1e-4
    masks = face_masks("hull", landmarks, SIZE, feather=0)[:, 0].numpy() > 0.5
    found = [likeness(mask, filled(points, SIZE)) for mask, points in zip(masks, landmarks, strict=True)]
    assert min(found) > 0.95


def test_five_points_tell_the_outline_in_any_pose(landmarks):
    masks = face_masks("hull", five(landmarks), SIZE, feather=0)[:, 0].numpy() > 0.5
    found = [likeness(mask, filled(points, SIZE)) for mask, points in zip(masks, landmarks, strict=True)]
    assert np.mean(found) > 0.87
    assert min(found) > 0.75
    mirrored = five(landmarks)[:, [1, 0, 2, 4, 3]] * [-1, 1] + [SIZE, 0]
    assert np.allclose(np.sort(outline(mirrored)[..., 0]), np.sort(SIZE - outline(five(landmarks))[..., 0]))


def test_a_turned_and_enlarged_face_has_its_outline_turned_and_enlarged(landmarks):
    turn = 2 * np.array([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    assert np.allclose(outline(five(landmarks) @ turn.T + 9), outline(five(landmarks)) @ turn.T + 9)


def test_the_ellipse_fills_the_outlines_box(landmarks):
    masks = face_masks("ellipse", landmarks, SIZE, feather=0)[:, 0].numpy() > 0.5
    for mask, points in zip(masks, landmarks, strict=True):
        (cx, cy), (a, b) = (points.min(0) + points.max(0)) / 2, (points.max(0) - points.min(0)) / 2
        true = cv2.ellipse(np.zeros((SIZE, SIZE), np.uint8), ((cx - 0.5, cy - 0.5), (2 * a, 2 * b), 0), 1, -1) > 0
        assert likeness(mask, true) > 0.95


def test_feather_and_erosion_are_in_percent_of_the_crop():
    corners = np.array([[20, 20], [80, 20], [80, 80], [20, 80], [20, 20]], float)[None]
    square = np.concatenate([corners, corners[:, :1]], 1)  # six points are taken as they are
    for erosion in (0, 5, -5):
        row = face_masks("hull", square, 100, feather=10, erosion=erosion)[0, 0, 50].numpy()
        depth = np.arange(100) + 0.5 - 20 - erosion  # from the left edge
        assert (
            np.abs(
                row[:50] - (np.clip(depth / 10 + 0.5, 0, 1) ** 2 * (3 - 2 * np.clip(depth / 10 + 0.5, 0, 1)))[:50]
            ).max()
            < 1e-5
        )
    whole = face_masks("none", square, 100, feather=10)[0, 0, 50]
    assert whole[0] == 0
    assert whole[5] == 0.5
    assert (whole[11:89] == 1).all()


@pytest.mark.parametrize("kind", ["hull", "ellipse", "none"])
def test_masks_are_monotone_nested_and_end_before_the_border(kind, landmarks):
    points = (landmarks[:8] - SIZE / 2) * 1.5 + SIZE / 2  # reaches beyond the crop
    masks = {e: face_masks(kind, points, SIZE, feather=12, erosion=e) for e in (-20, 0, 6)}
    for mask in masks.values():
        assert mask.min() >= 0
        assert mask.max() <= 1
        border = torch.cat([mask[..., 0], mask[..., -1], mask[..., 0, :], mask[..., -1, :]])
        assert border.abs().max() == 0
        middle = mask[..., int(points[0, :, 1].mean()), :]
        peak = middle.argmax(-1)
        for row, top in zip(middle[:, 0], peak[:, 0], strict=True):
            assert (row[: top + 1].diff() >= -1e-6).all()
            assert (row[top:].diff() <= 1e-6).all()
    assert (masks[-20] >= masks[0]).all()
    assert (masks[0] >= masks[6]).all()


# Colours


def lab(rgb):
    """CIELAB of sRGB in [0, 1], ... 3, under D65, by its definition (CIE 15; IEC 61966-2-1)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    t = linear @ np.array(matrix).T / [0.95047, 1.0, 1.08883]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def pictures(seed, low, high, shape=(2, 3, 24, 24)):
    rng = torch.Generator().manual_seed(seed)
    low, high = (torch.tensor(x)[:, None, None] for x in (low, high))
    return torch.rand(shape, generator=rng) * (high - low) + low


def test_lab_statistics_reach_their_targets_through_the_mask():
    image, target = pictures(0, [-0.3, -0.2, 0.1], [0.1, 0.3, 0.3]), pictures(1, [0.1, -0.2, -0.3], [0.5, 0.1, -0.1])
    mask = torch.zeros(2, 1, 24, 24)
    mask[..., 4:20, 6:18] = 1
    image[..., :4, :], target[..., 20:, :] = 1, -1  # what lies outside does not count
    found, wanted = (
        lab((x.double().permute(0, 2, 3, 1)[:, 4:20, 6:18] / 2 + 0.5).numpy())
        for x in (match_lab(image, target, mask), target)
    )
    assert np.abs(found.mean((1, 2)) - wanted.mean((1, 2))).max() < 0.1
    assert np.abs(found.std((1, 2)) / wanted.std((1, 2)) - 1).max() < 0.02
    assert (match_lab(target, target, mask) - target).abs().max() < 2e-3


def test_histograms_become_the_targets():
    """Where no two pixels of the source are alike, the matched pixels sorted are the target's pixels sorted."""
    rng = torch.Generator().manual_seed(0)
    levels = torch.stack([torch.randperm(256, generator=rng) for _ in range(6)]).view(2, 3, 16, 16)
    wanted = torch.randint(40, 200, (2, 3, 16, 16), generator=rng)
    rest = torch.randint(0, 256, (2, 3, 16, 5), generator=rng)  # outside the mask

    def as_image(inside, outside):
        return torch.cat([inside, outside], -1) / 127.5 - 1

    mask = torch.zeros(2, 1, 16, 21)
    mask[..., :16] = 1
    found = match_histograms(as_image(levels, rest), as_image(wanted, rest.flip(-1)), mask)
    inside = ((found + 1) * 127.5).round().long()[..., :16].flatten(2)
    assert torch.equal(inside.sort(-1).values, wanted.flatten(2).sort(-1).values)
    order = inside.gather(-1, levels.flatten(2).argsort(-1))
    assert (order.diff() >= 0).all()  # and brighter stays brighter
    same = as_image(levels, rest)
    assert (match_histograms(same, same, mask) - same)[..., :16].abs().max() < 1e-6


def test_an_empty_mask_and_a_flat_face_give_finite_colours():
    image, target = torch.zeros(1, 3, 16, 16), pictures(0, [-1.0] * 3, [1.0] * 3, (1, 3, 16, 16))
    for kind in ("lab", "histogram", "none"):
        for mask in (torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)):
            assert transfer(kind, image, target, mask).isfinite().all()


# The way back


def matrix(scale, degrees, centre, size):
    """Picture to crop: `centre` of the picture comes to the crop's middle, enlarged by `scale` and turned."""
    turn = scale * torch.polar(torch.tensor(1.0, dtype=torch.float64), torch.tensor(math.radians(degrees)).double())
    a, b = turn.real, turn.imag
    linear = torch.stack([torch.stack([a, -b]), torch.stack([b, a])])
    return torch.cat([linear, (size / 2 - linear @ torch.tensor(centre).double())[:, None]], 1)


def soft(size):
    return face_masks("none", np.zeros((1, 6, 2)), size, feather=20)[0]


def waves(height, width):
    """A smooth picture, uint8 H W 3."""
    y, x = np.mgrid[:height, :width] + 0.5
    shades = [np.sin(x / 9) + np.cos(y / 7), np.sin(y / 8 + 1), np.cos((x + y) / 11)]
    return np.stack([128 + 55 * shade for shade in shades], -1).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("scale", "degrees"), [(0.5, 0), (0.4, 25), (1.0, 10), (2.0, -40), (3.3, 5)])
def test_a_paste_lands_where_its_crop_came_from(scale, degrees):
    """A face whose value is its own coordinate shows, at each pixel of the picture, where the matrix takes it."""
    size, m = 64, matrix(scale, degrees, (70.3, 55.8), 64)
    ramp = (torch.arange(size) + 0.5) / size * 2 - 1
    face = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)])
    picture = np.full((120, 150, 3), 7, np.uint8)
    paste(picture, face, soft(size), m)
    y, x = np.mgrid[:120, :150] + 0.5
    there = np.stack([x, y], -1) @ m[:, :2].numpy().T + m[:, 2].numpy()
    deep = (np.abs(there - size / 2) < size / 2 - 0.25 * size).all(-1)
    assert deep.sum() > 20
    assert np.abs(picture[..., :2] - there / size * 255)[deep].max() <= 1
    far = (np.abs(there - size / 2) > size / 2).any(-1)
    assert (picture[far] == 7).all()


@pytest.mark.parametrize("blend", ["alpha", "poisson"])
def test_no_byte_changes_outside_the_mask(blend):
    before = waves(120, 150)
    m, mask = matrix(0.6, 30, (60, 60), 64), face_masks("ellipse", np.array([[[20, 15], [44, 50.0]]]), 64, feather=8)[0]
    after = before.copy()
    paste(after, torch.ones(3, 64, 64), mask, m, blend)
    y, x = np.mgrid[:120, :150] + 0.5
    there = np.stack([x, y], -1) @ m[:, :2].numpy().T + m[:, 2].numpy()
    radius = (((there - [32, 32.5]) / [12 + 5, 17.5 + 7]) ** 2).sum(-1)  # the axes, the feather and bicubic's reach
    assert np.array_equal(before[radius > 1], after[radius > 1])
    assert (before != after).any()


@pytest.mark.parametrize("blend", ["alpha", "poisson"])
@pytest.mark.parametrize(("scale", "least"), [(0.5, 38), (1.0, 45), (2.5, 38)])
def test_a_crop_pasted_back_unchanged_gives_the_picture(blend, scale, least):
    before = waves(120, 150)
    m = matrix(scale, 20, (75, 60), 96)
    crop = align.crop(torch.from_numpy(before).permute(2, 0, 1)[None], m[None], 96)[0]
    after = before.copy()
    paste(after, (crop / 127.5 - 1).clamp(-1, 1), soft(96), m, blend)
    error = np.square(after.astype(float) - before).mean()
    assert error < 255**2 / 10 ** (least / 10)


def test_a_face_much_finer_than_the_picture_is_averaged():
    """A checkerboard of single pixels, eight to each of the picture's, becomes grey and no moire."""
    board = (torch.arange(128)[:, None] + torch.arange(128)) % 2 * 2.0 - 1
    picture = np.zeros((60, 60, 3), np.uint8)
    paste(picture, board.expand(3, -1, -1).contiguous(), soft(128), matrix(7.7, 3, (30.4, 30.2), 128))
    inside = picture[27:34, 27:34].astype(float)
    assert np.abs(inside - 127.5).max() < 8


def test_poisson_takes_the_shape_and_leaves_the_colour():
    before = waves(120, 150)
    m = matrix(1.0, 0, (75, 60), 96)
    crop = align.crop(torch.from_numpy(before).permute(2, 0, 1)[None], m[None], 96)[0] / 127.5 - 1
    shifted = (0.6 * crop + 0.35, 0.6 * crop)  # of one shape, in two colours
    results = {}
    for blend in ("alpha", "poisson"):
        pair = [before.copy(), before.copy()]
        for picture, face in zip(pair, shifted, strict=True):
            paste(picture, face, soft(96), m, blend)
        results[blend] = np.abs(pair[0].astype(float) - pair[1]).max()
    assert results["alpha"] > 40
    assert results["poisson"] <= 3


def test_poisson_of_equal_content_is_the_identity_for_any_mask():
    rng = np.random.default_rng(0)
    for n in range(60):
        height, width = rng.integers(3, 60, 2)
        picture = rng.integers(0, 256, (height, width, 3), np.uint8)
        mask = cv2.resize(rng.random((4, 4)), (int(width), int(height))) > rng.uniform(0.1, 0.95)
        if n % 5 == 0:
            mask[:] = n % 2
        kept = mask.copy()
        assert np.abs(seamless(picture, picture, mask).astype(int) - picture).max() <= 1
        assert np.array_equal(mask, kept)


@pytest.mark.parametrize("blend", ["alpha", "poisson"])
def test_a_face_may_lie_partly_or_wholly_outside(blend):
    for centre in ((0, 0), (150, 60), (75, 119), (1000, 60), (-40, -40)):
        before = waves(120, 150)
        after = before.copy()
        paste(after, torch.ones(3, 64, 64), soft(64), matrix(0.8, 15, centre, 64), blend)
        near = 0 <= centre[0] <= 150 and 0 <= centre[1] <= 120
        assert (before != after).any() == near

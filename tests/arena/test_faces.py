"""Synthetic faces: the same picture for the same address, and truths that agree with what is drawn."""

import numpy as np
import pytest
import torch

from arena.data import faces
from arena.data.faces import clip, render, swap
from arena.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small tensors: threads would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clean():
    """48 frontal-to-turned images without the camera."""
    return render(7, range(48), 64, camera=False)


def straight(monkeypatch, **fixed):
    """Hold some of an image's or a person's numbers at a value."""
    ranges = {name: (value, value) for name, value in fixed.items()}
    monkeypatch.setattr(faces, "SHOT", {name: ranges.get(name, span) for name, span in faces.SHOT.items()})
    monkeypatch.setattr(faces, "WHO", {name: ranges.get(name, span) for name, span in faces.WHO.items()})


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def display(image):
    return image.float() / 255


@pytest.mark.parametrize(("size", "style"), [(64, "any"), (45, "dark"), (33, "fair")])
def test_an_image_does_not_depend_on_its_batch(monkeypatch, size, style):
    whole = render(3, range(11), size, style=style)
    order = [7, 2, 10, 2]
    some = render(3, torch.tensor(order), size, style=style)
    monkeypatch.setattr(faces, "CHUNK_PIXELS", 3 * size * size)
    apart = render(3, range(11), size, style=style)
    alone = render(3, [7], size, style=style)
    for name in vars(whole):
        value = getattr(whole, name)
        assert torch.equal(value[order], getattr(some, name)), name
        assert torch.equal(value, getattr(apart, name)), name
        assert torch.equal(value[7:8], getattr(alone, name)), name


def test_an_image_does_not_depend_on_the_threads():
    alone = render(5, range(9), 49)
    try:
        torch.set_num_threads(2)
        assert same(alone, render(5, range(9), 49))
    finally:
        torch.set_num_threads(1)


def test_shapes_and_ranges():
    got = render(0, [4, 9, 1 << 40], 40)
    assert got.image.shape == (3, 3, 40, 40)
    assert got.image.dtype == torch.uint8
    assert got.landmarks.shape == (3, 68, 2)
    assert got.mask.shape == (3, 40, 40)
    assert 0 <= got.mask.min() <= got.mask.max() <= 1
    assert got.identity.tolist() == [4, 9, 1 << 40]
    assert got.pose.shape == (3, 3)
    assert got.expression.shape == (3, len(faces.EXPRESSION))
    assert len(render(0, [], 32).image) == 0


def test_seeds_indices_and_identities_differ():
    got = render(0, range(40), 32, camera=False).image.flatten(1).float()
    gap = torch.cdist(got, got) / got.shape[1] ** 0.5
    assert gap[~torch.eye(40, dtype=bool)].min() > 4  # grey levels, root mean square
    assert not torch.equal(render(0, [1], 32).image, render(1, [1], 32).image)


def test_identity_pool_is_evenly_used():
    who = faces._who(2, torch.arange(1200), 8, None)
    count = torch.bincount(who, minlength=8).double()
    assert ((count - 150) ** 2 / 150).sum() < 24.3  # chi squared, 7 degrees of freedom, p = 0.001


def test_a_swap_to_oneself_is_the_image_itself():
    original = render(1, range(6), 64)
    assert same(original, swap(1, range(6), 64, identity=original.identity))


def test_a_swap_changes_the_person_and_nothing_else(clean):
    indices = list(range(48))
    other = swap(7, indices, 64, identity=[i + 1000 for i in indices], camera=False)
    assert torch.equal(other.pose, clean.pose)
    assert torch.equal(other.expression, clean.expression)
    # corners above the shoulders are background for everybody
    assert torch.equal(other.image[:, :, :4, :4], clean.image[:, :, :4, :4])
    assert torch.equal(other.image[:, :, :4, -4:], clean.image[:, :, :4, -4:])
    assert (display(other.image) - display(clean.image)).abs().mean() > 0.02
    # the same head pose: eyes and mouth lie alike up to the shape of the face
    a, b = clean.landmarks[:, 17:], other.landmarks[:, 17:]
    assert (a - b).norm(dim=-1).mean() < 3
    turn = [torch.atan2(*(q[:, 45] - q[:, 36]).flip(-1).T) for q in (clean.landmarks, other.landmarks)]
    assert (turn[0] - turn[1]).abs().max() < 0.06  # radians


def test_the_same_person_has_the_same_skin_in_every_image(monkeypatch):
    straight(monkeypatch, warm=0.5, glasses=0.0)
    got = render(1, range(60), 64, identities=6, camera=False)
    x, y = got.landmarks[:, 29].long().unbind(-1)  # the nose's bridge
    skin = display(got.image)[torch.arange(60), :, y, x]
    hue = skin[:, 2] / skin[:, 0]  # blue over red: hardly depends on shade
    within = torch.stack([hue[got.identity == who].var() for who in range(6)]).mean()
    assert within < 0.2 * hue.var()


def test_landmarks_mark_what_is_drawn(monkeypatch):
    straight(
        monkeypatch, glasses=0.0, blink=0.0, melanin=0.1, beard=0.0, build=0.2, gaze_x=0.0, gaze_y=0.0, mouth_open=0.0
    )
    got = render(0, range(12), 128, camera=False)
    grey = display(got.image).mean(1)
    redness = display(got.image)[:, 0] / display(got.image)[:, 1].clamp(min=0.02)
    for k in range(12):
        points = got.landmarks[k]

        def patch(plane, at, reach=2, k=k):
            x, y = at.long().tolist()
            return plane[k, y - reach : y + reach + 1, x - reach : x + reach + 1]

        left, right, mouth = points[36:42].mean(0), points[42:48].mean(0), points[60:68].mean(0)
        nose, cheek = points[30], 0.5 * (points[30] + points[48]) + 0.5 * (points[48] - points[54]) * 0.2
        for eye in (left, right):  # the pupil is the darkest thing about
            assert patch(grey, eye, 3).min() < 0.5 * patch(grey, nose, 3).max()
        assert patch(redness, mouth + torch.tensor([0.0, 2.0])).mean() > 1.03 * patch(redness, cheek).mean()


def test_the_jaw_is_the_masks_edge(clean):
    """Along the jaw's normal the mask is on just inside and off just outside."""
    centre = clean.landmarks[:, 27:36].mean(1, keepdim=True)
    jaw = clean.landmarks[:, 6:11]
    out = (jaw - centre) / (jaw - centre).norm(dim=-1, keepdim=True)
    k = torch.arange(48)[:, None]

    def mask_at(points):
        x, y = points.long().clamp(0, 63).unbind(-1)
        return clean.mask[k, y, x]

    assert mask_at(jaw - 3.5 * out).mean() > 0.9
    assert mask_at(jaw + 3.5 * out).mean() < 0.05


def test_the_mask_is_about_the_face(clean):
    grid = torch.arange(64) + 0.5
    area = clean.mask.sum((1, 2))
    x = (clean.mask * grid).sum((1, 2)) / area
    y = (clean.mask * grid[:, None]).sum((1, 2)) / area
    middle = clean.landmarks[:, 17:].mean(1)
    assert (torch.stack((x, y), -1) - middle).norm(dim=-1).max() < 8
    assert (area / 64**2).min() > 0.06
    assert (area / 64**2).max() < 0.45


def test_a_face_seen_from_the_front_is_symmetric(monkeypatch):
    straight(monkeypatch, yaw=0.0, roll=0.0, cx=0.0, hair_part=0.0)
    got = render(0, range(8), 64, camera=False)
    mirrored = list(range(16, -1, -1)) + list(range(26, 16, -1)) + [27, 28, 29, 30, 35, 34, 33, 32, 31]
    mirrored += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    mirrored += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    flipped = got.landmarks[:, mirrored].clone()
    flipped[..., 0] = 64 - flipped[..., 0]
    torch.testing.assert_close(got.landmarks, flipped, atol=2e-4, rtol=0)


def test_what_stands_out_moves_more_when_the_head_turns(monkeypatch):
    """Parallax: with yaw a the point (x, z) moves to x cos a + z sin a; so the difference over 2 sin a is z."""
    seen = {}
    for yaw in (-20.0, 20.0):
        straight(monkeypatch, yaw=yaw, pitch=0.0, roll=0.0, cx=0.0, cy=0.0, scale=0.35)
        seen[yaw] = render(0, range(6), 64, camera=False).landmarks[..., 0]
        monkeypatch.undo()
    z = (seen[20.0] - seen[-20.0]) / (2 * np.sin(np.radians(20.0)) * 0.35 * 64)  # half head heights
    nose, eyes, temples = z[:, 30], z[:, [36, 45]].mean(1), z[:, [0, 16]].mean(1)
    assert (nose > eyes + 0.1).all()
    assert (eyes > temples + 0.2).all()
    assert ((nose > 0.85) & (nose < 1.25)).all()


def test_roll_turns_the_landmarks(monkeypatch):
    seen = {}
    for roll in (0.0, 10.0):
        straight(monkeypatch, roll=roll, cx=0.0, cy=0.0)
        seen[roll] = render(0, range(4), 64, camera=False).landmarks.double() - 64 * torch.tensor([0.5, faces.MIDDLE])
        monkeypatch.undo()
    c, s = np.cos(np.radians(10)), np.sin(np.radians(10))
    turned = seen[0.0] @ torch.tensor([[c, s], [-s, c]])
    torch.testing.assert_close(turned, seen[10.0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["smile", "mouth_open", "brow_raise", "blink"])
def test_an_expression_moves_its_own_landmarks(monkeypatch, name):
    seen = []
    for value in (0.0, 1.0):
        straight(monkeypatch, **{"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "smile": 0.0, "mouth_open": 0.0, name: value})
        seen.append(render(0, range(4), 128, camera=False).landmarks)
        monkeypatch.undo()
    rest, moved = seen
    height = {
        "smile": lambda q: q[:, [61, 62, 63]].mean(1)[:, 1] - q[:, [48, 54]].mean(1)[:, 1],  # corners go up
        "mouth_open": lambda q: (q[:, 66] - q[:, 62])[:, 1],
        "brow_raise": lambda q: (q[:, 36:48].mean(1) - q[:, 17:27].mean(1))[:, 1],
        "blink": lambda q: -(q[:, [40, 41]] - q[:, [38, 37]]).mean(1)[:, 1],
    }[name]
    assert (height(moved) - height(rest) > 1.5).all()


def test_a_clip_moves_smoothly_and_shows_one_person():
    film = clip(0, 5, 60, 64)
    still = render(0, [5], 64)
    step = film.landmarks.diff(dim=0).norm(dim=-1)
    assert step[:, :17].max() < 1.2  # pixels a frame, of the jaw
    assert step.max() < 2.5  # and of lids in a blink
    assert film.landmarks.std(0).max() > 0.8  # but it does move
    assert film.pose.diff(dim=0).abs().max() < 2.5  # degrees a frame
    assert (film.identity == still.identity).all()
    corner = film.image[:, :, :4, :4].float()
    assert corner.mean((1, 2, 3)).std() < 1.5  # background and light stand still
    assert not torch.equal(film.image[0, :, :8, :8], film.image[1, :, :8, :8])  # the noise does not
    assert film.expression[:, 3].max() > 0.5 or clip(0, 5, 120, 32).expression[:, 3].max() > 0.5  # a blink in 5 s
    assert same(film, clip(0, 5, 60, 64))
    assert torch.equal(clip(0, 5, 20, 64).image, film.image[:20])
    assert (clip(0, 5, 2, 64, identity=77).identity == 77).all()


def test_the_spectrum_falls_like_a_photograph(clean):
    """Mean power over direction falls about as 1 / f^2 (photographs: exponents near 2, portraits steeper)."""
    size = 128
    grey = display(render(0, range(16), size).image).mean(1).numpy().astype(float)
    window = np.hanning(size)
    power = (np.abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * np.outer(window, window))) ** 2).mean(0)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size))) * size
    radial = np.array([power[(f >= r - 0.5) & (f < r + 0.5)].mean() for r in range(3, 60)])
    slope = np.polyfit(np.log(np.arange(3, 60)), np.log(radial), 1)[0]
    assert -3.6 < slope < -1.8
    assert radial[-5:].mean() > 2e-6 * radial[0]  # there is power up to the highest frequencies


def test_the_camera_leaves_noise_but_not_another_picture():
    shot, clear = (display(render(0, range(16), 64, camera=camera).image) for camera in (True, False))
    error = (shot - clear).abs().mean((1, 2, 3))
    assert error.min() > 0.004
    assert error.max() < 0.09


def test_hair_tells_the_two_styles_apart(monkeypatch):
    """The pixel above the forehead, in hair for everybody: a threshold on its brightness separates the styles."""
    straight(monkeypatch, yaw=0.0, pitch=0.0, roll=0.0, light_x=0.0)
    bright = {}
    for style in ("dark", "fair"):
        got = render(0, range(40), 64, style=style, camera=False)
        brow = got.landmarks[:, 19:25].mean(1)
        up = 0.50 * (brow - got.landmarks[:, 8])  # from the chin over the brows to the top
        x, y = (brow + up).long().unbind(-1)
        bright[style] = display(got.image)[torch.arange(40), :, y, x][:, 0]
    assert torch.quantile(bright["dark"], 0.9) + 0.15 < torch.quantile(bright["fair"], 0.1)


def test_styles_differ_in_hair_alone():
    """The two styles' faces agree where no hair grows and no light falls from it: all truths but colours are equal."""
    dark, fair = (render(0, range(20), 64, style=style, camera=False) for style in ("dark", "fair"))
    assert torch.equal(dark.landmarks, fair.landmarks)
    assert torch.equal(dark.mask, fair.mask)
    torch.testing.assert_close(dark.image[:, :, :3, :3], fair.image[:, :, :3, :3])


def test_another_size_shows_the_same_face():
    small, large = (render(0, range(8), size, camera=False) for size in (64, 128))
    torch.testing.assert_close(2 * small.landmarks, large.landmarks, atol=2e-3, rtol=0)
    halved = torch.nn.functional.avg_pool2d(display(large.image), 2)
    gap = (display(small.image) - halved).abs()
    assert gap.mean() < 0.02
    assert (torch.nn.functional.avg_pool2d(large.mask, 2) - small.mask).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"size": 16}, "size"),
        ({"size": 257}, "size"),
        ({"indices": [-1]}, "indices"),
        ({"indices": [0.5]}, "indices"),
        ({"seed": -1}, "seed"),
        ({"style": "blue"}, "style"),
        ({"identities": 0}, "identities"),
        ({"identity": -3}, "identity"),
        ({"identity": [1, 2, 3]}, "identity"),
    ],
)
def test_bad_arguments_are_named(arguments, word):
    with pytest.raises(InputError, match=word):
        render(**{"seed": 0, "indices": [0, 1], "size": 32} | arguments)


def test_bad_clips_are_named():
    with pytest.raises(InputError, match="frames"):
        clip(0, 0, 0, 32)

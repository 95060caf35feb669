import io

import numpy as np
import pytest
import torch
from PIL import Image

from arena.data.faces import render
from arena.metrics.copies import find_copies, honest_threshold, nearest_images
from arena.perturb import apply, parse


@pytest.fixture(scope="module")
def faces():
    """Fair faces of 64 px: 80 known ones, 100 that set the threshold, 120 others."""
    images = render(3, range(300), 64, style="fair").image
    return images[:80], images[80:180], images[180:]


def pil(change):
    def edit(images):
        rows = [np.asarray(change(Image.fromarray(image))) for image in images.permute(0, 2, 3, 1).numpy()]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)

    return edit


def jpeg(image, quality=50):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cut(x, y, share=0.9):
    def crop(image):
        side = share * image.width
        return image.resize(image.size, Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))

    return pil(crop)


def light(factor):
    return lambda images: (images * factor).round().clamp(0, 255).to(torch.uint8)


def noisy(images):
    noise = np.random.default_rng(0).normal(0, 8, images.shape)
    return (images + torch.from_numpy(noise)).round().clamp(0, 255).to(torch.uint8)


def redder(images):
    return (images.int() + torch.tensor([25, 0, 0]).view(3, 1, 1)).clamp(0, 255).to(torch.uint8)


EDITS = {
    "as it is": lambda images: images,
    "jpeg": pil(jpeg),
    "brighter": light(1.2),
    "darker": light(0.8),
    "mirrored": lambda images: images.flip(3),
    "crop, middle": cut(3.2, 3.2),
    "crop, corner": cut(0, 6.4),
    "crop, between": cut(4.7, 1.1),
    "turned": pil(lambda image: image.rotate(3, Image.Resampling.BICUBIC)),
    "turned back": pil(lambda image: image.rotate(-3, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))),
    "blur": lambda images: apply(images, parse("blur:1"), [str(i) for i in range(len(images))]),
    "noise": noisy,
    "resized": pil(lambda image: image.resize((32, 32)).resize((64, 64))),
    "redder": redder,
    "flip, light, jpeg": lambda images: pil(jpeg)(light(1.2)(images.flip(3))),
}


@pytest.mark.parametrize("edit", EDITS)
def test_planted_copies_are_found_and_the_others_are_not(faces, edit):
    bank, honest, others = faces
    planted = EDITS[edit](bank[:40].clone())
    found = find_copies(torch.cat([others, planted]), bank, honest)
    assert found.is_copy[120:].mean() >= 0.95
    assert found.is_copy[:120].mean() <= 0.01
    right = found.is_copy[120:]
    assert (found.nearest[120:] == np.arange(40))[right].all()
    assert (found.mirrored[120:] == (edit in ("mirrored", "flip, light, jpeg")))[right].mean() >= 0.95
    share, low, high = found.share
    assert share == found.is_copy.mean()
    assert low < share < high


def test_honest_generators_are_left_alone(faces):
    """What keeps pose and place of a public real but repaints it; samples of the reals' principal components."""
    bank, honest, _ = faces
    restyled = render(3, range(80), 64, style="dark").image  # the same pictures with dark hair
    changed = (restyled.float() - bank.float()).abs().mean((1, 2, 3)) > 8
    assert changed.sum() > 40
    assert find_copies(restyled[changed], bank, honest).is_copy.mean() <= 0.05
    flat = bank.flatten(1).double()
    _, spread, axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    drawn = torch.randn(200, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    samples = drawn * spread[:40] / 80**0.5 @ axes[:40] + flat.mean(0)
    assert find_copies(samples.clamp(0, 255).to(torch.uint8).view(200, 3, 64, 64), bank, honest).share[0] <= 0.01


def test_two_teams_with_the_same_fakes(faces):
    bank, honest, others = faces
    mine, theirs = others[:60], torch.cat([bank[:30], EDITS["jpeg"](others[:20].clone())])
    assert find_copies(mine, theirs, honest).is_copy.sum() == 20
    assert find_copies(theirs, mine, honest).is_copy.sum() == 20


def test_order_does_not_matter(faces):
    bank, honest, others = faces
    asked = torch.cat([EDITS["flip, light, jpeg"](bank[:10]), others[:10]])
    order, other = torch.randperm(20), torch.randperm(80)
    straight, mixed = find_copies(asked, bank, honest), find_copies(asked[order], bank[other], honest.flip(0))
    assert (mixed.is_copy == straight.is_copy[order]).all()
    assert (mixed.mirrored == straight.mirrored[order]).all()
    assert (other.numpy()[mixed.nearest] == straight.nearest[order]).all()
    assert mixed.distance == pytest.approx(straight.distance[order], abs=1e-5)
    assert mixed.threshold == pytest.approx(straight.threshold, abs=1e-6)


def test_blocks_change_nothing(faces, monkeypatch):
    from arena.metrics import copies

    bank, _, others = faces
    whole = nearest_images(others[:30], bank)
    monkeypatch.setattr(copies, "_KNOWN", 7)
    monkeypatch.setattr(copies, "_ASKED", 11)
    parts = nearest_images(others[:30], bank)
    assert parts[0] == pytest.approx(whole[0], abs=1e-5)
    assert (parts[1] == whole[1]).all()
    assert (parts[2] == whole[2]).all()


def test_arrays_floats_one_image_and_other_sizes(faces):
    bank, honest, _ = faces
    one = find_copies(bank[7:8].numpy(), bank.numpy(), honest.numpy())
    assert (one.is_copy[0], one.nearest[0], one.mirrored[0]) == (True, 7, False)
    assert one.distance[0] < 1e-5
    assert one.share[2] == 1
    signed = find_copies(bank[7:8].float() / 127.5 - 1, bank, honest)
    assert signed.distance == pytest.approx(one.distance, abs=1e-5)
    large, small = (render(3, range(20), size, style="fair").image for size in (128, 32))
    assert find_copies(large, bank, honest).is_copy.mean() >= 0.95  # the same faces, drawn larger
    assert find_copies(small, bank, honest).is_copy.mean() >= 0.95
    assert (find_copies(bank[:20], bank[:1], honest).is_copy == (np.arange(20) == 0)).all()


def test_flat_images_and_noise_are_no_copies(faces):
    bank, honest, _ = faces
    rng = torch.Generator().manual_seed(0)
    flat = torch.arange(0, 256, 51, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 3, 64, 64)
    noise = torch.randint(0, 256, (20, 3, 64, 64), dtype=torch.uint8, generator=rng)
    for images in (flat, noise):
        found = find_copies(images, bank, honest)
        assert not found.is_copy.any()
        assert np.isfinite(found.distance).all()
    assert not find_copies(flat, flat, honest).is_copy.any()  # one flat image looks like any other
    assert find_copies(noise, torch.cat([bank, noise]), honest).is_copy.all()
    assert not find_copies(noise[:10], noise[10:], noise).is_copy[:10].any()


def test_the_threshold_follows_the_domain():
    assert honest_threshold(np.linspace(0.2, 1, 1001)) == pytest.approx(0.24 / 2)
    near = np.r_[np.full(3, 0.01), np.full(97, 0.5)]  # a few near-duplicates among the honest: stay below them
    assert honest_threshold(near) <= 0.0101
    assert honest_threshold(np.zeros(50)) > 0  # the same pixels are a copy in any domain


def test_a_film_of_near_duplicates_accuses_nobody():
    from arena.data.faces import clip

    frames = clip(1, 0, 60, 32).image
    found = find_copies(frames[1::3], frames[0::3], frames[2::3])
    assert found.share[0] <= 0.15
    assert find_copies(frames[0:9:3], frames[0::3], frames[2::3]).is_copy.all()


@pytest.mark.parametrize("wrong", [torch.zeros(2, 1, 8, 8), torch.zeros(0, 3, 8, 8), torch.zeros(3, 8, 8)])
def test_says_what_is_wrong(faces, wrong):
    bank, honest, others = faces
    for sets in ((wrong, bank, honest), (others, wrong, honest), (others, bank, wrong)):
        with pytest.raises(ValueError, match="N 3 S S"):
            find_copies(*sets)

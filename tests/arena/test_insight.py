"""The look inside a detector: what it reports must follow from detectors and fakes whose truth is known."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from planted import Colour, Motion
from torch import nn

from arena import insight
from arena.config import resolve
from arena.data.feeds import Store
from arena.metrics.swap import Swaps
from arena.run import run
from arena.watch import Silent

CPU = torch.device("cpu")


class Square:
    """Reads the redness of one corner, on a grid as fine as the picture or as coarse as you like."""

    frames = 1

    def __init__(self, cell: int = 1):
        self.net = nn.Conv2d(3, 1, cell, stride=cell, bias=False)
        nn.init.zeros_(self.net.weight)
        nn.init.ones_(self.net.weight[:, 0])
        self.layer = self.net

    def score(self, images):
        return self.net(images)[:, 0, :2, :2].mean((1, 2))


class Colours(Square):
    """Its features are the picture's colours."""

    def __init__(self):
        super().__init__()
        self.net = self.layer = nn.Conv2d(3, 3, 1, bias=False)
        self.net.weight.data = torch.eye(3)[:, :, None, None]

    def score(self, images):
        return self.net(images + 2).mean((2, 3))[:, 0]


def store(n, seed, red=0, size=16):
    images = np.random.default_rng(seed).integers(0, 150, (n, 3, size, size)).astype(np.uint8)
    images[:, 0] += red
    return Store(images, [f"{seed}-{i}" for i in range(n)])


def look(detector, reals, fakes, swaps=()):
    marks = {"Synthetic": "contains synthetic images", "Run": "x", "Seed": "0"}
    return insight.look(detector, reals, fakes, swaps, CPU, 0, marks)


def test_unlike_fakes_have_fakes_for_neighbours_and_like_ones_both():
    reals = [store(60, 1)]
    far = look(Colours(), reals, {0: [store(60, 2, red=100)]})
    assert far.figures["real_neighbours"] == 0
    near = look(Colours(), reals, {0: [store(60, 2)]})
    assert 0.2 < near.figures["real_neighbours"] < 0.8
    assert near.figures["shown"] == [False, False, True, True, True, True]
    assert set(near.space["round"]) == {-1, 0}
    assert np.isfinite(near.space["points"]).all()


def test_the_map_has_reals_and_every_round_apart_where_they_are():
    fakes = {r: [store(30, 5 + r, red=50 * r + 50)] for r in range(2)}
    space = look(Colours(), [store(30, 1)], fakes).space
    points, rounds = np.array(space["points"]), np.array(space["round"])
    assert [int((rounds == r).sum()) for r in (-1, 0, 1)] == [30, 30, 30]
    nearest = [rounds[np.argsort(((points - point) ** 2).sum(1))[1]] for point in points]
    assert np.mean(nearest == rounds) > 0.9


def test_the_heat_is_grad_cam_where_the_grid_is_fine_enough():
    image = torch.zeros(1, 3, 16, 16)
    assert insight.method_of(Square(), image) == "grad-cam"
    assert insight.method_of(Square(cell=8), image) == "occlusion"
    assert insight.method_of(Colour(), image) == "occlusion"
    assert insight.method_of(Motion(), torch.zeros(1, 4, 3, 16, 16)) == "saliency"


def test_the_pictures_say_what_they_are(tmp_path):
    found = look(Square(), [store(20, 1)], {0: [store(20, 2)]})
    for name, picture in found.pictures.items():
        (tmp_path / f"{name}.png").write_bytes(picture)
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.text["Synthetic"] == "contains synthetic images"
            assert min(image.size) > 16


def test_neighbours_are_framed_by_what_they_are():
    chosen = store(2, 3)[:]
    shown = insight.Panel(chosen, [True, True])
    picture, share = insight.lookalikes(Colours(), shown, store(10, 1)[:], store(10, 2, red=100)[:], CPU)
    assert share == 1
    blue, red = (np.array(insight.FRAME[fake], np.uint8) for fake in (False, True))
    assert (picture[3, 10] == red).all()
    assert (picture[3 + 22, 10] == blue).all()


def test_heat_of_a_face_swap_is_scored_against_the_true_region():
    swaps = Swaps(0, list(range(12)), [0] * 12, [1] * 12, close=0.6)
    fakes = swaps.render(32, swaps.wanted).image
    given = Store(fakes.numpy(), list(range(12)))
    found = look(Square(), [store(12, 1, size=32)], {0: [given]}, [("a2b", given, swaps)])
    regions = found.figures["regions"]
    assert regions["pointing:a2b"]["value"] == 0  # it reads the picture's corner
    assert regions["iou:a2b"]["n"] == 12
    assert 0.2 < regions["pointing:a2b"]["chance"] < 0.9


def test_a_detector_that_cannot_be_looked_at_costs_the_run_nothing(tmp_path, player_file):
    settings = {"generator": player_file("planted:Identity"), "detector": player_file("planted:Blind")}
    small = {"data": {"size": 32, "train": 8, "val": 4, "judge": 8}, "rounds": 1, "baseline": None}
    summary = run(resolve([{**settings, **small}], "smoke"), tmp_path / "run", Silent())
    assert "layer" in summary["rounds"][0]["insight"]["left_out"]
    assert not (tmp_path / "run/rounds/00/explained.png").exists()
    names = [json.loads(line)["file"] for line in (tmp_path / "run/rounds/00/pictures.jsonl").read_text().splitlines()]
    assert names == ["rounds/00/sheet.png", "rounds/00/extremes.png"]
    assert (tmp_path / "run/report.html").stat().st_size > 0


@pytest.mark.parametrize("n", [1, 3])
def test_few_images_are_enough(n):
    assert len(look(Colour(), [store(n + 1, 1)], {0: [store(n + 4, 2)]}).space["points"]) == 2 * n + 5


def test_alike_fakes_do_not_break_the_sheet_of_neighbours():
    same = store(1, 2)[:].expand(6, -1, -1, -1)
    shown = insight.Panel(torch.cat([same[:1], store(1, 5)[:]]), [True, True])
    picture, share = insight.lookalikes(Colours(), shown, store(1, 1)[:], torch.cat([same, store(1, 5)[:]]), CPU)
    assert picture.shape[2] == 3
    assert 0 <= share <= 1

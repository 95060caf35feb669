"""The panel beyond its distances: patches, curve, Inception Score, copies, modes, any network, the command."""

import json
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.special import digamma
from scipy.stats import wasserstein_distance
from torch.nn import functional as F

from arena.errors import InputError
from arena.metrics.inception_score import class_weights, inception_score
from arena.metrics.memory import Known
from arena.metrics.modes import mode_count
from arena.metrics.module_features import module_extractor
from arena.metrics.quality import quality_panel
from arena.metrics.swd import Patches, Sliced, bands, sides, wasserstein
from arena.quality_command import quality
from arena.report.table import MISSING

ROUND = ["swd-16x128", *(f"{name}-conv704-s0" for name in ("precision", "recall", "density", "coverage"))]


def pictures(n: int, seed: int, size: int = 32) -> torch.Tensor:
    """Smooth random scenes with sharp edges and a little noise, uint8: a stand-in for photographs."""
    rng = torch.Generator().manual_seed(seed)
    soft = F.interpolate(torch.rand(n, 3, 5, 5, generator=rng), size=size, mode="bicubic")
    hard = F.interpolate((torch.rand(n, 1, 8, 8, generator=rng) > 0.7).float(), size=size)
    grain = torch.randn(n, 3, size, size, generator=rng) * 0.02
    return ((0.7 * soft + 0.25 * hard + grain) * 255).round().clamp(0, 255).to(torch.uint8)


def blur(images: torch.Tensor) -> torch.Tensor:
    soft = F.interpolate(F.avg_pool2d(images.float(), 2), scale_factor=2, mode="bilinear")
    return soft.round().clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def panel():
    return quality_panel("cpu", inception=None, scores="round")


@pytest.fixture(scope="module")
def sets():
    return pictures(60, 1), pictures(80, 2), pictures(90, 3)


def test_the_one_dimensional_distance_is_a_shift_and_scipys():
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    assert wasserstein(x, x + 0.75) == pytest.approx(0.75, abs=1e-6)
    assert wasserstein(x, x) == 0
    for n in (50, 49, 75, 7):
        y = rng.exponential(size=n)
        assert wasserstein(x, y) == pytest.approx(wasserstein_distance(x, y), abs=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (37, 50)], ids=str)
def test_a_pyramid_adds_up_to_its_image(size):
    """Going back up, band by band, gives the image: the definition of a Laplacian pyramid, by another filter's code."""
    image = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kernel = torch.tensor([1.0, 4, 6, 4, 1])
    kernel = (kernel[:, None] * kernel / 64).expand(3, 1, 5, 5)  # times 4: three of four places are zeros
    *fine, x = bands(image)
    assert [min(band.shape[2:]) for band in (*fine, x)] == sides(min(size))
    assert min(x.shape[2:]) < 32
    for band in reversed(fine):
        up = torch.zeros_like(band)
        up[..., ::2, ::2] = x
        x = band + F.conv2d(F.pad(up, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)
    assert torch.allclose(x, image.float(), atol=1e-5)


def test_patches_are_cut_out_of_the_bands_and_standardised():
    images = pictures(5, 0, 16)  # one band: the image
    rows = Patches(4)(images).view(5, 4, 3, 7, 7)
    whole = (images / 127.5 - 1).unfold(2, 7, 1).unfold(3, 7, 1).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    for image in range(5):
        for patch in rows[image]:
            assert (whole[image] - patch).abs().amax((1, 2, 3)).min() < 1e-6
    brighter = rows * torch.tensor([2.0, 1, 3])[:, None, None] + torch.tensor([0.1, -3, 0])[:, None, None]
    reference = Sliced(rows.flatten(1), 4, 32)
    assert reference.distance(brighter.flatten(1)) == pytest.approx(0, abs=1e-5)


def test_patches_of_equal_sets_read_the_floor_and_blur_raises_the_finest_band_most(panel, sets):
    fakes, reals, floor_reals = sets
    good = panel.score(fakes, reals, floor_reals)["swd-16x128"]
    bad = panel.score(blur(fakes), reals, floor_reals)["swd-16x128"]
    assert good["low"] <= good["floor"] <= good["high"]
    assert bad["value"] > max(good["high"], bad["floor"])
    assert bad["low"] > good["value"]
    assert list(bad["levels"]) == ["32", "16"]
    rise = {side: bad["levels"][side] - good["levels"][side] for side in bad["levels"]}
    assert rise["32"] > 3 * abs(rise["16"])
    assert good["value"] == pytest.approx(np.mean(list(good["levels"].values())))


def test_the_interval_of_patches_covers_their_spread():
    """Over fake sets of the same N, near 95 % of the intervals hold the mean value."""
    extract = Patches(8, 64)
    reference = Sliced(extract(pictures(60, 0, 16)), 8, 64)
    found = np.array([reference.interval(extract(pictures(40, seed, 16)))[0] for seed in range(100, 180)])
    truth = found[:, 0].mean()
    assert 0.85 <= np.mean((found[:, 1] <= truth) & (truth <= found[:, 2])) <= 1.0
    assert found[0, 0] == reference.distance(extract(pictures(40, 100, 16)))


def test_the_panel_of_a_round_has_its_names_directions_and_plain_numbers(panel, sets):
    scores = panel.score(*sets, known=pictures(30, 9))
    distances = quality_panel("cpu", inception=None).score(*sets)
    assert list(scores) == [*distances, *ROUND, "copied"]
    json.dumps(scores, allow_nan=False)
    for name, score in distances.items():
        assert {key: scores[name][key] for key in score} == score
    assert {scores[name]["better"] for name in distances} == {"lower"}
    assert [scores[name]["better"] for name in ROUND[1:]] == ["higher", "higher", "near 1", "higher"]
    for score in scores.values():
        assert score["low"] <= score["value"] <= score["high"]
        assert score["n"] == 60
    assert "no Inception Score" in panel.note


def test_collapse_and_damage_show_where_they_should(panel, sets):
    fakes, reals, floor_reals = sets
    good = panel.score(fakes, reals, floor_reals)
    collapsed = panel.score(fakes[torch.arange(60) % 4], reals, floor_reals)
    for name in ("recall-conv704-s0", "coverage-conv704-s0"):
        assert collapsed[name]["high"] < good[name]["low"]
        assert good[name]["high"] >= good[name]["floor"] - 0.1
    noise = torch.randint(0, 256, fakes.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert panel.score(noise, reals, floor_reals)["precision-conv704-s0"]["value"] == 0


def test_too_small_a_set_loses_figures_and_nothing_else(panel):
    few = [pictures(4, seed) for seed in range(3)]
    scores = panel.score(*few)
    assert "sfd" in scores
    assert "swd-16x128" in scores
    assert not any(name.startswith("coverage") for name in scores)
    short = panel.score(pictures(20, 5), pictures(20, 6), few[0])  # 4 of the fakes, as many as the floor has
    assert list(short) == list(scores)


def test_the_curve_of_white_noise_is_flat_and_at_its_variance(panel):
    rng = torch.Generator().manual_seed(0)
    noise = [torch.randn(40, 3, 32, 32, generator=rng) * 0.2 for _ in range(3)]
    curve = panel.score(*noise)["sfd"]["curve"]
    assert curve["frequency"] == pytest.approx(np.arange(1, 23) / 32, abs=1e-4)
    # A ring's power is a mean of exponentials, one for every two of its places (a real image's spectrum is symmetric):
    # its logarithm lies digamma(k) - ln k below that of the variance, on average.
    ring = np.hypot(np.fft.fftfreq(32, 1 / 32)[:, None], np.fft.fftfreq(32, 1 / 32)).round().clip(max=22).astype(int)
    k = np.bincount(ring.ravel())[1:] / 2
    grey = 0.04 * (0.299**2 + 0.587**2 + 0.114**2)
    expected = 10 / np.log(10) * (np.log(grey) + digamma(k) - np.log(k))
    assert curve["fakes"] == pytest.approx(expected, abs=0.6)
    assert np.mean(curve["fakes"] - expected) == pytest.approx(0, abs=0.1)
    of_reals = zip(*(curve[name] for name in ("reals_low", "reals", "reals_high")), strict=True)
    assert all(low < mean < high for low, mean, high in of_reals)
    smooth = panel.score(F.avg_pool2d(noise[0], 3, 1, 1), *noise[1:])["sfd"]["curve"]["fakes"]
    assert smooth[-1] < smooth[0] - 6


def test_inception_score_has_its_closed_forms():
    """Sure and even over C classes: C. Always the same class, or never sure: 1. Two thirds of the way, by hand."""
    sure = 50 * np.eye(10)[np.arange(100) % 10]
    assert inception_score(sure, splits=5)[0] == pytest.approx(10)
    assert inception_score(sure, splits=5)[3] == pytest.approx(0, abs=1e-9)
    assert inception_score(np.tile(sure[:1], (100, 1)))[0] == pytest.approx(1)
    assert inception_score(np.zeros((100, 10)))[0] == pytest.approx(1)
    p = np.array([[0.9, 0.1], [0.1, 0.9]])
    by_hand = np.exp(0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5))
    assert inception_score(np.log(p)[np.arange(40) % 2], splits=4)[0] == pytest.approx(by_hand)
    mean, low, high, sd = inception_score(np.random.default_rng(0).normal(0, 3, (200, 10)))
    assert low < mean < high
    assert sd > 0
    with pytest.raises(ValueError, match="N >= 4"):
        inception_score(sure[:3])


class Net:
    """Stands in for FID's network: four colours are four classes."""

    name, dims, distance, describe, resizes = "inception-2048", 4, "fid", "a stub", True

    def __init__(self, *_, **__):
        pass

    def __call__(self, images):
        means = images.float().mean((2, 3)) / 255
        return torch.cat([means, means.mean(1, keepdim=True)], 1)


def test_inception_score_joins_where_the_weights_are(tmp_path, monkeypatch, sets):
    file = tmp_path / "weights.pth"
    torch.save({"fc.weight": 500 * torch.eye(4)[:3]}, file)
    assert class_weights(file).shape == (3, 4)
    monkeypatch.setattr("arena.metrics.quality.Inception", Net)
    panel = quality_panel("cpu", inception=file, scores="round")
    colours = torch.eye(3).mul(255).to(torch.uint8)[torch.randperm(60, generator=torch.Generator().manual_seed(0)) % 3]
    scores = panel.score(colours[:, :, None, None].expand(-1, -1, 32, 32), *sets[1:])
    assert 2 < scores["is"]["value"] <= 3  # splits of six: not each is even
    assert 1 < scores["is"]["floor"] <= 3
    assert (scores["is"]["better"], scores["is"]["splits"]) == ("higher", 10)
    assert {"fid", "coverage-inception-2048"} <= set(scores)
    assert panel.note is None
    assert "is" not in quality_panel("cpu", inception=None, scores="round").score(*sets)


@pytest.mark.parametrize("full", [False, True])
def test_training_images_handed_in_again_are_found(full):
    known, honest = pictures(40, 1), pictures(60, 2)
    fakes = torch.cat([pictures(20, 3), known[5:15], known[15:20].flip(3)])
    guard = Known(known, honest, full)
    score = guard.score(fakes)
    assert score["value"] == pytest.approx(15 / 35)
    assert score["floor"] <= 0.05
    assert {fake for fake, _, _ in score["nearest"]["pairs"]} <= set(range(20, 35))
    distance, index = guard.nearest(fakes)
    assert index[20:].tolist() == list(range(5, 20))
    assert distance[20:].max() < 1e-5
    assert guard.score(pictures(40, 4))["low"] < 0.05


def rings(labels, seed, noise=0.1):
    return np.eye(8)[labels] + noise * np.random.default_rng(seed).normal(size=(len(labels), 8))


def test_modes_are_counted_where_the_rule_holds_and_left_out_where_not():
    labels = np.arange(80) % 8
    fakes = np.array([0, 1, 2] * 20)
    found = mode_count(rings(fakes, 1), rings(labels, 2), labels.tolist(), rings(labels, 3), labels.tolist())
    assert (found["value"], found["floor"], found["of"], found["accuracy"]) == (3, 8, 8, 1.0)
    assert found["shares"] == pytest.approx({str(i): (1 / 3 if i < 3 else 0) for i in range(8)})
    alone = mode_count(rings(fakes, 1), rings(labels, 2), labels.tolist())
    assert alone["value"] == 3
    poor = mode_count(rings(fakes, 1, 2.0), rings(labels, 2, 2.0), labels.tolist())
    assert poor["value"] is None
    assert poor["accuracy"] < 0.8
    assert "rightly" in poor["left_out"]


def test_modes_are_not_invented_by_the_rules_mistakes():
    """All fakes show one of five modes, and every tenth neighbour is wrong: one mode, not five."""
    labels = np.arange(200) % 5
    known = np.eye(5)[labels]
    held = labels.copy()
    held[::10] = (held[::10] + 1 + np.arange(20) % 4) % 5
    fakes = np.zeros(100, int)
    fakes[::10] = 1 + np.arange(10) % 4
    found = mode_count(np.eye(5)[fakes], known, labels.tolist(), np.eye(5)[held], labels.tolist())
    assert found["accuracy"] == pytest.approx(0.9)
    assert found["value"] == 1
    assert found["floor"] == 5


NETS = """
import torch
class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Conv2d(3, 6, 3, 2)
    def forward(self, x):
        return self.net(x)
class Pair(Encoder):
    def forward(self, x):
        return (x.mean((2, 3)), None)
class Wrong(Encoder):
    def forward(self, x):
        return x.mean()
number = 3
def needs(x):
    return x
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "my_panel_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    yield "my_panel_nets"
    sys.modules.pop("my_panel_nets", None)


def test_any_module_is_looked_through_by_its_path(nets, sets):
    extract = module_extractor(f"{nets}:Encoder")
    again = module_extractor(f"{nets}:Encoder@20")
    images = sets[0][:5]
    assert extract.distance == f"fd-{nets}.Encoder"
    assert torch.allclose(extract(images), extract.net(images / 127.5 - 1).mean((2, 3)), atol=1e-6)
    assert "own size" in extract.describe
    assert "resize bilinear 20" in again.describe
    assert extract.describe.split("sha256 ")[1][:64] == again.describe.split("sha256 ")[1][:64]
    assert module_extractor(f"{nets}:Pair")(images).shape == (5, 3)
    scores = quality_panel("cpu", None, "round", [extract]).score(*sets)
    assert {f"{name}-{nets}.Encoder" for name in ("fd", "kid", "coverage")} <= set(scores)
    assert not any(name.startswith("fid") for name in scores)
    assert scores[f"fd-{nets}.Encoder"]["features"] == extract.describe


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("Encoder@0", "@SIZE"), ("Encoder@big", "@SIZE"), ("Missing", "has no attribute"), ("number", "got int"),
        ("needs", "called with nothing"),
    ],
)  # fmt: skip
def test_what_is_no_module_is_refused_in_a_line(nets, of, message):
    with pytest.raises(InputError, match=message) as error:
        module_extractor(f"{nets}:{of}")
    assert "\n" not in str(error.value)


def test_a_module_without_rows_of_features_is_refused(nets):
    with pytest.raises(InputError, match="one row of features an image"):
        module_extractor(f"{nets}:Wrong")(pictures(4, 0))


def test_torchvisions_weights_come_from_the_cache_alone(tmp_path, monkeypatch):
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"squeezenet1_1-b8a52dc0\.pth, and nothing is downloaded"):
        module_extractor("torchvision:squeezenet1_1")
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        module_extractor("torchvision:resnt50")
    file = tmp_path / "hub" / "checkpoints" / models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="does not hold shufflenet"):
        module_extractor("torchvision:shufflenet_v2_x0_5")
    torch.manual_seed(0)
    net = models.shufflenet_v2_x0_5(weights=None).eval()
    torch.save(net.state_dict(), file)
    extract = module_extractor("torchvision:shufflenet_v2_x0_5")
    images = pictures(2, 0)
    seen = models.ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms()
    big = F.interpolate(images / 255, (224, 224), mode="bilinear", antialias=True)
    big = (big - torch.tensor(seen.mean)[:, None, None]) / torch.tensor(seen.std)[:, None, None]
    net.fc = torch.nn.Identity()
    with torch.inference_mode():
        assert torch.allclose(extract(images), net(big), atol=1e-3, rtol=1e-3)
    assert extract.distance == "fd-torchvision.shufflenet_v2_x0_5"


def paint(folder, images, labels=None):
    for i, image in enumerate(images):
        path = folder / (labels[i] if labels else "") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return str(folder)


def test_the_command_scores_folders(tmp_path):
    known = pictures(24, 1)
    real, fake = paint(tmp_path / "real", pictures(24, 2)), paint(tmp_path / "fake", torch.cat([known[:8], known[:1]]))
    folder = paint(tmp_path / "known", known, ["one", "two"] * 12)
    result = CliRunner().invoke(quality, [real, fake, "--known", folder, "--json", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["scores"]["copied"]["value"] == 1
    assert (found["n"], found["n_real"], found["n_floor"]) == (9, 12, 9)
    assert any("no count of modes" in note for note in found["notes"])
    table = CliRunner().invoke(quality, [real, fake, "--floor", folder, "--device", "cpu"])
    assert table.exit_code == 0, table.output
    assert "coverage-conv704-s0" in table.output
    one = paint(tmp_path / "one", known[:1].repeat(9, 1, 1, 1))
    still = CliRunner().invoke(quality, [real, one, "--json", "--device", "cpu"])
    assert json.loads(still.output)["scores"]["kid-conv704-s0"]["low"] is None
    row = next(line for line in CliRunner().invoke(quality, [real, one]).output.splitlines() if "density" in line)
    assert row.split()[2] == MISSING
    small = paint(tmp_path / "small", pictures(4, 3, 16))
    for arguments in ([real, small], [small, real, "--known", real], [real, paint(tmp_path / "two", known[:2])]):
        refused = CliRunner().invoke(quality, [*arguments, "--device", "cpu"])
        assert isinstance(refused.exception, InputError), arguments


def test_the_command_compares_as_many_fakes_as_other_reals_and_says_so(tmp_path):
    real, fake = paint(tmp_path / "real", pictures(41, 1)), paint(tmp_path / "fake", pictures(32, 2))
    other = paint(tmp_path / "other", pictures(24, 3))

    def told(*arguments):
        found = json.loads(CliRunner().invoke(quality, [*arguments, "--json", "--device", "cpu"]).output)
        counts = {(score["n"], score["floor_n"], score["n_real"]) for score in found["scores"].values()}
        assert counts == {(found["n"], found["n_floor"], found["n_real"])}
        return *counts.pop(), "\n".join(found["notes"][1:])

    *counts, notes = told(real, fake)
    assert counts == [20, 20, 21]
    assert "20 of 32 fakes, as many as other reals for the floor; --floor DIR for all." in notes
    assert "20 fakes and 21 reals: with fewer than 200" in notes
    assert "same folder" not in notes
    *counts, notes = told(real, fake, "--floor", other)
    assert counts == [24, 24, 41]
    assert "24 of 32 fakes, as many as other reals for the floor; --floor DIR with more images for all." in notes
    *counts, notes = told(fake, fake, "--floor", real)
    assert counts == [32, 32, 32]
    assert f"REAL and FAKE are the same folder, {fake}: its images are compared with themselves." in notes
    assert " of 32 fakes" not in notes

"""The work of `arena fid` and `arena stats`: parity with pytorch-fid, files both ways, and every kind of bad input."""

import hashlib
import json
import struct
import zlib

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from pytorch_fid import fid_score
from pytorch_fid.inception import InceptionV3

from arena.errors import InputError
from arena.metrics import features, folders
from arena.metrics.features import Inception, find_inception_weights
from arena.metrics.folders import fid_of, folder_statistics, write_statistics
from arena.metrics.frechet import frechet_distance
from arena.metrics.quality import quality_panel


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file of random weights in the official file's form (He: torch's own start makes the last features vanish)."""
    net = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
    rng = torch.Generator().manual_seed(0)
    state = net.state_dict()
    for name, value in state.items():
        if name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(value, nonlinearity="relu", generator=rng)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=rng)
        elif name.endswith("bias"):
            value.normal_(0, 0.1, generator=rng)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def inception(weights):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "_EXPECTED_SHA", hashlib.sha256(weights.read_bytes()).hexdigest()[:8])
        return Inception(weights)


@pytest.fixture(scope="session")
def peer(weights):
    with features._handing_over(torch.load(weights, weights_only=True)):
        return InceptionV3([0, 1, 2, 3]).eval()


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    monkeypatch.delenv("ARENA_FID_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def accepted(weights, monkeypatch):
    """The random weights' hash is taken for the official one."""
    monkeypatch.setattr(features, "_EXPECTED_SHA", hashlib.sha256(weights.read_bytes()).hexdigest()[:8])


def paint(folder, n, seed, sizes=((24, 24),), suffixes=(".png",), tint=0):
    rng = np.random.default_rng(seed)
    for i in range(n):
        width, height = sizes[i % len(sizes)]
        low = rng.uniform(0, 200, (4, 4, 3)) + np.array([tint, 0, 0])
        picture = Image.fromarray(low.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        path = folder / f"{i:03d}{suffixes[i % len(suffixes)]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format={".jpg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}.get(path.suffix.lower()))
    return folder


def test_inception_features_equal_pytorch_fid(inception, peer, weights, accepted):
    images = torch.randint(0, 256, (2, 3, 40, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = [torch.nn.functional.adaptive_avg_pool2d(layer, 1).flatten(1) for layer in peer(images / 255)]
    for extractor, layer in ((inception, 3), (Inception(weights, 192), 1)):
        rows = extractor(images)
        assert rows.shape == (2, extractor.dims)
        assert (rows - expected[layer]).abs().max() < 1e-5 * expected[layer].abs().max()
        floats = extractor(images / 127.5 - 1)
        assert (rows - floats).abs().max() < 1e-5 * rows.abs().max()
    assert (inception.distance, Inception(weights, 192).distance) == ("fid", "fd-inception-192")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in inception.describe


def test_building_the_network_leaves_pytorch_fid_as_it_was(inception):
    from pytorch_fid import inception as module

    assert module.load_state_dict_from_url.__module__.startswith("torch")


def test_weights_of_another_hash_are_refused(weights, tmp_path):
    official_name = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    official_name.write_bytes(weights.read_bytes())
    with pytest.raises(InputError, match=r"6726825d\.\.\.\) in .*got [0-9a-f]{16}.*Download"):
        Inception(official_name)
    with pytest.raises(InputError, match="No such file"):
        Inception(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="one of 64, 192, 768, 2048"):
        Inception(weights, dims=100)


def test_damaged_weights_of_the_right_hash_are_refused(tmp_path, monkeypatch):
    for content in (b"not a checkpoint", None):
        path = tmp_path / "w.pth"
        torch.save({"some": torch.zeros(1)}, path) if content is None else path.write_bytes(content)
        monkeypatch.setattr(features, "_EXPECTED_SHA", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
        with pytest.raises(InputError, match=r"w\.pth"):
            Inception(path)


def test_weights_are_found_by_variable_then_in_the_hub_cache(no_weights, monkeypatch, tmp_path):
    assert find_inception_weights() is None
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"x")
    assert find_inception_weights() == cached
    monkeypatch.setenv("ARENA_FID_WEIGHTS", __file__)
    assert str(find_inception_weights()) == __file__
    monkeypatch.setenv("ARENA_FID_WEIGHTS", str(tmp_path / "gone.pth"))
    with pytest.raises(InputError, match=r"gone\.pth: no such file"):
        find_inception_weights()


def test_without_weights_fid_is_refused_and_another_name_offered(no_weights, tmp_path):
    real, fake = paint(tmp_path / "real", 8, 0), paint(tmp_path / "fake", 6, 1)
    with pytest.raises(InputError, match=r"https://github\.com/mseitzer.*sha256 starts 6726825d.*--features conv704"):
        fid_of(real, fake)
    result = fid_of(real, fake, features="conv704")
    assert result["name"] == "rfd-conv704-s0"
    assert fid_of(real, fake, features="conv704-s2")["name"] == "rfd-conv704-s2"
    assert fid_of(real, fake, features="spectrum")["name"] == "sfd"
    for wrong in ("conv705", "conv704-s", "conv704-sx", "clip"):
        with pytest.raises(InputError, match="expected features to be"):
            fid_of(real, fake, features=wrong)


def test_the_distance_of_mixed_folders_equals_pytorch_fids(accepted, weights, peer, monkeypatch, tmp_path):
    """Sub-folders, letter case and sizes mixed; the peer gets the same images one by one. (64 dims: the fast layer.)"""
    real = paint(tmp_path / "real", 3, 0, sizes=((24, 24), (40, 30)), suffixes=(".PNG", ".jpg"))
    paint(real / "more" / "deep", 3, 1, suffixes=(".WEBP", ".bmp", ".JPEG"))
    (real / "notes.txt").write_text("no image")
    (real / "._000.png").write_bytes(b"a hidden file of another system")
    fake = paint(tmp_path / "fake", 4, 2, sizes=((16, 20), (20, 16)), tint=50)
    calls = []
    result = fid_of(real, fake, dims=64, weights=weights, progress=lambda done, total: calls.append((done, total)))
    monkeypatch.setattr(peer, "last_needed_block", 0)  # its forward stops after the first block
    theirs = [
        fid_score.get_activations(folders.image_files(p), peer, batch_size=1, dims=64, num_workers=0)
        for p in (real, fake)
    ]
    expected = frechet_distance(*theirs)  # equal to pytorch-fid's: test_frechet.py
    assert result["value"] == pytest.approx(expected, rel=1e-4)
    assert (result["name"], result["dims"], result["n"], result["n_real"]) == ("fd-inception-64", 64, 4, 6)
    assert result["low"] < result["value"] < result["high"]
    assert (result["floor_n"], result["floor_n_real"]) == (3, 3)
    assert result["floor"] > 0
    assert "bilinear 299" in result["features"]
    assert {total for _, total in calls} == {6, 4}
    assert (6, 6) in calls
    json.dumps(result, allow_nan=False)


def test_statistics_files_go_both_ways(accepted, weights, tmp_path):
    folder, other = paint(tmp_path / "a", 4, 0), paint(tmp_path / "b", 3, 1, tint=40)
    settings = {"weights": weights, "dims": 64}
    summary = write_statistics(folder, tmp_path / "ours.npz", **settings)
    assert (summary["n"], summary["dims"]) == (4, 64)
    mu, sigma = fid_score.compute_statistics_of_path(str(tmp_path / "ours.npz"), None, 50, 64, "cpu")
    reference = folder_statistics(folder, Inception(weights, 64)).reference
    assert np.array_equal(mu, reference.mean)
    assert np.allclose(sigma, reference.covariance, atol=1e-12)
    np.savez_compressed(tmp_path / "theirs.npz", mu=mu, sigma=sigma)  # as pytorch-fid's save_fid_stats does

    whole = fid_of(folder, other, **settings)
    ours, theirs = (fid_of(tmp_path / name, other, **settings) for name in ("ours.npz", "theirs.npz"))
    assert ours["value"] == pytest.approx(whole["value"], rel=1e-6)
    assert theirs["value"] == pytest.approx(whole["value"], rel=1e-6)
    assert ours["low"] == pytest.approx(whole["low"], rel=1e-6)
    assert (ours["name"], ours["n_real"], ours["floor"], ours["note"]) == ("fd-inception-64", 4, None, None)
    assert (theirs["name"], theirs["n_real"]) == ("fd-inception-64", None)
    assert "taken on trust" in theirs["note"]
    both = fid_of(tmp_path / "theirs.npz", tmp_path / "theirs.npz")
    assert (both["name"], both["low"], both["features"]) == ("fd-npz-64", None, "unknown")
    assert both["value"] == pytest.approx(0, abs=1e-10)
    with pytest.raises(InputError, match="expected statistics of 192 dims"):
        fid_of(tmp_path / "theirs.npz", other, weights=weights, dims=192)


def test_two_files_need_no_network(no_weights, tmp_path):
    folder = paint(tmp_path / "a", 5, 0)
    write_statistics(folder, tmp_path / "a.npz", features="spectrum")
    result = fid_of(tmp_path / "a.npz", tmp_path / "a.npz")
    assert (result["name"], result["n"]) == ("sfd", 5)
    assert "spectrum" in result["features"]
    with pytest.raises(InputError, match="expected statistics of"):
        fid_of(tmp_path / "a.npz", folder, features="conv704")
    write_statistics(folder, tmp_path / "c.npz", features="conv704")
    write_statistics(folder, tmp_path / "d.npz", features="conv704-s1")
    with pytest.raises(InputError, match="one size"):
        fid_of(tmp_path / "a.npz", tmp_path / "c.npz")
    with pytest.raises(InputError, match="different features"):
        fid_of(tmp_path / "c.npz", tmp_path / "d.npz")


def test_writing_statistics_destroys_nothing(tmp_path):
    folder, out = paint(tmp_path / "a", 4, 0), tmp_path / "sub" / "out.npz"
    write_statistics(folder, out, features="spectrum")
    before = out.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write_statistics(folder, out, features="conv704")
    assert out.read_bytes() == before
    write_statistics(folder, out, features="conv704", overwrite=True)
    assert out.read_bytes() != before
    with pytest.raises(InputError, match=r"ends in \.npz"):
        write_statistics(folder, tmp_path / "out", features="spectrum")
    with pytest.raises(InputError, match="folder of images, got the file"):
        write_statistics(out, tmp_path / "new.npz", features="spectrum")
    assert sorted(p.name for p in out.parent.iterdir()) == ["out.npz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mu": np.zeros(3)}, "sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, "d x d"),
        ({"mu": np.zeros(3), "sigma": np.full((3, 3), np.nan)}, "NaN"),
        ({"mu": np.zeros(3), "sigma": np.triu(np.ones((3, 3)))}, "not symmetric"),
        ({"mu": np.zeros(3), "sigma": np.array([[object()] * 3] * 3)}, "allow_pickle"),
        ({"mu": np.zeros(3), "sigma": np.eye(3), "protocol": np.array("{")}, "expected `mu`"),
        ({"mu": np.zeros(3), "sigma": np.eye(3), "protocol": np.array("{}")}, "does not name"),
        ({"mu": np.zeros(3), "sigma": np.eye(3), "protocol": np.array("[1]")}, "does not name"),
        (b"", "expected `mu`"),
        (b"PK\x03\x04 cut off", "expected `mu`"),
        (None, "nothing there"),
    ],
)
def test_bad_statistics_files_are_refused(tmp_path, content, message):
    path = tmp_path / "bad.npz"
    if isinstance(content, dict):
        np.savez(path, **content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        fid_of(path, path)
    assert str(path) in str(error.value)


def test_bad_folders_are_refused(tmp_path):
    good = paint(tmp_path / "good", 4, 0)
    (tmp_path / "empty").mkdir()
    one = paint(tmp_path / "one", 1, 0)
    for folder, message in (
        (tmp_path / "empty", "got 0"),
        (one, "at least 3 images .* got 1"),
        (tmp_path / "gone", "nothing there"),
        (one / "000.png", "a file of another kind"),
        (paint(tmp_path / "mixed", 4, 0, sizes=((24, 24), (32, 24))), r"one size .* 32 x 24 px in .*001\.png"),
        (paint(tmp_path / "tiny", 4, 0, sizes=((12, 12),)), "at least 16 x 16"),
    ):
        with pytest.raises(InputError, match=message):
            fid_of(folder, good, features="spectrum")


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("damage", ["zero bytes", "text", "cut off", "20000 x 20000", "7000 x 7000"])
def test_bad_images_are_named(tmp_path, damage):
    folder = paint(tmp_path / "a", 4, 0)
    bad = folder / "bad.png"
    whole = (folder / "000.png").read_bytes()
    content = {"zero bytes": b"", "text": b"hello", "cut off": whole[: len(whole) // 2]}
    bad.write_bytes(content[damage] if damage in content else huge_png(*map(int, damage.split(" x "))))
    with pytest.raises(InputError, match=r"bad\.png") as error:
        fid_of(folder, folder, features="spectrum")
    assert ("40 megapixels" in str(error.value)) == (damage not in content)
    assert "\n" not in str(error.value)


def test_the_panel_adds_fid_where_its_weights_are(inception, monkeypatch, weights):
    monkeypatch.setattr("arena.metrics.quality.Inception", lambda *_, **__: inception)
    panel = quality_panel("cpu", inception=weights)
    assert panel.note is None
    images = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scores = panel.score(images[:3], images[3:6], images[6:])
    assert next(iter(scores)) == "fid"
    assert scores["fid"]["features"] == inception.describe
    assert scores["fid"]["low"] <= scores["fid"]["value"] <= scores["fid"]["high"]


def test_auto_finds_no_weights_and_says_so_in_one_line(no_weights):
    panel = quality_panel("cpu")
    assert "fid" not in [distance.name for distance in panel.distances]
    assert panel.note.startswith("No FID: its Inception weights are not on this machine")
    assert "\n" not in panel.note

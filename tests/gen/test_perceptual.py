"""Perceptual losses against torchvision's own nets, numpy's Gram matrices and files that are wrong in every way."""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import VGG16_Weights, VGG19_Weights, vgg16, vgg19
from torchvision.transforms.functional import normalize

from gen.perceptual import PUBLISHED, Perceptual, gram

FILES = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
POSITIONS = {  # in torchvision's `features`, counted by hand in its printed list
    "vgg16": {"conv1_1": 0, "relu1_2": 3, "pool1": 4, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29},
    "vgg19": {"relu1_2": 3, "relu2_2": 8, "relu3_4": 17, "relu4_4": 26, "conv5_4": 34, "relu5_4": 35, "pool5": 36},
}


def images(n=2, size=32, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def published(net):
    """torchvision's net with made weights; without the dense layers, which nobody reads."""
    torch.manual_seed(0)
    with torch.device("meta"):
        made = {"vgg16": vgg16, "vgg19": vgg19}[net]()
    features = made.features.to_empty(device="cpu")
    for layer in features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.normal_(layer.bias, 0.0, 0.1)
    return features


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """torch.hub's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def put(features, file):
    """Save the net's layers as a whole net's file has them."""
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save(state | {"classifier.0.bias": torch.zeros(3)}, file)
    return state


@pytest.mark.parametrize("net", ["vgg16", "vgg19"])
def test_features_are_torchvisions(net, cache, monkeypatch, tmp_path):
    """Weights out of torch.hub's cache, by the hash in the file's name; every layer against torchvision's forward."""
    features = published(net)
    state = put(features, tmp_path / "made.pth")
    sha256 = hashlib.sha256((tmp_path / "made.pth").read_bytes()).hexdigest()
    name = f"{net}-{sha256[:8]}.pth"
    (tmp_path / "made.pth").rename(cache / name)
    monkeypatch.setattr("gen.perceptual.PUBLISHED", {net: f"https://somewhere/{name}"})
    found = Perceptual(net, layers=tuple(POSITIONS[net]), style_layers=())
    assert found.provenance == f"{net} features, ImageNet weights from {name}, sha256 {sha256}"

    x = images()
    y = normalize((x + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for layer, at in POSITIONS[net].items():
        (mine,) = found(x, [layer])
        torch.testing.assert_close(mine, features[: at + 1](y), rtol=1e-4, atol=1e-4, msg=layer)

    save_file(state, tmp_path / "mine.safetensors")
    again = Perceptual(net, str(tmp_path / "mine.safetensors"), ("relu2_2",), ())
    assert torch.equal(again(x, ["relu2_2"])[0], found(x, ["relu2_2"])[0])
    assert again.provenance.startswith(f"{net} features, weights from mine.safetensors, sha256 ")


def test_published_files_are_torchvisions():
    assert {net: url.rpartition("/")[2] for net, url in PUBLISHED.items()} == FILES
    assert {"vgg16": VGG16_Weights.IMAGENET1K_V1.url, "vgg19": VGG19_Weights.IMAGENET1K_V1.url} == PUBLISHED


def test_missing_weights_name_the_file_and_the_remedy(cache):
    with pytest.raises(ValueError, match="random") as found:
        Perceptual("vgg16")
    assert str(cache / FILES["vgg16"]) in str(found.value)
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in str(found.value)
    assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match=r"found no .*elsewhere\.pth"):
        Perceptual("vgg16", "elsewhere.pth")


def test_wrong_weights_are_refused(cache, monkeypatch, tmp_path):
    (cache / FILES["vgg19"]).write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"is not the published file \(sha256 .*fetch it anew"):
        Perceptual("vgg19")
    with pytest.raises(ValueError, match="expected a state dict in"):
        Perceptual("vgg19", str(cache / FILES["vgg19"]))
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(ValueError, match="expected a state dict in"):
        Perceptual("vgg19", str(tmp_path / "bad.safetensors"))
    torch.save({"features.0.weight": [1.0]}, tmp_path / "list.pth")
    with pytest.raises(ValueError, match="more than tensors"):
        Perceptual("vgg19", str(tmp_path / "list.pth"))
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"vgg16 in .*, but it lacks features\.0\.bias"):
        Perceptual("vgg16", str(tmp_path / "short.pth"))
    torch.save({"features.0.weight": torch.zeros(64, 3, 5, 5)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"features\.0\.weight is \(64, 3, 5, 5\), not \(64, 3, 3, 3\)"):
        Perceptual("vgg16", str(tmp_path / "other.pth"))


def test_a_vgg16_is_no_vgg19(tmp_path):
    put(published("vgg16"), tmp_path / "made.pth")
    with pytest.raises(ValueError, match=r"expected a state dict of torchvision's vgg19 .* but"):
        Perceptual("vgg19", str(tmp_path / "made.pth"))


def test_gram_matrix_is_numpys():
    features = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    for found, image in zip(gram(features).numpy(), features.numpy(), strict=True):
        expected = sum(np.outer(image[:, i, j], image[:, i, j]) for i in range(4) for j in range(3)) / (5 * 4 * 3)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_losses_equal_the_equations():
    losses = Perceptual("random", layers=("relu2_2", "relu3_3"), style_layers=("relu1_2", "pool2"))
    fake, real = images(seed=1), images(seed=2)
    content = style = 0.0
    for layer in ("relu2_2", "relu3_3"):
        x, y = (losses(some, [layer])[0].numpy() for some in (fake, real))
        content += ((x - y) ** 2).sum((1, 2, 3)).mean() / x[0].size
    for layer in ("relu1_2", "pool2"):
        x, y = (losses(some, [layer])[0].flatten(2).numpy() for some in (fake, real))
        x, y = (np.einsum("bip,bjp->bij", some, some) / some[0].size for some in (x, y))
        style += (np.linalg.norm(x - y, axis=(1, 2)) ** 2).mean()
    assert losses.content(fake, real).item() == pytest.approx(content, rel=1e-4)
    assert losses.style(fake, real).item() == pytest.approx(style, rel=1e-4)
    assert losses.content(real, real) == losses.style(real, real) == 0
    one = real[:1]
    torch.testing.assert_close(losses.style(fake, one), losses.style(fake, one.expand_as(fake)))
    assert losses.style(fake, torch.cat([one, one], 3)).isfinite()


def test_style_forgets_places_and_content_does_not():
    """A picture of stripes moved by one period at the border keeps its Gram matrices and loses its content."""
    losses = Perceptual("random", layers=("relu1_2",), style_layers=("relu1_2",))
    x = images(1, 32)
    mirrored = x.roll(16, 3)  # a roll changes only what meets at the border
    assert losses.style(mirrored, x) < 0.01 * losses.style(images(1, 32) * 0.5, x)
    assert losses.content(mirrored, x) > losses.content(x * 0.5, x)


def test_frozen_unsaved_and_always_the_same():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    losses = Perceptual("random")
    assert torch.equal(before, torch.random.get_rng_state())
    assert list(losses.parameters()) == []
    assert losses.state_dict() == {}
    losses.load_state_dict({})
    assert len(list(losses.buffers())) == 2 * (2 + 2 + 4 + 3)
    fake, real = images(seed=1).requires_grad_(), images(seed=2).requires_grad_()
    (losses.content(fake, real) + losses.style(fake, real)).backward()
    assert fake.grad.abs().sum() > 0
    assert real.grad is None
    torch.manual_seed(1)
    assert torch.equal(Perceptual("random").content(fake, real), losses.content(fake, real))
    assert losses.double().content(fake.double(), real.double()).dtype == torch.float64  # it moves like any module


def test_random_features_keep_their_scale():
    """He's initialisation: a layer's mean square is that of its input, so no layer's loss drowns another's."""
    losses = Perceptual("random", layers=("relu5_4",))
    x = images(4, 64)
    for layer in ("conv1_2", "conv3_3", "conv5_4"):
        power = losses(x, [layer])[0].square().mean()
        assert 0.1 < power < 20, (layer, power)


def test_unusable_values_are_refused():
    with pytest.raises(ValueError, match="relu6_1"):
        Perceptual("random", layers=("relu6_1",))
    with pytest.raises(ValueError, match="relu3_4"):  # vgg16 has three there
        Perceptual("vgg16", layers=("relu3_4",))
    with pytest.raises(ValueError, match="alexnet"):
        Perceptual("alexnet")
    losses = Perceptual("random", layers=("relu5_4",), style_layers=())
    assert losses.content(images(size=16), images(size=16)).isfinite()
    with pytest.raises(ValueError, match="relu5_4 needs images of at least 16 px, not 8 x 8"):
        losses.content(images(size=8), images(size=8))

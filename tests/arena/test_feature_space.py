"""Features, neighbours and maps against numpy, scikit-learn and planted clusters."""

import sys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from torch import nn

from arena.metrics.feature_space import feature_space, layer_features, neighbours, principal
from arena.training import to_float


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Detector:
    def __init__(self, frames=1, loop=False):
        torch.manual_seed(0)
        self.layer, self.frames, self.loop = nn.Conv2d(3, 5, 3), frames, loop

    def score(self, images):
        if self.loop:
            return sum(self.layer(images[:, k]).mean((1, 2, 3)) for k in range(images.shape[1]))
        return self.layer(images.flatten(0, -4)).mean((1, 2, 3)).view(len(images), -1).mean(1)


def test_features_are_the_layers_outputs_averaged():
    detector, images = Detector(), pictures(7, 3, 8, 8)
    with torch.no_grad():
        truth = detector.layer(to_float(images)).mean((2, 3))
    for batch in (1, 3, 64):
        found = layer_features(detector, images, batch=batch)
        assert torch.allclose(found, truth, atol=1e-6)
    assert torch.equal(found, layer_features(detector, to_float(images)))
    assert not found.requires_grad
    assert not detector.layer._forward_hooks


def test_features_of_clips():
    clips = pictures(4, 3, 3, 8, 8)
    detector = Detector(3)
    truth = layer_features(detector, clips.flatten(0, 1)).view(4, 3, 5).mean(1)
    assert torch.allclose(layer_features(detector, clips, batch=3), truth, atol=1e-6)
    assert torch.allclose(layer_features(Detector(3, loop=True), clips), truth, atol=1e-6)


def test_a_layer_that_is_not_called_or_that_fails():
    detector, images = Detector(), pictures(2, 3, 8, 8)
    with pytest.raises(ValueError, match="that the detector calls"):
        layer_features(detector, images, layer=nn.Linear(1, 1))
    with pytest.raises(RuntimeError):
        layer_features(detector, pictures(2, 4, 8, 8))
    assert not detector.layer._forward_hooks
    assert len(layer_features(detector, images)) == 2


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_neighbours_as_scikit_learn(metric, batch):
    features, chosen = noise(60, 9), torch.tensor([3, 59, 0, 17, 30])
    found = neighbours(features, chosen, k=6, metric=metric, batch=batch)
    rows = features.double().numpy()
    distance, index = (
        NearestNeighbors(n_neighbors=7, metric=metric, algorithm="brute").fit(rows).kneighbors(rows[chosen])
    )
    assert np.array_equal(found.index.numpy(), index[:, 1:])  # theirs begins with the image itself
    assert np.allclose(found.distance.numpy(), distance[:, 1:], atol=1e-12)


def test_neighbours_of_copies():
    """Copies are at distance 0 and in order; an image is not its own neighbour, its copy is."""
    features = noise(10, 4)
    features[[2, 7]] = features[5].clone()
    for metric in ("cosine", "euclidean"):
        found = neighbours(features, torch.tensor([5]), k=9, metric=metric)
        assert found.index[0, :2].tolist() == [2, 7]
        assert found.distance[0, :2].abs().max() < 1e-12
        assert 5 not in found.index
        assert found.distance[0].diff().min() >= 0
    far = torch.tensor([[1e8, 1.0], [1e8, 2.0], [1e8, 4.0]], dtype=torch.float64)  # a difference far below the sizes
    assert neighbours(far, torch.tensor([0]), k=2, metric="euclidean").distance[0].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("keywords", "message"), [({"k": 10}, "1 to 9"), ({"k": 0}, "1 to 9"), ({"metric": "l1"}, "l1")]
)
def test_neighbours_that_cannot_be(keywords, message):
    with pytest.raises(ValueError, match=message):
        neighbours(noise(10, 4), torch.tensor([5]), **keywords)


def test_principal_components_as_scikit_learn():
    features = noise(30, 8) * torch.arange(1, 9) + 5
    theirs = PCA(5, svd_solver="full").fit_transform(features.double().numpy())
    ours = principal(features, 5).numpy()
    assert np.allclose(ours * np.sign((ours * theirs).sum(0)), theirs, atol=1e-10)
    assert np.array_equal(principal(features, 12)[:, 8:].numpy(), np.zeros((30, 4)))
    assert np.allclose(principal(features[torch.arange(30).flip(0)], 5).numpy()[::-1], ours, atol=1e-10)


def groups():
    """Reals and two rounds of fakes, far apart from one another."""
    centres = noise(3, 20, seed=9) * 10
    return [noise(n, 20, seed=n) + centre for n, centre in zip((25, 20, 15), centres, strict=True)]


def own_kind(points, kind):
    """The share of images whose nearest neighbour on the map is of the same kind."""
    far = ((points[:, None] - points) ** 2).sum(-1)
    np.fill_diagonal(far, np.inf)
    return np.mean(kind[far.argmin(1)] == kind)


def check(space):
    assert space.points.shape == (60, 2)
    assert space.points.dtype == np.float32
    assert np.isfinite(space.points).all()
    assert space.fake.tolist() == [False] * 25 + [True] * 35
    assert space.round.tolist() == [-1] * 25 + [0] * 20 + [3] * 15
    assert space.row.tolist() == [*range(25), *range(20), *range(15)]


def test_t_sne_keeps_kinds_together(monkeypatch):
    asked, plain = {}, TSNE.__init__
    real, first, second = groups()
    space = feature_space(real, {0: first, 3: second}, seed=4)
    check(space)
    assert own_kind(space.points, space.round) == 1
    assert space.how == "t-SNE, perplexity 19.7"
    again = feature_space(real, {0: first, 3: second}, seed=4)
    assert np.array_equal(again.points, space.points)
    monkeypatch.setattr(TSNE, "__init__", lambda self, **given: asked.update(given) or plain(self, **given))
    feature_space(real, {0: first, 3: second}, seed=5)
    assert asked["random_state"] == 5  # with a given start t-SNE hardly draws
    same = feature_space(real * 0, {0: first * 0, 3: second * 0})  # nothing to tell apart
    check(same)


def test_without_scikit_learn_it_is_called_pca(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    real, first, second = groups()
    space = feature_space(real, {0: first, 3: second})
    check(space)
    assert space.how == "PCA"
    assert np.allclose(space.points, principal(torch.cat([real, first, second]), 2).numpy(), atol=1e-5)
    assert own_kind(space.points, space.round) == 1


def test_a_map_of_nothing():
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        feature_space(noise(2, 4), {0: noise(1, 4)})

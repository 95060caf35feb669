"""Paths, mixing and principal directions against what geometry and numpy say."""

import math

import numpy as np
import pytest
import torch

from gen.latent import interpolate, lerp, mix, per_level, principal_directions, slerp, walk


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(n=5, d=8, dtype=torch.float64):
    return torch.randn(2, n, d, generator=rng(), dtype=dtype)


@pytest.mark.parametrize("curve", [lerp, slerp])
def test_a_curve_begins_at_a_ends_at_b_and_is_the_same_from_both_sides(curve):
    a, b = pair()
    zero, one = torch.zeros(5, 1).double(), torch.ones(5, 1).double()
    t = torch.rand(5, 1, generator=rng(1), dtype=torch.float64)
    torch.testing.assert_close(curve(a, b, zero), a)
    torch.testing.assert_close(curve(a, b, one), b)
    torch.testing.assert_close(curve(a, b, t), curve(b, a, 1 - t))


def test_slerp_in_a_plane_is_a_turn():
    """From angle 0.3 and length 2 to angle 1.5 and length 3: angle and length both change linearly."""
    a, b = (torch.tensor([[r * math.cos(x), r * math.sin(x)]]).double() for r, x in ((2, 0.3), (3, 1.5)))
    for t in (0.0, 0.25, 0.5, 0.9):
        x, y = slerp(a, b, torch.tensor([[t]]).double())[0].tolist()
        assert math.hypot(x, y) == pytest.approx(2 + t)
        assert math.atan2(y, x) == pytest.approx(0.3 + 1.2 * t)


def test_slerp_keeps_the_norm_where_lerp_cuts_through_the_sphere():
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in pair(d=512))
    half = torch.full((5, 1), 0.5).double()
    torch.testing.assert_close(slerp(a, b, half).norm(dim=-1), torch.ones(5).double())
    assert (lerp(a, b, half).norm(dim=-1) < 0.8).all()


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-7, 1e-3, 3.0])
def test_slerp_is_stable_from_no_angle_to_nearly_the_whole_half(apart):
    """float32 against float64, whose inputs are the same."""
    a = torch.tensor([[1.0, 0.0, 0.0]])
    b = torch.tensor([[math.cos(apart), math.sin(apart), 0.0]], dtype=torch.float32)
    t = torch.linspace(0, 1, 11)[:, None]
    found = slerp(a, b, t)
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), slerp(a.double(), b.double(), t.double()), atol=2e-6, rtol=0)
    expected = torch.stack([(t[:, 0] * apart).cos(), (t[:, 0] * apart).sin(), torch.zeros(11)], 1)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_opposite_latents_have_no_one_way_between_them():
    with pytest.raises(ValueError, match="opposite"):
        slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 0.0]]), torch.tensor([[0.5]]))


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 6)])
@pytest.mark.parametrize("curve", [lerp, slerp])
def test_a_path_passes_through_its_points_at_equal_times(curve, shape):
    points = torch.randn(shape, generator=rng())
    path = interpolate(points, 3 * 7 + 1, curve)
    assert path.shape == (22, *shape[1:])
    torch.testing.assert_close(path[::7], points)
    torch.testing.assert_close(path[:8], interpolate(points[:2], 8, curve))
    if curve is lerp:
        steps = path.diff(dim=0)
        torch.testing.assert_close(steps[:7], steps[:1].expand(7, *shape[1:]), atol=1e-5, rtol=0)


def test_mixing_changes_the_levels_it_should_and_no_other():
    coarse, fine = torch.randn(2, 4, 6, 3, generator=rng())
    for level in range(7):
        mixed = mix(coarse, fine, level)
        assert torch.equal(mixed[:, :level], coarse[:, :level])
        assert torch.equal(mixed[:, level:], fine[:, level:])
    assert torch.equal(mix(coarse, fine[:1], 2), mix(coarse, fine[:1].expand(4, -1, -1), 2))


def test_one_latent_for_all_levels():
    w = torch.randn(4, 3, generator=rng())
    levels = per_level(w, 6)
    assert levels.shape == (4, 6, 3)
    assert (levels == w[:, None]).all()
    assert per_level(levels, 6) is levels


def test_principal_directions_find_a_planted_covariance():
    """Latents stretched 5, 3, 1, 0.5 times along four random directions about some mean."""
    draws = np.random.default_rng(0)
    basis = np.linalg.qr(draws.normal(size=(12, 12)))[0][:4]
    w = draws.normal(size=(20_000, 4)) * [5, 3, 1, 0.5] @ basis + draws.normal(size=12)
    directions, deviations = principal_directions(torch.from_numpy(w))
    np.testing.assert_allclose(deviations[:4], [5, 3, 1, 0.5], rtol=0.02)
    np.testing.assert_allclose(deviations[4:], 0, atol=1e-8)
    overlap = np.abs(directions[:4].numpy() @ basis.T)
    np.testing.assert_allclose(overlap, np.eye(4), atol=0.02)


def test_principal_directions_are_the_eigenvectors_of_the_covariance():
    w = torch.randn(50, 6, generator=rng(), dtype=torch.float64) @ torch.randn(6, 6, generator=rng(1)).double()
    directions, deviations = principal_directions(w)
    values, vectors = np.linalg.eigh(np.cov(w.numpy(), rowvar=False))
    np.testing.assert_allclose(deviations, np.sqrt(values[::-1]))
    np.testing.assert_allclose(np.abs(directions.numpy()), np.abs(vectors.T[::-1]))
    again, _ = principal_directions(w.flip(0))
    torch.testing.assert_close(again, directions)  # the sign, too


def test_a_walk_goes_as_far_as_it_is_told():
    w, direction = torch.randn(5, generator=rng()), torch.tensor([0.0, 1, 0, 0, 0])
    path = walk(w, direction, torch.tensor([-2.0, 0.0, 3.0]))
    assert torch.equal(path[1], w)
    torch.testing.assert_close(path[:, 1] - w[1], torch.tensor([-2.0, 0.0, 3.0]))
    assert (path[:, [0, 2, 3, 4]] == w[[0, 2, 3, 4]]).all()
    levels = walk(w.expand(4, 5), direction, torch.tensor([-2.0, 0.0, 3.0]))
    assert (levels == path[:, None]).all()

"""Every alarm on its planted failure, and none on fakes that are merely imperfect."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arena.alarms import LARGEST, Seen, alarms, line
from arena.data.faces import render
from arena.metrics.quality import quality_panel

N = 60


@pytest.fixture(scope="module")
def honest():
    """What a poor translator makes of dark-haired faces for fair ones: softer, warmer, half the contrast."""
    sources = render(0, range(N), 32, style="dark").image
    reals = render(0, range(500, 500 + N), 32, style="fair").image
    soft = F.avg_pool2d(F.pad(sources.float(), (1, 1, 1, 1), mode="replicate"), 3, 1)
    warm = 128 + 0.5 * (soft - 128) + torch.tensor([40.0, 20.0, -10.0])[:, None, None]
    return Seen(warm.round().clamp(0, 255).to(torch.uint8), reals, sources, "a2b")


def with_fakes(seen: Seen, fakes: torch.Tensor, sources: bool = True, **quality) -> Seen:
    return Seen(fakes, seen.reals, seen.sources if sources else None, seen.way, quality)


def names(*seen: Seen, logits=()) -> list[str]:
    return [alarm["name"] for alarm in alarms(seen, logits)]


def test_honest_fakes_raise_none(honest):
    assert names(honest) == []
    assert names(with_fakes(honest, honest.fakes, sources=False)) == []
    reals = render(0, range(900, 900 + N), 32, style="fair").image
    assert names(with_fakes(honest, reals, sources=False)) == []
    assert names(Seen(honest.fakes.float() / 127.5 - 1, honest.reals, honest.sources)) == []


def grain(images: torch.Tensor, sd: float) -> torch.Tensor:
    noise = sd * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def blue_inverted(images: torch.Tensor) -> torch.Tensor:
    return torch.cat([images[:, :2], 255 - images[:, 2:]], 1)


FAILURES = {
    "one picture": (lambda seen: grain(seen.fakes[:1].expand(N, -1, -1, -1), 2), "collapse"),
    "five pictures": (lambda seen: seen.fakes[torch.arange(N) % 5], "collapse"),
    "grey": (lambda seen: torch.full_like(seen.fakes, 128), "collapse"),
    "the sources": (lambda seen: seen.sources, "copied-input"),
    "the sources with grain": (lambda seen: grain(seen.sources, 6), "copied-input"),
    "another's fakes": (lambda seen: seen.fakes.roll(7, 0), "ignored-input"),
    "inverted": (lambda seen: 255 - seen.fakes, "inverted"),
    "blue inverted": (lambda seen: blue_inverted(seen.fakes), "inverted"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_planted_failure_is_named(honest, failure):
    spoil, name = FAILURES[failure]
    found = alarms([with_fakes(honest, spoil(honest))])
    assert name in [alarm["name"] for alarm in found]
    json.dumps(found, allow_nan=False)
    for alarm in found:
        assert set(alarm) == {"name", "level", "way", "figure", "threshold", "sentence", "remedy"}
        assert alarm["way"] == "a2b"
        assert f"{alarm['figure']:.2f}" in alarm["sentence"]
        assert str(alarm["threshold"]) in alarm["sentence"]
        assert line(alarm).startswith(f"alarm: {alarm['name']} a2b: ")


@pytest.mark.parametrize("spoil", [lambda x: 255 - x, blue_inverted], ids=["all", "blue"])
def test_inversion_is_seen_without_sources(spoil):
    """Of bright pictures, against reals of the same kind."""
    rng = torch.Generator().manual_seed(0)
    bright = [(torch.rand(N, 3, 4, 4, generator=rng) * 120 + 130).to(torch.uint8).repeat_interleave(8, 2) for _ in "ab"]
    reals, fakes = (images.repeat_interleave(8, 3) for images in bright)
    assert names(Seen(fakes, reals)) == []
    found = alarms([Seen(spoil(fakes), reals)])
    assert [alarm["name"] for alarm in found] == ["inverted"]
    assert ("blue" in found[0]["sentence"]) == (spoil is blue_inverted)


def test_memorised_images_raise_an_alarm_and_honest_ones_none(honest):
    known = render(0, range(700, 730), 32, style="fair").image
    others = render(0, range(800, 800 + N), 32, style="fair").image
    panel = quality_panel("cpu", None, "round")
    for fakes, expected in ((others, []), (torch.cat([others[:30], known]), ["copied-training"])):
        quality = panel.score(fakes, honest.reals, others, known)
        assert names(Seen(fakes, honest.reals, quality=quality)) == expected


def test_coverage_stands_beside_a_collapse(honest):
    score = {"coverage-conv704-s0": {"value": 0.05, "floor": 0.93}}
    found = alarms([with_fakes(honest, honest.fakes[:1].expand(N, -1, -1, -1), **score)])
    assert "coverage 0.05, where reals have 0.93" in found[0]["sentence"]


def logits(gap: float, n: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 0, n), rng.uniform(gap, gap + 1, n)


def test_a_saturated_detector_is_one_that_wins_twice():
    assert names(logits=[logits(2)]) == []
    assert names(logits=[logits(2), logits(3)]) == ["saturated"]
    assert names(logits=[logits(2), logits(-0.5)]) == []
    assert names(logits=[logits(-0.5), logits(2)]) == []
    found = alarms([], [logits(2), logits(3)])[0]
    assert (found["level"], found["way"]) == ("warning", "")
    assert found["figure"] > 3


def test_logits_out_of_range():
    real, fake = logits(-0.5)
    assert names(logits=[(real, fake * 3 * LARGEST)]) == []  # a few, and those finite
    assert names(logits=[(real * 1e4, fake * 1e4)]) == ["overflow"]
    for bad in (np.nan, np.inf):
        found = alarms([], [(real, np.r_[fake[1:], bad])])
        assert [(alarm["name"], alarm["level"]) for alarm in found] == [("overflow", "alarm")]
        json.dumps(found, allow_nan=False)


def test_too_few_images_raise_none(honest):
    few = Seen(honest.sources[:5], honest.reals[:5], honest.sources[:5])
    assert names(few) == []
    assert alarms([]) == []


def test_false_alarms_on_honest_sets_are_rare():
    """Sixty draws of 24 smooth random pictures, moderately changed: at most one alarm."""
    found = 0
    for seed in range(60):
        rng = torch.Generator().manual_seed(seed)
        sources, reals = 255 * F.interpolate(torch.rand(2, 72, 4, 4, generator=rng), size=32, mode="bicubic")
        sources, reals = (images.view(24, 3, 32, 32) for images in (sources, reals))
        fakes = grain(sources * 0.7 + torch.rand(3, 1, 1, generator=rng) * 60, 15)
        sets = (images.clamp(0, 255).to(torch.uint8) for images in (reals, sources))
        found += len(alarms([Seen(fakes, *sets)]))
    assert found <= 1

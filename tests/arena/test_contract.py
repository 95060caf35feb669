"""What every player in configs/ must keep; a new player is tested by being there."""

import copy

import pytest
import torch
from bitwise import equal

from arena import build
from arena.config import names, resolve
from arena.ledger import Ledger, parts
from arena.seeds import reseed
from arena.training import train

SIZE = 32


class Batches(torch.utils.data.Dataset):
    """Item i is the batch of step i: coloured noise, as the player needs it; labels 0 and 1 in turn for a detector."""

    def __init__(self, player):
        self.labelled, self.stills = hasattr(player, "score"), getattr(player, "needs", "") == "stills"
        self.shape = shape(player)

    def __getitem__(self, step):
        rng = torch.Generator().manual_seed(step)
        images = torch.randint(0, 256, (4, *self.shape), generator=rng, dtype=torch.uint8)
        if not self.labelled:
            return (images,) if self.stills else (images[:2], images[2:])
        labels = torch.tensor([0.0, 1.0, 0.0, 1.0])
        return (images // 2 + (128 * labels).to(torch.uint8).view(-1, *[1] * len(self.shape))), labels


def shape(player):
    """Of an item: an image, or a clip for a detector that looks at clips."""
    frames = getattr(player, "frames", 1)
    return (3, SIZE, SIZE) if frames == 1 else (frames, 3, SIZE, SIZE)


@pytest.fixture(scope="module")
def fabric():
    return build.fabric("cpu", "32-true")


def made(kind, name):
    other = {"generator": "spectrum", "detector": "cyclegan"}[kind]
    who = {"generator": name, "detector": other} if kind == "generator" else {"generator": other, "detector": name}
    return build.build(getattr(resolve([who], "smoke"), kind), 0)


def state(player):
    return {k: copy.deepcopy(part.state_dict()) for k, part in parts(player).items()}


PLAYERS = [("generator", name) for name in names("gen")] + [("detector", name) for name in names("detect")]


@pytest.mark.parametrize(("kind", "name"), PLAYERS)
class TestPlayer:
    def fit(self, player, fabric, steps):
        losses = []
        batches = iter(Batches(player)[i] for i in range(steps))
        floats = (tuple(x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x for x in b) for b in batches)
        fit = player.fit(fabric, floats)
        for step in range(steps):
            reseed(0, step)
            losses.append(next(fit))
        return losses

    def test_fit_yields_finite_detached_scalars_and_learns(self, kind, name, fabric):
        player = made(kind, name)
        before = state(player)
        for losses in self.fit(player, fabric, 3):
            assert losses
            for loss in losses.values():
                assert loss.shape == ()
                assert not loss.requires_grad
                assert loss.isfinite()
        assert not equal(before, state(player))

    def test_fit_ends_with_its_batches(self, kind, name, fabric):
        fit = made(kind, name).fit(fabric, iter(()))
        assert next(fit, None) is None

    def test_same_seed_same_player(self, kind, name, fabric):
        a, b = made(kind, name), made(kind, name)
        assert equal(self.fit(a, fabric, 2), self.fit(b, fabric, 2))

    def test_stopped_and_continued_is_uninterrupted(self, kind, name, fabric, tmp_path):
        """Saved to disk after 2 of 4 steps, loaded into a new player, continued: equal to the bit."""
        found = []
        for cuts in ((4,), (2, 4)):
            with Ledger(tmp_path / str(cuts)) as ledger:
                for stop in cuts:
                    player = made(kind, name)
                    train(
                        fabric,
                        player,
                        Batches(player),
                        name=kind,
                        round=0,
                        steps=stop,
                        seed=0,
                        ledger=ledger,
                    )
                found.append((state(player), ledger.path(f"rounds/00/{kind}.csv").read_text()))
        assert equal(found[0][0], found[1][0])
        assert found[0][1] == found[1][1]

    def test_speaks_images(self, kind, name, fabric):
        player = made(kind, name)
        self.fit(player, fabric, 1)
        images = torch.rand(3, *shape(player)) * 2 - 1
        if kind == "generator":
            rng = torch.Generator().manual_seed(0)
            with torch.inference_mode():
                fakes = player.sample(images, rng=rng)
            assert fakes.shape == images.shape
            assert fakes.abs().max() <= 1
            if hasattr(player, "reconstruct"):
                with torch.inference_mode():
                    assert player.reconstruct(images).shape == images.shape
        else:
            leaf = images.clone().requires_grad_()
            logits = player.score(leaf)
            assert logits.shape == (3,)
            assert logits.dtype == torch.float32
            (grad,) = torch.autograd.grad(logits.sum(), leaf)
            assert grad.isfinite().all()
            assert grad.abs().sum() > 0
            torch.testing.assert_close(player.score(images[:1]), logits[:1].detach(), rtol=1e-4, atol=1e-5)
            for frames in () if player.frames == 1 else (1, player.frames + 1):
                assert player.score(torch.zeros(2, frames, 3, SIZE, SIZE)).shape == (2,)

    def test_penalty_reaches_a_generator(self, kind, name, fabric):
        if kind != "generator":
            pytest.skip("detectors have no penalty")
        a, b = made(kind, name), made(kind, name)
        batch = [tuple(x.float() / 127.5 - 1 for x in Batches(a)[0])]
        for player, penalty in ((a, lambda x: 0 * x.sum()), (b, lambda x: 100 * x.square().mean())):
            reseed(0)
            next(player.fit(fabric, batch, penalty=penalty))
        assert not equal(state(a), state(b))

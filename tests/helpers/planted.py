"""Players whose result is known beforehand, for the arena's own tests."""

import torch
from torch import nn


class Identity:
    """Hands its source back: no detector may tell its fakes from the reals."""

    needs = "domains"

    def __init__(self):
        self.net = nn.Identity()

    def fit(self, fabric, batches, *, penalty=None):
        for a, _ in batches:
            yield {"loss": a.new_zeros(())}

    def sample(self, source, *, rng, reverse=False):
        return source


class Grey(Identity):
    """Paints grey, with a little noise: any detector must find out."""

    def sample(self, source, *, rng, reverse=False):
        return torch.randn(source.shape, generator=rng).to(source) * 0.01


class Shift(Identity):
    """Adds one learnt colour to its source. The penalty is the only thing that moves it."""

    def __init__(self, start: float = 0.8, lr: float = 0.05):
        self.net = nn.Linear(1, 3, bias=False)
        nn.init.constant_(self.net.weight, start)
        self.opt = torch.optim.Adam(self.net.parameters(), lr)

    def fit(self, fabric, batches, *, penalty=lambda images: images.new_zeros(())):
        net, opt = fabric.setup(self.net, self.opt)
        for a, b in batches:
            fake = self.paint(torch.cat([a, b]), net)
            loss = penalty(fake) + 0 * fake.mean()
            opt.zero_grad()
            fabric.backward(loss)
            opt.step()
            yield {"loss": loss.detach()}

    def paint(self, source, net):
        return (source + net(torch.ones(1, 1).to(source)).view(1, 3, 1, 1)).clamp(-1, 1)

    def sample(self, source, *, rng, reverse=False):
        return self.paint(source, self.net)


class Diverging(Identity):
    """Its loss becomes not a number at a step of your choice."""

    def __init__(self, at: int = 3):
        self.net = nn.Linear(1, 1)
        self.at = at

    def fit(self, fabric, batches, *, penalty=None):
        for step, (a, _) in enumerate(batches):
            with torch.no_grad():
                self.net.weight += 1 if step < self.at else float("nan")
            yield {"loss": a.new_tensor(float("nan") if step == self.at else 1.0)}


class Colour:
    """A detector that looks at an image's mean colour through a logistic regression."""

    frames = 1

    def __init__(self, lr: float = 0.1):
        self.net = nn.Linear(3, 1)
        self.layer = self.net
        self.opt = torch.optim.Adam(self.net.parameters(), lr)

    def fit(self, fabric, batches, *, val=()):
        net, opt = fabric.setup(self.net, self.opt)
        for images, labels in batches:
            loss = nn.functional.binary_cross_entropy_with_logits(net(images.mean((2, 3))).squeeze(1), labels)
            opt.zero_grad()
            fabric.backward(loss)
            opt.step()
            yield {"loss": loss.detach()}

    def score(self, images):
        return self.net(images.mean((2, 3))).squeeze(1).float()


class BadGradient(Identity):
    """Its loss is finite, its weights become infinite."""

    def __init__(self):
        self.net = nn.Linear(1, 1)

    def fit(self, fabric, batches, *, penalty=None):
        for a, _ in batches:
            with torch.no_grad():
                self.net.weight.fill_(float("inf"))
            yield {"loss": a.new_ones(())}


class Flicker(Identity):
    """Brightens or darkens its source, by lot for each image: a single frame gives nothing away, a clip does."""

    def sample(self, source, *, rng, reverse=False):
        lots = torch.randint(0, 2, (len(source), 1, 1, 1), generator=rng) * 2 - 1
        return (source + 0.2 * lots.to(source)).clamp(-1, 1)


class Motion:
    """A detector of clips: how much brightness changes from frame to frame, through a logistic regression."""

    def __init__(self, frames: int = 4, lr: float = 0.5):
        self.frames = frames
        self.net = nn.Linear(1, 1)
        self.layer = self.net
        self.opt = torch.optim.Adam(self.net.parameters(), lr)

    def features(self, clips):
        return 10 * clips.mean((2, 3, 4)).diff(dim=1).abs().mean(1, keepdim=True)

    def fit(self, fabric, batches, *, val=()):
        net, opt = fabric.setup(self.net, self.opt)
        for clips, labels in batches:
            assert clips.shape[1] == self.frames
            loss = nn.functional.binary_cross_entropy_with_logits(net(self.features(clips)).squeeze(1), labels)
            opt.zero_grad()
            fabric.backward(loss)
            opt.step()
            yield {"loss": loss.detach()}

    def score(self, clips):
        return self.net(self.features(clips)).squeeze(1).float()


class Blind(Colour):
    """Its layer is one that it never calls."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()


class PassOn(Identity):
    """Hands the source of a pair back; its loss is how far b is from a less ten grey levels, at the worst pixel."""

    needs = "pairs"

    def fit(self, fabric, batches, *, penalty=None):
        for a, b in batches:
            yield {"loss": (a - b - 10 / 127.5).abs().max()}


class Restore(Identity):
    """Guesses a still from its brightest channel; the plain guess is grey."""

    needs = "stills"
    restores = True

    def fit(self, fabric, batches, *, penalty=None):
        for (images,) in batches:
            yield {"loss": images.new_zeros(())}

    def sample(self, source, *, rng, reverse=False):
        return source.amax(1, keepdim=True).expand_as(source)

    def baseline(self, source):
        return torch.zeros_like(source)

"""Explanations against captum and grad-cam where those are right, by hand, and where peers go wrong."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import ResNet, densenet121
from torchvision.models.resnet import BasicBlock

from detect import cnnspot
from detect.cnnspot import CNNSpot
from detect.explain import METHODS, Heat, explain
from detect.spectrum import Spectrum

EVERY = tuple(METHODS)


class Net(nn.Module):
    """Two convolutions, average pooling and one linear layer, with ReLUs of any style and the same weights."""

    def __init__(self, style="modules", act=nn.ReLU):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, 2, 1)
        self.fc = nn.Linear(8, 1)
        self.style, self.one, self.two, self.shared = style, act(), act(), nn.ReLU(inplace=True)
        self.last = nn.Identity()

    def forward(self, x):
        first, second = {
            "modules": (self.one, self.two),
            "shared": (self.shared, self.shared),
            "functional": (F.relu, F.relu),
            "in place": (lambda x: F.relu(x, inplace=True), torch.relu_),
            "method": (torch.Tensor.relu, torch.Tensor.relu_),
        }[self.style]
        x = first(self.norm(self.a(x)))
        return self.fc(self.last(second(self.b(x))).mean((2, 3))).squeeze(1)


class Still:
    """A detector of stills around a net."""

    frames = 1

    def __init__(self, net=None, layer="last"):
        self.net = net or Net()
        self.layer = getattr(self.net, layer)

    def score(self, images):
        self.net.eval()
        return self.net(images)


class Film:
    """A detector of clips: a frame's features, then a recurrent net; all frames at once, or one call a frame."""

    frames = 4

    def __init__(self, loop=False):
        torch.manual_seed(0)
        self.cnn = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 5, 3, 2, 1))
        self.gru, self.fc = nn.GRU(5, 7, batch_first=True), nn.Linear(7, 1)
        self.layer, self.loop = self.cnn, loop

    def score(self, clips):
        for net in (self.cnn, self.gru, self.fc):
            net.eval()
        b, t = clips.shape[:2]
        if self.loop:
            maps = torch.stack([self.cnn(clips[:, k]) for k in range(t)], 1)
        else:
            maps = self.cnn(clips.flatten(0, 1)).unflatten(0, (b, t))
        return self.fc(self.gru(maps.relu().mean((-2, -1)))[0][:, -1]).squeeze(1)


def images(n=4, size=16, seed=0, *more):
    return torch.rand(n, *more, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def clips(n=2, t=3, size=16):
    return images(n, size, 1, t)


def fits(method, detector):
    return not isinstance(detector, Film) or method != "cam"


def near(a, b, rel=1e-5):
    return torch.allclose(a, b, rtol=0, atol=rel * float(b.abs().max()))


# against others' implementations


@pytest.fixture
def captum():
    return pytest.importorskip("captum.attr", exc_type=ImportError)


def strongest(gradient):
    return torch.gather(gradient, 1, gradient.abs().argmax(1, keepdim=True))


def enlarged(maps):
    return F.interpolate(maps, size=(16, 16), mode="bilinear")


@pytest.mark.filterwarnings("ignore")
def test_as_captum(captum):
    player, x = Still(), images()
    player.net.eval()
    cam = captum.LayerGradCam(player.net, player.layer).attribute(x).detach()
    assert near(explain(player, x, "grad-cam").values, enlarged(cam))
    assert near(explain(player, x, "grad-cam", relu=True).values, enlarged(cam.clamp(min=0)))
    guided = strongest(captum.GuidedBackprop(player.net).attribute(x.clone())).detach()
    assert near(explain(player, x, "guided-backprop").values, guided)
    assert near(explain(player, x, "guided-grad-cam").values, enlarged(cam) * guided.abs())
    gradient = captum.Saliency(player.net).attribute(x.clone(), abs=False)
    assert near(explain(player, x, "saliency").values, strongest(gradient))
    drop = captum.Occlusion(player.net).attribute(x, (3, 6, 6), (3, 5, 5), baselines=0.25)
    assert near(explain(player, x, "occlusion", window=6, stride=5, baseline=0.25, batch=7).values, drop[:, :1])


@pytest.mark.filterwarnings("ignore")
def test_as_grad_cam(captum):
    """Grad-cam rectifies and stretches each map to 0 .. 1."""
    peer = pytest.importorskip("pytorch_grad_cam", exc_type=ImportError)

    player, x = Still(), images()
    with peer.GradCAM(nn.Sequential(player.net, nn.Unflatten(0, (-1, 1))), [player.layer]) as method:
        theirs = torch.tensor(method(input_tensor=x, targets=[lambda y: y[0]] * len(x)))
    maps = explain(player, x, relu=True).values[:, 0]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    lit = high[:, 0, 0] > 0
    assert lit.any()
    assert torch.allclose(((maps - low) / (high - low))[lit], theirs[lit], atol=2e-3)


# against hand derivations


def test_grad_cam_by_hand():
    """Behind average pooling and one linear layer the mean gradient is weight / (h w)."""
    player, x = Still(), images()
    player.net.eval()
    kept = []
    player.net.two.register_forward_hook(lambda m, i, o: kept.append(o.detach()))
    player.net(x)
    maps = torch.einsum("bkhw,k->bhw", kept[0], player.net.fc.weight[0].detach())
    assert near(explain(player, x, "grad-cam").values, enlarged(maps[:, None] / 16))
    assert near(explain(player, x, "cam").values, enlarged(maps[:, None]))
    assert near(maps.mean((1, 2)) + player.net.fc.bias.detach(), explain(player, x, "cam").logits)


def test_guided_backprop_by_hand():
    """y = v . relu(W x): what comes back is W^T (v where v > 0 and W x > 0)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 1), nn.Flatten(0))
    player, x = Still(net, "2"), images(3, 4)
    w, v = net[1].weight.detach(), net[3].weight[0].detach()
    open_ = (x.flatten(1) @ w.T + net[1].bias.detach() > 0) & (v > 0)
    truth = ((open_ * v) @ w).view_as(x)
    assert near(explain(player, x, "guided-backprop").values, strongest(truth))


@pytest.mark.parametrize("style", ["shared", "functional", "in place", "method"])
@pytest.mark.parametrize("method", EVERY)
def test_every_style_of_relu_is_the_same_net(style, method):
    player, x = Still(Net(style)), images()
    assert near(explain(player, x, method).values, explain(Still(), x, method).values, 1e-6)


@pytest.mark.parametrize("act", [nn.SiLU, nn.GELU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.PReLU, nn.Identity])
def test_guided_backprop_refuses_what_it_is_not_defined_for(act):
    net = Net(act=act)
    net.two = nn.ReLU() if act is not nn.Identity else nn.Identity()  # one ReLU does not make it right
    for method in ("guided-backprop", "guided-grad-cam"):
        with pytest.raises(ValueError, match="ReLUs, and this one has"):
            explain(Still(net), images(), method)
    for method in set(EVERY) - {"guided-backprop", "guided-grad-cam"}:
        assert explain(Still(net), images(), method).values.abs().max() > 0


def test_guided_backprop_of_a_densenet_stops_at_its_functional_relus():
    """Its last ReLU is a function: a head of negative weights lets nothing through."""
    torch.manual_seed(0)
    net = nn.Sequential(densenet121(num_classes=1), nn.Flatten(0))
    player = Still(net, "0")
    assert explain(player, images(1, 32), "guided-backprop").values.abs().max() > 0
    net[0].classifier.weight.data = -net[0].classifier.weight.data.abs()
    assert explain(player, images(1, 32), "guided-backprop").values.abs().max() == 0
    assert explain(player, images(1, 32), "saliency").values.abs().max() > 0


def test_occlusion_by_hand():
    player, x = Still(), images(2, 7)
    player.net.eval()
    with torch.no_grad():
        total, count, before = torch.zeros(2, 7, 7), torch.zeros(7, 7), player.net(x)
        for top in (0, 2, 4):  # the last window ends with the picture
            for left in (0, 2, 4):
                copy = x.clone()
                copy[:, :, top : top + 3, left : left + 3] = x.mean((2, 3))[:, :, None, None]
                total[:, top : top + 3, left : left + 3] += (before - player.net(copy))[:, None, None]
                count[top : top + 3, left : left + 3] += 1
    for batch in (1, 5, 100):
        found = explain(player, x, "occlusion", window=3, stride=2, batch=batch)
        assert near(found.values[:, 0], total / count)
    assert explain(player, images(1, 8), "occlusion", window=3, stride=3).values.isfinite().all()


# what the lab's detectors need


def test_a_batch_is_as_good_as_single_images():
    for player, x in ((Still(Net("shared")), images()), (Film(), clips(4)), (Still(), clips(4))):
        for method in filter(lambda name: fits(name, player), EVERY):
            found = explain(player, x, method)
            assert found.values.shape == (4, 3 if x.ndim == 5 else 1, 16, 16)
            assert found.values.flatten(1).abs().amax(1).count_nonzero() >= 3, method
            single = [explain(player, x[k : k + 1], method) for k in range(4)]
            rounding = 1e-4 if method == "occlusion" else 1e-5  # small differences of logits
            assert near(found.values, torch.cat([one.values for one in single]), rounding), method
            assert near(found.logits, torch.cat([one.logits for one in single])), method


@pytest.mark.parametrize("method", EVERY)
def test_frozen_or_without_gradients_outside(method):
    player, x = Still(Net("in place")), images()
    truth = explain(player, x, method).values
    with torch.no_grad():
        assert torch.equal(explain(player, x, method).values, truth)
    with torch.inference_mode():
        assert torch.equal(explain(player, x * 1, method).values, truth)
    player.net.requires_grad_(False)
    assert torch.equal(explain(player, x, method).values, truth)
    with torch.inference_mode():
        assert torch.equal(explain(player, x * 1, method).values, truth)
    assert not x.requires_grad


def snapshot(net):
    """All that a look must leave alone."""

    def hooks(m):
        return [list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)]

    return (
        {name: (id(m), m.training, getattr(m, "inplace", None), hooks(m)) for name, m in net.named_modules()},
        {name: (p.requires_grad, p._version, p.grad is None or p.grad.tolist()) for name, p in net.named_parameters()},
        {name: b.tolist() for name, b in net.named_buffers()},
    )


@pytest.mark.parametrize("method", EVERY)
def test_the_detector_is_left_as_it_was(method):
    net = Net("shared").train()
    net.norm.eval()
    net.a.weight.requires_grad_(False)
    net.fc.weight.grad = torch.ones(1, 8)
    called = []
    net.last.register_forward_hook(lambda *_: called.append(1))
    player, before = Still(net), snapshot(net)
    explain(player, images(), method)
    assert snapshot(net) == before
    assert called

    def broken(x):
        player_score(x)
        raise RuntimeError("out of memory")

    player_score, player.score = player.score, broken
    with pytest.raises(RuntimeError, match="out of memory"):
        explain(player, images(), method)
    assert snapshot(net) == before


def test_a_relu_that_overwrites_the_layers_output_does_not_reach_the_map():
    """Batch normalisation followed by a ReLU in place: the layer's output is what it was before."""
    x = images()
    inplace, plain = (explain(Still(Net(style), "norm"), x).values for style in ("in place", "modules"))
    assert near(inplace, plain, 1e-6)
    assert not near(inplace, explain(Still(Net(), "one"), x).values, 0.01)


@pytest.mark.parametrize("method", [m for m in EVERY if m != "cam"])
def test_clips(method):
    x = clips()
    flat, loop = explain(Film(), x, method), explain(Film(loop=True), x, method)
    assert flat.values.shape == (2, 3, 16, 16)
    assert flat.logits.shape == (2,)
    assert flat.values.abs().amax((0, 2, 3)).min() > 0
    assert near(flat.values, loop.values)
    one = explain(Film(), x[:, 0], method)  # an image is a clip of one frame
    assert torch.equal(one.values, explain(Film(), x[:, :1], method).values)


@pytest.mark.parametrize("method", [m for m in EVERY if m != "cam"])
def test_only_the_frame_that_counts(method):
    class Third(Still):
        frames = 4

        def score(self, clips):
            return super().score(clips.flatten(0, 1)).unflatten(0, (-1, 4))[:, 2]

    x = clips(2, 4)
    keywords = {"baseline": 0.0} if method == "occlusion" else {}
    found, truth = (
        explain(Third(), x, method, **keywords).values,
        explain(Still(), x[:, 2], method, **keywords).values,
    )
    assert near(found[:, 2], truth[:, 0])
    assert truth.abs().max() > 0
    assert found[:, [0, 1, 3]].abs().max() == 0


def test_of_a_still_detector_a_clips_mean_logit_is_explained():
    player, x = Still(), clips(2, 3)
    frames = x.flatten(0, 1)
    for method in ("cam", "grad-cam", "saliency", "guided-backprop", "counterfactual"):
        found, single = explain(player, x, method), explain(player, frames, method)
        assert near(found.logits, single.logits.view(2, 3).mean(1))
        share = 1 if method == "cam" else 1 / 3  # CAM has no gradient to share out: its mean is the logit
        assert near(found.values, single.values.view(2, 3, 16, 16) * share)
    by_three = explain(player, x, "occlusion", span=3, window=16, baseline=0.0).values
    assert torch.equal(by_three[:, 0], by_three[:, 2])
    blank = player.score(torch.zeros(1, 3, 16, 16))
    assert near(by_three[:, 0, 0, 0], (player.score(frames).view(2, 3).mean(1) - blank).detach())


@pytest.fixture
def spot(monkeypatch):
    monkeypatch.setattr(cnnspot, "resnet50", lambda num_classes: ResNet(BasicBlock, [1, 1, 1, 1], num_classes))
    torch.manual_seed(0)
    return CNNSpot(weights=None, stem_stride=2)


@pytest.mark.parametrize("method", EVERY)
def test_of_the_labs_own_detector(spot, method):
    found = explain(spot, images(2, 32), method)
    values = found.values + (explain(spot, images(2, 32), relu=True).values if method == "counterfactual" else 0)
    assert torch.equal(found.logits, spot.score(images(2, 32)).detach())
    assert values.isfinite().all()
    assert values.abs().max() > 0
    assert found.scale
    assert found.method == method


def test_a_map_of_frequencies_is_not_taken_for_a_map_of_places():
    player, x = Spectrum(bins=8, capacity=8), images(2, 16)
    player.model.weight.normal_(generator=torch.Generator().manual_seed(0))
    for method in ("grad-cam", "counterfactual"):
        with pytest.raises(ValueError, match="16 x 9 is no picture of the 16 x 16"):
            explain(player, x, method)
    for method in ("saliency", "occlusion"):
        assert explain(player, x, method).values.abs().max() > 0


# what the numbers mean


@pytest.mark.parametrize("method", ["cam", "grad-cam", "occlusion", "saliency"])
def test_the_sign_is_the_evidences_direction(method):
    player, x = Still(), images()
    before = explain(player, x, method)
    player.net.fc.weight.data.neg_()
    player.net.fc.bias.data.neg_()
    after = explain(player, x, method)
    assert near(after.logits, -before.logits)
    assert near(after.values, -before.values)


def test_guided_grad_cam_has_the_sign_of_grad_cam():
    x = images()
    fine, coarse = (explain(Still(), x, method).values for method in ("guided-grad-cam", "grad-cam"))
    lit = fine != 0
    assert lit.float().mean() > 0.3
    assert (fine[lit] < 0).any()
    assert torch.equal(fine[lit].sign(), coarse[lit].sign())


def test_the_counterfactual_is_the_evidence_for_real():
    player, x = Still(), images()
    player.net.last = player.layer = nn.Upsample(scale_factor=4)  # no enlarging later, so that parts stay parts
    whole, rest = explain(player, x), explain(player, x, "counterfactual")
    assert torch.equal(rest.values, whole.values.clamp(max=0))
    assert rest.values.min() < 0
    assert torch.equal(rest.values + explain(player, x, relu=True).values, whole.values)


@pytest.mark.parametrize("method", EVERY)
def test_weak_evidence_stays_weak(method):
    player, x = Still(), images()
    strong = explain(player, x, method)
    player.net.fc.weight.data /= 100
    weak = explain(player, x, method)
    factor = 100**2 if method == "guided-grad-cam" else 100  # a product of two
    assert near(weak.values * factor, strong.values, 1e-3)
    assert weak.limit == pytest.approx(strong.limit / factor, rel=1e-2)
    player.net.fc.weight.data.zero_()
    none = explain(player, x, method)
    assert none.values.abs().max() == 0
    assert none.limit == 0


def test_the_limit_holds_all_but_the_outermost_values():
    found = explain(Still(), images(4, 64), "saliency")
    inside = (found.values.abs() <= found.limit).float().mean()
    assert 0.994 < inside < 0.997
    few = Heat(torch.zeros(2, 1, 64, 64), "", "", torch.zeros(2))
    few.values[1, 0, :2, :2] = torch.tensor([[1.0, -2.0], [3.0, -4.0]])  # a spot on an empty picture is no outlier
    assert few.limit == 4


def test_a_flipped_picture_has_the_flipped_map(spot):
    """Places are where they belong: a mirrored input of a mirrored net."""
    player, x = Still(), images()
    mirrored = Still()
    for ours, theirs in zip(mirrored.net.parameters(), player.net.parameters(), strict=True):
        ours.data = theirs.data.transpose(2, 3).clone() if theirs.ndim == 4 else theirs.data
    for method in EVERY:
        assert near(explain(mirrored, x.mT, method).values, explain(player, x, method).values.mT), method


# errors


def test_clear_errors():
    player, x = Still(), images()
    with pytest.raises(ValueError, match="expected one of cam, grad-cam"):
        explain(player, x, "gradcam")
    with pytest.raises(ValueError, match=r"got torch.uint8 of shape \(4, 3, 16, 16\)"):
        explain(player, (x * 100).to(torch.uint8))
    with pytest.raises(ValueError, match="float images B C H W or clips"):
        explain(player, x[0])
    with pytest.raises(ValueError, match="got 0 of nothing"):
        explain(player, x, layer=nn.Conv2d(3, 3, 1))
    lstm = Still(nn.Sequential(nn.Flatten(), nn.LSTM(768, 1)), "1")
    with pytest.raises(ValueError, match="LSTM's is not"):
        explain(lstm, x)
    with pytest.raises(ValueError, match="stride 9"):
        explain(player, x, "occlusion", window=4, stride=9)
    with pytest.raises(TypeError, match="windows"):
        explain(player, x, "occlusion", windows=4)
    player.score = lambda images: player.net(images) + player.net(images)
    with pytest.raises(ValueError, match=r"2 of \(4, 6, 8, 8\)"):
        explain(player, x, layer=player.net.norm)


@pytest.mark.parametrize("head", ["two layers", "one layer early", "two logits", "max", "doubled"])
def test_cam_refuses_another_head(head):
    class Other(Net):
        def forward(self, x):
            maps = self.last(self.two(self.b(self.one(self.a(x)))))
            pooled = maps.amax((2, 3)) if head == "max" else maps.mean((2, 3))
            if head == "two layers":
                return self.fc(self.more(pooled).relu()).squeeze(1)
            if head == "two logits":
                return self.both(pooled).diff(dim=1).squeeze(1)
            return self.fc(pooled).squeeze(1) * (2 if head == "doubled" else 1)

    net = Other()
    net.more, net.both = nn.Linear(8, 8), nn.Linear(8, 2)
    with pytest.raises(ValueError, match=r"right behind detector\.layer"):
        explain(Still(net, "b" if head == "one layer early" else "last"), images(), "cam")
    assert explain(Still(net), images(), "grad-cam").values.abs().max() > 0


@pytest.mark.parametrize("method", EVERY)
def test_a_score_without_gradients(method):
    player, x = Still(), images()
    truth, score = explain(player, x, method).values, player.score
    player.score = torch.no_grad()(score)
    if method in ("cam", "occlusion"):
        assert torch.equal(explain(player, x, method).values, truth)
    else:
        with pytest.raises(ValueError, match=r"cannot be differentiated|no ReLU"):
            explain(player, x, method)

"""CycleGAN: translate between two unpaired image domains with two generators that must undo each other.

Zhu, Park, Isola, Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017,
arXiv 1703.10593. Section and appendix numbers below are the paper's; "code" is the authors' published implementation.

g: A -> B and f: B -> A are the generators (the paper's G and F), d_a and d_b their discriminators (D_X and D_Y).
Images: B C H W, float in [-1, 1], C = 3, H and W multiples of 4.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gen.blocks import set_grad
from gen.diffaugment import diff_augment
from gen.generator import Penalty, no_penalty


class Residual(nn.Module):
    """R_k: two 3x3 convolutions with reflection padding, added to the input (appendix 7.2). B k H W -> B k H W."""

    def __init__(self, k: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(k, k, 3), nn.InstanceNorm2d(k), nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(k, k, 3), nn.InstanceNorm2d(k),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def resnet_generator(width: int = 64, blocks: int = 9) -> nn.Sequential:
    """c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-3 (appendix 7.2). B 3 H W -> B 3 H W in [-1, 1].

    11,378,179 parameters with 9 blocks, 7,837,699 with 6, at width 64.
    """

    def norm(k: int) -> list[nn.Module]:
        return [nn.InstanceNorm2d(k), nn.ReLU(True)]

    w = width
    net = nn.Sequential(
        nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7), *norm(w),
        nn.Conv2d(w, 2 * w, 3, stride=2, padding=1), *norm(2 * w),
        nn.Conv2d(2 * w, 4 * w, 3, stride=2, padding=1), *norm(4 * w),
        *(Residual(4 * w) for _ in range(blocks)),
        nn.ConvTranspose2d(4 * w, 2 * w, 3, stride=2, padding=1, output_padding=1), *norm(2 * w),
        nn.ConvTranspose2d(2 * w, w, 3, stride=2, padding=1, output_padding=1), *norm(w),
        nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh(),
    )  # fmt: skip
    return net.apply(init_normal)


def patch_discriminator(width: int = 64, layers: int = 3) -> nn.Sequential:
    """C64-C128-C256-C512 and a 1-channel convolution: one logit per 70x70 patch (appendix 7.2). B 3 H W -> B 1 h w.

    2,764,737 parameters at width 64 with 3 layers; receptive field 16, 34, 70, 142 px with 1, 2, 3, 4 layers.
    """
    w = width
    net: list[nn.Module] = [nn.Conv2d(3, w, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
    for n in range(1, layers + 1):
        k_in, k_out = w * min(2 ** (n - 1), 8), w * min(2**n, 8)
        stride = 2 if n < layers else 1
        net += [nn.Conv2d(k_in, k_out, 4, stride, padding=1), nn.InstanceNorm2d(k_out), nn.LeakyReLU(0.2, True)]
    net.append(nn.Conv2d(k_out, 1, 4, padding=1))
    return nn.Sequential(*net).apply(init_normal)


def init_normal(module: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0 (appendix 7.1)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Pool(nn.Module):
    """A history of past fakes for the discriminator to learn from (section 4: "a buffer of 50").

    With probability 1/2 an image that comes in is exchanged for a random one of the history. The history is part of
    the state dict, so that it survives a resume.
    """

    def __init__(self, size: int = 50):
        super().__init__()
        self.size = size
        self.past = torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        if self.size == 0:
            return images
        return torch.cat([self._exchange(part) for part in images.split(self.size)])

    def _exchange(self, images: Tensor) -> Tensor:
        room = self.size - len(self.past)
        if room > 0:
            new, images = images[:room], images[room:]
            self.past = torch.cat([self.past.to(new), new])
            return torch.cat([new, self._exchange(images)]) if len(images) else new
        self.past = self.past.to(images)
        rows = torch.randperm(self.size)[: len(images)].to(images.device)
        swap = (torch.rand(len(images)) < 0.5).to(images.device)[:, None, None, None]
        old = self.past[rows]
        self.past[rows] = torch.where(swap, images, old)
        return torch.where(swap, old, images)

    def get_extra_state(self) -> Tensor:
        return self.past

    def set_extra_state(self, state: Tensor) -> None:
        self.past = state.clone()


def crop_flip(images: Tensor, jitter: float, flip: bool) -> Tensor:
    """Enlarge by `jitter`, crop a random window of the old size, mirror half of them (code: load 286, crop 256)."""
    b, _, h, w = images.shape
    if jitter > 1:
        scaled = [round(h * jitter), round(w * jitter)]
        images = F.interpolate(images, scaled, mode="bicubic", antialias=True, align_corners=False).clamp_(-1, 1)
    top = torch.randint(images.shape[2] - h + 1, (b, 1))
    left = torch.randint(images.shape[3] - w + 1, (b, 1))
    rows, columns = top + torch.arange(h), left + torch.arange(w)
    if flip:
        columns = torch.where(torch.rand(b, 1) < 0.5, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    n = torch.arange(b, device=images.device)
    return images[n[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def lsgan(logits: Tensor, real: bool) -> Tensor:
    """Least-squares GAN loss (section 4, "Training details"): mean of (logit - 1)^2 for real, logit^2 for fake."""
    return F.mse_loss(logits, torch.full_like(logits, float(real)))


class CycleGAN:
    """Two generators, two PatchGAN discriminators, LSGAN + cycle + identity losses.

    Args: `width`, `blocks` of the generators (the paper: 64; 9 blocks from 256 px, 6 at 128 px); `d_width`, `d_layers`
    of the discriminators; weights `adversarial`, `cycle` (lambda = 10, section 4) and `identity` (0.5 lambda, section
    5.2); `pool` past fakes a side; `lr`, `betas` of Adam; `steps`: the learning rate is constant for the first half of
    them and falls linearly to 0 over the second (section 4: 100 + 100 epochs; the default is that of 1,000 images);
    `jitter` and `flip` of the training images.
    Switches: `ema` is the decay of an average of the generators' weights that `sample` then uses; `diffaugment` the
    policies that the discriminators see both kinds through; `joint` translates and reproduces in one call.
    """

    needs: Literal["domains"] = "domains"

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        d_width: int = 64,
        d_layers: int = 3,
        adversarial: float = 1.0,
        cycle: float = 10.0,
        identity: float = 5.0,
        pool: int = 50,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        steps: int = 200_000,
        jitter: float = 286 / 256,
        flip: bool = True,
        ema: float | None = None,
        diffaugment: tuple[Literal["color", "translation", "cutout"], ...] = (),
        joint: bool = False,
    ):
        if width < 1 or blocks < 0 or d_width < 1 or d_layers < 1 or pool < 0 or steps < 1 or jitter < 1:
            raise ValueError("width, d_width, d_layers, steps must be at least 1, blocks, pool at least 0, jitter >= 1")
        if ema is not None and not 0 < ema < 1:
            raise ValueError(f"ema is a decay between 0 and 1 (0.999, say), not {ema}")
        self.weights = {"adversarial": adversarial, "cycle": cycle, "identity": identity}
        self.jitter, self.flip, self.diffaugment, self.joint = jitter, flip, tuple(diffaugment), joint

        self.g, self.f = resnet_generator(width, blocks), resnet_generator(width, blocks)
        self.d_a, self.d_b = patch_discriminator(d_width, d_layers), patch_discriminator(d_width, d_layers)
        self.pool_a, self.pool_b = Pool(pool), Pool(pool)
        if ema is not None:
            self.g_ema = AveragedModel(self.g, multi_avg_fn=get_ema_multi_avg_fn(ema))
            self.f_ema = AveragedModel(self.f, multi_avg_fn=get_ema_multi_avg_fn(ema))
        self.has_ema = ema is not None

        def decay(step: int) -> float:
            return min(1.0, 2 * max(0.0, 1 - step / steps))

        self.opt_g = torch.optim.Adam(chain(self.g.parameters(), self.f.parameters()), lr, betas)
        self.opt_d = torch.optim.Adam(chain(self.d_a.parameters(), self.d_b.parameters()), lr, betas)
        self.sched_g = torch.optim.lr_scheduler.LambdaLR(self.opt_g, decay)
        self.sched_d = torch.optim.lr_scheduler.LambdaLR(self.opt_d, decay)

    def fit(
        self, fabric, batches: Iterable[tuple[Tensor, ...]], *, penalty: Penalty = no_penalty
    ) -> Iterator[dict[str, Tensor]]:
        """Algorithm of section 4: both generators, then both discriminators, one batch (a, b) a step."""
        g, f, d_a, d_b = (fabric.setup_module(net.train()) for net in (self.g, self.f, self.d_a, self.d_b))
        opt_g, opt_d = fabric.setup_optimizers(self.opt_g, self.opt_d)
        w = self.weights

        for a, b in batches:
            a, b = crop_flip(a, self.jitter, self.flip), crop_flip(b, self.jitter, self.flip)

            # Generators: fool the discriminators, come back, leave one's own domain alone
            set_grad(False, d_a, d_b)
            fake_b, same_b = self.translate(g, a, b)
            fake_a, same_a = self.translate(f, b, a)
            loss_adv = lsgan(d_b(self.augment(fake_b)), True) + lsgan(d_a(self.augment(fake_a)), True)
            loss_cycle = F.l1_loss(f(fake_b), a) + F.l1_loss(g(fake_a), b)
            loss_g = w["adversarial"] * loss_adv + w["cycle"] * loss_cycle
            loss_identity = loss_cycle.new_zeros(())
            if same_a is not None and same_b is not None:
                loss_identity = F.l1_loss(same_a, a) + F.l1_loss(same_b, b)
                loss_g = loss_g + w["identity"] * loss_identity
            evasion = penalty(torch.cat([fake_a, fake_b]))
            opt_g.zero_grad()
            fabric.backward(loss_g + evasion)
            opt_g.step()

            # Discriminators: reals against fakes of now and before (eq. 1, with the loss halved as in the code)
            set_grad(True, d_a, d_b)
            old_a, old_b = self.pool_a(fake_a.detach()), self.pool_b(fake_b.detach())
            loss_d = 0.5 * (self.critic(d_a, a, old_a) + self.critic(d_b, b, old_b))
            opt_d.zero_grad()
            fabric.backward(loss_d)
            opt_d.step()

            self.sched_g.step()
            self.sched_d.step()
            if self.has_ema:
                self.g_ema.update_parameters(self.g)
                self.f_ema.update_parameters(self.f)
            losses = {"loss_g": loss_g, "adversarial": loss_adv, "cycle": loss_cycle, "identity": loss_identity}
            losses |= {"penalty": evasion, "loss_d": loss_d}
            yield {name: loss.detach() for name, loss in losses.items()}

    def translate(self, net: nn.Module, source: Tensor, own: Tensor) -> tuple[Tensor, Tensor | None]:
        """net(source) and, where the identity loss wants it, net(own): instance norm makes one call equal to two."""
        if self.weights["identity"] == 0:
            return net(source), None
        if self.joint:
            fake, same = net(torch.cat([source, own])).split([len(source), len(own)])
            return fake, same
        return net(source), net(own)

    def critic(self, d: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """A discriminator's loss over one batch of reals and one of fakes."""
        return lsgan(d(self.augment(real)), True) + lsgan(d(self.augment(fake)), False)

    def augment(self, images: Tensor) -> Tensor:
        return diff_augment(images, self.diffaugment) if self.diffaugment else images

    def sample(self, source: Tensor, *, rng: torch.Generator, reverse: bool = False) -> Tensor:
        """Translate images of A to B, or of B to A with `reverse`. B 3 H W -> B 3 H W; `rng` is not drawn from."""
        return self.translator(reverse).eval()(source)

    def reconstruct(self, images: Tensor, *, reverse: bool = False) -> Tensor:
        """Images of A (of B with `reverse`) there and back again: the cycle of section 3.2. B 3 H W -> B 3 H W."""
        return self.translator(not reverse).eval()(self.translator(reverse).eval()(images))

    def translator(self, reverse: bool) -> nn.Module:
        name = "f" if reverse else "g"
        return getattr(self, f"{name}_ema" if self.has_ema else name)

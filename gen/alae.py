"""ALAE, the adversarial latent autoencoder: a GAN whose generator and discriminator meet in a latent space W.

Pidhorskyi, Adjeroh, Doretto, "Adversarial Latent Autoencoders", CVPR 2020, arXiv 2004.04467. Sections and equations
below are the paper's; "code" is the authors' published implementation.

The generator is G(F(z)), the discriminator D(E(x)), and E(G(w)) = w is learned beside, so that E encodes images and G
decodes them. f: z -> w, g: w -> x, e: x -> w, d: w -> logit. Images x: B 3 S S, float in [-1, 1]; z and w: B K.
"""

import copy
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from gen.alae_nets import Mapping, MLPGenerator, StyleEncoder, StyleGenerator, latent_discriminator, mlp_encoder
from gen.blocks import gradient_penalty, set_grad
from gen.generator import Penalty, no_penalty
from gen.latent import mix


class LatentAutoencoder:
    """The algorithm over any four nets. `levels` is the number of w that g takes for one image (B levels K).

    Latents interface, with the averaged nets: `map`, `encode`, `decode`, `reconstruct`, `truncate`, `mean_w`.
    """

    needs: Literal["stills"] = "stills"

    def __init__(
        self,
        f: Mapping,
        g: nn.Module,
        e: nn.Module,
        d: nn.Module,
        *,
        size: int,
        latent: int,
        levels: int,
        lr: float,
        gamma: float,
        reciprocity: float,
        move_f: bool,
        mixing: float,
        flip: bool,
        psi: float,
        cutoff: int | None,
        ema_half_life: int,
    ):
        if ema_half_life < 1 or not 0 <= mixing <= 1 or gamma < 0 or lr <= 0:
            raise ValueError("ema_half_life must be at least 1, mixing in [0, 1], gamma at least 0, lr more than 0")
        self.size, self.latent, self.levels = size, latent, levels
        self.gamma, self.reciprocity, self.move_f = gamma, reciprocity, move_f
        self.mixing, self.flip, self.psi, self.cutoff = mixing, flip, psi, cutoff
        self.ema_half_life = ema_half_life

        self.f, self.g, self.e, self.d = f, g, e, d
        self.f_ema, self.g_ema, self.e_ema = (copy.deepcopy(net).eval().requires_grad_(False) for net in (f, g, e))
        self.opt_ed = torch.optim.Adam(chain(e.parameters(), d.parameters()), lr, (0.0, 0.99))
        self.opt_fg = torch.optim.Adam(chain(f.parameters(), g.parameters()), lr, (0.0, 0.99))

    def fit(
        self, fabric, batches: Iterable[tuple[Tensor, ...]], *, penalty: Penalty = no_penalty
    ) -> Iterator[dict[str, Tensor]]:
        """Algorithm 1: update E and D, then F and G, then E and G, one batch a step."""
        f, g, e, d = (fabric.setup_module(net.train()) for net in (self.f, self.g, self.e, self.d))
        opt_ed, opt_fg = fabric.setup_optimizers(self.opt_ed, self.opt_fg)

        for batch in batches:
            x = self.reals(batch[-1])

            # I. E and D tell reals from fakes (eq. 6), with R1 (Mescheder et al. 2018) on the reals, which pass the
            # plain nets in full precision: R1 differentiates twice
            set_grad(True, e, d)
            with torch.no_grad():
                fake = g(self.mixed(f, x))
            real = self.d(self.e(x.requires_grad_()))
            r1 = gradient_penalty(real, x)
            loss_ed = F.softplus(d(e(fake))).mean() + F.softplus(-real).mean()
            opt_ed.zero_grad()
            fabric.backward(loss_ed + self.gamma / 2 * r1)
            opt_ed.step()

            # II. F and G fool them
            set_grad(False, e, d)
            fake = g(self.mixed(f, x))
            loss_fg = F.softplus(-d(e(fake))).mean()
            evasion = penalty(self.enlarge(fake).clamp(-1, 1))
            opt_fg.zero_grad()
            fabric.backward(loss_fg + evasion)
            opt_fg.step()

            # III. E and G (F too with `move_f`) bring w back through the image (eq. 7)
            set_grad(True, e)
            set_grad(self.move_f, f)
            w = f(self.noise(x))
            loss_w = F.mse_loss(e(g(self.spread(w))), w.detach())
            opt_ed.zero_grad()
            opt_fg.zero_grad()
            fabric.backward(self.reciprocity * loss_w)
            opt_ed.step()
            opt_fg.step()
            set_grad(True, f)

            self.average(w.detach(), len(x) * fabric.world_size)
            losses = {"loss_ed": loss_ed, "r1": r1, "loss_fg": loss_fg, "penalty": evasion, "reciprocity": loss_w}
            yield {name: loss.detach() for name, loss in losses.items()}

    def reals(self, x: Tensor) -> Tensor:
        """Training images, half of them mirrored with `flip`, at the side that g and e work at."""
        assert x.shape[1:] == (3, self.size, self.size), f"expected images of 3 x {self.size} x {self.size}: {x.shape}"
        if self.flip:
            mirrored = (torch.rand(len(x), 1, 1, 1) < 0.5).to(x.device)
            x = torch.where(mirrored, x.flip(3), x)
        return self.shrink(x).detach()

    def noise(self, like: Tensor) -> Tensor:
        return torch.randn(len(like), self.latent, device=like.device)

    def mixed(self, f: nn.Module, like: Tensor) -> Tensor:
        """B levels K: f(z) for all levels, or with probability `mixing` two z's, from a random level on the second."""
        if not self.mixing:
            return self.spread(f(self.noise(like)))
        coarse, fine = f(torch.cat([self.noise(like), self.noise(like)])).chunk(2)  # one call, whatever the coin says
        level = int(torch.randint(1, self.active, ())) if torch.rand(()) < self.mixing else self.levels
        return mix(self.spread(coarse), self.spread(fine), level)

    def spread(self, w: Tensor) -> Tensor:
        """The same w for all levels. B K -> B levels K; B levels K stays."""
        return w if w.dim() == 3 else w[:, None].expand(-1, self.levels, -1)

    @torch.no_grad()
    def average(self, w: Tensor, images: int) -> None:
        """Move the averages of nets and w towards those of now, by a half in `ema_half_life` images (code: 10,000)."""
        decay = 0.5 ** (images / self.ema_half_life)
        self.f.mean_w.lerp_(w.float().mean(0), 1 - decay)
        for ema, net in ((self.f_ema, self.f), (self.g_ema, self.g), (self.e_ema, self.e)):
            get_ema_multi_avg_fn(decay)(list(ema.parameters()), list(net.parameters()), 0)
            for old, new in zip(ema.buffers(), net.buffers(), strict=True):
                old.copy_(new)

    def sample(self, source: Tensor, *, rng: torch.Generator, reverse: bool = False) -> Tensor:
        """As many fakes as `source` has images, of its device and dtype; its content does not matter. -> B 3 S S."""
        z = torch.randn(len(source), self.latent, generator=rng).to(source)
        return self.decode(self.truncate(self.map(z), self.psi, self.cutoff), rng=rng)

    # The latents, with the averaged nets

    def map(self, z: Tensor) -> Tensor:
        """F: z, B K from N(0, I) -> w, B K."""
        return self.f_ema(z)

    def encode(self, images: Tensor) -> Tensor:
        """E: B 3 S S -> w, B K."""
        return self.e_ema(self.shrink(images))

    def decode(self, w: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """G: w, B K or B levels K -> B 3 S S in [-1, 1], with noise from `rng`, or without noise."""
        return self.enlarge(self.g_ema(self.spread(w), rng)).clamp(-1, 1)

    def reconstruct(self, images: Tensor, *, reverse: bool = False) -> Tensor:
        """G(E(images)), without noise. B 3 S S -> B 3 S S."""
        return self.decode(self.encode(images))

    @property
    def mean_w(self) -> Tensor:
        """The running mean of w, K."""
        return self.f_ema.get_buffer("mean_w")

    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """mean_w + psi (w - mean_w), at the first `cutoff` levels or at all (arXiv 1812.04948, appendix B).

        w: B K or B levels K; the result has the shape of w, but B levels K with a cutoff.
        """
        short = torch.lerp(self.mean_w.to(w), w, psi)
        return short if cutoff is None else mix(self.spread(short), self.spread(w), cutoff)

    # Progressive growing, where there is any

    @property
    def active(self) -> int:
        """How many of the levels g uses now."""
        return self.levels

    def shrink(self, images: Tensor) -> Tensor:
        return images

    def enlarge(self, images: Tensor) -> Tensor:
        return images


class ALAE(LatentAutoencoder):
    """Style-based ALAE (section 5): StyleGAN's generator, and an encoder that reads styles off instance norms.

    Args: `size` of the images, a power of two from 16 to 1024; `latent`, the size of z and w; `width` channels at the
    finest level, twice as many at each coarser one up to `max_width`; `mapping_layers` of F and `mapping_rate`, which
    multiplies their learning rate (code 0.1, StyleGAN 0.01); the defaults are the code's for CelebA. `lr` of Adam
    (None: 0.0015 up to 128 px, 0.002 at 256, 0.003 above); `gamma` of R1; `reciprocity`, weight of the third update;
    `mixing` probability of styles; `noise` in G; `rgb_gain` of its last layer, the contrast of the first images (code
    0.03, StyleGAN 1; around 0.3, the contrast of photographs, learns fastest in short runs); `flip` training images;
    `psi`, `cutoff`: truncation of what `sample` makes; `ema_half_life` in images.
    Paper or code: `move_f` lets the third update move F too (paper: E and G; code: F as well); `linear_d` takes the
    activations out of D (paper: an MLP; code: none between its layers).
    Growing: with `grow` training starts at 4 px and adds a level after every `images_per_level` images, blended in over
    the first half of them; Adam then starts anew (code). With several processes it needs a strategy for unused
    parameters.
    """

    f: Mapping
    g: StyleGenerator
    e: StyleEncoder

    def __init__(
        self,
        size: int = 64,
        latent: int = 256,
        width: int = 64,
        max_width: int = 256,
        mapping_layers: int = 8,
        mapping_rate: float = 0.1,
        lr: float | None = None,
        gamma: float = 10.0,
        reciprocity: float = 1.0,
        move_f: bool = False,
        linear_d: bool = False,
        mixing: float = 0.9,
        noise: bool = True,
        rgb_gain: float = 0.03,
        flip: bool = True,
        psi: float = 1.0,
        cutoff: int | None = None,
        ema_half_life: int = 10_000,
        grow: bool = False,
        images_per_level: int = 1_100_000,
    ):
        if not 16 <= size <= 1024 or size & (size - 1):
            raise ValueError(f"size must be a power of two from 16 to 1024 px, not {size}")
        if min(latent, width, max_width, mapping_layers, images_per_level) < 1:
            raise ValueError("latent, width, max_width, mapping_layers and images_per_level must be at least 1")
        self.lr, self.grow, self.images_per_level = lr, grow, images_per_level
        super().__init__(
            Mapping(latent, mapping_layers, mapping_rate),
            StyleGenerator(size, latent, width, max_width, noise, rgb_gain, grow),
            StyleEncoder(size, latent, width, max_width, grow),
            latent_discriminator(latent, linear_d),
            size=size, latent=latent, levels=2 * size.bit_length() - 4, lr=self.rate(4 if grow else size), gamma=gamma,
            reciprocity=reciprocity, move_f=move_f, mixing=mixing, flip=flip, psi=psi, cutoff=cutoff,
            ema_half_life=ema_half_life,
        )  # fmt: skip

    def rate(self, side: int) -> float:
        """The learning rate at a side in px."""
        return self.lr or {256: 0.002}.get(side, 0.0015 if side < 256 else 0.003)

    def average(self, w: Tensor, images: int) -> None:
        if self.grow:
            self.advance(images)
        super().average(w, images)

    def advance(self, images: int) -> None:
        """Count images towards the next level; at a new one the optimizers forget, and take its learning rate."""
        before, _ = self.g.stage()
        for net in (self.g, self.e):
            net.phase += images / self.images_per_level
        level, _ = self.g.stage()
        if level != before:
            for opt in (self.opt_ed, self.opt_fg):
                opt.state.clear()
                for group in opt.param_groups:
                    group["lr"] = self.rate(4 << level)

    @property
    def active(self) -> int:
        return 2 * self.g.stage()[0] + 2

    def shrink(self, images: Tensor) -> Tensor:
        return self.e.shrink(images)

    def enlarge(self, images: Tensor) -> Tensor:
        factor = self.size // images.shape[-1]
        return F.interpolate(images, scale_factor=factor) if factor > 1 else images


class MLPALAE(LatentAutoencoder):
    """Fully connected ALAE (section 6.1): the paper's for MNIST, at any size.

    Args: `size` of the images; `latent`, the size of z and w; `width` of the two hidden layers of G and E;
    `mapping_layers` of F (the code's for MNIST: 50, 1024, 6); `pixel_init`, the deviation of the initial weights at the
    pixels, E's first and G's last (code: 1): where pixels are many, weights from 1 stay white noise for long, and the
    images with them; from 0.01 it learns 64 px in minutes. The rest as in ALAE.
    """

    def __init__(
        self,
        size: int = 64,
        latent: int = 50,
        width: int = 1024,
        mapping_layers: int = 6,
        mapping_rate: float = 0.1,
        lr: float = 0.002,
        gamma: float = 10.0,
        reciprocity: float = 1.0,
        move_f: bool = False,
        linear_d: bool = False,
        pixel_init: float = 1.0,
        flip: bool = False,
        psi: float = 1.0,
        ema_half_life: int = 10_000,
    ):
        if min(size, latent, width, mapping_layers) < 1:
            raise ValueError("size, latent, width and mapping_layers must be at least 1")
        super().__init__(
            Mapping(latent, mapping_layers, mapping_rate),
            MLPGenerator(size, latent, width, pixel_init),
            mlp_encoder(size, latent, width, pixel_init),
            latent_discriminator(latent, linear_d),
            size=size, latent=latent, levels=1, lr=lr, gamma=gamma, reciprocity=reciprocity, move_f=move_f, mixing=0.0,
            flip=flip, psi=psi, cutoff=None, ema_half_life=ema_half_life,
        )  # fmt: skip

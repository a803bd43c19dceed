"""StarGAN v2: one generator, many domains, many styles a domain.

Source: Choi et al., "StarGAN v2: Diverse Image Synthesis for Multiple Domains", CVPR 2020. The step
has the published gradients for less work: the latent fake and the content of the source are made
once and shared, networks that a step does not train are frozen, the second image of the diversity
term carries no graph. `tests/literal_step.py` keeps the literal step that ours is held against.

Letters in shapes: N batch, D style width, L latent width, H image side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from gen.devices import full_precision
from gen.losses.adversarial import bce, r1
from gen.losses.style import l1
from gen.methods.base import GANMethod, inference, weigh
from gen.networks.face_masks import FAN
from gen.networks.stargan import (
    Discriminator,
    Generator,
    MappingNetwork,
    StyleEncoder,
    init_weights,
)
from gen.schedules import linear_fall

Terms = dict[str, Tensor]


class Phase(NamedTuple):
    """One guided translation of a batch, as the loss terms see it."""

    name: str  # "latent" or "ref"
    batch: dict[str, Tensor]
    z: Tensor | None  # (N, L) the latents of `s`, if these guide
    s: Tensor  # (N, D) target styles
    s2: Tensor | None  # (N, D) second styles of the same domains
    s_org: Tensor | None  # (N, D) styles of the sources
    content: list[Tensor]  # of the sources
    fake: Tensor | None  # (N, 3, H, H) G(x, s)
    mix: Any = None  # Mixup of SmoothI2I: of styles,
    blend: Any = None  # and of images

    @property
    def x(self) -> Tensor:  # (N, 3, H, H) sources
        return self.batch["x"]

    @property
    def y(self) -> Tensor:  # (N,) their domains
        return self.batch["y"]

    @property
    def y_trg(self) -> Tensor:  # (N,) target domains
        return self.batch["y_ref"]


class StarGAN(GANMethod):
    """StarGAN v2, the baseline.

    Args:
        img_size: side of the square images, px; a power of two.
        num_domains: number of visual domains S.
        style_dim: width D of a style code.
        latent_dim: width L of a latent code, z ~ N(0, I).
        base_channels: width of the first layer; 0 means the published 2**14 / img_size.
        max_channels: width where doubling stops, also of the mapping network's hidden layers.
        w_hpf: faces keep their edges, divided by this (CelebA-HQ: 1); needs `init_from`. 0: off.
        lambda_reg: weight of R1, the gradient penalty on real images.
        lambda_sty: weight of style reconstruction, |E(G(x, s)) - s|.
        lambda_ds: weight of diversity at iteration 0, |G(x, s) - G(x, s2)|, which is maximised.
        lambda_cyc: weight of cycle consistency, |G(G(x, s), E(x)) - x|.
        ds_iters: iterations over which lambda_ds falls linearly to 0.
        lr: learning rate of G, E and D (Adam).
        lr_mapping: learning rate of the mapping network F (Adam).
        lr_decay_start: iteration at which both rates begin to fall.
        lr_decay_iters: iterations over which they then fall linearly to 0; 0 keeps them.
        weight_decay: L2 penalty inside Adam's gradient, not decoupled.
        ema_decay: decay of the averaged networks, an iteration.
        r1_every: 1 is R1 in every step of D; k > 1 is every k-th iteration, k times as strong.
        single_d_step: one step of D an iteration, on both fakes, instead of one step for each.
        seed: of the first weights and of all latents drawn in training.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from nothing.
    """

    def __init__(
        self,
        img_size: int = 256,
        num_domains: int = 2,
        style_dim: int = 64,
        latent_dim: int = 16,
        base_channels: int = 0,
        max_channels: int = 512,
        w_hpf: float = 0.0,
        lambda_reg: float = 1.0,
        lambda_sty: float = 1.0,
        lambda_ds: float = 1.0,
        lambda_cyc: float = 1.0,
        ds_iters: int = 100_000,
        lr: float = 1e-4,
        lr_mapping: float = 1e-6,
        lr_decay_start: int = 0,
        lr_decay_iters: int = 0,
        weight_decay: float = 1e-4,
        ema_decay: float = 0.999,
        r1_every: int = 1,
        single_d_step: bool = False,
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        self.save_hyperparameters()
        self.img_size, self.latent_dim = img_size, latent_dim
        width = dict(base_channels=base_channels or None, max_channels=max_channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Generator(img_size, style_dim, w_hpf, **width)
            self.mapping_network = MappingNetwork(latent_dim, style_dim, num_domains, max_channels)
            self.style_encoder = StyleEncoder(img_size, style_dim, num_domains, **width)
            self.discriminator = Discriminator(img_size, num_domains, **width)
            for network in self.children():
                init_weights(network)
            self.fan = FAN() if w_hpf else None
        averaged = ("generator", "mapping_network", "style_encoder")
        self.make_ema({name: getattr(self, name) for name in averaged}, ema_decay)

    def fill(self, state: dict[str, Tensor], source: str) -> None:
        """As its base; a file for inference alone has no discriminator: ours stays as it is."""
        if not any(key.startswith("discriminator.") for key in state):
            rank_zero_info(f"{source}: has no discriminator, training starts with a fresh one")
            state = state | self.discriminator.state_dict(prefix="discriminator.")
        super().fill(state, source)

    # ---- training -------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        h = self.hparams

        def adam(network: nn.Module, lr: float, lazy: float = 1.0) -> torch.optim.Adam:
            betas = (0.0, 0.99**lazy)  # two floats: recent torch refuses mixed numbers
            options = dict(weight_decay=h.weight_decay, fused=True)
            return torch.optim.Adam(network.parameters(), lr * lazy, betas, **options)

        lazy = h.r1_every / (h.r1_every + 1) if h.r1_every > 1 else 1.0  # StyleGAN2, appendix B
        return [
            adam(self.generator, h.lr),
            adam(self.mapping_network, h.lr_mapping),
            adam(self.style_encoder, h.lr),
            adam(self.discriminator, h.lr, lazy),
        ]

    def lr_factor(self, iteration: int) -> float:
        return linear_fall(iteration, self.hparams.lr_decay_start, self.hparams.lr_decay_iters)

    def weights(self, iteration: int) -> dict[str, float]:
        """The weight of every generator term at `iteration`, a pure function of it."""
        h = self.hparams
        fall = max(0.0, 1 - iteration / h.ds_iters) if h.ds_iters else 1.0
        return dict(adv=1.0, sty=h.lambda_sty, ds=-h.lambda_ds * fall, cyc=h.lambda_cyc)

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> None:
        G, F, E, D = self.generator, self.mapping_network, self.style_encoder, self.discriminator
        opt_g, opt_f, opt_e, opt_d = self.optimizers()
        x, y, x_ref, y_trg = batch["x"], batch["y"], batch["x_ref"], batch["y_ref"]
        rng, weights, logs = self.draw(self.hparams.seed), self.weights(self.global_step), {}
        masks = self.masks(x)

        # Discriminator. The latent phase keeps its graph: the generator's step uses it again.
        z, z2 = torch.randn(2, len(x), self.latent_dim, generator=rng).to(x)  # (N, L)
        s, s2 = F(torch.cat([z, z2]), y_trg.repeat(2)).chunk(2)  # (N, D)
        latent = self.phase(rng, "latent", batch, z, s, s2, E(x, y), G.content(x, masks))
        with torch.no_grad():
            s = E(x_ref, y_trg)  # (N, D)
            ref = self.phase(rng, "ref", batch, None, s, None, None, latent.content)
        for phases in [[latent, ref]] if self.hparams.single_d_step else [[latent], [ref]]:
            terms = self.discriminator_terms(phases)
            self.update(sum(terms.values()), opt_d, precise="reg" in terms)
            logs |= {f"d/{name}": value for name, value in terms.items()}
        del ref

        # Generator, mapping network and style encoder, guided by latents.
        with self.frozen(D):
            terms = self.generator_terms(latent, weights)
            self.update(weigh(terms, weights), opt_g, opt_f, opt_e)
        logs |= {f"latent/{name}": value for name, value in terms.items()}
        del latent

        # Generator alone, guided by references: training E here as well is known to degrade it.
        with self.frozen(F, E, D):
            with torch.no_grad():
                images = torch.cat([x_ref, batch["x_ref2"], x])  # (3N, 3, H, H)
                s, s2, s_org = E(images, torch.cat([y_trg, y_trg, y])).chunk(3)  # (N, D)
            ref = self.phase(rng, "ref", batch, None, s, s2, s_org, G.content(x, masks))
            terms = self.generator_terms(ref, weights)
            self.update(weigh(terms, weights), opt_g, last=True)
        logs |= {f"ref/{name}": value for name, value in terms.items()}
        self.finish(logs, batch)

    def phase(self, rng: torch.Generator, *fields: Any) -> Phase:
        """Renders the fake of a phase; `fields` are those of Phase up to `content`."""
        phase = Phase(*fields, fake=None)
        return phase._replace(fake=self.generator.render(phase.content, phase.s))

    def masks(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Where faces (N, 3, H, H) keep their edges, for `Generator.content`."""
        return self.fan.masks(x) if self.fan else None

    def discriminator_terms(self, phases: list[Phase]) -> Terms:
        """Weighted terms of one step of D: real images, R1 when it is due, the fakes' mean."""
        h, D, p, terms = self.hparams, self.discriminator, phases[0], {}
        if h.lambda_reg and self.global_step % h.r1_every == 0:
            with full_precision(p.x.device):  # R1 differentiates twice
                x = p.x.detach().requires_grad_()
                logits = D(x, p.y)  # (N,)
                terms["reg"] = h.lambda_reg * h.r1_every * r1(logits, x)
        else:
            logits = D(p.x, p.y)  # (N,)
        terms["real"] = bce(logits, real=True)
        fakes = torch.cat([p.fake.detach() for p in phases])  # (PN, 3, H, H)
        terms["fake"] = bce(D(fakes, torch.cat([p.y_trg for p in phases])), real=False)
        return terms

    def generator_terms(self, p: Phase, w: dict[str, float]) -> Terms:
        """Unweighted terms of one generator phase; a term of weight 0 is not computed."""
        G, E, D = self.generator, self.style_encoder, self.discriminator
        terms = dict(adv=bce(D(p.fake, p.y_trg), real=True))
        if w["sty"]:
            terms["sty"] = l1(E(p.fake, p.y_trg), p.s)
        if w["ds"]:
            with torch.no_grad():
                fake2 = G.render(p.content, p.s2)  # (N, 3, H, H)
            terms["ds"] = l1(p.fake, fake2)
        if w["cyc"]:
            terms["cyc"] = l1(G(p.fake, p.s_org, self.masks(p.fake)), p.x)
        return terms

    # ---- inference: the averaged networks, no gradients, full precision -------------------------

    @inference
    def map_style(self, z: Tensor, y: Tensor | int) -> Tensor:
        """Latents (N, L) and domains (N,) or one int -> styles (N, D)."""
        return self.ema.module["mapping_network"](z, y)

    @inference
    def encode_style(self, x: Tensor, y: Tensor | int) -> Tensor:
        """Images (N, 3, H, H) and their domains (N,) or one int -> styles (N, D)."""
        return self.ema.module["style_encoder"](x, y)

    @inference
    def mean_style(self, y: int, count: int = 10_000) -> Tensor:
        """The centre (1, D) of domain `y`, over `count` fixed latents: where truncation leads."""
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(count, self.latent_dim, generator=rng).to(self.device)
        return self.map_style(z, y).mean(0, keepdim=True)

    @inference
    def encode(self, x: Tensor) -> list[Tensor]:
        """Sources (N, 3, H, H) -> their content, to be decoded with any number of styles."""
        return self.ema.module["generator"].content(x, self.masks(x))

    @inference
    def decode(self, content: list[Tensor], s: Tensor) -> Tensor:
        """Content of N sources (or of one, for all) and styles (N, D) -> images (N, 3, H, H)."""
        content = [c.expand(len(s), -1, -1, -1) for c in content]
        return self.ema.module["generator"].render(content, s)

    @inference
    def translate(
        self,
        x: Tensor,
        y_trg: Tensor | int,
        z: Tensor | None = None,
        x_ref: Tensor | None = None,
        style: Tensor | None = None,
    ) -> Tensor:
        """Sources (N, 3, H, H) into domains `y_trg`, guided by exactly one of:

        latents `z` (N, L), reference images `x_ref` (N, 3, H, H) of those domains, or styles
        `style` (N, D). Returns images (N, 3, H, H), unbounded; `viz.to_uint8` clamps them.
        """
        if sum(guide is not None for guide in (z, x_ref, style)) != 1:
            raise ValueError("translate: expected exactly one of z, x_ref and style")
        if z is not None:
            style = self.map_style(z, y_trg)
        elif x_ref is not None:
            style = self.encode_style(x_ref, y_trg)
        return self.decode(self.encode(x), style)

    def predict_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        """Every source in every domain, with the latent of its index: (N, S, 3, H, W)."""
        rngs = [torch.Generator().manual_seed(int(i)) for i in batch["index"]]
        z = torch.stack([torch.randn(self.latent_dim, generator=rng) for rng in rngs])
        z, content = z.to(batch["x"]), self.encode(batch["x"])
        domains = range(self.hparams.num_domains)
        return torch.stack([self.decode(content, self.map_style(z, y)) for y in domains], 1)

"""StarGAN v2: one generator, many domains, many styles a domain.

Source: Choi et al., "StarGAN v2: Diverse Image Synthesis for Multiple Domains", CVPR 2020. The step
has the published gradients with less work: the latent fake and the content of the source are
computed once, networks that a step does not train are frozen, and the second image of the diversity
term has no graph. Tests compare the step with the literal one in `tests/literal_step.py`.

Letters in shapes: N batch, D style width, L latent width, H image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from gen.devices import full_precision, send
from gen.files import WeightsError
from gen.losses import at_least_fp32
from gen.losses.adversarial import bce, feature_matching, r1, relativistic
from gen.losses.style import l1
from gen.methods.base import GANMethod, inference, weighted_sum
from gen.methods.schedules import linear_fall
from gen.networks.face_masks import FAN
from gen.networks.feature_discriminator import FeatureDiscriminator
from gen.networks.stargan import (
    Discriminator,
    Generator,
    MappingNetwork,
    StyleEncoder,
    init_weights,
)

Terms = dict[str, Tensor]
VAL_EVERY, VAL_IMAGES = 50, 16  # iterations between checks of D on held-out images; their number


class Phase(NamedTuple):
    """A guided translation of a batch, as the loss terms see it."""

    name: str  # "latent" or "ref"
    rng: torch.Generator  # of this iteration
    batch: dict[str, Tensor]
    z: Tensor | None  # (N, L) latents of `s` in the latent phase
    s: Tensor  # (N, D) target styles
    s2: Tensor | None  # (N, D) second styles of the same domains
    s_org: Tensor | None  # (N, D) styles of the sources
    content: list[Tensor]  # content features of the sources
    fake: Tensor | None  # (N, 3, H, H) G(x, s)
    mix: Any = None  # style Mixup of SmoothI2I
    blend: Any = None  # image Mixup of SmoothI2I

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
        base_channels: channels of the first layer; 0 means the published 2**14 / img_size.
        max_channels: upper limit for the channels of a layer; also the width of the mapping
            network's hidden layers.
        w_hpf: divisor of the high-pass filter that preserves edges of faces (CelebA-HQ: 1); needs
            `init_from`. 0: off.
        rgb_norm: normalise features before the last layer (to RGB), as published; false gives the
            right colours and areas in small or new models.
        skip_px: side, px, of the encoder's feature map that bypasses the bottleneck; 0: none, as
            published; 32 preserves shapes and lines of the source.
        antialias: resample with [1, 3, 3, 1] filters: fewer jagged lines, but slower.
        discriminator: discriminator network: `stargan` as published; `features`, small heads on a
            frozen ImageNet network; `both`. The last two are for small data or short runs;
            evaluate such models with a backbone other than effnetlite0.
        adversarial: loss of D and G: `bce` as published; `relativistic` for long runs: compares
            pairs of real and fake images, with the gradient penalty on fakes too.
        lambda_reg: weight of R1, the gradient penalty on real images.
        lambda_other: weight of real images of other domains as fakes in D; try values above 0 if
            outputs stay in the source's domain.
        lambda_sty: weight of style reconstruction, |E(G(x, s)) - s|.
        lambda_ds: weight at iteration 0 of diversity |G(x, s) - G(x, s2)|, which is maximised.
        lambda_cyc: weight of cycle consistency, |G(G(x, s), E(x)) - x|.
        lambda_fm: weight of feature matching in D between a source and its cycle reconstruction;
            try values above 0 if reconstructions are blurred.
        ds_iters: iterations over which lambda_ds falls linearly to 0.
        lr: learning rate of G, E and D (Adam).
        lr_mapping: learning rate of the mapping network F (Adam).
        lr_decay_start: iteration at which the learning rates begin to fall.
        lr_decay_iters: iterations over which the learning rates fall linearly to 0; 0 keeps them
            constant.
        weight_decay: weight of the L2 penalty inside Adam's gradient, not decoupled.
        ema_decay: decay of the averaged networks per iteration.
        ema_warmup: average over fewer iterations at the start; for runs of a few thousand
            iterations.
        ada_target: target of adaptive augmentation (ADA): mean sign of D's logits of real images.
            Usually 0.6, for small data or long runs; 0: no ADA.
        ada_kimg: thousands of images in which the probability of ADA can rise by 1.
        augment: kinds of augmentation in ADA: `blit`, or the first kinds of blit, geom, color and
            filter by initials, such as `bgc`.
        r1_every: iterations between R1 penalties; k > 1 makes the penalty k times as strong.
        single_d_step: do one step of D per iteration on all fakes, instead of one step for latent
            and one for reference fakes.
        seed: seed of the first weights and of all random numbers in training.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from scratch.
    """

    task = "translator"
    learns_from = "images with references"
    least_domains = 2

    def __init__(
        self,
        img_size: int = 256,
        num_domains: int = 2,
        style_dim: int = 64,
        latent_dim: int = 16,
        base_channels: int = 0,
        max_channels: int = 512,
        w_hpf: float = 0.0,
        rgb_norm: bool = True,
        skip_px: int = 0,
        antialias: bool = False,
        discriminator: Literal["stargan", "features", "both"] = "stargan",
        adversarial: Literal["bce", "relativistic"] = "bce",
        lambda_reg: float = 1.0,
        lambda_other: float = 0.0,
        lambda_sty: float = 1.0,
        lambda_ds: float = 1.0,
        lambda_cyc: float = 1.0,
        lambda_fm: float = 0.0,
        ds_iters: int = 100_000,
        lr: float = 1e-4,
        lr_mapping: float = 1e-6,
        lr_decay_start: int = 0,
        lr_decay_iters: int = 0,
        weight_decay: float = 1e-4,
        ema_decay: float = 0.999,
        ema_warmup: bool = False,
        ada_target: float = 0.0,
        ada_kimg: float = 100.0,
        augment: Literal["blit", "bg", "bgc", "bgcf"] = "bgc",
        r1_every: int = 1,
        single_d_step: bool = False,
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        self.save_hyperparameters()
        self.img_size, self.latent_dim = img_size, latent_dim
        if adversarial == "relativistic" and lambda_other:
            raise ValueError(f"lambda_other: expected 0 with relativistic, got {lambda_other:g}")
        width = dict(base_channels=base_channels or None, max_channels=max_channels)
        form = dict(rgb_norm=rgb_norm, skip_px=skip_px, antialias=antialias)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Generator(img_size, style_dim, w_hpf, **width, **form)
            self.mapping_network = MappingNetwork(latent_dim, style_dim, num_domains, max_channels)
            width["antialias"] = antialias
            self.style_encoder = StyleEncoder(img_size, style_dim, num_domains, **width)
            if discriminator != "features":
                self.discriminator = Discriminator(img_size, num_domains, **width)
            for network in self.children():
                init_weights(network)
            if discriminator != "stargan":
                beside = None if discriminator == "features" else self.discriminator
                self.discriminator = FeatureDiscriminator(num_domains, beside)
            self.fan = FAN() if w_hpf else None
        averaged = ("generator", "mapping_network", "style_encoder")
        self.make_ema({name: getattr(self, name) for name in averaged}, ema_decay, ema_warmup)
        if ada_target:
            self.register_buffer("ada_p", torch.zeros(()))
            self.register_buffer("ada_signs", torch.zeros(2))

    def on_fit_start(self) -> None:
        if self.hparams.discriminator != "stargan":
            self.discriminator.attach()
        super().on_fit_start()

    def load_weights(self, state: dict[str, Tensor], source: str) -> None:
        """Loads weights; parts of the generator that the file lacks start without effect.

        If the file has no discriminator or another kind, the present discriminator and the state of
        augmentation are kept.
        """
        own, D = self.state_dict(), "discriminator."
        theirs = {k: v for k, v in state.items() if k.startswith(D)}
        kept = {k: v for k, v in own.items() if k.startswith("ada_")}
        if theirs.keys() != {k for k in own if k.startswith(D)}:
            what = "another discriminator" if theirs else "no discriminator"
            if self.trainer_or_none:
                rank_zero_info(f"{source}: has {what}, training starts with a fresh one")
            theirs = kept | {k: v for k, v in own.items() if k.startswith(D)}
        state = kept | {k: v for k, v in state.items() if not k.startswith(D)} | theirs
        for prefix in ("generator.", "ema.module.generator."):
            if f"{prefix}from_rgb.weight" in state:
                self.generator.adopt(state, prefix)
        if extra := sorted(k for k in state if k.startswith("generator.") and k not in own):
            raise WeightsError(
                f"{source}: expected the options that the file was trained with (skip_px, "
                f"rgb_norm, w_hpf: see its card), got others: it also has {', '.join(extra[:3])}"
            )
        super().load_weights(state, source)

    # ---- training -------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        h = self.hparams

        def adam(network: nn.Module, lr: float, lazy: float = 1.0) -> torch.optim.Adam:
            betas = (0.0, 0.99**lazy)  # two floats: recent torch refuses a mix of int and float
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
        """Weights of the generator's loss terms, a pure function of the iteration."""
        h = self.hparams
        fall = max(0.0, 1 - iteration / h.ds_iters) if h.ds_iters else 1.0
        return dict(
            adv=1.0, sty=h.lambda_sty, ds=-h.lambda_ds * fall, cyc=h.lambda_cyc, fm=h.lambda_fm
        )

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> None:
        G, F, E, D = self.generator, self.mapping_network, self.style_encoder, self.discriminator
        opt_g, opt_f, opt_e, opt_d = self.optimizers()
        x, y, x_ref, y_trg = batch["x"], batch["y"], batch["x_ref"], batch["y_ref"]
        rng, weights, logs = self.step_rng(self.hparams.seed), self.weights(self.global_step), {}
        masks = self.masks(x)
        self.ask_signs(self.global_step)

        # Discriminator. The latent phase keeps its graph for the generator's step.
        z, z2 = send(torch.randn(2, len(x), self.latent_dim, generator=rng), x)  # (N, L)
        s, s2 = F(torch.cat([z, z2]), y_trg.repeat(2)).chunk(2)  # (N, D)
        latent = self.phase("latent", rng, batch, z, s, s2, E(x, y), G.content(x, masks))
        with torch.no_grad():
            s = E(x_ref, y_trg)  # (N, D)
            ref = self.phase("ref", rng, batch, None, s, None, None, latent.content)
        for phases in [[latent, ref]] if self.hparams.single_d_step else [[latent], [ref]]:
            terms = self.discriminator_terms(phases)
            self.update(sum(terms.values()), opt_d, precise="reg" in terms)
            logs |= {f"d/{name}": value for name, value in terms.items()}
        del ref
        if self.hparams.ada_target:
            self.adapt(self.world * len(x))
            logs["ada/p"] = self.ada_p
        if self.global_step % VAL_EVERY == 0:
            logs |= self.look_at_validation(batch)

        # Generator, mapping network and style encoder, guided by latents.
        with self.frozen(D):
            terms = self.generator_terms(latent, weights)
            self.update(weighted_sum(terms, weights), opt_g, opt_f, opt_e)
        logs |= {f"latent/{name}": value for name, value in terms.items()}
        del latent

        # Generator only, guided by references: training E here is known to degrade it.
        with self.frozen(F, E, D):
            with torch.no_grad():
                images = torch.cat([x_ref, batch["x_ref2"], x])  # (3N, 3, H, H)
                s, s2, s_org = E(images, torch.cat([y_trg, y_trg, y])).chunk(3)  # (N, D)
            ref = self.phase("ref", rng, batch, None, s, s2, s_org, G.content(x, masks))
            terms = self.generator_terms(ref, weights)
            self.update(weighted_sum(terms, weights), opt_g, last=True)
        logs |= {f"ref/{name}": value for name, value in terms.items()}
        self.finish(logs, batch)

    def phase(self, *fields: Any) -> Phase:
        """Renders the fake of a phase; `fields` are those of Phase up to `content`."""
        phase = Phase(*fields, fake=None)
        return phase._replace(fake=self.generator.render(phase.content, phase.s))

    def masks(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Masks of faces (N, 3, H, H) whose edges are preserved, for `Generator.content`."""
        return self.fan.masks(x) if self.fan else None

    def discriminator_terms(self, phases: list[Phase]) -> Terms:
        """Weighted loss terms of one step of D: real images, fakes, and R1 if it is due."""
        h, D, p, terms = self.hparams, self.discriminator, phases[0], {}
        paired = h.adversarial == "relativistic"  # each fake with a real image of its domain
        x, y = (p.batch["x_ref"], p.y_trg) if paired else (p.x, p.y)
        fakes = torch.cat([q.fake.detach() for q in phases])  # (PN, 3, H, H)
        y_fake = torch.cat([q.y_trg for q in phases])
        if h.lambda_reg and self.global_step % h.r1_every == 0:
            real, penalty = self.penalised(x, y, p.rng)  # (N,)
            if paired:  # R2
                fake, more = self.penalised(fakes, y_fake, p.rng)
                penalty = penalty + more
            terms["reg"] = h.lambda_reg * h.r1_every * penalty
        else:
            features = D.features(self.augmented(x, p.rng))
            real = D.head(features, y)
        if not paired or "reg" not in terms:
            fake = D(self.augmented(fakes, p.rng), y_fake)  # (PN,)
        if paired:
            terms["adv"] = relativistic(torch.cat([real] * len(phases)), fake)
        else:
            terms["real"], terms["fake"] = bce(real, real=True), bce(fake, real=False)
        if h.lambda_other:
            if "reg" in terms:
                features = D.features(self.augmented(x, p.rng))
            other, valid = D.head(features, p.y_trg), (p.y_trg != p.y).float()  # (N,)
            terms["other"] = h.lambda_other * bce(other, real=False, weight=valid)
        if h.ada_target:
            self.count_signs(real)
        return terms

    def penalised(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """D's logits and R1 of images (N, 3, H, H), in fp32 because R1 differentiates twice."""
        with full_precision(x.device):
            x = at_least_fp32(x.detach()).requires_grad_()
            logits = self.discriminator(self.augmented(x, rng), y)  # (N,) or (N, P)
            return logits, r1(logits, x)

    @torch.no_grad()
    def look_at_validation(self, batch: dict[str, Tensor]) -> Terms:
        """Mean logits of D for the batch and for held-out images. D overfits if the first rise and
        the second fall. Compare their trends, not their difference: training images are augmented
        crops, held-out images are whole."""
        if self.trainer_or_none is None or self.trainer.datamodule is None:
            return {}
        D, val = self.discriminator, self.trainer.datamodule.val
        chosen = torch.randperm(len(val), generator=self.step_rng(self.hparams.seed + 1))[
            :VAL_IMAGES
        ]
        held_out = [val[i] for i in chosen.tolist()]
        x = send(torch.stack([item["x"] for item in held_out]), self.device)  # (M, 3, H, H)
        y = send(torch.tensor([item["y"] for item in held_out]), self.device)
        return {
            "d/logit_train": D(batch["x"], batch["y"]).float().mean(),
            "d/logit_val": D(x, y).float().mean(),
        }

    def generator_terms(self, p: Phase, w: dict[str, float]) -> Terms:
        """Unweighted terms of one generator phase; a term of weight 0 is not computed."""
        G, E, D = self.generator, self.style_encoder, self.discriminator
        logits = D(self.augmented(p.fake, p.rng), p.y_trg)  # (N,) or (N, P)
        if self.hparams.adversarial == "relativistic":
            with torch.no_grad():
                real = D(self.augmented(p.batch["x_ref"], p.rng), p.y_trg)
            terms = dict(adv=relativistic(logits, real))
        else:
            terms = dict(adv=bce(logits, real=True))
        if w["sty"]:
            terms["sty"] = l1(E(p.fake, p.y_trg), p.s)
        if w["ds"]:
            with torch.no_grad():
                fake2 = G.render(p.content, p.s2)  # (N, 3, H, H)
            terms["ds"] = l1(p.fake, fake2)
        if w["cyc"] or w["fm"]:
            back = G(p.fake, p.s_org, self.masks(p.fake))  # (N, 3, H, H)
            if w["cyc"]:
                terms["cyc"] = l1(back, p.x)
            if w["fm"]:
                terms["fm"] = feature_matching(D.maps(p.x), D.maps(back))
        return terms

    # ---- inference: the averaged networks, no gradients, full precision -------------------------

    @inference
    def map_style(self, z: Tensor, y: Tensor | int) -> Tensor:
        """Latents (N, L), domain indices or names (N,), or one domain -> styles (N, D)."""
        y = self.domain(y, self.hparams.num_domains, len(self.checked_latents(z)))
        return self.ema.module["mapping_network"](z, y)

    @inference
    def encode_style(self, x: Tensor, y: Tensor | int) -> Tensor:
        """Images (N, 3, H, H), their domains (N,), or one domain -> styles (N, D)."""
        y = self.domain(y, self.hparams.num_domains, len(self.checked(x, "images")))
        return self.ema.module["style_encoder"](x, y)

    @inference
    def mean_style(self, y: int | str, count: int = 10_000) -> Tensor:
        """Mean style (1, D) of domain `y` over `count` fixed latents, the centre of truncation."""
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(count, self.latent_dim, generator=rng).to(self.device)
        return self.map_style(z, y).mean(0, keepdim=True)

    @inference
    def encode(self, x: Tensor) -> list[Tensor]:
        """Sources (N, 3, H, H) -> content features, to decode with any number of styles."""
        self.checked(x)
        return self.ema.module["generator"].content(x, self.masks(x))

    @inference
    def decode(self, content: list[Tensor], s: Tensor) -> Tensor:
        """Content of N sources, or of one for all, and styles (N, D) -> images (N, 3, H, H)."""
        sources, width = len(content[0]), self.hparams.style_dim
        if s.ndim != 2 or s.shape[1] != width or sources not in (1, len(s)):
            got = f"{tuple(s.shape)} for {sources} sources"
            raise ValueError(f"style: expected (N, {width}) for N sources or one, got {got}")
        content = [c.expand(len(s), -1, -1, -1) for c in content]
        return self.ema.module["generator"].render(content, s)

    @inference
    def translate(
        self,
        x: Tensor,
        y_trg: Tensor | int | str | Sequence[str],
        z: Tensor | None = None,
        x_ref: Tensor | None = None,
        style: Tensor | None = None,
    ) -> Tensor:
        """Translates sources (N, 3, H, H) into domains `y_trg` (N,), or into one domain.

        Give exactly one guide: latents `z` (N, L), reference images `x_ref` (N, 3, H, H) of the
        target domains, or styles `style` (N, D). Returns images (N, 3, H, H), unbounded;
        `viz.to_uint8` clamps them.

        Raises:
            ValueError: wrong dtype, range or shape of a tensor, or an unknown domain.
        """
        if sum(guide is not None for guide in (z, x_ref, style)) != 1:
            raise ValueError("translate: expected exactly one of z, x_ref and style")
        y_trg = self.domain(y_trg, self.hparams.num_domains, len(self.checked(x)))
        if z is not None:
            style = self.map_style(z, y_trg)
        elif x_ref is not None:
            style = self.encode_style(x_ref, y_trg)
        return self.decode(self.encode(x), style)

    def predict_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        """Translates each source into each domain, latent by index: (N, S, 3, H, W)."""
        rngs = [torch.Generator().manual_seed(int(i)) for i in batch["index"]]
        z = torch.stack([torch.randn(self.latent_dim, generator=rng) for rng in rngs])
        z, content = z.to(batch["x"]), self.encode(batch["x"])
        domains = range(self.hparams.num_domains)
        return torch.stack([self.decode(content, self.map_style(z, y)) for y in domains], 1)

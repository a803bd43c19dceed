"""Smooth multi-domain image-to-image translation: StarGAN v2 with a compact style space.

Sources: Liu et al., "Smoothing the Disentangled Latent Style Space for Unsupervised Image-to-Image
Translation", CVPR 2021 (style triplet, compactness, content); Liu et al., arXiv 2210.00841
(shrinkage, Mixup; the formulas are our reading of its abstract). Weight 0 turns a term off. The
terms on styles do not depend on G, and the reference phase trains only G. So they are computed in
the latent phase only: the same gradients as in the released code at a lower cost.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gen.devices import send
from gen.interpolation import lerp
from gen.losses.adversarial import bce
from gen.losses.perceptual import content
from gen.losses.style import (
    compactness,
    l1,
    mixup_partner,
    moment_matching,
    shrinkage,
    style_triplet,
)
from gen.methods.stargan import Phase, StarGAN, Terms
from gen.networks.perceptual import LPIPS


class Mix(NamedTuple):
    """A mix of the batch with a permutation of itself: lam * i + (1 - lam) * j."""

    lam: Tensor  # (M,) in [0, 1]
    y_i: Tensor  # (M,)
    y_j: Tensor  # (M,)
    j: Tensor  # (M,) index of the partner
    x: Tensor | None = None  # (M, 3, H, H) images, generated from mixed styles or blended
    s: Tensor | None = None  # (M, D) mixed styles

    def of(self, values: Tensor) -> Tensor:
        """Values (N, ...) -> mixed values (M, ...)."""
        lam = self.lam.view(-1, *[1] * (values.ndim - 1))
        return lerp(values[self.j], values[: len(lam)], lam)


class SmoothI2I(StarGAN):
    """StarGAN v2 whose style interpolations change gradually.

    Args:
        lambda_tri: weight of the style triplet loss.
        margin: margin of the style triplet loss, a distance of styles.
        lambda_sr: weight of style compactness (style regularisation) after its ramp.
        lambda_cont: weight of the content loss, LPIPS (AlexNet) between source and translation.
        content_shift: largest random shift, px, of the inputs of the content network; prevents a
            lattice pattern in outputs; 0 as published.
        content_scale: integer factor by which the inputs of the content network are enlarged; use 2
            for images below 128 px.
        lambda_shr: weight of shrinkage of the style space after its ramp.
        shrink: form of shrinkage: `origin` pulls styles to 0, `centroid` to their mean, `pairwise`
            pulls styles of different domains together.
        ramp_start: iteration at which the weights of compactness and shrinkage begin to rise.
        ramp_iters: iterations over which the weights of compactness and shrinkage rise linearly.
        lambda_mix: weight of style Mixup in D and G: images of mixed styles must look real, and E
            must recover the mixed style.
        lambda_mix_image: weight of image Mixup in E: the style of blended images is the blend of
            their styles.
        lambda_mix_d: weight of image Mixup in D: blended real images count as real.
        mixup_beta: both parameters of the Beta distribution of the mixing factor; 1 is uniform.
        mixup_fraction: share of the batch that is mixed.
        mixup_phase: phase with style Mixup: `latent` only, or `both` the latent and the reference
            phase.
        paper_intent: let the triplet loss and compactness also train E, on the styles of
            references.
        lambda_match: weight of moment matching: in each domain, styles of references get the mean
            and spread of styles of latents. Try values above 0 if outputs ignore the reference.
    """

    def __init__(
        self,
        lambda_tri: float = 1.0,
        margin: float = 0.1,
        lambda_sr: float = 1.0,
        lambda_cont: float = 1.0,
        content_shift: int = 7,
        content_scale: int = 1,
        lambda_shr: float = 0.0,
        shrink: Literal["origin", "centroid", "pairwise"] = "origin",
        ramp_start: int = 40_000,
        ramp_iters: int = 60_000,
        lambda_mix: float = 0.0,
        lambda_mix_image: float = 0.0,
        lambda_mix_d: float = 0.0,
        mixup_beta: float = 1.0,
        mixup_fraction: float = 1.0,
        mixup_phase: Literal["latent", "both"] = "latent",
        paper_intent: bool = False,
        lambda_match: float = 0.0,
        **stargan: Any,
    ):
        super().__init__(**stargan)
        self.save_hyperparameters()
        if (lambda_mix or lambda_mix_d) and self.hparams.adversarial == "relativistic":
            raise ValueError("adversarial: expected bce with lambda_mix or lambda_mix_d")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        # In a tuple, so that LPIPS stays out of checkpoints, DDP and optimizers.
        self._lpips = (LPIPS("alex").to(self.device),) if self.hparams.lambda_cont else ()

    def weights(self, iteration: int) -> dict[str, float]:
        h = self.hparams
        ramp = min(1.0, max(0.0, (iteration - h.ramp_start) / max(1, h.ramp_iters)))
        return super().weights(iteration) | dict(
            tri=h.lambda_tri,
            sr=ramp * h.lambda_sr,
            cont=h.lambda_cont,
            shr=ramp * h.lambda_shr,
            mix=h.lambda_mix,
            mix_image=h.lambda_mix_image,
            match=h.lambda_match,
        )

    def phase(self, *fields: Any) -> Phase:
        p, h = super().phase(*fields), self.hparams
        if h.lambda_mix and h.mixup_phase in (p.name, "both"):
            m = self.mix(p.y_trg, p.rng)
            s = m.of(p.s)  # (M, D)
            x = self.generator.render([c[: len(s)] for c in p.content], s)  # (M, 3, H, H)
            p = p._replace(mix=m._replace(s=s, x=x))
        if (h.lambda_mix_image or h.lambda_mix_d) and p.name == "latent":
            m = self.mix(p.y, p.rng)
            p = p._replace(blend=m._replace(s=m.of(p.s_org.detach()), x=m.of(p.x)))
        return p

    def mix(self, y: Tensor, rng: torch.Generator) -> Mix:
        """Draws partners, if possible of other domains, and factors ~ Beta."""
        h, m = self.hparams, math.ceil(self.hparams.mixup_fraction * len(y))
        j = mixup_partner(y, rng)[:m]  # (M,)
        beta = np.random.default_rng(int(torch.randint(2**31, (), generator=rng)))
        lam = send(torch.from_numpy(beta.beta(h.mixup_beta, h.mixup_beta, m)).float(), y)
        return Mix(lam, y[:m], y[j], j)

    def discriminator_terms(self, phases: list[Phase]) -> Terms:
        """Adds mixed images; the share of mixed fakes is lambda_mix / (1 + lambda_mix)."""
        h, terms = self.hparams, super().discriminator_terms(phases)
        mixed = [
            self.mixed_bce(p.mix.x.detach(), p.mix, p.rng, real=False) for p in phases if p.mix
        ]
        if mixed:
            share = h.lambda_mix / (1 + h.lambda_mix)
            terms["mix"] = share * torch.stack(mixed).mean()
            terms["fake"] = (1 - share) * terms["fake"]
        for p in phases:
            if h.lambda_mix_d and p.blend is not None:
                real = self.mixed_bce(p.blend.x, p.blend, p.rng, real=True)
                terms["mix_d"] = h.lambda_mix_d * real
        return terms

    def mixed_bce(self, x: Tensor, m: Mix, rng: torch.Generator, real: bool) -> Tensor:
        """lam BCE(D_i(x)) + (1 - lam) BCE(D_j(x)): Mixup's mixed label; D has a head per domain."""
        D = self.discriminator
        h = D.features(self.augmented(x, rng))  # (M, C)
        i, j = D.head(h, m.y_i), D.head(h, m.y_j)  # (M,)
        return bce(i, real, m.lam) + bce(j, real, 1 - m.lam)

    def seen(self, p: Phase) -> tuple[Tensor, Tensor]:
        """The inputs of the content network: sources and fakes, enlarged and shifted alike with
        mirrored borders. Its first layer has stride 4: without shifts it favours some pixels."""
        h = self.hparams
        x, fake = p.x, p.fake
        if h.content_scale > 1:
            scale = dict(scale_factor=h.content_scale, mode="bilinear")
            x, fake = F.interpolate(x, **scale), F.interpolate(fake, **scale)
        if h.content_shift:
            down, right = torch.randint(h.content_shift + 1, (2,), generator=p.rng).tolist()
            pad = (right, 0, down, 0)
            x, fake = (F.pad(i, pad, "reflect")[..., : i.shape[2], : i.shape[3]] for i in (x, fake))
        return x, fake

    def mixed_style_error(self, m: Mix) -> Tensor:
        """|lam E_i(x) + (1 - lam) E_j(x) - s| for mixed images x with mixed styles s."""
        E = self.style_encoder
        h = E.features(m.x)  # (M, C)
        return l1(lerp(E.head(h, m.y_j), E.head(h, m.y_i), m.lam[:, None]), m.s)

    def generator_terms(self, p: Phase, w: dict[str, float]) -> Terms:
        h, mapping, E = self.hparams, self.mapping_network, self.style_encoder
        terms = super().generator_terms(p, w)
        if w["cont"]:
            terms["cont"] = content(*self.seen(p), self._lpips[0])
        if p.mix is not None:
            adv = self.mixed_bce(p.mix.x, p.mix, p.rng, real=True)
            terms["mix"] = adv + self.mixed_style_error(p.mix)
        if p.name == "ref":  # trains only G, and no other term depends on G
            return terms

        codes = [p.s, p.s_org]
        if w["tri"]:
            other = p.y_trg != p.y  # (N,)
            terms["tri"] = style_triplet(p.s, p.s2, mapping(p.z, p.y), other, h.margin)
        if h.paper_intent or w["match"]:
            refs = torch.cat([p.batch["x_ref"], p.batch["x_ref2"]])  # (2N, 3, H, H)
            s, s2 = E(refs, p.y_trg.repeat(2)).chunk(2)  # (N, D)
            if w["match"]:
                terms["match"] = moment_matching(s, s2, p.s, p.s2)
            codes += [s] * h.paper_intent
            if w["tri"] and h.paper_intent:
                terms["tri"] = terms["tri"] + style_triplet(s, s2, p.s_org, other, h.margin)
        if w["sr"]:
            terms["sr"] = compactness(*codes)
        if w["shr"]:
            styles = torch.cat([p.s, p.s2, p.s_org])  # (3N, D)
            terms["shr"] = shrinkage(styles, torch.cat([p.y_trg, p.y_trg, p.y]), h.shrink)
        if w["mix_image"]:
            terms["mix_image"] = self.mixed_style_error(p.blend)
        return terms

"""An implicit style function: edits the codes of a frozen StyleGAN2, in many ways at once.

Source: Liu et al., "ISF-GAN: An Implicit Style Function for High-Resolution Image-to-Image
Translation", arXiv 2109.12492. M(w, z, d) moves a code w so that its image has the attributes d;
different noise z gives different edits. M learns from generated images that a classifier labels.
Deviations from the release: the generator's noise is fixed, so G(w) is one image. Networks that a
step does not train get no gradients. Only M is averaged. Images in the diversity term are clamped
to [-1, 1]; otherwise maximising it leads out of the visible range. Left out: weights of positive
labels, the identity loss of faces (off in the release), random noise of the generator, and training
codes mixed from two. The adversarial term has weight 1. In W the neighbourhood term sums over L
equal rows, so lambda_nb is sqrt(L) times as strong.

Letters in shapes: N batch, L rows of a code, D its width, K attributes, Z noise, H image side.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.devices import full_precision, send
from gen.losses.adversarial import bce, r1
from gen.losses.perceptual import content
from gen.losses.style import l1, neighbourhood
from gen.methods.base import GANMethod, inference, weighted_sum
from gen.methods.editor import Editor, rows_of
from gen.methods.schedules import half_cosine
from gen.networks import style_function as networks
from gen.networks.perceptual import LPIPS


class StyleFunction(Editor, GANMethod):
    """An implicit style function on the codes of a `StyleGAN2`.

    Args:
        generator: checkpoint of `StyleGAN2` (.safetensors or .ckpt) whose codes are edited.
            Checkpoints of this method contain its weights, so they need no other file.
        judge: checkpoint of `AttributeClassifier` that labels the generator's images in training.
        attributes: names of the K attributes as in the classifier, separated by commas.
        img_size: side H of the images, px; 0: as in the generator's file.
        z_dim: width of the latents; 0: as in the generator's file.
        w_dim: width D of the codes; 0: as in the generator's file.
        map_layers: layers of the mapping network; 0: as in the generator's file.
        channel_base: channels times resolution; 0: as in the generator's file.
        channel_max: upper limit for the channels of a layer; 0: as in the generator's file.
        clamp: limit of the activations; 0: no limit; -1: as in the generator's file.
        psi: truncation of the codes that are edited; 1 is none, 0 the mean code.
        space: space of the edits: `W+` moves each row of a code in its own way, `W` moves all rows
            by the same vector, a function of their mean.
        first_row: first row of a code that M moves, also in training.
        last_row: end (exclusive) of the rows that M moves, also in training; 0: after the last row.
        rows: rows that an edit moves for each changed attribute, both ends included, such as
            `cat:0-3,spots:4-7`; attributes that are not named move all rows. The discriminator
            decides which attributes change. Not used in training.
        noise_dim: width Z of the noise.
        pre_norm: put LayerNorm before each layer, as released for faces; false: after each layer.
        norm: normalisation of a code before modulation: `adaln` LayerNorm, `adain` without learnt
            scale and shift, `none`.
        residual: let M predict a change that is added to the code; false predicts a new code, as
            released.
        d_channels: channels of the first layer in the discriminator.
        d_max_channels: upper limit for the channels of a layer in the discriminator.
        lambda_cls: weight of the classification of attributes, in D and M.
        lambda_latent_cyc: weight of the cycle loss on codes: editing back to the source's
            attributes should give the source's code.
        lambda_image_cyc: weight of the cycle loss on pixels: editing back to the source's
            attributes should give the source image.
        lambda_lpips_cyc: weight of the cycle loss in LPIPS: editing back to the source's attributes
            should give the source image.
        lambda_lpips: weight of LPIPS between source and edited image.
        lambda_nb: weight of the distance between the codes of source and edit.
        lambda_ds: weight of the difference between two edits with different noise, which is
            maximised.
        lambda_reg: weight of R1, the gradient penalty on real images.
        r1_target: logits whose gradient R1 penalises: `cls` for the attribute logits, as released;
            `src` for the real/fake logit.
        r1_every: iterations between R1 penalties; k > 1 makes the penalty k times as strong.
        lr: highest learning rate of M and D (Adam).
        lr_min: learning rate at `lr_iters` and later, reached along half a cosine.
        lr_warmup_iters: iterations over which the learning rate first rises from 5e-7.
        lr_iters: iteration at which the cosine of the learning rate reaches lr_min; 0 keeps lr.
        weight_decay: weight of the L2 penalty inside Adam's gradient.
        clip: largest norm of the gradient of each network; 0: no limit.
        ema_decay: decay of the averaged M per iteration.
        seed: seed of the first weights and of all random numbers in training.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from scratch.
    """

    bounds = {
        **dict.fromkeys(("first_row", "last_row", "noise_dim", "lambda_reg"), (0, inf)),
        **dict.fromkeys(("lr", "lr_min", "lr_warmup_iters", "lr_iters"), (0, inf)),
        **dict(r1_every=(1, inf), weight_decay=(0, inf), clip=(0, inf), ema_decay=(0, 1)),
    }

    def __init__(
        self,
        generator: str = "",
        judge: str = "",
        attributes: str = "",
        img_size: int = 0,
        z_dim: int = 0,
        w_dim: int = 0,
        map_layers: int = 0,
        channel_base: int = 0,
        channel_max: int = 0,
        clamp: float = -1.0,
        psi: float = 0.7,
        space: Literal["W+", "W"] = "W+",
        first_row: int = 0,
        last_row: int = 0,
        rows: str = "",
        noise_dim: int = 64,
        pre_norm: bool = True,
        norm: Literal["adaln", "adain", "none"] = "adaln",
        residual: bool = False,
        d_channels: int = 64,
        d_max_channels: int = 512,
        lambda_cls: float = 2.0,
        lambda_latent_cyc: float = 1.0,
        lambda_image_cyc: float = 1.0,
        lambda_lpips_cyc: float = 1.0,
        lambda_lpips: float = 1.0,
        lambda_nb: float = 0.01,
        lambda_ds: float = 2.0,
        lambda_reg: float = 1.0,
        r1_target: Literal["cls", "src"] = "cls",
        r1_every: int = 1,
        lr: float = 1e-5,
        lr_min: float = 5e-6,
        lr_warmup_iters: int = 5000,
        lr_iters: int = 0,
        weight_decay: float = 1e-5,
        clip: float = 1.0,
        ema_decay: float = 0.999,
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        self.save_hyperparameters()
        self.noise_dim = noise_dim
        K = len(self.attribute_names)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build_generator()
            L = self.generator.mapping.rows
            if not first_row < (last_row or L) <= L:
                got = f"{first_row} and {last_row}"
                raise ValueError(f"expected first_row < last_row <= {L} or 0, got {got}")
            rows_of(rows, self.attribute_names, L)
            self.style_function = networks.StyleFunction(
                L if space == "W+" else 1, K, self.width, noise_dim, pre_norm, norm, residual
            )
            self.discriminator = networks.AttributeDiscriminator(
                self.img_size, K, d_channels, d_max_channels
            )
        self.make_ema({"style_function": self.style_function}, ema_decay)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        needed = self.hparams.lambda_lpips or self.hparams.lambda_lpips_cyc
        self._judges += (LPIPS("alex").to(self.device) if needed else None,)

    # ---- training -------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        h = self.hparams
        options = dict(lr=h.lr, betas=(0.0, 0.99), weight_decay=h.weight_decay, fused=True)
        networks_ = (self.style_function, self.discriminator)
        return [torch.optim.Adam(network.parameters(), **options) for network in networks_]

    def lr_factor(self, iteration: int) -> float:
        h = self.hparams
        if iteration < h.lr_warmup_iters:
            return (5e-7 + (h.lr - 5e-7) * iteration / h.lr_warmup_iters) / h.lr
        if not h.lr_iters:
            return 1.0
        fall = half_cosine(min(iteration, h.lr_iters), h.lr_iters)
        return (h.lr_min + (h.lr - h.lr_min) * fall) / h.lr

    def weights(self) -> dict[str, float]:
        h = self.hparams
        names = ("cls", "latent_cyc", "image_cyc", "lpips_cyc", "lpips", "nb", "ds")
        weights = {name: h[f"lambda_{name}"] for name in names}
        return {"adv": 1.0} | weights | {"ds": -h.lambda_ds}

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> None:
        h, D, w = self.hparams, self.discriminator, self.weights()
        opt_m, opt_d = self.optimizers()
        rng = self.step_rng(h.seed)
        with torch.no_grad():
            ws = self.codes(batch)  # (N, L, D)
            x = self.generator.synthesis(ws)  # (N, 3, H, H)
            y = self.labels(x)  # (N, K)
        if len(y) < 2:
            told = "expected 2 codes, each to be edited to the labels of another, got 1"
            raise ValueError(f"batch_size: {told}; raise --data.batch_size")
        other = send(torch.randperm(len(y), generator=rng), y)
        d = y[other]  # attributes of another image, so d has their joint distribution
        z1, z2, z3 = send(torch.randn(3, len(y), self.noise_dim, generator=rng), x)  # (N, Z)

        # Discriminator.
        with torch.no_grad():
            fake = self.generator.synthesis(self.moved(self.style_function, ws, z1, d))
        due = h.lambda_reg and self.global_step % h.r1_every == 0
        with full_precision(x.device) if due else nullcontext():  # R1 differentiates twice
            real = x.detach().requires_grad_(bool(due))
            cls, src = D(real)  # (N, K), (N,)
            terms = {"real": bce(src, True), "fake": bce(D(fake)[1], False)}
            if h.lambda_cls:
                terms["cls"] = h.lambda_cls * F.binary_cross_entropy_with_logits(cls.float(), y)
            if due:
                smoothed = cls.sum(1) if h.r1_target == "cls" else src
                terms["reg"] = h.lambda_reg * h.r1_every * r1(smoothed, real)
        self.update(sum(terms.values()), opt_d, clip=h.clip, precise=bool(due))
        logs = {f"d/{name}": value for name, value in terms.items()}

        # Style function.
        with self.frozen(D):
            terms = self.function_terms(ws, x, y, d, (z1, z2, z3), w)
            self.update(weighted_sum(terms, w), opt_m, last=True, clip=h.clip)
        self.finish(logs | {f"m/{name}": value for name, value in terms.items()}, batch)

    def function_terms(
        self,
        ws: Tensor,
        x: Tensor,
        y: Tensor,
        d: Tensor,
        z: tuple[Tensor, Tensor, Tensor],
        w: dict[str, float],
    ) -> dict[str, Tensor]:
        """Unweighted loss terms of M; a term of weight 0 is not computed."""
        M, G, lpips = self.style_function, self.generator.synthesis, self._judges[1]
        ws1 = self.moved(M, ws, z[0], d)  # (N, L, D)
        x1 = G(ws1)  # (N, 3, H, H)
        cls, src = self.discriminator(x1)
        terms = {"adv": bce(src, real=True)}
        if w["cls"]:
            terms["cls"] = F.binary_cross_entropy_with_logits(cls.float(), d)
        if w["latent_cyc"] or w["image_cyc"] or w["lpips_cyc"]:
            back = self.moved(M, ws1, z[1], y)
            if w["latent_cyc"]:
                terms["latent_cyc"] = l1(back, ws)
            if w["image_cyc"] or w["lpips_cyc"]:
                x_back = G(back)
                if w["image_cyc"]:
                    terms["image_cyc"] = l1(x_back, x)
                if w["lpips_cyc"]:
                    terms["lpips_cyc"] = content(x, x_back, lpips)
        if w["lpips"]:
            terms["lpips"] = content(x, x1, lpips)
        if w["nb"]:
            terms["nb"] = neighbourhood(ws, ws1)
        if w["ds"]:
            x2 = G(self.moved(M, ws, z[2], d))
            terms["ds"] = l1(x1.clamp(-1, 1), x2.clamp(-1, 1))
        return terms

    def moved(self, function: torch.nn.Module, ws: Tensor, z: Tensor, d: Tensor) -> Tensor:
        """Codes (N, L, D) with M(w, z, d) in the edited rows; the other rows stay."""
        h, L = self.hparams, ws.shape[1]
        if h.space == "W":
            mean = ws.mean(1, keepdim=True)  # (N, 1, D)
            new = ws + (function(mean, z, d) - mean)
        else:
            new = function(ws, z, d)
        first, last = h.first_row, h.last_row or L
        if (first, last) == (0, L):
            return new
        return torch.cat([ws[:, :first], new[:, first:last], ws[:, last:]], 1)

    # ---- inference: the averaged function, no gradients, full precision -------------------------

    @inference
    def edit(self, ws: Tensor, d: Tensor, z: Tensor) -> Tensor:
        """Codes (N, L, D), wanted attributes (N, K) in {0, 1}, noise (N, Z) -> codes (N, L, D)."""
        self.check_request(ws, d, z)
        return self.edited(ws, d, z)

    def edited(self, ws: Tensor, d: Tensor, z: Tensor) -> Tensor:
        """`edit` without checks."""
        new, rows = self.moved(self.ema.module["style_function"], ws, z, d), self.hparams.rows
        if not rows:
            return new
        seen = self.discriminator(self.generator.synthesis(ws))[0] > 0  # (N, K)
        may = rows_of(rows, self.attribute_names, ws.shape[1]).to(ws.device)  # (K, L)
        moves = ((seen != (d > 0))[:, :, None] & may).any(1)  # (N, L)
        return torch.where(moves[:, :, None], new, ws)

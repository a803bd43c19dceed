"""StyleGAN2: an unconditional (or class-conditional) generator of images.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, with the
adaptive augmentation of "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020.
Deviations from the ADA release: a NaN stops the run instead of becoming 0. Running averages are
taken over all processes. The data module mirrors real images, not the step. Only logits of the
adversarial step adapt the augmentation, not those of R1; the augmentation follows one iteration
later, without waiting for the GPU.

Letters in shapes: N batch, Z latent width, L rows of a code, D their width, K classes, H side.
Images (N, 3, H, H) are (N, 4, H, H) with `alpha`: a colour that nobody sees is black, and all that
is linear (filters, sums of images, paths) is right at the edges of what is opaque.
"""

from __future__ import annotations

from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from gen import checkpoint as files
from gen.devices import full_precision, rng_on
from gen.files import WeightsError
from gen.losses.adversarial import bce, path_length, path_lengths, r1, relativistic
from gen.methods.base import GANMethod, inference
from gen.methods.schedules import linear_fall
from gen.networks.stylegan2 import Discriminator, Generator
from gen.networks.transfer import transfer

BOUNDS = {
    **dict.fromkeys(("num_domains", "z_dim", "w_dim", "map_layers"), (1, inf)),
    **dict.fromkeys(("r1_every", "pl_every", "pl_shrink"), (1, inf)),
    **dict.fromkeys(("clamp", "group", "lambda_pl", "lr", "ema_kimg", "ema_rampup"), (0, inf)),
    **dict(mixing=(0, 1), ada_target=(-1, 1), ada_kimg=(1e-3, inf)),
}


class StyleGAN2(GANMethod):
    """StyleGAN2, with or without adaptive augmentation (ADA).

    Args:
        img_size: side H of the square images, px; a power of two.
        num_domains: number K of classes, used if `conditional`.
        conditional: generate images of a given class.
        z_dim: width Z of a latent, z ~ N(0, I).
        w_dim: width D of a code.
        map_layers: layers of the mapping network; 8 in the paper, 2 in the release's `auto`.
        channel_base: channels times resolution; 32768 is config F, 16384 is usual below 512 px.
        channel_max: upper limit for the channels of a layer.
        clamp: limit of the activations; 256 in the release, which computes in fp16; 0: no limit.
        noise: add noise between layers, with learnt strength. Use false for images without texture:
            then each code gives exactly one image.
        residual: use residual blocks in the discriminator; false as the release does for CIFAR-10.
        group: number of images whose standard deviation is a feature of the discriminator; 0: the
            batch.
        grey: generate grey images: one channel, which stands for red, green and blue. Data modules
            read grey files this way.
        alpha: generate images with transparency: red, green and blue, each times opacity, and
            opacity. The data needs --data.alpha true, too.
        adversarial: loss of G and D: `bce` as published; `relativistic` compares pairs of real and
            fake images of one class, with the gradient penalty on fakes too (R2).
        lambda_reg: weight of R1, gamma in the papers; below 0: 0.0002 H^2 / batch, as in the
            release.
        lambda_pl: weight of path length regularisation.
        r1_every: iterations between R1 penalties, each in a step of its own; k makes the penalty k
            times as strong.
        pl_every: iterations between path length penalties, each in a step of its own; k makes the
            penalty k times as strong.
        pl_shrink: divisor of the batch size for path length regularisation.
        mixing: probability that codes are mixed from two latents.
        lr: learning rate (Adam).
        lr_decay_start: iteration at which the learning rate begins to fall.
        lr_decay_iters: iterations over which the learning rate falls linearly to 0; 0 keeps it
            constant.
        ema_kimg: half-life of the averaged generator, thousands of images.
        ema_rampup: upper limit of ema_kimg as a share of the images seen so far; 0, or `init_from`:
            no limit.
        ada_target: target of adaptive augmentation (ADA): mean sign of D's logits of real images;
            0: no ADA.
        ada_kimg: thousands of images in which the probability of ADA can rise by 1; usually 100
            if training starts from other weights.
        augment: kinds of augmentation in ADA: one of blit, geom, color, filter, noise and cutout,
            or the first kinds by initials, such as `bgc` or `bgcfnc`.
        seed: seed of the first weights and of all random numbers in training.
        init_from: .safetensors or .ckpt file of this method to start from, also of other size,
            classes, colours or transparency: what fits is kept, and what is new is listed; empty:
            from scratch.
    """

    task = "generator"
    learns_from = "images"

    def __init__(
        self,
        img_size: int = 256,
        num_domains: int = 1,
        conditional: bool = False,
        z_dim: int = 512,
        w_dim: int = 512,
        map_layers: int = 8,
        channel_base: int = 16384,
        channel_max: int = 512,
        clamp: float = 0.0,
        noise: bool = True,
        residual: bool = True,
        group: int = 4,
        grey: bool = False,
        alpha: bool = False,
        adversarial: Literal["bce", "relativistic"] = "bce",
        lambda_reg: float = -1.0,
        lambda_pl: float = 2.0,
        r1_every: int = 16,
        pl_every: int = 4,
        pl_shrink: int = 2,
        mixing: float = 0.9,
        lr: float = 2.5e-3,
        lr_decay_start: int = 0,
        lr_decay_iters: int = 0,
        ema_kimg: float = 20.0,
        ema_rampup: float = 0.05,
        ada_target: float = 0.0,
        ada_kimg: float = 500.0,
        augment: Literal[
            "blit",
            "geom",
            "color",
            "filter",
            "noise",
            "cutout",
            "bg",
            "bgc",
            "bgcf",
            "bgcfn",
            "bgcfnc",
        ] = "bgc",
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        self.save_hyperparameters()
        for name, (low, high) in BOUNDS.items():
            if not low <= (value := self.hparams[name]) <= high:
                raise ValueError(f"expected {name} in {low} .. {high}, got {value}")
        if grey and alpha:
            raise ValueError("expected grey or alpha, got both; leave one out")
        channels = 4 if alpha else 3  # of the images; grey ones are one channel three times
        self.learns_from = "transparent images" if alpha else "images"
        self.img_size, self.latent_dim, self.alpha = img_size, z_dim, alpha
        self.classes = num_domains if conditional else 0  # K
        width = dict(c_dim=self.classes, channel_base=channel_base, channel_max=channel_max)
        width["clamp"] = clamp or None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = dict(w_dim=w_dim, map_layers=map_layers, channels=1 if grey else channels)
            self.generator = Generator(img_size, z_dim, **layers, **width)
            options = dict(group=group or None, residual=residual, channels=channels)
            self.discriminator = Discriminator(img_size, **options, **width)
        if not noise:
            for name, weight in self.generator.named_parameters():
                weight.requires_grad_(not name.endswith("noise_strength"))
        self.make_ema({"generator": self.generator}, decay=0.0)
        self.register_buffer("pl_mean", torch.zeros(()))  # running mean of path lengths
        self.register_buffer("ada_p", torch.zeros(()))  # probability of each augmentation
        self.register_buffer("ada_signs", torch.zeros(2))  # signs of real logits: sum, count

    def load_weights(self, state: dict[str, Tensor], source: str) -> None:
        """Loads weights; if the file has no discriminator, the present one is kept."""
        own = self.state_dict()
        kept = {k: v for k, v in own.items() if k.startswith(("discriminator.", "ada_", "pl_"))}
        if not any(key.startswith("discriminator.") for key in state):
            rank_zero_info(f"{source}: has no discriminator, training starts with a fresh one")
        super().load_weights(kept | state, source)

    # ---- training -------------------------------------------------------------------------------

    def load_init(self) -> None:
        """Loads what fits of `init_from` for training, and says what is new."""
        path = self.hparams.init_from
        if not path or self.trainer.state.fn != "fit":
            super().load_init()
            return
        found = files.read(path)
        if found.method != type(self).__name__:
            raise WeightsError(
                f"init_from: {path}: expected a checkpoint of {type(self).__name__}, got one of "
                f"{found.method}"
            )
        old = found.domains if found.hparams.get("conditional") else []
        classes = self.domains if self.classes else []
        state, new = transfer(self.state_dict(), found.state, classes, old)
        if not state:
            raise WeightsError(
                f"init_from: {path}: expected weights that fit this generator, got none; give "
                "w_dim, channel_base and channel_max as in its card"
            )
        self.load_state_dict(self.state_dict() | state)
        told = f"new, as drawn: {', '.join(new)}" if new else "all that fits"
        if bool(found.hparams.get("alpha")) != self.alpha:
            told += "; new, full at first: opacity" if self.alpha else "; left out: opacity"
        rank_zero_info(f"init_from: started from {path}; {told}")

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        h = self.hparams

        def adam(network: torch.nn.Module, every: int) -> torch.optim.Adam:
            lazy = every / (every + 1)  # every `every` iterations there is one more step
            betas = (0.0, 0.99**lazy)
            return torch.optim.Adam(network.parameters(), h.lr * lazy, betas, fused=True)

        return [adam(self.generator, h.pl_every), adam(self.discriminator, h.r1_every)]

    def lr_factor(self, iteration: int) -> float:
        return linear_fall(iteration, self.hparams.lr_decay_start, self.hparams.lr_decay_iters)

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> None:
        h, i = self.hparams, self.global_step
        opt_g, opt_d = self.optimizers()
        x, c, logs = batch["x"], self.condition(batch["y"]), {}  # (N, 3, H, H), (N, K) or None
        self.ask_signs(i)
        on_host = self.step_rng(h.seed)
        rng = rng_on(x.device, on_host)

        # Generator; every few iterations also path length regularisation.
        with self.frozen(self.discriminator):
            ws = self.codes(len(x), c, rng, average=True)  # (N, L, D)
            fake = self.generator.synthesis(ws, rng)  # (N, 3, H, H)
            logs["g/adv"] = self.generator_loss(fake, x, c, on_host, rng)
            self.update(logs["g/adv"], opt_g)
        if h.lambda_pl and i % h.pl_every == 0:
            with full_precision(x.device):  # differentiates twice
                few = max(1, len(x) // h.pl_shrink)
                ws = self.codes(few, None if c is None else c[:few], rng)
                fake = self.generator.synthesis(ws, rng)
                noise = torch.randn(fake.shape, generator=rng, device=x.device)
                penalty, mean = path_length(path_lengths(fake, ws, noise), self.pl_mean)
            self.pl_mean = self.across(mean)
            logs["g/pl"] = h.lambda_pl * h.pl_every * penalty
            self.update(logs["g/pl"], opt_g, precise=True)

        # Discriminator; every few iterations also R1.
        with torch.no_grad():
            fake = self.generator.synthesis(self.codes(len(x), c, rng), rng)
        terms, real_logits = self.discriminator_terms(fake, x, c, on_host, rng)
        weight = self.gamma(self.world * len(x)) * h.r1_every if i % h.r1_every == 0 else 0.0
        self.update(sum(terms.values()), opt_d, last=not weight)
        logs |= {f"d/{name}": value for name, value in terms.items()}
        if weight:
            penalty = self.penalty(x, c, on_host, rng)
            if h.adversarial == "relativistic":  # R2
                penalty = penalty + self.penalty(fake, c, on_host, rng)
            logs["d/reg"] = weight * penalty
            self.update(logs["d/reg"], opt_d, last=True, precise=True)

        if h.ada_target:
            self.count_signs(real_logits)
            self.adapt(self.world * len(x))
            logs["ada/p"] = self.ada_p
        self.ema.decay = self.ema_decay(i, self.world * len(x))
        self.finish(logs, batch)

    def generator_loss(
        self,
        fake: Tensor,
        x: Tensor,
        c: Tensor | None,
        on_host: torch.Generator,
        rng: torch.Generator,
    ) -> Tensor:
        """Adversarial loss of G for fakes (N, 3, H, H) beside real images of the same classes."""
        logits = self.discriminator(self.augmented(fake, on_host, rng), c)  # (N,)
        if self.hparams.adversarial == "bce":
            return bce(logits, real=True)
        with torch.no_grad():
            real = self.discriminator(self.augmented(x, on_host, rng), c)
        return relativistic(logits, real)

    def discriminator_terms(
        self,
        fake: Tensor,
        x: Tensor,
        c: Tensor | None,
        on_host: torch.Generator,
        rng: torch.Generator,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Adversarial terms of D, and its logits (N,) of the real images."""
        real = self.discriminator(self.augmented(x, on_host, rng), c)  # (N,)
        fakes = self.discriminator(self.augmented(fake, on_host, rng), c)
        if self.hparams.adversarial == "bce":
            return {"real": bce(real, real=True), "fake": bce(fakes, real=False)}, real
        return {"adv": relativistic(real, fakes)}, real

    def penalty(
        self, x: Tensor, c: Tensor | None, on_host: torch.Generator, rng: torch.Generator
    ) -> Tensor:
        """R1 of images (N, 3, H, H), in fp32 because it differentiates twice; of fakes: R2."""
        with full_precision(x.device):
            x = x.detach().requires_grad_()
            return r1(self.discriminator(self.augmented(x, on_host, rng), c), x)

    def codes(
        self, count: int, c: Tensor | None, rng: torch.Generator, average: bool = False
    ) -> Tensor:
        """W+ codes (N, L, D) of new latents, some mixed; `average` also updates the mean code."""
        mapping = self.generator.mapping
        z, z2 = torch.randn(2, count, self.latent_dim, generator=rng, device=rng.device)
        w = mapping(z, c)  # (N, L, D)
        if average:
            mapping.update_average(w[:, 0])
            mapping.w_avg.copy_(self.across(mapping.w_avg))
        if not self.hparams.mixing:
            return w
        row = torch.arange(w.shape[1], device=w.device)[:, None]  # (L, 1)
        whether, where = torch.rand(2, generator=rng, device=rng.device)
        first = 1 + (where * (len(row) - 1)).floor()  # row of the second latent
        other = (row >= first) & (whether < self.hparams.mixing)
        return torch.where(other, mapping(z2, c), w)

    def condition(self, y: Tensor) -> Tensor | None:
        """Classes (N,) -> one-hot (N, K), or None without classes."""
        return F.one_hot(y, self.classes).float() if self.classes else None

    def gamma(self, images: int) -> float:
        """Weight of R1 for this number of images per iteration."""
        given = self.hparams.lambda_reg
        return 2e-4 * self.img_size**2 / images if given < 0 else given

    def ema_decay(self, iteration: int, images: int) -> float:
        """Decay with a half-life of `ema_kimg`, shorter while few images were seen."""
        h, half = self.hparams, self.hparams.ema_kimg * 1000
        if h.ema_rampup and not h.init_from:  # the average of `init_from` is good already
            half = min(half, iteration * images * h.ema_rampup)
        return 0.5 ** (images / half) if half else 0.0

    # ---- inference: the averaged generator, no gradients, full precision ------------------------

    @inference
    def map_latents(
        self,
        z: Tensor,
        y: Tensor | int | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Latents (N, Z), and if conditional classes (N,) or one class -> W+ codes (N, L, D).

        `psi` < 1 pulls the first `cutoff` rows (None: all) towards the mean code (truncation).
        """
        self.checked_latents(z)
        c = None
        if self.classes:
            label = torch.as_tensor(self.domain(y, self.classes, len(z)), device=z.device)
            c = self.condition(label.expand(len(z)))
        return self.ema.module["generator"].mapping(z, c, psi, cutoff)

    @inference
    def synthesize(self, ws: Tensor) -> Tensor:
        """W+ codes (N, L, D) -> images (N, 3, H, H), unbounded, with the stored noise.

        With `alpha` (N, 4, H, H), which `gen.viz.over_white` lays on white.
        """
        return self.ema.module["generator"].synthesis(ws, "const")

    def generate(
        self,
        z: Tensor,
        y: Tensor | int | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Latents (N, Z) -> images (N, 3 or 4, H, H); see `map_latents` and `synthesize`."""
        return self.synthesize(self.map_latents(z, y, psi, cutoff))

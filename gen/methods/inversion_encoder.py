"""An encoder of photos into W+, the codes of a frozen StyleGAN2, for edits without a projection.

Sources: Richardson et al., "Encoding in Style" (pSp), CVPR 2021; Tov et al., "Designing an Encoder
for StyleGAN Image Manipulation" (e4e), SIGGRAPH 2021. Each iteration encodes real images and as
many generated ones, whose codes are known. Deviations: a small network; latent codes of generated
images as in e4e's predecessors; no discriminator of codes and no loss of identity; rows of real
images' codes stay near each other by a plain penalty, not by steps.

Letters in shapes: N batch, L rows of a code, D its width, Z latent width, H image side.
"""

from __future__ import annotations

from math import inf
from typing import Any

import torch
from torch import Tensor

from gen.devices import full_precision, send
from gen.losses.perceptual import content
from gen.methods.base import inference, weighted_sum
from gen.methods.editor import OnGenerator
from gen.methods.projector import project
from gen.methods.schedules import half_cosine
from gen.networks.inversion import Encoder
from gen.networks.perceptual import LPIPS

MEASURED = 10_000  # latents from which mean and spread of codes are measured


class InversionEncoder(OnGenerator):
    """Images -> codes in W+ of a `StyleGAN2`, learnt on real and on generated images.

    Args:
        generator: checkpoint of `StyleGAN2` (.safetensors or .ckpt) whose codes are predicted.
            Checkpoints of this method contain its weights, so they need no other file.
        img_size: side H of the images, px; 0: as in the generator's file.
        z_dim: width Z of the latents; 0: as in the generator's file.
        w_dim: width D of the codes; 0: as in the generator's file.
        map_layers: layers of the mapping network; 0: as in the generator's file.
        channel_base: channels times resolution; 0: as in the generator's file.
        channel_max: upper limit for the channels of a layer; 0: as in the generator's file.
        clamp: limit of the activations; 0: no limit; -1: as in the generator's file.
        psi: truncation of the codes of generated images; 1 is none, 0 the mean code.
        mixing: probability that the code of a generated image is mixed from two.
        channels: number of channels of the encoder at full resolution.
        max_channels: upper limit for the channels of a layer in the encoder.
        lambda_latent: weight of the squared error of generated images' codes, in their spread.
        lambda_pixel: weight of the squared error of pixels.
        lambda_lpips: weight of LPIPS (AlexNet) between image and reconstruction.
        lambda_rows: weight of the squared distance of the rows of real images' codes from their
            mean row; keeps codes where edits work.
        lr: learning rate (Adam).
        lr_iters: iteration at which the learning rate has fallen to 0 along half a cosine; 0 keeps
            it constant.
        ema_decay: decay of the averaged encoder per iteration, lower in the first iterations.
        seed: seed of the first weights and of all random numbers in training.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from scratch.
    """

    task = "encoder"
    learns_from = "images"
    bounds = {
        **dict.fromkeys(("lr", "lr_iters", "lambda_latent", "lambda_pixel"), (0, inf)),
        **dict.fromkeys(("lambda_lpips", "lambda_rows"), (0, inf)),
        **dict.fromkeys(("psi", "mixing", "ema_decay"), (0, 1)),
        **dict.fromkeys(("channels", "max_channels"), (1, inf)),
    }

    def __init__(
        self,
        generator: str = "",
        img_size: int = 0,
        z_dim: int = 0,
        w_dim: int = 0,
        map_layers: int = 0,
        channel_base: int = 0,
        channel_max: int = 0,
        clamp: float = -1.0,
        psi: float = 1.0,
        mixing: float = 0.5,
        channels: int = 32,
        max_channels: int = 256,
        lambda_latent: float = 0.3,
        lambda_pixel: float = 1.0,
        lambda_lpips: float = 1.0,
        lambda_rows: float = 0.003,
        lr: float = 1e-3,
        lr_iters: int = 0,
        ema_decay: float = 0.999,
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        self.save_hyperparameters()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build_generator()
            self.encoder = Encoder(self.img_size, self.rows, self.width, channels, max_channels)
        self.make_ema({"encoder": self.encoder}, ema_decay, warmup=True)
        self.register_buffer("code_mean", torch.zeros(self.width))
        self.register_buffer("code_std", torch.ones(()))  # root mean square distance from it

    # ---- training -------------------------------------------------------------------------------

    def load_generator(self, path: str) -> None:
        """Loads the averaged generator of a checkpoint of `StyleGAN2`, and measures its codes."""
        super().load_generator(path)
        z = torch.randn(MEASURED, self.latent_dim, generator=torch.Generator().manual_seed(0))
        ws = self.map_latents(z.to(self.device), self.hparams.psi)[:, 0]  # (10000, D)
        self.code_mean.copy_(ws.mean(0))
        self.code_std.copy_((ws - ws.mean(0)).square().mean().sqrt().clamp(min=1e-6))

    def on_fit_start(self) -> None:
        super().on_fit_start()
        # In a tuple, so that LPIPS stays out of checkpoints, DDP and optimizers.
        self._lpips = (LPIPS("alex").to(self.device),) if self.hparams.lambda_lpips else ()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        options = dict(lr=self.hparams.lr, betas=(0.9, 0.99), fused=True)
        return [torch.optim.Adam(self.encoder.parameters(), **options)]

    def lr_factor(self, iteration: int) -> float:
        iters = self.hparams.lr_iters
        return half_cosine(min(iteration, iters), iters) if iters else 1.0

    def weights(self) -> dict[str, float]:
        return {n: self.hparams[f"lambda_{n}"] for n in ("latent", "pixel", "lpips", "rows")}

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        x, w, N = batch["x"], self.weights(), len(batch["x"])
        with torch.no_grad():
            known = self.known_codes(N, x)  # (N, L, D)
            x = torch.cat([x, self.generator.synthesis(known).clamp(-1, 1)])  # (2N, 3, H, H)
        ws = self.codes(self.encoder, x)  # (2N, L, D)
        real, made = ((part - self.code_mean) / self.code_std for part in ws.split(N))
        terms = {}
        if w["latent"]:
            terms["latent"] = (made - (known - self.code_mean) / self.code_std).square().mean()
        if w["rows"]:
            terms["rows"] = (real - real.mean(1, keepdim=True)).square().mean()
        if w["pixel"] or w["lpips"]:
            back = self.generator.synthesis(ws)  # (2N, 3, H, H)
            if w["pixel"]:
                terms["pixel"] = (back - x).square().mean()
            if w["lpips"]:
                terms["lpips"] = content(x, back, self._lpips[0])
        self.log_terms({f"train/{name}": value for name, value in terms.items()}, batch)
        return weighted_sum(terms, w)

    def known_codes(self, count: int, like: Tensor) -> Tensor:
        """Codes (N, L, D) of new latents, some mixed from two at a random row."""
        h, rng = self.hparams, self.step_rng(self.hparams.seed)
        z = send(torch.randn(2 * count, self.latent_dim, generator=rng), like)
        a, b = self.generator.mapping(z, psi=h.psi).chunk(2)  # (N, L, D)
        first = torch.randint(1, self.rows, (count, 1), generator=rng)
        mixed = torch.rand(count, 1, generator=rng) < h.mixing
        other = mixed & (torch.arange(self.rows) >= first)  # (N, L)
        return torch.where(send(other, like)[:, :, None], b, a)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average()

    def codes(self, encoder: torch.nn.Module, x: Tensor) -> Tensor:
        """Images (N, 3, H, H) -> codes (N, L, D), fp32."""
        return self.code_mean + self.code_std * encoder(x).float()

    def validation_step(self, *_: Any) -> None:
        """Does nothing: `gen evaluate` measures, through the inference interface."""

    test_step = validation_step

    # ---- inference: the averaged encoder, no gradients, full precision --------------------------

    @inference
    def encode(self, x: Tensor, steps: int = 0) -> Tensor:
        """Images (N, 3, H, H) in [-1, 1] -> codes (N, L, D).

        `steps` > 0 refines them by so many steps of `gen.methods.projector`.
        """
        ws = self.codes(self.ema.module["encoder"], self.checked(x))
        return self.project(x, steps, ws) if steps else ws

    def project(self, x: Tensor, steps: int, start: Tensor | None = None) -> Tensor:
        """Codes (N, L, D) of images by the projector alone, or from the codes `start`."""
        with full_precision(self.device):
            return project(self.generator, x, steps, "W+", bar=False, start=start).ws

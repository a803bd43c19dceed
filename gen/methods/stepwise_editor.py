"""Edits codes in several small steps, each with a direction and a size of its own: a baseline.

After Huang et al., "Adaptive Nonlinear Latent Transformation for Conditional Face Editing"
(AdaTrans), ICCV 2023: w(t+1) = w(t) + s(t) n(t), where a network says the direction n and the size
s from the present code and the wanted attributes. So the path bends and ends sooner where less has
to change. Deviations: no estimate of the density of codes and no bound on mutual information; the
distance to the source in codes and in LPIPS keeps edits near it. The classifier that labels the
images also guides the steps by its gradient: judge the edits with another one.

Letters in shapes: N batch, L rows of a code, D its width, K attributes, H image side.
"""

from __future__ import annotations

from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.devices import send
from gen.losses.perceptual import content
from gen.losses.style import neighbourhood
from gen.methods.base import eval_mode, inference, weighted_sum
from gen.methods.editor import Editor
from gen.methods.schedules import half_cosine
from gen.networks.perceptual import LPIPS
from gen.networks.stepper import Stepper


class StepwiseEditor(Editor):
    """A baseline of `StyleFunction`: nonlinear edits of a `StyleGAN2` in adaptive steps.

    Args:
        generator: checkpoint of `StyleGAN2` (.safetensors or .ckpt) whose codes are edited.
            Checkpoints of this method contain its weights, so they need no other file.
        judge: checkpoint of `AttributeClassifier` that labels the generator's images in training
            and whose gradient guides the steps.
        attributes: names of the K attributes as in the classifier, separated by commas.
        img_size: side H of the images, px; 0: as in the generator's file.
        z_dim: width of the latents; 0: as in the generator's file.
        w_dim: width D of the codes; 0: as in the generator's file.
        map_layers: layers of the mapping network; 0: as in the generator's file.
        channel_base: channels times resolution; 0: as in the generator's file.
        channel_max: upper limit for the channels of a layer; 0: as in the generator's file.
        clamp: limit of the activations; 0: no limit; -1: as in the generator's file.
        psi: truncation of the codes that are edited; 1 is none, 0 the mean code.
        steps: number of steps of an edit.
        hidden: width of the hidden layers.
        lambda_nb: weight of the distance between the codes of source and edit.
        lambda_lpips: weight of LPIPS between source and edited image.
        lr: learning rate (Adam).
        lr_iters: iteration at which the learning rate has fallen to 0 along half a cosine; 0 keeps
            it constant.
        ema_decay: decay of the averaged network per iteration, lower in the first iterations.
        seed: seed of the first weights and of all random numbers in training.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from scratch.
    """

    noise_dim = 0
    bounds = {
        **dict.fromkeys(("steps", "hidden"), (1, inf)),
        **dict.fromkeys(("lambda_nb", "lambda_lpips", "lr", "lr_iters"), (0, inf)),
        "ema_decay": (0, 1),
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
        steps: int = 5,
        hidden: int = 256,
        lambda_nb: float = 0.01,
        lambda_lpips: float = 1.0,
        lr: float = 5e-4,
        lr_iters: int = 0,
        ema_decay: float = 0.999,
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        self.save_hyperparameters()
        K = len(self.attribute_names)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build_generator()
            self.stepper = Stepper(self.rows, K, self.width, hidden)
        self.make_ema({"stepper": self.stepper}, ema_decay, warmup=True)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._judges += (LPIPS("alex").to(self.device) if self.hparams.lambda_lpips else None,)
        self._judges[0].requires_grad_(False)

    # ---- training -------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        options = dict(lr=self.hparams.lr, betas=(0.9, 0.99), fused=True)
        return [torch.optim.Adam(self.stepper.parameters(), **options)]

    def lr_factor(self, iteration: int) -> float:
        iters = self.hparams.lr_iters
        return half_cosine(min(iteration, iters), iters) if iters else 1.0

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        h, G = self.hparams, self.generator.synthesis
        with torch.no_grad():
            ws = self.codes(batch)  # (N, L, D)
            x = G(ws)  # (N, 3, H, H)
            y = self.labels(x)  # (N, K)
        other = send(torch.randperm(len(y), generator=self.step_rng(h.seed)), y)
        d = y[other]  # attributes of another image, so d has their joint distribution
        moved = self.walked(self.stepper, ws, d, h.steps)
        made = G(moved)
        logits = self.judged(made)
        weights = {"cls": 1.0, "nb": h.lambda_nb, "lpips": h.lambda_lpips}
        terms = {"cls": F.binary_cross_entropy_with_logits(logits.float(), d)}
        if h.lambda_nb:
            terms["nb"] = neighbourhood(ws, moved)
        if h.lambda_lpips:
            terms["lpips"] = content(x, made, self._judges[1])
        logs = terms | {"accuracy": ((logits > 0) == (d > 0)).float().mean()}
        self.log_terms({f"train/{name}": value for name, value in logs.items()}, batch)
        return weighted_sum(terms, weights)

    def judged(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, H) -> logits (N, K) of the judge, with gradients to the images."""
        judge = self._judges[0]
        with eval_mode(judge.net) as net:
            return judge.split(net(x))[0]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average()

    def walked(self, stepper: nn.Module, ws: Tensor, d: Tensor, steps: float) -> Tensor:
        """Codes (N, L, D) after so many steps to attributes d (N, K); the last may be a part."""
        while steps > 1e-6:
            ws = ws + min(1.0, steps) * stepper(ws, d)
            steps -= 1
        return ws

    def validation_step(self, *_: Any) -> None:
        """Does nothing: `gen evaluate` measures, through the inference interface."""

    test_step = validation_step

    # ---- inference: the averaged network, no gradients, full precision --------------------------

    @inference
    def edit(self, ws: Tensor, d: Tensor, z: Tensor | None = None) -> Tensor:
        """Codes (N, L, D), wanted attributes (N, K) in {0, 1} -> codes (N, L, D); `z` is unused."""
        self.check_request(ws, d, z)
        return self.edited(ws, d)

    def edited(self, ws: Tensor, d: Tensor, z: Tensor | None = None) -> Tensor:
        """`edit` without checks."""
        return self.walked(self.ema.module["stepper"], ws, d, self.hparams.steps)

    @inference
    def edit_at(self, ws: Tensor, d: Tensor, z: Tensor | None, strength: float) -> Tensor:
        """Codes (N, L, D) after `strength` times the steps of an edit; the last may be a part."""
        self.check_request(ws, d, z)
        return self.walked(self.ema.module["stepper"], ws, d, strength * self.hparams.steps)

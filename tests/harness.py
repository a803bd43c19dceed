"""A method that steps without a trainer: for tests of its gradients and for the benchmark."""

from typing import Any

import torch
from torch import Tensor, nn


def bare(cls: type) -> type:
    """`cls` with its own optimizers, updates and EMA, and nothing of Lightning around them."""

    class Bare(cls):
        global_step = 0
        global_rank = 0

        def optimizers(self) -> list[torch.optim.Optimizer]:
            if not hasattr(self, "steps"):
                self.steps = self.configure_optimizers()
                for optimizer in self.steps:  # Lightning's wrapper has the raw one under this name
                    optimizer.optimizer = optimizer
            return self.steps

        def manual_backward(self, loss: Tensor) -> None:
            loss.backward()

        def log_dict(self, terms: dict[str, Tensor], **_: Any) -> None:
            self.terms = terms

        def named(self) -> dict[str, nn.Module]:
            nets = self.generator, self.mapping_network, self.style_encoder, self.discriminator
            return dict(zip("GFED", nets, strict=True))

    return Bare

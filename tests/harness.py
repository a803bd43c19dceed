"""A method that steps without a trainer: for tests of its gradients and for the benchmark."""

import os
from pathlib import Path
from typing import Any

import lightning
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


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Recorder(lightning.LightningModule):
    """Manual optimisation of one weight; keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_seen, self.val_seen = [], []

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.weight * batch["x"].mean())
        optimizer.step()
        self.train_seen.append(batch)

    def validation_step(self, batch, batch_idx):
        self.val_seen += batch["index"].tolist()

    predict_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], 0.1)


def trainer(callbacks=(), **kwargs):
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
    save = dict(enable_checkpointing=bool(callbacks), callbacks=list(callbacks))
    return lightning.Trainer(accelerator="cpu", **quiet, **save, **kwargs)

"""Classifies the domain of an image; it measures the accuracy of translations.

A timm network, trained from scratch with cross-entropy on the training split only: its accuracy on
the validation split shows how reliable it is. Generated images are slightly blurred, noisy or wrong
in colour, so it is trained on such disturbances; otherwise it could take them for a domain.

Letters in shapes: N batch, S domains, H image side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from gen.methods.image_classifier import ImageJudge


class DomainClassifier(ImageJudge):
    """A classifier of domains.

    Args:
        model_name: name of a convolutional network of timm.
        img_size: side of the square images, px.
        num_domains: number of visual domains S.
        lr: learning rate (AdamW).
        lr_warmup_iters: iterations over which the learning rate first rises linearly.
        lr_decay_start: iteration at which the learning rate begins to fall.
        lr_decay_iters: iterations over which the learning rate falls linearly to 0; 0 keeps it
            constant.
        weight_decay: decoupled weight decay of the kernels; biases and norms have none.
        label_smoothing: share of each label that is spread over all domains.
        disturb: strength of the disturbances of training images (colour, blur, noise); 0 is none.
        seed: seed of the first weights and of the disturbances.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from scratch.
    """

    least_domains = 2

    def __init__(
        self,
        model_name: str = "resnet10t",
        img_size: int = 256,
        num_domains: int = 2,
        lr: float = 1e-3,
        lr_warmup_iters: int = 100,
        lr_decay_start: int = 0,
        lr_decay_iters: int = 0,
        weight_decay: float = 0.05,
        label_smoothing: float = 0.1,
        disturb: float = 1.0,
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        if num_domains < self.least_domains:
            raise ValueError(f"expected at least 2 domains for DomainClassifier, got {num_domains}")
        self.save_hyperparameters()
        self.build(num_domains)
        self.confusion = MulticlassConfusionMatrix(num_domains)

    # ---- training -------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        y = torch.cat([batch["y"], batch["y_ref"], batch["y_ref"]])  # (3N,)
        logits = self.net(self.seen(batch)).float()  # (3N, S)
        ce = F.cross_entropy(logits, y, label_smoothing=self.hparams.label_smoothing)
        hits = (logits.argmax(1) == y).float().mean()
        self.log_terms({"train/ce": ce, "train/accuracy": hits}, batch)
        return ce

    def validation_step(self, batch: dict[str, Tensor], _: int = 0) -> None:
        self.confusion.update(self.classify(batch["x"]), batch["y"])

    def on_validation_epoch_end(self) -> None:
        """Logs `val/accuracy`, and `val/accuracy_<domain>` of each domain in the data."""
        counts = self.confusion.compute()  # (S, S) rows: true, columns: predicted
        self.confusion.reset()
        right, seen = counts.diag(), counts.sum(1)
        each = zip(self.domains, right / seen, seen, strict=True)
        rows = {f"val/accuracy_{name}": value for name, value, count in each if count}
        self.log_dict({"val/accuracy": right.sum() / seen.sum()} | rows)

    test_step, on_test_epoch_end = validation_step, on_validation_epoch_end

    def predict_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        """Probabilities (N, S) of the domains."""
        return self.classify(batch["x"]).softmax(1)

    # ---- inference ------------------------------------------------------------------------------

    def classify(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, H) in [-1, 1] -> logits (N, S), always in eval mode."""
        return self.judge(self.checked(x))

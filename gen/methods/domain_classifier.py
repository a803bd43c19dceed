"""Tells which domain an image belongs to: what the accuracy of a translation is measured with.

A timm network trained from nothing with cross-entropy, on the training split alone, so that its
accuracy on the validation split says how far its judgement of translations can be trusted. What it
judges later is a little blurred, noisy or off in colour, as generators are; so it is trained on
images disturbed in these ways, or it would take a disturbance for a domain.

Letters in shapes: N batch, S domains, H image side.
"""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from gen.devices import rng_on, send
from gen.methods.base import Method, inference, judging
from gen.methods.schedules import linear_fall


class ImageJudge(Method):
    """What classifiers of whole images share: a timm network, its training, its judgement.

    A subclass has the options of `DomainClassifier` that are read here, and calls `build`.
    """

    learns_from = "images"

    def build(self, outputs: int) -> None:
        """Makes the network with its first weights, a function of `seed`."""
        h = self.hparams
        if not timm.is_model(h.model_name):  # else timm would look for it on a hub or on the disk
            raise ValueError(
                f"model_name: expected a network of timm, got {h.model_name!r}; "
                "timm.list_models() has their names"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(h.seed)
            self.net = timm.create_model(h.model_name, num_classes=outputs)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        groups = param_groups_weight_decay(self.net, self.hparams.weight_decay)
        return [torch.optim.AdamW(groups, self.hparams.lr, fused=True)]

    def lr_factor(self, iteration: int) -> float:
        h = self.hparams
        rise = min(1.0, (iteration + 1) / h.lr_warmup_iters) if h.lr_warmup_iters else 1.0
        return rise * linear_fall(iteration, h.lr_decay_start, h.lr_decay_iters)

    def seen(self, batch: dict[str, Tensor]) -> Tensor:
        """The images of a training batch, disturbed: (3N, 3, H, H)."""
        x = torch.cat([batch["x"], batch["x_ref"], batch["x_ref2"]])  # (3N, 3, H, H)
        self.check_size(x)
        if self.hparams.disturb:
            x = disturbed(x, self.hparams.disturb, self.draw(self.hparams.seed))
        return x

    @inference
    def judge(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, H) in [-1, 1] -> (N, outputs), whatever the mode the network is in."""
        self.check_size(x)
        with judging(self.net) as net:
            return net(x)

    def checked(self, x: Tensor, name: str = "x") -> Tensor:
        self.check_size(x)
        return super().checked(x, name)

    def check_size(self, x: Tensor) -> None:
        size = (3, self.img_size, self.img_size)
        floats = isinstance(x, Tensor) and x.is_floating_point()
        if not floats or x.ndim != 4 or x.shape[1:] != size:
            got = f"{getattr(x, 'dtype', type(x).__name__)} {tuple(getattr(x, 'shape', ()))}"
            way_out = "" if floats else "; give floats in [-1, 1]"
            raise ValueError(f"expected images (N, {str(size)[1:]}, got {got}{way_out}")

    @property
    def img_size(self) -> int:
        return self.hparams.img_size


class DomainClassifier(ImageJudge):
    """A classifier of domains.

    Args:
        model_name: convolutional network of timm.
        img_size: side of the square images, px.
        num_domains: number of visual domains S.
        lr: learning rate (AdamW).
        lr_warmup_iters: iterations over which the rate first rises linearly.
        lr_decay_start: iteration at which the rate begins to fall.
        lr_decay_iters: iterations over which it then falls linearly to 0; 0 keeps it.
        weight_decay: decoupled decay of the kernels; biases and norms have none.
        label_smoothing: share of each label that is spread over all domains.
        disturb: strength of the disturbances in training; 0 is none.
        seed: of the first weights and of the disturbances.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from nothing.
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
        self.watch({"train/ce": ce, "train/accuracy": hits}, batch)
        return ce

    def validation_step(self, batch: dict[str, Tensor], _: int = 0) -> None:
        self.confusion.update(self.classify(batch["x"]), batch["y"])

    def on_validation_epoch_end(self) -> None:
        """Logs `val/accuracy`, and `val/accuracy_<domain>` of those seen."""
        counts = self.confusion.compute()  # (S, S) rows: true, columns: told
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
        """Images (N, 3, H, H) in [-1, 1] -> logits (N, S), whatever the mode it is in."""
        return self.judge(self.checked(x))


def disturbed(x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Images (N, 3, H, W), each recoloured, blurred and made noisy by chance.

    At strength 1: up to 15 % of contrast and 0.1 of level in each colour; for about half a blur of
    up to 1 px; for about half noise of up to 0.05.
    """

    def uniform(*shape: int) -> Tensor:  # (N, *shape) in [-strength, strength)
        return (send(torch.rand(len(x), *shape, generator=rng), x) * 2 - 1) * strength

    x = x * (1 + 0.15 * uniform(3, 1, 1)) + 0.1 * uniform(3, 1, 1)
    row = send(torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]), x) / 16  # variance 1
    kernel = (row[:, None] * row).expand(3, 1, 5, 5)
    with torch.autocast(x.device.type, enabled=False):
        soft = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)
    x = torch.lerp(x, soft, uniform(1, 1, 1).clamp(0, 1))
    noise = torch.randn(x.shape, generator=rng_on(x.device, rng), device=x.device).to(x.dtype)
    return x + 0.05 * uniform(1, 1, 1).clamp(min=0) * noise

"""Base of classifiers of whole images: a timm network that trains on disturbed images."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from torch import Tensor

from gen.devices import rng_on, send
from gen.methods.base import Method, eval_mode, inference
from gen.methods.schedules import linear_fall


class ImageJudge(Method):
    """Base of classifiers of whole images.

    A subclass has those options of `DomainClassifier` that are read here, and calls `build`.
    """

    task = "classifier"
    learns_from = "images"

    def build(self, outputs: int) -> None:
        """Builds the network with first weights that depend on `seed` only."""
        h = self.hparams
        if not timm.is_model(h.model_name):  # otherwise timm would search a hub or the disk
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
            x = disturbed(x, self.hparams.disturb, self.step_rng(self.hparams.seed))
        return x

    @inference
    def judge(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, H) in [-1, 1] -> (N, outputs), always in eval mode."""
        self.check_size(x)
        with eval_mode(self.net) as net:
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


def disturbed(x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Images (N, 3, H, W) with random changes of colour, blur and noise.

    At strength 1: contrast by up to 15 % and level by up to 0.1 in each colour channel; for about
    half of the images blur of up to 1 px, and for about half noise of up to 0.05.
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

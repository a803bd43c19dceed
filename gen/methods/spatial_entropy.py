"""Spatial entropy as an inductive bias for Vision Transformers.

Source: Peruzzo, Sangineto, Liu, De Nadai, Bi, Lepri, Sebe, Machine Learning 2024 (arXiv
2206.04636): a ViT is trained to classify. A second loss makes the attention of the class token in
the last block gather in few connected components:

    L = L_ce + lambda(epoch) L_se

The rest of the recipe is DeiT's (Touvron et al., ICML 2021) as in timm. Deviations from the
authors' code: the loss is always float32, exact on every grid and finite by construction; short
runs have a shorter warm-up of lambda; averaged weights are validated, too.

Letters in shapes: N batch, S classes, H image side, h heads, Hg Wg patches.
"""

from __future__ import annotations

from math import inf
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from timm.data import Mixup
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from gen.files import WeightsError
from gen.losses import spatial_entropy as losses
from gen.methods.base import Method, eval_mode, inference, weighted_sum
from gen.methods.schedules import half_cosine, ramp
from gen.metrics.checks import check_images
from gen.networks.attention_tap import AttentionTap
from gen.networks.timm_classifier import rewire_last_block, timm_classifier
from gen.ops.components import component_count

REGULARIZERS = ("spatial_entropy", "total_variation", "head_decorrelation")  # functions of losses
EPOCHS = 100  # epochs in the schedules of a run whose length is given in iterations
POSITIVE = {"img_size", "num_classes", "lr", "layer_decay"}  # options > 0; all others are >= 0
AT_MOST_1 = {"drop_path", "layer_decay", "label_smoothing", "ema_decay"}


class SpatialEntropy(Method):
    """A Vision Transformer of timm with a regulariser of the attention in its last block.

    Args:
        model_name: name of a model of timm; `gen.networks.attention_tap` lists the models that can
            be regularised.
        img_size: side of the square training images, px.
        num_classes: number of classes S; `gen fit` takes it from the data.
        patch_size: side of a patch, px; 0 keeps the size of the model.
        registers: number of learned tokens besides the patches, in which a ViT can store what it
            gathers (Darcet et al., ICLR 2024); 0 keeps those of the model.
        pretrained: download timm's published weights of `model_name` and start from them.
        pretrained_file: file of weights in timm's layout (.safetensors, .pth) to start from,
            instead of a download; a head for another number of classes is not loaded, positions
            are resampled.
        regularizer: loss term on the attention: `spatial_entropy` of the map, or a baseline:
            `total_variation` of the map, `head_decorrelation` of the outputs of the heads (for the
            class token, without one for the mean query), `none`.
        lambda_reg: largest weight of the regulariser.
        lambda_warmup_epochs: epochs over which the weight of the regulariser rises from 0, at most
            half of all epochs; later it falls to 0 along half a cosine.
        rewire_last: remove the skip connection around the last attention and the norm after it
            ("nosn").
        drop_path: rate of stochastic depth in the last block, the largest of all blocks.
        lr: highest learning rate (AdamW). DeiT: 5e-4 for 512 images a step, in proportion.
        lr_min: learning rate at the end, reached along half a cosine.
        lr_warmup_epochs: epochs over which the learning rate first rises from 1e-6, at most a
            quarter of all epochs.
        weight_decay: decoupled weight decay of the kernels; biases, norms, tokens and positions
            have none.
        layer_decay: ratio of the learning rates of a block and of the next block.
        label_smoothing: share of each label that is spread over all classes.
        mixup: parameter of the Beta distribution of Mixup; 0: no Mixup.
        cutmix: parameter of the Beta distribution of CutMix; 0: no CutMix. If `mixup` is also on,
            each batch gets one of the two.
        ema_decay: decay of the averaged weights per iteration, lower at first; `classify` uses the
            averaged weights.
        seed: seed of the first weights, of Mixup, CutMix and stochastic depth.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from scratch.
    """

    task = "classifier"
    learns_from = "images"
    least_domains = 2

    def __init__(
        self,
        model_name: str = "deit_small_patch16_224",
        img_size: int = 224,
        num_classes: int = 2,
        patch_size: int = 0,
        registers: int = 0,
        pretrained: bool = False,
        pretrained_file: str = "",
        regularizer: Literal[
            "spatial_entropy", "total_variation", "head_decorrelation", "none"
        ] = "spatial_entropy",
        lambda_reg: float = 0.01,
        lambda_warmup_epochs: int = 10,
        rewire_last: bool = False,
        drop_path: float = 0.1,
        lr: float = 5e-4,
        lr_min: float = 1e-5,
        lr_warmup_epochs: int = 5,
        weight_decay: float = 0.05,
        layer_decay: float = 1.0,
        label_smoothing: float = 0.1,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        ema_decay: float = 0.9999,
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        self._total = 0  # iterations of the run, known once it trains
        self.save_hyperparameters()
        for key, value in self.hparams.items():
            if isinstance(value, int | float):
                low, high = key in POSITIVE, key in AT_MOST_1
                if not (0 < value if low else 0 <= value) or value > 1 and high or value == inf:
                    ends = f"{'(' if low else '['}0, {'1]' if high else 'inf)'}"
                    raise ValueError(f"expected {key} in {ends}, got {value}")
        self.net = self.build()
        for name in ("mean", "std"):  # colour statistics that the model expects
            colour = torch.tensor(self.net.pretrained_cfg[name]).view(3, 1, 1)
            self.register_buffer(name, colour, persistent=False)
        self.make_ema({"net": self.net}, ema_decay, warmup=True)
        try:
            self.tap = AttentionTap(self.net)
        except ValueError:  # a ResNet has no attention map
            if regularizer != "none" and lambda_reg:
                raise
            self.tap = None
        mix = dict(label_smoothing=label_smoothing, num_classes=num_classes)
        self.mix = Mixup(mixup, cutmix, **mix) if mixup or cutmix else None
        names = [(k, which) for k in (1, 5) if k < num_classes for which in ("", "_raw")]
        scores = {f"top{k}{w}": MulticlassAccuracy(num_classes, k, "micro") for k, w in names}
        self.scores = nn.ModuleDict(scores)

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.check_grid()
        super().setup(stage)

    def check_grid(self) -> None:
        """Raises ValueError if the grid is so small that the regulariser is always 0."""
        name, size = self.hparams.regularizer, self.img_size
        least = {"spatial_entropy": 3, "total_variation": 2}.get(name, 0)
        if not (least and self.hparams.lambda_reg):
            return
        Hg, Wg = self.attention(self.mean.new_zeros(1, 3, size, size)).shape[-2:]
        if max(Hg, Wg) < least:
            raise ValueError(
                f"lambda_reg: expected a grid of {least} patches or more a side for {name}, got "
                f"{Hg} x {Wg}: there it is always 0; set a smaller --model.patch_size, a larger "
                "--model.img_size, or --model.lambda_reg 0"
            )

    def build(self, pretrained: str | None = None) -> nn.Module:
        """Builds the network, see `timm_classifier`."""
        h = self.hparams
        sizes = (h.num_classes, h.img_size, h.patch_size)
        rest = (h.drop_path, h.seed, pretrained, h.registers)
        net = timm_classifier(h.model_name, *sizes, *rest)
        if h.rewire_last:
            rewire_last_block(net)
        return net

    def load_init(self) -> None:
        h = self.hparams
        if (h.pretrained or h.pretrained_file) and not h.init_from:
            source = f"weights of timm's {h.model_name} in {h.pretrained_file or 'its hub'}"
            try:
                given = self.build(h.pretrained_file)
            except Exception as error:  # a missing or damaged file raises nearly anything
                what = f"{type(error).__name__}: {error!s:.200}"
                raise WeightsError(f"pretrained: expected {source}, got {what}") from error
            head, own = given.pretrained_cfg["classifier"], self.net.state_dict()  # same seed
            drawn = {k: v for k, v in given.named_parameters() if v.ndim > 1 and v.min() < v.max()}
            same = [k for k, v in drawn.items() if torch.equal(v, own[k].cpu())]
            if missing := [k for k in same if not k.startswith(head)]:  # timm passes over these
                raise WeightsError(f"pretrained: expected {source}, got none for {missing[:3]}")
            self.net.load_state_dict(given.state_dict())
            self.ema.set(nn.ModuleDict({"net": self.net}))
            rank_zero_info(f"started from {source}")
        super().load_init()

    # ---- schedules, pure functions of the iteration ---------------------------------------------

    def on_train_start(self) -> None:
        self._total = 0
        super().on_train_start()

    def on_train_batch_start(self, batch: dict[str, Tensor], index: int) -> None:
        if not self._total:  # a resumed run may have other epochs: add iterations done and left
            trainer = self.trainer
            rest = (trainer.max_epochs - trainer.current_epoch) * trainer.num_training_batches
            by_epochs = trainer.max_epochs > 0 and trainer.max_steps < 1
            self._total = self.global_step + rest - index if by_epochs else self.clock()[0]
        super().on_train_batch_start(batch, index)

    def clock(self) -> tuple[int, int]:
        """Iterations and epochs of the whole run; EPOCHS if its length is given in iterations."""
        given = self.trainer.max_steps > 0 or (self.trainer.max_epochs or 0) < 1
        epochs = EPOCHS if given else self.trainer.max_epochs
        if (iterations := self._total or self.trainer.estimated_stepping_batches) == inf:
            raise ValueError("expected --trainer.max_epochs or max_steps, for the schedules")
        return int(iterations), epochs

    def lr_factor(self, iteration: int) -> float:
        h, (total, epochs) = self.hparams, self.clock()
        rise = min(h.lr_warmup_epochs * total // epochs, total // 4)
        if iteration < rise:
            return (1e-6 + (h.lr - 1e-6) * iteration / rise) / h.lr
        return (h.lr_min + (h.lr - h.lr_min) * half_cosine(iteration - rise, total - rise)) / h.lr

    def weight(self, iteration: int) -> float:
        """lambda(epoch), constant within an epoch."""
        if self.hparams.regularizer == "none":
            return 0.0
        total, epochs = self.clock()
        epoch = min(iteration * epochs // total, epochs - 1)
        return self.hparams.lambda_reg * ramp(epoch, epochs, self.hparams.lambda_warmup_epochs)

    # ---- training -------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        h = self.hparams
        fixed = getattr(self.net, "no_weight_decay", set)()
        options = dict(weight_decay=h.weight_decay, no_weight_decay_list=fixed)
        if h.layer_decay == 1:
            groups = param_groups_weight_decay(self.net, **options)
        else:
            groups = param_groups_layer_decay(self.net, **options, layer_decay=h.layer_decay)
        groups = [
            dict(params=g["params"], weight_decay=g["weight_decay"], lr=h.lr * g.get("lr_scale", 1))
            for g in groups
        ]
        return [torch.optim.AdamW(groups, fused=True)]

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        x, y = batch["x"], batch["y"]  # (N, 3, H, H), (N,)
        self.check_images(x)
        seed = self.step_rng(self.hparams.seed).initial_seed()
        torch.default_generator.manual_seed(seed)  # used by stochastic depth
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        smoothing = self.hparams.label_smoothing
        if self.mix:
            if len(x) % 2:
                raise ValueError(
                    f"batch_size: expected an even number for pairs to mix, got {len(x)}; change "
                    "it, or --model.mixup 0 --model.cutmix 0"
                )
            np.random.seed(seed)  # noqa: NPY002, timm's Mixup draws from it
            x, y = self.mix(x.clone(), y)  # y (N, S), smoothed
            smoothing = 0.0
        logits = self.logits(self.net, x)  # (N, S)
        terms = {"ce": F.cross_entropy(logits, y, label_smoothing=smoothing)}
        weights, logged = {"ce": 1.0}, {}
        if self.tap is not None:
            name, weight = self.hparams.regularizer, self.weight(self.global_step)
            with torch.set_grad_enabled(weight > 0):
                if name == "head_decorrelation":
                    similarity, about = self.tap.pop_with_heads()  # (N, h, Hg, Wg), (N, h, D / h)
                else:
                    similarity = about = self.tap.pop()
            logged["lambda_reg"] = torch.full((), weight, device=logits.device)
            if weight:
                terms[name], weights[name] = getattr(losses, name)(about), weight
            if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # logged iterations
                logged |= statistics(similarity.detach())
        self.log_terms({f"train/{k}": v for k, v in (terms | logged).items()}, batch)
        return weighted_sum(terms, weights)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average()

    def validation_step(self, batch: dict[str, Tensor], _: int = 0, split: str = "val") -> None:
        x, y = batch["x"], batch["y"]
        logits = {"": self.classify(x), "_raw": self.classify(x, averaged=False)}
        for name, score in self.scores.items():
            score.update(logits[name[len("top1") :]], y)
            self.log(f"{split}/{name}", score)

    def test_step(self, batch: dict[str, Tensor], index: int = 0) -> None:
        self.validation_step(batch, index, "test")

    def predict_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        """Probabilities (N, S) of the classes."""
        return self.classify(batch["x"]).softmax(1)

    # ---- inference ------------------------------------------------------------------------------

    @inference
    def classify(self, x: Tensor, averaged: bool = True) -> Tensor:
        """Images (N, 3, H, H) in [-1, 1] -> logits (N, S), by averaged or raw weights."""
        self.check_images(x)
        check_images(x, "x")
        with eval_mode(self.ema.module["net"] if averaged else self.net) as net:
            return self.logits(net, x)

    @inference
    def attention(self, x: Tensor, averaged: bool = True) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] -> attention of each head (N, h, Hg, Wg), scaled logits.

        A softmax over the patches gives shares. ViTs also accept other sizes than `img_size`, in
        whole patches.

        Raises:
            ValueError: the attention of the model is no single map (see `AttentionTap`), or the
                size does not fit.
        """
        self.check_images(x, any_size=True)
        check_images(x, "x")
        with eval_mode(self.ema.module["net"] if averaged else self.net) as net:
            tap = AttentionTap(net)
            try:
                tap.check_size(*x.shape[2:])
                self.logits(net, x)
                return tap.pop()
            finally:
                tap.remove()

    @inference
    def tokens(self, x: Tensor, averaged: bool = True) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] -> patches (N, Hg Wg, D) of the last block.

        Before the last norm, without class token and registers; of a model whose grid shrinks, the
        output of its last stage.

        Raises:
            ValueError: the model has no such tokens, or the size does not fit.
        """
        self.check_images(x, any_size=True)
        check_images(x, "x")
        with eval_mode(self.ema.module["net"] if averaged else self.net) as net:
            if self.tap is None or not hasattr(net, "forward_intermediates"):
                got = type(net).__name__
                raise ValueError(f"tokens: expected a Vision Transformer of timm, got {got}")
            self.tap.check_size(*x.shape[2:])
            options = dict(indices=1, norm=False, output_fmt="NCHW", intermediates_only=True)
            return net.forward_intermediates(self.normed(x), **options)[-1].flatten(2).mT.float()

    def untrained(self) -> SpatialEntropy:
        """This method with the first weights of its seed, for comparison."""
        made = type(self)(**self.hparams).to(self.device).eval()
        return made.requires_grad_(False)

    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """Logits (N, S) in float32."""
        return net(self.normed(x)).float()

    def normed(self, x: Tensor) -> Tensor:
        """Images in [-1, 1] with the mean and the spread of colours that the network expects."""
        return ((x + 1) / 2 - self.mean) / self.std

    def check_images(self, x: Tensor, any_size: bool = False) -> None:
        size = 2 * (self.img_size,)
        if x.ndim != 4 or x.shape[1] != 3 or not (any_size or x.shape[2:] == size):
            more = "" if any_size else "; resize them, or set --data.img_size as --model.img_size"
            size = "H, W" if any_size else str(size)[1:-1]
            raise ValueError(f"expected images (N, 3, {size}), got {tuple(x.shape)}{more}")

    @property
    def img_size(self) -> int:
        return self.hparams.img_size


def statistics(similarity: Tensor) -> dict[str, Tensor]:
    """Means over maps (N, h, Hg, Wg), without waiting for the GPU; `log_terms` reports NaN."""
    parts = component_count(losses.excess(similarity) > 0).float().mean()
    return {"entropy": losses.spatial_entropy(similarity), "components": parts}

"""Spatial entropy as an inductive bias for Vision Transformers.

Source: Peruzzo, Sangineto, Liu, De Nadai, Bi, Lepri, Sebe, Machine Learning 2024 (arXiv
2206.04636): a ViT is trained to classify, and the attention of the class token in its last block
to gather in few connected components:

    L = L_ce + lambda(epoch) L_se

The recipe around it is DeiT's (Touvron et al., ICML 2021) as timm has it. Deviations from the
authors' code: the loss is in float32 whatever the precision, exact on every grid, finite by
construction; the warm-up of lambda shrinks with short runs; averaged weights are judged, too.

Letters in shapes: N batch, S classes, H image side, h heads, Hg Wg patches.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import timm
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from timm.data import Mixup
from timm.models import is_model_in_modules
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from gen.components import component_count
from gen.losses.spatial_entropy import head_decorrelation, spatial_entropy, total_variation
from gen.methods.base import Method, inference, judging, weigh
from gen.metrics.attention import above_mean
from gen.networks.attention_tap import AttentionTap
from gen.networks.last_block import rewire_last_block
from gen.schedules import half_cosine, ramp
from gen.weights import WeightsError

SIZED = {"cait", "pit", "swin_transformer", "swin_transformer_v2", "tnt"}  # modules of timm
RESIZABLE = {"vision_transformer", "deit", "eva"}  # and those that take other sizes later
REGULARIZERS = {f.__name__: f for f in (spatial_entropy, total_variation, head_decorrelation)}
EPOCHS = 100  # what a run that is given in iterations counts as


class SpatialEntropy(Method):
    """A Vision Transformer of timm, with a regulariser of its last attention.

    Args:
        model_name: model of timm; `gen.networks.attention_tap` says which can be regularised.
        img_size: side of the square training images, px.
        num_classes: number of classes S; `gen fit` takes it from the data.
        patch_size: side of a patch, px; 0 is the model's own.
        pretrained: start from timm's weights for `model_name`, which are downloaded.
        pretrained_file: start from this file of timm's layout (.safetensors, .pth) instead; the
            head is new where it has another number of classes, positions are resampled.
        regularizer: spatial_entropy, or a baseline: total_variation of the map,
            head_decorrelation of what the heads gather (without a class token: would gather for
            the mean query), none.
        lambda_reg: its largest weight.
        lambda_warmup_epochs: epochs over which the weight rises from 0, at most half of all; then
            it falls to 0 along half a cosine.
        rewire_last: the last block hands on only what its attention gathered ("nosn").
        drop_path: largest rate of stochastic depth.
        lr: learning rate (AdamW). DeiT: 5e-4 for 512 images a step, in proportion.
        lr_min: where a cosine takes it.
        lr_warmup_epochs: epochs over which it first rises from 1e-6, at most a quarter of all.
        weight_decay: decoupled decay of the kernels; biases, norms, tokens, positions have none.
        layer_decay: factor of the learning rate from each block to the one before it.
        label_smoothing: share of each label that is spread over all classes.
        mixup: Beta parameter of Mixup; 0 is none.
        cutmix: Beta parameter of CutMix; 0 is none. With both, each batch gets one of them.
        ema_decay: of the averaged weights, which `classify` uses.
        seed: of the first weights, Mixup and stochastic depth.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from nothing.
    """

    def __init__(
        self,
        model_name: str = "deit_small_patch16_224",
        img_size: int = 224,
        num_classes: int = 2,
        patch_size: int = 0,
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
        self.save_hyperparameters()
        if min(mixup, cutmix) < 0:
            raise ValueError(f"expected mixup and cutmix >= 0, got {mixup} and {cutmix}")
        self.net = self.build()
        for name in ("mean", "std"):  # of the colours that the model is used to
            colour = torch.tensor(self.net.pretrained_cfg[name]).view(3, 1, 1)
            self.register_buffer(name, colour, persistent=False)
        self.make_ema({"net": self.net}, ema_decay, warmup=True)
        self.tap = AttentionTap(self.net) if regularizer != "none" and lambda_reg else None
        mix = dict(label_smoothing=label_smoothing, num_classes=num_classes)
        self.mix = Mixup(mixup, cutmix, **mix) if mixup or cutmix else None
        names = [(k, which) for k in (1, 5) if k < num_classes for which in ("", "_raw")]
        scores = {f"top{k}{w}": MulticlassAccuracy(num_classes, k, "micro") for k, w in names}
        self.scores = nn.ModuleDict(scores)

    def build(self, **weights) -> nn.Module:
        """The network, by default with random weights: nothing is downloaded."""
        h = self.hparams
        if not timm.is_model(h.model_name):  # else timm would look for it on a hub or on the disk
            names = "timm.list_models('*vit*') has names"
            raise ValueError(f"model_name: expected a model of timm, got {h.model_name!r}; {names}")
        options = {"num_classes": h.num_classes, "drop_path_rate": h.drop_path}
        if is_model_in_modules(h.model_name, SIZED | RESIZABLE):
            options |= {"img_size": h.img_size}
        if is_model_in_modules(h.model_name, RESIZABLE):
            options |= {"dynamic_img_size": True}
        if h.patch_size:
            options |= {"patch_size": h.patch_size}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(h.seed)
            net = timm.create_model(h.model_name, **options, **weights)
        if h.rewire_last:
            rewire_last_block(net)
        return net

    def start(self) -> None:
        h = self.hparams
        if (h.pretrained or h.pretrained_file) and not h.init_from:
            file = {"pretrained_cfg_overlay": {"file": h.pretrained_file}}
            source = f"weights of timm's {h.model_name} in {h.pretrained_file or 'its hub'}"
            try:
                given = self.build(pretrained=True, **(file if h.pretrained_file else {}))
            except Exception as error:  # a missing or damaged file raises nearly anything
                what = f"{type(error).__name__}: {error!s:.200}"
                raise WeightsError(f"pretrained: expected {source}, got {what}") from error
            head, own = given.pretrained_cfg["classifier"], self.net.state_dict()  # same seed
            kernels = {k: v for k, v in given.state_dict().items() if v.ndim > 1}
            same = [k for k, v in kernels.items() if torch.equal(v, own[k])]
            if missing := [k for k in same if not k.startswith(head)]:  # timm passes over these
                raise WeightsError(f"pretrained: expected {source}, got none for {missing[:3]}")
            self.net.load_state_dict(given.state_dict())
            self.ema.set(nn.ModuleDict({"net": self.net}))
            rank_zero_info(f"started from {source}")
        super().start()

    # ---- schedules, pure functions of the iteration ---------------------------------------------

    def clock(self) -> tuple[int, int]:
        """Iterations and epochs of the whole run; one given in iterations has EPOCHS."""
        given = self.trainer.max_steps > 0 or (self.trainer.max_epochs or 0) < 1
        epochs = EPOCHS if given else self.trainer.max_epochs
        if (iterations := self.trainer.estimated_stepping_batches) == math.inf:
            raise ValueError("expected --trainer.max_epochs or max_steps, for the schedules")
        return int(iterations), epochs

    def lr_factor(self, iteration: int) -> float:
        h, (total, epochs) = self.hparams, self.clock()
        rise = min(h.lr_warmup_epochs * total // epochs, total // 4)
        if iteration < rise:
            return (1e-6 + (h.lr - 1e-6) * iteration / rise) / h.lr
        return (h.lr_min + (h.lr - h.lr_min) * half_cosine(iteration - rise, total - rise)) / h.lr

    def weight(self, iteration: int) -> float:
        """lambda(epoch), constant inside an epoch."""
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
        seed = self.draw(self.hparams.seed).initial_seed()
        torch.default_generator.manual_seed(seed)  # stochastic depth draws from it
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
            if name == "head_decorrelation":
                similarity, about = self.tap.pop_with_heads()  # (N, h, Hg, Wg), (N, h, D / h)
            else:
                similarity = about = self.tap.pop()
            logged["lambda_reg"] = torch.full((), weight, device=logits.device)
            if weight:
                terms[name], weights[name] = REGULARIZERS[name](about), weight
            if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # the logged ones
                logged["components"] = mean_components(similarity.detach())
        self.watch({f"train/{k}": v for k, v in (terms | logged).items()}, batch)
        return weigh(terms, weights)

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
        """Images (N, 3, H, H) in [-1, 1] -> logits (N, S), of the averaged or the raw weights."""
        self.check_images(x)
        with judging(self.ema.module["net"] if averaged else self.net) as net:
            return self.logits(net, x)

    @inference
    def attention(self, x: Tensor, averaged: bool = True) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] -> what each head looks at (N, h, Hg, Wg), scaled logits.

        A softmax over the patches gives shares. ViTs also take other sizes than `img_size`, in
        whole patches.

        Raises:
            ValueError: a model whose attention is no single map: see `AttentionTap`; another size.
        """
        with judging(self.ema.module["net"] if averaged else self.net) as net:
            tap = AttentionTap(net)
            try:
                tap.check_size(*x.shape[2:])
                self.logits(net, x)
                return tap.pop()
            finally:
                tap.remove()

    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """Logits (N, S) in float32."""
        return net(((x + 1) / 2 - self.mean) / self.std).float()

    def check_images(self, x: Tensor) -> None:
        size = (3, self.img_size, self.img_size)
        if x.ndim != 4 or x.shape[1:] != size:
            raise ValueError(
                f"expected images (N, {str(size)[1:]}, got {tuple(x.shape)}; resize them, or set "
                "--data.img_size as --model.img_size"
            )

    @property
    def img_size(self) -> int:
        return self.hparams.img_size


def mean_components(similarity: Tensor) -> Tensor:
    """Components above the mean, mean over maps (N, h, Hg, Wg)."""
    return component_count(above_mean(similarity)).float().mean()

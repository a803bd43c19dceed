"""Predicts attributes and factors of an image; edits are measured with these predictions.

The K binary attributes are multi-label: any number of them may hold. The F continuous factors show
what else an edit changed. Like `DomainClassifier`, the network is trained from scratch on exact
labels and on disturbed images of the training split.

Letters in shapes: N batch, K attributes, F factors, H image side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import R2Score
from torchmetrics.classification import MultilabelAccuracy, MultilabelExactMatch

from gen.methods.base import inference
from gen.methods.image_classifier import ImageJudge

HEADS = "bear,cat,dog,mouth_open,dark_fur,spots"
HEADS_FACTORS = (
    "x,y,scale,roll,yaw,pitch,gaze_x,gaze_y,lid,mouth,smile,fur_hue,fur_dark,iris,ear,"
    "spots,spot_side,spot_size,bg_hue,bg_light,bg_dx,bg_dy"
)


class AttributeClassifier(ImageJudge):
    """A multi-label classifier of attributes and a regressor of factors: one network, two heads.

    The heads are parts of one linear layer. The data must have `attributes` and `factors` in the
    batches, and their names, as `gen.data.Heads`. The loss is the binary cross-entropy of the
    attributes, with positives weighted by negatives / positives, plus the mean squared error of the
    factors in standard deviations; both statistics are measured on the training data.

    Args:
        model_name: name of a convolutional network of timm.
        img_size: side of the square images, px.
        attributes: names of the attributes as in the data, separated by commas.
        factors: names of the factors as in the data, separated by commas.
        lr: learning rate (AdamW).
        lr_warmup_iters: iterations over which the learning rate first rises linearly.
        lr_decay_start: iteration at which the learning rate begins to fall.
        lr_decay_iters: iterations over which the learning rate falls linearly to 0; 0 keeps it
            constant.
        weight_decay: decoupled weight decay of the kernels; biases and norms have none.
        disturb: strength of the disturbances of training images (colour, blur, noise); 0 is none.
        seed: seed of the first weights and of the disturbances.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from scratch.
    """

    def __init__(
        self,
        model_name: str = "resnet10t",
        img_size: int = 64,
        attributes: str = HEADS,
        factors: str = HEADS_FACTORS,
        lr: float = 1e-3,
        lr_warmup_iters: int = 100,
        lr_decay_start: int = 0,
        lr_decay_iters: int = 0,
        weight_decay: float = 0.05,
        disturb: float = 1.0,
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        self.save_hyperparameters()
        k, f = len(self.attribute_names), len(self.factor_names)
        self.build(k + f)
        self.register_buffer("pos_weight", torch.ones(k))
        self.register_buffer("factor_mean", torch.zeros(f))
        self.register_buffer("factor_std", torch.ones(f))
        self.accuracy = MultilabelAccuracy(k, average=None)
        self.exact_match = MultilabelExactMatch(k)
        self.r2 = R2Score(multioutput="raw_values")

    @property
    def attribute_names(self) -> list[str]:
        return self.hparams.attributes.split(",")

    @property
    def factor_names(self) -> list[str]:
        return self.hparams.factors.split(",")

    # ---- training -------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Checks the names against the data; before training, measures the data."""
        super().setup(stage)
        if (data := self.trainer.datamodule) is not None:
            images = data.train if stage == "fit" else data.val
            self.check_names("attributes", images.attribute_names, data)
            self.check_names("factors", images.factor_names, data)
            if stage == "fit":
                some = range(0, len(images), max(1, len(images) // 10_000))
                self.measure([images.annotations(i) for i in some])

    def check_names(self, kind: str, got: list[str], data: object) -> None:
        if (expected := self.hparams[kind]) != ",".join(got):
            raise ValueError(
                f"expected data with the {kind} {expected}, got {type(data).__name__} with "
                f"{','.join(got) or 'none'}; give --data=Heads, or --model.{kind} as they are there"
            )

    def measure(self, labels: list[dict[str, Tensor]]) -> None:
        """Sets the weights of positives, and the mean and standard deviation of each factor."""
        share = torch.stack([one["attributes"] for one in labels]).mean(0)  # (K,)
        std, mean = torch.std_mean(torch.stack([one["factors"] for one in labels]), 0)  # (F,)
        varies = [*(share * (1 - share) > 0).tolist(), *(std > 0).tolist()]
        names = zip([*self.attribute_names, *self.factor_names], varies, strict=True)
        if constant := [name for name, ok in names if not ok]:
            raise ValueError(
                f"expected training images that differ in every attribute and factor, got "
                f"{len(labels)} that share {', '.join(constant)}; add images"
            )
        self.pos_weight.copy_((1 - share) / share)
        self.factor_mean.copy_(mean)
        self.factor_std.copy_(std)

    def standard(self, factors: Tensor) -> Tensor:
        """Factors (N, F) in the data's units -> standard deviations from the mean."""
        return (factors - self.factor_mean) / self.factor_std

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        labels, factors = (
            torch.cat([batch[name + which] for which in ("", "_ref", "_ref2")])
            for name in ("attributes", "factors")
        )  # (3N, K), (3N, F)
        logits, z = self.split(self.net(self.seen(batch)).float())  # (3N, K), (3N, F)
        bce = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=self.pos_weight)
        mse = F.mse_loss(z, self.standard(factors))
        hits = ((logits > 0) == (labels > 0)).float().mean()
        self.log_terms({"train/bce": bce, "train/mse": mse, "train/accuracy": hits}, batch)
        return bce + mse

    def validation_step(self, batch: dict[str, Tensor], _: int = 0) -> None:
        logits, z = self.split(self.judge(batch["x"]))  # (N, K), (N, F)
        predicted, labels = (logits > 0).int(), batch["attributes"].int()
        self.accuracy.update(predicted, labels)
        self.exact_match.update(predicted, labels)
        self.r2.update(z, self.standard(batch["factors"]))

    def on_validation_epoch_end(self) -> None:
        """Logs accuracy and R^2, each and their means, and `val/accuracy_joint`: all K right."""
        metrics = self.accuracy, self.exact_match, self.r2
        accuracy, joint, r2 = (metric.compute() for metric in metrics)  # (K,), (), (F,)
        r2 = r2.view(-1)  # it is () for one factor
        for metric in metrics:
            metric.reset()
        rows = {"val/accuracy": accuracy.mean(), "val/accuracy_joint": joint, "val/r2": r2.mean()}
        rows |= {
            f"val/accuracy_{n}": v for n, v in zip(self.attribute_names, accuracy, strict=True)
        }
        self.log_dict(rows | {f"val/r2_{n}": v for n, v in zip(self.factor_names, r2, strict=True)})

    test_step, on_test_epoch_end = validation_step, on_validation_epoch_end

    def predict_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        """Probabilities (N, K) of the attributes."""
        return self.classify(batch["x"]).sigmoid()

    # ---- inference ------------------------------------------------------------------------------

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K + F) -> logits (N, K), standardised factors (N, F)."""
        return outputs.tensor_split([len(self.attribute_names)], 1)

    def classify(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, H) in [-1, 1] -> logits (N, K), > 0 where the attribute holds."""
        return self.logits(self.checked(x))

    def logits(self, x: Tensor) -> Tensor:
        """`classify` for generated images, which may leave [-1, 1]: without the check of the range,
        which would wait for the GPU."""
        return self.split(self.judge(x))[0]

    @inference
    def regress(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, H) in [-1, 1] -> factors (N, F), in the units of the data."""
        return self.split(self.judge(self.checked(x)))[1] * self.factor_std + self.factor_mean

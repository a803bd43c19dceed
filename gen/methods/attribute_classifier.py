"""Predicts attributes and factors of an image; edits are measured with these predictions.

The K binary attributes are multi-label: any number of them may hold. The F continuous factors show
what else an edit changed. Like `DomainClassifier`, the network is trained from scratch on labels,
some of which may be unknown (NaN), and on disturbed images of the training split.

Letters in shapes: N batch, K attributes, F factors, H image side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import R2Score
from torchmetrics.classification import MultilabelAccuracy, MultilabelExactMatch

from gen.data.base import LabelledImages
from gen.methods.base import inference
from gen.methods.image_classifier import ImageJudge

UNKNOWN = -1  # label that the metrics leave out
HEADS = "bear,cat,dog,mouth_open,dark_fur,spots"
HEADS_FACTORS = (
    "x,y,scale,roll,yaw,pitch,gaze_x,gaze_y,lid,mouth,smile,fur_hue,fur_dark,iris,ear,"
    "spots,spot_side,spot_size,bg_hue,bg_light,bg_dx,bg_dy"
)


class AttributeClassifier(ImageJudge):
    """A multi-label classifier of attributes and a regressor of factors: one network, two heads.

    The heads are parts of one linear layer. The data must have `attributes` and `factors` in the
    batches, and their names, as `gen.data.Heads`; `gen.data.Attributes` has no factors: then there
    is no second head. Unknown labels count nowhere. The loss is the binary cross-entropy of the
    attributes, with positives weighted by negatives / positives, plus the mean squared error of the
    factors in standard deviations; both statistics are measured on the training data.

    Args:
        model_name: name of a convolutional network of timm.
        img_size: side of the square images, px.
        attributes: names of the attributes as in the data, separated by commas.
        factors: names of the factors as in the data, separated by commas; empty: none.
        exclusive: attributes that exclude each other, as the data declares them, such as
            `cat+dog,day+night`; empty: editors find out from images.
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
        exclusive: str = "",
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
        self.accuracy = MultilabelAccuracy(k, average=None, ignore_index=UNKNOWN)
        self.exact_match = MultilabelExactMatch(k, ignore_index=UNKNOWN)
        self.r2 = R2Score(multioutput="raw_values")

    @property
    def attribute_names(self) -> list[str]:
        return self.hparams.attributes.split(",")

    @property
    def factor_names(self) -> list[str]:
        return self.hparams.factors.split(",") if self.hparams.factors else []

    @property
    def exclusive(self) -> list[list[str]]:
        """Groups of attributes that exclude each other."""
        return [group.split("+") for group in filter(None, self.hparams.exclusive.split(","))]

    # ---- training -------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Checks the names against the data; before training, measures the data."""
        super().setup(stage)
        if (data := self.trainer.datamodule) is not None:
            images = data.train if stage == "fit" else data.val
            self.check_names("attributes", images.attribute_names, data)
            self.check_names("factors", images.factor_names, data)
            self.check_names("exclusive", ["+".join(group) for group in images.exclusive], data)
            if self.trainer.limit_val_batches:
                self.check_known(data.val)
            if stage == "fit":
                some = range(0, len(images), max(1, len(images) // 10_000))
                self.measure([images.annotations(i) for i in some])

    def check_names(self, kind: str, got: list[str], data: object) -> None:
        if (expected := self.hparams[kind]) != ",".join(got):
            raise ValueError(
                f"expected data with the {kind} {expected}, got {type(data).__name__} with "
                f"{','.join(got) or 'none'}; give --data=Heads, or --model.{kind} as they are there"
            )

    def check_known(self, val: LabelledImages) -> None:
        """Raises ValueError if no label of some attribute is known in validation."""
        known = [~val.annotations(i)["attributes"].isnan() for i in range(len(val))]
        never = (~torch.stack(known).any(0)).nonzero().flatten().tolist()
        if never:
            names = ", ".join(self.attribute_names[k] for k in never)
            raise ValueError(
                f"expected validation images with known labels of every attribute, got none of "
                f"{names}; label some, or put labelled images into val/"
            )

    def measure(self, labels: list[dict[str, Tensor]]) -> None:
        """Sets the weights of positives, and the mean and standard deviation of each factor."""
        share = torch.stack([one["attributes"] for one in labels]).nanmean(0)  # (K,), maybe NaN
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
        known = ~labels.isnan()  # (3N, K)
        errors = F.binary_cross_entropy_with_logits(
            logits, labels.nan_to_num(), pos_weight=self.pos_weight, reduction="none"
        )
        hits = ((logits > 0) == (labels > 0)) & known
        count = known.sum().clamp(min=1)
        terms = {"bce": (errors * known).sum() / count}
        if self.factor_names:
            terms["mse"] = F.mse_loss(z, self.standard(factors))
        logs = terms | {"accuracy": hits.sum() / count}
        self.log_terms({f"train/{name}": value for name, value in logs.items()}, batch)
        return sum(terms.values())

    def validation_step(self, batch: dict[str, Tensor], _: int = 0) -> None:
        logits, z = self.split(self.judge(batch["x"]))  # (N, K), (N, F)
        predicted, labels = (logits > 0).int(), batch["attributes"].nan_to_num(UNKNOWN).int()
        self.accuracy.update(predicted, labels)
        self.exact_match.update(predicted, labels)
        if self.factor_names:
            self.r2.update(z, self.standard(batch["factors"]))

    def on_validation_epoch_end(self) -> None:
        """Logs accuracy and R^2, each and their means, and `val/accuracy_joint`: all K right."""
        accuracy, joint = self.accuracy.compute(), self.exact_match.compute()  # (K,), ()
        rows = {"val/accuracy": accuracy.mean(), "val/accuracy_joint": joint}
        rows |= {
            f"val/accuracy_{n}": v for n, v in zip(self.attribute_names, accuracy, strict=True)
        }
        if self.factor_names:
            r2 = self.r2.compute().view(-1)  # (F,); it is () for one factor
            rows |= {"val/r2": r2.mean()}
            rows |= {f"val/r2_{n}": v for n, v in zip(self.factor_names, r2, strict=True)}
        for metric in (self.accuracy, self.exact_match, self.r2):
            metric.reset()
        self.log_dict(rows)

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

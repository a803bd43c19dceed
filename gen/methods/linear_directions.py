"""Linear directions in the codes of a frozen StyleGAN2: the baseline of `StyleFunction`.

Source: Shen et al., "Interpreting the Latent Space of GANs for Semantic Face Editing", CVPR 2020
(InterFaceGAN): each attribute has a linear classifier of codes. An edit moves a code along the
normal of its hyperplane, without the components that change the attributes to keep. Here all K
attributes are trained and edited at once; a classifier labels the generator's images.

With u = (w - mean) / std a code, standardised number by number, s_k(u) = a_k u + b_k its scores,
e_k their standard deviation over codes, and t_k = 1 or -1 where attribute k is wanted or not:

    s*_k = t_k max(t_k s_k, strength e_k)          scores far enough on their side stay
    step = argmin |step|^2 + 1 / RIDGE sum_k (distance of u + step to a_k u + b_k = s*_k)^2
         = A' (A A' + RIDGE I)^-1 (s* - s)         rows of A and their scores divided by |a_k|

that is, up to RIDGE, the shortest step that gives every attribute its score. Attributes that
exclude each other make A A' nearly singular; RIDGE keeps their step short.

Letters in shapes: N batch, L rows of a code, D its width, K attributes, C numbers of a code in the
classifiers' input: D in W, L D in W+.
"""

from __future__ import annotations

from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from gen.devices import full_precision, send
from gen.methods.base import inference
from gen.methods.editor import Editor
from gen.methods.schedules import half_cosine

RIDGE = 1e-2
MEASURED = 2000  # codes that give the mean and standard deviation
MEMORY = 0.98  # decay per iteration of the running standard deviations of scores


class LinearDirections(Editor):
    """Linear directions in the codes of a `StyleGAN2`. Edits are deterministic: noise is unused.

    Args:
        generator: checkpoint of `StyleGAN2` (.safetensors or .ckpt) whose codes are edited.
            Checkpoints of this method contain its weights, so they need no other file.
        judge: checkpoint of `AttributeClassifier` that labels the generator's images in training.
        attributes: names of the K attributes as in the classifier, separated by commas.
        img_size: side H of the images, px; 0: as in the generator's file.
        z_dim: width of the latents; 0: as in the generator's file.
        w_dim: width D of the codes; 0: as in the generator's file.
        map_layers: layers of the mapping network; 0: as in the generator's file.
        channel_base: channels times resolution; 0: as in the generator's file.
        channel_max: upper limit for the channels of a layer; 0: as in the generator's file.
        clamp: limit of the activations; 0: no limit; -1: as in the generator's file.
        psi: truncation of the codes that are edited; 1 is none, 0 the mean code.
        space: space of the directions: `W` classifies the mean of the rows of a code and moves all
            rows alike, `W+` moves each row in a direction of its own.
        mixing: share of the training codes in W+ that get a range of rows from another code; at 0
            all rows of a code are equal, so the classifiers cannot learn which rows matter.
        loss: loss of the classifiers: `logistic`, or `hinge` as for a support vector machine.
        strength: least score of every attribute on its wanted side after an edit, in standard
            deviations of the score over codes.
        weight_decay: weight of half the squared norm of the classifiers' weights.
        lr: learning rate (Adam).
        lr_iters: iterations over which the learning rate falls to 0 along half a cosine; 0 keeps
            it constant.
        seed: seed of all random numbers in training.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from scratch.
    """

    noise_dim = 0
    bounds = {
        **dict.fromkeys(("strength", "weight_decay", "lr", "lr_iters"), (0, inf)),
        **dict(mixing=(0, 1)),
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
        space: Literal["W+", "W"] = "W+",
        mixing: float = 0.875,
        loss: Literal["logistic", "hinge"] = "logistic",
        strength: float = 2.0,
        weight_decay: float = 1e-3,
        lr: float = 1e-2,
        lr_iters: int = 0,
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        self.save_hyperparameters()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build_generator()
        K, C = len(self.attribute_names), self.width * (self.rows if space == "W+" else 1)
        self.classifiers = nn.Linear(C, K)
        nn.init.zeros_(self.classifiers.weight)
        nn.init.zeros_(self.classifiers.bias)
        self.register_buffer("code_mean", torch.zeros(C))
        self.register_buffer("code_std", torch.ones(C))
        self.register_buffer("score_std", torch.zeros(K))

    # ---- training -------------------------------------------------------------------------------

    def load_init(self) -> None:
        super().load_init()
        if not self.hparams.init_from:
            data = self.trainer.datamodule.train
            batch = default_collate([data[i] for i in range(min(MEASURED, len(data)))])
            with torch.no_grad():
                self.measure(self.codes({k: v.to(self.device) for k, v in batch.items()}))

    def measure(self, ws: Tensor) -> None:
        """Sets the mean and standard deviation of codes to those of `ws` (N, L, D)."""
        std, mean = torch.std_mean(self.seen(ws), 0)  # (C,)
        if not std.sum() > 0:
            raise ValueError(f"expected codes that differ, got {len(ws)} equal ones")
        self.code_mean.copy_(mean)
        self.code_std.copy_(std.clamp(min=1e-3 * std.mean()))  # constant numbers: not 0

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(self.classifiers.parameters(), self.hparams.lr, fused=True)]

    def lr_factor(self, iteration: int) -> float:
        iters = self.hparams.lr_iters
        return half_cosine(min(iteration, iters), iters) if iters else 1.0

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> Tensor:
        h, rng = self.hparams, self.step_rng(self.hparams.seed)
        with torch.no_grad():
            ws = self.codes(batch)  # (N, L, D)
            self.follow(self.scores(ws))
            if h.space == "W+":
                ws = mixed(ws, h.mixing, rng)
            y = self.labels(self.generator.synthesis(ws))  # (N, K)
        scores = self.scores(ws)  # (N, K)
        if h.loss == "logistic":
            of_each = F.binary_cross_entropy_with_logits(scores, y, reduction="none")
        else:
            of_each = (1 - (2 * y - 1) * scores).relu()
        terms = {h.loss: of_each.mean(0).sum()}  # each attribute has weight 1
        if h.weight_decay:
            terms["penalty"] = h.weight_decay * 0.5 * self.classifiers.weight.square().sum()
        hits = ((scores > 0) == (y > 0)).float().mean()
        logs = terms | {"accuracy": hits}
        self.log_terms({f"train/{name}": value for name, value in logs.items()}, batch)
        return sum(terms.values())

    def follow(self, scores: Tensor) -> None:
        """Updates the running standard deviations with those of scores (N, K)."""
        std = self.across(scores.std(0, correction=0))
        self.score_std.lerp_(std, 1 - MEMORY)

    def seen(self, ws: Tensor) -> Tensor:
        """Codes (N, L, D) -> the numbers (N, C) that are the classifiers' input."""
        return ws.flatten(1) if self.hparams.space == "W+" else ws.mean(1)

    def scores(self, ws: Tensor) -> Tensor:
        """Codes (N, L, D) -> scores (N, K), > 0 where an attribute holds."""
        with full_precision(ws.device):
            return self.classifiers((self.seen(ws.float()) - self.code_mean) / self.code_std)

    # ---- inference: no gradients, full precision ------------------------------------------------

    @inference
    def edit(self, ws: Tensor, d: Tensor, z: Tensor | None = None) -> Tensor:
        """Codes (N, L, D), wanted attributes (N, K) in {0, 1} -> codes (N, L, D); `z` is unused."""
        self.check_request(ws, d, z)
        return self.edited(ws, d)

    def edited(self, ws: Tensor, d: Tensor, z: Tensor | None = None) -> Tensor:
        """`edit` without checks."""
        scores, sign = self.scores(ws), 2 * d - 1  # (N, K)
        wanted = sign * torch.maximum(sign * scores, self.hparams.strength * self.score_std)
        step = (wanted - scores) @ self.directions()  # (N, C)
        return ws + (step * self.code_std).view(ws.shape[0], -1, ws.shape[2])  # (N, L or 1, D)

    def directions(self) -> Tensor:
        """Steps (K, C) that each change one score by one, and no other."""
        A = self.classifiers.weight  # (K, C)
        norm = A.norm(dim=1, keepdim=True).clamp(min=1e-6)  # (K, 1)
        normals = A / norm
        gram = normals @ normals.T + RIDGE * torch.eye(len(A)).to(A)  # (K, K)
        return torch.linalg.solve(gram, normals) / norm


def mixed(ws: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Codes (N, L, D); a `share` of them gets 2 to 2 + L/2 consecutive rows of another code.

    Codes are mixed as by Liu et al. (arXiv 2109.12492, released data); ranges stop at the last row.
    """
    N, L = ws.shape[:2]
    first = torch.randint(L, (N, 1), generator=rng)
    count = torch.randint(2, 3 + L // 2, (N, 1), generator=rng)
    row, chosen = torch.arange(L), torch.rand(N, 1, generator=rng) < share
    other = chosen & (first <= row) & (row < first + count)  # (N, L)
    order = torch.randperm(N, generator=rng)
    return torch.where(send(other[:, :, None], ws), ws[send(order, ws)], ws)

"""Adversarial losses."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.losses import at_least_fp32


def bce(logits: Tensor, real: bool, weight: Tensor | None = None) -> Tensor:
    """Non-saturating GAN loss: mean_n -log p_n, p = sigmoid(logit) if real, else 1 - sigmoid.

    Goodfellow et al. 2014; StarGAN v2 (Choi et al. 2020) eq. 1. `logits` (N,), any dtype, computed
    in fp32; `weight` (N,) multiplies each element before the mean. Range [0, inf).
    """
    logits = at_least_fp32(logits)
    loss = F.softplus(-logits if real else logits)  # (N,)
    return (loss if weight is None else weight * loss).mean()


def r1(logits: Tensor, x: Tensor) -> Tensor:
    """R1 = 1/2 mean_n ||d logit_n / d x_n||^2, the squared norm summed over pixels.

    Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?". `logits` (N,)
    computed from `x` (N, C, H, W) with `x.requires_grad`; twice differentiable. Range [0, inf).
    """
    (grad,) = torch.autograd.grad(logits.sum(), x, create_graph=True)  # (N, C, H, W)
    return 0.5 * at_least_fp32(grad).square().sum((1, 2, 3)).mean()

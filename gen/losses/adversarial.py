"""Adversarial losses and regularisers of GAN training."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.losses import at_least_fp32


def bce(logits: Tensor, real: bool, weight: Tensor | None = None) -> Tensor:
    """Non-saturating GAN loss: mean_n -log p_n, p = sigmoid(logit) if real, else 1 - sigmoid.

    Goodfellow et al. 2014; StarGAN v2 (Choi et al. 2020) eq. 1. `logits` (N,), or (N, P) for P
    patches of each image, any dtype, computed in fp32; `weight` (N,) multiplies the loss of each
    image before the mean. Range [0, inf).
    """
    logits = at_least_fp32(logits)
    loss = F.softplus(-logits if real else logits)  # (N,) or (N, P)
    return loss.mean() if weight is None else (weight * of_images(loss)).mean()


def relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """mean_n softplus(worse_n - better_n): pushes the logit `better` above the logit `worse`.

    Relativistic pairing, Jolicoeur-Martineau 2018, as in R3GAN (Huang et al. 2024). D's loss has
    better = real and worse = fake, G's loss the reverse. Use it only with R1 on real and on fake
    images (R2). Logits (N,) or (N, P); rows n of both have the same domain. Range [0, inf).
    """
    return F.softplus(at_least_fp32(worse) - at_least_fp32(better)).mean()


def of_images(values: Tensor) -> Tensor:
    """(N,) unchanged; (N, P) averaged over the P patches of each image -> (N,)."""
    return values if values.ndim == 1 else values.mean(1)


def r1(logits: Tensor, x: Tensor) -> Tensor:
    """R1 = 1/2 mean_n ||d logit_n / d x_n||^2, squared norm over all pixels; for fake images: R2.

    Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?". `logits` (N,),
    or (N, P), which are averaged, computed from `x` (N, C, H, W) with `x.requires_grad`; twice
    differentiable. Range [0, inf). Compute it in float32, as the methods do: in bfloat16 on CPUs
    with AMX, PyTorch gets second derivatives of some convolutions wrong (2.15, error of 100 %).
    """
    total = of_images(logits).sum()
    (grad,) = torch.autograd.grad(total, x, create_graph=True)  # (N, C, H, W)
    return 0.5 * at_least_fp32(grad).square().sum((1, 2, 3)).mean()


def feature_matching(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """mean over layers l of mean |a_l - b_l|, D's features of an image and its reconstruction.

    Salimans et al. 2016; Wang et al. (pix2pixHD) 2018. Lists of maps (N, C_l, h_l, h_l) of equal
    shapes; the features `a` of the original get no gradient. Range [0, inf).
    """
    errors = [
        (at_least_fp32(p).detach() - at_least_fp32(q)).abs().mean()
        for p, q in zip(a, b, strict=True)
    ]
    return torch.stack(errors).mean()


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """l_n = sqrt(mean_r ||d <x_n, y_n> / d w_nr||^2), y = `noise` / sqrt(H W): images' change by w.

    Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 3.2, with
    the mean over the rows r of a code as released. `images` (N, C, H, W) computed from `ws`
    (N, L, D) with `ws.requires_grad`; `noise` (N, C, H, W) ~ N(0, 1). Returns (N,), which can be
    differentiated again. Range [0, inf).
    """
    y = noise / math.sqrt(images.shape[2] * images.shape[3])
    (grad,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)  # (N, L, D)
    norms = torch.linalg.vector_norm(at_least_fp32(grad), dim=(1, 2))  # (N,), 0 has gradient 0
    return norms / math.sqrt(ws.shape[1])


def path_length(lengths: Tensor, average: Tensor, decay: float = 0.01) -> tuple[Tensor, Tensor]:
    """mean_n (l_n - a)^2, a = `average` + `decay` (mean_n l_n - `average`); also returns a.

    Path length regularisation, eq. 4 of the same paper: steps of equal length in W should change
    all images equally. `lengths` (N,) come from `path_lengths`; `average` () is the a that the
    previous call returned, first 0. As released, a is not detached in the loss; the returned a is
    detached. Range [0, inf).
    """
    average = average.lerp(lengths.mean(), decay)
    return (lengths - average).square().mean(), average.detach()

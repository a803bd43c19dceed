"""Losses of Click to Move: flow, visibility, affine motion, latents, frames, discriminators.

Weights and forms are those of the release of Ardino et al., "Click to Move", ICCV 2021 (C2M),
unless a docstring says otherwise. Flow is in px, images are in [-1, 1], visible pixels are 1.

Letters in shapes: N batch, T steps, M objects, C channels, H height, W width, Z latent.
"""

import torch.nn.functional as F
from torch import Tensor

from gen.losses import at_least_fp32


def flow_l1(flow: Tensor, target: Tensor, visible: Tensor) -> Tensor:
    """mean v |F - F*| over all elements, visible or not. C2M, flow reconstruction.

    `flow` and `target` (..., 2, H, W) px, `visible` (..., 1, H, W) in {0, 1}. Range [0, inf) px.
    """
    return (visible * (at_least_fp32(flow) - target).abs()).mean()


def visibility_bce(logits: Tensor, visible: Tensor) -> Tensor:
    """mean -v log p - (1 - v) log(1 - p), p = sigmoid(logit). C2M has mean |p - v|, whose gradient
    vanishes for confident errors. Equal shapes. Range [0, inf)."""
    return F.binary_cross_entropy_with_logits(at_least_fp32(logits), at_least_fp32(visible))


def warped_l1(warped: Tensor, frames: Tensor) -> Tensor:
    """mean |warp(X_0, F_t) - X_t|, also at pixels that X_0 does not show. C2M, warped.

    `warped` and `frames` (..., 3, H, W). Range [0, 2].
    """
    return (at_least_fp32(warped) - frames).abs().mean()


def flow_smoothness(flow: Tensor, image: Tensor) -> Tensor:
    """mean |d_x F| exp(-mean_c |d_x X|) + mean |d_y F| exp(-mean_c |d_y X|): smooth off edges.

    After Godard et al., CVPR 2017; C2M. `flow` (..., 2, H, W) px, `image` (..., 3, H, W) of the
    same frames, H, W >= 2. Range [0, inf), 0 for constant flow.
    """
    flow, image = at_least_fp32(flow), at_least_fp32(image)
    terms = (
        flow.diff(dim=d).abs() * (-image.diff(dim=d).abs().mean(-3, keepdim=True)).exp()
        for d in (-1, -2)
    )
    return sum(term.mean() for term in terms)


def kl(mean: Tensor, log_variance: Tensor, free: float = 0.0) -> Tensor:
    """mean_z max(free, mean_n K), K = (m^2 + exp(l) - 1 - l) / 2: KL to N(0, I), nats per element.

    C2M with `free` = 0. Free bits (Kingma et al., NeurIPS 2016): elements whose mean over the batch
    is below `free` nats get no gradient. `mean`, `log_variance` (N, Z). Range [free, inf).
    """
    m, log_v = at_least_fp32(mean), at_least_fp32(log_variance)
    nats = 0.5 * (m.square() + log_v.exp() - 1 - log_v)  # (N, Z)
    return nats.mean(0).clamp(min=free).mean() if free else nats.mean()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """mean clip((1 - SSIM) / 2, 0, 1), SSIM of 3 x 3 windows, C_1 = 0.01^2, C_2 = 0.03^2.

    Wang et al., TIP 2004, with box windows as in C2M and Godard et al., CVPR 2017. `x` and `y`
    (..., C, H, W) in [-1, 1], compared in [0, 1]; H, W >= 3. Range [0, 1], 0 where equal.
    """
    x, y = ((at_least_fp32(v).flatten(0, -4) + 1) / 2 for v in (x, y))
    mx, my, xx, yy, xy = (F.avg_pool2d(v, 3, 1) for v in (x, y, x * x, y * y, x * y))
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
    bottom = (mx * mx + my * my + c1) * ((xx - mx * mx) + (yy - my * my) + c2)
    return ((1 - top / bottom) / 2).clamp(0, 1).mean()


def theta_l1(
    theta: Tensor, target: Tensor, present: Tensor, part: tuple[tuple[int, int], ...]
) -> Tensor:
    """sum_t sum_(i, j) mean_n |theta_ij - theta*_ij| over `part`, mean over present objects n.

    `theta` and `target` (N, T, M, 2, 3), `present` (N, M) bool. Range [0, inf), 0 without objects.
    """
    error = (at_least_fp32(theta) - target).abs()  # (N, T, M, 2, 3)
    chosen = sum(error[..., i, j] for i, j in part).sum(1)  # (N, M)
    return chosen.where(present, 0).sum() / present.sum().clamp(min=1)


def translation(theta: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """`theta_l1` of the entries (0, 2) and (1, 2), the shift. C2M, translation. Range [0, inf)."""
    return theta_l1(theta, target, present, ((0, 2), (1, 2)))


def scale(theta: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """`theta_l1` of the entries (0, 0) and (1, 1), the size. C2M, scale. Range [0, inf)."""
    return theta_l1(theta, target, present, ((0, 0), (1, 1)))


def rotation(theta: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """`theta_l1` of the entries (0, 1) and (1, 0), rotation and shear. Targets are those of the
    data; in C2M they are 0. Range [0, inf)."""
    return theta_l1(theta, target, present, ((0, 1), (1, 0)))


def change(
    ways: tuple[Tensor, Tensor, Tensor], there: tuple[Tensor, Tensor, Tensor], others: Tensor
) -> Tensor:
    """sum_t mean_n |(d'_n - d_n) - (t'_n - t_n)|_1, predicted shifts d' in another branch and d in
    this one, true ones t' and t, mean over the objects n of `others` (N, M) bool.

    Of two branches of a scene: predicted and true motion (N, T, M, 2, 3) about centres; further
    entries are ignored. Own choice: an outcome alone does not say what a cause changes. Range
    [0, inf), 0 without objects.
    """
    (a, a_true), (b, b_true) = ways[:2], there[:2]
    error = (at_least_fp32(b) - a - (b_true - a_true))[..., 2].abs().sum((1, 3))  # (N, M)
    return error.where(others, 0).sum() / others.sum().clamp(min=1)


def lsgan(logits: Tensor, real: bool) -> Tensor:
    """mean (D - 1)^2 if real, else mean D^2, over all samples and patches, any shape.

    Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017. Range [0, inf).
    """
    return (at_least_fp32(logits) - float(real)).square().mean()


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """sum_l mean |D_l(fake) - sg(D_l(real))| over the features of a discriminator's levels.

    Wang et al., "High-Resolution Image Synthesis with Conditional GANs", CVPR 2018. Equal shapes
    level by level. Range [0, inf).
    """
    pairs = zip(fake, real, strict=True)
    return sum((at_least_fp32(a) - at_least_fp32(b.detach())).abs().mean() for a, b in pairs)

"""Losses on style codes (N, D) and on generated images."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.devices import send
from gen.losses import at_least_fp32


def l1(a: Tensor, b: Tensor) -> Tensor:
    """mean |a - b|, in fp32, over any equal shapes: style reconstruction, cycle and diversity.

    StarGAN v2 (Choi et al. 2020) eq. 2-4: L_sty = l1(E(x_f), s), L_cyc = l1(G(x_f, E(x)), x),
    L_ds = l1(G(x, s1), G(x, s2)). Range [0, inf).
    """
    return (at_least_fp32(a) - at_least_fp32(b)).abs().mean()


def compactness(*styles: Tensor) -> Tensor:
    """L_SR = sum_k mean_{n,d} s_k^2, each `s_k` (N, D): pulls every code towards the origin.

    Liu et al., "Smoothing the Disentangled Latent Style Space for Unsupervised Image-to-Image
    Translation", CVPR 2021, style regularisation as released. Range [0, inf).
    """
    return sum(at_least_fp32(s).square().mean() for s in styles)


def style_triplet(
    anchor: Tensor, positive: Tensor, negative: Tensor, valid: Tensor, margin: float = 0.1
) -> Tensor:
    """mean over valid n of max(0, ||a - p||_2 - ||a - q||_2 + margin), 0 if none is valid.

    CVPR 2021 (ibid.): anchor a and positive p share a domain, negative q is of another. Codes
    (N, D), computed in fp32; `valid` (N,) bool is y_trg != y_src. Range [0, inf).
    """
    loss = F.triplet_margin_loss(
        *(at_least_fp32(s) for s in (anchor, positive, negative)), margin=margin, reduction="none"
    )  # (N,)
    return (loss * valid).sum() / valid.sum().clamp(min=1)


def moment_matching(a: Tensor, a2: Tensor, b: Tensor, b2: Tensor) -> Tensor:
    """Unbiased loss that matches mean and spread of codes `a` to those of codes `b`, by domain.

    mean_nd (a - b)(a2 - b2) + mean_d (v(a, a2)^(1/2) - v(b, b2)^(1/2))^2,
    v(a, a2)_d = mean_n (a - a2)^2 / 2. Four samples (N, D); rows n of all four have the same
    domain. The first part estimates (mean a - mean b)^2 of each domain, so it may be negative. Our
    own: E's codes of references are matched to F's codes of latents; `b`, `b2` get no gradient.
    """
    a, a2, b, b2 = (at_least_fp32(s) for s in (a, a2, b.detach(), b2.detach()))
    spread, wanted = ((s - t).square().mean(0).div(2) + 1e-8 for s, t in ((a, a2), (b, b2)))  # (D,)
    return ((a - b) * (a2 - b2)).mean() + (spread.sqrt() - wanted.sqrt()).square().mean()


def shrinkage(
    s: Tensor, y: Tensor, kind: Literal["origin", "centroid", "pairwise"] = "origin"
) -> Tensor:
    """Compacts the joint style space of all domains; codes `s` (N, D), domains `y` (N,).

    origin:   mean_n ||s_n||^2 / D
    centroid: mean_n ||s_n - sg(mean s)||^2 / D           (free of translation)
    pairwise: mean over pairs y_i != y_j of ||s_i - s_j||^2 / D    (0 if there is no such pair)
    After Liu et al., arXiv 2210.00841; the forms are our reading of its abstract. Range [0, inf).
    """
    s = at_least_fp32(s)
    if kind == "origin":
        return s.square().mean()
    if kind == "centroid":
        return (s - s.mean(0).detach()).square().mean()
    if kind == "pairwise":
        other = y[:, None] != y[None, :]  # (N, N)
        squares = (s[:, None] - s[None, :]).square().mean(2)  # (N, N)
        return (squares * other).sum() / other.sum().clamp(min=1)
    raise ValueError(f"kind: expected origin, centroid or pairwise, got {kind!r}")


def neighbourhood(w: Tensor, w_edit: Tensor) -> Tensor:
    """L_nb = mean_n ||w_n - w'_n||_F over codes (N, L, D), not squared: keeps edits near w.

    Liu et al., "ISF-GAN", arXiv 2109.12492, as released. Range [0, inf), gradient 0 where equal.
    """
    return (at_least_fp32(w) - at_least_fp32(w_edit)).flatten(1).norm(dim=1).mean()


def mixup_partner(y: Tensor, generator: torch.Generator) -> Tensor:
    """A random permutation (N,) with partners of another domain where possible: y[perm] != y.

    The batch is shuffled, sorted by domain, and rolled by the size of its largest domain.
    """
    shuffled = send(torch.randperm(len(y), generator=generator), y)
    order = shuffled[y[shuffled].argsort(stable=True)]  # (N,) grouped by domain
    largest = (y[:, None] == y[None, :]).sum(1).amax()
    rank = torch.arange(len(y), device=y.device)
    perm = torch.empty_like(order)
    return perm.scatter_(0, order, order[(rank + largest) % len(y)])

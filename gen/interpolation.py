"""Interpolation of codes and the images along it.

Codes are (..., D); `t` broadcasts against them. A path is `(N, T, 3, H, W)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor


def lerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Straight line (1 - t) a + t b; exactly `a` at 0 and `b` at 1."""
    return (1 - t) * a + t * b


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Great circle in direction, straight line in length; collinear-safe (falls to `lerp`).

    With unit vectors u, v at angle w: direction = (sin((1-t) w) u + sin(t w) v) / sin w
    (Shoemake 1985). Parallel, opposite or zero vectors have no unique plane: they take `lerp`.
    """
    na, nb = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    u, v = a / na.clamp(min=1e-12), b / nb.clamp(min=1e-12)
    cos = (u * v).sum(-1, keepdim=True)
    collinear = (cos.abs() > 1 - 1e-6) | (na < 1e-12) | (nb < 1e-12)
    w = torch.where(collinear, torch.ones_like(cos), cos).clamp(-1, 1).acos()
    w = torch.where(collinear, torch.ones_like(w), w)  # any angle: the branch is not taken
    direction = (((1 - t) * w).sin() * u + (t * w).sin() * v) / w.sin()
    return torch.where(collinear, lerp(a, b, t), lerp(na, nb, t) * direction)


def mix(codes: Tensor, weights: Tensor) -> Tensor:
    """Convex combination of K codes: (..., K, D) and weights (..., K) that sum to 1 -> (..., D)."""
    total = weights.sum(-1)
    if not torch.allclose(total, torch.ones_like(total), atol=1e-4):
        raise ValueError(f"weights: expected a sum of 1, got {total.flatten()[:4].tolist()}")
    return (weights[..., None] * codes).sum(-2)


def alphas(frames: int = 20, protocol: Literal["released", "strict"] = "released") -> Tensor:
    """The grid (T,) of a path: released 0, 1/T, .. (T-1)/T (0 .. 0.95 for 20); strict 0 .. 1.

    The released evaluation of CVPR 2021 leaves out the end style; `strict` renders it.
    """
    if frames < 2:
        raise ValueError(f"frames: expected at least 2, got {frames}")
    if protocol == "released":
        return torch.arange(frames) / frames
    if protocol == "strict":
        return torch.linspace(0, 1, frames)
    raise ValueError(f"protocol: expected released or strict, got {protocol!r}")


def path(
    decode: Callable[[Tensor], Tensor],
    s_a: Tensor,
    s_b: Tensor,
    alphas: Tensor,
    method: Literal["lerp", "slerp"] = "lerp",
) -> Tensor:
    """Frames from style `s_a` to `s_b`, straight from the generator: (N, T, 3, H, W).

    `decode` maps (N, D) to (N, 3, H, W) and is called once a step with all N sequences, so it may
    hold an encoded source: `path(lambda s: model.decode(content, s), s_a, s_b, alphas(20))`.
    """
    if s_a.shape != s_b.shape or s_a.ndim < 2:
        raise ValueError(f"s_a, s_b: expected equal (N, D), got {(*s_a.shape,)}, {(*s_b.shape,)}")
    line = {"lerp": lerp, "slerp": slerp}[method]
    return torch.stack([decode(line(s_a, s_b, t)) for t in alphas.tolist()], dim=1)

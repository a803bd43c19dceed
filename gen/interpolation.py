"""Interpolation between codes, and the images along it.

Codes are (..., D); `t` broadcasts against them. A path is `(N, T, 3, H, W)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.devices import float64

MOST_FRAMES = 1000  # per leg: more are a mistake that takes hours


def lerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Straight line (1 - t) a + t b; exactly `a` at 0 and `b` at 1."""
    return (1 - t) * a + t * b


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Great circle in direction, straight line in length; `lerp` for collinear vectors.

    With unit vectors u, v at angle w: direction = (sin((1-t) w) u + sin(t w) v) / sin w
    (Shoemake 1985). Parallel, opposite or zero vectors have no unique plane: they take `lerp`.
    """
    na, nb = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    u, v = a / na.clamp(min=1e-12), b / nb.clamp(min=1e-12)
    cos = (u * v).sum(-1, keepdim=True)
    collinear = (cos.abs() > 1 - 1e-6) | (na < 1e-12) | (nb < 1e-12)
    w = torch.where(collinear, torch.ones_like(cos), cos).clamp(-1, 1).acos()
    w = torch.where(collinear, torch.ones_like(w), w)  # any angle: these results are not used
    direction = (((1 - t) * w).sin() * u + (t * w).sin() * v) / w.sin()
    return torch.where(collinear, lerp(a, b, t), lerp(na, nb, t) * direction)


def alphas(
    frames: int = 20,
    protocol: Literal["released", "strict", "uniform"] = "released",
    steps: Tensor | None = None,
) -> Tensor:
    """Grid of a path, (T,) or (N, T): positions of its frames between 0 and 1.

    - `released`: 0, 1/T, .. (T-1)/T (0 .. 0.95 for 20); CVPR 2021 leaves out the end style.
    - `strict`: 0 .. 1 in equal steps of the code.
    - `uniform`: 0 .. 1 in equal perceived steps. From the distances d of a first pass over a
      strict grid, arc length is L = cumsum sqrt(d) (LPIPS is a square); alpha_i is where
      L = i / (T-1) of the whole, linear between the frames of the first pass. A path without
      motion gets the strict grid.

    Args:
        frames: number T of frames.
        protocol: name of one of the three grids.
        steps: (N, n) distances of consecutive frames of a first pass with `alphas(n + 1,
            "strict")`, for `uniform` alone.

    Raises:
        ValueError: fewer than 2 frames or more than `MOST_FRAMES`, an unknown protocol, steps that
            are missing, not needed, negative or not finite.
    """
    if not 2 <= frames <= MOST_FRAMES:
        raise ValueError(f"frames: expected at least 2 and at most {MOST_FRAMES}, got {frames}")
    if (steps is not None) != (protocol == "uniform"):
        got = "no steps" if steps is None else "steps"
        raise ValueError(f"steps: expected with uniform and with it alone, got {got}, {protocol!r}")
    if protocol == "released":
        return torch.arange(frames) / frames
    if protocol == "strict":
        return torch.linspace(0, 1, frames)
    if protocol == "uniform":
        return _equal_arcs(frames, steps)
    raise ValueError(f"protocol: expected released, strict or uniform, got {protocol!r}")


def _equal_arcs(frames: int, steps: Tensor) -> Tensor:
    """(N, T) alphas that divide each path of n steps (N, n) into equal lengths of sqrt(d)."""
    if steps.ndim != 2 or not (steps.isfinite().all() and (steps >= 0).all() and steps.numel()):
        raise ValueError(f"steps: expected finite (N, n) >= 0, got {tuple(steps.shape)}")
    device, steps = steps.device, float64(steps)
    d = steps.sqrt()  # (N, n)
    d = torch.where(d.sum(1, keepdim=True) > 0, d, torch.ones_like(d))
    n = d.shape[1]
    ends = F.pad(d.cumsum(1), (1, 0))  # (N, n + 1), length at each frame of the first pass
    wanted = ends[:, -1:] * torch.linspace(0, 1, frames, dtype=d.dtype, device=d.device)  # (N, T)
    k = (torch.searchsorted(ends, wanted, right=True) - 1).clamp(0, n - 1)  # step that contains it
    length = d.gather(1, k)
    share = (wanted - ends.gather(1, k)) / length.where(length > 0, torch.ones_like(length))
    out = (k + share.clamp(0, 1)) / n
    out[:, 0], out[:, -1] = 0, 1  # also if the path does not move at an end
    return out.float().to(device)


def path(
    decode: Callable[[Tensor], Tensor],
    s_a: Tensor,
    s_b: Tensor,
    alphas: Tensor,
    method: Literal["lerp", "slerp"] = "lerp",
) -> Tensor:
    """Frames from style `s_a` to `s_b`, as the generator returns them: (N, T, 3, H, W).

    `decode` maps (N, D) to (N, 3, H, W) and is called once per step with all N paths, so it may
    hold an encoded source: `path(lambda s: model.decode(content, s), s_a, s_b, alphas(20))`.
    `alphas` are (T,), or (N, T) with one grid per path.
    """
    if s_a.shape != s_b.shape or s_a.ndim < 2:
        raise ValueError(f"s_a, s_b: expected equal (N, D), got {(*s_a.shape,)}, {(*s_b.shape,)}")
    line = {"lerp": lerp, "slerp": slerp}[method]
    if alphas.ndim == 1:
        steps = alphas.tolist()  # as Python floats: a float32 tensor would round s
    else:
        steps = [t.view(-1, *[1] * (s_a.ndim - 1)).to(s_a) for t in alphas.unbind(1)]
    return torch.stack([decode(line(s_a, s_b, t)) for t in steps], dim=1)

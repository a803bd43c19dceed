"""Gradual change along a path as people see it, which PS does not measure. The terms are our own.

PS only measures whether the steps are equal. Between two Heads an exact morph has PS .95, a
cross-dissolve full of ghosts .85, and a drift over a twentieth of the distance, which nobody sees,
.99. The terms below measure whether a path reaches its target in small steps through realistic
images. D is LPIPS; a path has frames 0 .. T - 1 and n = T - 1 steps:

    direct     D(0, T-1)                       distance from the first frame to the last
    straight   sqrt(D(0, T-1)) / sum sqrt(d)   chord over arc
    travel     min(1, sqrt(direct / requested))  share of the requested distance, which is D of
                                               the true images at the two ends
    progress   max(0, sum_t min(f_t - f_(t-1), 2 / n))
               f_t = D(0, t) / (D(0, t) + D(t, T-1)) goes from 0 to 1. The share of the path that is
               made in steps of at most twice the even step; steps back count negative. 1 for an
               even path, 2 / n for a jump, 4 / n for noise, 0 for a constant path
    realism    mean over mid-path frames of min(1, R), R the realism score of Kynkaanniemi et al.
               2019: max over real images r of radius_3(r) / distance to r, among the half of them
               with the smaller radii. About 1 for unseen real images
    membership p(a) + p(b) by a classifier of domains: the frame belongs to one of the two ends
    gradual    travel * progress * realism     in [0, 1], higher is better
    middle     frames at alpha .4, .5 and .6, where a path is farthest from both ends
    psi        s -> c + psi (s - c), c the centre of the domain's styles: StyleGAN's truncation.
               Larger psi gives longer paths, so a model is a curve over `direct`. Models are
               compared at equal `direct` only (`gen.evaluation.compare`)

The morph has gradual .95, the dissolve .72, the drift .07, a jump .11, white noise .06, a constant
path 0 (tests/metrics/test_gradual.py). `straight` is no factor of gradual: in a movement each step
changes other pixels than the step before, so the exact morph has .29, the cross-dissolve .49, a
jump 1. Compare `straight` at equal distance, with the dissolve of the same two ends.
"""

import torch
from torch import Tensor

from gen.devices import float64

MIDDLE = (0.4, 0.5, 0.6)  # alphas of the frames that are compared with real images
BETTER = dict.fromkeys(("progress", "travel", "realism", "membership", "gradual"), "higher")
NEIGHBOUR = 3  # the distance to this neighbour is the radius of a real image


def progress(first: Tensor, last: Tensor) -> Tensor:
    """Share of the path that is made in small steps, see above: (N,) float64 in [0, 1].

    Args:
        first: distances (N, T) of the frames to the first.
        last: distances (N, T) of the frames to the last.

    Raises:
        ValueError: shapes that do not fit, negative or non-finite distances.
    """
    if first.ndim != 2 or first.shape != last.shape or first.shape[1] < 2:
        got = f"{tuple(first.shape)} and {tuple(last.shape)}"
        raise ValueError(f"progress: expected twice (N, T), T >= 2, got {got}")
    a, b = float64(first), float64(last)
    if not all((d.isfinite() & (d >= 0)).all() for d in (a, b)):
        raise ValueError("progress: expected finite distances >= 0")
    total = a + b
    f = a / total.where(total > 0, torch.ones_like(total))  # (N, T), 0 if nothing moves
    n = f.shape[1] - 1
    return f.diff(dim=1).clamp(max=2 / n).sum(1).clamp(0, 1)


def travel(direct: Tensor, requested: Tensor) -> Tensor:
    """Share of the requested distance, see above: (N,) float64 in [0, 1]; NaN where
    `requested` is 0 or NaN.

    Args:
        direct: distance (N,) in LPIPS of the first and the last frame.
        requested: distance (N,) in LPIPS of the true images at the two ends.
    """
    requested = float64(requested)
    requested = requested.where(requested > 0, torch.nan)
    return (float64(direct) / requested).sqrt().clamp(max=1)


def gradual(travel, progress, realism):
    """travel * progress * realism, see above: numbers or tensors."""
    return travel * progress * realism


class Realism:
    """Realism score of images by their features and those of real images, see above.

    Source: Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative
    Models", NeurIPS 2019, section 4.

    Args:
        real: features (M, D) of real images, M > 3.

    Raises:
        ValueError: too few images.
    """

    def __init__(self, real: Tensor) -> None:
        if real.ndim != 2 or len(real) <= NEIGHBOUR:
            raise ValueError(
                f"Realism: expected more than {NEIGHBOUR} real images (M, D), got "
                f"{tuple(real.shape)}"
            )
        near = torch.cat(
            [
                torch.cdist(part, real).topk(NEIGHBOUR + 1, largest=False).values[:, -1]
                for part in real.split(500)
            ]
        )  # (M,); the nearest is the image itself, so one more
        kept = near <= near.median()
        self.real, self.radius = real[kept], near[kept]

    def __call__(self, features: Tensor) -> Tensor:
        """Features (N, D) -> scores (N,) in [0, 1]."""
        distance = torch.cdist(features.to(self.real), self.real).clamp(min=1e-12)  # (N, M)
        return (self.radius / distance).amax(1).clamp(max=1)

"""Measures how far objects moved from a previous frame to the first one, from their looks.

A single frame does not show speeds. The previous frame does: the masks of the first frame say where
an object is, and its looks are searched in the previous frame.

Letters in shapes: M objects, H height, W width, n px of an object.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.metrics.video import locate

REACH = 1 / 8  # longest step that is searched, in image widths
STEPS = 8  # of Gauss and Newton
ALIKE = 0.02  # largest median over pixels of the squared difference of colours in [-1, 1]


def steps(first: Tensor, instance: Tensor, previous: Tensor, count: int) -> Tensor:
    """Steps of objects from a previous frame to the first one.

    Args:
        first: frame (3, H, W) in [-1, 1].
        instance: map (H, W) of that frame, k + 1 on object k, 0: none.
        previous: frame (3, H, W) before it.
        count: number M of objects.

    Returns:
        Steps (M, 2) of their centres, x first, normalised to [-1, 1]; NaN where an object is not
        found.
    """
    H, W = instance.shape
    found = [_step(first, instance == k + 1, previous) for k in range(count)]
    return torch.stack(found) * first.new_tensor([2 / (W - 1), 2 / (H - 1)])


def _step(first: Tensor, mask: Tensor, previous: Tensor) -> Tensor:
    """A step (2,), px, first searched in whole px, then refined."""
    lost = first.new_full((2,), torch.nan)
    if not mask.any():
        return lost
    whole = locate(first, mask, previous, reach=round(REACH * mask.shape[1]))
    moved, error = _refined(first, mask, previous, whole)
    return -moved if error < ALIKE else lost


def _refined(first: Tensor, mask: Tensor, previous: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """A shift (2,) px with the least squared difference, at most 1 px from `start`, and it.

    Lucas and Kanade, "An Iterative Image Registration Technique", IJCAI 1981. Pixels whose colours
    differ much, such as covered ones, count little.
    """
    y, x = mask.nonzero(as_tuple=True)
    at, looks = torch.stack([x, y], 1).to(first), first[:, y, x]  # (n, 2), (3, n)
    half = first.new_tensor([(mask.shape[1] - 1) / 2, (mask.shape[0] - 1) / 2])

    def colours(shift: Tensor) -> Tensor:
        grid = ((at + shift) / half - 1)[None, None]
        return F.grid_sample(previous[None], grid, padding_mode="border", align_corners=True)[
            0, :, 0
        ]

    moved, (dx, dy) = start.clone(), 0.5 * torch.eye(2).to(first)
    for _ in range(STEPS):
        error = colours(moved) - looks  # (3, n)
        weight = 1 / (1 + error.square().sum(0) / 0.05)
        slope = torch.stack([colours(moved + d) - colours(moved - d) for d in (dx, dy)], 2)
        square = torch.einsum("cni,cnj,n->ij", slope, slope, weight) + 1e-3 * torch.eye(2).to(first)
        moved = moved - torch.linalg.solve(
            square, torch.einsum("cni,cn,n->i", slope, error, weight)
        )
        moved = start + (moved - start).clamp(-1, 1)
    error = (colours(moved) - looks).square().mean(0)
    return moved, error.median()

"""Connected components of binary maps: exact, for all maps at once.

Two back ends give the same ids. On the CPU one OpenCV call labels all maps, stacked. Other devices
and torch.compile use the transitive closure, without host sync or data-dependent control flow. A
cell is a block of 2x2 pixels (connectivity 8) or 1x2 pixels (4). All pixels of a cell are
neighbours, so if cells are joined whose mask pixels touch, components of cells are components of
pixels. A shortest path among n cells has at most n - 1 edges, and squaring an adjacency matrix with
loops doubles the length of its paths: ceil(log2(n - 1)) squarings suffice. Entries are clamped to
1 after each product, so every precision is exact.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Connectivity = Literal[8, 4]


def component_ids(mask: Tensor, connectivity: Connectivity = 8) -> Tensor:
    """Numbers the components of each map in bool (..., H, W): int64 of the same shape.

    0 is background; the components of a map are 1, 2, .. in the row-major order of their first
    pixels, on every device.

    Raises:
        ValueError: not bool, no pixels, fewer than two dimensions, or connectivity not 8 or 4.
    """
    maps = _checked(mask, connectivity)
    if _on_host(mask):
        return _label(maps, connectivity).view(mask.shape)
    members = _members(maps, connectivity) > 0  # (M, n, N)
    pixel = torch.arange(members.shape[2], device=mask.device)
    first = torch.where(members, pixel, len(pixel)).amin(2)  # (M, n) pixel of a component
    rank = 1 + (first[:, None] < first[:, :, None]).sum(2, keepdim=True)  # (M, n, 1)
    return torch.where(members, rank, 0).amax(1).view(mask.shape)


def component_count(mask: Tensor, connectivity: Connectivity = 8) -> Tensor:
    """Counts components of each map in bool (..., H, W): int64 (...), without sync on a GPU."""
    return component_ids(mask, connectivity).flatten(-2).amax(-1)


def component_sums(values: Tensor, mask: Tensor, connectivity: Connectivity = 8) -> Tensor:
    """Sums of `values` (..., H, W) over each component of `mask`: (..., K), differentiable.

    Unused slots are 0. K and the order depend on the back end: as many slots as needed on the CPU;
    elsewhere one slot for each of n cells, with n H W numbers in memory for each map. There the
    sums are elementwise, because a matmul could round to TF32 or, under autocast, to bf16.
    Raises as `component_ids`.
    """
    maps = _checked(mask, connectivity)
    values = values.reshape(len(maps), -1)  # (M, N)
    if _on_host(mask):
        ids = _label(maps, connectivity).flatten(1)
        sums = values.new_zeros(len(maps), int(ids.amax(1).max()) + 1)
        sums = sums.scatter_add(1, ids, values)[:, 1:]
    else:
        sums = (_members(maps, connectivity) * values[:, None]).sum(2)
    return sums.reshape(*mask.shape[:-2], sums.shape[1])


def _checked(mask: Tensor, connectivity: int) -> Tensor:
    """Checks the mask and returns its maps (M, H, W)."""
    if connectivity not in (8, 4):
        raise ValueError(f"connectivity: expected 8 or 4, got {connectivity!r}")
    if mask.dtype != torch.bool or mask.ndim < 2 or not mask.numel():
        got = f"{mask.dtype} {tuple(mask.shape)}"
        raise ValueError(f"mask: expected bool (..., H, W) with pixels, got {got}")
    return mask.reshape(-1, *mask.shape[-2:])


def _on_host(mask: Tensor) -> bool:
    return mask.device.type == "cpu" and not torch.compiler.is_compiling()


def _label(maps: Tensor, connectivity: int) -> Tensor:
    """Ids (M, H, W) by OpenCV: the maps are one tall image, with an empty row below each."""
    import cv2  # here, because a GPU does not need it
    import numpy as np

    M, H, W = maps.shape
    image = np.zeros((M, H + 1, W), np.uint8)
    image[:, :H] = maps.numpy()
    # SAUF numbers components by their first pixels, row by row, so ids increase from map to map
    _, ids = cv2.connectedComponentsWithAlgorithm(
        image.reshape(-1, W), connectivity, cv2.CV_32S, cv2.CCL_SAUF
    )
    ids = ids.reshape(M, H + 1, W)
    last = np.maximum.accumulate(ids.reshape(M, -1).max(1))  # (M,) last id of each map
    ids[1:] -= last[:-1, None, None]
    return torch.from_numpy(ids)[:, :H].clamp(min=0).long()


def _members(maps: Tensor, connectivity: int) -> Tensor:
    """1 if a pixel is in the component whose first cell is c, else 0: (M, n, N)."""
    M, H, W = maps.shape
    h, w = (2, 2) if connectivity == 8 else (1, 2)
    a, b = -(-H // h), -(-W // w)
    n = a * b
    dtype = torch.float16 if maps.is_cuda else torch.float32
    cell = torch.eye(n, dtype=dtype, device=maps.device).view(n, a, 1, b, 1)
    cell = cell.expand(n, a, h, b, w).reshape(n, a * h, b * w)[:, :H, :W]
    pixels = cell * maps[:, None]  # (M, n, H, W) mask pixels of each cell
    if connectivity == 8:
        near = F.max_pool2d(pixels, 3, 1, 1)  # (M, n, H, W) also their neighbours
    else:
        row = F.max_pool2d(pixels, (1, 3), 1, (0, 1))
        near = torch.maximum(row, F.max_pool2d(pixels, (3, 1), 1, (1, 0)))
    pixels = pixels.flatten(2)
    reach = (near.flatten(2) @ pixels.mT).clamp(max=1)  # (M, n, n)
    for _ in range(max(n - 2, 0).bit_length()):  # ceil(log2(n - 1))
        reach = (reach @ reach).clamp(max=1)
    first = reach.tril(-1).amax(2, keepdim=True) == 0  # (M, n, 1) reaches no cell before it
    return (reach @ pixels) * first

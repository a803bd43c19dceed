"""Attention of a whole network as a locator of objects: no head is chosen, spread does not win.

The map of an image is the mean attention of its heads, see `mean_map`. A flat map and a Gaussian in
the centre (`centre_map`) are measured in the same way, for comparison.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.devices import float64
from gen.metrics.attention import VOID, attention, check_segmentation, classes_of
from gen.ops.components import component_ids


def mean_map(similarity: Tensor) -> Tensor:
    """Similarities (N, heads, Hg, Wg) -> mean attention of the heads, (N, Hg, Wg), sum 1."""
    return attention(similarity).mean(1)


def centre_map(Hg: int, Wg: int, sigma: float = 0.25) -> Tensor:
    """Gaussian in the centre, (Hg, Wg) float64, sum 1; sigma is a share of each side."""
    y, x = (((torch.arange(n).double() + 0.5) / n - 0.5) / sigma for n in (Hg, Wg))
    return (-(y[:, None] ** 2 + x**2) / 2).flatten().softmax(0).view(Hg, Wg)


def corloc(maps: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the box of the map fits the object: 1 if their intersection over union is > 0.5.

    CorLoc of Deselaers et al. (ECCV 2010). The box holds the part of the map above its mean with
    the most patches (8-connected; of equal parts the first in raster order); it is the whole image
    if the map is flat. An image with several classes needs one whose box fits. Void pixels are in
    no box of a class.

    Args:
        maps: maps (N, Hg, Wg), such as `mean_map`; enlarged to H x W, nearest.
        segmentation: int64 class of each pixel (N, H, W); 0 is background, 255 void.

    Returns:
        Values (M,) float64, 0 or 1, of the M images that show a class, and (N,) bool, True for
        these images.

    Raises:
        ValueError: wrong dtype, shape or count, classes outside 0 .. 255, or maps with NaN.
    """
    _check(maps, segmentation)
    ids = component_ids(maps > maps.mean((1, 2), keepdim=True))  # (N, Hg, Wg)
    sizes = F.one_hot(ids.flatten(1)).sum(1)[:, 1:]  # (N, parts) patches
    sizes = F.pad(sizes, (0, 1))  # at least one column
    part = (ids == 1 + sizes.argmax(1)[:, None, None]) | (sizes.amax(1) == 0)[:, None, None]
    part = _enlarged(part, segmentation) > 0
    values, shown = [], []
    for found, truth in zip(part, segmentation.to(maps.device), strict=True):  # (H, W) each
        ious = [_box_iou(_box(found), _box(truth == c)) for c in classes_of(truth)]
        shown.append(bool(ious))
        values += [float(max(ious) > 0.5)] if ious else []
    values, shown = (torch.tensor(v, device=maps.device) for v in (values, shown))
    return float64(values), shown


def pointing(maps: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
    """Share on objects of the pixels that have the largest value of the map.

    The pointing game (Zhang et al., ECCV 2016) without tolerance. A patch counts by its share of
    object pixels, equal patches together: the chance of a hit for a random one of these pixels. A
    flat map has the objects' share of the image. Void pixels are left out. Arguments, results and
    errors as for `corloc`.
    """
    _check(maps, segmentation)
    maps = float64(maps)  # exact
    segmentation = segmentation.to(maps.device)
    top = _enlarged(maps == maps.amax((1, 2), keepdim=True), segmentation) > 0
    inside = (segmentation > 0) & (segmentation != VOID)
    shown = inside.flatten(1).any(1)
    hits = float64((top & inside).sum((1, 2)))
    values = hits / (top & (segmentation != VOID)).sum((1, 2)).clamp(min=1)
    return values[shown], shown


def norm_outliers(tokens: Tensor, ratio: float = 3.0) -> Tensor:
    """Share (N,) of the patches whose norm is more than `ratio` times the median of their image.

    Darcet et al., "Vision Transformers Need Registers" (ICLR 2024): large ViTs turn a few patches
    without information into memory, with norms far above all others. They cut at 150 where norms
    are mostly below 100; a ratio of medians needs no such number for each network.

    Args:
        tokens: float tokens (N, P, D) of the patches at the output of the last block.
        ratio: smallest ratio of an outlier.

    Raises:
        ValueError: `tokens` is not float (N, P, D) or not finite.
    """
    return float64(_norm_ratios(tokens) > ratio).mean(1)


def largest_norm(tokens: Tensor) -> Tensor:
    """Largest norm of a patch over the median of its image, (N,); see `norm_outliers`."""
    return _norm_ratios(tokens).amax(1)


def _norm_ratios(tokens: Tensor) -> Tensor:
    if tokens.ndim != 3 or not tokens.is_floating_point() or not tokens.numel():
        got = f"{tokens.dtype} {tuple(tokens.shape)}"
        raise ValueError(f"tokens: expected float (N, P, D), not empty, got {got}")
    norms = float64(tokens).norm(dim=2)  # (N, P)
    if not norms.isfinite().all():
        raise ValueError("tokens: expected finite values, got NaN or infinity")
    return norms / norms.quantile(0.5, 1, keepdim=True).clamp(min=torch.finfo(norms.dtype).tiny)


def _enlarged(maps: Tensor, segmentation: Tensor) -> Tensor:
    """Maps (N, Hg, Wg) of truths -> (N, H, W) float32, nearest."""
    return F.interpolate(maps[:, None].float(), segmentation.shape[1:], mode="nearest")[:, 0]


def _box(mask: Tensor) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of a mask (H, W) with pixels; the last two are exclusive."""
    y, x = mask.nonzero(as_tuple=True)
    return int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1


def _box_iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    def area(top: int, left: int, bottom: int, right: int) -> int:
        return max(0, bottom - top) * max(0, right - left)

    both = area(*map(max, a[:2], b[:2]), *map(min, a[2:], b[2:]))
    return both / (area(*a) + area(*b) - both)


def _check(maps: Tensor, segmentation: Tensor) -> None:
    if maps.ndim != 3 or not maps.is_floating_point() or not maps.numel():
        got = f"{maps.dtype} {tuple(maps.shape)}"
        raise ValueError(f"maps: expected float (N, Hg, Wg), not empty, got {got}")
    if not maps.isfinite().all():
        raise ValueError("maps: expected finite values, got NaN or infinity")
    check_segmentation(segmentation, len(maps))

"""Attention maps of a classifier: do they find the object, in how many parts, how do they move?

A map holds the scaled similarities (N, heads, Hg, Wg), before the softmax, between the query of the
class token (or of the mean patch) and the keys of the patches in the last block, for each head; see
`gen.networks.attention_tap`. Their softmax over the patches is the attention, which sums to 1.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.devices import float64
from gen.interpolation import lerp
from gen.losses.spatial_entropy import excess, spatial_entropy
from gen.ops.components import component_count

VOID = 255  # label of VOC's pixels without a class


def attention(similarity: Tensor) -> Tensor:
    """Similarities (N, heads, Hg, Wg) -> shares of the patches, same shape, float64, sum 1."""
    _check_maps(similarity)
    return float64(similarity).flatten(-2).softmax(-1).view(similarity.shape)


def foreground(similarity: Tensor, mass: float = 0.6) -> Tensor:
    """Patches with the top `mass` of each head's attention: bool (N, heads, Hg, Wg).

    Caron et al., ICCV 2021 (DINO): shares are sorted in ascending order; a patch is kept if the
    cumulative sum, including its share, is above 1 - mass. Ties keep the later patches first.

    Raises:
        ValueError: `similarity` is not float (N, heads, Hg, Wg) or not finite, or mass is outside
            (0, 1].
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass: expected a share in (0, 1], got {mass}")
    share, order = attention(similarity).flatten(-2).sort(dim=-1, stable=True)
    kept = share.cumsum(-1) > 1 - mass  # (N, heads, patches)
    return torch.zeros_like(kept).scatter(-1, order, kept).view(similarity.shape)


def jaccard(masks: Tensor, segmentation: Tensor, ignore_void: bool = True) -> tuple[Tensor, Tensor]:
    """Intersection over union with the object: best head of each class, mean over classes.

    As DINO's on PASCAL VOC, in the release of SAR. The truth chooses the head, so models with more
    heads score higher. A mask of one object is a segmentation with one class.

    Args:
        masks: bool masks (N, heads, Hg, Wg), see `foreground`; enlarged to H x W, nearest.
        segmentation: int64 class of each pixel (N, H, W); 0 is background, 255 void.
        ignore_void: leave void pixels out. False counts them in the union, as the release does by
            mistake, for comparison with published numbers.

    Returns:
        Values (M,) float64 in [0, 1] of the M images that show a class, and (N,) bool, True for
        these images.

    Raises:
        ValueError: wrong dtype, shape or count, or classes outside 0 .. 255.
    """
    if masks.dtype != torch.bool or masks.ndim != 4 or not masks.numel():
        got = f"{masks.dtype} {tuple(masks.shape)}"
        raise ValueError(f"masks: expected bool (N, heads, Hg, Wg), not empty, got {got}")
    check_segmentation(segmentation, len(masks))
    segmentation = segmentation.to(masks.device)
    masks = F.interpolate(masks.float(), segmentation.shape[1:], mode="nearest") > 0.5
    values, shown = [], []
    for found, truth in zip(masks, segmentation, strict=True):  # (heads, H, W), (H, W)
        classes = classes_of(truth)  # (C,)
        shown.append(len(classes) > 0)
        if len(classes):
            found = found & (truth != VOID) if ignore_void else found
            wanted = (truth == classes[:, None, None])[:, None]  # (C, 1, H, W)
            both = float64((found & wanted).sum((2, 3)))  # (C, heads)
            either = (found | wanted).sum((2, 3)).to(both.device)
            values.append((both / either).amax(1).mean())
    shown = torch.tensor(shown, device=masks.device)
    return torch.stack(values) if values else float64(masks.new_zeros(0)), shown


def check_segmentation(segmentation: Tensor, count: int) -> None:
    """Raises ValueError unless `segmentation` is int64 (count, H, W) in 0 .. 255."""
    if segmentation.dtype != torch.int64 or segmentation.ndim != 3 or not segmentation.numel():
        got = f"{segmentation.dtype} {tuple(segmentation.shape)}"
        raise ValueError(f"segmentation: expected int64 (N, H, W), not empty, got {got}")
    if len(segmentation) != count:
        raise ValueError(f"segmentation: expected {count} images, as maps, got {len(segmentation)}")
    low, high = torch.aminmax(segmentation)
    if low < 0 or high > VOID:
        raise ValueError(f"segmentation: expected classes 0 .. {VOID}, got {low} .. {high}")


def classes_of(truth: Tensor) -> Tensor:
    """Classes (C,) in a segmentation (H, W), without background and void."""
    classes = truth.unique()
    return classes[(classes > 0) & (classes < VOID)]


def auroc(similarity: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
    """Area under the ROC curve of the map as a score of pixels: best head, mean over classes.

    The probability that a pixel of the object has more attention than another pixel; ties count
    half, void pixels are left out. Unlike `jaccard` it has no threshold and does not reward flat
    maps: a constant map has 0.5 for objects of any size.

    Args:
        similarity: float similarities (N, heads, Hg, Wg).
        segmentation: int64 class of each pixel (N, H, W), see `jaccard`.

    Returns:
        Values (M,) float64 of the M images that show a class and other pixels, and (N,) bool, True
        for these images. Raises as `jaccard`.
    """
    _check_maps(similarity)
    check_segmentation(segmentation, len(similarity))
    N, heads, Hg, Wg = similarity.shape
    similarity = float64(similarity)
    segmentation = segmentation.to(similarity.device)
    cells = torch.arange(Hg * Wg, device=similarity.device).view(1, 1, Hg, Wg).double()
    cells = F.interpolate(cells, segmentation.shape[1:], mode="nearest")[0, 0].long()  # (H, W)
    values, shown = [], []
    for s, truth in zip(similarity.flatten(2), segmentation, strict=True):
        order = s[:, :, None].sub(s[:, None]).sign().add(1).div(2)  # (heads, P, P) 1: p above q
        found = []
        for c in classes_of(truth):
            inside = cells[truth == c].bincount(minlength=Hg * Wg).double()  # (P,) pixels
            outside = cells[(truth != c) & (truth != VOID)].bincount(minlength=Hg * Wg).double()
            if outside.any():
                pairs = inside.sum() * outside.sum()
                found.append((order @ outside @ inside / pairs).max())
        shown.append(len(found) > 0)
        values += [torch.stack(found).mean()] if found else []
    shown = torch.tensor(shown, device=similarity.device)
    return torch.stack(values) if values else similarity.new_zeros(0), shown


def jaccard_name(mass: float, ignore_void: bool = True) -> str:
    """The name of the value: `jaccard_t60`, `jaccard_t60_keepvoid`."""
    return f"jaccard_t{100 * mass:g}{'' if ignore_void else '_keepvoid'}"


def map_statistics(similarity: Tensor) -> dict[str, Tensor]:
    """`spatial_entropy` of each map in nats, and `components`, the number of parts above its mean.

    Both (N, heads). The entropy is at most log(components). Raises as `foreground`.
    """
    _check_maps(similarity)
    parts = component_count(excess(similarity) > 0)
    return {"spatial_entropy": spatial_entropy(similarity, per_map=True), "components": parts}


# ---- how a map moves when the image does ---------------------------------------------------------


def shifted(x: Tensor, px: float) -> Tensor:
    """Images (..., H, W) shifted right by `px` >= 0, linearly interpolated, left edge repeated."""
    if px < 0:
        raise ValueError(f"px: expected a shift >= 0, got {px}")
    whole, column = math.floor(px), torch.arange(x.shape[-1], device=x.device)
    near, far = (x[..., (column - k).clamp(min=0)] for k in (whole, whole + 1))
    return lerp(near, far, px - whole)


def shift_path(
    similarity: Callable[[Tensor], Tensor], x: Tensor, patch: float, frames: int = 20
) -> Tensor:
    """Maps of an image that moves by one patch: (N, T, Hg, Wg) float64, each with sum 1.

    Frame t shows x shifted by patch t / (T - 1) pixels; its map is the mean attention of the heads.
    After a shift by one patch, a network without absolute positions moves its map by one cell; the
    frames between show how smoothly.

    Args:
        similarity: function from images (N, 3, H, W) to similarities (N, heads, Hg, Wg).
        x: images (N, 3, H, W), one path each.
        patch: width of a patch, px.
        frames: number T of frames.
    """
    if frames < 2:
        raise ValueError(f"frames: expected at least 2, got {frames}")
    moves = (shifted(x, patch * t / (frames - 1)) for t in range(frames))
    return torch.stack([attention(similarity(move)).mean(1) for move in moves], 1)


def map_frames(maps: Tensor) -> Tensor:
    """Maps (N, T, Hg, Wg) >= 0 -> grey frames (N, T, 3, Hg, Wg) in [-1, 1], for `smoothness`.

    White is the maximum of the first frame, or more: one scale for all frames.
    `InterpolationSmoothness` and `path_distances` enlarge the frames to 256 px, bilinear.
    """
    grey = maps / maps[:, :1].amax((2, 3), keepdim=True)
    return grey.clamp(0, 1).mul(2).sub(1).float()[:, :, None].expand(-1, -1, 3, -1, -1)


def map_variation(maps: Tensor) -> Tensor:
    """Total variation distance (N,) of consecutive maps (N, T, Hg, Wg), mean over steps.

    0.5 sum_i |p_t,i - p_t+1,i|, in [0, 1]: the share of attention that moves in a step. It needs no
    other network. A map that does not move has 0, so compare the Jaccard, too.
    """
    return 0.5 * maps.diff(dim=1).abs().sum((2, 3)).mean(1)


def _check_maps(similarity: Tensor) -> None:
    if similarity.ndim != 4 or not similarity.is_floating_point() or not similarity.numel():
        got = f"{similarity.dtype} {tuple(similarity.shape)}"
        raise ValueError(f"similarity: expected float (N, heads, Hg, Wg), not empty, got {got}")
    if not similarity.isfinite().all():
        raise ValueError("similarity: expected finite values, got NaN or infinity")


def mass_on_object(similarity: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the attention on objects, mean over all heads.

    The energy-based pointing game of Score-CAM (Wang et al., 2020) with masks instead of boxes, or
    relevance mass accuracy (Arras et al., 2022). A flat map has the objects' share of the pixels.
    Void pixels are left out. Arguments, results and errors as for `auroc`; images that show only
    objects have values, too.
    """
    _check_maps(similarity)
    check_segmentation(segmentation, len(similarity))
    shares = attention(similarity)
    segmentation = segmentation.to(shares.device)
    share = F.interpolate(shares, segmentation.shape[1:], mode="nearest")
    known = (segmentation != VOID)[:, None]  # (N, 1, H, W)
    inside = known & (segmentation > 0)[:, None]
    shown = inside.flatten(1).any(1)
    values = ((share * inside).sum((2, 3)) / (share * known).sum((2, 3))).mean(1)  # (N,)
    return values[shown], shown

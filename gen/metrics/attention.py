"""Attention maps of a classifier: do they find the object, in how many parts, how do they move.

A map is what the class token, or the mean patch, asks the patches in the last block, of one head:
scaled similarities (N, heads, Hg, Wg) before the softmax, as `gen.networks.attention_tap` reads
them. Their softmax over the patches alone is the attention of the network, summing to 1.
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

VOID = 255  # pixels of VOC whose class is not told


def attention(similarity: Tensor) -> Tensor:
    """Similarities (N, heads, Hg, Wg) -> shares of the patches, float64 of that shape, sum 1."""
    _check_maps(similarity)
    return float64(similarity).flatten(-2).softmax(-1).view(similarity.shape)


def foreground(similarity: Tensor, mass: float = 0.6) -> Tensor:
    """The patches that hold the top `mass` of each head's attention: bool (N, heads, Hg, Wg).

    Caron et al., ICCV 2021 (DINO): with the shares in ascending order, a patch is kept if they sum,
    up to and with its own, to more than 1 - mass. Of equal patches the later ones are kept first.

    Raises:
        ValueError: not float (N, heads, Hg, Wg), not finite, or mass outside (0, 1].
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass: expected a share in (0, 1], got {mass}")
    share, order = attention(similarity).flatten(-2).sort(dim=-1, stable=True)
    kept = share.cumsum(-1) > 1 - mass  # (N, heads, patches)
    return torch.zeros_like(kept).scatter(-1, order, kept).view(similarity.shape)


def jaccard(masks: Tensor, segmentation: Tensor, ignore_void: bool = True) -> tuple[Tensor, Tensor]:
    """Intersection over union of heads and classes: the best head of each class, mean over classes.

    As DINO's on PASCAL VOC, in the release of SAR: the head is chosen knowing the answer, so models
    of more heads score higher. A mask of one object is a segmentation of one class.

    Args:
        masks: bool masks (N, heads, Hg, Wg), see `foreground`; enlarged to H x W, nearest.
        segmentation: int64 class of each pixel (N, H, W); 0 is background, 255 void.
        ignore_void: leave void pixels out. The release means to, but counts them in the union:
            False is for comparing with published numbers.

    Returns:
        Values (M,) float64 in [0, 1] of the images that show a class, and which those are: (N,)
        bool.

    Raises:
        ValueError: dtype, shape, count, or classes outside 0 .. 255.
    """
    if masks.dtype != torch.bool or masks.ndim != 4 or not masks.numel():
        got = f"{masks.dtype} {tuple(masks.shape)}"
        raise ValueError(f"masks: expected bool (N, heads, Hg, Wg), not empty, got {got}")
    _check_segmentation(segmentation, len(masks))
    segmentation = segmentation.to(masks.device)
    masks = F.interpolate(masks.float(), segmentation.shape[1:], mode="nearest") > 0.5
    values, shown = [], []
    for found, truth in zip(masks, segmentation, strict=True):  # (heads, H, W), (H, W)
        classes = _classes(truth)  # (C,)
        shown.append(len(classes) > 0)
        if len(classes):
            found = found & (truth != VOID) if ignore_void else found
            wanted = (truth == classes[:, None, None])[:, None]  # (C, 1, H, W)
            both = float64((found & wanted).sum((2, 3)))  # (C, heads)
            either = (found | wanted).sum((2, 3)).to(both.device)
            values.append((both / either).amax(1).mean())
    shown = torch.tensor(shown, device=masks.device)
    return torch.stack(values) if values else float64(masks.new_zeros(0)), shown


def _check_segmentation(segmentation: Tensor, count: int) -> None:
    if segmentation.dtype != torch.int64 or segmentation.ndim != 3 or not segmentation.numel():
        got = f"{segmentation.dtype} {tuple(segmentation.shape)}"
        raise ValueError(f"segmentation: expected int64 (N, H, W), not empty, got {got}")
    if len(segmentation) != count:
        raise ValueError(f"segmentation: expected {count} images, as maps, got {len(segmentation)}")
    low, high = torch.aminmax(segmentation)
    if low < 0 or high > VOID:
        raise ValueError(f"segmentation: expected classes 0 .. {VOID}, got {low} .. {high}")


def _classes(truth: Tensor) -> Tensor:
    """(C,) those that (H, W) shows: neither background nor void."""
    classes = truth.unique()
    return classes[(classes > 0) & (classes < VOID)]


def auroc(similarity: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
    """Area under the ROC curve of a map as score of its pixels: best head, mean over classes.

    The probability that a pixel of the object has more attention than one that is not, ties half;
    void pixels are left out. Unlike `jaccard` it has no threshold and does not reward flat maps: a
    constant one has 0.5, however large the object.

    Args:
        similarity: float similarities (N, heads, Hg, Wg).
        segmentation: int64 class of each pixel (N, H, W), see `jaccard`.

    Returns:
        Values (M,) float64 of the images that show a class beside something else, and which those
        are: (N,) bool. Raises as `jaccard`.
    """
    _check_maps(similarity)
    _check_segmentation(segmentation, len(similarity))
    N, heads, Hg, Wg = similarity.shape
    similarity = float64(similarity)
    segmentation = segmentation.to(similarity.device)
    cells = torch.arange(Hg * Wg, device=similarity.device).view(1, 1, Hg, Wg).double()
    cells = F.interpolate(cells, segmentation.shape[1:], mode="nearest")[0, 0].long()  # (H, W)
    values, shown = [], []
    for s, truth in zip(similarity.flatten(2), segmentation, strict=True):
        order = s[:, :, None].sub(s[:, None]).sign().add(1).div(2)  # (heads, P, P) 1: p above q
        found = []
        for c in _classes(truth):
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
    """`spatial_entropy` of each map in nats, and its `components`, the parts above its mean.

    Each (N, heads); the entropy is at most the log of the components. Raises as `foreground`.
    """
    _check_maps(similarity)
    parts = component_count(excess(similarity) > 0)
    return {"spatial_entropy": spatial_entropy(similarity, per_map=True), "components": parts}


# ---- how a map moves when the image does ---------------------------------------------------------


def shifted(x: Tensor, px: float) -> Tensor:
    """Images (..., H, W) moved `px` >= 0 pixels to the right: linear, the left edge repeated."""
    if px < 0:
        raise ValueError(f"px: expected a shift >= 0, got {px}")
    whole, column = math.floor(px), torch.arange(x.shape[-1], device=x.device)
    near, far = (x[..., (column - k).clamp(min=0)] for k in (whole, whole + 1))
    return lerp(near, far, px - whole)


def shift_path(
    similarity: Callable[[Tensor], Tensor], x: Tensor, patch: float, frames: int = 20
) -> Tensor:
    """Maps of an image that moves by one patch: (N, T, Hg, Wg) float64, each summing to 1.

    Frame t shows x moved by patch t / (T - 1) pixels; its map is the mean attention of the heads.
    After a whole patch the patches hold what their neighbours held, so a network without absolute
    positions moves its map by one cell: what lies between says how smoothly.

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
    """Maps (N, T, Hg, Wg) >= 0 as grey frames (N, T, 3, Hg, Wg) in [-1, 1], for `smoothness`.

    White is the maximum of the first frame, and what is above it: one scale for all frames.
    `InterpolationSmoothness` and `path_distances` enlarge them to 256 px, bilinear.
    """
    grey = maps / maps[:, :1].amax((2, 3), keepdim=True)
    return grey.clamp(0, 1).mul(2).sub(1).float()[:, :, None].expand(-1, -1, 3, -1, -1)


def map_variation(maps: Tensor) -> Tensor:
    """(N,) total variation distance of consecutive maps (N, T, Hg, Wg), mean over steps.

    0.5 sum_i |p_t,i - p_t+1,i|, in [0, 1]: the share of attention that moves in a step. It needs
    no network to judge; a map that does not move has 0, so read it beside the Jaccard.
    """
    return 0.5 * maps.diff(dim=1).abs().sum((2, 3)).mean(1)


def _check_maps(similarity: Tensor) -> None:
    if similarity.ndim != 4 or not similarity.is_floating_point() or not similarity.numel():
        got = f"{similarity.dtype} {tuple(similarity.shape)}"
        raise ValueError(f"similarity: expected float (N, heads, Hg, Wg), not empty, got {got}")
    if not similarity.isfinite().all():
        raise ValueError("similarity: expected finite values, got NaN or infinity")


def mass_on_object(similarity: Tensor, segmentation: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the attention that lies on objects, mean over heads: no head is chosen.

    The energy-based pointing game of Score-CAM (Wang et al., 2020) with masks for boxes, or
    relevance mass accuracy (Arras et al., 2022). A flat map has the objects' share of the pixels.
    Void pixels are left out. Takes, returns and raises what `auroc` does, but also has values of
    images that show objects alone.
    """
    _check_maps(similarity)
    _check_segmentation(segmentation, len(similarity))
    shares = attention(similarity)
    segmentation = segmentation.to(shares.device)
    share = F.interpolate(shares, segmentation.shape[1:], mode="nearest")
    known = (segmentation != VOID)[:, None]  # (N, 1, H, W)
    inside = known & (segmentation > 0)[:, None]
    shown = inside.flatten(1).any(1)
    values = ((share * inside).sum((2, 3)) / (share * known).sum((2, 3))).mean(1)  # (N,)
    return values[shown], shown

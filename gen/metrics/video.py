"""Errors of videos in masks: colours, flow and positions of objects.

Letters in shapes: N clips, T frames, H height, W width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from gen.devices import float64, full_precision
from gen.networks.perceptual import LPIPS

MOST_DB = 60.0  # rounding to 8 bits already limits PSNR to 59


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Mean (N,) of `values` (N, T, C, H, W) where `mask` (N, T, 1, H, W) is 1; NaN if the mask is
    empty."""
    mask = mask.expand_as(values)
    return (values * mask).sum((1, 2, 3, 4)) / mask.sum((1, 2, 3, 4))


def psnr(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (N,) in dB over the pixels of `mask`, at most 60.

    10 log10(4 / mean (x - y)^2) of all frames of a clip together; `x`, `y` (N, T, 3, H, W) in
    [-1, 1]. Higher is better.
    """
    error = float64((x - y).square())
    error = mean_over(error, mask.to(error.device))
    return (10 * (4 / error).log10()).clamp(max=MOST_DB)


def ssim(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Structural similarity (N,) of windows whose centres are in `mask`; 1 for equal videos.

    Wang et al. 2004, by torchmetrics: an 11 x 11 Gaussian window of sigma 1.5, on the [0, 1] scale.
    """
    shape = x.shape
    x, y = ((v.flatten(0, 1).float() + 1) / 2 for v in (x, y))
    with full_precision(x.device):  # a variance is a small difference of large numbers
        _, maps = structural_similarity_index_measure(
            x, y, data_range=1.0, reduction="none", return_full_image=True
        )
    return mean_over(maps.view(shape), mask)


def lpips(net: LPIPS, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """LPIPS (N,), mean over the frames of a clip, of `y` and of `x` pasted into `y` inside `mask`;
    NaN for clips with an empty mask."""
    pasted = x.where(mask > 0, y)
    found = net(pasted.flatten(0, 1), y.flatten(0, 1)).view(len(x), -1).mean(1)  # (N,)
    return found.where(mask.flatten(1).any(1), torch.nan)


def endpoint_error(flow: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean |F - F*| (N,), px, of flows (N, T, 2, H, W) over the pixels of `mask`."""
    return mean_over((flow - target).norm(dim=2, keepdim=True), mask)


def ghost(x: Tensor, y: Tensor, first: Tensor, mask: Tensor) -> Tensor:
    """Share (N,) of objects that is left where they were: 1 all of them, 0 nothing; NaN if the
    mask is empty.

    sum <x - y, f - y> / sum |f - y|^2 over the pixels of `mask` (N, T, 1, H, W), where the first
    frame f = `first` (N, 3, H, W) shows an object and the true video y does not; video x as y.
    """
    old, error = float64(first[:, None] - y), float64(x - y)
    mask = mask.to(old)
    return mean_over(old * error, mask) / mean_over(old.square(), mask)


def locate(first: Tensor, mask: Tensor, frame: Tensor, reach: int | None = None) -> Tensor:
    """Finds the shift (x, y) of an object between two frames by its appearance, whole px.

    The shift d with the least mean over p of |frame(p + d) - first(p)|^2, for p in the object's
    mask and p + d in the image; at least half of the object must be inside. Ties: the first one.

    Args:
        first: frame (3, H, W) with the known object.
        mask: mask (H, W), 1 on the object.
        frame: frame (3, H, W) to search.
        reach: largest shift along x and along y, px; None searches the whole frame.

    Raises:
        ValueError: an empty mask.
    """
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()  # (h, 1), (w, 1)
    if not len(rows):
        raise ValueError("locate: expected a mask of an object, got an empty one")
    top, left = rows[0, 0], columns[0, 0]
    window = slice(top, rows[-1, 0] + 1), slice(left, columns[-1, 0] + 1)
    seen = mask[window].to(first.dtype)[None, None]  # (1, 1, h, w)
    looks = first[(slice(None), *window)][None] * seen  # (1, 3, h, w)
    h, w = seen.shape[2:]
    wide = F.pad(frame[None], (w, w, h, h))
    inside = F.pad(torch.ones_like(frame[None, :1]), (w, w, h, h))
    with full_precision(frame.device):  # the difference of large sums
        count = F.conv2d(inside, seen)  # (1, 1, H + h + 1, W + w + 1)
        error = F.conv2d(wide.square().sum(1, keepdim=True), seen) - 2 * F.conv2d(wide, looks)
        error += F.conv2d(inside, looks.square().sum(1, keepdim=True))
    error = (error / count.clamp(min=1)).where(count >= 0.5 * seen.sum(), torch.inf)[0, 0]
    if reach is not None:
        shift = (torch.arange(n, device=error.device) for n in error.shape)
        y, x = (n - side - at for n, side, at in zip(shift, (h, w), (top, left), strict=True))
        error = error.where((y.abs() <= reach)[:, None] & (x.abs() <= reach), torch.inf)
    best = error.argmin()
    y, x = best // error.shape[1] - h - top, best % error.shape[1] - w - left
    return torch.stack([x, y]).to(first.dtype)

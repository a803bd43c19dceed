"""FIR resampling of StyleGAN2: insert zeros between samples, pad, convolve, keep every n-th.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020. No zeros
are really inserted: downsampling is a strided depthwise convolution and upsampling its transpose.
Each is the gradient of the other. So every derivative, also the second derivatives of R1 and path
length regularisation, is one more such convolution; autograd would also compute gradients of the
filter. On one core the kernels are 1.5 to 3 times faster in the channels-last memory format, which
the networks use. The result has the memory format of the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]  # y, x
SEPARABLE = 8  # taps; shorter filters are made two-dimensional


def setup_filter(taps: Sequence[float]) -> Tensor:
    """Taps -> filter with sum 1: their outer product (K, K), or (K,) for 8 taps or more."""
    f = torch.tensor(taps, dtype=torch.float32)
    f = f if len(f) >= SEPARABLE else torch.outer(f, f)
    return f / f.sum()


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: int = 1,
    down: int = 1,
    pad: tuple[int, int, int, int] = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Tensor:
    """Inserts `up` - 1 zeros after each sample, pads, convolves with `f`, keeps every `down`-th.

    Args:
        x: samples (N, C, H, W) of any floating dtype, which is kept, also under autocast.
        f: filter (K, L), or (K,) for both axes in turn; it gets no gradient.
        up: factor of upsampling: H becomes H `up`.
        down: factor of downsampling: H' samples become ceil(H' / `down`).
        pad: zeros left, right, above and below, counted after upsampling; negative values crop.
        gain: factor that multiplies `f`.

    Returns:
        (N, C, (H up + above + below - K) // down + 1, (W up + left + right - L) // down + 1)

    Raises:
        ValueError: `x` or `f` has another number of dimensions.
    """
    if x.ndim != 4 or f.ndim not in (1, 2):
        raise ValueError(
            "upfirdn2d: expected x (N, C, H, W) and f (K, L) or (K,), "
            f"got {tuple(x.shape)} and {tuple(f.shape)}"
        )
    f = f.to(x.dtype) * (gain if f.ndim == 2 else gain**0.5)
    if f.ndim == 2:
        return _resample(x, f, (up, up), (down, down), pad)
    x = _resample(x, f[None], (1, up), (1, down), (*pad[:2], 0, 0))
    return _resample(x, f[:, None], (up, 1), (down, 1), (0, 0, *pad[2:]))


def upsample2d(x: Tensor, f: Tensor, up: int = 2) -> Tensor:
    """(N, C, H, W) -> (N, C, H up, W up); the mean is kept."""
    pad = [p for k in _sizes(f) for p in ((k + up - 1) // 2, (k - up) // 2)]
    return upfirdn2d(x, f, up=up, pad=tuple(pad), gain=up**2)


def downsample2d(x: Tensor, f: Tensor, down: int = 2) -> Tensor:
    """(N, C, H, W) -> (N, C, H / down, W / down)."""
    pad = [p for k in _sizes(f) for p in ((k - down + 1) // 2, (k - down) // 2)]
    return upfirdn2d(x, f, down=down, pad=tuple(pad))


def _sizes(f: Tensor) -> Pair:
    """Number of taps along x and y."""
    return f.shape[-1], f.shape[0]


def _resample(x: Tensor, f: Tensor, up: Pair, down: Pair, pad: tuple[int, ...]) -> Tensor:
    left, right, above, below = pad
    if up == (1, 1):
        inner = (above, left)
        fits = all(0 <= p < k for p, k in zip(inner, f.shape, strict=True))
        if left != right or above != below or not fits:
            x, inner = F.pad(x, pad), (0, 0)
        return _Depthwise.apply(x, f.flip(0, 1), down, inner, None)
    ends = tuple(zip(x.shape[2:], up, f.shape, (above, left), (below, right), strict=True))
    crop = [k - 1 - p0 for _, _, k, p0, _ in ends]  # crop at the start of the transpose's output
    size = [n * u + p0 + p1 - k + 1 for n, u, k, p0, p1 in ends]
    if min(crop) >= 0 and all(0 <= u + p1 - p0 - 1 < u for _, u, _, p0, p1 in ends):
        x = _Depthwise.apply(x, f, up, tuple(crop), tuple(size))
    else:
        whole = [(n - 1) * u + k for n, u, k, _, _ in ends]
        x = _Depthwise.apply(x, f, up, (0, 0), tuple(whole))
        (top, side), (h, w) = crop, (s + c - n for s, c, n in zip(size, crop, whole, strict=True))
        x = F.pad(x, (-side, w, -top, h))
    return x if down == (1, 1) else x[:, :, :: down[0], :: down[1]]


class _Depthwise(torch.autograd.Function):
    """Convolves all channels with one kernel (K, L); with `size`, transposed to that size."""

    @staticmethod
    def forward(
        ctx, x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, size: Pair | None
    ) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.geometry = stride, padding, None if size else tuple(x.shape[2:])
        C = x.shape[1]
        with torch.autocast(x.device.type, enabled=False):
            if size is None:
                weight = kernel.expand(C, 1, *kernel.shape)
                return F.conv2d(x, weight, None, stride, padding, 1, C)
            if stride == (1, 1):  # the same map with faster kernels
                weight = kernel.flip(0, 1).expand(C, 1, *kernel.shape)
                padding = tuple(k - 1 - p for k, p in zip(kernel.shape, padding, strict=True))
                return F.conv2d(x, weight, None, stride, padding, 1, C)
            ends = zip(size, x.shape[2:], stride, padding, kernel.shape, strict=True)
            more = [s - (n - 1) * u + 2 * p - k for s, n, u, p, k in ends]
            # On a CPU the transpose has no fast kernel in 16 bits: 25 to 90 times slower.
            slow = x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)
            x, dtype = (x.float() if slow else x), x.dtype
            weight = kernel.to(x.dtype).expand(C, 1, *kernel.shape)
            return F.conv_transpose2d(x, weight, None, stride, padding, more, C).to(dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        return _Depthwise.apply(grad, kernel, *ctx.geometry), None, None, None, None

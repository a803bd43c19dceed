"""False texture of generated images (weave), and the part of it that is a lattice.

Strided layers cause patterns of period 2 and 4 px, visible where source and true target are flat.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.metrics.checks import check_images

KERNEL = (
    1,
    2,
    2,
    2,
    1,
)  # divided by 8; removes periods of 2 and 4 px, so the high-pass keeps them entirely
PERIOD = 4  # px
WINDOW, LEVELS = 5, 8  # flat: in a window of 5 px each channel spans at most 8 of 255 levels
FEWEST = 16 * PERIOD**2  # least number of flat pixels of an image
ROUNDING = 12**-0.5  # levels, RMS error of rounding to 8 bits: no image has less texture


def high_pass(x: Tensor) -> Tensor:
    """Images (N, C, H, W) minus their blur by (1, 2, 2, 2, 1) / 8 in rows and columns."""
    k = x.new_tensor(KERNEL) / sum(KERNEL)
    low = F.pad(x, (2, 2, 2, 2), mode="reflect").flatten(0, 1)[:, None]  # (N C, 1, H + 4, W + 4)
    low = F.conv2d(F.conv2d(low, k.view(1, 1, 1, -1)), k.view(1, 1, -1, 1))
    return x - low.view_as(x)


def flat_area(*images: Tensor) -> Tensor:
    """Mask (N, 1, H, W) bool of pixels where all images (N, 3, H, W) in [-1, 1] are flat."""
    flat = torch.ones_like(images[0][:, :1], dtype=torch.bool)
    for x in images:
        high, low = (F.max_pool2d(s * x, WINDOW, 1, WINDOW // 2) for s in (1, -1))
        flat &= ((high + low) * 127.5 <= LEVELS + 1e-3).all(1, keepdim=True)
    return F.pad(flat[..., 2:-2, 2:-2], (2, 2, 2, 2))  # not the mirrored border


def texture_scores(outputs: Tensor, source: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Texture of K outputs for each source and of the true target, in levels of 255.

        flat   = RMS of the high-pass where source and real image are flat
        locked = RMS of its mean over pixels of equal (row, column) mod 4: the lattice
        detail = RMS of the high-pass of the whole image

    Args:
        outputs: outputs (N, K, 3, H, W) in [-1, 1].
        source: source images (N, 3, H, W).
        real: true target (N, 3, H, W), or a real image to compare with.

    Returns:
        `flat`, `locked` and `detail` (N,), means over outputs; `.._real`, the values of the real
        image; `.._ratio`, outputs over real image, whose value is at least the error of rounding
        to 8 bits. `flat..` and `locked..` are NaN if fewer than 256 px are flat.

    Raises:
        ValueError: wrong dtype, shape, count or range; NaN.
    """
    check_images(outputs, "outputs", ndim=5)
    for name, x in (("source", source), ("real", real)):
        check_images(x, name)
        if x.shape != outputs[:, 0].shape:
            raise ValueError(f"{name}: expected {tuple(outputs[:, 0].shape)}, got {tuple(x.shape)}")
    flat = flat_area(source, real)  # (N, 1, H, W)
    rows = [_measure(x, flat) for x in outputs.unbind(1)]
    found = {key: torch.stack([row[key] for row in rows]).mean(0) for key in rows[0]}
    of_real = _measure(real, flat)
    out = dict(found)
    for key in found:
        out[f"{key}_real"] = of_real[key]
        out[f"{key}_ratio"] = found[key] / of_real[key].clamp(min=ROUNDING)
    return out


def _measure(x: Tensor, flat: Tensor) -> dict[str, Tensor]:
    h = high_pass(x.float() * 127.5)  # (N, 3, H, W)
    seen = flat.float()
    count = seen.sum((1, 2, 3))
    enough = count >= FEWEST
    rms = ((h.square() * seen).sum((1, 2, 3)) / (3 * count.clamp(min=1))).sqrt()
    return {
        "flat": rms.where(enough, torch.nan),
        "locked": _locked(h, seen).where(enough, torch.nan),
        "detail": h.square().mean((1, 2, 3)).sqrt(),
    }


def _locked(h: Tensor, seen: Tensor) -> Tensor:
    """RMS (N,) over flat pixels of the mean of `h` over all flat pixels of the same phase."""
    bottom, right = (-h.shape[2] % PERIOD, -h.shape[3] % PERIOD)
    h, seen = (F.pad(x, (0, right, 0, bottom)) for x in (h * seen, seen))

    def by_phase(x: Tensor) -> Tensor:  # sums: (N, C, 4, 4)
        n, c, height, width = x.shape
        return x.view(n, c, height // PERIOD, PERIOD, width // PERIOD, PERIOD).sum((2, 4))

    weight = by_phase(seen)  # (N, 1, 4, 4)
    mean = by_phase(h) / weight.clamp(min=1)  # (N, 3, 4, 4)
    share = weight / weight.sum((2, 3), keepdim=True).clamp(min=1)
    return (mean.square() * share).sum((2, 3)).mean(1).sqrt()

"""Input checks of all image metrics, before any network runs."""

import math

import torch
from torch import Tensor

FEWEST = 4  # least number of images for fidelity: precision and recall use the third neighbour


def check_images(images: Tensor, name: str, ndim: int = 4, frames: int | None = None) -> None:
    """Raises ValueError unless float images (N, 3, H, W) or videos (N, T, 3, H, W) in [-1, 1].

    Raises:
        ValueError: wrong dtype, shape, count, number of frames or range; NaN or infinity.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"{name}: expected a float tensor in [-1, 1], got {got}")
    layout = "(N, 3, H, W)" if ndim == 4 else f"(N, {frames or 'T'}, 3, H, W)"
    if images.ndim != ndim or images.shape[-3] != 3 or images.numel() == 0:
        raise ValueError(f"{name}: expected {layout}, N >= 1, got {tuple(images.shape)}")
    if frames is not None and images.shape[1] != frames:
        raise ValueError(f"{name}: expected {frames} frames, got {images.shape[1]}")
    low, high = torch.stack(torch.aminmax(images.detach())).tolist()  # one wait for a GPU
    if not (math.isfinite(low) and math.isfinite(high)):  # aminmax carries NaN through
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    if low < -1.001 or high > 1.001:
        raise ValueError(
            f"{name}: expected values in [-1, 1], got [{low:.4g}, {high:.4g}]: "
            "divide uint8 by 127.5 and subtract 1, clamp a generator's output"
        )

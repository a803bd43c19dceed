"""Perceptual losses: a frozen network measures the distance of two images."""

from collections.abc import Callable

from torch import Tensor


def content(x: Tensor, x_fake: Tensor, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """L_cont = mean_n distance(x_n, x_fake_n): keeps the translation near its source.

    Liu et al., CVPR 2021, content-preserving loss. `distance` maps two (N, 3, H, W) in [-1, 1] to
    (N,); in the paper it is LPIPS with AlexNet. Range [0, inf).
    """
    return distance(x, x_fake).mean()

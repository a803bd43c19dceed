"""Perceptual losses: a frozen network measures how far two images are."""

from collections.abc import Callable

from torch import Tensor


def content(x: Tensor, x_fake: Tensor, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """L_cont = mean_n distance(x_n, x_fake_n): the translation stays near its source.

    Liu et al., CVPR 2021, content-preserving loss; `distance` is LPIPS with AlexNet there:
    two (N, 3, H, W) in [-1, 1] -> (N,). Range [0, inf).
    """
    return distance(x, x_fake).mean()

"""Nearest image of a set to a given image."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NEAREST_PX = 32  # side of the images when they are compared


class Nearest:
    """Finds the image of a domain that is nearest to a source: least squared error at 32 px.

    Args:
        images: set of `LabelledImages`; images of a domain are read at its first use.
    """

    def __init__(self, images: Any) -> None:
        self.images = images
        self.members = cache(lambda y: (images.labels == y).nonzero().flatten().tolist())
        self.small = cache(
            lambda y: torch.cat([self.shrink(images[i]["x"][None]) for i in self.members(y)])
        )

    def shrink(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> (N, 3 * 32 * 32)."""
        return F.interpolate(x, (NEAREST_PX, NEAREST_PX), mode="area").flatten(1)

    def __call__(self, x: Tensor, domains: Sequence[int | tuple[int, ...]]) -> Tensor:
        """Sources (N, 3, H, W) in [-1, 1], one or more domains for each -> images (N, 3, H, W)."""
        wanted = [(among,) if isinstance(among, int) else among for among in domains]
        best: list[list[tuple[float, int]]] = [[] for _ in wanted]
        small = self.shrink(x.cpu())  # (N, D)
        for y in sorted(set().union(*wanted)):
            of = self.small(y)  # (M, D); the square of the source is a constant
            error, at = (of.square().sum(1) - 2 * small @ of.T).min(1)  # (N,)
            for mine, among, e, i in zip(best, wanted, error.tolist(), at.tolist(), strict=True):
                if y in among:
                    mine.append((e, self.members(y)[i]))
        return torch.stack([self.images[min(mine)[1]]["x"] for mine in best]).to(x)

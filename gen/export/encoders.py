"""Graphs of an encoder into W+: encode, and those of its generator.

Letters in shapes: N batch, H image side, L rows of a code, D their width.
"""

from __future__ import annotations

from torch import Tensor, nn

from gen.export import generators
from gen.export.graph import Graph, images, swapped

ON_PAGE = ()  # graphs of the page without a server


class Encode(nn.Module):
    """Images (N, 3, H, H) in [-1, 1] -> codes (N, L, D)."""

    def __init__(self, method):
        super().__init__()
        self.net = swapped(method.ema.module["encoder"], {})
        self.register_buffer("mean", method.code_mean)
        self.register_buffer("std", method.code_std)

    def forward(self, x: Tensor) -> Tensor:
        return self.mean + self.std * self.net(x)


def graphs(method) -> list[Graph]:
    """The graphs of an encoder."""
    H = method.img_size
    found = generators.of_generator(method.generator, H)
    encode = Graph("encode", Encode(method), {"x": f"N 3 {H} {H}"},
                   {"ws": found[1].inputs["ws"]},
                   lambda rng, n: {"x": images(rng, n["N"], 3, H, H)})  # fmt: skip
    return [*found, encode]

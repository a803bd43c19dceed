"""Graph of a classifier: logits, and the attention of its last block if that is one map.

Letters in shapes: N batch, H height = width, S classes, h heads, g patches along a side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gen.export.graph import Graph, images, swapped
from gen.networks.attention_tap import AttentionTap

ON_PAGE = ("classify",)  # graphs of the page without a server


class Classify(nn.Module):
    """Images (N, 3, H, H) in [-1, 1] -> logits (N, S), and scaled logits of attention per head."""

    def __init__(self, method):
        super().__init__()
        self.net = swapped(method.ema.module["net"], {})
        self.register_buffer("mean", method.mean)
        self.register_buffer("std", method.std)
        try:
            self.taps = (AttentionTap(self.net),)
        except ValueError:  # no single map
            self.taps = ()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        logits = self.net(((x + 1) / 2 - self.mean) / self.std)
        return logits, *(tap.pop() for tap in self.taps)


class Judge(nn.Module):
    """Images (N, 3, H, H) in [-1, 1] -> logits, and of classifiers with factors these as well."""

    def __init__(self, method):
        super().__init__()
        self.net = swapped(method.net, {})
        self.outputs = len(method.attribute_names) if getattr(method, "factor_names", []) else 0
        if self.outputs:
            self.register_buffer("mean", method.factor_mean)
            self.register_buffer("std", method.factor_std)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        made = self.net(x)
        if not self.outputs:
            return (made,)
        return made[:, : self.outputs], made[:, self.outputs :] * self.std + self.mean


def graphs(method) -> list[Graph]:
    """The graph `classify`. Its size is fixed: positions are resampled outside of ONNX's operators
    for another one, and other networks were built for one."""
    H = method.img_size
    attends = hasattr(method, "attention")
    module = Classify(method) if attends else Judge(method)
    with torch.no_grad():
        made = module(torch.zeros(1, 3, H, H))
    names = ("logits", "attention" if attends else "factors")
    shapes = (" ".join(map(str, output.shape[1:])) for output in made)
    outputs = {name: f"N {shape}" for name, shape in zip(names, shapes, strict=False)}
    return [
        Graph("classify", module, {"x": f"N 3 {H} {H}"}, outputs,
              lambda rng, n: {"x": images(rng, n["N"], 3, H, H)})
    ]  # fmt: skip

"""A graph: a part of a method as one function of tensors, with the shapes that it takes.

Shapes are texts such as `N 3 64 16W`; a letter is an axis of any size, or of a multiple.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Draw = Callable[[torch.Generator, dict[str, int]], dict[str, Tensor]]
Run = Callable[[str, dict[str, Tensor]], dict[str, Tensor]]  # graph, inputs -> outputs


class Graph(NamedTuple):
    """A part of a method as one function of tensors."""

    name: str
    module: nn.Module  # its positional arguments are the inputs, in order
    inputs: dict[str, str]  # name -> shape
    outputs: dict[str, str]  # name -> shape
    draw: Draw  # random inputs for the sizes of all letters
    own: dict[str, tuple[int, int]] = {}  # letter -> least size and size in training; else 1, 1

    def sizes(self, number: int) -> dict[str, int]:
        """Sizes of all letters, in the order of the inputs: 1, 2, .., or their own, one more, .."""
        letters = re.findall("[A-Z]", " ".join(self.inputs.values()))
        return {letter: self.own.get(letter, (1, 1))[1] + number - 1 for letter in letters}

    def random(self, seed: int = 0, **sizes: int) -> dict[str, Tensor]:
        """Random inputs; letters that are not given have the second of their sizes."""
        rng = torch.Generator().manual_seed(seed)
        return self.draw(rng, self.sizes(2) | sizes)

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of the module, eager."""
        with torch.no_grad():
            return self.named(self.module(*(inputs[name] for name in self.inputs)))

    def named(self, outputs: Any) -> dict[str, Tensor]:
        """Outputs by name: of one tensor, or of several."""
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        return dict(zip(self.outputs, outputs, strict=True))


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    """Numbers ~ N(0, 1)."""
    return torch.randn(*shape, generator=rng)


def images(rng: torch.Generator, *shape: int) -> Tensor:
    """Numbers in [-1, 1)."""
    return torch.rand(*shape, generator=rng) * 2 - 1


def swapped(net: nn.Module, classes: dict[type, type], without: Iterable[str] = ()) -> nn.Module:
    """A copy of a network for export, in eval mode, that needs no gradients.

    Args:
        net: network to copy.
        classes: class of layers -> class with the same parameters, whose code can be exported.
        without: names of children that the graph does not use, and that the copy lacks.
    """
    made = copy.deepcopy(net).requires_grad_(False).eval()
    for name in without:
        setattr(made, name, None)
    for layer in made.modules():
        layer.__class__ = classes.get(type(layer), type(layer))
    return made

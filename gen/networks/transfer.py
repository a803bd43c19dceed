"""Takes over the weights of a StyleGAN2 of another size, with other classes, colours or opacity.

A tensor is kept where name and shape agree. Where it can be, a tensor of another shape is adapted
so that the new network first does what the old one did; every other tensor stays as drawn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

EMA = "ema.module."
INPUT = re.compile(  # first layers, whose last inputs are new: embedded class, opacity
    r"generator\.mapping\.fc0\.weight|discriminator\.b\d+\.fromrgb\.weight"
)
NEEDED = ("generator.synthesis.b4.conv1.weight", "generator.synthesis.b4.conv1.affine.weight")
RGB = re.compile(r"generator\.synthesis\.b(\d+)\.torgb\.(weight|bias)")


def transfer(
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    classes: Sequence[str] = (),
    old_classes: Sequence[str] = (),
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors that replace those of `own`, and the names of the parts that are new.

    Classes of the same name keep their embedding. A new class input has no effect at first. A
    resolution that is new in G at first enlarges the image of the one before. Grey is the mean of
    the three colours, and three equal colours are a grey. New opacity is full at first, and D does
    not see it at first. Without a fitting 4 px block the tensors are empty.

    Args:
        own: state dict of the method `StyleGAN2`, averages included.
        state: state dict of the file; averages may be missing.
        classes: names of the classes that the method conditions on; empty: none.
        old_classes: names of the classes in the file; empty: none.
    """
    kept, fresh = {}, set()
    top = "generator.synthesis.b{}.torgb.bias"
    before = state.get(top.format(4), ())
    top = top.format(max(int(found[1]) for key in own if (found := RGB.fullmatch(key))))
    for key, value in own.items():
        name = key.removeprefix(EMA)
        old = state.get(key, state.get(name))
        if old is not None:
            old = adapted(name, value, old, classes, old_classes)
        if old is None:
            fresh.add(name)
            old = torch.zeros_like(value) if RGB.fullmatch(name) and name not in state else None
        if old is not None:
            kept[key] = old
            if name == top and len(before) < 4 == len(old):  # other blocks are dim at the edges
                old[3] = 1
    if fresh.intersection(NEEDED):
        return {}, ["all"]
    whole = {key.removeprefix(EMA) for key in own} - fresh
    return kept, sorted({part(name, whole) for name in fresh})


def part(name: str, kept: Collection[str]) -> str:
    """The largest part of the network that holds `name` and no tensor that was kept."""
    words = name.split(".")
    prefixes = (".".join(words[:k]) for k in range(1, len(words)))
    return next((p for p in prefixes if not any(k.startswith(f"{p}.") for k in kept)), name)


def adapted(
    name: str, value: Tensor, old: Tensor, classes: Sequence[str], old_classes: Sequence[str]
) -> Tensor | None:
    """The tensor of the file in the shape of `value`, or None if it does not fit."""
    if name.endswith("mapping.embed.weight") and list(classes) != list(old_classes):
        return embedded(value, old, classes, old_classes)
    if old.shape == value.shape:
        return old
    if INPUT.fullmatch(name) and len(old) == len(value):
        width = min(old.shape[1], value.shape[1])
        made = torch.zeros_like(value)
        made[:, :width] = old[:, :width] * math.sqrt(value.shape[1] / old.shape[1])  # its gain
        return made
    if RGB.fullmatch(name) and old.shape[1:] == value.shape[1:]:
        return colours(value, old)
    return None


def colours(value: Tensor, old: Tensor) -> Tensor:
    """Weights or biases of grey, colours, or colours and opacity, of another of these."""
    count, made = min(len(value), 3), torch.zeros_like(value)
    made[:count] = old[:3] if len(old[:3]) == count else old[:3].mean(0, keepdim=True)
    return made


def embedded(
    value: Tensor, old: Tensor, classes: Sequence[str], old_classes: Sequence[str]
) -> Tensor | None:
    """The embedding (D, K) with the columns of the classes that the file knows, None if none."""
    known = [(classes.index(c), old_classes.index(c)) for c in classes if c in old_classes]
    if not known or len(old) != len(value):
        return None
    to, at = map(list, zip(*known, strict=True))
    made = value.clone()
    made[:, to] = old[:, at] * math.sqrt(value.shape[1] / old.shape[1])  # its gain
    return made

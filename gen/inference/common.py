"""Shared parts of inference: reading images, seeds, and choosing images to show.

The report, the scripts, callbacks and demos use this module, so all of them show the same pixels.
Images are (N, 3, H, W) in [-1, 1].
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gen.data.images import load_image, resize, to_tensor

Rows = list[list[Tensor | None]]
Headers = list[tuple[str, int]]
MOST_SEEDS = 1000  # in a range: more make no picture


def device(method) -> torch.device:
    return next(method.parameters()).device


def read(method, image: str | Path) -> Tensor:
    """An image file at the method's size, (1, 3, S, S), resized to a square as in training.

    Raises:
        ImageError: the image cannot be used; the message names the path.
    """
    return to_tensor(resize(load_image(image), method.img_size))[None].to(device(method))


def pick(images, per_domain: int, shift: float = 0.0) -> list[int]:
    """Indices into a `DomainImages`: the same number from each domain, evenly spaced.

    Domains are staggered, so that paired data shows different contents; `shift` in [0, 1) selects
    other images (sources 0, references 0.5).
    """
    chosen, S = [], len(images.domains)
    for y in range(S):
        members = (images.labels == y).nonzero().flatten().tolist()
        n = min(per_domain, len(members))
        at = ((y + 0.5) / S + shift) % 1
        chosen += [members[int((k + at) / n * len(members))] for k in range(n)]
    return chosen


def batch(method, images, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images and labels of a dataset, on the method's device: (N, 3, H, W), (N,)."""
    items = [images[i] for i in indices]
    y = torch.tensor([int(item["y"]) for item in items], device=device(method))
    return torch.stack([item["x"] for item in items]).to(device(method)), y


def seeds(texts: Sequence[str]) -> list[int]:
    """Parses seeds: `["3", "5-7"]` -> [3, 5, 6, 7].

    Raises:
        ValueError: neither a number nor a range; an empty range, or one of more than `MOST_SEEDS`.
    """
    found = []
    for text in texts:
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", text)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + MOST_SEEDS:
            raise ValueError(
                f"seeds: expected a number or a range of 1 to {MOST_SEEDS}, as 3 or 0-7, got {text}"
            )
        found += range(first, last + 1)
    return found


def normal(width: int, seeds: Sequence[int]) -> Tensor:
    """Normal numbers (N, width), each row a function of its seed.

    Raises:
        ValueError: a seed that does not fit into 64 bits.
    """
    if odd := [seed for seed in seeds if not -(2**63) <= seed < 2**63]:
        raise ValueError(f"seed: expected a number of 64 bits, got {odd[0]}; choose a smaller one")
    rngs = (torch.Generator().manual_seed(seed) for seed in seeds)
    return torch.stack([torch.randn(width, generator=rng) for rng in rngs])


def join(legs: Sequence[Tensor]) -> Tensor:
    """Legs in sequence, with each shared frame once: (N, T', 3, H, W)."""
    return torch.cat([legs[0], *(leg[:, 1:] for leg in legs[1:])], dim=1)

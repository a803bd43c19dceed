"""Pictures of a generator: images of seeds, truncated or mixed, rendered by its own interface.

A method here is any object with `generate`, `map_latents`, `synthesize` and `latent_dim`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gen.inference.common import Rows, device, normal


def latents(method, seeds: Sequence[int]) -> Tensor:
    """Latents of a generator, each a function of its seed: (N, Z)."""
    return normal(method.latent_dim, seeds).to(device(method))


def generated(
    method, seeds: Sequence[int], columns: int = 8, psi: float = 1.0, y: int | None = None
) -> Rows:
    """Images of seeds, row by row; without y, the classes take turns."""
    if y is None:
        y = torch.arange(len(seeds), device=device(method)) % max(1, method.classes)
    cells = list(method.generate(latents(method, seeds), y, psi))
    cells += [None] * (-len(cells) % columns)
    return [cells[i : i + columns] for i in range(0, len(cells), columns)]


def truncated(method, seeds: Sequence[int], psis: Sequence[float], y: int = 0) -> Rows:
    """Row i: seed i at each truncation psi, from near the mean code to far from it."""
    z = latents(method, seeds)
    columns = [method.generate(z, y, psi) for psi in psis]  # each (N, 3, H, H)
    return [list(row) for row in zip(*columns, strict=True)]


def mixed(
    method, rows: Sequence[int], columns: Sequence[int], first: int, psi: float = 1.0, y: int = 0
) -> Rows:
    """Mixed styles: cell (i, j) has the code of seed i, with the code of seed j from `first` on.

    The first column and row show the images of the seeds.
    """
    a, b = (method.map_latents(latents(method, seeds), y, psi) for seeds in (rows, columns))
    if not 0 < first < a.shape[1]:
        raise ValueError(f"first: expected a row in 1 .. {a.shape[1] - 1}, got {first}")
    out: Rows = [[None, *method.synthesize(b)]]
    for code in a:
        both = torch.cat([code[:first].expand(len(b), -1, -1), b[:, first:]], 1)
        out.append([method.synthesize(code[None])[0], *method.synthesize(both)])
    return out

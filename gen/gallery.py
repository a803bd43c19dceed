"""What to show of a translator: sample grids and style paths, rendered through its own interface.

Shared by the report, the scripts, callbacks and demos, so that all of them show the same pixels.
A method here is anything with `translate`, `encode`, `decode`, `map_style`, `encode_style`,
`domains`, `img_size` and `latent_dim`; images are (N, 3, H, W) in [-1, 1].
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gen.data.images import load_image, resize, to_tensor
from gen.interpolation import alphas, lerp, path

Rows = list[list[Tensor | None]]
Headers = list[tuple[str, int]]


def device(method) -> torch.device:
    return next(method.parameters()).device


def domain_index(method, name: str) -> int:
    """Label of a domain by its name; ValueError lists the names there are."""
    if name not in method.domains:
        known = ", ".join(method.domains)
        raise ValueError(f"expected one of the checkpoint's domains ({known}), got {name!r}")
    return method.domains.index(name)


def read(method, image: str | Path) -> Tensor:
    """An image file at the method's size, (1, 3, S, S), resized to a square as in training.

    Raises:
        ImageError: naming the path, if it cannot be used.
    """
    return to_tensor(resize(load_image(image), method.img_size))[None].to(device(method))


def pick(images, per_domain: int) -> list[int]:
    """Indices into a `DomainImages`: as many of each domain, evenly spread, contents staggered."""
    chosen, S = [], len(images.domains)
    for y in range(S):
        members = (images.labels == y).nonzero().flatten().tolist()
        n = min(per_domain, len(members))
        chosen += [members[int((k + (y + 0.5) / S) / n * len(members))] for k in range(n)]
    return chosen


def batch(method, images, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images and labels of a dataset, on the method's device: (N, 3, H, W), (N,)."""
    items = [images[i] for i in indices]
    y = torch.tensor([int(item["y"]) for item in items], device=device(method))
    return torch.stack([item["x"] for item in items]).to(device(method)), y


@torch.inference_mode()
def style(method, domain: int, seed: int, psi: float = 1.0) -> Tensor:
    """The style (1, D) of a seed in a domain, drawn towards the domain's mean style for psi < 1.

    s = mean + psi (F(z, y) - mean), the mean over 1,000 latents of seed 0 (truncation).
    """
    s = _map(method, domain, seed, 1)
    return s if psi == 1 else lerp(_map(method, domain, 0, 1000).mean(0, keepdim=True), s, psi)


def _map(method, domain: int, seed: int, n: int) -> Tensor:
    z = torch.randn(n, method.latent_dim, generator=torch.Generator().manual_seed(seed))
    z = z.to(device(method))  # (n, L)
    return method.map_style(z, torch.full((n,), domain, device=z.device))  # (n, D)


@torch.inference_mode()
def latent_grid(method, x: Tensor, seeds: Sequence[int]) -> tuple[Rows, Headers]:
    """Row i: source x_i, then its translation to each domain with the style of each seed."""
    rows = [[image] for image in x]
    for y in range(len(method.domains)):
        for seed in seeds:
            s = style(method, y, seed).expand(len(x), -1)  # (N, D)
            _append(rows, method.translate(x, _labels(x, y), style=s))
    return rows, [("source", 1), *((name, len(seeds)) for name in method.domains)]


@torch.inference_mode()
def reference_grid(method, x: Tensor, refs: Tensor, y_refs: Tensor) -> tuple[Rows, Headers]:
    """First row: the references; then row i: source x_i in the style of each reference."""
    rows, headers = [[image] for image in x], [("source", 1)]
    for ref, y in zip(refs, y_refs.tolist(), strict=True):
        x_ref = ref.expand(len(x), -1, -1, -1)  # (N, 3, H, W)
        _append(rows, method.translate(x, _labels(x, y), x_ref=x_ref))
        name = method.domains[y]
        if headers[-1][0] == name:
            headers[-1] = (name, headers[-1][1] + 1)
        else:
            headers.append((name, 1))
    return [[None, *refs], *rows], headers


@torch.inference_mode()
def paired_grid(method, images, indices: Sequence[int], seed: int) -> tuple[Rows, Headers]:
    """Row i: source, then for each domain its translation beside the true twin (paired data)."""
    x, _ = batch(method, images, indices)
    rows, headers = [[image] for image in x], [("source", 1)]
    for y, name in enumerate(method.domains):
        s = style(method, y, seed).expand(len(x), -1)  # (N, D)
        _append(rows, method.translate(x, _labels(x, y), style=s))
        for row, index in zip(rows, indices, strict=True):
            twin = images.twin(index, y)
            row.append(None if twin is None else images[twin]["x"])
        headers += [(name, 1), ("true", 1)]
    return rows, headers


@torch.inference_mode()
def walk(method, x: Tensor, keys: Sequence[Tensor], frames: int) -> list[Tensor]:
    """Frames of x on straight lines between styles: one (N, T, 3, H, W) a leg, both ends shown.

    Args:
        keys: at least two styles, each (N, D) or (1, D); leg k goes from key k to key k + 1.
    """
    if len(keys) < 2:
        raise ValueError(f"walk expected at least 2 styles, got {len(keys)}; name another end")
    content = method.encode(x)
    keys = [key.expand(len(x), -1) for key in keys]
    grid = alphas(frames, "strict").to(x.device)
    legs = zip(keys[:-1], keys[1:], strict=True)
    return [path(lambda s: method.decode(content, s), a, b, grid) for a, b in legs]


def join(legs: Sequence[Tensor]) -> Tensor:
    """Legs one after the other, each joint once: (N, T', 3, H, W)."""
    return torch.cat([legs[0], *(leg[:, 1:] for leg in legs[1:])], dim=1)


def tile(frames: Tensor, columns: int) -> Tensor:
    """N sequences beside and above each other in one: (N, T, 3, H, W) -> (T, 3, r H, c W).

    Missing ones are white.
    """
    n, T, C, H, W = frames.shape
    white = frames.new_ones(-n % columns, T, C, H, W)
    x = torch.cat([frames, white]).unflatten(0, (-1, columns))  # (r, c, T, 3, H, W)
    return x.permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3)


def _labels(x: Tensor, y: int) -> Tensor:
    return torch.full((len(x),), y, device=x.device)


def _append(rows: Rows, fakes: Tensor) -> None:
    for row, fake in zip(rows, fakes.cpu(), strict=True):
        row.append(fake)

"""Pictures of a translator: sample grids and style paths, rendered by its own interface.

A method here is any object with `translate`, `encode`, `decode`, `map_style`, `mean_style`,
`encode_style`, `domains`, `img_size` and `latent_dim`; images are (N, 3, H, W) in [-1, 1].
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gen.inference.common import Headers, Rows, batch, device, normal, read
from gen.interpolation import alphas, lerp, path


def domain_index(method, name: str) -> int:
    """Label of a domain by its name; ValueError for an unknown name lists the known ones."""
    if name not in method.domains:
        known = ", ".join(method.domains)
        raise ValueError(f"expected one of the checkpoint's domains ({known}), got {name!r}")
    return method.domains.index(name)


def style(method, domain: int, seed_or_ref: int | Tensor, psi: float = 1.0) -> Tensor:
    """A style (1, D) of a domain, from a seed or a reference image (1, 3, H, W).

    psi < 1 moves it towards the domain's mean style (truncation).
    """
    y = torch.tensor([domain], device=device(method))
    if isinstance(seed_or_ref, Tensor):
        s = method.encode_style(seed_or_ref, y)
    else:
        s = method.map_style(normal(method.latent_dim, [seed_or_ref]).to(y.device), y)
    return s if psi == 1 else lerp(method.mean_style(domain), s, psi)


def route(
    method,
    domains: Sequence[str],
    seeds_or_refs: Sequence[int | Path],
    via: str = "",
) -> tuple[list[str], list[Tensor]]:
    """Domain names and styles (1, D) of a path, for `walk`.

    Args:
        domains: domain for each seed or reference, or one for all of them; without any, the domain
            of a reference is the name of its folder.
        seeds_or_refs: seed or reference for each domain, or one for all of them. One domain with
            one seed k gives a path from seed k to k + 1.
        via: second stop of the path: a domain (with the first seed), or an image in a folder named
            after its domain.

    Raises:
        ValueError: unknown domain, numbers that do not fit, or fewer than two styles.
    """
    guides, names = list(seeds_or_refs), list(domains)
    refs = isinstance(guides[0], Path)
    if refs and not names:
        names = [_folder_domain(method, ref) for ref in guides]
    if len(names) == len(guides) == 1 and not refs and not via:
        guides = [guides[0], guides[0] + 1]
    n = max(len(names), len(guides))
    if {len(names), len(guides)} - {1, n} or n + bool(via) < 2:
        what = "references" if refs else "seeds"
        raise ValueError(
            f"expected a way of at least 2 styles, as many domains as {what} or one of either, got "
            f"{len(names)} domains and {len(guides)} {what}; name another domain (there are "
            f"{', '.join(method.domains)}) or more {what}"
        )
    stops = list(zip(names * (n // len(names)), guides * (n // len(guides)), strict=True))
    if via and Path(via).is_file():
        stops.insert(1, (_folder_domain(method, Path(via)), Path(via)))
    elif via:
        stops.insert(1, (via, 0 if refs else guides[0]))
    styles = []
    for name, guide in stops:
        y = domain_index(method, name)
        styles.append(style(method, y, read(method, guide) if isinstance(guide, Path) else guide))
    return [name for name, _ in stops], styles


def _folder_domain(method, image: Path) -> str:
    """Domain of a reference: the name of its folder."""
    name = image.absolute().parent.name
    if name not in method.domains:
        raise ValueError(
            f"{image}: expected a reference in a folder named after its domain "
            f"({', '.join(method.domains)}), got {name!r}; move it, or name its domain"
        )
    return name


def latent_grid(method, x: Tensor, seeds: Sequence[int]) -> tuple[Rows, Headers]:
    """Row i: source x_i, then its translations to each domain, with the style of each seed."""
    domains = range(len(method.domains))
    rows = _grid(method, x, [style(method, y, seed) for y in domains for seed in seeds])
    return rows, [("source", 1), *((name, len(seeds)) for name in method.domains)]


def reference_grid(method, x: Tensor, refs: Tensor, y_refs: Tensor) -> tuple[Rows, Headers]:
    """First row: references, sorted by domain. Row i: x_i, then x_i in the style of each."""
    order = y_refs.argsort(stable=True)
    refs, y_refs = refs[order], y_refs[order]
    rows = _grid(method, x, list(method.encode_style(refs, y_refs).split(1)))
    counts = y_refs.bincount().tolist()
    headers = [(method.domains[y], n) for y, n in enumerate(counts) if n]
    return [[None, *refs.cpu()], *rows], [("source", 1), *headers]


def paired_grid(method, images, indices: Sequence[int], seed: int) -> tuple[Rows, Headers]:
    """Row i: source, then for each domain its translation and its true twin (paired data)."""
    x, _ = batch(method, images, indices)
    rows, headers = latent_grid(method, x, [seed])
    for row, index in zip(rows, indices, strict=True):
        twins = [images.twin(index, y) for y in range(len(method.domains))]
        for y, twin in reversed(list(enumerate(twins))):
            row.insert(y + 2, None if twin is None else images[twin]["x"])
    return rows, [headers[0], *((name, 2) for name, _ in headers[1:])]


def _grid(method, x: Tensor, styles: Sequence[Tensor]) -> Rows:
    """Row i: x_i, then x_i in each style (1, D)."""
    content = method.encode(x)
    fakes = [method.decode(content, s.expand(len(x), -1)).cpu() for s in styles]
    return [list(row) for row in zip(x.cpu(), *fakes, strict=True)]


def walk(method, x: Tensor, keys: Sequence[Tensor], frames: int) -> list[Tensor]:
    """Frames of x on straight lines between styles: one (N, T, 3, H, W) per leg, with both ends.

    Frames are clamped to [-1, 1], as for saving and metrics.

    Args:
        keys: at least two styles, each (N, D) or (1, D); leg k goes from key k to key k + 1.
    """
    if len(keys) < 2:
        raise ValueError(f"walk expected at least 2 styles, got {len(keys)}; name another end")
    content = method.encode(x)
    keys = [key.expand(len(x), -1) for key in keys]
    grid = alphas(frames, "strict").to(x.device)
    legs = zip(keys[:-1], keys[1:], strict=True)
    return [path(lambda s: method.decode(content, s).clamp(-1, 1), a, b, grid) for a, b in legs]

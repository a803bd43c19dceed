"""What to show of a translator: sample grids and style paths, rendered through its own interface.

Shared by the report, the scripts, callbacks and demos, so that all of them show the same pixels.
A method here is anything with `translate`, `encode`, `decode`, `map_style`, `mean_style`,
`encode_style`, `domains`, `img_size` and `latent_dim`; images are (N, 3, H, W) in [-1, 1].
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gen.data.images import load_image, resize, to_tensor
from gen.interpolation import alphas, lerp, path

Rows = list[list[Tensor | None]]
Headers = list[tuple[str, int]]
MOST_SEEDS = 1000  # of a range: more are no picture


def device(method) -> torch.device:
    return next(method.parameters()).device


def check_translator(method, source: str) -> None:
    """ValueError if the method of a file is none that translates between domains."""
    if not hasattr(method, "encode_style"):
        editor = ", an editor of codes: use scripts/edit.py" if hasattr(method, "edit") else ""
        got = f"{type(method).__name__}{editor}"
        raise ValueError(f"{source}: expected a translator between domains, got {got}")


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


def pick(images, per_domain: int, shift: float = 0.0) -> list[int]:
    """Indices into a `DomainImages`, domain by domain: as many of each, evenly spread.

    Domains are staggered, so that paired data shows different contents; `shift` in [0, 1) gives
    others (sources 0, references 0.5).
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


def style(method, domain: int, seed_or_ref: int | Tensor, psi: float = 1.0) -> Tensor:
    """A style (1, D) of a domain: of a seed, or of a reference image (1, 3, H, W).

    psi < 1 draws it towards the domain's mean style (truncation).
    """
    y = torch.tensor([domain], device=device(method))
    if isinstance(seed_or_ref, Tensor):
        s = method.encode_style(seed_or_ref, y)
    else:
        z = torch.randn(1, method.latent_dim, generator=torch.Generator().manual_seed(seed_or_ref))
        s = method.map_style(z.to(y.device), y)
    return s if psi == 1 else lerp(method.mean_style(domain), s, psi)


def route(
    method,
    domains: Sequence[str],
    seeds_or_refs: Sequence[int | Path],
    via: str = "",
) -> tuple[list[str], list[Tensor]]:
    """Domain names and styles (1, D) on a way, for `walk`.

    Args:
        domains: one for each seed or reference, or one for all of them; without any, references
            are of the domain that their folder is named after.
        seeds_or_refs: one for each domain, or one for all of them. One domain with one seed k goes
            from k to k + 1.
        via: a domain (with the first seed) or an image in a folder of its domain; comes second.

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
    """The domain of a reference: the name of its folder."""
    name = image.absolute().parent.name
    if name not in method.domains:
        raise ValueError(
            f"{image}: expected a reference in a folder named after its domain "
            f"({', '.join(method.domains)}), got {name!r}; move it, or name its domain"
        )
    return name


def seeds(texts: Sequence[str]) -> list[int]:
    """Seeds as they are written: `["3", "5-7"]` -> [3, 5, 6, 7].

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


def latents(method, seeds: Sequence[int]) -> Tensor:
    """Latents of a generator, each a function of its seed: (N, Z)."""
    rngs = (torch.Generator().manual_seed(seed) for seed in seeds)
    rows = [torch.randn(method.latent_dim, generator=rng) for rng in rngs]
    return torch.stack(rows).to(device(method))


def generated(
    method, seeds: Sequence[int], columns: int = 8, psi: float = 1.0, y: int | None = None
) -> Rows:
    """Images that a generator makes of seeds, row by row; without y of one class after another."""
    if y is None:
        y = torch.arange(len(seeds), device=device(method)) % max(1, method.classes)
    cells = list(method.generate(latents(method, seeds), y, psi))
    cells += [None] * (-len(cells) % columns)
    return [cells[i : i + columns] for i in range(0, len(cells), columns)]


def truncated(method, seeds: Sequence[int], psis: Sequence[float], y: int = 0) -> Rows:
    """Row i: seed i, nearer and nearer to or farther from the mean code."""
    z = latents(method, seeds)
    columns = [method.generate(z, y, psi) for psi in psis]  # each (N, 3, H, H)
    return [list(row) for row in zip(*columns, strict=True)]


def mixed(
    method, rows: Sequence[int], columns: Sequence[int], first: int, psi: float = 1.0, y: int = 0
) -> Rows:
    """Styles mixed: row i has the code of a seed, in its rows from `first` that of column j.

    Around the grid stand the images of both.
    """
    a, b = (method.map_latents(latents(method, seeds), y, psi) for seeds in (rows, columns))
    if not 0 < first < a.shape[1]:
        raise ValueError(f"first: expected a row in 1 .. {a.shape[1] - 1}, got {first}")
    out: Rows = [[None, *method.synthesize(b)]]
    for code in a:
        both = torch.cat([code[:first].expand(len(b), -1, -1), b[:, first:]], 1)
        out.append([method.synthesize(code[None])[0], *method.synthesize(both)])
    return out


def latent_grid(method, x: Tensor, seeds: Sequence[int]) -> tuple[Rows, Headers]:
    """Row i: source x_i, then its translation to each domain with the style of each seed."""
    domains = range(len(method.domains))
    rows = _grid(method, x, [style(method, y, seed) for y in domains for seed in seeds])
    return rows, [("source", 1), *((name, len(seeds)) for name in method.domains)]


def reference_grid(method, x: Tensor, refs: Tensor, y_refs: Tensor) -> tuple[Rows, Headers]:
    """First row: the references, sorted by domain; then row i: x_i in the style of each."""
    order = y_refs.argsort(stable=True)
    refs, y_refs = refs[order], y_refs[order]
    rows = _grid(method, x, list(method.encode_style(refs, y_refs).split(1)))
    counts = y_refs.bincount().tolist()
    headers = [(method.domains[y], n) for y, n in enumerate(counts) if n]
    return [[None, *refs.cpu()], *rows], [("source", 1), *headers]


def paired_grid(method, images, indices: Sequence[int], seed: int) -> tuple[Rows, Headers]:
    """Row i: source, then for each domain its translation beside the true twin (paired data)."""
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
    """Frames of x on straight lines between styles: one (N, T, 3, H, W) a leg, both ends shown.

    Clamped to [-1, 1], as they are saved and measured.

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


def join(legs: Sequence[Tensor]) -> Tensor:
    """Legs one after the other, each joint once: (N, T', 3, H, W)."""
    return torch.cat([legs[0], *(leg[:, 1:] for leg in legs[1:])], dim=1)

"""Requests to an editor of codes, and pictures of the edits.

An editor is any object with `attribute_names`, `noise_dim`, `latent_dim`, `img_size`,
`map_latents`, `synthesize` and `edit`; a judge has `attribute_names` and `classify`. N codes
(N, L, D), K attributes in {0, 1}, images (N, 3, H, H) in [-1, 1].
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gen.data.codes import read
from gen.devices import float64
from gen.inference import common, generation
from gen.interpolation import alphas, path
from gen.weights import save_safetensors


def labels(method, judge, ws: Tensor) -> Tensor:
    """Attributes (N, K) that a judge predicts for the images of codes."""
    names = getattr(judge, "attribute_names", None)
    if names != method.attribute_names or judge.img_size != method.img_size:
        raise ValueError(
            f"classifier: expected the attributes {method.attribute_names} at {method.img_size} "
            f"px, got {names} at {judge.img_size} px; give the AttributeClassifier of this editor"
        )
    images = [method.synthesize(part).clamp(-1, 1) for part in ws.split(50)]
    return torch.cat([(judge.classify(x) > 0).float() for x in images])


def known(method, judge, count: int = 500, seed: int = 0) -> Tensor:
    """Combinations of attributes (M, K) that occur in random images; see `possible`."""
    seeds = range(10**6 * (seed + 1), 10**6 * (seed + 1) + count)
    y = labels(method, judge, method.map_latents(generation.latents(method, seeds)))
    return y[possible(y, declared(judge))].unique(dim=0)


def declared(judge) -> list[list[int]]:
    """Groups of attributes, by index, that exclude each other as the judge's data declares."""
    names = judge.attribute_names
    return [[names.index(name) for name in group] for group in getattr(judge, "exclusive", [])]


def possible(y: Tensor, groups: Sequence[Sequence[int]] = ()) -> Tensor:
    """Marks the rows of attributes (N, K) without two that exclude each other: (N,) bool.

    Sometimes a generator makes a cat that is half a bear, which nobody wants. Without declared
    `groups`, two attributes exclude each other if they occur together in less than a quarter of
    n_i n_j / N rows, the number expected by chance.
    """
    if groups:
        return torch.stack([y[:, list(group)].sum(1) <= 1 for group in groups]).all(0)
    y, device = float64(y), y.device
    n = y.T @ y  # (K, K)
    apart = n < n.diag()[:, None] * n.diag() / (4 * len(y))
    return (((y @ apart.double()) * y).sum(1) == 0).to(device)


def parse(text: str, names: Sequence[str]) -> dict[int, bool]:
    """Parses `cat,no-spots` to {index of cat: True, index of spots: False}.

    Raises:
        ValueError: an attribute that the editor does not have, an attribute both wanted and
            unwanted, or no attribute.
    """
    request = {}
    for word in filter(None, text.split(",")) if text.strip(",") else [text]:
        name = word.removeprefix("no-")
        if name not in names:
            known = ", ".join(names)
            raise ValueError(f"expected attributes of {known}, as NAME or no-NAME, got {word!r}")
        if request.setdefault(names.index(name), word == name) != (word == name):
            raise ValueError(f"expected {name} or no-{name}, got both in {text!r}")
    return request


def wanted(y: Tensor, request: dict[int, bool], seen: Tensor) -> Tensor:
    """Attributes (K,) as requested, with as few other changes as the combinations allow.

    Asking a dog for `cat` must also remove `dog`: of the seen combinations that have what is
    requested, the result is the one that differs from y in the fewest attributes.

    Args:
        y: attributes (K,) of the source.
        request: wishes {index of an attribute: True to have it, False not to}.
        seen: combinations (M, K) of the attributes in `known` that occur in images.

    Raises:
        ValueError: no combination has what is requested.
    """
    where = list(request)
    labels = torch.tensor([float(request[k]) for k in where], device=seen.device)
    fits = seen[(seen[:, where] == labels).all(1)]
    if not len(fits):
        raise ValueError(
            f"expected a request that occurs among {len(seen)} combinations of attributes, got "
            f"{request}; ask for less at once"
        )
    return fits[(fits != y).sum(1).argmin()]


def noises(method, seeds: Sequence[int]) -> Tensor:
    """Noise (N, Z), each row a function of its seed."""
    return common.normal(method.noise_dim, seeds).to(common.device(method))


def check_encoder(encoder, method, source: str) -> None:
    """Raises ValueError, which names `source`, unless an encoder is of the editor's generator.

    Weights may differ by the rounding of a file of 16 bits.
    """
    own, other = (one.generator.state_dict() for one in (method, encoder))
    fits = own.keys() == other.keys() and all(
        own[k].shape == other[k].shape
        and (own[k] - other[k]).abs().max() <= 1e-3 * own[k].abs().max() + 1e-6
        for k in own
    )
    if not fits:
        raise ValueError(
            f"{source}: expected an encoder of the editor's generator, got one of another; train "
            "it with --model.generator as the editor"
        )


def single_names(texts: Sequence[str], repeats: int) -> list[str]:
    """Names of the single images of each request and noise: `0-cat_1`."""
    return [f"{r}-{text}_{j}" for r, text in enumerate(texts) for j in range(repeats)]


def write_codes(path: str | Path, ws: Tensor) -> None:
    """Writes codes (N, L, D) as the one array `ws` of a .safetensors file."""
    save_safetensors({"ws": ws}, path)


def count_codes(path: str | Path) -> int:
    """The number of codes in a file."""
    return len(read(str(path)))


def source_codes(method, path: str | Path | None, seeds: Sequence[str], psi: float | None):
    """Codes (N, L, D) to edit: those of a file, or of seeds.

    Raises:
        ValueError: the file holds codes of another generator.
    """
    if not path:
        return method.map_latents(generation.latents(method, common.seeds(seeds)), psi=psi)
    ws, wanted = read(str(path)).float(), (method.rows, method.width)
    if ws.ndim != 3 or ws.shape[1:] != wanted or not len(ws):
        raise ValueError(
            f"{path}: expected codes (N, {wanted[0]}, {wanted[1]}) of the editor's generator, got "
            f"{tuple(ws.shape)}"
        )
    if not ws.isfinite().all():
        raise ValueError(f"{path}: expected finite codes, got NaN or infinity")
    return ws.to(common.device(method))


def edits(method, ws: Tensor, d: Tensor, seeds: Sequence[int]) -> Tensor:
    """Edited codes (R, S, N, L, D): R requests with attributes d (R, N, K), S seeds of noise."""
    z = noises(method, seeds)
    rows = [[method.edit(ws, of, one.expand(len(ws), -1)) for one in z] for of in d]
    return torch.stack([torch.stack(row) for row in rows])


def at_strengths(method, ws: Tensor, d: Tensor, z: Tensor, strengths: Sequence[float]) -> Tensor:
    """Codes (S, N, L, D) of edits at S strengths; 0 is the source, 1 the edit as asked.

    The editor's own path `edit_at`, if it has one, else the straight line through both.
    """
    if hasattr(method, "edit_at"):
        return torch.stack([method.edit_at(ws, d, z, strength) for strength in strengths])
    change = method.edit(ws, d, z) - ws
    return torch.stack([ws + strength * change for strength in strengths])


def success(judge, x: Tensor, y: Tensor, d: Tensor) -> Tensor:
    """Probability (N,) of a change in images x (N, 3, H, H), as a judge sees it.

    The mean over the attributes that differ between labels y and d (K,); NaN if none does.
    """
    changed = y != d
    return torch.sigmoid((2 * d - 1) * judge.classify(x))[:, changed].mean(1)


def walk(method, keys: Sequence[Tensor], frames: int) -> list[Tensor]:
    """Frames along straight lines between codes (N, L, D): one (N, T, 3, H, H) per leg, clamped."""
    t = alphas(frames, "strict").to(keys[0].device)
    legs = zip(keys[:-1], keys[1:], strict=True)
    return [path(lambda ws: method.synthesize(ws).clamp(-1, 1), a, b, t) for a, b in legs]

"""Requests to an editor of codes, and pictures of the edits.

An editor is any object with `attribute_names`, `noise_dim`, `latent_dim`, `img_size`,
`map_latents`, `synthesize` and `edit`; a judge has `attribute_names` and `classify`. N codes
(N, L, D), K attributes in {0, 1}, images (N, 3, H, H) in [-1, 1].
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gen.devices import float64
from gen.inference import common, generation
from gen.interpolation import alphas, path


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
    return y[possible(y)].unique(dim=0)


def possible(y: Tensor) -> Tensor:
    """Marks the rows of attributes (N, K) without two that exclude each other: (N,) bool.

    Sometimes a generator makes a cat that is half a bear, which nobody wants. Two attributes
    exclude each other if they occur together in less than a quarter of n_i n_j / N rows, the
    number expected by chance.
    """
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


def edits(method, ws: Tensor, d: Tensor, seeds: Sequence[int]) -> Tensor:
    """Edited codes (R, S, N, L, D): R requests with attributes d (R, N, K), S seeds of noise."""
    z = noises(method, seeds)
    rows = [[method.edit(ws, of, one.expand(len(ws), -1)) for one in z] for of in d]
    return torch.stack([torch.stack(row) for row in rows])


def walk(method, keys: Sequence[Tensor], frames: int) -> list[Tensor]:
    """Frames along straight lines between codes (N, L, D): one (N, T, 3, H, H) per leg, clamped."""
    t = alphas(frames, "strict").to(keys[0].device)
    legs = zip(keys[:-1], keys[1:], strict=True)
    return [path(lambda ws: method.synthesize(ws).clamp(-1, 1), a, b, t) for a, b in legs]

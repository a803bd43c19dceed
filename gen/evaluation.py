"""Evaluation of a translator on a data set: what is translated to what, and one row a metric."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from gen import gallery
from gen.interpolation import alphas, path
from gen.metrics.checks import check_images
from gen.metrics.smoothness import path_distances, smoothness
from gen.metrics.translation import bootstrap, protocol_names, translation_scores
from gen.networks.perceptual import LPIPS
from gen.report import versions
from gen.weights import sha256

GROUPS = ("intra", "inter", "translation")
GUIDES = ("latent", "reference")
FRAMES, OUTPUTS = 20, 10  # of a path; of a source
Key = tuple[str, str, str]  # group, guide, value


class Source(NamedTuple):
    """A source image and what becomes of it: a function of (seed, data set) and nothing else."""

    index: int
    target: int  # domain of the outputs and of the intra-domain path, not the source's own
    start: int  # domains of the inter-domain path
    end: int


class Styles(NamedTuple):
    """Style codes of N sources."""

    outputs: Tensor  # (N, K, D) of the target domain
    start: Tensor  # (N, D)
    end: Tensor  # (N, D)


def evaluate(
    method,
    images,
    metrics: Collection[str] = GROUPS,
    net: str = "alex",
    grid: Literal["released", "strict"] = "released",
    seed: int = 777,
    batch_size: int = 16,
    max_sources: int | None = None,
    checkpoint: str | Path | None = None,
) -> list[dict]:
    """Evaluates latent- and reference-guided translation.

    - `intra`: smoothness of paths from one style of the target domain to another.
    - `inter`: the same between two domains, all ordered pairs equally often.
    - `translation`: of 10 outputs a source, diversity, content, and where the data is paired the
      error to the true target, beside the error of the source left unchanged.

    Each source is encoded once. Its latents and references are a function of (seed, index), so
    results depend neither on the batch size nor, under `torch.distributed`, on the number of
    processes: they share the sources, and each gets all rows. References are validation images
    of the wanted domain without the source's twin; where a domain has too few, a source has fewer
    outputs, and the names say so.

    Args:
        method: Has `encode`, `decode`, `map_style`, `encode_style`, `domains`, `img_size` and
            `latent_dim`; an nn.Module on the device to use.
        images: Validation images (`data.val`) with the domains and the size of the method.
        metrics: Which of the three groups.
        net: LPIPS network.
        grid: Alphas of the paths, released 0 .. 0.95 or strict 0 .. 1 (`.._strict`).
        seed: Of the order of sources, latents, references and intervals.
        batch_size: Sources at once.
        max_sources: At most so many, spread over the domains; None is all.
        checkpoint: File whose sha256 the rows state.

    Returns:
        Rows of metric, value, ci95 (bootstrap over sources), protocol, count, seed,
        checkpoint_sha256, versions, seconds (of group and guide, shared by their rows).

    Raises:
        ValueError: images that do not fit the method, an unknown group, fewer than 3 images in a
            domain, or a method that gives NaN.
    """
    outputs = _check(method, images, metrics, batch_size, max_sources)
    lpips = LPIPS(net).to(gallery.device(method))
    values: dict[Key, dict[int, float]] = defaultdict(dict)  # -> index of the source -> value
    seconds: dict[Key, float] = defaultdict(float)
    parallel = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
    mine = plan(images, seed, max_sources)[rank::world]
    for i in tqdm(range(0, len(mine), batch_size), "evaluate", disable=None):
        block = mine[i : i + batch_size]
        x, _ = gallery.batch(method, images, [s.index for s in block])  # (N, 3, H, W)
        decode = _decoder(method, x)
        for guide in GUIDES:
            styles = draw_styles(method, images, block, seed, guide, outputs[guide])
            for group in (g for g in GROUPS if g in metrics):
                began = time.perf_counter()
                if group == "translation":
                    made = torch.stack([decode(s) for s in styles.outputs.unbind(1)], 1)
                    scores = _score(lpips, images, block, x, made)
                else:
                    scores = _walk(lpips, decode, styles, group, grid)
                for name, score in scores.items():  # (N,), NaN where a source has no twin
                    known = zip(block, score.tolist(), strict=True)
                    values[group, guide, name] |= {s.index: v for s, v in known if v == v}
                took = time.perf_counter() - began
                for name in scores:
                    seconds[group, guide, name] += took
    if parallel:
        values, seconds = _gather(values, seconds)
    common = {
        "seed": seed,
        "checkpoint_sha256": sha256(checkpoint) if checkpoint else None,
        "versions": versions(),
    }
    rows = []
    for key, of_source in values.items():
        named = _name(key, outputs, net, grid, method.img_size)
        if named and of_source:
            ordered = [of_source[index] for index in sorted(of_source)]
            mean, low, high = bootstrap(ordered, seed)
            row = {"metric": named[0], "value": mean, "ci95": [low, high], "protocol": named[1]}
            row |= {"count": len(ordered), **common, "seconds": round(seconds[key], 2)}
            rows.append(row)
    return rows


def plan(images, seed: int, max_sources: int | None = None) -> list[Source]:
    """Which sources in which order, domains in turn; a short plan is the start of a long one."""
    S = len(images.domains)
    pairs = [(a, b) for a in range(S) for b in range(S) if a != b]
    ranked = []
    for y in range(S):
        members = (images.labels == y).nonzero().flatten().numpy()
        order = np.random.default_rng((seed, len(GUIDES), y)).permutation(members)
        for rank, index in enumerate(order.tolist()):
            target = (y + 1 + rank % (S - 1)) % S
            pair = pairs[(rank + y * (S - 1)) % len(pairs)]
            ranked.append((rank, y, Source(index, target, *pair)))
    return [source for _, _, source in sorted(ranked)][:max_sources]


def draw_styles(
    method, images, sources: Sequence[Source], seed: int, guide: str, outputs: int
) -> Styles:
    """The styles of each source from its own latents or references."""
    rngs = [np.random.default_rng((seed, GUIDES.index(guide), s.index)) for s in sources]
    columns = []
    wanted = [("start", 1), ("end", 1), ("target", outputs)]
    for field, count in wanted:
        y = torch.tensor([getattr(s, field) for s in sources], device=gallery.device(method))
        if guide == "latent":
            z = np.stack([r.standard_normal((count, method.latent_dim)) for r in rngs], 1)
            z = torch.from_numpy(z).to(y.device, torch.float32)  # (count, N, L)
            styles = [method.map_style(z_k, y) for z_k in z]
        else:
            picks = [
                _references(images, s.index, domain, count, r)
                for s, domain, r in zip(sources, y.tolist(), rngs, strict=True)
            ]
            refs = [gallery.batch(method, images, p)[0] for p in zip(*picks, strict=True)]
            styles = [method.encode_style(x_ref, y) for x_ref in refs]
        columns.append(torch.stack(styles, 1))  # (N, count, D)
    start, end, target = columns
    return Styles(target, start[:, 0], end[:, 0])


def _references(images, index: int, domain: int, count: int, rng: np.random.Generator) -> list[int]:
    """`count` images of a domain in random order, neither the source nor its twin."""
    members = (images.labels == domain).nonzero().flatten().tolist()
    own = {index, images.twin(index, domain)}
    return rng.permutation([i for i in members if i not in own])[:count].tolist()


def _decoder(method, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Encodes sources once: styles (N, D) -> images (N, 3, H, W), clamped as when saved."""
    content = method.encode(x)
    return lambda s: method.decode(content, s).clamp(-1, 1)


def _walk(lpips: LPIPS, decode, styles: Styles, group: str, grid: str) -> dict[str, Tensor]:
    """Smoothness of one path a source."""
    first, second = styles.outputs[:, 0], styles.outputs[:, 1]
    ends = {"intra": (first, second), "inter": (styles.start, styles.end)}[group]
    frames = path(decode, *ends, alphas(FRAMES, grid))  # (N, T, 3, H, W)
    check_images(frames, f"{group}-domain frames", ndim=5, frames=FRAMES)
    return smoothness(*path_distances(lpips, frames))


def _score(lpips: LPIPS, images, sources: Sequence[Source], x: Tensor, made: Tensor):
    """`translation_scores`, NaN in the paired ones where a source has no twin."""
    twins = [images.twin(s.index, s.target) for s in sources]
    if not any(t is not None for t in twins):
        return translation_scores(lpips, x, made)
    true = [x[n] if t is None else images[t]["x"].to(x) for n, t in enumerate(twins)]
    scores = translation_scores(lpips, x, made, torch.stack(true))
    missing = torch.tensor([t is None for t in twins], device=x.device)
    return {
        k: v.masked_fill(missing, torch.nan) if k.startswith(("paired", "unchanged")) else v
        for k, v in scores.items()
    }


def _name(
    key: Key, outputs: dict[str, int], net: str, grid: str, size: int
) -> tuple[str, str] | None:
    """Name and protocol of a value, None for one that is reported elsewhere."""
    group, guide, value = key
    if group == "translation":
        k = outputs[guide]
        name = protocol_names(k, net)[value]
        if not value.startswith("unchanged"):
            return f"{guide}/{name}", f"{k} {guide}-guided outputs a source, {size} px"
        if guide == "latent":  # the same for both guides
            name = name.replace("unchanged", "paired")
            return f"source/{name}", f"the source left as it is, {size} px"
        return None
    if value == "pplsq" and net != "vgg":
        return None
    strict = "_strict" if grid == "strict" else ""
    between = {"intra": "two styles of a domain", "inter": "styles of two domains"}[group]
    ends = {"released": f"0..{1 - 1 / FRAMES:g}", "strict": "0..1"}[grid]
    return (
        f"{group}/{guide}/{value}_t{FRAMES}_{net}{strict}",
        f"{guide}-guided, between {between}, lerp, alpha {ends}, {size} px seen at 256 px",
    )


def _check(
    method, images, metrics: Collection[str], batch_size: int, max_sources: int | None
) -> dict[str, int]:
    """Outputs a source for each guide; ValueError where something does not fit."""
    if isinstance(metrics, str) or not metrics or set(metrics) - set(GROUPS):
        raise ValueError(f"metrics: expected some of {GROUPS}, got {metrics!r}")
    if batch_size < 1 or (max_sources is not None and max_sources < 1):
        raise ValueError(
            f"expected batch_size and max_sources >= 1, got {batch_size} and {max_sources}"
        )
    if list(images.domains) != list(method.domains):
        raise ValueError(f"expected the domains {method.domains}, got {images.domains}")
    if images.img_size != method.img_size:
        raise ValueError(f"expected images of {method.img_size} px, got {images.img_size}")
    counts = torch.bincount(images.labels, minlength=len(images.domains))
    if len(counts) < 2 or counts.min() < 3:
        raise ValueError(
            "expected at least 2 domains of at least 3 validation images (a source and two "
            f"references), got {dict(zip(images.domains, counts.tolist(), strict=True))}"
        )
    if "translation" not in metrics:
        return dict.fromkeys(GUIDES, 2)  # the two ends of a path
    return {"latent": OUTPUTS, "reference": min(OUTPUTS, int(counts.min()) - 1)}


def _gather(values: dict, seconds: dict) -> tuple[dict, dict]:
    """All processes' values; of the seconds the slowest process's."""
    parts: list = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (dict(values), dict(seconds)))
    keys = list(dict.fromkeys(key for part, _ in parts for key in part))
    merged = {k: {i: v for part, _ in parts for i, v in part.get(k, {}).items()} for k in keys}
    return merged, {k: max(s.get(k, 0.0) for _, s in parts) for k in keys}

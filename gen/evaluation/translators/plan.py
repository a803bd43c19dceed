"""Plans an evaluation: targets and styles of each source, as functions of (seed, data) alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gen.inference import common

GUIDES = ("latent", "reference")
ROLES = ("start", "end", "target")  # uses of a style: ends of a path between domains, and an output


class Source(NamedTuple):
    """A source image, the domain of its outputs, and the domains of its path."""

    index: int
    target: int  # domain of the outputs and of the intra-domain path, not the source's own
    start: int  # domains of the inter-domain path
    end: int


def plan(images, seed: int, max_sources: int | None = None) -> list[Source]:
    """Sources in order, domains in turn; a shorter plan is the beginning of a longer one."""
    S = len(images.domains)
    pairs = ordered_pairs(S)
    ranked = []
    for y in range(S):
        members = (images.labels == y).nonzero().flatten().numpy()
        order = np.random.default_rng((seed, len(GUIDES), y)).permutation(members)
        for rank, index in enumerate(order.tolist()):
            target = (y + 1 + rank % (S - 1)) % S
            pair = pairs[(rank + y * (S - 1)) % len(pairs)]
            ranked.append((rank, y, Source(index, target, *pair)))
    return [source for _, _, source in sorted(ranked)][:max_sources]


def ordered_pairs(domains: int) -> list[tuple[int, int]]:
    """(source domain, target domain) of the S (S - 1) translations."""
    return [(a, b) for a in range(domains) for b in range(domains) if a != b]


def draw_styles(
    method, images, indices: Sequence[int], domains: Sequence[int], role: str, count: int, **key
) -> Tensor:
    """`count` styles of its wanted domain for each source: (N, count, D).

    Args:
        indices: indices of the N sources.
        domains: wanted domain of each source.
        role: use of the styles, from `ROLES`; each role draws other styles.
        count: styles per source; a smaller count gives the first styles of a larger one.
        key: `seed` and `guide`, which with (role, index) seed the random numbers. References are
            validation images of the domain, without the source and its twin.
    """
    rngs = [
        np.random.default_rng((key["seed"], GUIDES.index(key["guide"]), ROLES.index(role), i))
        for i in indices
    ]
    y = torch.tensor(domains, device=common.device(method))  # (N,)
    if key["guide"] == "latent":
        z = np.stack([rng.standard_normal((count, method.latent_dim)) for rng in rngs], 1)
        z = torch.from_numpy(z).to(y.device, torch.float32)  # (count, N, L)
        return torch.stack([method.map_style(z_k, y) for z_k in z], 1)
    picks = [
        _references(images, i, domain, rng)[:count]
        for i, domain, rng in zip(indices, domains, rngs, strict=True)
    ]
    refs = [common.batch(method, images, column)[0] for column in zip(*picks, strict=True)]
    return torch.stack([method.encode_style(x_ref, y) for x_ref in refs], 1)


def _references(images, index: int, domain: int, rng: np.random.Generator) -> list[int]:
    """Indices of the images of a domain in random order, without the source and its twin."""
    members = (images.labels == domain).nonzero().flatten().tolist()
    own = {index, images.twin(index, domain)}
    return rng.permutation([i for i in members if i not in own]).tolist()

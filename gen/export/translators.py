"""Graphs of a translator: encode, map_style, encode_style, decode.

Letters in shapes: N batch, H height = width, L latent width, D style width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen import viz
from gen.data import Heads
from gen.export.graph import Graph, Run, images, normal, swapped
from gen.networks.stargan import AdaIN

ON_PAGE = ("encode", "map_style", "decode")  # graphs of the page without a server


class PlainAdaIN(AdaIN):
    """AdaIN by the plain norm of a batch: its fast kernel cannot have a batch of any size."""

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        gamma, beta = self.fc(s)[:, :, None, None].chunk(2, dim=1)  # (N, C, 1, 1)
        return (1 + gamma) * F.group_norm(x, x.shape[1]) + beta


class Encode(nn.Module):
    """Sources (N, 3, H, H) -> content."""

    def __init__(self, method):
        super().__init__()
        classes = {AdaIN: PlainAdaIN}
        self.net = swapped(method.ema.module["generator"], classes, ("decode", "to_rgb", "skip"))
        self.faces = swapped(method.fan, classes) if method.fan else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net.content(x, self.faces.masks(x) if self.faces else None))


class Decode(nn.Module):
    """Styles (N, D) and content -> images (N, 3, H, H)."""

    def __init__(self, method):
        super().__init__()
        unused = ("encode", "from_rgb", "hpf")
        self.net = swapped(method.ema.module["generator"], {AdaIN: PlainAdaIN}, unused)

    def forward(self, style: Tensor, *content: Tensor) -> Tensor:
        return self.net.render(list(content), style)


def graphs(method) -> list[Graph]:
    """The graphs of a translator. Its sizes are fixed: it was trained for one, and takes no other.

    A domain is a number `y`; content goes from `encode` to `decode`, for each style once.
    """
    h, H = method.hparams, method.img_size
    encode, decode = Encode(method), Decode(method)
    with torch.no_grad():
        shapes = [" ".join(map(str, c.shape[1:])) for c in encode(torch.zeros(1, 3, H, H))]
    content = {f"content{i}": f"N {shape}" for i, shape in enumerate(shapes)}
    image, style = f"N 3 {H} {H}", f"N {h.style_dim}"

    def sources(rng: torch.Generator, n: dict[str, int]) -> dict[str, Tensor]:
        return {"x": images(rng, n["N"], 3, H, H)}

    def labels(rng: torch.Generator, n: dict[str, int]) -> dict[str, Tensor]:
        return {"y": torch.randint(h.num_domains, (n["N"],), generator=rng)}

    def latents(rng: torch.Generator, n: dict[str, int]) -> dict[str, Tensor]:
        return {"z": normal(rng, n["N"], h.latent_dim)} | labels(rng, n)

    def contents(rng: torch.Generator, n: dict[str, int]) -> dict[str, Tensor]:
        with torch.no_grad():
            made = encode(sources(rng, n)["x"])
        return {"style": normal(rng, n["N"], h.style_dim)} | dict(zip(content, made, strict=True))

    networks = [
        swapped(method.ema.module[f"{n}"], {}) for n in ("mapping_network", "style_encoder")
    ]
    return [
        Graph("encode", encode, {"x": image}, content, sources),
        Graph("map_style", networks[0], {"z": f"N {h.latent_dim}", "y": "N"}, {"style": style},
              latents),
        Graph("encode_style", networks[1], {"x": image, "y": "N"}, {"style": style},
              lambda rng, n: sources(rng, n) | labels(rng, n)),
        Graph("decode", decode, {"style": style} | content, {"image": image}, contents),
    ]  # fmt: skip


def pictures(method, run: Run, count: int) -> Tensor:
    """Translations (count, 3, H, H) of drawn heads, half of them in the style of another head."""
    heads, rng = Heads(img_size=method.img_size).val, torch.Generator().manual_seed(0)
    x = torch.stack([heads[k]["x"] for k in range(count)])
    y = torch.arange(count) % method.hparams.num_domains
    z = normal(rng, count, method.latent_dim)
    style = run("map_style", {"z": z, "y": y})["style"]
    own = run("encode_style", {"x": x.flip(0), "y": y})["style"]
    style = torch.where(torch.arange(count)[:, None] % 2 == 0, style, own)
    return run("decode", {"style": style} | run("encode", {"x": x}))["image"]


def page(method) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Contents of the tab: numbers, and drawn heads as bytes (N, H, H, 3)."""
    heads = Heads(img_size=method.img_size).val
    about = dict(domains=method.domains, size=method.img_size, latent=method.latent_dim)
    return about, {"heads": np.stack([viz.to_uint8(heads[k]["x"]) for k in range(4)])}

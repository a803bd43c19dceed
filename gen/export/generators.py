"""Graphs of a StyleGAN2 generator: mapping with truncation, synthesis.

Letters in shapes: N batch, Z latent width, L rows of a code, D their width, R image side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.export.graph import Graph, Run, normal, swapped

ON_PAGE = ()  # graphs of the page without a server: an editor has these, too


class Mapping(nn.Module):
    """Latents (N, Z), truncation (L,) and of conditional generators classes (N,) -> (N, L, D)."""

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.net = swapped(generator.mapping, {})

    def forward(self, z: Tensor, psi: Tensor, y: Tensor | None = None) -> Tensor:
        c = None if y is None else F.one_hot(y, self.net.c_dim).to(z.dtype)
        mean = self.net.w_avg
        return mean + psi[:, None] * (self.net(z, c) - mean)


class Synthesis(nn.Module):
    """Codes (N, L, D), and maps of noise or none for the stored ones -> images (N, C, R, R)."""

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.net = swapped(generator.synthesis, {})

    def forward(self, ws: Tensor, *noise: Tensor) -> Tensor:
        return self.net(ws, noise or "const")


def of_generator(net: nn.Module, img_size: int) -> list[Graph]:
    """Graphs of the network `gen.networks.stylegan2.Generator`; its sizes are fixed by its const.

    `psi` holds the truncation of each row: 1 for none, 0 for the mean code. A generator that was
    trained with noise has also `synthesis_noise`, whose maps of noise are inputs.
    """
    mapping, synthesis = net.mapping, Synthesis(net)
    rows, Z, K = mapping.rows, mapping.z_dim, mapping.c_dim
    channels = max(3, len(net.synthesis.b4.torgb.bias))  # one of grey is returned three times
    code, image = f"N {rows} {net.synthesis.w_dim}", f"N {channels} {img_size} {img_size}"
    label = {"y": "N"} if K else {}
    stored = net.synthesis.noise_maps(1, "const")
    maps = {f"noise{i}": f"N 1 {m.shape[2]} {m.shape[3]}" for i, m in enumerate(stored)}

    def latents(rng: torch.Generator, n: dict[str, int]) -> dict[str, Tensor]:
        made = {"z": normal(rng, n["N"], Z), "psi": torch.rand(rows, generator=rng)}
        return made | ({"y": torch.randint(K, (n["N"],), generator=rng)} if K else {})

    def codes(rng: torch.Generator, n: dict[str, int]) -> dict[str, Tensor]:
        with torch.no_grad():
            return {"ws": Mapping(net)(*latents(rng, n).values())}

    def noisy(rng: torch.Generator, n: dict[str, int]) -> dict[str, Tensor]:
        noise = (normal(rng, n["N"], *m.shape[1:]) for m in stored)
        return codes(rng, n) | dict(zip(maps, noise, strict=True))

    found = [
        Graph("mapping", Mapping(net), {"z": f"N {Z}", "psi": f"{rows}"} | label, {"ws": code},
              latents),
        Graph("synthesis", synthesis, {"ws": code}, {"image": image}, codes),
    ]  # fmt: skip
    if any(p.any() for name, p in net.named_parameters() if name.endswith("noise_strength")):
        found.append(
            Graph("synthesis_noise", synthesis, {"ws": code} | maps, {"image": image}, noisy)
        )
    return found


def graphs(method) -> list[Graph]:
    """The graphs of a generator; see `of_generator`."""
    return of_generator(method.ema.module["generator"], method.img_size)


def pictures(method, run: Run, count: int) -> Tensor:
    """Images (count, 3 or 4, R, R) of random latents, truncated by half."""
    return run("synthesis", codes(method, run, count, 0.5))["image"]


def codes(method, run: Run, count: int, psi: float) -> dict[str, Tensor]:
    """Codes {"ws": (count, L, D)} of random latents."""
    rng = torch.Generator().manual_seed(0)
    net = method.ema.module["generator"] if "generator" in method.ema.module else method.generator
    given = {
        "z": normal(rng, count, method.latent_dim),
        "psi": torch.full((net.mapping.rows,), psi),
    }
    if net.mapping.c_dim:
        given["y"] = torch.arange(count) % net.mapping.c_dim
    return run("mapping", given)

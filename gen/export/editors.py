"""Graphs of an editor of codes: edit, and those of its generator.

Letters in shapes: N batch, L rows of a code, D their width, K attributes, Z noise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gen.export import generators
from gen.export.graph import Graph, Run, normal, swapped
from gen.inference import editing

ON_PAGE = ("mapping", "synthesis", "edit")  # graphs of the page without a server


class Edit(nn.Module):
    """Codes (N, L, D), wanted attributes (N, K) in {0, 1}, noise (N, Z) -> codes (N, L, D)."""

    def __init__(self, method):
        super().__init__()
        judged = method.hparams.get("rows")  # then it looks at the images of the codes
        unused = ["style_function", "stepper", *([] if judged else ["generator", "discriminator"])]
        self.method = swapped(method, {}, [n for n in unused if hasattr(method, n)])
        if hasattr(method, "directions"):
            with torch.no_grad():
                self.register_buffer("fixed", method.directions().clone())
            self.method.directions = lambda: self.fixed  # the solver is no part of the graph

    def forward(self, ws: Tensor, d: Tensor, z: Tensor | None = None) -> Tensor:
        return self.method.edited(ws, d, z)


def graphs(method) -> list[Graph]:
    """The graphs of an editor; attributes are in the order of `method.attribute_names`."""
    found = generators.of_generator(method.generator, method.img_size)
    code = found[1].inputs["ws"]
    K, Z = len(method.attribute_names), method.noise_dim
    noise = {"z": f"N {Z}"} if Z else {}

    def requests(rng: torch.Generator, n: dict[str, int]) -> dict[str, Tensor]:
        d = torch.randint(2, (n["N"], K), generator=rng).float()
        z = {"z": normal(rng, n["N"], Z)} if Z else {}
        return found[1].draw(rng, n) | {"d": d} | z

    edit = Graph("edit", Edit(method), {"ws": code, "d": f"N {K}"} | noise, {"edited": code},
                 requests)  # fmt: skip
    return [*found, edit]


def pictures(method, run: Run, count: int) -> Tensor:
    """Images (count, 3, H, H) of random heads, edited to random attributes."""
    rng = torch.Generator().manual_seed(1)
    given = generators.codes(method, run, count, method.hparams.psi)
    given["d"] = torch.randint(2, (count, len(method.attribute_names)), generator=rng).float()
    if method.noise_dim:
        given["z"] = normal(rng, count, method.noise_dim)
    return run("synthesis", {"ws": run("edit", given)["edited"]})["image"]


def page(method, judge) -> tuple[dict[str, Any], dict]:
    """Contents of the tab: numbers, and the combinations of attributes that occur."""
    known = editing.known(method, judge)
    about = dict(attributes=method.attribute_names, known=known.int().tolist())
    about |= dict(latent=method.latent_dim, noise=method.noise_dim, psi=method.hparams.psi)
    return about | dict(rows=method.rows, size=method.img_size), {}

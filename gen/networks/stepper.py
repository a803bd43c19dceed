"""Network that says the next step of an edit, after AdaTrans (Huang et al., ICCV 2023).

Letters in shapes: N batch, L rows of a code, D its width, K attributes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Stepper(nn.Module):
    """Direction and size of the next step: codes (N, L, D), attributes (N, K) -> (N, L, D).

    Args:
        rows: number L of rows of a code.
        attributes: number K of attributes.
        w_dim: width D of a code.
        hidden: width of the hidden layers.
    """

    def __init__(self, rows: int, attributes: int, w_dim: int, hidden: int):
        super().__init__()
        self.place = nn.Parameter(torch.randn(rows, hidden) * 0.1)  # which row it is
        self.code, self.wish = nn.Linear(w_dim, hidden), nn.Linear(attributes, hidden)
        self.layers = nn.Sequential(
            nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden),
            nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
        )  # fmt: skip
        self.direction, self.size = nn.Linear(hidden, w_dim), nn.Linear(hidden, 1)
        nn.init.constant_(self.size.bias, -2.0)  # first steps are small

    def forward(self, ws: Tensor, d: Tensor) -> Tensor:
        h = self.layers(self.code(ws) + self.wish(d)[:, None] + self.place)  # (N, L, hidden)
        way = self.direction(h)  # (N, L, D)
        norm = way.float().flatten(1).norm(dim=1).clamp(min=1e-6)  # (N,)
        size = F.softplus(self.size(h.mean(1)).float())  # (N, 1)
        return way * (size / norm[:, None])[:, :, None] * way[0].numel() ** 0.5

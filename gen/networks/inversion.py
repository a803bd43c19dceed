"""Encoder of images into W+, the codes of a frozen StyleGAN2.

After Richardson et al., "Encoding in Style" (pSp), CVPR 2021: coarse rows of a code come from deep
features, fine rows from features of higher resolution. Ours is small enough for one CPU core.

Letters in shapes: N batch, C, I, O channels, H image side, L rows of a code, D their width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 4  # px of the features that a row is predicted from
REDUCED = 32  # channels of these features


class Block(nn.Module):
    """Residual block that halves the map: (N, I, H, H) -> (N, O, H / 2, H / 2)."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, cin), nn.GroupNorm(1, cin)
        self.conv1 = nn.Conv2d(cin, cin, 3, padding=1)
        self.conv2 = nn.Conv2d(cin, cout, 3, padding=1)
        self.skip = nn.Conv2d(cin, cout, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.avg_pool2d(self.conv1(F.leaky_relu(self.norm1(x), 0.2)), 2)
        h = self.conv2(F.leaky_relu(self.norm2(h), 0.2))
        return (h + self.skip(F.avg_pool2d(x, 2))) * 0.5**0.5


class Encoder(nn.Module):
    """Images (N, 3, H, H) -> offsets of codes (N, L, D), at first 0.

    Args:
        img_size: side H of the images, px; a power of two >= 8.
        rows: number L of rows of a code; row i belongs to features of 2 ** (2 + i / 2) px or, for
            large images, to the largest that the encoder has.
        w_dim: width D of a code.
        channels: number of channels at full resolution; they double as the map halves.
        max_channels: upper limit for the channels of a layer.
    """

    def __init__(self, img_size: int, rows: int, w_dim: int, channels: int, max_channels: int):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        size, width, widths = img_size, channels, {}
        blocks = []
        while size > SIDE:
            size, wider = size // 2, min(2 * width, max_channels)
            blocks.append(Block(width, wider))
            widths[size] = width = wider
        self.blocks = nn.ModuleList(blocks)
        self.sizes = [min(SIDE * 2 ** (i // 2), max(widths)) for i in range(rows)]
        self.reduce = nn.ModuleDict(
            {str(size): nn.Conv2d(widths[size], REDUCED, 1) for size in sorted({*self.sizes})}
        )
        self.deep = nn.Linear(width, 2 * REDUCED)  # what the deepest features say to every row
        self.rows = nn.ModuleList(
            nn.Linear(REDUCED * SIDE**2 + 2 * REDUCED, w_dim) for _ in range(rows)
        )
        for row in self.rows:
            nn.init.zeros_(row.weight)
            nn.init.zeros_(row.bias)

    def forward(self, x: Tensor) -> Tensor:
        x, maps = self.first(x), {}
        for block in self.blocks:
            x = block(x)
            maps[x.shape[-1]] = x  # (N, C, h, h)
        deep = F.leaky_relu(self.deep(x.mean((2, 3))), 0.2)  # (N, 64)
        seen = {}
        for size, reduce in self.reduce.items():
            small = F.avg_pool2d(reduce(maps[int(size)]), int(size) // SIDE)  # (N, 32, 4, 4)
            seen[int(size)] = torch.cat([F.leaky_relu(small.flatten(1), 0.2), deep], 1)
        return torch.stack([row(seen[s]) for row, s in zip(self.rows, self.sizes, strict=True)], 1)

"""Generators and discriminators of the frames of Click to Move, from frame 0 and dense flow.

Source: Ardino et al., "Click to Move", ICCV 2021, and its release. The first generator is that of
Siarohin et al., "First Order Motion Model", NeurIPS 2019; the second is driven by SPADE (Park et
al., CVPR 2019). Own choices: images in [-1, 1], so tanh for the sigmoid; what depends on frame 0
alone is computed once for all frames; a resized flow is in px of its size; layers without use are
not built.

Letters in shapes: N batch, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gen.networks.click_to_move.encoders import (
    Norm,
    conv,
    down,
    leaky,
    norm_layer,
    same,
    up,
    widths,
)
from gen.ops.motion import resize, resize_flow, warp


class Residual(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x))))))."""

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        self.body = nn.Sequential()
        for _ in range(2):
            self.body.extend([norm_layer(norm, channels), nn.ReLU(), conv(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class FeatureWarpGenerator(nn.Module):
    """Warps the features of frame 0 by the flow, multiplies them by visibility and decodes them.

    Args:
        width: channels at full size, 32 in the release.
        downs: how often the size is halved, 3 in the release.
        blocks: number of residual blocks, 4 in the release.
        max_width: upper limit for the channels of a level.
        norm: normalisation layers: `batch` as released, `group` for small batches.
    """

    def __init__(
        self,
        width: int = 32,
        downs: int = 3,
        blocks: int = 4,
        max_width: int = 512,
        norm: Norm = "batch",
    ):
        super().__init__()
        sizes = widths(width, downs + 1, max_width)
        pairs = list(zip(sizes, sizes[1:], strict=False))
        self.encoder = nn.Sequential(same(3, width, 7), *(down(a, b, norm) for a, b in pairs))
        self.blocks = nn.Sequential(*(Residual(sizes[-1], norm) for _ in range(blocks)))
        self.ups = nn.Sequential(*(up(b, a, norm) for a, b in reversed(pairs)))
        self.image = nn.Conv2d(width, 3, 7, padding=3)
        self.to(memory_format=torch.channels_last)  # a sixth faster on CPUs in bf16

    def forward(self, frame: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
        """`frame` (N, 3, H, W), `flow` (N, T, 2, H, W) px, `visible` (N, T, 1, H, W) in [0, 1]:
        video (N, T, 3, H, W) in [-1, 1]."""
        x = self.encoder(frame)  # (N, C, h, w)
        size = tuple(x.shape[2:])
        x = warp(x, resize_flow(flow, size)) * resize(visible, size)
        x = self.image(self.ups(self.blocks(x.flatten(0, 1)))).tanh()
        return x.unflatten(0, flow.shape[:2])


class Spade(nn.Module):
    """(1 + gamma) IN(x) + beta, gamma and beta (N, C, h, w) made of other maps."""

    def __init__(self, channels: int, maps: int, middle: int = 128):
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.shared = nn.Sequential(conv(maps, middle), leaky())
        self.both = conv(middle, 2 * channels)

    def forward(self, x: Tensor, maps: Tensor) -> Tensor:
        gamma, beta = self.both(self.shared(maps)).chunk(2, 1)
        return self.norm(x) * (1 + gamma) + beta


class SpadeBlock(nn.Module):
    """A residual block to another width, normalised by `Spade`; also its shortcut is rectified."""

    def __init__(self, cin: int, cout: int, maps: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (Spade(c, maps) for c in (cin, cout, cin))
        self.conv1, self.conv2 = conv(cin, cout), conv(cout, cout)
        self.shortcut = nn.Conv2d(cin, cout, 1, bias=False)

    def forward(self, x: Tensor, maps: Tensor) -> Tensor:
        h = self.conv1(F.leaky_relu(self.norm1(x, maps), 0.2))
        h = self.conv2(F.leaky_relu(self.norm2(h, maps), 0.2))
        return h + self.shortcut(F.leaky_relu(self.norm3(x, maps), 0.2))


class SpadeGenerator(nn.Module):
    """Encodes frame 0; the warped frame, flow and visibility steer the decoder.

    Arguments and maps are those of `FeatureWarpGenerator`. The residual blocks do not depend on
    motion: they run once per clip.
    """

    def __init__(
        self,
        width: int = 32,
        downs: int = 3,
        blocks: int = 4,
        max_width: int = 512,
        norm: Norm = "batch",
    ):
        super().__init__()
        sizes = widths(width, downs + 1, max_width)
        pairs = list(zip(sizes, sizes[1:], strict=False))
        self.encoder = nn.Sequential(same(3, width, 7), *(down(a, b, norm) for a, b in pairs))
        self.encoder.extend(Residual(sizes[-1], norm) for _ in range(blocks))
        self.motion = nn.ModuleList([same(6, width, normed=False)])
        self.motion.extend(down(a, b, norm) for a, b in pairs)
        inner = sizes[-2:0:-1]  # widths from 2 h on to H / 2
        self.motion_ups = nn.ModuleList(
            up(cin, cout, norm)
            for cin, cout in zip([sizes[-1], *(2 * c for c in inner)], inner, strict=False)
        )
        self.blocks = nn.ModuleList(SpadeBlock(b, a, b) for a, b in reversed(pairs))
        self.image = nn.Conv2d(width, 3, 7, padding=3)

    def forward(self, frame: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
        """Makes a video from the same arguments as `FeatureWarpGenerator`."""
        N, T = flow.shape[:2]
        x = torch.cat([warp(frame, flow), flow, visible], 2).flatten(0, 1)  # (N T, 6, H, W)
        seen = []
        for layer in self.motion:
            x = layer(x)
            seen.append(x)
        maps = [x]  # from h on to H / 2
        for i, layer in enumerate(self.motion_ups):
            x = layer(x if i == 0 else torch.cat([x, seen[-1 - i]], 1))
            maps.append(x)
        x = self.encoder(frame)[:, None].expand(-1, T, -1, -1, -1).flatten(0, 1)
        for layer, given in zip(self.blocks, maps, strict=True):
            x = F.interpolate(layer(x, given), scale_factor=2, mode="bilinear")
        return self.image(x).tanh().unflatten(0, (N, T))


def blend(video: Tensor, frame: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
    """Mixes `video` (N, T, 3, H, W) with the warped `frame` (N, 3, H, W), by visibility.

    Not in the release: the generator need not reproduce details of frame 0. `flow` and `visible`
    are those of the generators; the result is differentiable in all four.
    """
    return video + visible * (warp(frame, flow) - video)


class Discriminator(nn.Module):
    """Video (N, T, 3, H, W) -> logits of patches (n, 1, h, w), and the features of all levels.

    Args:
        frames: number of frames judged together: 1 judges each frame by itself (n = N T); T, here
            6, judges all frames as one (n = N).
        width: channels of the first level, 64 in the release.
        levels: how often the size is halved, 4 in the release.
        max_width: upper limit for the channels of a level.
        norm: normalisation layers: `batch` as released, `group` for small batches.
    """

    def __init__(
        self,
        frames: int = 1,
        width: int = 64,
        levels: int = 4,
        max_width: int = 512,
        norm: Norm = "batch",
    ):
        super().__init__()
        self.frames = frames
        sizes = widths(width, levels, max_width)
        pairs = zip([3 * frames, *sizes], sizes, strict=False)
        self.downs = nn.ModuleList(down(cin, cout, norm) for cin, cout in pairs)
        self.out = nn.Conv2d(sizes[-1], 1, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
                nn.init.normal_(layer.weight, 1, 0.02)
        self.out = spectral_norm(self.out)

    def forward(self, video: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self.frames == 1:
            x = video.flatten(0, 1)
        elif video.shape[1] == self.frames:
            x = video.flatten(1, 2)
        else:
            raise ValueError(f"video: expected {self.frames} frames, got {video.shape[1]}")
        features = []
        for layer in self.downs:
            x = layer(x)
            features.append(x)
        return self.out(x), features

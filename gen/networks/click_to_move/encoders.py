"""Click to Move: predicts dense flow from the first frame and the motion of its objects.

Source: Ardino et al., "Click to Move: Controlling Video Generation with Sparse Motion", ICCV 2021,
and the sizes of its release. The frames themselves are made in `frame_generator`, the motion of
objects in `object_graph`. Own choices: the map of raw instance ids is one of instance boundaries;
convolutions over time pad by repetition, so that any number of frames will do; heads and norms that
are never used are not built; what is done frame by frame is done for all frames at once.

Letters in shapes: N batch, T steps after frame 0, M objects, C channels, L levels, H height,
W width. h, w are those of the innermost maps, H / 2^L and W / 2^L; 2 and 4 in the release.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from gen.devices import send
from gen.ops.motion import resize, resize_flow, warp

STUFF, THINGS = 11, 9  # channels of labels 0..10 and 11..19, the last of which no class has
MAPS = STUFF + THINGS + 1  # and boundaries
CORE = (2, 4)  # h, w that linear layers see, whatever the image's size
Norm = Literal["batch", "group"]


# ---- blocks -------------------------------------------------------------------------------------


def widths(width: int, levels: int, max_width: int) -> list[int]:
    """Channels of each level: `width`, doubled level by level up to `max_width`."""
    return [min(width * 2**i, max_width) for i in range(levels)]


def norm_layer(norm: Norm, channels: int, volume: bool = False) -> nn.Module:
    """Batch normalisation, or group normalisation for small batches."""
    if norm == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    if norm == "batch":
        return nn.BatchNorm3d(channels) if volume else nn.BatchNorm2d(channels)
    raise ValueError(f"norm: expected batch or group, got {norm!r}")


def leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2, inplace=True)


def conv(cin: int, cout: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution with reflection padding."""
    return nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2, padding_mode="reflect")


def down(cin: int, cout: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(conv(cin, cout, 4, 2), norm_layer(norm, cout), leaky())


def same(cin: int, cout: int, kernel: int = 3, normed: bool = True) -> nn.Sequential:
    """A convolution that keeps the size, with instance normalisation."""
    middle = [nn.InstanceNorm2d(cout, affine=True)] if normed else []
    return nn.Sequential(conv(cin, cout, kernel), *middle, leaky())


def up(cin: int, cout: int, norm: Norm) -> nn.Sequential:
    larger = nn.Upsample(scale_factor=2, mode="bilinear")
    return nn.Sequential(larger, conv(cin, cout), norm_layer(norm, cout), leaky())


def volume(cin: int, cout: int, norm: Norm, kernel=3, stride=1, padding=1) -> nn.Sequential:
    """A convolution of (N, C, T, H, W); the arguments in the order time, height, width."""
    layer = nn.Conv3d(cin, cout, kernel, stride, padding, padding_mode="replicate")
    return nn.Sequential(layer, norm_layer(norm, cout, volume=True), leaky())


# ---- appearance ---------------------------------------------------------------------------------


def label_maps(semantic: Tensor, instance: Tensor) -> Tensor:
    """Labels (..., H, W) int64 as maps (..., 21, H, W): stuff 11, things 9, boundaries 1.

    A boundary is where a neighbour to the left, right, top or bottom has another instance number.
    Labels out of 0..19, as 255 for void, are 0 in all maps.
    """
    labels = torch.arange(STUFF + THINGS, device=semantic.device)[:, None, None]
    edge = torch.zeros_like(instance, dtype=torch.bool)
    across, along = instance.diff(dim=-1) != 0, instance.diff(dim=-2) != 0
    edge[..., 1:] |= across
    edge[..., :-1] |= across
    edge[..., 1:, :] |= along
    edge[..., :-1, :] |= along
    return torch.cat([semantic.unsqueeze(-3) == labels, edge.unsqueeze(-3)], -3).float()


class AppearanceEncoder(nn.Module):
    """Frame 0 and its maps -> features of all levels, and a code of each object.

    Args:
        width: channels of the first level, 32 in the release.
        levels: number L of levels, 6 in the release for 128 x 256 px; one less for half that size.
        max_width: upper limit for the channels of a level, 512 in the release.
        feature_dim: width F of the code of an object, 128 in the release.
        norm: normalisation layers: `batch` as released, `group` for small batches.
    """

    def __init__(
        self,
        width: int = 32,
        levels: int = 6,
        max_width: int = 512,
        feature_dim: int = 128,
        norm: Norm = "batch",
    ):
        super().__init__()
        sizes = widths(width, levels, max_width)
        pairs = zip([3 + MAPS, *sizes], sizes, strict=False)
        self.downs = nn.ModuleList(down(cin, cout, norm) for cin, cout in pairs)
        middle = 8 * width
        self.crop = nn.Sequential(nn.Conv2d(sizes[1], middle, 7), leaky(), nn.Flatten())
        self.crop.extend([nn.Linear(middle, middle), nn.Linear(middle, feature_dim)])
        self.pool = nn.AdaptiveAvgPool2d(CORE)
        self.code = nn.Linear(feature_dim + sizes[-1] * math.prod(CORE), feature_dim)

    def forward(self, frame: Tensor, maps: Tensor) -> list[Tensor]:
        """`frame` (N, 3, H, W), `maps` (N, 21, H, W): L features, (N, C, H / 2, W / 2) first."""
        check_size(frame, len(self.downs))
        x, features = torch.cat([frame, maps], 1), []
        for layer in self.downs:
            x = layer(x)
            features.append(x)
        return features

    def objects(self, features: list[Tensor], boxes: Tensor) -> Tensor:
        """Codes (N, M, F) of `boxes` (N, M, 4), cut out of the second level with a margin.

        The margin is the release's 15 px of 256 to each side, 10 px of 128 above and below. Own
        choice: boxes are aligned with pixels; the release's RoIAlign is half a pixel off.
        """
        N, M, _ = boxes.shape
        x = features[1].to(boxes.dtype)
        h, w = x.shape[2:]
        size = send(torch.tensor([4.0 * w, 4.0 * h]), boxes)
        margin = send(torch.tensor([15 / 256, 10 / 128]), boxes)
        centre = (boxes[..., :2] + 1) / 2 * (size - 1) + 0.5  # px from the image's edge
        half = boxes[..., 2:] * size / 2 + size * margin
        low, high = (centre - half).clamp(min=0), (centre + half).minimum(size)
        number = torch.arange(N, device=boxes.device, dtype=boxes.dtype)[:, None, None]
        rois = torch.cat([number.expand(N, M, 1), low, high.maximum(low)], 2)  # n, x1, y1, x2, y2
        crops = roi_align(x, rois.flatten(0, 1), 7, spatial_scale=0.25, aligned=True)
        whole = self.pool(features[-1]).flatten(1)  # (N, 8 C)
        own = self.crop(crops).view(N, M, -1)
        return self.code(torch.cat([own, whole[:, None].expand(-1, M, -1).to(own.dtype)], 2))


def check_size(frame: Tensor, levels: int) -> None:
    H, W = frame.shape[-2:]
    step = 2**levels
    if H % step or W % step or min(H, W) < 2 * step:
        raise ValueError(
            f"frame: expected sides of {2 * step} px or more that {levels} levels can halve, so "
            f"multiples of {step} px, got {H} x {W}; choose fewer levels or another size"
        )


# ---- posterior, for training --------------------------------------------------------------------


class Posterior(nn.Module):
    """A whole clip -> mean and log variance of its latent: one half of things, one of stuff.

    Args:
        width, levels, max_width, norm: arguments of `AppearanceEncoder`.
        z_dim: width Z of the latent, 1024 in the release; half for stuff, half for things.
    """

    def __init__(
        self,
        width: int = 32,
        levels: int = 6,
        max_width: int = 512,
        z_dim: int = 1024,
        norm: Norm = "batch",
    ):
        super().__init__()
        sizes = widths(width, levels, max_width)
        self.stuff = self.encoder(2 * (3 + STUFF) + 3, sizes, norm)
        self.things = self.encoder(2 * (3 + THINGS + 1) + 3, sizes, norm)
        inputs = sizes[-1] * math.prod(CORE)
        self.heads = nn.ModuleList(nn.Linear(inputs, z_dim // 2) for _ in range(4))

    @staticmethod
    def encoder(cin: int, sizes: list[int], norm: Norm) -> nn.Sequential:
        times = [(4, 2, 1), (3, 1, 1), (3, 1, 1), (4, 2, 1)]  # kernel, stride, padding along time
        times += [(1, 1, 0)] * len(sizes)
        layers = []
        for cout, (kernel, stride, padding) in zip(sizes, times, strict=False):
            shape = (kernel, 4, 4), (stride, 2, 2), (padding, 1, 1)
            layers.append(volume(cin, cout, norm, *shape))
            cin = cout
        layers.append(volume(cin, cin, norm, (1, 3, 3), 1, (0, 1, 1)))
        return nn.Sequential(*layers)

    def forward(
        self, video: Tensor, maps: Tensor, flow: Tensor, visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and log variance, (N, Z) each; first half stuff, second half things.

        Args:
            video: frames (N, T + 1, 3, H, W).
            maps: label maps (N, T + 1, 21, H, W) of `label_maps`.
            flow: flow (N, T, 2, H, W), px.
            visible: visibility (N, T, 1, H, W).
        """
        T = flow.shape[1]
        moved = torch.cat([video[:, 1:], flow, visible], 2)
        mean, log_variance = [], []
        parts = (self.stuff, maps[:, :, :STUFF]), (self.things, maps[:, :, STUFF:])
        for i, (encoder, part) in enumerate(parts):
            first = torch.cat([video[:, :1], part[:, :1]], 2).expand(-1, T, -1, -1, -1)
            clip = torch.cat([first, part[:, 1:], moved], 2).transpose(1, 2)  # (N, C, T, H, W)
            if T < 4:  # the kernels need four
                clip = F.pad(clip, (0, 0, 0, 0, 0, 4 - T), mode="replicate")
            x = F.adaptive_avg_pool3d(encoder(clip), (1, *CORE)).flatten(1)
            mean.append(self.heads[2 * i](x))
            log_variance.append(self.heads[2 * i + 1](x))
        return torch.cat(mean, 1), torch.cat(log_variance, 1)


def sample(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A latent (N, Z) of a posterior; `noise` (N, Z) ~ N(0, I)."""
    return mean + (0.5 * log_variance).exp() * noise


# ---- motion -------------------------------------------------------------------------------------


class LatentCode(nn.Module):
    """A latent and the innermost features -> codes of all frames (N, C + 16, T, h, w).

    `steps` frames have codes of their own, 5 in the release; for another number these are
    interpolated in time.
    """

    def __init__(
        self,
        width: int = 32,
        levels: int = 6,
        max_width: int = 512,
        z_dim: int = 1024,
        steps: int = 5,
    ):
        super().__init__()
        inner = widths(width, levels, max_width)[-1]
        self.fc = nn.Linear(z_dim, 64 * math.prod(CORE))
        out = 16 * steps
        self.zconv = nn.Sequential(*same(inner + 64, out), conv(out, out))
        self.steps = steps

    def forward(self, z: Tensor, inner: Tensor, steps: int) -> Tensor:
        """`z` (N, Z), `inner` (N, C, h, w), T = `steps`."""
        spread = resize(self.fc(z).unflatten(1, (64, *CORE)), tuple(inner.shape[2:]))
        codes = self.zconv(torch.cat([inner, spread], 1)).unflatten(1, (self.steps, 16))
        codes = codes.transpose(1, 2)  # (N, 16, steps, h, w)
        if steps != self.steps:
            size = (steps, *inner.shape[2:])
            codes = F.interpolate(codes, size, mode="trilinear", align_corners=True)
        return torch.cat([inner[:, :, None].expand(-1, -1, steps, -1, -1), codes], 1)


class SparseEncoder(nn.Module):
    """The flow of objects (N, T, 2, H, W) px -> L - 2 features, (N, C, T, H / 2, W / 2) first."""

    def __init__(
        self, width: int = 32, levels: int = 6, max_width: int = 512, norm: Norm = "batch"
    ):
        super().__init__()
        sizes = widths(width, levels - 2, max_width)
        shape = (3, 4, 4), (1, 2, 2), 1
        pairs = zip([2, *sizes], sizes, strict=False)
        self.downs = nn.ModuleList(volume(cin, cout, norm, *shape) for cin, cout in pairs)

    def forward(self, flow: Tensor) -> list[Tensor]:
        x, features = flow.transpose(1, 2), []
        for layer in self.downs:
            x = layer(x)
            features.append(x)
        return features


class DenseDecoder(nn.Module):
    """Codes, features and the flow of objects -> flow and visibility of every pixel.

    Args:
        width, levels, max_width, norm: arguments of `AppearanceEncoder`.
        residual: add the head's flow to the flow of the objects; false: the head gives the whole
            flow, as released.
    """

    def __init__(
        self,
        width: int = 32,
        levels: int = 6,
        max_width: int = 512,
        norm: Norm = "batch",
        residual: bool = True,
    ):
        super().__init__()
        sizes = widths(width, levels, max_width)
        self.residual = residual
        self.first = volume(sizes[-1] + 16, sizes[-1], norm)
        inputs = [sizes[-1], *(2 * c for c in sizes[-2:0:-1])]  # with features of the same size
        outputs = sizes[-2::-1]
        self.ups = nn.ModuleList(up(*io, norm) for io in zip(inputs, outputs, strict=True))
        self.fuses = nn.ModuleList(volume(2 * c, c, norm) for c in outputs[1:])
        self.last = up(sizes[0], sizes[0], norm)
        self.join = volume(sizes[0] + 2, sizes[0], norm)
        self.flow, self.visible = (
            nn.Sequential(*same(sizes[0], sizes[0]), conv(sizes[0], n)) for n in (2, 1)
        )

    def forward(
        self,
        codes: Tensor,
        features: list[Tensor],
        sparse: list[Tensor],
        flow: Tensor,
        visible: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Flow (N, T, 2, H, W) px, and logits (N, T, 1, H, W) of what is visible in frame 0.

        Args:
            codes: codes (N, C + 16, T, h, w) of `LatentCode`.
            features: list of L features of `AppearanceEncoder`.
            sparse: list of L - 2 features of `SparseEncoder`.
            flow: flow of the objects (N, T, 2, H, W), px: `motion.rasterise`.
            visible: visibility of the objects (N, T, 1, H, W): `motion.rasterise`.
        """
        N, T = flow.shape[:2]
        x = self.first(codes)
        for i, layer in enumerate(self.ups):
            x = fold(x)
            if i:
                seen = features[-1 - i]
                size = tuple(seen.shape[2:])
                seen = warp(seen, resize_flow(flow, size)) * resize(visible, size)
                x = torch.cat([x, seen.flatten(0, 1).to(x.dtype)], 1)
            x = unfold(layer(x), T)
            if i:
                x = self.fuses[i - 1](torch.cat([x, sparse[-i]], 1))
        x = unfold(self.last(fold(x)), T)
        x = fold(self.join(torch.cat([x, flow.transpose(1, 2).to(x.dtype)], 1)))  # (N T, C, H, W)
        own, logits = self.flow(x).unflatten(0, (N, T)), self.visible(x).unflatten(0, (N, T))
        return (flow + own if self.residual else own), logits


def fold(x: Tensor) -> Tensor:
    """(N, C, T, H, W) -> (N T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def unfold(x: Tensor, steps: int) -> Tensor:
    """(N T, C, H, W) -> (N, C, T, H, W)."""
    return x.unflatten(0, (-1, steps)).transpose(1, 2)

"""StarGAN v2 networks: generator, mapping network, style encoder, discriminator.

Source: Choi et al., "StarGAN v2: Diverse Image Synthesis for Multiple Domains", CVPR 2020. Layer
names follow the published state dicts, so official weights load without a key map. The functions
are the published ones, with less work: consecutive linear steps are merged.

Letters in shapes: N batch, C channels, H height = width, D style width, L latent width, S domains.
Image sizes are powers of two; `base_channels` (2**14 / img_size) and `max_channels` (512) set the
widths, and small machines may lower both.

Three options change the published networks. `rgb_norm=False` replaces the norm before RGB by a
learned scale and shift: the norm fixes mean and variance of every map, so small generators encode
palette and area as patterns. `skip_px`: the encoder's map of this size bypasses the bottleneck,
scaled and shifted by the style. `antialias`: resampling by [1, 3, 3, 1] filters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SKIP_SIZES_PX = (32, 64, 128)  # the resolutions at which the high-pass skip is added
MERGE_PX = 32  # on smaller maps, computing the 4x4 kernels costs more than they save


def widths(img_size: int, base_channels: int | None, max_channels: int, downs: int) -> list[int]:
    """Channels at the input and after each of `downs` halvings; each doubles up to the maximum."""
    if img_size < 16 or img_size & (img_size - 1):
        raise ValueError(f"img_size: expected a power of two >= 16, got {img_size}")
    base = base_channels or max(1, 2**14 // img_size)
    return [min(base * 2**i, max_channels) for i in range(downs + 1)]


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalises each map of (N, C, H, W) to mean 0 and variance 1, then scales and shifts.

    `weight` and `bias` are (C,), or (N, C) with values for each image; statistics are in fp32.
    Implemented as group normalisation with one map per group, whose kernel accumulates in fp32 for
    every input dtype and accepts 1x1 maps (the result is zero).
    """
    maps, shape = x.contiguous(), x.shape
    if weight.ndim == 2:
        maps = maps.view(1, -1, *shape[2:])  # to the kernel, the maps of one image
    N, C, H, W = maps.shape
    with torch.autocast(x.device.type, enabled=False):  # autocast would copy the map to fp32
        weight, bias = (p.flatten().to(x.dtype) for p in (weight, bias))
        out = torch.native_group_norm(maps, weight, bias, N, C, H * W, C, 1e-5)[0]
    return torch.ops.aten._unsafe_view(out, shape)  # no view to autograd: it is changed in place


def upsample(x: Tensor, antialias: bool = False) -> Tensor:
    """Upsamples (N, C, H, W) by 2: nearest neighbour, or [1, 3, 3, 1] / 4, which is bilinear."""
    with torch.autocast(x.device.type, enabled=False):
        if antialias:
            return F.interpolate(x, scale_factor=2, mode="bilinear")
        return F.interpolate(x, scale_factor=2, mode="nearest")


def pool(x: Tensor, antialias: bool = False) -> Tensor:
    """Downsamples (N, C, H, W) by 2: mean of 2x2 squares, or [1, 3, 3, 1] / 8 with repeated edges.

    Does not use avg_pool2d, whose kernels are slow on CPUs.
    """
    if antialias:
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        x = x[:, :, :-2:2] + 3 * (x[:, :, 1:-1:2] + x[:, :, 2::2]) + x[:, :, 3::2]
        x = x[..., :-2:2] + 3 * (x[..., 1:-1:2] + x[..., 2::2]) + x[..., 3::2]
        return x.mul_(1 / 64)
    x = x[:, :, ::2] + x[:, :, 1::2]
    return (x[..., ::2] + x[..., 1::2]).mul_(0.25)


def boxed(kernel: Tensor, value: float, turned: bool = False) -> Tensor:
    """3x3 kernels (O, I, 3, 3) convolved with a 2x2 square of `value`: (O, I, 4, 4)."""
    with torch.autocast(kernel.device.type, enabled=False):
        eye = torch.eye(4, dtype=kernel.dtype, device=kernel.device)
        line = eye[:3] + eye[1:]  # (3, 4)
        square = value * torch.kron(line, line)  # (9, 16)
        kernel = kernel.flatten(2) @ (square.flip(1) if turned else square)  # (O, I, 16)
        return kernel.unflatten(2, (4, 4))


def conv_pool(conv: nn.Conv2d, x: Tensor, antialias: bool = False) -> Tensor:
    """pool(conv(x)) for a 3x3 `conv`, as one 4x4 convolution: 4/9 of the multiplications.

    Merged with the longer filter it would be 6x6, which saves nothing.
    """
    if antialias or x.shape[2] < MERGE_PX:
        return pool(conv(x), antialias)
    return F.conv2d(x, boxed(conv.weight, 0.25), conv.bias, stride=2, padding=1)


def upsample_conv(conv: nn.Conv2d, x: Tensor, antialias: bool = False) -> Tensor:
    """conv(upsample(x)) for a 3x3 `conv`, as one 4x4 transposed convolution: again 4/9."""
    if antialias or 2 * x.shape[2] < MERGE_PX:
        return conv(upsample(x, antialias))
    kernel = boxed(conv.weight, 1.0, turned=True).transpose(0, 1)  # (I, O, 4, 4)
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU in place, so only the result is kept for the backward pass."""
    return F.leaky_relu(x, 0.2, inplace=True)


class InstanceNorm(nn.Module):
    """Instance normalisation with learned scale and shift per channel, no running statistics."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x, self.weight, self.bias)


class AdaIN(nn.Module):
    """(1 + gamma(s)) * IN(x) + beta(s): the style sets the scale and shift of every channel."""

    def __init__(self, style_dim: int, channels: int):
        super().__init__()
        self.fc = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        gamma, beta = self.fc(s).chunk(2, dim=1)  # (N, C)
        return instance_norm(x, 1 + gamma, beta)


class Affine(nn.Module):
    """a_c x + b_c for (N, C, H, W); replaces a norm, without its statistics.

    a starts at 0.3, about the scale that the norm has at the start.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 0.3))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift[:, None, None], x, self.scale[:, None, None]).to(x.dtype)


class Skip(nn.Module):
    """(h + (1 + g(s)) P c + b(s)) gain: content c (N, C, H, H) joins the decoder's h by style s.

    P is a 1x1 convolution; g and b are linear in s (N, D), 0 at the start. The gain is 1/sqrt(2).
    In a generator trained without the skip, the gain is 1 and P is 0, so the skip has no effect.
    """

    def __init__(self, channels: int, style_dim: int):
        super().__init__()
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        self.fc = nn.Linear(style_dim, 2 * channels)
        self.register_buffer("gain", torch.tensor(0.5**0.5))

    def forward(self, h: Tensor, c: Tensor, s: Tensor) -> Tensor:
        g, b = self.fc(s)[:, :, None, None].to(h.dtype).chunk(2, dim=1)  # (N, C, 1, 1)
        return (h + torch.addcmul(b, 1 + g, self.project(c))) * self.gain.to(h.dtype)


class ResBlk(nn.Module):
    """Pre-activation residual block, optionally normalised and halving (N, C, H, W)."""

    def __init__(
        self, cin: int, cout: int, norm: bool = False, down: bool = False, antialias: bool = False
    ):
        super().__init__()
        self.down, self.antialias = down, antialias
        self.conv1 = nn.Conv2d(cin, cin, 3, padding=1)
        self.conv2 = nn.Conv2d(cin, cout, 3, padding=1)
        self.norm1 = InstanceNorm(cin) if norm else nn.Identity()
        self.norm2 = InstanceNorm(cin) if norm else nn.Identity()
        self.conv1x1 = nn.Conv2d(cin, cout, 1, bias=False) if cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        h = leaky_relu(x.clone() if h is x else h)  # the shortcut needs x
        h = conv_pool(self.conv1, h, self.antialias) if self.down else self.conv1(h)
        h = self.conv2(leaky_relu(self.norm2(h)))
        # A 1x1 convolution and an average commute: pooling first is the same map at 1/4 the cost.
        x = self.conv1x1(pool(x, self.antialias) if self.down else x)
        return h.add_(x).div_(math.sqrt(2))


class AdainResBlk(nn.Module):
    """Residual block whose norms are driven by the style, optionally doubling (N, C, H, W)."""

    def __init__(
        self,
        cin: int,
        cout: int,
        style_dim: int,
        up: bool = False,
        skip: bool = True,
        antialias: bool = False,
    ):
        super().__init__()
        self.up, self.skip, self.antialias = up, skip, antialias
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.norm1 = AdaIN(style_dim, cin)
        self.norm2 = AdaIN(style_dim, cout)
        self.conv1x1 = nn.Conv2d(cin, cout, 1, bias=False) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        h = leaky_relu(self.norm1(x, s))
        h = upsample_conv(self.conv1, h, self.antialias) if self.up else self.conv1(h)
        h = self.conv2(leaky_relu(self.norm2(h, s)))
        if not self.skip:  # with the high-pass skip the published block drops its own shortcut
            return h
        x = self.conv1x1(x)  # before nearest x2: equal, 1/4 the cost
        return h.add_(upsample(x, self.antialias) if self.up else x).div_(math.sqrt(2))


class HighPass(nn.Module):
    """Depthwise 3x3 Laplacian divided by `w_hpf` (so a larger value gives a WEAKER skip)."""

    def __init__(self, w_hpf: float):
        super().__init__()
        kernel = [[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]]
        self.register_buffer("filter", torch.tensor(kernel) / w_hpf)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.filter.to(x.dtype).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


class Generator(nn.Module):
    """G(x, s): image (N, 3, H, H) and style (N, D) -> image (N, 3, H, H), unbounded (no tanh).

    The content does not depend on the style: interpolations encode once and decode T times.
    """

    def __init__(
        self,
        img_size: int = 256,
        style_dim: int = 64,
        w_hpf: float = 0,
        base_channels: int | None = None,
        max_channels: int = 512,
        rgb_norm: bool = True,
        skip_px: int = 0,
        antialias: bool = False,
    ):
        super().__init__()
        if w_hpf < 0:
            raise ValueError(f"w_hpf: expected >= 0, got {w_hpf}")
        downs = int(math.log2(img_size)) - 4 + (w_hpf > 0)
        c = widths(img_size, base_channels, max_channels, downs)
        self.from_rgb = nn.Conv2d(3, c[0], 3, padding=1)
        plan = [*zip(c[:-1], c[1:], [True] * downs, strict=True), *[(c[-1], c[-1], False)] * 2]
        self.encode = nn.ModuleList(
            ResBlk(a, b, norm=True, down=half, antialias=antialias) for a, b, half in plan
        )
        self.decode = nn.ModuleList(
            AdainResBlk(b, a, style_dim, up=half, skip=w_hpf == 0, antialias=antialias)
            for a, b, half in reversed(plan)
        )
        norm = InstanceNorm(c[0]) if rgb_norm else Affine(c[0])
        self.to_rgb = nn.Sequential(norm, nn.LeakyReLU(0.2, True), nn.Conv2d(c[0], 3, 1))
        if w_hpf > 0:
            self.hpf = HighPass(w_hpf)
        self.skip_px = skip_px
        if skip_px:
            sizes = [img_size >> i for i in range(1, downs)]  # before each halving but the first
            if w_hpf > 0 or skip_px not in sizes:
                raise ValueError(
                    f"skip_px: expected 0 or, with w_hpf 0, one of {sizes}, got {skip_px} with "
                    f"w_hpf {w_hpf:g}"
                )
            self.skip = Skip(c[int(math.log2(img_size // skip_px))], style_dim)

    def forward(self, x: Tensor, s: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        return self.render(self.content(x, masks), s)

    def adopt(self, state: dict[str, Tensor], prefix: str) -> None:
        """Adds missing tensors to the `state` of a generator with fewer options, in place.

        The new skip adds nothing. If `state` has the norm before RGB, a is 0.3 times its scale and
        b is its shift: similar, not equal.
        """
        own, norm = self.state_dict(), f"{prefix}to_rgb.0."
        for key, value in own.items():
            if key.startswith("skip.") and prefix + key not in state:
                state[prefix + key] = torch.full_like(value, float(key == "skip.gain"))
        if "to_rgb.0.scale" in own and f"{norm}weight" in state:
            state[f"{norm}scale"] = 0.3 * state.pop(f"{norm}weight")
            state[f"{norm}shift"] = state.pop(f"{norm}bias")

    def content(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Style-free content: [(N, C, h, h)], and larger maps that bypass the bottleneck.

        The larger maps are that of `skip_px` or, with `masks`, the edges for the high-pass skip.
        `masks`: two maps (N, 1, h, w) in [0, 1]; the first gates 32 px, the second other sizes.
        """
        h, edges = self.from_rgb(x), []
        for block in self.encode:
            size = h.shape[2]
            if size == self.skip_px:
                edges.append(h)
            if masks is not None and size in SKIP_SIZES_PX:
                mask = F.interpolate(masks[size > 32], size=size, mode="bilinear")  # (N, 1, H, H)
                edges.append(self.hpf(mask * h))
            h = block(h)
        return [h, *edges]

    def render(self, content: list[Tensor], s: Tensor) -> Tensor:
        """Content and style (N, D) -> image (N, 3, H, H)."""
        h, edges = content[0], {e.shape[2]: e for e in content[1:]}
        for block in self.decode:
            h = block(h, s)
            if h.shape[2] in edges:
                edge = edges.pop(h.shape[2])
                h = self.skip(h, edge, s) if self.skip_px else h + edge
        return self.to_rgb(h)


def pick(heads: Sequence[nn.Linear], y: Tensor | int, h: Tensor) -> Tensor:
    """Applies the linear head of domain y[i] to row i: (N, C) -> (N, O)."""
    if isinstance(y, int):
        return heads[y](h)
    weight = torch.stack([head.weight for head in heads])[y]  # (N, O, C)
    bias = torch.stack([head.bias for head in heads])[y]  # (N, O)
    return torch.baddbmm(bias[:, :, None], weight, h[:, :, None])[:, :, 0]


class MappingNetwork(nn.Module):
    """F(z, y): latent (N, L) and domain -> style (N, D). `y` is (N,) int64, or one int for all."""

    def __init__(
        self, latent_dim: int = 16, style_dim: int = 64, num_domains: int = 2, hidden_dim: int = 512
    ):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(latent_dim, hidden_dim), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
        self.shared = nn.Sequential(*layers)
        self.unshared = nn.ModuleList()
        for _ in range(num_domains):
            layers = [m for _ in range(3) for m in (nn.Linear(hidden_dim, hidden_dim), nn.ReLU())]
            self.unshared.append(nn.Sequential(*layers, nn.Linear(hidden_dim, style_dim)))

    def forward(self, z: Tensor, y: Tensor | int) -> Tensor:
        h = self.shared(z)
        for i in (0, 2, 4):
            h = F.relu(pick([head[i] for head in self.unshared], y, h))
        return pick([head[6] for head in self.unshared], y, h)  # (N, D)


def trunk(
    img_size: int, base_channels: int | None, max_channels: int, antialias: bool = False
) -> list[nn.Module]:
    """The common body of E and D: (N, 3, H, H) -> (N, C, 1, 1); C is the last layer's width."""
    downs = int(math.log2(img_size)) - 2
    c = widths(img_size, base_channels, max_channels, downs)
    blocks = [ResBlk(a, b, down=True, antialias=antialias) for a, b in zip(c, c[1:], strict=False)]
    tail = [nn.LeakyReLU(0.2, True), nn.Conv2d(c[-1], c[-1], 4), nn.LeakyReLU(0.2, True)]
    return [nn.Conv2d(3, c[0], 3, padding=1), *blocks, *tail]


class StyleEncoder(nn.Module):
    """E(x, y): image (N, 3, H, H) and its domain -> style (N, D)."""

    def __init__(
        self,
        img_size: int = 256,
        style_dim: int = 64,
        num_domains: int = 2,
        base_channels: int | None = None,
        max_channels: int = 512,
        antialias: bool = False,
    ):
        super().__init__()
        self.shared = nn.Sequential(*trunk(img_size, base_channels, max_channels, antialias))
        width = self.shared[-2].out_channels
        self.unshared = nn.ModuleList(nn.Linear(width, style_dim) for _ in range(num_domains))

    def forward(self, x: Tensor, y: Tensor | int) -> Tensor:
        return self.head(self.features(x), y)

    def features(self, x: Tensor) -> Tensor:
        """Features that all heads share: (N, 3, H, H) -> (N, C)."""
        return self.shared(x).flatten(1)

    def head(self, h: Tensor, y: Tensor | int) -> Tensor:
        return pick(self.unshared, y, h)  # (N, D)


class Discriminator(nn.Module):
    """D(x, y): image (N, 3, H, H) and its domain -> real/fake logit (N,)."""

    def __init__(
        self,
        img_size: int = 256,
        num_domains: int = 2,
        base_channels: int | None = None,
        max_channels: int = 512,
        antialias: bool = False,
    ):
        super().__init__()
        layers = trunk(img_size, base_channels, max_channels, antialias)
        width = layers[-2].out_channels
        self.main = nn.Sequential(*layers, nn.Conv2d(width, num_domains, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(self.features(x), y)

    def features(self, x: Tensor) -> Tensor:
        """Features that all heads share: (N, 3, H, H) -> (N, C)."""
        return self.main[:-1](x).flatten(1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Maps of each residual block for images (N, 3, H, H): (N, C, H / 2, H / 2) and so on."""
        found = [self.main[0](x)]
        for block in (layer for layer in self.main if isinstance(layer, ResBlk)):
            found.append(block(found[-1]))
        return found[1:]

    def head(self, h: Tensor, y: Tensor) -> Tensor:
        final = self.main[-1]
        return (h * final.weight[y].flatten(1)).sum(1) + final.bias[y]  # (N,)


def init_weights(net: nn.Module) -> None:
    """He-normal (fan-in) for every convolution and linear weight, zero biases (spec 1.6)."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    for m in net.modules():
        if isinstance(m, Skip):
            nn.init.zeros_(m.fc.weight)

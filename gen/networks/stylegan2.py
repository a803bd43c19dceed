"""StyleGAN2 networks: mapping, synthesis (skip), generator, discriminator (residual).

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, with the
layer names, shapes and constants of the ADA release (NeurIPS 2020), so that its weights load
without a key map. Nothing here draws random numbers: noise is an argument.

Letters in shapes: N batch, C, I, O channels, H height = width, L rows of a latent code, D their
width. Image sizes are powers of two >= 8; a map of H px has min(channel_base / H, channel_max)
channels.

Under bf16 autocast the convolutions and what lies between them are bf16; mapping, styles,
demodulation, the sum of RGB images and the last block of the discriminator stay fp32. fp16 would
need guards against overflow that are not here. Maps are in the channels-last memory format.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.ops.fir import downsample2d, setup_filter, upfirdn2d, upsample2d

Noise = Literal["const", "none"] | torch.Generator | Sequence[Tensor]
SLOPE = 0.2  # of leaky ReLU; its gain of sqrt(2) is applied earlier, by the layers
TAPS = (1, 3, 3, 1)  # resampling filter
SIZES = ("img_size", "z_dim", "w_dim", "map_layers", "channel_base", "channel_max", "clamp")


def widths(img_size: int, channel_base: int, channel_max: int) -> dict[int, int]:
    """{4: C, 8: C, ..}: the channels at each resolution."""
    if img_size < 8 or img_size & (img_size - 1):
        raise ValueError(f"img_size: expected a power of two >= 8, got {img_size}")
    if channel_base < img_size or channel_max < 1:
        got = f"{channel_base} and {channel_max}"
        raise ValueError(f"channel_base, channel_max: expected >= {img_size} and >= 1, got {got}")
    sizes = [2**i for i in range(2, img_size.bit_length())]
    return {size: min(channel_base // size, channel_max) for size in sizes}


def activate(x: Tensor, clamp: float | None) -> Tensor:
    """Leaky ReLU in place, so only the result is kept for the backward pass."""
    x = F.leaky_relu(x, SLOPE, inplace=True)
    return x if clamp is None else x.clamp(-clamp, clamp)


def normalize(x: Tensor) -> Tensor:
    """Scales rows of (N, C) to a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class EqualLinear(nn.Module):
    """act(x (W lr_mul / sqrt(I))^T + b lr_mul): (N, I) -> (N, O), in the dtype of W (fp32)."""

    def __init__(self, cin: int, cout: int, lr_mul: float = 1, bias: float = 0, act: bool = False):
        super().__init__()
        self.act = act
        gain = math.sqrt(2) if act else 1
        self.gains = {"alpha": gain * lr_mul / math.sqrt(cin), "beta": gain * lr_mul}
        self.weight = nn.Parameter(torch.randn(cout, cin) / lr_mul)
        self.bias = nn.Parameter(torch.full((cout,), float(bias)))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = torch.addmm(self.bias, x.to(self.weight.dtype), self.weight.t(), **self.gains)
        return activate(x, None) if self.act else x


class Filtered(nn.Module):
    """Base of layers with the filter as a buffer, as published; refuses to load another filter."""

    def __init__(self):
        super().__init__()
        self.register_buffer("resample_filter", setup_filter(TAPS))

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        name = f"{prefix}resample_filter"
        if name in state_dict:
            given, ours = state_dict[name], setup_filter(TAPS)
            if not torch.equal(given.to(ours), ours):
                raise ValueError(
                    f"{name}: expected the outer product of {TAPS} with itself / 64, got "
                    f"{given.tolist()}: these weights are for another filter; train new ones"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


class MappingNetwork(nn.Module):
    """f(z, c): latent (N, Z) and condition (N, K) -> W+ code (N, L, D) of L equal rows.

    With Z = 0 or K = 0 there is no `z` or no `c`. With `rows` None it returns (N, D) and has no
    running average.
    """

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, rows: int | None, layers: int):
        super().__init__()
        self.z_dim, self.c_dim, self.rows, self.layers = z_dim, c_dim, rows, layers
        if rows is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))
        if c_dim:
            self.embed = EqualLinear(c_dim, w_dim)
        width = z_dim + (w_dim if c_dim else 0)
        for i in range(layers):
            layer = EqualLinear(width if i == 0 else w_dim, w_dim, lr_mul=0.01, act=True)
            setattr(self, f"fc{i}", layer)

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """`psi` pulls the first `cutoff` rows (None: all) to the average: w_avg + psi (w - w_avg).

        Raises:
            ValueError: `z` or `c` has another shape, is missing, or is not expected.
        """
        parts = []
        for name, x, width in (("z", z, self.z_dim), ("c", c, self.c_dim)):
            got = None if x is None else tuple(x.shape)
            if (got and got[1:]) != ((width,) if width else None):
                want = f"(N, {width})" if width else None
                raise ValueError(f"{name}: expected {want}, got {got}")
            if x is not None:
                x = x.to(self.fc0.weight.dtype)
                parts.append(normalize(x if name == "z" else self.embed(x)))
        w = torch.cat(parts, 1)
        for i in range(self.layers):
            w = getattr(self, f"fc{i}")(w)  # (N, D)
        if self.rows is None:
            return w
        w = w[:, None].expand(-1, self.rows, -1)  # (N, L, D)
        if psi == 1:
            return w
        cutoff = self.rows if cutoff is None else cutoff
        return torch.cat([self.w_avg.lerp(w[:, :cutoff], psi), w[:, cutoff:]], 1)

    @torch.no_grad()
    def update_average(self, w: Tensor, beta: float = 0.998) -> None:
        """w_avg <- beta w_avg + (1 - beta) mean w: a batch of codes (N, D), before truncation."""
        self.w_avg.lerp_(w.mean(0).to(self.w_avg.dtype), 1 - beta)


class SynthesisLayer(Filtered):
    """Modulated 3x3 convolution, demodulated, then noise, bias, leaky ReLU; optionally doubles.

    Modulated weights for each sample, W' = W s and W'' = W' / ||W'||, give the same map as one
    shared convolution with input channels scaled by s and output channels by 1 / ||W'||.
    """

    def __init__(self, cin: int, cout: int, w_dim: int, size: int, up: bool, clamp: float | None):
        super().__init__()
        self.up, self.clamp = up, clamp
        self.weight = nn.Parameter(torch.randn(cout, cin, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(cout))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.affine = EqualLinear(w_dim, cin, bias=1)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Map (N, I, H, H), row of the code (N, D), noise (1 or N, 1, H', H') -> (N, O, H', H')."""
        s = self.affine(w)  # (N, I)
        with torch.autocast(x.device.type, enabled=False):
            energy = self.weight.square().sum((2, 3))  # (O, I)
            scale = math.sqrt(2) * (s.square() @ energy.t() + 1e-8).rsqrt()  # (N, O)
        x = x * s[:, :, None, None].to(x.dtype)
        if self.up:
            x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            x = upfirdn2d(x, self.resample_filter, pad=(1, 1, 1, 1), gain=4)
        else:
            x = F.conv2d(x, self.weight, padding=1)
        bias, scale = (math.sqrt(2) * self.bias).to(x.dtype), scale.to(x.dtype)
        x = torch.addcmul(bias[:, None, None], x, scale[:, :, None, None])
        if noise is not None:
            x.add_((math.sqrt(2) * self.noise_strength * noise).to(x.dtype))
        return activate(x, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: map and row (N, D) -> fp32 (N, E, H, H).

    E is 3, 1 for grey images, or 4 with opacity.
    """

    def __init__(self, cin: int, w_dim: int, clamp: float | None, channels: int):
        super().__init__()
        self.clamp = clamp
        self.weight = nn.Parameter(torch.randn(channels, cin, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.affine = EqualLinear(w_dim, cin, bias=1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        s = self.affine(w) / math.sqrt(x.shape[1])  # (N, I)
        weight = self.weight.flatten(1) * s[:, None]  # (N, E, I)
        rgb = x.flatten(2).mT @ weight.to(x.dtype).mT  # (N, H H, E): so all is channels-last
        rgb = (rgb.to(self.bias.dtype) + self.bias).mT.unflatten(2, x.shape[2:])
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


class SynthesisBlock(Filtered):
    """The layers of one resolution."""

    def __init__(
        self, cin: int, cout: int, w_dim: int, size: int, clamp: float | None, channels: int
    ):
        super().__init__()
        if size == 4:
            self.const = nn.Parameter(torch.randn(cout, 4, 4))
        else:
            self.conv0 = SynthesisLayer(cin, cout, w_dim, size, True, clamp)
        self.conv1 = SynthesisLayer(cout, cout, w_dim, size, False, clamp)
        self.torgb = ToRGB(cout, w_dim, clamp, channels)


class SynthesisNetwork(nn.Module):
    """g(w): W+ code (N, L, D) -> image (N, 3 or 4, R, R), unbounded; L = `rows` = 2 log2(R) - 2."""

    def __init__(
        self,
        w_dim: int,
        img_size: int,
        channel_base: int,
        channel_max: int,
        clamp: float | None,
        channels: int = 3,
    ):
        super().__init__()
        self.w_dim = w_dim
        c = widths(img_size, channel_base, channel_max)
        self.rows = 2 * len(c)
        self.sizes = list(c)
        for size, cout in c.items():
            block = SynthesisBlock(c.get(size // 2, 0), cout, w_dim, size, clamp, channels)
            setattr(self, f"b{size}", block)

    def forward(self, ws: Tensor, noise: Noise = "const") -> Tensor:
        """Row i drives convolution i; the RGB layer of a block takes the row of the next one.

        Args:
            ws: codes (N, L, D), one row for each layer.
            noise: noise maps: "const", the stored ones; "none"; a generator: new maps for each
                sample; or L - 1 maps (1 or N, 1, H, H), as `noise_maps` makes them.
        """
        if ws.shape[1:] != (self.rows, self.w_dim):
            want = f"(N, {self.rows}, {self.w_dim})"
            raise ValueError(
                f"ws: expected {want}, got {tuple(ws.shape)}; one row goes by `expand`"
            )
        N = ws.shape[0]  # torch.export has no symbolic len
        maps = self.noise_maps(N, noise)
        x, image, row = self.b4.const.expand(N, -1, -1, -1), None, 0
        x = x.contiguous(memory_format=torch.channels_last)
        for size in self.sizes:
            block = getattr(self, f"b{size}")
            for layer in (block.conv1,) if size == 4 else (block.conv0, block.conv1):
                x = layer(x, ws[:, row], maps[row])
                row += 1
            rgb = block.torgb(x, ws[:, row])
            image = rgb if size == 4 else upsample2d(image, block.resample_filter) + rgb
        return image if image.shape[1] > 1 else image.expand(-1, 3, -1, -1)

    def noise_maps(self, N: int, noise: Noise) -> Sequence[Tensor | None]:
        """A noise map (1 or N, 1, H, H), or None, for each convolution, as `forward` uses them."""
        stored = [m.noise_const for m in self.modules() if isinstance(m, SynthesisLayer)]
        if isinstance(noise, torch.Generator):
            drawn = (
                torch.randn(N, 1, *m.shape, generator=noise, device=noise.device) for m in stored
            )
            return [a.to(m) for a, m in zip(drawn, stored, strict=True)]
        if isinstance(noise, str) and noise in ("const", "none"):
            return [m[None, None] if noise == "const" else None for m in stored]
        if isinstance(noise, str) or len(noise) != len(stored):
            got = repr(noise) if isinstance(noise, str) else f"{len(noise)} maps"
            raise ValueError(
                f"noise: expected 'const', 'none', a generator or {len(stored)} maps, got {got}"
            )
        return noise


class Generator(nn.Module):
    """G(z, c) = g(f(z, c)): latent (N, Z) -> image (N, 3 or 4, R, R), unbounded (no tanh).

    Args:
        img_size: side R of the images, px.
        z_dim, c_dim, w_dim: width Z of a latent, of a condition such as a one-hot label (0: none),
            and D of a code.
        map_layers: number of layers, 8 in the paper, 2 in the release's `auto` and `cifar`
            configurations.
        channel_base, channel_max: channels times resolution, and most channels: 32768 and 512 is
            "config F"; half that base is the release's usual for less than 512 px.
        clamp: limit of activations; 256 in the release, which computes in fp16.
        channels: 3; 1 for grey, which is returned three times; 4 for colours times opacity, and
            opacity.
    """

    def __init__(
        self,
        img_size: int = 256,
        z_dim: int = 512,
        c_dim: int = 0,
        w_dim: int = 512,
        map_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        clamp: float | None = None,
        channels: int = 3,
    ):
        super().__init__()
        options = (channel_base, channel_max, clamp, channels)
        self.synthesis = SynthesisNetwork(w_dim, img_size, *options)
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.synthesis.rows, map_layers)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        return self.synthesis(self.mapping(z, c, psi, cutoff), noise)


class Conv(Filtered):
    """Convolution with its weight scaled by gain / sqrt(I k^2), then leaky ReLU; may halve."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        down: bool = False,
        act: bool = True,
        gain: float = 1.0,
        clamp: float | None = None,
    ):
        super().__init__()
        self.down, self.act = down, act
        self.clamp = None if clamp is None else clamp * gain
        self.bias_gain = math.sqrt(2) * gain if act else gain
        self.weight_gain = self.bias_gain / math.sqrt(cin * kernel**2)
        self.weight = nn.Parameter(torch.randn(cout, cin, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(cout)) if act else None

    def forward(self, x: Tensor) -> Tensor:
        weight, k = self.weight * self.weight_gain, self.weight.shape[2]
        bias = None if self.bias is None else self.bias * self.bias_gain
        if not self.down:
            x = F.conv2d(x, weight, bias, padding=k // 2)
        elif k == 1:
            x = F.conv2d(downsample2d(x, self.resample_filter), weight, bias)
        else:
            x = upfirdn2d(x, self.resample_filter, pad=(2, 2, 2, 2))
            x = F.conv2d(x, weight, bias, stride=2)
        if self.act:
            return activate(x, self.clamp)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class DiscriminatorBlock(Filtered):
    """(N, I, H, H) -> (N, O, H / 2, H / 2); with `channels` it takes images of so many."""

    def __init__(self, cin: int, cout: int, channels: int, residual: bool, clamp: float | None):
        super().__init__()
        gain = math.sqrt(0.5) if residual else 1.0
        self.fromrgb = Conv(channels, cin, 1, clamp=clamp) if channels else None
        self.conv0 = Conv(cin, cin, 3, clamp=clamp)
        self.conv1 = Conv(cin, cout, 3, down=True, gain=gain, clamp=clamp)
        self.skip = (
            Conv(cin, cout, 1, True, act=False, gain=gain, clamp=clamp) if residual else None
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.fromrgb is None else self.fromrgb(x)
        h = self.conv1(self.conv0(x))
        return h if self.skip is None else self.skip(x).add_(h)


def minibatch_std(x: Tensor, group: int | None) -> Tensor:
    """(N, C, H, W) -> (N, C + 1, H, W): appends the mean standard deviation in a group of samples.

    The standard deviation of each feature over a group, averaged; Karras et al. 2018, section 3. A
    group is every (N / G)-th sample, G the minimum of N and `group` (None: N).

    Raises:
        ValueError: N is no multiple of G.
    """
    N, C, H, W = x.shape
    G = min(group or N, N)
    if N % G:
        raise ValueError(
            f"minibatch_std: expected a batch divisible by its group of {G}, got {N}; drop the "
            "last, smaller batch, or set `group` to a divisor of the batch size"
        )
    std = (x.unflatten(0, (G, N // G)).var(0, correction=0) + 1e-8).sqrt()  # (N / G, C, H, W)
    std = std.mean((1, 2, 3)).repeat(G)  # (N,)
    return torch.cat([x, std.view(N, 1, 1, 1).expand(N, 1, H, W)], 1)


class Epilogue(nn.Module):
    """The last block, in fp32: (N, C, 4, 4) -> (N, O)."""

    def __init__(self, channels: int, cout: int, group: int | None, clamp: float | None):
        super().__init__()
        self.group = group
        self.conv = Conv(channels + 1, channels, 3, clamp=clamp)
        self.fc = EqualLinear(channels * 16, channels, act=True)
        self.out = EqualLinear(channels, cout)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = self.conv(minibatch_std(x.to(self.fc.weight.dtype), self.group))
            return self.out(self.fc(x.flatten(1)))


class Discriminator(nn.Module):
    """D(x, c): image (N, `channels`, R, R) -> real/fake logit (N,).

    With a condition (N, K) the logit is the product of features and embedded condition, divided by
    the root of their width. Other arguments are those of `Generator`.

    Args:
        group: number of samples whose standard deviation is one more feature; None: the batch.
        residual: use residual blocks; False is the release's `orig`, of its conditional CIFAR-10
            weights.
        channels: 3, or 4 for colours times opacity, and opacity.
    """

    def __init__(
        self,
        img_size: int = 256,
        c_dim: int = 0,
        channel_base: int = 32768,
        channel_max: int = 512,
        group: int | None = 4,
        map_layers: int = 8,
        residual: bool = True,
        clamp: float | None = None,
        channels: int = 3,
    ):
        super().__init__()
        width = widths(img_size, channel_base, channel_max)
        self.shape = (channels, img_size, img_size)
        self.sizes = sorted(width, reverse=True)[:-1]
        for size in self.sizes:
            given = channels if size == img_size else 0
            block = DiscriminatorBlock(width[size], width[size // 2], given, residual, clamp)
            setattr(self, f"b{size}", block)
        self.mapping = MappingNetwork(0, c_dim, width[4], None, map_layers) if c_dim else None
        self.b4 = Epilogue(width[4], width[4] if c_dim else 1, group, clamp)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        if x.shape[1:] != self.shape:
            want = "(N, {}, {}, {})".format(*self.shape)
            raise ValueError(f"x: expected {want}, got {tuple(x.shape)}")
        if self.mapping is None and c is not None:
            raise ValueError(f"c: expected None, as c_dim is 0, got {tuple(c.shape)}")
        embedded = None if self.mapping is None else self.mapping(None, c)  # (N, C)
        x = x.contiguous(memory_format=torch.channels_last)
        for size in self.sizes:
            x = getattr(self, f"b{size}")(x)
        h = self.b4(x)  # (N, 1) or (N, C)
        return h[:, 0] if embedded is None else (h * embedded).sum(1) / math.sqrt(h.shape[1])

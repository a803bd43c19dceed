"""Adaptive augmentation (ADA) of the discriminator's images.

Source: Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020,
appendix B: blit (flip, quarter turns, whole shifts), geom (scale, rotation, stretch, fractional
shift), color, filter (gain of frequency bands), noise and cutout, in this order. Each operation is
applied to each sample with probability p. All movements form one matrix, which is applied once,
after upsampling by 2 with the low-pass filter of the sym6 wavelet. Twice differentiable in the
images, for R1. All operations but noise and cutout are tested against numbers of the release; noise
and cutout use its constants.

Images with transparency are augmented as what they show: nothing lies beyond their edges, where
others are mirrored when they move, or in what is cut out, and colours change where there are some.

The few numbers of a sample are drawn on the CPU, because the padding depends on them. So there is a
GPU sync only if p or the generator are on a GPU. Noise can have a generator of its own, on a GPU.
Matrices map (x, y, 1), in pixels from the centre.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.devices import send
from gen.ops.fir import setup_filter, upfirdn2d, upsample2d

Groups = Literal[
    "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"
]
ORDER = ("blit", "geom", "color", "filter", "noise", "cutout")
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
HALO_PX = len(SYM6) // 4  # of an image before it is doubled: how far the filter reaches, about
HALF_BAND = (-1 / 32, 0.0, 9 / 32, 1 / 2, 9 / 32, 0.0, -1 / 32)  # sym2 with itself: low-pass
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # of natural images in the four bands
NOISE = 0.1  # standard deviation of its standard deviation
CUTOUT = 0.5  # side of what is cut out, of the image's


class Draws:
    """Random numbers for N samples, on the CPU; tests may draw quantiles instead.

    `pixels` draws numbers for each pixel, on its own device.
    """

    def __init__(self, N: int, p: float, generator: torch.Generator, pixels: torch.Generator):
        self.N, self.p, self.generator, self.pixels = N, p, generator, pixels

    def uniform(self, low: float, high: float, count: int = 1) -> Tensor:
        """(N, count)"""
        return low + (high - low) * torch.rand(self.N, count, generator=self.generator)

    def normal(self, std: float, count: int = 1) -> Tensor:
        """(N, count)"""
        return std * torch.randn(self.N, count, generator=self.generator)

    def maybe(self, value: Tensor, neutral: float, p: float | None = None) -> tuple[Tensor, ...]:
        """`value` (N, count) with probability p, else `neutral`: `count` tensors (N,)."""
        chosen = self.uniform(0, 1) < (self.p if p is None else p)
        return torch.where(chosen, value, neutral).unbind(1)

    def rotation(self) -> Tensor:
        """Radians (N,), drawn before and after the stretch; in all a share p of samples rotates."""
        p = 1 - math.sqrt(1 - min(self.p, 1))
        return self.maybe(self.uniform(-math.pi, math.pi), 0.0, p)[0]

    def noise(self, shape: torch.Size) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self.pixels, device=self.pixels.device)


def augment(
    images: Tensor,
    p: float | Tensor,
    generator: torch.Generator,
    groups: Groups = "bgc",
    pixels: torch.Generator | None = None,
) -> Tensor:
    """Augments images (N, 3, H, W), or (N, 4, H, W) with opacity; p = 0 changes nothing.

    Args:
        images: images in fp32 or fp64, about [-1, 1] (not checked); of four channels the first
            three are colours times opacity. First and second derivatives are supported.
        p: probability of each operation, a number or a tensor (); above 1 counts as 1.
        generator: random generator for all draws, on any device.
        groups: one of `ORDER`, or the first groups by initials: `bgc` are three.
        pixels: random generator for noise, instead of `generator`.

    Raises:
        ValueError: `p` is negative, `groups` is unknown, or images are not (N, 3 or 4, H, W).
    """
    initials = "".join(name[0] for name in ORDER)
    presets = {initials[:k]: ORDER[:k] for k in range(2, 7)}
    if groups not in (*ORDER, *presets):
        expected = ", ".join((*ORDER, *presets))
        raise ValueError(f"groups: expected one of {expected}, got {groups!r}")
    names = presets.get(groups, (groups,))
    p = float(p)
    if not p >= 0 or images.ndim != 4 or images.shape[1] not in (3, 4):
        got = f"{p} and {tuple(images.shape)}"
        raise ValueError(f"augment: expected p >= 0 and images (N, 3 or 4, H, W), got {got}")
    if p == 0:
        return images
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    on_host = torch.Generator().manual_seed(int(seed))
    draws = Draws(len(images), p, on_host, pixels or generator)
    if images.shape[1] == 4:
        return transform(images + 1, draws, names) - 1  # 0 is nothing, in all four channels
    return transform(images, draws, names)


def transform(images: Tensor, draws: Draws, names: tuple[str, ...]) -> Tensor:
    """Augments with the random numbers of `draws`; images with opacity are in [0, 2]."""
    with torch.autocast(images.device.type, enabled=False):
        H, W = images.shape[2:]
        inverse = torch.eye(3)
        if "blit" in names:
            inverse = inverse @ blit(draws, H, W)
        if "geom" in names:
            inverse = inverse @ geom(draws, H, W)
        if inverse.ndim == 3:
            images = move(images, inverse)
        if "color" in names:
            images = recolor(images, send(color(draws), images))
        if "filter" in names:
            images = amplify(images, gains(draws))
        if "noise" in names:
            (sigma,) = draws.maybe(draws.normal(NOISE).abs(), 0.0)
            noise = draws.noise(images.shape).to(images)
            images = images + send(sigma, images)[:, None, None, None] * noise
        return images * kept(draws, images) if "cutout" in names else images


def matrix(*rows: tuple[Tensor | float, ...]) -> Tensor:
    """(N, R, R) of entries (N,) or numbers."""
    entries = [torch.as_tensor(entry, dtype=torch.float32) for row in rows for entry in row]
    return torch.stack(torch.broadcast_tensors(*entries), -1).unflatten(-1, (len(rows), -1))


def shift2d(x: Tensor | float, y: Tensor | float) -> Tensor:
    return matrix((1, 0, x), (0, 1, y), (0, 0, 1))


def scale2d(x: Tensor | float, y: Tensor | float) -> Tensor:
    return matrix((x, 0, 0), (0, y, 0), (0, 0, 1))


def rotate2d(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return matrix((cos, -sin, 0), (sin, cos, 0), (0, 0, 1))


def blit(draws: Draws, H: int, W: int) -> Tensor:
    """Map (N, 3, 3) from pixels of the result to their source, for blit alone."""
    (flip,) = draws.maybe(draws.uniform(0, 2).floor(), 0.0)
    (turns,) = draws.maybe(draws.uniform(0, 4).floor(), 0.0)
    x, y = draws.maybe(draws.uniform(-0.125, 0.125, 2), 0.0)
    turned = scale2d(1 - 2 * flip, 1) @ rotate2d(math.pi / 2 * turns)
    return turned @ shift2d(-(x * W).round(), -(y * H).round())


def geom(draws: Draws, H: int, W: int) -> Tensor:
    """Map (N, 3, 3) from pixels of the result to their source, for geom alone."""
    (scale,) = draws.maybe(draws.normal(0.2).exp2(), 1.0)
    before = rotate2d(draws.rotation())
    (stretch,) = draws.maybe(draws.normal(0.2).exp2(), 1.0)
    after = rotate2d(draws.rotation())
    x, y = draws.maybe(draws.normal(0.125, 2), 0.0)
    scaled = scale2d(1 / scale, 1 / scale) @ before @ scale2d(1 / stretch, stretch)
    return scaled @ after @ shift2d(-x * W, -y * H)


def color(draws: Draws) -> Tensor:
    """Matrices (N, 4, 4) of (r, g, b, 1): brightness, contrast, luma flip, hue, saturation."""
    (brightness,) = draws.maybe(draws.normal(0.2), 0.0)
    (contrast,) = draws.maybe(draws.normal(0.5).exp2(), 1.0)
    (flip,) = draws.maybe(draws.uniform(0, 2).floor(), 0.0)
    (hue,) = draws.maybe(draws.uniform(-math.pi, math.pi), 0.0)
    (saturation,) = draws.maybe(draws.normal(1.0).exp2(), 1.0)
    b, c = brightness, contrast
    adjusted = matrix((c, 0, 0, b * c), (0, c, 0, b * c), (0, 0, c, b * c), (0, 0, 0, 1))
    one, r = torch.eye(3), 1 / math.sqrt(3)
    luma = torch.full((3, 3), 1 / 3)  # the projection on grey
    cross = matrix((0, -r, r), (r, 0, -r), (-r, r, 0))
    flip, hue, saturation = (v[:, None, None] for v in (flip, hue, saturation))
    turn = hue.cos() * one + hue.sin() * cross + (1 - hue.cos()) * luma
    mixed = (luma + saturation * (one - luma)) @ turn @ (one - 2 * flip * luma)
    return torch.cat([mixed @ adjusted[:, :3], adjusted[:, 3:]], 1)


def recolor(images: Tensor, matrices: Tensor) -> Tensor:
    """Applies colour matrices (N, 4, 4) to images (N, 3, H, W).

    Of images with opacity (N, 4, H, W) in [0, 2] it changes the colours alone, which are in [-1, 1]
    and premultiplied: a (M c + t) = M (a c) + a t.
    """
    product, shift = matrices[:, :3, :3].mT, matrices[:, None, :3, 3]
    if images.shape[1] == 3:
        return (images.flatten(2).mT @ product + shift).mT.unflatten(2, images.shape[2:])
    a = images[:, 3:] / 2  # (N, 1, H, W) in [0, 1]
    pixels = (images[:, :3] - a).flatten(2).mT @ product + a.flatten(2).mT * shift
    return torch.cat([pixels.mT.unflatten(2, images.shape[2:]) + a, images[:, 3:]], 1)


def bands() -> Tensor:
    """Filters (4, 43) of one octave each, low to high; their sum is a single 1 in the middle.

    With the half-band filter H: H(z) H(z^2) H(z^4), H(z) H(z^2) minus the former, H(z) minus
    H(z) H(z^2), 1 minus H(z).
    """
    low, rows = torch.ones(1), []
    for k in (1, 2, 4):
        stretched = torch.zeros(6 * k + 1)
        stretched[::k] = torch.tensor(HALF_BAND)
        wider = F.conv1d(F.pad(low, (6 * k, 6 * k))[None, None], stretched[None, None])[0, 0]
        rows.append(F.pad(low, (3 * k, 3 * k)) - wider)
        low = wider
    rows.append(low)
    return torch.stack([F.pad(row, [(43 - len(row)) // 2] * 2) for row in reversed(rows)])


def gains(draws: Draws) -> Tensor:
    """Gains of the bands (N, 4); they keep the power of images with natural frequencies."""
    product = torch.ones(draws.N, 4)
    for band in range(4):
        gain = torch.ones(draws.N, 4)
        (gain[:, band],) = draws.maybe(draws.normal(1.0).exp2(), 1.0)
        power = (torch.tensor(POWER) * gain.square()).sum(1, keepdim=True)
        product = product * gain / power.sqrt()
    return product


def amplify(images: Tensor, gains: Tensor) -> Tensor:
    """Multiplies frequency bands of the rows and columns of (N, C, H, W) by `gains` (N, 4).

    Images are mirrored once at their edges, and zero farther out.
    """
    N, C, H, W = images.shape
    f = (gains @ bands().to(gains)).repeat_interleave(C, 0)[:, None]  # (N C, 1, 43), on the host
    f = send(f, images)
    x, y = min(21, W - 1), min(21, H - 1)
    images = F.pad(images, (x, x, y, y), mode="reflect").reshape(1, N * C, H + 2 * y, W + 2 * x)
    images = F.conv2d(images, f[:, :, None], padding=(0, 21 - x), groups=N * C)
    images = F.conv2d(images, f[..., None], padding=(21 - y, 0), groups=N * C)
    return images.reshape(N, C, H, W)


def kept(draws: Draws, images: Tensor) -> Tensor:
    """Masks (N, 1, H, W): 0 in a rectangle with its centre anywhere in the image, 1 elsewhere."""
    centres = torch.stack(draws.maybe(draws.uniform(0, 1, 2), math.inf))  # (2, N): x, y
    x, y = send(centres, images)[:, :, None]  # (N, 1)
    H, W = (torch.arange(n, device=x.device).add(0.5) / n for n in images.shape[2:])
    far_x, far_y = ((at - c).abs() >= CUTOUT / 2 for at, c in ((W, x), (H, y)))  # (N, W), (N, H)
    return (far_x[:, None] | far_y[:, :, None])[:, None].to(images.dtype)


def move(images: Tensor, inverse: Tensor) -> Tensor:
    """Images (N, C, H, W) whose pixel at q is sampled at `inverse` (N, 3, 3) q.

    Images are mirrored once at their edges, and zero farther out; those with opacity are not
    mirrored.
    """
    N, C, H, W = images.shape
    x, y = (W - 1) / 2, (H - 1) / 2
    corners = inverse @ torch.tensor([[-x, x, x, -x], [-y, -y, y, y], [1.0, 1.0, 1.0, 1.0]])
    reach = corners[:, :2].transpose(0, 1).flatten(1)  # (2, 4 N)
    sides = torch.stack([-reach, reach], 1).amax(2)  # (2, 2): left, right; above, below
    sides = sides + 2 * HALO_PX - torch.tensor([[x], [y]])
    most = torch.tensor([[W - 1.0], [H - 1.0]])
    left, right, above, below = sides.clamp(min=0).minimum(most).ceil().int().flatten().tolist()
    f = send(setup_filter(SYM6), images)
    images = images.contiguous(memory_format=torch.channels_last)  # the filter is faster
    beyond = "constant" if C == 4 else "reflect"
    images = upsample2d(F.pad(images, (left, right, above, below), mode=beyond), f)
    inverse = shift2d((left - right) / 2, (above - below) / 2) @ inverse
    # The filter's mass is around its tap 5, not 5.5, so upsampling shifts by half a pixel.
    inverse = shift2d(-0.5, -0.5) @ scale2d(2, 2) @ inverse @ scale2d(0.5, 0.5) @ shift2d(0.5, 0.5)
    size = 2 * (H + 2 * HALO_PX), 2 * (W + 2 * HALO_PX)
    to, of = scale2d(size[1] / 2, size[0] / 2), images.shape
    inverse = scale2d(2 / of[3], 2 / of[2]) @ inverse @ to  # in units of half an image
    grid = F.affine_grid(send(inverse[:, :2], images), [N, C, *size], align_corners=False)
    images = _Sample.apply(images, grid)
    crop = (len(SYM6) - 2) // 2 - 2 * HALO_PX
    return upfirdn2d(images, f.flip(0), down=2, pad=(crop, crop, crop, crop))


class _Sample(torch.autograd.Function):
    """Bilinear F.grid_sample, which lacks a second derivative; linear in x, `grid` gets none."""

    @staticmethod
    def forward(ctx, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return F.grid_sample(x, grid, "bilinear", "zeros", align_corners=False)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _Scatter.apply(grad, *ctx.saved_tensors, ctx.shape), None


class _Scatter(torch.autograd.Function):
    """The transpose of `_Sample`."""

    @staticmethod
    def forward(ctx, grad: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        like = grad.new_zeros(shape)
        backward = torch.ops.aten.grid_sampler_2d_backward
        x = backward(grad, like, grid, 0, 0, False, (True, False))[0]
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Sample.apply(grad, *ctx.saved_tensors), None, None

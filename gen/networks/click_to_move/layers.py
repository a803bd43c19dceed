"""A generator of Click to Move that renders in layers: objects over a ground that is filled once.

Own choice, beside the generators of the release. Masks are given, so nothing needs to be guessed
about what moves together: each object carries its own pixels and a soft mask along its motion, in
depth order. The ground behind all objects, and a margin around the image, is filled by one network
for the whole clip; it follows the camera, each place by its own share. A small network then repairs
seams and shading where something has moved. Every other pixel is that of the first frame, bit for
bit, so a street under a camera that stands still does not shimmer. Holes begin as the mean of what
is near them, so that also a photograph, on which nothing was trained, gets no strange patches.

Letters in shapes: N batch, T frames after the first, M objects, C channels, H height, W width;
h, w of the canvas, the image with its margin; Z latent.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.devices import full_precision
from gen.networks.click_to_move.encoders import (
    CORE,
    STUFF,
    Norm,
    conv,
    down,
    leaky,
    same,
    up,
    widths,
)
from gen.ops.motion import affine_flow, identity, warp

DOWNS = 4  # how often the filling network halves the canvas
STEP = 2**DOWNS  # px, so sides are multiples of this
REACH = 5  # px, side of the window by which changed regions grow: contact, shadows
HIDDEN = 8.0  # logit of visibility of what the first frame shows, and minus that of the rest


class Layered(NamedTuple):
    """A video, and what it is made of."""

    video: Tensor  # (N, T, 3, H, W)
    flow: Tensor  # (N, T, 2, H, W) px, back to the first frame
    visible: Tensor  # (N, T, 1, H, W) logits of visibility in the first frame
    ground: Tensor  # (N, 3, H, W) the first frame without objects


class Carried(NamedTuple):
    """All objects of each frame as one layer."""

    colour: Tensor  # (N, T, 3, H, W), multiplied by alpha
    alpha: Tensor  # (N, T, 1, H, W) in [0, 1]
    flow: Tensor  # (N, T, 2, H, W) px of the nearest object, where there is one
    owned: Tensor  # (N, T, 1, H, W) bool, true on objects
    touched: Tensor  # (N, T, 1, H, W) bool, true where a moving object is or was


def cut_out(
    frame: Tensor, ground: Tensor, masks: Tensor, theta: Tensor, removed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft masks alpha (N, M, 1, H, W), sheets of colour and alpha (N, M, 4, H, W) that are empty
    for removed objects, and the objects that move or are removed in each frame, (N, T, M) bool.

    The soft mask of an object is its mask, averaged over 3 x 3 px. Its colour, multiplied by alpha,
    is what the ground lacks of the frame: frame - (1 - alpha) ground. So where nothing moves,
    colour + (1 - alpha) ground is the frame again, however wrong alpha is. Arguments as of `carry`.
    """
    alpha = F.avg_pool2d(F.pad(masks, (1,) * 4, "replicate"), 3, 1)[:, :, None]  # (N, M, 1, H, W)
    colour = (frame[:, None] - (1 - alpha) * ground[:, None]) * (alpha > 0)
    sheets = torch.cat([colour, alpha], 2)  # (N, M, 4, H, W)
    moves = (theta != identity(theta)).flatten(3).any(3)  # (N, T, M)
    if removed is not None:
        sheets = sheets.masked_fill(removed[:, :, None, None, None], 0)
        moves = moves | removed[:, None]
    return alpha, sheets, moves


@torch.no_grad()
def carry(
    frame: Tensor,
    ground: Tensor,
    masks: Tensor,
    theta: Tensor,
    order: Tensor,
    removed: Tensor | None = None,
) -> Carried:
    """Moves objects with their pixels, the farthest first.

    Args:
        frame, ground: first frame with and without objects, (N, 3, H, W).
        masks, theta, order, removed: as of `LayeredGenerator`.
    """
    (N, _, H, W), T = masks.shape, theta.shape[1]
    alpha, sheets, moves = cut_out(frame, ground, masks, theta, removed)
    at = torch.arange(N, device=theta.device)[:, None]
    when = torch.arange(T, device=theta.device)[None]
    out = frame.new_zeros(N, T, 4, H, W)
    flow, touched = frame.new_zeros(N, T, 2, H, W), frame.new_zeros(N, T, 1, H, W)
    owned = torch.zeros_like(touched, dtype=torch.bool)
    for k in order.argsort(dim=2, stable=True).unbind(2):  # (N, T), the last of equals in front
        own = affine_flow(theta[at, when, k], (H, W))  # (N, T, 2, H, W)
        first = sheets[at, k]  # (N, T, 4, H, W)
        sheet = warp(first.flatten(0, 1), own.flatten(0, 1), "zeros").unflatten(0, (N, T))
        out = sheet + (1 - sheet[:, :, 3:]) * out
        hit = sheet[:, :, 3:] >= 0.5
        flow, owned = own.where(hit, flow), owned | hit
        both = torch.maximum(alpha[at, k], sheet[:, :, 3:])
        touched = torch.maximum(touched, both * moves[at, when, k][:, :, None, None, None])
    return Carried(out[:, :, :3], out[:, :, 3:], flow, owned, touched > 0)


class LayeredGenerator(nn.Module):
    """A scene, the motion of its objects and of the camera -> a video.

    Args:
        width: channels at full size.
        inner: channels of the innermost features of the scene.
        z_dim: width Z of the latent, from which a motion of the camera is drawn if none is given.
        steps: number of frames that this motion has; later frames keep its last speed.
        max_width: upper limit for the channels of a level.
        norm: normalisation layers: `batch` or, for small batches, `group`.
    """

    carry = staticmethod(carry)

    def __init__(
        self,
        width: int = 32,
        inner: int = 512,
        z_dim: int = 512,
        steps: int = 5,
        max_width: int = 512,
        norm: Norm = "batch",
    ):
        super().__init__()
        sizes = widths(width, DOWNS + 1, max_width)
        pairs = list(zip(sizes, sizes[1:], strict=False))
        self.first = same(3 + 1 + STUFF, width, 5, normed=False)
        self.downs = nn.ModuleList(down(a, b, norm) for a, b in pairs)
        self.ups = nn.ModuleList(up(b, a, norm) for a, b in reversed(pairs))
        self.fuses = nn.ModuleList(same(2 * a, a, normed=False) for a, _ in reversed(pairs))
        self.colour, self.follow = conv(width, 3), conv(width, 2)
        self.steps, self.pool = steps, nn.AdaptiveAvgPool2d(CORE)
        self.way = nn.Sequential(
            nn.Linear(z_dim + inner * math.prod(CORE), 128), leaky(), nn.Linear(128, 4 * steps)
        )
        self.repair = nn.Sequential(conv(5, 16), leaky(), conv(16, 16), leaky(), conv(16, 3))
        for last in (self.colour, self.follow, self.way[-1], self.repair[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.to(memory_format=torch.channels_last)

    def forward(
        self,
        frame: Tensor,
        labels: Tensor,
        masks: Tensor,
        theta: Tensor,
        order: Tensor,
        camera: Tensor,
        known: Tensor,
        z: Tensor,
        inner: Tensor,
        removed: Tensor | None = None,
    ) -> Layered:
        """Renders T frames. Not differentiable in the motion of the objects.

        Args:
            frame: first frame (N, 3, H, W) in [-1, 1], sides multiples of 16 px.
            labels: label maps (N, 21, H, W) of `label_maps`.
            masks: masks (N, M, H, W) of the objects in the first frame.
            theta: motions (N, T, M, 2, 3) of the objects.
            order: nearness (N, T, M): objects with larger values hide others.
            camera: motion of the ground (N, T, 2, 3), read where it is known.
            known: bool (N,), true if `camera` is known; elsewhere it is drawn from the latent.
            z: latent (N, Z) ~ N(0, I).
            inner: innermost features (N, C, .., ..) of the scene.
            removed: bool (N, M), objects that are taken out.
        """
        T, (H, W) = theta.shape[1], frame.shape[2:]
        m = margin(H)
        hole = F.max_pool2d(masks.amax(1, keepdim=True), 3, 1, 1)  # (N, 1, H, W)
        canvas, follow = self.fill(frame, labels, hole, m)
        free = self.free_camera(z, inner, T, H / W)
        with full_precision(frame.device):
            canvas, follow, inside = canvas.float(), follow.float(), (slice(None),) * 2
            inside += slice(m, m + H), slice(m, m + W)
            ground = canvas[inside]
            way = camera.where(known[:, None, None, None], free.float())
            flow = self.ground_flow(follow, way, m, (H, W))
            shown = F.pad(1 - hole, (m,) * 4)
            behind, shown = look(torch.cat([canvas, shown], 1), flow, m).split([3, 1], 2)
            objects = self.carry(frame, ground.detach(), masks, theta, order, removed)
            video = objects.colour + (1 - objects.alpha) * behind
            changed = objects.touched.flatten(0, 1).float()
            changed = F.max_pool2d(changed, REACH, 1, REACH // 2).unflatten(0, (-1, T)) > 0
            changed = changed | (flow != 0).any(2, keepdim=True)
            flow = objects.flow.where(objects.owned, flow)
            seen = objects.owned | (shown > 0.5)
            logits = HIDDEN * (2 * seen.to(flow.dtype) - 1)
        what = torch.cat([video, objects.alpha, shown], 2).flatten(0, 1)
        video = video + self.repair(what).unflatten(0, (-1, T)).to(video.dtype)
        return Layered(video.where(changed, frame[:, None]), flow, logits, ground)

    def fill(self, frame: Tensor, labels: Tensor, hole: Tensor, m: int) -> tuple[Tensor, Tensor]:
        """The ground on the canvas (N, 3, h, w), and by which share it follows the camera's shift
        and zoom (N, 2, h, w). Outside of `hole` and the margin of `m` px it is the frame."""
        open_ = F.pad(1 - hole, (m,) * 4)
        given = F.pad(frame, (m,) * 4)
        base = spread(given, open_)
        x = self.first(torch.cat([base, open_, F.pad(labels[:, :STUFF], (m,) * 4)], 1))
        seen = []
        for layer in self.downs:
            seen.append(x)
            x = layer(x)
        for layer, fuse in zip(self.ups, self.fuses, strict=True):
            x = fuse(torch.cat([layer(x), seen.pop()], 1))
        made = base + self.colour(x).to(base.dtype)
        return given.where(open_ > 0, made), 1 + self.follow(x)

    def free_camera(self, z: Tensor, inner: Tensor, steps: int, aspect: float) -> Tensor:
        """A motion (N, T, 2, 3) of the camera, shift, zoom and roll, from a latent."""
        x = self.pool(inner).flatten(1)
        x = self.way(torch.cat([z.to(x.dtype), x], 1)).unflatten(1, (4, self.steps))  # (N, 4, T)
        before = x[..., -2:-1] if self.steps > 1 else 0
        at = torch.arange(steps, device=x.device)
        own = at.clamp(max=self.steps - 1)
        x = x[..., own] + (at - own) * (x[..., -1:] - before)
        dx, dy, zoom, roll = (0.1 * x).unbind(1)
        rows = (1 + zoom, -roll * aspect, dx), (roll / aspect, 1 + zoom, dy)
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    @staticmethod
    def ground_flow(follow: Tensor, camera: Tensor, m: int, size: tuple[int, int]) -> Tensor:
        """The flow (N, T, 2, H, W) px of the ground; exactly 0 if the camera stands still.

        `follow` is a map of places in the first frame, so it is read where the flow points to.
        """
        shift = camera.clone()
        shift[..., :2] = identity(camera)[:, :2]
        parts = torch.stack([affine_flow(c, size) for c in (shift, camera)], 2)
        parts = torch.stack([parts[:, :, 0], parts[:, :, 1] - parts[:, :, 0]], 2)  # shift, zoom
        H, W = size
        here = follow[:, None, :, None, m : m + H, m : m + W]  # (N, 1, 2, 1, H, W)
        guess = (here * parts).sum(2).detach()
        return (look(follow, guess, m)[:, :, :, None] * parts).sum(2)


def spread(x: Tensor, open_: Tensor, levels: int = DOWNS) -> Tensor:
    """Fills the holes of images x (N, C, h, w), where `open_` (N, 1, h, w) is 0, smoothly.

    A hole gets the mean of what is near it: 2 x 2 px, or 4 x 4 where all of these are holes, ..,
    or the mean of the image. Push-pull, Gortler et al., "The Lumigraph", 1996. Sides are multiples
    of 2^levels.
    """
    if levels == 0:
        mean = (x * open_).sum((2, 3), keepdim=True) / open_.sum((2, 3), keepdim=True).clamp(min=1)
        return x.where(open_ > 0, mean)
    share = F.avg_pool2d(open_, 2)
    small = F.avg_pool2d(x * open_, 2) / share.clamp(min=0.25)
    small = spread(small, (share > 0).to(x.dtype), levels - 1)
    return x.where(open_ > 0, F.interpolate(small, scale_factor=2, mode="bilinear"))


def margin(height: int) -> int:
    """Width, px, of the margin of a canvas around an image."""
    n = height // STEP  # the nearest number of 64 px, of two the even one; exporters read integers
    return STEP * torch.sym_max(1, (n + 1 + n // 4 % 2) // 4)


def look(canvas: Tensor, flow: Tensor, m: int) -> Tensor:
    """Samples a canvas (N, C, h, w) at p + `flow` (N, T, 2, H, W) px: (N, T, C, H, W).

    p are the pixels of the image, which begins at (m, m) of the canvas. Where the flow is 0, values
    are exactly those of the canvas; beyond the canvas its border is repeated.
    """
    (h, w), (T, _, H, W) = canvas.shape[2:], flow.shape[1:]
    x = torch.arange(W, device=flow.device, dtype=flow.dtype) + m
    y = torch.arange(H, device=flow.device, dtype=flow.dtype)[:, None] + m
    grid = torch.stack(
        [(2 * (flow[:, :, 0] + x) + 1) / w - 1, (2 * (flow[:, :, 1] + y) + 1) / h - 1], -1
    ).flatten(1, 2)  # (N, T H, W, 2)
    out = F.grid_sample(canvas, grid, "bilinear", "border", align_corners=False)
    out = out.unflatten(2, (T, H)).transpose(1, 2)
    still = (flow == 0).all(2, keepdim=True)
    return canvas[:, None, :, m : m + H, m : m + W].where(still, out)

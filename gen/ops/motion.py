"""Geometry of motion: warping by flow, affine motion of objects, and visibility.

Pixels are (x, y) and the centre of the first one is (0, 0); normalised coordinates are those of
align_corners=True, x_n = 2 x / (W - 1) - 1. A flow is (u, v) = (x, y) in px and points back:
frame_t(p) = frame_0(p + flow_t(p)). A motion `theta` (2, 3) points back too: p_0 = theta [p_t, 1]
in normalised coordinates. A box is (x_c, y_c) normalised, w / W, h / H; all 0 if absent.

Letters in shapes: N batch, T steps after frame 0, M objects, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.devices import send

Size = tuple[int, int]  # H, W


# ---- flow ---------------------------------------------------------------------------------------


def warp(x: Tensor, flow: Tensor, padding: str = "border") -> Tensor:
    """Samples `x` (N, C, H, W) bilinearly at p + `flow` (N, 2, H, W) px: (N, C, H, W).

    Outside the image, the border is repeated; with `padding` zeros, values are 0. Own choice: zero
    flow returns `x`; in the release, grids and sampling differ by up to half a pixel. A flow
    (N, T, 2, H, W) gives T images of each `x`: (N, T, C, H, W).
    """
    if flow.ndim == 4:
        return warp(x, flow[:, None], padding)[:, 0]
    N, T, two, H, W = flow.shape
    if two != 2 or (N, H, W) != (x.shape[0], *x.shape[2:]):
        raise ValueError(
            f"flow: expected 2 maps of the size of x {tuple(x.shape)}, got {(*flow.shape,)}"
        )
    flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
    columns = torch.arange(W, device=x.device, dtype=flow.dtype)
    rows = torch.arange(H, device=x.device, dtype=flow.dtype)[:, None]
    # In pixels both conventions of grid_sample agree; this one is exact if H and W are powers of
    # two. The T grids are stacked vertically, so that `x` is not copied T times.
    u = (2 * (flow[:, :, 0] + columns) + 1) / W - 1  # (N, T, H, W)
    v = (2 * (flow[:, :, 1] + rows) + 1) / H - 1
    grid = torch.stack([u, v], -1).flatten(1, 2)  # (N, T H, W, 2)
    out = F.grid_sample(x, grid, "bilinear", padding, align_corners=False)  # (N, C, T H, W)
    return out.unflatten(2, (T, H)).transpose(1, 2)


def resize(x: Tensor, size: Size) -> Tensor:
    """Resizes maps (..., C, H, W) to `size` (h, w), bilinear."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    maps = F.interpolate(x.flatten(0, -4), size, mode="bilinear", align_corners=False)
    return maps.unflatten(0, x.shape[:-3])


def resize_flow(flow: Tensor, size: Size) -> Tensor:
    """Resizes a flow (..., 2, H, W) and its units: 8 px at size 256 are 1 px at size 32."""
    (h, w), (H, W) = size, flow.shape[-2:]
    u, v = resize(flow, size).unbind(-3)
    return torch.stack([u * (w / W), v * (h / H)], -3)


def splat_coverage(flow: Tensor) -> Tensor:
    """Coverage of each pixel after all pixels follow a forward flow: 1 covered, 0 a hole.

    Each p adds its four bilinear weights to the neighbours of p + flow(p) inside the image.
    `flow` (N, 2, H, W) px -> (N, 1, H, W) in [0, 1]. Deterministic on a CPU.
    """
    N, _, H, W = flow.shape
    x = flow[:, 0] + torch.arange(W, device=flow.device)
    y = flow[:, 1] + torch.arange(H, device=flow.device)[:, None]
    x, y = x.clamp(-2, W + 1), y.clamp(-2, H + 1)  # enough to be outside
    left, top = x.floor(), y.floor()
    total = flow.new_zeros(N, H * W)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = left + dx, top + dy
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs())  # (N, H, W)
        inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
        index = (row * W + column).where(inside, 0).long()
        total.scatter_add_(1, index.flatten(1), (weight * inside).flatten(1))
    return total.clamp_(max=1).view(N, 1, H, W)


# ---- affine motion ------------------------------------------------------------------------------


def identity(theta: Tensor) -> Tensor:
    """The identity motion (2, 3), with dtype and device of `theta`."""
    return torch.eye(2, 3, dtype=theta.dtype, device=theta.device)


def affine_flow(theta: Tensor, size: Size) -> Tensor:
    """Motions (..., 2, 3) -> flow (..., 2, H, W) px; exactly 0 for the identity."""
    H, W = size
    a = (theta - identity(theta))[..., None, None]  # (..., 2, 3, 1, 1)
    at = dict(dtype=theta.dtype, device=theta.device)
    x, y = ((2 * torch.arange(n, **at) - (n - 1)) / (n - 1) for n in (W, H))  # -1 .. 1
    y = y[:, None]
    u, v = (a[..., 0, :, :] * x + a[..., 1, :, :] * y + a[..., 2, :, :]).unbind(-3)  # (..., H, W)
    return torch.stack([u * ((W - 1) / 2), v * ((H - 1) / 2)], -3)


def about_centres(theta: Tensor, boxes: Tensor) -> Tensor:
    """Motions (..., T, M, 2, 3) relative to the centres c of boxes (..., M, 4) of frame 0.

    [A | t] of p_0 = A p_t + t becomes [A | d], d = t + (A - I) c: p_0 - c = A (p_t - c) + d.
    """
    rest = theta - identity(theta)
    shift = rest[..., 2:] + rest[..., :2] @ boxes[..., None, :, :2, None]
    return torch.cat([theta[..., :2], shift], -1)


def invert(theta: Tensor) -> Tensor:
    """Inverse of motions (..., 2, 3): p_t = invert(theta) [p_0, 1]. The ratio of areas is clamped
    to at least 1/100."""
    (a, b, t), (c, d, s) = (row.unbind(-1) for row in theta.unbind(-2))
    area = a * d - b * c
    area = area.abs().clamp(min=0.01) * (1 - 2 * (area < 0).to(area.dtype))
    a, b, c, d = d / area, -b / area, -c / area, a / area
    rows = (a, b, -(a * t + b * s)), (c, d, -(c * t + d * s))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def compose(a: Tensor, b: Tensor) -> Tensor:
    """Motions a after b, (..., 2, 3) each: p -> a [b [p, 1], 1]."""
    return torch.cat([a[..., :2] @ b[..., :2], a[..., :2] @ b[..., 2:] + a[..., 2:]], -1)


def theta_from_boxes(boxes: Tensor) -> Tensor:
    """Motions (..., T, M, 2, 3) that map boxes (..., T + 1, M, 4) back to frame 0.

    s = size_0 / size_t, t = c_0 - s c_t; the identity if an object is absent in either frame.
    """
    first, later = boxes[..., :1, :, :], boxes[..., 1:, :, :]
    known = ((first[..., 2:] > 0) & (later[..., 2:] > 0)).all(-1, keepdim=True)
    s = (first[..., 2:] / later[..., 2:]).where(known, 1)  # (..., T, M, 2)
    t = (first[..., :2] - s * later[..., :2]).where(known, 0)
    return torch.cat([torch.diag_embed(s), t[..., None]], -1)


def move_boxes(boxes: Tensor, theta: Tensor) -> Tensor:
    """Boxes (..., M, 4) of frame 0 after motions (..., T, M, 2, 3): (..., T, M, 4).

    Exact without rotation; with rotation, the size is that of the unrotated box.
    """
    forth, boxes = invert(theta), boxes.unsqueeze(-3)
    centre = (forth[..., :2] @ boxes[..., :2, None])[..., 0] + forth[..., 2]
    size = boxes[..., 2:] * torch.linalg.vector_norm(forth[..., :2], dim=-2)
    return torch.cat([centre, size.expand_as(centre)], -1)


def nearness(boxes: Tensor, theta: Tensor) -> Tensor:
    """Bottom edge of each object in each frame (..., T, M): on the ground, lower is nearer."""
    moved = move_boxes(boxes, theta)
    return moved[..., 1] + moved[..., 3]


# ---- objects as maps ----------------------------------------------------------------------------


def object_masks(instance: Tensor, count: int) -> Tensor:
    """Map (N, H, W) with k + 1 on object k -> float masks (N, M = `count`, H, W)."""
    numbers = torch.arange(1, count + 1, device=instance.device)
    return (instance[:, None] == numbers[:, None, None]).float()


@torch.no_grad()
def rasterise(masks: Tensor, theta: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Renders the motion of objects as maps; pixels without objects have flow 0 and are visible.

    Args:
        masks: masks (N, M, H, W) of the objects in frame 0, 1 inside, all 0 for absent ones.
        theta: motions (N, T, M, 2, 3) of the objects.
        order: nearness (N, T, M), see `nearness`: objects with larger values hide others.

    Returns:
        flow: flow (N, T, 2, H, W) px of the objects in frame t.
        owner: map (N, T, H, W) int64 with k + 1 on object k in frame t, 0 without an object.
        visible: map (N, T, 1, H, W), 0 where an object left and none arrived: a hole in the
            coverage of the objects' forward motion.
    """
    N, M, H, W = masks.shape
    T = theta.shape[1]
    if theta.shape != (N, T, M, 2, 3) or order.shape != (N, T, M):
        raise ValueError(
            f"expected theta (N, T, M, 2, 3) and order (N, T, M) of N, M = {N}, {M}, got "
            f"{tuple(theta.shape)} and {tuple(order.shape)}"
        )
    flow = masks.new_zeros(N, T, 2, H, W)
    forth = torch.zeros_like(flow)
    nearest = masks.new_full((N, T, H, W), -torch.inf)
    owner = torch.zeros(N, T, H, W, dtype=torch.int64, device=masks.device)
    back = invert(theta)
    for m in range(M):
        own = affine_flow(theta[:, :, m], (H, W))  # (N, T, 2, H, W)
        depth = order[:, :, m, None, None].to(masks.dtype)
        hit = (warp(masks[:, m, None], own, "zeros")[:, :, 0] >= 0.5) & (depth >= nearest)
        nearest, owner = depth.where(hit, nearest), owner.masked_fill(hit, m + 1)
        flow = own.where(hit[:, :, None], flow)
        inside = masks[:, m, None, None] >= 0.5  # (N, 1, 1, H, W)
        forth = affine_flow(back[:, :, m], (H, W)).where(inside, forth)
    covered = splat_coverage(forth.flatten(0, 1)).unflatten(0, (N, T)) > 0.5
    return flow, owner, (covered | (owner > 0)[:, :, None]).to(masks.dtype)


# ---- the camera ---------------------------------------------------------------------------------


def fit_camera(flow: Tensor, weight: Tensor) -> Tensor:
    """Fits shift and zoom of the whole image (N, T, 2, 3) to a given flow.

    Least squares over pixels: `flow` (N, T, 2, H, W) px, `weight` (N, T, 1, H, W) >= 0. The
    identity if all weights are 0.
    """
    H, W = flow.shape[-2:]
    half = send(torch.tensor([(W - 1) / 2, (H - 1) / 2]), flow)
    x, y = (torch.arange(n, device=flow.device) - (n - 1) / 2 for n in (W, H))
    at = torch.stack([x.expand(H, W), y[:, None].expand(H, W)]).to(flow)  # px from the centre
    share = weight / weight.sum((-2, -1), keepdim=True).clamp(min=1e-6)  # (N, T, 1, H, W)
    here, moved = ((share * v).sum((-2, -1), keepdim=True) for v in (at, flow))  # means
    spread = (share * (at - here).square()).sum((-3, -2, -1)).clamp(min=1e-6)  # (N, T)
    zoom = (share * (at - here) * (flow - moved)).sum((-3, -2, -1)) / spread
    shift = (moved - zoom[..., None, None, None] * here)[..., 0, 0] / half  # (N, T, 2)
    s = (1 + zoom)[..., None].expand_as(shift)
    return torch.cat([torch.diag_embed(s), shift[..., None]], -1)


def with_camera(
    flow: Tensor, owner: Tensor, visible: Tensor, masks: Tensor, camera: Tensor, known: Tensor
) -> tuple[Tensor, Tensor]:
    """Adds a known motion of the camera to flow and visibility of `rasterise`.

    Pixels without objects get the flow of `camera` (N, T, 2, 3). They are visible if they come from
    inside frame 0 and not from behind an object (`masks`). Samples not `known` (N,) stay unchanged.
    """
    own = affine_flow(camera, tuple(flow.shape[-2:]))
    free = 1 - masks.amax(1, keepdim=True)  # (N, 1, H, W)
    open_ = (warp(free, own, "zeros") >= 0.5).to(visible.dtype)
    rest = ((owner == 0) & known[:, None, None, None])[:, :, None]
    return own.where(rest, flow), open_.where(rest, visible)

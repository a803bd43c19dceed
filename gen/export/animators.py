"""Graph of an animator: a frame, its masks and the motion that a user gives -> frames.

Letters in shapes: N batch, T frames after the first, M objects, H height, W width, Z, O latents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gen import viz
from gen.export.graph import Graph, Run, images, normal, swapped
from gen.inference import dragging, scenes
from gen.networks.click_to_move.animator import Animator, Motion, Scene
from gen.networks.click_to_move.layers import Carried, LayeredGenerator, cut_out
from gen.ops.motion import affine_flow, invert, splat_coverage, warp

ON_PAGE = ("animate",)  # graphs of the page without a server
CLEAR = 1e-7  # share of the light that passes an opaque object: its logarithm is finite
SCENES = (0, 1, 2, 3, 4, 5)  # of the test split of Movers


def rasterise_at_once(masks: Tensor, theta: Tensor, order: Tensor) -> tuple[Tensor, ...]:
    """`gen.ops.motion.rasterise` of all objects at once, for any number of them.

    It takes M times the memory. Masks of one frame must not overlap.
    """
    N, M, H, W = masks.shape
    T = theta.shape[1]
    own = affine_flow(theta, (H, W))  # (N, T, M, 2, H, W)
    flows = own.transpose(1, 2).flatten(0, 1)  # (N M, T, 2, H, W)
    moved = warp(masks.flatten(0, 1)[:, None], flows, "zeros")  # (N M, T, 1, H, W)
    hit = (moved[:, :, 0] >= 0.5).unflatten(0, (N, M)).transpose(1, 2)  # (N, T, M, H, W)
    depth = order[..., None, None].to(masks.dtype)
    nearest = depth.where(hit, -torch.inf).amax(2, keepdim=True)
    numbers = torch.arange(1, M + 1)[:, None, None]
    owner = numbers.where(hit & (depth >= nearest), 0).amax(2)  # (N, T, H, W), last of equals
    flow = own.where((owner[:, :, None] == numbers)[:, :, :, None], 0).sum(2)
    forth = affine_flow(invert(theta), (H, W)).where(masks[:, None, :, None] >= 0.5, 0).sum(2)
    covered = splat_coverage(forth.flatten(0, 1)).unflatten(0, (N, T)) > 0.5
    return flow, owner, (covered | (owner > 0)[:, :, None]).to(masks.dtype)


def carry_at_once(
    frame: Tensor,
    ground: Tensor,
    masks: Tensor,
    theta: Tensor,
    order: Tensor,
    removed: Tensor | None = None,
) -> Carried:
    """`gen.networks.click_to_move.layers.carry` of all objects at once, for any number of them.

    It takes twice the time and M times the memory.
    """
    N, M, H, W = masks.shape
    alpha, sheets, moves = cut_out(frame, ground, masks, theta, removed)
    own = affine_flow(theta, (H, W))  # (N, T, M, 2, H, W)
    sheets = warp(sheets.flatten(0, 1), own.transpose(1, 2).flatten(0, 1), "zeros")
    sheets = sheets.unflatten(0, (N, M)).transpose(1, 2)  # (N, T, M, 4, H, W)
    touched = torch.maximum(alpha[:, None], sheets[:, :, :, 3:]) * moves[..., None, None, None]
    order = order + 1e-6 * torch.arange(M)  # the last of equals is in front
    near = order.argsort(2, descending=True)[..., None, None, None]  # the nearest first
    rank = near.argsort(2)  # (N, T, M, 1, 1, 1)
    covers = sheets[:, :, :, 3:]  # (N, T, M, 1, H, W)
    clear = (1 - covers).clamp(min=CLEAR).log().gather(2, near.expand_as(covers))
    passed = (clear.cumsum(2) - clear).exp().gather(2, rank.expand_as(covers))
    out = (sheets * passed).sum(2)  # what nearer objects let pass
    hit = covers >= 0.5
    first = rank.where(hit, M)
    first = hit & (first == first.amin(2, keepdim=True))
    flow, owned = own.where(first, 0).sum(2), hit.any(2)
    return Carried(out[:, :, :3], out[:, :, 3:], flow, owned, touched.amax(2) > 0)


class Exportable(Animator):
    """An animator that moves any number of objects without a loop over them."""

    rasterise = staticmethod(rasterise_at_once)


class ExportableLayers(LayeredGenerator):
    """Layers that carry any number of objects without a loop over them."""

    carry = staticmethod(carry_at_once)


EXPORTABLE = {Animator: Exportable, LayeredGenerator: ExportableLayers}


class Animate(nn.Module):
    """The inputs of `graphs` -> the fields of `gen.networks.click_to_move.animator.Animation`.

    An object that is not `present` is removed from the image.
    """

    def __init__(self, method):
        super().__init__()
        net = method.ema.module["animator"]
        self.net = swapped(net, EXPORTABLE, ["posterior"])

    def forward(
        self,
        frame: Tensor,
        semantic: Tensor,
        instance: Tensor,
        boxes: Tensor,
        classes: Tensor,
        present: Tensor,
        user: Tensor,
        theta: Tensor,
        z: Tensor,
        object_z: Tensor,
        known: Tensor | None = None,
        camera: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        if known is None:
            known, camera = torch.zeros_like(present[:, 0]), theta[:, :, 0]
        scene = Scene(frame, semantic, instance, boxes, classes, classes, present)
        motion = Motion(user, theta, known, camera, removed=~present)
        return tuple(self.net(scene, motion, z, object_z))


def graphs(method) -> list[Graph]:
    """The graph `animate`; see `Scene` and `Motion` for its inputs.

    The number of objects is free. Numbers of frames and the sizes are fixed: the latent has a code
    for each frame, and the method takes one size.
    """
    h, (T, H, W) = method.hparams, method.shape
    inputs = {
        "frame": f"N 3 {H} {W}",
        "semantic": f"N {H} {W}",
        "instance": f"N {H} {W}",
        "boxes": "N M 4",
        "classes": "N M",
        "present": "N M",
        "user": "N M",
        "theta": f"N {T} M 2 3",
        "z": f"N {h.z_dim}",
        "object_z": f"N M {T} {h.object_z_dim}",
    }
    if h.camera:
        inputs |= {"known": "N", "camera": f"N {T} 2 3"}
    outputs = {
        "video": f"N {T} 3 {H} {W}",
        "flow": f"N {T} 2 {H} {W}",
        "visible": f"N {T} 1 {H} {W}",
        "theta_out": f"N {T} M 2 3",
        "boxes_out": f"N {T} M 4",
    }

    def draw(rng: torch.Generator, n: dict[str, int]) -> dict[str, Tensor]:
        N, M = n["N"], n["M"]
        classes = torch.randint(11, 19, (N, M), generator=rng)
        semantic = torch.randint(11, (N, 1, 1), generator=rng).repeat(1, H, W)
        instance, boxes = torch.zeros_like(semantic), torch.zeros(N, M, 4)
        for m in range(M):  # in columns of their own
            left, right = m * W // M, max(m * W // M + 1, (m + 1) * W // M - 1)
            top, bottom = H // 3, H // 3 + max(1, H // 4)
            instance[:, top:bottom, left:right] = m + 1
            semantic[:, top:bottom, left:right] = classes[:, m, None, None]
            boxes[:, m] = torch.tensor([
                (left + right - 1) / (W - 1) - 1, (top + bottom - 1) / (H - 1) - 1,
                (right - left) / W, (bottom - top) / H,
            ])  # fmt: skip
        one = torch.eye(2, 3)
        return {
            "frame": images(rng, N, 3, H, W),
            "semantic": semantic,
            "instance": instance,
            "boxes": boxes,
            "classes": classes,
            "present": torch.ones(N, M, dtype=torch.bool),
            "user": torch.rand(N, M, generator=rng) < 0.5,
            "theta": one + 0.05 * normal(rng, N, T, M, 2, 3),
            "z": normal(rng, N, h.z_dim),
            "object_z": normal(rng, N, M, T, h.object_z_dim),
            "known": torch.rand(N, generator=rng) < 0.5,
            "camera": one + 0.05 * normal(rng, N, T, 2, 3),
        }

    return [Graph("animate", Animate(method), inputs, outputs, draw)]


def inputs(method, scene: Scene, motion: Motion, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of `animate` for scenes, see `gen.inference.dragging`."""
    z, object_z = method.latents(tuple(scene.present.shape), seed)
    given = {name: getattr(scene, name) for name in scene._fields if name != "ids"}
    given |= {
        "present": motion.left(scene),
        "user": motion.user,
        "theta": motion.theta,
        "z": z,
        "object_z": object_z,
    }
    return given | (
        {"known": motion.known, "camera": motion.camera} if method.hparams.camera else {}
    )


def pictures(method, run: Run, count: int) -> Tensor:
    """Frames (count T, 3, H, W) of drawn scenes, in each of which the user moves an object."""
    T, H, W = method.shape
    made = []
    for number in range(count):
        still = scenes.drawn(number, (H, W), T + 1)
        scene = dragging.scene(still.frame, still.semantic, still.instance)
        first = int(scene.ids[0, 0])
        ask = dragging.Request((dragging.Drag(first, ((0.0, 0.0), (W / 10, 0.0))),), seed=number)
        given = inputs(method, scene, dragging.motion(ask, scene, T), number)
        made.append(run("animate", given)["video"][0])
    return torch.cat(made)


def page(method) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Contents of the tab: drawn scenes with boxes, maps as bytes (N, H, W), and a first drag."""
    h, (T, H, W) = method.hparams, method.shape
    scenes_, maps = [], []
    for number in SCENES:
        still = scenes.drawn(number, (H, W), T + 1)
        one = dragging.scene(still.frame, still.semantic, still.instance)
        here = one.present[0]
        first = int(one.boxes[0, here, 0].argmin())  # from the left to the right
        scenes_.append(dict(
            boxes=one.boxes[0, here].tolist(), classes=one.classes[0, here].tolist(),
            drag=[first, [[0, 0], [round(0.3 * W), 0]]],
        ))  # fmt: skip
        labels = (x.numpy().astype(np.uint8) for x in (one.semantic[0], one.instance[0]))
        maps.append((viz.to_uint8(still.frame), *labels))
    about = dict(steps=T, size=[H, W], latent=h.z_dim, object=h.object_z_dim, scenes=scenes_)
    stacked = (np.stack(part) for part in zip(*maps, strict=True))
    names = "frames", "semantic", "instance"
    return about | {"camera": bool(h.camera)}, dict(zip(names, stacked, strict=True))

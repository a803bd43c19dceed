"""Graph of an animator: a frame, its masks and the motion that a user gives -> frames.

Letters in shapes: N batch, T frames after the first, M objects, H height, W width, Z, O latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from gen import viz
from gen.export.graph import Graph, Run, images, normal, swapped
from gen.inference import dragging, scenes
from gen.networks.click_to_move.animator import Animator, Motion, Scene
from gen.networks.click_to_move.encoders import label_maps
from gen.networks.click_to_move.layers import STEP, Carried, LayeredGenerator, cut_out
from gen.networks.click_to_move.rolling import roll_on
from gen.ops.motion import (
    affine_flow,
    compose,
    identity,
    invert,
    move_boxes,
    splat_coverage,
    warp,
)

ON_PAGE = ("animate",)  # graphs of the page without a server
CLEAR = 1e-7  # share of the light that passes an opaque object: its logarithm is finite
FREE = TorchVersion(torch.__version__) >= (2, 14)  # older exporters cannot free sizes and frames
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


def roll_by_scan(
    predict: Callable[[Tensor, Motion, Tensor], Tensor],
    boxes: Tensor,
    motion: Motion,
    object_z: Tensor,
    steps: int,
    speeds: bool,
) -> Tensor:
    """`gen.networks.click_to_move.rolling.roll_on`, exported as one operator for any clip length.

    One part more than needed is predicted, because exporters take a single part for a constant.
    """
    if not torch.compiler.is_exporting():
        return roll_on(predict, boxes, motion, object_z, steps, speeds)
    from torch._higher_order_ops.scan import scan

    T = motion.theta.shape[1]
    number = torch.arange((T - 1) // steps + 2)[:, None]  # of the part
    at = (number * steps + torch.arange(steps)).clamp(max=T - 1)  # (parts, steps)
    theta, camera = (x[:, at].movedim(1, 0) for x in (motion.theta, motion.camera))
    still = identity(boxes) + boxes.new_zeros(*boxes.shape[:2], 2, 3)
    centres = boxes[..., :2]
    begin = still, still[:, 0].clone(), boxes.clone(), centres * torch.nan, centres.clone()

    def part(state: tuple[Tensor, ...], given: tuple[Tensor, ...]) -> tuple:
        begin, camera, place, past, centre = state
        theta, way, z = given
        asked = motion._replace(
            theta=compose(invert(begin)[:, None], theta),
            camera=compose(invert(camera)[:, None], way),
            past=past if speeds else None,
        )
        theta = compose(begin[:, None], predict(place, asked, z))
        moved = move_boxes(boxes, theta)  # (N, steps, M, 4)
        before = torch.cat([centre[:, None], moved[..., :2]], 1)[:, -2]
        centre = moved[:, -1, :, :2].clone()
        ends = theta[:, -1].clone(), way[:, -1].clone(), moved[:, -1].clone()
        return (*ends, centre - before, centre), theta.clone()

    parts = scan(part, begin, (theta, camera, object_z[:, :, at].movedim(2, 0)))[1]
    frame = torch.arange(T)
    return parts[frame // steps, :, frame % steps].movedim(0, 1)  # (N, T, M, 2, 3)


class Exportable(Animator):
    """An animator without loops over objects; in layers, of any sides and number of frames."""

    rasterise, roll_on = staticmethod(rasterise_at_once), staticmethod(roll_by_scan)
    predict = Animator.predicted  # torch.export cannot save a scan within autocast

    def rolls(self, steps: int) -> bool:
        return self.layered and FREE and torch.compiler.is_exporting() or super().rolls(steps)

    def features(self, scene: Scene) -> list[Tensor]:
        """As of `Animator`, without checks; only of the levels that layers read, of their sizes."""
        if not self.layered:
            return super().features(scene)
        step, (H, W) = 2 ** len(self.appearance.downs), scene.frame.shape[2:]
        rows, columns = (
            torch.arange((n + step - 1) // step * step).clamp(max=n - 1) for n in (H, W)
        )
        maps = label_maps(scene.semantic, scene.instance)
        found = self.appearance(*(x[:, :, rows][..., columns] for x in (scene.frame, maps)))
        found[1] = found[1][:, :, torch.arange(H // 4)][..., torch.arange(W // 4)]
        return found


class PoolByProduct(nn.AdaptiveAvgPool2d):
    """Means over parts of an image of any size, as two products of matrices."""

    def forward(self, x: Tensor) -> Tensor:
        shares = []
        for n, k in zip(x.shape[2:], self.output_size, strict=True):
            at, part = torch.arange(n), torch.arange(k)[:, None]
            inside = ((at >= part * n // k) & (at < ((part + 1) * n + k - 1) // k)).to(x.dtype)
            shares.append(inside / inside.sum(1, keepdim=True))  # (k, n)
        return shares[0] @ x @ shares[1].mT


class ExportableLayers(LayeredGenerator):
    """Layers that carry any number of objects without a loop over them."""

    carry = staticmethod(carry_at_once)


EXPORTABLE = {
    Animator: Exportable,
    LayeredGenerator: ExportableLayers,
    nn.AdaptiveAvgPool2d: PoolByProduct,
}


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

    The number of objects is free; in layers, also that of frames, and sides that are multiples of
    16 px. Otherwise the latent has a code for each frame, and the networks take one size.
    """
    h, (T, H, W) = method.hparams, method.shape
    own: dict[str, tuple[int, int]] = {}
    if h.generator == "layered" and FREE:
        least = max(2, 2**h.levels // STEP + 1)  # so that the innermost features have 2 px
        own = {"T": (2, T), "H": (least, H // STEP), "W": (least, W // STEP)}
        T, H, W = "T", f"{STEP}H", f"{STEP}W"
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
        T, H, W = (n["T"], STEP * n["H"], STEP * n["W"]) if own else method.shape
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

    return [Graph("animate", Animate(method), inputs, outputs, draw, own)]


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

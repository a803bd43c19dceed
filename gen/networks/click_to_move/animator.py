"""The networks of Click to Move that make a video, as one.

Source: Ardino et al., "Click to Move: Controlling Video Generation with Sparse Motion", ICCV 2021.
Its parts are in `click_to_move`, `object_graph` and `frame_generator`. Own choice: the camera. In
the release its motion is hidden in the latent. Here a known one fills the flow of the objects where
no object is, a Linear of it replaces the half of the latent that is for stuff, and the graph hears
of it; all other layers, and their sizes, are the same without it.

Letters in shapes: N batch, T frames after the first, M objects (padded), Z, O latents, H height,
W width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from gen.devices import full_precision, send
from gen.networks.click_to_move import encoders as parts
from gen.networks.click_to_move.frame_generator import FeatureWarpGenerator, SpadeGenerator, blend
from gen.networks.click_to_move.object_graph import UNIT, ObjectGraph
from gen.ops.motion import (
    fit_camera,
    identity,
    move_boxes,
    nearness,
    object_masks,
    rasterise,
    with_camera,
)

GENERATORS = {"warp": FeatureWarpGenerator, "spade": SpadeGenerator}


class Scene(NamedTuple):
    """The first frames of clips, and their objects, sorted by id; see `gen.data.clips.Clips`."""

    frame: Tensor  # (N, 3, H, W) in [-1, 1]
    semantic: Tensor  # (N, H, W) int64
    instance: Tensor  # (N, H, W) int64, k + 1 of object k, 0: none
    boxes: Tensor  # (N, M, 4)
    classes: Tensor  # (N, M) int64
    ids: Tensor  # (N, M) int64
    present: Tensor  # (N, M) bool

    @classmethod
    def of(cls, clips: dict[str, Tensor]) -> Scene:
        """Makes the scenes of a batch of clips; objects not shown in the first frame are absent."""
        video, semantic, instance, boxes = (
            clips[name][:, 0] for name in ("video", "semantic", "instance", "boxes")
        )
        present = clips["present"] & (boxes[..., 2] > 0)
        return cls(video, semantic, instance, boxes, clips["classes"], clips["ids"], present)


class Motion(NamedTuple):
    """The known motion in scenes. It points back: p_0 = theta [p_t, 1], normalised."""

    user: Tensor  # (N, M) bool, who is moved by the user; one who stays is moved by the identity
    theta: Tensor  # (N, T, M, 2, 3), how; others are not read
    known: Tensor  # (N,) bool, whether the motion of the camera is known, too
    camera: Tensor  # (N, T, 2, 3), that of the background


class Animation(NamedTuple):
    """Frames after the first, and what is behind them."""

    video: Tensor  # (N, T, 3, H, W) in [-1, 1]
    flow: Tensor  # (N, T, 2, H, W) px, back to the first frame
    visible: Tensor  # (N, T, 1, H, W) logits of what can be seen there
    theta: Tensor  # (N, T, M, 2, 3), the motion of the objects, back
    boxes: Tensor  # (N, T, M, 4), where they are


GROUND = (0, 1, 9)  # trainIds of road, pavement and terrain


def true_camera(clips: dict[str, Tensor]) -> Tensor:
    """The motion of the ground in a batch of clips: shift and zoom (N, T, 2, 3) nearest to it.

    A user who moves the camera means what objects stand on; what is farther away moves less. All
    that is no object counts where less than 1 % of the pixels show ground.
    """
    shown = clips["visible"] * (clips["instance"][:, 1:, None] == 0)  # (N, T, 1, H, W)
    semantic = clips["semantic"][:, 1:, None]
    ground = shown * torch.isin(semantic, send(torch.tensor(GROUND), semantic))
    enough = ground.mean((2, 3, 4), keepdim=True) > 0.01
    return fit_camera(clips["flow"], ground.where(enough, shown))


class Animator(nn.Module):
    """A scene, what is known of its motion, and latents -> a video.

    Args:
        channels, levels, max_channels, norm: arguments of `AppearanceEncoder`.
        generator: network that makes the frames: `warp` moves features of the first frame along the
            flow, `spade` steers a decoder by SPADE layers.
        blocks: number of residual blocks in the generator.
        residual: add the predicted flow to the flow of the objects, and mix frames with the warped
            first frame; false makes flow and frames from nothing, as released.
        graph_dim, edges: arguments of `ObjectGraph`.
        feature_dim: width F of the code of an object.
        z_dim: width Z of the latent of a clip; first half for stuff, second half for things.
        object_z_dim: width O of the latent of an object in one frame.
        steps: number of frames that have codes of their own, see `LatentCode`.
        camera: let the motion of the camera be told.
    """

    def __init__(
        self,
        channels: int = 32,
        levels: int = 6,
        max_channels: int = 512,
        norm: parts.Norm = "batch",
        generator: Literal["warp", "spade"] = "warp",
        blocks: int = 4,
        residual: bool = True,
        graph_dim: int = 512,
        edges: bool = True,
        feature_dim: int = 128,
        z_dim: int = 1024,
        object_z_dim: int = 1024,
        steps: int = 5,
        camera: bool = True,
    ):
        super().__init__()
        if levels < 2 or z_dim < 2 or z_dim % 2:
            raise ValueError(
                f"expected levels >= 2 and an even z_dim (stuff, things), got {levels} and {z_dim}"
            )
        sizes = channels, levels, max_channels
        self.appearance = parts.AppearanceEncoder(*sizes, feature_dim, norm)
        self.posterior = parts.Posterior(*sizes, z_dim, norm)
        self.graph = ObjectGraph(feature_dim, object_z_dim, graph_dim, edges=edges, camera=camera)
        self.latent = parts.LatentCode(*sizes, z_dim, steps)
        self.sparse = parts.SparseEncoder(*sizes, norm)
        self.decoder = parts.DenseDecoder(*sizes, norm, residual)
        options = dict(blocks=blocks, max_width=max_channels, norm=norm)
        self.generator = GENERATORS[generator](channels, **options)
        self.camera = nn.Linear(3, z_dim // 2) if camera else None
        self.residual = residual

    def forward(self, scene: Scene, motion: Motion, z: Tensor, object_z: Tensor) -> Animation:
        """`z` (N, Z) and `object_z` (N, M, T, O), ~ N(0, I)."""
        features = self.features(scene)
        theta = self.predict(scene, features, motion, object_z)
        return self.render(scene, features, motion, theta, z)

    def features(self, scene: Scene) -> list[Tensor]:
        """The features that `AppearanceEncoder` sees in a scene."""
        maps = parts.label_maps(scene.semantic, scene.instance)
        return self.appearance(scene.frame, maps)

    def predict(
        self, scene: Scene, features: list[Tensor], motion: Motion, object_z: Tensor
    ) -> Tensor:
        """The motion of all objects (N, T, M, 2, 3); the user's comes back bit by bit."""
        with full_precision(object_z.device):  # motions are small numbers
            codes = self.appearance.objects([f.float() for f in features], scene.boxes)
            given = (scene.boxes, scene.classes, codes, scene.present)
            told = motion.user, motion.theta, object_z, motion.camera, motion.known
            return self.graph(*given, *told)

    def encode(self, clips: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and log variance (N, Z) of the latents of whole clips."""
        maps = parts.label_maps(clips["semantic"], clips["instance"])
        return self.posterior(clips["video"], maps, clips["flow"], clips["visible"])

    def render(
        self, scene: Scene, features: list[Tensor], motion: Motion, theta: Tensor, z: Tensor
    ) -> Animation:
        """The video in which all objects move by `theta`; of `motion` the camera is read.

        Not differentiable in `theta`.
        """
        with full_precision(z.device):
            theta = theta.detach()
            masks = object_masks(scene.instance, theta.shape[2])
            flow, owner, visible = rasterise(masks, theta, nearness(scene.boxes, theta))
            if self.camera is not None:
                way = motion.camera, motion.known
                flow, visible = with_camera(flow, owner, visible, masks, *way)
                end = UNIT * (motion.camera - identity(theta))[:, -1]  # (N, 2, 3)
                told = self.camera(torch.stack([end[:, 0, 0], end[:, 0, 2], end[:, 1, 2]], 1))
                stuff, things = z.float().chunk(2, 1)
                z = torch.cat([told.where(motion.known[:, None], stuff), things], 1)
            boxes = move_boxes(scene.boxes, theta)
        codes = self.latent(z, features[-1], theta.shape[1])
        dense, logits = self.decoder(codes, features, self.sparse(flow), flow, visible)
        seen = logits.sigmoid()
        video = self.generator(scene.frame, dense, seen)
        if self.residual:
            video = blend(video, scene.frame, dense, seen)
        return Animation(video, dense, logits, theta, boxes)

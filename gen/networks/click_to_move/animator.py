"""The generator of Click to Move: all networks that make a video, as one module.

Source: Ardino et al., "Click to Move: Controlling Video Generation with Sparse Motion", ICCV 2021.
Its parts are in `encoders`, `object_graph` and `frame_generator`. Own choice: the camera. In the
release the latent contains its motion. Here a known camera motion gives the flow where no object
is, a Linear of it replaces the stuff half of the latent, and it is an input of the graph. All other
layers and their sizes do not depend on the camera.

Letters in shapes: N batch, T frames after the first, M objects (padded), Z, O latents, H height,
W width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.devices import full_precision, send
from gen.networks.click_to_move import encoders as parts
from gen.networks.click_to_move.frame_generator import FeatureWarpGenerator, SpadeGenerator, blend
from gen.networks.click_to_move.layers import STEP, LayeredGenerator
from gen.networks.click_to_move.object_graph import UNIT, ObjectGraph
from gen.networks.click_to_move.rolling import roll_on
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

    user: Tensor  # (N, M) bool, objects that the user moves; pinned ones move by the identity
    theta: Tensor  # (N, T, M, 2, 3) motion of these objects; others are not read
    known: Tensor  # (N,) bool, true if the motion of the camera is known, too
    camera: Tensor  # (N, T, 2, 3) motion of the background
    past: Tensor | None = None  # (N, M, 2) steps from the frame before, normalised; NaN: unknown
    confidence: Tensor | None = None  # (N, M) in [0, 1] of the user's motion; None: 1
    removed: Tensor | None = None  # (N, M) bool, objects that the user takes out of the scene

    def left(self, scene: Scene) -> Tensor:
        """Objects that stay in the scene, (N, M) bool."""
        return scene.present if self.removed is None else scene.present & ~self.removed


class Animation(NamedTuple):
    """Frames after the first, and the motion that made them."""

    video: Tensor  # (N, T, 3, H, W) in [-1, 1]
    flow: Tensor  # (N, T, 2, H, W) px, back to the first frame
    visible: Tensor  # (N, T, 1, H, W) logits of visibility in the first frame
    theta: Tensor  # (N, T, M, 2, 3) backward motion of the objects
    boxes: Tensor  # (N, T, M, 4) boxes of the objects


AWAY = 8.0  # distance to which removed objects are moved, normalised
GROUND = (0, 1, 9)  # trainIds of road, pavement and terrain


def true_camera(clips: dict[str, Tensor]) -> Tensor:
    """Shift and zoom (N, T, 2, 3) that fit the motion of the ground in a batch of clips.

    A user who moves the camera refers to the ground under the objects; the far background moves
    less. If less than 1 % of the pixels show ground, all pixels without objects are used.
    """
    shown = clips["visible"] * (clips["instance"][:, 1:, None] == 0)  # (N, T, 1, H, W)
    semantic = clips["semantic"][:, 1:, None]
    ground = shown * torch.isin(semantic, send(torch.tensor(GROUND), semantic))
    enough = ground.mean((2, 3, 4), keepdim=True) > 0.01
    return fit_camera(clips["flow"], ground.where(enough, shown))


class Animator(nn.Module):
    """A scene, its known motion and latents -> a video.

    Args:
        channels, levels, max_channels, norm: arguments of `AppearanceEncoder`.
        generator: network that makes the frames: `warp` moves features of the first frame along the
            flow, `spade` steers a decoder by SPADE layers, `layered` moves objects as layers over
            a filled ground and needs no flow network.
        blocks: number of residual blocks in the generator, but for `layered`.
        residual: add the predicted flow to the flow of the objects, and mix frames with the warped
            first frame; false predicts whole flow and frames, as released. Not for `layered`.
        graph_dim, edges: arguments of `ObjectGraph`.
        feature_dim: width F of the code of an object.
        z_dim: width Z of the latent of a clip; first half for stuff, second half for things.
        object_z_dim: width O of the latent of an object in one frame.
        steps: number of frames that have codes of their own, see `LatentCode`.
        camera: take a known motion of the camera as input.
        past, unsure: arguments of `ObjectGraph`.
    """

    rasterise, roll_on = staticmethod(rasterise), staticmethod(roll_on)

    def __init__(
        self,
        channels: int = 32,
        levels: int = 6,
        max_channels: int = 512,
        norm: parts.Norm = "batch",
        generator: Literal["warp", "spade", "layered"] = "warp",
        blocks: int = 4,
        residual: bool = True,
        graph_dim: int = 512,
        edges: bool = True,
        feature_dim: int = 128,
        z_dim: int = 1024,
        object_z_dim: int = 1024,
        steps: int = 5,
        camera: bool = True,
        past: bool = False,
        unsure: bool = False,
    ):
        super().__init__()
        if levels < 2 or z_dim < 2 or z_dim % 2:
            raise ValueError(
                f"expected levels >= 2 and an even z_dim (stuff, things), got {levels} and {z_dim}"
            )
        sizes = channels, levels, max_channels
        self.appearance = parts.AppearanceEncoder(*sizes, feature_dim, norm)
        self.posterior = parts.Posterior(*sizes, z_dim, norm)
        known = dict(camera=camera, past=past, unsure=unsure)
        self.graph = ObjectGraph(feature_dim, object_z_dim, graph_dim, edges=edges, **known)
        self.takes_camera, self.residual, self.steps = camera, residual, steps
        self.layered, options = generator == "layered", dict(max_width=max_channels, norm=norm)
        self.camera = None
        if self.layered:
            inner = parts.widths(channels, levels, max_channels)[-1]
            self.generator = LayeredGenerator(channels, inner, z_dim // 2, steps, **options)
            return
        self.latent = parts.LatentCode(*sizes, z_dim, steps)
        self.sparse = parts.SparseEncoder(*sizes, norm)
        self.decoder = parts.DenseDecoder(*sizes, norm, residual)
        self.generator = GENERATORS[generator](channels, blocks=blocks, **options)
        if camera:
            self.camera = nn.Linear(3, z_dim // 2)

    def forward(self, scene: Scene, motion: Motion, z: Tensor, object_z: Tensor) -> Animation:
        """`z` (N, Z) and `object_z` (N, M, T, O), ~ N(0, I)."""
        features = self.features(scene)
        theta = self.predict(scene, features, motion, object_z)
        return self.render(scene, features, motion, theta, z)

    def features(self, scene: Scene) -> list[Tensor]:
        """Features of a scene by `AppearanceEncoder`.

        Layers take any sides that are multiples of 16 px: repeated borders fill the rest up.
        """
        maps = parts.label_maps(scene.semantic, scene.instance)
        if not self.layered:
            return self.appearance(scene.frame, maps)
        H, W = scene.frame.shape[2:]
        if H % STEP or W % STEP or min(H, W) < 2 * STEP:
            raise ValueError(
                f"frame: expected sides of {2 * STEP} px or more that are multiples of {STEP} px, "
                f"got {H} x {W}; choose another size"
            )
        step = 2 ** len(self.appearance.downs)
        more = (0, -W % step, 0, -H % step)
        features = self.appearance(*(F.pad(x, more, "replicate") for x in (scene.frame, maps)))
        return [f[:, :, : -(-H // 2**i), : -(-W // 2**i)] for i, f in enumerate(features, 1)]

    def predict(
        self, scene: Scene, features: list[Tensor], motion: Motion, object_z: Tensor
    ) -> Tensor:
        """Motion of all objects (N, T, M, 2, 3); the user's motion is returned unchanged.

        Layers predict `steps` frames at a time and go on from there.
        """
        with full_precision(object_z.device):  # motions are small numbers
            return self.predicted(scene, features, motion, object_z)

    def predicted(
        self, scene: Scene, features: list[Tensor], motion: Motion, object_z: Tensor
    ) -> Tensor:
        """As `predict`, in the precision of the caller."""
        codes = self.appearance.objects([f.float() for f in features], scene.boxes)

        def ahead(boxes: Tensor, motion: Motion, object_z: Tensor) -> Tensor:
            given = (boxes, scene.classes, codes, motion.left(scene))
            conditions = motion.user, motion.theta, object_z, motion.camera, motion.known
            return self.graph(*given, *conditions, motion.past, motion.confidence)

        if not self.rolls(motion.theta.shape[1]):
            return ahead(scene.boxes, motion, object_z)
        speeds = self.graph.past is not None
        theta = self.roll_on(ahead, scene.boxes, motion, object_z, self.steps, speeds)
        exact = motion.user & motion.left(scene)
        if motion.confidence is not None:
            exact = exact & (motion.confidence >= 1)
        return motion.theta.where(exact[:, None, :, None, None], theta)

    def rolls(self, steps: int) -> bool:
        """True if so many frames are predicted part by part."""
        return self.layered and steps > self.steps

    def encode(self, clips: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and log variance (N, Z) of the latents of whole clips."""
        maps = parts.label_maps(clips["semantic"], clips["instance"])
        return self.posterior(clips["video"], maps, clips["flow"], clips["visible"])

    def render(
        self, scene: Scene, features: list[Tensor], motion: Motion, theta: Tensor, z: Tensor
    ) -> Animation:
        """Renders the video with objects moved by `theta`; of `motion`, reads camera and `removed`.

        Not differentiable in `theta`.
        """
        if self.layered:
            return self.render_layers(scene, features[-1], motion, theta, z)[0]
        with full_precision(z.device):
            theta = theta.detach()
            if motion.removed is not None:  # moved out of the image, which leaves a hole
                away = identity(theta) + F.pad(theta.new_full((2, 1), AWAY), (2, 0))
                theta = away.where(motion.removed[:, None, :, None, None], theta)
            masks = object_masks(scene.instance, theta.shape[2])
            flow, owner, visible = self.rasterise(masks, theta, nearness(scene.boxes, theta))
            if self.camera is not None:
                way = motion.camera, motion.known
                flow, visible = with_camera(flow, owner, visible, masks, *way)
                end = UNIT * (motion.camera - identity(theta))[:, -1]  # (N, 2, 3)
                predicted = self.camera(torch.stack([end[:, 0, 0], end[:, 0, 2], end[:, 1, 2]], 1))
                stuff, things = z.float().chunk(2, 1)
                z = torch.cat([predicted.where(motion.known[:, None], stuff), things], 1)
            boxes = move_boxes(scene.boxes, theta)
        codes = self.latent(z, features[-1], theta.shape[1])
        dense, logits = self.decoder(codes, features, self.sparse(flow), flow, visible)
        seen = logits.sigmoid()
        video = self.generator(scene.frame, dense, seen)
        if self.residual:
            video = blend(video, scene.frame, dense, seen)
        return Animation(video, dense, logits, theta, boxes)

    def render_layers(
        self, scene: Scene, inner: Tensor, motion: Motion, theta: Tensor, z: Tensor
    ) -> tuple[Animation, Tensor]:
        """As `render`, by `LayeredGenerator`, and the first frame without objects (N, 3, H, W).

        Reads the innermost features and the stuff half of `z` (N, Z). The features of the scene
        learn from the motion of objects alone.
        """
        theta = theta.detach()
        masks = object_masks(scene.instance, theta.shape[2])
        made = self.generator(
            scene.frame,
            parts.label_maps(scene.semantic, scene.instance),
            masks,
            theta,
            nearness(scene.boxes, theta),
            motion.camera,
            motion.known,
            z.chunk(2, 1)[0],
            inner.detach(),
            motion.removed,
        )
        boxes = move_boxes(scene.boxes, theta)
        return Animation(made.video, made.flow, made.visible, theta, boxes), made.ground

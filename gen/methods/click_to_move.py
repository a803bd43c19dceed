"""Click to Move: makes a video from a frame, its masks and the motion of some objects.

Source: Ardino et al., "Click to Move: Controlling Video Generation with Sparse Motion", ICCV 2021,
and its release. Deviations: in training the user moves any number of objects, not one. Some clips
are rendered with predicted motion, as in inference; the graph still learns only from the losses on
theta, because rasterising has no gradient. A user can move the camera; its motion is fitted to the
true flow of the ground. Losses on theta are about objects' centres. Discriminators step first and
are frozen in the other step. The losses are LPIPS (perceptual) and cross entropy (visibility).
Weights are averaged, learning rates constant, and losses on pixels weigh half as much.

Letters in shapes: N batch, T frames after the first, M objects, Z, O latents, H height, W width.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from gen.devices import send
from gen.losses import motion as losses
from gen.losses.perceptual import content
from gen.methods.base import GANMethod, eval_mode, inference, stored, weighted_sum
from gen.networks.click_to_move.animator import Animation, Animator, Motion, Scene, true_camera
from gen.networks.click_to_move.encoders import sample
from gen.networks.click_to_move.frame_generator import Discriminator
from gen.networks.click_to_move.layers import STEP
from gen.networks.perceptual import LPIPS
from gen.ops.motion import about_centres, move_boxes, warp

MOTION = ("translation", "scale", "rotation", "change")  # terms without frames
ALONE = 0.6  # share of the scenes in which the user moves the object that branches change, alone
PAST_PX, LOST = 0.15, 0.05  # error of measured steps, and share of objects that are not found
WRONG = 0.3  # spread of the error of drags of confidence 0, in half images


class ClickToMove(GANMethod):
    """A generator of videos from a frame, its masks and the objects' motion that a user gives.

    Args:
        height: height H of the frames, px.
        width: width W of the frames, px.
        steps: number T of frames that follow the first frame.
        fit: how images of another aspect ratio become frames: `crop` keeps the middle part, as
            data_prep/video.py does; `stretch` keeps the whole image. Use the same as for the
            training frames.
        channels: channels of the first level in the encoders, the decoder and the generator.
        levels: how often the encoders halve the size; 6 in the release, for 128 x 256 px.
        max_channels: upper limit for the channels of a level.
        norm: normalisation layers: `batch` as released, `group` for small batches.
        generator: network that makes the frames: `warp` moves features of the first frame along the
            flow, `spade` steers a decoder by SPADE layers. `layered` moves each object with its
            pixels over a ground that is filled once: sharper, several times as fast, and exactly
            the first frame where nothing moves; it takes any sides that are multiples of 16 px.
        blocks: number of residual blocks in the generator; not for `layered`.
        residual: add the predicted flow to the flow of the objects, and mix frames with the warped
            first frame; false predicts whole flow and frames, as released. Not for `layered`.
        d_channels: channels of the first level in the discriminators.
        d_levels: how often the discriminators halve the size.
        graph_dim: width of the features in the object graph.
        feature_dim: width F of the code of an object.
        edges: let objects exchange messages about their motion; false is a baseline of separate
            objects.
        z_dim: width Z of the latent of a clip; first half for stuff, second half for things.
        object_z_dim: width O of the latent of an object in one frame.
        camera: share of the training scenes whose camera motion is an input of the model; with 0
            the camera cannot be controlled later.
        past: share of the training objects whose step from the frame before to the first frame is
            an input of the model; with 0 a previous frame cannot be given later.
        unsure: share of the training drags that are wrong and have a confidence below 1; with 0
            every drag is followed exactly.
        mix: share of the training scenes that are rendered with predicted motion; the other scenes
            use the true motion.
        mix_start: first iteration at which `mix` applies; before, all scenes use the true motion.
        lambda_flow: weight of the L1 error of the flow, px, at pixels that the first frame shows.
        lambda_visible: weight of the cross entropy of the visibility of pixels.
        lambda_warped: weight of the L1 error of the first frame warped by the flow.
        lambda_smooth: weight of the edge-aware smoothness of the flow.
        lambda_kl: weight of the KL divergence from the posterior of z to N(0, I), nats per number
            of z.
        kl_iters: iterations over which lambda_kl rises linearly from 0; 0: full weight at once.
        free_nats: KL divergence without penalty, nats per number of z.
        lambda_rec: weight of the L1 error of the frames.
        lambda_ssim: weight of the structural dissimilarity (1 - SSIM) / 2 of the frames.
        lambda_perceptual: weight of LPIPS (VGG) between generated and true frames; needs sides of
            32 px or more.
        lambda_translation: weight of the L1 error of the shifts of objects.
        lambda_scale: weight of the L1 error of the scales of objects.
        lambda_change: weight of the L1 error of the change in the shifts of objects, if one object
            moves differently or is removed; needs clips that know both, such as `gen.data.Movers`.
            Above 0, motion is also learnt in these other branches.
        lambda_rotation: weight of the L1 error of the rotation and shear of objects.
        lambda_gan_image: weight of the adversarial loss of single frames; with 0 the discriminator
            of frames is not trained.
        lambda_gan_video: weight of the adversarial loss of whole clips; with 0 the discriminator of
            clips is not trained.
        lambda_fm_image: weight of feature matching in the discriminator of frames; needs
            lambda_gan_image.
        lambda_fm_video: weight of feature matching in the discriminator of clips; needs
            lambda_gan_video.
        lr: learning rate (Adam) of everything except the object graph and the discriminators; 0
            trains the graph alone.
        lr_graph: learning rate (Adam) of the object graph.
        lr_d: learning rate (Adam) of the discriminators.
        ema_decay: decay of the averaged networks per iteration, lower in the first iterations.
        seed: seed of the first weights and of all random numbers in training.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from scratch.
    """

    task = "animator"
    learns_from = "clips"

    def __init__(
        self,
        height: int = 128,
        width: int = 256,
        steps: int = 5,
        fit: Literal["crop", "stretch"] = "crop",
        channels: int = 32,
        levels: int = 6,
        max_channels: int = 512,
        norm: Literal["batch", "group"] = "batch",
        generator: Literal["warp", "spade", "layered"] = "warp",
        blocks: int = 4,
        residual: bool = True,
        d_channels: int = 64,
        d_levels: int = 4,
        graph_dim: int = 512,
        feature_dim: int = 128,
        edges: bool = True,
        z_dim: int = 1024,
        object_z_dim: int = 1024,
        camera: float = 0.5,
        past: float = 0.0,
        unsure: float = 0.0,
        mix: float = 0.5,
        mix_start: int = 0,
        lambda_flow: float = 10.0,
        lambda_visible: float = 20.0,
        lambda_warped: float = 50.0,
        lambda_smooth: float = 0.0,
        lambda_kl: float = 100.0,
        kl_iters: int = 0,
        free_nats: float = 0.0,
        lambda_rec: float = 50.0,
        lambda_ssim: float = 10.0,
        lambda_perceptual: float = 10.0,
        lambda_translation: float = 100.0,
        lambda_scale: float = 2.0,
        lambda_rotation: float = 1.0,
        lambda_change: float = 0.0,
        lambda_gan_image: float = 1.0,
        lambda_gan_video: float = 1.0,
        lambda_fm_image: float = 10.0,
        lambda_fm_video: float = 10.0,
        lr: float = 2e-4,
        lr_graph: float = 1e-4,
        lr_d: float = 4e-4,
        ema_decay: float = 0.999,
        seed: int = 777,
        init_from: str = "",
    ):
        super().__init__()
        shares = dict(camera=camera, past=past, unsure=unsure, mix=mix)
        if wrong := [f"{name} {share}" for name, share in shares.items() if not 0 <= share <= 1]:
            raise ValueError(f"expected {', '.join(shares)} in 0 .. 1, got {', '.join(wrong)}")
        self.save_hyperparameters()
        self.shape = steps, height, width  # T, H, W
        of_frames = channels, levels, max_channels, norm, generator, blocks, residual
        of_motion = graph_dim, edges, feature_dim, z_dim, object_z_dim, steps
        inputs = dict(camera=camera > 0, past=past > 0, unsure=unsure > 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.animator = Animator(*of_frames, *of_motion, **inputs)
            critic = dict(width=d_channels, levels=d_levels, norm=norm)
            counts = {"image": 1, "video": steps + 1}
            self.discriminators = nn.ModuleDict(
                {name: Discriminator(count, **critic) for name, count in counts.items()}
            )
        self.make_ema({"animator": self.animator}, ema_decay, warmup=True)
        self._lpips: tuple = ()  # not a child: it is neither trained nor saved

    @property
    def takes(self) -> frozenset[str]:
        """Optional inputs of `Motion` that the model takes."""
        inputs = {"camera": self.hparams.camera, "past": self.hparams.past}
        inputs["confidence"] = self.hparams.unsure
        return frozenset({"removed"} | {name for name, share in inputs.items() if share})

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.hparams.lambda_perceptual:
            self._lpips = (LPIPS("vgg").to(self.device),)

    def load_weights(self, state: dict[str, Tensor], source: str | Path) -> None:
        """Loads `state`; inputs `past` and `unsure` that the file lacks begin without effect, and
        layers that it lacks begin fresh."""
        full, layers = self.state_dict(), ".generator.first."
        if any(layers in key for key in full) and not any(layers in key for key in state):
            rank_zero_info(f"{source}: has no layers, training starts with fresh ones")
            state = {key: value for key, value in state.items() if ".generator." not in key}
            state |= {key: value for key, value in full.items() if ".generator." in key}
        for key, own in full.items():
            if stored(state, key) is None and re.search(r"\.graph\.(past|unsure)\.", key):
                last = re.search(r"\.2\.\w+$", key)  # of the two layers
                state = state | {key: torch.zeros_like(own) if last else own}
        super().load_weights(state, source)

    # ---- training -------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Optimizers of everything but the graph, of the graph, of each trained discriminator."""
        h, parts = self.hparams, dict(self.animator.named_children())
        graph = parts.pop("graph").parameters()
        rest = [p for part in parts.values() for p in part.parameters()]
        groups = [(rest, h.lr), (graph, h.lr_graph)]
        groups += [(self.discriminators[name].parameters(), h.lr_d) for name in self.trained()]
        options = dict(betas=(0.5, 0.999), eps=1e-7, fused=True)
        return [torch.optim.Adam(parameters, lr, **options) for parameters, lr in groups]

    def trained(self) -> list[str]:
        """Names of the discriminators that are trained."""
        return [name for name in self.discriminators if self.hparams[f"lambda_gan_{name}"]]

    def weights(self) -> dict[str, float]:
        """Weights of the generator's loss terms at this iteration."""
        h = self.hparams
        names = ("flow", "visible", "warped", "smooth", "rec", "ssim", "perceptual")
        names += ("translation", "scale", "rotation", "change")
        names += tuple(f"{kind}_{name}" for name in self.trained() for kind in ("gan", "fm"))
        rise = min(1.0, (self.global_step + 1) / max(1, h.kl_iters)) * h.lambda_kl / 2
        return {name: h[f"lambda_{name}"] for name in names} | {"kl_stuff": rise, "kl_things": rise}

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> None:
        opt_g, opt_graph, *opts = self.optimizers()
        logs, w, names = {}, self.weights(), self.trained()
        made, terms = self.training_terms(batch, w)
        first, rest = batch["video"][:, :1], batch["video"][:, 1:]
        real = {"image": rest, "video": batch["video"]}
        fake = {"image": made, "video": torch.cat([first, made], 1)} if names else {}
        for name, optimizer in zip(names, opts, strict=True):
            D = self.discriminators[name]
            logs[f"d/real_{name}"] = losses.lsgan(D(real[name])[0], real=True)
            logs[f"d/fake_{name}"] = losses.lsgan(D(fake[name].detach())[0], real=False)
            self.update(0.5 * (logs[f"d/real_{name}"] + logs[f"d/fake_{name}"]), optimizer)
        with self.frozen(self.discriminators):
            for name in names:
                logits, features = self.discriminators[name](fake[name])
                terms[f"gan_{name}"] = losses.lsgan(logits, real=True)
                if w[f"fm_{name}"]:
                    with torch.no_grad():
                        wanted = self.discriminators[name](real[name])[1]
                    terms[f"fm_{name}"] = losses.feature_matching(features, wanted)
            self.update(weighted_sum(terms, w), opt_g, opt_graph, last=True)
        self.finish(logs | {f"g/{name}": value for name, value in terms.items()}, batch)

    def check_data(self, data: Any, stage: str) -> None:
        super().check_data(data, stage)
        split = {"fit": "train", "test": "test"}.get(stage, "val")
        clips = getattr(data, split)
        self.check_shape(clips.frames, clips.height, clips.width)
        if getattr(clips, "only_motion", False) and any(
            weight for name, weight in self.weights().items() if name not in MOTION
        ):
            raise ValueError(
                "only_motion: expected false for a model that makes frames; or train motion alone, "
                "with weight 0 of all losses but those on motion"
            )

    def check_shape(self, frames: int, *size: int) -> None:
        """Raises ValueError if the model cannot learn from T + 1 = `frames` of (H, W)."""
        if (got := (frames - 1, *size))[0] != self.shape[0] or not self.takes_size(got):
            raise ValueError(
                f"clips: expected (T, H, W) = {self.shape}{self.or_sides}, got {got}; give "
                "--data.frames (T + 1), height and width those of --model.steps, height and width"
            )

    @property
    def or_sides(self) -> str:
        """Text on the sizes that the model takes beside its own."""
        layered = self.hparams.generator == "layered"
        return f", or sides that are multiples of {STEP} px" if layered else ""

    def takes_size(self, shape: tuple[int, int, int]) -> bool:
        """True if the model makes videos of `shape` (T, H, W): its own, or, in layers, any."""
        fits = min(shape[1:]) >= 2 * STEP and not any(side % STEP for side in shape[1:])
        return tuple(shape) == self.shape or (self.hparams.generator == "layered" and fits)

    def training_terms(
        self, batch: dict[str, Tensor], w: dict[str, float]
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Frames (N, T, 3, H, W), and unweighted loss terms but those of the discriminators.

        Terms of weight 0 are not computed. If only motion terms have weight, frames are None.
        """
        h, video, theta = self.hparams, batch["video"], batch["theta"]
        self.check_shape(theta.shape[1] + 1, *video.shape[3:])
        scene, motion, mixed, noise, object_z = self.draws(batch)
        with torch.set_grad_enabled(h.lr > 0):  # otherwise only the graph learns
            features = self.animator.features(scene)
        predicted = self.animator.predict(scene, features, motion, object_z)  # (N, T, M, 2, 3)
        ways = *(about_centres(t, scene.boxes) for t in (predicted, theta)), scene.present
        if w["change"]:
            other, truth = self.other_branch(batch, scene, motion)
            there = self.animator.predict(scene, features, other, object_z)
            there = *(about_centres(t, scene.boxes) for t in (there, truth)), other.left(scene)
            ways, pair = (
                tuple(torch.cat(two) for two in zip(ways, there, strict=True)),
                (ways, there),
            )
        every = {
            "translation": lambda: losses.translation(*ways),
            "scale": lambda: losses.scale(*ways),
            "rotation": lambda: losses.rotation(*ways),
            "change": lambda: losses.change(*pair, there[2] & ~motion.user),
        }
        if not any(weight for name, weight in w.items() if name not in MOTION):
            return None, {name: term() for name, term in every.items() if w[name]}

        flow, visible = batch["flow"], batch["visible"]
        real = video[:, 1:]  # (N, T, 3, H, W)
        mean, log_variance = self.animator.encode(batch)  # (N, Z)
        z = sample(mean, log_variance, noise)
        used = predicted.where(mixed[:, None, None, None, None], theta)
        made, judged, truth = self.rendered(batch, scene, features, motion, used, z)
        parts = zip(("stuff", "things"), mean.chunk(2, 1), log_variance.chunk(2, 1), strict=True)
        free = h.free_nats
        every |= {
            "flow": lambda: losses.flow_l1(made.flow, flow, visible),
            "visible": lambda: losses.visibility_bce(made.visible, visible),
            "warped": lambda: losses.warped_l1(warp(scene.frame, made.flow), real),
            "smooth": lambda: losses.flow_smoothness(made.flow, real),
            "rec": lambda: (judged.float() - truth).abs().mean(),
            "ssim": lambda: losses.ssim(judged, truth),
            "perceptual": lambda: content(
                truth.flatten(0, 1), judged.flatten(0, 1), self._lpips[0]
            ),
        } | {f"kl_{part}": lambda m=m, v=v: losses.kl(m, v, free) for part, m, v in parts}
        return made.video, {name: term() for name, term in every.items() if w[name]}

    def rendered(
        self, batch: dict[str, Tensor], scene: Scene, features: list[Tensor], *motion: Tensor
    ) -> tuple[Animation, Tensor, Tensor]:
        """The animation; frames to compare, made and true. The empty ground is one more frame."""
        real = batch["video"][:, 1:]
        if self.hparams.generator != "layered":
            made = self.animator.render(scene, features, *motion)
            return made, made.video, real
        made, ground = self.animator.render_layers(scene, features[-1], *motion)
        if "ground" not in batch:
            return made, made.video, real
        both = zip((made.video, real), (ground, batch["ground"]), strict=True)
        return made, *(torch.cat([video, one[:, None]], 1) for video, one in both)

    def draws(self, batch: dict[str, Tensor]) -> tuple[Scene, Motion, Tensor, Tensor, Tensor]:
        """Draws the user's motion, the scenes with predicted motion (N,), and noise.

        The user moves 0 to all objects of a scene, each number equally likely, on their true path.
        """
        h, rng, scene = self.hparams, self.step_rng(self.hparams.seed), Scene.of(batch)
        (N, M), (T, *_) = scene.present.shape, self.shape
        drawn = send(torch.rand(N, M + 3, generator=rng), scene.boxes)
        keys, share, known, mixed = drawn.split([M, 1, 1, 1], 1)
        noise = send(torch.randn(N, h.z_dim, generator=rng), scene.boxes)
        object_z = send(torch.randn(N, M, T, h.object_z_dim, generator=rng), scene.boxes)
        rank = keys.where(scene.present, 2.0).argsort(1).argsort(1)
        count = (share * (scene.present.sum(1, keepdim=True) + 1)).long()
        user = (rank < count) & scene.present
        if h.lambda_change:
            alone = send(torch.rand(N, 1, generator=rng) < ALONE, user)
            user = (target_of(batch) & scene.present).where(alone, user)
        camera = true_camera(batch) if "flow" in batch else batch["camera"]
        motion = Motion(user, batch["theta"], known[:, 0] < h.camera, camera)
        if h.past and "past" in batch:  # otherwise it is unknown
            motion = motion._replace(past=self.past_steps(batch, scene, rng))
        if h.unsure:
            motion = self.degraded(motion, rng)
        share = h.mix if self.global_step >= h.mix_start else 0.0
        return scene, motion, mixed[:, 0] < share, noise, object_z

    def past_steps(self, batch: dict[str, Tensor], scene: Scene, rng: torch.Generator) -> Tensor:
        """Steps (N, M, 2) to the first frame, nearly as `gen.inference.past` measures them."""
        (N, M), (H, W) = scene.present.shape, scene.frame.shape[2:]
        drawn = send(torch.rand(N, M + 1, generator=rng), scene.boxes)
        error = send(torch.randn(N, M, 2, generator=rng), scene.boxes)
        error = error * PAST_PX * error.new_tensor([2 / (W - 1), 2 / (H - 1)])
        begin = move_boxes(scene.boxes, batch["past"][:, None])[:, 0, :, :2]  # (N, M, 2)
        known = (drawn[:, :1] < self.hparams.past) & (drawn[:, 1:] > LOST)  # (N, M)
        return (scene.boxes[..., :2] - begin + error).where(known[..., None], torch.nan)

    def degraded(self, motion: Motion, rng: torch.Generator) -> Motion:
        """Adds an error to some drags; the less confidence, the larger it tends to be."""
        (N, M), T = motion.user.shape, self.shape[0]
        wrong, sure = send(torch.rand(2, N, M, generator=rng), motion.theta)
        error = send(torch.randn(N, 1, M, 2, 1, generator=rng), motion.theta)
        sure = sure.where(wrong < self.hparams.unsure, 1.0)
        error = error * (1 - sure)[:, None, :, None, None] * WRONG
        time = torch.arange(1, T + 1, device=error.device).view(1, T, 1, 1, 1) / T
        theta = motion.theta + F.pad(error * time, (2, 0))
        return motion._replace(theta=theta, confidence=sure)

    def other_branch(
        self, batch: dict[str, Tensor], scene: Scene, motion: Motion
    ) -> tuple[Motion, Tensor]:
        """The motion where the object `target` moves differently or is removed, as it is given and
        the true one of all objects (N, T, M, 2, 3).

        It is removed in every other scene, and where the user does not move it.
        """
        target = target_of(batch) & scene.present
        every_other = torch.arange(len(target), device=target.device)[:, None] % 2 == 0
        removed = target & (every_other | ~motion.user)
        gone = removed.any(1)[:, None, None, None, None]
        theta = batch["theta_removed"].where(gone, batch["theta_velocity"])
        wrong = motion.theta - batch["theta"]  # as in the other branch
        user = motion.user & ~removed
        return motion._replace(user=user, theta=theta + wrong, removed=removed), theta

    # ---- inference: the averaged networks, no gradients, full precision -------------------------

    def latents(
        self, shape: tuple[int, int], seed: int, steps: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents of clips (N, Z) and objects (N, M, T, O) for `shape` (N, M), set by the seed.

        T = `steps`, by default that of the model; more frames begin with the same latents.
        """
        h, rng = self.hparams, torch.Generator().manual_seed(seed)
        T = self.shape[0] if steps is None else steps
        z = torch.randn(shape[0], h.z_dim, generator=rng)
        parts = range(0, T, self.shape[0])
        drawn = (torch.randn(*shape, self.shape[0], h.object_z_dim, generator=rng) for _ in parts)
        object_z = torch.cat(list(drawn), 2)[:, :, :T]
        return z.to(self.device), object_z.to(self.device)

    @inference
    def animate(
        self,
        scene: Scene,
        motion: Motion,
        z: Tensor,
        object_z: Tensor,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> Animation:
        """Generates the next frames of a scene; see `latents` and `gen.inference.dragging`.

        `bf16` runs convolutions in bfloat16, as training with bf16-mixed does.
        """
        fast = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")
        with eval_mode(self.ema.module["animator"]) as animator, fast:
            if not animator.takes_camera and motion.known.any():
                raise ValueError("camera: expected none, or to train with --model.camera 0.5")
            return Animation(*(part.float() for part in animator(scene, motion, z, object_z)))

    @inference
    def predict_motion(self, scene: Scene, motion: Motion, object_z: Tensor) -> Tensor:
        """The predicted motion of all objects (N, T, M, 2, 3), without rendering frames."""
        with eval_mode(self.ema.module["animator"]) as animator:
            return animator.predict(scene, animator.features(scene), motion, object_z)

    @inference
    def encode(self, clips: dict[str, Tensor]) -> Tensor:
        """The mean latent (N, Z) of whole clips: motion beyond that of the objects."""
        with eval_mode(self.ema.module["animator"]) as animator:
            return animator.encode(clips)[0]


def target_of(batch: dict[str, Tensor]) -> Tensor:
    """The objects that the branches of clips change, (N, M) bool."""
    if "theta_removed" not in batch:
        raise ValueError(
            "lambda_change: expected clips with branches, such as those of gen.data.Movers, got "
            f"{', '.join(batch)}; use --model.lambda_change 0"
        )
    numbers = torch.arange(batch["theta"].shape[2], device=batch["theta"].device)
    return numbers == batch["target"][:, None]

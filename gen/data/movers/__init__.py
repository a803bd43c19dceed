"""Movers: an endless, exactly labelled set of street scenes with objects that interact.

Clip `index` of a seed is a function of (seed, index) alone. Cars, people and bicycles collide,
follow, avoid, yield, push or tow each other; see `gen.data.movers.dynamics` for the laws. A test
scene has three branches of the same looks: unchanged, with another velocity of one mover, and
without this mover.
"""

from copy import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gen.data.clips import ClipData, ClipDraws, Clips
from gen.data.movers.dynamics import (
    INTERACTIONS,
    Camera,
    Course,
    Scene,
    before,
    simulate,
    with_velocity,
)
from gen.data.movers.rendering import GROUND, LAYERS, Stage, normalised, placement, to_first
from gen.data.movers.scenarios import cast
from gen.data.movers.sprites import KINDS
from gen.data.sampler import index_at, position_rng

BRANCHES = ("factual", "velocity", "removed")
WHOLE = 6  # frames of a clip in which a course is planned
FIRST = {"train": 0, "val": 2**31, "test": 2**31 + 2**30}  # index of the split's first scene


class MoverClips(Clips):
    """Clips that are drawn on demand; see `gen.data.clips.Clips`. Further fields:

        interaction  index into `INTERACTIONS`
        impact       frame of the first interaction, 0: none
        branch       index into `BRANCHES`
        target       the object that the branches change
        past         (M, 2, 3), motion from the frame before the first: p_0 = past [p_-1, 1]
        camera       (T-1, 2, 3), shift and zoom of the ground: p_0 = camera [p_t, 1]
        ground       (3, H, W), the first frame without objects; not with `only_motion`
        theta_velocity, theta_removed
                     (T-1, M, 2, 3), theta in these branches
        previous     (3, H, W), the frame before the first, with `branches`

    theta is exact, including rotation, and needs no box: it is also right where the object is
    hidden or out of view.

    Args:
        seed, first: seed of the scenes, and index of the first; the last is first + count - 1.
        count: number of scenes; with branches, each has three clips.
        height, width: height and width of a frame, px.
        frames: number of frames per clip.
        max_objects: largest number of objects in a clip.
        branches: draw each scene in all three branches: clips 3 i, 3 i + 1, 3 i + 2.
        antialias: mix colours at the edges of things; otherwise each pixel has the colour of one
            thing.
        steady: share of the scenes with a camera that stands still; everything else in them is
            unchanged.
        go_on: let clips of more than 6 frames go on at the pace of these, see `Movers`.
        only_motion: draw only the first frame: video, semantic, instance and boxes have length 1,
            and there is neither flow nor visible.
    """

    def __init__(
        self,
        seed: int,
        first: int,
        count: int,
        height: int = 64,
        width: int = 128,
        frames: int = 6,
        max_objects: int = 8,
        branches: bool = False,
        antialias: bool = True,
        steady: float = 0.0,
        only_motion: bool = False,
        go_on: bool = False,
    ) -> None:
        self.step = 1.0 if go_on else None  # pace, where it is not that of the number of frames
        self.seed, self.first, self.count = seed, first, count
        self.height, self.width, self.frames, self.max_objects = height, width, frames, max_objects
        self.branches, self.antialias, self.steady = branches, antialias, steady
        self.only_motion = only_motion

    def __len__(self) -> int:
        return self.count * (len(BRANCHES) if self.branches else 1)

    def scene(self, index: int) -> tuple[Scene, Course, Stage]:
        """The scene, course and rendering of clip `index`."""
        if not 0 <= index < len(self):
            raise IndexError(f"expected a clip of 0 .. {len(self) - 1}, got {index}")
        index, branch = divmod(index, len(BRANCHES)) if self.branches else (index, 0)
        plot, looks, hand = self._rng(index).spawn(3)
        planned = self.frames if self.step is None else min(self.frames, WHOLE)
        scene = cast(plot, planned, self.max_objects, self.width / self.height)
        if hand.random() < self.steady:
            scene = replace(scene, camera=Camera())
        if branch == 1:
            scene = with_velocity(scene, scene.target, scene.other)
        course = simulate(scene, self.frames, scene.target if branch == 2 else -1, self.step)
        stage = Stage(scene, course, looks, (self.height, self.width))
        return scene, course, stage

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        scene, course, stage = self.scene(index)
        present = np.zeros(self.max_objects, bool)
        present[: len(course.present)] = course.present
        classes, ids = self._names(scene)
        arrays = self._drawn(stage) | self._motion(scene, course)
        if self.branches:
            arrays["previous"] = self._previous(scene, course, index)
        arrays |= {
            "classes": np.where(present, classes, 0),
            "ids": np.where(present, ids, 0),
            "present": present,
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | {
            "index": index,
            "interaction": scene.interaction,
            "impact": course.impact,
            "branch": index % len(BRANCHES) if self.branches else 0,
            "target": scene.target,
        }

    def _drawn(self, stage: Stage) -> dict[str, np.ndarray]:
        """Maps of all frames, or of the first alone."""
        frames = 1 if self.only_motion else self.frames
        shape = frames, self.height, self.width
        x, y = (v[:frames] for v in stage.grid())
        owner, rgb = stage.trace(x, y, self.antialias)
        instance = np.maximum(owner.astype(np.int64) - (LAYERS - 1), 0).reshape(shape)
        maps = {
            "video": (2 * rgb - 1).reshape(-1, 3, *shape[1:]).astype(np.float32),
            "semantic": stage.semantic(owner, x, y).reshape(shape),
            "instance": instance,
            "boxes": stage.boxes(instance, self.max_objects),
        }
        if self.only_motion:
            return maps
        ground = stage.ground(x[:1], y[:1], rgb[:1], self.antialias)
        flow = stage.flow(owner, x, y)  # (T, 2, H W)
        visible = stage.visible(owner[1:], x[1:] + flow[1:, 0], y[1:] + flow[1:, 1])
        return maps | {
            "flow": flow[1:].reshape(-1, 2, *shape[1:]).astype(np.float32),
            "visible": visible.reshape(-1, 1, *shape[1:]).astype(np.float32),
            "ground": (2 * ground - 1).reshape(3, *shape[1:]).astype(np.float32),
        }

    def _motion(self, scene: Scene, course: Course) -> dict[str, np.ndarray]:
        """Motion of the objects and the ground, in all branches and before the first frame."""
        to_px0 = to_first(placement(scene, course, self.height, self.width))[1:]
        other = with_velocity(scene, scene.target, scene.other)
        motion = {
            "theta": self._theta(scene, course),
            "theta_velocity": self._theta(scene, simulate(other, self.frames, -1, self.step)),
            "theta_removed": self._theta(
                scene, simulate(scene, self.frames, scene.target, self.step)
            ),
            "past": self._theta(scene, before(scene, course))[0],
            "camera": shift_and_zoom(normalised(to_px0[:, GROUND], self.height, self.width)),
        }
        return {name: array.astype(np.float32) for name, array in motion.items()}

    def _theta(self, scene: Scene, course: Course) -> np.ndarray:
        """Motion (T-1, M, 2, 3) of a course; the identity for objects that are absent."""
        to_px0 = to_first(placement(scene, course, self.height, self.width))
        theta = np.tile(np.eye(2, 3), (len(course.x) - 1, self.max_objects, 1, 1))
        here = np.flatnonzero(course.present)
        theta[:, here] = normalised(to_px0[1:, LAYERS + here], self.height, self.width)
        return theta

    def _rng(self, scene: int) -> np.random.Generator:
        return position_rng(self.seed, self.first + scene)

    def _previous(self, scene: Scene, course: Course, index: int) -> np.ndarray:
        """The frame (3, H, W) before the first."""
        looks = self._rng(index // len(BRANCHES)).spawn(3)[1]  # as in `scene`
        stage = Stage(scene, before(scene, course), looks, (self.height, self.width))
        rgb = stage.trace(*stage.grid(), self.antialias)[1][1]
        return (2 * rgb - 1).reshape(3, self.height, self.width).astype(np.float32)

    def _names(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Classes and ids (M,); the objects of a class are numbered from 1."""
        classes, ids = np.zeros((2, self.max_objects), np.int64)
        for k, mover in enumerate(scene.movers):
            classes[k] = KINDS[mover.kind].train_id
            ids[k] = classes[k] * 1000 + (classes[: k + 1] == classes[k]).sum()
        return classes, ids


def shift_and_zoom(theta: np.ndarray) -> np.ndarray:
    """Motions (T, 2, 3) without their rotation, unchanged in the middle of the lower half."""
    zoom = (theta[:, 0, 0] + theta[:, 1, 1]) / 2
    at = np.array([0.0, 0.5])
    shift = theta[..., :2] @ at + theta[..., 2] - zoom[:, None] * at
    return np.concatenate([zoom[:, None, None] * np.eye(2), shift[..., None]], -1)


class MoverDraws(ClipDraws):
    """As `ClipDraws`; batches take turns with the sizes (height, width) of their clips."""

    def __init__(self, clips: MoverClips, seed: int, sizes: list, batch_size: int) -> None:
        super().__init__(clips, seed)
        self.batch_size, self.all = batch_size, [clips]
        for height, width in sizes:
            other = copy(clips)
            other.height, other.width = height, width
            self.all.append(other)

    def __getitem__(self, position: int) -> dict[str, Tensor | int]:
        clips = self.all[position // self.batch_size % len(self.all)]
        return clips[index_at(self.seed, position, len(clips))]


class Movers(ClipData):
    """Street scenes with interacting objects, for video generation; needs no files.

    Args:
        height: height of the frames, px.
        width: width of the frames, px.
        frames: number of frames per clip, the first included.
        max_objects: largest number of objects in a clip, 2 at least; also the length M of lists of
            objects.
        batch_size: clips per step on one device.
        val_batch_size: clips per validation batch.
        num_workers: processes that draw; 0 draws in the training process.
        seed: seed of every clip and of the order of training.
        train_clips: number of clips in the training set.
        val_clips: number of clips in the validation set.
        test_scenes: number of scenes in the test set, of three clips each: unchanged, with another
            velocity of the object `target`, and without `target`.
        antialias: mix colours at the edges of things. False: every visible pixel of a frame has
            exactly the colour of its point in frame 0.
        steady: share of the training clips with a camera that stands still, a frequent wish of
            users; in other clips the camera always moves a little.
        only_motion: draw only the first frame of training and validation clips, for a model that
            learns motion alone; twice as fast.
        go_on: let clips of more than 6 frames go on in time at the pace of 6 frames; by default
            they show the same time, sampled finer.
        sizes: further sizes [height, width], px, of training clips, for a model that makes videos
            of any size; batches take turns.
    """

    def __init__(
        self,
        height: int = 64,
        width: int = 128,
        frames: int = 6,
        max_objects: int = 8,
        batch_size: int = 8,
        val_batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 777,
        train_clips: int = 2000,
        val_clips: int = 200,
        test_scenes: int = 200,
        antialias: bool = True,
        steady: float = 0.0,
        only_motion: bool = False,
        sizes: list[tuple[int, int]] = (),
        go_on: bool = False,
    ) -> None:
        super().__init__(height, batch_size, val_batch_size, num_workers, seed)
        ranges = {
            "height": (16, 1024), "width": (16, 2048), "frames": (2, 64), "max_objects": (2, 32),
            "train_clips": (1, 2**31), "val_clips": (1, 2**30), "test_scenes": (1, 2**30),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= (value := locals()[name]) <= high:
                raise ValueError(f"expected {name} in {low} .. {high}, got {value}")
        for high, wide in ((height, width), *sizes):
            if not (16 <= high <= 1024 and 1 <= wide / high <= 4):
                raise ValueError(
                    "expected heights in 16 .. 1024 and width / height in 1 .. 4, got "
                    f"{high} x {wide}"
                )
        if not 0 <= steady <= 1:
            raise ValueError(f"expected steady in 0 .. 1, got {steady}")
        self.options = (height, width, frames, max_objects)
        self.counts = {"train": train_clips, "val": val_clips, "test": test_scenes}
        self.antialias, self.steady, self.only_motion = antialias, steady, only_motion
        self.sizes, self.go_on = sizes, go_on

    @property
    def domains(self) -> list[str]:
        """Names of the interactions, in the order of their indices."""
        return list(INTERACTIONS)

    def draws(self) -> MoverDraws:
        return MoverDraws(self.train, self.seed, self.sizes, self.batch_size)

    def clips(self, split: str) -> MoverClips:
        if split not in FIRST:
            raise ValueError(f"expected a split of {', '.join(FIRST)}, got {split!r}")
        where = (self.seed, FIRST[split], self.counts[split])
        steady = self.steady if split == "train" else 0.0
        test = split == "test"
        motion = self.only_motion and not test
        return MoverClips(*where, *self.options, test, self.antialias, steady, motion, self.go_on)

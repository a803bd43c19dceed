"""Movers: an endless, exactly labelled set of street scenes with objects that interact.

Clip `index` of a seed is a function of (seed, index) alone. Cars, people and bicycles collide,
follow, avoid, yield, push or tow each other; see `gen.data.movers.dynamics` for the laws. A test
scene has three branches of the same looks: unchanged, with another velocity of one mover, and
without this mover.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gen.data.clips import ClipData, Clips
from gen.data.movers.dynamics import (
    INTERACTIONS,
    Camera,
    Course,
    Scene,
    simulate,
    with_velocity,
)
from gen.data.movers.rendering import LAYERS, Stage, normalised
from gen.data.movers.scenarios import cast
from gen.data.movers.sprites import KINDS
from gen.data.sampler import position_rng

BRANCHES = ("factual", "velocity", "removed")
FIRST = {"train": 0, "val": 2**31, "test": 2**31 + 2**30}  # index of the split's first scene


class MoverClips(Clips):
    """Clips that are drawn on demand; see `gen.data.clips.Clips`. Further fields:

        interaction  index into `INTERACTIONS`
        impact       frame of the first interaction, 0: none
        branch       index into `BRANCHES`
        target       the object that the branches change

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
    ) -> None:
        self.seed, self.first, self.count = seed, first, count
        self.height, self.width, self.frames, self.max_objects = height, width, frames, max_objects
        self.branches, self.antialias, self.steady = branches, antialias, steady

    def __len__(self) -> int:
        return self.count * (len(BRANCHES) if self.branches else 1)

    def scene(self, index: int) -> tuple[Scene, Course, Stage]:
        """The scene, course and rendering of clip `index`."""
        if not 0 <= index < len(self):
            raise IndexError(f"expected a clip of 0 .. {len(self) - 1}, got {index}")
        index, branch = divmod(index, len(BRANCHES)) if self.branches else (index, 0)
        plot, looks, hand = position_rng(self.seed, self.first + index).spawn(3)
        scene = cast(plot, self.frames, self.max_objects, self.width / self.height)
        if hand.random() < self.steady:
            scene = replace(scene, camera=Camera())
        if branch == 1:
            scene = with_velocity(scene, scene.target, scene.other)
        course = simulate(scene, self.frames, scene.target if branch == 2 else -1)
        stage = Stage(scene, course, looks, (self.height, self.width))
        return scene, course, stage

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        scene, course, stage = self.scene(index)
        shape, m = (self.frames, self.height, self.width), self.max_objects
        x, y = stage.grid()
        owner, rgb = stage.trace(x, y, self.antialias)
        flow = stage.flow(owner, x, y)  # (T, 2, H W)
        visible = stage.visible(owner[1:], x[1:] + flow[1:, 0], y[1:] + flow[1:, 1])
        instance = np.maximum(owner.astype(np.int64) - (LAYERS - 1), 0).reshape(shape)
        present = np.zeros(m, bool)
        present[: len(course.present)] = course.present
        theta = np.tile(np.eye(2, 3), (self.frames - 1, m, 1, 1))
        exact = normalised(stage.to_first[1:, LAYERS:], self.height, self.width)
        theta[:, : exact.shape[1]] = exact
        theta[:, ~present] = np.eye(2, 3)
        classes, ids = self._names(scene)
        arrays = {
            "video": (2 * rgb - 1).reshape(-1, 3, *shape[1:]).astype(np.float32),
            "semantic": stage.semantic(owner, x, y).reshape(shape),
            "instance": instance,
            "flow": flow[1:].reshape(-1, 2, *shape[1:]).astype(np.float32),
            "visible": visible.reshape(-1, 1, *shape[1:]).astype(np.float32),
            "boxes": stage.boxes(instance, m),
            "theta": theta.astype(np.float32),
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

    def _names(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Classes and ids (M,); the objects of a class are numbered from 1."""
        classes, ids = np.zeros((2, self.max_objects), np.int64)
        for k, mover in enumerate(scene.movers):
            classes[k] = KINDS[mover.kind].train_id
            ids[k] = classes[k] * 1000 + (classes[: k + 1] == classes[k]).sum()
        return classes, ids


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
    ) -> None:
        super().__init__(height, batch_size, val_batch_size, num_workers, seed)
        ranges = {
            "height": (16, 1024), "width": (16, 2048), "frames": (2, 64), "max_objects": (2, 32),
            "train_clips": (1, 2**31), "val_clips": (1, 2**30), "test_scenes": (1, 2**30),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= (value := locals()[name]) <= high:
                raise ValueError(f"expected {name} in {low} .. {high}, got {value}")
        if not 1.5 <= width / height <= 4:
            raise ValueError(f"expected width / height in 1.5 .. 4, got {width} / {height}")
        if not 0 <= steady <= 1:
            raise ValueError(f"expected steady in 0 .. 1, got {steady}")
        self.options = (height, width, frames, max_objects)
        self.counts = {"train": train_clips, "val": val_clips, "test": test_scenes}
        self.antialias, self.steady = antialias, steady

    @property
    def domains(self) -> list[str]:
        """Names of the interactions, in the order of their indices."""
        return list(INTERACTIONS)

    def clips(self, split: str) -> MoverClips:
        if split not in FIRST:
            raise ValueError(f"expected a split of {', '.join(FIRST)}, got {split!r}")
        where = (self.seed, FIRST[split], self.counts[split])
        steady = self.steady if split == "train" else 0.0
        return MoverClips(*where, *self.options, split == "test", self.antialias, steady)

"""Base classes of the video data sets: clips as dicts of tensors, and their DataModule."""

import re
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gen.data.base import ImageData
from gen.data.sampler import index_at


class Clips(Dataset, ABC):
    """Clips of T frames with at most M tracked objects, sorted by id.

    `[i]` is a dict. Positions are normalised to [-1, 1] with align_corners=True, flow is in px:

        video     (T, 3, H, W)    in [-1, 1]
        semantic  (T, H, W)       int64, Cityscapes trainIds, 255 void
        instance  (T, H, W)       int64, k + 1 for object k, 0: no object
        flow      (T-1, 2, H, W)  frame_t(p) = frame_0(p + flow_t(p)), x first
        visible   (T-1, 1, H, W)  1 where the point p + flow_t(p) is visible in frame 0, else 0
        boxes     (T, M, 4)       centre x, y, then w / W, h / H; 0 where the object is unseen
        theta     (T-1, M, 2, 3)  p_0 = theta [p_t, 1]; from files, unseen objects keep the last
        classes   (M,)            int64 trainId, 0 where absent
        ids       (M,)            int64 class * 1000 + number, 0 where absent
        present   (M,)            bool
        index     int
    """

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Tensor | int]: ...

    @abstractmethod
    def __len__(self) -> int: ...


class ClipDraws(Dataset):
    """Training element p as a function of (seed, p): every clip once in each len(clips) draws."""

    def __init__(self, clips: Clips, seed: int) -> None:
        self.clips, self.seed = clips, seed

    def __getitem__(self, position: int) -> dict[str, Tensor | int]:
        return self.clips[index_at(self.seed, position, len(self.clips))]


class ClipData(ImageData):
    """Loaders over the clips of `train`, `val` and `test`; a batch has the fields of a clip."""

    kind = "clips"

    @abstractmethod
    def clips(self, split: str) -> Clips:
        """The clips of "train", "val" or "test"."""

    def images(self, split: str) -> Clips:
        return self.clips(split)

    @cached_property
    def test(self) -> Clips:
        return self.clips("test")

    def draws(self) -> ClipDraws:
        return ClipDraws(self.train, self.seed)

    def test_dataloader(self) -> DataLoader:
        return self.in_order(self.test)


GENERATED = "movers"  # data set that is generated instead, as commands name it


def is_kitti360(root: Path) -> bool:
    """True if the first track in a folder has a name of the layout of KITTI-360."""
    track = next(root.glob("[!.]*_instance_tracking_test/[!.]*/[!.]*.txt"), root)
    return re.search(r"_\d{10}_\d+\.txt$", track.name) is not None


def reader(root: Path) -> str:
    """Name of the class that reads a folder of clips, see `gen.data.open`."""
    return "KITTI360" if is_kitti360(root) else "Cityscapes"

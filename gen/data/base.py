"""Base classes of the data sets: labelled images, training draws, DataModules."""

import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gen.data.images import augment, resize, to_tensor
from gen.data.sampler import PositionBatchSampler, position_rng


class LabelledImages(Dataset, ABC):
    """Images with one domain each; `[i]` is the plain resized image. Subclasses implement `read`.

    Args:
        domains: names of the domains, in the order of the labels.
        labels: domain of each image, (N,) int64.
        img_size: side of the images that `[i]` and `draw` return, px.

    Attributes:
        attribute_names, factor_names: names of the labels, where the data has some.
        exclusive: groups of attributes that exclude each other, where the data declares them.
    """

    attribute_names: list[str] = []
    factor_names: list[str] = []
    exclusive: list[list[str]] = []

    def __init__(self, domains: list[str], labels: Tensor, img_size: int) -> None:
        self.domains, self.labels, self.img_size = domains, labels, img_size

    @abstractmethod
    def read(self, index: int, train: bool = False) -> Image.Image:
        """Image `index` of any size, RGB or Pillow's RGBa; `train` allows a cheaper version."""

    def draw(self, index: int, rng: np.random.Generator) -> Tensor:
        """Image `index`, augmented, (3, S, S) in [-1, 1]."""
        return to_tensor(augment(self.read(index, train=True), self.img_size, rng))

    def annotations(self, index: int) -> dict[str, Tensor]:
        """Further labels of image `index`, by name; none, unless a subclass has some."""
        return {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        x = to_tensor(resize(self.read(index), self.img_size))  # (3, S, S)
        return {"x": x, "y": int(self.labels[index]), "index": index} | self.annotations(index)


class TrainingDraws(Dataset):
    """Training element p as a function of (seed, p): a source image and a pair of references.

    Source and reference domains are drawn uniformly, then images uniformly within the domain
    (with replacement), so every domain is equally frequent, however many images it has.
    `[p]` is defined for every p >= 0 and gives x, y, x_ref, x_ref2, y_ref, augmented
    independently, and the exact labels of the three images as NAME, NAME_ref, NAME_ref2.
    Without `references` it gives the same x, y and labels of x, in a third of the time.
    """

    def __init__(self, images: LabelledImages, seed: int, references: bool = True) -> None:
        self.images, self.seed = images, seed
        self.count = 3 if references else 1  # images per element
        labels = images.labels.numpy()
        self.members = [np.flatnonzero(labels == y) for y in range(len(images.domains))]

    def indices(self, position: int) -> tuple[int, int, int]:
        """Indices of (x, x_ref, x_ref2) of element `position`, without reading an image."""
        return self._indices(position_rng(self.seed, position))

    def _indices(self, rng: np.random.Generator) -> tuple[int, int, int]:
        y, y_ref = rng.integers(len(self.members), size=2)
        source, ref = self.members[y], self.members[y_ref]
        first, second = ref[rng.integers(len(ref), size=2)]
        return int(source[rng.integers(len(source))]), int(first), int(second)

    def __getitem__(self, position: int) -> dict[str, Tensor | int]:
        rng = position_rng(self.seed, position)
        chosen = self._indices(rng)[: self.count]
        images = [self.images.draw(*one) for one in zip(chosen, rng.spawn(self.count), strict=True)]
        labels = [int(self.images.labels[n]) for n in chosen]
        element = {"x": images[0], "y": labels[0]}
        if self.count == 3:
            element |= {"x_ref": images[1], "x_ref2": images[2], "y_ref": labels[1]}
        for n, which in zip(chosen, ("", "_ref", "_ref2"), strict=False):
            element |= {name + which: value for name, value in self.images.annotations(n).items()}
        return element


def _obey_parent(_: int) -> None:
    """Leaves Ctrl-C and group SIGTERM to the parent of this worker, which ends the iteration.

    In a worker that is not forked, a thread of a library (OMP_NUM_THREADS above 1) may take SIGTERM
    first: it then ends the worker, as PyTorch's own workers do.
    """

    def wait() -> None:  # os.getppid() would be the fork server, if there is one
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != multiprocessing.parent_process().pid:
            pass
        os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows: it ends when its parent says so
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, daemon=True).start()


class _Loader(DataLoader):
    """Tells Lightning that it can resume in mid-epoch; the sampler asks for the iteration."""

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


class ImageData(LightningDataModule, ABC):
    """Loaders over `train` and `val`. Subclasses give `domains` and build the image sets.

    Training batches hold the elements of `draws` at the positions of `PositionBatchSampler`.
    Validation batches: x (N,3,S,S), y (N,), index (N,), in order, every image once; with several
    processes rank r gets the images r, r + W, r + 2W, ...
    An epoch is the whole run if the trainer has max_steps, otherwise the length of the data set.

    Attributes:
        kind: kind of data, which methods compare with their `learns_from`. Of "transparent images"
            x is (N, 4, S, S): colours times opacity, and opacity.
    """

    kind = "images"

    def __init__(
        self, img_size: int, batch_size: int, val_batch_size: int, num_workers: int, seed: int
    ) -> None:
        super().__init__()
        lowest = {"img_size": 1, "batch_size": 1, "val_batch_size": 1, "num_workers": 0, "seed": 0}
        for name, low in lowest.items():
            if (value := locals()[name]) < low:
                raise ValueError(f"expected {name} >= {low}, got {value}")
        self.img_size, self.batch_size, self.val_batch_size = img_size, batch_size, val_batch_size
        self.num_workers, self.seed = num_workers, seed

    @property
    @abstractmethod
    def domains(self) -> list[str]:
        """Names of the domains; cheap, and available before `setup`."""

    @abstractmethod
    def images(self, split: str) -> LabelledImages:
        """Build the images of `split`: "train" or "val"."""

    @abstractmethod
    def draws(self) -> Dataset:
        """The training elements: `[p]` is a function of (seed, p), for every p >= 0."""

    @property
    def num_domains(self) -> int:
        return len(self.domains)

    @cached_property
    def train(self) -> LabelledImages:
        return self.images("train")

    @cached_property
    def val(self) -> LabelledImages:
        return self.images("val")

    def setup(self, stage: str | None = None) -> None:
        """Finds the images now, so that mistakes in the data show before training starts."""
        _, world = self._ranks()
        if stage in (None, "fit") and len(self.train) < self.batch_size * world:
            raise ValueError(
                f"expected at least batch_size x processes = {self.batch_size} x {world} training "
                f"images, got {len(self.train)}; lower --data.batch_size or add images"
            )
        if stage == "fit" and self.trainer is not None and not self.trainer.fast_dev_run:
            self._choose_length()

    def _choose_length(self) -> None:
        """Ends a run that has max_steps and max_epochs at the smaller of the two."""
        loop, limit = self.trainer.fit_loop, self.trainer.limit_train_batches
        if loop.max_steps < 1 or loop.max_epochs is None or loop.max_epochs < 1:
            return
        epoch = self._epoch_steps()
        epoch = min(epoch, limit) if isinstance(limit, int) else max(1, int(epoch * limit))
        steps, told = loop.max_epochs * epoch, f"max_epochs {loop.max_epochs} of {epoch} iterations"
        rank_zero_info(f"{told}, and max_steps {loop.max_steps}: the smaller of both is the run")
        loop.epoch_loop.max_steps, loop.max_epochs = min(steps, loop.max_steps), -1

    def _epoch_steps(self) -> int:
        return max(1, len(self.train) // (self.batch_size * self._ranks()[1]))

    def train_dataloader(self) -> DataLoader:
        rank, world = self._ranks()
        steps = self.trainer.max_steps if self.trainer else -1
        if steps < 1:
            steps = self._epoch_steps()
        sampler = PositionBatchSampler(self.batch_size, steps, self._step, rank, world)
        return self._loader(self.draws(), batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        return self.in_order(self.val)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        return self.val_dataloader()

    def in_order(self, images: LabelledImages) -> DataLoader:
        """Every image once, in validation batches."""
        rank, world = self._ranks()
        share = range(rank, len(images), world)
        return self._loader(images, batch_size=self.val_batch_size, sampler=share)

    def _loader(self, dataset: Dataset, **sampling) -> DataLoader:
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        options = dict(num_workers=self.num_workers, pin_memory=pin, worker_init_fn=_obey_parent)
        return _Loader(dataset, **options, **sampling)

    def _step(self) -> int:
        return self.trainer.global_step if self.trainer else 0

    def _ranks(self) -> tuple[int, int]:
        """(rank, number of processes); refuses a trainer that would replace the sampler."""
        if self.trainer is None:
            return 0, 1
        world = self.trainer.world_size
        # Private API: the trainer keeps this option nowhere else.
        if world > 1 and self.trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError(
                f"expected Trainer(use_distributed_sampler=False) with {world} processes, got True:"
                " Lightning would replace the sampler that keeps ranks apart; pass"
                " --trainer.use_distributed_sampler false"
            )
        return self.trainer.global_rank, world


class I2IData(ImageData):
    """Data for translation: batches x (B,3,S,S), y (B,), x_ref, x_ref2 (B,3,S,S), y_ref (B,)."""

    kind = "images with references"
    references = True  # False: batches hold x and y alone

    def draws(self) -> TrainingDraws:
        return TrainingDraws(self.train, self.seed, self.references)

"""Latents of a generator as a data set: what an editor of its codes is trained and judged on."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gen.data.base import ImageData
from gen.data.sampler import position_rng

FIRST_VAL = 2**31  # positions from here on are no training elements


class Latents(Dataset):
    """`[p]` is {"z": (Z,) ~ N(0, I), "index": p}, a function of (seed, first + p), for p >= 0."""

    def __init__(self, z_dim: int, count: int, seed: int, first: int) -> None:
        self.z_dim, self.count, self.seed, self.first = z_dim, count, seed, first

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        rng = position_rng(self.seed, self.first + index)
        z = torch.from_numpy(rng.standard_normal(self.z_dim, np.float32))
        return {"z": z, "index": index}

    def __len__(self) -> int:
        return self.count


class Codes(ImageData):
    """Latents for training an editor of codes, as `StyleFunction`; needs no files.

    Args:
        z_dim: width of a latent, as the generator has it.
        batch_size: latents a step on one device.
        val_batch_size: latents a validation batch.
        seed: with the position it determines every latent.
        val_count: latents for validation, apart from those of training.
    """

    def __init__(
        self,
        z_dim: int = 512,
        batch_size: int = 8,
        val_batch_size: int = 32,
        seed: int = 777,
        val_count: int = 1000,
    ) -> None:
        super().__init__(1, batch_size, val_batch_size, 0, seed)  # nothing is decoded
        if z_dim < 1 or val_count < 1:
            raise ValueError(f"expected z_dim and val_count >= 1, got {z_dim} and {val_count}")
        self.z_dim, self.val_count = z_dim, val_count

    @property
    def domains(self) -> list[str]:
        return []

    def images(self, split: str) -> Latents:
        """`train` never ends; its length is what an epoch has."""
        first, count = {"train": (0, 10_000), "val": (FIRST_VAL, self.val_count)}[split]
        return Latents(self.z_dim, count, self.seed, first)

    def draws(self) -> Latents:
        return self.train

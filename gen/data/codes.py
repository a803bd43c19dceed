"""Latents of a generator as a data set: an editor of its codes trains and is evaluated on it."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor
from torch.utils.data import Dataset

from gen.data.base import ImageData
from gen.data.sampler import position_rng

FIRST_VAL = 2**31  # training positions are below


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


class Rows(Dataset):
    """Rows of a file, `z` (Z,) or `ws` (L, D); with a seed, (seed, p) draws `[p]`, p >= 0."""

    def __init__(self, rows: Tensor, seed: int | None) -> None:
        self.rows, self.seed = rows, seed
        self.name = "z" if rows.ndim == 2 else "ws"

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        row = index
        if self.seed is not None:
            row = int(position_rng(self.seed, index).integers(len(self)))
        return {self.name: self.rows[row].float(), "index": index}

    def __len__(self) -> int:
        return len(self.rows)


class Codes(ImageData):
    """Latents or codes to train an editor of codes such as `StyleFunction`; needs no files.

    Args:
        z_dim: width of a latent; 0 takes the width of the generator whose codes are edited.
        batch_size: latents per step on one device.
        val_batch_size: latents per validation batch.
        seed: seed of every latent.
        val_count: number of latents for validation, separate from those for training; with a file,
            its last rows.
        latents: file (.npy or .safetensors) of one array of floats, latents z (N, Z) or codes ws
            (N, L, D), used unchanged, truncated or not; empty: z ~ N(0, I).
    """

    kind = "codes"

    def __init__(
        self,
        z_dim: int = 0,
        batch_size: int = 8,
        val_batch_size: int = 32,
        seed: int = 777,
        val_count: int = 1000,
        latents: str = "",
    ) -> None:
        super().__init__(1, batch_size, val_batch_size, 0, seed)  # nothing is decoded
        if z_dim < 0 or val_count < 1:
            told = f"got {val_count} and {z_dim}"
            raise ValueError(f"expected val_count >= 1 and z_dim >= 0, {told}")
        self.img_size = 0  # there are no images
        self.z_dim, self.val_count, self.latents = z_dim, val_count, latents

    @property
    def domains(self) -> list[str]:
        return []

    def setup(self, stage: str | None = None) -> None:
        """Takes the width of a latent from the method, then runs `ImageData.setup`."""
        method = self.trainer and self.trainer.lightning_module
        width = getattr(method, "latent_dim", 0)
        if width and self.z_dim not in (0, width) and not self.latents:
            raise ValueError(
                f"--data.z_dim: expected {width}, as wide as the generator's latents, got "
                f"{self.z_dim}; leave it out"
            )
        self.z_dim = self.z_dim or width
        super().setup(stage)

    def images(self, split: str) -> Latents | Rows:
        """The latents of a split; `train` is endless, its length is that of an epoch."""
        if self.latents:
            end = len(self.rows) - self.val_count
            if split == "train":
                return Rows(self.rows[:end], self.seed)
            return Rows(self.rows[end:], None)
        if not self.z_dim:
            raise ValueError("--data.z_dim: expected the width of a latent, got none; give it")
        first, count = {"train": (0, 10_000), "val": (FIRST_VAL, self.val_count)}[split]
        return Latents(self.z_dim, count, self.seed, first)

    def draws(self) -> Latents | Rows:
        return self.train

    @cached_property
    def rows(self) -> Tensor:
        """Array of the file, (N, Z) or (N, L, D); unused rows of a .npy stay on disk.

        Raises:
            ValueError: another shape or type, NaN, or no more than `val_count` rows.
        """
        rows = read(self.latents)
        shape, z = tuple(rows.shape), self.z_dim
        fits = rows.ndim == 3 or (rows.ndim == 2 and z in (0, shape[1]))
        if not (fits and rows.is_floating_point() and rows[:1].numel()):
            raise ValueError(
                f"{self.latents}: expected floats of shape (N, {z}), latents of --data.z_dim {z}, "
                f"or (N, L, D), codes; got {str(rows.dtype).removeprefix('torch.')} of {shape}"
            )
        if len(rows) <= self.val_count:
            raise ValueError(
                f"{self.latents}: expected more than val_count = {self.val_count} rows, got "
                f"{len(rows)}; lower --data.val_count"
            )
        for first, some in zip(range(0, len(rows), 1000), rows.split(1000), strict=True):
            if len(bad := (~some.flatten(1).isfinite().all(1)).nonzero()):
                row = f"row {first + int(bad[0])}"
                raise ValueError(f"{self.latents}: expected finite numbers, got others in {row}")
        return rows


def read(path: str) -> Tensor:
    """The one array of a .npy or .safetensors file; nothing is unpickled.

    Raises:
        ValueError: another kind of file; expected and got.
    """
    try:
        if Path(path).suffix == ".safetensors":
            (array,) = load(Path(path).read_bytes()).values()  # a path would have to be UTF-8
            return array
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise ValueError(
            f"{path}: expected a .npy or .safetensors file of one array of floats, got "
            f"{type(error).__name__}: {error!s:.300}"
        ) from error

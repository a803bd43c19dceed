"""Training positions in place of shuffled indices, so that a resumed run sees the same batches."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler


class PositionBatchSampler(Sampler[list[int]]):
    """Batches of positions: rank r of W gets p = (step * W + r) * batch_size + j, j < batch_size.

    The dataset draws element p from (seed, p) alone (see `position_rng`), so training depends
    neither on the workers nor on interruptions. An iterator starts at the iteration that `step()`
    returns, and offers a whole epoch even in the middle of one: on resume Lightning counts the
    finished batches as fetched, and stops at the end of the epoch.

    Args:
        batch_size: elements per batch on one rank.
        batches_per_epoch: number of batches in a whole epoch on one rank.
        step: function that returns the number of completed iterations, called per iterator.
        rank: index of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        batch_size: int,
        batches_per_epoch: int,
        step: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1 or batches_per_epoch < 1:
            got = f"batch_size {batch_size}, batches_per_epoch {batches_per_epoch}"
            raise ValueError(f"expected batch_size and batches_per_epoch >= 1, got {got}")
        if not 0 <= rank < world_size:
            raise ValueError(f"expected 0 <= rank < world_size, got {rank} of {world_size}")
        self.batch_size, self.batches_per_epoch = batch_size, batches_per_epoch
        self.step, self.rank, self.world_size = step, rank, world_size

    def __len__(self) -> int:
        return self.batches_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        first = self.step()
        for step in range(first, first + len(self)):
            start = (step * self.world_size + self.rank) * self.batch_size
            yield list(range(start, start + self.batch_size))


def position_rng(seed: int, position: int) -> np.random.Generator:
    """Random generator of training element `position`, a function of (seed, position) alone."""
    return np.random.default_rng((seed, position))


def index_at(seed: int, position: int, count: int) -> int:
    """Index of the element at a training position: each of `count` once per epoch, shuffled."""
    epoch, place = divmod(position, count)
    return int(_order(seed, epoch, count)[place])


@lru_cache(maxsize=2)  # a batch can reach into the next epoch
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Permutation of `count` elements; the key 1 keeps it apart from `position_rng`."""
    return np.random.default_rng((seed, epoch, 1)).permutation(count)

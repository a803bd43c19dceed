"""Losses as pure functions of tensors: one family a file, each with its equation and source."""

import torch
from torch import Tensor

from gen import lazy

__getattr__, __dir__ = lazy(__name__, "at_least_fp32")


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision to fp32, whatever autocast says; fp32 and fp64 unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

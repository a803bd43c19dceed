"""Losses as pure functions of tensors: one family a file, each with its equation and source."""

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision to fp32, whatever autocast says; fp32 and fp64 unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

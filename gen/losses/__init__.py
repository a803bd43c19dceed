"""Losses as pure functions of tensors: one family per file, with equations and sources.

`gen.losses.NAME` finds a function in its file.
"""

import torch
from torch import Tensor

from gen import lazy

__getattr__, __dir__ = lazy(__name__, inner=True)


def at_least_fp32(x: Tensor) -> Tensor:
    """Converts half precision to fp32, also under autocast; fp32 and fp64 are unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

"""TF32 without a GPU: what tensor cores would round to 10 bits is rounded, where the settings of
torch allow it, forward and backward."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

# Also those that autograd takes apart: in inference mode they arrive whole.
CONVOLUTIONS = {
    "convolution", "convolution_backward", "conv1d", "conv2d", "conv3d", "conv_transpose2d",
}  # fmt: skip
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "linear", "matmul", "einsum"}


def rounded(x: Tensor) -> Tensor:
    """float32 to the nearest number of 10 bits behind the point; others unchanged."""
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    near = ((bits + 0x1000) & -0x2000).view(torch.float32)
    return torch.empty_like(x).copy_(near) if x.stride() != near.stride() else near


def allowed(products: bool) -> bool:
    backends = torch.backends
    setting = backends.cuda.matmul if products else getattr(backends.cudnn, "conv", None)
    if getattr(setting, "fp32_precision", None) is None:  # before torch 2.9
        return setting.allow_tf32 if products else backends.cudnn.allow_tf32
    precision = setting.fp32_precision
    return (backends.fp32_precision if precision == "none" else precision) == "tf32"


class TF32(TorchDispatchMode):
    """Rounds within; counts how many operations it has rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        for operations, products in ((CONVOLUTIONS, False), (PRODUCTS, True)):
            if name in operations and allowed(products):
                self.count += 1
                args = tree_map(rounded, args)
        return func(*args, **(kwargs or {}))

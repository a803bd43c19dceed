"""FIR resampling with its zeros written out (spec 2.1), and its race with gen.networks.fir."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.networks import fir
from gen.published import Way, race


def literal_upfirdn2d(
    x: Tensor, f: Tensor, up: int = 1, down: int = 1, pad=(0, 0, 0, 0), gain: float = 1.0
) -> Tensor:
    """`fir.upfirdn2d`, step by step, for a filter (K, L)."""
    N, C, H, W = x.shape
    x = F.pad(x.view(N, C, H, 1, W, 1), (0, up - 1, 0, 0, 0, up - 1))
    x = F.pad(x.view(N, C, H * up, W * up), pad)
    weight = (gain * f).flip(0, 1).to(x.dtype).expand(C, 1, *f.shape)
    return F.conv2d(x, weight, groups=C)[:, :, ::down, ::down]


CASES = {  # what StyleGAN2 does at 64 px: options, size before
    "after a doubling convolution": (dict(pad=(1, 1, 1, 1)), 65),
    "before a halving convolution": (dict(pad=(2, 2, 2, 2)), 64),
    "upsample2d": (dict(up=2, pad=(2, 1, 2, 1)), 32),
    "downsample2d": (dict(down=2, pad=(1, 1, 1, 1)), 64),
}


def fir_ways(x: Tensor, options: dict, second: bool) -> Way:
    """The gradient of sum(y^2), of `second` that of its own square, as R1 takes it."""
    f = fir.setup_filter((1, 3, 3, 1)).to(x.device)

    @torch.inference_mode(False)  # where the race has it on
    def run(resample: Callable, leaf: Tensor) -> Tensor:
        y = resample(leaf, f, **options)
        (grad,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=second)
        if second:
            (grad,) = torch.autograd.grad(grad.square().sum(), leaf)
        return grad.cpu()

    plain = x.clone().requires_grad_()
    ours = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    return Way(lambda: run(literal_upfirdn2d, plain), lambda: run(fir.upfirdn2d, ours), len(x))


def fir_rows(batch_size: int, device: str, channels: int = 64, repeats: int = 10) -> list[dict]:
    """The race for each use, forward and backward, and with the second derivative.

    Either way has the memory format it is used with: the literal one NCHW, ours channels-last.
    Timed in processor time on the CPU, which other processes disturb less, else in wall time.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    rng = torch.Generator().manual_seed(0)
    rows = []
    for name, (options, size) in CASES.items():
        x = torch.randn(batch_size, channels, size, size, generator=rng).to(device)
        for order in (1, 2):
            row = race(fir_ways(x, options, second=order == 2), repeats, clock)
            rows.append({"resampling": name, "derivative": order} | row)
    return rows

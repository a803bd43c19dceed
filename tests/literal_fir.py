"""FIR resampling with its zeros written out (spec 2.1), and its race with gen.ops.fir."""

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.ops import fir


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


def gradient(resample: Callable, x: Tensor, f: Tensor, options: dict, second: bool) -> Tensor:
    """Of sum(y^2); of `second` that of its own square, as R1 takes it."""
    y = resample(x, f, **options)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=second)
    if second:
        (grad,) = torch.autograd.grad(grad.square().sum(), x)
    return grad.cpu()


def fir_rows(batch_size: int, device: str, channels: int = 64, repeats: int = 10) -> list[dict]:
    """The race for each use, forward and backward, and with the second derivative.

    `x NAME` is how many times as long another form takes as ours, which is in channels-last:
    `literal` as published, in NCHW; `literal last`, that in channels-last: what the algorithm alone
    gains; `separable`, ours along one axis after the other, which is why short filters are not.
    All run in turn and the fastest of `repeats` counts, in processor time on the CPU, which other
    processes disturb less, else in wall time.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    rng = torch.Generator().manual_seed(0)
    taps = torch.tensor([1.0, 3, 3, 1], device=device) / 8
    f, plain, last = torch.outer(taps, taps), torch.contiguous_format, torch.channels_last
    forms = {
        "ours": (fir.upfirdn2d, f, last),
        "literal": (literal_upfirdn2d, f, plain),
        "literal last": (literal_upfirdn2d, f, last),
        "separable": (fir.upfirdn2d, taps, last),
    }
    rows = []
    for name, (options, size) in CASES.items():
        x = torch.randn(batch_size, channels, size, size, generator=rng).to(device)
        leaves = {
            form: x.clone(memory_format=m).requires_grad_() for form, (*_, m) in forms.items()
        }
        for order in (1, 2):
            seconds, grads = dict.fromkeys(forms, math.inf), {}
            for _ in range(repeats + 1):  # the first round warms up
                for form, (resample, kernel, _) in forms.items():
                    began = clock()
                    grads[form] = gradient(resample, leaves[form], kernel, options, order == 2)
                    seconds[form] = min(seconds[form], clock() - began)
            ours, own = seconds.pop("ours"), grads.pop("ours")
            row = {"resampling": name, "derivative": order, "images/s": batch_size / ours}
            row |= {f"x {form}": value / ours for form, value in seconds.items()}
            most = max((grad - own).abs().max().item() for grad in grads.values())
            rows.append(row | {"largest_difference": most})
    return rows

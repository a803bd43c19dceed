"""GPU settings: full float32 precision, and copies without waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial

import torch
from torch import Tensor

_lock, _inside, _saved = threading.Lock(), 0, []


@contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Context with full float32 precision on `device`: no autocast, and no TF32 in any thread.

    TF32, the default of cuDNN, keeps 10 of 23 bits: small steps vanish in it. A backward pass uses
    the settings of its own time, so it must be inside, too. The settings are restored when the last
    such context ends.
    """
    global _inside, _saved
    with _lock:
        if _inside == 0:
            _saved = _switch_off()
        _inside += 1
    try:
        with torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                for restore in _saved:
                    restore()


def slow_bf16(device: torch.device) -> str:
    """Kind of CPU if `device` is a CPU on which bfloat16 is several times slower than float32.

    Empty for other devices. Without AVX-512 each number is unpacked and packed again.
    """
    kind = torch.backends.cpu.get_cpu_capability()
    return "" if device.type != "cpu" or kind.startswith("AVX512") else kind


def _switch_off() -> list[partial]:
    """Sets all products and convolutions to float32; returns functions that undo it, in order."""
    backends, set_products = torch.backends, torch.set_float32_matmul_precision
    newer = [("cudnn", "conv"), ("cudnn", "rnn"), ("cuda", "matmul"), ("mkldnn", "matmul")]
    settings = [getattr(getattr(backends, a), b, None) for a, b in newer]  # from torch 2.9 on
    settings = [s for s in settings if getattr(s, "fp32_precision", None) is not None]
    undo = [partial(setattr, s, "fp32_precision", s.fp32_precision) for s in settings]
    undo.insert(0, partial(set_products, torch.get_float32_matmul_precision()))
    set_products("highest")
    with suppress(RuntimeError):  # raised if these newer names have different values
        undo.insert(0, partial(setattr, backends.cudnn, "allow_tf32", backends.cudnn.allow_tf32))
        backends.cudnn.allow_tf32 = False
    for setting in settings:
        setting.fp32_precision = "ieee"
    return undo


def current(device: torch.device | str) -> AbstractContextManager:
    """Context in which `.cuda()` of other packages means `device`."""
    device = torch.device(device)
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def send(value: Tensor, to: Tensor | torch.device) -> Tensor:
    """`value` on the device of `to`, without waiting for a GPU; floats get the dtype of a tensor.

    Memory that is not pinned would be copied only after all earlier work of the GPU.
    """
    if isinstance(to, Tensor):
        if value.is_floating_point() and to.is_floating_point():
            value = value.to(to.dtype)
        to = to.device
    if to.type != "cuda" or value.device.type != "cpu":
        return value.to(to)
    return value.pin_memory().to(to, non_blocking=True)


def float64(x: Tensor) -> Tensor:
    """`x` in float64 on its device, or on the CPU for MPS, which has no float64."""
    return (x.cpu() if x.device.type == "mps" else x).double()


class Arrival:
    """A copy of a tensor on its way to the host; an iteration later, `value` need not wait."""

    def __init__(self, sent: Tensor) -> None:
        waits = sent.device.type == "cuda"  # MPS has no event here that says when the copy is done
        self.copy = sent.detach().to("cpu", non_blocking=waits, copy=True)
        self.event = torch.cuda.Event() if waits else None
        if self.event is not None:
            self.event.record()

    def value(self) -> Tensor:
        """The value, on the CPU."""
        if self.event is not None:
            self.event.synchronize()  # the stream holds the next iteration by now
        return self.copy


def rng_on(device: torch.device | str, rng: torch.Generator) -> torch.Generator:
    """Generator for image-sized tensors: `rng` on a CPU, otherwise a generator of its seed."""
    device = torch.device(device)
    if device.type == "cpu":
        return rng
    return torch.Generator(device).manual_seed(rng.initial_seed())

"""A GPU's discipline without a GPU: tensors that say they are on one, and compute on the CPU.

Their values are real, so whole training steps run. What a GPU would refuse raises: tensors of two
devices in one call, a generator of the wrong device. What would make the host wait for it is
written down with its place: reading a value, copies of memory that is not pinned, indices from the
host, and operations whose result has a size that only the GPU knows.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = str(Path(__file__).resolve().parents[1])
UNKNOWN_SIZE = {
    "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "repeat_interleave", "equal", "_local_scalar_dense", "is_nonzero", "allclose",
}  # fmt: skip
UNORDERED = {  # whose CUDA kernels add in any order, says `torch.use_deterministic_algorithms`
    "grid_sampler_2d_backward", "reflection_pad2d_backward", "replication_pad3d_backward",
    "upsample_bilinear2d_backward", "_roi_align_backward", "_adaptive_avg_pool2d_backward",
    "adaptive_avg_pool3d_backward", "_adaptive_avg_pool3d_backward", "scatter_add", "scatter_add_",
    "upsample_trilinear3d_backward", "avg_pool3d_backward", "replication_pad2d_backward",
    "_upsample_bilinear2d_aa_backward", "upsample_bicubic2d_backward", "put_", "index_add_",
}  # fmt: skip
MOVES = {"to", "cpu", "cuda", "tolist", "numpy", "__array__", "pin_memory", "is_pinned", "type_as"}
MADE_FROM_LISTS = {"tensor", "as_tensor", "new_tensor"}


def tree_map(change, value):
    """`value`, a nest of tuples, lists and dicts, with `change` in its leaves."""
    if type(value) in (tuple, list):
        return type(value)([tree_map(change, v) for v in value])
    if isinstance(value, dict):
        return {k: tree_map(change, v) for k, v in value.items()}
    return change(value)


def tensors_in(value, found: list[Tensor]) -> list[Tensor]:
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, tuple | list):
        for v in value:
            tensors_in(v, found)
    elif isinstance(value, dict):
        for v in value.values():
            tensors_in(v, found)
    return found


class DeviceError(RuntimeError):
    """What a GPU would refuse."""


class Fake(Tensor):
    """A CPU tensor `inner` that is said to be on `on`."""

    @staticmethod
    def __new__(cls, inner: Tensor, on: torch.device):
        self = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, requires_grad=False,
        )  # fmt: skip
        self.inner, self.on = inner, on
        return self

    @property
    def device(self) -> torch.device:
        return self.on

    @property
    def is_cuda(self) -> bool:
        return self.on.type == "cuda"

    def __repr__(self) -> str:
        return f"Fake({self.inner!r}, {self.on})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args, kwargs):
    """An operation below autograd: on the inner tensors; its results are where its inputs are."""
    found = [t for t in tensors_in((args, kwargs), []) if isinstance(t, Fake)]
    if not found:
        return func(*args, **kwargs)
    gpu, name = (LIVE or [GPU()])[-1], func._schema.name.split("::")[1]
    if name in UNORDERED:
        gpu.unordered.add(name)
    if name in UNKNOWN_SIZE:
        gpu.wait(name)
    if name in ("index", "index_put_", "index_put"):
        given = [i for i in args[1] if isinstance(i, Tensor)]
        if any(not isinstance(i, Fake) for i in given):
            gpu.wait(f"{name} from the host")
        if any(i.dtype in (torch.bool, torch.uint8) for i in given) and name == "index":
            gpu.wait("bool index")
    out = func(*tree_map(on_host, args), **{k: tree_map(on_host, v) for k, v in kwargs.items()})
    if func._schema.is_mutable and name.endswith("_"):
        return args[0] if len(func._schema.returns) == 1 else None
    if name in ("_local_scalar_dense", "equal", "is_nonzero", "allclose"):
        return out
    device = found[0].on
    for t in tensors_in(out, []):
        refuse_float64(name, t.dtype, device)
    return tree_map(lambda t: Fake(t, device) if isinstance(t, Tensor) else t, out)


def refuse_float64(name: str, dtype: torch.dtype, device: torch.device) -> None:
    if device.type == "mps" and dtype == torch.float64:
        raise DeviceError(f"{name}: MPS has no float64")


def on_host(value):
    """The CPU tensor of a `Fake`; others as they are."""
    return value.inner if isinstance(value, Fake) else value


class _Below(TorchDispatchMode):
    """Factories on the GPU, from C++ or under autograd."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class _Above(TorchFunctionMode):
    """Calls from Python: where tensors are made, moved, read and mixed."""

    def __init__(self, gpu: GPU):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, gpu = dict(kwargs or {}), self.gpu
        name = getattr(func, "__name__", "")
        tensors = tensors_in((args, kwargs), [])
        fakes = [t for t in tensors if isinstance(t, Fake)]
        wanted = kwargs.get("device")
        wanted = torch.device(wanted) if wanted is not None else None
        if name == "__get__" and fakes:
            return self.attribute(func, args, kwargs)
        if name in MOVES:
            return self.move(name, func, args, kwargs)
        if wanted is not None and wanted.type == gpu.device.type:
            return self.make(name, func, args, kwargs)
        if name in MADE_FROM_LISTS and name == "new_tensor" and fakes:
            gpu.wait("new_tensor")
            made = torch.tensor(*args[1:], **{"dtype": args[0].dtype} | kwargs)
            return Fake(made, gpu.device)
        if (generator := kwargs.get("generator")) is not None and fakes:
            if gpu.place(generator) != gpu.device.type:
                raise DeviceError(f"{name}: a generator of the host for a tensor on the GPU")
        if fakes and len(fakes) < len(tensors) and wanted is None:
            host = [t for t in tensors if not isinstance(t, Fake) and t.ndim > 0]
            if host and name not in ("copy_", "__getitem__", "__setitem__", "set_data"):
                shapes = [tuple(t.shape) for t in host]
                raise DeviceError(f"{name}: tensors of the host {shapes} beside those of the GPU")
            if name in ("copy_", "__setitem__") and any(t.numel() > 0 for t in host):
                if name == "copy_" and isinstance(args[0], Fake) != isinstance(args[1], Fake):
                    gpu.copy(args[1], len(args) > 2 and args[2] or kwargs.get("non_blocking"))
                elif name == "__setitem__" and not isinstance(args[2], Fake):
                    gpu.wait("__setitem__ from the host")
        return func(*args, **kwargs)

    def attribute(self, func, args, kwargs):
        for attribute in ("device", "is_cuda", "is_cpu", "is_mps"):
            if func is getattr(Tensor, attribute).__get__:
                kind = args[0].on.type
                return args[0].on if attribute == "device" else kind == attribute[3:]
        return func(*args, **kwargs)

    def make(self, name, func, args, kwargs):
        """A factory on the GPU."""
        gpu, given = self.gpu, kwargs.pop("device")
        if (generator := kwargs.get("generator")) is not None:
            if gpu.place(generator) != torch.device(given).type:
                raise DeviceError(f"{name}: a generator of the host for numbers on the GPU")
        if name in MADE_FROM_LISTS and not isinstance(args[-1], Fake):
            gpu.wait(f"{name} on the GPU")
        leaf = kwargs.pop("requires_grad", False)
        made = func(*tree_map(on_host, args), **kwargs)
        refuse_float64(name, made.dtype, gpu.device)
        made = Fake(made, gpu.device)
        return made.requires_grad_() if leaf else made

    def move(self, name, func, args, kwargs):
        gpu, x = self.gpu, args[0]
        if name == "pin_memory":
            pinned = on_host(x).clone()
            gpu.pinned.append(pinned)
            return pinned
        if name == "is_pinned":
            return gpu.is_pinned(x)
        if name in ("tolist", "numpy", "__array__"):
            if isinstance(x, Fake):
                gpu.wait(name)
                if name != "tolist":
                    raise DeviceError(f"{name}: of a tensor on the GPU; copy it to the host first")
            with torch._C.DisableTorchFunction():
                return getattr(on_host(x).detach(), name)(*args[1:], **kwargs)
        device, dtype = target(name, args, kwargs, gpu)
        non_blocking = kwargs.get("non_blocking", False)
        out = x
        if device is not None and (device.type == "cpu") == isinstance(x, Fake):
            gpu.copy(x, non_blocking)
            out = Cross.apply(x, device)
        if dtype is not None and dtype != out.dtype:
            out = type_to(out, dtype)
        if isinstance(out, Fake):
            refuse_float64(name, out.dtype, gpu.device)
        if "memory_format" in kwargs and kwargs["memory_format"] != torch.preserve_format:
            out = out.contiguous(memory_format=kwargs["memory_format"])
        if kwargs.get("copy") and out is x:
            out = out.clone()
        return out


def type_to(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.ops.aten._to_copy.default(x, dtype=dtype)


class Cross(torch.autograd.Function):
    """The copy between host and GPU, which autograd follows."""

    @staticmethod
    def forward(ctx, x: Tensor, device: torch.device) -> Tensor:
        ctx.back = x.device
        return on_host(x).clone() if device.type == "cpu" else Fake(x.detach().clone(), device)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return Cross.apply(grad, ctx.back), None


def target(name, args, kwargs, gpu) -> tuple[torch.device | None, torch.dtype | None]:
    if name == "cpu":
        return torch.device("cpu"), None
    if name == "cuda":
        return gpu.device, None
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    for value in args[1:] + tuple(v for k, v in kwargs.items() if k == "other"):
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, str | torch.device | int) and not isinstance(value, bool):
            device = value
    return None if device is None else torch.device(device), dtype


class GPU:
    """Within it: `waits` are what the host has waited for, with their places; see `step`."""

    def __init__(self, device: str = "cuda:0"):
        self.device, self.waits, self.pinned = torch.device(device), Counter(), []
        self.unordered: set[str] = set()

    def wait(self, what: str) -> None:
        self.waits[what, place()] += 1

    def copy(self, x: Tensor, non_blocking: bool) -> None:
        pinned = isinstance(x, Fake) or self.is_pinned(x)  # to the host: into pinned memory
        if not (non_blocking and pinned):
            kind = "to the host" if isinstance(x, Fake) else "to the GPU"
            self.wait(f"copy {kind} {tuple(x.shape)}")

    def is_pinned(self, x: Tensor) -> bool:
        return any(x is p or x._base is p for p in self.pinned)

    def place(self, generator: torch.Generator) -> str:
        return getattr(generator, "on", torch.device("cpu")).type

    def send(self, value):
        """Tensors, or nests of them, as a loader that pins hands them over."""
        on = self.device
        return tree_map(lambda t: Fake(t.clone(), on) if isinstance(t, Tensor) else t, value)

    def take(self, module: nn.Module) -> nn.Module:
        """Moves a module here, in place."""
        seen = {}
        for part in module.modules():
            for name, p in part._parameters.items():
                if p is not None and not isinstance(p, Fake):
                    if p not in seen:
                        with torch.no_grad():
                            seen[p] = nn.Parameter(Fake(p.data, self.device), p.requires_grad)
                    part._parameters[name] = seen[p]
            for name, b in part._buffers.items():
                if b is not None and not isinstance(b, Fake):
                    part._buffers[name] = Fake(b, self.device)
            if hasattr(part, "_device"):
                part._device = self.device
        return module


LIVE: list[GPU] = []


def place() -> str:
    """The innermost line of ours, and who called it."""
    frame, found = sys._getframe(2), []
    while frame is not None and len(found) < 2:
        name = frame.f_code.co_filename
        if name.startswith(f"{ROOT}/gen/"):
            found.append(f"{name.removeprefix(ROOT + '/')}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found)


class _Generator(torch.Generator):
    """A generator that says where it is; its numbers are those of the CPU."""

    def __new__(cls, device="cpu"):
        self = super().__new__(cls, "cpu")
        self.on = torch.device(device)
        return self

    def __init__(self, device="cpu"):
        pass

    @property
    def device(self) -> torch.device:
        return self.on


class _Event:
    """Of copies that have arrived: to synchronise with one is no wait."""

    def record(self, *_) -> None:
        pass

    def synchronize(self) -> None:
        pass


@contextmanager
def fake_gpu(device: str = "cuda:0"):
    """Within, `device` exists. Gives the `GPU`."""
    gpu, kind = GPU(device), torch.device(device).type
    autocast, group = torch.autocast, torch._C._group_tensors_by_device_and_dtype
    move, without = nn.Module.to, defaultdict(torch.no_grad)

    def grouped(*args):  # by where tensors say they are
        found = {}
        for (_, dtype), value in group(*args).items():
            first = next(t for part in value[0] for t in part if t is not None)
            found[first.device, dtype] = value
        return found

    def on_cpu(device_type, *args, **kwargs):
        return autocast("cpu" if device_type == kind else device_type, *args, **kwargs)

    def to(module, *args, **kwargs):
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        moved = gpu.take(module) if device and device.type == kind else module
        return move(moved, dtype=dtype) if dtype else moved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch, "autocast", on_cpu)
        patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", grouped)
        patch.setattr(torch.cuda, "Event", _Event)
        patch.setattr(torch.cuda, "manual_seed", lambda seed: None)
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
        patch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "get_device_name", lambda *_: "a fake GPU")
        patch.setattr(torch.cuda, "device", lambda _: nullcontext())
        patch.setattr(nn.Module, "to", to)
        for check in (
            "_accelerator_graph_capture_health_check",
            "_cuda_graph_capture_health_check",
        ):
            patch.setattr(torch.optim.Optimizer, check, lambda self: None, raising=False)
        mode = torch.autograd.grad_mode.inference_mode  # a `Fake` has no inference tensors
        patch.setattr(mode, "__enter__", lambda self: without[id(self)].__enter__())
        patch.setattr(mode, "__exit__", lambda self, *e: without.pop(id(self)).__exit__(*e))
        LIVE.append(gpu)
        try:
            with _Above(gpu), _Below():
                yield gpu
        finally:
            LIVE.pop()

"""Operations and memory of a training step at the size of a config, on tensors without contents."""

import math
import weakref
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

import gen.methods
from gen.files import read_yaml
from gen.networks.perceptual import LPIPS
from harness import bare


class _NoModules(nullcontext):
    """In place of the counter's hooks of modules, which `autograd.grad` does not bear."""

    parents = {"Global"}


class Live(TorchDispatchMode):
    """Bytes of the tensors that are alive; `peak` is the largest sum so far."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.count(tensor.untyped_storage())
        return out

    def count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self.seen:
            self.seen[storage] = True
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.free, storage.nbytes())

    def free(self, size: int) -> None:
        self.now -= size


def empty(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Replaces parameters and buffers by tensors without contents, shared ones once."""
    made: dict[Tensor, Tensor] = {}
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                if p not in made:
                    made[p] = nn.Parameter(mode.from_tensor(p.detach()), p.requires_grad)
                part._parameters[name] = made[p]
        for name, b in part._buffers.items():
            if b is not None:
                part._buffers[name] = mode.from_tensor(b)
    return module


def make(config: dict, **sizes) -> tuple[nn.Module, dict[str, Tensor]]:
    """The method of a config, and a batch of its sizes; `sizes` replaces options of the data."""
    name = config["model"]["class_path"].split(".")[-1]
    plain = {"ada_target": 0.0} if name == "StyleGAN2" else {}  # augmentation is not counted
    method = bare(getattr(gen.methods, name))(**config["model"]["init_args"] | plain)
    method.log_terms = lambda *_: None
    data = config["data"]["init_args"] | sizes
    count = data["batch_size"]
    if name in ("SmoothI2I", "ClickToMove"):
        method._lpips = (LPIPS("alex"),)
    if name == "ClickToMove":
        of = method.hparams
        from gen.data.movers import MoverClips

        clips = MoverClips(777, 0, count, of.height, of.width, of.steps + 1, data["max_objects"])
        return method, default_collate([clips[i] for i in range(count)])
    x, y = torch.rand(count, 3, data["img_size"], data["img_size"]), torch.arange(count) % 2
    return method, dict(x=x, x_ref=x.clone(), x_ref2=x.clone(), y=y, y_ref=1 - y)


def step(method: nn.Module, batch: dict[str, Tensor], iteration: int) -> None:
    method.global_step = iteration
    if hasattr(method, "net"):  # a classifier; its regulariser counts for nothing
        F.cross_entropy(method.logits(method.net, batch["x"]), batch["y"]).backward()
    else:
        method.training_step(batch)


def kinds(method: nn.Module) -> dict[int, int]:
    """Iterations that differ in their lazy regularisers, and how many of a cycle are like each."""
    every = [getattr(method.hparams, f"{name}_every", 1) or 1 for name in ("r1", "pl")]
    found: dict[tuple, list[int]] = {}
    for i in range(math.lcm(*every)):
        found.setdefault(tuple(i % n == 0 for n in every), []).append(i)
    return {alike[0]: len(alike) for alike in found.values()}


def cost(path: str | Path, fake: bool = True, **sizes) -> dict:
    """GFLOP of an image (a multiplication and an addition are two) and peak GB of a device.

    GFLOP: mean over a cycle of lazy regularisers. Convolutions, matrix products and attention are
    counted, and nothing else; augmentation by ADA is off. GB: of weights, gradients, averages,
    Adam's moments and activations.

    Args:
        path: config.
        fake: on tensors without contents; otherwise on real ones, on the CPU.
        sizes: options of the data that replace those of the config.
    """
    config = read_yaml(path)
    method, batch = make(config, **sizes)
    count = len(next(iter(batch.values())))
    bf16 = "bf16" in str(config["trainer"].get("precision", ""))
    total, alike, live = 0, kinds(method), Live()
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
    if fake:
        empty(method, mode)
        for other in getattr(method, "_lpips", ()):
            empty(other, mode)
        batch = tree_map_only(Tensor, mode.from_tensor, batch)
    for tensor in (*method.parameters(), *method.buffers()):
        live.count(tensor.untyped_storage())
    for iteration, times in alike.items():
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = _NoModules()
        cast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        with mode, live, counter, cast, sdpa_kernel(SDPBackend.MATH):  # others are not counted
            step(method, batch, iteration)
        total += times * counter.get_total_flops()
    gflop = total / sum(alike.values()) / count / 1e9
    return {"config": f"{Path(path).parent.name}/{Path(path).stem}", "GFLOP/image": gflop,
            "peak GB": live.peak / 1e9, "images": count}  # fmt: skip

"""Checkpoints of methods as files: read, build, export, and write atomically."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gen.pickle_file import read_pickle
from gen.weights import (
    WeightsError,
    check_digest,
    check_finite,
    digest,
    load_safetensors,
    save_safetensors,
    write_atomic,
)

if TYPE_CHECKING:
    from gen.methods.base import Method


class AtomicCheckpointIO(TorchCheckpointIO):
    """A checkpoint is written whole or not at all, with a digest of its weights, and read without
    unpickling unknown globals."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint | {"sha256": digest(checkpoint["state_dict"])}, buffer)
        try:
            write_atomic(path, buffer.getvalue())
        except OSError as error:
            way_out = "the previous checkpoint is intact; make room, then resume from it"
            raise OSError(error.errno, f"{error.strerror}; {way_out}", str(path)) from error

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        if Path(path).suffix == ".safetensors":
            raise WeightsError(
                f"{path}: expected a .ckpt file, with the state of training, got weights alone; "
                "--model.init_from starts from these"
            )
        return read_trained(path)


def find(path: str | Path, out: str | Path = "") -> Path:
    """The file that a path means, a run's folder (its last.ckpt), or `last` or `best` of `out`.

    Raises:
        WeightsError: There is no such file.
    """
    found = Path(out, f"{path}.ckpt") if out and str(path) in ("last", "best") else Path(path)
    if found.is_dir():
        found = found / "last.ckpt"
    if not found.is_file():
        raise WeightsError(
            f"{path}: expected a checkpoint, or the folder of a run, got no file {found}"
        )
    return found


class Checkpoint(NamedTuple):
    """What a checkpoint file says: a method of this package, its options, its weights."""

    method: str
    hparams: dict[str, Any]
    state: dict[str, Tensor]
    domains: list[str]
    iteration: int


def read_trained(path: str | Path) -> dict[str, Any]:
    """What a `.ckpt` file holds: tensors and plain values.

    Raises:
        FileNotFoundError: No such file.
        WeightsError: Not such a file, or its weights are not finite, or not those of its digest;
            expected and got.
    """
    found = read_pickle(path, "a .safetensors or .ckpt file that `gen fit` or `export` wrote")
    state = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise WeightsError(
            f"{path}: expected what `gen fit` writes, with a state_dict of tensors, got "
            f"{list(found)[:8] if isinstance(found, dict) else type(found).__name__!s:.200}"
        )
    for key, kind in dict(method=str, hyper_parameters=dict, domains=list).items():
        if not isinstance(value := found.get(key, kind()), kind):  # Lightning looks at none
            raise WeightsError(f"{path}: expected {key} of a {kind.__name__}, got {value!r:.100}")
    check_digest(state, found.pop("sha256", None), path)
    check_finite(state, path)
    return found


def read(path: str | Path) -> Checkpoint:
    """Reads `.safetensors` or `.ckpt`; runs nothing that the file holds.

    Raises:
        WeightsError: Not a checkpoint of this package; expected, got and the way out.
    """
    path = find(path)
    try:
        if Path(path).suffix == ".safetensors":
            state, meta = load_safetensors(path)
            hparams, domains = json.loads(meta["hparams"]), json.loads(meta["domains"])
            found = Checkpoint(meta["method"], hparams, state, domains, int(meta["iteration"]))
        else:
            saved = read_trained(path)
            keys = ("method", "hyper_parameters", "state_dict", "domains", "global_step")
            found = Checkpoint(*(saved[key] for key in keys))
        for value, kind in zip(found, (str, dict, dict, list, int), strict=True):
            if type(value) is not kind:
                raise TypeError(f"{value!r:.100} instead of a {kind.__name__}")
        if len(set(found.domains)) != len(found.domains) or not all(
            isinstance(name, str) for name in found.domains
        ):
            raise ValueError(f"domains {found.domains!s:.100}")
        plain = {k: v for k, v in found.hparams.items() if not k.startswith("_")}
        return found._replace(hparams=plain)
    except (FileNotFoundError, WeightsError):
        raise
    except Exception as error:  # metadata of strangers raise nearly anything
        raise WeightsError(
            f"{path}: expected what `gen fit` or `gen.checkpoint.export` writes, a method, its "
            f"options, domains, iteration and weights, got {type(error).__name__}: {error!s:.200}"
        ) from error


def check_types(cls: type[Method], options: dict[str, Any]) -> None:
    """Raises TypeError for the first option whose type is not that of the constructor."""
    kinds = {"int": int, "float": float | int, "bool": bool, "str": str, "Literal": str}
    for base in cls.__mro__:
        for name, parameter in inspect.signature(base).parameters.items():
            kind = parameter.annotation  # text, or of another package a class
            kind = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
            allowed = kinds.get(kind.partition("[")[0], object)
            value = options.get(name)
            truth = isinstance(value, bool) and allowed not in (bool, object)  # a bool is an int
            if name in options and (truth or not isinstance(value, allowed)):
                raise TypeError(f"{name}: expected {kind}, got {value!r:.50}")


class Sketch(TorchFunctionMode):
    """Within, tensors are made without memory, and `limit` calls of torch are an error."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.meta = limit, torch.device("meta")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.limit -= 1
        if self.limit < 0:
            raise ValueError("far more layers than the file has weights for")
        with self.meta:
            return func(*args, **kwargs or {})


def check_device(device: str) -> None:
    """Raises ValueError if there is no such device."""
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:  # unknown, or not on this machine
        told = str(error).splitlines()[0]
        raise ValueError(f"device: expected one of this machine, got {device}: {told}") from error


def find_class(method: type | str, name: str) -> type:
    """The class of the method that a file calls `name`: of this package, or the one that is given.

    Raises:
        WeightsError: `method` is no class of a method, or another than the file's, or the package
            has two of this name.
    """
    import gen.methods
    from gen.methods.base import Method

    try:
        cls = method or getattr(gen.methods, name, None)
    except ImportError as error:
        raise WeightsError(str(error)) from error
    if isinstance(method, str) and method:  # never what the file says
        place, _, last = method.rpartition(".")
        if os.getcwd() not in sys.path:  # a script has its own folder there
            sys.path.append(os.getcwd())
        try:
            cls = getattr(importlib.import_module(place), last)
        except (ImportError, AttributeError, ValueError) as error:
            raise WeightsError(f"{method}: expected package.Class, got: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        wanted = "a class of a method" if method else "a method of gen.methods"
        way_out = "" if method else "; name the class of another: gen.load(.., method=), --method"
        raise WeightsError(f"expected {wanted}, got {str(method) or repr(name)}{way_out}")
    if cls.__name__ != name:
        raise WeightsError(f"expected a checkpoint of {cls.__name__}, got one of {name}")
    return cls


def load(path: str | Path, method: type[Method] | str = "") -> Method:
    """The method that a checkpoint names, with its options and weights: see `gen.load`.

    It is built twice: first without memory, to see that its tensors are those of the file.
    """
    checkpoint = read(path)
    try:
        cls = find_class(method, checkpoint.method)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    options = checkpoint.hparams | {"init_from": ""}
    try:
        check_types(cls, options)
        with Sketch(limit=3000 + 50 * len(checkpoint.state)):
            sketch = cls(**options)
        sketch.check_extent(checkpoint.state, path)
        made = cls(**options)
    except WeightsError:
        raise
    except Exception as error:  # options of strangers raise nearly anything
        raise WeightsError(
            f"{path}: expected options of {checkpoint.method}, got: {error!s:.300}; "
            "load it with the version of gen that wrote it"
        ) from error
    count = options.get("num_domains", options.get("num_classes"))
    if checkpoint.domains and count not in (None, len(checkpoint.domains)):
        raise WeightsError(
            f"{path}: expected {count} domains, got {checkpoint.domains!s:.200}; "
            "take the file as it was written"
        )
    made.domains = checkpoint.domains
    made.fill(checkpoint.state, path)
    return made


def export(path: str | Path, out: str | Path, half: bool = False) -> None:
    """A `.ckpt` to a `.safetensors` that can be shipped: averages, and what has no average.

    The trained copies of averaged networks, optimizers and loops are left out. With `half` it
    holds float16, of half the size and 11 bits; what loads it computes in float32 again.

    Raises:
        ValueError: `half`, and a weight beyond 65,504, the largest number of float16.
    """
    checkpoint = read(path)
    prefix, state = "ema.module.", checkpoint.state
    averaged = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    rest = {k: v for k, v in state.items() if not k.startswith(prefix) and k not in averaged}
    weights = averaged | rest
    if half:
        weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
        if bad := [k for k, v in weights.items() if not v.isfinite().all()]:
            raise ValueError(f"{path}: expected weights in the range of float16, got more: {bad}")
    meta = dict(
        method=checkpoint.method,
        hparams=json.dumps(checkpoint.hparams | {"init_from": ""}),
        domains=json.dumps(checkpoint.domains),
        iteration=str(checkpoint.iteration),
    )
    save_safetensors(weights, out, meta)

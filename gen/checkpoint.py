"""Checkpoints of methods as files: read, build, export, and write atomically."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from gen.weights import WeightsError, load_safetensors, save_safetensors, write_atomic

if TYPE_CHECKING:
    from gen.methods.base import Method


class AtomicCheckpointIO(TorchCheckpointIO):
    """A checkpoint is written whole or not at all, and read without unpickling unknown globals."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
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
        return unpickle(path)


def unpickle(
    path: str | Path, wanted: str = "a .safetensors or .ckpt file that `gen fit` or `export` wrote"
) -> dict[str, Any]:
    """What a `.ckpt` file holds: tensors and plain values; another global is refused unrun.

    Raises:
        WeightsError: Not such a file; expected (`wanted`) and got.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise WeightsError(
            f"{path}: expected {wanted}, got {type(error).__name__}: {str(error).partition('.')[0]}"
        ) from error


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


def read(path: str | Path) -> Checkpoint:
    """Reads `.safetensors` or `.ckpt`; runs nothing that the file holds.

    Raises:
        WeightsError: Not a checkpoint of this package; expected, got and the way out.
    """
    path = find(path)
    try:
        if Path(path).suffix == ".safetensors":
            state, meta = load_safetensors(path)
            hparams, domains = dict(json.loads(meta["hparams"])), json.loads(meta["domains"])
            return Checkpoint(meta["method"], hparams, state, domains, int(meta["iteration"]))
        ckpt = unpickle(path)
        hparams = {k: v for k, v in ckpt["hyper_parameters"].items() if not k.startswith("_")}
        state, step = ckpt["state_dict"], ckpt["global_step"]
        return Checkpoint(ckpt["method"], hparams, state, ckpt["domains"], step)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: expected what `gen fit` or `gen.checkpoint.export` writes, a method, its "
            f"options, domains, iteration and weights, got {type(error).__name__}: {error}"
        ) from error


def load(path: str | Path) -> Method:
    """The method that a checkpoint names, with its options and weights: see `gen.load`."""
    import gen.methods
    from gen.methods.base import Method

    checkpoint = read(path)
    cls = getattr(gen.methods, checkpoint.method, None)
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise WeightsError(f"{path}: expected a method of gen.methods, got {checkpoint.method!r}")
    try:
        method = cls(**checkpoint.hparams | {"init_from": ""})
    except TypeError as error:
        raise WeightsError(
            f"{path}: expected options of {checkpoint.method}, got: {error}; "
            "load it with the version of gen that wrote it"
        ) from error
    method.domains = checkpoint.domains
    method.fill(checkpoint.state, path)
    return method


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

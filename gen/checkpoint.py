"""Checkpoints of methods as files: finding, reading, exporting, and writing them atomically."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from gen import shipped
from gen.files import WeightsError, write_atomic
from gen.pickles.files import read_pickle
from gen.weights import check_digest, check_finite, digest, load_safetensors, save_safetensors

EMA = "ema.module."  # prefix of the names of averaged tensors


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, with a digest of the weights, and reads without unpickling
    unknown globals."""

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
    """Finds a checkpoint: a file, the last.ckpt of a run, `last` or `best` of `out`, or a
    checkpoint by its name, shipped or on the Hub.

    Raises:
        WeightsError: there is no such file.
    """
    if shipped.is_name(path):
        return shipped.find_named(path)
    found = Path(out, f"{path}.ckpt") if out and str(path) in ("last", "best") else Path(path)
    if found.is_dir():
        found = found / "last.ckpt"
    if not found.is_file():
        near = shipped.nearest(path)
        raise WeightsError(
            f"{path}: expected a checkpoint, or the folder of a run, got no file {found}"
            + (f"; did you mean {near}?" if near else "")
        )
    return found


class Checkpoint(NamedTuple):
    """The content of a checkpoint file: a method of this package, its options, its weights."""

    method: str
    hparams: dict[str, Any]
    state: dict[str, Tensor]
    domains: list[str]
    iteration: int

    def network(self, name: str) -> dict[str, Tensor]:
        """State dict of one network, averaged if the file has averages."""
        state = self.state | averages(self.state)
        return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}


def averages(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The averaged tensors, under the names of the trained tensors."""
    return {k.removeprefix(EMA): v for k, v in state.items() if k.startswith(EMA)}


def read_trained(path: str | Path) -> dict[str, Any]:
    """Content of a `.ckpt` file: tensors and plain values.

    Raises:
        FileNotFoundError: no such file.
        WeightsError: the file is of another kind, its weights are not finite, or they do not match
            its digest; expected and got.
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
        if not isinstance(value := found.get(key, kind()), kind):  # Lightning checks none of them
            raise WeightsError(f"{path}: expected {key} of a {kind.__name__}, got {value!r:.100}")
    check_digest(state, found.pop("sha256", None), path)
    check_finite(state, path)
    return found


def read(path: str | Path) -> Checkpoint:
    """Reads `.safetensors` or `.ckpt`; runs no code in the file.

    Raises:
        WeightsError: not a checkpoint of this package; expected, got and the way out.
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
    except Exception as error:  # foreign metadata raise nearly anything
        raise WeightsError(
            f"{path}: expected what `gen fit` or `gen.checkpoint.export` writes, a method, its "
            f"options, domains, iteration and weights, got {type(error).__name__}: {error!s:.200}"
        ) from error


def check_device(device: str) -> None:
    """Raises ValueError if there is no such device."""
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:  # unknown, or not on this machine
        told = str(error).splitlines()[0]
        raise ValueError(f"device: expected one of this machine, got {device}: {told}") from error


def export(path: str | Path, out: str | Path, half: bool = False) -> None:
    """Exports a `.ckpt` to a `.safetensors` to share: averages, and weights without an average.

    The trained copies of averaged networks, optimizers and loops are left out. `half` stores
    float16, half the size with 11 bits; loading converts to float32 again.

    Raises:
        ValueError: `half` and a weight beyond 65,504, the largest float16; or a suffix of `out`
            that nothing would read.
    """
    if Path(out).suffix != ".safetensors":
        raise ValueError(f"{out}: expected a name that ends in .safetensors, got another")
    checkpoint = read(path)
    averaged, state = averages(checkpoint.state), checkpoint.state
    rest = {k: v for k, v in state.items() if not k.startswith(EMA) and k not in averaged}
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

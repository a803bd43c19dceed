"""Tensors in safetensors files: written atomically with a digest, read with checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gen.files import WeightsError, write_atomic

if TYPE_CHECKING:
    from torch import Tensor, nn


def save_safetensors(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file atomically: a kill or a full disk leaves the previous file.

    The `digest` of the tensors goes into its metadata.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(tensors, dict(metadata or {}) | {"sha256": digest(tensors)})
    write_atomic(path, _in_order(data))


def _in_order(data: bytes) -> bytes:
    """A safetensors file whose metadata are sorted; the library writes them in a random order.

    So the same tensors and metadata are always the same bytes.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:end])
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[end:]])


def _in_utf8(path: str | Path, file: IO) -> str | Path:
    """The path, or another path of the open file if it is not UTF-8, which safetensors refuses."""
    try:
        str(path).encode()
        return path
    except UnicodeEncodeError:
        return f"/dev/fd/{file.fileno()}"


def load_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file as (tensors on the CPU, metadata).

    Raises:
        WeightsError: no such file, not a whole safetensors file, tensors that are not finite, or
            that do not match the digest, which files of others need not have.
    """
    from safetensors import safe_open

    try:
        with open(path, "rb") as raw, safe_open(_in_utf8(path, raw), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = dict(file.metadata() or {})
    except Exception as error:  # also for types that this version of torch lacks
        raise WeightsError(f"{path}: expected a safetensors file, got: {error!s:.300}") from error
    check_digest(tensors, metadata.pop("sha256", None), path)
    check_finite(tensors, path)
    return tensors, metadata


def check_finite(tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Raises WeightsError with the first names of tensors that have NaN or infinity, or a type
    that cannot be computed with, such as float8."""
    small = {str(v.dtype) for v in tensors.values() if v.is_floating_point() and v.itemsize < 2}
    if small:
        raise WeightsError(
            f"{source}: expected floats of 16 bits or more, got {', '.join(sorted(small))}; "
            "convert the file to float16"
        )
    if bad := [key for key, value in tensors.items() if not value.isfinite().all()]:
        raise WeightsError(
            f"{source}: expected finite numbers, got NaN or infinity in {', '.join(bad[:3])!s:.200}"
            "; take a file from before, or the file as published"
        )


def check_digest(tensors: Mapping[str, Tensor], expected: Any, source: str | Path) -> None:
    """Raises WeightsError if tensors do not match a digest; files of others need not have one."""
    if expected is not None and (got := digest(tensors)) != expected:
        raise WeightsError(
            f"{source}: expected tensors of sha256 {expected!s:.64}, got {got}: damaged, or "
            "changed by another program; copy or export the file again"
        )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over names, types, shapes and bytes, in any order."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode(errors="surrogatepass"))
        total.update(value.contiguous().flatten().view(torch.int8).numpy())
    return total.hexdigest()


def load_weights(
    net: nn.Module, state: Mapping[str, Tensor], path: str | Path, layout: str
) -> nn.Module:
    """Loads the tensors of a file into a network on the meta device: frozen, in eval mode, on CPU.

    Memory is taken once everything fits. BatchNorm's `num_batches_tracked`, which older files lack
    and inference does not use, is not compared.

    Raises:
        WeightsError: a key or shape differs; names the first.
    """
    import torch

    own = net.state_dict()
    for key in [*own, *state]:
        if not key.endswith("num_batches_tracked"):
            expected, got = (
                f"shape {tuple(s[key].shape)}" if key in s else "none" for s in (own, state)
            )
            if expected != got:
                raise WeightsError(
                    f"{path}: {key}: expected {expected}, got {got}; the file must hold {layout}"
                )
    net.to_empty(device="cpu")
    net.load_state_dict({key: state.get(key, torch.zeros(())) for key in own})
    return net.requires_grad_(False).eval()

"""Loads a method from its checkpoint: checks it first on a copy without memory."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

import gen.methods
from gen.checkpoint import read
from gen.files import WeightsError
from gen.methods.base import Method


def check_types(cls: type[Method], options: dict[str, Any]) -> None:
    """Raises TypeError for the first option whose type is not that of the constructor."""
    kinds = {"int": int, "float": float | int, "bool": bool, "str": str, "Literal": str}
    for base in cls.__mro__:
        for name, parameter in inspect.signature(base).parameters.items():
            kind = parameter.annotation  # text; in another package also a class
            kind = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
            allowed = kinds.get(kind.partition("[")[0], object)
            value = options.get(name)
            truth = isinstance(value, bool) and allowed not in (bool, object)  # a bool is an int
            if name in options and (truth or not isinstance(value, allowed)):
                raise TypeError(f"{name}: expected {kind}, got {value!r:.50}")


class Sketch(TorchFunctionMode):
    """Context where tensors have no memory, and more than `limit` calls of torch are an error."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.meta = limit, torch.device("meta")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.limit -= 1
        if self.limit < 0:
            raise ValueError("far more layers than the file has weights for")
        with self.meta:
            return func(*args, **kwargs or {})


def find_class(method: type | str, name: str) -> type:
    """The class of the method `name` of a file: `method` if given, else a class of this package.

    Raises:
        WeightsError: `method` is no method class or has another name than the file's, or the
            package has two classes of this name.
    """
    try:
        cls = method or getattr(gen.methods, name, None)
    except ImportError as error:
        raise WeightsError(str(error)) from error
    if isinstance(method, str) and method:  # never what the file says
        try:
            cls = gen.import_name(method, "package.Class")
        except ValueError as error:
            raise WeightsError(str(error)) from error
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        wanted = "a class of a method" if method else "a method of gen.methods"
        way_out = "" if method else "; name the class of another: gen.load(.., method=), --method"
        raise WeightsError(f"expected {wanted}, got {str(method) or repr(name)}{way_out}")
    if cls.__name__ != name:
        raise WeightsError(f"expected a checkpoint of {cls.__name__}, got one of {name}")
    return cls


def load(path: str | Path, method: type[Method] | str = "") -> Method:
    """Builds the method of a checkpoint with its options and weights: see `gen.load`.

    The method is built twice: first without memory, to check its tensors against the file.
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
    made.load_weights(checkpoint.state, path)
    return made

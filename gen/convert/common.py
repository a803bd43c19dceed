"""Shared parts of the readers of published weights: expected shapes, checks, names of tensors."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from gen.files import WeightsError
from gen.networks.stylegan2 import TAPS, Discriminator, Generator
from gen.ops.fir import setup_filter

State = dict[str, Tensor]
Options = dict[str, Any]
Read = tuple[str, dict[str, State], dict[str, Options]]  # layout; tensors and options by network

LIMITS = dict(img_size=4096, c_dim=2**16, map_layers=32, channel_base=2**24, group=2**16)


class OtherNetwork(WeightsError):
    """The weights belong to another class, or have other tensors than ours."""


def describe(tensor: Tensor | None) -> str:
    """Describes a tensor as `float32 (64, 3, 3, 3)`, or `none`."""
    if tensor is None:
        return "none"
    return f"{tensor.dtype} {tuple(tensor.shape)}".removeprefix("torch.")


def shapes(name: str, options: Options) -> State:
    """Tensors without values, of a "generator" or "discriminator" with these options."""
    with torch.device("meta"):
        return (Generator if name == "generator" else Discriminator)(**options).state_dict()


def check_filter(got: Tensor, key: str, gain: int = 1) -> None:
    wanted = setup_filter(TAPS) * gain
    if got.shape != wanted.shape:
        raise WeightsError(f"{key}: expected {describe(wanted)}, got {describe(got)}")
    if not torch.allclose(got, wanted, atol=1e-6):
        raise WeightsError(f"{key}: expected the filter {list(TAPS)}, got {got.tolist()}")


def option(name: str, value: Any, where: str) -> Any:
    """Returns `value` if the network can be built with it."""
    if name in ("clamp", "group") and value is None:
        return None
    low = {"c_dim": 0, "clamp": 1e-6}.get(name, 1)
    high = LIMITS.get(name, 2**14)
    if type(value) is not int and not (name == "clamp" and type(value) is float):
        raise WeightsError(f"{where}: {name}: expected a number, got {type(value).__name__}")
    if not low <= value <= high:
        raise WeightsError(f"{where}: {name}: expected {low} to {high}, got {value!r:.30}")
    return value


def axis(state: State, key: str, ndim: int, at: int) -> int:
    """Size of one axis of a tensor."""
    got = state.get(key)
    if got is None or got.ndim != ndim:
        raise WeightsError(f"{key}: expected {ndim} dimensions, got {describe(got)}")
    return got.shape[at]


def count(pattern: str, state: State) -> int:
    """Number of keys that match a pattern."""
    return sum(re.fullmatch(pattern, str(key)) is not None for key in state)


def checked(got: State, name: str, options: Options) -> State:
    """Tensors of one network, after a check of every key, shape, type and fixed filter."""
    wanted = shapes(name, options)
    for key in [*wanted, *(key for key in got if key not in wanted)]:
        if describe(wanted.get(key)) != describe(got.get(key)):
            raise OtherNetwork(
                f"{name}.{key}: expected {describe(wanted.get(key))}, got "
                f"{describe(got.get(key))}, in a network of {options}: take a "
                "StyleGAN2 file as published"
            )
        if not got[key].isfinite().all():
            raise WeightsError(f"{name}.{key}: expected finite numbers, got NaN or infinity")
        if key.endswith("resample_filter"):
            check_filter(got[key], f"{name}.{key}")
    return {key: got[key] for key in wanted}

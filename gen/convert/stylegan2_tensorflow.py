"""StyleGAN2 files in the layout of NVIDIA's TensorFlow release, under our names.

There matrices are (I, O), convolutions (H, W, I, O), upsampling ones mirrored, and the bias of
a style is what is added to 1. Written from a description of the format, and tested on files made
after it: it has not met a published file yet. What it does not know, it refuses.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gen.convert.common import (
    Options,
    Place,
    Read,
    State,
    axis,
    count,
    describe,
    img_size,
    option,
    shapes,
    translated,
    width_options,
)
from gen.files import WeightsError
from gen.networks.stylegan2 import TAPS
from gen.pickles import NETWORK, Call, brief, expect
from gen.pickles.files import PickleFile, number

MAX_VARIABLES = 1000
TF_FIXED = {  # options of its networks that ours have as constants
    "label_size": 0,
    "mapping_lrmul": 0.01,
    "nonlinearity": "lrelu",
    "normalize_latents": True,
    "num_channels": 3,
    "resample_kernel": list(TAPS),
}
TF_GENERATOR = dict(conv0="Conv0_up", conv1="Conv1", torgb="ToRGB")
TF_DISCRIMINATOR = dict(
    fromrgb="FromRGB", conv0="Conv0", conv1="Conv1_down", skip="Skip", conv="Conv", fc="Dense0",
    out="Output",
)  # fmt: skip
TF_LEAVES = {"affine.weight": "mod_weight", "affine.bias": "mod_bias"}


def read_tensorflow(file: PickleFile, value: tuple) -> Read:
    """A pickled (G, D, Gs); Gs has the averaged weights."""
    config, networks = {}, {}
    for name, network, architecture in (
        ("generator", value[2], "skip"),
        ("discriminator", value[1], "resnet"),
    ):
        got, said = tf_variables(file, network)
        for key, wanted in (TF_FIXED | {"architecture": architecture}).items():
            if (have := number(said.get(key, wanted))) != wanted:
                raise WeightsError(f"{name}: {key}: expected {wanted}, got {brief(have)}")
        clamp = option("clamp", number(said.get("conv_clamp")), name)
        blocks = count(r"(synthesis/)?\d+x\d+/(ToRGB|Skip)/weight", got)
        size = img_size(blocks - (name == "generator"))
        if name == "generator":
            last = axis(got, f"synthesis/{size}x{size}/ToRGB/weight", 4, 2)
            first = axis(got, "synthesis/4x4/Const/const", 4, 1)
            dense = "mapping/Dense0/weight"
            more = dict(z_dim=axis(got, dense, 2, 0), c_dim=0, w_dim=axis(got, dense, 2, 1))
            layers = count(r"mapping/Dense\d+/weight", got)
            more["map_layers"] = option("map_layers", layers, name)
        else:
            last = axis(got, f"{size}x{size}/FromRGB/weight", 4, 3)
            first = axis(got, "4x4/Conv/weight", 4, 3)
            group = option("group", number(said.get("mbstd_group_size", 4)), name)
            more = dict(c_dim=0, group=group)
        config[name] = width_options(size, last, first) | more | dict(clamp=clamp)
        networks[name] = translated(got, shapes(name, config[name]), in_tensorflow)
        if left := [key for key, v in got.items() if v.numel() > 1]:  # single ones: training's
            raise WeightsError(
                f"{name}: {left[0]!r:.80}: expected none, got {describe(got[left[0]])}"
            )
    return "NVIDIA's TensorFlow layout, Gs", networks, config


def tf_variables(file: PickleFile, network: Any) -> tuple[State, Options]:
    """Variables of a network and its components by their path, and its static options."""
    got, said, todo = {}, {}, [("", network)]
    for _ in range(8):  # a generator has two components
        if not todo:
            break
        prefix, network = todo.pop()
        if type(network) is not Call or network.name != NETWORK:
            raise WeightsError(f"expected a TensorFlow network, got {brief(network)}")
        state = expect(network.state, dict)
        if expect(state["version"], int) < 4:
            raise WeightsError(
                f"expected a StyleGAN2 network of version 4 or above, got {state['version']}: "
                "files of StyleGAN 1 hold other networks"
            )
        said = state["static_kwargs"] | said
        variables = expect(state["variables"], list)
        todo += [(f"{prefix}{key}/", v) for key, v in expect(state["components"], dict).items()]
        if len(variables) > MAX_VARIABLES or any(len(path) > 40 for path, _ in todo):
            raise WeightsError(f"refused: a network with {len(variables)} variables, or long names")
        for key, value in variables:
            value = number(value)
            plain = type(value) in (int, float)
            path = f"{prefix}{expect(key, str)[:100]}"
            got[path] = torch.tensor(float(value)) if plain else file.tensor(value)
    if todo:
        raise WeightsError("refused: too many components in a TensorFlow network")
    return got, said


def in_tensorflow(key: str, ours: Tensor) -> Place:
    """The name of our `key` in the TensorFlow networks; matrices are (I, O) there, kernels HWIO."""
    scope, *parts = key.split(".")
    shape, flip = tuple(ours.shape), False
    if key == "mapping.w_avg":
        return "dlatent_avg", shape, torch.clone
    if scope == "mapping":
        theirs = f"mapping/Dense{parts[0][2:]}/{parts[1]}"
    elif key == "synthesis.b4.const":
        return "synthesis/4x4/Const/const", (1, *shape), lambda value: value[0]
    elif scope == "synthesis":
        size, layer, leaf = int(parts[0][1:]), parts[1], ".".join(parts[2:])
        flip = layer == "conv0" and leaf == "weight"
        if leaf == "noise_const":
            at = 2 * int(math.log2(size)) - (5 if layer == "conv0" else 4)
            return f"synthesis/noise{at}", (1, 1, *shape), lambda value: value[0, 0]
        layer = "Conv" if size == 4 and layer == "conv1" else TF_GENERATOR[layer]
        theirs = f"synthesis/{size}x{size}/{layer}/{TF_LEAVES.get(leaf, leaf)}"
    else:
        folder = "" if parts[0] == "out" else f"{scope[1:]}x{scope[1:]}/"
        theirs = f"{folder}{TF_DISCRIMINATOR[parts[0]]}/{parts[1]}"
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(ours.ndim, tuple(range(ours.ndim)))
    there = [0] * ours.ndim
    for at, axis_there in enumerate(order):
        there[axis_there] = shape[at]

    def to_ours(value: Tensor) -> Tensor:
        value = value.permute(order)
        value = value.flip(2, 3) if flip else value
        return value + 1 if theirs.endswith("mod_bias") else value

    return theirs, tuple(there), to_ours

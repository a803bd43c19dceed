"""StyleGAN2 files in the layout of NVIDIA's PyTorch release, which has the names that we use."""

from __future__ import annotations

from typing import Any

from gen.convert.common import Options, OtherNetwork, Read, State, checked, option
from gen.files import WeightsError
from gen.networks.stylegan2 import TAPS
from gen.pickles import PERSISTENT, Call, brief, expect
from gen.pickles.files import PickleFile, number

MAX_DEPTH = 8  # of modules within modules; published ones have 4
MAX_MODULES = 1000
MAX_MEMBERS = 100  # parameters, buffers, or modules of one module
OURS = {  # option of our networks -> NVIDIA's option, and its value in files without it
    "img_size": ("img_resolution", None),
    "z_dim": ("z_dim", None),
    "c_dim": ("c_dim", None),
    "w_dim": ("w_dim", None),
    "map_layers": ("num_layers", 8),
    "channel_base": ("channel_base", 32768),
    "channel_max": ("channel_max", 512),
    "clamp": ("conv_clamp", None),
    "group": ("mbstd_group_size", 4),
}
FIXED = {  # NVIDIA's options that are constants in our networks
    "activation": "lrelu",
    "img_channels": 3,
    "lr_multiplier": 0.01,
    "mbstd_num_channels": 1,
    "resample_filter": list(TAPS),
    "use_noise": True,
}


def read_nvidia(file: PickleFile, value: dict) -> Read:
    """Reads a file whose networks are calls that would run source text, beside their state.

    A discriminator of another kind, from methods that use this generator, is left out.
    """
    layout, networks, config = "NVIDIA's PyTorch layout, G_ema", {}, {}
    networks["generator"], config["generator"] = read_network(file, value["G_ema"], "Generator")
    if value.get("D") is not None:
        try:
            tensors, options = read_network(file, value["D"], "Discriminator")
            networks["discriminator"] = checked(tensors, "discriminator", options)
            config["discriminator"] = options
        except OtherNetwork as error:
            layout += f"; without its discriminator, which is not StyleGAN2's ({error})"
    return layout, networks, config


def read_network(file: PickleFile, root: Any, kind: str) -> tuple[State, Options]:
    """The tensors of the network, and the options of our network."""
    tensors, said = read_module(file, root, kind)
    known = ["skip"] if kind == "Generator" else ["resnet", "orig"]
    if (architecture := said.pop("architecture", known[0])) not in known:
        raise OtherNetwork(
            f"{kind}: architecture: expected {' or '.join(known)}, got {brief(architecture)}"
        )
    if kind == "Discriminator" and said.get("c_dim") == 0:
        said.pop("num_layers", None)  # has no effect; 0 in files that come from TensorFlow
    absent = {"Generator": ("group",), "Discriminator": ("z_dim", "w_dim")}[kind]
    options = {
        ours: option(ours, said.get(theirs, default), kind)
        for ours, (theirs, default) in OURS.items()
        if ours not in absent
    }
    return tensors, options | (
        {"residual": architecture == "resnet"} if kind == "Discriminator" else {}
    )


def read_module(file: PickleFile, root: Any, kind: str) -> tuple[State, Options]:
    """The tensors of a module by dotted name, and its constructor's arguments by NVIDIA's names."""
    tensors, found, count = {}, {}, 0
    todo = [("", root)]
    while todo:
        prefix, module = todo.pop()
        count += 1
        if count > MAX_MODULES or prefix.count(".") > MAX_DEPTH:
            raise WeightsError(f"refused: {prefix!r:.80}: too many modules, or nested too deeply")
        state = module_state(module, prefix, None if prefix else kind)
        unsaved = expect(state.get("_non_persistent_buffers_set", set()), set)
        buffers = {k: v for k, v in members(state, "_buffers").items() if k not in unsaved}
        for key, value in (members(state, "_parameters") | buffers).items():
            tensors[f"{prefix}{key}"] = file.tensor(value)
        for key, child in members(state, "_modules").items():
            todo.append((f"{prefix}{key}.", child))
        for name in ("img_resolution", "img_channels", "z_dim", "c_dim", "w_dim", "conv_clamp"):
            if name in state:  # plain attributes, for arguments given by position or by default
                found.setdefault(name, state[name])
    given = module_state(root, "", kind)["_init_kwargs"]
    for part in ("mapping_kwargs", "synthesis_kwargs", "block_kwargs", "epilogue_kwargs"):
        found |= expect(given.get(part, {}), dict)  # flattened in the stylegan3 repository
    found |= given
    found = {key: number(value) for key, value in found.items()}
    for key, value in FIXED.items():
        if (got := found.get(key, value)) != value:
            raise OtherNetwork(f"{kind}: {key}: expected {value}, got {brief(got)}")
    return tensors, found


def module_state(module: Any, prefix: str, kind: str | None) -> dict:
    """The `__dict__` that a module was saved with; the source text is not used."""
    where = prefix.rstrip(".") or "network"
    if type(module) is not Call or module.name != PERSISTENT:
        raise WeightsError(f"{where}: expected a module of NVIDIA's, got {brief(module)}")
    meta = expect(module.args[0], dict)
    if meta["type"] != "class" or meta["version"] != 6 or kind not in (None, meta["class_name"]):
        got = ", ".join(brief(meta[key]) for key in ("type", "class_name", "version"))
        raise OtherNetwork(f"{where}: expected class {kind}, version 6, got {got}")
    return expect(meta["state"], dict)


def members(state: dict, part: str) -> dict[str, Any]:
    """Parameters, buffers or modules of a module, without those that are None."""
    found = expect(state[part], dict)
    if len(found) > MAX_MEMBERS or any(type(k) is not str or len(k) > 40 for k in found):
        raise WeightsError(f"refused: a module with {len(found)} {part}, or with long names")
    return {k: v for k, v in found.items() if v is not None}

"""Published StyleGAN2 weights, under NVIDIA's names: read as data, checked, never run.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, and
"Training Generative Adversarial Networks with Limited Data", NeurIPS 2020. Four layouts are read:
pickles of the PyTorch releases (stylegan2-ada-pytorch, and stylegan3 for its StyleGAN2 networks),
pickles of the TensorFlow release, and torch.save files of rosinality's implementation and of the
encoders pSp and e4e, which hold its generator.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gen.convert.starganv2 import State, say
from gen.convert.stylegan2_rosinality import (
    Options,
    Read,
    check_filter,
    option,
    read_rosinality,
    shapes,
)
from gen.convert.stylegan2_tensorflow import read_tensorflow
from gen.files import WeightsError, sha256, without_suffix, write_atomic
from gen.networks.stylegan2 import TAPS
from gen.pickle_file import PickleFile, number
from gen.pickles import PERSISTENT, Call, brief, expect
from gen.weights import save_safetensors

WANTED = (
    "a published StyleGAN2 file: NVIDIA's .pkl (PyTorch or TensorFlow), or a .pt of rosinality's "
    "implementation, pSp or e4e"
)
LICENCE = (
    "that of the file; NVIDIA's own weights are under its Source Code License: research and "
    "evaluation only, not commercial, also after a conversion"
)
MAX_DEPTH = 8  # of modules within modules; published ones have 4
MAX_MODULES = 1000
MAX_MEMBERS = 100  # parameters, or buffers, or modules, of one module
OURS = {  # option of our networks -> NVIDIA's, and what that is if the file does not say
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
FIXED = {  # NVIDIA's options that our networks have as constants
    "activation": "lrelu",
    "img_channels": 3,
    "lr_multiplier": 0.01,
    "mbstd_num_channels": 1,
    "resample_filter": list(TAPS),
    "use_noise": True,
}


class OtherNetwork(WeightsError):
    """Of another class, or other tensors than ours."""


class Published(NamedTuple):
    """What a published file holds.

    Attributes:
        generator: state dict of `gen.networks.stylegan2.Generator`; of the averaged weights.
        discriminator: state dict of `Discriminator`, if the file has one.
        config: "generator" and "discriminator": the options of these classes.
        source: for a card: file, sha256, layout.
    """

    generator: State
    discriminator: State | None
    config: dict[str, Options]
    source: str


def read_stylegan2(path: str | Path) -> Published:
    """Reads a published file. No line of what it holds is run, none of its globals imported.

    Raises:
        OSError: There is no such file.
        WeightsError: Not such a file, damaged or unsafe, or a tensor that does not fit.
    """
    with open(path, "rb"):
        pass
    try:
        file = PickleFile(path)
        value = file.value
        if type(value) is tuple and len(value) == 3:
            layout, networks, config = read_tensorflow(file, value)
        elif type(value) is dict and "G_ema" in value:
            layout, networks, config = read_nvidia(file, value)
        elif type(value) is dict and {"g_ema", "state_dict"} & set(value):
            layout, networks, config = read_rosinality(file, value)
        else:
            got = f"one with {list(value)[:8]!s:.200}" if type(value) is dict else brief(value)
            raise WeightsError(f"expected {WANTED}, got {got}")
        state = {name: checked(got, name, config[name]) for name, got in networks.items()}
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file raises nearly anything
        what = f"{type(error).__name__}: {error!s:.200}"
        raise WeightsError(f"{path}: expected {WANTED}, got one that ends in {what}") from error
    source = f"{Path(path).name}, sha256 {sha256(path)}; {layout}"
    return Published(state["generator"], state.get("discriminator"), config, source)


def import_stylegan2(path: str | Path, out: str | Path, domains: Sequence[str] = ()) -> Path:
    """A published file to a .safetensors of the method `StyleGAN2`; returns its card.

    Args:
        path: the published file; read without running anything in it.
        out: the .safetensors to write; the card goes beside it, as .md.
        domains: names of the classes, in their order; none: class_0, class_1, ..

    Raises:
        WeightsError: Not such a file, or a tensor that does not fit; expected and got.
        ValueError: `domains` do not fit the file.
    """
    if (out := Path(out)).suffix != ".safetensors":
        raise ValueError(f"out: expected a name that ends in .safetensors, got {out.name}")
    published = read_stylegan2(path)
    g, d = published.config["generator"], published.config.get("discriminator", {})
    classes = g["c_dim"]
    names = list(domains) or [f"class_{i}" for i in range(classes)]
    if len(names) != classes:
        raise ValueError(f"domains: expected {classes} names, got {len(names)}: {names}")
    same = ("img_size", "z_dim", "w_dim", "map_layers", "channel_base", "channel_max")
    options = {key: g[key] for key in same} | {
        "num_domains": max(1, classes),
        "conditional": classes > 0,
        "clamp": g["clamp"] or 0.0,
        "group": (d["group"] or 0) if d else 4,
        "residual": d.get("residual", True),
    }
    state = {f"generator.{key}": value for key, value in published.generator.items()}
    if fits := published.discriminator is not None and all(
        d[key] == g[key] for key in ("channel_base", "channel_max", "clamp", "c_dim")
    ):  # else ours would be another one
        state |= {f"discriminator.{key}": v for key, v in published.discriminator.items()}
    meta = dict(
        method="StyleGAN2",
        hparams=json.dumps(options),
        domains=json.dumps(names),
        iteration="0",
        licence=LICENCE,
        source=published.source,
    )
    save_safetensors(state, out, meta)
    card = Path(f"{without_suffix(out)}.md")
    rows = "\n".join(f"| `{key}` | {value} |" for key, value in options.items())
    text = f"""# {without_suffix(out).name}

A published StyleGAN2 generator of {g["img_size"]} px, for `gen.load("{out.name}")`.

- **Source**: {published.source}
- **Licence**: {LICENCE}
- **Discriminator**: {"in the file too" if fits else "none; training would start with a fresh one"}
- **File**: sha256 `{sha256(out)}`

| option | value |
|---|---|
{rows}
"""
    write_atomic(card, text.encode())
    return card


def checked(got: State, name: str, options: Options) -> State:
    """The tensors of one network, after each key, shape, type and fixed filter was compared."""
    wanted = shapes(name, options)
    for key in [*wanted, *(key for key in got if key not in wanted)]:
        if say(wanted.get(key)) != say(got.get(key)):
            raise OtherNetwork(
                f"{name}.{key}: expected {say(wanted.get(key))}, got {say(got.get(key))}, in a "
                f"network of {options}: take a StyleGAN2 file as published"
            )
        if not got[key].isfinite().all():
            raise WeightsError(f"{name}.{key}: expected finite numbers, got NaN or infinity")
        if key.endswith("resample_filter"):
            check_filter(got[key], f"{name}.{key}")
    return {key: got[key] for key in wanted}


# ---- NVIDIA, PyTorch ----------------------------------------------------------------------------


def read_nvidia(file: PickleFile, value: dict) -> Read:
    """Networks are calls that would run source text; their state is beside that text.

    A discriminator that is not ours, as of other methods with this generator, is left out.
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
    """Its tensors, and the options of ours."""
    tensors, said = read_module(file, root, kind)
    known = ["skip"] if kind == "Generator" else ["resnet", "orig"]
    if (architecture := said.pop("architecture", known[0])) not in known:
        raise OtherNetwork(
            f"{kind}: architecture: expected {' or '.join(known)}, got {brief(architecture)}"
        )
    if kind == "Discriminator" and said.get("c_dim") == 0:
        said.pop("num_layers", None)  # it maps nothing; 0 in files that come from TensorFlow
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
    """Its tensors by their dotted names, and what its constructor was given, by NVIDIA's names."""
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
            if name in state:  # plain attributes, for what was given by position or by default
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
    """The `__dict__` that a module was saved with. The source text beside it is left alone."""
    where = prefix.rstrip(".") or "network"
    if type(module) is not Call or module.name != PERSISTENT:
        raise WeightsError(f"{where}: expected a module of NVIDIA's, got {brief(module)}")
    meta = expect(module.args[0], dict)
    if meta["type"] != "class" or meta["version"] != 6 or kind not in (None, meta["class_name"]):
        got = ", ".join(brief(meta[key]) for key in ("type", "class_name", "version"))
        raise OtherNetwork(f"{where}: expected class {kind}, version 6, got {got}")
    return expect(meta["state"], dict)


def members(state: dict, part: str) -> dict[str, Any]:
    """Parameters, buffers or modules of a module, but those that are None."""
    found = expect(state[part], dict)
    if len(found) > MAX_MEMBERS or any(type(k) is not str or len(k) > 40 for k in found):
        raise WeightsError(f"refused: a module with {len(found)} {part}, or with long names")
    return {k: v for k, v in found.items() if v is not None}

"""Published StyleGAN2 weights, under NVIDIA's names: read as data, checked, never run.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, and
"Training Generative Adversarial Networks with Limited Data", NeurIPS 2020. Three layouts are read:
pickles of the PyTorch releases (stylegan2-ada-pytorch, and stylegan3 for its StyleGAN2 networks),
torch.save files of rosinality's implementation, and torch.save files of the encoders pSp and e4e,
which hold rosinality's generator. NVIDIA's own tool converts pickles of the TensorFlow releases.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gen.convert.common import Options, State, checked
from gen.convert.stylegan2_nvidia import read_nvidia
from gen.convert.stylegan2_rosinality import read_rosinality
from gen.files import WeightsError, sha256, without_suffix, write_atomic
from gen.pickles import NETWORK, Call, brief
from gen.pickles.files import PickleFile
from gen.weights import save_safetensors

WANTED = (
    "a published StyleGAN2 file: NVIDIA's .pkl of PyTorch, or a .pt of rosinality's "
    "implementation, pSp or e4e"
)
TENSORFLOW = (
    "a TensorFlow pickle; make a PyTorch one of it with NVIDIA's converter, legacy.py of stylegan3 "
    "or stylegan2-ada-pytorch (which runs what the file holds: only if you trust who made it): "
    "python legacy.py --source IN.pkl --dest OUT.pkl"
)
LICENCE = (
    "that of the file; NVIDIA's own weights are under its Source Code License: research and "
    "evaluation only, not commercial, also after a conversion"
)


class Published(NamedTuple):
    """The content of a published file.

    Attributes:
        generator: state dict of `gen.networks.stylegan2.Generator`, with averaged weights.
        discriminator: state dict of `Discriminator`, if the file has one.
        config: options of these classes, under "generator" and "discriminator".
        source: file, sha256 and layout, for a card.
    """

    generator: State
    discriminator: State | None
    config: dict[str, Options]
    source: str


def read_stylegan2(path: str | Path) -> Published:
    """Reads a published file; runs no code in it and imports none of its globals.

    Raises:
        OSError: there is no such file.
        WeightsError: the file is of another kind, damaged or unsafe, or a tensor does not fit.
    """
    with open(path, "rb"):
        pass
    try:
        file = PickleFile(path)
        value = file.value
        if type(value) is dict and "G_ema" in value:
            layout, networks, config = read_nvidia(file, value)
        elif type(value) is dict and {"g_ema", "state_dict"} & set(value):
            layout, networks, config = read_rosinality(file, value)
        else:
            got = f"one with {list(value)[:8]!s:.200}" if type(value) is dict else brief(value)
            raise WeightsError(
                f"expected {WANTED}, got {TENSORFLOW if of_tensorflow(value) else got}"
            )
        state = {name: checked(got, name, config[name]) for name, got in networks.items()}
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file raises nearly anything
        what = f"{type(error).__name__}: {error!s:.200}"
        raise WeightsError(f"{path}: expected {WANTED}, got one that ends in {what}") from error
    source = f"{Path(path).name}, sha256 {sha256(path)}; {layout}"
    return Published(state["generator"], state.get("discriminator"), config, source)


def of_tensorflow(value: Any) -> bool:
    """True if `value` is a pickle of NVIDIA's TensorFlow releases: networks (G, D, Gs), or one."""
    networks = value if type(value) is tuple else (value,)
    return any(type(item) is Call and item.name == NETWORK for item in networks)


def import_stylegan2(path: str | Path, out: str | Path, domains: Sequence[str] = ()) -> Path:
    """Converts a published file to a .safetensors of `StyleGAN2`; returns the path of its card.

    Args:
        path: path of the published file; nothing in it is run.
        out: path of the .safetensors to write; the card goes beside it, as .md.
        domains: names of the classes, in the order of the labels; none: class_0, class_1, ..

    Raises:
        WeightsError: the file is of another kind, or a tensor does not fit; expected and got.
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

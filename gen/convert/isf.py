"""Published weights of the implicit style function, ISF-GAN, as a checkpoint of `StyleFunction`.

Source: Liu et al., arXiv 2109.12492. Its checkpoints are dicts: `mapnet`, the function (`w_net.`),
and `discriminator` (`main.`, `out_cls.`, `out_src.`). Nothing in a file is run. The generator is
not inside: it comes from a checkpoint of `StyleGAN2`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gen import checkpoint as files
from gen.convert.common import State, axis, count, describe
from gen.files import WeightsError, sha256, without_suffix, write_atomic
from gen.networks.style_function import AttributeDiscriminator, StyleFunction
from gen.networks.stylegan2 import SIZES
from gen.pickles.files import read_pickle
from gen.weights import check_finite, save_safetensors

WANTED = "a checkpoint of ISF-GAN, a dict with `mapnet` and `discriminator`"
LICENCE = "that of the file, and that of its generator"
MOST = 64  # largest number of attributes, and of rows of a code


def import_isf(
    path: str | Path, out: str | Path, attributes: Sequence[str] = (), generator: str = ""
) -> Path:
    """Converts a published file to a .safetensors of `StyleFunction`; returns the path of its card.

    Args:
        path: path of the published file; nothing in it is run.
        out: path of the .safetensors to write; the card goes beside it, as .md.
        attributes: names of the K attributes, in the order of the file; none: attribute_0,
            attribute_1, ..
        generator: checkpoint of the `StyleGAN2` whose codes are edited.

    Raises:
        WeightsError: the file is of another kind, or a tensor does not fit; expected and got.
        ValueError: `attributes` do not fit the file, or no generator.
    """
    if (out := Path(out)).suffix != ".safetensors":
        raise ValueError(f"out: expected a name that ends in .safetensors, got {out.name}")
    if not generator:
        raise ValueError(
            "generator: expected a checkpoint of StyleGAN2, got none; --generator FILE"
        )
    function, judge = read_parts(path)
    options, sizes = infer(function, judge, path)
    K = options.pop("K")
    names = list(attributes) or [f"attribute_{i}" for i in range(K)]
    if len(names) != K or any("," in name for name in names):
        raise ValueError(f"domains: expected {K} names without commas, got {names}")
    made = read_generator(generator, options)
    state = {f"generator.{k}": v for k, v in made.state.items()}
    shape = {key: made.hparams.get(key, 0.0) for key in SIZES}
    rows = options.pop("rows")
    form = rows, K, options.pop("w_dim"), *(options[k] for k in ("noise_dim", "pre_norm", "norm"))
    with torch.device("meta"):
        wanted = StyleFunction(*form, options["residual"]).state_dict()
    state |= {f"style_function.{k}": v for k, v in compared(function, wanted, path).items()}
    fits = sizes["img_size"] == shape["img_size"]
    options |= {"d_channels": sizes["d_channels"], "d_max_channels": sizes["d_max_channels"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(777)
        fresh = AttributeDiscriminator(
            shape["img_size"], K, options["d_channels"], options["d_max_channels"]
        ).state_dict()
    judge = compared(judge, fresh, path) if fits else fresh
    state |= {f"discriminator.{k}": v for k, v in judge.items()}
    options |= shape | {"attributes": ",".join(names), "space": "W" if rows == 1 else "W+"}
    source = f"{Path(path).name}, sha256 {sha256(path)}; generator {Path(generator).name}"
    meta = dict(method="StyleFunction", hparams=json.dumps(options), domains="[]", iteration="0")
    save_safetensors(state, out, meta | dict(licence=LICENCE, source=source))
    told = "in the file too" if fits else f"a fresh one: the file's is of {sizes['img_size']} px"
    card = Path(f"{without_suffix(out)}.md")
    table = "\n".join(f"| `{k}` | {v} |" for k, v in options.items())
    text = f"""# {without_suffix(out).name}

A published implicit style function with its generator, for `gen.load("{out.name}")`.

- **Source**: {source}
- **Licence**: {LICENCE}
- **Discriminator**: {told}
- **File**: sha256 `{sha256(out)}`

| option | value |
|---|---|
{table}
"""
    write_atomic(card, text.encode())
    return card


def read_parts(path: str | Path) -> tuple[State, State]:
    """Function and discriminator under our names."""
    found = read_pickle(path, WANTED)
    if not isinstance(found, dict) or not {"mapnet", "discriminator"} <= set(found):
        got = list(found)[:8] if isinstance(found, dict) else type(found).__name__
        raise WeightsError(f"{path}: expected {WANTED}, got {got!s:.200}")
    parts = []
    for name, renamed in (
        ("mapnet", {"w_net.": ""}),
        ("discriminator", {"out_cls.": "cls.", "out_src.": "src."}),
    ):
        state = {}
        for key, value in (found[name] if isinstance(found[name], dict) else {"": None}).items():
            if not isinstance(key, str) or not isinstance(value, torch.Tensor):
                raise WeightsError(f"{path}: {name}: expected tensors, got {key!r:.50}")
            key = key.removeprefix("module.")
            for theirs, ours in renamed.items():
                key = ours + key.removeprefix(theirs) if key.startswith(theirs) else key
            state[key] = value
        check_finite(state, path)
        parts.append(state)
    return parts[0], parts[1]


def infer(function: State, judge: State, path: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Infers the options of the function and of the discriminator from names and shapes."""
    try:
        rows = count(r"z_net\.unshared\.\d+\.0\.weight", function)
        K, width = axis(judge, "cls.3.weight", 4, 0), axis(judge, "cls.3.weight", 4, 1)
        given = axis(function, "z_net.shared.0.weight", 2, 1)
        w_dim = axis(function, "z_net.shared.0.weight", 2, 0)
        channels = axis(judge, "main.0.weight", 4, 0)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}; expected {WANTED}") from None
    blocks = count(r"main\.\d+\.conv1\.weight", judge)
    if not (1 <= rows <= MOST and 1 <= K <= MOST and given > K and 2 <= blocks <= 8):
        got = f"{rows} rows, {K} attributes, {given} inputs, {blocks} blocks"
        raise WeightsError(f"{path}: expected {WANTED}, of usual sizes, got one of {got}")
    norm = "adaln" if "adain.norm.weight" in function else "adain"
    options = dict(
        rows=rows, K=K, w_dim=w_dim, noise_dim=given - K, residual=False,
        pre_norm=function.get("z_net.shared.2.weight", torch.empty(0)).ndim == 1,
        norm=norm if "adain.fc.weight" in function else "none",
    )  # fmt: skip
    return options, dict(img_size=4 << blocks, d_channels=channels, d_max_channels=width)


def read_generator(path: str, options: dict[str, Any]) -> files.Checkpoint:
    """A checkpoint of StyleGAN2 with the state of the averaged generator."""
    made = files.read(path)
    rows, wanted = options["rows"], f"a StyleGAN2 without classes, w_dim {options['w_dim']}"
    size, w_dim = made.hparams.get("img_size", 0), made.hparams.get("w_dim")
    has = 2 * size.bit_length() - 4 if type(size) is int else 0
    if made.method != "StyleGAN2" or made.hparams.get("conditional") or w_dim != options["w_dim"]:
        raise WeightsError(f"{path}: expected {wanted}, got a {made.method}, w_dim {w_dim}")
    if rows not in (1, has):
        raise WeightsError(f"{path}: expected {wanted} and {rows} rows, got {has} at {size} px")
    return made._replace(state=made.network("generator"))


def compared(got: State, wanted: State, path: str | Path) -> State:
    """Returns all tensors, after a check of every key, shape and dtype."""
    for key in [*wanted, *(key for key in got if key not in wanted)]:
        if describe(wanted.get(key)) != describe(got.get(key)):
            told = f"expected {describe(wanted.get(key))}, got {describe(got.get(key))}"
            raise WeightsError(f"{path}: {key}: {told}: take a checkpoint as published")
    return {key: got[key] for key in wanted}

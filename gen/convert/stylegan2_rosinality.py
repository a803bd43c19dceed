"""StyleGAN2 files in rosinality's layout, under our names.

Our names and shapes are NVIDIA's. rosinality's names differ; some tensors have axes of size 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor

from gen.convert.common import (
    Options,
    Read,
    State,
    axis,
    check_filter,
    count,
    describe,
    option,
    shapes,
)
from gen.files import WeightsError
from gen.networks.stylegan2 import TAPS, MappingNetwork
from gen.ops.fir import setup_filter
from gen.pickles import expect
from gen.pickles.files import PickleFile

Place = tuple[str, tuple[int, ...], Callable[[Tensor], Tensor]]  # key, shape there, to ours

CODES = 10_000  # latents whose mean code replaces a missing average

IN_LAYER = {
    "weight": "conv.weight",
    "bias": "activate.bias",
    "noise_strength": "noise.weight",
    "affine.weight": "conv.modulation.weight",
    "affine.bias": "conv.modulation.bias",
}
IN_LAST = {"conv.weight": "final_conv.0.weight", "conv.bias": "final_conv.1.bias"} | {
    f"{ours}.{leaf}": f"final_linear.{i}.{leaf}"
    for i, ours in enumerate(("fc", "out"))
    for leaf in ("weight", "bias")
}
IN_BLOCK = {
    "conv0.weight": "conv1.0.weight",
    "conv0.bias": "conv1.1.bias",
    "conv1.weight": "conv2.1.weight",
    "conv1.bias": "conv2.2.bias",
    "skip.weight": "skip.1.weight",
}
KERNELS = re.compile(r"(convs\.\d+\.conv\.blur|to_rgbs\.\d+\.upsample)\.kernel")  # of upsampling
D_KERNELS = re.compile(r"convs\.\d+\.(conv2|skip)\.0\.kernel")


def read_rosinality(file: PickleFile, value: dict) -> Read:
    """Reads `g_ema` and `d`, or the `decoder.` of a pSp or e4e encoder."""
    if "g_ema" in value:
        layout, saved, extra = "rosinality's layout, g_ema", value["g_ema"], value
    else:
        layout, extra = "pSp's layout, decoder", expect(value["state_dict"], dict)
        saved = {k[8:]: v for k, v in extra.items() if expect(k, str).startswith("decoder.")}
        extra = extra | value
    got = {key: file.tensor(v) for key, v in expect(saved, dict).items()}
    size = img_size(count(r"to_rgbs\.\d+\.bias", got))
    last = f"to_rgbs.{int(math.log2(size)) - 3}.conv.weight"
    options = width_options(size, axis(got, last, 5, 2), axis(got, "input.input", 4, 1)) | dict(
        z_dim=option("z_dim", axis(got, "style.1.weight", 2, 1), "style.1"),
        c_dim=0,
        w_dim=option("w_dim", axis(got, "style.1.weight", 2, 0), "style.1"),
        map_layers=option("map_layers", count(r"style\.\d+\.weight", got), "style"),
        clamp=None,
    )
    average, got["latent_avg"] = extra.get("latent_avg"), torch.zeros(options["w_dim"])
    if average is not None:
        got["latent_avg"] = one_row(file.tensor(average))
    wanted = shapes("generator", options)
    if not count(r"noises\..*", got):
        layout += ", noise_const: drawn here, as the file has none"
        got |= drawn_noise(wanted)
    networks = {"generator": translated(got, wanted, in_generator)}
    check_kernels(got, KERNELS, 4)
    if average is None:
        layout += f", w_avg: the mean of {CODES:,} codes, as the file has none"
        networks["generator"]["mapping.w_avg"] = mean_code(networks["generator"], options)
    config = {"generator": options}
    if extra.get("d") is not None:
        got = {key: file.tensor(v) for key, v in expect(extra["d"], dict).items()}
        size = img_size(count(r"convs\.\d+\.skip\.1\.weight", got))
        widths = axis(got, "convs.0.0.weight", 4, 0), axis(got, "final_conv.0.weight", 4, 0)
        more = dict(c_dim=0, group=4, clamp=None)
        config["discriminator"] = width_options(size, *widths) | more
        wanted = shapes("discriminator", config["discriminator"])
        networks["discriminator"] = translated(got, wanted, in_discriminator(size))
        check_kernels(got, D_KERNELS, 1)
    return layout, networks, config


def img_size(blocks: int) -> int:
    """Image side, px, of a network with this number of blocks above 4 px."""
    return option("img_size", 4 << max(0, min(blocks, 20)), "number of blocks")


def width_options(img_size: int, last: int, first: int) -> Options:
    """channel_base and channel_max for `last` channels at full size and `first` at 4 px."""
    return dict(img_size=img_size, channel_base=last * img_size, channel_max=first)


def translated(got: State, wanted: State, place: Callable[[str, Tensor], Place]) -> State:
    """The tensors of `wanted`, converted from `got`; removes the used tensors from `got`."""
    state = {}
    for key, tensor in wanted.items():
        if key.endswith("resample_filter"):
            state[key] = setup_filter(TAPS)
            continue
        theirs, shape, ours = place(key, tensor)
        value = got.pop(theirs, None)
        if value is None or value.shape != shape:
            raise WeightsError(
                f"{theirs}: expected float32 {shape}, got {describe(value)} (our {key})"
            )
        state[key] = ours(value).contiguous()
    return state


def in_generator(key: str, ours: Tensor) -> Place:
    """Place of our `key` in rosinality's generator."""
    parts, shape = key.split("."), tuple(ours.shape)
    if parts[0] == "mapping":
        if parts[1] == "w_avg":
            return "latent_avg", shape, torch.clone
        return f"style.{int(parts[1][2:]) + 1}.{parts[2]}", shape, torch.clone
    block, layer, leaf = parts[1], parts[2], ".".join(parts[3:])
    at = 2 * (int(math.log2(int(block[1:]))) - 3) + (layer == "conv1")  # -1: conv1 of 4 px
    if layer == "const":
        theirs, shape = "input.input", (1, *shape)
    elif layer == "torgb":
        base = "to_rgb1" if block == "b4" else f"to_rgbs.{at // 2}"
        theirs = f"{base}.{'bias' if leaf == 'bias' else IN_LAYER[leaf]}"
        shape = {"weight": (1, *shape), "bias": (1, *shape, 1, 1)}.get(leaf, shape)
    elif leaf == "noise_const":
        theirs, shape = f"noises.noise_{at + 1}", (1, 1, *shape)
    else:
        theirs = f"{'conv1' if block == 'b4' else f'convs.{at}'}.{IN_LAYER[leaf]}"
        shape = {"weight": (1, *shape), "noise_strength": (1,)}.get(leaf, shape)
    return theirs, shape, lambda value: value.reshape(ours.shape)


def in_discriminator(size: int) -> Callable[[str, Tensor], Place]:
    """Function for the place of our `key` in rosinality's discriminator, largest block first."""

    def place(key: str, ours: Tensor) -> Place:
        block, leaf = key.split(".", 1)
        if block == "b4":
            theirs = IN_LAST[leaf]
        elif leaf.startswith("fromrgb"):
            theirs = {"fromrgb.weight": "convs.0.0.weight", "fromrgb.bias": "convs.0.1.bias"}[leaf]
        else:
            theirs = f"convs.{int(math.log2(size // int(block[1:]))) + 1}.{IN_BLOCK[leaf]}"
        return theirs, tuple(ours.shape), torch.clone

    return place


def check_kernels(left: State, known: re.Pattern, gain: int) -> None:
    """Refuses leftover tensors unless they are the constant kernels that we use."""
    for key, value in left.items():
        if not known.fullmatch(str(key)):
            raise WeightsError(f"{key!r:.80}: expected none, got {describe(value)}")
        check_filter(value, key, gain)


def one_row(average: Tensor) -> Tensor:
    """Reduces (rows, D) with equal rows to (D,); keeps (D,)."""
    rows = average.reshape(-1, average.shape[-1])
    if not torch.allclose(rows, rows[:1], rtol=1e-4, atol=1e-5):
        raise WeightsError("latent_avg: expected the same code in all rows, got different ones")
    return rows[0].clone()


def drawn_noise(wanted: State) -> State:
    """Maps of fixed noise under rosinality's names, drawn with a fixed seed."""
    rng = torch.Generator().manual_seed(0)
    places = [in_generator(k, v) for k, v in wanted.items() if k.endswith("noise_const")]
    return {theirs: torch.randn(shape, generator=rng) for theirs, shape, _ in places}


@torch.no_grad()
def mean_code(state: State, options: Options) -> Tensor:
    """Mean (D,) of mapped latents, which are drawn with a fixed seed."""
    mapping = MappingNetwork(options["z_dim"], 0, options["w_dim"], 1, options["map_layers"])
    prefix = "mapping."
    mapping.load_state_dict(
        {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    )
    z = torch.randn(CODES, options["z_dim"], generator=torch.Generator().manual_seed(0))
    return mapping(z)[:, 0].mean(0)

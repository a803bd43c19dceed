"""Files of StyleGAN2 as others write them."""

import argparse
import contextlib
import io
import math
import pickle
import struct
import sys
import types
from collections import OrderedDict

import numpy as np
import torch

from gen.convert.common import shapes

G = dict(
    img_size=16, z_dim=6, c_dim=0, w_dim=6, map_layers=2, channel_base=64, channel_max=8, clamp=256
)


D = dict(
    img_size=16, c_dim=0, channel_base=64, channel_max=8, group=4, map_layers=8, residual=True,
    clamp=256,
)  # fmt: skip


FILTER = torch.outer(*[torch.tensor([1.0, 3, 3, 1])] * 2) / 64


def numbers(wanted, seed=0):
    """A state dict of these shapes with random numbers, fixed filters excepted."""
    rng = torch.Generator().manual_seed(seed)
    return {
        key: FILTER.clone()
        if key.endswith("resample_filter")
        else torch.randn(v.shape, generator=rng)
        for key, v in wanted.items()
    }


def made(g=G, d=D):
    return numbers(shapes("generator", g)), numbers(shapes("discriminator", d), 1)


def same(got, wanted):
    assert list(got) == list(wanted)
    assert [k for k in got if not torch.equal(got[k], wanted[k])] == []


def write(path, data):
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def stubs():
    """Modules that hold the published names while a file is written; gone when it is read."""
    names = (
        "dnnlib dnnlib.util dnnlib.tflib dnnlib.tflib.network torch_utils torch_utils.persistence"
    )
    before = dict(sys.modules)
    for name in [*names.split(), "numpy.core.multiarray"]:
        sys.modules[name] = types.ModuleType(name)
    for thing in (EasyDict, Network, _reconstruct_persistent_obj, scalar):
        setattr(sys.modules[thing.__module__], thing.__name__, thing)
    try:
        yield
    finally:
        for name in [*names.split(), "numpy.core.multiarray"]:
            del sys.modules[name]
        sys.modules.update(before)


class EasyDict(dict):
    __module__ = "dnnlib.util"


class Network:
    __module__ = "dnnlib.tflib.network"

    def __init__(self, state):
        self.state = state

    def __getstate__(self):
        return self.state


def _reconstruct_persistent_obj(meta):
    raise AssertionError("called")


def scalar(dtype, raw):
    raise AssertionError("called")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


scalar.__module__ = "numpy.core.multiarray"


class OldScalar:
    """As numpy 1 writes a float64."""

    def __reduce__(self):
        return scalar, (np.dtype("f8"), struct.pack("<d", math.sqrt(2)))


class Persistent:
    def __init__(self, **meta):
        self.meta = meta

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


SOURCE = "raise SystemExit('module_src was run')\n" + "# networks\n" * 3000


def module(tensors, class_name, init, **attributes):
    """The tree of modules of a flat state dict, each as NVIDIA's persistence saves it."""
    own = {k: v for k, v in tensors.items() if "." not in k}
    buffers = [
        k
        for k in own
        if k in ("resample_filter", "noise_const", "w_avg") or attributes.get("freeze")
    ]
    children = list(dict.fromkeys(k.split(".")[0] for k in tensors if "." in k))
    state = dict(
        training=False,
        _parameters=OrderedDict((k, torch.nn.Parameter(own[k])) for k in own if k not in buffers),
        _buffers=OrderedDict((k, own[k]) for k in buffers),
        _non_persistent_buffers_set=set(),
        _backward_hooks=OrderedDict(),
        _forward_hooks=OrderedDict(),
        _forward_pre_hooks=OrderedDict(),
        _state_dict_hooks=OrderedDict(),
        _load_state_dict_pre_hooks=OrderedDict(),
        _modules=OrderedDict(
            (c, module({k[len(c) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{c}.")},
                       "Layer", {}, freeze=attributes.get("freeze")))
            for c in children
        ),
        weight_gain=np.float64(0.25),
        act_gain=OldScalar(),
        device=torch.device("cpu"),
        _init_args=(),
        _init_kwargs=EasyDict(init),
        **attributes,
    )  # fmt: skip
    state["_parameters"]["absent"] = None
    return Persistent(
        type="class", version=6, module_src=SOURCE, class_name=class_name, state=state
    )


def init_kwargs(options, flat):
    """Constructor arguments by NVIDIA's names: nested as in ada-pytorch, flat as in stylegan3."""
    top = dict(c_dim=options["c_dim"], img_resolution=options["img_size"], img_channels=3)
    widths = {k: options[k] for k in ("channel_base", "channel_max")} | dict(
        num_fp16_res=4, conv_clamp=options["clamp"]
    )
    mapping = dict(mapping_kwargs=EasyDict(num_layers=options["map_layers"]))
    if "z_dim" in options:
        top |= {k: options[k] for k in ("z_dim", "w_dim")} | mapping
        return top | (widths if flat else dict(synthesis_kwargs=EasyDict(widths)))
    if not options["residual"]:
        top["architecture"] = "orig"
    mapping = dict(mapping_kwargs=EasyDict(num_layers=8 if options["c_dim"] else 0))
    rest = dict(epilogue_kwargs=EasyDict(mbstd_group_size=np.int64(options["group"])))
    return top | widths | rest | dict(block_kwargs=EasyDict(freeze_layers=0)) | mapping


def nvidia(g, d, g_options=G, d_options=D, flat=False, protocol=4, freeze=None, **more):
    G_ema = module(g, "Generator", init_kwargs(g_options, flat))
    other = module({k: v + 1 for k, v in g.items()}, "Generator", init_kwargs(g_options, flat))
    D = module(d, "Discriminator", init_kwargs(d_options, flat), freeze=freeze)
    file = dict(
        training_set_kwargs=EasyDict(class_name="training.dataset.ImageFolderDataset", path="x"),
        G=other, D=D, G_ema=G_ema, augment_pipe=None,
    )  # fmt: skip
    with stubs():
        return pickle.dumps(file | more, protocol)


def to_rosinality(g, d, size):
    """The table of the specification, written out as loops; constants with it."""
    L = int(math.log2(size))
    G, D = {}, {}

    def layer(ours, theirs, noise):
        G[f"{theirs}.conv.weight"] = g[f"{ours}.weight"].unsqueeze(0)
        G[f"{theirs}.conv.modulation.weight"] = g[f"{ours}.affine.weight"]
        G[f"{theirs}.conv.modulation.bias"] = g[f"{ours}.affine.bias"]
        G[f"{theirs}.noise.weight"] = g[f"{ours}.noise_strength"].reshape(1)
        G[f"{theirs}.activate.bias"] = g[f"{ours}.bias"]
        G[f"noises.noise_{noise}"] = g[f"{ours}.noise_const"][None, None]

    def torgb(ours, theirs):
        G[f"{theirs}.bias"] = g[f"{ours}.bias"].reshape(1, 3, 1, 1)
        G[f"{theirs}.conv.weight"] = g[f"{ours}.weight"].unsqueeze(0)
        G[f"{theirs}.conv.modulation.weight"] = g[f"{ours}.affine.weight"]
        G[f"{theirs}.conv.modulation.bias"] = g[f"{ours}.affine.bias"]

    for j in range(sum(k.startswith("mapping.fc") for k in g) // 2):
        for leaf in ("weight", "bias"):
            G[f"style.{j + 1}.{leaf}"] = g[f"mapping.fc{j}.{leaf}"]
    G["input.input"] = g["synthesis.b4.const"].unsqueeze(0)
    layer("synthesis.b4.conv1", "conv1", 0)
    torgb("synthesis.b4.torgb", "to_rgb1")
    for i in range(3, L + 1):
        block, at = f"synthesis.b{2**i}", 2 * (i - 3)
        layer(f"{block}.conv0", f"convs.{at}", at + 1)
        layer(f"{block}.conv1", f"convs.{at + 1}", at + 2)
        torgb(f"{block}.torgb", f"to_rgbs.{i - 3}")
        G[f"convs.{at}.conv.blur.kernel"] = G[f"to_rgbs.{i - 3}.upsample.kernel"] = FILTER * 4
        n = L - i + 1
        D[f"convs.{n}.conv1.0.weight"] = d[f"b{2**i}.conv0.weight"]
        D[f"convs.{n}.conv1.1.bias"] = d[f"b{2**i}.conv0.bias"]
        D[f"convs.{n}.conv2.1.weight"] = d[f"b{2**i}.conv1.weight"]
        D[f"convs.{n}.conv2.2.bias"] = d[f"b{2**i}.conv1.bias"]
        D[f"convs.{n}.skip.1.weight"] = d[f"b{2**i}.skip.weight"]
        D[f"convs.{n}.conv2.0.kernel"] = D[f"convs.{n}.skip.0.kernel"] = FILTER
    D["convs.0.0.weight"] = d[f"b{size}.fromrgb.weight"]
    D["convs.0.1.bias"] = d[f"b{size}.fromrgb.bias"]
    for ours, theirs in (("conv.weight", "conv.0.weight"), ("conv.bias", "conv.1.bias")):
        D[f"final_{theirs}"] = d[f"b4.{ours}"]
    for at, ours in enumerate(("fc", "out")):
        for leaf in ("weight", "bias"):
            D[f"final_linear.{at}.{leaf}"] = d[f"b4.{ours}.{leaf}"]
    return G, D


def rosinality(g, d, size=16, new=True, more=()):
    """A training checkpoint: with optimizers and options, zipped or as torch < 1.6 wrote it."""
    g_ema, d_ros = to_rosinality(g, d, size)
    weight = torch.nn.Parameter(torch.zeros(3))
    optim = torch.optim.Adam([weight])
    weight.sum().backward()
    optim.step()
    file = dict(
        g={k: v + 1 for k, v in g_ema.items()}, d=d_ros, g_ema=g_ema,
        g_optim=optim.state_dict(), d_optim=optim.state_dict(),
        args=argparse.Namespace(size=size, path="x", lr=0.002), ada_aug_p=0,
        latent_avg=g["mapping.w_avg"],
    ) | dict(more)  # fmt: skip
    buffer = io.BytesIO()
    file = {k: v for k, v in file.items() if v is not None}
    torch.save(file, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def tensorflow(protocol=3):
    """(G, D, Gs) as NVIDIA's TensorFlow releases pickle it, its networks all but empty."""

    def net(name):
        return Network(
            dict(version=4, name=name, static_kwargs=EasyDict(num_channels=3), build_func_name="f",
                 components=EasyDict(), build_module_src=SOURCE, variables=[("lod", np.float32(0))])
        )  # fmt: skip

    with stubs():
        return pickle.dumps((net("G"), net("D"), net("Gs")), protocol)

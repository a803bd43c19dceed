"""Published StyleGAN2 files, made here with stub classes in their layouts: no code of theirs.

What is read is compared with what was put in, nothing in a file is ever run, and a damaged file
ends in one message.
"""

import io
import json
import os
import pickle
import pickletools
import random
import re
import struct
import sys
import time
import zipfile

import pytest
import torch

from gen.convert.common import shapes
from gen.convert.stylegan2 import import_stylegan2, read_stylegan2
from gen.files import WeightsError
from gen.networks.stylegan2 import Discriminator, Generator, MappingNetwork
from gen.pickles import ALLOWED, MAX_OPCODES
from memory import peak_mebibytes, reset_peak
from stylegan2_files import (
    FILTER,
    D,
    EasyDict,
    G,
    init_kwargs,
    made,
    module,
    nvidia,
    rosinality,
    same,
    stubs,
    tensorflow,
    to_rosinality,
    write,
)

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape")  # in text of a damaged pickle
OPTIONS = {"generator": G, "discriminator": D}


# ---- NVIDIA's PyTorch layout --------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("flat", [False, True])
def test_nvidia(tmp_path, flat, protocol):
    g, d = made()
    path = write(tmp_path / "ffhq.pkl", nvidia(g, d, flat=flat, protocol=protocol, freeze=flat))
    names = {arg for _, arg, _ in pickletools.genops(path.read_bytes()) if isinstance(arg, str)}
    assert "_load_from_bytes" in " ".join(names)  # as published: storages in the old layout
    got = read_stylegan2(path)
    same(got.generator, g)
    same(got.discriminator, d)
    assert got.config == OPTIONS and got.source.startswith("ffhq.pkl, sha256 ")
    assert not {"dnnlib", "torch_utils"} & set(sys.modules)
    Generator(**got.config["generator"]).load_state_dict(got.generator)
    Discriminator(**got.config["discriminator"]).load_state_dict(got.discriminator)


def test_nvidia_conditional_as_its_cifar10(tmp_path):
    g_options = G | dict(c_dim=10, clamp=None)
    d_options = D | dict(c_dim=10, residual=False, clamp=None)
    g, d = made(g_options, d_options)
    assert "mapping.embed.weight" in g and "mapping.fc7.weight" in d and "b16.skip.weight" not in d
    got = read_stylegan2(write(tmp_path / "cifar10.pkl", nvidia(g, d, g_options, d_options)))
    same(got.generator, g)
    same(got.discriminator, d)
    assert got.config == {"generator": g_options, "discriminator": d_options}


def test_nvidia_without_what_has_a_default(tmp_path):
    """Arguments given by position are attributes; a file without D has none."""
    g, _ = made()
    attributes = dict(z_dim=6, c_dim=0, w_dim=6, img_resolution=16, img_channels=3)
    init = dict(mapping_kwargs=EasyDict(num_layers=2), channel_base=64, channel_max=8)
    file = dict(G_ema=module(g, "Generator", init, **attributes))
    with stubs():
        data = pickle.dumps(file)
    got = read_stylegan2(write(tmp_path / "x.pkl", data))
    same(got.generator, g)
    assert got.discriminator is None and got.config == {"generator": G | dict(clamp=None)}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (dict(key="synthesis.b8.conv0.weight", shape=(8, 8, 3, 4)),
         r"generator\.synthesis\.b8\.conv0\.weight: expected float32 \(8, 8, 3, 3\), got float32 "
         r"\(8, 8, 3, 4\)"),
        (dict(key="mapping.fc1.bias"), r"mapping\.fc1\.bias: expected float32 \(6,\), got none"),
        (dict(key="mapping.fc2.bias", shape=(6,)), r"fc2\.bias: expected none, got float32"),
        (dict(key="synthesis.b8.torgb.bias", value=torch.full((3,), torch.nan)), "bias.*finite"),
        (dict(key="synthesis.b4.resample_filter", value=FILTER * 4), r"the filter \[1, 3, 3, 1\]"),
        (dict(key="mapping.w_avg", value=torch.zeros(6).double()), "expected float32.*float64"),
        (dict(key="mapping.w_avg", value=torch.zeros(1).expand(6)), "expected a tensor within"),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named(tmp_path, spoil, message):
    g, d = made()
    value = spoil.get("value", torch.zeros(spoil["shape"]) if "shape" in spoil else None)
    g = {k: v for k, v in g.items() if k != spoil["key"]}
    if value is not None:
        g[spoil["key"]] = value
    with pytest.raises(WeightsError, match=rf"x\.pkl: .*{message}"):
        read_stylegan2(write(tmp_path / "x.pkl", nvidia(g, d)))


@pytest.mark.parametrize(
    "init, message",
    [
        (dict(activation="relu"), "activation: expected lrelu, got 'relu'"),
        (dict(architecture="orig"), "architecture: expected skip, got 'orig'"),
        (dict(img_resolution=10**9), "img_size: expected 1 to 4096, got 1000000000"),
        (dict(mapping_kwargs=EasyDict(num_layers=10**6)), "map_layers: expected 1 to 32, got 10"),
        (dict(img_channels=1), "img_channels: expected 3, got 1"),
        (dict(z_dim="6"), "z_dim: expected a number, got str"),
        (dict(channel_base=32), r"conv0.weight: expected float32 \(4, 8, 3, 3\)"),
    ],
)  # fmt: skip
def test_options_that_the_network_cannot_have_are_named(tmp_path, init, message):
    g, d = made()
    file = dict(G_ema=module(g, "Generator", init_kwargs(G, flat=True) | init))
    with stubs():
        data = pickle.dumps(file)
    with pytest.raises(WeightsError, match=message):
        read_stylegan2(write(tmp_path / "x.pkl", data))


def test_a_discriminator_that_is_not_ours_leaves_the_average(tmp_path):
    g, d = made()
    more = module(d | {"b8.extra.weight": torch.zeros(2)}, "Discriminator", init_kwargs(D, True))
    skip = module(d, "Discriminator", init_kwargs(D, True) | dict(architecture="skip"))
    other = module(d, "ProjectedDiscriminator", dict(backbone="efficientnet"))
    for network, why in ((other, "class Discriminator"), (skip, "resnet or orig"), (more, "extra")):
        got = read_stylegan2(write(tmp_path / "x.pkl", nvidia(g, d, D=network)))
        same(got.generator, g)
        assert got.discriminator is None and list(got.config) == ["generator"]
        assert "without its discriminator" in got.source and why in got.source
    d["b16.conv0.bias"][0] = torch.nan  # ours, and damaged
    with pytest.raises(WeightsError, match="conv0.bias: expected finite"):
        read_stylegan2(write(tmp_path / "x.pkl", nvidia(g, d)))


def test_activations_may_be_clamped_below_1(tmp_path):
    g_options, d_options = G | dict(clamp=0.5), D | dict(clamp=0.5)
    g, d = made(g_options, d_options)
    got = read_stylegan2(write(tmp_path / "x.pkl", nvidia(g, d, g_options, d_options)))
    assert got.config["generator"]["clamp"] == got.config["discriminator"]["clamp"] == 0.5
    none = G | dict(clamp=0)
    with pytest.raises(WeightsError, match="clamp: expected"):
        read_stylegan2(write(tmp_path / "x.pkl", nvidia(g, d, none)))


# ---- rosinality's layout ------------------------------------------------------------------------


ROS = {
    "generator": G | dict(clamp=None),
    "discriminator": dict(
        img_size=16, channel_base=64, channel_max=8, c_dim=0, group=4, clamp=None
    ),
}


@pytest.mark.parametrize("new", [False, True])
def test_rosinality(tmp_path, new):
    g, d = made()
    got = read_stylegan2(write(tmp_path / "550000.pt", rosinality(g, d, new=new)))
    same(got.generator, g)
    same(got.discriminator, d)
    assert got.config == ROS
    Discriminator(**got.config["discriminator"]).load_state_dict(got.discriminator)


def test_rosinality_converted_from_nvidia_holds_g_ema_alone(tmp_path):
    g, d = made()
    data = rosinality(g, d, more=dict.fromkeys(["g", "d", "g_optim", "d_optim", "args"]))
    got = read_stylegan2(write(tmp_path / "x.pt", data))
    same(got.generator, g)
    assert got.discriminator is None and list(got.config) == ["generator"]


def test_without_an_average_it_is_the_mean_code_and_the_source_says_so(tmp_path):
    g, d = made()
    g |= {k: v * (100 if k.endswith("weight") else 1) for k, v in g.items() if "mapping.fc" in k}
    got = read_stylegan2(write(tmp_path / "x.pt", rosinality(g, d, more=dict(latent_avg=None))))
    assert "w_avg: the mean of 10,000 codes" in got.source
    average = got.generator.pop("mapping.w_avg")
    assert got.generator.keys() == g.keys() - {"mapping.w_avg"}
    mapping = MappingNetwork(6, 0, 6, 1, 2)
    mapping.load_state_dict({k[8:]: v for k, v in g.items() if k.startswith("mapping.")})
    with torch.no_grad():
        w = mapping(torch.randn(10_000, 6, generator=torch.Generator().manual_seed(5)))[:, 0]
    assert ((average - w.mean(0)).abs() < 6 * w.std(0) / 100).all() and average.abs().min() > 0


def test_without_noise_maps_some_are_drawn_and_the_source_says_so(tmp_path):
    g, d = made()
    g_ema = {k: v for k, v in to_rosinality(g, d, 16)[0].items() if "noises" not in k}
    path = write(tmp_path / "x.pt", rosinality(g, d, more=dict(g_ema=g_ema)))
    got = read_stylegan2(path)
    assert "noise_const: drawn here" in got.source
    maps = {k: v for k, v in got.generator.items() if k.endswith("noise_const")}
    same(
        {k: v for k, v in got.generator.items() if k not in maps},
        {k: g[k] for k in g if k not in maps},
    )
    assert len(maps) == 5 and 0.5 < torch.cat([v.flatten() for v in maps.values()]).std() < 1.5
    same(read_stylegan2(path).generator, got.generator)


@pytest.mark.parametrize("where", ["top", "state"])
def test_psp_and_e4e_hold_a_generator(tmp_path, where):
    g, d = made()
    g_ema, _ = to_rosinality(g, d, 16)
    state = {f"decoder.{k}": v for k, v in g_ema.items()} | {"encoder.0.weight": torch.zeros(3)}
    average = g["mapping.w_avg"].repeat(6, 1)
    file = dict(state_dict=state, opts=dict(device="cuda:0", n_styles=6))
    (file if where == "top" else state)["latent_avg"] = average
    torch.save(file, tmp_path / "psp.pt")
    got = read_stylegan2(tmp_path / "psp.pt")
    same(got.generator, g)
    average[1] += 1
    torch.save(file, tmp_path / "psp.pt")
    with pytest.raises(WeightsError, match="latent_avg: expected the same code in all rows"):
        read_stylegan2(tmp_path / "psp.pt")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"convs.0.conv.blur.kernel": FILTER}, r"blur\.kernel: expected the filter \[1, 3, 3, 1\]"),
        ({"convs.0.conv.weight": torch.zeros(8, 8, 3, 3)},
         r"convs\.0\.conv\.weight: expected float32 \(1, 8, 8, 3, 3\), got float32 \(8, 8, 3, 3\)"),
        ({"style.3.extra": torch.zeros(1)}, r"style\.3\.extra': expected none, got float32 \(1,\)"),
        ({"style.1.weight": None}, "style.1.weight: expected 2 dimensions, got none"),
    ],
)  # fmt: skip
def test_a_rosinality_tensor_that_does_not_fit_is_named(tmp_path, change, message):
    g, d = made()
    g_ema, _ = to_rosinality(g, d, 16)
    g_ema = {k: v for k, v in (g_ema | change).items() if v is not None}
    with pytest.raises(WeightsError, match=message):
        read_stylegan2(write(tmp_path / "x.pt", rosinality(g, d, more=dict(g_ema=g_ema))))


# ---- NVIDIA's TensorFlow pickles ----------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_tensorflow_pickle_is_refused_with_the_way_out(tmp_path, warm, protocol):
    message = attempt(path := write(tmp_path / "ffhq-config-f.pkl", tensorflow(protocol)))
    assert f"{path}: expected a published StyleGAN2 file" in message
    assert "got a TensorFlow pickle" in message and "legacy.py" in message
    assert "python legacy.py --source IN.pkl --dest OUT.pkl" in message


# ---- as published -------------------------------------------------------------------------------


def test_the_files_made_here_have_the_published_names(specs):
    """Full size: our names and shapes, and those of the rosinality files made here."""
    sections, title = {}, ""
    for line in (specs / "stylegan2_state_dict.txt").read_text().splitlines():
        if line.startswith("## "):
            sections[title := line] = {}
        elif line[:2] in ("P ", "B "):
            key, shape = line[2:].split(maxsplit=1)
            sections[title][key] = tuple(json.loads(shape))

    def section(*words):
        [found] = [v for k, v in sections.items() if all(w in k for w in words) and v]
        return found

    def sizes(state):
        return {k: tuple(v.shape) for k, v in state.items()}

    for base in (32768, 16384):
        g = shapes("generator", dict(channel_base=base))
        d = shapes("discriminator", dict(channel_base=base))
        assert sizes(g) == section("## Generator", f"channel_base={base}")
        assert sizes(d) == section("## Discriminator", f"channel_base={base}")
    g_ros, d_ros = to_rosinality(g, d, 256)
    assert sizes(g_ros) == section("## g_ema")
    assert sizes(d_ros) == section("## d (size 256")


# ---- files that mean harm -----------------------------------------------------------------------

WATCHED = (
    "exec",
    "compile",
    "import",
    "open",
    "os.",
    "subprocess.",
    "socket.",
    "pickle.",
    "shutil.",
)
events = []
watching = []


def watch(event, args):
    """Imports, compilations, executions, calls of the system are events of the interpreter."""
    if watching and event.startswith(WATCHED):
        events.append((event, *map(str, args[:1])))


sys.addaudithook(watch)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """One reading of each layout, so that nothing is imported for the first time later."""
    folder = tmp_path_factory.mktemp("warm")
    for codec in ("cp437", "raw_unicode_escape"):  # of names in archives, of old text
        "x".encode(codec)
    files = dict(nvidia=nvidia(*tiny(), TINY_G, TINY_D))
    files |= {f"ros{new}": rosinality(*tiny(), 8, new=new) for new in (False, True)}
    for name, data in files.items():
        read_stylegan2(write(folder / name, data))
    return files


TINY_G = G | dict(img_size=8, z_dim=3, w_dim=3, channel_base=16, channel_max=3)
TINY_D = D | dict(img_size=8, channel_base=16, channel_max=3)


def tiny():
    return made(TINY_G, TINY_D)


def attempt(path, seconds=15, mebibytes=300):
    """Reads a file that may be bad: a result or one WeightsError, nothing run, within bounds."""
    before = reset_peak()
    events.clear()
    watching.append(1)
    began = time.perf_counter()
    try:
        result = read_stylegan2(path)
    except WeightsError as error:
        result = str(error)
        assert str(path) in result and 10 < len(result) < 2000
    finally:
        watching.clear()
    assert set(events) <= {("open", str(path))}
    assert time.perf_counter() - began < seconds
    assert peak_mebibytes() - before < mebibytes
    return result


def test_the_watch_sees_what_a_file_could_do(tmp_path):
    events.clear()
    watching.append(1)
    exec("import os; os.system('true')", {})
    watching.clear()
    assert {"compile", "exec", "os.system"} <= {event for event, *_ in events}


class Calls:
    """Pickled, it is a call of anything."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def chain(depth=30):
    """Calls whose arguments are calls."""
    value = "x"
    for _ in range(depth):
        value = Calls(str, value)
    return value


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("place", ["alone", "beside", "state", "tensor"])
@pytest.mark.parametrize(
    "name, bad",
    [
        ("system", lambda m: Calls(os.system, f"touch {m}")),
        ("eval", lambda m: Calls(eval, f"open({str(m)!r}, 'w')")),
        ("exec", lambda m: Calls(exec, f"open({str(m)!r}, 'w')")),
        ("getattr", lambda m: Calls(getattr, "x", "upper")),
        ("str", lambda m: chain()),
        ("_rebuild_tensor_v3", lambda m: Calls(torch._utils._rebuild_tensor_v3)),
        ("Path", lambda m: m),
    ],
)
def test_a_call_of_anything_else_is_refused_by_name_and_not_made(
    tmp_path, warm, name, bad, place, protocol
):
    marker = tmp_path / "ran"
    bad = bad(marker)
    g, _ = tiny()
    network = module(g, "Generator", init_kwargs(TINY_G, False))
    state = network.meta["state"]
    file = dict(G_ema=network)
    if place == "alone":
        file = bad
    elif place == "beside":
        file["training_set_kwargs"] = bad
    elif place == "state":
        state["extra"] = bad
    else:
        state["_buffers"]["w"] = bad
    with stubs():
        data = pickle.dumps(file, protocol)
    got = attempt(write(tmp_path / "x.pkl", data))
    assert "refused" in got and name in got
    assert not marker.exists()


def test_source_in_a_file_is_not_even_compiled(tmp_path, warm):
    g, d = tiny()
    data = nvidia(g, d, TINY_G, TINY_D)
    assert data.count(b"raise SystemExit") > 0
    same(attempt(write(tmp_path / "x.pkl", data)).generator, g)
    wrong = data.replace(b"raise SystemExit", b"\0not python(((((")
    same(attempt(write(tmp_path / "y.pkl", wrong)).generator, g)


def test_a_torch_file_with_a_call_is_refused(tmp_path, warm):
    for new in (False, True):
        marker = tmp_path / "ran"
        data = rosinality(*tiny(), 8, new=new, more=dict(args=Calls(os.system, f"touch {marker}")))
        assert "system" in attempt(write(tmp_path / "x.pt", data)) and not marker.exists()


def lists(depth):
    """A list of two references to a list of two references, and so on."""
    return b"(lp0\n" + b"".join(b"(g%d\ng%d\nlp%d\n" % (i, i, i + 1) for i in range(depth))


BOMBS = {
    "memo": b"\x80\x04Nr\xf0\xff\xff\xff.",
    "length": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "length4": b"\x80\x04B" + struct.pack("<I", 2**32 - 1) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
    "long": b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "digits": b"I" + b"9" * 2**20 + b"\n.",
    "opcodes": b"\x80\x04" + b"N0" * MAX_OPCODES + b"N.",
    "marks": b"(" * (MAX_OPCODES - 1) + b".",
    "deep lists": b"\x80\x04" + b"]" * (MAX_OPCODES // 3) + b"a" * (MAX_OPCODES // 3 - 1) + b".",
    "deep tuples": b"\x80\x04N" + b"\x85" * (MAX_OPCODES - 3) + b".",
    "hash of tuples": b"\x80\x04})" + b"2\x86" * 60 + b"Ns.",
    "doubled lists": lists(60) + b".",
    "doubled G_ema": b"}U\x05G_ema" + lists(60) + b"s.",
    "itself": b"}q\x00U\x05G_emah\x00s.",
    "persistent": b"\x80\x04Vx\nQ.",
    "extension": b"\x80\x04\x82\x01.",
    "instance": b"(ios\nsystem\n.",
    "object": b"(cos\nsystem\nVtrue\no.",
    "keyword call": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
    "empty": b"",
    "text": b"hello",
    "zip": b"PK\x03\x04" + b"x" * 99,
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_cannot_take_time_or_memory(tmp_path, warm, name):
    got = attempt(write(tmp_path / "x.pkl", BOMBS[name]))
    assert isinstance(got, str) and (name != "opcodes" or f"more than {MAX_OPCODES} opcodes" in got)


def nested_modules(tmp_path, width, depth):
    """Modules that hold the next one `width` times."""
    leaf = module({}, "Layer", {})
    for _ in range(depth):
        parent = module({}, "Generator", {})
        parent.meta["state"]["_modules"] = {f"m{i}": leaf for i in range(width)}
        leaf = parent
    with stubs():
        return write(tmp_path / "x.pkl", pickle.dumps(dict(G_ema=leaf), 4))


@pytest.mark.parametrize("width, depth", [(1, 100), (2, 60), (99, 7), (101, 1)])
def test_modules_within_modules_have_an_end(tmp_path, warm, width, depth):
    assert "refused" in attempt(nested_modules(tmp_path, width, depth))


@pytest.mark.parametrize(
    "part, value, message",
    [
        (
            "_buffers",
            dict.fromkeys(map(str, range(10_000))),
            "refused: a module with 10000 _buffers",
        ),
        ("_modules", {"m" * 10**6: None}, "long names"),
        ("_non_persistent_buffers_set", list(range(10_000)), "expected a set, got list"),
        ("_parameters", [], "expected a dict, got list"),
        ("_init_kwargs", {"activation": [[]] * 3}, "expected lrelu, got a list"),
    ],
)
def test_what_would_be_walked_many_times_is_short(tmp_path, warm, part, value, message):
    network = module(tiny()[0], "Generator", init_kwargs(TINY_G, False))
    network.meta["state"][part] = value
    with stubs():
        data = pickle.dumps(dict(G_ema=network), 4)
    assert message in attempt(write(tmp_path / "x.pkl", data))


def test_sizes_are_checked_before_memory_is_taken(tmp_path, warm):
    """Storages and tensors that claim more than the file has; archives that unpack to more."""
    g, _ = tiny()
    storage = torch.storage.TypedStorage(1000, dtype=torch.float32, _internal=True)
    torch.save(storage, file := io.BytesIO(), _use_new_zipfile_serialization=False)
    good = file.getvalue()
    more = good.replace(struct.pack("<H", 1000), struct.pack("<H", 60000))  # in both places
    for payload, size, message, *place in (
        (good, 3, "expected a tensor within 1000 numbers", 998, 1),
        (good, 3, "expected a tensor within 1000 numbers", 0, 500),
        (good, 3, "expected sizes and strides", -1, 1),
        (good, 2**30, r"expected a tensor within 1000 numbers, got \(1073741824,\)"),
        (good, 2**39, "expected a tensor within 1000 numbers"),
        (good, 2**62, "expected sizes and strides"),
        (good, -1, "expected sizes and strides"),
        (more, 3, "expected 240000 bytes of numbers, got 4000"),
        (good[:-1], 3, "expected 4000 bytes of numbers, got 3999"),
    ):
        offset, stride = place or (0, 1)
        storage = Calls(torch.storage._load_from_bytes, payload)
        tensor = Calls(
            torch._utils._rebuild_tensor_v2, storage, offset, (size,), (stride,), False, {}
        )  # fmt: skip
        network = module(g, "Generator", init_kwargs(TINY_G, False))
        network.meta["state"]["_modules"]["mapping"].meta["state"]["_buffers"]["w_avg"] = tensor
        with stubs():
            data = pickle.dumps(dict(G_ema=network), 4)
        assert re.search(message, attempt(write(tmp_path / "x.pkl", data)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x/data.pkl", "w") as file:
            for _ in range(8):
                file.write(bytes(2**24))
    assert "without compression" in attempt(write(tmp_path / "x.pt", packed.getvalue()))


def test_the_names_that_are_allowed_are_those_of_published_files_and_of_torch_save():
    harmless = {name for name in ALLOWED if not name.startswith("torch.") or "Storage" not in name}
    assert harmless == {
        "torch_utils.persistence._reconstruct_persistent_obj",
        "dnnlib.util.EasyDict",
        "dnnlib.EasyDict",
        "dnnlib.tflib.network.Network",
        "collections.OrderedDict",
        "argparse.Namespace",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
        "torch.storage._load_from_bytes",
        "torch._utils._rebuild_tensor",
        "torch.Size",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.dtype",
        "numpy.ndarray",
        "builtins.set",
        "_codecs.encode",
    }


# ---- damage -------------------------------------------------------------------------------------

OPCODES = [op.code.encode("latin-1") for op in pickletools.opcodes]
CALLS = [b"cos\nsystem\n(Vtrue\ntR", b"\x8c\x02os\x8c\x06system\x93", b"cbuiltins\neval\n(V1\ntR"]


def mutated(data, rng):
    """A few bits, a cut, a length, or opcodes put in, over or away: mostly outside of numbers."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data))
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = b"".join(rng.choices(OPCODES, k=rng.randrange(1, 9)))
        elif kind == 3:
            data[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1)))
        elif kind == 4:
            start = rng.randrange(len(data))
            data[at:at] = data[start : start + rng.randrange(1, 200)]
        elif kind == 5:
            del data[at : at + rng.randrange(1, 20)]
        else:
            data[at:at] = rng.choice(CALLS)
        if not data:
            break
    return bytes(data)


def at_an_opcode(data, rng):
    """As above, in the structure of a plain pickle: an opcode is replaced or doubled."""
    places = [pos for _, _, pos in pickletools.genops(data)]
    index = rng.randrange(len(places) - 1)
    start, end = places[index], places[index + 1]
    new = rng.choice([rng.choice(OPCODES), rng.choice(CALLS), data[start:end] * 2, b""])
    return data[:start] + new + data[end:]


def fuzz(warm, path, times, seed):
    rng, read = random.Random(seed), 0
    for turn in range(times):
        name = rng.choice(list(warm))
        plain = name == "nvidia" and turn % 2
        data = at_an_opcode(warm[name], rng) if plain else mutated(warm[name], rng)
        if not isinstance(attempt(write(path, data)), str):
            import_stylegan2(path, path.with_suffix(".safetensors"))
            read += 1
    return read


def test_damaged_files_end_in_a_message(tmp_path, warm):
    assert 0 < fuzz(warm, tmp_path / "x", 50, seed=0) < 50


@pytest.mark.slow
def test_a_thousand_damaged_files_end_in_a_message(tmp_path, warm):
    assert 0 < fuzz(warm, tmp_path / "x", 1000, seed=1) < 1000


def test_a_missing_file_is_an_error_with_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pkl"):
        read_stylegan2(tmp_path / "none.pkl")

"""Pickles are read without an unpickler: what torch.save and numpy write, and hostile files."""

import os
import pickle
import pickletools
import struct
import time
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import gen
from gen import checkpoint
from gen.convert.starganv2 import import_starganv2
from gen.convert.stylegan2 import read_stylegan2
from gen.files import WeightsError
from gen.methods.attribute_classifier import AttributeClassifier
from gen.networks import arcface, i3d
from gen.networks.timm_classifier import timm_classifier
from gen.pickles import MAX_OPCODES
from gen.pickles.files import read_pickle, read_state
from memory import peak_mebibytes, reset_peak
from runs import differences


def zipped(path, pickled: bytes, storages=(), more=(), kind=zipfile.ZIP_STORED) -> None:
    """An archive as torch.save makes it, around any pickle."""
    storages = dict(storages)
    with zipfile.ZipFile(path, "w", kind) as archive:
        members = {"data.pkl": pickled, "byteorder": b"little", "version": b"3\n"}
        members |= {f"data/{key}": raw for key, raw in storages.items()}
        for name, raw in [*members.items(), *more]:
            archive.writestr(f"x/{name}", raw)


def in_legacy(path, pickled: bytes, keys: bytes = b"].", after: bytes = b"") -> None:
    """What torch.save wrote before 1.6, around any pickle."""
    info = {"little_endian": True, "protocol_version": 1001, "type_sizes": {}}
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, info))
    path.write_bytes(head + pickled + b"\x80\x02" + keys + after)


def reference(key: str, numel: int) -> bytes:
    """The opcodes of a storage of float32 numbers."""
    parts = b"(", text("storage"), b"ctorch\nFloatStorage\n", text(key), text("cpu"), whole(numel)
    return b"".join(parts) + b"tQ"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def tensor(key: str, numel: int, size=(), stride=(), offset: int = 0) -> bytes:
    """The opcodes of a tensor within a storage."""
    shapes = b"".join(b"(" + b"".join(map(whole, shape)) + b"t" for shape in (size, stride))
    more = b"\x89ccollections\nOrderedDict\n)R"
    arguments = reference(key, numel) + whole(offset) + shapes + more
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


# ---- what it reads ------------------------------------------------------------------------------


def everything():
    """All that a checkpoint of ours, or weights of others, may have in it."""
    rng = torch.Generator().manual_seed(0)
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    kinds += [torch.int8, torch.uint8, torch.bool, torch.float32]
    large = torch.randn(6, 4, generator=rng)
    return OrderedDict(
        kinds=[(large * 9).to(kind) for kind in kinds],
        views=(large[1:3, 2], large.T, large.unsqueeze(0), torch.tensor(1.5), torch.zeros(0, 3)),
        parameter=torch.nn.Parameter(large[2].clone()),
        special=torch.tensor([torch.nan, torch.inf, -0.0, 1e-45]),
        plain={"a": [1, 2.5, None, True, "\u00e9", -(2**40), b"\x00", {"b", "c"}, ()], 3: {}},
        size=torch.Size([2, 3]),
    )


@pytest.mark.parametrize("new", [True, False])
def test_what_torch_saves_is_read_bit_for_bit(tmp_path, new):
    value, path = everything(), tmp_path / "x.pt"
    torch.save(value, path, _use_new_zipfile_serialization=new)
    got = read_pickle(path, "x")
    special = got.pop("special")
    assert torch.equal(special.view(torch.int32), value.pop("special").view(torch.int32))
    assert got["plain"] == value["plain"] and got["size"] == (2, 3)
    assert not differences(got, value)
    assert [t.dtype for t in got["kinds"]] == [t.dtype for t in value["kinds"]]
    assert [t.shape for t in got["views"]] == [t.shape for t in value["views"]]


def test_the_order_in_memory_is_kept(tmp_path):
    """A fused optimizer goes through its averages in the order of the parameter's numbers."""
    kept = [torch.arange(2.0 * n * 9).reshape(2, n, 3, 3) for n in (4, 1)]
    kept = [x.to(memory_format=torch.channels_last) for x in kept]
    kept += [kept[0][:1], kept[0].permute(2, 0, 3, 1).bfloat16(), torch.arange(6).reshape(2, 3).T]
    torch.save(kept, tmp_path / "x.pt")
    got = read_pickle(tmp_path / "x.pt", "x")
    assert not differences(got, kept)
    assert [x.stride() for x in got] == [x.stride() for x in kept]


def test_parameters_of_the_first_versions_of_torch_are_read(tmp_path):
    """An object without arguments, whose state begins with a tensor of the older function."""
    old = tensor("0", 3, (3,), (1,)).replace(b"_rebuild_tensor_v2", b"_rebuild_tensor")
    old = old.replace(b"\x89ccollections\nOrderedDict\n)R", b"")
    parameter = b"ctorch.nn.parameter\nParameter\n)\x81(" + old + b"NN\x88\x89tb"
    numbers = np.arange(3, dtype="<f4").tobytes()
    pickled = b"\x80\x02}" + text("w") + parameter + b"s."
    in_legacy(tmp_path / "x.pth", pickled, b"]" + text("0") + b"a.", struct.pack("<q", 3) + numbers)
    assert torch.equal(read_state(tmp_path / "x.pth", "x")["w"], torch.arange(3.0))


def test_an_ordered_dict_of_pairs_is_read(tmp_path):
    """As Python 2 wrote it, so in the package `lpips`."""
    pairs = b"](](" + text("a") + b"K\x01e](" + text("b") + b"K\x02ee"
    (tmp_path / "x").write_bytes(b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R.")
    assert read_pickle(tmp_path / "x", "x") == {"a": 1, "b": 2}


@pytest.mark.parametrize("name", ["state_dict_ema", "state_dict", "model"])
def test_weights_within_a_training_file_are_taken(tmp_path, name):
    torch.save({name: {"w": torch.ones(2)}, "epoch": 3}, tmp_path / "x.pth")
    assert read_state(tmp_path / "x.pth", "x")["w"].tolist() == [1, 1]
    torch.save({"w": torch.ones(2), "epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="x.pth: expected some weights alone"):
        read_state(tmp_path / "x.pth", "some weights")


@pytest.mark.parametrize("protocol", [3, 4])
def test_read_pickle(tmp_path, protocol):
    tree = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "n": 3}
    (tmp_path / "p").write_bytes(pickle.dumps(tree, protocol))
    got = read_pickle(tmp_path / "p", "numbers")
    assert got["n"] == 3 and got["a"]["kernel"].dtype == np.float32
    np.testing.assert_array_equal(got["a"]["kernel"], tree["a"]["kernel"])


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_read_pickle_of_other_numpy_versions(tmp_path, module):
    data = pickle.dumps(np.ones(3), 3)
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        data = data.replace(b"c" + name + b"\n", b"c" + module.encode() + b"\n")
    (tmp_path / "p").write_bytes(data)
    np.testing.assert_array_equal(read_pickle(tmp_path / "p", "numbers"), np.ones(3))


class Evil:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


EVIL = {
    "mkdir": Evil(os.mkdir, "pwned"),
    "eval": Evil(eval, "__import__('os').mkdir('pwned')"),
    "load": Evil(np.load, "pwned.npy"),  # numpy, but not one of the three
    "_rebuild_tensor_v3": Evil(torch._utils._rebuild_tensor_v3),
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_read_pickle_refuses(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"x": EVIL[name], "w": np.ones(2)}, protocol)
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(WeightsError, match=rf"p: .*refused '[\w.]+\.{name}'"):
        read_pickle(tmp_path / "p", "numbers")
    assert not (tmp_path / "pwned").exists()
    assert any(op.name == "REDUCE" for op, _, _ in pickletools.genops(data))  # a real bomb: a call


def test_read_pickle_refuses_attributes_of_what_is_allowed(tmp_path):
    data = b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93."
    assert "STACK_GLOBAL" in [op.name for op, _, _ in pickletools.genops(data)]
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(WeightsError, match="refused 'numpy.ndarray.dumps'"):
        read_pickle(tmp_path / "p", "numbers")


@pytest.mark.parametrize("data", [b"", b"junk", pickle.dumps(np.ones(9), 3)[:-20], b"\x80\x03R."])
def test_read_pickle_damaged(tmp_path, data):
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(WeightsError, match="p: expected numbers, got"):
        read_pickle(tmp_path / "p", "numbers")


# ---- what it refuses ----------------------------------------------------------------------------


PAIRS = b")q\x00" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(60))  # 2**60 empty tuples
BOMBS = {
    "hash of tuples": b"\x80\x02}" + PAIRS + b"Ns.",
    "doubled": b"\x80\x02" + PAIRS + b".",
    "bytearray": b"\x80\x02c__builtin__\nbytearray\n" + whole(3 * 10**9) + b"\x85R.",
    "itself": b"\x80\x02]q\x00h\x00a.",
    "deep": b"\x80\x02" + b"](" * 9000 + b"e" * 9000 + b".",
    "opcodes": b"\x80\x02" + b"N0" * MAX_OPCODES + b"N.",
    "long text": b"\x80\x02X\xff\xff\xff\xffx.",
    "parameter of itself": b"\x80\x02ctorch.nn.parameter\nParameter\n)\x81q\x00(h\x00tb.",
}
DOORS = {  # each: what a person calls with a file, and its suffix
    "gen.load": (gen.load, ".ckpt"),
    "init_from": (checkpoint.read, ".ckpt"),
    "--ckpt_path": (lambda path: checkpoint.AtomicCheckpointIO().load_checkpoint(path), ".ckpt"),
    "load_from_checkpoint": (AttributeClassifier.load_from_checkpoint, ".ckpt"),
    "import starganv2": (lambda path: import_starganv2(path, path.with_suffix(".safetensors")), ""),
    "import stylegan2": (read_stylegan2, ".pkl"),
    "ArcFace": (arcface.load, ".pth"),
    "I3D": (i3d.load, ".pt"),
    "timm": (lambda path: timm_classifier("test_vit", 3, 32, 8, pretrained=str(path)), ".pth"),
}


@contextmanager
def within(seconds: float = 4, mebibytes: int = 200):
    """What a refusal may take."""
    before, began = reset_peak(), time.process_time()
    yield
    assert time.process_time() - began < seconds
    assert peak_mebibytes() - before < mebibytes


@pytest.mark.parametrize("layout", ["plain", "zip", "legacy"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_pickle_cannot_take_time_or_memory(tmp_path, name, layout):
    path = tmp_path / "x.ckpt"
    write = {"plain": Path.write_bytes, "zip": zipped, "legacy": in_legacy}[layout]
    write(path, BOMBS[name])
    with within(), pytest.raises(WeightsError, match="x.ckpt: expected weights, got one that"):
        read_pickle(path, "weights")


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("bomb", ["hash of tuples", "bytearray", "stride 0"])
def test_every_door_of_weights_refuses_what_would_take_time_or_memory(tmp_path, name, bomb):
    door, suffix = DOORS[name]
    path = tmp_path / f"x{suffix}"
    if bomb == "stride 0":
        torch.save({"state_dict": {"w": torch.zeros(1).expand(2**13, 2**13)}}, path)
        assert path.stat().st_size < 2000
    else:
        zipped(path, BOMBS[bomb])
    with within(), pytest.raises(WeightsError, match=rf"{path.name}: "):
        door(path)
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_have_no_more_numbers_than_the_file(tmp_path):
    """Views of one storage may be many, but not more than the bytes that are there, twice."""
    path, one = tmp_path / "x.pt", torch.ones(1000)
    torch.save({"a": one, "b": one}, path)
    assert read_state(path, "x")["b"].sum() == 1000
    torch.save({str(i): one for i in range(100)}, path)
    assert path.stat().st_size < 20_000
    with pytest.raises(WeightsError, match="x.pt: .*more than 2 bytes of them for one of the file"):
        read_state(path, "x")


NUMBERS = np.arange(4, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    "shape, why",
    [
        (dict(size=(4,), stride=(1,)), None),
        (dict(size=(5,), stride=(1,)), "within 4 numbers"),
        (dict(size=(5,), stride=(0,)), "within 4 numbers"),
        (dict(size=(4,), stride=(0,), offset=4), "within 4 numbers"),
        (dict(size=(2, 2), stride=(2**38, 1)), "within 4 numbers"),
        (dict(size=(-1,), stride=(1,)), "sizes and strides"),
        (dict(size=(1,), stride=(-1,)), "sizes and strides"),
        (dict(size=(2**40,), stride=(0,)), "sizes and strides"),
        (dict(size=(1,) * 9, stride=(1,) * 9), "sizes and strides"),
        (dict(size=(4,), stride=()), "ValueError"),
    ],
)
@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_a_tensor_stays_within_its_storage(tmp_path, shape, why, layout):
    path, pickled = tmp_path / "x.pt", b"\x80\x02}" + text("w") + tensor("0", 4, **shape) + b"s."
    if layout == "zip":
        zipped(path, pickled, {"0": NUMBERS})
    else:
        in_legacy(path, pickled, b"]" + text("0") + b"a.", struct.pack("<q", 4) + NUMBERS)
    if why is None:
        assert read_state(path, "x")["w"].tolist() == [0, 1, 2, 3]
    else:
        with pytest.raises(WeightsError, match=f"x.pt: .*{why}"):
            read_state(path, "x")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("change", ["cut", "flipped", "twice", "deflated", "missing", "foreign"])
def test_a_damaged_or_ambiguous_archive_is_refused(tmp_path, change):
    path, pickled = tmp_path / "x.pt", b"\x80\x02}" + text("w") + tensor("0", 4, (4,), (1,)) + b"s."
    more = [("data.pkl", b"N.")] if change == "twice" else []
    storages = {} if change == "missing" else {"0": NUMBERS}
    kind = zipfile.ZIP_DEFLATED if change == "deflated" else zipfile.ZIP_STORED
    zipped(path, pickled, storages, more, kind)
    data = path.read_bytes()
    if change == "flipped":
        data = data.replace(NUMBERS, NUMBERS[:-1] + b"\x41")
    elif change == "cut":
        data = data[:-10]
    elif change == "foreign":
        data = data.replace(b"x/data.pkl", b"x/text.txt")
    path.write_bytes(data)
    with pytest.raises(
        WeightsError, match="x.pt: expected x as torch.save writes them, got one that"
    ):
        read_state(path, "x")

"""Files of `pickle` or `torch.save`: their value as plain data, and tensors cut from their bytes.

All sizes are checked against the size of the file before memory is taken: see `gen.pickles`. No
other reader of pickles is used, so a file has only one interpretation.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from gen.files import WeightsError
from gen.pickles import (
    ARRAYS,
    FROM_BYTES,
    ITEM_BYTES,
    MAX_OPCODES,
    OLD_PARAMETER,
    PARAMETER,
    SCALARS,
    TENSORS,
    Call,
    Name,
    Storage,
    brief,
    expect,
    parse,
    plain,
)
from gen.weights import check_finite, load_safetensors

MAX_TENSORS = 100_000  # largest number of tensors read from one file
MAX_SHARE = 2  # bytes of all tensors per byte of the file: shared weights may occur twice
MAX_DIMS = 8
WITHIN = ("state_dict_ema", "model_ema", "state_dict", "model")  # keys of weights in training files
MAX_NEST = 50  # depth of nested containers
KINDS = dict(  # kinds of storages -> numpy's name of their numbers; numpy has no bfloat16
    Float="f4", Double="f8", Half="f2", BFloat16="i2", Long="i8", Int="i4", Short="i2", Char="i1",
    Byte="u1", Bool="?",
)  # fmt: skip
DTYPES = {kind: torch.from_numpy(np.empty(0, kind)).dtype for kind in KINDS.values()}
NUMBERS = {"f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}  # numpy dtypes
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # first bytes of torch.save files before 1.6


def legacy(
    file: BinaryIO | mmap.mmap, limit: int = MAX_OPCODES
) -> tuple[Any, dict[str, tuple[int, int]]]:
    """The value in a file of torch.save before 1.6, and the places of its storages.

    Returns:
        (value, {key: (first byte, number of bytes)})
    """
    magic, protocol, info = (parse(file, limit=limit) for _ in range(3))
    info = expect(info, dict)
    if magic != 0x1950A86A20F9469CFC6C or protocol != 1001 or info["little_endian"] is not True:
        raise WeightsError("expected numbers that torch.save wrote, little-endian")
    beside, places = {}, {}
    value = parse(file, beside, limit)
    for key in expect(parse(file, limit=limit), list):
        storage = beside[plain(key)]
        (numel,) = struct.unpack("<q", file.read(8))
        if numel != storage.numel:
            raise WeightsError(f"storage: expected {storage.numel} numbers, got {numel}")
        places[key] = file.tell(), numel * ITEM_BYTES[storage.kind]
        file.seek(places[key][1], io.SEEK_CUR)
    return value, places


class PickleFile:
    """A file of `pickle` or `torch.save`, old or new: its value, and tensors on demand.

    Attributes:
        value: see `parse`.

    Raises:
        as `parse`; and WeightsError for an archive that is compressed, damaged or ambiguous.
    """

    def __init__(self, path: str | Path):
        self.read_bytes, self.read_tensors, self.built, self.places = 0, 0, 0, {}
        self.inner: dict[int, tuple[Any, dict[str, tuple[int, int]]]] = {}
        with open(path, "rb") as file:
            self.view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self.view[:4] == b"PK\x03\x04":
            self._open_zip(path)
        elif self.view[: len(LEGACY)] == LEGACY:
            self.value, self.places = legacy(self.view)
        else:
            self.value = parse(self.view)

    def _open_zip(self, path: str | Path) -> None:
        beside: dict[str, Storage] = {}
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if len(members) != len(archive.infolist()):
                raise WeightsError("refused: expected an archive without two members of one name")
            if any(m.compress_type != zipfile.ZIP_STORED for m in members.values()):
                raise WeightsError("refused: expected an archive without compression")
            (main,) = [name for name in members if name.endswith("/data.pkl")]
            folder = main.removesuffix("data.pkl")
            order = f"{folder}byteorder"
            if order in members and archive.read(order) != b"little":
                raise WeightsError("expected numbers in little-endian byte order")
            self.value = parse(io.BytesIO(archive.read(main)), beside)
        for key in beside:
            member = members[f"{folder}data/{key}"]
            header = self.view[member.header_offset : member.header_offset + 30]
            start = member.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
            self.places[key] = start, member.file_size
            if zlib.crc32(memoryview(self.view)[start : start + member.file_size]) != member.CRC:
                raise WeightsError(f"damaged: its numbers {key!r:.50} have another checksum")

    def build(self, value: Any, depth: int = 0) -> Any:
        """`value`, with tensors, arrays and numpy numbers in place of the calls that make them.

        Raises:
            WeightsError: it contains any other object, or has no end.
        """
        self.built += 1
        if depth > MAX_NEST or self.built > MAX_OPCODES:
            raise WeightsError("refused: values within values without an end")
        if type(value) is dict:
            return {key: self.build(item, depth + 1) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.build(item, depth + 1) for item in value)
        if type(value) is Call and value.name in {PARAMETER, OLD_PARAMETER, *TENSORS}:
            return self.tensor(value)
        if type(value) is Call and value.name in ARRAYS:
            return self._array(value)
        if type(value) is Call and value.name == "torch.Size":
            return self.build(*value.args, depth + 1)
        if type(value) is Call and value.name == "_codecs.encode":
            return octets(value)
        if type(value := number(value)) in (Call, Name, Storage):
            raise WeightsError(f"expected tensors and plain values, got {brief(value)}")
        return value

    def tensor(self, value: Any) -> Tensor:
        """A new tensor of the numbers that `value` refers to, or of the numpy array `value`.

        Raises:
            WeightsError: `value` is of another kind, or refers to data outside the storage.
        """
        if type(value) is Call and value.name in (PARAMETER, OLD_PARAMETER):
            value = (value.args if value.name == PARAMETER else expect(value.state, tuple))[0]
        if type(value) is Call and value.name in ARRAYS:
            return torch.from_numpy(self._array(value))
        if type(value) is not Call or value.name not in TENSORS:
            raise WeightsError(f"expected a tensor, got {brief(value)}")
        storage, offset, size, stride = value.args[:4]
        raw, kind = self._raw(storage)
        numbers = np.frombuffer(raw, KINDS[kind])
        for shape in ((offset,), size, stride):
            if len(shape) > MAX_DIMS or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
                raise WeightsError("expected sizes and strides of a tensor")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        count = math.prod(size)
        if count and (count > numbers.size or last >= numbers.size):
            raise WeightsError(f"expected a tensor within {numbers.size} numbers, got {size}")
        self._count(count * numbers.itemsize)
        strides = [numbers.itemsize * step for step in stride]
        cut = np.lib.stride_tricks.as_strided(numbers[offset:], size, strides)
        # Strides as in the file if no number occurs twice: fused optimizers expect the strides of
        # the parameter, without a check.
        layout = torch.empty_strided(size, stride, device="meta")
        made = torch.empty_like(layout, dtype=DTYPES[KINDS[kind]], device="cpu")
        made.numpy()[...] = cut
        return made.view(torch.bfloat16) if kind == "BFloat16" else made

    def _raw(self, storage: Any) -> tuple[memoryview, str]:
        """The bytes of a storage, and the kind of its numbers."""
        data, places = self.view, self.places
        if type(storage) is Call and storage.name == FROM_BYTES:
            data = expect(storage.args[0], bytes)
            if id(storage) not in self.inner:
                self.inner[id(storage)] = legacy(io.BytesIO(data), limit=100)
            storage, places = self.inner[id(storage)]
        start, size = places[expect(storage, Storage).key]
        raw = memoryview(data)[start : start + size]
        wanted = ITEM_BYTES[storage.kind] * storage.numel
        if len(raw) != size or size != wanted:
            raise WeightsError(f"expected {wanted} bytes of numbers, got {len(raw)}")
        return raw, storage.kind.removeprefix("torch.").removesuffix("Storage")

    def _count(self, size: int) -> None:
        self.read_bytes, self.read_tensors = self.read_bytes + size, self.read_tensors + 1
        if self.read_bytes > MAX_SHARE * len(self.view) or self.read_tensors > MAX_TENSORS:
            raise WeightsError(
                f"refused: more than {MAX_TENSORS} tensors, or more than {MAX_SHARE} bytes of them "
                "for one of the file"
            )

    def _array(self, call: Call) -> np.ndarray:
        """A numpy array from its state (version, shape, dtype, Fortran order or not, bytes)."""
        _, shape, dtype, fortran, raw = expect(call.state, tuple)
        raw = octets(raw)
        self._count(len(raw))
        numbers = np.frombuffer(raw, numpy_dtype(dtype)).reshape(shape, order="FC"[not fortran])
        return np.array(numbers, order="C")


def read_pickle(path: str | Path, wanted: str) -> Any:
    """Content of a file of `pickle` or `torch.save`: tensors, numpy arrays and plain values.

    Nothing that the file names is called or imported. Time and memory grow at most linearly with
    the size of the file.

    Raises:
        FileNotFoundError: no such file.
        WeightsError: another kind of file; expected (`wanted`) and got.
    """
    try:
        file = PickleFile(path)
        return file.build(file.value)
    except FileNotFoundError:
        raise
    except WeightsError as error:
        raise WeightsError(f"{path}: expected {wanted}, got one that is {error}") from None
    except Exception as error:  # a damaged file raises nearly anything
        what = f"{type(error).__name__}: {error!s:.200}"
        got = f"one that is damaged, or of another kind ({what})"
        raise WeightsError(f"{path}: expected {wanted}, got {got}") from error


def read_state(path: str | Path, layout: str) -> dict[str, Tensor]:
    """Tensors of a user's file, .safetensors or torch.save, by name.

    Runs nothing in the file. Errors name `layout` as what they expected. If the dict of tensors
    lies in the file beside other things, under a name in WITHIN, that dict is read.

    Raises:
        WeightsError: no such file, or not a dict of finite tensors alone.
    """
    if Path(path).suffix == ".safetensors":
        return load_safetensors(path)[0]
    try:
        state = read_pickle(path, f"{layout} as torch.save writes them")
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: expected {layout}, got no such file") from error
    if isinstance(state, dict):
        state = next((state[key] for key in WITHIN if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: expected {layout} alone, a dict of tensors, got another thing")
    check_finite(state, path)
    return state


def octets(value: Any) -> bytes:
    """Bytes; pickle protocols below 3 store them as Latin-1 text."""
    if type(value) is Call and value.name == "_codecs.encode" and value.args[1:] == ("latin1",):
        return expect(value.args[0], str).encode("latin1")
    return expect(value, bytes)


def numpy_dtype(value: Any) -> np.dtype:
    call = expect(value, Call)
    kind, order = call.args[0], call.state[1]
    if call.name != "numpy.dtype" or kind not in NUMBERS or order not in ("<", "|"):
        raise WeightsError("expected numbers in a numpy array, little-endian")
    return np.dtype(order + kind)


def number(value: Any) -> Any:
    """A Python number for a numpy number; any other `value` unchanged."""
    if type(value) is not Call or value.name not in SCALARS:
        return value
    dtype, raw = value.args
    return np.frombuffer(octets(raw), numpy_dtype(dtype), count=1)[0].item()

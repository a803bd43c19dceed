"""Files of `pickle` or `torch.save`: their value as plain data, and tensors cut out of their bytes.

All of a file is checked against its size before memory is taken: see `gen.pickles`.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from gen.pickles import (
    ARRAYS,
    FROM_BYTES,
    ITEM_BYTES,
    MAX_OPCODES,
    PARAMETER,
    SCALARS,
    TENSOR,
    Call,
    Storage,
    brief,
    expect,
    parse,
    plain,
)
from gen.weights import WeightsError

MAX_FILE_BYTES = 2**31
MAX_TENSOR_BYTES = 2**31  # of all tensors that are read from one file
MAX_TENSORS = 5000  # that are read from one file
MAX_DIMS = 8
NUMBERS = {"f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}  # numpy dtypes
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch.save began before 1.6


def legacy(
    file: BinaryIO | mmap.mmap, limit: int = MAX_OPCODES
) -> tuple[Any, dict[str, tuple[int, int]]]:
    """What torch.save wrote before 1.6: the value, and where the bytes of its storages are.

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
        as `parse`; and WeightsError for a file that is too large or is compressed.
    """

    def __init__(self, path: str | Path):
        self.read_bytes, self.read_tensors, self.places = 0, 0, {}
        with open(path, "rb") as file:
            if (size := file.seek(0, io.SEEK_END)) > MAX_FILE_BYTES:
                raise WeightsError(f"refused: expected at most {MAX_FILE_BYTES} bytes, got {size}")
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

    def tensor(self, value: Any) -> Tensor:
        """Float32 numbers that `value` refers to, or the numpy array that it is, as a new tensor.

        Raises:
            WeightsError: `value` is not of that kind, or leads out of what is stored.
        """
        while type(value) is Call and value.name == PARAMETER:
            value = value.args[0]
        if type(value) is Call and value.name in ARRAYS:
            return torch.from_numpy(self._array(value))
        if type(value) is not Call or value.name != TENSOR:
            raise WeightsError(f"expected a tensor, got {brief(value)}")
        storage, offset, size, stride = value.args[:4]
        raw = self._raw(storage)
        numbers = np.frombuffer(raw, "<f4")
        for shape in ((offset,), size, stride):
            if len(shape) > MAX_DIMS or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
                raise WeightsError("expected sizes and strides of a tensor")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if not 0 < math.prod(size) <= numbers.size or last >= numbers.size:
            raise WeightsError(f"expected a tensor within {numbers.size} numbers, got {size}")
        self._count(4 * math.prod(size))
        strides = [4 * step for step in stride]
        cut = np.lib.stride_tricks.as_strided(numbers[offset:], size, strides)
        return torch.from_numpy(np.array(cut, order="C"))

    def _raw(self, storage: Any) -> memoryview | bytes:
        """The bytes of a float32 storage."""
        data, places = self.view, self.places
        if type(storage) is Call and storage.name == FROM_BYTES:
            data = expect(storage.args[0], bytes)
            storage, places = legacy(io.BytesIO(data), limit=100)
        start, size = places[expect(storage, Storage).key]
        if storage.kind != "torch.FloatStorage":
            raise WeightsError(f"expected float32, got numbers of {storage.kind}")
        raw = memoryview(data)[start : start + size]
        if len(raw) != size or size != 4 * storage.numel:
            raise WeightsError(f"expected {4 * storage.numel} bytes of numbers, got {len(raw)}")
        return raw

    def _count(self, size: int) -> None:
        self.read_bytes, self.read_tensors = self.read_bytes + size, self.read_tensors + 1
        if self.read_bytes > MAX_TENSOR_BYTES or self.read_tensors > MAX_TENSORS:
            raise WeightsError(
                f"refused: more than {MAX_TENSORS} tensors or {MAX_TENSOR_BYTES} bytes of them"
            )

    def _array(self, call: Call) -> np.ndarray:
        """A numpy array: (version, shape, dtype, is it in Fortran order, bytes) is its state."""
        _, shape, dtype, fortran, raw = expect(call.state, tuple)
        raw = octets(raw)
        self._count(len(raw))
        numbers = np.frombuffer(raw, numpy_dtype(dtype)).reshape(shape, order="FC"[not fortran])
        return np.array(numbers, order="C")


def octets(value: Any) -> bytes:
    """Bytes, also those of pickle protocols below 3, which have them as Latin-1 text."""
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
    """A number of Python, if `value` is one of numpy; else `value`."""
    if type(value) is not Call or value.name not in SCALARS:
        return value
    dtype, raw = value.args
    return np.frombuffer(octets(raw), numpy_dtype(dtype), count=1)[0].item()

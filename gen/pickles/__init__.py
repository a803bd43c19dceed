"""Reads pickles of published weights as plain data: nothing that a file names is ever called.

`pickle.Unpickler` with an allow-list is unsafe for untrusted files: six bytes (a large memo index)
make it fill gigabytes, and a short chain of nested tuples as a dict key keeps it busy for years. So
the opcodes are interpreted here. A call becomes a `Call`, which holds the name and the arguments;
names must be in `ALLOWED`, and are not even imported. Time and memory grow at most linearly with
the size of the file. Tensors are cut out of the raw bytes, with all bounds checked.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, NoReturn

from gen.files import WeightsError

MAX_OPCODES = 500_000  # per pickle; large training checkpoints have half as many

ITEM_BYTES = {
    f"torch.{kind}Storage": size
    for kind, size in dict(
        Float=4, Double=8, Half=2, BFloat16=2, Long=8, Int=4, Short=2, Char=1, Byte=1, Bool=1
    ).items()
}
DICTS = {"collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict"}
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
NETWORK = "dnnlib.tflib.network.Network"  # of TensorFlow: read only to tell the kind of file
PARAMETER = "torch._utils._rebuild_parameter"
OLD_PARAMETER = "torch.nn.parameter.Parameter"  # its state is (tensor, ..), before torch 0.4
TENSORS = {"torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"}
FROM_BYTES = "torch.storage._load_from_bytes"
SCALARS = {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
ARRAYS = {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
ALLOWED = frozenset(
    {*ITEM_BYTES, *DICTS, *SCALARS, *ARRAYS, *TENSORS, PERSISTENT, NETWORK, PARAMETER, FROM_BYTES}
    | {"numpy.dtype", "numpy.ndarray", "torch.device", "_codecs.encode", "argparse.Namespace"}
    | {"builtins.set", OLD_PARAMETER, "torch.Size"}
)

LITERALS = """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING
SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"""


class Name(str):
    """A global, as module.name. It is not imported."""


class Call:
    """A call in the pickle, and the state for its result. It is not executed."""

    __slots__ = ("name", "args", "state")

    def __init__(self, name: str, args: tuple):
        self.name, self.args, self.state = name, args, None


class Storage(NamedTuple):
    """Numbers that are stored beside the pickle."""

    kind: str
    key: str
    numel: int


class Machine:
    """Stack, marks and memo of one pickle; each public method but `since_mark` is an opcode.

    Args:
        beside: dict to fill with the storages that the pickle refers to; None refuses references.
    """

    def __init__(self, beside: dict[str, Storage] | None):
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[str | int, Any] = {}
        self.beside = beside

    def since_mark(self) -> list:
        """Removes the last mark and all values above it from the stack; returns the values."""
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def skip(self, _: Any) -> None:
        """Does nothing: the opcode describes the file alone."""

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def pop_mark(self, _: Any) -> None:
        self.since_mark()

    def put(self, key: Any) -> None:
        self.memo[plain(key)] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, key: Any) -> None:
        self.stack.append(self.memo[key])

    def tuple_since_mark(self, _: Any) -> None:
        self.stack.append(tuple(self.since_mark()))

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(items[::-1]))

    def list_since_mark(self, _: Any) -> None:
        self.stack.append(self.since_mark())

    def append(self, _: Any) -> None:
        value = self.stack.pop()
        expect(self.stack[-1], list).append(value)

    def extend(self, _: Any) -> None:
        items = self.since_mark()
        expect(self.stack[-1], list).extend(items)

    def add_to_set(self, _: Any) -> None:
        items = self.since_mark()
        expect(self.stack[-1], set).update(map(plain, items))

    def dict_since_mark(self, _: Any) -> None:
        items = self.since_mark()
        self.stack.append({})
        self._store(items)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._store([key, value])

    def set_items(self, _: Any) -> None:
        self._store(self.since_mark())

    def _store(self, items: list) -> None:
        """Stores alternating keys and values in the dict on top."""
        into = expect(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            into[plain(key)] = value

    def name(self, words: str) -> None:
        self.stack.append(allowed(words.replace(" ", ".")))

    def name_of_stack(self, _: Any) -> None:
        name, module = expect(self.stack.pop(), str), expect(self.stack.pop(), str)
        self.stack.append(allowed(f"{module}.{name}"))

    def call(self, _: Any) -> None:
        args, name = expect(self.stack.pop(), tuple), expect(self.stack.pop(), Name)
        self.stack.append(called(name, args))

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], dict):  # the attributes of an OrderedDict
            expect(self.stack[-1], Call).state = state

    def storage(self, _: Any) -> None:
        if self.beside is None:
            refuse("BINPERSID")
        storage = stored(expect(self.stack.pop(), tuple))
        if self.beside.setdefault(storage.key, storage) != storage:
            raise WeightsError(f"expected one size and type of storage {storage.key!r:.50}")
        self.stack.append(storage)


Step = Callable[[Machine, Any], None]  # machine, argument of the opcode or None
STEPS: dict[str, Step] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), Machine.skip),
    **dict.fromkeys(LITERALS.split(), Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": Machine.tuple_since_mark,
    "LIST": Machine.list_since_mark,
    "DICT": Machine.dict_since_mark,
    "APPEND": Machine.append,
    "APPENDS": Machine.extend,
    "ADDITEMS": Machine.add_to_set,
    "SETITEM": Machine.set_item,
    "SETITEMS": Machine.set_items,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT"), Machine.put),
    "MEMOIZE": Machine.memoize,
    **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), Machine.get),
    "MARK": Machine.mark,
    "POP": Machine.pop,
    "POP_MARK": Machine.pop_mark,
    "GLOBAL": Machine.name,
    "STACK_GLOBAL": Machine.name_of_stack,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine.call),
    "BUILD": Machine.build,
    "BINPERSID": Machine.storage,
}


def parse(
    file: BinaryIO | mmap.mmap,
    beside: dict[str, Storage] | None = None,
    limit: int = MAX_OPCODES,
) -> Any:
    """Value of one pickle, read from the position of `file` to the end of the pickle.

    Values are None, bool, int, float, str, bytes, list, tuple, set, dict, `Name`, `Call`,
    `Storage`. A list may contain itself.

    Args:
        beside: dict to fill with the storages that the pickle refers to; None refuses references.
        limit: largest number of opcodes.

    Raises:
        WeightsError: a name that is not in `ALLOWED`, an unsupported opcode, or too many opcodes.
        Exception: nearly any other error, for a damaged pickle.
    """
    machine = Machine(beside)
    for count, (opcode, arg, _) in enumerate(pickletools.genops(file)):
        if count >= limit:
            raise WeightsError(f"refused: more than {limit} opcodes in a pickle")
        if opcode.name not in STEPS:
            refuse(opcode.name)
        STEPS[opcode.name](machine, arg)
    return machine.stack.pop()


def refuse(opcode: str) -> NoReturn:
    raise WeightsError(f"refused: opcode {opcode}, which no published file has")


def expect(value: Any, kind: type) -> Any:
    """Returns `value` if it is of exactly this type."""
    if type(value) is not kind:
        raise WeightsError(f"expected a {kind.__name__}, got {type(value).__name__}")
    return value


def brief(value: Any) -> str:
    """`value` for a message; the type alone for containers, which may be endless."""
    if isinstance(value, Call):
        return f"a call of {value.name}"
    if type(value) in (bool, int, float, str, Name, type(None)):
        return f"{value!r:.80}"
    return f"a {type(value).__name__}"


def plain(key: Any) -> str | int:
    """Returns a key of a dict if its hash is fast and rarely collides."""
    if type(key) is str or type(key) is int and abs(key) < 2**32:
        return key
    raise WeightsError(f"expected text or a small number as key, got {type(key).__name__}")


def allowed(name: str) -> Name:
    name = name.replace("__builtin__.", "builtins.")  # Python 2 and protocol 2 use this name
    if name not in ALLOWED:
        raise WeightsError(
            f"refused {name!r:.200}: no file of weights needs it; nothing in the file was run; "
            "do not open it with other programs unless you trust who made it"
        )
    return Name(name)


def called(name: Name, args: tuple) -> Any:
    if name in DICTS and not args:
        return {}
    if name in DICTS and len(args) == 1:  # of pairs, as Python 2 writes it
        return {plain(key): value for key, value in expect(args[0], list)}
    if name == "builtins.set":
        return set(map(plain, expect(args[0], list) if args else ()))
    return Call(name, args)


def stored(reference: tuple) -> Storage:
    """Parses ('storage', type, key, device, numel), in old files with a last None."""
    word, kind, key, _, numel = reference[:5]
    if (
        word != "storage"
        or expect(kind, Name) not in ITEM_BYTES
        or reference[5:] not in [(), (None,)]
    ):
        raise WeightsError("expected a reference to a storage of torch")
    if not 0 <= expect(numel, int) < 2**40:
        raise WeightsError(f"refused: a storage of {numel:.3g} numbers")
    return Storage(kind, expect(key, str), numel)

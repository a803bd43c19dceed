"""Pickles of published weights, read as plain data: nothing that a file names is ever called.

`pickle.Unpickler` with an allow-list is not enough for files from strangers: six bytes (a large
memo index) make it fill gigabytes, and a short chain of nested tuples as a dict key keeps it busy
for years. So the opcodes are interpreted here. A call becomes a `Call`, which holds the name and
the arguments; names must be in `ALLOWED`, and are not even imported. Then time and memory grow at
most linearly with the size of the file. Tensors are cut out of the raw bytes, with all bounds
checked.
"""

from __future__ import annotations

import mmap
import pickletools
from typing import Any, BinaryIO, NamedTuple

from gen.files import WeightsError

MAX_OPCODES = 500_000  # of one pickle; what large training checkpoints have is half of it

ITEM_BYTES = {
    f"torch.{kind}Storage": size
    for kind, size in dict(
        Float=4, Double=8, Half=2, BFloat16=2, Long=8, Int=4, Short=2, Char=1, Byte=1, Bool=1
    ).items()
}
DICTS = {"collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict"}
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
NETWORK = "dnnlib.tflib.network.Network"  # of TensorFlow: read only to say what the file is
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

LITERALS = frozenset(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8""".split()
)
CONSTANTS = dict(NONE=None, NEWTRUE=True, NEWFALSE=False)
EMPTY = dict(EMPTY_DICT=dict, EMPTY_LIST=list, EMPTY_SET=set)
TUPLES = dict(EMPTY_TUPLE=0, TUPLE1=1, TUPLE2=2, TUPLE3=3)


class Name(str):
    """A global, as module.name. It is not imported."""


class Call:
    """A call that the pickle wants, and the state it wants to give to the result. Not called."""

    __slots__ = ("name", "args", "state")

    def __init__(self, name: str, args: tuple):
        self.name, self.args, self.state = name, args, None


class Storage(NamedTuple):
    """Numbers that are not in the pickle but beside it."""

    kind: str
    key: str
    numel: int


def parse(
    file: BinaryIO | mmap.mmap,
    beside: dict[str, Storage] | None = None,
    limit: int = MAX_OPCODES,
) -> Any:
    """The value of one pickle, which `file` is at; it is left behind it.

    Values are None, bool, int, float, str, bytes, list, tuple, set, dict, `Name`, `Call`,
    `Storage`. A list may hold itself.

    Args:
        beside: dict that is filled with the storages that the pickle refers to; None: it may refer
            to none.
        limit: largest number of opcodes.

    Raises:
        WeightsError: A name that is not in `ALLOWED`, an opcode without use here, too many.
        Exception: Nearly any other one, for a damaged pickle.
    """
    stack, marks, memo = [], [], {}

    def since_mark() -> list:
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    def store(items: list) -> None:
        into = expect(stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            into[plain(key)] = value

    for count, (opcode, arg, _) in enumerate(pickletools.genops(file)):
        if count >= limit:
            raise WeightsError(f"refused: more than {limit} opcodes in a pickle")
        op = opcode.name
        if op in LITERALS:
            stack.append(arg)
        elif op in CONSTANTS:
            stack.append(CONSTANTS[op])
        elif op in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[plain(arg)] = stack[-1]
        elif op == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif op in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[arg])
        elif op == "MARK":
            marks.append(len(stack))
        elif op == "TUPLE":
            stack.append(tuple(since_mark()))
        elif op in TUPLES:
            items = [stack.pop() for _ in range(TUPLES[op])]
            stack.append(tuple(items[::-1]))
        elif op in EMPTY:
            stack.append(EMPTY[op]())
        elif op == "LIST":
            stack.append(since_mark())
        elif op == "DICT":
            items = since_mark()
            stack.append({})
            store(items)
        elif op == "SETITEM":
            value, key = stack.pop(), stack.pop()
            store([key, value])
        elif op == "SETITEMS":
            store(since_mark())
        elif op == "APPEND":
            value = stack.pop()
            expect(stack[-1], list).append(value)
        elif op == "APPENDS":
            items = since_mark()
            expect(stack[-1], list).extend(items)
        elif op == "ADDITEMS":
            items = since_mark()
            expect(stack[-1], set).update(map(plain, items))
        elif op == "GLOBAL":
            stack.append(allowed(arg.replace(" ", ".")))
        elif op == "STACK_GLOBAL":
            name, module = expect(stack.pop(), str), expect(stack.pop(), str)
            stack.append(allowed(f"{module}.{name}"))
        elif op in ("REDUCE", "NEWOBJ"):
            args, name = expect(stack.pop(), tuple), expect(stack.pop(), Name)
            stack.append(called(name, args))
        elif op == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], dict):  # an OrderedDict's attributes
                expect(stack[-1], Call).state = state
        elif op == "BINPERSID" and beside is not None:
            storage = stored(expect(stack.pop(), tuple))
            if beside.setdefault(storage.key, storage) != storage:
                raise WeightsError(f"expected one size and type of storage {storage.key!r:.50}")
            stack.append(storage)
        elif op == "POP":
            stack.pop()
        elif op == "POP_MARK":
            since_mark()
        elif op not in ("PROTO", "FRAME", "STOP"):
            raise WeightsError(f"refused: opcode {op}, which no published file has")
    return stack.pop()


def expect(value: Any, kind: type) -> Any:
    """`value`, if it is of exactly this type."""
    if type(value) is not kind:
        raise WeightsError(f"expected a {kind.__name__}, got {type(value).__name__}")
    return value


def brief(value: Any) -> str:
    """`value` for a message: containers may be endless, so these have their type alone."""
    if isinstance(value, Call):
        return f"a call of {value.name}"
    if type(value) in (bool, int, float, str, Name, type(None)):
        return f"{value!r:.80}"
    return f"a {type(value).__name__}"


def plain(key: Any) -> str | int:
    """A key of a dict, if its hash is quickly made and rarely the same as another's."""
    if type(key) is str or type(key) is int and abs(key) < 2**32:
        return key
    raise WeightsError(f"expected text or a small number as key, got {type(key).__name__}")


def allowed(name: str) -> Name:
    name = name.replace("__builtin__.", "builtins.")  # as Python 2 called it, and protocol 2 does
    if name not in ALLOWED:
        raise WeightsError(
            f"refused {name!r:.200}: no file of weights needs it; nothing in the file was run; "
            "do not open it with other programs unless you trust who made it"
        )
    return Name(name)


def called(name: Name, args: tuple) -> Any:
    if name in DICTS and not args:
        return {}
    if name in DICTS and len(args) == 1:  # of pairs, as Python 2 wrote it
        return {plain(key): value for key, value in expect(args[0], list)}
    if name == "builtins.set":
        return set(map(plain, expect(args[0], list) if args else ()))
    return Call(name, args)


def stored(reference: tuple) -> Storage:
    """('storage', type, key, device, numel), and None in old files."""
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

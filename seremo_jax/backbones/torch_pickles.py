"""The pickle of a file of `torch.save`, read opcode by opcode into tensors that still lie in the file.

A pickle is a program. Python's own unpickler runs it: it imports what the program names, loads state into objects, and
takes as long as the program likes, as one of 26 nested tuples shows. Here the opcodes are read one after another.
Nothing is imported, no object has state, keys are names or numbers, and every opcode costs what it is long.
"""

import math
import pickletools
import reprlib
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
MOST_BYTES = 1 << 25
"""Longest pickle that is read. That of the largest published speech model has less than a megabyte."""
_MOST_REPEATS, _MOST_REPEATED = 64, 1 << 22
"""How often a tensor may repeat its storage, and how many numbers it may be of in any case."""
_MOST_AXES, _MOST_ARGUMENTS, _MOST_NUMBER = 32, 16, 1 << 62

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_LITERALS = frozenset(_NUMBERS + _TEXTS + _BYTES)


class RefusedError(Exception):
    """The pickle asks for something that is no tensor."""


class StorageKind(NamedTuple):
    """Stands for a class of storages."""

    name: str


class Storage(NamedTuple):
    """A flat array in the file; its size counts elements."""

    key: str
    kind: StorageKind
    size: int

    @property
    def dtype(self) -> np.dtype:
        """Of its elements."""
        return _DTYPES[self.kind.name]


class StoredTensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Function(NamedTuple):
    """Stands for a function that a pickle may call."""

    call: Callable[..., Any]


def load(file: Any) -> tuple[Any, dict[str, Storage]]:
    """The next pickle of a file, and the storages that it refers to by their keys.

    Args:
      file: Open at the first byte of the pickle; left behind its last one.

    Raises:
      RefusedError: It asks for anything but tensors and plain values.
      Exception: It is damaged, in whatever way.
    """
    machine, start = _Machine(), file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if position - start > MOST_BYTES:
            raise RefusedError(f"more than {MOST_BYTES} bytes of a pickle")
        machine.step(opcode.name, argument)
    (value,) = machine.stack
    return value, machine.storages


class _Machine:
    """What a pickle is doing: its stack, where its marks stand, and its memo."""

    def __init__(self):
        self.num_opcodes, self.num_copied = 0, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        """Does one opcode."""
        self.num_opcodes += 1
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _OPCODES:
            _OPCODES[name](self, argument)
        else:
            raise RefusedError(f"the opcode {name}")

    def pop(self, number: int) -> list[Any]:
        """Takes the last values from the stack."""
        if len(self.stack) < number:
            raise ValueError("the stack is empty")
        values = self.stack[len(self.stack) - number :]
        del self.stack[len(self.stack) - number :]
        return values

    def pop_to_mark(self) -> list[Any]:
        """Takes the values above the last mark from the stack."""
        return self.pop(max(len(self.stack) - self.marks.pop(), 0))

    def drop(self) -> None:
        """Drops the last value, or the mark that stands behind it."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop(1)

    def frozen_set(self) -> None:
        """A set, which no tensor is in, is nothing."""
        self.pop_to_mark()
        self.stack.append(None)

    def put(self, key: int) -> None:
        """Keeps the last value under a number."""
        self.memo[key] = self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        """Puts keys and values into the mapping below them."""
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise ValueError("items are set in no mapping")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked_key(key)] = value

    def dict_from_mark(self) -> None:
        """A mapping of the keys and values above the last mark."""
        items = self.pop_to_mark()
        self.stack.append({})
        self.set_items(items)

    def append(self, items: list[Any]) -> None:
        """Appends to the list below; items of a set, which no tensor is in, are dropped."""
        target = self.stack[-1]
        if target is not None:
            if not isinstance(target, list):
                raise ValueError("items are appended to no list")
            target.extend(items)

    def reduce(self) -> None:
        """Calls one of the functions that are known."""
        function, arguments = self.pop(2)
        if not isinstance(function, _Function) or not isinstance(arguments, tuple):
            raise RefusedError("a call of something that is no function")
        if len(arguments) > _MOST_ARGUMENTS:
            raise RefusedError(f"a call with {len(arguments)} arguments")
        self.stack.append(function.call(self, *arguments))

    def build(self) -> None:
        """Forgets the attributes that PyTorch hangs on a state dict. Nothing else has any."""
        self.pop(1)
        if not isinstance(self.stack[-1], dict):
            raise RefusedError("a change of an object")

    def stack_global(self) -> None:
        """Puts the stand-in for a name on the stack that stands there in two parts."""
        module, name = self.pop(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        self.stack.append(_stand_in(module, name))

    def refer(self, pid: Any) -> None:
        """Puts the storage of a reference on the stack."""
        match pid:
            # The last element, in streams only, would be a part of another storage.
            case ("storage", StorageKind() as kind, str() as key, str(), int() as size, *rest) if (
                0 <= size < _MOST_NUMBER and rest in ([], [None])
            ):
                self.storages[key] = Storage(key, kind, size)
                self.stack.append(self.storages[key])
            case _:
                raise RefusedError(f"the reference {reprlib.repr(pid):.80}")

    def ordered_dict(self, items: Any = ()) -> dict:
        """A mapping, from pairs where the pickle gives them at once, as Python 2 did."""
        if not isinstance(items, list | tuple):
            raise RefusedError("a mapping of something that is no list")
        # One list may stand in many mappings: what is copied altogether cannot be more than what was read.
        self.num_copied += len(items)
        if self.num_copied > self.num_opcodes:
            raise RefusedError("many mappings of one list")
        return {_checked_key(key): value for key, value in items}

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
        """The view, if it lies inside its storage."""
        is_view = isinstance(storage, Storage) and all(isinstance(n, list | tuple) for n in (shape, strides))
        if not is_view or max(len(shape), len(strides)) > _MOST_AXES:
            raise RefusedError("a tensor that is no view of a storage")
        if not all(type(n) is int and 0 <= n < _MOST_NUMBER for n in (offset, *shape, *strides)):
            raise RefusedError("a tensor that is no view of a storage")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if 0 not in shape and last >= storage.size:
            raise RefusedError(f"a tensor of shape {tuple(shape)} that reaches beyond its storage of {storage.size}")
        # Strides of 0 make of a file of some bytes a tensor of any size.
        if (num_numbers := math.prod(shape)) > max(_MOST_REPEATED, _MOST_REPEATS * storage.size):
            raise RefusedError(f"a tensor that makes {num_numbers} numbers of a storage of {storage.size}")
        return StoredTensor(storage, offset, tuple(shape), tuple(strides))

    def parameter(self, tensor: Any, *_: Any) -> Any:
        """The tensor of a parameter."""
        return tensor


def _checked_key(key: Any) -> str | int:
    # The hash of nested tuples takes as long as they are wide when written out.
    if not isinstance(key, str) and not (type(key) is int and abs(key) < _MOST_NUMBER >> 2):
        raise RefusedError(f"a mapping by {type(key).__name__}")
    return key


_FUNCTIONS = {
    ("collections", "OrderedDict"): _Function(_Machine.ordered_dict),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_Machine.tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(_Machine.parameter),
}


def _stand_in(module: str, name: str) -> Any:
    """What stands for a name; every other name is refused."""
    if (module, name) in _FUNCTIONS:
        return _FUNCTIONS[module, name]
    if module in ("torch", "torch.cuda") and name in _DTYPES:
        return StorageKind(name)
    raise RefusedError(f"{module}.{name}"[:80])


def _refuse_name(machine: _Machine, argument: str) -> None:
    _stand_in(*argument.split(" ", 1))
    raise RefusedError(f"an object of {argument.replace(' ', '.')}"[:80])


def _refuse_object(machine: _Machine, argument: Any) -> None:
    raise RefusedError("an object of a class")


_OPCODES: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, version: None,
    "FRAME": lambda machine, size: None,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.drop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_SET": lambda machine, _: machine.stack.append(None),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.pop(3))),
    "DICT": lambda machine, _: machine.dict_from_mark(),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "FROZENSET": lambda machine, _: machine.frozen_set(),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, key: machine.stack.append(machine.memo[key])),
    "GLOBAL": lambda machine, name: machine.stack.append(_stand_in(*name.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.stack_global(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": _Machine.refer,
    "BINPERSID": lambda machine, _: machine.refer(machine.pop(1)[0]),
    "INST": _refuse_name,
    **dict.fromkeys(("OBJ", "NEWOBJ", "NEWOBJ_EX"), _refuse_object),
}

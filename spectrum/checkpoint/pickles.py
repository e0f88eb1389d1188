"""A pickle read as data: nothing in it is imported, built or called.

A pickle is a program for a stack machine that may call any function by name. Here its operations are only parsed
(`pickletools.genops`), and a call becomes a record of what was to be called with what. `torch.load(weights_only=True)`
follows the same rules and is not used: before torch 2.10 a crafted file corrupts memory under it (CVE-2026-24747), it
cannot say where in the file a tensor stands, and it loads the files of torch before 1.6 whole.

The operations are those that `weights_only` takes: all that torch.save writes.
"""

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

# State dicts of 130,000 tensors take 17 MB and 4 million operations. An operation of one byte can make an object of
# 64 bytes, so the bytes alone would not bound the memory.
MAX_BYTES = 64 * 2**20
MAX_OPERATIONS = 4_000_000

ORDERED_DICT = "collections.OrderedDict"


class PickleError(Exception):
    """A pickle that is cut off, malformed, or too large. Its text is the reason, for the user."""


class ForbiddenError(Exception):
    """A pickle that asks for a function or class which no weights need. Its text is the name."""


@dataclass(frozen=True, eq=False, repr=False)
class Global:
    """A function or class that the pickle names, 'module.name'."""

    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Call:
    """What the pickle would call, and with what."""

    function: str
    arguments: tuple[Any, ...]


def read_pickle(file: BinaryIO, allowed: Collection[str], persistent: Callable[[tuple[Any, ...]], Any]) -> Any:
    """The object a pickle describes, from the file's position on; the position is behind it afterwards.

    Args:
        file: open for reading.
        allowed: 'module.name' of functions and classes that may be named.
        persistent: makes the value of what stands outside the pickle, from its identification.

    Returns:
        Of numbers, text, tuples, lists, sets, dicts, `Global`, `Call` and what `persistent` makes; an OrderedDict is a
        dict.

    Raises:
        PickleError: it is no sound pickle, or has other operations than torch.save writes.
        ForbiddenError: it names anything else.
    """
    machine = _Machine(allowed, persistent)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(_Limited(file))):  # type: ignore[arg-type]
            if count > MAX_OPERATIONS:
                raise PickleError(f"it has more than {MAX_OPERATIONS} operations")
            machine.step(operation.name, argument)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise PickleError("it is cut off or damaged") from error
    return machine.stack.pop() if machine.stack else None


class _Limited:
    """What genops wants of a file, of which it gets no more than MAX_BYTES."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_BYTES

    def read(self, count: int) -> bytes:
        self._spend(count)
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline(self._left + 1)
        self._spend(len(line))
        return line

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise PickleError(f"it has more than {MAX_BYTES} bytes beside the weights")


class _Machine:
    """The stack machine; its errors of type, key and index are those of the pickle."""

    def __init__(self, allowed: Collection[str], persistent: Callable[[tuple[Any, ...]], Any]) -> None:
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks under a mark
        self._memo: dict[int, Any] = {}
        self._allowed, self._make = allowed, persistent

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _FIXED:
            self.stack.append(_FIXED[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "STOP"):
            raise PickleError(f"it has the operation {name}, which torch.save does not write")

    def name_global(self, argument: str) -> None:
        name = ".".join(argument.split(" "))
        if name not in self._allowed:
            raise ForbiddenError(name)
        self.stack.append(Global(name))

    def call(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise TypeError("a call of no function")
        # Of OrderedDict(pairs), as Python 2 writes it, dict makes the same; anything else is left uncalled.
        made = _pairs(*arguments) if function.name == ORDERED_DICT else Call(function.name, arguments)
        self.stack.append(made)

    def build(self, _: object) -> None:
        """Attributes of an object, such as `_metadata` of a state dict: left out."""
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise TypeError("attributes of what has none")

    def append(self, _: object) -> None:
        value = self.stack.pop()
        _sound(self.stack[-1], list).append(value)

    def extend(self, _: object) -> None:
        values = self.since_mark()
        _sound(self.stack[-1], list).extend(values)

    def put(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _put(self.stack[-1], key, value)

    def put_many(self, _: object) -> None:
        values = self.since_mark()
        for key, value in zip(values[::2], values[1::2], strict=True):
            _put(self.stack[-1], key, value)

    def mark(self, _: object) -> None:
        self._below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self._below.pop()
        return values

    def make_tuple(self, _: object) -> None:
        values = self.since_mark()
        self.stack.append(tuple(values))

    def make_tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("a tuple of what is not there")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def persistent(self, _: object) -> None:
        self.stack.append(self._make(_sound(self.stack.pop(), tuple)))

    def store(self, number: int) -> None:
        self._memo[number] = self.stack[-1]

    def fetch(self, number: int) -> None:
        self.stack.append(self._memo[number])


_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
_FIXED: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _Machine.name_global, "REDUCE": _Machine.call, "NEWOBJ": _Machine.call, "BUILD": _Machine.build,
    "APPEND": _Machine.append, "APPENDS": _Machine.extend, "SETITEM": _Machine.put, "SETITEMS": _Machine.put_many,
    "MARK": _Machine.mark, "TUPLE": _Machine.make_tuple, "TUPLE1": lambda machine, _: machine.make_tuple_of(1),
    "TUPLE2": lambda machine, _: machine.make_tuple_of(2), "TUPLE3": lambda machine, _: machine.make_tuple_of(3),
    "BINPERSID": _Machine.persistent, "BINPUT": _Machine.store, "LONG_BINPUT": _Machine.store,
    "BINGET": _Machine.fetch, "LONG_BINGET": _Machine.fetch,
}  # fmt: skip


def _sound(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"no {kind.__name__}")
    return value


def _put(target: Any, key: Any, value: Any) -> None:
    """No other keys: hashing tuples nested a million deep would end the process."""
    if type(key) not in (str, int):
        raise TypeError("a key that is neither text nor number")
    _sound(target, dict)[key] = value


def _pairs(pairs: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in pairs:
        _put(made, key, value)
    return made

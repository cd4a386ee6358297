"""Reading pickles as data: an interpreter that knows the containers, and the names that a caller gives it.

A pickle is a program for a small stack machine. Python's own machine calls whatever a file names, hashes what it holds,
and takes as much memory as the file says: to hash a nested tuple of 150 bytes that doubles at each level takes for
ever. Here nothing is hashed but texts and numbers, nothing is printed, no instruction reads past the end of the
file, the number of instructions is bounded, and only our own stand-ins are called (opcodes: `pickletools` of Python).
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from headstart.io.bound import brief

MAX_STEPS = 1_000_000  # of one pickle; a network of a thousand modules takes about 150,000
PROTOCOL = 5
MARK = object()
KEYS = (str, bytes, int, float, bool, type(None))  # hashed in a time that their size bounds


class RefusedPickle(ValueError):
    """A pickle that asks for what its kind of file has no need of."""


class StandIn:
    """What a name of a pickle leads to, in place of the class it names. It is made, and may be given attributes."""

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickle(f"gives attributes to a {type(self).__name__}")


class Call(StandIn):
    """A function that a file may name; a file can neither look into it nor change it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickle("gives attributes to a function")


class BoundedFile:
    """A stretch of an open file, from where it is: no read goes past its end.

    Args:
        file: open for reading.
        size: bytes of the stretch.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, n: int) -> bytes:
        if not 0 <= n <= self.left:
            if n == 1:  # the end, as the next opcode finds it
                return b""
            raise EOFError(f"an instruction reads {n} bytes, {self.left} are left")
        found = self.file.read(n)
        self.left -= len(found)
        return found

    def readline(self) -> bytes:
        found = self.file.readline(min(self.left, 2**16))
        self.left -= len(found)
        return found


class Machine:
    """The stack machine.

    Args:
        names: what `module.name` leads to: a `Call` or a class of `StandIn`s; other names are refused.
        persistent: what a reference to data outside the pickle becomes; None: such references are refused.
        why: end of the sentence that refuses a name.

    Attributes:
        steps: instructions left.
    """

    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None, why: str) -> None:
        self.names, self.persistent, self.why = names, persistent, why
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps = MAX_STEPS

    def load(self, file: BoundedFile) -> Any:
        """The value of the pickle that begins at the file's place; the file is left behind its end.

        Raises:
            RefusedPickle: it asks for what it has no need of.
            Exception: whatever a damaged pickle makes of the values it holds.
        """
        self.stack, self.memo = [], {}
        for opcode, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
            self.steps -= 1
            if self.steps < 0:
                raise RefusedPickle(f"is a pickle of more than {MAX_STEPS:,} instructions")
            if opcode.name == "STOP":
                break
            if opcode.name in PUSHED:
                self.stack.append(argument)
            elif opcode.name in ACTIONS:
                ACTIONS[opcode.name](self, argument)
            else:
                raise RefusedPickle(f"holds the instruction {opcode.name}, which such a file has no need of")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        """What lies above the last mark, taken off with the mark."""
        at = next(i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is MARK)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def find(self, module: str, name: str) -> None:
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        if full not in self.names:
            shown = full if len(full) < 200 else full[:200] + "..."
            raise RefusedPickle(f"asks for {shown}, {self.why}; nothing of the file was run")
        self.stack.append(self.names[full])

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise RefusedPickle(f"appends to {brief(self.stack[-1])}")
        self.stack[-1].extend(items)

    def put(self, items: list[Any]) -> None:
        held = self.stack[-1]
        if not isinstance(held, dict):
            raise RefusedPickle(f"puts items into {brief(held)}")
        held.update(ordered(pairs(items)))

    def add(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], set):
            raise RefusedPickle(f"adds items to {brief(self.stack[-1])}")
        self.stack[-1].update(map(checked_key, items))

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        known = isinstance(function, Call) or (isinstance(function, type) and issubclass(function, StandIn))
        if not known or not isinstance(arguments, tuple):
            raise RefusedPickle(f"calls {brief(function)}")
        self.stack.append(function(*arguments))

    def build(self) -> None:
        state, held = self.stack.pop(), self.stack[-1]
        if not isinstance(held, StandIn):
            raise RefusedPickle(f"gives attributes to {brief(held)}")
        held.__setstate__(state)

    def refer(self) -> None:
        if self.persistent is None:
            raise RefusedPickle("refers to data outside of it")
        self.stack.append(self.persistent(self.stack.pop()))


def checked_key(key: Any) -> Any:
    """A key of a dictionary or an element of a set: a text or a number."""
    if not isinstance(key, KEYS):
        raise RefusedPickle(f"holds a key that is {brief(key)}; texts and numbers are read")
    return key


def ordered(items: Any = ()) -> dict[Any, Any]:
    """A dictionary from pairs."""
    return {checked_key(key): value for key, value in items}


def pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    """A list of keys and values in turn, two by two."""
    return zip(items[::2], items[1::2], strict=True)


def element_set(items: Any = ()) -> set[Any]:
    """A set of texts and numbers."""
    return {checked_key(item) for item in items}


def last(machine: Machine, count: int) -> list[Any]:
    """The last values of the stack, taken off."""
    if len(machine.stack) < count:
        raise RefusedPickle("takes more from its stack than it has put there")
    items = machine.stack[-count:]
    del machine.stack[-count:]
    return items


def remember(machine: Machine, at: int) -> None:
    machine.memo[at] = machine.stack[-1]


def start(_: Machine, version: int) -> None:
    if version > PROTOCOL:
        raise RefusedPickle(f"is a pickle of version {version}; {PROTOCOL} is read")


NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
PUSHED = NUMBERS | TEXTS | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
ACTIONS: dict[str, Callable[[Machine, Any], object]] = {
    "PROTO": start,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append(set()),
    "MARK": lambda machine, _: machine.stack.append(MARK),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(last(machine, 1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(last(machine, 2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(last(machine, 3))),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "DICT": lambda machine, _: machine.stack.append(ordered(pairs(machine.since_mark()))),
    "APPEND": lambda machine, _: machine.extend(last(machine, 1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.put(last(machine, 2)),
    "SETITEMS": lambda machine, _: machine.put(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.since_mark()),
    "GLOBAL": lambda machine, name: machine.find(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.find(*map(str_only, last(machine, 2))),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.refer(),
    "MEMOIZE": lambda machine, _: remember(machine, len(machine.memo)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, at: machine.stack.append(machine.memo[at])),
}


def str_only(value: Any) -> str:
    if not isinstance(value, str):
        raise RefusedPickle(f"names a function by {brief(value)}")
    return value

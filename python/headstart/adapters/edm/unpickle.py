"""Reading network pickles as data: tensors, numbers, names and containers, and no code.

EDM and EDM2 save `{"ema": network, ...}` with `pickle`; each module of theirs is stored as class name, source text and
attributes. A pickle names the functions to call while it is read; here every name that such a file has need of leads to
an inert stand-in of ours, the source text is dropped, and any other name is refused before it is looked up.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from headstart.argument import require_path
from headstart.io import tensor_file
from headstart.io.bound import brief, memory_for, open_regular, ran_out, require_memory, size_of
from headstart.io.pickled import BoundedFile, Call, Machine, RefusedPickle, StandIn, element_set, ordered

PERSISTENCE = 6  # the version of the format that both projects write
NUMBER = re.compile(r"[fiu][1248]|b1")
WHY = "which no EDM network needs"


class Record(StandIn):
    """An object of the file: the name of its class, and its attributes. Nothing of its class is run."""

    def __init__(self, name: str = "container", state: Any = None) -> None:
        self.name = name
        self.__setstate__(state or {})

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise RefusedPickle(f"holds an object whose attributes are {brief(state)}")
        self.state = state


class Container(Record):
    """A plain torch container, made before its attributes are known."""

    def __init__(self) -> None:
        super().__init__()


class Entries(dict, StandIn):
    """A dictionary that in the file has attribute access; here it has none."""

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickle("holds a dictionary with attributes")


class NumberType(StandIn):
    """A numpy type; numbers only."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not NUMBER.fullmatch(code):
            raise RefusedPickle(f"holds a numpy array of type {brief(code)}; numbers are read")
        self.dtype = np.dtype(f"<{code}")

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|"):
            raise RefusedPickle(f"holds numpy numbers of byte order {brief(state[1])}")


class Array(StandIn):
    """A numpy array of numbers."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: bytes, kind: NumberType, shape: Any, order: Any) -> Array:
        """The array with its numbers."""
        self.values = np.frombuffer(data, kind.dtype).reshape(shape, order=order)
        return self


def module(meta: Any) -> Record:
    """A module of theirs, from its class name and attributes; its source text is not looked at."""
    name, kind, version = meta["class_name"], meta["type"], meta["version"]
    if kind != "class" or not isinstance(version, int) or version > PERSISTENCE:
        raise RefusedPickle(f"holds {brief(kind)} of format {brief(version)}; version {PERSISTENCE} is read")
    if not isinstance(name, str):
        raise RefusedPickle(f"holds an object whose class is {brief(name)}")
    return Record(name, meta["state"])


def storage(data: bytes) -> Any:
    """The numbers of a tensor's memory, `[n]`: an older file of torch.save by itself."""
    with io.BytesIO(data) as buffer:
        found = tensor_file.read_old(buffer, len(data), tensor_file.NAMES)
    if not isinstance(found, tensor_file.Memory):
        raise RefusedPickle(f"holds {brief(found)} in place of a tensor's memory")
    return found


def scalar(kind: NumberType, data: bytes) -> Any:
    """A numpy number as a Python number."""
    return np.frombuffer(data, kind.dtype)[0].item()


NAMES: dict[str, Any] = {
    "collections.OrderedDict": Call(ordered),
    "builtins.set": Call(element_set),
    "dnnlib.util.EasyDict": Entries,
    "torch_utils.persistence._reconstruct_persistent_obj": Call(module),
    "torch.storage._load_from_bytes": Call(storage),
    "torch._utils._rebuild_tensor_v2": Call(tensor_file.view),
    "torch._utils._rebuild_parameter": Call(lambda data, *_: data),
    "torch.nn.modules.container.ModuleDict": Container,
    "torch.nn.modules.container.ModuleList": Container,
    "numpy.dtype": NumberType,
    "numpy.ndarray": Array,
    "numpy.core.multiarray.scalar": Call(scalar),
    "numpy.core.multiarray._reconstruct": Call(lambda *_: Array()),
    "numpy.core.numeric._frombuffer": Call(lambda *parts: Array().fill(*parts)),
}


def read(path: Path) -> Any:
    """What the pickle at `path` holds, with `Record`s for objects.

    Raises:
        ValueError: the file is truncated or damaged, or asks for anything but tensors, numbers, names and containers.
        MemoryError: it takes more memory than there is.
        OSError: it cannot be read.
    """
    path = require_path("load", path)
    with memory_for(path), open_regular(path) as file:
        size = size_of(file)
        require_memory(size, path)
        try:
            return Machine(NAMES, None, WHY).load(BoundedFile(file, size))
        except RefusedPickle as error:
            raise ValueError(f"load: {path} {error}") from None
        except (OSError, MemoryError):
            raise
        except Exception as error:  # whatever a damaged pickle makes of the values it holds
            if ran_out(error):
                raise
            raise ValueError(f"load: {path} is truncated or damaged ({brief(error, 200)})") from error

"""Reading network pickles as data: tensors, numbers, names and containers, and no code.

EDM and EDM2 save `{"ema": network, ...}` with `pickle`; each module of theirs is stored as class name, source text and
attributes. A pickle names the functions to call while it is read; here every name that such a file has need of leads to
an inert stand-in of ours, the source text is dropped, and any other name is refused before it is looked up.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

PERSISTENCE = 6  # the version of the format that both projects write
NUMBER = re.compile(r"[fiu][1248]|b1")


class Refused(ValueError):
    """A file that asks for what no network file needs."""


class Record:
    """An object of the file: the name of its class, and its attributes. Nothing of its class is run."""

    def __init__(self, name: str = "container", state: Any = None) -> None:
        self.name = name
        self.__setstate__(state or {})

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise Refused(f"holds an object whose attributes are a {type(state).__name__}")
        self.state = state


class Container(Record):
    """A plain torch container, made before its attributes are known."""

    def __init__(self) -> None:
        super().__init__()


class Entries(dict):
    """A dictionary that in the file has attribute access; here it has none."""

    def __setstate__(self, state: Any) -> None:
        raise Refused("holds a dictionary with attributes")


class NumberType:
    """A numpy type; numbers only."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not NUMBER.fullmatch(code):
            raise Refused(f"holds a numpy array of type {code!r}; numbers are read")
        self.dtype = np.dtype(f"<{code}")

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|"):
            raise Refused(f"holds numpy numbers of byte order {state[1]!r}")


class Array:
    """A numpy array of numbers."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: bytes, kind: NumberType, shape: Any, order: Any) -> Array:
        """The array with its numbers."""
        self.values = np.frombuffer(data, kind.dtype).reshape(shape, order=order)
        return self


class Call:
    """A function that a file may name; a file can neither look into it nor change it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __setstate__(self, state: Any) -> None:
        raise Refused("gives attributes to a function")


def module(meta: Any) -> Record:
    """A module of theirs, from its class name and attributes; its source text is not looked at."""
    if meta["type"] != "class" or meta["version"] > PERSISTENCE:
        raise Refused(f"holds a {meta['type']!r} of format {meta['version']}; version {PERSISTENCE} is read")
    return Record(str(meta["class_name"]), meta["state"])


def storage(data: bytes) -> Tensor:
    """The numbers of a tensor's memory, `[n]`."""
    with io.BytesIO(data) as buffer:
        found = torch.load(buffer, map_location="cpu", weights_only=True)
    if not isinstance(found, torch.storage.TypedStorage):
        raise Refused(f"holds a {type(found).__name__} in place of a tensor's memory")
    return torch.empty(0, dtype=found.dtype).set_(found._untyped_storage)


def tensor(flat: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of memory `flat` `[n]`; torch refuses one that leaves it."""
    return flat.as_strided(size, stride, offset)


def scalar(kind: NumberType, data: bytes) -> Any:
    """A numpy number as a Python number."""
    return np.frombuffer(data, kind.dtype)[0].item()


NAMES: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "dnnlib.util.EasyDict": Entries,
    "torch_utils.persistence._reconstruct_persistent_obj": Call(module),
    "torch.storage._load_from_bytes": Call(storage),
    "torch._utils._rebuild_tensor_v2": Call(tensor),
    "torch._utils._rebuild_parameter": Call(lambda data, *_: data),
    "torch.nn.modules.container.ModuleDict": Container,
    "torch.nn.modules.container.ModuleList": Container,
    "numpy.dtype": NumberType,
    "numpy.ndarray": Array,
    "numpy.core.multiarray.scalar": Call(scalar),
    "numpy.core.multiarray._reconstruct": Call(lambda *_: Array()),
    "numpy.core.numeric._frombuffer": Call(lambda *parts: Array().fill(*parts)),
}


class Reader(pickle.Unpickler):
    """An unpickler that knows the names above and no others."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        if full not in NAMES:
            raise Refused(f"asks for {module}.{name}, which no EDM network needs; nothing of the file was run")
        return NAMES[full]


def read(path: Path) -> Any:
    """What the pickle at `path` holds, with `Record`s for objects.

    Raises:
        ValueError: the file is truncated or damaged, or asks for anything but tensors, numbers, names and containers.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            return Reader(file).load()
        except Refused as error:
            raise ValueError(f"load: {path} {error}") from None
        except OSError:
            raise
        except Exception as error:  # whatever a damaged pickle makes of the values it holds
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"load: {path} is truncated or damaged ({reason})") from error

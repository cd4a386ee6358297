"""Pickles in the format of EDM and EDM2, made by imitation; their embedded source raises when it is run."""

from __future__ import annotations

import math
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.agreement.edm_oracle import Case, is_free, weight
from headstart.adapters.edm.file import CLASSES, skeleton

SOURCE = "raise RuntimeError('the embedded source was run')\n"


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Any:
    raise RuntimeError("the file's objects were made")


class EasyDict(dict):
    """A dictionary of dnnlib."""


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
EasyDict.__module__ = "dnnlib.util"


class Persistent:
    """An object that is saved as class name, source and attributes."""

    def __init__(self, name: str, version: int = 6, **state: Any) -> None:
        self.meta = {"type": "class", "version": version, "module_src": SOURCE, "class_name": name, "state": state}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reconstruct_persistent_obj, (self.meta,), None


@contextmanager
def named() -> Iterator[None]:
    """The modules whose names these pickles hold, while one is written."""
    places = {"torch_utils.persistence": _reconstruct_persistent_obj, "dnnlib.util": EasyDict}
    made = {name: ModuleType(name) for name in ("torch_utils", "dnnlib", *places)}
    for name, value in places.items():
        setattr(made[name], value.__name__, value)
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def shapes(case: Case) -> dict[str, torch.Size]:
    """Names and shapes of a network's tensors."""
    net, place = skeleton(case.name, case.arguments), CLASSES[case.name].model[0]
    found = {f"{place}.{key}": value.shape for key, value in net.state_dict().items()}
    if case.name == "Precond":
        found |= {"logvar_fourier.freqs": (128,), "logvar_fourier.phases": (128,), "logvar_linear.weight": (1, 128)}
    return {**found, "u": (1001,)} if case.name == "iDDPMPrecond" else found


def levels() -> Tensor:
    """iDDPM's noise levels, from step M = 1000 (0) to step 0: the cosine schedule with bounded ratios."""
    u, m = [0.0], 1000
    for j in range(m, 0, -1):
        squares = [math.sin(0.5 * math.pi * i / m / 1.008) ** 2 for i in (j - 1, j)]
        u.append(math.sqrt((u[-1] ** 2 + 1) / max(squares[0] / squares[1], 0.001) - 1))
    return torch.tensor(u[::-1])


def tensors(case: Case) -> dict[str, Tensor]:
    """The network's tensors with the formula's numbers."""
    taps = torch.tensor(case.arguments.get("resample_filter", [1.0, 1.0]), dtype=torch.float32)
    taps = taps / taps.sum()
    found = {name: weight(name, tuple(shape)) for name, shape in shapes(case).items() if is_free(name)}
    fixed = {name: taps.outer(taps).reshape(shape) for name, shape in shapes(case).items() if "resample" in name}
    found |= fixed | ({"u": levels()} if case.name == "iDDPMPrecond" else {})
    return {name: value.half() for name, value in found.items()} if case.half else found


def module(name: str, flat: dict[str, Tensor], **state: Any) -> Persistent:
    """The saved form of a module that holds the tensors `flat`, by dotted names."""
    parts = state_of(flat)
    return Persistent(name, training=False, **parts, **state)


def state_of(flat: dict[str, Tensor]) -> dict[str, Any]:
    buffers = ("freqs", "phases", "resample_filter", "u")
    own = {name: value for name, value in flat.items() if "." not in name}
    children: dict[str, Any] = {}
    for first in dict.fromkeys(name.partition(".")[0] for name in flat if "." in name):
        inner = {name.partition(".")[2]: value for name, value in flat.items() if name.startswith(f"{first}.")}
        children[first] = module("Anything", inner)
        if first in ("enc", "dec"):
            children[first] = nn.ModuleDict()
            children[first].__dict__.update(state_of(inner))
    return {
        "_parameters": {name: nn.Parameter(value) for name, value in own.items() if name not in buffers},
        "_buffers": OrderedDict({name: value for name, value in own.items() if name in buffers}, nothing=None),
        "_non_persistent_buffers_set": set(),
        "_modules": children,
    }


def network(case: Case, values: dict[str, Tensor] | None = None) -> Persistent:
    """The saved form of a network; its first argument is positional, as a caller may write it."""
    first, *rest = case.arguments.items()
    values = tensors(case) if values is None else values
    return module(case.name, values, _init_args=(first[1],), _init_kwargs=EasyDict(rest))


def save(path: Path, value: Any) -> Path:
    """Writes `value` as these projects do."""
    with named(), path.open("wb") as file:
        pickle.dump(value, file)
    return path

"""Files of pretrained networks: the projects' own pickles, and the safetensors file that `convert` makes of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart.adapters.edm.build import CLASSES, build
from headstart.adapters.edm.network import TYPES, Network
from headstart.adapters.edm.unpickle import Record, read
from headstart.initializer import file

FAMILY, KEY = "edm-network", "ema"


class Contents(NamedTuple):
    """What a file holds: the class of the preconditioned network, its constructor's arguments, and its tensors."""

    name: str
    arguments: dict[str, Any]
    tensors: dict[str, Tensor]


def load(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Network:
    """The pretrained network in a file: a pickle of EDM or EDM2, or what `convert` made of one. No code in it is run.

    Args:
        path: the file.
        device: where the network goes.
        dtype: of convolutions and attention, float32 (None), or float16 as those projects run on GPUs, or bfloat16.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, foreign, of a later version, or its tensors are not those of its network.
        TypeError: another dtype.
    """
    dtype = torch.float32 if dtype is None else dtype
    if dtype not in TYPES:
        raise TypeError(f"load: dtype must be float32, float16 or bfloat16, got {dtype}")
    return made(Path(path), contents(Path(path)), dtype).to(device)


def convert(source: str | Path, target: str | Path) -> None:
    """Writes the network of `source` as one safetensors file with a JSON header; it appears whole or not at all.

    Raises:
        FileNotFoundError, ValueError: as `load`.
        OSError: `target` cannot be written.
    """
    found = contents(Path(source))
    made(Path(source), found, torch.float32)
    header = {"family": FAMILY, "class": found.name, "arguments": found.arguments, "key": KEY}
    file.write(target, header, found.tensors)


def made(path: Path, found: Contents, dtype: torch.dtype) -> Network:
    """The network of `found`.

    Raises:
        ValueError: arguments and tensors do not make one.
    """
    try:
        return build(found.name, found.arguments, found.tensors, dtype)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"load: {path} is damaged or of another version: {error}") from None


def contents(path: Path) -> Contents:
    """What the file at `path` holds.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    with path.open("rb") as handle:
        head = handle.read(9)
    if head[8:] == b"{":
        return from_safetensors(path)
    if head[:1] == b"\x80":
        return from_pickle(path)
    kind = "a file of torch.save" if head[:2] == b"PK" else "empty" if not head else "of another kind"
    raise ValueError(f"load: {path} is no pickle of EDM or EDM2 and no safetensors file: it is {kind}")


def from_safetensors(path: Path) -> Contents:
    header, tensors = file.read(path)
    if header.get("family") != FAMILY:
        raise ValueError(f"load: {path} holds the family {header.get('family')!r}, not {FAMILY!r}")
    arguments = header.get("arguments")
    if not isinstance(arguments, dict) or header.get("class") not in CLASSES:
        raise ValueError(f"load: {path} holds a network of class {header.get('class')!r}, known are {sorted(CLASSES)}")
    return Contents(header["class"], arguments, tensors)


def from_pickle(path: Path) -> Contents:
    whole = read(path)
    found = whole.get(KEY) if isinstance(whole, dict) else whole
    if not isinstance(found, Record):
        held = f"keys {sorted(map(str, whole))}" if isinstance(whole, dict) else f"a {type(whole).__name__}"
        raise ValueError(f"load: {path} holds no network under {KEY!r}, but {held}")
    if found.name not in CLASSES:
        raise ValueError(f"load: {path} holds a network of class {found.name!r}, known are {sorted(CLASSES)}")
    try:
        positional, named = found.state["_init_args"], found.state["_init_kwargs"]
        order = CLASSES[found.name].order
        if len(positional) > len(order):
            raise ValueError(f"{len(positional)} positional arguments")
        arguments = plain({**dict(zip(order, positional, strict=False)), **named})
        tensors = dict(tensors_of(found, ""))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"load: {path} is damaged: {type(error).__name__} {error}") from None
    return Contents(found.name, arguments, tensors)


def tensors_of(record: Record, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and its children, by the names that torch gives them."""
    for kind in ("_parameters", "_buffers"):
        for name, value in table(record, kind).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, child in table(record, "_modules").items():
        if isinstance(child, Record):
            yield from tensors_of(child, f"{prefix}{name}.")


def table(record: Record, kind: str) -> Mapping[str, Any]:
    value = record.state[kind]
    if not isinstance(value, dict):
        raise TypeError(f"{kind} is a {type(value).__name__}")
    return value


def plain(value: Any) -> Any:
    """Constructor arguments as JSON values.

    Raises:
        TypeError: an argument is neither a number, text, None nor a list or dictionary of those.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    raise TypeError(f"a constructor argument is a {type(value).__name__}")

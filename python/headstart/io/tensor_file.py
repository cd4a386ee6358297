"""Files of tensors: safetensors, and torch.save's, whose pickles the bounded reader reads as data.

Newer files are zip files of `NAME/data.pkl` and a member `NAME/data/KEY` for the memory of each tensor; older ones are
five pickles (a number, a version, the machine, the object, the keys) and then, for each key, a count and the memory.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headstart.argument import require_path
from headstart.io.bound import (
    DataError,
    brief,
    memory_for,
    open_regular,
    read_stream,
    require_memory,
    size_of,
)
from headstart.io.pickled import BoundedFile, Call, Machine, RefusedPickle, StandIn, element_set, ordered

MAGIC, OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001  # how an older file begins
MAX_RANK = 16


class StorageKind(StandIn):
    """The type of a tensor's memory."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class Memory(StandIn):
    """A tensor's memory, `[n]`."""

    def __init__(self, flat: Tensor) -> None:
        self.flat = flat


class Reference(NamedTuple):
    """Where a tensor's memory is: its type, key, and number of elements."""

    dtype: torch.dtype
    key: str
    numbers: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.numbers * self.dtype.itemsize


STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Byte": torch.uint8, "Char": torch.int8, "Short": torch.int16, "Int": torch.int32, "Long": torch.int64,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip
TYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", "float32", "float64")


def view(memory: Memory | Tensor, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """A view of memory `[n]`.

    Raises:
        RefusedPickle: the view is larger than its memory (the same numbers again and again), or not a plain one.
        RuntimeError: from torch, which refuses a view that leaves its memory.
    """
    flat = memory.flat if isinstance(memory, Memory) else memory
    if not isinstance(flat, Tensor):
        raise RefusedPickle(f"holds {brief(flat)} in place of a tensor's memory")
    if len(size) > MAX_RANK or not all(isinstance(side, int) for side in size):
        raise RefusedPickle(f"holds a tensor whose shape is not of at most {MAX_RANK} integers")
    if math.prod(size) > flat.numel():
        raise RefusedPickle(f"holds a tensor of {brief(math.prod(size))} numbers on a memory of {flat.numel()}")
    if len(rest) > 2 and isinstance(rest[2], dict) and any(rest[2].values()):
        raise RefusedPickle("holds a conjugate or negative view; save its clone")
    return flat.as_strided(size, stride, offset)


def typed_view(memory: Memory, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """A view of bytes as numbers of a type that came to torch late."""
    kind = rest[2]
    if not isinstance(kind, StorageKind) or memory.flat.numel() % kind.dtype.itemsize:
        raise RefusedPickle("holds a tensor whose memory is not of its type")
    return view(Memory(memory.flat.view(kind.dtype)), offset, size, stride)


NAMES: dict[str, Any] = {
    "collections.OrderedDict": Call(ordered),
    "builtins.set": Call(element_set),
    "__builtin__.set": Call(element_set),
    "torch._utils._rebuild_tensor_v2": Call(view),
    "torch._utils._rebuild_tensor_v3": Call(typed_view),
    "torch._utils._rebuild_parameter": Call(lambda data, *_: data),
    "torch.storage.UntypedStorage": StorageKind(torch.uint8),
    **{f"torch.{name}Storage": StorageKind(dtype) for name, dtype in STORAGES.items()},
    **{f"torch.{name}": StorageKind(getattr(torch, name)) for name in TYPES if hasattr(torch, name)},
    "torch.Size": Call(tuple),
}
WHY = "which a file of tensors has no need of"


def reference(parts: Any) -> Reference:
    """What a tensor of the file says about its memory."""
    word, kind, key, _, count, *_ = parts
    if word != "storage" or not isinstance(kind, StorageKind) or not isinstance(key, str):
        raise RefusedPickle("refers to something other than a tensor's memory")
    if not isinstance(count, int) or count < 0:
        raise RefusedPickle(f"holds a memory of {brief(count)} numbers")
    return Reference(kind.dtype, key, count)


def fresh(found: Reference, left: int) -> Tensor:
    """Memory for what a file says it has, where that many bytes are left in it."""
    if found.size > left:
        raise EOFError(f"a tensor of {found.size} bytes, {left} are left in the file")
    return torch.empty(found.numbers, dtype=found.dtype, device="cpu")


def fill_memory(flat: Tensor, read: Callable[[int], bytes]) -> None:
    """Reads the bytes of `flat`."""
    if flat.numel():
        raw = bytearray(read(flat.numel() * flat.element_size()))
        flat.copy_(torch.frombuffer(raw, dtype=flat.dtype))


def read_old(file: BinaryIO, size: int, names: dict[str, Any]) -> Any:
    """The object of an older file."""
    source, memories = BoundedFile(file, size), dict[str, tuple[Reference, Tensor]]()

    def persistent(parts: Any) -> Memory:
        found = reference(parts)
        if found.key not in memories:
            taken = sum(each.size for each, _ in memories.values())
            memories[found.key] = (found, fresh(found, source.left - taken))
        return Memory(memories[found.key][1])

    machine = Machine(names, persistent, WHY)
    begins = [machine.load(source) for _ in range(3)]
    if begins[:2] != [MAGIC, OLD_VERSION] or not isinstance(begins[2], dict):
        raise ValueError("no file of torch.save")
    if begins[2].get("little_endian", True) is not True:
        raise RefusedPickle("was written on a machine of another byte order")
    held = machine.load(source)
    for key in machine.load(source):
        found, flat = memories[key]
        if struct.unpack("<q", source.read(8))[0] != found.numbers:
            raise ValueError(f"the memory {brief(key)} is of another size than its tensor says")
        fill_memory(flat, source.read)
    return held


def read_zip(file: BinaryIO, names: dict[str, Any], path: Path) -> Any:
    """The object of a newer file."""
    with zipfile.ZipFile(file) as archive:
        pickle = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if pickle is None:
            raise ValueError("no file of torch.save")
        root, memories = pickle.removesuffix("data.pkl"), dict[str, Tensor]()
        require_memory(sum(info.file_size for info in archive.infolist()), path)
        if f"{root}byteorder" in archive.namelist():
            with archive.open(f"{root}byteorder") as stream:
                if read_stream(stream, 16, path) != b"little":
                    raise RefusedPickle("was written on a machine of another byte order")

        def persistent(parts: Any) -> Memory:
            found = reference(parts)
            if found.key not in memories:
                info = archive.getinfo(f"{root}data/{found.key}")
                flat = fresh(found, info.file_size)
                with archive.open(info) as stream:
                    fill_memory(flat, lambda n: read_stream(stream, n, path))
                memories[found.key] = flat
            return Memory(memories[found.key])

        info = archive.getinfo(pickle)
        with archive.open(info) as stream:
            raw = read_stream(stream, info.file_size, path)
        return Machine(names, persistent, WHY).load(BoundedFile(io.BytesIO(raw), len(raw)))


def read_tensors(path: str | Path) -> Any:
    """What a file of torch.save holds: tensors on the CPU, numbers, texts, and containers of them. No code is run.

    Raises:
        DataError: the file is damaged, foreign, too large for the memory, or holds anything else.
        FileNotFoundError: there is none.
        MemoryError: reading it took all memory.
    """
    path = require_path("read", path)
    try:
        with memory_for(path), open_regular(path) as file:
            size = size_of(file)
            require_memory(size, path)
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            return read_zip(file, NAMES, path) if is_zip else read_old(file, size, NAMES)
    except RefusedPickle as error:
        raise DataError(f"{path}: {error}; pickled objects are refused, only plain tensors are read") from None
    except (DataError, OSError, MemoryError):
        raise
    except (Exception, zipfile.BadZipFile, zlib.error) as error:  # whatever a damaged file makes of its values
        raise DataError(f"{path}: not a readable .pt file, or cut short ({brief(error)})") from None


def read_safetensors_file(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors (on the CPU) of a safetensors file.

    Raises:
        DataError: it is damaged, foreign, or larger than the memory.
        FileNotFoundError: there is none.
    """
    path = require_path("read", path)
    with open_regular(path) as file:
        require_memory(size_of(file), path)
    try:
        with memory_for(path), safe_open(path, framework="pt") as file:
            # copies begin at torch's own alignment: on addresses of the file's, matrix products round differently
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except SafetensorError as error:
        raise DataError(f"{path} is truncated or no safetensors file ({brief(error)})") from None

"""Reading npy and npz files: the header is checked against the file's size before memory is asked for."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from headstart.io.bound import DataError, brief, memory_for, open_regular, require_memory, size_of

KINDS = "biufc"  # of numbers
TO_FLOAT = 4  # bytes a number takes again as float32
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)  # of a member of a zip file


def read_npy(file: Any, size: int, name: object) -> np.ndarray:
    """The array of an npy file, in this machine's byte order; pickled objects are refused.

    Args:
        file: open for reading, at its beginning; may be a member of a zip file.
        size: bytes it is said to hold.
        name: what errors call it.

    Raises:
        DataError: damaged, not of numbers, or larger than the memory.
    """
    counted = Counted(file)
    try:
        version = np.lib.format.read_magic(counted)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(counted)
    except Exception as error:  # numpy evaluates the header's text: the errors of any damaged literal
        raise DataError(f"{name}: not a readable .npy file, or cut short ({brief(error)})") from None
    if dtype.kind not in KINDS:
        reason = "pickled objects are refused" if dtype.hasobject else f"must hold numbers, got {str(dtype)[:100]}"
        raise DataError(f"{name}: {reason}")
    count = math.prod(shape)
    if any(side < 0 for side in shape) or count * dtype.itemsize > size - counted.taken:
        there = f"{size - counted.taken:,} bytes follow"
        raise DataError(f"{name}: cut short or damaged: shape {brief_shape(shape)} of {dtype}, but {there}")
    require_memory(count * (dtype.itemsize + TO_FLOAT), name)
    array = np.empty(count, dtype)
    held, at = array.view(np.uint8), 0
    while at < len(held):
        part = file.read(min(len(held) - at, 2**24))
        if not part:
            raise DataError(f"{name}: cut short: {at:,} of {len(held):,} bytes")
        held[at : at + len(part)] = np.frombuffer(part, np.uint8)
        at += len(part)
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    return array.reshape(shape, order="F" if fortran else "C")


class Counted:
    """A file that counts what is read of it.

    Attributes:
        taken: bytes read.
    """

    def __init__(self, file: Any) -> None:
        self.file, self.taken = file, 0

    def read(self, n: int = -1, /) -> bytes:
        found = self.file.read(n)
        self.taken += len(found)
        return bytes(found)


def brief_shape(shape: tuple[int, ...]) -> str:
    """A shape in one short line."""
    sides = ", ".join(brief(side) for side in shape[:8])
    return f"[{sides}{', ...' if len(shape) > 8 else ''}]"


def read_npy_file(path: Path) -> np.ndarray:
    """The array of an npy file.

    Raises:
        DataError: as `read_npy`.
        OSError: it cannot be read.
    """
    with memory_for(path), open_regular(path) as file:
        return read_npy(file, size_of(file), path)


def read_npz_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, by name.

    Raises:
        DataError: as `read_npy`, or no zip file.
        OSError: it cannot be read.
    """
    with memory_for(path), open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
                require_memory(sum(info.file_size for info in infos), path)
                found = {}
                for info in infos:
                    key = info.filename.removesuffix(".npy")
                    with archive.open(info) as stream:
                        shown = f"{path} ({key[:100]})" if len(infos) > 1 else path
                        found[key] = read_npy(stream, info.file_size, shown)
                return found
        except DataError:
            raise
        except (ValueError, *BROKEN) as error:
            raise DataError(f"{path}: not a readable .npz file, or cut short ({brief(error)})") from None

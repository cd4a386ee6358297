"""Reading idx files, the format of MNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from headstart.data.dataset import DataError, Dataset, to_labels, to_samples


def read_idx(path: Path) -> np.ndarray:
    """Array of unsigned bytes from an idx file (the format of MNIST), gzipped or not.

    Raises:
        DataError: not an idx file of unsigned bytes, or one that is cut short.
    """
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: damaged or cut short gzip file ({error})") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[3] == 0:
        raise DataError(f"{path}: not an idx file")
    if raw[2] != 8:
        raise DataError(f"{path}: idx type must be 0x08 (unsigned bytes), got {raw[2]:#04x}")
    start = 4 + 4 * raw[3]
    shape = struct.unpack(f">{raw[3]}I", raw[4:start]) if len(raw) >= start else ()
    if not shape or len(raw) - start != math.prod(shape):
        raise DataError(f"{path}: cut short or damaged: idx shape {list(shape)} does not match {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()


def read_idx_pair(path: Path) -> Dataset:
    """Images of an idx file, with the labels of the file beside it named in MNIST's way, where there is one."""
    x = to_samples(read_idx(path), str(path))
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path or not beside.is_file():
        return Dataset(x)
    return Dataset(x, to_labels(read_idx(beside), len(x), str(beside)))

"""Reading data sets: folders of images, npy, npz, pt and idx files, and the zoo's own images.

No file is trusted: pickled objects are refused, sizes are checked against the file, and every error is one sentence
that names the file.
"""

from __future__ import annotations

import gzip
import math
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstart.dataset import DataError, Dataset, from_arrays, to_labels, to_samples
from headstart.folder import read_folder


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


def read_numpy(path: Path) -> Dataset:
    """Data set from an npy or npz file; pickled objects are refused."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return from_arrays({key: file[key] for key in file.files}, str(path))
        return from_arrays({"array": np.load(path, mmap_mode="r", allow_pickle=False)}, str(path))
    except DataError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, AttributeError, TypeError) as error:
        pickled = "pickle" in str(error) or "object" in str(error).lower()
        reason = "pickled objects are refused" if pickled else f"not a readable {path.suffix} file, or cut short"
        raise DataError(f"{path}: {reason}") from None


def read_torch(path: Path) -> Dataset:
    """Data set from a pt file: a tensor, a dict of tensors or (samples, labels); pickled objects are refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says it all
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "pickled objects are refused" if "Weights only" in str(error) else "not a readable .pt file"
        raise DataError(f"{path}: {reason}; only plain tensors are read") from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        raise DataError(f"{path}: not a readable .pt file, or cut short") from None
    if isinstance(held, (tuple, list)) and len(held) == 2:
        held = {"images": held[0], "labels": held[1]}
    arrays = {"array": held} if isinstance(held, Tensor) else held
    if not isinstance(arrays, Mapping) or not all(isinstance(value, Tensor) for value in arrays.values()):
        raise DataError(f"{path}: must hold a tensor, a dict of tensors or (samples, labels), got {type(held)}")
    return from_arrays(arrays, str(path), channels_first=True)


def read_idx_pair(path: Path) -> Dataset:
    """Images of an idx file, with the labels of the file beside it named in MNIST's way, where there is one."""
    x = to_samples(read_idx(path), str(path))
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path or not beside.is_file():
        return Dataset(x)
    return Dataset(x, to_labels(read_idx(beside), len(x), str(beside)))


def read_dataset(source: str | Path, size: int | None = None) -> Dataset:
    """The data set at `source`.

    Args:
        source: folder of images, .npy, .npz or .pt file, idx file (gzipped or not), or "zoo:fashion".
        size: for folders, the side of a square every image is cropped and resized to.

    Raises:
        DataError: anything that cannot be read as said above.
    """
    if str(source).startswith("zoo:"):
        from headstart import zoo

        try:
            return Dataset(*zoo.images(str(source).removeprefix("zoo:")))
        except ValueError as error:
            raise DataError(str(error)) from None
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir():
        return read_folder(path, size)
    if size is not None:
        raise DataError(f"{path}: --size is for folders of images")
    if path.suffix in (".npy", ".npz"):
        return read_numpy(path)
    if path.suffix in (".pt", ".pth"):
        return read_torch(path)
    if "idx" in path.name or path.name.endswith("ubyte") or path.suffix == ".gz":
        return read_idx_pair(path)
    raise DataError(f"{path}: data must be a folder of images, .npy, .npz, .pt or idx file, or zoo:fashion")

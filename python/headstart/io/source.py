"""Reading a data set by its name, whatever it comes as; and idx files, the format of MNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from headstart.argument import require_path
from headstart.io.array_file import TO_FLOAT, brief_shape, read_npy_file, read_npz_file
from headstart.io.bound import (
    MAX_TEXT_BYTES,
    DataError,
    brief,
    memory_for,
    open_regular,
    parse_json,
    read_bytes,
    require_memory,
    size_of,
)
from headstart.io.dataset import Dataset, from_arrays, to_labels, to_samples
from headstart.io.folder import batches, open_members, read_members
from headstart.io.tensor_file import read_safetensors_file, read_tensors

MAX_SIDES = 8  # of an idx array


def read_idx(path: Path) -> np.ndarray:
    """Array of unsigned bytes from an idx file (the format of MNIST), gzipped or not.

    Raises:
        DataError: not an idx file of unsigned bytes, one that is cut short, or one larger than the memory.
    """
    with memory_for(path), open_regular(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            return unpack_idx(file, size_of(file), path)
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                return unpack_idx(stream, None, path)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path}: damaged or cut short gzip file ({brief(error)})") from None


def unpack_idx(file: Any, size: int | None, path: Path) -> np.ndarray:
    """The array of an open idx file of `size` bytes, None where they are not known before they are read."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[3] == 0:
        raise DataError(f"{path}: not an idx file")
    if head[2] != 8:
        raise DataError(f"{path}: idx type must be 0x08 (unsigned bytes), got {head[2]:#04x}")
    sides = file.read(4 * head[3])
    shape = struct.unpack(f">{head[3]}I", sides) if len(sides) == 4 * head[3] else ()
    count, start = math.prod(shape), 4 + 4 * head[3]
    wrong = f"{path}: cut short or damaged: idx shape {brief_shape(shape)} does not match"
    if not shape or len(shape) > MAX_SIDES or (size is not None and size - start != count):
        raise DataError(f"{wrong} {size or start} bytes")
    require_memory((2 + TO_FLOAT) * count, path)
    content = file.read(count + 1) if size is None else file.read(count)
    if len(content) != count:
        raise DataError(f"{wrong} {start + len(content)} bytes")
    return np.frombuffer(content, np.uint8).reshape(shape).copy()


def read_idx_pair(path: Path) -> Dataset:
    """Images of an idx file, with the labels of the file beside it named in MNIST's way, where there is one."""
    x = to_samples(read_idx(path), str(path))
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path or not beside.is_file():
        return Dataset(x)
    return Dataset(x, to_labels(read_idx(beside), len(x), str(beside)))


START = "headstart"  # metadata of a start's file
SOURCES = "a folder or zip file of images, .npy, .npz, .pt, .safetensors or idx file, or zoo:fashion"


def read_torch(path: Path) -> Dataset:
    """Data set from a pt file: a tensor, a dict of tensors or (samples, labels); pickled objects are refused."""
    held = read_tensors(path)
    if isinstance(held, (tuple, list)) and len(held) == 2:
        held = {"images": held[0], "labels": held[1]}
    arrays = {"array": held} if isinstance(held, Tensor) else held
    if not isinstance(arrays, Mapping) or not all(isinstance(value, Tensor) for value in arrays.values()):
        raise DataError(f"{path}: must hold a tensor, a dict of tensors or (samples, labels), got {type(held)}")
    return from_arrays(arrays, str(path), channels_first=True)


def read_safetensors(path: Path) -> Dataset:
    """Data set from a safetensors file of samples, and labels where there are any."""
    with memory_for(path):
        metadata, arrays = read_safetensors_file(path)
    if START in metadata:
        raise DataError(f"{path}: holds a start, not samples; `headstart sample` makes samples from it")
    return from_arrays(arrays, str(path), channels_first=True)


def read_file(path: Path) -> Dataset:
    """Data set from a file of arrays, by its suffix."""
    if path.suffix == ".npy":
        return from_arrays({"array": read_npy_file(path)}, str(path))
    if path.suffix == ".npz":
        return from_arrays(read_npz_file(path), str(path))
    if path.suffix in (".pt", ".pth"):
        return read_torch(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if "idx" in path.name or path.name.endswith("ubyte") or path.suffix == ".gz":
        return read_idx_pair(path)
    raise DataError(f"{path}: data must be {SOURCES}")


def read_dataset(
    source: str | Path, size: int | None = None, classes: Collection[int] | None = None,
    latent_seed: int | None = None, progress: bool = False,
) -> Dataset:  # fmt: skip
    """The data set at `source`.

    Args:
        source: folder or zip file of images (EDM's with `dataset.json` too) or EDM2 latents, .npy, .npz, .pt or
            .safetensors file, idx file (gzipped or not), or "zoo:fashion".
        size: for images in folders and zip files, the side of a square every image is cropped and resized to.
        classes: labels to keep, None for all; of folders and zip files the others are not even read.
        latent_seed: for EDM2 latents, see `Members`.
        progress: show a bar.

    Raises:
        DataError: anything that cannot be read in one of these forms.
    """
    if str(source).startswith("zoo:"):
        from headstart import zoo

        try:
            return Dataset(*zoo.images(str(source).removeprefix("zoo:"))).choose(classes)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(str(error)) from None
    path = require_path("read", source, "source")
    if not path.exists():
        dangling = "a link to nothing" if path.is_symlink() else "no such file or folder"
        raise DataError(f"{path}: {dangling}")
    if path.is_dir() or path.suffix == ".zip":
        return read_members(open_members(path, size, classes, latent_seed), progress=progress)
    if size is not None:
        raise DataError(f"{path}: --size is for folders and zip files of images")
    return read_file(path).choose(classes)


def stream(
    source: str | Path, batch: int = 256, size: int | None = None, classes: Collection[int] | None = None
) -> Iterator[Dataset]:
    """The data set at `source` a batch at a time: folders and zip files are never held whole.

    Args:
        source, size, classes: as in `read_dataset`.
        batch: samples at a time.

    Raises:
        DataError: as `read_dataset`, when its place is reached.
    """
    path = require_path("read", source, "source")
    if path.is_dir() or (path.suffix == ".zip" and path.exists()):
        yield from batches(open_members(path, size, classes), batch)
        return
    whole = read_dataset(source, size, classes)
    for begin in range(0, len(whole.images), batch):
        labels = None if whole.labels is None else whole.labels[begin : begin + batch]
        yield Dataset(whole.images[begin : begin + batch], labels, whole.classes)


def read_classes(text: str) -> tuple[int, ...]:
    """Labels from `3,7` or from a JSON file with a list of numbers.

    Raises:
        DataError: neither.
    """
    try:
        if text.endswith(".json"):
            listed = parse_json(read_bytes(require_path("read", text), MAX_TEXT_BYTES), text)
        else:
            listed = [int(part) for part in text.split(",")]
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{text}: {error.strerror}") from None
    except ValueError:
        shown = text if len(text) < 200 else f"{text[:200]}..."
        raise DataError(f"{shown}: classes must be numbers with commas, or a JSON file with a list of them") from None
    if not isinstance(listed, list) or not listed or any(type(one) is not int or one < 0 for one in listed):
        raise DataError(f"{text}: classes must be a list of numbers from 0 on, not empty")
    return tuple(listed)

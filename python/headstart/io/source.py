"""Reading npy, npz, pt and safetensors files, and whatever else a data set comes as, by its name.

Reading idx files, the format of MNIST.
"""

from __future__ import annotations

import gzip
import json
import math
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headstart.io.dataset import DataError, Dataset, from_arrays, to_labels, to_samples
from headstart.io.folder import batches, open_members, read_members


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


START = "headstart"  # metadata of a start's file
SOURCES = "a folder or zip file of images, .npy, .npz, .pt, .safetensors or idx file, or zoo:fashion"


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


def read_safetensors(path: Path) -> Dataset:
    """Data set from a safetensors file of samples, and labels where there are any."""
    try:
        with safe_open(path, framework="pt") as file:
            if START in (file.metadata() or {}):
                raise DataError(f"{path}: holds a start, not samples; `headstart sample` makes samples from it")
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DataError(f"{path}: not a readable .safetensors file, or cut short ({error})") from None
    return from_arrays(arrays, str(path), channels_first=True)


def read_file(path: Path) -> Dataset:
    """Data set from a file of arrays, by its suffix."""
    if path.suffix in (".npy", ".npz"):
        return read_numpy(path)
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
        DataError: anything that cannot be read as said above.
    """
    if str(source).startswith("zoo:"):
        from headstart import zoo

        try:
            return Dataset(*zoo.images(str(source).removeprefix("zoo:"))).choose(classes)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(str(error)) from None
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
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
    path = Path(source)
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
        listed = json.loads(Path(text).read_bytes()) if text.endswith(".json") else [int(p) for p in text.split(",")]
    except OSError as error:
        raise DataError(f"{text}: {error.strerror}") from None
    except ValueError:
        raise DataError(f"{text}: classes must be numbers with commas, or a JSON file with a list of them") from None
    if not isinstance(listed, list) or not listed or any(type(one) is not int or one < 0 for one in listed):
        raise DataError(f"{text}: classes must be a list of numbers from 0 on, not empty")
    return tuple(listed)

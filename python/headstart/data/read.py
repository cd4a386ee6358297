"""Reading npy, npz and pt files, and whatever else a data set comes as, by its name."""

from __future__ import annotations

import pickle
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstart.data.dataset import DataError, Dataset, from_arrays
from headstart.data.folder import read_folder
from headstart.data.idx import read_idx_pair


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

"""Data sets in memory: float32 samples, and labels where there are any.

Bytes become float32 `[N, C, H, W]` in [-1, 1] (`x / 127.5 - 1`); floating arrays keep their values and shape.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headstart.io.bound import DataError, brief

CHANNELS = (1, 3, 4)
IMAGE_NAMES = ("images", "train_images", "data", "x", "x_train", "arr_0")
LABEL_NAMES = ("labels", "train_labels", "label", "targets", "y", "y_train", "arr_1")


class Dataset(NamedTuple):
    """Samples `[N, *shape]` (float32), labels `[N]` (int64) where there are any, and the classes' names."""

    images: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()

    def only(self, label: int) -> Dataset:
        """The samples of one class.

        Raises:
            DataError: no labels, or no sample of that class.
        """
        if self.labels is None:
            raise DataError("data: one class was asked for, but the data have no labels")
        chosen = self.labels == label
        if not chosen.any():
            raise DataError(f"data: no sample has label {label}; labels are {self.labels.unique().tolist()[:20]}")
        return Dataset(self.images[chosen])

    def choose(self, classes: Collection[int] | None) -> Dataset:
        """The samples of some classes, with their labels; all for None.

        Raises:
            DataError: no labels, or no sample of those classes.
        """
        if classes is None:
            return self
        if self.labels is None:
            raise DataError("data: classes were asked for, but the data have no labels")
        chosen = torch.isin(self.labels, torch.tensor(sorted(classes), dtype=torch.int64, device=self.labels.device))
        if not chosen.any():
            raise DataError(f"data: no sample has a label among {sorted(classes)[:20]}")
        return Dataset(self.images[chosen], self.labels[chosen], self.classes)


def to_samples(array: np.ndarray | Tensor, name: str, channels_first: bool = False) -> Tensor:
    """Samples `[N, *shape]`, float32, of an array of bytes or floats.

    Args:
        array: uint8 images `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` with C = 1, 3 or 4, or floats `[N, *shape]`.
        name: what errors call the array.
        channels_first: how 4-D bytes are read where both readings fit.

    Raises:
        DataError: another dtype or rank, no samples, or floats that are not finite.
    """
    x = array if isinstance(array, Tensor) else None
    dtype = str(array.dtype).removeprefix("torch.")
    shape = list(array.shape)
    if dtype not in ("uint8", "float16", "float32", "float64", "bfloat16"):
        raise DataError(f"{name}: data must be uint8 or floating, got {dtype} {shape}")
    if isinstance(x, Tensor) and (x.layout != torch.strided or x.is_meta or x.is_quantized):
        raise DataError(f"{name}: data must be plain dense tensors, got {x.layout} {shape} on {x.device}")
    if x is None:  # readers own what they pass: only an array that cannot be written to is copied
        x = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if len(shape) < 2 or math.prod(shape) == 0:
        raise DataError(f"{name}: data must be [N, *shape] with at least one sample, got {dtype} {shape}")
    if dtype != "uint8":
        x = x.float()
        if not x.isfinite().all():
            raise DataError(f"{name}: data must be finite, got NaN or infinity in {dtype} {shape}")
        return x.contiguous()
    if len(shape) == 3:
        x = x[:, None]
    elif len(shape) != 4 or not (shape[1] in CHANNELS or shape[3] in CHANNELS):
        raise DataError(f"{name}: bytes must be images [N, H, W], [N, H, W, C] or [N, C, H, W], got {shape}")
    elif shape[3] in CHANNELS and not (channels_first and shape[1] in CHANNELS):
        x = x.permute(0, 3, 1, 2)
    return x.contiguous().float().div_(127.5).sub_(1)


def to_labels(array: np.ndarray | Tensor, n: int, name: str) -> Tensor:
    """Labels `[n]`, int64, from an array of non-negative integers.

    Raises:
        DataError: another number of labels, or labels that are not non-negative integers.
    """
    if isinstance(array, np.ndarray):  # torch hardly knows wide unsigned integers
        array = array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array
    labels = torch.as_tensor(array, device=getattr(array, "device", "cpu"))
    countable = not labels.is_floating_point() and not labels.is_complex() and list(labels.shape) == [n]
    if not countable or int(labels.long().min()) < 0:
        raise DataError(f"{name}: labels must be {n} non-negative integers, got {array.dtype} {list(labels.shape)}")
    return labels.long()


def from_arrays(arrays: Mapping[Any, np.ndarray | Tensor], name: str, channels_first: bool = False) -> Dataset:
    """Data set from named arrays: samples under one of `IMAGE_NAMES` (or the only name), labels of `LABEL_NAMES`."""
    key = next((key for key in IMAGE_NAMES if key in arrays), None)
    if key is None and len(arrays) == 1:
        key = next(iter(arrays))
    if key is None:
        found = ", ".join(brief(key).strip("'") for key, _ in zip(arrays, range(20), strict=False)) or "none"
        raise DataError(f"{name}: needs an array named {' or '.join(IMAGE_NAMES)}, got {found}")
    x = to_samples(arrays[key], f"{name} ({key})" if len(arrays) > 1 else name, channels_first)
    label_key = next((label for label in LABEL_NAMES if label in arrays and label != key), None)
    return Dataset(x, None if label_key is None else to_labels(arrays[label_key], len(x), f"{name} ({label_key})"))

"""Memory that is used again once nobody else refers to it: on a CPU, fresh pages cost more than a row.

Measured on one thread of a Xeon against new tensors each time, six steps of 2M and Heun, medians of paired runs: 0.3 to
0.6 of the time from 1 MiB a state, 0.7 to 1.0 at 768 KiB, and 1.1 below 64 KiB, where nothing is kept therefore.
"""

from __future__ import annotations

import sys
import threading
from typing import NamedTuple

import torch
from torch import Tensor

from headstart import ops

KEPT = 64 * 2**20  # bytes that stay between two runs
MIN_BYTES = 512 * 2**10  # what torch's own allocator serves as well is left to it

CAN_COUNT = hasattr(torch._C, "_storage_Use_Count")


class Lot(NamedTuple):
    """Memory of a tensor that was handed out, and how it looked when only its `Buffers` held it."""

    storage: torch.UntypedStorage
    address: int
    nbytes: int
    inference: bool
    alone: tuple[int, int]

    @property
    def holders(self) -> tuple[int, int]:
        """How many refer to the memory (tensors, views, arrays), from Python and from C++."""
        return sys.getrefcount(self.storage), torch._C._storage_Use_Count(self.storage._cdata)

    def tensor(self, dtype: torch.dtype, shape: torch.Size, strides: tuple[int, ...]) -> Tensor:
        """A new tensor in this memory."""
        empty = torch.empty(0, dtype=dtype, device="cpu")
        return empty.set_(self.storage, 0, shape, strides)

    @property
    def spoiled(self) -> bool:
        """Whether it was shared with another process, resized, or moved."""
        storage = self.storage
        return storage.is_shared() or storage.nbytes() != self.nbytes or storage.data_ptr() != self.address


class Buffers:
    """Memory on the CPU for what only a run sees. Each tensor is a new one; users are given none of them."""

    def __init__(self) -> None:
        self.held: list[Lot] = []
        self.lock = threading.Lock()

    def take(self, like: Tensor, dtype: torch.dtype, copies: int = 1) -> Tensor:
        """An unset tensor with the shape, strides and device of `like`, in memory nobody else refers to.

        `copies`: how many times as long in its first dimension.
        """
        shape, strides = like.shape, like.stride()
        if copies == 1 and 2 * like.numel() * dtype.itemsize < MIN_BYTES:  # little, in most layouts
            return torch.empty_strided(shape, strides, dtype=dtype, device=like.device)
        if copies > 1:
            rows, rest = shape[0], shape[1:]
            shape, strides = torch.Size((copies * rows, *rest)), (rest.numel(), *strides[1:])
        last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        nbytes = (1 + last) * dtype.itemsize if shape.numel() else 0
        if nbytes < MIN_BYTES or not like.is_cpu or not CAN_COUNT or ops.library.watched():
            return torch.empty_strided(shape, strides, dtype=dtype, device=like.device)
        with self.lock:
            self.held = [lot for lot in self.held if not lot.spoiled]
            inference = torch.is_inference_mode_enabled()
            for lot in self.held:
                if (lot.nbytes, lot.inference) == (nbytes, inference) and lot.holders == lot.alone:
                    return lot.tensor(dtype, shape, strides)
            storage = torch.UntypedStorage(nbytes, device="cpu")
            lot = Lot(storage, storage.data_ptr(), nbytes, inference, (0, 0))
            del storage
            self.held.append(lot._replace(alone=lot.holders))
            del lot
            return self.held[-1].tensor(dtype, shape, strides)

    def trim(self) -> None:
        """Forgets the oldest memory beyond `KEPT` bytes."""
        with self.lock:
            while self.held and sum(lot.nbytes for lot in self.held) > KEPT:
                del self.held[0]


BUFFERS = Buffers()

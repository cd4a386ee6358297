"""Tensors that are handed out again once nobody else refers to them: on a CPU, fresh pages cost more than a row."""

from __future__ import annotations

import sys
import threading

import torch
from torch import Tensor

KEPT = 64 * 2**20  # bytes that stay between two runs


def holders(tensor: Tensor) -> tuple[int, ...]:
    """How many refer to the tensor, and to its memory (views, numpy arrays), from Python and from C++."""
    storage = tensor.untyped_storage()
    of_tensor = sys.getrefcount(tensor), tensor._use_count()  # type: ignore[attr-defined]
    return *of_tensor, sys.getrefcount(storage), torch._C._storage_Use_Count(storage._cdata)


CAN_COUNT = hasattr(Tensor, "_use_count") and hasattr(torch._C, "_storage_Use_Count")


class Buffers:
    """Tensors on the CPU, each with the count of holders it has when only this object holds it."""

    def __init__(self) -> None:
        self.held: list[tuple[Tensor, tuple[int, ...]]] = []
        self.lock = threading.Lock()

    def take(self, like: Tensor, dtype: torch.dtype, copies: int = 1) -> Tensor:
        """An unset tensor with the shape, strides and device of `like`, dense, which nobody else refers to.

        `copies`: how many times as long in its first dimension.
        """
        shape, strides = like.shape, like.stride()
        if copies > 1:
            rows, rest = shape[0], shape[1:]
            shape, strides = torch.Size((copies * rows, *rest)), (rest.numel(), *strides[1:])
        if not like.is_cpu or not CAN_COUNT:  # CUDA's allocator keeps what is freed
            return torch.empty_strided(shape, strides, dtype=dtype, device=like.device)
        with self.lock:
            for i, (_, alone) in enumerate(self.held):
                if self.fits(i, shape, strides, dtype) and self.count(i) == alone:
                    return self.held[i][0]
            self.held.append((torch.empty_strided(shape, strides, dtype=dtype), ()))
            self.held[-1] = (self.held[-1][0], self.count(-1))
            return self.held[-1][0]

    def fits(self, i: int, shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype) -> bool:
        tensor = self.held[i][0]
        return tensor.dtype == dtype and tensor.shape == shape and tensor.stride() == strides

    def count(self, i: int) -> tuple[int, ...]:
        return holders(self.held[i][0])

    def trim(self) -> None:
        """Forgets the oldest tensors beyond `KEPT` bytes."""
        with self.lock:
            while self.held and sum(tensor.nbytes for tensor, _ in self.held) > KEPT:
                del self.held[0]


BUFFERS = Buffers()

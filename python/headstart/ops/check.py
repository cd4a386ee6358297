"""What every op checks before it takes an address, and the one form its errors have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from headstart import _core

DEVICES = ("cpu", "cuda", "meta")
STATE = (torch.float32, torch.float64)
TYPES = {
    torch.float32: _core.Type.f32,
    torch.float64: _core.Type.f64,
    torch.float16: _core.Type.f16,
    torch.bfloat16: _core.Type.bf16,
}


def describe(tensor: object) -> str:
    """`float32 [3, 4] on cpu`, for error messages; the type of what is no tensor."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"


def require(op: str, name: str, tensor: Tensor, dtypes: Collection[torch.dtype], like: Tensor | None = None) -> None:
    """Refuses a tensor of another dtype, or of another shape or device than `like`.

    Raises:
        TypeError: not a tensor, or of a dtype outside `dtypes`.
        ValueError: of another shape or device, or on a device that has no kernels.
    """
    if not isinstance(tensor, Tensor) or tensor.dtype not in dtypes:
        raise TypeError(f"{op}: {name} must be {_wanted(dtypes, like)}, got {describe(tensor)}")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{op}: {name} must be a dense tensor, got layout {tensor.layout}")
    if like is not None and (tensor.shape != like.shape or tensor.device != like.device):
        raise ValueError(f"{op}: {name} must be {_wanted(dtypes, like)}, got {describe(tensor)}")
    if tensor.device.type not in DEVICES:
        raise ValueError(f"{op}: {name} must be on cpu or cuda, got {describe(tensor)}")
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{op}: {name} requires a gradient, which this op does not give; call it in torch.no_grad()")


def _wanted(dtypes: Iterable[torch.dtype], like: Tensor | None) -> str:
    names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    return names if like is None else f"{names} {list(like.shape)} on {like.device}"


def require_out(op: str, name: str, out: Tensor, inputs: Sequence[Tensor]) -> None:
    """Refuses an output that is strided, or that shares memory with an input other than element for element.

    Raises:
        ValueError: not contiguous, or overlapping.
    """
    if not out.is_contiguous():
        raise ValueError(f"{op}: {name} must be contiguous, got strides {out.stride()} for shape {list(out.shape)}")
    for tensor in inputs:
        aligned = tensor.data_ptr() == out.data_ptr() and tensor.element_size() == out.element_size()
        if not aligned and overlap(tensor, out):
            raise ValueError(f"{op}: {name} overlaps an input in memory; give it memory of its own, or that very input")


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two contiguous tensors share memory."""
    first, second = a.data_ptr(), b.data_ptr()
    return first < second + b.numel() * b.element_size() and second < first + a.numel() * a.element_size()


def dispatched(tensor: Tensor) -> bool:
    """Whether a call must go through torch's dispatcher: under `torch.compile`, and for tensors without memory."""
    return torch.compiler.is_compiling() or tensor.device.type == "meta"


def require_address(op: str, seed: int, step: int, offset: int, stream: int, rows: int, columns: int) -> None:
    """Refuses addresses outside the counter: seed in [0, 2^64), step, stream and sample index in [0, 2^32).

    Raises:
        ValueError: out of range.
    """
    for name, value, bound in (("seed", seed, 64), ("step", step, 32), ("offset", offset, 32), ("stream", stream, 32)):
        if not (type(value) is int or isinstance(value, Integral)) or not 0 <= value < 2**bound:
            raise ValueError(f"{op}: {name} must be an integer in [0, 2^{bound}), got {value!r}")
    if offset + rows > 2**32:
        raise ValueError(f"{op}: offset + rows must be at most 2^32, got {offset} + {rows}")
    if columns > 2**34:
        raise ValueError(f"{op}: a sample must have at most 2^34 elements, got {columns}")


def place(tensor: Tensor) -> _core.Place:
    """Where to run: torch's number of threads, or torch's current stream on the tensor's device."""
    if tensor.device.type == "cuda":
        return _core.Place(True, 0, torch.cuda.current_stream(tensor.device).cuda_stream)
    return _core.Place(False, torch.get_num_threads(), 0)

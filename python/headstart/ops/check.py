"""What every op checks before it takes an address, of noise or of memory, and the one form its errors have."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart import _core
from headstart.argument import require_number, shown

DEVICES = ("cpu", "cuda", "meta")
STATE = (torch.float32, torch.float64)
TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}  # `Type` of csrc/kernels.h


class Stream(enum.IntEnum):
    """Independent sequences of noise under one seed; part of every noise address."""

    START = 0
    SOLVER = 1
    COMPONENT = 2
    FACTOR = 3
    FLOOR = 4
    SCALE = 5
    NOISING = 6
    ORDER = 7
    DROP = 8


class Noise(NamedTuple):
    """The noise term `scale * z` of an affine row.

    `z` is standard normal; element e of row i is a function of (seed, offset + i, step, e, stream) alone, the same on
    every device, for every batch split.

    Attributes:
        scale: standard deviation of the term.
        seed: key, an integer in [0, 2^64): all 64 bits count, nothing is folded; others are refused.
        step: which draw of the seed, in [0, 2^32).
        offset: sample index of row 0, in [0, 2^32).
        stream: which use, see `Stream`.
        origin: None, or int64 `[2]` on the state's device: seed (as a signed integer) and offset, read when the kernel
            runs, in place of the two above: what a captured CUDA graph is replayed with.
    """

    scale: float
    seed: int
    step: int
    offset: int = 0
    stream: int = Stream.SOLVER
    origin: Tensor | None = None


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


def require_output(op: str, name: str, tensor: Tensor) -> None:
    """Refuses what cannot be written to as it lies in memory.

    Raises:
        ValueError: a lazy negation, such as the imaginary part of a conjugate, or a lazy zero.
    """
    if torch.compiler.is_compiling():  # its tensors are none of these
        return
    if tensor.is_neg() or torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.ZeroTensor):
        raise ValueError(f"{op}: {name} must have memory of its own values, got a lazy view; clone it first")


def _wanted(dtypes: Iterable[torch.dtype], like: Tensor | None) -> str:
    names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    return names if like is None else f"{names} {list(like.shape)} on {like.device}"


LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def layout(x: Tensor) -> torch.memory_format:
    """The memory order the kernels keep for `x`: channels-last where it has that, else contiguous."""
    if not x.is_contiguous() and x.dim() in LAYOUTS and x.is_contiguous(memory_format=LAYOUTS[x.dim()]):
        return LAYOUTS[x.dim()]
    return torch.contiguous_format


def arrange(op: str, target: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs in the memory order of the output `target`, which must be contiguous or channels-last.

    Raises:
        ValueError: it is neither.
    """
    order = layout(target)
    if not target.is_contiguous(memory_format=order):
        got = f"strides {target.stride()} for shape {list(target.shape)}"
        raise ValueError(f"{op}: out must be contiguous or channels-last, got {got}")
    return [tensor.contiguous(memory_format=order) for tensor in inputs]


def require_apart(op: str, params: _core.AffineParams) -> None:
    """Refuses outputs that share memory with an input, unless element for element, or with each other.

    Raises:
        ValueError: they overlap.
    """
    overlap = _core.find_overlap(params)
    if overlap is not None:
        raise ValueError(f"{op}: {overlap[0]} overlaps {overlap[1]} in memory; give it its own")


def address(op: str, name: str, tensor: Tensor | None, dtype: torch.dtype, like: Tensor) -> int:
    """Where the tensor's memory begins, 0 for None or no elements: the last look at all that leaves for a kernel.

    Args:
        op, name: what an error names.
        tensor: contiguous, or in the memory order of the kernel's output.
        dtype: what the kernel will read it as.
        like: a tensor on the device that the kernel runs on.

    Raises:
        TypeError: another dtype, or no dense tensor.
        ValueError: another device, strides with gaps, memory that was freed or is shorter than the tensor says.
    """
    if tensor is None or not (n := tensor.numel()):
        return 0
    if tensor.dtype is not dtype or tensor.layout is not torch.strided:
        raise TypeError(f"{op}: {name} must be a dense {dtype} tensor, got {describe(tensor)}")
    if tensor.device != like.device:
        raise ValueError(f"{op}: {name} must be on {like.device}, got {describe(tensor)}")
    if not tensor.is_contiguous() and not tensor.is_contiguous(memory_format=layout(tensor)):
        raise ValueError(f"{op}: {name} must be contiguous or channels-last, got strides {tensor.stride()}")
    at = tensor.data_ptr()
    end = (tensor.storage_offset() + n) * tensor.itemsize
    if not at or tensor.is_neg() or tensor.untyped_storage().nbytes() < end:
        raise ValueError(
            f"{op}: {name} must have memory of its own for {describe(tensor)}; its storage was freed or cut"
        )
    return at


def require_device(name: str, device: torch.device | str) -> torch.device:
    """A device that torch has here.

    Raises:
        ValueError: one that it does not know, or that this machine does not have.
    """
    try:
        return torch.empty(0, device=device, dtype=torch.float32).device
    except (RuntimeError, AssertionError, TypeError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        here = "cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))
        raise ValueError(f"{name}: device must be one of {here}, got {shown(device)} ({reason})") from None


MAX_SIZE = 2**62  # what torch counts with ends a little above


def empty(op: str, shape: Any, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    """Memory for noise `[n, *shape]` on a device; None: the CPU, whatever torch's default device.

    Raises:
        TypeError: a dtype that no kernel writes.
        ValueError: a shape that is none, or without an axis of samples; a device that this machine does not have.
    """
    if not isinstance(dtype, torch.dtype) or dtype not in TYPES:
        raise TypeError(f"{op}: dtype must be {_wanted(TYPES, None)}, got {shown(dtype)}")
    if not isinstance(shape, (list, tuple)) or not shape or not all(map(is_size, shape)):
        got = list(map(shown, shape)) if isinstance(shape, (list, tuple)) else shown(shape)
        raise ValueError(f"{op}: shape must be [n, *shape] of integers of at least 0, got {got}")
    try:
        return torch.empty(tuple(shape), dtype=dtype, device="cpu" if device is None else device)
    except (RuntimeError, TypeError, AssertionError, ValueError, OverflowError):
        require_device(op, "cpu" if device is None else device)
        raise


def is_size(value: object) -> bool:
    """Whether it is the length of an axis, or a tracer's symbol of one."""
    return isinstance(value, torch.SymInt) or (is_integer(value) and 0 <= value < MAX_SIZE)  # type: ignore[operator]


def is_integer(value: object) -> bool:
    """Whether it is an integer of Python or numpy; a truth value is not."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def require_address(op: str, seed: int, step: int, offset: int, stream: int, rows: int, columns: int) -> None:
    """Refuses addresses outside the counter: seed in [0, 2^64), step, stream and sample index in [0, 2^32).

    Raises:
        ValueError: out of range, or no integer.
    """
    for name, value, bits in (("seed", seed, 64), ("step", step, 32), ("offset", offset, 32), ("stream", stream, 32)):
        if not is_integer(value) or not 0 <= value <= (1 << bits) - 1:
            raise ValueError(f"{op}: {name} must be an integer in [0, 2^{bits}), got {value!r}")
    if int(offset) + rows > 2**32:  # a numpy integer of 32 bits would wrap around
        raise ValueError(f"{op}: offset + rows must be at most 2^32, got {offset} + {rows}")
    if columns > 2**34:
        raise ValueError(f"{op}: a sample must have at most 2^34 elements, got {columns}")


def require_noise(op: str, noise: Noise, target: Tensor) -> None:
    """Refuses noise whose address is out of range, or whose origin is not int64 `[2]` on the target's device.

    Raises:
        TypeError: the origin's dtype.
        ValueError: all else.
    """
    if not isinstance(noise, tuple) or len(noise) != len(Noise._fields):
        raise TypeError(f"{op}: noise must be Noise(scale, seed, step, ...), got {describe(noise)}")
    require_number(op, "noise.scale", noise[0])
    if target.dim() == 0:
        raise ValueError(f"{op}: x must be [B, *shape] where noise is added, got a scalar")
    rows = target.shape[0]
    origin = noise[5]
    require_address(op, *noise[1:5], rows, target.numel() // max(rows, 1))
    if origin is not None:
        require(op, "noise.origin", origin, (torch.int64,))
        if origin.shape != (2,) or origin.device != target.device or not origin.is_contiguous():
            raise ValueError(f"{op}: noise.origin must be int64 [2] on {target.device}, got {describe(origin)}")


def stream(device: int) -> int:
    """torch's current stream on a CUDA device, as the number that the driver knows it by."""
    return torch.cuda.current_stream(device).cuda_stream


def place(tensor: Tensor) -> _core.Place:
    """Where to run: torch's number of threads, or torch's current stream on the tensor's device."""
    if tensor.is_cuda:
        return _core.Place(tensor.get_device(), 0, stream(tensor.get_device()))
    return _core.Place(-1, torch.get_num_threads(), 0)


_core.learn(Tensor, torch.strided, tuple(TYPES), getattr(torch._C, "_cuda_getCurrentRawStream", stream))

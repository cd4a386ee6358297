"""The row every solver is made of, and noise with an address.

`out = a x + sum_j b_j y_j + c z`, one pass over memory, with an optional second output `scale * out` in another dtype.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple, overload

import torch
from torch import Tensor

from headstart import _core
from headstart.ops import check, library


class Stream(enum.IntEnum):
    """Independent sequences of noise under one seed; part of every noise address."""

    START = 0
    SOLVER = 1
    COMPONENT = 2
    FACTOR = 3
    FLOOR = 4


class Noise(NamedTuple):
    """The noise term `scale * z` of an affine row.

    `z` is standard normal; element e of row i is a function of (seed, offset + i, step, e, stream) alone, the same on
    every device, for every batch split.

    Fields:
        scale: standard deviation of the term.
        seed: key, in [0, 2^64).
        step: which draw of the seed, in [0, 2^32).
        offset: sample index of row 0, in [0, 2^32).
        stream: which use, see `Stream`.
    """

    scale: float
    seed: int
    step: int
    offset: int = 0
    stream: int = Stream.SOLVER


Scaled = tuple[float, torch.dtype | Tensor]


@overload
def affine(
    x: Tensor,
    a: float,
    terms: Sequence[tuple[float, Tensor]] = (),
    noise: Noise | None = None,
    out: Tensor | None = None,
    out_scaled: None = None,
) -> Tensor: ...
@overload
def affine(
    x: Tensor,
    a: float,
    terms: Sequence[tuple[float, Tensor]] = (),
    noise: Noise | None = None,
    out: Tensor | None = None,
    *,
    out_scaled: Scaled,
) -> tuple[Tensor, Tensor]: ...
def affine(
    x: Tensor,
    a: float,
    terms: Sequence[tuple[float, Tensor]] = (),
    noise: Noise | None = None,
    out: Tensor | None = None,
    out_scaled: Scaled | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`out = a x + sum_j b_j y_j + c z`, rounded after each fused multiply-add, in this order.

    Args:
        x: state `[B, *shape]`, float32 or float64.
        a: coefficient of the state.
        terms: up to four pairs `(b_j, y_j)`; `y_j` `[B, *shape]` in float32, float64, float16 or bfloat16.
        noise: the term `c z`; None or scale 0: none is drawn.
        out: where to write, `[B, *shape]` of the state's dtype; may be `x` or a `y_j` itself.
        out_scaled: `(scale, dtype)` or `(scale, tensor)`: also return `scale * out` in that dtype (rounded to nearest
            even), such as the input `c_in x` of a preconditioned network.

    Returns:
        `out`, or the pair `(out, scaled)` when `out_scaled` is given.

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: more than four terms; a shape or device unlike `x`; an `out` that is strided or partly overlaps an
            input; an address out of range; an input that requires a gradient.
    """
    check.require("affine", "x", x, check.STATE)
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    else:
        check.require("affine", "out", out, (x.dtype,), like=x)
    if out_scaled is None:
        _row("affine", x, a, terms, noise, out, None, 1.0)
        return out
    scale, target = out_scaled
    if isinstance(target, Tensor):
        check.require("affine", "out_scaled", target, check.TYPES, like=x)
    elif target in check.TYPES:
        target = torch.empty_like(x, dtype=target, memory_format=torch.contiguous_format)
    else:
        raise TypeError(f"affine: out_scaled must be (scale, floating dtype or tensor), got {out_scaled!r}")
    _row("affine", x, a, terms, noise, out, target, scale)
    return out, target


def noise(
    x: Tensor, scale: float, seed: int, step: int, offset: int = 0, out: Tensor | None = None, *,
    stream: int = Stream.SOLVER,
) -> Tensor:  # fmt: skip
    """`out = x + scale z`, the noising of a variance-exploding process.

    Args:
        x: `[B, *shape]`, float32 or float64.
        scale: standard deviation sigma of the noise.
        seed, step, offset, stream: address of the noise, see `Noise`.
        out: where to write, `[B, *shape]` in float32, float64, float16 or bfloat16; may be `x`.

    Raises:
        TypeError, ValueError: as `affine`.
    """
    check.require("noise", "x", x, check.STATE)
    term = Noise(scale, seed, step, offset, stream)
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    check.require("noise", "out", out, check.TYPES, like=x)
    if out.dtype == x.dtype:
        _row("noise", x, 1.0, (), term, out, None, 1.0)
    else:
        _row("noise", x, 1.0, (), term, None, out, 1.0)
    return out


def normal(
    shape: Sequence[int], seed: int, step: int = 0, offset: int = 0, *, stream: int = Stream.START, scale: float = 1.0,
    dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
) -> Tensor:  # fmt: skip
    """`scale z`: normals `[n, *shape]` in float32, float64, float16 or bfloat16, addressed as in `Noise`.

    Raises:
        TypeError: another dtype.
        ValueError: an address out of range, or a shape with no leading sample dimension.
    """
    if len(shape) == 0 or min(shape) < 0:
        raise ValueError(f"normal: shape must be [n, *shape], got {list(shape)}")
    out = torch.empty(tuple(shape), dtype=dtype, device=device)
    check.require("normal", "out", out, check.TYPES)
    term = Noise(scale, seed, step, offset, stream)
    if dtype in check.STATE:
        _row("normal", None, 0.0, (), term, out, None, 1.0)
    else:
        _row("normal", None, 0.0, (), term, None, out, 1.0)
    return out


def uniform(
    n: int, seed: int, step: int = 0, offset: int = 0, *, stream: int = Stream.COMPONENT,
    device: torch.device | str | None = None,
) -> Tensor:  # fmt: skip
    """Uniforms `[n]` in (0, 1], float64 with 53 bits, one per sample index, addressed as in `Noise`.

    Raises:
        ValueError: an address out of range.
    """
    check.require_address("uniform", seed, step, offset, stream, n, 1)
    out = torch.empty(n, dtype=torch.float64, device=device)
    if n:
        run = torch.ops.headstart.uniform if check.dispatched(out) else _run_uniform
        run(library.signed(int(seed)), int(step), int(offset), int(stream), out)
    return out


def _row(
    op: str, x: Tensor | None, a: float, terms: Sequence[tuple[float, Tensor]], noise: Noise | None,
    out: Tensor | None, scaled: Tensor | None, scale: float,
) -> None:  # fmt: skip
    """Checks what is left to check and runs the row."""
    if len(terms) > 4:
        raise ValueError(f"{op}: terms must be at most 4 pairs (b, y), got {len(terms)}")
    target = out if out is not None else scaled
    assert target is not None
    for j, (_, y) in enumerate(terms):
        check.require(op, f"y{j}", y, check.TYPES, like=target)
    if noise is not None:
        rows, columns = _sizes(op, target)
        check.require_address(op, noise.seed, noise.step, noise.offset, noise.stream, rows, columns)
    x = x if x is None or x.is_contiguous() else x.contiguous()
    ys = [y if y.is_contiguous() else y.contiguous() for _, y in terms]
    bs = [float(b) for b, _ in terms]
    c, seed, step, offset, stream = noise or (0.0, 0, 0, 0, 0)
    if target.numel():
        run = torch.ops.headstart.affine if check.dispatched(target) else _run_affine
        address = (library.signed(int(seed)), int(step), int(offset), int(stream))
        run(op, x, float(a), ys, bs, float(c), *address, out, scaled, float(scale))


def _sizes(op: str, x: Tensor) -> tuple[int, int]:
    """Samples and elements a sample of `[B, *shape]`."""
    if x.dim() == 0:
        raise ValueError(
            f"{op}: x must be [B, *shape] with a leading sample dimension where noise is added, got a scalar"
        )
    return x.shape[0], math.prod(x.shape[1:])


def _run_affine(
    op: str, x: Tensor | None, a: float, ys: list[Tensor], bs: list[float], c: float, seed: int, step: int, offset: int,
    stream: int, out: Tensor | None, scaled: Tensor | None, scale: float,
) -> None:  # fmt: skip
    target = out if out is not None else scaled
    assert target is not None
    inputs = ys if x is None else [x, *ys]
    if out is not None:
        check.require_out(op, "out", out, inputs)
    if scaled is not None:
        check.require_out(op, "out" if out is None else "out_scaled", scaled, inputs)
        if out is not None and check.overlap(out, scaled):
            raise ValueError(f"{op}: out and out_scaled overlap in memory; give each memory of its own")
    rows, columns = _sizes(op, target) if c != 0.0 else (1, target.numel())
    state = out.dtype if out is not None else x.dtype if x is not None else torch.float32
    scaled_dtype = scaled.dtype if scaled is not None else state
    terms = [(b, y.data_ptr(), check.TYPES[y.dtype]) for b, y in zip(bs, ys, strict=True)]
    with torch.cuda.device(target.device) if target.is_cuda else nullcontext():
        _core.affine(
            check.place(target), rows, columns, check.TYPES[state], 0 if x is None else x.data_ptr(), a, terms, c,
            (seed % 2**64, offset, step, stream), 0 if out is None else out.data_ptr(),
            0 if scaled is None else scaled.data_ptr(), check.TYPES[scaled_dtype], scale,
        )  # fmt: skip


def _run_uniform(seed: int, step: int, offset: int, stream: int, out: Tensor) -> None:
    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        _core.uniform(check.place(out), out.shape[0], (seed % 2**64, offset, step, stream), out.data_ptr())


library.define(
    "affine(str op, Tensor? x, float a, Tensor[] y, float[] b, float c, int seed, int step, int offset, int stream, "
    "Tensor(a!)? out, Tensor(b!)? scaled, float scale) -> ()",
    _run_affine,
    lambda *arguments: None,
)
library.define(
    "uniform(int seed, int step, int offset, int stream, Tensor(a!) out) -> ()", _run_uniform, lambda *arguments: None
)

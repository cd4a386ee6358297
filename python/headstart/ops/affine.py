"""The row every solver is made of.

`out = a x + sum_j b_j y_j + c z`, one pass over memory, with an optional second output `scale * out` in another dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import overload

import torch
from torch import Tensor

from headstart import _core
from headstart.ops import check, library
from headstart.ops.address import Noise

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
        row("affine", x, a, terms, noise, out, None, 1.0)
        return out
    scale, target = out_scaled
    if isinstance(target, Tensor):
        check.require("affine", "out_scaled", target, check.TYPES, like=x)
    elif target in check.TYPES:
        target = torch.empty_like(x, dtype=target, memory_format=torch.contiguous_format)
    else:
        raise TypeError(f"affine: out_scaled must be (scale, floating dtype or tensor), got {out_scaled!r}")
    row("affine", x, a, terms, noise, out, target, scale)
    return out, target


def row(
    op: str, x: Tensor | None, a: float, terms: Sequence[tuple[float, Tensor]], noise: Noise | None,
    out: Tensor | None, scaled: Tensor | None, scale: float,
) -> None:  # fmt: skip
    """Checks what is left to check and runs the row; `out` or `scaled` may be None, `x` too (then `a x` is 0)."""
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


library.define(
    "affine(str op, Tensor? x, float a, Tensor[] y, float[] b, float c, int seed, int step, int offset, int stream, "
    "Tensor(a!)? out, Tensor(b!)? scaled, float scale) -> ()",
    _run_affine,
    lambda *arguments: None,
)

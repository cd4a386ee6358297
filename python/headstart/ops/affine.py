"""The row every solver is made of.

`out = a x + sum_j b_j y_j + c z`, one pass over memory, with an optional second output `scale * out` in another dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from headstart import _core
from headstart.ops import check, library
from headstart.ops.address import Noise

Scaled = tuple[float, torch.dtype | Tensor]
NO_NOISE = Noise(0.0, 0, 0)
ABSENT = (0, 0)


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
        out: where to write, `[B, *shape]` of the state's dtype, contiguous or channels-last; may be `x` or a `y_j`
            itself. None: a new tensor in the layout of `x`, contiguous if that is neither.
        out_scaled: `(scale, dtype)` or `(scale, tensor)`: also return `scale * out` in that dtype (rounded to nearest
            even), such as the input `c_in x` of a preconditioned network.

    Returns:
        `out`, or the pair `(out, scaled)` when `out_scaled` is given.

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: more than four terms; a shape or device unlike `x`; an `out` that is strided or partly overlaps an
            input; an address out of range; an input that requires a gradient.
    """
    if out is None:
        check.require("affine", "x", x, check.STATE)
        out = torch.empty_like(x, memory_format=check.layout(x))
    if out_scaled is None:
        row("affine", x, a, terms, noise, out, None, 1.0)
        return out
    scale, target = out_scaled
    if not isinstance(target, Tensor):
        if target not in check.TYPES:
            raise TypeError(f"affine: out_scaled must be (scale, floating dtype or tensor), got {out_scaled!r}")
        target = torch.empty_like(out, dtype=target)
    row("affine", x, a, terms, noise, out, target, scale)
    return out, target


def row(
    op: str, x: Tensor | None, a: float, terms: Sequence[tuple[float, Tensor]], noise: Noise | None,
    out: Tensor | None, scaled: Tensor | None, scale: float,
) -> None:  # fmt: skip
    """Runs the row; `out` or `scaled` may be None, `x` too (then `a x` is 0).

    Plain tensors go straight to the kernel; all else is checked here, explained or arranged.
    """
    if not torch.compiler.is_compiling() and _core.run_plain_affine(
        x, a, terms, noise, out, scaled, scale, torch.get_num_threads()
    ):
        return
    if len(terms) > 4:
        raise ValueError(f"{op}: terms must be at most 4 pairs (b, y), got {len(terms)}")
    target = out if out is not None else scaled
    assert target is not None
    if noise is not None:
        check.require_noise(op, noise, target)
    if x is not None:
        check.require(op, "x", x, check.STATE)
    if out is not None:
        check.require(op, "out", out, check.STATE if x is None else (x.dtype,), like=x)
    if scaled is not None:
        check.require(op, "out_scaled" if out is not None else "out", scaled, check.TYPES, like=x)
    for j, (_, y) in enumerate(terms):
        check.require(op, f"y{j}", y, check.TYPES, like=target)
    if target.numel():
        run = torch.ops.headstart.affine if check.dispatched(target) else run_affine
        c, seed, step, offset, stream, origin = noise or NO_NOISE
        bs, ys = [float(b) for b, _ in terms], [y for _, y in terms]
        address = (library.signed(int(seed)), int(step), int(offset), int(stream), origin)
        run(op, x, float(a), ys, bs, float(c), *address, out, scaled, float(scale))


def _launch(
    op: str, target: Tensor, state: int, x: int, a: float, inputs: list[tuple[int, int]], bs: Sequence[float],
    noise: Noise, out: int, scaled: tuple[int, int], scale: float,
) -> None:  # fmt: skip
    """One kernel on addresses (0: absent) and type codes."""
    c, seed, step, offset, stream, origin = noise
    at = 0 if origin is None else origin.data_ptr()
    rows = target.shape[0] if c else 1
    params = _core.AffineParams(
        rows=rows, columns=target.numel() // rows, type=state, x=x, a=a,
        terms=[(b, *y) for b, y in zip(bs, inputs, strict=True)], noise_scale=c,
        address=_core.Address(seed=seed, offset=offset, step=step, stream=stream, origin=at),
        out=out, out_scaled=scaled[0], out_scaled_type=scaled[1], scale=scale,
    )  # fmt: skip
    check.require_apart(op, params)
    _core.affine(check.place(target), params)


def run_affine(
    op: str, x: Tensor | None, a: float, ys: list[Tensor], bs: list[float], c: float, seed: int, step: int, offset: int,
    stream: int, origin: Tensor | None, out: Tensor | None, scaled: Tensor | None, scale: float,
) -> None:  # fmt: skip
    """The row on checked tensors of any layout."""
    target = out if out is not None else scaled
    assert target is not None
    noise = Noise(c, seed % 2**64, step, offset, stream, origin)
    ys = check.arrange(op, target, ys)
    x = None if x is None else check.arrange(op, target, [x])[0]
    if c and not target.is_contiguous():
        x, a, ys, bs = _with_noise(x, a, ys, bs, noise, target)
        noise = NO_NOISE
    state = check.TYPES[out.dtype if out is not None else x.dtype if x is not None else torch.float32]
    inputs = [(y.data_ptr(), check.TYPES[y.dtype]) for y in ys]
    to_scaled = ABSENT if scaled is None else (scaled.data_ptr(), check.TYPES[scaled.dtype])
    at, to = (0 if tensor is None else tensor.data_ptr() for tensor in (x, out))
    _launch(op, target, state, at, a, inputs, bs, noise, to, to_scaled, scale)


def _with_noise(
    x: Tensor | None, a: float, ys: list[Tensor], bs: list[float], noise: Noise, target: Tensor
) -> tuple[Tensor | None, float, list[Tensor], list[float]]:
    """The row with its noise as one more input, in the memory order of `target`: the same bits as noise in the kernel.

    Noise follows the contiguous order of elements, whatever the layout of the state.
    """
    z = torch.empty(target.shape, device=target.device)
    _launch("normal", z, 0, 0, 0.0, [], [], noise._replace(scale=1.0), z.data_ptr(), ABSENT, 1.0)
    if len(ys) == 4:
        state = x.dtype if x is not None else torch.float32
        sum_ = torch.empty_like(target, dtype=state)
        run_affine("affine", x, a, ys, bs, *NO_NOISE, sum_, None, 1.0)
        x, a, ys, bs = sum_, 1.0, [], []
    return x, a, [*ys, z.contiguous(memory_format=check.layout(target))], [*bs, noise.scale]


library.define(
    "affine(str op, Tensor? x, float a, Tensor[] y, float[] b, float c, int seed, int step, int offset, int stream, "
    "Tensor? origin, Tensor(a!)? out, Tensor(b!)? scaled, float scale) -> ()",
    run_affine,
    lambda *arguments: None,
)

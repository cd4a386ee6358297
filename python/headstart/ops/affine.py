"""The row every solver is made of.

`out = a x + sum_j b_j y_j + c z`, one pass over memory, with an optional second output `scale * out` in another dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from headstart import _core
from headstart.argument import require_number
from headstart.ops import check, library
from headstart.ops.check import Noise

Scaled = tuple[float, torch.dtype | Tensor]
MAX_TERMS = 4  # that the kernel takes beside the state
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
    pair = isinstance(out_scaled, (tuple, list)) and len(out_scaled) == 2
    target = out_scaled[1] if pair else None
    if not isinstance(target, Tensor):
        if not isinstance(target, torch.dtype) or target not in check.TYPES:
            raise TypeError(f"affine: out_scaled must be (scale, floating dtype or tensor), got {out_scaled!r}")
        target = torch.empty_like(out, dtype=target)
    row("affine", x, a, terms, noise, out, target, out_scaled[0])
    return out, target


def row(
    op: str, x: Tensor | None, a: float, terms: Sequence[tuple[float, Tensor]], noise: Noise | None,
    out: Tensor | None, scaled: Tensor | None, scale: float,
) -> None:  # fmt: skip
    """Runs the row; `out` or `scaled` may be None, `x` too (then `a x` is 0).

    Plain tensors go straight to the kernel; all else is checked here, explained or arranged.
    """
    try:
        if not library.watched() and _core.run_plain_affine(
            x, a, terms, noise, out, scaled, scale, torch.get_num_threads()
        ):
            return
    except (TypeError, ValueError):  # a coefficient that is no float of Python: taken, or refused by name, below
        pass
    except RuntimeError:  # a tensor in the place of one, or the kernel's own
        pairs_of(op, terms)
        require_number(op, "noise.scale", 0.0 if noise is None else noise[0])
        raise
    a, scale, terms = require_number(op, "a", a), require_number(op, "scale", scale), pairs_of(op, terms)
    target = out if out is not None else scaled
    assert target is not None
    if x is not None:
        check.require(op, "x", x, check.STATE)
    if out is not None:
        check.require(op, "out", out, check.STATE if x is None else (x.dtype,), like=x)
        check.require_output(op, "out", out)
    if scaled is not None:
        check.require(op, "out_scaled" if out is not None else "out", scaled, check.TYPES, like=x)
        check.require_output(op, "out_scaled" if out is not None else "out", scaled)
    for j, (_, y) in enumerate(terms):
        check.require(op, f"y{j}", y, check.TYPES, like=target)
    if noise is not None:
        check.require_noise(op, noise, target)
    if target.numel():
        c, seed, step, offset, stream, origin = noise or NO_NOISE
        noise = Noise(float(c), int(seed), int(step), int(offset), int(stream), origin)
        task = Task(op, x, a, terms, noise, out, scaled, scale)
        if library.dispatched(op, x, out, scaled, origin, *(y for _, y in terms)):
            torch.ops.headstart.affine(*task.arguments())
        else:
            run_affine(task)


def pairs_of(op: str, terms: Any) -> list[tuple[float, Tensor]]:
    """The terms as pairs of a float and what should be a tensor.

    Raises:
        TypeError: no sequence of pairs, or a coefficient that is no number.
        ValueError: more of them than the kernel takes.
    """
    sequence = isinstance(terms, (list, tuple))
    if not sequence or not all(isinstance(term, (list, tuple)) and len(term) == 2 for term in terms):
        raise TypeError(f"{op}: terms must be a list of pairs (b, y), got {check.describe(terms)}")
    if len(terms) > MAX_TERMS:
        raise ValueError(f"{op}: terms must be at most {MAX_TERMS} pairs (b, y), got {len(terms)}")
    return [(require_number(op, f"b{j}", b), y) for j, (b, y) in enumerate(terms)]


class Task(NamedTuple):
    """A checked row of any layout; the fields are those of `row`."""

    op: str
    x: Tensor | None
    a: float
    terms: list[tuple[float, Tensor]]
    noise: Noise
    out: Tensor | None
    scaled: Tensor | None
    scale: float

    @property
    def target(self) -> Tensor:
        """The output that sets shape, device and memory order."""
        target = self.out if self.out is not None else self.scaled
        assert target is not None
        return target

    def arguments(self) -> tuple[Any, ...]:
        """The row as the arguments of the registered op's schema, which knows no tuples."""
        bs, ys = [b for b, _ in self.terms], [y for _, y in self.terms]
        c, seed, step, offset, stream, origin = self.noise
        return (
            self.op, self.x, self.a, ys, bs, c, library.signed(seed), step, offset, stream, origin, self.out,
            self.scaled, self.scale,
        )  # fmt: skip


def _run_registered(*arguments: Any) -> None:
    op, x, a, ys, bs, c, seed, step, offset, stream, origin, out, scaled, scale = arguments
    noise = Noise(c, seed % 2**64, step, offset, stream, origin)
    run_affine(Task(op, x, a, list(zip(bs, ys, strict=True)), noise, out, scaled, scale))


def run_affine(task: Task) -> None:
    """The row on checked tensors of any layout."""
    inputs = check.arrange(task.op, task.target, [y for _, y in task.terms])
    task = task._replace(terms=[(b, y) for (b, _), y in zip(task.terms, inputs, strict=True)])
    if task.x is not None:
        task = task._replace(x=check.arrange(task.op, task.target, [task.x])[0])
    if task.noise.scale and not task.target.is_contiguous():
        task = _with_noise(task)
    _launch(task)


def _launch(task: Task) -> None:
    """One kernel on the addresses of tensors that all lie in one memory order."""
    op, target, a, scale = task.op, task.target, task.a, task.scale
    dtype = task.out.dtype if task.out is not None else task.x.dtype if task.x is not None else torch.float32
    state = check.TYPES[dtype]
    x = check.address(op, "x", task.x, dtype, target)
    out = check.address(op, "out", task.out, dtype, target)
    bs = [b for b, _ in task.terms]
    inputs = [
        (check.address(op, f"y{j}", y, y.dtype, target), check.TYPES[y.dtype]) for j, (_, y) in enumerate(task.terms)
    ]
    scaled = ABSENT
    if task.scaled is not None:
        to = check.address(op, "out_scaled" if out else "out", task.scaled, task.scaled.dtype, target)
        scaled = to, check.TYPES[task.scaled.dtype]
    c, seed, step, offset, stream, origin = task.noise
    at = check.address(op, "noise.origin", origin, torch.int64, target)
    rows = target.shape[0] if c else 1
    params = _core.AffineParams(
        rows=rows, columns=target.numel() // rows, type=state, x=x, a=a,
        terms=[(b, *y) for b, y in zip(bs, inputs, strict=True)], noise_scale=c,
        address=_core.Address(seed=seed, offset=offset, step=step, stream=stream, origin=at),
        out=out, out_scaled=scaled[0], out_scaled_type=scaled[1], scale=scale,
    )  # fmt: skip
    check.require_apart(op, params)
    _core.affine(check.place(target), params)


def _with_noise(task: Task) -> Task:
    """The row with its noise as one more input, in the memory order of its output: the bits of noise in the kernel.

    Noise follows the contiguous order of elements, whatever the layout of the state.
    """
    target = task.target
    z = torch.empty(target.shape, dtype=torch.float32, device=target.device)
    _launch(Task("normal", None, 0.0, [], task.noise._replace(scale=1.0), z, None, 1.0))
    z = z.contiguous(memory_format=check.layout(target))
    x, a, terms = task.x, task.a, task.terms
    if len(terms) == MAX_TERMS:
        sum_ = torch.empty_like(target, dtype=x.dtype if x is not None else torch.float32)
        _launch(Task("affine", x, a, terms, NO_NOISE, sum_, None, 1.0))
        x, a, terms = sum_, 1.0, []
    return task._replace(x=x, a=a, terms=[*terms, (task.noise.scale, z)], noise=NO_NOISE)


library.define(
    "affine(str op, Tensor? x, float a, Tensor[] y, float[] b, float c, SymInt seed, SymInt step, SymInt offset, "
    "SymInt stream, Tensor? origin, Tensor(a!)? out, Tensor(b!)? scaled, float scale) -> ()",
    _run_registered,
    lambda *arguments: None,
)

"""Noise with an address: `x + sigma z`, `z` itself, and one uniform a sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headstart import _core
from headstart.ops import check, library
from headstart.ops.affine import row
from headstart.ops.check import Noise, Stream


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
    if out is None:
        check.require("noise", "x", x, check.STATE)
        out = torch.empty_like(x, memory_format=check.layout(x))
    elif not isinstance(out, Tensor):
        raise TypeError(f"noise: out must be a tensor, got {check.describe(out)}")
    term = Noise(scale, seed, step, offset, stream)
    if isinstance(x, Tensor) and out.dtype == x.dtype:
        row("noise", x, 1.0, (), term, out, None, 1.0)
    else:
        row("noise", x, 1.0, (), term, None, out, 1.0)
    return out


def normal(
    shape: Sequence[int], seed: int, step: int = 0, offset: int = 0, *, stream: int = Stream.START, scale: float = 1.0,
    dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
) -> Tensor:  # fmt: skip
    """`scale z`: normals `[n, *shape]` in float32, float64, float16 or bfloat16, addressed as in `Noise`.

    Args:
        shape: `[n, *shape]`.
        seed, step, offset, stream: address of the noise, see `Noise`.
        scale: standard deviation.
        dtype: of the result.
        device: of the result; None: the CPU, whatever torch's default device.

    Raises:
        TypeError: another dtype.
        ValueError: an address out of range, or a shape with no leading sample dimension.
    """
    out = check.empty("normal", shape, dtype, device)
    term = Noise(scale, seed, step, offset, stream)
    if dtype in check.STATE:
        row("normal", None, 0.0, (), term, out, None, 1.0)
    else:
        row("normal", None, 0.0, (), term, None, out, 1.0)
    return out


def uniform(
    n: int, seed: int, step: int = 0, offset: int = 0, *, stream: int = Stream.COMPONENT,
    device: torch.device | str | None = None,
) -> Tensor:  # fmt: skip
    """Uniforms `[n]` in (0, 1], float64 with 53 bits, one per sample index, addressed as in `Noise`.

    Args:
        n: how many.
        seed, step, offset, stream: address of the noise, see `Noise`.
        device: of the result; None: the CPU, whatever torch's default device.

    Raises:
        ValueError: an address out of range.
    """
    out = check.empty("uniform", (n,), torch.float64, device)
    check.require_address("uniform", seed, step, offset, stream, n, 1)
    if n:
        run = torch.ops.headstart.uniform if library.dispatched("uniform", out) else _run_uniform
        run(library.signed(int(seed)), int(step), int(offset), int(stream), out)
    return out


def _run_uniform(seed: int, step: int, offset: int, stream: int, out: Tensor) -> None:
    to = check.address("uniform", "out", out, torch.float64, out)
    address = _core.Address(seed=seed % 2**64, offset=offset, step=step, stream=stream)
    _core.uniform(check.place(out), _core.UniformParams(rows=out.shape[0], address=address, out=to))


library.define(
    "uniform(SymInt seed, SymInt step, SymInt offset, SymInt stream, Tensor(a!) out) -> ()",
    _run_uniform,
    lambda *arguments: None,
)

"""Noise with an address: `out = x + scale z`, `z` itself and uniforms, beside torch's generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from headstart import ops
from headstart.bench.measure import COMPILED, OURS, Contest, compiled

SCALE = 0.7
NORMAL = 45.0  # operations of one normal, as counted in csrc/math: 20 for Philox's words, 25 for Box-Muller
EAGER, EAGER_OUT, FRESH = "eager", "eager, out=", "headstart, new output"


def shape_of(n: int) -> tuple[int, int]:
    """`n` elements as 64 samples (fewer where there are few elements)."""
    rows = min(64, max(1, n // 4))
    return rows, n // rows


def named(n: int) -> str:
    """`16M`, `4k` or `4`."""
    for size, letter in ((2**20, "M"), (2**10, "k")):
        if n >= size:
            return f"{n // size}{letter}"
    return str(n)


def words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def calls_for(n: int) -> int:
    """Calls a repetition: enough that a short one is not lost in the clock and in cold caches."""
    return max(1, min(1000, 2**17 // n))


def noise_case(
    n: int, dtype: torch.dtype = torch.float32, device: str = "cpu", to: torch.dtype | None = None
) -> Contest:
    """`x + scale z` of `n` elements, optionally rounded to `to`; the torch expression makes the same kind of result."""
    to = to or dtype
    x = torch.randn(shape_of(n), dtype=dtype, device=device)
    out, z, sum_ = torch.empty_like(x, dtype=to), torch.empty_like(x), torch.empty_like(x, dtype=to)

    def eager() -> torch.Tensor:
        return (x + SCALE * torch.randn_like(x)).to(to)

    def eager_out() -> torch.Tensor:
        z.normal_()
        return torch.add(x, z, alpha=SCALE, out=sum_)

    contenders: dict[str, Callable[[], torch.Tensor]] = {
        OURS: lambda: ops.noise(x, SCALE, seed=1, step=0, out=out),
        EAGER: eager,
        EAGER_OUT: eager_out,
        COMPILED: compiled(eager),
    }
    if to == dtype:
        contenders[FRESH] = lambda: ops.noise(x, SCALE, seed=1, step=0)
    arrow = f" to {words(to)}" if to != dtype else ""
    size = n * (x.element_size() + out.element_size())
    return Contest(
        f"noise {named(n)} {words(dtype)}{arrow} {device}",
        size,
        contenders,
        calls=calls_for(n),
        arithmetic=n * (2 + NORMAL),
    )


def normal_case(n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Contest:
    """`z` alone; headstart and torch both make a new tensor."""
    shape = shape_of(n)

    def eager() -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    contenders = {
        OURS: lambda: ops.normal(shape, seed=1, dtype=dtype, device=device),
        EAGER: eager,
        COMPILED: compiled(eager),
    }
    name = f"normal {named(n)} {words(dtype)} {device}"
    return Contest(name, n * dtype.itemsize, contenders, calls=calls_for(n), arithmetic=n * NORMAL)


def uniform_case(n: int, device: str = "cpu") -> Contest:
    """Uniforms of 53 bits, one a sample."""

    def eager() -> torch.Tensor:
        return torch.rand(n, dtype=torch.float64, device=device)

    contenders = {OURS: lambda: ops.uniform(n, seed=1, device=device), EAGER: eager, COMPILED: compiled(eager)}
    return Contest(f"uniform {named(n)} float64 {device}", n * 8, contenders, calls=calls_for(n))


SIZES = [2**12, 2**20, 2**24]
TYPES = [(torch.float32, torch.float32), (torch.float64, torch.float64), (torch.float32, torch.bfloat16)]


@pytest.mark.parametrize("contender", [OURS, EAGER, EAGER_OUT, COMPILED])
@pytest.mark.parametrize("types", TYPES, ids=lambda types: f"{words(types[0])}-{words(types[1])}")
@pytest.mark.parametrize("n", SIZES, ids=named)
def bench_noise(measured: Any, device: str, n: int, types: tuple[torch.dtype, torch.dtype], contender: str) -> None:
    measured(lambda: noise_case(n, types[0], device, types[1]), contender)


@pytest.mark.parametrize("contender", [OURS, EAGER, COMPILED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=words)
@pytest.mark.parametrize("n", SIZES, ids=named)
def bench_normal(measured: Any, device: str, n: int, dtype: torch.dtype, contender: str) -> None:
    measured(lambda: normal_case(n, dtype, device), contender)


@pytest.mark.parametrize("contender", [OURS, EAGER, COMPILED])
@pytest.mark.parametrize("n", SIZES[:2], ids=named)
def bench_uniform(measured: Any, device: str, n: int, contender: str) -> None:
    measured(lambda: uniform_case(n, device), contender)

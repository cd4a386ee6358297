"""The affine row `out = a x + b0 y0 + b1 y1 + c z`, beside the ways to write it in torch.

The coefficients are those of a second-order multistep row, which sum to one; only such rows can be written as two
lerps, the expression with the fewest passes. Three passes (mul, add, add) do any row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.ops.bench_noise import EAGER, EAGER_OUT, FRESH, NORMAL, calls_for, named, shape_of, words
from headstart import ops
from headstart.bench.measure import COMPILED, OURS, Contest, compiled

A, B0, B1, C, C_IN = 0.6, 0.7, -0.3, 0.4, 1.5
LERPS, CHAIN = "eager, two lerps", "eager, addcmul"


def affine_case(
    n: int, y_type: torch.dtype = torch.float32, device: str = "cpu", *, state: torch.dtype = torch.float32,
    noise: bool = False, scaled: bool = False,
) -> Contest:  # fmt: skip
    """Two inputs of `y_type`; with `scaled`, also `C_IN * out` in bfloat16, the network's next input."""
    x = torch.randn(shape_of(n), dtype=state, device=device)
    y0, y1 = (torch.randn_like(x).to(y_type) for _ in range(2))
    out, ours, part = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    ours_low, low = (torch.empty_like(x, dtype=torch.bfloat16) for _ in range(2))
    terms = [(B0, y0), (B1, y1)]
    term = ops.Noise(C, seed=1, step=0) if noise else None

    def headstart(out: Tensor | None) -> Tensor:
        if scaled:
            return ops.affine(x, A, terms, term, out=out, out_scaled=(C_IN, ours_low))[0]
        return ops.affine(x, A, terms, term, out=out)

    def eager() -> Tensor:
        result = A * x + B0 * y0.to(state) + B1 * y1.to(state)
        if noise:
            result = result + C * torch.randn_like(x)
        return finish(result)

    def eager_out() -> Tensor:
        torch.mul(x, A, out=out)
        out.add_(y0, alpha=B0)
        return finish(extra(out.add_(y1, alpha=B1)))

    def extra(result: Tensor) -> Tensor:
        return result.add_(part.normal_(), alpha=C) if noise else result

    def finish(result: Tensor) -> Tensor:
        if scaled:
            torch.mul(result, C_IN, out=low)
        return result

    def compilable() -> Tensor | tuple[Tensor, Tensor]:
        result = A * x + B0 * y0.to(state) + B1 * y1.to(state)
        if noise:
            result = result + C * torch.randn_like(x)
        return (result, (C_IN * result).to(torch.bfloat16)) if scaled else result

    run = compiled(compilable)
    contenders: dict[str, Callable[[], Tensor]] = {
        OURS: lambda: headstart(ours),
        FRESH: lambda: headstart(None),
        EAGER: eager,
        EAGER_OUT: eager_out,
        COMPILED: (lambda: run()[0]) if scaled else run,
    }
    if y_type == state:
        a, b0, b1 = (torch.tensor(b, dtype=state, device=device) for b in (A, B0, B1))

        def lerps() -> Tensor:
            torch.lerp(y1, y0, B0 / (B0 + B1), out=part)
            return finish(extra(torch.lerp(part, x, A, out=out)))

        def chain() -> Tensor:
            torch.mul(x, a, out=out)
            torch.addcmul(out, y0, b0, out=out)
            return finish(extra(torch.addcmul(out, y1, b1, out=out)))

        contenders |= {LERPS: lerps, CHAIN: chain}
    size = n * (2 * x.element_size() + 2 * y0.element_size() + 2 * scaled)
    extras = " + noise" * noise + " + scaled bfloat16 output" * scaled
    name = f"affine {named(n)} {words(state)} x, 2 {words(y_type)} inputs{extras} {device}"
    arithmetic = n * (5 + scaled + noise * (2 + NORMAL))
    return Contest(name, size, contenders, None if noise else 1e-5, calls_for(n), arithmetic=arithmetic)


VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float64": {"state": torch.float64, "y_type": torch.float64},
    "bfloat16-inputs": {"y_type": torch.bfloat16},
    "scaled-output": {"y_type": torch.bfloat16, "scaled": True},
    "noise": {"noise": True},
}


@pytest.mark.parametrize("contender", [OURS, EAGER, EAGER_OUT, LERPS, CHAIN, COMPILED])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", [2**12, 2**20, 2**24], ids=named)
def bench_affine(measured: Any, device: str, n: int, variant: str, contender: str) -> None:
    measured(lambda: affine_case(n, device=device, **VARIANTS[variant]), contender)

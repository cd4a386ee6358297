"""The one composer: a start, a table of rows, a denoiser, and the affine op between two network calls."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, overload

import torch
from torch import Tensor

from headstart import ops
from headstart.denoiser import Denoiser, Preconditioned
from headstart.descent import descend
from headstart.grid import log_uniform
from headstart.initializer.protocol import Start
from headstart.progress import track
from headstart.solver import DPMpp2M, Solver, calls

SIGMA_MIN = 0.02  # last level of the default grid; 0.01 to 0.03 beats EDM's 0.002 when calls are few


@dataclass(frozen=True)
class SampleInfo:
    """What a call cost.

    Fields:
        nfe: network calls a sample (Heun's two a step counted).
        seconds: wall time, start and network included.
        bytes: memory read and written by the solver's rows.
    """

    nfe: int
    seconds: float
    bytes: int


@overload
def sample(
    denoiser: Denoiser | Preconditioned, start: Start, n: int, steps: int | None = None, solver: Solver = DPMpp2M(),
    grid: Tensor | None = None, seed: int = 0, offset: int = 0, latents: Tensor | None = None, batch: int | None = None,
    cond: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32, progress: bool = False,
    return_info: Literal[False] = False,
) -> Tensor: ...  # fmt: skip
@overload
def sample(
    denoiser: Denoiser | Preconditioned, start: Start, n: int, steps: int | None = None, solver: Solver = DPMpp2M(),
    grid: Tensor | None = None, seed: int = 0, offset: int = 0, latents: Tensor | None = None, batch: int | None = None,
    cond: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32, progress: bool = False,
    *, return_info: Literal[True],
) -> tuple[Tensor, SampleInfo]: ...  # fmt: skip
def sample(
    denoiser: Denoiser | Preconditioned, start: Start, n: int, steps: int | None = None, solver: Solver = DPMpp2M(),
    grid: Tensor | None = None, seed: int = 0, offset: int = 0, latents: Tensor | None = None, batch: int | None = None,
    cond: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32, progress: bool = False,
    return_info: bool = False,
) -> Tensor | tuple[Tensor, SampleInfo]:  # fmt: skip
    """Draws `n` samples: a state from the start's law at `start.sigma`, carried down the grid by the solver.

    Sample i is a function of (seed, offset + i) and of what the denoiser makes of its row: noise and rows do not depend
    on `n`, `batch` or the device.

    Args:
        denoiser: `D(x, sigma, **cond) -> x0`, or a preconditioned network such as `EDM`. It must not write into `x`,
            and what it returned must stay as it is for two more calls.
        start: where to begin, such as `GaussianMixture.at(sigma)` or `Classic`.
        n: number of samples.
        steps: solver steps: a network call each (two for Heun, one on its last); may be left out when `grid` is given.
        solver: how to step.
        grid: noise levels `[steps + 1]` from `start.sigma` to 0; when None, log-uniform down to 0.02, then 0.
        seed: integer in [0, 2^64); all 64 bits count.
        offset: index of the first sample.
        latents: unit normals `[n, *shape]` for a start that maps them (`Classic`), instead of its own draw.
        batch: samples carried at a time, all when None.
        cond: keyword arguments of the denoiser; tensors of leading size `n` are split with the batch. `cond["label"]`
            also goes to a start that is conditional on classes.
        dtype: of the state, float32 or float64.
        progress: show a progress bar.
        return_info: also return a `SampleInfo`.

    Returns:
        `[n, *shape]` of `dtype`, or that and a `SampleInfo`.

    Raises:
        ValueError, TypeError: an argument unlike the above, named, before any network call.
    """
    levels = _levels(start, steps, grid)
    rows = solver.rows(levels)
    batch = _require_sizes(start, n, batch, latents)
    _require_state("sample", dtype, seed, offset, n)
    cond = dict(cond or {})
    out: Tensor | None = None
    began, moved = time.perf_counter(), 0
    with torch.no_grad(), track("sample", -(-n // batch) * len(rows), progress) as advance:
        for first in range(0, n, batch):
            count = min(batch, n - first)
            part = {name: _part(value, n, first, count) for name, value in cond.items()}
            x = _begin(start, count, seed, offset + first, latents, first, part).to(dtype)
            x, bytes_of_batch = descend(denoiser, x, rows, seed, offset + first, part, advance)
            out = x.new_empty(n, *x.shape[1:]) if out is None and count < n else out
            out = x if out is None else _store(out, x, first)
            moved += bytes_of_batch
    if out is None:
        out = start.sample(0).to(dtype)
    if out.is_cuda:
        torch.cuda.synchronize(out.device)
    info = SampleInfo(calls(rows), time.perf_counter() - began, moved)
    return (out, info) if return_info else out


def integrate(
    denoiser: Denoiser | Preconditioned, x: Tensor, grid: Tensor, solver: Solver = DPMpp2M(), seed: int = 0,
    offset: int = 0, cond: Mapping[str, Any] | None = None,
) -> Tensor:  # fmt: skip
    """Carries given states `x` `[B, *shape]` from `grid[0]` to `grid[-1]`, which need not be 0.

    The other arguments are those of `sample`; `cond` is passed as it is.

    Raises:
        ValueError, TypeError: a grid that does not descend, a state that is not float32 or float64.
    """
    rows = solver.rows(torch.as_tensor(grid, dtype=torch.float64).tolist())
    _require_state("integrate", x.dtype, seed, offset, x.shape[0])
    with torch.no_grad():
        return descend(denoiser, x, rows, seed, offset, dict(cond or {}), lambda description="": None)[0]


def _levels(start: Start, steps: int | None, grid: Tensor | None) -> list[float]:
    if grid is None:
        if steps is None:
            raise ValueError("sample: steps or grid must be given")
        if not start.sigma > SIGMA_MIN:
            raise ValueError(f"sample: a grid must be given for a start at sigma <= {SIGMA_MIN}, got {start.sigma}")
        return log_uniform(start.sigma, SIGMA_MIN, steps).tolist()
    levels = torch.as_tensor(grid, dtype=torch.float64).tolist()
    if not isinstance(levels, list) or len(levels) < 2:
        raise ValueError(f"sample: grid must be [steps + 1] noise levels, got {levels}")
    if steps is not None and steps != len(levels) - 1:
        raise ValueError(f"sample: grid must have steps + 1 = {steps + 1} levels, got {len(levels)}")
    if levels[-1] != 0:
        raise ValueError(f"sample: grid must end in 0, got {levels[-1]}; integrate() stops anywhere")
    if abs(levels[0] - start.sigma) > 1e-6 * start.sigma:
        raise ValueError(f"sample: grid must begin at the start's sigma {start.sigma}, got {levels[0]}")
    return levels


def _require_sizes(start: Start, n: int, batch: int | None, latents: Tensor | None) -> int:
    if not isinstance(n, Integral) or n < 0:
        raise ValueError(f"sample: n must be an integer of at least 0, got {n!r}")
    if batch is not None and (not isinstance(batch, Integral) or batch < 1):
        raise ValueError(f"sample: batch must be an integer of at least 1, got {batch!r}")
    if latents is not None:
        if not hasattr(start, "from_latents"):
            raise ValueError(f"sample: latents need a start that maps them (Classic), got {type(start).__name__}")
        if tuple(latents.shape) != (n, *start.shape):
            raise ValueError(f"sample: latents must be {[n, *start.shape]}, got {list(latents.shape)}")
    return batch or max(n, 1)


def _require_state(op: str, dtype: torch.dtype, seed: int, offset: int, n: int) -> None:
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: the state must be float32 or float64, got {dtype}")
    ops.check.require_address(op, seed, 0, offset, 0, n, 1)


def _part(value: Any, n: int, first: int, count: int) -> Any:
    split = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == n
    return value[first : first + count] if split else value


def _begin(
    start: Any, count: int, seed: int, offset: int, latents: Tensor | None, first: int, cond: dict[str, Any]
) -> Tensor:
    if latents is not None:
        return start.from_latents(latents[first : first + count])
    if getattr(start, "conditional", False) and cond.get("label") is not None:
        return start.sample(count, seed=seed, offset=offset, labels=cond["label"])
    return start.sample(count, seed=seed, offset=offset)


def _store(out: Tensor, x: Tensor, first: int) -> Tensor:
    out[first : first + x.shape[0]] = x
    return out

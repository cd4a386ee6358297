"""The one composer: a start, a table of rows, a denoiser, and the affine op between two network calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

from headstart import ops
from headstart.denoiser import Denoiser, Preconditioned
from headstart.io.progress import track
from headstart.sampling.edge import (
    check_denoiser,
    check_solver,
    on,
    part_of,
    require_no_gradient,
    settle,
    warn_unless_finite,
)
from headstart.sampling.loop import Descent, Origin, evaluations
from headstart.sampling.request import (
    initial_history,
    initial_state,
    numbers_of,
    require_sizes,
    require_state,
    resolve_rows,
)
from headstart.solver import DPMpp2M, Solver
from headstart.solver.plan import Plan
from headstart.start.protocol import Start

P = ParamSpec("P")


@dataclass(frozen=True)
class SampleInfo:
    """The cost of a call.

    Attributes:
        nfe: network evaluations a sample: Heun's two a step and guidance's two a call counted, in one batch or not.
        seconds: wall time, start and network included.
        bytes: memory read and written by the solver's rows.
    """

    nfe: int
    seconds: float
    bytes: int


def sample(
    denoiser: Denoiser | Preconditioned, start: Start, n: int, steps: int | None = None, solver: Solver = DPMpp2M(),
    grid: Tensor | None = None, seed: int = 0, offset: int = 0, latents: Tensor | None = None, batch: int | None = None,
    cond: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32, progress: bool = False,
    return_info: bool = False, plan: Plan | None = None,
) -> Tensor:  # fmt: skip
    """Draws `n` samples: a state from the start's law at `start.sigma`, carried down the grid by the solver.

    Sample i is a function of (seed, offset + i) and of what the denoiser makes of its row: noise and rows do not depend
    on `n`, `batch` or the device. Torch's own threads hang in a process that was forked after torch had used several,
    whatever is called there: spawn it, or call `torch.set_num_threads(1)` in it first.

    Args:
        denoiser: `D(x, sigma, **cond) -> x0`, or a preconditioned network such as `EDM`, or what `guided` made of
            them. One that writes into `x` is given copies, and of one that uses its output's memory again copies are
            kept, where torch can tell: a pass over the state more a call.
        start: where to begin, such as `GaussianMixture.at(sigma)` or `Classic`.
        n: number of samples.
        steps: solver steps: a network call each (two for Heun, one on its last); may be left out when `grid` is given.
        solver: how to step.
        grid: noise levels `[steps + 1]` from `start.sigma` to 0; when None, log-uniform down to 0.02, then 0.
        seed: integer in [0, 2^64); all 64 bits count.
        offset: index of the first sample.
        latents: unit normals `[n, *shape]` for a start that maps them, instead of its own draw: `Classic` scales them,
            a mixture carries `80 z` to its noise level, so that a latent keeps its image.
        batch: samples carried at a time, all when None.
        cond: keyword arguments of the denoiser; tensors, numpy arrays, lists and tuples of leading size `n`, also in
            a dict, are split with the batch. `cond["label"]`, integers in any form `[n]` or one for all, also goes to
            a start that is conditional on classes, which refuses classes under any other name; `label` None is all of
            them. Samples have no gradient: conditions, latents and grids whose gradient is asked for are refused, and
            the denoiser, whose weights may ask for one, is called in `torch.no_grad()`.
        dtype: of the state, float32 or float64.
        progress: show a progress bar.
        return_info: return `(samples, SampleInfo)`, as `sample_info` does, whose type says so.
        plan: a `Plan`, in place of steps, solver and grid; where it begins at 80, so does the sample.

    Returns:
        `[n, *shape]` of `dtype`.

    Raises:
        ValueError, TypeError: an argument out of its range or of another kind, named, before any network call.

    Warns:
        NotFinite: samples with NaN or infinity, named.
    """
    check_denoiser("sample", denoiser)
    start, rows = resolve_rows("sample", start, steps, solver, grid, plan)
    n, batch = require_sizes("sample", start, n, batch, latents)
    seed, offset = require_state("sample", dtype, seed, offset, n)
    cond = settle("sample", cond, n, start)
    descent: Descent | None = None
    out: Tensor | None = None
    began, moved = time.perf_counter(), 0
    with torch.no_grad(), track("sample", -(-n // batch) * len(rows), progress) as advance:
        for first in range(0, n, batch):
            count = min(batch, n - first)
            part = {name: part_of(value, n, first, count) for name, value in cond.items()}
            z = None if latents is None else latents[first : first + count]
            x = initial_state(start, count, seed, offset + first, z, part).to(dtype)
            descent = descent or Descent(denoiser, rows, dtype, x.device)
            part = on(part, x.device)
            known = initial_history(plan, start, x, part)
            x, bytes_of_batch = descent.run(x, Origin(seed, offset + first), part, advance, known)
            out = x.new_empty(n, *x.shape[1:]) if out is None and count < n else out
            out = x if out is None else _store(out, x, first)
            moved += bytes_of_batch
    if out is None:
        out = start.sample(0).to(dtype)
    if out.is_cuda:
        torch.cuda.synchronize(out.device)
    warn_unless_finite("sample", out)
    info = SampleInfo(evaluations(denoiser, rows), time.perf_counter() - began, moved)
    return (out, info) if return_info else out  # type: ignore[return-value]


def beside_info(draw: Callable[P, Tensor]) -> Callable[P, tuple[Tensor, SampleInfo]]:
    """`sample` as a function that returns `(samples, SampleInfo)`; it takes the same arguments."""

    @wraps(draw, assigned=(), updated=())  # its signature alone
    def sample_info(*args: P.args, **kwargs: P.kwargs) -> tuple[Tensor, SampleInfo]:
        """`sample`, and its cost beside it: `(samples, SampleInfo)`; the arguments are those of `sample`."""
        kwargs["return_info"] = True
        return draw(*args, **kwargs)  # type: ignore[return-value]

    return sample_info


sample_info = beside_info(sample)


def integrate(
    denoiser: Denoiser | Preconditioned, x: Tensor, grid: Tensor, solver: Solver = DPMpp2M(), seed: int = 0,
    offset: int = 0, cond: Mapping[str, Any] | None = None,
) -> Tensor:  # fmt: skip
    """Carries given states `x` `[B, *shape]` from `grid[0]` to `grid[-1]`, which need not be 0.

    The other arguments are those of `sample`; `cond` is passed as it is, but for the form of its `label`.

    Raises:
        ValueError, TypeError: a grid that does not descend, a state that is not float32 or float64.

    Warns:
        NotFinite: as `sample`; on a GPU the look at the end waits for it.
    """
    check_denoiser("integrate", denoiser)
    check_solver("integrate", solver)
    if not isinstance(x, Tensor) or x.ndim == 0:
        raise TypeError(f"integrate: x must be states [B, *shape], got {ops.check.describe(x)}")
    require_no_gradient("integrate", "x", x)
    levels = numbers_of("integrate", grid)
    if not isinstance(levels, list) or not all(isinstance(level, float) for level in levels):
        raise ValueError(f"integrate: grid must be [steps + 1] noise levels, got {levels}")
    rows = solver.rows(levels)
    seed, offset = require_state("integrate", x.dtype, seed, offset, x.shape[0])
    cond = on(settle("integrate", cond, x.shape[0]), x.device)
    descent = Descent(denoiser, rows, x.dtype, x.device)
    with torch.no_grad():
        out = descent.run(x, Origin(seed, offset), cond, lambda: None)[0]
    warn_unless_finite("integrate", out)
    return out


def _store(out: Tensor, x: Tensor, first: int) -> Tensor:
    out[first : first + x.shape[0]] = x
    return out

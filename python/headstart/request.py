"""What a sampler is asked for: checked, and turned into noise levels and a first state."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.grid import log_uniform
from headstart.initializer.protocol import Start
from headstart.plan import Plan
from headstart.solver import Row, Solver

SIGMA_MIN = 0.02  # last level of the default grid; 0.01 to 0.03 beats EDM's 0.002 when calls are few


def levels_of(op: str, start: Start, steps: int | None, grid: Tensor | None) -> list[float]:
    """The noise levels of `grid`, or of the default grid of `steps`.

    Raises:
        ValueError: neither is given, they disagree, or the grid does not lead from the start's sigma to 0.
    """
    if grid is None:
        if steps is None:
            raise ValueError(f"{op}: steps or grid must be given")
        if not start.sigma > SIGMA_MIN:
            raise ValueError(f"{op}: a grid must be given for a start at sigma <= {SIGMA_MIN}, got {start.sigma}")
        return log_uniform(start.sigma, SIGMA_MIN, steps).tolist()
    levels = torch.as_tensor(grid, dtype=torch.float64).tolist()
    if not isinstance(levels, list) or len(levels) < 2:
        raise ValueError(f"{op}: grid must be [steps + 1] noise levels, got {levels}")
    if steps is not None and steps != len(levels) - 1:
        raise ValueError(f"{op}: grid must have steps + 1 = {steps + 1} levels, got {len(levels)}")
    if levels[-1] != 0:
        raise ValueError(f"{op}: grid must end in 0, got {levels[-1]}; integrate() stops anywhere")
    if abs(levels[0] - start.sigma) > 1e-6 * start.sigma:
        raise ValueError(f"{op}: grid must begin at the start's sigma {start.sigma}, got {levels[0]}")
    return levels


def way_of(
    op: str, start: Start, steps: int | None, solver: Solver, grid: Tensor | None, plan: Plan | None
) -> tuple[Start, list[Row]]:
    """Where to begin, and the rows down from there: of the solver on its levels, or of a plan.

    Raises:
        ValueError: as `levels_of`; steps or a grid beside a plan; a start that is not where the plan begins.
    """
    if plan is None:
        return start, solver.rows(levels_of(op, start, steps, grid))
    if grid is not None or steps not in (None, plan.nfe):
        raise ValueError(f"{op}: a plan of {plan.nfe} calls has its own grid; steps and grid must be left out")
    return plan.start(start), list(plan.table)


def require_sizes(op: str, start: Start, n: int, batch: int | None, latents: Tensor | None) -> int:
    """The batch size, all `n` when None.

    Raises:
        ValueError: n, batch or latents out of range.
    """
    if not isinstance(n, Integral) or n < 0:
        raise ValueError(f"{op}: n must be an integer of at least 0, got {n!r}")
    if batch is not None and (not isinstance(batch, Integral) or batch < 1):
        raise ValueError(f"{op}: batch must be an integer of at least 1, got {batch!r}")
    if latents is not None:
        if not hasattr(start, "from_latents"):
            raise ValueError(
                f"{op}: latents need a start that maps them (Classic, a mixture), got {type(start).__name__}"
            )
        if tuple(latents.shape) != (n, *start.shape):
            raise ValueError(f"{op}: latents must be {[n, *start.shape]}, got {list(latents.shape)}")
    return batch or max(n, 1)


def require_state(op: str, dtype: torch.dtype, seed: int, offset: int, n: int) -> None:
    """Refuses a state that is not float32 or float64, and an address out of range.

    Raises:
        TypeError, ValueError: as said.
    """
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: the state must be float32 or float64, got {dtype}")
    ops.check.require_address(op, seed, 0, offset, 0, n, 1)


def part_of(value: Any, n: int, first: int, count: int) -> Any:
    """Rows `first .. first + count - 1` of a condition with a row for each of the `n` samples; any other whole."""
    split = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == n
    return value[first : first + count] if split else value


def begin(start: Any, count: int, seed: int, offset: int, latents: Tensor | None, cond: dict[str, Any]) -> Tensor:
    """The first state: `latents` mapped by the start, or its own draw, conditional on `cond["label"]` where it can."""
    own = {"labels": cond["label"]} if getattr(start, "conditional", False) and cond.get("label") is not None else {}
    if latents is not None:
        return start.from_latents(latents, **own)
    return start.sample(count, seed=seed, offset=offset, **own)

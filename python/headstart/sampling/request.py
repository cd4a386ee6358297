"""The request to a sampler: checked, and turned into rows and a first state."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.solver import Row, Solver
from headstart.solver.grid import log_uniform
from headstart.solver.plan import SIGMA_MAX, Plan
from headstart.start import Classic, MixtureStart
from headstart.start.protocol import ConditionalStart, HistoryStart, LatentStart, Start

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


def resolve_rows(
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
    return plan_start(plan, start), list(plan.table)


def plan_start(plan: Plan, start: Start) -> Start:
    """Where a plan begins: `start` itself at its own noise level, or the classic start on the start's device.

    Raises:
        ValueError: a start at another noise level than a plan that does not begin at 80, or one without history.
    """
    same = abs(start.sigma - plan.sigma) <= 1e-6 * plan.sigma
    if plan.ghost is not None and not (same and isinstance(start, HistoryStart)):
        raise ValueError(f"Plan: this plan begins at a mixture's .at({plan.sigma:g}), got {start}")
    if same:
        return start
    if plan.sigma != SIGMA_MAX:
        raise ValueError(f"Plan: this plan begins at noise level {plan.sigma:g}, got a start at {start.sigma:g}")
    device = start.mixture.components.mean.device if isinstance(start, MixtureStart) else "cpu"
    return Classic(start.shape, plan.sigma, device=device)


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
        if not isinstance(start, LatentStart):
            raise ValueError(
                f"{op}: latents need a start that maps them (Classic, a mixture), got {type(start).__name__}"
            )
        if tuple(latents.shape) != (n, *start.shape):
            raise ValueError(f"{op}: latents must be {[n, *start.shape]}, got {list(latents.shape)}")
    return batch or max(n, 1)


def require_state(op: str, dtype: torch.dtype, seed: int, offset: int, n: int) -> None:
    """Refuses a state that is not float32 or float64, and an address out of range.

    Raises:
        TypeError: another dtype.
        ValueError: a seed, sample index or number of samples out of range.
    """
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: the state must be float32 or float64, got {dtype}")
    ops.check.require_address(op, seed, 0, offset, 0, n, 1)


def part_of(value: Any, n: int, first: int, count: int) -> Any:
    """Rows `first .. first + count - 1` of a condition with a row for each of the `n` samples; any other whole."""
    split = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == n
    return value[first : first + count] if split else value


def labels_of(start: Start, cond: Mapping[str, Any]) -> int | Tensor | None:
    """`cond["label"]` where the start is conditional on classes, else None."""
    return cond.get("label") if isinstance(start, ConditionalStart) and start.conditional else None


def initial_state(
    start: Start, count: int, seed: int, offset: int, latents: Tensor | None, cond: Mapping[str, Any]
) -> Tensor:
    """The first state: `latents` mapped by the start, or its own draw, conditional on `cond["label"]` where it can."""
    labels = labels_of(start, cond)
    if latents is not None:
        assert isinstance(start, LatentStart)  # required before
        return start.from_latents(latents, labels)
    if labels is None:
        return start.sample(count, seed=seed, offset=offset)
    assert isinstance(start, ConditionalStart)
    return start.sample(count, seed=seed, offset=offset, labels=labels)


def initial_history(plan: Plan | None, start: Start, x: Tensor, cond: Mapping[str, Any]) -> list[Tensor]:
    """The start's own predictions that the plan's first rows reuse, for states `x` at its first node, newest first."""
    if plan is None or plan.ghost is None:
        return []
    assert isinstance(start, HistoryStart)  # `plan_start` required it
    return start.history(x, plan.ghost, labels_of(start, cond))

"""The request to a sampler: checked, and turned into rows and a first state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.sampling.edge import check_solver, check_start, require_no_gradient, whole
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
    levels = numbers_of(op, grid)
    if not isinstance(levels, list) or len(levels) < 2:
        raise ValueError(f"{op}: grid must be [steps + 1] noise levels, got {levels}")
    if steps is not None and steps != len(levels) - 1:
        raise ValueError(f"{op}: grid must have steps + 1 = {steps + 1} levels, got {len(levels)}")
    if levels[-1] != 0:
        raise ValueError(f"{op}: grid must end in 0, got {levels[-1]}; integrate() stops anywhere")
    if abs(levels[0] - start.sigma) > 1e-6 * start.sigma:
        raise ValueError(f"{op}: grid must begin at the start's sigma {start.sigma}, got {levels[0]}")
    return levels


def numbers_of(op: str, grid: Any) -> Any:
    """A grid's levels as Python's numbers.

    Raises:
        TypeError: it has none.
        ValueError: its gradient is asked for.
    """
    require_no_gradient(op, "grid", grid)
    try:
        return torch.as_tensor(grid, dtype=torch.float64, device=getattr(grid, "device", "cpu")).tolist()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{op}: grid must be [steps + 1] noise levels, got {type(grid).__name__}") from None


def resolve_rows(
    op: str, start: Start, steps: int | None, solver: Solver, grid: Tensor | None, plan: Plan | None
) -> tuple[Start, list[Row]]:
    """Where to begin, and the rows down from there: of the solver on its levels, or of a plan.

    Raises:
        TypeError: as `check_start` and `check_solver`; a plan that is none.
        ValueError: as `levels_of`; steps or a grid beside a plan; a start that is not where the plan begins.
    """
    check_start(op, start)
    check_solver(op, solver)
    if plan is None:
        return start, solver.rows(levels_of(op, start, steps, grid))
    if not isinstance(plan, Plan):
        raise TypeError(f"{op}: plan must be a Plan, got {type(plan).__name__}; load_plan(file) reads one")
    if grid is not None or steps not in (None, plan.nfe):
        raise ValueError(f"{op}: a plan of {plan.nfe} calls has its own grid; steps and grid must be left out")
    return plan_start(plan, start), list(plan.table)


def plan_start(plan: Plan, start: Start) -> Start:
    """Where a plan begins: `start` itself at its own noise level, or the classic start on the start's device.

    Raises:
        ValueError: a start at another noise level than a plan that does not begin at 80, or one without history; or
            another start than the plan was made for.
    """
    check_shape(plan, start)
    same = abs(start.sigma - plan.sigma) <= 1e-6 * plan.sigma
    if plan.ghost is not None and not (same and isinstance(start, HistoryStart)):
        raise ValueError(f"Plan: this plan begins at a mixture's .at({plan.sigma:g}), got {start}")
    if same or plan.sigma == SIGMA_MAX:
        check_partner(plan, start)
    if same:
        return start
    if plan.sigma != SIGMA_MAX:
        raise ValueError(f"Plan: this plan begins at noise level {plan.sigma:g}, got a start at {start.sigma:g}")
    device = start.mixture.components.mean.device if isinstance(start, MixtureStart) else "cpu"
    return Classic(start.shape, plan.sigma, device=device)


def check_shape(plan: Plan, start: Start) -> None:
    """Refuses a start of other samples than the plan's.

    Raises:
        ValueError: the shapes differ.
    """
    if plan.made_for is not None and tuple(start.shape) != plan.made_for.shape:
        wanted, got = list(plan.made_for.shape), list(start.shape)
        raise ValueError(f"Plan: this plan was made for samples {wanted}, got a start of samples {got}")


def check_partner(plan: Plan, start: Start) -> None:
    """Refuses another start than the plan was made for; a plan from 80 also takes the classic start there.

    Raises:
        ValueError: the start is another.
    """
    known = plan.made_for
    if known is None or (isinstance(start, Classic) and plan.sigma == start.sigma == SIGMA_MAX):
        return
    mixture: Any = getattr(start, "mixture", None)
    if getattr(mixture, "fingerprint", None) != known.fingerprint:
        k = len(mixture.weight) if isinstance(start, MixtureStart) else None
        got = type(start).__name__ + (f" of {k} components" if k else "")
        raise ValueError(
            f"Plan: this plan was made for another start, a mixture of {known.components} components, got {got}; make "
            "one for this start with headstart.plan, or take dataclasses.replace(plan, made_for=None) as it is"
        )


def require_sizes(op: str, start: Start, n: int, batch: int | None, latents: Tensor | None) -> tuple[int, int]:
    """`n` and the batch size, all `n` when None, as integers of Python.

    Latents on a GPU are not looked at, which would wait for it; what they make is, see `warn_unless_finite`.

    Raises:
        TypeError: latents that are no floating tensor.
        ValueError: n, batch or latents out of range, or latents on the CPU that are not finite.
    """
    n = whole(op, "n", n, 0)
    batch = max(n, 1) if batch is None else whole(op, "batch", batch, 1)
    if latents is not None:
        plain = isinstance(latents, Tensor) and latents.is_floating_point() and latents.layout is torch.strided
        if not plain or latents.itemsize == 1:  # 8-bit floats have hardly an operation
            raise TypeError(f"{op}: latents must be floating {[n, *start.shape]}, got {ops.check.describe(latents)}")
        if not isinstance(start, LatentStart):
            raise ValueError(
                f"{op}: latents need a start that maps them (Classic, a mixture), got {type(start).__name__}"
            )
        if tuple(latents.shape) != (n, *start.shape):
            raise ValueError(f"{op}: latents must be {[n, *start.shape]}, got {list(latents.shape)}")
        require_no_gradient(op, "latents", latents)
        if latents.is_cpu and not bool(latents.isfinite().all()):
            raise ValueError(f"{op}: latents must be finite, got NaN or infinity in {ops.check.describe(latents)}")
    return n, batch


def require_state(op: str, dtype: torch.dtype, seed: int, offset: int, n: int) -> tuple[int, int]:
    """Seed and offset as integers of Python; refuses a state of no float32 or float64, and addresses out of range.

    Raises:
        TypeError: another dtype.
        ValueError: a seed, sample index or number of samples out of range.
    """
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: the state must be float32 or float64, got {dtype}")
    ops.check.require_address(op, seed, 0, offset, 0, n, 1)
    return int(seed), int(offset)


def labels_of(start: Start, cond: Mapping[str, Any]) -> int | Tensor | None:
    """`cond["label"]` where the start is conditional on classes, else None."""
    label = cond.get("label")
    return label if label is not None and isinstance(start, ConditionalStart) and start.conditional else None


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

"""A plan beside classic grids on the network itself: for guided networks, which the start knows nothing of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from headstart import ops
from headstart.denoiser import Denoiser, Preconditioned
from headstart.sampling._sample import integrate, sample
from headstart.sampling.edge import check_denoiser, check_start, whole
from headstart.sampling.loop import evaluations
from headstart.solver import DPMpp2M, Heun
from headstart.solver.grid import log_uniform
from headstart.solver.plan import Plan
from headstart.start import Start

SIGMA_MAX, LAST = 80.0, (0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Validation:
    """Mean over samples of the root-mean-square distance to the network's own fine solution from the same latents.

    Attributes:
        planned: of the plan.
        classic: of the best log-uniform DPM-Solver++ 2M grid from 80 with as many calls.
        calls: network evaluations a sample that it took, those of both branches of a guided network counted.
    """

    planned: float
    classic: float
    calls: int

    @property
    def gain(self) -> float:
        """The classic error over the plan's: above 1 the plan is worth running."""
        return self.classic / self.planned if self.planned else math.inf


def validate(
    plan: Plan, denoiser: Denoiser | Preconditioned, start: Start, n: int = 8, cond: Mapping[str, Any] | None = None,
    seed: int = 0, fine_steps: int = 32,
) -> Validation:  # fmt: skip
    """Compares a plan with the best classic grid on a few samples of the network as it will be used, guidance included.

    Args:
        plan: to be checked.
        denoiser, start, cond: as in `sample`; tensors of `cond` have `n` rows.
        n: samples.
        seed: of the latents.
        fine_steps: heun steps of the fine solution, two calls each.

    Raises:
        ValueError: as `sample`; `n` or `fine_steps` below 1.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"validate: plan must be a Plan, got {type(plan).__name__}; the plan comes first")
    check_denoiser("validate", denoiser)
    check_start("validate", start)
    n, fine_steps = whole("validate", "n", n, 1), whole("validate", "fine_steps", fine_steps, 1)
    z = ops.normal((n, *start.shape), seed, 0, device="cpu")
    planned = sample(denoiser, start, n, plan=plan, latents=z, cond=cond)
    far = (SIGMA_MAX * z).to(planned)
    dense = log_uniform(SIGMA_MAX, 0.005, fine_steps)
    fine = integrate(denoiser, far, dense, Heun(), cond=cond)

    def distance(x: Tensor) -> float:
        return float((x - fine).double().flatten(1).square().mean(1).sqrt().mean())

    grids = [log_uniform(SIGMA_MAX, last, plan.nfe) for last in LAST]
    classic = min(distance(integrate(denoiser, far, grid, DPMpp2M(), cond=cond)) for grid in grids)
    tables = [plan.table, Heun().rows(dense.tolist()), *(DPMpp2M().rows(grid.tolist()) for grid in grids)]
    return Validation(distance(planned), classic, sum(evaluations(denoiser, rows) for rows in tables))

"""Damped Gauss-Newton steps from residuals alone.

With residuals `r(u)`, finite differences `J`, damping `l` and a ridge `k` towards the origin:

    (J^T J + l diag(J^T J) + k t I) d = -(J^T r + k t u),    t = mean diag(J^T J)

References: "A Method for the Solution of Certain Non-Linear Problems in Least Squares" (Levenberg, 1944,
https://doi.org/10.1090/qam/10666); "An Algorithm for Least-Squares Estimation of Nonlinear Parameters" (Marquardt,
1963, https://doi.org/10.1137/0111030).
"""

from __future__ import annotations

import torch
from torch import Tensor

STEP = 0.02  # of the finite differences
MAX_STEP = 0.5  # change of an unknown in one step


def damped_step(normal: Tensor, slope: Tensor, u: Tensor, damping: float, ridge: float) -> Tensor:
    """The step `d` `[P]` of the module's equation; `normal` `[P, P]` is `J^T J`, `slope` `[P]` is `J^T r`."""
    size = max(float(normal.diagonal().mean()), 1e-12)
    own = normal.diagonal().clamp_min(1e-6 * size)  # an unknown that does nothing stays where it is
    system = normal + torch.diag(damping * own + ridge * size)
    step = torch.linalg.solve(system, -(slope + ridge * size * u))
    return step.nan_to_num(0.0, 0.0, 0.0).clamp(-MAX_STEP, MAX_STEP)  # a table that explodes gives no direction

"""The analytical first step: one network call saved at the first level of any solver's grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.solver.row import Row, Solver


@dataclass(frozen=True)
class AFS:
    """`solver` with the first slope `(x - D) / t` taken to be `x / sqrt(1 + t^2)`, so `D = (1 - t / sqrt(1 + t^2)) x`.

    Far above the data's scale this is nearly what the network says. n calls make n + 1 steps.

    Args:
        solver: one whose first row calls the network at the first level, as all of this package's but Heun's with
            churn do.

    Raises:
        TypeError: what is wrapped is no solver.
        ValueError: on making rows, where the first row makes no call.

    Reference: "Genie: Higher-Order Denoising Diffusion Solvers" (Dockhorn, Vahdat, Kreis, 2022,
    https://arxiv.org/abs/2210.05475).
    """

    solver: Solver

    def __post_init__(self) -> None:
        if isinstance(self.solver, type) or not callable(getattr(self.solver, "rows", None)):
            raise TypeError(f"AFS: solver must be a solver such as DPMpp2M(), got {self.solver!r:.100}")

    @property
    def order(self) -> int:
        return self.solver.order

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """The solver's rows, the first without its call."""
        first, *rest = self.solver.rows(grid)
        if first.sigma is None:
            raise ValueError(f"AFS: the first row of {self.solver!r} must call the network, and makes no call")
        return [first._replace(sigma=None, analytic=1 - first.sigma / math.hypot(1, first.sigma)), *rest]

"""A way from noise to a sample: a start, a solver, a grid of noise levels, network calls.

A solver to compare with is one row of `METHODS`: it is then in the tables of `headstart bench quality` and `speed`,
of `headstart demo`, of every recipe, of the toy laws and of the evaluation of plans, as its `tables` say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart.sampling.request import SIGMA_MIN
from headstart.solver import DPMpp2M, DPMpp3M, Heun, Solver, UniPC, calls
from headstart.solver.grid import karras, log_uniform

SIGMA_MAX, EDM_SIGMA_MIN = 80.0, 0.002
HEUN_CALLS = 79  # of the usual reference: EDM's 40 levels
TABLES = ("quality", "demo", "recipe", "speed", "toy", "plan")


@dataclass(frozen=True)
class Method:
    """A solver that is compared.

    Attributes:
        solver: makes rows from a grid.
        name: in the tables of the demo and of recipes.
        least: network calls below which it is the same as one of lower order.
        a_step: network calls of a step; the last step makes one.
        usual: grid on which it is commonly run from 80: "log" or "rho 7".
        tables: where it has rows, of `TABLES`; in the demo and in recipes at few calls on the log grid.
    """

    solver: Solver
    name: str
    least: int = 1
    a_step: int = 1
    usual: str = "log"
    tables: tuple[str, ...] = TABLES


METHODS: dict[str, Method] = {
    "2M": Method(DPMpp2M(), "DPM++ 2M"),
    "Heun": Method(Heun(), "Heun", a_step=2, usual="rho 7", tables=("quality", "speed", "toy", "plan")),
    "UniPC": Method(UniPC(), "UniPC", least=2, tables=("quality", "plan")),
    "3M": Method(DPMpp3M(), "DPM++ 3M", least=3, tables=("quality", "plan")),
}


def methods_of(table: str) -> dict[str, Method]:
    """The solvers that have rows in a table."""
    return {key: method for key, method in METHODS.items() if table in method.tables}


@dataclass(frozen=True)
class Way:
    """One row of a table before it is scored.

    Attributes:
        start: name of the start, see `case.STARTS`.
        solver: a key of `METHODS`; "plan": the case's plan of so many calls; "none": the start itself, no network.
        grid: "log", log-uniform down to 0.02; "rho R", EDM's with that warp down to 0.002; "plan" and "none".
        nfe: calls of the denoiser a sample; one that is guided calls its network more often.
    """

    start: str
    solver: str
    grid: str
    nfe: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Way:
        """That of a row of a file."""
        return cls(row["start"], row["solver"], row["grid"], row["nfe"])

    @property
    def key(self) -> str:
        """Its name in files."""
        return f"{self.start}-{self.solver}-{self.grid}-{self.nfe}".replace(" ", "")

    @property
    def group(self) -> tuple[str, str, str]:
        return self.start, self.solver, self.grid

    @property
    def solver_name(self) -> str:
        """The solver in the tables of the demo and of recipes."""
        return {"plan": "planned", "none": "none"}.get(self.solver) or METHODS[self.solver].name

    def horizon(self, sigma: float) -> float:
        """The level it begins at, where short starts begin at `sigma`."""
        return {"classic": SIGMA_MAX, "alone": 0.0}.get(self.start, sigma)

    def levels(self, sigma: float) -> Tensor | None:
        """Noise levels from `sigma` to 0, float64; None for a plan, which has its own, and for the start itself.

        Raises:
            ValueError: the solver makes another number of calls on them.
        """
        if self.solver in ("plan", "none"):
            return None
        method = METHODS[self.solver]
        steps = -(-self.nfe // method.a_step)
        if steps == 1:
            grid = torch.tensor([sigma, 0.0], dtype=torch.float64)
        elif self.grid == "log":
            grid = log_uniform(sigma, SIGMA_MIN, steps)
        else:
            grid = karras(sigma, EDM_SIGMA_MIN, steps, float(self.grid.removeprefix("rho ")))
        made = calls(method.solver.rows(grid.tolist()))
        if made != self.nfe:
            raise ValueError(f"compare: {self.key} must make {self.nfe} calls a sample, makes {made}")
        return grid


HEUN = Way("classic", "Heun", "rho 7", HEUN_CALLS)


def exists(solver: str, nfe: int) -> bool:
    """Whether the solver can make `nfe` calls and is another than those of lower order; plans are of at most 13."""
    if solver == "plan":
        return 1 <= nfe <= 13
    method = METHODS[solver]
    return nfe >= method.least and (nfe - 1) % method.a_step == 0

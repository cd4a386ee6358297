"""The ways down that `headstart bench quality` compares, the most telling first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from headstart.sampling.request import SIGMA_MIN
from headstart.solver import Solver

SIGMA_MAX, EDM_SIGMA_MIN = 80.0, 0.002
NFE = (1, 2, 3, 4, 5, 6, 7, 9, 13, 19, 39, 79)
SOLVERS: dict[str, Solver] = {"2M": hs.DPMpp2M(), "Heun": hs.Heun(), "UniPC": hs.UniPC(), "3M": hs.DPMpp3M()}
STARTS = ("alone", "classic", "learned", "planned", "transport", "uninformed", "empirical")
GROUPS = (  # (start, solver, grid), the most telling first
    ("alone", "none", "none"), ("learned", "2M", "log"), ("classic", "2M", "log"), ("planned", "plan", "plan"),
    ("transport", "2M", "log"), ("classic", "UniPC", "log"), ("classic", "Heun", "rho 7"), ("classic", "3M", "log"),
    ("empirical", "2M", "log"), ("classic", "2M", "rho 7"), ("uninformed", "2M", "log"),
    ("learned", "UniPC", "log"), ("learned", "Heun", "log"), ("learned", "3M", "log"),
    ("classic", "Heun", "log"), ("classic", "UniPC", "rho 7"), ("classic", "3M", "rho 7"),
    ("transport", "UniPC", "log"), ("transport", "Heun", "log"), ("transport", "3M", "log"),
    ("empirical", "UniPC", "log"), ("empirical", "Heun", "log"), ("empirical", "3M", "log"),
    ("uninformed", "UniPC", "log"), ("uninformed", "Heun", "log"), ("uninformed", "3M", "log"),
)  # fmt: skip
CALLS = (5, 7, 3, 9, 4, 13, 6, 19, 2, 1, 39, 79)  # the most telling first
HEUN = ("classic", "Heun", "rho 7", 79)  # the usual reference: EDM's 40 levels
LEAST = {"2M": 1, "Heun": 1, "UniPC": 2, "3M": 3, "plan": 1}  # with fewer calls a solver is another one


@dataclass(frozen=True)
class Way:
    """A start, a solver, a grid of noise levels, and network calls a sample."""

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

    def levels(self, sigma: float) -> Tensor:
        """Noise levels from `sigma` to 0: log-uniform down to 0.02, or EDM's grid down to 0.002."""
        steps = (self.nfe + 1) // 2 if self.solver == "Heun" else self.nfe
        if steps == 1:
            return torch.tensor([sigma, 0.0], dtype=torch.float64)
        if self.grid == "log":
            return hs.log_uniform(sigma, SIGMA_MIN, steps)
        return hs.karras(sigma, EDM_SIGMA_MIN, steps, 7.0)


def exists(solver: str, nfe: int) -> bool:
    """Whether the solver can make `nfe` calls and is another than those of lower order."""
    return nfe >= LEAST[solver] and (solver != "Heun" or nfe % 2 == 1) and (solver != "plan" or nfe <= 13)


def ways(nfe: Iterable[int], starts: Iterable[str], solvers: Iterable[str]) -> list[Way]:
    """Every way of these calls, starts and solvers, the most telling first.

    Raises:
        ValueError: an unknown start or solver, or a number of calls below 1.
    """
    nfe, starts, solvers = sorted(set(nfe)), set(starts), set(solvers)
    for name, given, known in (("starts", starts, STARTS), ("solvers", solvers, SOLVERS)):
        if not given <= set(known):
            raise ValueError(
                f"bench: {name} must be of {', '.join(known)}, got {', '.join(sorted(given - set(known)))}"
            )
    if not nfe or nfe[0] < 1:
        raise ValueError(f"bench: nfe must be at least 1, got {nfe}")
    found: list[tuple[float, Way]] = []
    for place, (start, solver, grid) in enumerate(GROUPS):
        if start == "alone" and start in starts:
            found.append((-2, Way(start, solver, grid, 0)))
        elif start in starts and solver in {*solvers, "plan"}:
            rank = {n: CALLS.index(n) if n in CALLS else len(CALLS) for n in nfe if exists(solver, n)}
            found += [
                (-1 if (start, solver, grid, n) == HEUN else place + 1.5 * rank[n], Way(start, solver, grid, n))
                for n in rank
            ]
    return [way for _, way in sorted(found, key=lambda pair: pair[0])]

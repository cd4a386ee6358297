"""First-order solvers that add fresh noise at every step but the last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.argument import require_number
from headstart.solver.row import Row, pairs


@dataclass(frozen=True)
class Ancestral:
    """`x' = (d/t) x + (1 - d/t) D + u z`, `u = eta s sqrt(1 - (s/t)^2)`, `d = sqrt(s^2 - u^2)`.

    Args:
        eta: share of noise that is fresh, in [0, 1]; 0 is `Euler`, 1 has the variance of the DDPM posterior.

    Raises:
        ValueError: eta outside [0, 1].
        TypeError: eta is no number.

    Reference: "Denoising Diffusion Implicit Models" (Song, Meng, Ermon, 2020, https://arxiv.org/abs/2010.02502),
    equation 16 in the variance-exploding scaling.
    """

    eta: float = 1.0
    order = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "eta", require_number("Ancestral", "eta", self.eta, "a number in [0, 1]"))
        if not 0 <= self.eta <= 1:
            raise ValueError(f"Ancestral: eta must be in [0, 1], got {self.eta}")

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step; the step to 0 adds no noise."""
        rows = []
        for t, s in pairs(grid):
            up = self.eta * s * math.sqrt(1 - (s / t) ** 2)
            a = math.sqrt(s**2 - up**2) / t
            rows.append(Row(t, a, (1 - a,), up))
        return rows


@dataclass(frozen=True)
class DDPM:
    """`x' = r^2 x + (1 - r^2) D + s sqrt(1 - r^2) z`, `r = s/t`: the posterior of a step given `x0 = D`.

    Reference: "Denoising Diffusion Probabilistic Models" (Ho, Jain, Abbeel, 2020, https://arxiv.org/abs/2006.11239).
    """

    order = 1

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step; the step to 0 adds no noise."""
        return [Row(t, (s / t) ** 2, (1 - (s / t) ** 2,), s * math.sqrt(1 - (s / t) ** 2)) for t, s in pairs(grid)]


@dataclass(frozen=True)
class EulerMaruyama:
    """`x' = r^2 x + (1 - r^2) D + sqrt(t^2 - s^2) z`, `r = s/t`, on the reverse SDE in the variable `sigma^2`.

    Reference: "Score-Based Generative Modeling through Stochastic Differential Equations" (Song et al., 2021,
    https://arxiv.org/abs/2011.13456).
    """

    order = 1

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step; the step to 0 adds no noise, as nothing would remove it."""
        return [
            Row(t, (s / t) ** 2, (1 - (s / t) ** 2,), math.sqrt(t**2 - s**2) if s > 0 else 0.0) for t, s in pairs(grid)
        ]

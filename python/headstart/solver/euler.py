"""Euler on the probability-flow ODE `dx/dsigma = (x - D(x, sigma)) / sigma`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.solver.row import Row, pairs


@dataclass(frozen=True)
class Euler:
    """`x' = r x + (1 - r) D`, `r = sigma_next / sigma`. The same step as DDIM with eta = 0.

    Reference: "Denoising Diffusion Implicit Models" (Song, Meng, Ermon, 2020, https://arxiv.org/abs/2010.02502).
    """

    order = 1

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step, one network call a row."""
        return [Row(t, s / t, (1 - s / t,)) for t, s in pairs(grid)]

"""Solvers as tables of affine rows, made on the host in float64 before the first network call."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol


class Row(NamedTuple):
    """One row `x' = a x + sum_j (b_j D_j + e_j x_j) + c z`: state, predictions, the states they were made at, noise.

    Attributes:
        sigma: noise level of the state; the network is called there first, and its prediction becomes `D_0`.
            None: no call.
        a: coefficient of the state `x`, the last one committed.
        b: coefficients of the predictions, the newest first.
        c: standard deviation of the fresh noise.
        commit: false: `x'` is a trial point, where the next call is made while `x` stays.
        states: `e`, coefficients of the states of the predictions, in their order; empty: all 0.
        analytic: where a row makes no call: `D_0 = analytic x` stands for its prediction. None: no prediction.
        told: the call level: noise level at which the whole denoiser, preconditioning included, is evaluated on the
            state at `sigma`. None: `sigma` itself.
    """

    sigma: float | None
    a: float
    b: tuple[float, ...] = ()
    c: float = 0.0
    commit: bool = True
    states: tuple[float, ...] = ()
    analytic: float | None = None
    told: float | None = None

    @property
    def level(self) -> float | None:
        """The call level; None: no call."""
        return self.sigma if self.sigma is None or self.told is None else self.told


class Solver(Protocol):
    """A solver: `order` of its error in the step size, and its rows on a grid of noise levels."""

    @property
    def order(self) -> int: ...

    def rows(self, grid: Sequence[float]) -> list[Row]: ...


def pairs(grid: Sequence[float]) -> list[tuple[float, float]]:
    """`(sigma, sigma_next)` of every step.

    Raises:
        ValueError: fewer than two levels, or not descending to at least 0.
    """
    steps = list(pairwise(grid))
    if not steps or any(not sigma > sigma_next >= 0 for sigma, sigma_next in steps):
        raise ValueError(f"grid: levels must descend strictly to at least 0, two or more of them, got {list(grid)}")
    return steps


def calls(rows: Sequence[Row]) -> int:
    """Network calls a sample."""
    return sum(row.sigma is not None for row in rows)

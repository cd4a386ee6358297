"""Multistep solvers in the slope `d = (x - D) / t`, which `dx/dt = d` follows: iPNDM and DEIS-tAB.

`x' = x + sum_j w_j d_j`: the slopes of the last steps, extrapolated. A slope holds the state it was taken at, so rows
read earlier states beside earlier predictions: `a = 1 + w_0 / t_0`, `b_j = -w_j / t_j`, `states_j = w_j / t_j`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.solver.row import Row, pairs

MAX_ORDER = 4
# Adams-Bashforth weights of equal steps, by the number of slopes, newest first
EQUAL_STEPS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class IPNDM:
    """`x' = x + (s - t) sum_j w_j d_j` with the Adams-Bashforth weights `w` of equal steps, whatever the grid.

    The weights are exact for equal steps alone: on other grids the order is 1, whatever `steps`.

    Args:
        steps: slopes that a step reads, 1 to 4; the first steps read those there are.

    Raises:
        ValueError: another number.

    Reference: "Fast Sampling of Diffusion Models with Exponential Integrator" (Zhang, Chen, 2022,
    https://arxiv.org/abs/2204.13902), after "Pseudo Numerical Methods for Diffusion Models on Manifolds" (Liu, Ren,
    Lin, Zhao, 2022, https://arxiv.org/abs/2202.09778).
    """

    steps: int = 4
    order = 1  # weights of equal steps on grids of unequal ones

    def __post_init__(self) -> None:
        _require("IPNDM", self.steps, MAX_ORDER)

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step, one network call a row."""
        levels: list[float] = []  # where slopes were taken, newest first
        rows = []
        for t, s in pairs(grid):
            levels = [t, *levels][: self.steps]
            rows.append(slope_row(levels, [(s - t) * w for w in EQUAL_STEPS[len(levels) - 1]]))
        return rows


@dataclass(frozen=True)
class DEIS:
    """`x' = x + int_t^s P(u) du`, `P` the polynomial in `u` through the last slopes: tAB-DEIS in `t = sigma`.

    Args:
        steps: slopes beside the newest that the polynomial reads, 1 to 3; the first steps read those there are.

    Raises:
        ValueError: another number.

    Reference: "Fast Sampling of Diffusion Models with Exponential Integrator" (Zhang, Chen, 2022,
    https://arxiv.org/abs/2204.13902).
    """

    steps: int = 3

    def __post_init__(self) -> None:
        _require("DEIS", self.steps, MAX_ORDER - 1)

    @property
    def order(self) -> int:
        return self.steps + 1

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step, one network call a row."""
        levels: list[float] = []
        rows = []
        for t, s in pairs(grid):
            levels = [t, *levels][: self.steps + 1]
            rows.append(slope_row(levels, lagrange_integrals(levels, s)))
        return rows


def slope_row(levels: Sequence[float], weights: Sequence[float]) -> Row:
    """`x' = x + sum_j w_j d_j` with slopes taken at `levels`, newest first."""
    shares = [w / t for w, t in zip(weights, levels, strict=True)]
    return Row(levels[0], 1 + shares[0], tuple(-share for share in shares), states=(0.0, *shares[1:]))


def lagrange_integrals(levels: Sequence[float], end: float) -> list[float]:
    """`int_{levels[0]}^end L_j(u) du` of the Lagrange polynomials through `levels`."""
    first, step = levels[0], end - levels[0]
    nodes = [(level - first) / step for level in levels]  # in units of the step, from its beginning
    integrals = []
    for node in nodes:
        polynomial = [1.0]  # 1 at this node and 0 at the others; constant term first
        for other in nodes:
            if other != node:
                shifted = zip([0.0, *polynomial], [*polynomial, 0.0], strict=True)
                polynomial = [(below - other * same) / (node - other) for below, same in shifted]
        integrals.append(step * sum(c / (k + 1) for k, c in enumerate(polynomial)))
    return integrals


def _require(name: str, steps: object, most: int) -> None:
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= most:
        raise ValueError(f"{name}: steps must be an integer from 1 to {most}, got {steps!r}")

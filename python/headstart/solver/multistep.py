"""DPM-Solver++ multistep solvers: exponential integrators in `lambda = -ln sigma` that reuse earlier predictions.

Reference: "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models" (Lu et al., 2022,
https://arxiv.org/abs/2211.01095).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.argument import require_number
from headstart.solver.row import Row, pairs


@dataclass(frozen=True)
class DPMpp2M:
    """`x' = r x + (1 - r) [(1 + 1/(2q)) D_0 - 1/(2q) D_1]`, `r = s/t`, `h = ln(t/s)`, `q = h_last / h`.

    The first step and the step to 0 are first-order.
    """

    order = 2

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step, one network call a row."""
        return _second_order_rows(grid, eta=0.0)


@dataclass(frozen=True)
class DPMppSDE2M:
    """`x' = a x + (1 - a) [(1 + 1/(2q)) D_0 - 1/(2q) D_1] + s sqrt(1 - exp(-2 eta h)) z`, `a = r exp(-eta h)`.

    Args:
        eta: strength of the fresh noise, at least 0; 0 is `DPMpp2M`.

    Raises:
        ValueError: eta below 0 or infinite.
        TypeError: eta is no number.
    """

    eta: float = 1.0
    order = 2  # of the mean and variance of a Gaussian

    def __post_init__(self) -> None:
        object.__setattr__(self, "eta", require_number("DPMppSDE2M", "eta", self.eta, "a number of at least 0"))
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"DPMppSDE2M: eta must be at least 0 and finite, got {self.eta}")

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step; the step to 0 adds no noise."""
        return _second_order_rows(grid, self.eta)


def _second_order_rows(grid: Sequence[float], eta: float) -> list[Row]:
    rows: list[Row] = []
    h_last = None
    for t, s in pairs(grid):
        if s == 0:
            rows.append(Row(t, 0.0, (1.0,)))
            break
        h = math.log(t / s)
        a = math.exp(-(1 + eta) * h)
        c = s * math.sqrt(-math.expm1(-2 * eta * h))
        lean = 0.0 if h_last is None else h / (2 * h_last)
        b = (1 - a,) if h_last is None else ((1 - a) * (1 + lean), -(1 - a) * lean)
        rows.append(Row(t, a, b, c))
        h_last = h
    return rows


@dataclass(frozen=True)
class DPMpp3M:
    """The parabola through the last three predictions, integrated exactly: third order.

    With `D(lambda + tau h) = D_0 + tau d_1 + tau^2 d_2` (divided differences of `D_0, D_1, D_2`):
    `x' = r x + (1 - r) D_0 + I_1 d_1 + I_2 d_2`, `I_1 = 1 - (1 - r)/h`, `I_2 = 1 - 2 I_1 / h`. The published solver
    halves `I_2`, which makes it second-order (`DPMppSDE3M(eta=0)`); this one does not. The first two steps have the
    order that their history allows, the step to 0 is first-order.
    """

    order = 3

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step, one network call a row."""
        return _third_order_rows(grid, eta=0.0, share=1.0)


@dataclass(frozen=True)
class DPMppSDE3M:
    """The published third-order step with fresh noise: `x' = a x + (1 - a) D_0 + I_1 d_1 + I_2/2 d_2 + c z`.

    `a = r exp(-eta h)`, `c = s sqrt(1 - exp(-2 eta h))`; `d_1`, `d_2`, `I_1` and `I_2` are those of `DPMpp3M` with `a`
    and `(1 + eta) h` for `r` and `h`. It counts half the parabola's bend, as in the published code, so its order is 2;
    with eta = 0 it is the published DPM-Solver++ 3M, where `DPMpp3M` counts all of it. The first two steps have the
    order that their history allows, the step to 0 is first-order and adds no noise.

    Args:
        eta: strength of the fresh noise, at least 0.

    Raises:
        ValueError: eta below 0 or infinite.
        TypeError: eta is no number.

    Reference: `sample_dpmpp_3m_sde` of k-diffusion (Crowson, 2023, https://github.com/crowsonkb/k-diffusion).
    """

    eta: float = 1.0
    order = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "eta", require_number("DPMppSDE3M", "eta", self.eta, "a number of at least 0"))
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"DPMppSDE3M: eta must be at least 0 and finite, got {self.eta}")

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step, one network call a row."""
        return _third_order_rows(grid, self.eta, share=0.5)


def _third_order_rows(grid: Sequence[float], eta: float, share: float) -> list[Row]:
    """`share`: how much of the parabola's bend counts."""
    rows: list[Row] = []
    history: list[float] = []  # earlier step sizes, newest first
    for t, s in pairs(grid):
        if s == 0:
            rows.append(Row(t, 0.0, (1.0,)))
            break
        h = math.log(t / s)
        a = math.exp(-(1 + eta) * h)
        c = s * math.sqrt(-math.expm1(-2 * eta * h))
        first = 1 + math.expm1(-(1 + eta) * h) / ((1 + eta) * h)
        second = share * (1 - 2 * first / ((1 + eta) * h))
        if not history:
            b: tuple[float, ...] = (1 - a,)
        elif len(history) == 1:
            lean = first * h / history[0]
            b = (1 - a + lean, -lean)
        else:
            p, q = history[0] / h, history[1] / h
            # d_1 = e_0 + p d_2, d_2 = (e_0 - e_1) / (p + q), e_0 = (D_0 - D_1) / p, e_1 = (D_1 - D_2) / q
            bend = (first * p + second) / (p + q)
            on_e0, on_e1 = first + bend, -bend
            b = (1 - a + on_e0 / p, -on_e0 / p + on_e1 / q, -on_e1 / q)
        rows.append(Row(t, a, b, c))
        history = [h, *history[:1]]
    return rows

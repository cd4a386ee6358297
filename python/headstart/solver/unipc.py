"""A multistep predictor whose every step is corrected by the prediction of the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.solver.row import Row, pairs


@dataclass(frozen=True)
class UniPC:
    """`x_s = (s/t) x_t + int_{lambda_t}^{lambda_s} e^(lambda - lambda_s) P(lambda) dlambda`, `lambda = -ln sigma`, twice a step.

    Predictor: `P` is the line through the last two predictions. Corrector: the parabola through the prediction made at
    the predicted state and the last two; the state it gives replaces the predicted one, at no further call. The member
    of order 2 of the published family, with exact integrals in place of its `B(h)`; the first step has the order that
    its history allows, the step to 0 is first-order and not corrected.

    Args:
        bh2: where the line is integrated, its slope counts half of the step, `h (1 - e^-h)/2` for the exact
            `h - 1 + e^-h`, as in the published code (`B(h) = 1 - e^-h`) and in diffusers.

    Reference: "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models" (Zhao, Bai, Rao,
    Zhou, Lu, 2023, https://arxiv.org/abs/2302.04867).
    """  # noqa: E501

    bh2: bool = False

    order = 3

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """A row with a network call that corrects the step before, and one without that predicts the next."""
        steps = pairs(grid)
        rows: list[Row] = []
        levels: list[float] = []  # where predictions were made, newest first
        for i, (t, s) in enumerate(steps):
            if s == 0:
                rows.append(Row(t, 0.0, (1.0,)))
                break
            before, levels = levels[:1], [t, *levels[:2]]
            last = i + 1 == len(steps)
            predictor = exponential(t, s, levels[:2], self.bh2)
            if before:
                rows.append(Row(t, t / before[0], exponential(before[0], t, levels, self.bh2)))
            rows.append(Row(None if before else t, s / t, predictor, commit=last))
        return rows


def exponential(t: float, s: float, levels: Sequence[float], bh2: bool = False) -> tuple[float, ...]:
    """Weights of the integral from `t` to `s` of a polynomial through predictions at `levels`; `bh2` as in `UniPC`."""
    h = math.log(t / s)
    nodes = [math.log(t / level) / h for level in levels]
    moments = [-math.expm1(-h) / h]  # int_0^1 e^{(u - 1) h} u^k du
    for k in range(1, len(nodes)):
        moments.append(moments[0] / 2 if bh2 and len(nodes) == 2 else (1 - k * moments[-1]) / h)
    weights = []
    for node in nodes:
        polynomial = [1.0]  # Lagrange's, 1 at this node and 0 at the others; constant term first
        for other in nodes:
            if other != node:
                shifted = zip([0.0, *polynomial], [*polynomial, 0.0], strict=True)
                polynomial = [(below - other * same) / (node - other) for below, same in shifted]
        weights.append(h * sum(c * m for c, m in zip(polynomial, moments, strict=True)))
    return tuple(weights)

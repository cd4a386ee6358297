"""The unknowns of tuning, those parts of a plan that it changes, as one vector.

Row i of a plan is `x' = a x + (1 - r) sum_j w_j D_{i-j}`, `r = sigma_{i+1} / sigma_i`, with `D_i` the denoiser at the
call level `m_i sigma_i`. The unknowns `u` are added to a plan that is given (at `u = 0` it is that plan): logarithms of
the log-gaps between nodes, `ln m_i` of every row after the first, and for every row shares of some directions in its
weights `w`: a gain `D_i` and a bend `D_i - D_{i-1}`, or every known prediction by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from headstart.solver.plan import MAX_PREDICTIONS, Plan
from headstart.solver.row import Row

MAX_GAP, MAX_LEVEL, MIN_GAP = 1.5, 0.7, 0.02  # of the unknowns, in size; of a log-gap, at least


@dataclass(frozen=True)
class Unknowns:
    """A plan, and the directions of each row's weights that move.

    Attributes:
        plan: what they are added to.
        directions: for each row the directions, each a weight for every known prediction, newest first.
    """

    plan: Plan
    directions: tuple[tuple[tuple[float, ...], ...], ...]

    @classmethod
    def of(cls, plan: Plan, free: bool) -> Unknowns:
        """All weights free, or a gain and a bend a row."""
        history = 0 if plan.ghost is None else 2
        directions = []
        for i in range(len(plan.table)):
            known = min(i + 1 + history, MAX_PREDICTIONS)
            if free:
                own = [tuple(float(j == k) for j in range(known)) for k in range(known)]
            else:
                own = [(1.0,), (1.0, -1.0)][: min(known, 2)]
            directions.append(tuple(own))
        return cls(plan, tuple(directions))

    @property
    def size(self) -> int:
        """How many there are."""
        return 2 * (len(self.plan.table) - 1) + sum(len(own) for own in self.directions)

    def nodes(self, u: Sequence[float]) -> list[float]:
        """The noise levels, the last 0."""
        levels = [self.plan.nodes[0]]
        for (above, below), change in zip(pairwise(self.plan.nodes[:-1]), u, strict=False):
            gap = math.log(above / below) * math.exp(max(-MAX_GAP, min(MAX_GAP, change)))
            levels.append(levels[-1] * math.exp(-max(gap, MIN_GAP)))
        return [*levels, 0.0]

    def rows(self, u: Sequence[float]) -> tuple[Row, ...]:
        """The table at `u`."""
        n, levels = len(self.plan.table), self.nodes(u)
        told, shares = [0.0, *u[n - 1 : 2 * n - 2]], list(u[2 * n - 2 :])
        rows = []
        for i, (row, own) in enumerate(zip(self.plan.table, self.directions, strict=True)):
            sigma, level = float(row.sigma or 0.0), float(row.level or 0.0)
            before = self.plan.nodes[i + 1] / self.plan.nodes[i]
            r = levels[i + 1] / levels[i]
            weight = [b / (1 - before) for b in row.b]
            for direction in own:
                share = shares.pop(0)
                weight += [0.0] * (len(direction) - len(weight))
                weight = [w + share * (direction[j] if j < len(direction) else 0.0) for j, w in enumerate(weight)]
            while len(weight) > 1 and weight[-1] == 0:
                weight.pop()
            factor = level / sigma * math.exp(max(-MAX_LEVEL, min(MAX_LEVEL, told[i])))
            a = row.a * r / before if before else row.a
            at = None if factor == 1 else factor * levels[i]
            rows.append(Row(levels[i], a, tuple((1 - r) * w for w in weight), told=at))
        return tuple(rows)

    def plan_at(self, u: Sequence[float], provenance: Mapping[str, Any] | None = None) -> Plan:
        """The plan at `u`; the given one itself at 0."""
        if not any(u):
            return self.plan
        errors = self.plan.expected_error, self.plan.classic_error
        return Plan(tuple(self.nodes(u)), self.rows(u), self.plan.ghost, *errors, dict(provenance or {}))

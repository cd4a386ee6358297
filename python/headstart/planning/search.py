"""The search of tuning: a plan as a vector of numbers, and Levenberg-Marquardt with finite differences on it.

Row i of a plan is `x' = a x + (1 - r) sum_j w_j D_{i-j}`, `r = sigma_{i+1} / sigma_i`, with `D_i` the denoiser at the
call level `m_i sigma_i`. The unknowns `u` are added to a plan that is given (at `u = 0` it is that plan): logarithms of
the log-gaps between nodes, `ln m_i` of every row after the first, and for every row shares of some directions in its
weights `w`: a gain `D_i` and a bend `D_i - D_{i-1}`, or every known prediction by itself.

Damped Gauss-Newton steps from residuals alone.

With residuals `r(u)`, finite differences `J`, damping `l` and a ridge `k` towards the origin:

    (J^T J + l diag(J^T J) + k t I) d = -(J^T r + k t u),    t = mean diag(J^T J)

References: "A Method for the Solution of Certain Non-Linear Problems in Least Squares" (Levenberg, 1944,
https://doi.org/10.1090/qam/10666); "An Algorithm for Least-Squares Estimation of Nonlinear Parameters" (Marquardt,
1963, https://doi.org/10.1137/0111030).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from headstart.planning.runner import Latents, OverBudget, Runner
from headstart.planning.target import Goal, Merit, figures, paired_rows
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
            a = r + (row.a - before) * (1 - r) / (1 - before)  # a state that all predictions agree on stays one
            at = None if factor == 1 else factor * levels[i]
            rows.append(Row(levels[i], a, tuple((1 - r) * w for w in weight), told=at))
        return tuple(rows)

    def plan_at(self, u: Sequence[float], provenance: Mapping[str, Any] | None = None) -> Plan:
        """The plan at `u`; the given one itself at 0."""
        if not any(u):
            return self.plan
        errors = self.plan.expected_error, self.plan.classic_error
        return Plan(tuple(self.nodes(u)), self.rows(u), self.plan.ghost, *errors, dict(provenance or {}))


STEP = 0.02  # of the finite differences
MAX_STEP = 0.5  # change of an unknown in one step
TRAIN, CHOICE, HELD = range(3)  # sets of latents
DAMPING = {"data": 0.05, "network": 0.01}
RIDGE = 1e-3
MIXES = (0.0, 0.1, 1.0)  # shares of the paired residual beside the data's, each in parts of its own floor
RETRIES = 2
MIN_GAIN = 0.03  # of the merit, on the latents that a choice is made on
RANKED = 4  # one latent in so many ranks the tables that a search may begin from


@dataclass
class Setup:
    """A tuning under way: what is run, what is aimed at, and the states of each set with their fine solutions.

    Attributes:
        by_distance: distances decide: the plan given makes samples that the data do not tell from real ones.
    """

    runner: Runner
    goal: Goal
    states: list[Latents]
    fine: list[Tensor]
    by_distance: bool = False

    def end(self, plan: Plan, which: int, count: int | None = None) -> Tensor:
        return self.runner.run(plan.table, plan.ghost, self.states[which], count)

    def merit(self, plan: Plan, which: int, count: int | None = None) -> Merit:
        """Of the first `count` latents of a set, or all."""
        return self.goal.merit(self.end(plan, which, count), self.fine[which])

    def best(self, tables: Sequence[Plan]) -> Plan:
        """The table to begin from. Some of the latents tell: they are the same for all tables."""
        if len(tables) == 1:
            return tables[0]
        count = ranking(len(self.states[TRAIN].x), len(self.fine[TRAIN]))
        merits = [self.merit(one, TRAIN, count) for one in tables]
        nearest = min(merits, key=lambda one: one.plain)
        values = [one.value(nearest) for one in merits]
        return tables[values.index(min(values))]


def ranking(n: int, paired: int) -> int:
    """Latents that rank tables: some of those there are, all those with fine solutions among them."""
    return max(paired, n // RANKED)


def search(task: Setup, tables: Sequence[Plan], iterations: int, kind: str) -> tuple[Plan, list[dict[str, Any]], Plan]:
    """The table it began from, what was tried, and the best on the second set of latents."""
    given = task.best(tables)
    unknowns = Unknowns.of(given, kind == "network")
    scale = task.merit(given, CHOICE)
    # two sets of latents, so that chance in one does not count as a fault that data should mend
    by_distance = task.by_distance = scale.real or task.merit(given, TRAIN).real
    best, least, waited = given, scale.value(scale, by_distance) - MIN_GAIN, 0
    steps: list[dict[str, Any]] = []
    u, damping = torch.zeros(unknowns.size, dtype=torch.float64, device="cpu"), DAMPING[kind]
    try:
        for iteration in range(iterations):
            moved = iterate(task, unknowns, u, damping, kind)
            u, damping = moved.u, moved.damping
            waited += 1
            for name, one in moved.tried.items():
                found = task.merit(plan := unknowns.plan_at(one.tolist()), CHOICE)
                value = found.value(scale, by_distance)
                about = {"iteration": iteration, "paired share": name}
                steps.append(about | figures(found, scale, by_distance))
                if value < least:
                    best, least, waited = plan, value, 0
            if waited == 2 or not moved.down:
                break
    except OverBudget:
        pass  # what was found so far stands
    return given, steps, best


@dataclass(frozen=True)
class Moved:
    """Where an iteration went: the next point, its damping, all points to judge, and whether the objective fell."""

    u: Tensor
    damping: float
    tried: dict[float, Tensor]
    down: bool


def iterate(task: Setup, unknowns: Unknowns, u: Tensor, damping: float, kind: str) -> Moved:
    """One set of finite differences, and steps from it."""
    goal, fine = task.goal, task.fine[TRAIN]
    here = task.end(unknowns.plan_at(u.tolist()), TRAIN)
    errors = paired_rows(goal.pairing, here, fine)
    rms = (errors.square().mean(1)).sqrt()
    weight = 1 / (rms + 0.1 * rms.mean() + 1e-12)
    weight = (weight / (weight * errors.square().sum(1)).sum().clamp_min(1e-12)).sqrt()[:, None]
    residual = goal.sets[0].residual(here) / math.sqrt(goal.floors[0]) if goal.sets else errors.new_zeros(0)
    slopes, others = [], []
    for p in range(unknowns.size):
        there = task.end(
            unknowns.plan_at(
                (u + STEP * torch.eye(unknowns.size, dtype=torch.float32, device="cpu").double()[p]).tolist()
            ),
            TRAIN,
        )
        change = paired_rows(goal.pairing, there, fine) - errors
        slopes.append(((weight * change) / STEP).flatten().float())
        if goal.sets:
            others.append((goal.sets[0].residual(there) / math.sqrt(goal.floors[0]) - residual) / STEP)
    pair = torch.stack(slopes, 1).double()
    normal, slope = pair.T @ pair, pair.T @ (weight * errors).flatten()
    if kind == "network":
        parts = {1.0: (normal, slope)}
    else:
        rows = torch.stack(others, 1)
        own, fall = rows.T @ rows, rows.T @ residual
        parts = {share: (own + share * normal, fall + share * slope) for share in MIXES}
    main = next(iter(parts))
    level, down = goal.objective(here, fine), False
    point = u
    for _ in range(RETRIES):
        point = u + damped_step(*parts[main], u, damping, RIDGE)
        down = goal.objective(task.end(unknowns.plan_at(point.tolist()), TRAIN), fine) < level
        damping = damping / 3 if down else damping * 4
        if down:
            break
    tried = {share: u + damped_step(*part, u, damping, RIDGE) for share, part in parts.items() if share != main}
    return Moved(point if down else u, damping, {**({main: point} if down else {}), **tried}, down)


def damped_step(normal: Tensor, slope: Tensor, u: Tensor, damping: float, ridge: float) -> Tensor:
    """The step `d` `[P]` of the module's equation; `normal` `[P, P]` is `J^T J`, `slope` `[P]` is `J^T r`."""
    size = max(float(normal.diagonal().mean()), 1e-12)
    own = normal.diagonal().clamp_min(1e-6 * size)  # an unknown that does nothing stays where it is
    system = normal + torch.diag(damping * own + ridge * size)
    step = torch.linalg.solve(system, -(slope + ridge * size * u))
    return step.nan_to_num(0.0, 0.0, 0.0).clamp(-MAX_STEP, MAX_STEP)  # a table that explodes gives no direction

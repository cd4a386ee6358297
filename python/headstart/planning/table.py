"""The rows of a plan as functions of the parameters that are fitted, and their fit.

`x' = r x + (1 - r) [D_0 + b_1 e_0 + b_2 e_1]`, `r = sigma_next / sigma`, with `e_0 = D_0 - D_1` the newest
difference of predictions and `e_1` the one before. With free history the oldest difference is that of the start's own
predictions at the first noise level and above it. Levels are `sigma_i = sigma_0 exp(-sum_j exp(gap_j))`, then 0.
Adam lowers the paired error to fine solutions from several initial grids; the best on validation is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from headstart.planning.flow import ReducedFlow
from headstart.solver import DPMpp2M, Row
from headstart.solver.grid import karras, log_uniform
from headstart.solver.plan import SIGMA_MAX

GHOST = 1.8  # where free history is taken, above the first noise level


@dataclass
class PlanTable:
    """The parameters: `gap` `[n - 1]`, logarithms of the log-gaps, and `bend` `[n, 2]`, the coefficients `b_1, b_2`."""

    sigma: float
    gap: Tensor
    bend: Tensor
    free_history: bool

    @classmethod
    def of_grid(cls, grid: Sequence[float], free_history: bool) -> PlanTable:
        """DPM-Solver++ 2M on a grid that ends in 0."""
        h = [math.log(t / s) for t, s in pairwise(grid[:-1])]
        n = len(grid) - 1
        last = [math.log(GHOST) if free_history else math.inf, *h]
        bend = torch.zeros(n, 2, dtype=torch.float64, device="cpu")
        bend[: n - 1, 0] = torch.tensor(
            [new / (2 * old) for new, old in zip(h, last, strict=False)], dtype=torch.float32, device="cpu"
        )
        return cls(float(grid[0]), torch.tensor(h, dtype=torch.float64, device="cpu").log(), bend, free_history)

    def copy(self) -> PlanTable:
        return PlanTable(self.sigma, self.gap.detach().clone(), self.bend.detach().clone(), self.free_history)

    def levels(self) -> Tensor:
        """The noise levels `[n]` where the network is called."""
        return self.sigma * torch.cat([self.gap.new_zeros(1), -self.gap.exp().cumsum(0)]).exp()

    def differences(self, i: int) -> int:
        """How many differences row `i` has, at most 2."""
        return min(2, i + self.free_history)

    def run(self, flow: ReducedFlow, x: Tensor, history: Sequence[Tensor]) -> Tensor:
        """The end point of the table's steps on the flow, differentiable in `gap` and `bend`."""
        levels = self.levels().to(x.dtype)
        bend, n = self.bend.to(x.dtype), len(levels)
        differences = [history[0] - history[1]] if self.free_history else []
        last: Tensor | None = None
        for i in range(n):
            now = flow.denoise(x, levels[i])
            differences = [now - last, *differences][:2] if last is not None else differences
            guess = now
            for j in range(self.differences(i)):
                guess = guess + bend[i, j] * differences[j]
            x = guess if i == n - 1 else guess + levels[i + 1] / levels[i] * (x - guess)
            last = now
        return x

    def penalty(self, error: Tensor) -> Tensor:
        """Variance that independent errors of the predictions add through the differences; `error` `[n]`: their rms."""
        levels, n = self.levels().detach(), len(error)
        left = 1 - torch.cat([levels[1:], levels.new_zeros(1)]) / levels
        square = error.square()
        pairs = square + torch.cat([square[:1], square[:-1]])
        older = torch.cat([pairs[:1], pairs[:-1]])
        used = torch.tensor(
            [[self.differences(i) > j for j in range(2)] for i in range(n)], dtype=torch.bool, device="cpu"
        )
        b = torch.where(used, self.bend, self.bend.new_zeros(())).square()
        return (left.square() * (b[:, 0] * pairs + b[:, 1] * older)).sum()

    def rows(self) -> list[Row]:
        """The affine rows, float64; predictions newest first, then the free history."""
        levels = [*self.levels().tolist(), 0.0]
        rows = []
        for i in range(len(levels) - 1):
            weight = [1.0] + [0.0] * (i + 2 * self.free_history)
            for j in range(self.differences(i)):
                at = j if j < i else i + 1  # the free difference stands behind every prediction of the network
                weight[at] += float(self.bend[i, j])
                weight[at + 1] -= float(self.bend[i, j])
            while weight[-1] == 0:
                weight.pop()
            r = levels[i + 1] / levels[i]
            rows.append(Row(levels[i], r, tuple((1 - r) * w for w in weight)))
        return rows


def measure_classic(flow: ReducedFlow, x: Tensor, target: Tensor, grid: Sequence[float]) -> float:
    """Mean over samples of the root-mean-square error of DPM-Solver++ 2M on a grid, from states at its first level."""
    history: list[Tensor] = []
    for row in DPMpp2M().rows(grid):
        history = [flow.denoise(x, float(row.sigma or 0)), *history[:1]]
        x = row.a * x
        for b, denoised in zip(row.b, history, strict=False):
            x = x + b * denoised
    return float(flow.square((x - target).double()).sqrt().mean())


LEVELS = (0.02, 0.05, 0.1, 0.2)  # last levels of the initial grids, of the law's scale
RATE = 0.03
TRIALS, TRIAL_STEPS = 2, 30
CHECK, PATIENCE = 20, 4
MIN_GAP = 0.05  # of log sigma, between two levels


@dataclass(frozen=True)
class Trajectories:
    """States `[N, m]` at the first level, where the flow takes them, and the start's own predictions above."""

    x: Tensor
    target: Tensor
    history: tuple[Tensor, ...]

    def part(self, rows: Tensor | slice) -> Trajectories:
        return Trajectories(self.x[rows], self.target[rows], tuple(h[rows] for h in self.history))


def draw_trajectories(
    flow: ReducedFlow, sigma: float, n: int, free_history: bool, steps: int, generator: torch.Generator
) -> Trajectories:
    """Exact points of the noised law, at 80 the classic latents; fine solutions of `steps` steps."""
    with torch.no_grad():
        x = flow.sample(n, sigma, generator)[1]
        if sigma == SIGMA_MAX:
            x = sigma * torch.randn(n, x.shape[1], generator=generator, dtype=torch.float64, device="cpu").to(x)
        if not free_history:
            return Trajectories(x, flow.solve(x, sigma, steps), ())
        near = flow.denoise(x, sigma)
        above = flow.denoise(GHOST * x + (1 - GHOST) * near, GHOST * sigma)
        return Trajectories(x, flow.solve(x, sigma, steps), (near, above))


def initial_grids(sigma: float, scale: float, nfe: int) -> list[list[float]]:
    """Log-uniform and Karras grids with several last levels."""
    if nfe == 1:
        return [[sigma, 0.0]]
    last = [level * scale for level in LEVELS if level * scale < 0.5 * sigma] or [0.1 * sigma]
    return [make(sigma, low, nfe).tolist() for low in last for make in (log_uniform, karras)]


def rank_grids(flow: ReducedFlow, data: Trajectories, sigma: float, nfe: int) -> tuple[float, list[list[float]]]:
    """Error of the best 2M grid, and the grids from best to worst."""
    with torch.no_grad():
        scored = [
            (measure_classic(flow, data.x, data.target, grid), grid) for grid in initial_grids(sigma, flow.scale, nfe)
        ]
    scored.sort(key=lambda pair: pair[0])
    return scored[0][0], [grid for _, grid in scored]


def measure_error(flow: ReducedFlow, table: PlanTable, data: Trajectories) -> float:
    """Mean over samples of the root-mean-square error."""
    with torch.no_grad():
        end = table.run(flow, data.x, data.history)
    return float(flow.square((end - data.target).double()).sqrt().mean())


@dataclass
class TableFit:
    """A table being fitted, with the state of Adam, and the best so far on validation."""

    flow: ReducedFlow
    table: PlanTable
    train: Trajectories
    check: Trajectories
    noise: Callable[[Tensor], Tensor]
    generator: torch.Generator
    batch: int

    def __post_init__(self) -> None:
        for parameter in (self.table.gap, self.table.bend):
            parameter.requires_grad_(True)
        self.adam = torch.optim.Adam([self.table.gap, self.table.bend], lr=RATE, betas=(0.9, 0.99))
        self.best, self.error = self.table.copy(), self.score()

    def score(self) -> float:
        """Validation error with the penalty."""
        table = self.table.copy()
        error = measure_error(self.flow, table, self.check)
        return float((error**2 + table.penalty(self.noise(table.levels()))).sqrt())

    def run(self, steps: int, rate: Callable[[int], float], advance: Callable[..., None]) -> None:
        """`steps` iterations; stops early where validation no longer improves."""
        waited = 0
        for step in range(steps):
            for group in self.adam.param_groups:
                group["lr"] = RATE * rate(step)
            self.iterate()
            advance()
            if (step + 1) % CHECK == 0 or step + 1 == steps:
                error = self.score()
                waited = 0 if error < self.error else waited + 1
                if error < self.error:
                    self.best, self.error = self.table.copy(), error
                if waited >= PATIENCE:
                    break

    def iterate(self) -> None:
        rows = torch.randint(
            len(self.train.x), (self.batch,), generator=self.generator, dtype=torch.int64, device="cpu"
        )
        data = self.train.part(rows)
        with torch.enable_grad():  # whatever the caller has switched off
            end = self.table.run(self.flow, data.x, data.history)
            added = self.table.penalty(self.noise(self.table.levels().detach()))
            loss = (self.flow.square(end - data.target) + added + 1e-20).sqrt().mean()
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([self.table.gap, self.table.bend], 1.0)
        if all(bool(p.grad.isfinite().all()) for p in (self.table.gap, self.table.bend) if p.grad is not None):
            self.adam.step()
        with torch.no_grad():
            self.table.gap.clamp_(min=torch.tensor(MIN_GAP, dtype=torch.float32, device="cpu").log().item(), max=2.0)

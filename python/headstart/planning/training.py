"""Fitting a table: Adam on the paired error to fine solutions, several initial grids, best on validation kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.grid import karras, log_uniform
from headstart.plan import SIGMA_MAX
from headstart.planning.flow import Flow
from headstart.planning.table import GHOST, Table, classic_error

LEVELS = (0.02, 0.05, 0.1, 0.2)  # last levels of the initial grids, of the law's scale
RATE = 0.03
TRIALS, TRIAL_STEPS = 2, 30
CHECK, PATIENCE = 20, 4
LEAST_GAP = 0.05  # of log sigma, between two levels


@dataclass(frozen=True)
class Trajectories:
    """States `[N, m]` at the first level, where the flow takes them, and the start's own predictions above."""

    x: Tensor
    target: Tensor
    history: tuple[Tensor, ...]

    def part(self, rows: Tensor | slice) -> Trajectories:
        return Trajectories(self.x[rows], self.target[rows], tuple(h[rows] for h in self.history))


def trajectories(
    flow: Flow, sigma: float, n: int, free_history: bool, steps: int, generator: torch.Generator
) -> Trajectories:
    """Exact points of the noised law, at 80 the classic latents; fine solutions of `steps` steps."""
    with torch.no_grad():
        x = flow.sample(n, sigma, generator)[1]
        if sigma == SIGMA_MAX:
            x = sigma * torch.randn(n, x.shape[1], generator=generator, dtype=torch.float64).to(x)
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


def best_classic(flow: Flow, data: Trajectories, sigma: float, nfe: int) -> tuple[float, list[list[float]]]:
    """Error of the best 2M grid, and the grids from best to worst."""
    with torch.no_grad():
        scored = [
            (classic_error(flow, data.x, data.target, grid), grid) for grid in initial_grids(sigma, flow.scale, nfe)
        ]
    scored.sort(key=lambda pair: pair[0])
    return scored[0][0], [grid for _, grid in scored]


def error_of(flow: Flow, table: Table, data: Trajectories) -> float:
    """Mean over samples of the root-mean-square error."""
    with torch.no_grad():
        end = table.run(flow, data.x, data.history)
    return float(flow.square((end - data.target).double()).sqrt().mean())


@dataclass
class Fit:
    """A table being fitted, with the state of Adam, and the best so far on validation."""

    flow: Flow
    table: Table
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
        error = error_of(self.flow, table, self.check)
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
        rows = torch.randint(len(self.train.x), (self.batch,), generator=self.generator)
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
            self.table.gap.clamp_(min=torch.tensor(LEAST_GAP).log().item(), max=2.0)

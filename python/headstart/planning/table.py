"""The rows a plan is made of, as functions of what is fitted.

`x' = r x + (1 - r) [D_0 + b_1 e_0 + b_2 e_1]`, `r = sigma_next / sigma`, with `e_0 = D_0 - D_1` the newest
difference of predictions and `e_1` the one before. With free history the oldest difference is that of the start's own
predictions at the first noise level and above it. Levels are `sigma_i = sigma_0 exp(-sum_j exp(gap_j))`, then 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from headstart.planning.flow import Flow
from headstart.solver import DPMpp2M, Row

GHOST = 1.8  # where free history is taken, above the first noise level


@dataclass
class Table:
    """What is fitted: `gap` `[n - 1]`, logarithms of the log-gaps, and `bend` `[n, 2]`, the coefficients `b_1, b_2`."""

    sigma: float
    gap: Tensor
    bend: Tensor
    free_history: bool

    @classmethod
    def of_grid(cls, grid: Sequence[float], free_history: bool) -> Table:
        """DPM-Solver++ 2M on a grid that ends in 0."""
        h = [math.log(t / s) for t, s in pairwise(grid[:-1])]
        n = len(grid) - 1
        last = [math.log(GHOST) if free_history else math.inf, *h]
        bend = torch.zeros(n, 2, dtype=torch.float64)
        bend[: n - 1, 0] = torch.tensor([new / (2 * old) for new, old in zip(h, last, strict=False)])
        return cls(float(grid[0]), torch.tensor(h, dtype=torch.float64).log(), bend, free_history)

    def copy(self) -> Table:
        return Table(self.sigma, self.gap.detach().clone(), self.bend.detach().clone(), self.free_history)

    def levels(self) -> Tensor:
        """The noise levels `[n]` where the network is called."""
        return self.sigma * torch.cat([self.gap.new_zeros(1), -self.gap.exp().cumsum(0)]).exp()

    def differences(self, i: int) -> int:
        """How many differences row `i` has, at most 2."""
        return min(2, i + self.free_history)

    def run(self, flow: Flow, x: Tensor, history: Sequence[Tensor]) -> Tensor:
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
        used = torch.tensor([[self.differences(i) > j for j in range(2)] for i in range(n)])
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


def classic_error(flow: Flow, x: Tensor, target: Tensor, grid: Sequence[float]) -> float:
    """Mean over samples of the root-mean-square error of DPM-Solver++ 2M on a grid, from states at its first level."""
    history: list[Tensor] = []
    for row in DPMpp2M().rows(grid):
        history = [flow.denoise(x, float(row.sigma or 0)), *history[:1]]
        x = row.a * x
        for b, denoised in zip(row.b, history, strict=False):
            x = x + b * denoised
    return float(flow.square((x - target).double()).sqrt().mean())

"""Tails along a direction: how far out a sample reaches, compared with another."""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.metrics.wasserstein import flatten, project

LEVELS = (0.9, 0.99, 0.999, 0.9999)
LEAST = 10  # points beyond a quantile for it to be given


def tail_ratios(x: Tensor, y: Tensor, direction: Tensor, levels: tuple[float, ...] = LEVELS) -> dict[float, float]:
    """Ratios of the quantiles of `|v.x - m|` to those of `|v.y - m|`, `m` the median of `v.y`: 1 where tails agree.

    Args:
        x, y: samples `[N, *shape]`, `[M, *shape]`.
        direction: v `[D]`, of any length above 0.
        levels: quantiles; those with fewer than 10 points of x or y beyond them are left out.

    Raises:
        ValueError: shapes that differ, no samples, samples that are not finite, or another direction.
    """
    x, y = flatten("tail_ratios", x, y)
    if tuple(direction.shape) != (x.shape[1],) or not float(direction.norm()) > 0:
        raise ValueError(f"tail_ratios: direction must be [{x.shape[1]}] and not 0, got {list(direction.shape)}")
    along, other = (project(part, direction[None].to(part.device, torch.float64))[:, 0] for part in (x, y))
    middle = other.median()
    reach, wanted = (along - middle).abs().sort().values, (other - middle).abs().sort().values
    few = min(len(x), len(y))
    return {
        level: float(reach[int(level * len(x))] / wanted[int(level * len(y))])
        for level in levels
        if round((1 - level) * few, 6) >= LEAST
    }

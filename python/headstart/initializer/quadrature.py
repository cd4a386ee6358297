"""Nodes of the mixing law of a Student-t component: the trapezoidal rule in the logarithm of the scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

ERROR = 1e-9  # relative error that spacing and ends are chosen for
REACH = 40.0  # standard deviations from the mean up to which it holds, and beyond what one sample in 1e9 needs


class Nodes(NamedTuple):
    """Nodes `w` `[Q]` and the logarithms of their masses `[Q]`, float64."""

    w: Tensor
    log_mass: Tensor


def nodes(df: float, dim: int, ratio: float) -> Nodes:
    """Nodes of the mixing law.

    At sigma = 0 the integrand in `log w` is that of a gamma law of shape `a = (df + D) / 2`, and the rule of step h is
    off by `2 |Gamma(a + i k) / Gamma(a)|`, `k = 2 pi / h`, about `2 exp(-k atan(k / a)) (1 + k^2 / a^2)^(a / 2)`; noise
    only smooths it. Left of `df / (df + M ratio)` the integrand grows, `M` the largest squared distance, and right of
    `(df + D) / df` it falls, each at a rate known from there on: both ends are cut below the error.

    Args:
        df: Degrees of freedom.
        dim: D.
        ratio: `1 + sigma^2 / l`, `l` the least eigenvalue above 0.

    Reference: "The Exponentially Convergent Trapezoidal Rule" (Trefethen, Weideman, 2014,
    https://doi.org/10.1137/130932132).
    """
    half, shape, log_error = 0.5 * df, 0.5 * (df + dim), -math.log(ERROR)
    frequency = solve(lambda k: k * math.atan(k / shape) - 0.5 * shape * math.log1p((k / shape) ** 2), log_error)
    most = (REACH + ERROR ** (-1 / df) + math.sqrt(dim)) ** 2
    low = math.log(df / (df + most * ratio)) - solve(lambda t: half * (t - 1 + math.exp(-t)), log_error)
    high = math.log((df + dim) / df) + solve(lambda t: shape * (math.expm1(t) - t), log_error)
    count = math.ceil((high - low) * frequency / (2 * math.pi)) + 1
    log_w = torch.linspace(low, high, count, dtype=torch.float64)
    peak = half * math.log(half) - math.lgamma(half) + math.log((high - low) / (count - 1))
    return Nodes(log_w.exp(), half * (log_w - log_w.exp()) + peak)


def solve(rising: Callable[[float], float], level: float) -> float:
    """Where a rising function from 0 at 0 reaches a level, by halving."""
    high = 1.0
    while rising(high) < level:
        high *= 2
    low = 0.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if rising(middle) > level else (middle, high)
    return high

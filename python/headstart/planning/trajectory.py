"""A grid of noise levels by dynamic programming on a network's own trajectories (GITS).

On a fine grid of N levels the network's trajectories are followed once. One Euler step from level i to level j misses
the trajectory by `c_ij = mean |x_j - (x_i + (t_j - t_i) d_i)|`, `d_i = (x_i - D_i) / t_i`; the grid of n steps is the
path from the first level to the last with the least sum of costs, each but the last step's counted `WEIGHT` times.

Reference: "On the Trajectory Regularity of ODE-based Diffusion Sampling" (Chen, Zhou, Wang, Shen, Xu, 2024,
https://arxiv.org/abs/2405.11326).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from headstart.argument import require_number
from headstart.sampling import integrate
from headstart.sampling.edge import check_denoiser, check_start, settle
from headstart.sampling.request import initial_state
from headstart.solver import Euler
from headstart.solver.grid import log_uniform
from headstart.start.protocol import Start

WEIGHT = 1.15  # of every step but the last: errors made early are carried on
FINE, SAMPLES = 60, 256


def gits(
    denoiser: Any, start: Start, nfe: int, sigma_min: float = 0.02, n: int = SAMPLES,
    cond: Mapping[str, Any] | None = None, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Noise levels for `nfe` network calls from `start.sigma`, chosen on the network's own trajectories.

    Costs `FINE n` network evaluations of one sample, forward calls only.

    Args:
        denoiser, start, cond: as in `sample`; tensors of `cond` have `n` rows.
        nfe: network calls of the grid: steps, the one to 0 among them.
        sigma_min: last level above 0, in units of the data.
        n: trajectories.
        seed: of the trajectories.

    Returns:
        `[nfe + 1]`, float64, from `start.sigma` to 0.

    Raises:
        ValueError, TypeError: `nfe` or `n` out of range, levels that do not descend, a start at no level, or a
            denoiser that is none; named, before any network call.
    """
    check_denoiser("gits", denoiser)
    check_start("gits", start)
    if not isinstance(nfe, int) or isinstance(nfe, bool) or not 1 <= nfe <= FINE:
        raise ValueError(f"gits: nfe must be an integer from 1 to {FINE}, got {nfe!r}")
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"gits: n must be an integer of at least 1, got {n!r}")
    sigma_min = require_number("gits", "sigma_min", sigma_min)
    if not 0 < sigma_min < start.sigma:
        raise ValueError(f"gits: sigma_min must be above 0 and below the start's {start.sigma:g}, got {sigma_min!r}")
    if nfe == 1:
        return torch.tensor([start.sigma, 0.0], dtype=torch.float64, device="cpu")
    levels = log_uniform(start.sigma, sigma_min, FINE)[:-1]
    given = settle("gits", cond, n, start)
    states = [initial_state(start, n, seed, 0, None, given)]
    for pair in levels.unfold(0, 2, 1):
        states.append(integrate(denoiser, states[-1], pair, Euler(), cond=given))
    if not bool(states[-1].isfinite().all()):
        raise ValueError("gits: denoiser must give finite results on its own trajectories, got NaN or infinity")
    steps = best_path(costs(states, levels.tolist()), nfe - 1)
    return torch.cat([levels[steps], levels.new_zeros(1)])


def costs(states: list[Tensor], levels: list[float]) -> Tensor:
    """`c_ij` `[N, N]` for i < j, infinite elsewhere. Slopes are those of the Euler steps between neighbours."""
    count = len(levels)
    cost = torch.full((count, count), math.inf, dtype=torch.float64, device="cpu")
    flat = [state.double().flatten(1) for state in states]
    for i in range(count - 1):
        slope = (flat[i + 1] - flat[i]) / (levels[i + 1] - levels[i])
        for j in range(i + 1, count):
            cost[i, j] = (flat[j] - flat[i] - (levels[j] - levels[i]) * slope).norm(dim=1).mean()
    return cost


def best_path(cost: Tensor, steps: int) -> list[int]:
    """Indices `[steps + 1]` of the cheapest path from the first level to the last."""
    count = len(cost)
    left = cost[:, -1].clone()  # the least cost from each level in one step, then in two, ...
    choices: list[Tensor] = []
    for _ in range(steps - 1):
        total = WEIGHT * cost + left[None, :]
        left, choice = total.min(dim=1)
        choices.append(choice)
    path = [0]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    path.append(count - 1)
    assert all(i < j for i, j in pairwise(path))
    return path

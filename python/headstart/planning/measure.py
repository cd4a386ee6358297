"""What a plan is measured by on the start alone: the noise to allow for, and the error to expect."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import headstart.sample as composer
from headstart import ops
from headstart.grid import log_uniform
from headstart.initializer import Classic, GaussianMixture, Start
from headstart.initializer.transport import asinh_levels, descend, second_moments
from headstart.plan import SIGMA_MAX, Plan
from headstart.planning.flow import LEAST_SIGMA, Flow
from headstart.solver import DPMpp2M

POINTS, FRESH, FINE = 128, 256, 64
LEAST_NETWORK, CALLS = 0.005, 40  # of the fine solution of a network


def noise_of(flow: Flow, share: float, seed: int) -> Callable[[Tensor], Tensor]:
    """Root-mean-square error to allow for in a prediction at each level: `share` of the start's own denoising error."""
    log_levels = torch.linspace(math.log(LEAST_SIGMA * flow.scale), math.log(SIGMA_MAX), 24, dtype=torch.float64)
    errors = []
    with torch.no_grad():
        for level in log_levels.exp().tolist():
            clean, x = flow.sample(POINTS, level, generator(seed, 4))
            errors.append(float(flow.square((flow.denoise(x, level) - clean).double()).mean().sqrt()))
    known = torch.tensor(errors, dtype=torch.float64)

    def noise(levels: Tensor) -> Tensor:
        place = (levels.detach().log() - log_levels[0]) / (log_levels[1] - log_levels[0])
        left = place.floor().clamp(0, len(known) - 2).long()
        return share * torch.lerp(known[left], known[left + 1], (place - left).clamp(0, 1))

    return noise


def expected(made: Plan, mixture: GaussianMixture, seed: int) -> float:
    """Mean over samples of the root-mean-square error, on the whole law, from states the fit has not seen."""
    start: Start = Classic(mixture.shape) if made.sigma == SIGMA_MAX else mixture.at(made.sigma)
    begin = start.sample(FRESH, seed + 1)
    end = composer.sample(Exact(mixture), start, FRESH, plan=made, seed=seed + 1)
    flow_scale = math.sqrt(float(second_moments(mixture).mean()))
    length = flow_scale * math.sqrt(begin[0].numel())
    with torch.no_grad():
        levels = asinh_levels(length, LEAST_SIGMA * flow_scale, made.sigma, FINE)
        fine = mixture.denoise(descend(mixture.denoise, begin, levels), levels[-1])
    return float((end - fine).double().flatten(1).square().mean(1).sqrt().mean())


def on_network(
    made: Plan, denoiser: Any, mixture: GaussianMixture, n: int, cond: Mapping[str, Any], seed: int
) -> float:
    """Mean over samples of the root-mean-square distance to the network's fine solution from the same first states."""
    start: Start = Classic(mixture.shape) if made.sigma == SIGMA_MAX else mixture.at(made.sigma)
    z = ops.normal((n, *mixture.shape), seed, 6, device=mixture.components.mean.device)
    end = composer.sample(denoiser, start, n, plan=made, latents=z, cond=cond)
    grid = log_uniform(made.sigma, LEAST_NETWORK, CALLS)
    fine = composer.sample(denoiser, start, n, grid=grid, solver=DPMpp2M(), latents=z, cond=cond)
    return float((end - fine).double().flatten(1).square().mean(1).sqrt().mean())


@dataclass(frozen=True)
class Exact:
    """The mixture's own denoiser, as a network would be called."""

    mixture: GaussianMixture

    def __call__(self, x: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
        return self.mixture.denoise(x, sigma, cond.get("label"))


def generator(seed: int, stream: int) -> torch.Generator:
    """Random numbers of one purpose of a plan's."""
    return torch.Generator().manual_seed((seed * 1_000_003 + stream) % 2**63)

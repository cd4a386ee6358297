"""Measuring a plan: on the start alone, with the noise to allow for, and beside classic grids on the network.

Held-out data tell how far network and start agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.denoiser import Denoiser, Preconditioned, predict
from headstart.planning.flow import MIN_SIGMA, ReducedFlow
from headstart.sampling._sample import integrate, sample
from headstart.sampling.edge import check_denoiser, check_start, part_of, whole
from headstart.sampling.loop import evaluations
from headstart.solver import DPMpp2M, Heun
from headstart.solver.grid import log_uniform
from headstart.solver.plan import SIGMA_MAX, Plan
from headstart.start import Classic, GaussianMixture, Start
from headstart.start.transport import asinh_levels, descend, second_moments

POINTS, FRESH, FINE = 128, 256, 64
MIN_NETWORK, CALLS = 0.005, 40  # of the fine solution of a network


def allow_noise(flow: ReducedFlow, share: float, seed: int) -> Callable[[Tensor], Tensor]:
    """Root-mean-square error to allow for in a prediction at each level: `share` of the start's own denoising error."""
    log_levels = torch.linspace(
        math.log(MIN_SIGMA * flow.scale), math.log(SIGMA_MAX), 24, dtype=torch.float64, device="cpu"
    )
    errors = []
    with torch.no_grad():
        for level in log_levels.exp().tolist():
            clean, x = flow.sample(POINTS, level, generator(seed, 4))
            errors.append(float(flow.square((flow.denoise(x, level) - clean).double()).mean().sqrt()))
    known = torch.tensor(errors, dtype=torch.float64, device="cpu")

    def noise(levels: Tensor) -> Tensor:
        place = (levels.detach().log() - log_levels[0]) / (log_levels[1] - log_levels[0])
        left = place.floor().clamp(0, len(known) - 2).long()
        return share * torch.lerp(known[left], known[left + 1], (place - left).clamp(0, 1))

    return noise


def measure_on_start(made: Plan, mixture: GaussianMixture, seed: int) -> float:
    """Mean over samples of the root-mean-square error, on the whole law, from states the fit has not seen."""
    start: Start = Classic(mixture.shape) if made.sigma == SIGMA_MAX else mixture.at(made.sigma)
    fresh = (seed + 1) % 2**64
    begin = start.sample(FRESH, fresh)
    end = sample(Exact(mixture), start, FRESH, plan=made, seed=fresh)
    flow_scale = math.sqrt(float(second_moments(mixture).mean()))
    length = flow_scale * math.sqrt(begin[0].numel())
    with torch.no_grad():
        levels = asinh_levels(length, MIN_SIGMA * flow_scale, made.sigma, FINE)
        fine = mixture.denoise(descend(mixture.denoise, begin, levels), levels[-1])
    return float((end - fine).double().flatten(1).square().mean(1).sqrt().mean())


def measure_on_network(
    made: Plan,
    denoiser: Denoiser | Preconditioned,
    mixture: GaussianMixture,
    n: int,
    cond: Mapping[str, Any],
    seed: int,
) -> float:
    """Mean over samples of the root-mean-square distance to the network's fine solution from the same first states."""
    start: Start = Classic(mixture.shape) if made.sigma == SIGMA_MAX else mixture.at(made.sigma)
    z = ops.normal((n, *mixture.shape), seed, 6, device=mixture.components.mean.device)
    end = sample(denoiser, start, n, plan=made, latents=z, cond=cond)
    grid = log_uniform(made.sigma, MIN_NETWORK, CALLS)
    fine = sample(denoiser, start, n, grid=grid, solver=DPMpp2M(), latents=z, cond=cond)
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


BELOW, ABOVE = 5, 5  # noise levels from the data's scale / 10 to the horizon, and from there to 80
MAX_POINTS = 64
MIN_NOISE = 0.01  # rms error of a prediction that is always allowed for, of the start's own denoising error


@dataclass(frozen=True)
class Calibration:
    """Held-out mean squared denoising errors a coordinate.

    Attributes:
        levels: noise levels, ascending.
        network, start: errors of the network and of the start's own denoiser.
        apart: mean squared difference of the two.
        displacement: bound on the root-mean-square distance, a coordinate, between the two flows at the horizon when
            both come from 80: `sigma_T int rms(D - D_q) dtau`, `tau = 1 / sigma`.
    """

    levels: tuple[float, ...]
    network: tuple[float, ...]
    start: tuple[float, ...]
    apart: tuple[float, ...]
    displacement: float

    def noise(self) -> float:
        """Largest excess error of the network, `sqrt(mse_D / mse_q - 1)`, over the levels; at least `MIN_NOISE`.

        It sees the network's error only where the network denoises worse than the start.
        """
        excess = [d / q - 1 for d, q in zip(self.network, self.start, strict=True)]
        return max(MIN_NOISE, math.sqrt(max(0.0, *excess)))


def calibrate(
    mixture: GaussianMixture,
    denoiser: Denoiser | Preconditioned,
    heldout: Tensor,
    sigma: float,
    cond: Mapping[str, Any],
    seed: int,
) -> Calibration:
    """Denoises `heldout` `[N, *shape]` with both, at 10 noise levels; at most 64 points are used.

    Raises:
        ValueError: `heldout` is not of the mixture's shape, or empty.
    """
    if tuple(heldout.shape[1:]) != mixture.shape or len(heldout) == 0:
        raise ValueError(f"plan: heldout must be [N, {mixture.shape}], got {list(heldout.shape)}")
    x0 = heldout[:MAX_POINTS].float()
    cond = {name: part_of(value, len(heldout), 0, len(x0)) for name, value in cond.items()}
    low = 0.1 * float(x0.std())
    levels = torch.cat(
        [
            torch.linspace(math.log(low), math.log(sigma), BELOW + 1, dtype=torch.float64, device="cpu")[:-1],
            torch.linspace(math.log(sigma), math.log(80.0), ABOVE, dtype=torch.float64, device="cpu"),
        ]
    ).exp()
    figures = []
    with torch.no_grad():
        for i, level in enumerate(levels.tolist()):
            x = ops.noise(x0, level, seed, i)
            theirs = predict(denoiser, x, torch.tensor(level, dtype=torch.float64, device="cpu"), **cond)
            ours = mixture.denoise(x, level)
            pairs = ((theirs, x0), (ours, x0), (theirs, ours))
            figures.append([float((a - b).double().square().mean()) for a, b in pairs])
    network, start, apart = (tuple(column) for column in zip(*figures, strict=True))
    tau, gap = 1 / levels[BELOW:], torch.tensor(apart[BELOW:], dtype=torch.float64, device="cpu").sqrt()
    displacement = sigma * float(torch.trapezoid(gap.flip(0), tau.flip(0)))
    return Calibration(tuple(levels.tolist()), network, start, apart, displacement)


LAST = (0.01, 0.03, 0.1)  # last levels of the classic grids


@dataclass(frozen=True)
class Validation:
    """Mean over samples of the root-mean-square distance to the network's own fine solution from the same latents.

    Attributes:
        planned: of the plan.
        classic: of the best log-uniform DPM-Solver++ 2M grid from 80 with as many calls.
        calls: network evaluations a sample that it took, those of both branches of a guided network counted.
    """

    planned: float
    classic: float
    calls: int

    @property
    def gain(self) -> float:
        """The classic error over the plan's: above 1 the plan is worth running."""
        return self.classic / self.planned if self.planned else math.inf


def validate(
    plan: Plan, denoiser: Denoiser | Preconditioned, start: Start, n: int = 8, cond: Mapping[str, Any] | None = None,
    seed: int = 0, fine_steps: int = 32,
) -> Validation:  # fmt: skip
    """Compares a plan with the best classic grid on a few samples of the network as it will be used, guidance included.

    Args:
        plan: to be checked.
        denoiser, start, cond: as in `sample`; tensors of `cond` have `n` rows.
        n: samples.
        seed: of the latents.
        fine_steps: heun steps of the fine solution, two calls each.

    Raises:
        ValueError: as `sample`; `n` or `fine_steps` below 1.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"validate: plan must be a Plan, got {type(plan).__name__}; the plan comes first")
    check_denoiser("validate", denoiser)
    check_start("validate", start)
    n, fine_steps = whole("validate", "n", n, 1), whole("validate", "fine_steps", fine_steps, 1)
    z = ops.normal((n, *start.shape), seed, 0, device="cpu")
    planned = sample(denoiser, start, n, plan=plan, latents=z, cond=cond)
    far = (SIGMA_MAX * z).to(planned)
    dense = log_uniform(SIGMA_MAX, 0.005, fine_steps)
    fine = integrate(denoiser, far, dense, Heun(), cond=cond)

    def distance(x: Tensor) -> float:
        return float((x - fine).double().flatten(1).square().mean(1).sqrt().mean())

    grids = [log_uniform(SIGMA_MAX, last, plan.nfe) for last in LAST]
    classic = min(distance(integrate(denoiser, far, grid, DPMpp2M(), cond=cond)) for grid in grids)
    tables = [plan.table, Heun().rows(dense.tolist()), *(DPMpp2M().rows(grid.tolist()) for grid in grids)]
    return Validation(distance(planned), classic, sum(evaluations(denoiser, rows) for rows in tables))

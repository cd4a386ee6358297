"""The M step: each component from its points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting.cluster import Cluster
from headstart.fitting.problem import Mixture, Problem

if TYPE_CHECKING:
    from headstart.initializer.covariance import Factor

NEGLIGIBLE = 1e-9  # responsibilities below this do not count


def maximize(problem: Problem, rows: Tensor, responsibility: Tensor, axes: Tensor | None) -> Mixture:
    """M step: each component from its points; components with a mass below two points, and twins, are dropped."""
    mass = responsibility.sum(0, dtype=torch.float64)
    alive = (mass >= 2).nonzero()[:, 0].tolist() or [int(mass.argmax())]
    means, factors = [], []
    for k in alive:
        share = responsibility[:, k].double()
        members = (share > NEGLIGIBLE).nonzero()[:, 0]
        cluster = Cluster(problem.data, rows[members], share[members])
        previous = axes[k].double() if axes is not None else None
        factors.append(problem.family.estimate(cluster, previous, problem.least))
        means.append(cluster.mean)
    mean = torch.stack(means)
    single = drop_twins(mean, torch.stack([factor.variance for factor in factors]), problem.least)
    return assemble(mean[single], [factors[k] for k in single], mass[alive][single], problem.data.dtype)


def drop_twins(mean: Tensor, variance: Tensor, least: float) -> list[int]:
    """Indices of the components less those whose mean and variance repeat an earlier one's."""
    gap = (mean[:, None] - mean[None]).square().mean(-1) + (variance[:, None] - variance[None]).abs().mean(-1)
    twin = (gap < 1e-3 * least).tril(diagonal=-1).any(dim=1)
    return (~twin).nonzero()[:, 0].tolist()


def assemble(mean: Tensor, factors: list[Factor], mass: Tensor, dtype: torch.dtype) -> Mixture:
    """Components in the data's dtype, and weights that sum to 1."""
    axes = [factor.axes for factor in factors if factor.axes is not None]
    spread = [factor.spread for factor in factors if factor.spread is not None]
    components = ops.Components(
        mean.to(dtype),
        torch.stack([factor.variance for factor in factors]).to(dtype),
        torch.stack(axes).to(dtype) if axes else None,
        torch.stack(spread).to(dtype) if spread else None,
    )
    return Mixture(components, mass / mass.sum())

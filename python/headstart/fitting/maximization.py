"""The M step: each component from its points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting.covariance import Cluster
from headstart.fitting.law import NEGLIGIBLE, MixtureState, Problem

if TYPE_CHECKING:
    from headstart.fitting.covariance import Factor


def maximize(
    problem: Problem, rows: Tensor, responsibility: Tensor, last: MixtureState | None, scale: Tensor | None = None
) -> MixtureState:
    """M step: each component from its points; components with a mass below two points, and twins, are dropped.

    Where points come with scales `u` `[n, K]`, they weigh `r u`, and the scale matrix is divided by `sum_i r_i u_i`
    instead of `sum_i r_i`: the same limit in fewer iterations ("Parameter expansion to accelerate EM: the PX-EM
    algorithm", Liu, Rubin, Wu, 1998, https://doi.org/10.1093/biomet/85.4.755).
    """
    axes, df = (last.components.axes, last.df) if last is not None else (None, None)
    mass = responsibility.sum(0, dtype=torch.float64)
    alive = (mass >= 2).nonzero()[:, 0].tolist() or [int(mass.argmax())]
    means, factors = [], []
    for k in alive:
        share = responsibility[:, k].double()
        members = (share > NEGLIGIBLE).nonzero()[:, 0]
        share = share[members] if scale is None else share[members] * scale[members, k]
        cluster = Cluster(problem.data, rows[members], share)
        previous = axes[k].double() if axes is not None else None
        factors.append(problem.family.estimate(cluster, previous, problem.least))
        means.append(cluster.mean)
    mean = torch.stack(means)
    single = drop_twins(mean, torch.stack([factor.variance for factor in factors]), problem.least)
    components = assemble(mean[single], [factors[k] for k in single], problem.data.dtype)
    kept = mass[alive][single]
    return MixtureState(components, kept / kept.sum(), None if df is None else df[alive][single])


def drop_twins(mean: Tensor, variance: Tensor, least: float) -> list[int]:
    """Indices of the components less those whose mean and variance repeat an earlier one's."""
    gap = (mean[:, None] - mean[None]).square().mean(-1) + (variance[:, None] - variance[None]).abs().mean(-1)
    twin = (gap < 1e-3 * least).tril(diagonal=-1).any(dim=1)
    return (~twin).nonzero()[:, 0].tolist()


def assemble(mean: Tensor, factors: list[Factor], dtype: torch.dtype) -> ops.Components:
    """Components in the data's dtype."""
    axes = [factor.axes for factor in factors if factor.axes is not None]
    spread = [factor.spread for factor in factors if factor.spread is not None]
    return ops.Components(
        mean.to(dtype),
        torch.stack([factor.variance for factor in factors]).to(dtype),
        torch.stack(axes).to(dtype) if axes else None,
        torch.stack(spread).to(dtype) if spread else None,
    )

"""One Gaussian, or one a class: the M step of given clusters is the answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart.fitting.covariance import Cluster
from headstart.fitting.em import Fit, least_variance
from headstart.fitting.law import MixtureState, assemble, expect
from headstart.fitting.report import FitReport

if TYPE_CHECKING:
    from headstart.fitting.covariance import Covariance, Factor

SWEEPS = 50  # most estimates of a covariance that is found by subspace iteration
SETTLED = 1e-6  # relative change of its floor that ends them


def fit_gaussian(data: Tensor, family: Covariance, labels: Tensor | None = None) -> Fit:
    """Maximum-likelihood Gaussian of checked data, or of each class: a mixture whose components are known.

    Args:
        data: points `[N, D]`, finite, float32 or float64.
        family: covariance family.
        labels: classes `[N]`, int64, or None.

    Raises:
        ValueError: the data has no variance, or squares overflow.
    """
    began = time.perf_counter()
    least = least_variance(data)
    labels = torch.zeros(len(data), dtype=torch.int64, device=data.device) if labels is None else labels
    means, factors, masses = [], [], []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0]
        cluster = Cluster(data, rows, torch.ones_like(rows, dtype=torch.float64))
        means.append(cluster.mean)
        factors.append(settle(cluster, family, least))
        masses.append(len(rows))
    weight = torch.tensor(masses, dtype=torch.float64, device=data.device) / len(data)
    state = MixtureState(assemble(torch.stack(means), factors, data.dtype), weight)
    every = torch.arange(len(data), device=data.device, dtype=torch.int64)
    log_likelihood, _ = expect(data, every, state)
    report = FitReport(
        n=len(data),
        heldout=0,
        components=len(weight),
        dropped=0,
        covariance=repr(family),
        iterations=1,
        converged=True,
        log_likelihood=log_likelihood,
        heldout_log_likelihood=None,
        seconds=time.perf_counter() - began,
        seed=0,
        history=(log_likelihood,),
    )
    class_weight = torch.zeros(int(labels.max()) + 1, len(weight), dtype=torch.float64, device=data.device)
    class_weight[labels.unique(), torch.arange(len(weight), device=data.device, dtype=torch.int64)] = 1
    return Fit(state.components, weight, class_weight, report)


def settle(cluster: Cluster, family: Covariance, least: float) -> Factor:
    """The covariance of a cluster; where it depends on the last axes, again until the floor stays."""
    factor = family.estimate(cluster, None, least)
    if factor.axes is None or len(factor.axes) == cluster.dim:
        return factor
    for _ in range(SWEEPS):
        floor = float(factor.variance)
        factor = family.estimate(cluster, factor.axes, least)
        if abs(float(factor.variance) - floor) <= SETTLED * floor:
            break
    return factor

"""Expectation-maximization for mixtures: the loop once, for every covariance family and component law."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting.climb import COARSE, begin, climb
from headstart.fitting.cluster import Cluster
from headstart.fitting.law import Law, Normal
from headstart.fitting.problem import Problem
from headstart.fitting.report import FitReport

if TYPE_CHECKING:
    from headstart.initializer.covariance import Covariance

LEAST = 1e-6  # least variance in any direction, as a share of the data's mean variance
HELDOUT_SHARE, HELDOUT_FROM = 20, 200  # one point in 20 is held out, from 200 points on
SUBSAMPLE, SUBSAMPLE_PER_COMPONENT = 10_000, 300  # EM climbs on this many points before it sees all of them


class Fit(NamedTuple):
    """A fitted mixture: components, `weight` `[K]`, `class_weight` `[C, K]` or None, report, `df` `[K]` or None."""

    components: ops.Components
    weight: Tensor
    class_weight: Tensor | None
    report: FitReport
    df: Tensor | None = None


def fit_mixture(
    data: Tensor,
    components: int,
    family: Covariance,
    seed: int = 0,
    max_iter: int = 100,
    tol: float = 1e-4,
    labels: Tensor | None = None,
    tick: Callable[[float], None] = lambda log_likelihood: None,
    law: Law = Normal(),
) -> Fit:
    """Maximum-likelihood mixture of checked data, by EM from k-means++ seeds.

    EM climbs first on a subsample, then on all points. It stops when the mean log-likelihood of a point rises by
    less than `tol` nats per dimension.

    Args:
        data: Points `[N, D]`, finite, float32 or float64.
        components: Components K to begin with, at most N.
        family: Covariance family.
        seed: Seed of the held-out split and of the first centres.
        max_iter: Most M steps, over both stages.
        tol: Stopping rule, in nats per dimension.
        labels: Classes `[N]`, int64, or None.
        tick: Called once an iteration with the log-likelihood.
        law: Of a component.

    Raises:
        ValueError: The data has no variance, or squares or the log-likelihood overflow.

    Reference: "Maximum Likelihood from Incomplete Data via the EM Algorithm" (Dempster, Laird, Rubin, 1977,
    https://doi.org/10.1111/j.2517-6161.1977.tb01600.x).
    """
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(fold(seed))
    order = torch.randperm(len(data), generator=generator).to(data.device)
    held = len(data) // HELDOUT_SHARE if len(data) >= HELDOUT_FROM else 0
    heldout, rows = order[:held], order[held:]
    problem = Problem(data, family, law, least_variance(data), tol)

    few = rows[: max(SUBSAMPLE, SUBSAMPLE_PER_COMPONENT * components)]
    state = begin(problem, few, components, generator)
    steps = 0
    if len(few) < len(rows) // 2:
        coarse = problem._replace(tol=COARSE * tol)
        belief, history, _ = climb(coarse, few, state, max_iter // 2, tick)
        state, steps = belief.state, len(history) - 1
    belief, history, converged = climb(problem, rows, state, max_iter - steps, tick)
    state, steps = belief.state, steps + len(history) - 1

    unseen = law.expect(data, heldout, state, settled=True) if held else None
    report = FitReport(
        n=len(rows),
        heldout=held,
        components=len(state.weight),
        dropped=components - len(state.weight),
        covariance=repr(family),
        iterations=steps,
        converged=converged,
        log_likelihood=history[-1],
        heldout_log_likelihood=None if unseen is None else unseen.log_likelihood,
        seconds=time.perf_counter() - began,
        seed=seed,
        history=tuple(history),
        df=None if state.df is None else tuple(state.df.tolist()),
    )
    class_weight = None
    if labels is not None:
        both = [belief.responsibility] if unseen is None else [unseen.responsibility, belief.responsibility]
        class_weight = average_by_class(torch.cat(both), labels[order])
    return Fit(state.components, state.weight, class_weight, report, state.df)


def fold(seed: int) -> int:
    """The low word of a 64-bit seed plus 2^32 / golden ratio times the high one, modulo 2^32.

    torch's generator on the CPU reads only the low word, so that seeds 2^32 apart would give the same fit.
    """
    return (seed + 0x9E3779B9 * (seed >> 32)) % 2**32


def least_variance(data: Tensor) -> float:
    """`LEAST` times the mean variance of a coordinate."""
    rows = torch.arange(len(data), device=data.device)
    variance = float(Cluster(data, rows, torch.ones_like(rows, dtype=torch.float64)).squares().mean())
    if not 0 < variance < float("inf"):
        why = "all points are equal" if variance == 0 else "its squares overflow; scale it"
        raise ValueError(f"fit: data must have a finite variance above 0, got {variance} ({why})")
    return LEAST * variance


def average_by_class(responsibility: Tensor, labels: Tensor) -> Tensor:
    """`p(k | class)` `[C, K]` (float64): the mean responsibility of the class's points; zeros for an absent class."""
    total = responsibility.new_zeros(int(labels.max()) + 1, responsibility.shape[1], dtype=torch.float64)
    total.index_add_(0, labels, responsibility.double())
    return total / total.sum(1, keepdim=True).clamp_min(1e-300)

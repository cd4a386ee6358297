"""Expectation-maximization for Gaussian mixtures: the loop once, for every covariance family."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting.cluster import Cluster
from headstart.fitting.expectation import expect, shortlist
from headstart.fitting.kmeans import lloyd, seed_centres
from headstart.fitting.maximization import maximize
from headstart.fitting.problem import Mixture, Problem
from headstart.fitting.report import FitReport

if TYPE_CHECKING:
    from headstart.initializer.covariance import Covariance

LEAST = 1e-6  # least variance in any direction, as a share of the data's mean variance
REFRESH = 2  # iterations that a shortlist serves
HELDOUT_SHARE, HELDOUT_FROM = 20, 200  # one point in 20 is held out, from 200 points on
SUBSAMPLE, SUBSAMPLE_PER_COMPONENT = 10_000, 300  # EM climbs on this many points before it sees all of them
COARSE = 4  # and there it stops at this many times the tolerance


class Fit(NamedTuple):
    """A fitted mixture: components, `weight` `[K]`, `class_weight` `[C, K]` or None, and the report."""

    components: ops.Components
    weight: Tensor
    class_weight: Tensor | None
    report: FitReport


def fit_mixture(
    data: Tensor,
    components: int,
    family: Covariance,
    seed: int = 0,
    max_iter: int = 100,
    tol: float = 1e-4,
    labels: Tensor | None = None,
    tick: Callable[[float], None] = lambda log_likelihood: None,
) -> Fit:
    """Maximum-likelihood Gaussian mixture of checked data, by EM from k-means++ seeds.

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
    problem = Problem(data, family, least_variance(data), tol)

    few = rows[: max(SUBSAMPLE, SUBSAMPLE_PER_COMPONENT * components)]
    state = first_guess(problem, few, components, generator)
    steps = 0
    if len(few) < len(rows) // 2:
        coarse = problem._replace(tol=COARSE * tol)
        state, _, history, _ = climb(coarse, few, state, max_iter // 2, tick)
        steps = len(history) - 1
    state, responsibility, history, converged = climb(problem, rows, state, max_iter - steps, tick)
    steps += len(history) - 1

    log_heldout, responsibility_heldout = expect(data, heldout, state) if held else (None, responsibility[:0])
    report = FitReport(
        n=len(rows),
        heldout=held,
        components=len(state.weight),
        dropped=components - len(state.weight),
        covariance=repr(family),
        iterations=steps,
        converged=converged,
        log_likelihood=history[-1],
        heldout_log_likelihood=log_heldout,
        seconds=time.perf_counter() - began,
        seed=seed,
        history=tuple(history),
    )
    class_weight = None
    if labels is not None:
        class_weight = average_by_class(torch.cat([responsibility_heldout, responsibility]), labels[order])
    return Fit(state.components, state.weight, class_weight, report)


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


def first_guess(problem: Problem, rows: Tensor, count: int, generator: torch.Generator) -> Mixture:
    """Mixture of the k-means clusters of some points."""
    points = problem.data[rows]
    assignment = lloyd(points, seed_centres(points, count, generator))
    hard = torch.nn.functional.one_hot(assignment).to(problem.data.dtype)
    return maximize(problem, rows, hard, None)


def climb(
    problem: Problem, rows: Tensor, state: Mixture, max_iter: int, tick: Callable[[float], None]
) -> tuple[Mixture, Tensor, list[float], bool]:
    """EM on some points: the mixture, its responsibilities, its log-likelihood at each E step, and if it converged."""
    history: list[float] = []
    candidates, age, settled = None, 0, True
    rise = problem.tol * problem.data.shape[1]
    while True:
        log_likelihood, responsibility = expect(problem.data, rows, state, candidates)
        age += 1
        last = history[-1] if history and settled else -math.inf
        ended = log_likelihood - last < rise or len(history) >= max_iter
        if ended and candidates is not None:  # a bound: ask every component before believing it
            candidates = None
            log_likelihood, responsibility = expect(problem.data, rows, state)
        if not math.isfinite(log_likelihood):
            raise ValueError(f"fit: the log-likelihood must be finite, got {log_likelihood}; scale the data")
        history.append(log_likelihood)
        tick(log_likelihood)
        converged = log_likelihood - last < rise
        if converged or len(history) > max_iter:
            return state, responsibility, history, converged
        if candidates is None:
            candidates, age = shortlist(responsibility), 0
        before, state = state, maximize(problem, rows, responsibility, state.components.axes)
        settled = len(state.weight) == len(before.weight)  # dropping a component may cost likelihood: not the end
        if not settled or age == REFRESH:
            candidates = None


def average_by_class(responsibility: Tensor, labels: Tensor) -> Tensor:
    """`p(k | class)` `[C, K]` (float64): the mean responsibility of the class's points; zeros for an absent class."""
    total = responsibility.new_zeros(int(labels.max()) + 1, responsibility.shape[1], dtype=torch.float64)
    total.index_add_(0, labels, responsibility.double())
    return total / total.sum(1, keepdim=True).clamp_min(1e-300)

"""Expectation-maximization for mixtures: where it begins (k-means++), how it climbs, for every family and law.

It begins at k-means clusters, climbs on a part of the points, then on all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting.covariance import Cluster, Covariance, check_covariance
from headstart.fitting.law import Belief, ComponentLaw, MixtureState, Normal, Problem, maximize, shortlist
from headstart.fitting.report import FitReport
from headstart.ops.library import multiplied


def seed_centres(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres drawn from the points, each with probability proportional to its squared distance to those before.

    Args:
        x: points `[n, D]`.
        count: centres wanted; fewer come back when `x` has fewer distinct points.
        generator: source of the draws (on the CPU).

    Reference: "k-means++: The Advantages of Careful Seeding" (Arthur, Vassilvitskii, 2007,
    https://dl.acm.org/doi/10.5555/1283383.1283494).
    """
    chosen = [int(torch.randint(len(x), (1,), generator=generator, device="cpu", dtype=torch.int64))]
    nearest = squared_distance_to(x, x[chosen[0]])
    while len(chosen) < count and float(nearest.max()) > 0:
        share = (nearest / nearest.sum()).cpu()
        chosen.append(int(torch.multinomial(share, 1, generator=generator)))
        nearest = torch.minimum(nearest, squared_distance_to(x, x[chosen[-1]]))
    return x[chosen]


def squared_distance_to(x: Tensor, point: Tensor) -> Tensor:
    """Squared distances `[n]`, float64; exactly 0 for a duplicate, which the expanded square would not give."""
    return (x - point).square().sum(1, dtype=torch.float64)


def lloyd(x: Tensor, centres: Tensor, iterations: int = 10) -> Tensor:
    """Index `[n]` of each point's centre after Lloyd iterations; an empty centre moves to the farthest point."""
    origin = x.mean(0)  # the expanded square below is safe near the origin only
    centred, centres = x - origin, centres - origin
    assignment, distance = assign(centred, centres)
    for _ in range(iterations):
        onehot = torch.nn.functional.one_hot(assignment, len(centres)).to(x.dtype)
        count = onehot.sum(0)
        centres = multiplied(onehot.mT, centred) / count.clamp_min(1)[:, None]
        empty = (count == 0).nonzero()[:, 0]
        centres[empty] = centred[distance.topk(len(empty)).indices]
        last, (assignment, distance) = assignment, assign(centred, centres)
        if torch.equal(last, assignment):
            break
    return assignment


def assign(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centre of each point and the squared distance to it."""
    distance = centres.square().sum(1) - 2 * multiplied(x, centres.mT)
    nearest = distance.min(dim=1)
    return nearest.indices, nearest.values + x.square().sum(1)


REFRESH = 2  # iterations that a shortlist serves
PILOT, PILOT_PER_COMPONENT, PILOT_STEPS = 2_000, 100, 10  # where one of several starts is chosen
COARSE = 4  # on fewer points EM stops at this many times the tolerance


def begin(problem: Problem, rows: Tensor, count: int, generator: torch.Generator) -> MixtureState:
    """Where EM begins: the k-means clusters, or the most likely of several guesses after a short climb on fewer points.

    Of several guesses every other one is of random centres, which find components that differ in shape more than in
    place.
    """
    if problem.law.starts == 1:
        return first_guess(problem, rows, count, generator)
    pilot, coarse = rows[: max(PILOT, PILOT_PER_COMPONENT * count)], problem._replace(tol=COARSE * problem.tol)
    guesses = [first_guess(problem, pilot, count, generator, i % 2 == 0) for i in range(problem.law.starts)]
    climbs = [climb(coarse, pilot, guess, PILOT_STEPS, lambda log_likelihood: None)[0] for guess in guesses]
    return max(climbs, key=lambda belief: belief.log_likelihood).state


def first_guess(
    problem: Problem, rows: Tensor, count: int, generator: torch.Generator, spread: bool = True
) -> MixtureState:
    """Mixture of the k-means clusters of some points, or of the points nearest to random ones."""
    rows = problem.law.core(problem.data, rows)
    points = problem.data[rows]
    if spread:
        assignment = lloyd(points, seed_centres(points, count, generator))
    else:
        assignment = lloyd(
            points,
            points[torch.randperm(len(points), generator=generator, device="cpu", dtype=torch.int64)[:count]],
            iterations=0,
        )
    hard = torch.nn.functional.one_hot(assignment).to(points.dtype)
    return problem.law.begin(maximize(problem, rows, hard, None))


def climb(
    problem: Problem, rows: Tensor, state: MixtureState, max_iter: int, tick: Callable[[float], None]
) -> tuple[Belief, list[float], bool]:
    """EM on some points: the last E step, the log-likelihood at each, and if it converged."""
    history: list[float] = []
    candidates, age, settled = None, 0, True
    rise = problem.tol * problem.data.shape[1]
    while True:
        belief = problem.law.expect(problem.data, rows, state, candidates)
        age += 1
        last = history[-1] if history and settled else -math.inf
        ended = belief.log_likelihood - last < rise or len(history) >= max_iter
        if ended and candidates is not None:  # a bound: ask every component before believing it
            candidates = None
            belief = problem.law.expect(problem.data, rows, state)
        if not math.isfinite(belief.log_likelihood):
            raise ValueError(f"fit: the log-likelihood must be finite, got {belief.log_likelihood}; scale the data")
        history.append(belief.log_likelihood)
        tick(belief.log_likelihood)
        converged = belief.log_likelihood - last < rise
        if converged or len(history) > max_iter:
            return belief, history, converged
        if candidates is None:
            candidates, age = shortlist(belief.responsibility), 0
        state = maximize(problem, rows, belief.responsibility, belief.state, belief.scale)
        settled = len(state.weight) == len(belief.state.weight)  # dropping one may cost likelihood: not the end
        if not settled or age == REFRESH:
            candidates = None


MIN_VARIANCE = 1e-6  # least variance in any direction, as a share of the data's mean variance
MIN_POINTS = 20  # of data whose number of components is chosen by trial
HELDOUT_SHARE, HELDOUT_FROM = 20, 200  # one point in 20 is held out, from 200 points on
SUBSAMPLE, SUBSAMPLE_PER_COMPONENT = 10_000, 300  # EM climbs on this many points before it sees all of them


class Fit(NamedTuple):
    """A fitted mixture: components, `weight` `[K]`, `class_weight` `[C, K]` or None, report, `df` `[K]` or None."""

    components: ops.Components
    weight: Tensor
    class_weight: Tensor | None
    report: FitReport
    df: Tensor | None = None


@dataclass(frozen=True)
class Recipe:
    """The settings of a fit.

    Attributes:
        components: K to begin with, at most N, or "auto".
        covariance: covariance family.
        seed: of the held-out split and of the first centres.
        max_iter: most M steps, over both stages.
        tol: EM stops when the mean log-likelihood of a point rises by less, in nats per dimension.
        law: of a component.
    """

    components: int | Literal["auto"]
    covariance: Covariance
    seed: int = 0
    max_iter: int = 100
    tol: float = 1e-4
    law: ComponentLaw = Normal()

    def check(self, n: int) -> None:
        """Refuses, before any work, what `n` points cannot be fitted with.

        Raises:
            ValueError: a number out of range, or a covariance of no family.
        """
        components = self.components
        if not (isinstance(components, str) and components == "auto") and not ops.check.is_integer(components):
            raise ValueError(f'fit: components must be an integer or "auto", got {components!r}')
        if components == "auto" and n < MIN_POINTS:
            raise ValueError(f'fit: data must have at least {MIN_POINTS} points for "auto" components, got {n}')
        if components != "auto" and not 1 <= components <= n:
            raise ValueError(f"fit: components must be from 1 to N = {n} points, got {components}")
        check_covariance(self.covariance)
        if not ops.check.is_integer(self.seed) or not 0 <= self.seed < 2**64:
            raise ValueError(f"fit: seed must be an integer in [0, 2^64), got {self.seed!r}")
        if not ops.check.is_integer(self.max_iter) or self.max_iter < 1:
            raise ValueError(f"fit: max_iter must be an integer of at least 1, got {self.max_iter!r}")
        if not isinstance(self.tol, int | float) or not 0 <= self.tol < math.inf:
            raise ValueError(f"fit: tol must be at least 0 and finite, got {self.tol!r}")


def fit_mixture(
    data: Tensor,
    recipe: Recipe,
    labels: Tensor | None = None,
    tick: Callable[[float], None] = lambda log_likelihood: None,
) -> Fit:
    """Maximum-likelihood mixture of checked data, by EM from k-means++ seeds.

    EM climbs first on a subsample, then on all points.

    Args:
        data: points `[N, D]`, finite, float32 or float64.
        recipe: with a number of components.
        labels: classes `[N]`, int64, or None.
        tick: called once an iteration with the log-likelihood.

    Raises:
        ValueError: the data has no variance, or squares or the log-likelihood overflow.

    Reference: "Maximum Likelihood from Incomplete Data via the EM Algorithm" (Dempster, Laird, Rubin, 1977,
    https://doi.org/10.1111/j.2517-6161.1977.tb01600.x).
    """
    assert not isinstance(recipe.components, str)  # "auto" was settled by trial
    components, seed, law = int(recipe.components), int(recipe.seed), recipe.law
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(fold(seed))
    order = torch.randperm(len(data), generator=generator, device="cpu", dtype=torch.int64).to(data.device)
    held = len(data) // HELDOUT_SHARE if len(data) >= HELDOUT_FROM else 0
    heldout, rows = order[:held], order[held:]
    problem = Problem(data, recipe.covariance, law, least_variance(data), recipe.tol)

    few = rows[: max(SUBSAMPLE, SUBSAMPLE_PER_COMPONENT * components)]
    state = begin(problem, few, components, generator)
    steps = 0
    if len(few) < len(rows) // 2:
        coarse = problem._replace(tol=COARSE * recipe.tol)
        belief, history, _ = climb(coarse, few, state, recipe.max_iter // 2, tick)
        state, steps = belief.state, len(history) - 1
    belief, history, converged = climb(problem, rows, state, recipe.max_iter - steps, tick)
    state, steps = belief.state, steps + len(history) - 1

    unseen = law.expect(data, heldout, state, settled=True) if held else None
    report = FitReport(
        n=len(rows),
        heldout=held,
        components=len(state.weight),
        dropped=components - len(state.weight),
        covariance=repr(recipe.covariance),
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
    """`MIN_VARIANCE` times the mean variance of a coordinate."""
    rows = torch.arange(len(data), device=data.device, dtype=torch.int64)
    variance = float(Cluster(data, rows, torch.ones_like(rows, dtype=torch.float64)).squares().mean())
    if not 0 < variance < float("inf"):
        why = "all points are equal" if variance == 0 else "its squares overflow; scale it"
        raise ValueError(f"fit: data must have a finite variance above 0, got {variance} ({why})")
    return MIN_VARIANCE * variance


def average_by_class(responsibility: Tensor, labels: Tensor) -> Tensor:
    """`p(k | class)` `[C, K]` (float64): the mean responsibility of the class's points; zeros for an absent class."""
    total = responsibility.new_zeros(int(labels.max()) + 1, responsibility.shape[1], dtype=torch.float64)
    total.index_add_(0, labels, responsibility.double())
    return total / total.sum(1, keepdim=True).clamp_min(1e-300)

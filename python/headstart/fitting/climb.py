"""EM itself: where it begins, and how it climbs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from headstart.fitting.expectation import shortlist
from headstart.fitting.kmeans import lloyd, seed_centres
from headstart.fitting.law import Belief
from headstart.fitting.maximization import maximize
from headstart.fitting.problem import Mixture, Problem

REFRESH = 2  # iterations that a shortlist serves
PILOT, PILOT_PER_COMPONENT, PILOT_STEPS = 2_000, 100, 10  # where one of several starts is chosen
COARSE = 4  # on fewer points EM stops at this many times the tolerance


def begin(problem: Problem, rows: Tensor, count: int, generator: torch.Generator) -> Mixture:
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


def first_guess(problem: Problem, rows: Tensor, count: int, generator: torch.Generator, spread: bool = True) -> Mixture:
    """Mixture of the k-means clusters of some points, or of the points nearest to random ones."""
    rows = problem.law.core(problem.data, rows)
    points = problem.data[rows]
    if spread:
        assignment = lloyd(points, seed_centres(points, count, generator))
    else:
        assignment = lloyd(points, points[torch.randperm(len(points), generator=generator)[:count]], iterations=0)
    hard = torch.nn.functional.one_hot(assignment).to(points.dtype)
    return problem.law.begin(maximize(problem, rows, hard, None))


def climb(
    problem: Problem, rows: Tensor, state: Mixture, max_iter: int, tick: Callable[[float], None]
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

"""How many components, and which rank: by the likelihood of points held out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting.covariance import Covariance, LowRank
from headstart.fitting.em import Fit, Recipe, fit_mixture, fold
from headstart.fitting.report import Candidate
from headstart.io.progress import track

POINTS, HELDOUT = 8_000, 2_000  # a trial sees at most so many points, and is scored on at most so many others
MAX_COMPONENTS, POINTS_PER_COMPONENT = 64, 10
ITERATIONS, TOLERANCE = 30, 1e-3
NOISE = 0.1  # noise level of the score, in units of the data's scalar standard deviation
PATIENCE = 2  # candidates in a row without gain that end the search

Score = Callable[[Fit, Tensor, float], Tensor]  # log-likelihood `[M]` of points `[M, D]` at a noise level


class Trial(NamedTuple):
    """A candidate, what makes it, and its log-likelihood at each held-out point `[M]`, float64."""

    candidate: Candidate
    recipe: Recipe
    each: Tensor

    def beats(self, other: Trial) -> bool:
        """Whether the mean gain over another is above its standard error, point by point."""
        gain = self.each - other.each
        return float(gain.mean()) > float(gain.std()) / math.sqrt(len(gain))


class Trials:
    """Candidates on one split of the data `[N, D]`: each is fitted to one part, scored on the other, and kept.

    The score is the log-likelihood of held-out points with a little noise: without it, coordinates that hardly vary
    would decide.
    """

    def __init__(self, score: Score, data: Tensor, recipe: Recipe) -> None:
        order = torch.randperm(
            len(data), generator=torch.Generator().manual_seed(fold(int(recipe.seed))), dtype=torch.int64, device="cpu"
        ).to(data.device)
        held = min(HELDOUT, len(data) // 5)
        self.likelihood = score
        self.points = data[order[held : held + POINTS]]
        self.sigma = NOISE * float((data - data.mean(0)).square().mean(dtype=torch.float64).sqrt())
        self.heldout = ops.noise(data[order[:held]], self.sigma, int(recipe.seed), 0, stream=ops.Stream.START)
        self.table: list[Trial] = []

    def score(self, recipe: Recipe) -> Trial:
        """Fits and scores a candidate, once."""
        assert isinstance(recipe.components, int)
        name = (recipe.components, repr(recipe.covariance))
        for trial in self.table:
            if (trial.candidate.components, trial.candidate.covariance) == name:
                return trial
        quick = replace(recipe, max_iter=min(ITERATIONS, recipe.max_iter), tol=max(TOLERANCE, recipe.tol))
        each = self.likelihood(fit_mixture(self.points, quick), self.heldout, self.sigma).double()
        self.table.append(Trial(Candidate(*name, float(each.mean())), recipe, each))
        return self.table[-1]

    def climb(self, recipes: list[Recipe]) -> None:
        """Scores candidates in order, until several in a row did not beat the best before them."""
        best, since = self.score(recipes[0]), 0
        for recipe in recipes[1:]:
            trial = self.score(recipe)
            best, since = (trial, 0) if trial.beats(best) else (best, since + 1)
            if since == PATIENCE:
                return

    def best(self) -> Recipe:
        """The smallest candidate that the likeliest does not beat."""
        likeliest = max(self.table, key=lambda trial: trial.candidate.log_likelihood)
        equal = [trial.recipe for trial in self.table if trial is likeliest or not likeliest.beats(trial)]
        return min(equal, key=lambda recipe: (recipe.components, rank_of(recipe.covariance)))


def rank_of(covariance: Covariance) -> int:
    """The rank of a low-rank family, 0 of any other."""
    return covariance.rank if isinstance(covariance, LowRank) else 0


def choose(score: Score, data: Tensor, recipe: Recipe, progress: bool) -> tuple[Recipe, tuple[Candidate, ...]]:
    """The recipe with the best number of components, and all that was tried.

    The number doubles from 1 as long as that pays, up to a tenth of the points of a trial and at most 64; then three
    quarters and three halves of the best are tried, and, for `LowRank(rank)`, lower ranks, each half of the last. A
    larger candidate must gain more than a standard error.

    Args:
        score: log-likelihood of points under what a fit found.
        data: points `[N, D]`, checked.
        recipe: with "auto" components.
        progress: show a progress bar.
    """
    trials = Trials(score, data, recipe)
    most = max(1, min(MAX_COMPONENTS, len(trials.points) // POINTS_PER_COMPONENT))
    with track("choose", 3, progress) as advance:
        trials.climb([replace(recipe, components=2**i) for i in range(most.bit_length())])
        advance()
        components = trials.best().components
        assert isinstance(components, int)
        for near in (components * 3 // 4, components * 3 // 2):
            if 1 <= near <= most:
                trials.score(replace(recipe, components=near))
        advance()
        if isinstance(recipe.covariance, LowRank):
            most_rank = min(recipe.covariance.rank, data.shape[1] - 1)
            halves = [most_rank >> i for i in range(most_rank.bit_length())]
            best = trials.best()
            trials.climb([best, *(replace(best, covariance=LowRank(rank)) for rank in halves)])
        advance()
    return trials.best(), tuple(trial.candidate for trial in trials.table)

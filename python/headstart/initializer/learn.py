"""From data to a fitted mixture: checks, the choice of its size where asked for, EM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting import Fit, fit_mixture
from headstart.fitting.law import Law
from headstart.initializer.by_class import fit_by_class
from headstart.initializer.check import check_covariance, check_data, check_labels
from headstart.initializer.choice import LEAST_POINTS, choose
from headstart.initializer.covariance import Covariance
from headstart.progress import track

if TYPE_CHECKING:
    from headstart.initializer.family import Mixture

Family = TypeVar("Family", bound="Mixture")


@dataclass(frozen=True)
class Recipe:
    """What a fit is asked for; fields as the arguments of `GaussianMixture.fit`, and the law of a component."""

    components: int | Literal["auto"]
    covariance: Covariance
    seed: int
    max_iter: int
    tol: float
    law: Law

    def check(self, n: int) -> None:
        """Refuses, before any work, what `n` points cannot be fitted with.

        Raises:
            ValueError: A number out of range, or a covariance of no family.
        """
        components = self.components
        if components != "auto" and not isinstance(components, int):
            raise ValueError(f'fit: components must be an integer or "auto", got {components!r}')
        if components == "auto" and n < LEAST_POINTS:
            raise ValueError(f'fit: data must have at least {LEAST_POINTS} points for "auto" components, got {n}')
        if components != "auto" and not 1 <= components <= n:
            raise ValueError(f"fit: components must be from 1 to N = {n} points, got {components}")
        check_covariance(self.covariance)
        if not ops.check.is_integer(self.seed) or not 0 <= self.seed < 2**64:
            raise ValueError(f"fit: seed must be an integer in [0, 2^64), got {self.seed!r}")
        if self.max_iter < 1 or not self.tol >= 0:
            raise ValueError(f"fit: max_iter must be at least 1 and tol at least 0, got {self.max_iter} and {self.tol}")

    def fit(self, data: Tensor, labels: Tensor | None = None, tick: Callable[[float], None] = lambda _: None) -> Fit:
        """EM on checked points `[N, D]`, with a given number of components."""
        assert isinstance(self.components, int)
        return fit_mixture(
            data, self.components, self.covariance, int(self.seed), self.max_iter, self.tol, labels, tick, self.law
        )


def learn(
    family: type[Family],
    data: Tensor,
    recipe: Recipe,
    device: torch.device | str | None,
    progress: bool,
    labels: Tensor | None,
    by_class: bool = False,
) -> Family:
    """A mixture of a family fitted to data `[N, *shape]`, as `GaussianMixture.fit` says.

    Raises:
        ValueError: As said there.
    """
    data = check_data("fit", data)
    data = data.to(device) if device is not None else data
    labels = None if labels is None else check_labels("fit", labels, len(data)).to(data.device)
    if by_class and (labels is None or recipe.components == "auto"):
        wanted = "labels" if labels is None else "a number of components"
        raise ValueError(f"fit: by_class needs {wanted}, got {'none' if labels is None else 'auto'}")
    recipe.check(len(data))
    shape, points = tuple(data.shape[1:]), data.flatten(1)
    recipe, candidates = choose(family, points, recipe, progress) if recipe.components == "auto" else (recipe, ())
    runs = len(labels.unique()) if by_class and labels is not None else 1
    total = runs * (recipe.max_iter + 2)  # two stages, each with one E step more than M steps
    with track("fit", total, progress) as advance:

        def tick(log_likelihood: float) -> None:
            advance(f"fit: {log_likelihood / points.shape[1]:.4f} nats per dimension")

        if by_class and labels is not None:
            fit = fit_by_class(points, labels, recipe, tick)
        else:
            fit = recipe.fit(points, labels, tick)
    return family.of(fit._replace(report=replace(fit.report, candidates=candidates)), shape)

"""From data to a fitted mixture: options, checks, the choice of its size where asked for, EM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting import Dynamic, Fit, Fixed, Noising, Recipe, Training, fit_mixture
from headstart.fitting.by_class import fit_by_class
from headstart.fitting.selection import choose
from headstart.io.progress import track
from headstart.start.check import check_data, check_labels

if TYPE_CHECKING:
    from headstart.start.family import Mixture


class MixtureKeywords(TypedDict, total=False):
    """Keyword arguments of `MixtureOptions`."""

    progress: bool
    labels: Tensor | None
    by_class: bool | None


@dataclass(frozen=True)
class MixtureOptions:
    """Options of the fit of a mixture, as `GaussianMixture.fit` describes them."""

    progress: bool = False
    labels: Tensor | None = None
    by_class: bool | None = None


class StudentKeywords(MixtureKeywords, total=False):
    """Keyword arguments of `StudentOptions`."""

    df: tuple[float, float]


@dataclass(frozen=True)
class StudentOptions(MixtureOptions):
    """Options of the fit of a Student-t mixture, as `StudentTMixture.fit` describes them."""

    df: tuple[float, float] = (1.0, 1000.0)


class FlowKeywords(TypedDict, total=False):
    """Keyword arguments of `FlowOptions`."""

    noise: Noising
    epochs: int
    batch: int
    learning_rate: float
    heldout: float
    patience: int | None
    seed: int
    device: torch.device | str | None
    progress: bool
    checkpoint: str | Path | None
    labels: Tensor | None


@dataclass(frozen=True)
class FlowOptions:
    """Options of the fit of a flow, as `Flow.fit` describes them."""

    noise: Noising = Fixed()
    epochs: int = 3000
    batch: int = 1000
    learning_rate: float = 1e-3
    heldout: float = 0.1
    patience: int | None = 200
    seed: int = 0
    device: torch.device | str | None = None
    progress: bool = False
    checkpoint: str | Path | None = None
    labels: Tensor | None = None


class TarFlowKeywords(FlowKeywords, total=False):
    """Keyword arguments of `TarFlowOptions`."""

    average: float
    scale: float | None


@dataclass(frozen=True)
class TarFlowOptions(FlowOptions):
    """Options of the fit of a TarFlow, as `TarFlow.fit` describes them."""

    noise: Noising = Dynamic()
    epochs: int = 700
    batch: int = 128
    learning_rate: float = 3e-4
    patience: int | None = 50
    average: float = 0.0
    scale: float | None = None


def training_of(options: FlowOptions) -> Training:
    """How to train a flow that was asked for with these options."""
    names = ("noise", "epochs", "batch", "learning_rate", "heldout", "patience", "seed", "checkpoint")
    return Training(**{name: getattr(options, name) for name in names})


Family = TypeVar("Family", bound="Mixture")


def learn(
    family: type[Family],
    data: Tensor,
    recipe: Recipe,
    device: torch.device | str | None,
    options: MixtureOptions,
) -> Family:
    """A mixture of a family fitted to data `[N, *shape]`, as `GaussianMixture.fit` says.

    Raises:
        ValueError: as `GaussianMixture.fit`.
    """
    data, labels, by_class = check_data("fit", data), options.labels, bool(options.by_class)
    data = data.to(ops.check.require_device("fit", device)) if device is not None else data
    labels = None if labels is None else check_labels("fit", labels, len(data)).to(data.device)
    if by_class and (labels is None or recipe.components == "auto"):
        wanted = "labels" if labels is None else "a number of components"
        raise ValueError(f"fit: by_class needs {wanted}, got {'none' if labels is None else 'auto'}")
    for name in ("components", "seed", "max_iter"):  # numpy's integers wrap around
        if ops.check.is_integer(value := getattr(recipe, name)):
            recipe = replace(recipe, **{name: int(value)})  # type: ignore[arg-type]
    recipe.check(len(data))
    shape, points = tuple(data.shape[1:]), data.flatten(1)

    def score(fit: Fit, x: Tensor, sigma: float) -> Tensor:
        return family.of(fit, (x.shape[1],)).log_prob(x, sigma)

    recipe, candidates = (
        choose(score, points, recipe, options.progress) if recipe.components == "auto" else (recipe, ())
    )
    runs = len(labels.unique()) if by_class and labels is not None else 1
    total = runs * (recipe.max_iter + 2)  # two stages, each with one E step more than M steps
    with track("fit", total, options.progress) as advance:

        def tick(log_likelihood: float) -> None:
            advance(f"fit: {log_likelihood / points.shape[1]:.4f} nats per dimension")

        if by_class and labels is not None:
            fit = fit_by_class(points, labels, recipe, tick)
        else:
            fit = fit_mixture(points, recipe, labels, tick)
    return family.of(fit._replace(report=replace(fit.report, candidates=candidates)), shape)

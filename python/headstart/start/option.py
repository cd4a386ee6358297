"""Options of the fits of starts: those of every mixture, and those of every flow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from headstart.fitting import Dynamic, Fixed, Noising, Training


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

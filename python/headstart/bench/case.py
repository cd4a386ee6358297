"""What `headstart bench` compares on: a denoiser, images, and the starts fitted to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from headstart.bench.way import SIGMA_MAX, SOLVERS, Way
from headstart.io import Dataset

RANGE = (0.5, 8.0)  # where a horizon is looked for
LEVELS, PROBES = 24, 400  # noise levels and validation images of that search


@dataclass(frozen=True)
class Case:
    """A denoiser and the images it is measured on.

    Fields:
        denoiser: `D(x, sigma)`, called with `label` as well where the training images have labels.
        train: what starts are fitted to.
        validation: real images by which whatever is picked is picked.
        test: real images that only give the figures.
        seed: of the fit and the plans.
        device: where samples are drawn.
    """

    denoiser: Any
    train: Dataset
    validation: Dataset
    test: Dataset
    seed: int = 0
    device: str = "cpu"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.images.shape[1:])

    @cached_property
    def mixture(self) -> hs.GaussianMixture:
        data, labels = self.train.images.to(self.device), self.train.labels
        return hs.fit(data, labels=labels, seed=self.seed, progress=True)

    @cached_property
    def empirical(self) -> hs.Empirical:
        labels = self.train.labels
        return hs.Empirical(self.train.images.to(self.device), None if labels is None else labels.to(self.device))

    def labels(self, first: int, count: int) -> Tensor | None:
        """Classes in turn, or None."""
        if self.train.labels is None:
            return None
        return (torch.arange(first, first + count) % (int(self.train.labels.max()) + 1)).to(self.device)

    def cond(self, first: int, count: int) -> dict[str, Any]:
        labels = self.labels(first, count)
        return {} if labels is None else {"label": labels}

    def horizon(self, threshold: float) -> dict[str, Any]:
        """sigma_T by the rule of `headstart.horizon`, on validation images alone, and what speaks against it."""
        images = self.validation.images[:PROBES].to(self.device)
        labels = None if self.train.labels is None else self.validation.labels
        cond = {} if labels is None else {"label": labels[:PROBES].to(self.device)}
        law = self.mixture
        found = hs.horizon(law, self.denoiser, images, *RANGE, threshold=threshold, levels=LEVELS, cond=cond)
        curve = [[float(a), float(b)] for a, b in zip(found.levels, found.kl, strict=True)]
        return {"sigma": found.sigma, "warning": found.warning, "kl": curve}

    def plan(self, nfe: int, sigma: float) -> hs.Plan:
        """Rows for `nfe` calls, calibrated on validation images."""
        heldout = self.validation.images[:64].to(self.device)
        start = self.mixture.at(sigma)
        return hs.plan(start, nfe, seed=self.seed, denoiser=self.denoiser, heldout=heldout, progress=True)

    def start(self, way: Way, sigma: float) -> Any:
        """The law that the way begins with."""
        if way.start == "alone":
            return self.mixture.at(0.0)
        if way.start in ("classic", "uninformed"):
            return hs.Classic(self.shape, SIGMA_MAX if way.start == "classic" else sigma, device=self.device)
        return (self.empirical if way.start == "empirical" else self.mixture).at(sigma)

    def draw(
        self, way: Way, sigma: float, count: int, seed: int, first: int, plans: Mapping[int, hs.Plan]
    ) -> tuple[Tensor, float]:
        """Samples `first .. first + count - 1` of `seed`, and seconds; those of transport and plans come from the same
        latents as the classic start's."""
        start, cond = self.start(way, sigma), self.cond(first, count)
        given: dict[str, Any] = {
            "seed": seed,
            "offset": first,
            "cond": cond,
            "batch": 100 if self.device == "cpu" else 500,
        }
        if way.start == "alone":
            labels = {"labels": cond["label"]} if start.conditional and cond else {}
            return start.sample(count, seed, first, **labels), 0.0
        if way.start in ("transport", "planned"):
            given["latents"] = hs.Classic(self.shape, 1.0, device=self.device).sample(count, seed, first)
        if way.start == "planned":
            given["plan"] = plans[way.nfe]
        else:
            given |= {"grid": way.levels(start.sigma), "solver": SOLVERS[way.solver]}
        x, info = hs.sample(self.denoiser, start, count, return_info=True, **given)
        if info.nfe != way.nfe:
            raise RuntimeError(f"bench: {way.key} made {info.nfe} calls a sample")
        return x, info.seconds


def split(data: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Two disjoint halves, validation and test, by a random order.

    Raises:
        ValueError: fewer than 200 images.
    """
    if len(data.images) < 200:
        raise ValueError(f"bench: needs at least 200 held-out images, got {len(data.images)}")
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(seed))
    parts = order.chunk(2)
    return tuple(Dataset(data.images[i], None if data.labels is None else data.labels[i]) for i in parts)  # type: ignore[return-value]

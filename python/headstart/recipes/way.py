"""The rows of a recipe's table: a law to start from and a way down each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from headstart.solver import calls


@dataclass
class Laws:
    """What samples start from: the fitted mixture, what it was fitted on `[N, *shape]`, plans by calls, a TarFlow."""

    mixture: Any
    train: Tensor
    labels: Tensor | None
    plans: dict[int, hs.Plan] = field(default_factory=dict)
    flow: hs.TarFlow | None = None


@dataclass(frozen=True)
class Way:
    """One row: a law to start from and a way down.

    Fields:
        start, solver: names for the table.
        law: the start, of the laws at hand.
        sigma: where it begins.
        method, grid: the solver and its levels; None: the law itself, no network.
        planned: calls of a plan, in place of those.
    """

    start: str
    solver: str
    law: Callable[[Laws], Any]
    sigma: float
    method: Any = None
    grid: tuple[float, ...] | None = None
    planned: int | None = None

    @property
    def calls(self) -> int:
        """Calls of the denoiser a sample; one that is guided calls its network more often."""
        if self.planned is not None:
            return self.planned
        return 0 if self.grid is None else calls(self.method.rows(list(self.grid)))

    @property
    def slug(self) -> str:
        """A name for files."""
        return f"{self.start}-{self.solver}-{self.calls}".replace(" ", "_").lower()

    def draw(self, denoiser: Any, laws: Laws, n: int, seed: int, offset: int, labels: Tensor | None) -> Tensor:
        """Samples `offset .. offset + n - 1` of a seed, of the classes `labels` `[n]` where there are any."""
        law = self.law(laws)
        if self.planned is None and self.grid is None:
            own = {} if labels is None or not getattr(law, "conditional", False) else {"labels": labels}
            return law.sample(n, seed, offset, **own)
        cond = None if labels is None else {"label": labels}
        if self.planned is not None:
            return hs.sample(denoiser, law, n, plan=laws.plans[self.planned], seed=seed, offset=offset, cond=cond)
        assert self.grid is not None
        levels = torch.tensor(self.grid, dtype=torch.float64)
        return hs.sample(denoiser, law, n, solver=self.method, grid=levels, seed=seed, offset=offset, cond=cond)

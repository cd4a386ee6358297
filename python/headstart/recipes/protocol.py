"""What a recipe compares: starts, solvers and grids, as rows of one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from headstart.request import SIGMA_MIN
from headstart.solver import calls

SIGMA_MAX, LOWEST = 80.0, 0.002  # of EDM's grid


@dataclass
class Laws:
    """What samples start from: the fitted mixture, the images `[N, *shape]` it was fitted on, and plans by calls."""

    mixture: Any
    train: Tensor
    labels: Tensor | None
    plans: dict[int, hs.Plan] = field(default_factory=dict)


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


@dataclass(frozen=True)
class Protocol:
    """A published comparison, and ours beside it.

    Fields:
        name: of the recipe.
        horizon: sigma_T of the short starts.
        classic_steps: levels of Heun's long grid, rho 7, from 80 to 0.002.
        short_steps, short_rho: levels and warp of Heun's short grid, from the horizon to 0.002.
        nfe: calls at which every start is sampled with DPM-Solver++ 2M on a log-uniform grid down to 0.02.
        planned: calls of the plans.
        latents: whether samples are a VAE's latents.
        guidance: weight of autoguidance, where a guide is given.
    """

    name: str
    horizon: float
    classic_steps: int
    short_steps: int
    short_rho: float
    nfe: tuple[int, ...] = (5, 7, 9, 13, 19)
    planned: tuple[int, ...] = (5, 7)
    latents: bool = False
    guidance: float | None = None

    def ways(self) -> list[Way]:
        """Every row of the table, the zero-NFE control last."""
        long = tuple(hs.karras(SIGMA_MAX, LOWEST, self.classic_steps, 7.0).tolist())
        short = tuple(hs.karras(self.horizon, LOWEST, self.short_steps, self.short_rho).tolist())
        starts: list[tuple[str, Callable[[Laws], Any], float]] = [
            ("classic", lambda laws: classic(laws, SIGMA_MAX), SIGMA_MAX),
            ("uninformed", lambda laws: classic(laws, self.horizon), self.horizon),
            ("learned", lambda laws: laws.mixture.at(self.horizon), self.horizon),
            ("empirical", lambda laws: hs.Empirical(laws.train, laws.labels).at(self.horizon), self.horizon),
        ]
        rows = []
        for name, law, sigma in starts:
            rows.append(Way(name, "Heun", law, sigma, hs.Heun(), long if name == "classic" else short))
            for steps in self.nfe:
                levels = tuple(hs.log_uniform(sigma, SIGMA_MIN, steps).tolist())
                rows.append(Way(name, "DPM++ 2M", law, sigma, hs.DPMpp2M(), levels))
        learned = starts[2][1]
        rows += [Way("learned", "planned", learned, self.horizon, planned=nfe) for nfe in self.planned]
        return [*rows, Way("learned alone", "none", lambda laws: laws.mixture.at(0.0), 0.0)]


def classic(laws: Laws, sigma: float) -> Any:
    """`N(0, sigma^2 I)`."""
    return hs.Classic(tuple(laws.train.shape[1:]), sigma_max=sigma, device=laws.train.device)


def plans_of(folder: Path, protocol: Protocol) -> dict[int, Path]:
    """Where the plans lie, by calls."""
    return {nfe: folder / f"plan-{nfe}.json" for nfe in protocol.planned}


# "Initialization-Aware Score-Based Diffusion Sampling" (Fassina, Cardoso, Le Corff, Romary, 2026,
# https://arxiv.org/abs/2603.00772): EDM's VE network on FFHQ-64; EDM2-S with autoguidance on subsets of ImageNet-512
FFHQ64 = Protocol("ffhq64", 7.0, 40, 20, 5.0)
IMAGENET512 = Protocol("imagenet512", 7.0, 32, 20, 5.0, latents=True, guidance=1.9)

"""What a recipe compares: starts, solvers and grids, as rows of one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import headstart as hs
from headstart.recipes.way import Laws, Way
from headstart.sampling.request import SIGMA_MIN

SIGMA_MAX, LOWEST = 80.0, 0.002  # of EDM's grid
MIDDLE = 1.0  # weight of class guidance at which a TarFlow is sampled with our solver too


@dataclass(frozen=True)
class Flow:
    """How a TarFlow start is made; the defaults are the published ones for images.

    Fields:
        patch, channels, blocks, layers, epochs, learning_rate, scale: as in `TarFlow.fit`.
        guidance: weights of class guidance, where there are classes.
    """

    patch: int = 2
    channels: int = 128
    blocks: int = 1
    layers: int = 8
    epochs: int = 700
    learning_rate: float = 3e-4
    scale: float = 14.0
    guidance: tuple[float, ...] = (0.5, 1.0, 2.0)


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
        flow: the TarFlow start, where one is asked for.
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
    flow: Flow = Flow()

    def ways(self) -> list[Way]:
        """Every row of the table but a TarFlow's, the zero-NFE control last."""
        long = tuple(hs.karras(SIGMA_MAX, LOWEST, self.classic_steps, 7.0).tolist())
        starts: list[tuple[str, Callable[[Laws], Any], float]] = [
            ("classic", lambda laws: classic(laws, SIGMA_MAX), SIGMA_MAX),
            ("uninformed", lambda laws: classic(laws, self.horizon), self.horizon),
            ("learned", lambda laws: laws.mixture.at(self.horizon), self.horizon),
            ("empirical", lambda laws: hs.Empirical(laws.train, laws.labels).at(self.horizon), self.horizon),
        ]
        rows = []
        for name, law, sigma in starts:
            rows.append(Way(name, "Heun", law, sigma, hs.Heun(), long if name == "classic" else self.short()))
            rows += self.multistep(name, law, sigma)
        learned = starts[2][1]
        rows += [Way("learned", "planned", learned, self.horizon, planned=nfe) for nfe in self.planned]
        return [*rows, Way("learned alone", "none", lambda laws: laws.mixture.at(0.0), 0.0)]

    def flow_ways(self, conditional: bool) -> list[Way]:
        """Rows of the TarFlow: the published one at every weight of guidance, and ours at one of them."""
        weights = self.flow.guidance if conditional else (0.0,)
        named = {w: f"tarflow cfg {w:g}" if conditional else "tarflow" for w in weights}
        rows = [Way(named[w], "Heun", flow_at(w), self.horizon, hs.Heun(), self.short()) for w in weights]
        ours = min(weights, key=lambda w: abs(w - MIDDLE))
        return rows + self.multistep(named[ours], flow_at(ours), self.horizon)

    def short(self) -> tuple[float, ...]:
        """Heun's grid from the horizon."""
        return tuple(hs.karras(self.horizon, LOWEST, self.short_steps, self.short_rho).tolist())

    def multistep(self, name: str, law: Callable[[Laws], Any], sigma: float) -> list[Way]:
        """DPM-Solver++ 2M at every number of calls."""
        grids = [tuple(hs.log_uniform(sigma, SIGMA_MIN, steps).tolist()) for steps in self.nfe]
        return [Way(name, "DPM++ 2M", law, sigma, hs.DPMpp2M(), grid) for grid in grids]


def flow_at(weight: float) -> Callable[[Laws], Any]:
    """The TarFlow with a weight of class guidance; 0: none."""

    def law(laws: Laws) -> Any:
        assert laws.flow is not None
        return laws.flow.guided(weight) if weight else laws.flow

    return law


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

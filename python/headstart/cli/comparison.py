"""The demo's comparison: starts, solvers and call counts on one denoiser, scored against held-out images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from headstart.metrics import GradientFeatures, frechet_distance, sliced_wasserstein, statistics
from headstart.sampling.request import SIGMA_MIN

HORIZON = 3.0  # sigma_T, fixed before any score was seen
HEUN_STEPS = 40  # the classic: 79 calls on Karras's grid, rho 7, [0.002, 80]
CLASSIC_CALLS = (5, 7, 9, 13)
SHORT_CALLS = (3, 5, 7, 9)
EMPIRICAL_CALLS = (5, 9)
PLANNED_CALLS = (3, 5)
CHUNK = 50


@dataclass(frozen=True)
class Run:
    """One row before it is scored: a start, a solver on a grid (None: the start itself), and its calls a sample."""

    start: str
    solver: str
    law: Any
    nfe: int
    method: Any = None
    grid: Tensor | None = None
    plan: hs.Plan | None = None


@dataclass(frozen=True)
class Row:
    """One row of the table: Frechet and sliced Wasserstein distance to held-out images, and the seconds it took."""

    start: str
    solver: str
    sigma_T: float
    nfe: int
    seconds: float
    swd: float
    fd: float


class Score:
    """`(SWD, FD)` of images against held-out ones, both as seen: clipped to [-1, 1]."""

    def __init__(self, train: Tensor, test: Tensor) -> None:
        self.features = GradientFeatures.fit(train)
        self.train, self.test = train, test
        self.reference = statistics(test, self.features)

    def __call__(self, x: Tensor) -> tuple[float, float]:
        x = x.detach().float().cpu().clamp(-1, 1)
        return sliced_wasserstein(x, self.test), frechet_distance(statistics(x, self.features), self.reference)

    def floor(self, n: int) -> tuple[float, float]:
        """Mean score of disjoint groups of `n` training images (at most all): what a perfect sampler would show."""
        scores = [self(group) for group in self.train.split(n) if len(group) == n]
        swd, fd = torch.tensor(scores, dtype=torch.float64).mean(0).tolist()
        return swd, fd


def plan_runs(mixture: Any, images: Tensor, horizon: float = HORIZON, seed: int = 0) -> list[Run]:
    """Every row of the comparison, in the table's order; the planned rows are planned here."""
    shape, device = tuple(images.shape[1:]), images.device
    classic = hs.Classic(shape, device=device)
    heun = Run("classic", "Heun", classic, 2 * HEUN_STEPS - 1, hs.Heun(), hs.karras(80.0, 0.002, HEUN_STEPS, 7.0))
    laws = (
        ("classic", classic, CLASSIC_CALLS),
        ("uninformed", hs.Classic(shape, sigma_max=horizon, device=device), SHORT_CALLS),
        ("learned", mixture.at(horizon), SHORT_CALLS),
        ("empirical", hs.Empirical(images).at(horizon), EMPIRICAL_CALLS),
    )
    short = [
        Run(name, "DPM++ 2M", law, calls, hs.DPMpp2M(), hs.log_uniform(law.sigma, SIGMA_MIN, calls))
        for name, law, many in laws
        for calls in many
    ]
    plans = [hs.plan(mixture.at(horizon), calls, horizon, seed=seed, progress=True) for calls in PLANNED_CALLS]
    short += [Run("learned", "planned", mixture.at(horizon), plan.nfe, plan=plan) for plan in plans]
    return [heun, *short, Run("learned, no network", "none", mixture.at(0.0), 0)]


def draw(denoiser: Any, run: Run, n: int, seed: int, tick: Callable[[int], None]) -> tuple[Tensor, float]:
    """Samples `0 .. n - 1` of `seed` for one row, in chunks, and the seconds they took."""
    parts, begin = [], time.perf_counter()
    for offset in range(0, n, CHUNK):
        count = min(CHUNK, n - offset)
        if run.plan is not None:
            parts.append(hs.sample(denoiser, run.law, count, plan=run.plan, seed=seed, offset=offset))
        elif run.grid is None:
            parts.append(run.law.sample(count, seed, offset))
        else:
            steps = len(run.grid) - 1
            parts.append(
                hs.sample(denoiser, run.law, count, steps, solver=run.method, grid=run.grid, seed=seed, offset=offset)
            )
        tick(count * run.nfe)
    x = torch.cat(parts).cpu()  # waits for the device
    return x, time.perf_counter() - begin


def compare(
    denoiser: Any, runs: list[Run], score: Score, n: int, seed: int, tick: Callable[[int], None]
) -> Iterator[Row]:
    """The rows, as they are done; `tick` is told of every `count` network calls."""
    for run in runs:
        x, seconds = draw(denoiser, run, n, seed, tick)
        swd, fd = score(x)
        yield Row(run.start, run.solver, float(run.law.sigma), run.nfe, seconds, swd, fd)


def to_json(rows: list[Row], floor: tuple[float, float], **extra: Any) -> dict[str, Any]:
    """The table as plain values: rows, the real-against-real floor, and what else is said about the run."""
    return {"rows": [asdict(row) for row in rows], "floor": {"swd": floor[0], "fd": floor[1]}, **extra}


def side_by_side(denoiser: Any, mixture: Any, z: Tensor, horizon: float = HORIZON) -> list[tuple[str, Tensor]]:
    """Labelled rows of images from the same unit-normal latents `z` `[n, *shape]`.

    The learned rows start from transport, `80 z` carried down to `horizon` on the mixture's own flow with no network
    call, so that a column shows one latent.
    """
    heun, short = hs.Heun(), hs.DPMpp2M()

    def home(x: Tensor, sigma: float, calls: int) -> Tensor:
        return hs.integrate(denoiser, x, hs.log_uniform(sigma, SIGMA_MIN, calls), short)

    x = 80.0 * z
    carried = mixture.transport(z, horizon)
    alone = mixture.denoise(mixture.transport(z, SIGMA_MIN), SIGMA_MIN)
    rows = [("classic, Heun\n79 calls", hs.integrate(denoiser, x, hs.karras(80.0, 0.002, HEUN_STEPS, 7.0), heun))]
    rows += [(f"classic, 2M\n{calls} calls", home(x, 80.0, calls)) for calls in (9, 5)]
    rows += [(f"learned, 2M\n{calls} calls", home(carried, horizon, calls)) for calls in (9, 5, 3)]
    rows += [(f"uninformed, 2M\n{calls} calls", home(horizon * z, horizon, calls)) for calls in (9, 5)]
    return [*rows, ("learned start\nalone, 0 calls", alone)]

"""The ways down that are compared, and how samples of each are drawn from the same latents."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import headstart as hs
from bench.plans.case import Case
from headstart.compare.way import METHODS, exists, methods_of

NFE = (3, 4, 5, 6, 7, 9, 13)
SIGMA_MIN = (0.002, 0.01, 0.03, 0.1)
EVERY_GRID = ("2M", "Heun")  # other solvers have log grids alone


def slug(name: str, grid: str, nfe: int) -> str:
    """A row's name in files."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{name}-{grid}-{nfe}").strip("-")


@dataclass(frozen=True)
class Method:
    """One row of the table before it is scored.

    Fields:
        start: "classic", from 80; "learned", from sigma_T; "planned", a plan from either.
        solver: a key of `compare.way.METHODS`, "plan", "fine" or "none".
        name: in the table.
        grid: in the table, too; of a plan it is worked out with it.
        sigma: level it begins at.
        levels: of its grid; None: of no grid.
    """

    start: str
    solver: str
    name: str
    grid: str
    nfe: int
    sigma: float
    levels: tuple[float, ...] | None = None

    @property
    def key(self) -> str:
        """Its name in files."""
        return slug(self.name, self.grid, self.nfe)


FINE = Method("classic", "fine", "fine solution", "", 0, 80.0)
ZERO = Method("learned", "none", "zero calls", "the start's own flow", 0, 80.0)


def grids(sigma: float, steps: int) -> Iterator[tuple[str, Tensor]]:
    """{log, rho 3, rho 7} x the last levels."""
    for low in SIGMA_MIN:
        yield f"log {low}", hs.log_uniform(sigma, low, steps)
        for rho in (3.0, 7.0):
            yield f"rho {rho:g} {low}", hs.karras(sigma, low, steps, rho)


def methods(sigma: float, nfe: int) -> Iterator[Method]:
    """Every method with `nfe` calls, short ones from `sigma`."""
    for key, one in methods_of("plan").items():
        for name, grid in grids(80.0, -(-nfe // one.a_step)) if exists(key, nfe) else ():
            if key in EVERY_GRID or name.startswith("log"):
                yield Method("classic", key, f"{key} from 80", name, nfe, 80.0, tuple(grid.tolist()))
    for low in SIGMA_MIN:
        short = tuple(hs.log_uniform(sigma, low, nfe).tolist())
        yield Method("learned", "2M", "learned start, 2M", f"log {low}", nfe, sigma, short)
    yield Method("planned", "plan", "planned from 80", "", nfe, 80.0)
    yield Method("planned", "plan", "planned, free history", "", nfe, sigma)


@dataclass
class Bench:
    """A law of one seed, as the engine compares ways on it.

    Fields:
        case: the law.
        seed: of the plans; the latents' comes with each draw.
    """

    case: Case
    seed: int

    def __post_init__(self) -> None:
        self.plans: dict[Method, hs.Plan] = {}

    def prepare(self, way: Method) -> None:
        """Makes the plan of a way, from the start (and the calibration data) alone."""
        if way.solver != "plan" or way in self.plans:
            return
        case = self.case
        extra = {} if case.heldout is None else {"denoiser": case.denoiser, "heldout": case.heldout}
        self.plans[way] = hs.plan(case.start, way.nfe, way.sigma, seed=self.seed, **extra)  # type: ignore[arg-type]

    def grid_text(self, way: Method) -> str:
        return describe(self.plans[way]) if way.solver == "plan" else way.grid

    def draw(self, way: Method, count: int, seed: int, first: int) -> tuple[Tensor, float]:
        """Samples of latents `first .. first + count - 1`, the same for every way, and the seconds they took."""
        z = self.case.latents(seed, first, count)
        began = time.perf_counter()
        with torch.no_grad():
            x = self.run(way, z)
        return x, time.perf_counter() - began

    def run(self, way: Method, z: Tensor) -> Tensor:
        case = self.case
        if way.solver == "fine":
            return case.fine(80 * z)
        if way.solver == "none":
            mixture = case.start.mixture
            return mixture.denoise(mixture.transport(z, 0.02), 0.02)
        if way.solver == "plan":
            return hs.sample(case.denoiser, case.start, len(z), plan=self.plans[way], latents=z)
        x = 80 * z if way.sigma == 80 else case.start.transport(z)
        grid = torch.tensor(way.levels, dtype=torch.float64)
        return hs.integrate(case.denoiser, x, grid, METHODS[way.solver].solver)


def describe(plan: hs.Plan) -> str:
    """Its levels, its expected error and the seconds it took."""
    levels = " ".join(f"{level:.3g}" for level in plan.nodes)
    return f"{levels}; expected {plan.expected_error:.4f}; {plan.provenance['seconds']} s"

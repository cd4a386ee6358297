"""The ways down that are compared: a name, the network calls, and a function of the latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import headstart as hs
from bench.plans.case import CHUNK, Case
from headstart.compare.way import exists, methods_of

NFE = (3, 4, 5, 6, 7, 9, 13)
SIGMA_MIN = (0.002, 0.01, 0.03, 0.1)
EVERY_GRID = ("2M", "Heun")  # other solvers have log grids alone


@dataclass(frozen=True)
class Method:
    """One row of the table: `run(z)` gives samples from unit latents."""

    name: str
    grid: str
    nfe: int
    run: Callable[[Tensor], Tensor]


def grids(sigma: float, steps: int) -> Iterator[tuple[str, Tensor]]:
    """{log, rho 3, rho 7} x the last levels."""
    for low in SIGMA_MIN:
        yield f"log {low}", hs.log_uniform(sigma, low, steps)
        for rho in (3.0, 7.0):
            yield f"rho {rho:g} {low}", hs.karras(sigma, low, steps, rho)


def methods(case: Case, nfe: int, seed: int) -> Iterator[Method]:
    """Every method with `nfe` calls; plans are made here, from the start (and the calibration data) alone."""
    start, denoiser = case.start, case.denoiser

    def solve(sigma: float, grid: Tensor, solver: hs.solver.Solver) -> Callable[[Tensor], Tensor]:
        def run(z: Tensor) -> Tensor:
            x = 80 * z if sigma == 80 else start.transport(z)
            return hs.integrate(denoiser, x, grid, solver)

        return run

    for key, one in methods_of("plan").items():
        for name, grid in grids(80.0, -(-nfe // one.a_step)) if exists(key, nfe) else ():
            if key in EVERY_GRID or name.startswith("log"):
                yield Method(f"{key} from 80", name, nfe, solve(80.0, grid, one.solver))
    for low in SIGMA_MIN:
        short = hs.log_uniform(start.sigma, low, nfe)
        yield Method("learned start, 2M", f"log {low}", nfe, solve(start.sigma, short, hs.DPMpp2M()))
    extra = {} if case.heldout is None else {"denoiser": denoiser, "heldout": case.heldout}
    for name, sigma in (("planned from 80", 80.0), ("planned, free history", start.sigma)):
        plan = hs.plan(start, nfe, sigma, seed=seed, **extra)  # type: ignore[arg-type]
        yield Method(name, describe(plan), nfe, lambda z, plan=plan: planned(case, plan, z))


def planned(case: Case, plan: hs.Plan, z: Tensor) -> Tensor:
    return hs.sample(case.denoiser, case.start, len(z), plan=plan, latents=z)


def describe(plan: hs.Plan) -> str:
    """Its levels, its expected error and the seconds it took."""
    levels = " ".join(f"{level:.3g}" for level in plan.nodes)
    return f"{levels}; expected {plan.expected_error:.4f}; {plan.provenance['seconds']} s"


def in_parts(method: Method, z: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([method.run(part) for part in z.split(CHUNK)])

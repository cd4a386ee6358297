"""What the toy table runs: its rows, and the solver and grid of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.toy.law import FULL, QUICK, Toy
from bench.toy.start import BUILDERS, applies
from headstart.compare.way import METHODS, exists, methods_of

SIGMA_MIN, BUDGET_MIN = 0.02, 0.05
SHORT_2M, LONG_2M = (3, 5, 7, 9, 13), (5, 7, 9, 13, 19, 27, 39)
SHORT_HEUN, LONG_HEUN = (13,), (13, 39, 79)
NETWORK_CALLS, SMALL_CALLS = (5, 9, 19), 9
FIGURES = ("swd", "max_swd", "bulk", "gap", "gap_error", "modes", "tail_99", "tail_999", "max_swd_large")
OF_START = ("kl", "kl_error", "immse", "immse_error", "start_tail_0.999", "start_tail_0.9999", "fit_seconds")
OF_BUDGET = ("initialization", "score", "discretization", "measured", "measured_error")
SIZED = ("empirical", "gmm", "tmix")


@dataclass(frozen=True)
class Task:
    """One row of the table.

    `solver` is also "start", the start itself; "none", its law at sigma = 0 without a network; "budget", DDPM's errors.
    """

    law: str
    train: int
    seed: int
    denoiser: str
    start: str
    solver: str
    nfe: int

    @property
    def key(self) -> str:
        """What its row is found by again, and its name in files."""
        return key_of(asdict(self))

    @property
    def sampled(self) -> bool:
        """Whether samples are scored, not the start itself."""
        return self.solver not in ("start", "budget")


COLUMNS = (*(field.name for field in fields(Task)), "n", *FIGURES, *OF_START, *OF_BUDGET, "seconds")


def key_of(row: Mapping[str, Any]) -> str:
    """What a row is found by again; DDPM's calls follow from its grid."""
    nfe = 0 if row["solver"] == "DDPM" else row["nfe"]
    return "-".join(str(part) for part in (*(row[name] for name in COLUMNS[:6]), nfe)).replace(" ", "_")


@dataclass(frozen=True)
class Plan:
    """How much is run: problems, training sizes (the last is the main one), seeds, epochs of a flow, network steps."""

    toys: dict[str, Toy]
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    epochs: int
    steps: int
    networks: tuple[str, ...]


WHOLE = Plan(FULL, (1_000, 10_000, 100_000), (0, 1, 2), 10, 3000, ("gmm-40",))
BRIEF = Plan(QUICK, (1_000, 10_000), (0,), 3, 300, ("gmm-2",))


def calls_of(start: str, denoiser: str) -> list[tuple[str, int]]:
    """Solvers and calls of a start at the main training size."""
    if start == "classic from 3":
        return [("DDPM", 40)] if denoiser == "exact" else []
    long = start == "classic"
    if denoiser == "network":
        return [("2M", nfe) for nfe in (*NETWORK_CALLS, *((39,) if long else ()))] + ([("Heun", 79)] if long else [])
    rows = []
    for key in methods_of("toy"):
        many = (LONG_HEUN if long else SHORT_HEUN) if key == "Heun" else (LONG_2M if long else SHORT_2M)
        rows += [(key, nfe) for nfe in many if exists(key, nfe)]
    return rows if long else [*rows, ("DDPM", 0)]  # 0: as many as the paper's grid has below sigma_T


def tasks(plan: Plan) -> Iterator[Task]:
    """Every row, those that share a fit one after another."""
    main = plan.sizes[-1]
    for seed in plan.seeds:
        for name in plan.toys:
            yield Task(name, main, seed, "exact", "exact samples", "none", 0)
            for start in (start for start in BUILDERS if applies(start, plan.toys[name])):
                if start != "classic" and start != "classic from 3":
                    yield Task(name, main, seed, "exact", start, "start", 0)
                if start in ("gmm", "tmix"):
                    yield Task(name, main, seed, "exact", start, "none", 0)
                for denoiser in ("exact", "network") if name in plan.networks else ("exact",):
                    if start in ("uninformed", "gmm") and name in plan.networks and not plan.toys[name].heavy:
                        yield Task(name, main, seed, denoiser, start, "budget", 0)
                    for solver, nfe in calls_of(start, denoiser):
                        yield Task(name, main, seed, denoiser, start, solver, nfe)
            for size in plan.sizes[:-1]:
                for start in (start for start in SIZED if applies(start, plan.toys[name])):
                    yield Task(name, size, seed, "exact", start, "start", 0)
                    yield Task(name, size, seed, "exact", start, "2M", SMALL_CALLS)


def solver_and_grid(task: Task, sigma: float) -> tuple[Any, Tensor]:
    """The solver and its grid from the start's sigma."""
    if task.solver in METHODS:
        method = METHODS[task.solver]
        steps = -(-task.nfe // method.a_step)
        if method.usual == "log":
            return method.solver, hs.log_uniform(sigma, SIGMA_MIN, steps)
        return method.solver, hs.karras(sigma, 0.002 if sigma == 80 else SIGMA_MIN, steps, 7.0)
    least = (
        BUDGET_MIN if task.solver == "budget" else 0.0
    )  # networks know little below, and the bound grows as 1 / sigma^2
    levels = hs.karras(3.0, 2e-4, 40, 2.0)  # the paper's toy grid, cut at the start's sigma
    kept = levels[(levels < sigma * (1 - 1e-9)) & (levels >= least)]
    return hs.DDPM(), torch.cat([levels.new_tensor([sigma]), kept])

"""Starts on laws that are known exactly: `python -m bench.toy --out DIR [--quick]`.

Laws, starts and metrics are those of the paper's toy study ("Initialization-Aware Score-Based Diffusion Sampling",
Fassina, Cardoso, Le Corff, Romary, 2026, https://arxiv.org/abs/2603.00772), with the solvers that are strong at few
calls beside its own. A finished row stays in `DIR/toy.csv`, so a killed or stopped run goes on; `report.md` and plots
are written at the end, from the file alone.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.toy_law import FULL, QUICK, Toy
from bench.toy_network import network
from bench.toy_report import write_report
from bench.toy_score import FAR, NEAR, Score, immse, kl, tails
from bench.toy_start import BUILDERS, LEARNED, Built, Setting, missing
from headstart.output import write

SIGMA_MIN = 0.02
SHORT_2M, LONG_2M = (3, 5, 7, 9, 13, 19), (5, 7, 9, 13, 19, 27, 39)
SHORT_HEUN, LONG_HEUN = (13,), (13, 39, 79)
NETWORK_CALLS, SMALL_CALLS = (5, 9, 19), 9
FIGURES = ("swd", "max_swd", "bulk", "gap", "gap_error", "modes", "tail_99", "tail_999")
OF_START = ("kl", "kl_error", "immse", "immse_error", "start_tail_0.999", "start_tail_0.9999", "fit_seconds")
SHORT = ("uninformed", "empirical", *LEARNED)


@dataclass(frozen=True)
class Task:
    """One row of the table: `solver` "start" scores the start itself, "none" its law at sigma = 0 without a network."""

    law: str
    train: int
    seed: int
    denoiser: str
    start: str
    solver: str
    nfe: int


COLUMNS = (*(field.name for field in fields(Task)), "n", *FIGURES, *OF_START, "seconds")


@dataclass(frozen=True)
class Plan:
    """How much is run: problems, training sizes (the last is the main one), seeds, epochs of a flow, network steps."""

    toys: dict[str, Toy]
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    epochs: int
    steps: int
    networks: tuple[str, ...]


WHOLE = Plan(FULL, (1_000, 10_000, 100_000), (0, 1, 2), 20, 3000, ("gmm-40", "t-10"))
BRIEF = Plan(QUICK, (1_000, 10_000), (0,), 3, 300, ("gmm-2",))


def calls_of(start: str, denoiser: str) -> list[tuple[str, int]]:
    """Solvers and calls of a start at the main training size."""
    if start == "classic from 3":
        return [("DDPM", 40)] if denoiser == "exact" else []
    long = start == "classic"
    if denoiser == "network":
        return [("2M", nfe) for nfe in (*NETWORK_CALLS, *((39,) if long else ()))] + ([("Heun", 79)] if long else [])
    rows = [("2M", nfe) for nfe in (LONG_2M if long else SHORT_2M)]
    rows += [("Heun", nfe) for nfe in (LONG_HEUN if long else SHORT_HEUN)]
    return rows if long else [*rows, ("DDPM", 0)]  # 0: as many as the paper's grid has below sigma_T


def tasks(plan: Plan) -> Iterator[Task]:
    """Every row, those that share a fit one after another."""
    main = plan.sizes[-1]
    for name in plan.toys:
        for seed in plan.seeds:
            yield Task(name, main, seed, "exact", "exact samples", "none", 0)
            for start in BUILDERS:
                if start != "classic" and start != "classic from 3":
                    yield Task(name, main, seed, "exact", start, "start", 0)
                if start in ("gmm", "tmix"):
                    yield Task(name, main, seed, "exact", start, "none", 0)
                for denoiser in ("exact", "network") if name in plan.networks else ("exact",):
                    for solver, nfe in calls_of(start, denoiser):
                        yield Task(name, main, seed, denoiser, start, solver, nfe)
            for size in plan.sizes[:-1]:
                for start in ("empirical", "gmm", "tmix"):
                    yield Task(name, size, seed, "exact", start, "start", 0)
                    yield Task(name, size, seed, "exact", start, "2M", SMALL_CALLS)


def solver_and_grid(task: Task, sigma: float) -> tuple[Any, Tensor]:
    """The solver and its grid from the start's sigma."""
    if task.solver == "2M":
        return hs.DPMpp2M(), hs.log_uniform(sigma, SIGMA_MIN, task.nfe)
    if task.solver == "Heun":
        steps = (task.nfe + 1) // 2
        return hs.Heun(), hs.karras(80.0, 0.002, steps, 7.0) if sigma == 80 else hs.karras(sigma, SIGMA_MIN, steps, 7.0)
    levels = hs.karras(3.0, 2e-4, 40, 2.0)  # the paper's toy grid, cut at the start's sigma
    kept = levels[levels < sigma * (1 - 1e-9)]
    return hs.DDPM(), torch.cat([levels.new_tensor([sigma]), kept])


class Bench:
    """Fits, networks and references of a plan, made when first needed."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.build: Callable[[str, int, int, str], Built] = lru_cache(4)(self._build)
        self.score: Callable[[str, int], Score] = lru_cache(1)(lambda name, seed: Score(plan.toys[name], seed))
        self.network: Callable[[str, int], Any] = lru_cache(1)(self._network)

    def data(self, name: str, size: int, seed: int) -> Tensor:
        return self.plan.toys[name].law.sample(size, 1000 + seed)

    def _build(self, name: str, size: int, seed: int, start: str) -> Built:
        seed = 0 if start.startswith("flow") else seed
        setting = Setting(self.plan.toys[name], self.data(name, size, seed), seed, self.folder, self.plan.epochs)
        return BUILDERS[start](setting)

    def _network(self, name: str, seed: int) -> Any:
        path = self.folder / f"{name}-{seed}-network.pt"
        return network(self.plan.toys[name], self.data(name, self.plan.sizes[-1], seed), seed, self.plan.steps, path)

    def run(self, task: Task) -> dict[str, Any]:
        """The row of a task."""
        began, toy, seed = time.perf_counter(), self.plan.toys[task.law], task.seed
        if task.start == "exact samples":
            return self.row(task, toy, toy.law.sample(toy.n, 3000 + seed), began)
        built = self.build(task.law, task.train, seed, task.start)
        if task.solver == "start":
            found = dict(zip(("kl", "kl_error"), kl(toy, built.start, seed), strict=True))
            found |= dict(zip(("immse", "immse_error"), immse(toy, built.start, seed), strict=True))
            deep = toy.heavy and task.train == WHOLE.sizes[-1]
            found |= tails(toy, built.start, seed, FAR if deep else NEAR)
            return asdict(task) | found | {"fit_seconds": built.seconds, "seconds": time.perf_counter() - began}
        if task.solver == "none":
            return self.row(task, toy, built.law.at(0.0).sample(toy.n, seed=4000 + seed), began)
        denoiser = toy.denoise if task.denoiser == "exact" else self.network(task.law, seed)
        solver, grid = solver_and_grid(task, built.start.sigma)
        x, info = hs.sample(
            denoiser, built.start, toy.n, grid=grid, solver=solver, seed=4000 + seed, batch=10_000, return_info=True
        )
        return self.row(task, toy, x, began) | {"nfe": info.nfe}

    def row(self, task: Task, toy: Toy, x: Tensor, began: float) -> dict[str, Any]:
        figures = self.score(task.law, task.seed)(x)
        return asdict(task) | {"n": len(x)} | figures | {"seconds": time.perf_counter() - began}


def key(row: dict[str, Any]) -> tuple[str, ...]:
    """What a row is found by again; DDPM's calls follow from its grid."""
    nfe = 0 if row["solver"] == "DDPM" else row["nfe"]
    return (*(str(row[name]) for name in COLUMNS[:6]), str(nfe))


def load(path: Path) -> list[dict[str, Any]]:
    """Rows of a table, as text."""
    if not path.exists():
        return []
    with path.open() as handle:
        return list(csv.DictReader(handle))


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    """The table, whole or not at all; figures to five digits."""

    def put(temporary: Path) -> None:
        with temporary.open("w", newline="") as handle:
            table = csv.DictWriter(handle, COLUMNS, restval="", lineterminator="\n")
            table.writeheader()
            table.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)

    write(path, put)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for table, report and plots")
    parser.add_argument("--quick", action="store_true", help="two laws, one seed, small samples: a check, no result")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; run again to go on")
    parser.add_argument("--fits", type=Path, help="folder for fits and networks; OUT/fits when left out")
    parser.add_argument("--law", action="append", help="only this law (repeatable)")
    parser.add_argument("--without", action="append", default=[], help="leave out this start (repeatable)")
    arguments = parser.parse_args()
    plan, table = BRIEF if arguments.quick else WHOLE, arguments.out / "toy.csv"
    began, rows = time.perf_counter(), load(table)
    done, bench = {key(row) for row in rows}, Bench(plan, arguments.fits or arguments.out / "fits")
    skipped: dict[str, str] = {}
    left = [task for task in tasks(plan) if key(asdict(task)) not in done]
    for task in left:
        reason = "left out by --without" if task.start in arguments.without else missing(task.start)
        if reason or (arguments.law and task.law not in arguments.law):
            skipped |= {task.start: reason} if reason else {}
            continue
        if time.perf_counter() - began > arguments.seconds:
            print(f"stopped: {len(rows)} rows done; run the same command to go on")
            return
        rows.append(bench.run(task))
        save(table, rows)
        print(*(f"{part!s:>14}" for part in asdict(task).values()), f"{rows[-1]['seconds']:.2f} s", flush=True)
    write_report(arguments.out, load(table), plan.toys, skipped)


if __name__ == "__main__":
    main()

"""Starts on laws that are known exactly: `python -m bench.toy --out DIR [--quick]`.

Laws, starts and metrics are those of the paper's toy study ("Initialization-Aware Score-Based Diffusion Sampling",
Fassina, Cardoso, Le Corff, Romary, 2026, https://arxiv.org/abs/2603.00772), with the solvers that are strong at few
calls beside its own. A finished row stays in `DIR/toy.json`, so a killed or stopped run goes on, and torchrun shares
the samples out; `report.md` and plots are written when it ends or stops, from the file alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.toy.bars import LARGE, PUBLISHED
from bench.toy.network import network
from bench.toy.plan import BRIEF, WHOLE, Plan, Task, solver_and_grid, tasks
from bench.toy.record import as_text, finite
from bench.toy.report import write_report
from bench.toy.score import FAR, NEAR, Score, budget, immse, kl, large, tails
from bench.toy.start import BUILDERS, LEARNED, Built, Setting, missing
from headstart.compare.run import Experiment, find_ranks, run
from headstart.compare.store import Result
from headstart.solver import calls

PART = 10_000  # samples kept and shared out at a time


class Bench:
    """Fits, networks and references of a plan, made when first needed."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.build: Callable[[str, int, int, str], Built] = lru_cache(4)(self._build)
        self.score: Callable[[str, int], Score] = lru_cache(1)(lambda name, seed: Score(plan.toys[name], seed))
        self.network: Callable[[str], Any] = lru_cache(1)(self._network)

    def data(self, name: str, size: int, seed: int) -> Tensor:
        return self.plan.toys[name].law.sample(size, 1000 + seed)

    def _build(self, name: str, size: int, seed: int, start: str) -> Built:
        seed = 0 if start.startswith("flow") else seed
        setting = Setting(self.plan.toys[name], self.data(name, size, seed), seed, self.folder, self.plan.epochs)
        return BUILDERS[start](setting)

    def _network(self, name: str) -> Any:
        path = self.folder / f"{name}-network.pt"
        return network(self.plan.toys[name], self.data(name, self.plan.sizes[-1], 0), 0, self.plan.steps, path)

    def denoiser(self, task: Task) -> Any:
        return self.plan.toys[task.law].denoise if task.denoiser == "exact" else self.network(task.law)

    def prepare(self, task: Task) -> None:
        """Fits the start, and trains the network where the task has one."""
        if task.start != "exact samples":
            self.build(task.law, task.train, task.seed, task.start)
            self.denoiser(task)

    def draw(self, task: Task, count: int, seed: int, first: int) -> tuple[Tensor, float]:
        """Samples `first .. first + count - 1` of a task, and the seconds they took."""
        began, law = time.perf_counter(), self.plan.toys[task.law].law
        if task.start == "exact samples":
            return law.sample(count, 3000 + seed, first), time.perf_counter() - began
        built = self.build(task.law, task.train, task.seed, task.start)
        if task.solver == "none":
            return built.law.at(0.0).sample(count, 4000 + seed, first), time.perf_counter() - began
        solver, grid = solver_and_grid(task, built.start.sigma)
        x = hs.sample(
            self.denoiser(task), built.start, count, grid=grid, solver=solver, seed=4000 + seed, batch=PART,
            offset=first,
        )  # fmt: skip
        return x, time.perf_counter() - began

    def figures(self, task: Task, x: Tensor | None) -> dict[str, Any]:
        """All figures of a task, whose samples are `x`."""
        if x is None:
            return self.figures_of_start(task)
        found: dict[str, Any] = {"n": len(x), **self.score(task.law, task.seed)(x)}
        if task.start != "exact samples" and task.solver != "none":
            sigma = self.build(task.law, task.train, task.seed, task.start).start.sigma
            solver, grid = solver_and_grid(task, sigma)
            found["nfe"] = calls(solver.rows(grid.tolist()))
        if task.law in PUBLISHED and task.seed == 0 and task.train == self.plan.sizes[-1]:
            toy = self.plan.toys[task.law]
            if task.start == "exact samples":
                found |= large(toy, toy.law.sample(LARGE, 3000), 0)
            elif task.start in LEARNED and task.solver == "DDPM":
                found |= large(toy, self.draw(task, LARGE, 0, 0)[0], 0)
        return found

    def figures_of_start(self, task: Task) -> dict[str, Any]:
        toy, seed = self.plan.toys[task.law], task.seed
        built = self.build(task.law, task.train, seed, task.start)
        if task.solver == "budget":
            return budget(toy, built.start, self.denoiser(task), solver_and_grid(task, built.start.sigma)[1], seed)
        found = dict(zip(("kl", "kl_error"), kl(toy, built.start, seed), strict=True))
        found |= dict(zip(("immse", "immse_error"), immse(toy, built.start, seed), strict=True))
        deep = toy.heavy and task.train == WHOLE.sizes[-1]
        return found | tails(toy, built.start, seed, FAR if deep else NEAR) | {"fit_seconds": built.seconds}


def add_row(bench: Bench, task: Task, result: Result) -> None:
    """Draws the samples of a task and keeps its row."""
    began, toy = time.perf_counter(), bench.plan.toys[task.law]
    n = toy.n if task.sampled else 0
    experiment = Experiment(bench, n, PART, result.path.parent / "samples", exact=True)

    def add(task: Task, seed: int) -> None:
        x = torch.from_numpy(experiment.gather(task, seed)["arr_0"]) if task.sampled else None
        row = asdict(task) | bench.figures(task, x) | {"seconds": time.perf_counter() - began}
        result.add(task.key, finite(row))
        experiment.drop(task, seed)
        print(*(f"{part!s:>14}" for part in asdict(task).values()), f"{row['seconds']:.2f} s", flush=True)

    run(experiment, [(task, task.seed)], add, task.key, find_ranks())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for table, report and plots")
    parser.add_argument("--quick", action="store_true", help="two laws, one seed, small samples: a check, no result")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; run again to go on")
    parser.add_argument("--fits", type=Path, help="folder for fits and networks; OUT/fits when left out")
    parser.add_argument("--law", action="append", help="only this law (repeatable)")
    parser.add_argument("--without", action="append", default=[], help="leave out this start (repeatable)")
    arguments = parser.parse_args()
    plan = BRIEF if arguments.quick else WHOLE
    result = Result(arguments.out / "toy.json", "toy", {"quick": arguments.quick})
    began, bench = time.perf_counter(), Bench(plan, arguments.fits or arguments.out / "fits")
    skipped: dict[str, str] = {}
    for task in [task for task in tasks(plan) if not result.has(task.key)]:
        reason = "left out by --without" if task.start in arguments.without else missing(task.start)
        if reason or (arguments.law and task.law not in arguments.law):
            skipped |= {task.start: reason} if reason else {}
            continue
        if time.perf_counter() - began > arguments.seconds:
            print(f"stopped: {len(result.rows)} rows done; run the same command to go on")
            break
        add_row(bench, task, result)
    if find_ranks()[0] == 0:
        write_report(arguments.out, as_text(result.rows), plan.toys, skipped)


if __name__ == "__main__":
    main()

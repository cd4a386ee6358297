"""Starts on laws that are known exactly: `python -m bench.toy --out DIR [--quick]`.

Laws, starts and metrics are those of the paper's toy study ("Initialization-Aware Score-Based Diffusion Sampling",
Fassina, Cardoso, Le Corff, Romary, 2026, https://arxiv.org/abs/2603.00772), with the solvers that are strong at few
calls beside its own. A finished row stays in `DIR/toy.csv`, so a killed or stopped run goes on; `report.md` and plots
are written when it ends or stops, from the file alone.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

import headstart as hs
from bench.toy.bars import LARGE, PUBLISHED
from bench.toy.law import Toy
from bench.toy.network import network
from bench.toy.plan import BRIEF, COLUMNS, WHOLE, Plan, Task, solver_and_grid, tasks
from bench.toy.report import write_report
from bench.toy.score import FAR, NEAR, Score, budget, immse, kl, large, tails
from bench.toy.start import BUILDERS, LEARNED, Built, Setting, missing
from headstart.io.output import write


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

    def run(self, task: Task) -> dict[str, Any]:
        """The row of a task."""
        row = self.scored(task)
        published = task.law in PUBLISHED and task.seed == 0 and task.train == self.plan.sizes[-1]
        if published and task.start == "exact samples":
            row |= large(self.plan.toys[task.law], self.plan.toys[task.law].law.sample(LARGE, 3000), 0)
        elif published and task.start in LEARNED and task.solver == "DDPM":
            row |= large(self.plan.toys[task.law], self.draw(task, LARGE)[0], 0)
        return row

    def draw(self, task: Task, n: int) -> tuple[Tensor, Any]:
        """`n` samples of a task, and what they cost."""
        built = self.build(task.law, task.train, task.seed, task.start)
        solver, grid = solver_and_grid(task, built.start.sigma)
        return hs.sample(
            self.denoiser(task), built.start, n, grid=grid, solver=solver, seed=4000 + task.seed, batch=10_000,
            return_info=True,
        )  # fmt: skip

    def scored(self, task: Task) -> dict[str, Any]:
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
        if task.solver == "budget":
            found = budget(toy, built.start, self.denoiser(task), solver_and_grid(task, built.start.sigma)[1], seed)
            return asdict(task) | found | {"seconds": time.perf_counter() - began}
        if task.solver == "none":
            return self.row(task, toy, built.law.at(0.0).sample(toy.n, seed=4000 + seed), began)
        x, info = self.draw(task, toy.n)
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
            break
        rows.append(bench.run(task))
        save(table, rows)
        print(*(f"{part!s:>14}" for part in asdict(task).values()), f"{rows[-1]['seconds']:.2f} s", flush=True)
    write_report(arguments.out, load(table), plan.toys, skipped)


if __name__ == "__main__":
    main()

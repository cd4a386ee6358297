"""What plans gain: `python -m bench.plan --out DIR [--quick] [--case gmm-40 image-784 zoo] [--seeds 3]`.

Planned coefficients from 80 and from sigma_T with free history, beside Heun, 2M, 3M, UniPC and a learned start with 2M,
on two exact laws and the zoo's network: paired errors to the fine solution from the same latents, distances of the laws
beside their floors, and the zero-call control. The classic grids are picked for each number of calls on the very score
they are judged by, which flatters them; plans see nothing of it. Rows are kept in `DIR/rows.json` as they are done, so
a killed run goes on, and torchrun shares the samples out; then `plan.json`, `report.md` and `plan.png` are written.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.plans.case import CASES, CHUNK, Case
from bench.plans.method import FINE, NFE, ZERO, Bench, Method, methods
from bench.plans.report import report
from bench.plans.score import Score
from headstart.compare.run import Experiment, find_ranks, run
from headstart.compare.store import Result


def key_of(case: str, seed: int, way: Method) -> str:
    """What a row is found by again."""
    return f"{case}-{seed}-{way.key}"


def evaluate(case: Case, seed: int, result: Result) -> None:
    """Every row of a law and seed that is not in the file yet."""
    bench, ranks = Bench(case, seed), find_ranks()
    folder = result.path.parent / "samples" / f"{case.name}-{seed}"
    experiment = Experiment(
        bench, case.n, CHUNK, folder, exact=True, keep=lambda _, seconds: {"seconds": np.array([seconds])}
    )
    scores: list[Score] = []

    def add(way: Method, seed: int) -> None:
        held = experiment.gather(way, seed)
        x = torch.from_numpy(held["arr_0"])
        if way == FINE:
            scores.append(Score(case, x, seed))
        key = key_of(case.name, seed, way)
        if result.has(key):
            return
        about = {"case": case.name, "seed": seed, "method": way.name, "grid": bench.grid_text(way), "nfe": way.nfe}
        seconds = 0.0 if way == FINE else held["seconds"].sum().item()
        result.add(key, about | scores[0](x) | {"seconds": seconds})
        if way != FINE:  # the others are scored against it when the run goes on
            experiment.drop(way, seed)

    ways = [ZERO, *(way for nfe in NFE for way in methods(case.start.sigma, nfe))]
    left = [way for way in ways if not result.has(key_of(case.name, seed, way))]
    run(experiment, [(way, seed) for way in (FINE, *left)], add, f"{case.name}, seed {seed}", ranks, progress=True)
    if ranks[0] == 0:
        about = result.found.setdefault(case.name, {"n": case.n, "horizons": {}, "floors": {}})
        about["horizons"][str(seed)], about["floors"][str(seed)] = case.start.sigma, scores[0].floor()
        result.save()
        experiment.drop(FINE, seed)


def run_all(
    cases: dict[str, Callable[[int, bool], Case]], seeds: int, quick: bool, result: Result
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Every law and seed that is not whole yet; all rows, and what is known of the laws."""
    for name, make in cases.items():
        for seed in range(seeds):
            if str(seed) not in result.found.get(name, {"floors": {}})["floors"]:
                evaluate(make(seed, quick), seed, result)
    return result.rows, result.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="few samples and one seed: to see it run")
    parser.add_argument("--case", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    result = Result(arguments.out / "rows.json", "plan", {"quick": arguments.quick})
    chosen = {name: CASES[name] for name in arguments.case}
    rows, laws = run_all(chosen, 1 if arguments.quick else arguments.seeds, arguments.quick, result)
    if find_ranks()[0] == 0:
        report(arguments.out, rows, laws)


if __name__ == "__main__":
    main()

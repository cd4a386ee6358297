"""What plans gain: `python -m bench.plan --out DIR [--quick] [--case gmm-40 image-784 zoo] [--seeds 3]`.

Planned coefficients from 80 and from sigma_T with free history, beside Heun, 2M, 3M, UniPC and a learned start with 2M,
on two exact laws and the zoo's network: paired errors to the fine solution from the same latents, distances of the laws
beside their floors, and the zero-call control. The classic grids are picked for each number of calls on the very score
they are judged by, which flatters them; plans see nothing of it. Rows are kept in `DIR/rows.csv` as they are done, so a
killed run goes on; then `plan.json`, `report.md` and `plan.png` are written.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import torch

from bench.plans.case import CASES, Case
from bench.plans.method import NFE, in_parts, methods
from bench.plans.report import report
from bench.plans.score import Score
from headstart.io.output import write

COLUMNS = (
    "case",
    "seed",
    "method",
    "grid",
    "nfe",
    "rmse",
    "median",
    "likelihood",
    "mode_tv",
    "swd",
    "minor",
    "seconds",
)
TEXT = ("case", "method", "grid")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows done so far."""
    if not path.is_file():
        return []
    with path.open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row.get("seconds")]
    whole = ("seed", "nfe")
    return [{k: v if k in TEXT or v == "" else int(v) if k in whole else float(v) for k, v in r.items()} for r in rows]


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    fresh = not path.is_file()
    with path.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def evaluate(case: Case, seed: int, done: set[int], path: Path) -> Score:
    """Every number of calls that is not in the file yet, each appended whole."""
    z = case.latents(seed)
    score = Score(case, case.fine(80 * z), seed)

    def row(method: str, grid: str, nfe: int, x: torch.Tensor, seconds: float) -> dict[str, Any]:
        figures = {name: f"{value:.6g}" for name, value in score(x).items()}
        return {"case": case.name, "seed": seed, "method": method, "grid": grid, "nfe": nfe, **figures,
                "seconds": f"{seconds:.3f}"}  # fmt: skip

    if 0 not in done:
        append(path, [row("fine solution", "", 0, score.fine, 0.0)])
        mixture = case.start.mixture
        zero = torch.cat([mixture.denoise(mixture.transport(part, 0.02), 0.02) for part in z.split(500)])
        append(path, [row("zero calls", "the start's own flow", 0, zero, 0.0)])
    for nfe in NFE:
        if nfe in done:
            continue
        rows = []
        for method in methods(case, nfe, seed):
            began = time.perf_counter()
            x = in_parts(method, z)
            rows.append(row(method.name, method.grid, nfe, x, time.perf_counter() - began))
        append(path, rows)
        print(f"{case.name}, seed {seed}: {nfe} calls done", flush=True)
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="few samples and one seed: to see it run")
    parser.add_argument("--case", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    rows, laws = out / "rows.csv", out / "laws.json"
    abouts: dict[str, Any] = json.loads(laws.read_text()) if laws.is_file() else {}
    for name in arguments.case:
        for seed in range(1 if arguments.quick else arguments.seeds):
            done = {r["nfe"] for r in read_rows(rows) if (r["case"], r["seed"]) == (name, seed)}
            about = abouts.setdefault(name, {"n": 0, "horizons": {}, "floors": {}})
            if {0, *NFE} <= done and str(seed) in about["floors"]:
                continue
            case = CASES[name](seed, arguments.quick)
            score = evaluate(case, seed, done, rows)
            about["n"], about["horizons"][str(seed)] = case.n, case.start.sigma
            about["floors"][str(seed)] = score.floor()
            write(laws, lambda path: path.write_text(json.dumps(abouts, indent=1) + "\n"))
    report(out, read_rows(rows), abouts)


if __name__ == "__main__":
    main()

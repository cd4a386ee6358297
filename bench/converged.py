"""Planned samples, and what the network converges to: `python -m bench.converged --out DIR [--n 600]`.

From the same latents at the demo's start: the zoo network's fine solution, DPM-Solver++ 2M on log grids with several
last levels, and plans. For each the distance to the fine solution (median and root mean square over samples, a
coordinate) and the demo's two scores, which compare with real images and know nothing of the fine solution.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from headstart.compare.demo import HORIZON
from headstart.compare.score import Distances
from headstart.io.output import write

FINE = (0.002, 30)  # last level and calls of the fine solution
LAST = (0.002, 0.02, 0.06)
CALLS = (3, 5, 7)
PART = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=600)
    parser.add_argument("--seed", type=int, default=77)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    train, test = hs.zoo.images("fashion")[0], hs.zoo.images("fashion", "test")[0]
    denoiser, score, start = hs.zoo.denoiser("fashion"), Distances(train, test), hs.fit(train, max_iter=20).at(HORIZON)
    z = hs.ops.normal((arguments.n, 1, 28, 28), arguments.seed, 0, device="cpu")

    def run(**way: Any) -> Tensor:
        return torch.cat([hs.sample(denoiser, start, len(part), latents=part, **way) for part in z.split(PART)])

    fine = run(grid=hs.log_uniform(HORIZON, *FINE))
    rows: list[dict[str, Any]] = []

    def row(method: str, nfe: int, x: Tensor) -> None:
        each = (x - fine).flatten(1).square().mean(1).sqrt()
        swd, fd = score(x)
        distance = {"median": float(each.median()), "rmse": float(each.square().mean().sqrt())}
        rows.append({"method": method, "nfe": nfe, **distance, "swd": swd, "fd": fd})
        print(rows[-1], flush=True)

    row("fine", FINE[1], fine)
    for nfe in CALLS:
        for low in LAST:
            row(f"2M, log to {low:g}", nfe, run(grid=hs.log_uniform(HORIZON, low, nfe)))
        row("planned", nfe, run(plan=hs.plan(start, nfe, HORIZON, seed=0)))
    found = {"n": arguments.n, "seed": arguments.seed, "sigma_T": HORIZON, "rows": rows}
    write(arguments.out / "converged.json", lambda path: path.write_text(json.dumps(found, indent=1) + "\n"))


if __name__ == "__main__":
    main()

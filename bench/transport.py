"""How near transport keeps a latent's sample: `python -m bench.transport --out DIR [--quick]`.

Unit latents are carried to `sigma_T` on the start's own flow (`start.transport`), then down by the denoiser with fine
steps; beside them the fine solution from 80 of the same latents. Paired distances against `sigma_T`, on two exact laws
and the zoo's network, and what transport costs beside one call of that network. Rows stay in `DIR/transport.json` as
they are done.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.plans.case import CASES, Case
from headstart.io.output import write
from headstart.start.transport import second_moments

HORIZONS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 14.0, 20.0)
BATCH, ROUNDS = 64, 15


def distances(case: Case, reference: Tensor, z: Tensor, sigma: float) -> dict[str, float]:
    """Root-mean-square, median and share of distances above a tenth of the data's scale, a coordinate."""
    x = case.start.mixture.transport(z, sigma)
    each = (case.fine(x, sigma) - reference).double().flatten(1).square().mean(1).sqrt()
    scale = float(second_moments(case.start.mixture).mean().sqrt())
    return {
        "sigma_T": sigma,
        "rmse": float(each.square().mean().sqrt()),
        "median": float(each.median()),
        "flips": float((each > 0.1 * scale).double().mean()),
    }


def cost(case: Case) -> dict[str, Any]:
    """Seconds of transport to 3 for a batch over those of one call of the zoo's network on as many, taking turns."""
    network, sigma = hs.zoo.denoiser("fashion"), torch.tensor(3.0)
    z = torch.randn(BATCH, *case.start.shape)
    x = z.reshape(BATCH, 1, 28, 28)
    case.start.mixture.transport(z, 3.0)  # finds its steps once
    ratios = []
    with torch.no_grad():
        for _ in range(ROUNDS):
            began = time.perf_counter()
            case.start.mixture.transport(z, 3.0)
            between = time.perf_counter()
            network(x, sigma)
            ratios.append((between - began) / (time.perf_counter() - between))
    quartiles = statistics.quantiles(ratios, n=4)
    return {"of_a_call": quartiles[1], "quartiles": quartiles[::2], "batch": BATCH}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="few samples: to see it run")
    parser.add_argument("--case", nargs="*", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    path: Path = arguments.out / "transport.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for name in arguments.case:
        about = found.setdefault(name, {"rows": []})
        done = {row["sigma_T"] for row in about["rows"]}
        if done >= set(HORIZONS):
            continue
        case = CASES[name](0, arguments.quick)
        z = case.latents(0)[: 16 if arguments.quick else 256 if case.truth else 64]
        about["n"], reference = len(z), case.fine(80 * z)
        if z[0].numel() == 784 and "cost" not in found:
            found["cost"] = cost(case)
        for sigma in HORIZONS:
            if sigma not in done:
                about["rows"].append(distances(case, reference, z, sigma))
                write(path, lambda temporary: temporary.write_text(json.dumps(found, indent=1) + "\n"))
                print(name, about["rows"][-1], flush=True)


if __name__ == "__main__":
    main()

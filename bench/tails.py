"""Tails of starts on the heavy-tailed law: `python -m bench.tails --out DIR`.

4 multivariate t's, 3 degrees of freedom, d = 10; starts fitted on 100,000 points. At each sigma_T and tail level the
figure is the largest relative error of a quantile over many directions (coordinates, principal axes of the components
and random ones): quantiles of n samples of the start against the law's exact ones. The floor is the same figure for n
samples of the law itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import headstart as hs
from bench.laws import Law, heavy_tails

SIGMAS, LEVELS = (1.244, 1.055, 0.801), (0.999, 0.9999)
DIM, TRAIN, CHUNK = 10, 100_000, 250_000


def directions(law: Law, random: int = 32) -> Tensor:
    """Unit vectors `[V, D]`."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(random, law.dim, generator=generator, dtype=torch.float64)
    axes = law.eigen[1].mT.reshape(-1, law.dim)
    return torch.cat([torch.eye(law.dim, dtype=torch.float64), axes, z / z.norm(dim=1, keepdim=True)])


def tail(draw: Callable[[int, int], Tensor], n: int, v: Tensor) -> Tensor:
    """The largest values of `n` projected samples, `[V, n (1 - level)]` in falling order, least level first."""
    kept = round(n * (1 - min(LEVELS))) + 1
    best = torch.empty(len(v), 0, dtype=torch.float64)
    for offset in range(0, n, CHUNK):
        projected = v @ draw(min(CHUNK, n - offset), offset).double().T
        best = torch.cat([best, projected], dim=1).topk(kept, dim=1).values
    return best


def worst(top: Tensor, exact: Tensor, n: int) -> list[float]:
    """Largest relative error of a quantile over the directions, for each level."""
    found = torch.stack([top[:, round(n * (1 - level))] for level in LEVELS], dim=1)
    return (found / exact - 1).abs().max(0).values.tolist()


def measure(seed: int, n: int) -> list[dict[str, object]]:
    """One law and one training set: a row for each start and sigma_T."""
    law = heavy_tails(DIM, seed)
    data, v, rows = law.sample(TRAIN, seed=seed).float(), directions(law), []
    starts = {
        "StudentTMixture(4)": lambda: hs.StudentTMixture.fit(data, 4, hs.Full(), seed=seed),
        "GaussianMixture(4)": lambda: hs.GaussianMixture.fit(data, 4, hs.Full(), seed=seed),
        "GaussianMixture(32)": lambda: hs.GaussianMixture.fit(data, 32, hs.Full(), seed=seed),
    }
    for name, fit in starts.items():
        began = time.perf_counter()
        start = fit()
        seconds = time.perf_counter() - began
        for sigma in SIGMAS:
            exact = torch.tensor([[law.project(one).quantile(level, sigma) for level in LEVELS] for one in v])
            at = start.at(sigma)
            errors = worst(tail(lambda count, offset, at=at: at.sample(count, seed=100, offset=offset), n, v), exact, n)
            row = {"law": seed, "start": name, "sigma_T": sigma, **dict(zip(map(str, LEVELS), errors, strict=True))}
            rows.append({**row, "seconds": seconds, "df": start.report.df})
            print(row, flush=True)
    for sigma in SIGMAS:
        exact = torch.tensor([[law.project(one).quantile(level, sigma) for level in LEVELS] for one in v])
        top = tail(lambda count, offset, s=sigma: law.sample(count, seed=100, offset=offset, sigma=s), n, v)
        row = {"law": seed, "start": "the law itself", "sigma_T": sigma}
        rows.append({**row, **dict(zip(map(str, LEVELS), worst(top, exact, n), strict=True))})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for tails.json")
    parser.add_argument("--n", type=int, default=1_000_000, help="samples of each start")
    parser.add_argument("--laws", type=int, default=3, help="laws, by seed")
    arguments = parser.parse_args()
    rows = [row for seed in range(arguments.laws) for row in measure(seed, arguments.n)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    result = {"d": DIM, "train": TRAIN, "n": arguments.n, **machine, "rows": rows}
    (arguments.out / "tails.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

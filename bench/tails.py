"""Tails of starts on the heavy-tailed law: `python -m bench.tails --out DIR`.

4 multivariate t's, 3 degrees of freedom, d = 10; starts fitted on 100,000 points. At each sigma_T and tail level the
figure is the largest relative error of a quantile over many directions (coordinates, principal axes of the components
and random ones). A mixture of normals or t's projects to one of the same kind, so both quantiles, the start's and the
law's, are computed, not sampled.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
from torch import Tensor

import headstart as hs
from bench.laws import Law, heavy_tails, quantile
from headstart.io.output import write
from headstart.start.family import Mixture

SIGMAS, LEVELS = (1.244, 1.055, 0.801), (0.999, 0.9999)
DIM, TRAIN = 10, 100_000


def directions(law: Law, random: int = 24) -> Tensor:
    """Unit vectors `[V, D]`."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(random, law.dim, generator=generator, dtype=torch.float64)
    axes = law.eigen[1].mT.reshape(-1, law.dim)
    return torch.cat([torch.eye(law.dim, dtype=torch.float64), axes, z / z.norm(dim=1, keepdim=True)])


def parts(start: Mixture) -> list[Law]:
    """The components of a mixture with full covariances, each a law that weighs what it does there."""
    mean, variance, axes, spread = (tensor.double() for tensor in start.components)
    factor = axes.mT * (variance + spread).sqrt()[:, None]
    df = start.df.tolist() if isinstance(start, hs.StudentTMixture) else [None] * len(mean)
    return [Law(mean[k : k + 1], factor[k : k + 1], start.weight[k : k + 1], df[k]) for k in range(len(mean))]


def worst(start: Mixture, law: Law, sigma: float, level: float) -> float:
    """Largest relative error of a quantile over the directions."""
    laws, errors = parts(start), []
    for v in directions(law):
        found = quantile([part.project(v) for part in laws], level, sigma)
        errors.append(abs(found / law.project(v).quantile(level, sigma) - 1))
    return max(errors)


def measure(seed: int) -> list[dict[str, object]]:
    """One law and one training set: a row for each start and sigma_T."""
    law = heavy_tails(DIM, seed)
    data, rows = law.sample(TRAIN, seed=seed).float(), []
    fits = {
        "StudentTMixture(4)": lambda: hs.StudentTMixture.fit(data, 4, hs.Full(), seed=seed),
        "GaussianMixture(4)": lambda: hs.GaussianMixture.fit(data, 4, hs.Full(), seed=seed),
        "GaussianMixture(32)": lambda: hs.GaussianMixture.fit(data, 32, hs.Full(), seed=seed),
    }
    for name, fit in fits.items():
        start = fit()
        report = {"seconds": start.report.seconds, "df": start.report.df}
        for sigma in SIGMAS:
            errors = {str(level): worst(start, law, sigma, level) for level in LEVELS}
            rows.append({"law": seed, "start": name, "sigma_T": sigma, **errors, **report})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for tails.json")
    parser.add_argument("--laws", type=int, default=3, help="laws, by seed")
    arguments = parser.parse_args()
    rows = [row for seed in range(arguments.laws) for row in measure(seed)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    machine = {"machine": platform.processor() or platform.machine(), "torch": str(torch.__version__)}
    result = {"d": DIM, "train": TRAIN, **machine, "rows": rows}
    write(arguments.out / "tails.json", lambda path: path.write_text(json.dumps(result, indent=1) + "\n"))


if __name__ == "__main__":
    main()

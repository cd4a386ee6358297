"""Scores of samples against a toy law, and of a start against the noised law."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.toy.law import LEVEL, Toy
from headstart import ops
from headstart.metrics import max_sliced_wasserstein, sliced_wasserstein, tail_ratios

BULK = (0.1, 0.9)
SEARCH = {"projections": 64, "steps": 10, "restarts": 1}  # of the ascent to the worst direction
MOST = 10_000  # points of a Wasserstein distance
MORE = 4  # exact samples of the mean log-density, for each of a row's
FAR, NEAR, CHUNK = 1_000_000, 100_000, 50_000  # samples of a start for its tails: heavy ones, others; at a time


class Score:
    """Scores samples of one law against `n` exact ones of a seed."""

    def __init__(self, toy: Toy, seed: int) -> None:
        self.toy, self.seed = toy, seed
        self.reference = toy.law.sample(toy.n, 2000 + seed)
        self.log_prob = self.noised(toy.law.sample(MORE * toy.n, 12_000 + seed))[0]

    def noised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density and component shares of `x` plus noise of `LEVEL`."""
        return self.toy.likelihood(ops.noise(x.double(), LEVEL, 5000 + self.seed, 0))

    def __call__(self, x: Tensor) -> dict[str, float]:
        """Figures of samples `[n, D]`; the likelihood gap's error is that of exact samples."""
        x, y = x.double(), self.reference
        some, other = x[:MOST], y[:MOST]
        worst = max_sliced_wasserstein(some, other, **SEARCH)
        log_prob, share = self.noised(x)
        ratio = tail_ratios(x, y, worst.direction)
        return {
            "swd": sliced_wasserstein(some, other, 64),
            "max_swd": worst.distance,
            "bulk": max_sliced_wasserstein(some, other, bulk=BULK, **SEARCH).distance,
            "gap": float(log_prob.mean() - self.log_prob.mean()),
            "gap_error": float(self.log_prob.std()) * math.sqrt((1 + 1 / MORE) / len(y)),
            "modes": 0.5 * float((share.mean(0) - self.toy.law.weight).abs().sum()),
            "tail_99": ratio.get(0.99, math.nan),
            "tail_999": ratio.get(0.999, math.nan),
        }


def large(toy: Toy, x: Tensor, seed: int) -> dict[str, float]:
    """The max-sliced distance of many samples `[N, D]` to as many exact ones: its floor falls with their number."""
    exact = toy.law.sample(len(x), 11_000 + seed)
    return {"max_swd_large": max_sliced_wasserstein(x, exact, **SEARCH).distance}


def kl(toy: Toy, start: Any, seed: int, n: int = 10_000) -> tuple[float, float]:
    """Monte-Carlo `KL(p_T || p_theta)` and its standard error."""
    if isinstance(start, hs.initializer.EmpiricalStart):  # its density is a sum over all points
        n = min(1000, 10_000 // toy.dim)
    x = toy.law.sample(n, 6000 + seed, sigma=start.sigma)
    truth = (toy.fast if toy.heavy else toy.mixture).log_prob(x, start.sigma)
    with torch.no_grad():
        ratio = truth - start.log_prob(x.float()).double()
    return float(ratio.mean()), float(ratio.std()) / math.sqrt(n)


def tails(toy: Toy, start: Any, seed: int, n: int) -> dict[str, float]:
    """Quantiles of a start over the exact ones of the noised law, the worst of directions.

    Directions: the four that max-sliced Wasserstein search finds from four disjoint sets of 5,000 samples, and eight
    random ones; both tails. The exact quantiles come from the law's projection, so only the start's are estimated.
    """
    with torch.no_grad():
        first = start.sample(20_000, seed=7000 + seed).double()
        exact = toy.law.sample(20_000, 8000 + seed, sigma=start.sigma)
        pairs = zip(first.split(5000), exact.split(5000), strict=True)
        found = [max_sliced_wasserstein(a, b, **SEARCH).direction for a, b in pairs]
        v = torch.cat([torch.stack(found), hs.metrics.wasserstein.directions(8, toy.dim, seed)])
        parts = [start.sample(min(CHUNK, n - i), seed=9000 + seed, offset=i).double() @ v.T for i in range(0, n, CHUNK)]
    along, worst = torch.cat(parts), {}
    for level in (0.999, 0.9999):
        ratios = []
        for i, direction in enumerate(v):
            line = toy.law.project(direction)
            for end in (level, 1 - level):
                wanted = line.quantile(end, start.sigma)
                ratios.append(float(along[:, i].kthvalue(max(1, round(end * n))).values) / wanted)
        worst[f"start_tail_{level}"] = max(ratios, key=lambda ratio: abs(math.log(max(ratio, 1e-9))))
    return worst


def immse(toy: Toy, start: Any, seed: int, n: int = 4000) -> tuple[float, float]:
    """`hs.initialization_kl` with the exact denoiser, and its standard error; NaN for a start without a denoiser."""
    if not hasattr(start, "mixture") and not isinstance(start, hs.Classic):
        return math.nan, math.nan
    heldout = toy.law.sample(n, 10_000 + seed)
    found = hs.initialization_kl(start, toy.denoise, heldout, levels=24, seed=seed, batch=n)
    return found.kl, found.standard_error


def budget(toy: Toy, start: Any, denoiser: Any, grid: Tensor, seed: int) -> dict[str, float]:
    """`hs.error_budget` of DDPM on the grid, where the law's components are normal."""

    def wide(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x.float(), sigma).double()

    exact = denoiser == toy.denoise
    found = hs.error_budget(toy.mixture, start, denoiser if exact else wide, grid, n=500, paths=16, seed=seed)
    parts = {name: getattr(found, name).nats for name in ("initialization", "score", "discretization", "measured")}
    return parts | {"measured_error": found.measured.error}

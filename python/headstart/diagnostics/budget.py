"""Where a sampler's error comes from, for laws that are known exactly.

The DDPM step from t to s is the reverse process with the prediction frozen at its start, so Girsanov's theorem bounds
the error of the whole sampler from sigma_T to sigma_min, with D the exact denoiser and D^ the network:

    KL(p_min || p^) <= KL(p_T || p_theta)                                                     initialization
                     + sum_k (u_{k+1} - u_k) E|D^(x_k) - D(x_k)|^2                            score
                     + sum_k int_{u_k}^{u_{k+1}} E|D(x_u) - D(x_k)|^2 du,   u = 1 / (2 s^2)   discretization

The last two are orthogonal parts of one error, because `E[D(x_u) | x_k] = D(x_k)`: no constant is lost between them.
References: "Initialization-Aware Score-Based Diffusion Sampling" (Fassina, Cardoso, Le Corff, Romary, 2026,
https://arxiv.org/abs/2603.00772); "Improved Analysis of Score-based Generative Modeling" (Chen, Lee, Lu, 2022,
https://arxiv.org/abs/2211.01916).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from headstart import ops
from headstart.argument import require_path
from headstart.denoiser import Denoiser, Preconditioned, predict
from headstart.diagnostics.tails import described
from headstart.io.output import write
from headstart.metrics.check import require_count, require_seed
from headstart.ops.array import tensor_of
from headstart.solver import DDPM, Row, Solver
from headstart.start.protocol import Start

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Gauss-Legendre nodes and weights on [-1, 1]
NODES = (-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526)
WEIGHTS = (0.3478548451374538, 0.6521451548625461, 0.6521451548625461, 0.3478548451374538)


class ExactLaw(Protocol):
    """A law with exact samples, log-density and denoiser at every level, such as a `GaussianMixture`."""

    def at(self, sigma: float) -> Start: ...

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor: ...


@dataclass(frozen=True)
class Estimate:
    """A figure in nats and its standard error."""

    nats: float
    error: float


@dataclass(frozen=True)
class ErrorBudget:
    """The parts of the bound and what was measured, in nats.

    Attributes:
        initialization, score, discretization: the three parts of the module's bound.
        measured: `KL(p_min || p^)`, from an importance-weighted estimate of `log p^` that approaches it from above.
        sigma: the grid `[K + 1]`.
        score_steps, discretization_steps: share of each step in the two parts, `[K]`.
    """

    initialization: Estimate
    score: Estimate
    discretization: Estimate
    measured: Estimate
    sigma: Tensor
    score_steps: Tensor
    discretization_steps: Tensor

    @property
    def bound(self) -> float:
        return self.initialization.nats + self.score.nats + self.discretization.nats

    def plot(self, path: str | Path) -> None:
        """Writes a figure: the parts beside the measured KL, and what each step adds.

        Raises:
            ImportError: the extra `headstart[plots]` is not installed.
        """
        path = require_path("plot", path)
        figure = draw(self)
        write(path, lambda temporary: figure.savefig(temporary, dpi=100))


def error_budget(
    law: ExactLaw, start: Start, denoiser: Denoiser | Preconditioned, grid: Tensor | Sequence[float],
    solver: Solver = DDPM(), n: int = 1000, paths: int = 64, seed: int = 0,
) -> ErrorBudget:  # fmt: skip
    """The parts of the error of sampling `law` from `start` down `grid`, and the error itself.

    Args:
        law: the truth, see `ExactLaw`.
        start: where the sampler begins, at `start.sigma`.
        denoiser: the one it samples with; the law's own `denoise` makes the score part 0.
        grid: levels from `start.sigma` down to sigma_min; a 0 at the end is left out.
        solver: one that takes DDPM's steps (`DDPM()`, `Ancestral(eta=1)`): the bound holds for no other, and a
            deterministic one has no tractable likelihood.
        n: points of each estimate.
        paths: noising paths a point, for the measured KL: `n paths K` network calls.
        seed: of all noise.

    Raises:
        TypeError: a law, start, denoiser, solver or grid that is none.
        ValueError: another solver, a grid that does not begin at the start, fewer than 2 points or 1 path, or
            predictions that are not finite.
    """
    require_parts(law, start, denoiser, solver)
    n, paths = (require_count("error_budget", *one) for one in (("n", n, 2), ("paths", paths, 1)))
    seed, levels = require_seed("error_budget", seed), levels_of(grid)
    rows = require("error_budget", solver, levels, start)
    x = law.at(start.sigma).sample(n, seed=seed).double()
    ratio = law.at(start.sigma).log_prob(x) - start.log_prob(x)
    with torch.no_grad():
        score, discretization = path_errors(law, denoiser, levels, n, (seed + 1) % 2**64)
        clean = law.at(levels[-1]).sample(n, seed=(seed + 2) % 2**64).double()
        estimate = log_likelihood(start, denoiser, rows, levels, clean, paths, (seed + 3) % 2**64)
        gap = law.at(levels[-1]).log_prob(clean) - estimate
    if not all(values.isfinite().all() for values in (ratio, score, discretization, gap)):
        raise ValueError("error_budget: predictions and densities must be finite, got NaN or infinity")
    return ErrorBudget(
        part(ratio), part(score.sum(1)), part(discretization.sum(1)), part(gap),
        torch.tensor(levels, dtype=torch.float64, device="cpu"), score.mean(0), discretization.mean(0),
    )  # fmt: skip


def require_parts(law: Any, start: Any, denoiser: Any, solver: Any) -> None:
    """Refuses a law, start, denoiser or solver that is none.

    Raises:
        TypeError: one is none.
    """
    if isinstance(law, type) or not all(callable(getattr(law, name, None)) for name in ("at", "denoise")):
        raise TypeError(f"error_budget: law must have at and denoise, as a GaussianMixture has, got {described(law)}")
    if isinstance(start, type) or not all(hasattr(start, name) for name in ("sigma", "shape", "sample", "log_prob")):
        raise TypeError(f"error_budget: start must be a law at a noise level, law.at(sigma), got {described(start)}")
    if isinstance(denoiser, type) or not (callable(denoiser) or isinstance(denoiser, Preconditioned)):
        raise TypeError(f"error_budget: denoiser must be a function D(x, sigma) -> x0, got {described(denoiser)}")
    if isinstance(solver, type) or not callable(getattr(solver, "rows", None)):
        raise TypeError(f"error_budget: solver must be a solver, such as DDPM(), got {described(solver)}")


def levels_of(grid: Any) -> list[float]:
    """Noise levels, two or more, falling and finite, without a 0 at the end.

    Raises:
        TypeError, ValueError: no such levels.
    """
    grid = tensor_of(grid)
    numbers = isinstance(grid, Tensor) and not grid.is_meta and not grid.is_complex() and grid.ndim == 1
    numbers = numbers or (isinstance(grid, list | tuple) and all(isinstance(level, Real) for level in grid))
    if not numbers:
        raise TypeError(f"error_budget: grid must be noise levels [K + 1], got {described(grid)}")
    levels = [float(level) for level in grid]
    levels = levels[:-1] if levels and levels[-1] == 0 else levels
    falls = len(levels) > 1 and all(math.inf > t > s > 0 for t, s in pairwise(levels))
    if not falls:
        raise ValueError(f"error_budget: grid must fall over two levels above 0 or more, got {levels[:8]}")
    return levels


def require(op: str, solver: Solver, levels: list[float], start: Start) -> list[Row]:
    """DDPM's rows on the grid."""
    if abs(levels[0] - start.sigma) > 1e-6 * start.sigma:
        raise ValueError(f"{op}: grid must begin at the start's sigma {start.sigma}, got {levels[0]}")
    rows, wanted = solver.rows(levels), DDPM().rows(levels)
    same = len(rows) == len(wanted) and all(
        len(a.b) == len(b.b) and all(math.isclose(p, q, abs_tol=1e-9) for p, q in zip(flat(a), flat(b), strict=True))
        for a, b in zip(rows, wanted, strict=True)
    )
    if not same:
        raise ValueError(f"{op}: solver must take DDPM's steps (DDPM(), Ancestral(eta=1)), got {solver!r}")
    return rows


def flat(row: Row) -> tuple[float, ...]:
    return (row.sigma or 0.0, row.a, *row.b, row.c)


def part(values: Tensor) -> Estimate:
    """Mean and standard error."""
    return Estimate(float(values.mean()), float(values.double().std()) / math.sqrt(len(values)))


def path_errors(
    law: ExactLaw, denoiser: Denoiser | Preconditioned, levels: list[float], n: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Each point's score and discretization error of every step, `[n, K]` twice, along one noising walk a point."""
    x = law.at(levels[-1]).sample(n, seed=seed).double()
    score, discretization = (torch.zeros(n, len(levels) - 1, dtype=torch.float64, device="cpu") for _ in range(2))
    at, step = levels[-1], 0
    for k in reversed(range(len(levels) - 1)):
        t, s = levels[k], levels[k + 1]
        half = 0.5 * math.log(t / s)
        inner = []
        for node, weight in zip(NODES, WEIGHTS, strict=True):
            sigma = s * math.exp(half * (1 + node))
            x, at, step = ops.noise(x, math.sqrt(sigma**2 - at**2), seed, step), sigma, step + 1
            inner.append((weight * half / sigma**2, law.denoise(x, sigma)))
        x, at, step = ops.noise(x, math.sqrt(t**2 - at**2), seed, step), t, step + 1
        frozen = law.denoise(x, t)
        off = predict(denoiser, x, torch.tensor(t, dtype=torch.float64, device="cpu")) - frozen
        score[:, k] = (0.5 / s**2 - 0.5 / t**2) * off.square().flatten(1).sum(1)
        for weight, exact in inner:
            discretization[:, k] += weight * (exact - frozen).square().flatten(1).sum(1)
    return score, discretization


def log_likelihood(
    start: Start,
    denoiser: Denoiser | Preconditioned,
    rows: list[Row],
    levels: list[float],
    x: Tensor,
    paths: int,
    seed: int,
) -> Tensor:
    """`ln (1/M) sum_m p^(x, path_m) / q(path_m | x)` `[n]` over M noising paths q: at most `ln p^` on average."""
    n, dim = len(x), x[0].numel()
    weight = torch.empty(paths, n, dtype=torch.float64, device="cpu")
    for m in range(paths):
        state, total = x, torch.zeros(n, dtype=torch.float64, device="cpu")
        for k in reversed(range(len(rows))):
            t, s, row = levels[k], levels[k + 1], rows[k]
            up = math.sqrt(t**2 - s**2)
            above = ops.noise(state, up, seed, m * len(rows) + k)
            mean = row.a * above + row.b[0] * predict(
                denoiser, above, torch.tensor(t, dtype=torch.float64, device="cpu")
            )
            down = ((state - mean) / row.c).square() - ((above - state) / up).square()
            total += -0.5 * down.flatten(1).sum(1) - dim * math.log(row.c / up)
            state = above
        weight[m] = total + start.log_prob(state)
    return weight.logsumexp(0) - math.log(paths)


def draw(budget: ErrorBudget) -> Figure:
    """The figure of `ErrorBudget.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot needs the extra: pip install 'headstart[plots]'") from error
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    bottom = 0.0
    for name in ("initialization", "score", "discretization"):
        height = max(0.0, getattr(budget, name).nats)
        left.bar("bound", height, bottom=bottom, label=name)
        bottom += height
    left.bar("measured", budget.measured.nats, yerr=budget.measured.error, color="0.4")
    left.set_ylabel("KL, nats")
    left.legend(fontsize="small")
    edges = [(float(t), float(s)) for t, s in pairwise(budget.sigma)]
    place, width = [s for _, s in edges], [t - s for t, s in edges]
    score, discretization = budget.score_steps.tolist(), budget.discretization_steps.tolist()
    right.bar(place, score, width, align="edge", color="C1", edgecolor="w")
    right.bar(place, discretization, width, score, align="edge", color="C2", edgecolor="w")
    right.set_xscale("log")
    right.set_xlabel("sigma")
    right.set_title("what each step adds, nats", fontsize="medium")
    return figure

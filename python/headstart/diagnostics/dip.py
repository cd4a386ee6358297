"""The horizon of the paper: the smallest noise level at which projections of the data look unimodal.

References: "The Dip Test of Unimodality" (Hartigan, Hartigan, 1985, https://doi.org/10.1214/aos/1176346577);
"Initialization-Aware Score-Based Diffusion Sampling" (Fassina, Cardoso, Le Corff, Romary, 2026,
https://arxiv.org/abs/2603.00772).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart import ops
from headstart.metrics.check import require_count, require_seed
from headstart.metrics.wasserstein import directions
from headstart.ops.library import exact
from headstart.start.check import check_data, check_sigma

MAX_POINTS = 20_000  # points a test
HALVINGS = 10


@dataclass(frozen=True)
class DipHorizon:
    """The result of the dip test.

    Attributes:
        sigma: the largest of `levels`.
        levels: smallest level at which the projection on each direction is not rejected, `[V]`.
        rejected: share of fresh directions rejected at `sigma` on the half of the data that chose nothing; about
            the test's level where all is well.
        rejected_clean: share of directions rejected at `low`: 0 says that the test has nothing to say about this data.
    """

    sigma: float
    levels: Tensor
    rejected: float
    rejected_clean: float


@exact
def dip_horizon(
    data: Tensor, low: float, high: float, projections: int = 64, level: float = 0.05, seed: int = 0
) -> DipHorizon:
    """The smallest sigma in [low, high] at which random projections of `x_0 + sigma n` pass the dip test.

    Found by bisection in `ln sigma` along each direction on one half of the data, the worst direction taken, and
    verified on the other half along fresh directions. The rule knows nothing of the start, and in many dimensions
    random projections look unimodal at every sigma: prefer `horizon`, which measures what matters.

    Args:
        data: points `[N, *shape]`, N >= 20.
        low, high: where to look, in units of the data; low may be 0.
        projections: number of directions V.
        level: of the test.
        seed: of directions and noise.

    Raises:
        ImportError: the extra `headstart[horizon]` is not installed.
        ValueError: fewer than 20 points, low and high that do not ascend, or a number out of its range.
    """
    test = load()
    points = check_data("dip_horizon", data).flatten(1).double()
    low, high = check_sigma("dip_horizon", low), check_sigma("dip_horizon", high, positive=True)
    projections, seed = require_count("dip_horizon", "projections", projections, 1), require_seed("dip_horizon", seed)
    if not isinstance(level, int | float) or not low < high or len(points) < 20 or not 0 < level < 1:
        wanted = "low < high, 20 points and a level in (0, 1)"
        raise ValueError(f"dip_horizon: need {wanted}, got {low}, {high}, {len(points)} and {level!r}")
    points = points[:: max(1, -(-len(points) // (2 * MAX_POINTS)))]

    def project(part: Tensor, step: int) -> tuple[Tensor, Tensor]:
        v = directions(projections, points.shape[1], (seed + step) % 2**64)
        return part @ v.T, ops.normal((len(part), projections), seed, step, stream=ops.Stream.SOLVER, dtype=v.dtype)

    def rejects(x: Tensor, z: Tensor, sigma: float) -> bool:
        return test((x + sigma * z).numpy())[1] < level

    x, z = project(points[::2].cpu(), 0)
    clean = [rejects(x[:, i], z[:, i], low) for i in range(projections)]
    levels = torch.full((projections,), low, dtype=torch.float64, device="cpu")
    for i in (i for i in range(projections) if clean[i]):
        bottom, top = max(low, 1e-4 * high), high
        for _ in range(HALVINGS):
            middle = math.sqrt(bottom * top)
            bottom, top = (middle, top) if rejects(x[:, i], z[:, i], middle) else (bottom, middle)
        levels[i] = top
    sigma = float(levels.max())
    x, z = project(points[1::2].cpu(), 1)
    rejected = sum(rejects(x[:, i], z[:, i], sigma) for i in range(projections)) / projections
    return DipHorizon(sigma, levels, rejected, sum(clean) / projections)


def load() -> Callable[..., tuple[float, float]]:
    """The test: `x -> (dip, p)`."""
    try:
        from diptest import diptest
    except ImportError as error:
        raise ImportError("dip_horizon needs the extra: pip install 'headstart[horizon]'") from error
    return diptest

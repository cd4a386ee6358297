"""How far a network and a start agree, on held-out data: what a plan should fear."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.initializer import GaussianMixture

BELOW, ABOVE = 5, 5  # noise levels from the data's scale / 10 to the horizon, and from there to 80
MOST_POINTS = 64
LEAST_NOISE = 0.01  # rms error of a prediction that is always allowed for, of the start's own denoising error


@dataclass(frozen=True)
class Calibration:
    """Held-out mean squared denoising errors a coordinate.

    Fields:
        levels: noise levels, ascending.
        network, start: errors of the network and of the start's own denoiser.
        apart: mean squared difference of the two.
        displacement: bound on the root-mean-square distance, a coordinate, between the two flows at the horizon when
            both come from 80: `sigma_T int rms(D - D_q) dtau`, `tau = 1 / sigma`.
    """

    levels: tuple[float, ...]
    network: tuple[float, ...]
    start: tuple[float, ...]
    apart: tuple[float, ...]
    displacement: float

    def noise(self) -> float:
        """Largest excess error of the network, `sqrt(mse_D / mse_q - 1)`, over the levels; at least `LEAST_NOISE`.

        It sees the network's error only where the network denoises worse than the start.
        """
        excess = [d / q - 1 for d, q in zip(self.network, self.start, strict=True)]
        return max(LEAST_NOISE, math.sqrt(max(0.0, *excess)))


def calibrate(
    mixture: GaussianMixture, denoiser: Any, heldout: Tensor, sigma: float, cond: Mapping[str, Any], seed: int
) -> Calibration:
    """Denoises `heldout` `[N, *shape]` with both, at 10 noise levels; at most 64 points are used.

    Raises:
        ValueError: `heldout` is not of the mixture's shape, or empty.
    """
    if tuple(heldout.shape[1:]) != mixture.shape or len(heldout) == 0:
        raise ValueError(f"plan: heldout must be [N, {mixture.shape}], got {list(heldout.shape)}")
    x0 = heldout[:MOST_POINTS].float()
    low = 0.1 * float(x0.std())
    levels = torch.cat(
        [
            torch.linspace(math.log(low), math.log(sigma), BELOW + 1, dtype=torch.float64)[:-1],
            torch.linspace(math.log(sigma), math.log(80.0), ABOVE, dtype=torch.float64),
        ]
    ).exp()
    figures = []
    with torch.no_grad():
        for i, level in enumerate(levels.tolist()):
            x = ops.noise(x0, level, seed, i)
            theirs, ours = denoiser(x, torch.tensor(level, dtype=torch.float64), **cond), mixture.denoise(x, level)
            pairs = ((theirs, x0), (ours, x0), (theirs, ours))
            figures.append([float((a - b).double().square().mean()) for a, b in pairs])
    network, start, apart = (tuple(column) for column in zip(*figures, strict=True))
    tau, gap = 1 / levels[BELOW:], torch.tensor(apart[BELOW:], dtype=torch.float64).sqrt()
    displacement = sigma * float(torch.trapezoid(gap.flip(0), tau.flip(0)))
    return Calibration(tuple(levels.tolist()), network, start, apart, displacement)

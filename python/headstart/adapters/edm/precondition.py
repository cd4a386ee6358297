"""The factors around the raw networks: `D = c_skip x + c_out F(c_in x, c_noise)` as each project trained it.

Reference: "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras et al., 2022,
https://arxiv.org/abs/2206.00364), table 1 and appendix C.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headstart.denoiser import Preconditioning, edm_preconditioning


class Precondition(Protocol):
    """Factors at a noise level, and the levels that the network knows."""

    @property
    def sigma_min(self) -> float: ...

    @property
    def sigma_max(self) -> float: ...

    def at(self, sigma: float) -> Preconditioning:
        """Factors at `sigma`, above 0."""

    def round(self, sigma: float) -> float:
        """The level nearest to `sigma` that the network was trained at: `sigma` itself, but for iDDPM."""


class Continuous:
    """A network that takes every noise level."""

    def round(self, sigma: float) -> float:
        return sigma


@dataclass(frozen=True)
class EDMPretrained(Continuous):
    """`edm_preconditioning`, of EDM and EDM2; `sigma_data` is the root-mean-square of the data."""

    sigma_min: float = 0.0
    sigma_max: float = math.inf
    sigma_data: float = 0.5

    def at(self, sigma: float) -> Preconditioning:
        return edm_preconditioning(sigma, self.sigma_data)


@dataclass(frozen=True)
class VE(Continuous):
    """`D = x + sigma F(x, ln(sigma / 2))`, variance exploding."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def at(self, sigma: float) -> Preconditioning:
        return Preconditioning(1.0, sigma, 1.0, math.log(sigma / 2))


@dataclass(frozen=True)
class VP(Continuous):
    """`D = x - sigma F(x / sqrt(1 + sigma^2), (M - 1) t)`, variance preserving: `sigma(t)^2 = e^(b_d t^2 / 2 + b_0 t) - 1`.

    Args:
        beta_d, beta_min: b_d and b_0, slope and start of the noise rate.
        M: steps of the discrete process, the unit of `c_noise`.
        epsilon_t: smallest t of training.
    """  # noqa: E501

    beta_d: float = 19.9
    beta_min: float = 0.1
    M: int = 1000
    epsilon_t: float = 1e-5

    @property
    def sigma_min(self) -> float:
        return self.sigma(self.epsilon_t)

    @property
    def sigma_max(self) -> float:
        return self.sigma(1.0)

    def sigma(self, t: float) -> float:
        """Noise level at time `t`."""
        return math.sqrt(math.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t))

    def time(self, sigma: float) -> float:
        """Time of a noise level, the inverse of `sigma`."""
        root = math.sqrt(self.beta_min**2 + 2 * self.beta_d * math.log1p(sigma**2))
        return (root - self.beta_min) / self.beta_d

    def at(self, sigma: float) -> Preconditioning:
        c_in = 1 / math.sqrt(1 + sigma**2)
        return Preconditioning(1.0, -sigma, c_in, (self.M - 1) * self.time(sigma))


@dataclass(frozen=True)
class IDDPM:
    """`D = x - sigma F(x / sqrt(1 + sigma^2), M - 1 - j)`, `j` the step whose level `u_j` is nearest to sigma.

    The network knows M levels, and each call is told the nearest; the other factors follow sigma, which is the state's
    own. A grid of `round`ed levels is what EDM's sampler walks down; others come as near to the fine solution.

    Args:
        u: levels `[M + 1]`, descending to 0, as the file has them.
    """

    u: Sequence[float] = field(repr=False)

    @property
    def sigma_min(self) -> float:
        return self.u[-2]

    @property
    def sigma_max(self) -> float:
        return self.u[0]

    def index(self, sigma: float) -> int:
        """The step j, of those above 0; of two as near, the noisier."""
        after = bisect.bisect_left(self.u, -sigma, key=lambda level: -level)
        near = range(max(min(after, len(self.u) - 1) - 1, 0), min(after + 1, len(self.u) - 1))
        return min(near, key=lambda j: abs(self.u[j] - sigma))

    def at(self, sigma: float) -> Preconditioning:
        c_in = 1 / math.sqrt(1 + sigma**2)
        return Preconditioning(1.0, -sigma, c_in, float(len(self.u) - 2 - self.index(sigma)))

    def round(self, sigma: float) -> float:
        return self.u[self.index(sigma)]

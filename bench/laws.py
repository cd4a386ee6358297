"""Toy laws with everything known: modes in 2, 40 or 100 dimensions, and heavy tails.

A law is `sum_k w_k F(mean_k, L_k L_k^T)` with `F` normal, or multivariate Student-t with `df` degrees of freedom: a
normal whose covariance is divided by a gamma variate `w` of mean 1. Noised by sigma it is a normal scale mixture,

    p_sigma(x) = sum_k w_k int g(w) N(x; mean_k, L_k L_k^T / w + sigma^2 I) dw,

here by the trapezoidal rule in `log w`, on more nodes than needed. Slow, plain float64 torch, with nothing in common
with the package's mixtures, so it can measure them. Protocol: "Initialization-Aware Score-Based Diffusion Sampling"
(Fassina, Cardoso, Le Corff, Romary, 2026, https://arxiv.org/abs/2603.00772), centred and divided by the scalar std.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from headstart import ops

STEP, LEAST, MOST = 0.1, -36.0, 4.5  # of log w; w^(df / 2) at the left end is below 1e-15 from df = 2 on
CHUNK = 4096


@dataclass(frozen=True)
class Law:
    """A mixture of normals, or of multivariate t's.

    Args:
        mean: `[K, D]`, float64.
        factor: Cholesky factors `L` `[K, D, D]` of the scale matrices.
        weight: `[K]`, sums to 1.
        df: Degrees of freedom, at least 2 (samples: an integer); None: normal.
    """

    mean: Tensor
    factor: Tensor
    weight: Tensor
    df: float | None = None

    @property
    def dim(self) -> int:
        return self.mean.shape[1]

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues `[K, D]` and eigenvectors (columns) `[K, D, D]` of the scale matrices."""
        values, vectors = torch.linalg.eigh(self.factor @ self.factor.mT)
        return values.clamp_min(0), vectors

    @cached_property
    def nodes(self) -> tuple[Tensor, Tensor]:
        """Nodes `w` `[Q]` and log-weights `[Q]` of the mixing law; `w = 1` for normals."""
        if self.df is None:
            return torch.ones(1).double(), torch.zeros(1).double()
        log_w, a = torch.arange(LEAST, MOST, STEP, dtype=torch.float64), self.df / 2
        return log_w.exp(), a * math.log(a) - math.lgamma(a) + a * (log_w - log_w.exp()) + math.log(STEP)

    def sample(self, n: int, seed: int = 0, offset: int = 0, sigma: float = 0.0) -> Tensor:
        """Exact samples `[n, D]` of `x_0 + sigma n`, float64; sample i is the same in any batch, to rounding."""
        u = ops.uniform(n, seed, 0, offset, device="cpu")
        component = torch.searchsorted(self.weight.cumsum(0), u).clamp_max(len(self.weight) - 1)
        z = ops.normal((n, self.dim), seed, 0, offset, dtype=torch.float64, device="cpu")
        if self.df is not None:
            if self.df != int(self.df):
                raise ValueError(f"sample: df must be an integer, got {self.df}")
            chi = ops.normal((n, int(self.df)), seed, 1, offset, dtype=torch.float64, device="cpu").square().sum(1)
            z = z * (self.df / chi).sqrt()[:, None]
        x = self.mean[component]
        for k in range(len(self.weight)):
            own = component == k
            x[own] += z[own] @ self.factor[k].mT
        return ops.noise(x, sigma, seed, 2, offset)

    def log_prob(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Log-density `[B]` of `x_0 + sigma n` in nats at `x` `[B, D]`."""
        return torch.cat([self.posterior(part, sigma)[0] for part in x.double().split(CHUNK)])

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """`E[x_0 | x_0 + sigma n = x]` `[B, D]`."""
        return torch.cat([self.posterior(part, sigma)[1] for part in x.double().split(CHUNK)]).to(x.dtype)

    def posterior(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Log-density and posterior mean of one chunk."""
        (w, log_mass), (values, vectors) = self.nodes, self.eigen
        joint, means = [], []
        for k in range(len(self.weight)):
            clean = values[k, :, None] / w  # [D, Q]
            noised = clean + sigma**2
            y = (x - self.mean[k]) @ vectors[k]
            constant = self.weight[k].log() + log_mass - 0.5 * (2 * math.pi * noised).log().sum(0)
            joint.append(constant - 0.5 * y.square() @ (1 / noised))
            shrunk = y * (joint[k].softmax(1) @ (clean / noised).mT)
            means.append(self.mean[k] + shrunk @ vectors[k].mT)
        of_component = torch.stack([part.logsumexp(1) for part in joint], dim=1)
        share = of_component.softmax(1)
        return of_component.logsumexp(1), torch.einsum("bk,kbd->bd", share, torch.stack(means))

    def project(self, direction: Tensor) -> Law:
        """The law of `direction . x_0` for a unit vector `[D]`: of the same kind, in one dimension."""
        direction = direction.double()
        scale = (self.factor.mT @ direction).norm(dim=1)
        return Law((self.mean @ direction)[:, None], scale[:, None, None], self.weight, self.df)

    def tail(self, x: float, sigma: float = 0.0) -> float:
        """`P(x_0 + sigma n > x)`, in one dimension."""
        w, log_mass = self.nodes
        deviation = (self.factor[:, 0].square() / w + sigma**2).sqrt()  # [K, Q]
        above = 0.5 * torch.special.erfc((x - self.mean) / deviation / math.sqrt(2))
        return float(self.weight @ (above @ log_mass.exp()))

    def quantile(self, level: float, sigma: float = 0.0) -> float:
        """The `level` quantile of `x_0 + sigma n`, in one dimension."""
        return quantile([self], level, sigma)


def quantile(laws: Sequence[Law], level: float, sigma: float) -> float:
    """The `level` quantile of noised laws in one dimension together, whose weights sum to 1, by bisection."""
    low, high = -1e6, 1e6
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = sum(law.tail(middle, sigma) for law in laws)
        low, high = (middle, high) if above > 1 - level else (low, middle)
    return 0.5 * (low + high)


def standardize(law: Law) -> Law:
    """The law moved and scaled to mean 0 and a mean variance of 1 a coordinate, by its exact moments."""
    mean = law.weight @ law.mean
    spread = 1.0 if law.df is None else law.df / (law.df - 2)
    second = spread * law.factor.square().sum((1, 2)) + (law.mean - mean).square().sum(1)
    std = (law.weight @ second / law.dim).sqrt()
    return Law((law.mean - mean) / std, law.factor / std, law.weight, law.df)


def random_factors(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """`0.4 A diag(u)` `[count, dim, dim]`: A unit lower triangular, N(0, 1) below the diagonal, `u ~ U(0.1, 1)`."""
    below = torch.randn(count, dim, dim, generator=generator, dtype=torch.float64).tril(-1)
    u = 0.1 + 0.9 * torch.rand(count, 1, dim, generator=generator, dtype=torch.float64)
    return 0.4 * (below + torch.eye(dim, dtype=torch.float64)) * u


def random_weights(count: int, generator: torch.Generator) -> Tensor:
    """Dirichlet(1) weights."""
    u = -torch.rand(count, generator=generator, dtype=torch.float64).clamp_min(1e-300).log()
    return u / u.sum()


def modes(dim: int = 2, seed: int = 0) -> Law:
    """25 normals with means on the grid {-2..2}^2; in more dimensions each mean coordinate is drawn from {-2..2}."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.arange(-2, 3, dtype=torch.float64)
    mean = torch.cartesian_prod(line, line)
    if dim != 2:
        mean = torch.randint(-2, 3, (25, dim), generator=generator).double()
    factor = random_factors(25, dim, generator)
    return standardize(Law(mean, factor, random_weights(25, generator)))


def heavy_tails(dim: int = 10, seed: int = 0, df: int = 3) -> Law:
    """4 multivariate t's with means `U(-1, 1)^dim`."""
    generator = torch.Generator().manual_seed(seed)
    mean = 2 * torch.rand(4, dim, generator=generator, dtype=torch.float64) - 1
    factor = random_factors(4, dim, generator)
    return standardize(Law(mean, factor, random_weights(4, generator), df))

"""The toy problems: a law, its exact denoiser at working speed, its likelihood and mode shares, and a horizon."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

import headstart as hs
from bench.laws import Law, heavy_tails, modes
from headstart import ops

# sigma_T of the paper, the larger dimension the smaller
HORIZON = {2: 1.244, 10: 1.055, 40: 1.055, 100: 0.801}
# noise added before likelihoods are taken: some scale matrices are singular to rounding, and a solver that stops at
# 0.02 returns posterior means, contracted on that scale (at 0.05 that alone is 0.2 nats in 40 dimensions)
LEVEL = 0.1


class Coarse(Law):
    """The same law on fewer quadrature nodes: several times faster, exact to 1e-4 of the data's scale."""

    @cached_property
    def nodes(self) -> tuple[Tensor, Tensor]:
        if self.df is None:
            return super().nodes
        w, log_mass = super().nodes
        kept = slice(int((w < 1e-7).sum()) % 2 + int((w < 1e-7).sum()), None, 2)
        return w[kept], log_mass[kept] + torch.tensor(2.0).double().log()


@dataclass(frozen=True)
class Toy:
    """A problem.

    Fields:
        name: family and dimension.
        law: everything about it, in float64.
        n: test samples a row.
    """

    name: str
    law: Law
    n: int

    @property
    def dim(self) -> int:
        return self.law.dim

    @property
    def heavy(self) -> bool:
        return self.law.df is not None

    @property
    def sigma_T(self) -> float:
        return HORIZON[self.dim]

    @cached_property
    def fast(self) -> Coarse:
        return Coarse(self.law.mean, self.law.factor, self.law.weight, self.law.df)

    @cached_property
    def mixture(self) -> hs.GaussianMixture:
        """The law as a mixture, where its components are normal."""
        value, axes = self.law.eigen
        floor = torch.full((len(value), 1), 1e-12).double()
        components = ops.Components(self.law.mean, floor, axes.mT.contiguous(), value)
        return hs.GaussianMixture(components, self.law.weight, (self.dim,))

    @cached_property
    def parts(self) -> list[Coarse]:
        law, one = self.law, torch.ones(1).double()
        return [Coarse(law.mean[k : k + 1], law.factor[k : k + 1], one, law.df) for k in range(len(law.weight))]

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The exact denoiser."""
        return self.fast.denoise(x, float(sigma)) if self.heavy else self.mixture.denoise(x, sigma)

    def likelihood(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density `[B]` at `LEVEL` and the components' shares `[B, K]` of points at that level."""
        x = x.double()
        if not self.heavy:
            log_weight = self.law.weight.log()
            found = ops.mixture_posterior(x, self.mixture.components, log_weight, LEVEL, denoise=False, respond=True)
            assert found.responsibility is not None
            return found.log_prob, found.responsibility
        joint = torch.stack([part.log_prob(x, LEVEL) for part in self.parts], 1) + self.law.weight.log()
        return joint.logsumexp(1), joint.softmax(1)


FULL = {
    "gmm-2": Toy("gmm-2", modes(2), 20_000),
    "gmm-40": Toy("gmm-40", modes(40), 20_000),
    "gmm-100": Toy("gmm-100", modes(100), 10_000),
    "t-2": Toy("t-2", heavy_tails(2), 10_000),
    "t-10": Toy("t-10", heavy_tails(10), 10_000),
    "t-100": Toy("t-100", heavy_tails(100), 10_000),
}
QUICK = {name: replace(FULL[name], n=2000) for name in ("gmm-2", "t-10")}

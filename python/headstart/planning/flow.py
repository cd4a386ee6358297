"""The start's denoiser as a function that can be differentiated, on the few coordinates that matter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.ops.library import exact, rounds_products
from headstart.start.mixture import GaussianMixture
from headstart.start.transport import asinh_levels, descend

COORDINATES = 96  # principal coordinates of the law that a plan is fitted on
REST = 16  # further ones, which stand for all that are left
SMALL = 128  # dimensions up to which none are left out
MINOR = 16.0  # weight of the error in standard deviations of each coordinate, beside that in the law's scale
MIN_SPREAD = 0.02  # of the law's scale: smallest standard deviation that errors are measured in
WIDE = 1e6  # spread over variance from which float32 would blur the responsibilities
MIN_SIGMA = 0.003  # of the law's scale; where fine solutions end


@dataclass(frozen=True)
class ReducedFlow:
    """A Gaussian mixture in m coordinates about its mean: `S_k = diag(variance_k) + axes_k^T diag(spread_k) axes_k`.

    Attributes:
        mean: `[K, m]`.
        variance: `[K, 1]`, or `[K, m]` without axes.
        axes: `[K, R, m]`, orthonormal rows; None: diagonal covariances.
        spread: `[K, R]`, or None.
        log_weight: `[K]`.
        scale: standard deviation of a coordinate of the whole law.
        metric: `[m, m]`: an error `e` counts as `|e metric|`.
    """

    mean: Tensor
    variance: Tensor
    axes: Tensor | None
    spread: Tensor | None
    log_weight: Tensor
    scale: float
    metric: Tensor

    @exact
    def square(self, error: Tensor) -> Tensor:
        """Mean square a coordinate, `[B]`, of errors `[B, m]`; see `weigh_errors`."""
        return (error @ self.metric.to(error.dtype)).square().sum(1)

    @exact
    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`E[x_0 | x_0 + sigma n = x]` `[B, m]`, differentiable in `x` and `sigma`."""
        noise = torch.as_tensor(sigma, dtype=x.dtype, device=x.device) ** 2
        total = self.variance + noise
        keep = self.variance / total
        if self.variance.shape[1] > 1:
            shift = (self.mean.square() / total).sum(1) + total.log().sum(1)
            joint = self.log_weight - 0.5 * (x.square() @ (1 / total).mT - 2 * x @ (self.mean / total).mT + shift)
            g = joint.softmax(1)
            return g @ ((1 - keep) * self.mean) + x * (g @ keep)
        k, m = self.mean.shape
        distance = x.square().sum(1, keepdim=True) - 2 * x @ self.mean.mT + self.mean.square().sum(1)
        quadratic, log_det = distance / total[:, 0], m * total.log()[:, 0]
        if self.axes is None or self.spread is None:
            g = (self.log_weight - 0.5 * (quadratic + log_det)).softmax(1)
            return g @ ((1 - keep) * self.mean) + x * (g @ keep)
        along, flat = total + self.spread, self.axes.flatten(0, 1)
        drop, gain = self.spread / (total * along), self.spread * noise / (total * along)
        y = (torch.addmm(-(self.axes @ self.mean[..., None]).view(1, -1), x, flat.mT)).view(len(x), k, -1)
        quadratic = quadratic - (y.square() * drop).sum(2)
        log_det = log_det + (along / total).log().sum(1)
        g = (self.log_weight - 0.5 * (quadratic + log_det)).softmax(1)
        coefficient = (y * gain * g[..., None]).flatten(1)
        return torch.addmm(g @ ((1 - keep) * self.mean), coefficient, flat) + x * (g @ keep)

    @exact
    def solve(self, x: Tensor, sigma: float, steps: int) -> Tensor:
        """Where the flow takes states `x` at `sigma`: the fine solution a plan is measured against."""
        length = self.scale * math.sqrt(x.shape[1])
        levels = asinh_levels(length, MIN_SIGMA * self.scale, sigma, steps)
        return self.denoise(descend(self.denoise, x, levels), levels[-1])

    @exact
    def sample(self, n: int, sigma: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Clean and noised points `[n, m]` of the law."""
        m = self.mean.shape[1]
        own = torch.multinomial(self.log_weight.exp(), n, replacement=True, generator=generator)
        z = torch.randn(n, m, generator=generator, dtype=torch.float64, device="cpu").to(self.mean)
        x = self.mean[own] + self.variance[own].sqrt() * z
        if self.axes is not None and self.spread is not None:
            u = torch.randn(n, self.axes.shape[1], generator=generator, dtype=torch.float64, device="cpu").to(self.mean)
            x = x + ((self.spread[own].sqrt() * u)[:, None] @ self.axes[own])[:, 0]
        noise = torch.randn(n, m, generator=generator, dtype=torch.float64, device="cpu").to(self.mean)
        return x, x + sigma * noise


@exact
def reduce_flow(mixture: GaussianMixture) -> ReducedFlow:
    """The mixture's law on its first principal coordinates, on the CPU.

    A projection of a Gaussian mixture is a Gaussian mixture: the flow is exact for the projected law. Covariances that
    are diagonal keep every coordinate.
    """
    mean, variance, axes, spread = (None if t is None else t.double().cpu() for t in mixture.components)
    assert mean is not None
    assert variance is not None
    some = mixture.weight.cpu() > 0
    weight = mixture.weight.cpu()[some]
    mean, variance = mean[some] - weight @ mean[some], variance[some]
    axes, spread = (None if t is None else t[some] for t in (axes, spread))
    d = mean.shape[1]
    own = (
        variance.expand_as(mean) if axes is None or spread is None else variance + (axes**2 * spread[..., None]).sum(1)
    )
    scale = math.sqrt(float((weight @ (own + mean.square())).mean()))
    if d > SMALL and variance.shape[1] == 1:
        mean, axes, spread = project(weight, mean, axes, spread)
    metric = weigh_errors(weight, mean, variance, axes, spread, d)
    ratio = 0.0 if spread is None else float(spread.max() / (variance.min() + (MIN_SIGMA * scale) ** 2))
    exact_products = variance.shape[1] > 1 or ratio > WIDE or rounds_products(mean.device)
    dtype = torch.float64 if exact_products else torch.float32
    fields = [None if t is None else t.to(dtype, copy=True).contiguous() for t in (mean, variance, axes, spread)]
    return ReducedFlow(fields[0], fields[1], fields[2], fields[3], weight.log().to(dtype), scale, metric)  # type: ignore[arg-type]


def project(
    weight: Tensor, mean: Tensor, axes: Tensor | None, spread: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Means, axes and spreads on the principal coordinates; the axes made orthonormal there."""
    factors = [weight.sqrt()[:, None] * mean]
    if axes is not None and spread is not None:
        factors.append(((weight[:, None] * spread).sqrt()[..., None] * axes).flatten(0, 1))
    stacked = torch.cat(factors)
    basis = torch.linalg.eigh(stacked.mT @ stacked).eigenvectors[:, -COORDINATES - REST :]
    if axes is None or spread is None:
        return mean @ basis, None, None
    _, value, rows = torch.linalg.svd(spread.sqrt()[..., None] * (axes @ basis), full_matrices=False)
    return mean @ basis, rows, value.square()


def weigh_errors(
    weight: Tensor, mean: Tensor, variance: Tensor, axes: Tensor | None, spread: Tensor | None, d: int
) -> Tensor:
    """`Flow.metric`: of an error's square a coordinate, a part `1 / (1 + MINOR)` is taken as it is, the other in
    standard deviations of the law along each principal direction, times the law's scale: minor directions, which hold
    little of the energy and most of the likelihood, then count too. The last `REST` coordinates stand for all that were
    left out.
    """
    moment = torch.diag_embed(weight @ variance.expand_as(mean)) + (weight[:, None] * mean).mT @ mean
    if axes is not None and spread is not None:
        flat = ((weight[:, None] * spread).sqrt()[..., None] * axes).flatten(0, 1)
        moment = moment + flat.mT @ flat
    value, vector = torch.linalg.eigh(moment)
    times = torch.ones_like(value)
    if len(value) < d:
        times[:REST] = (d - len(value) + REST) / REST
    square = (times * value).sum() / d  # of the law's scale
    share = (1 + MINOR * square / value.clamp(min=MIN_SPREAD**2 * square)) / (1 + MINOR)
    return vector * (times * share / d).sqrt()

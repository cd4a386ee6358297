"""Normal scale mixtures plus noise: density and posterior mean of a noised Student-t component, by quadrature.

    t(.; mu, S, df) * N(0, sigma^2 I) = int g(w) N(x; mu, S / w + sigma^2 I) dw,  g the law Gamma(df / 2, rate df / 2)

In `log w` the integrand is analytic and falls off exponentially on both sides, so the trapezoidal rule converges
geometrically. All nodes share the mean and the axes: a point is projected once, then every node costs one quadratic
form with other eigenvalues, those of `S / w + sigma^2 I`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.initializer.quadrature import nodes


class Shape(NamedTuple):
    """One component in its eigenbasis, float64.

    Fields:
        mean: `[D]`.
        axes: Rows `[R, D]`, or None where they are the coordinates.
        value: Eigenvalues `[V]` of the scale matrix: along each axis, and once for all directions off the axes.
        copies: How many directions each stands for, `[V]`.
    """

    mean: Tensor
    axes: Tensor | None
    value: Tensor
    copies: Tensor

    def to(self, device: torch.device) -> Shape:
        axes = None if self.axes is None else self.axes.to(device)
        return Shape(self.mean.to(device), axes, self.value.to(device), self.copies.to(device))


def shape_of(components: ops.Components, k: int) -> Shape:
    """Component k; its tensors must be float64."""
    mean, variance = components.mean[k], components.variance[k]
    if components.axes is None or components.spread is None:
        return Shape(mean, None, variance, torch.full_like(variance, len(mean) // len(variance)))
    axes, along = components.axes[k], components.spread[k] + variance
    if len(axes) == len(mean):
        return Shape(mean, axes, along, torch.ones_like(along))
    count = torch.ones(len(along) + 1, dtype=torch.float64, device=along.device)
    count[-1] = len(mean) - len(axes)
    return Shape(mean, axes, torch.cat([along, variance]), count)


def project(shape: Shape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`x - mean` along the axes `[B, R]` and off them `[B, D]`, and the squares for each eigenvalue `[B, V]`."""
    rest = x - shape.mean
    if shape.axes is None:
        one = len(shape.value) == 1
        return rest[:, :0], rest, rest.square().sum(1, keepdim=True) if one else rest.square()
    along = rest @ shape.axes.mT
    if len(shape.axes) == len(shape.mean):
        return along, rest[:, :0], along.square()
    rest = rest - along @ shape.axes
    return along, rest, torch.cat([along.square(), rest.square().sum(1, keepdim=True)], dim=1)


def evaluate(shape: Shape, df: float, x: Tensor, sigma: float, denoise: bool) -> tuple[Tensor, Tensor | None]:
    """Log-density `[B]` of one noised component at `x` `[B, D]`, and its posterior mean `[B, D]` where asked for.

    Args:
        shape: The component.
        df: Its degrees of freedom.
        x: Points, float64.
        sigma: Noise level; at 0 the density is the t density itself.
        denoise: Whether to compute the mean too.
    """
    along, rest, squares = project(shape, x)
    dim = x.shape[1]
    if sigma == 0:
        peak = math.lgamma(0.5 * (df + dim)) - math.lgamma(0.5 * df) - 0.5 * dim * math.log(math.pi * df)
        distance = squares @ (1 / shape.value)
        height = peak - 0.5 * float(shape.copies @ shape.value.log())
        return height - 0.5 * (df + dim) * (distance / df).log1p(), x if denoise else None
    positive = shape.value[shape.value > 0]
    ratio = 1 + sigma**2 / float(positive.min()) if len(positive) else 1.0
    w, log_mass = (node.to(x.device) for node in nodes(df, dim, ratio))
    clean = shape.value[:, None] / w  # [V, Q]
    noised = clean + sigma**2
    joint = torch.addmm(log_mass - 0.5 * (shape.copies @ (2 * math.pi * noised).log()), squares, 1 / noised, alpha=-0.5)
    log_density = joint.logsumexp(1)
    if not denoise:
        return log_density, None
    gain = (joint - log_density[:, None]).exp() @ (clean / noised).mT  # [B, V]
    if shape.axes is None:
        return log_density, shape.mean + gain * rest
    rank = len(shape.axes)
    mean = shape.mean + (gain[:, :rank] * along) @ shape.axes
    return log_density, mean + gain[:, rank:] * rest if rank < dim else mean

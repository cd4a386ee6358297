"""Student-t components as normal scale mixtures: density and posterior mean with noise by quadrature, and draws.

    t(.; mu, S, df) * N(0, sigma^2 I) = int g(w) N(x; mu, S / w + sigma^2 I) dw,  g the law Gamma(df / 2, rate df / 2)

In `log w` the integrand is analytic and falls off exponentially on both sides, so the trapezoidal rule converges
geometrically. All nodes share the mean and the axes: a point is projected once, then every node costs one quadratic
form with other eigenvalues, those of `S / w + sigma^2 I`.

A multivariate t is `x = mu + s e`, `e ~ N(0, S)`, `s = w^(-1/2)`, `w ~ Gamma(df / 2, rate df / 2)`. One uniform u a
sample gives `s` as the inverse of `P(df / 2, w df / 2) = u`, P the regularized incomplete gamma function. The inverse
is made once for each df, on the host, as a Chebyshev series in each octave of u (up to 1/2) and of 1 - u; what is left
for a sample is a sum of products in IEEE float64, whatever the batch or device. `s` is within 1e-13 of the inverse
below 40 degrees of freedom, and within 2e-10 above, the error of the incomplete gamma function itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from headstart import ops

OCTAVES, TERMS = 53, 20
MIN_DF, MAX_DF = 0.5, 2000.0  # where a draw is within 2e-10 of the inverse


def radius_table(df: Tensor) -> Tensor:
    """Chebyshev coefficients `[K, 2, OCTAVES, TERMS]` of `s` for degrees of freedom `[K]`, float64 on the host."""
    j = torch.arange(TERMS, dtype=torch.float64, device="cpu")
    middle = j + 0.5
    node = 0.75 + 0.25 * (math.pi / TERMS * middle).cos()
    v = 0.5 * node * 2.0 ** -torch.arange(OCTAVES, dtype=torch.float64, device="cpu")[:, None]
    a = 0.5 * df.double().cpu()[:, None, None]
    radius = torch.stack([(0.5 * (a.log() - invert(a, v, tail))).exp() for tail in (False, True)], dim=1)
    transform = (math.pi / TERMS * j[:, None] * middle).cos() * 2 / TERMS
    transform[0] /= 2
    return radius @ transform.mT


def invert(a: Tensor, v: Tensor, tail: bool) -> Tensor:
    """`log t` with `P(a, t) = v`, or `1 - P(a, t) = v` for the tail, by Newton's method.

    `log P` and `log(1 - P)` are concave in `log t`, so from a start beyond the root on the side of small values the
    iteration is monotone: `P(a, t) <= t^a / Gamma(a + 1)`, and `1 - P(a, t) <= v` at `t = a + sqrt(2 a l) + l`,
    `l = -log v` (Boucheron, Lugosi, Massart, "Concentration Inequalities", 2013, section 2.4).
    """
    log_v, peak = v.log(), torch.lgamma(a)
    log_t = (a + (-2 * a * log_v).sqrt() - log_v).log() if tail else (log_v + torch.lgamma(a + 1)) / a
    function = torch.special.gammaincc if tail else torch.special.gammainc
    for _ in range(12):
        t = log_t.exp()
        p = function(a, t)
        step = (p.log() - log_v) * (p.log() + peak + t - a * log_t).exp()
        log_t = log_t + step if tail else log_t - step
        if float(step.abs().max()) < 1e-12:  # its square is the error left
            break
    return log_t


def radius(table: Tensor, component: Tensor, u: Tensor) -> Tensor:
    """`s` `[n]` (float64) of components `[n]` from uniforms `[n]` in (0, 1]."""
    lower = u <= 0.5
    v = torch.where(lower, u, 1 - u).clamp_min(2.0**-54)  # u = 1 stands for its last half step
    mantissa, exponent = torch.frexp(v)
    edge = exponent == 0  # v = 1/2 ends the first octave
    mantissa = torch.where(edge, 2 * mantissa, mantissa)
    octave = (-1 - exponent).clamp_min(0)
    at = (2 * component + (~lower).long()) * OCTAVES + octave
    series = table.to(u.device).reshape(-1, TERMS)
    y = 4 * mantissa - 3
    last, this = torch.zeros_like(u), torch.zeros_like(u)
    for term in range(TERMS - 1, 0, -1):  # Clenshaw's recurrence
        last, this = this, 2 * y * this - last + series[at, term]
    return y * this - last + series[at, 0]


ERROR = 1e-9  # relative error that spacing and ends are chosen for
REACH = 40.0  # standard deviations from the mean, or what one sample in 1e9 needs: farther out more nodes are taken
WIDER = 2.0**16  # factor of the squared distance from one such set of nodes to the next
FAR = 1e120  # distance whose square float64 still has room for; beyond it the density is a power of the distance


class Nodes(NamedTuple):
    """Nodes `w` `[Q]` and the logarithms of their masses `[Q]`, float64."""

    w: Tensor
    log_mass: Tensor


def reach(df: float, dim: int) -> float:
    """The squared distance up to which the first set of nodes serves."""
    return (REACH + ERROR ** (-1 / df) + math.sqrt(dim)) ** 2


def nodes(df: float, dim: int, ratio: float, most: float | None = None) -> Nodes:
    """Nodes of the mixing law.

    At sigma = 0 the integrand in `log w` is that of a gamma law of shape `a = (df + D) / 2`, and the rule of step h is
    off by `2 |Gamma(a + i k) / Gamma(a)|`, `k = 2 pi / h`, about `2 exp(-k atan(k / a)) (1 + k^2 / a^2)^(a / 2)`; noise
    only smooths it. Left of `df / (df + M ratio)` the integrand grows, `M` the largest squared distance, and right of
    `(df + D) / df` it falls, each at a rate known from there on: both ends are cut below the error.

    Args:
        df: degrees of freedom.
        dim: D.
        ratio: `1 + sigma^2 / l`, `l` the least eigenvalue above 0.
        most: M; None: `reach`.

    Reference: "The Exponentially Convergent Trapezoidal Rule" (Trefethen, Weideman, 2014,
    https://doi.org/10.1137/130932132).
    """
    half, shape, log_error = 0.5 * df, 0.5 * (df + dim), -math.log(ERROR)
    frequency = solve(lambda k: k * math.atan(k / shape) - 0.5 * shape * math.log1p((k / shape) ** 2), log_error)
    most = reach(df, dim) if most is None else most
    low = math.log(df / (df + most * ratio)) - solve(lambda t: half * (t - 1 + math.exp(-t)), log_error)
    high = math.log((df + dim) / df) + solve(lambda t: shape * (math.expm1(t) - t), log_error)
    count = math.ceil((high - low) * frequency / (2 * math.pi)) + 1
    log_w = torch.linspace(low, high, count, dtype=torch.float64, device="cpu")
    peak = half * math.log(half) - math.lgamma(half) + math.log((high - low) / (count - 1))
    return Nodes(log_w.exp(), half * (log_w - log_w.exp()) + peak)


def solve(rising: Callable[[float], float], level: float) -> float:
    """Where a rising function from 0 at 0 reaches a level, by halving."""
    high = 1.0
    while rising(high) < level:
        high *= 2
    low = 0.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if rising(middle) > level else (middle, high)
    return high


class Shape(NamedTuple):
    """One component in its eigenbasis, float64.

    Attributes:
        mean: `[D]`.
        axes: rows `[R, D]`, or None where they are the coordinates.
        value: eigenvalues `[V]` of the scale matrix: along each axis, and once for all directions off the axes.
        copies: how many directions each stands for, `[V]`.
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
        shape: the component.
        df: its degrees of freedom.
        x: points, float64.
        sigma: noise level; at 0 the density is the t density itself.
        denoise: whether to compute the mean too.
    """
    scale = ((x - shape.mean).abs().amax(1) / FAR).clamp_min(1)
    if bool((scale > 1).any()):
        near = shape.mean + (x - shape.mean) / scale[:, None]
        log_density, mean = evaluate(shape, df, near, sigma, denoise)
        log_density = log_density - (df + x.shape[1]) * scale.log()
        return log_density, None if mean is None else shape.mean + (mean - shape.mean) * scale[:, None]
    along, rest, squares = project(shape, x)
    dim = x.shape[1]
    if sigma == 0:
        peak = math.lgamma(0.5 * (df + dim)) - math.lgamma(0.5 * df) - 0.5 * dim * math.log(math.pi * df)
        distance = squares @ (1 / shape.value)
        height = peak - 0.5 * float(shape.copies @ shape.value.log())
        return height - 0.5 * (df + dim) * (distance / df).log1p(), x if denoise else None
    positive = shape.value > 0
    ratio = 1 + sigma**2 / float(shape.value[positive].min()) if bool(positive.any()) else 1.0
    level = rungs(squares[:, positive] @ (1 / shape.value[positive]), reach(df, dim) * ratio)
    log_density = squares.new_empty(len(x))
    gain = torch.empty_like(squares)
    for rung in level.unique().tolist():  # by a point's own distance: it gets the same nodes in every batch
        some = (level == rung).nonzero()[:, 0]
        most = reach(df, dim) * WIDER**rung
        log_density[some], gain[some] = integrate(shape, nodes(df, dim, ratio, most), squares[some], sigma)
    if not denoise:
        return log_density, None
    if shape.axes is None:
        return log_density, shape.mean + gain * rest
    rank = len(shape.axes)
    mean = shape.mean + (gain[:, :rank] * along) @ shape.axes
    return log_density, mean + gain[:, rank:] * rest if rank < dim else mean


def rungs(distance: Tensor, first: float) -> Tensor:
    """How many factors of `WIDER` beyond `first` each squared distance `[B]` lies, as integers."""
    return ((distance / first).clamp_min(1).log() / math.log(WIDER)).ceil().long()


def integrate(shape: Shape, at: Nodes, squares: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Log-density `[B]` and the share `[B, V]` of each coordinate's deviation that is not noise, at some nodes."""
    w, log_mass = (node.to(squares.device) for node in at)
    clean = shape.value[:, None] / w  # [V, Q]
    noised = clean + sigma**2
    joint = torch.addmm(log_mass - 0.5 * (shape.copies @ (2 * math.pi * noised).log()), squares, 1 / noised, alpha=-0.5)
    return joint.logsumexp(1), joint.softmax(1) @ (clean / noised).mT

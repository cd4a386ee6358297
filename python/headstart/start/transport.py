"""Transport: latents carried down to a noise level on the mixture's own probability-flow ODE, at no network call.

With `tau = 1 / sigma` and `y = x / sigma` the flow `dx/dsigma = (x - D) / sigma` is `dy/dtau = D`: it starts at
`tau = 0` from `y = z`, where `D` is the mean of the mixture. Adams-Bashforth steps of order 4 in `tau` keep that point
as their oldest prediction, so few steps are enough: the first number on `LADDER` whose end point is within `TOLERANCE`
of the next one's.

Reference: "The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and its Applications"
(Wang, Vastola, 2024, https://arxiv.org/abs/2412.09726).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from headstart import ops
from headstart.argument import require_number
from headstart.ops.library import multiplied
from headstart.start.check import check_points, check_sigma

ORDER = 4
MIN_SIGMA = 1e-100  # of a level whose inverse is squared
TOLERANCE = 1e-3  # of the data's standard deviation, root mean square over coordinates and probes
PROBES = 64
LADDER = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)  # numbers of steps that are tried


class Carrier(Protocol):
    """A mixture, as its transport sees it."""

    components: ops.Components
    weight: Tensor
    transport_levels: dict[tuple[float, float], list[float]]

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rows(self, name: str, labels: int | Tensor | None, n: int) -> Tensor: ...

    def split(self, name: str, x: Tensor, labels: int | Tensor | None) -> Sequence[tuple[Tensor, Carrier]]: ...

    def denoise(self, x: Tensor, sigma: float | Tensor, labels: int | Tensor | None = None) -> Tensor: ...


def transport(
    mixture: Carrier, z: Tensor, sigma: float, sigma_max: float = 80.0, labels: int | Tensor | None = None
) -> Tensor:
    """`sigma_max z` carried to `sigma`, `[n, *shape]`: where the flow takes the same latents from far away.

    The steps depend on the mixture and the noise levels alone, so a sample is the same in any batch (to the rounding
    of the matrix products).

    Args:
        mixture: whose flow.
        z: unit normals `[n, *shape]`.
        sigma: noise level to stop at, above 0.
        sigma_max: noise level to come from, above `sigma`.
        labels: classes `[n]`, or one for all, or None.

    Raises:
        ValueError: latents of another shape, or noise levels that do not descend above 0.
    """
    sigma = check_sigma("transport", sigma, positive=True)
    sigma_max = require_number("transport", "sigma_max", sigma_max)
    if not MIN_SIGMA <= sigma < sigma_max < math.inf:
        wanted = f"in [{MIN_SIGMA:g}, {sigma_max:g}), below where the latents come from"
        raise ValueError(f"transport: sigma must be {wanted}, got {sigma:g}")
    check_points("transport", z, mixture.shape)
    steps, parts = levels(mixture, sigma, sigma_max), mixture.split("transport", z, labels)
    if not parts:
        return carry(mixture, z, steps, labels)
    out = torch.empty_like(z)
    for some, law in parts:  # a class at a time: its components stay in the cache
        out[some] = carry(law, z[some], steps)
    return out


def levels(mixture: Carrier, sigma: float, sigma_max: float) -> list[float]:
    """The noise levels whose steps hold the tolerance on probes of its own; chosen once, kept by the mixture."""
    known = mixture.transport_levels
    if (sigma, sigma_max) not in known:
        shape = (PROBES, *mixture.shape)
        z = ops.normal(shape, 0, 0, dtype=mixture.components.mean.dtype, device=mixture.components.mean.device)
        scale = math.sqrt(float(second_moments(mixture).mean()))
        steps, coarse = LADDER[0], carry(mixture, z, spaced(mixture, sigma, sigma_max, LADDER[0]))
        for more in LADDER[1:]:
            fine = carry(mixture, z, spaced(mixture, sigma, sigma_max, more))
            if float((fine - coarse).double().square().mean().sqrt()) <= TOLERANCE * scale:
                break
            steps, coarse = more, fine
        known[sigma, sigma_max] = spaced(mixture, sigma, sigma_max, steps)
    return known[sigma, sigma_max]


def second_moments(mixture: Carrier) -> Tensor:
    """Variance of every coordinate of the mixture's law, `[D]` float64."""
    mean, variance, axes, spread = (None if t is None else t.double() for t in mixture.components)
    assert mean is not None
    assert variance is not None
    own = variance.expand_as(mean)
    if axes is not None and spread is not None:
        own = own + (axes.square() * spread[..., None]).sum(1)
    weight = mixture.weight.to(mean.device)
    return weight @ (own + (mean - weight @ mean).square())


def spaced(mixture: Carrier, sigma: float, sigma_max: float, steps: int) -> list[float]:
    """Levels spaced by the length of the law's standard deviations."""
    return asinh_levels(math.sqrt(float(second_moments(mixture).sum())), sigma, sigma_max, steps)


def asinh_levels(scale: float, sigma: float, sigma_max: float, steps: int) -> list[float]:
    """`asinh(scale / level)` in equal parts: equal parts of `tau` far above the data's scale, of `log tau` below it."""
    first, last = math.asinh(scale / sigma_max), math.asinh(scale / sigma)
    inner = [scale / math.sinh(first + (last - first) * i / steps) for i in range(1, steps)]
    return [sigma_max, *inner, sigma]


def carry(mixture: Carrier, z: Tensor, levels: Sequence[float], labels: int | Tensor | None = None) -> Tensor:
    """Latents `z` from `levels[0]` down the levels on the mixture's flow."""
    weight = mixture.rows("transport", labels, len(z)).to(mixture.components.mean)
    center = multiplied(weight, mixture.components.mean).to(z.device, z.dtype).expand(len(z), -1).reshape(z.shape)
    return descend(lambda x, sigma: mixture.denoise(x, sigma, labels), levels[0] * z, levels, center.contiguous())


def descend(
    denoise: Callable[[Tensor, float], Tensor], x: Tensor, levels: Sequence[float], center: Tensor | None = None
) -> Tensor:
    """Adams-Bashforth steps in `tau` down the levels; `center`: the denoised prediction at `tau = 0`, where known."""
    known = [] if center is None else [(0.0, center)]
    for sigma, sigma_next in pairwise(levels):
        known = [(1 / sigma, denoise(x, sigma)), *known][:ORDER]
        shares = adams([tau for tau, _ in known], 1 / sigma_next)
        terms = [(sigma_next * share, denoised) for share, (_, denoised) in zip(shares, known, strict=True)]
        x = ops.affine(x.contiguous(), sigma_next / sigma, terms)
    return x


def adams(taus: Sequence[float], end: float) -> list[float]:
    """Weights of the integral from `taus[0]` to `end` of the polynomial through values at `taus`."""
    at = torch.tensor(taus, dtype=torch.float64, device="cpu")
    step = end - taus[0]
    nodes = (at - taus[0]) / step
    powers = torch.arange(len(taus), dtype=torch.float64, device="cpu")
    vandermonde = nodes[None, :] ** powers[:, None]
    return (step * torch.linalg.solve(vandermonde, 1 / (powers + 1))).tolist()

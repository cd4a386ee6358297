"""Squared denoising errors of a start and a network on the same noisy points.

Where the network is the exact denoiser its error is the smaller one at every level. A trained one may be worse than the
start at high noise: `Errors.crossing` finds from where on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypedDict

import torch
from torch import Tensor

from headstart import ops
from headstart.denoiser import Denoiser, Preconditioned, predict
from headstart.io.progress import track
from headstart.metrics.check import require_count, require_seed
from headstart.ops.array import tensor_of
from headstart.ops.check import describe
from headstart.sampling.edge import check_denoiser, part_of, settle
from headstart.sampling.request import labels_of
from headstart.solver.grid import log_uniform
from headstart.start.check import check_sigma
from headstart.start.family import MixtureStart
from headstart.start.protocol import Start
from headstart.start.reference import Classic

FAR = 100.0  # the integral's far end, in standard deviations of the data: what lies beyond is about D / FAR^4 nats
MIN_LEVEL = 1e-100  # noise level whose inverse square still has room in float64
SIGNIFICANT = 3.5  # standard errors by which a denoiser must lose at one of some 40 levels to be called worse


class ErrorKeywords(TypedDict, total=False):
    """Keyword arguments of `ErrorOptions`."""

    far: float | None
    levels: int
    seed: int
    batch: int
    cond: Mapping[str, Any] | None
    exact: bool
    progress: bool


@dataclass(frozen=True)
class ErrorOptions:
    """How denoising errors are measured, as `initialization_kl` describes it."""

    far: float | None = None
    levels: int = 32
    seed: int = 0
    batch: int = 512
    cond: Mapping[str, Any] | None = None
    exact: bool = False
    progress: bool = False


@dataclass(frozen=True)
class SweepOptions(ErrorOptions):
    """The same for `horizon`, whose levels also serve to look for sigma_T."""

    levels: int = 48


@dataclass(frozen=True)
class Errors:
    """Squared denoising errors of N points at S levels, summed over coordinates.

    Attributes:
        sigma: noise levels `[S]`, ascending.
        start: of the start's own denoiser, `[N, S]`, float64.
        denoiser: of the network, `[N, S]`, on the same noisy points.
        apart: squared distance of the two predictions, `[N, S]`.
    """

    sigma: Tensor
    start: Tensor
    denoiser: Tensor
    apart: Tensor

    def gap(self, exact: bool = False) -> Tensor:
        """The gain of the network on the start `[N, S]`: `mse_q - mse_D`, or `apart` where the denoiser is exact."""
        return self.apart if exact else self.start - self.denoiser

    def integrals(self, exact: bool = False, end: int | None = None) -> Tensor:
        """Each point's `int_{sigma_i}^{sigma_end} (gap) / s^3 ds`, `[N, S]`; 0 from the end on.

        Linear in `u` between levels; `end` None: to infinity, flat beyond the last level.
        """
        gap, u = self.gap(exact), 0.5 / self.sigma**2
        pieces = 0.5 * (u[:-1] - u[1:]) * (gap[:, :-1] + gap[:, 1:])
        pieces = torch.cat([pieces, u[-1] * gap[:, -1:]], dim=1)
        if end is not None:
            pieces = torch.where(torch.arange(len(u), device=u.device, dtype=torch.int64) < end, pieces, 0.0)
        return pieces.flip(1).cumsum(1).flip(1)

    def crossing(self, exact: bool = False) -> int | None:
        """The level above which the network only loses: where the integral from above is least, if that is below 0.

        Below 0 means by more than chance: the least value by `SIGNIFICANT` standard errors, or else some level at
        which the network is worse by as many. Of levels that chance does not tell from the least, the highest is taken.
        None: there is none.
        """
        if exact:
            return None
        gap, integral = self.gap(), self.integrals()
        root = math.sqrt(len(gap))
        mean, error = integral.mean(0), integral.std(0) / root
        lowest = int(mean.argmin())
        if not float(mean[lowest]) < -SIGNIFICANT * float(error[lowest]):
            worse = (gap.mean(0) < -SIGNIFICANT * gap.std(0) / root).nonzero()
            if len(worse) == 0:
                return None
            lowest = int(mean[: int(worse[-1]) + 1].argmin())
        rise = integral[:, lowest:] - integral[:, lowest : lowest + 1]
        lost = (rise.mean(0) > SIGNIFICANT * rise.std(0) / root).nonzero()
        return lowest + (int(lost[0]) - 1 if len(lost) else 0)


def check_level(op: str, sigma: float, name: str = "sigma") -> float:
    """A noise level whose inverse square is finite.

    Raises:
        TypeError, ValueError: it is none.
    """
    value = check_sigma(op, sigma, positive=True)
    if not MIN_LEVEL <= value <= 1 / MIN_LEVEL:
        raise ValueError(f"{op}: {name} must be from {MIN_LEVEL:g} to {1 / MIN_LEVEL:g}, got {value:g}")
    return value


def ladder(op: str, low: float, least: float, options: ErrorOptions, points: Tensor, denoiser: object) -> Tensor:
    """Levels `[levels]`, ascending from `low` to the far end, which is at least `least`.

    Where no far end is given it is not above the network's own `sigma_max`.
    """
    far, most = options.far, sigma_max(denoiser)
    if far is not None and not isinstance(far, Real):
        raise TypeError(f"{op}: far must be a number or None, got {type(far).__name__}")
    if far is None:
        if most < least:
            raise ValueError(
                f"{op}: levels up to {least:g} are needed, but the network's sigma_max is {most:g}; look at lower "
                "ones, or give far= if it takes more"
            )
        far = min(max(FAR * float(points.double().std()), least), most)
    far = check_level(op, far, "far")
    levels = require_count(op, "levels", options.levels, 3)
    if not far >= least:
        raise ValueError(f"{op}: far must be at least {least:g}, got {far:g}")
    return log_uniform(far, low, levels)[:-1].flip(0)


def sigma_max(denoiser: object) -> float:
    """The largest noise level that a network says it knows, its own or its schedule's; infinite where it says none."""
    for owner in (denoiser, getattr(denoiser, "schedule", None)):
        value = getattr(owner, "sigma_max", None)
        if isinstance(value, int | float) and value > 0:
            return float(value)
    return math.inf


def errors(
    op: str, start: Start, denoiser: Denoiser | Preconditioned, points: Tensor, sigmas: Tensor, options: ErrorOptions
) -> Errors:
    """Denoising errors of both at `sigmas` `[S]`, on checked points."""
    check_denoiser(op, denoiser)
    if not isinstance(options.exact, bool) or not isinstance(options.progress, bool):
        raise TypeError(f"{op}: exact and progress must be True or False, got {options.exact!r}, {options.progress!r}")
    seed, batch = require_seed(op, options.seed), require_count(op, "batch", options.batch, 1)
    own = own_denoiser(op, start)
    cond = {name: tensor_of(value) for name, value in settle(op, options.cond, len(points), start).items()}
    table = torch.empty(3, len(points), len(sigmas), dtype=torch.float64, device="cpu")
    with torch.no_grad(), track(op, len(sigmas) * -(-len(points) // batch), options.progress) as advance:
        for first in range(0, len(points), batch):
            some = slice(first, first + batch)
            x0 = points[some]
            part = {name: part_of(value, len(points), first, len(x0)) for name, value in cond.items()}
            for i, sigma in enumerate(sigmas):
                x = ops.noise(x0, float(sigma), seed, i, first)
                q = own(x, float(sigma), labels_of(start, part))
                d = predict(denoiser, x.clone(), sigma.to(x.device), **part)
                if not isinstance(d, Tensor) or d.shape != x.shape:
                    raise ValueError(f"{op}: denoiser must return {describe(x)}, got {describe(d)}")
                for row, (a, b) in enumerate(((q, x0), (d, x0), (q, d))):
                    table[row, some, i] = (a.double() - b.double()).square().flatten(1).sum(1).cpu()
                advance()
    if not table.isfinite().all():
        raise ValueError(f"{op}: predictions must be finite, got NaN or infinity")
    return Errors(sigmas, *table)


def own_denoiser(op: str, start: Start) -> Callable[[Tensor, float, int | Tensor | None], Tensor]:
    """`D_q(x, sigma, labels)` at every sigma from the start's own upwards, where its law has one in closed form."""
    if isinstance(start, Classic):  # N(0, sigma_T^2 I) is a point at 0, noised
        return lambda x, sigma, labels: torch.zeros_like(x)
    if not isinstance(start, MixtureStart):
        raise TypeError(f"{op}: start must have a denoiser in closed form (a mixture), got {type(start).__name__}")
    return start.mixture.denoise

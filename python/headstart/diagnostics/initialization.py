"""Initialization error without densities, from denoising errors alone, and the sigma_T it allows.

    KL(p_T || p_theta) = int_{sigma_T}^inf [mse_q(s) - mse_D(s)] / s^3 ds = int_0^{u_T} [mse_q - mse_D] du,
    u = 1 / (2 s^2)

`mse_q` and `mse_D` are the squared errors, summed over coordinates, of the start's own denoiser and of the network on
held-out points. Reference: "Mutual Information and Minimum Mean-Square Error in Gaussian Channels" (Guo, Shamai, Verdu,
2005, https://arxiv.org/abs/cs/0412108); for two laws "Mismatched Estimation and Relative Entropy" (Verdu, 2010,
https://doi.org/10.1109/TIT.2010.2050800). The horizon is the smallest noise level at which that KL is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import torch
from torch import Tensor

from headstart import ops
from headstart.denoiser import Denoiser, Preconditioned, predict
from headstart.diagnostics.tails import TailCheck, tail_check
from headstart.io.keyword import gather
from headstart.sampling.request import labels_of, part_of
from headstart.solver.grid import log_uniform
from headstart.start.check import check_data, check_sigma
from headstart.start.classic import Classic
from headstart.start.family import MixtureStart
from headstart.start.protocol import Start

if TYPE_CHECKING:
    from typing_extensions import Unpack

FAR = 100.0  # the integral's far end, in standard deviations of the data: what lies beyond is about D / FAR^4 nats
SIGNIFICANT = 3.5  # standard errors by which a denoiser must lose at one of some 40 levels to be called worse


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

    def integrals(self, exact: bool = False) -> Tensor:
        """Each point's `int_{sigma_i}^inf (gap) / s^3 ds`, `[N, S]`: linear in `u` between levels, flat beyond."""
        gap = self.apart if exact else self.start - self.denoiser
        u = 0.5 / self.sigma**2
        beyond = u[-1] * gap[:, -1:]
        pieces = 0.5 * (u[:-1] - u[1:]) * (gap[:, :-1] + gap[:, 1:])
        return torch.cat([pieces, beyond], dim=1).flip(1).cumsum(1).flip(1)


@dataclass(frozen=True)
class InitializationKL:
    """An estimate of `KL(p_T || p_theta)`.

    Attributes:
        kl: in nats; may be below 0 by chance, or when the network denoises worse than the start.
        standard_error: of `kl`, from the spread over held-out points.
        sigma: levels `[S]` from sigma_T upwards.
        gap: `mse_q - mse_D` at each level, `[S]`.
        gap_error: its standard error, `[S]`.
        mse_start, mse_denoiser: the two errors, summed over coordinates, `[S]`.
        remainder: the part of `kl` that stands for levels above `sigma[-1]`, taking the gap there as constant; an upper
            bound once the gap falls, as it does far above the data's scale.
        warning: says where the network denoises significantly worse than the start, so that `kl` is too low; or None.
    """

    kl: float
    standard_error: float
    sigma: Tensor
    gap: Tensor
    gap_error: Tensor
    mse_start: Tensor
    mse_denoiser: Tensor
    remainder: float
    warning: str | None


class ErrorKeywords(TypedDict, total=False):
    """Keyword arguments of `ErrorOptions`."""

    far: float | None
    levels: int
    seed: int
    batch: int
    cond: Mapping[str, Any] | None
    exact: bool


@dataclass(frozen=True)
class ErrorOptions:
    """How denoising errors are measured, as `initialization_kl` describes it."""

    far: float | None = None
    levels: int = 32
    seed: int = 0
    batch: int = 512
    cond: Mapping[str, Any] | None = None
    exact: bool = False


@dataclass(frozen=True)
class SweepOptions(ErrorOptions):
    """The same for `horizon`, whose levels also serve to look for sigma_T."""

    levels: int = 48


def initialization_kl(
    start: Start, denoiser: Denoiser | Preconditioned, heldout: Tensor, **options: Unpack[ErrorKeywords]
) -> InitializationKL:
    """`KL(p_T || p_theta)` of a start at its `sigma`, by the module's equation.

    Both denoisers see the same noisy points; each level has noise of its own. `levels` network calls a held-out point.

    Args:
        start: such as `GaussianMixture.at(sigma)`, with `sigma` above 0.
        denoiser: `D(x, sigma, **cond) -> x0`, the network that is sampled with.
        heldout: points `[N, *shape]` outside the fit, N >= 2.
        far: largest level, in units of the data; None: 100 standard deviations of the data, at least 2 sigma_T.
        levels: number of levels, log-uniform from sigma_T to `far` (32).
        seed: of the noise (0).
        batch: points a call (512).
        cond: keyword arguments of the denoiser; tensors of size N are split with the batch, and `label` also goes to
            a conditional start (an unconditional one is charged with what the label tells the network).
        exact: the denoiser is the exact posterior mean: the gap is then `E|D - D_q|^2`, of far smaller variance.

    Raises:
        TypeError: a start without a denoiser of its own (a flow), or an unknown keyword.
        ValueError: held-out points of another shape than the start, or a number out of its range.
    """
    asked = gather("initialization_kl", ErrorOptions, options)
    sigma_T = check_sigma("initialization_kl", start.sigma, positive=True)
    sigmas = make_ladder("initialization_kl", sigma_T, 2 * sigma_T, asked, heldout)
    found = measure_errors("initialization_kl", start, denoiser, heldout, sigmas, asked)
    return summarize(found, 0, asked.exact)


def make_ladder(op: str, low: float, least: float, options: ErrorOptions, heldout: Tensor) -> Tensor:
    """Levels `[levels]`, ascending from `low` to the far end, which is at least `least`."""
    levels = options.levels
    far = max(FAR * float(heldout.double().std()), least) if options.far is None else options.far
    if levels < 3 or not least <= far < math.inf:
        raise ValueError(f"{op}: levels must be at least 3 and far at least {least:g}, got {levels} and {far:g}")
    return log_uniform(far, low, levels)[:-1].flip(0)


def measure_errors(
    op: str, start: Start, denoiser: Denoiser | Preconditioned, heldout: Tensor, sigmas: Tensor, options: ErrorOptions
) -> Errors:
    """Denoising errors of both at `sigmas` `[S]`."""
    points = check_data(op, heldout)
    if tuple(points.shape[1:]) != tuple(start.shape) or len(points) < 2:
        raise ValueError(f"{op}: heldout must be [N >= 2, *{list(start.shape)}], got {list(points.shape)}")
    batch, seed = options.batch, options.seed
    if batch < 1:
        raise ValueError(f"{op}: batch must be at least 1, got {batch}")
    own, cond = own_denoiser(op, start), dict(options.cond or {})
    table = torch.empty(3, len(points), len(sigmas), dtype=torch.float64)
    with torch.no_grad():
        for first in range(0, len(points), batch):
            some = slice(first, first + batch)
            x0 = points[some]
            part = {name: part_of(value, len(points), first, batch) for name, value in cond.items()}
            for i, sigma in enumerate(sigmas):
                x = ops.noise(x0, float(sigma), seed, i, first)
                q = own(x, float(sigma), labels_of(start, part))
                d = predict(denoiser, x, sigma.to(x.device), **part)
                for row, (a, b) in enumerate(((q, x0), (d, x0), (q, d))):
                    table[row, some, i] = (a.double() - b.double()).square().flatten(1).sum(1).cpu()
    if not table.isfinite().all():
        raise ValueError(f"{op}: predictions must be finite, got NaN or infinity")
    return Errors(sigmas, *table)


def summarize(found: Errors, first: int, exact: bool) -> InitializationKL:
    """The estimate at level `first` of a ladder."""
    integral = found.integrals(exact)[:, first]
    gap = (found.apart if exact else found.start - found.denoiser)[:, first:]
    root = math.sqrt(len(gap))
    mean, error, sigma = gap.mean(0), gap.std(0) / root, found.sigma[first:]
    worse = mean < -SIGNIFICANT * error
    warning = None
    if worse.any():
        lost = sigma[worse]
        warning = (
            f"the denoiser's error is above the start's at {len(lost)} of {len(sigma)} levels, sigma {lost[0]:.3g} to "
            f"{lost[-1]:.3g}: the KL is underestimated, and sampling from the start is better than from above it"
        )
    return InitializationKL(
        float(integral.mean()), float(integral.std()) / root, sigma, mean, error,
        found.start.mean(0)[first:], found.denoiser.mean(0)[first:], float(0.5 * mean[-1] / sigma[-1] ** 2), warning,
    )  # fmt: skip


def own_denoiser(op: str, start: Start) -> Callable[[Tensor, float, int | Tensor | None], Tensor]:
    """`D_q(x, sigma, labels)` at every sigma from the start's own upwards, where its law has one in closed form."""
    if isinstance(start, Classic):  # N(0, sigma_T^2 I) is a point at 0, noised
        return lambda x, sigma, labels: torch.zeros_like(x)
    if not isinstance(start, MixtureStart):
        raise TypeError(f"{op}: start must have a denoiser in closed form (a mixture), got {type(start).__name__}")
    return start.mixture.denoise


class DenoisingLaw(Protocol):
    """A law of clean data that is a start at every noise level, such as `GaussianMixture`."""

    def at(self, sigma: float) -> Start: ...


@dataclass(frozen=True)
class Horizon:
    """A chosen sigma_T.

    Attributes:
        sigma: the smallest level of the sweep from which on the KL is at most the threshold; where there is
            none, the largest level swept.
        initialization: the KL there, with its standard error and curve.
        tail: the tail check there.
        levels: levels `[L]` of the sweep between low and high.
        kl, standard_error: `KL(p_sigma || q_sigma)` at each of them, `[L]`.
        warning: objections to the choice (threshold not reached, tails off, network worse than the start), or
            None.
    """

    sigma: float
    initialization: InitializationKL
    tail: TailCheck
    levels: Tensor
    kl: Tensor
    standard_error: Tensor
    warning: str | None


def horizon(
    law: DenoisingLaw, denoiser: Denoiser | Preconditioned, heldout: Tensor, low: float, high: float,
    threshold: float = 0.01, **options: Unpack[ErrorKeywords],
) -> Horizon:  # fmt: skip
    """The smallest sigma_T in [low, high] with `KL(p_T || p_theta) <= threshold`, and a tail check there.

    One sweep: the integrand of `initialization_kl` is computed once, on `levels` levels from `low` to `far`, and every
    sigma_T is a part of the same integral. The KL says little about rare events: `tail` tests them by themselves.

    Args:
        law: fitted on clean data, such as `GaussianMixture`.
        denoiser, heldout, far, seed, batch, cond, exact: as in `initialization_kl`.
        low, high: where to look, in units of the data.
        threshold: of the KL, in nats.
        levels: levels of the whole sweep, log-uniform (48): one network call each for every held-out point.

    Raises:
        TypeError, ValueError: as `initialization_kl`; low and high not ascending above 0, threshold not above 0.
    """
    asked = gather("horizon", SweepOptions, options)
    low, high = check_sigma("horizon", low, positive=True), check_sigma("horizon", high, positive=True)
    if not low < high or not threshold > 0:
        raise ValueError(f"horizon: need low < high and a threshold above 0, got {low}, {high} and {threshold}")
    sigmas = make_ladder("horizon", low, 2 * high, asked, heldout)
    found = measure_errors("horizon", law.at(low), denoiser, heldout, sigmas, asked)
    integrals = found.integrals(asked.exact)[:, sigmas <= high * (1 + 1e-12)]
    kl, error = integrals.mean(0), integrals.std(0) / math.sqrt(len(integrals))
    above = (kl > threshold).nonzero()
    index = int(above[-1]) + 1 if len(above) else 0
    reached = index < len(kl)
    index = min(index, len(kl) - 1)
    initialization = summarize(found, index, asked.exact)
    sigma = float(sigmas[index])
    tail = tail_check(law.at(sigma), heldout, seed=asked.seed)
    missed = None if reached else f"the KL stays above {threshold:g} up to sigma {sigma:.3g}"
    warning = state_objections(initialization, tail, missed)
    return Horizon(sigma, initialization, tail, sigmas[: len(kl)], kl, error, warning)


def state_objections(initialization: InitializationKL, tail: TailCheck, missed: str | None) -> str | None:
    """Objections to a horizon in one sentence, or None."""
    light = "light" if tail.observed > tail.expected else "heavy"
    tails = None if tail.passed else (
        f"the start's tails are too {light}: {tail.observed} held-out points among the {tail.share:.2g} most extreme, "
        f"{tail.expected:.1f} expected (p = {tail.p_value:.1g})"
    )  # fmt: skip
    return "; ".join(part for part in (missed, tails, initialization.warning) if part) or None

"""Initialization error without densities, from denoising errors alone, and the sigma_T it allows.

    KL(p_T || p_theta) = int_{sigma_T}^inf [mse_q(s) - mse_D(s)] / s^3 ds = int_0^{u_T} [mse_q - mse_D] du,
    u = 1 / (2 s^2)

`mse_q` and `mse_D` are the squared errors, summed over coordinates, of the start's own denoiser and of the network on
held-out points. Reference: "Mutual Information and Minimum Mean-Square Error in Gaussian Channels" (Guo, Shamai, Verdu,
2005, https://arxiv.org/abs/cs/0412108); for two laws "Mismatched Estimation and Relative Entropy" (Verdu, 2010,
https://doi.org/10.1109/TIT.2010.2050800).

A network is not the exact denoiser. Where it is worse than the start at high noise, that part of the integral is below
0 and says nothing of the start: the integral ends at the crossing, the level above which the network only loses.

Choosing sigma_T: the smallest noise level at which the start is as good as the law it stands for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from headstart.denoiser import Denoiser, Preconditioned
from headstart.diagnostics.denoising import (
    SIGNIFICANT,
    ErrorKeywords,
    ErrorOptions,
    Errors,
    SweepOptions,
    check_level,
    errors,
    ladder,
)
from headstart.diagnostics.tails import MIN_POINTS, TailCheck, check_heldout, described, tail_check
from headstart.io.keyword import gather
from headstart.sampling.edge import check_denoiser, check_start
from headstart.start.protocol import Start

if TYPE_CHECKING:
    from typing_extensions import Unpack


LARGEST = 1e300  # threshold, in nats


@dataclass(frozen=True)
class InitializationKL:
    """An estimate of `KL(p_T || p_theta)`.

    Attributes:
        kl: in nats, up to the crossing where there is one; may be below 0 by chance.
        standard_error: of `kl`, from the spread over held-out points.
        sigma: levels `[S]` from sigma_T upwards.
        gap: `mse_q - mse_D` at each level, `[S]`.
        gap_error: its standard error, `[S]`.
        mse_start, mse_denoiser: the two errors, summed over coordinates, `[S]`.
        remainder: the part of `kl` that stands for levels above `sigma[-1]`, taking the gap there as constant; an upper
            bound once the gap falls, as it does far above the data's scale. 0 where there is a crossing.
        warning: says where the network denoises significantly worse than the start, and what follows; or None.
        crossing: the level above which the network is worse than the start on the whole, where `kl` stops counting;
            None: it is nowhere.
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
    crossing: float | None = None


def initialization_kl(
    start: Start, denoiser: Denoiser | Preconditioned, heldout: Tensor, **options: Unpack[ErrorKeywords]
) -> InitializationKL:
    """`KL(p_T || p_theta)` of a start at its `sigma`, by the module's equation.

    Both denoisers see the same noisy points; each level has noise of its own. `levels` network calls a held-out point.

    Args:
        start: such as `GaussianMixture.at(sigma)`, with `sigma` above 0.
        denoiser: `D(x, sigma, **cond) -> x0`, the network that is sampled with.
        heldout: points `[N, *shape]` outside the fit, N >= 2, a tensor or an array.
        far: largest level, in units of the data; None: 100 standard deviations of the data, at least 2 sigma_T and at
            most the `sigma_max` of a network that has one.
        levels: number of levels, log-uniform from sigma_T to `far` (32).
        seed: of the noise (0).
        batch: points a call (512).
        cond: keyword arguments of the denoiser; tensors of size N are split with the batch, and `label` also goes to
            a conditional start (an unconditional one is charged with what the label tells the network).
        exact: the denoiser is the exact posterior mean: the gap is then `E|D - D_q|^2`, of far smaller variance.
        progress: show a progress bar of the levels.

    Raises:
        TypeError: a start without a denoiser of its own (a flow), a denoiser that is none, or an unknown keyword.
        ValueError: held-out points of another shape than the start, or a number out of its range.
    """
    asked = gather("initialization_kl", ErrorOptions, options)
    check_start("initialization_kl", start)
    check_denoiser("initialization_kl", denoiser)
    points = check_heldout("initialization_kl", start, heldout, 2)
    sigma_T = check_level("initialization_kl", start.sigma)
    sigmas = ladder("initialization_kl", sigma_T, 2 * sigma_T, asked, points, denoiser)
    found = errors("initialization_kl", start, denoiser, points, sigmas, asked)
    return summarize(found, 0, asked.exact)


def summarize(found: Errors, first: int, exact: bool) -> InitializationKL:
    """The estimate at level `first` of a ladder."""
    end = found.crossing(exact)
    integral = found.integrals(exact, end)[:, first]
    gap = found.gap(exact)[:, first:]
    root = math.sqrt(len(gap))
    mean, error, sigma = gap.mean(0), gap.std(0) / root, found.sigma[first:]
    crossing = None if end is None else float(found.sigma[end])
    return InitializationKL(
        float(integral.mean()), float(integral.std()) / root, sigma, mean, error, found.start.mean(0)[first:],
        found.denoiser.mean(0)[first:], 0.0 if end is not None else float(0.5 * mean[-1] / sigma[-1] ** 2),
        verdict(sigma, mean, error, crossing), crossing,
    )  # fmt: skip


def verdict(sigma: Tensor, gap: Tensor, error: Tensor, crossing: float | None) -> str | None:
    """Where the network denoises worse than the start from a level on, and what follows; None: nowhere."""
    worse = gap < -SIGNIFICANT * error
    if crossing is None and not worse.any():
        return None
    lost = sigma[worse] if worse.any() else sigma[-1:]
    where = f"the denoiser's error is above the start's at {int(worse.sum())} of {len(sigma)} levels"
    where += f", sigma {lost[0]:.3g} to {lost[-1]:.3g}" if worse.any() else ""
    if crossing is None:
        return f"{where}: the KL is underestimated"
    if crossing <= float(sigma[0]) * (1 + 1e-9):
        return (
            f"{where}: on the whole it loses everywhere from sigma {sigma[0]:.3g} up, so the KL cannot be told by this "
            "network, and the start alone may do there"
        )
    return f"{where}: the KL counts what the start loses below the crossing at sigma {crossing:.3g}; begin below it"


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
        crossing: the level above which the network is worse than the start, where the integrals end; None: nowhere.
    """

    sigma: float
    initialization: InitializationKL
    tail: TailCheck
    levels: Tensor
    kl: Tensor
    standard_error: Tensor
    warning: str | None
    crossing: float | None = None


def horizon(
    law: DenoisingLaw, denoiser: Denoiser | Preconditioned, heldout: Tensor, low: float, high: float,
    threshold: float = 0.01, **options: Unpack[ErrorKeywords],
) -> Horizon:  # fmt: skip
    """The smallest sigma_T in [low, high] with `KL(p_T || p_theta) <= threshold`, and a tail check there.

    One sweep: the integrand of `initialization_kl` is computed once, on `levels` levels from `low` to `far`, and every
    sigma_T is a part of the same integral. The KL says little about rare events: `tail` tests them by themselves.

    Args:
        law: fitted on clean data, such as `GaussianMixture`.
        denoiser, far, seed, batch, cond, exact, progress: as in `initialization_kl`.
        heldout: as there, N >= 100: the tail check needs as many.
        low, high: where to look, in units of the data.
        threshold: of the KL, in nats.
        levels: levels of the whole sweep, log-uniform (48): one network call each for every held-out point.

    Raises:
        TypeError, ValueError: as `initialization_kl`; low and high not ascending above 0, threshold not above 0.
    """
    asked = gather("horizon", SweepOptions, options)
    if isinstance(law, type) or not callable(getattr(law, "at", None)):
        raise TypeError(f"horizon: law must be fitted on clean data, such as hs.fit(images), got {described(law)}")
    check_denoiser("horizon", denoiser)
    low, high = check_level("horizon", low, "low"), check_level("horizon", high, "high")
    if not low < high or not isinstance(threshold, Real) or not 0 < threshold < LARGEST:
        raise ValueError(f"horizon: need low < high and a threshold above 0, got {low}, {high} and {threshold!r}")
    threshold = float(threshold)
    points = check_heldout("horizon", law.at(low), heldout, MIN_POINTS)
    sigmas = ladder("horizon", low, 2 * high, asked, points, denoiser)
    found = errors("horizon", law.at(low), denoiser, points, sigmas, asked)
    end = found.crossing(asked.exact)
    integrals = found.integrals(asked.exact, end)[:, sigmas <= high * (1 + 1e-12)]
    kl, error = integrals.mean(0), integrals.std(0) / math.sqrt(len(integrals))
    above = (kl > threshold).nonzero()
    index = int(above[-1]) + 1 if len(above) else 0
    reached = index < len(kl)
    index = min(index, len(kl) - 1)
    initialization = summarize(found, index, asked.exact)
    sigma = float(sigmas[index])
    tail = tail_check(law.at(sigma), points, seed=asked.seed)
    missed = None if reached else f"the KL stays above {threshold:g} up to sigma {sigma:.3g}"
    crossing = None if end is None else float(sigmas[end])
    whole = summarize(found, 0, asked.exact).warning  # of the whole sweep: the part below the choice has a say too
    warning = objection(whole, tail, missed)
    return Horizon(sigma, initialization, tail, sigmas[: len(kl)], kl, error, warning, crossing)


def objection(network: str | None, tail: TailCheck, missed: str | None) -> str | None:
    """Objections to a horizon in one sentence, or None."""
    light = "light" if tail.observed > tail.expected else "heavy"
    tails = None if tail.passed else (
        f"the start's tails are too {light}: {tail.observed} held-out points among the {tail.share:.2g} most extreme, "
        f"{tail.expected:.1f} expected (p = {tail.p_value:.1g})"
    )  # fmt: skip
    return "; ".join(part for part in (missed, tails, network) if part) or None

"""Choosing sigma_T: the smallest noise level at which the start is as good as the law it stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from headstart.denoiser import Denoiser, Preconditioned
from headstart.initialization import InitializationKL, errors, ladder, summarize
from headstart.initializer.check import check_sigma
from headstart.initializer.protocol import Start
from headstart.tail import TailCheck, tail_check


class Law(Protocol):
    """A law of clean data that is a start at every noise level, such as `GaussianMixture`."""

    def at(self, sigma: float) -> Start: ...


@dataclass(frozen=True)
class Horizon:
    """A chosen sigma_T.

    Fields:
        sigma: the smallest level of the sweep from which on the KL is at most the threshold; where there is
            none, the largest level swept.
        initialization: the KL there, with its standard error and curve.
        tail: the tail check there.
        levels: levels `[L]` of the sweep between low and high.
        kl, standard_error: `KL(p_sigma || q_sigma)` at each of them, `[L]`.
        warning: what speaks against the choice (threshold not reached, tails off, network worse than the start), or
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
    law: Law, denoiser: Denoiser | Preconditioned, heldout: Tensor, low: float, high: float, threshold: float = 0.01,
    far: float | None = None, levels: int = 48, seed: int = 0, batch: int = 512,
    cond: Mapping[str, Any] | None = None, exact: bool = False,
) -> Horizon:  # fmt: skip
    """The smallest sigma_T in [low, high] with `KL(p_T || p_theta) <= threshold`, and a tail check there.

    One sweep: the integrand of `initialization_kl` is computed once, on `levels` levels from `low` to `far`, and every
    sigma_T is a part of the same integral. The KL says little about rare events: `tail` tests them by themselves.

    Args:
        law: fitted on clean data, such as `GaussianMixture`.
        denoiser, heldout, far, seed, batch, cond, exact: as in `initialization_kl`.
        low, high: where to look, in units of the data.
        threshold: of the KL, in nats.
        levels: levels of the whole sweep, log-uniform: one network call each for every held-out point.

    Raises:
        TypeError, ValueError: as `initialization_kl`; low and high not ascending above 0, threshold not above 0.
    """
    low, high = check_sigma("horizon", low, positive=True), check_sigma("horizon", high, positive=True)
    if not low < high or not threshold > 0:
        raise ValueError(f"horizon: need low < high and a threshold above 0, got {low}, {high} and {threshold}")
    sigmas = ladder("horizon", low, 2 * high, far, levels, heldout)
    found = errors("horizon", law.at(low), denoiser, heldout, sigmas, seed, batch, cond)
    integrals = found.integrals(exact)[:, sigmas <= high * (1 + 1e-12)]
    kl, error = integrals.mean(0), integrals.std(0) / math.sqrt(len(integrals))
    above = (kl > threshold).nonzero()
    index = int(above[-1]) + 1 if len(above) else 0
    reached = index < len(kl)
    index = min(index, len(kl) - 1)
    initialization = summarize(found, index, exact)
    sigma = float(sigmas[index])
    tail = tail_check(law.at(sigma), heldout, seed=seed)
    missed = None if reached else f"the KL stays above {threshold:g} up to sigma {sigma:.3g}"
    warning = objection(initialization, tail, missed)
    return Horizon(sigma, initialization, tail, sigmas[: len(kl)], kl, error, warning)


def objection(initialization: InitializationKL, tail: TailCheck, missed: str | None) -> str | None:
    """What speaks against a horizon, in a sentence, or None."""
    light = "light" if tail.observed > tail.expected else "heavy"
    tails = None if tail.passed else (
        f"the start's tails are too {light}: {tail.observed} held-out points among the {tail.share:.2g} most extreme, "
        f"{tail.expected:.1f} expected (p = {tail.p_value:.1g})"
    )  # fmt: skip
    return "; ".join(part for part in (missed, tails, initialization.warning) if part) or None

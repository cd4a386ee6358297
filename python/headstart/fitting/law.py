"""The steps of EM under any law of a component: E, how likely each point is and where it belongs; M, the components."""

from __future__ import annotations

import math
from operator import itemgetter
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting.covariance import Cluster, Covariance, Factor
from headstart.ops.component import change, extremes, wide, widen

BATCH_NUMBERS = 2**23  # numbers in the largest temporary
CANDIDATE, SHORT = 1e-30, 0.25  # see shortlist
NEGLIGIBLE = 1e-9  # responsibilities below this do not count


class MixtureState(NamedTuple):
    """Components, their weights `[K]`, and their degrees of freedom `[K]` or None (both float64)."""

    components: ops.Components
    weight: Tensor
    df: Tensor | None = None


class Problem(NamedTuple):
    """The constants of a climb of EM: data `[N, D]`, family, component law, least variance, stopping rule."""

    data: Tensor
    family: Covariance
    law: ComponentLaw
    least: float
    tol: float


def shortlist(responsibility: Tensor) -> Tensor | None:
    """Which components each point may belong to `[n, K]`, or None where that would save little.

    In many dimensions a point has few: EM over the lists climbs on a bound of the likelihood that is short of it by
    about `CANDIDATE` at first; the lists serve `REFRESH` iterations, and the end is never declared on them.
    """
    candidates = responsibility > CANDIDATE
    few = float(candidates.sum()) < SHORT * candidates.numel()
    return candidates if few else None


def expect(data: Tensor, rows: Tensor, state: MixtureState, candidates: Tensor | None = None) -> tuple[float, Tensor]:
    """E step of normal components: mean log-likelihood of a point, and responsibilities `[n, K]`."""
    components = sound(state.components)
    dtype = components.mean.dtype
    log_weight = state.weight.log().to(dtype)
    if candidates is not None:
        joint = densities(data, rows, components, candidates).add_(log_weight)
        return float(joint.logsumexp(1).mean(dtype=torch.float64)), joint.softmax(1).to(data.dtype)
    total = torch.zeros((), dtype=torch.float64, device=data.device)
    responsibility = torch.empty(len(rows), len(log_weight), dtype=data.dtype, device=data.device)
    for some in torch.arange(len(rows), device=data.device, dtype=torch.int64).split(batch_rows(data, components)):
        posterior = ops.mixture_posterior(data[rows[some]].to(dtype), components, log_weight, 0.0, denoise=False)
        total += posterior.log_prob.sum(dtype=torch.float64)
        assert posterior.responsibility is not None
        responsibility[some] = posterior.responsibility.to(data.dtype)
    return float(total) / len(rows), responsibility


def densities(data: Tensor, rows: Tensor, components: ops.Components, candidates: Tensor | None = None) -> Tensor:
    """Normal log-densities `[n, K]` of points, a component at a time; -inf where a component is no candidate."""
    dtype, count = components.mean.dtype, len(components.mean)
    out = data.new_full((len(rows), count), -math.inf, dtype=dtype)
    every = torch.arange(len(rows), device=data.device, dtype=torch.int64)
    for k in range(count):
        members = every if candidates is None else candidates[:, k].nonzero()[:, 0]
        one = change(components, itemgetter(slice(k, k + 1)))
        for some in members.split(batch_rows(data, one)):
            x = data[rows[some]].to(dtype)
            out[some, k] = ops.mixture_posterior(x, one, out.new_zeros(1), 0.0, denoise=False, respond=False).log_prob
    return out


def sound(components: ops.Components) -> ops.Components:
    """The components in the precision that their densities need."""
    return widen(components) if wide(extremes(components), 0.0) else components


def batch_rows(data: Tensor, components: ops.Components) -> int:
    """Points in a minibatch of the E step."""
    axes = components.axes.shape[1] if components.axes is not None else 0
    return max(64, BATCH_NUMBERS // (data.shape[1] + len(components.mean) * (axes + 2)))


class Belief(NamedTuple):
    """The result of an E step.

    Attributes:
        log_likelihood: mean over points, in nats, under `state`.
        responsibility: `[n, K]`.
        state: the mixture these hold for.
        scale: `E[w | x, k]` `[n, K]` where components are normal scale mixtures, else None.
    """

    log_likelihood: float
    responsibility: Tensor
    state: MixtureState
    scale: Tensor | None = None


class ComponentLaw(Protocol):
    """A family of component laws.

    Attributes:
        starts: first guesses to choose among.
    """

    starts: ClassVar[int]

    def core(self, data: Tensor, rows: Tensor) -> Tensor:
        """The rows of the data that the first guess is made of."""
        ...

    def begin(self, state: MixtureState) -> MixtureState:
        """The first guess, with what the law has beside means and scale matrices."""
        ...

    def expect(
        self, data: Tensor, rows: Tensor, state: MixtureState, candidates: Tensor | None = None, settled: bool = False
    ) -> Belief:
        """E step on some points, over all components or each point's candidates `[n, K]`.

        `settled`: under this very state; else the law may first improve what these points tell it of itself.
        """
        ...


class Normal:
    """`N(x; mu_k, S_k)`."""

    starts: ClassVar[int] = 1

    def core(self, data: Tensor, rows: Tensor) -> Tensor:
        return rows

    def begin(self, state: MixtureState) -> MixtureState:
        return state

    def expect(
        self, data: Tensor, rows: Tensor, state: MixtureState, candidates: Tensor | None = None, settled: bool = False
    ) -> Belief:
        return Belief(*expect(data, rows, state, candidates), state)


def maximize(
    problem: Problem, rows: Tensor, responsibility: Tensor, last: MixtureState | None, scale: Tensor | None = None
) -> MixtureState:
    """M step: each component from its points; components with a mass below two points, and twins, are dropped.

    Where points come with scales `u` `[n, K]`, they weigh `r u`, and the scale matrix is divided by `sum_i r_i u_i`
    instead of `sum_i r_i`: the same limit in fewer iterations ("Parameter expansion to accelerate EM: the PX-EM
    algorithm", Liu, Rubin, Wu, 1998, https://doi.org/10.1093/biomet/85.4.755).
    """
    axes, df = (last.components.axes, last.df) if last is not None else (None, None)
    mass = responsibility.sum(0, dtype=torch.float64)
    alive = (mass >= 2).nonzero()[:, 0].tolist() or [int(mass.argmax())]
    means, factors = [], []
    for k in alive:
        share = responsibility[:, k].double()
        members = (share > NEGLIGIBLE).nonzero()[:, 0]
        share = share[members] if scale is None else share[members] * scale[members, k]
        cluster = Cluster(problem.data, rows[members], share)
        previous = axes[k].double() if axes is not None else None
        factors.append(problem.family.estimate(cluster, previous, problem.least))
        means.append(cluster.mean)
    mean = torch.stack(means)
    single = drop_twins(mean, torch.stack([factor.variance for factor in factors]), problem.least)
    components = assemble(mean[single], [factors[k] for k in single], problem.data.dtype)
    kept = mass[alive][single]
    return MixtureState(components, kept / kept.sum(), None if df is None else df[alive][single])


def drop_twins(mean: Tensor, variance: Tensor, least: float) -> list[int]:
    """Indices of the components less those whose mean and variance repeat an earlier one's."""
    gap = (mean[:, None] - mean[None]).square().mean(-1) + (variance[:, None] - variance[None]).abs().mean(-1)
    twin = (gap < 1e-3 * least).tril(diagonal=-1).any(dim=1)
    return (~twin).nonzero()[:, 0].tolist()


def assemble(mean: Tensor, factors: list[Factor], dtype: torch.dtype) -> ops.Components:
    """Components in the data's dtype."""
    axes = [factor.axes for factor in factors if factor.axes is not None]
    spread = [factor.spread for factor in factors if factor.spread is not None]
    return ops.Components(
        mean.to(dtype),
        torch.stack([factor.variance for factor in factors]).to(dtype),
        torch.stack(axes).to(dtype) if axes else None,
        torch.stack(spread).to(dtype) if spread else None,
    )

"""Laws of a component given its mean and scale matrix, normal or Student-t, and what the E step asks of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from headstart import ops
from headstart.fitting.covariance import Cluster, Covariance, Factor
from headstart.ops.component import change, extremes, tables, wide, widen

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


TRIMMED = 0.1  # share of the farthest points that the first guess leaves out: it would be of nothing else
GUESS = 5.0  # degrees of freedom before any are fitted
PRECISION, MAX_STEPS = 1e-7, 60  # of log df


@dataclass(frozen=True)
class StudentT:
    """`t(x; mu_k, S_k, df_k)`: `x = mu_k + e / sqrt(w)`, `e ~ N(0, S_k)`, `w ~ Gamma(df_k / 2, rate df_k / 2)`.

    An E step makes one pass over the data, for the squared distances `d` to each component. The degrees of freedom
    are settled on them first: with responsibilities held, they maximize the likelihood of a component's points (the
    ECME step), at the root of `psi((df + D) / 2) - psi(df / 2) + mean[(d - D) / (df + d) - log(1 + d / df)]`.
    Responsibilities and `E[w | x] = (df + D) / (df + d)` then follow from the same distances.

    Args:
        least, most: range of the degrees of freedom; equal where they are given.

    References: "Robust mixture modelling using the t distribution" (Peel, McLachlan, 2000,
    https://doi.org/10.1023/A:1008981510081); "ML estimation of the t distribution using EM and its extensions, ECM and
    ECME" (Liu, Rubin, 1995, https://www.jstor.org/stable/24305551).
    """

    starts: ClassVar[int] = 8  # one component over many outliers is a local optimum that a single start may end in
    least: float
    most: float

    def core(self, data: Tensor, rows: Tensor) -> Tensor:
        far = (data[rows] - data[rows].median(0).values).square().sum(1)
        return rows[far.argsort()[: math.ceil((1 - TRIMMED) * len(rows))]]

    def begin(self, state: MixtureState) -> MixtureState:
        return state._replace(df=torch.full_like(state.weight, min(max(GUESS, self.least), self.most)))

    def expect(
        self, data: Tensor, rows: Tensor, state: MixtureState, candidates: Tensor | None = None, settled: bool = False
    ) -> Belief:
        assert state.df is not None
        df, dim, components = state.df, data.shape[1], sound(state.components)
        constant = tables(components._replace(mean=components.mean.double()), 0.0).constant
        distance = densities(data, rows, components, candidates)
        distance = distance.neg_().add_(constant.to(distance)).mul_(2).clamp_min_(0)
        height = state.weight.log() + constant + 0.5 * dim * math.log(2 * math.pi)  # log w_k - log det S_k / 2
        if not settled and self.least < self.most:
            df = self.settle(distance, log_joint(distance, height, df, dim).softmax(1), dim)
        joint = log_joint(distance, height, df, dim)
        log_likelihood = float(joint.logsumexp(1).mean(dtype=torch.float64))
        scale = ((df + dim).to(distance) / (df.to(distance) + distance)).to(data.dtype)
        return Belief(log_likelihood, joint.softmax(1).to(data.dtype), state._replace(df=df), scale)

    def settle(self, distance: Tensor, responsibility: Tensor, dim: int) -> Tensor:
        """Degrees of freedom `[K]` (float64): roots of the slope, or the end of the range it rises or falls to."""
        found = []
        for k in range(distance.shape[1]):
            members = (responsibility[:, k] > NEGLIGIBLE).nonzero()[:, 0]
            d, share = distance[members, k].double(), responsibility[members, k].double()
            found.append(root(partial(slope, d, share, dim), self.least, self.most))
        return torch.tensor(found, dtype=torch.float64, device=distance.device)


def root(falling: Callable[[float], float], least: float, most: float) -> float:
    """Where a function falls through 0 within a range: the Illinois variant of false position, in the logarithm."""
    f_low, f_high = falling(least), falling(most)
    if f_high >= 0 or f_low <= 0:
        return most if f_high >= 0 else least
    low, high, last, side = math.log(least), math.log(most), math.inf, 0
    for _ in range(MAX_STEPS):
        middle = (low * f_high - high * f_low) / (f_high - f_low)
        if abs(middle - last) < PRECISION:
            break
        last, f = middle, falling(math.exp(middle))
        if f > 0:
            low, f_low, f_high, side = middle, f, f_high / 2 if side == 1 else f_high, 1
        else:
            high, f_high, f_low, side = middle, f, f_low / 2 if side == -1 else f_low, -1
    return min(max(math.exp(middle), least), most)


def slope(distance: Tensor, share: Tensor, dim: int, df: float) -> float:
    """Twice the derivative of the points' log-likelihood in `log df`."""
    at_df, at_all = torch.special.digamma(
        torch.tensor([0.5 * df, 0.5 * (df + dim)], dtype=torch.float64, device="cpu")
    ).tolist()
    each = (distance - dim) / (df + distance) - (distance / df).log1p()
    return df * (float(share @ each) + float(share.sum()) * (at_all - at_df))


def log_joint(distance: Tensor, height: Tensor, df: Tensor, dim: int) -> Tensor:
    """`log w_k t(x; mu_k, S_k, df_k)` `[n, K]` from squared distances and `height = log w_k - log det(S_k) / 2`."""
    peak = torch.lgamma(0.5 * (df + dim)) - torch.lgamma(0.5 * df) - 0.5 * dim * (math.pi * df).log()
    joint = (distance / df.to(distance)).log1p_().mul_(-0.5 * (df + dim).to(distance))
    return joint.add_((height + peak).to(distance))

"""Student-t components: the E step of the scale, and the degrees of freedom."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from headstart.fitting.law import NEGLIGIBLE, Belief, MixtureState, densities, sound
from headstart.ops.component import tables

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

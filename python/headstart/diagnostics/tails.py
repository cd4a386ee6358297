"""Whether a start has the tails of held-out data: exact permutation tests of extreme projections.

Held-out points, noised to the start's sigma, and the start's samples are pooled. Along each direction the K most
extreme of the N pooled values are taken, at either end, and the held-out ones among them counted: Hypergeometric(N, n,
K) if both come from one law, whatever it is. Directions are random ones, the leading axes of the pooled covariance, and
the distance to the pooled mean; none of them knows which points are held out, so the p-values are exact, and
Bonferroni's correction covers the number of tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.metrics.wasserstein import directions
from headstart.start.protocol import Start

SHARES = (1e-2, 1e-3, 1e-4)  # of the pooled points
RANDOM, AXES = 32, 16
CHUNK = 4096


@dataclass(frozen=True)
class TailCheck:
    """The worst of the tail tests.

    Attributes:
        passed: whether `p_value >= 0.01`.
        p_value: of the worst test, times the number of tests, at most 1.
        observed, expected: held-out points among the extreme ones: above `expected`, the start's tail is too light.
        share: how extreme, as a share of the pooled points.
        direction: `[D]`, signed towards the extreme end; None: distance to the mean.
        tested: the tests, in words.
    """

    passed: bool
    p_value: float
    observed: int
    expected: float
    share: float
    direction: Tensor | None
    tested: str


def tail_check(start: Start, heldout: Tensor, n: int | None = None, seed: int = 0) -> TailCheck:
    """Tests the start's tails at its sigma against held-out points, by exact permutation tests of extreme projections.

    Args:
        start: such as `GaussianMixture.at(sigma)`.
        heldout: clean points `[N, *shape]` outside the fit; they are noised here.
        n: samples of the start; None: 10 for each held-out point.
        seed: of samples, noise and directions.

    Raises:
        ValueError: held-out points of another shape, or fewer than 100 of them.
    """
    if tuple(heldout.shape[1:]) != tuple(start.shape) or len(heldout) < 100:
        raise ValueError(f"tail_check: heldout must be [N >= 100, *{list(start.shape)}], got {list(heldout.shape)}")
    n = 10 * len(heldout) if n is None else n
    v, mean = make_frame(start, heldout, n, seed)
    rows = [torch.cat([x @ v.T, (x - mean).norm(dim=1, keepdim=True)], 1) for x in draw_pooled(start, heldout, n, seed)]
    values, ours = torch.cat(rows), len(heldout)
    shares = [share for share in SHARES if share * ours >= 1] or [1 / ours]
    ends = [(share, sign) for share in shares for sign in (1, -1)]
    found = [find_extreme(values if sign > 0 else -values[:, :-1], ours, share, sign) for share, sign in ends]
    worst, tests = min(found), len(shares) * (2 * len(v) + 1)
    p_value = min(1.0, worst.p_value * tests)
    tested = (
        f"{ours} held-out points noised to sigma {start.sigma:g} among the {', '.join(f'{s:.2g}' for s in shares)} "
        f"most extreme of {len(values)} pooled with {n} samples of the start, at either end of {len(v)} directions and "
        f"in distance to the mean: {tests} hypergeometric tests, Bonferroni"
    )
    direction = None if worst.column == len(v) else worst.sign * v[worst.column]
    return TailCheck(p_value >= 0.01, p_value, worst.observed, worst.expected, worst.share, direction, tested)


class Extreme(NamedTuple):
    """One end of one column: the p-value of its count of held-out points, the count, and what it should be."""

    p_value: float
    observed: int
    expected: float
    share: float
    column: int
    sign: int


def find_extreme(values: Tensor, ours: int, share: float, sign: int) -> Extreme:
    """The worst column of `values` `[N, V]`, whose first `ours` rows are held out, at its upper end."""
    k = round(share * len(values))
    observed = (values.topk(k, dim=0).indices < ours).sum(0)
    p = find_p_values(len(values), ours, k)[observed]
    at = int(p.argmin())
    return Extreme(float(p[at]), int(observed[at]), k * ours / len(values), share, at, sign)


def draw_pooled(start: Start, heldout: Tensor, n: int, seed: int) -> Iterator[Tensor]:
    """Noised held-out points, then the start's samples, in chunks `[B, D]` of float64; the same at every call."""
    for first in range(0, len(heldout), CHUNK):
        yield ops.noise(heldout[first : first + CHUNK].double(), start.sigma, seed, 0, first).flatten(1).cpu()
    for first in range(0, n, CHUNK):
        yield start.sample(min(CHUNK, n - first), seed=seed, offset=first).double().flatten(1).cpu()


def make_frame(start: Start, heldout: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Directions `[V, D]` and mean `[D]`: random ones, and the leading axes by one step of subspace iteration."""
    dim = heldout[0].numel()
    random = directions(RANDOM, dim, seed)
    probe = directions(min(AXES, dim), dim, seed + 1)
    total, mean, moved = 0, torch.zeros(dim).double(), torch.zeros(len(probe), dim).double()
    for x in draw_pooled(start, heldout, n, seed):
        total, mean, moved = total + len(x), mean + x.sum(0), moved + (probe @ x.T) @ x
    mean = mean / total
    axes = torch.linalg.qr((moved / total - (probe @ mean)[:, None] * mean).T).Q.T
    return torch.cat([random, axes]), mean


def find_p_values(total: int, ours: int, k: int) -> Tensor:
    """Two-sided p-values `[k + 1]` of every count of a Hypergeometric(total, ours, k)."""
    count = torch.arange(k + 1, dtype=torch.float64)
    log = log_choose(ours, count) + log_choose(total - ours, k - count) - log_choose(total, torch.tensor(float(k)))
    mass = log.exp()
    below, above = mass.cumsum(0), mass.flip(0).cumsum(0).flip(0)
    return (2 * torch.minimum(below, above)).clamp_max(1)


def log_choose(n: int, k: Tensor) -> Tensor:
    """`ln (n over k)`, `-inf` where k is above n."""
    k = k.double()
    inside = torch.lgamma(torch.tensor(n + 1.0).double()) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp_min(0) + 1)
    return torch.where(k <= n, inside, -math.inf)

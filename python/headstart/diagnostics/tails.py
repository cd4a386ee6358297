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
from headstart.metrics.check import require_count, require_seed
from headstart.metrics.wasserstein import directions
from headstart.ops.library import exact
from headstart.start.check import check_data
from headstart.start.protocol import Start

SHARES = (1e-2, 1e-3, 1e-4)  # of the pooled points
RANDOM, AXES = 32, 16
CHUNK = 4096
LEVEL = 0.01  # of the whole check
MIN_POINTS = 100


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


@exact
def tail_check(start: Start, heldout: Tensor, n: int | None = None, seed: int = 0) -> TailCheck:
    """Tests the start's tails at its sigma against held-out points, by exact permutation tests of extreme projections.

    Args:
        start: such as `GaussianMixture.at(sigma)`.
        heldout: clean points `[N, *shape]` outside the fit, a tensor or an array; they are noised here.
        n: samples of the start; None: 10 for each held-out point. So many that the check could fail.
        seed: of samples, noise and directions.

    Raises:
        TypeError: no start.
        ValueError: held-out points of another shape, not finite, or fewer than 100 of them; so few samples that no
            outcome would fail; samples of the start that are not finite.
    """
    seed, heldout = require_seed("tail_check", seed), check_heldout("tail_check", start, heldout, MIN_POINTS)
    ours = len(heldout)
    n = 10 * ours if n is None else require_count("tail_check", "n", n, 1)
    shares = [share for share in SHARES if share * ours >= 1] or [1 / ours]
    require_power(ours, n, shares, 2 * (RANDOM + min(AXES, heldout[0].numel())) + 1)
    v, mean = make_frame(start, heldout, n, seed)
    rows = [torch.cat([x @ v.T, (x - mean).norm(dim=1, keepdim=True)], 1) for x in draw_pooled(start, heldout, n, seed)]
    values = torch.cat(rows)
    if not values.isfinite().all():
        raise ValueError("tail_check: start must give samples that are finite, got NaN or infinity")
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
    return TailCheck(p_value >= LEVEL, p_value, worst.observed, worst.expected, worst.share, direction, tested)


def check_heldout(op: str, start: object, heldout: Tensor, least: int) -> Tensor:
    """Held-out points of a start `[N, *shape]`, at least `least` of them, as a finite tensor."""
    shape = getattr(start, "shape", None)
    if isinstance(start, type) or not hasattr(start, "sigma") or not isinstance(shape, tuple):
        raise TypeError(f"{op}: start must be a law at a noise level, law.at(sigma), got {described(start)}")
    points = check_data(op, heldout)
    if tuple(points.shape[1:]) != shape or len(points) < least:
        raise ValueError(f"{op}: heldout must be [N >= {least}, *{list(shape)}], got {list(points.shape)}")
    return points


def described(value: object) -> str:
    """Names the value given in place of an object: a class by its name, anything else by its type's."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def require_power(ours: int, n: int, shares: list[float], ends: int) -> None:
    """Refuses numbers of points for which no outcome of the tests would be significant.

    Raises:
        ValueError: such numbers.
    """
    total, tests = ours + n, len(shares) * ends
    least = min(float(possible(total, ours, round(share * total)).min()) for share in shares)
    if least * tests >= LEVEL:
        raise ValueError(
            f"tail_check: n must be so large that the check could fail, got {n} samples beside {ours} held-out points; "
            f"{10 * ours} will do"
        )


def possible(total: int, ours: int, k: int) -> Tensor:
    """The p-values of the counts that can occur."""
    return find_p_values(total, ours, k)[max(0, k - (total - ours)) : min(k, ours) + 1]


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
    probe = directions(min(AXES, dim), dim, (seed + 1) % 2**64)
    total, mean, moved = 0, torch.zeros(dim, dtype=torch.float64, device="cpu"), probe.new_zeros(len(probe), dim)
    for x in draw_pooled(start, heldout, n, seed):
        total, mean, moved = total + len(x), mean + x.sum(0), moved + (probe @ x.T) @ x
    mean = mean / total
    axes = torch.linalg.qr((moved / total - (probe @ mean)[:, None] * mean).T).Q.T
    return torch.cat([random, axes]), mean


def find_p_values(total: int, ours: int, k: int) -> Tensor:
    """Two-sided p-values `[k + 1]` of every count of a Hypergeometric(total, ours, k)."""
    count = torch.arange(k + 1, dtype=torch.float64, device="cpu")
    log = (
        log_choose(ours, count)
        + log_choose(total - ours, k - count)
        - log_choose(total, torch.tensor(float(k), dtype=torch.float64, device="cpu"))
    )
    mass = log.exp()
    below, above = mass.cumsum(0), mass.flip(0).cumsum(0).flip(0)
    return (2 * torch.minimum(below, above)).clamp_max(1)


def log_choose(n: int, k: Tensor) -> Tensor:
    """`ln (n over k)`, `-inf` where k is above n."""
    k = k.double()
    inside = math.lgamma(n + 1.0) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp_min(0) + 1)
    return torch.where(k <= n, inside, -math.inf)

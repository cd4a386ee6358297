"""Sliced and max-sliced Wasserstein-2 distance between two sets of samples.

    SW2(p, q)^2 = E_v W2(v.x, v.y)^2,    maxSW2(p, q) = max_v W2(v.x, v.y),    |v| = 1

In one dimension the optimal coupling is the sorted one, exact for unequal numbers of samples too. Products of samples
are float64, some rows at a time where there are many: samples stay on their device. References: "Sliced and Radon
Wasserstein Barycenters of Measures" (Bonneel, Rabin, Peyre, Pfister, 2015, https://doi.org/10.1007/s10851-014-0506-3);
"Max-Sliced Wasserstein Distance and its Use for GANs" (Deshpande et al., 2019, https://arxiv.org/abs/1904.05877). Few
samples from one law are already a distance apart: print that floor, at the same n, beside every figure.

Tails along a direction: how far out a sample reaches, compared with another.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.metrics.check import as_samples, require_count, require_seed
from headstart.ops.array import eigh, tensor_of
from headstart.ops.check import describe

CHUNK_BYTES = 2**27
WHOLE_BYTES = 2**30  # up to here samples become float64 once, beyond it a chunk at a time
FULL_AXES = 256  # more coordinates than this, and the axes are found without their covariances


class MaxSliced(NamedTuple):
    """The largest distance found, and its direction `[D]` (unit length, float64)."""

    distance: float
    direction: Tensor


def directions(n: int, dimension: int, seed: int = 0) -> Tensor:
    """`n` unit vectors `[n, dimension]`, float64; direction i of a seed is the same everywhere and for every `n`."""
    z = ops.normal((n, dimension), seed, 0, dtype=torch.float64, device="cpu")
    return z / z.norm(dim=1, keepdim=True)


def coupling(n: int, m: int, bulk: tuple[float, float] = (0.0, 1.0)) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted coupling of n and m equal masses between two quantiles: `(index [L], index [L], mass [L])`, in order."""
    levels = torch.cat(
        [torch.arange(1, a + 1, device="cpu", dtype=torch.int64) * b for a, b in ((n, m), (m, n))]
    ).unique()
    upper = (levels.double() / (n * m)).clamp(*bulk)
    mass = torch.diff(upper, prepend=upper.new_full((1,), bulk[0]))
    kept = mass > 0
    return (levels[kept] - 1) // m, (levels[kept] - 1) // n, mass[kept]


def flatten(name: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`x` and `y` as `[N, D]`, `[M, D]`, checked; float64 where they are not too large."""
    x, y = as_samples(name, "x", x), as_samples(name, "y", y)
    if len(x) == 0 or len(y) == 0 or x.shape[1:] != y.shape[1:]:
        raise ValueError(f"{name}: y must be [M, *{list(x.shape[1:])}] like x, both not empty, got {list(y.shape)}")
    x, y = x.detach().flatten(1), y.detach().flatten(1)
    if not all(part.isfinite().all() for whole in (x, y) for part in whole.split(rows_of(whole))):
        raise ValueError(f"{name}: x and y must be finite, got NaN or infinity")
    return tuple(part.double() if 8 * part.numel() <= WHOLE_BYTES else part for part in (x, y))  # type: ignore[return-value]


def rows_of(x: Tensor) -> int:
    """How many rows of `x` `[N, D]` are worked on at a time."""
    return max(1, CHUNK_BYTES // (8 * x.shape[1]))


def project(x: Tensor, v: Tensor) -> Tensor:
    """`x v^T` `[N, V]`, float64, of `x` `[N, D]` and `v` `[V, D]` (float64)."""
    return torch.cat([part.double() @ v.T for part in x.split(rows_of(x))])


def check_bulk(name: str, bulk: tuple[float, float]) -> None:
    """Quantiles in order."""
    pair = isinstance(bulk, tuple | list) and len(bulk) == 2 and all(isinstance(end, int | float) for end in bulk)
    if not pair or not 0 <= bulk[0] < bulk[1] <= 1:
        raise ValueError(f"{name}: bulk must be two quantiles, 0 <= low < high <= 1, got {bulk}")


def gaps(x: Tensor, y: Tensor, v: Tensor, bulk: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """`W2(v.x, v.y)^2` `[V]` along every row of `v` `[V, D]`; x `[N, D]`, y `[M, D]`."""
    left, right, mass = (part.to(x.device) for part in coupling(len(x), len(y), bulk))
    squares = [
        ((project(x, part).sort(0).values[left] - project(y, part).sort(0).values[right]).square() * mass[:, None]).sum(
            0
        )
        for part in v.split(64)
    ]
    return torch.cat(squares)


def sliced_wasserstein(
    x: Tensor, y: Tensor, projections: int = 512, seed: int = 0, v: Tensor | None = None,
    bulk: tuple[float, float] = (0.0, 1.0),
) -> float:  # fmt: skip
    """`SW2(x, y)` over random directions.

    Args:
        x, y: samples `[N, *shape]`, `[M, *shape]`, tensors or numpy arrays: floats, or bytes as `x / 127.5 - 1`.
        projections, seed: number, at least 1, and seed of the directions (addressed noise).
        v: directions `[V, D]` of unit length, in place of random ones.
        bulk: quantiles between which the transport cost along a direction is summed; (0.1, 0.9) leaves out the tails.

    Raises:
        TypeError: samples that are no arrays of floats or bytes.
        ValueError: shapes that differ, no samples, samples that are not finite, no directions or others than of unit
            length, or quantiles out of order.
    """
    check_bulk("sliced_wasserstein", bulk)
    projections = require_count("sliced_wasserstein", "projections", projections, 1)
    seed = require_seed("sliced_wasserstein", seed)
    x, y = flatten("sliced_wasserstein", x, y)
    v = directions(projections, x.shape[1], seed) if v is None else check_directions("sliced_wasserstein", v, x)
    return require_finite("sliced_wasserstein", float(gaps(x, y, v.to(x.device, torch.float64), bulk).mean().sqrt()))


UNIT = 1e-3  # how far from 1 the length of a given direction may be


def check_directions(name: str, v: Tensor, x: Tensor) -> Tensor:
    """Given directions `[V, D]` for samples `x` `[N, D]`, of unit length, as float64."""
    v = tensor_of(v)
    if not isinstance(v, Tensor) or not v.is_floating_point() or v.ndim != 2 or len(v) == 0 or v.shape[1] != x.shape[1]:
        raise ValueError(f"{name}: v must be floating [V >= 1, {x.shape[1]}], got {describe(v)}")
    v = v.detach().double()
    off = float((v.norm(dim=1) - 1).abs().max())
    if not off <= UNIT:
        raise ValueError(
            f"{name}: v must be of unit length, got lengths that are off by {off:.3g}; divide by v.norm(dim=1)"
        )
    return v


def require_finite(name: str, distance: float) -> float:
    """Refuses a distance whose square overflowed."""
    if not math.isfinite(distance):
        raise ValueError(f"{name}: x and y must have squares that are finite, got {distance}; scale both")
    return distance


def ascend(x: Tensor, y: Tensor, v: Tensor, bulk: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """Next directions: each `v` moved halfway to `M v / |M v|`, `M` the second moment of coupled differences."""
    left, right, mass = (part.to(x.device) for part in coupling(len(x), len(y), bulk))
    near, far = project(x, v).argsort(0)[left].T, project(y, v).argsort(0)[right].T
    turned = []
    for one, *order in zip(v, near, far, strict=True):
        pull = torch.zeros_like(one)
        for i, j, weight in zip(*(part.split(rows_of(x)) for part in (*order, mass)), strict=True):
            difference = x[i].double() - y[j].double()
            pull += difference.T @ (weight * (difference @ one))
        turned.append(one + pull / pull.norm().clamp_min(1e-300))
    moved = torch.stack(turned)
    return moved / moved.norm(dim=1, keepdim=True).clamp_min(1e-300)


def spread(x: Tensor, mean: Tensor, v: Tensor) -> Tensor:
    """`S v^T` `[D, V]`, `S` the covariance of `x` `[N, D]` about `mean` `[D]`, never formed."""
    parts = (part.double() - mean for part in x.split(rows_of(x)))
    return sum((part.T @ (part @ v.T) for part in parts), torch.zeros_like(v.T)) / len(x)


def unequal_axes(x: Tensor, y: Tensor, means: tuple[Tensor, Tensor], count: int) -> Tensor:
    """`count` orthonormal directions `[count, D]` along which the variances of `x` and `y` differ most.

    Eigenvectors of the difference of the covariances; of more than `FULL_AXES` coordinates, by twenty rounds of
    subspace iteration, which finds them as far as they stand out.
    """
    dimension = x.shape[1]

    def apply(v: Tensor) -> Tensor:
        return spread(x, means[0], v) - spread(y, means[1], v)

    if dimension <= FULL_AXES:
        axes = eigh(symmetric(apply(torch.eye(dimension, device="cpu", dtype=torch.float32).to(means[0]))))
        return axes.vector.T[axes.value.abs().argsort(descending=True)[:count]]
    v = directions(3 * count, dimension).to(means[0])
    for _ in range(20):
        v = torch.linalg.qr(apply(v)).Q.T
    axes = eigh(symmetric(v @ apply(v)))
    return (axes.vector.T @ v)[axes.value.abs().argsort(descending=True)[:count]]


def symmetric(matrix: Tensor) -> Tensor:
    """A square matrix without the asymmetry of rounding."""
    return 0.5 * (matrix + matrix.T)


def max_sliced_wasserstein(
    x: Tensor, y: Tensor, projections: int = 512, steps: int = 50, seed: int = 0, restarts: int = 4,
    bulk: tuple[float, float] = (0.0, 1.0),
) -> MaxSliced:  # fmt: skip
    """`maxSW2(x, y)`: a lower bound, by ascent from the best of many directions.

    The ascent starts from the difference of the means, the principal axes whose variances differ most, and the best
    `restarts` of the random directions; a step goes halfway along the power iteration of the coupled differences'
    second moment (the objective's gradient direction), and the best direction seen is kept.

    Args:
        x, y: samples `[N, *shape]`, `[M, *shape]`.
        projections, seed: number, at least 1, and seed of the random directions (addressed noise).
        steps: steps of the ascent.
        restarts: how many of each kind of direction the ascent starts from, at least 1.
        bulk: as in `sliced_wasserstein`.

    Raises:
        TypeError: samples that are no arrays of floats or bytes.
        ValueError: shapes that differ, no samples, samples that are not finite, a number out of range, or quantiles
            out of order.
    """
    check_bulk("max_sliced_wasserstein", bulk)
    projections, steps, restarts = (
        require_count("max_sliced_wasserstein", name, value, least)
        for name, value, least in (("projections", projections, 1), ("steps", steps, 0), ("restarts", restarts, 1))
    )
    seed = require_seed("max_sliced_wasserstein", seed)
    x, y = flatten("max_sliced_wasserstein", x, y)
    random = directions(projections, x.shape[1], seed).to(x.device)
    means = x.mean(0, dtype=torch.float64), y.mean(0, dtype=torch.float64)
    shift = means[0] - means[1]
    best = gaps(x, y, random, bulk).argsort(descending=True)[:restarts]
    v = torch.cat([random[best], unequal_axes(x, y, means, restarts)])
    if float(shift.norm()) > 0:
        v = torch.cat([v, shift[None] / shift.norm()])
    kept, value = v, gaps(x, y, v, bulk)
    for _ in range(steps):
        v = ascend(x, y, v, bulk)
        now = gaps(x, y, v, bulk)
        better = now > value
        kept, value = torch.where(better[:, None], v, kept), torch.where(better, now, value)
    winner = int(value.argmax())
    return MaxSliced(require_finite("max_sliced_wasserstein", float(value[winner].sqrt())), kept[winner])


LEVELS = (0.9, 0.99, 0.999, 0.9999)
LEAST = 10  # points beyond a quantile for it to be given


def tail_ratios(x: Tensor, y: Tensor, direction: Tensor, levels: tuple[float, ...] = LEVELS) -> dict[float, float]:
    """Ratios of the quantiles of `|v.x - m|` to those of `|v.y - m|`, `m` the median of `v.y`: 1 where tails agree.

    Args:
        x, y: samples `[N, *shape]`, `[M, *shape]`.
        direction: v `[D]`, of any length above 0.
        levels: quantiles in (0, 1); those with fewer than 10 points of x or y beyond them are left out.

    Raises:
        TypeError: samples that are no arrays of floats or bytes.
        ValueError: shapes that differ, no samples, samples that are not finite, another direction, or other levels.
    """
    x, y = flatten("tail_ratios", x, y)
    direction = tensor_of(direction)
    sound = isinstance(direction, Tensor) and direction.is_floating_point() and direction.shape == (x.shape[1],)
    if not sound or not 0 < float(direction.double().norm()) < math.inf:
        raise ValueError(f"tail_ratios: direction must be finite [{x.shape[1]}] and not 0, got {describe(direction)}")
    if not isinstance(levels, tuple | list) or not all(isinstance(p, float) and 0 < p < 1 for p in levels):
        raise ValueError(f"tail_ratios: levels must be quantiles in (0, 1), got {levels!r}")
    along, other = (project(part, direction[None].to(part.device, torch.float64))[:, 0] for part in (x, y))
    middle = other.median()
    reach, wanted = (along - middle).abs().sort().values, (other - middle).abs().sort().values
    few = min(len(x), len(y))
    return {
        level: ratio(float(reach[int(level * len(x))]), float(wanted[int(level * len(y))]))
        for level in levels
        if round((1 - level) * few, 6) >= LEAST
    }


def ratio(found: float, wanted: float) -> float:
    """`found / wanted`; 1 where both are 0, as they are of samples that do not vary along a direction."""
    if wanted == 0:
        return 1.0 if found == 0 else math.inf
    return found / wanted

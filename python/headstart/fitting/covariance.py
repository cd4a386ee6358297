"""Covariance families: the M step of one component, given its points.

Every family keeps `S = diag(variance) + axes^T diag(spread) axes`, so that noising adds `sigma^2` to `variance` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from headstart.ops.array import eigh
from headstart.ops.check import is_integer
from headstart.ops.library import multiplied

CHUNK_BYTES, CHUNK_ROWS = 2**26, 2**16  # the second bounds the length of a float32 sum


class Cluster:
    """Points `x_i` of one component with responsibilities `r_i`: sums over them, a minibatch at a time.

    The sums are of `c_i = sqrt(r_i) (x_i - mean)`, subtracted before anything is squared. Products run in the
    data's dtype within a minibatch; sums over minibatches are float64.

    Args:
        data: all points `[N, D]`.
        rows: indices `[n]` of the component's points.
        responsibility: their responsibilities `[n]`, float64.

    Attributes:
        mass: `sum_i r_i`.
        mean: `sum_i r_i x_i / mass`, `[D]`, float64.
        dim: D.
    """

    def __init__(self, data: Tensor, rows: Tensor, responsibility: Tensor) -> None:
        self.data, self.rows, self.responsibility = data, rows, responsibility
        self.dim, self.device = data.shape[1], data.device
        self.step = min(CHUNK_ROWS, max(1, CHUNK_BYTES // (data.element_size() * self.dim)))
        self.mass = float(responsibility.sum())
        self.cache: Tensor | None = None  # a cluster of one minibatch is gathered once
        self.mean = self.average()

    def average(self) -> Tensor:
        first = self.data[self.rows[0]].double()  # an origin near the points keeps the sum short
        total = torch.zeros(self.dim, dtype=torch.float64, device=self.device)
        for rows, weight in zip(self.rows.split(self.step), self.responsibility.split(self.step), strict=True):
            total += multiplied(weight.to(self.data.dtype), self.data[rows] - first.to(self.data.dtype))
        return first + total / self.mass

    def chunks(self) -> Iterator[Tensor]:
        """Minibatches `[b, D]` of `c_i`."""
        if self.cache is not None:
            yield self.cache
            return
        mean = self.mean.to(self.data.dtype)
        for rows, weight in zip(self.rows.split(self.step), self.responsibility.split(self.step), strict=True):
            chunk = (self.data[rows] - mean) * weight.sqrt().to(self.data.dtype)[:, None]
            if len(rows) == len(self.rows):
                self.cache = chunk
            yield chunk

    def squares(self) -> Tensor:
        """Variance of each coordinate, `[D]`."""
        return self.total(chunk.square().sum(0, dtype=torch.float64) for chunk in self.chunks())

    def covariance(self) -> Tensor:
        """The covariance `S_hat` `[D, D]`, in float64 throughout."""
        return self.total(double.mT @ double for double in (chunk.double() for chunk in self.chunks()))

    def apply(self, axes: Tensor) -> Tensor:
        """`axes S_hat` `[R, D]` for `axes` `[R, D]`, without forming `S_hat`."""
        narrow = axes.to(self.data.dtype)
        return self.total(multiplied(multiplied(chunk, narrow.mT).mT, chunk).double() for chunk in self.chunks())

    def project(self, axes: Tensor) -> Tensor:
        """`axes S_hat axes^T` `[R, R]`."""
        narrow = axes.to(self.data.dtype)
        coordinates = (multiplied(chunk, narrow.mT).double() for chunk in self.chunks())
        return self.total(double.mT @ double for double in coordinates)

    def total(self, parts: Iterator[Tensor]) -> Tensor:
        first = next(parts)
        for part in parts:
            first += part
        return first / self.mass


class Factor(NamedTuple):
    """Covariance of one component, float64: `variance` `[1]` or `[D]`, `axes` `[R, D]`, `spread` `[R]` (or None)."""

    variance: Tensor
    axes: Tensor | None = None
    spread: Tensor | None = None


@runtime_checkable
class Covariance(Protocol):
    """A family of covariances, as given to `fit`."""

    def estimate(self, cluster: Cluster, previous: Tensor | None, least: float) -> Factor:
        """Most likely covariance of a cluster.

        Args:
            cluster: the component's points, weighted and centred.
            previous: its axes `[R, D]` in the last iteration, or None in the first.
            least: smallest variance allowed in any direction.
        """
        ...


@dataclass(frozen=True)
class Isotropic:
    """`S = v I`, `v = tr(S_hat) / D`."""

    def estimate(self, cluster: Cluster, previous: Tensor | None, least: float) -> Factor:
        return Factor((cluster.squares().sum(0, keepdim=True) / cluster.dim).clamp_min(least))


@dataclass(frozen=True)
class Diagonal:
    """`S = diag(v)`, `v_d = sum_i r_i (x_id - mu_d)^2 / sum_i r_i`. Constant coordinates get the least variance."""

    def estimate(self, cluster: Cluster, previous: Tensor | None, least: float) -> Factor:
        return Factor(cluster.squares().clamp_min(least))


@dataclass(frozen=True)
class Full:
    """`S = sum_i r_i (x_i - mu)(x_i - mu)^T / sum_i r_i`, kept as eigenvectors and eigenvalues; for small D."""

    def estimate(self, cluster: Cluster, previous: Tensor | None, least: float) -> Factor:
        eigenvalue, vector = eigh(cluster.covariance())
        eigenvalue = eigenvalue.clamp_min(least)
        return Factor(eigenvalue[:1], vector.mT.contiguous(), eigenvalue - eigenvalue[0])


@dataclass(frozen=True)
class LowRank:
    """`S = U diag(spread) U^T + floor I`: probabilistic principal components.

    With eigenvalues `l_1 >= ... >= l_R` of the cluster's covariance in the subspace `U`,
    `floor = (tr(S_hat) - sum_r l_r) / (D - R)` and `spread_r = l_r - floor`. `U` takes one step of subspace iteration
    and a Rayleigh-Ritz rotation at each EM iteration, from the last axes: no `D x D` matrix is formed, and the
    likelihood still never falls, because the span is the one that an EM step for the factors would reach.

    Args:
        rank: number of axes R, at least 0; at most D - 1 are used, and at most half as many as the component has
            points (the other axes get spread 0).

    Raises:
        ValueError: the rank is negative or not an integer.

    Reference: "Mixtures of Probabilistic Principal Component Analysers" (Tipping, Bishop, 1999,
    https://doi.org/10.1162/089976699300016728).
    """

    rank: int

    def __post_init__(self) -> None:
        if not is_integer(self.rank) or self.rank < 0:
            raise ValueError(f"LowRank: rank must be an integer of at least 0, got {self.rank!r}")
        object.__setattr__(self, "rank", int(self.rank))  # numpy's would show in reports

    def estimate(self, cluster: Cluster, previous: Tensor | None, least: float) -> Factor:
        dim, rank = cluster.dim, min(self.rank, cluster.dim - 1)
        total = cluster.squares().sum()
        if rank == 0:
            return Factor((total / dim).clamp_min(least).reshape(1))
        sweeps, axes = (1, previous) if previous is not None else (4, first_axes(rank, dim, cluster.device))
        for _ in range(sweeps):
            axes = torch.linalg.qr(cluster.apply(axes).mT).Q.mT
        eigenvalue, rotation = eigh(cluster.project(axes))
        eigenvalue, axes = eigenvalue.flip(0).clamp_min(0), rotation.flip(1).mT @ axes
        kept = min(rank, int(cluster.mass) // 2)  # more axes than that would swallow the floor
        floor = ((total - eigenvalue[:kept].sum()) / (dim - kept)).clamp_min(least)
        spread = (eigenvalue - floor).clamp_min(0)
        spread[kept:] = 0
        return Factor(floor.reshape(1), axes.contiguous(), spread)


def first_axes(rank: int, dim: int, device: torch.device) -> Tensor:
    """Random orthonormal rows `[rank, dim]`, the same at every call: where subspace iteration begins."""
    gaussian = torch.randn(dim, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(0), device="cpu")
    return torch.linalg.qr(gaussian).Q.mT.to(device)


def check_covariance(covariance: object) -> None:
    """A covariance family."""
    if not isinstance(covariance, Covariance) or isinstance(covariance, type):
        families = "Isotropic(), Diagonal(), Full() or LowRank(rank)"
        raise ValueError(f"fit: covariance must be {families}, got {covariance!r}")

"""The points of one component, as a family's M step sees them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_BYTES, CHUNK_ROWS = 2**26, 2**16  # the second bounds the length of a float32 sum


class Cluster:
    """Points `x_i` of one component with responsibilities `r_i`: sums over them, a minibatch at a time.

    The sums are of `c_i = sqrt(r_i) (x_i - mean)`, subtracted before anything is squared. Products run in the
    data's dtype within a minibatch; sums over minibatches are float64.

    Args:
        data: All points `[N, D]`.
        rows: Indices `[n]` of the component's points.
        responsibility: Their responsibilities `[n]`, float64.

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
            total += weight.to(self.data.dtype) @ (self.data[rows] - first.to(self.data.dtype))
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
        return self.total(((chunk @ narrow.mT).mT @ chunk).double() for chunk in self.chunks())

    def project(self, axes: Tensor) -> Tensor:
        """`axes S_hat axes^T` `[R, R]`."""
        narrow = axes.to(self.data.dtype)
        coordinates = ((chunk @ narrow.mT).double() for chunk in self.chunks())
        return self.total(double.mT @ double for double in coordinates)

    def total(self, parts: Iterator[Tensor]) -> Tensor:
        first = next(parts)
        for part in parts:
            first += part
        return first / self.mass

"""Starts that nothing is fitted for: the classic Gaussian, and training points with noise.

It is near-ideal as a law and memorizes: at sigma = 0 every sample is a copy (`headstart.metrics.memorization` measures
it). It serves as a reference, never as the product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.ops.check import STATE, is_integer
from headstart.ops.library import exact
from headstart.start.check import check_address, check_data, check_labels, check_points, check_sigma


@dataclass(frozen=True)
class Classic:
    """`x = sigma_max z`, `z ~ N(0, I)`; with a short horizon as `sigma_max`, the uninformed start.

    Args:
        shape: shape of one sample.
        sigma_max: noise level, in units of the data.
        dtype: of the samples, float32 or float64.
        device: where samples are made.

    Raises:
        ValueError: `sigma_max` is not above 0, a shape that is none, or a device that is not here.
    """

    shape: tuple[int, ...]
    sigma_max: float = 80.0
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        sizes: Any = (self.shape,) if is_integer(self.shape) else self.shape
        if not isinstance(sizes, (list, tuple)) or not all(is_integer(size) and size > 0 for size in sizes):
            raise ValueError(f"Classic: shape must be of integers above 0, got {self.shape!r}")
        if self.dtype not in STATE:
            raise TypeError(f"Classic: dtype must be float32 or float64, got {self.dtype}")
        object.__setattr__(self, "shape", tuple(int(size) for size in sizes))
        ops.check.require_device("Classic", self.device)
        object.__setattr__(self, "sigma_max", check_sigma("Classic", self.sigma_max, positive=True))

    @property
    def sigma(self) -> float:
        return self.sigma_max

    def sample(self, n: int, seed: int = 0, offset: int = 0) -> Tensor:
        """Samples `offset .. offset + n - 1` of `seed`, `[n, *shape]`: the same bits in any split into batches."""
        n, seed, offset = check_address("sample", n, seed, offset)
        shape = (n, *self.shape)
        z = ops.normal(shape, seed, 0, offset, stream=ops.Stream.START, dtype=self.dtype, device=self.device)
        return self.from_latents(z)

    def from_latents(self, z: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """`sigma_max z` for unit normals `[n, *shape]`, whatever the classes."""
        return self.sigma_max * z

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of `x` `[n, *shape]`, as `[n]` float64."""
        z = check_points("log_prob", x, self.shape).double() / self.sigma_max
        constant = z.shape[1] * (math.log(self.sigma_max) + 0.5 * math.log(2 * math.pi))
        return -0.5 * z.square().sum(1) - constant


CHUNK = 1024


class Empirical:
    """The training points themselves: `p_sigma(x) = (1 / N) sum_i N(x; x_i, sigma^2 I)`.

    Args:
        data: points `[N, *shape]`, floating.
        labels: classes `[N]` of integers from 0, or None.

    Raises:
        ValueError: data that are not floating, finite points, or labels of another length.
    """

    def __init__(self, data: Tensor, labels: Tensor | None = None) -> None:
        self.data = check_data("Empirical", data)
        labels = None if labels is None else check_labels("Empirical", labels, len(self.data)).to(self.data.device)
        self.order = None if labels is None else labels.argsort(stable=True)  # the points of a class, side by side
        self.count = None if labels is None else labels.bincount()

    @property
    def conditional(self) -> bool:
        return self.order is not None

    def at(self, sigma: float | Tensor) -> EmpiricalStart:
        """The law of a random training point plus `sigma n`."""
        return EmpiricalStart(self, check_sigma("at", sigma))


@dataclass(frozen=True)
class EmpiricalStart:
    """A random training point plus `sigma n`.

    Args:
        empirical: the training points.
        sigma: noise level, in units of the data.
    """

    empirical: Empirical
    sigma: float

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.empirical.data.shape[1:])

    @property
    def conditional(self) -> bool:
        return self.empirical.conditional

    @exact
    def sample(self, n: int, seed: int = 0, offset: int = 0, labels: int | Tensor | None = None) -> Tensor:
        """Samples `offset .. offset + n - 1` of `seed`, `[n, *shape]`: the same bits in any split into batches.

        Args:
            n: samples wanted.
            seed: seed of the noise.
            offset: index of the first sample.
            labels: classes `[n]`, or one for all, or None.
        """
        n, seed, offset = check_address("sample", n, seed, offset)
        data = self.empirical.data
        u = ops.uniform(n, seed, 0, offset, stream=ops.Stream.COMPONENT, device=data.device)
        return ops.noise(data[self.pick(u, labels)], self.sigma, seed, 0, offset, stream=ops.Stream.START)

    def pick(self, u: Tensor, labels: int | Tensor | None) -> Tensor:
        """Indices of training points from uniforms in (0, 1]."""
        order, count = self.empirical.order, self.empirical.count
        if labels is None:
            return (u * len(self.empirical.data)).ceil().long() - 1
        labels = self.classes("sample", torch.as_tensor(labels, device=u.device), len(u))
        assert order is not None  # required with the labels
        assert count is not None
        first = count.cumsum(0) - count
        return order[first[labels] + (u * count[labels]).ceil().long() - 1]

    def require_labels(self, name: str, labels: Tensor, n: int) -> None:
        """Refuses classes `[n]`, or one for all, that are not in the law."""
        self.classes(name, labels, n)

    def classes(self, name: str, labels: Tensor, n: int) -> Tensor:
        """Classes `[n]` of labels, or of one for all."""
        count = self.empirical.count
        if count is None:
            raise ValueError(f"{name}: labels were given, but Empirical was made without labels")
        labels = check_labels(name, labels.expand(n) if labels.ndim == 0 else labels, n).to(count.device)
        known = (labels < len(count)) & (count[labels.clamp_max(len(count) - 1)] > 0)
        if not bool(known.all()):
            raise ValueError(f"{name}: the data has no point of class {int(labels[~known][0])}")
        return labels

    @exact
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of `x` `[n, *shape]`, as `[n]` float64, over all points; `sigma` must be above 0."""
        sigma = check_sigma("log_prob", self.sigma, positive=True)
        data = self.empirical.data.flatten(1)
        points = check_points("log_prob", x, self.shape).to(data)
        total = points.new_full((len(points),), -math.inf, dtype=torch.float64)
        for some in data.split(CHUNK):
            distance = torch.cdist(points, some, compute_mode="donot_use_mm_for_euclid_dist").double()
            total = torch.logaddexp(total, (-0.5 * (distance / sigma).square()).logsumexp(dim=1))
        return total - math.log(len(data)) - data.shape[1] * (math.log(sigma) + 0.5 * math.log(2 * math.pi))

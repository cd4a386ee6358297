"""The classic start: nothing is learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.ops.check import STATE, is_integer
from headstart.start.check import check_address, check_points, check_sigma


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
        sizes: Any = (self.shape,) if is_integer(self.shape) else tuple(self.shape)
        if not all(is_integer(size) and size > 0 for size in sizes):
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

"""How training data are noised: once, or anew at each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from headstart import ops


class Noising(Protocol):
    """A regime of noising, as given to the `fit` of a flow. Noise is addressed: resuming draws the same."""

    def once(self, data: Tensor, sigma: float, seed: int) -> Tensor:
        """What is kept of the points `[N, D]` before the first epoch."""
        ...

    def each(self, batch: Tensor, sigma: float, seed: int, epoch: int, first: int) -> Tensor:
        """What is learned from a batch `[B, D]`, whose first point is number `first` of the epoch."""
        ...


@dataclass(frozen=True)
class Fixed:
    """One noised copy of the data, `x_i = x_0i + sigma n_i`, at every epoch."""

    def once(self, data: Tensor, sigma: float, seed: int) -> Tensor:
        return add_noise(data, sigma, seed, 0, 0)

    def each(self, batch: Tensor, sigma: float, seed: int, epoch: int, first: int) -> Tensor:
        return batch


@dataclass(frozen=True)
class Dynamic:
    """Fresh noise at each epoch: the exact objective `E_{x_0, n} log p(x_0 + sigma n)`, and a regularizer."""

    def once(self, data: Tensor, sigma: float, seed: int) -> Tensor:
        return data

    def each(self, batch: Tensor, sigma: float, seed: int, epoch: int, first: int) -> Tensor:
        return add_noise(batch, sigma, seed, epoch, first)


def add_noise(data: Tensor, sigma: float, seed: int, epoch: int, first: int) -> Tensor:
    """`data + sigma n`, `n` addressed by (seed, epoch, first + i); epochs count from 1, 0 is the copy kept."""
    return ops.noise(data, sigma, seed, epoch, first, stream=ops.Stream.NOISING)

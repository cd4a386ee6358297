"""What every start offers, whatever its family."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Start(Protocol):
    """The law a sampler starts from: an approximation of `x_sigma = x_0 + sigma n`, `n ~ N(0, I)`.

    Attributes:
        sigma: Noise level of the law, in units of the data.
        shape: Shape of one sample, `(*shape)`.
    """

    @property
    def sigma(self) -> float: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def sample(self, n: int, seed: int = 0, offset: int = 0) -> Tensor:
        """Samples `offset .. offset + n - 1` of `seed`, `[n, *shape]`: the same bits in any split into batches."""
        ...

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of `x` `[n, *shape]`, as `[n]`."""
        ...

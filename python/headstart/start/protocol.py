"""Protocols of starts: methods that every start has, and methods that some have beyond them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Start(Protocol):
    """The law a sampler starts from: an approximation of `x_sigma = x_0 + sigma n`, `n ~ N(0, I)`.

    Attributes:
        sigma: noise level of the law, in units of the data.
        shape: shape of one sample, `(*shape)`.
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


@runtime_checkable
class ConditionalStart(Start, Protocol):
    """A start that may be of classes.

    Attributes:
        conditional: whether it is; labels are refused where it is not.
    """

    @property
    def conditional(self) -> bool: ...

    def sample(self, n: int, seed: int = 0, offset: int = 0, labels: int | Tensor | None = None) -> Tensor:
        """`Start.sample`, of classes `labels` (`[n]`, or one for all)."""
        ...


@runtime_checkable
class ClassStart(ConditionalStart, Protocol):
    """A start that can say which classes it has without drawing any."""

    def require_labels(self, name: str, labels: Tensor, n: int) -> None:
        """Refuses classes `[n]`, or one for all, that are not in the law; `name` is that of the caller."""
        ...


@runtime_checkable
class LatentStart(Start, Protocol):
    """A start that maps unit normals to its law, so that a latent keeps its image."""

    def from_latents(self, z: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Samples `[n, *shape]` of unit normals `z` `[n, *shape]`, of classes `labels` where it is conditional."""
        ...


@runtime_checkable
class HistoryStart(Start, Protocol):
    """A start with a denoiser of its own, whose predictions a plan can reuse without a network call."""

    def history(self, x: Tensor, above: float, labels: int | Tensor | None = None) -> list[Tensor]:
        """Predictions of states `x` `[n, *shape]` at `sigma`, and of states one step up the start's flow at `above`."""
        ...

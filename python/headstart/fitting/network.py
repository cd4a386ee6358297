"""What the training loop and a flow ask of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class FlowNetwork(nn.Module, ABC):
    """An invertible map `z = f(x, label)` of standardized points `[B, D]`, and the law of `z`.

    Attributes:
        classes: Number of classes; the label of that number is the null label. 0: no labels.
        row: Numbers that one point takes on its way, roughly: batches follow it.
    """

    classes: int
    row: int

    @abstractmethod
    def log_prob(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Log-density in nats of `x` `[B, D]` given classes `[B]`, as `[B]`."""

    @abstractmethod
    def inverse(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """`x` `[B, D]` with `f(x, label) = z`."""

    @abstractmethod
    def latents(self, n: int, seed: int, offset: int) -> Tensor:
        """Draws `offset .. offset + n - 1` of the law of `z`, `[n, D]`, addressed."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The architecture as JSON values."""

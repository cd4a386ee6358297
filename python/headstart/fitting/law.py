"""The law of a component, given its mean and scale matrix: what the E step asks of it."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor

from headstart.fitting.expectation import expect
from headstart.fitting.problem import Mixture


class Belief(NamedTuple):
    """What an E step finds.

    Fields:
        log_likelihood: Mean over points, in nats, under `state`.
        responsibility: `[n, K]`.
        state: The mixture these hold for.
        scale: `E[w | x, k]` `[n, K]` where components are normal scale mixtures, else None.
    """

    log_likelihood: float
    responsibility: Tensor
    state: Mixture
    scale: Tensor | None = None


class Law(Protocol):
    """A family of component laws.

    Attributes:
        starts: First guesses to choose among.
    """

    starts: ClassVar[int]

    def core(self, data: Tensor, rows: Tensor) -> Tensor:
        """The rows of the data that the first guess is made of."""
        ...

    def begin(self, state: Mixture) -> Mixture:
        """The first guess, with what the law has beside means and scale matrices."""
        ...

    def expect(
        self, data: Tensor, rows: Tensor, state: Mixture, candidates: Tensor | None = None, settled: bool = False
    ) -> Belief:
        """E step on some points, over all components or each point's candidates `[n, K]`.

        `settled`: under this very state; else the law may first improve what these points tell it of itself.
        """
        ...


class Normal:
    """`N(x; mu_k, S_k)`."""

    starts: ClassVar[int] = 1

    def core(self, data: Tensor, rows: Tensor) -> Tensor:
        return rows

    def begin(self, state: Mixture) -> Mixture:
        return state

    def expect(
        self, data: Tensor, rows: Tensor, state: Mixture, candidates: Tensor | None = None, settled: bool = False
    ) -> Belief:
        return Belief(*expect(data, rows, state, candidates), state)

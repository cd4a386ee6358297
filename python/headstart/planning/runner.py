"""Running tables from fixed first states, with an account of what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headstart.sampling.edge import part_of, settle
from headstart.sampling.loop import Descent, Origin, evaluations
from headstart.sampling.request import initial_state, labels_of
from headstart.solver.row import Row
from headstart.start.protocol import HistoryStart, Start

FIRST, APART = 2**31, 2**28  # sample index of the first set of latents, and from one set to the next


class OverBudget(Exception):
    """The next run would cost more than is left."""


@dataclass
class Latents:
    """First states of one set of samples.

    Attributes:
        x: `[n, *shape]`.
        offset: sample index of the first.
        cond: the denoiser's keyword arguments, tensors of `n` rows.
        history: the start's own predictions, by the level above.
    """

    x: Tensor
    offset: int
    cond: dict[str, Any]
    history: dict[float, list[Tensor]] = field(default_factory=dict)


@dataclass
class Runner:
    """A denoiser, a start and what is left to spend.

    Attributes:
        denoiser, start, cond, seed: as in `sample`; rows of `cond` are taken in turn.
        budget: network evaluations of one sample, at most.
        batch: samples at a time.
        advance: called after each run.
        spent: network evaluations so far.
    """

    denoiser: Any
    start: Start
    cond: Mapping[str, Any]
    seed: int
    budget: int
    batch: int
    advance: Callable[..., None]
    spent: int = 0

    def latents(self, which: int, n: int) -> Latents:
        """Set `which` of first states: sets have no sample in common, nor with samples 0 .. 2^31 of the seed."""
        offset = FIRST + which * APART
        cond = settle("tune", {name: in_turn(value, n) for name, value in self.cond.items()}, n, self.start)
        with torch.no_grad():
            x = initial_state(self.start, n, self.seed, offset, None, cond).to(torch.float32)
        return Latents(x, offset, cond)

    def run(self, rows: Sequence[Row], ghost: float | None, latents: Latents, count: int | None = None) -> Tensor:
        """Where the rows take the first `count` states.

        Raises:
            OverBudget: the budget does not allow it; nothing was run.
        """
        n = len(latents.x) if count is None else count
        cost = n * evaluations(self.denoiser, rows)
        if self.spent + cost > self.budget:
            raise OverBudget
        parts = []
        with torch.no_grad():
            known = self.known(ghost, latents)
            descent = Descent(self.denoiser, list(rows), torch.float32, latents.x.device)
            for first in range(0, n, self.batch):
                some = slice(first, min(first + self.batch, n))
                cond = {k: part_of(v, len(latents.x), first, some.stop - first) for k, v in latents.cond.items()}
                origin = Origin(self.seed, latents.offset + first)
                parts.append(descent.run(latents.x[some], origin, cond, lambda: None, [h[some] for h in known])[0])
        self.spent += cost
        self.advance()
        return torch.cat(parts)

    def known(self, ghost: float | None, latents: Latents) -> list[Tensor]:
        """The start's own predictions of a set, made once."""
        if ghost is None:
            return []
        if ghost not in latents.history:
            assert isinstance(self.start, HistoryStart)
            labels = labels_of(self.start, latents.cond)
            latents.history[ghost] = self.start.history(latents.x, ghost, labels)
        return latents.history[ghost]


def in_turn(value: Any, n: int) -> Any:
    """Rows of a condition taken in turn over `n` samples; what has no rows as it is."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    return value[(torch.arange(n, dtype=torch.int64, device="cpu") % len(value)).to(value.device)]

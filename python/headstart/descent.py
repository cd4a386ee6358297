"""Running a table of rows: a network call, then one affine op, row after row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.buffer import BUFFERS
from headstart.denoiser import Preconditioned
from headstart.solver import Row


class Origin(NamedTuple):
    """Seed and sample index of a descent's noise; `place`: where both stand on the device instead, see `ops.Noise`."""

    seed: int
    offset: int
    place: Tensor | None = None


@dataclass
class Prediction:
    """A denoised prediction as `skip state + out raw`, not computed unless it must be."""

    skip: float
    state: Tensor
    out: float
    raw: Tensor


class Descent:
    """A denoiser and its rows, with the noise levels it is told on the device before the first call.

    Nothing in a run waits for the device or copies to it, so a run can be captured into a CUDA graph.
    """

    def __init__(self, denoiser: Any, rows: list[Row], dtype: torch.dtype, device: torch.device) -> None:
        self.denoiser, self.rows = denoiser, rows
        self.network = denoiser if isinstance(denoiser, Preconditioned) else None
        self.noisy = any(row.c for row in rows)
        self.depth = max(len(row.b) for row in rows)
        if self.network is None:
            levels = [row.sigma or 0.0 for row in rows]
        else:
            levels = [self.network.preconditioning(row.sigma).c_noise if row.sigma else 0.0 for row in rows]
        self.levels = torch.tensor(levels, dtype=torch.float64 if self.network is None else dtype, device=device)

    def run(
        self, x: Tensor, origin: Origin, cond: dict[str, Any], advance: Callable[[], object],
        known: Sequence[Tensor] = (),
    ) -> tuple[Tensor, int]:  # fmt: skip
        """The last state, contiguous, and the bytes the rows moved; `x` is left as it is.

        `known`: denoised predictions made before the first row, newest first.
        """
        history = [Prediction(0.0, x, 1.0, denoised) for denoised in known]
        x = x.contiguous()
        point, scaled, moved = x, None, 0  # where the next call is made, and the network's input there
        for i, row in enumerate(self.rows):
            if row.sigma is not None:
                raw = self.call(i, point, scaled, cond)
                if i == 0 and not self.noisy:  # noise is drawn in the contiguous order
                    x = point = follow(point, raw)
                history = [self.predict(row.sigma, point, raw), *history[: self.depth - 1]]
            a, terms = unfold(row, x, history)
            noise = ops.Noise(row.c, origin.seed, i, origin.offset, origin=origin.place) if row.c else None
            out, target, scaled = BUFFERS.take(x, x.dtype), self.target(i + 1, x.dtype), None
            if target is not None:
                scale, dtype = target
                point, scaled = ops.affine(x, a, terms, noise, out, out_scaled=(scale, BUFFERS.take(x, dtype)))
                moved += scaled.numel() * scaled.element_size()
            else:
                point = ops.affine(x, a, terms, noise, out)
            moved += 2 * x.numel() * x.element_size() + sum(y.numel() * y.element_size() for _, y in terms)
            x = point if row.commit else x
            advance()
        BUFFERS.trim()
        return x.contiguous(), moved

    def call(self, i: int, x: Tensor, scaled: Tensor | None, cond: dict[str, Any]) -> Tensor:
        """What the denoiser, or the raw network, makes of the state of row `i`."""
        if self.network is None:
            raw = self.denoiser(x, self.levels[i], **cond)
        else:
            if scaled is None:
                c_in, dtype = self.target(i, x.dtype) or (1.0, x.dtype)
                scaled = (c_in * x).to(dtype)
            raw = self.network.raw(scaled, self.levels[i], **cond)
        if not isinstance(raw, Tensor) or raw.shape != x.shape:
            got = list(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
            raise ValueError(f"sample: the denoiser must return a tensor {list(x.shape)}, got {got}")
        return raw

    def predict(self, sigma: float, x: Tensor, raw: Tensor) -> Prediction:
        """The prediction at `sigma`, of what the denoiser or network returned."""
        if self.network is None:
            return Prediction(0.0, x, 1.0, raw)
        at = self.network.preconditioning(sigma)
        return Prediction(at.c_skip, x, at.c_out, raw)

    def target(self, i: int, dtype: torch.dtype) -> tuple[float, torch.dtype] | None:
        """Scale and type of the network's input in row `i`; None: no network is called there."""
        sigma = self.rows[i].sigma if i < len(self.rows) else None
        if self.network is None or sigma is None:
            return None
        return self.network.preconditioning(sigma).c_in, self.network.dtype or dtype


def follow(x: Tensor, raw: Tensor) -> Tensor:
    """`x` in the memory order of `raw`, so that what the network returns is not rearranged at every row."""
    order = ops.check.layout(raw)
    return x if order is torch.contiguous_format else x.contiguous(memory_format=order)


def unfold(row: Row, x: Tensor, history: list[Prediction]) -> tuple[float, list[tuple[float, Tensor]]]:
    """The row as a coefficient of `x` and at most four other tensors; predictions are unfolded, or computed."""
    while True:
        a, terms = row.a, []
        for b, prediction in zip(row.b, history, strict=False):
            if prediction.skip and prediction.state is x:
                a += b * prediction.skip
            elif prediction.skip:
                terms.append((b * prediction.skip, prediction.state))
            terms.append((b * prediction.out, prediction.raw))
        if len(terms) <= 4:
            return a, terms
        oldest = next(p for p in reversed(history[: len(row.b)]) if p.skip)
        denoised = ops.affine(oldest.state, oldest.skip, [(oldest.out, oldest.raw)])
        oldest.skip, oldest.out, oldest.raw = 0.0, 1.0, denoised

"""Running a table of rows: a network call, then one affine op, row after row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.denoiser import Preconditioned
from headstart.solver import Row


@dataclass
class Prediction:
    """A denoised prediction as `skip state + out raw`, not computed unless it must be."""

    skip: float
    state: Tensor
    out: float
    raw: Tensor


def descend(
    denoiser: Any,
    x: Tensor,
    rows: list[Row],
    seed: int,
    offset: int,
    cond: dict[str, Any],
    advance: Callable[..., None],
) -> tuple[Tensor, int]:
    """Runs the rows; returns the last state and the bytes they moved."""
    network = denoiser if isinstance(denoiser, Preconditioned) else None
    sigmas = torch.tensor([row.sigma or 0.0 for row in rows], dtype=torch.float64, device=x.device)
    depth = max(len(row.b) for row in rows)
    history: list[Prediction] = []
    spare: list[Tensor] = []
    x = x.contiguous()
    point, scaled, moved = x, None, 0  # where the next call is made, and the network's input there
    for i, row in enumerate(rows):
        if row.sigma is not None:
            prediction = predict(denoiser, network, point, scaled, row.sigma, sigmas[i], cond)
            history = [prediction, *history[: depth - 1]]
        following = rows[i + 1].sigma if i + 1 < len(rows) else None
        a, terms = unfold(row, x, history)
        noise = ops.Noise(row.c, seed, i, offset) if row.c else None
        out = take_buffer(spare, x, history) if network is not None else None  # others may keep the states they saw
        if network is not None and following is not None:
            target = (network.preconditioning(following).c_in, network.dtype or x.dtype)
            point, scaled = ops.affine(x, a, terms, noise, out, out_scaled=target)
            moved += scaled.numel() * scaled.element_size()
        else:
            point, scaled = ops.affine(x, a, terms, noise, out), None
        moved += 2 * x.numel() * x.element_size() + sum(y.numel() * y.element_size() for _, y in terms)
        x = point if row.commit else x
        advance()
    return x, moved


def predict(
    denoiser: Any, network: Preconditioned | None, x: Tensor, scaled: Tensor | None, sigma: float, level: Tensor,
    cond: dict[str, Any],
) -> Prediction:  # fmt: skip
    if network is None:
        raw = denoiser(x, level, **cond)
        prediction = Prediction(0.0, x, 1.0, raw)
    else:
        at = network.preconditioning(sigma)
        if scaled is None:
            scaled = (at.c_in * x).to(network.dtype or x.dtype)
        raw = network.raw(scaled, torch.tensor(at.c_noise, dtype=x.dtype, device=x.device), **cond)
        prediction = Prediction(at.c_skip, x, at.c_out, raw)
    if not isinstance(raw, Tensor) or raw.shape != x.shape:
        got = list(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
        raise ValueError(f"sample: the denoiser must return a tensor {list(x.shape)}, got {got}")
    return prediction


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


def take_buffer(spare: list[Tensor], x: Tensor, history: list[Prediction]) -> Tensor:
    """A state-sized tensor that nothing alive refers to: fresh pages cost more than the arithmetic."""
    used = {x.untyped_storage().data_ptr()}
    for prediction in history:
        used.add(prediction.raw.untyped_storage().data_ptr())
        if prediction.skip:
            used.add(prediction.state.untyped_storage().data_ptr())
    for tensor in spare:
        if tensor.untyped_storage().data_ptr() not in used:
            return tensor
    spare.append(torch.empty_like(x, memory_format=torch.contiguous_format))
    return spare[-1]

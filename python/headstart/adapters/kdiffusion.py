"""k-diffusion: its denoisers `model(x, sigma, **extra_args)`, with `sigma` `[B]`, as ours, and ours as its own.

It shares our terms, a state `x0 + sigma n` and a prediction of `x0`, so only the form of `sigma` differs, and nothing
of the library is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from headstart.denoiser import Denoiser, Preconditioned, denoise
from headstart.ops.check import describe
from headstart.sampling.edge import check_denoiser


class Model:
    """A denoiser of k-diffusion as ours, which `denoiser` makes."""

    def __init__(self, model: Callable[..., Tensor]) -> None:
        self.model = model

    def __call__(self, x: Tensor, sigma: Tensor | float, **cond: Any) -> Tensor:
        """`D(x, sigma)` for levels `sigma` that are scalar or `[B]`, one a sample."""
        return self.model(x, torch.as_tensor(sigma, device=x.device).to(x.dtype).expand(x.shape[0]), **cond)


def denoiser(model: Callable[..., Tensor]) -> Model:
    """The denoiser of a k-diffusion model; `cond` goes to it as its `extra_args`.

    Args:
        model: `model(x, sigma, **extra_args)` with `x` `[B, *shape]` and `sigma` `[B]`, which returns the denoised
            `[B, *shape]`: one of `k_diffusion.external` or `k_diffusion.layers`, or a guided one around it.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(model):
        raise TypeError(f"denoiser: model must be a callable model(x, sigma, **extra_args), got {type(model).__name__}")
    return Model(model)


def model(denoiser: Denoiser | Preconditioned) -> Callable[..., Tensor]:
    """A denoiser of ours as a k-diffusion model, for `k_diffusion.sampling.sample_...(model, x, sigmas, extra_args)`.

    Args:
        denoiser: `D(x, sigma, **cond)`. Where the levels `[B]` that k-diffusion gives differ (its samplers give equal
            ones), it is called once for each.

    Raises:
        TypeError: it is no denoiser.
    """
    check_denoiser("model", denoiser)

    def predict(x: Tensor, sigma: Tensor, cond: dict[str, Any]) -> Tensor:
        if callable(denoiser):
            return denoiser(x, sigma, **cond)
        return denoise(denoiser, x, sigma, **cond)

    def run(x: Tensor, sigma: Tensor, **extra_args: Any) -> Tensor:
        if not isinstance(x, Tensor) or x.dim() == 0 or not x.is_floating_point():
            raise TypeError(f"model: x must be floating [B, *shape], got {describe(x)}")
        if not isinstance(sigma, Tensor) or tuple(sigma.shape) not in ((), (1,), (len(x),)):
            raise TypeError(f"model: sigma must be [{len(x)}], a level a sample, or one for all, got {describe(sigma)}")
        levels = sigma.expand(x.shape[0]).unique()
        if len(levels) == 1:
            return predict(x, sigma.reshape(-1)[0], extra_args)
        out = torch.empty_like(x)
        for level in levels:
            rows = sigma == level
            own = {name: rows_of(value, rows) for name, value in extra_args.items()}
            out[rows] = predict(x[rows], level, own)
        return out

    return run


def rows_of(value: Any, rows: Tensor) -> Any:
    """The chosen rows of a condition with a row for each sample; any other whole."""
    split = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == rows.shape[0]
    return value[rows] if split else value

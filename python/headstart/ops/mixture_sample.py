"""Samples of given Gaussian components at one noise level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headstart import _core
from headstart.ops import check, library
from headstart.ops.address import Stream
from headstart.ops.component import Components, require_components


def mixture_sample(
    component: Tensor, components: Components, sigma: float, seed: int, step: int = 0, offset: int = 0
) -> Tensor:
    """Samples `[n, D]` of given components at noise level `sigma`.

    `x = mean_k + sqrt(variance_k + sigma^2) n + sum_r sqrt(spread_kr) z_r axes_kr`; sample i is a function of
    (seed, offset + i, step) and its component alone.

    Args:
        component: index k of each sample, int64 `[n]`.
        components: float32 or float64.
        sigma: noise level, at least 0.
        seed, step, offset: address of the noise, see `headstart.ops.Noise`.

    Raises:
        TypeError, ValueError: a dtype, shape, device, sigma, component index or address out of range.
    """
    mean = components.mean
    require_components("mixture_sample", components, mean)
    check.require("mixture_sample", "component", component, (torch.int64,))
    if component.dim() != 1 or component.device != mean.device:
        raise ValueError(f"mixture_sample: component must be [n] on {mean.device}, got {check.describe(component)}")
    n = component.shape[0]
    if not 0 <= sigma < math.inf:
        raise ValueError(f"mixture_sample: sigma must be finite and at least 0, got {sigma}")
    check.require_address("mixture_sample", seed, step, offset, int(Stream.FLOOR), n, mean.shape[1])
    run = torch.ops.headstart.mixture_sample if check.dispatched(mean) else _run_sample
    return run(component, *components, float(sigma), library.signed(int(seed)), int(step), int(offset))


def _run_sample(
    component: Tensor, mean: Tensor, variance: Tensor, axes: Tensor | None, spread: Tensor | None, sigma: float,
    seed: int, step: int, offset: int,
) -> Tensor:  # fmt: skip
    n, (k, d) = component.shape[0], mean.shape
    component = component.contiguous()
    out = mean.new_empty(n, d)
    if n == 0:
        return out
    least, most = int(component.min()), int(component.max())
    if least < 0 or most >= k:
        raise ValueError(f"mixture_sample: component must be in [0, {k}), got {least} to {most}")
    deviation = (variance.double() + sigma**2).sqrt().to(mean.dtype).contiguous()
    factor = None if spread is None else spread.sqrt().contiguous()
    rank = 0 if axes is None else axes.shape[1]
    floor, along = (
        _core.Address(seed=seed % 2**64, offset=offset, step=step, stream=int(stream))
        for stream in (Stream.FLOOR, Stream.FACTOR)
    )
    params = _core.MixtureSampleParams(
        rows=n, columns=d, rank=rank, type=check.TYPES[mean.dtype], component=component.data_ptr(),
        mean=mean.data_ptr(), deviation=deviation.data_ptr(), variance_columns=variance.shape[1],
        axes=0 if axes is None else axes.data_ptr(), factor=0 if factor is None else factor.data_ptr(),
        floor=floor, along=along, out=out.data_ptr(),
    )  # fmt: skip
    _core.mixture_sample(check.place(mean), params)
    return out


library.define(
    "mixture_sample(Tensor component, Tensor mean, Tensor variance, Tensor? axes, Tensor? spread, float sigma, "
    "int seed, int step, int offset) -> Tensor",
    _run_sample,
    lambda component, mean, variance, axes, spread, sigma, seed, step, offset: mean.new_empty(
        component.shape[0], mean.shape[1]
    ),
)

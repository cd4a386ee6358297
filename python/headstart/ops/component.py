"""Gaussian components, and their coefficients at one noise level.

Components keep eigenvalues, so noising is an addition, and everything made of them is exact at every sigma.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from headstart.ops import check


class Components(NamedTuple):
    """Gaussian components with covariance `C_k = diag(variance_k) + axes_k^T diag(spread_k) axes_k`.

    Fields:
        mean: `[K, D]`.
        variance: `[K, D]` (then `axes` is None), or `[K, 1]`: the same in every direction.
        axes: `[K, R, D]` with orthonormal rows, or None.
        spread: `[K, R]`, variance along each axis beyond `variance`, at least 0, or None.
    """

    mean: Tensor
    variance: Tensor
    axes: Tensor | None = None
    spread: Tensor | None = None


class Tables(NamedTuple):
    """Coefficients of csrc/math/component.h at one noise level."""

    precision: Tensor  # [K, V]
    keep: Tensor  # [K, V]
    drop: Tensor | None  # [K, R]
    gain: Tensor | None  # [K, R]
    constant: Tensor  # [K]


def tables(components: Components, sigma: float) -> Tables:
    """Coefficients in float64, then in the components' dtype.

    With total variances `t = variance + sigma^2` off the axes and `t + spread` on them: `precision = 1 / t`,
    `keep = variance / t`, `drop = 1 / t - 1 / (t + spread)`, `gain = (variance + spread) / (t + spread) - keep`. A full
    set of axes leaves no direction off them, and then `precision = keep = 0`: nothing is subtracted from anything.
    """
    dtype, d = components.mean.dtype, components.mean.shape[1]
    variance = components.variance.double()
    total = variance + sigma**2
    if components.axes is None or components.spread is None:
        log_det = total.log().expand(-1, d).sum(dim=1)
        constant = -0.5 * (log_det + d * math.log(2 * math.pi))
        return Tables((1 / total).to(dtype), (variance / total).to(dtype), None, None, constant.to(dtype))
    spread = components.spread.double()
    rank = spread.shape[1]
    along = total + spread
    log_det = along.log().sum(dim=1)
    precision, keep = 1 / total, variance / total
    if rank == d:
        precision, keep = torch.zeros_like(precision), torch.zeros_like(keep)
    else:
        log_det = log_det + (d - rank) * total.log().squeeze(1)
    drop = precision - 1 / along
    gain = (variance + spread) / along - keep
    constant = -0.5 * (log_det + d * math.log(2 * math.pi))
    return Tables(*(t.to(dtype).contiguous() for t in (precision, keep, drop, gain, constant)))


def require_components(op: str, components: Components, like: Tensor) -> None:
    mean, variance, axes, spread = components
    check.require(op, "x" if like is not mean else "mean", like, check.STATE)
    fields = [("mean", mean, 2), ("variance", variance, 2)]
    if axes is not None and spread is not None:
        fields += [("axes", axes, 3), ("spread", spread, 2)]
    elif axes is not None or spread is not None:
        raise ValueError(f"{op}: axes and spread must be given together")
    for name, tensor, dim in fields:
        check.require(op, name, tensor, (like.dtype,))
        if tensor.dim() != dim or tensor.device != like.device or not tensor.is_contiguous():
            wanted = f"contiguous, {dim}-d, on {like.device}"
            raise ValueError(f"{op}: {name} must be {wanted}, got {check.describe(tensor)}")
    k, d = mean.shape
    if k < 1 or d < 1 or variance.shape not in ((k, 1), (k, d) if axes is None else (k, 1)):
        raise ValueError(f"{op}: variance must be [{k}, {d}] or [{k}, 1], got {list(variance.shape)}")
    if axes is not None and spread is not None:
        r = spread.shape[1]
        if axes.shape != (k, r, d) or spread.shape != (k, r) or r > d:
            got = f"{list(axes.shape)} and {list(spread.shape)}"
            raise ValueError(f"{op}: axes and spread must be [{k}, R, {d}] and [{k}, R], R <= {d}, got {got}")

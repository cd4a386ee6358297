"""Gaussian components, and their coefficients at one noise level.

Components keep eigenvalues, so noising is an addition, and everything made of them is exact at every sigma.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from headstart.ops import check

WIDE = 1e4  # spread over total variance from which densities are computed in float64


class Components(NamedTuple):
    """Gaussian components with covariance `C_k = diag(variance_k) + axes_k^T diag(spread_k) axes_k`.

    Attributes:
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


def require_components(op: str, components: Components, like: Tensor | None) -> None:
    if not isinstance(components, tuple) or len(components) != 4:
        raise TypeError(f"{op}: components must be Components(mean, variance, ...), got {check.describe(components)}")
    if not isinstance(like, Tensor):
        raise TypeError(f"{op}: x must be a tensor, got {check.describe(like)}")
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


class Extremes(NamedTuple):
    """The largest spread of a mixture's axes, and the least variance off them."""

    spread: float
    variance: float


def extremes(components: Components) -> Extremes:
    """Extremes of low-rank components; a spread of 0 where no directions are left off the axes, or none are on them."""
    axes, spread = components.axes, components.spread
    if axes is None or spread is None or not 0 < axes.shape[1] < axes.shape[2]:
        return Extremes(0.0, 0.0)
    return Extremes(float(spread.max()), float(components.variance.min()))


def wide(extremes: Extremes, sigma: float) -> bool:
    """Whether float32 would not do: `|x - mean|^2 / t - (axis . (x - mean))^2 drop` cancels where spread >> t."""
    return extremes.spread > WIDE * (extremes.variance + sigma**2)


def widen(components: Components) -> Components:
    """Low-rank components in float64, their axes orthonormal again.

    Rounded to float32, axes have lengths off by 1e-8 or so, which counts as often as the spread exceeds the variance;
    one step of the Newton-Schulz iteration, `1.5 U - 0.5 U U^T U`, squares that error.
    """
    mean, variance, axes, spread = change(components, Tensor.double)
    assert axes is not None
    return Components(mean, variance, 1.5 * axes - 0.5 * (axes @ axes.mT) @ axes, spread)


def change(components: Components, function: Callable[[Tensor], Tensor]) -> Components:
    """Components with a function applied to each of their tensors."""
    mean, variance, axes, spread = components
    along = (None if axes is None else function(axes), None if spread is None else function(spread))
    return Components(function(mean), function(variance), *along)


BATCH_NUMBERS = 2**23  # numbers in the largest temporary
CANDIDATE, SHORT = 1e-30, 0.25  # see shortlist

"""Gaussian mixtures at one noise level: density, responsibilities, posterior mean, samples.

For `x = x0 + sigma n` and `x0 ~ sum_k w_k N(mean_k, C_k)` the law of `x` is `sum_k w_k N(mean_k, C_k + sigma^2 I)`.
Components keep eigenvalues, so noising is an addition, and everything below is exact at every sigma.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from headstart import _core
from headstart.ops import check, library
from headstart.ops.affine import Stream

FUSED_COLUMNS = 128  # up to here projections are made inside the kernel, above by a matrix product
PROJECTION_BYTES = 64 * 2**20  # what one batch of projections may take


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


class Posterior(NamedTuple):
    """`log_prob` `[B]`, `responsibility` `[B, K]` and the posterior mean `denoised` `[B, D]` (None: not asked for)."""

    log_prob: Tensor
    responsibility: Tensor
    denoised: Tensor | None


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


def mixture_posterior(
    x: Tensor, components: Components, log_weight: Tensor, sigma: float, denoise: bool = True
) -> Posterior:
    """Density, responsibilities and posterior mean of a Gaussian mixture noised by `sigma`.

    `log p(x) = logsumexp_k [log w_k + log N(x; mean_k, C_k + sigma^2 I)]`, `g_k` its softmax, and
    `E[x0 | x] = sum_k g_k [mean_k + C_k (C_k + sigma^2 I)^-1 (x - mean_k)]`.

    Args:
        x: `[B, D]`, float32 or float64.
        components: of the same dtype and device.
        log_weight: `[K]`, or `[B, K]` for weights of each sample's own (-inf: never).
        sigma: noise level, at least 0; at 0 every covariance must have full rank.
        denoise: also compute the posterior mean.

    Raises:
        TypeError, ValueError: a dtype, shape, device or sigma unlike the above.
    """
    _require_components("mixture_posterior", components, x)
    if x.dim() != 2 or x.shape[1] != components.mean.shape[1]:
        wanted = f"[B, {components.mean.shape[1]}]"
        raise ValueError(f"mixture_posterior: x must be {wanted}, got {check.describe(x)}")
    k = components.mean.shape[0]
    check.require("mixture_posterior", "log_weight", log_weight, (x.dtype,))
    if tuple(log_weight.shape) not in ((k,), (x.shape[0], k)) or log_weight.device != x.device:
        wanted = f"[{k}] or [{x.shape[0]}, {k}] on {x.device}"
        raise ValueError(f"mixture_posterior: log_weight must be {wanted}, got {check.describe(log_weight)}")
    if not 0 <= sigma < math.inf:
        raise ValueError(f"mixture_posterior: sigma must be finite and at least 0, got {sigma}")
    run = torch.ops.headstart.mixture_posterior if check.dispatched(x) else _run_posterior
    log_prob, responsibility, denoised = run(x, *components, log_weight, float(sigma), denoise)
    return Posterior(log_prob, responsibility, denoised if denoise else None)


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
    _require_components("mixture_sample", components, mean)
    check.require("mixture_sample", "component", component, (torch.int64,))
    if component.dim() != 1 or component.device != mean.device:
        raise ValueError(f"mixture_sample: component must be [n] on {mean.device}, got {check.describe(component)}")
    n = component.shape[0]
    if not 0 <= sigma < math.inf:
        raise ValueError(f"mixture_sample: sigma must be finite and at least 0, got {sigma}")
    check.require_address("mixture_sample", seed, step, offset, int(Stream.FLOOR), n, mean.shape[1])
    run = torch.ops.headstart.mixture_sample if check.dispatched(mean) else _run_sample
    return run(component, *components, float(sigma), library.signed(int(seed)), int(step), int(offset))


def _require_components(op: str, components: Components, like: Tensor) -> None:
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


def _require_regular(components: Components) -> None:
    """Refuses covariances without a density, at sigma = 0."""
    least, spread = components.variance, components.spread
    if spread is not None and spread.shape[1] == components.mean.shape[1]:
        least = least + spread
    if bool((least <= 0).any()):
        raise ValueError("mixture_posterior: sigma must be positive where a covariance is singular, got 0")


def _run_posterior(
    x: Tensor, mean: Tensor, variance: Tensor, axes: Tensor | None, spread: Tensor | None, log_weight: Tensor,
    sigma: float, denoise: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if axes is not None and axes.shape[1] == 0:
        axes = spread = None
    components = Components(mean, variance, axes, spread)
    if sigma == 0:
        _require_regular(components)
    at = tables(components, sigma)
    x = x.contiguous()
    constant = (log_weight + at.constant).contiguous()
    rows, k = x.shape[0], mean.shape[0]
    log_prob, responsibility = x.new_empty(rows), x.new_empty(rows, k)
    denoised = torch.empty_like(x) if denoise else x.new_empty(0)
    if rows == 0:
        return log_prob, responsibility, denoised
    if axes is None or axes.shape[2] <= FUSED_COLUMNS:
        _launch(x, components, at, constant, None, log_prob, responsibility, denoised, None)
        return log_prob, responsibility, denoised
    rank, d = axes.shape[1:]
    flat = axes.view(k * rank, d)
    center = mean.mean(dim=0)
    shift = (axes @ (mean - center)[..., None]).reshape(1, k * rank)
    batch = max(1, PROJECTION_BYTES // (k * rank * x.element_size()))
    for first in range(0, rows, batch):
        part = slice(first, min(first + batch, rows))
        projection = torch.addmm(shift, x[part] - center, flat.mT, beta=-1)
        coefficient = torch.empty_like(projection) if denoise else None
        of_batch = constant if constant.dim() == 1 else constant[part]
        result = denoised[part] if denoise else denoised
        _launch(
            x[part], components, at, of_batch, projection, log_prob[part], responsibility[part], result, coefficient
        )
        if coefficient is not None:
            result.addmm_(coefficient, flat)
    return log_prob, responsibility, denoised


def _launch(
    x: Tensor, components: Components, at: Tables, constant: Tensor, projection: Tensor | None, log_prob: Tensor,
    responsibility: Tensor, denoised: Tensor, coefficient: Tensor | None,
) -> None:  # fmt: skip
    def pointer(tensor: Tensor | None) -> int:
        return 0 if tensor is None else tensor.data_ptr()

    mean, variance, axes, _ = components
    k, d = mean.shape
    rank = 0 if axes is None else axes.shape[1]
    stride = 0 if constant.dim() == 1 else k
    sizes = _core.Sizes(x.shape[0], k, d, rank, variance.shape[1])
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        _core.mixture(
            check.place(x), sizes, check.TYPES[x.dtype], x.data_ptr(), mean.data_ptr(), at.precision.data_ptr(),
            at.keep.data_ptr(), 0 if projection is not None else pointer(axes), pointer(at.drop), pointer(at.gain),
            constant.data_ptr(), stride, pointer(projection), log_prob.data_ptr(), responsibility.data_ptr(),
            denoised.data_ptr() if denoised.numel() else 0, pointer(coefficient),
        )  # fmt: skip


def _run_sample(
    component: Tensor, mean: Tensor, variance: Tensor, axes: Tensor | None, spread: Tensor | None, sigma: float,
    seed: int, step: int, offset: int,
) -> Tensor:  # fmt: skip
    n, (k, d) = component.shape[0], mean.shape
    out = mean.new_empty(n, d)
    if n == 0:
        return out
    least, most = int(component.min()), int(component.max())
    if least < 0 or most >= k:
        raise ValueError(f"mixture_sample: component must be in [0, {k}), got {least} to {most}")
    deviation = (variance.double() + sigma**2).sqrt().to(mean.dtype).contiguous()
    factor = None if spread is None else spread.sqrt().contiguous()
    rank = 0 if axes is None else axes.shape[1]
    sizes = _core.Sizes(n, k, d, rank, variance.shape[1])
    address = (seed % 2**64, offset, step)
    with torch.cuda.device(mean.device) if mean.is_cuda else nullcontext():
        _core.mixture_sample(
            check.place(mean), sizes, check.TYPES[mean.dtype], component.contiguous().data_ptr(), mean.data_ptr(),
            deviation.data_ptr(), 0 if axes is None else axes.data_ptr(), 0 if factor is None else factor.data_ptr(),
            (*address, int(Stream.FLOOR)), (*address, int(Stream.FACTOR)), out.data_ptr(),
        )  # fmt: skip
    return out


library.define(
    "mixture_posterior(Tensor x, Tensor mean, Tensor variance, Tensor? axes, Tensor? spread, Tensor log_weight, "
    "float sigma, bool denoise) -> (Tensor, Tensor, Tensor)",
    _run_posterior,
    lambda x, mean, variance, axes, spread, log_weight, sigma, denoise: (
        x.new_empty(x.shape[0]),
        x.new_empty(x.shape[0], mean.shape[0]),
        torch.empty_like(x, memory_format=torch.contiguous_format) if denoise else x.new_empty(0),
    ),
)
library.define(
    "mixture_sample(Tensor component, Tensor mean, Tensor variance, Tensor? axes, Tensor? spread, float sigma, "
    "int seed, int step, int offset) -> Tensor",
    _run_sample,
    lambda component, mean, variance, axes, spread, sigma, seed, step, offset: mean.new_empty(
        component.shape[0], mean.shape[1]
    ),
)

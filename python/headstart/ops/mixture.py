"""Gaussian mixtures at one noise level: density, responsibilities, posterior mean.

For `x = x0 + sigma n` and `x0 ~ sum_k w_k N(mean_k, C_k)` the law of `x` is `sum_k w_k N(mean_k, C_k + sigma^2 I)`.
Components keep eigenvalues, so noising is an addition, and everything below is exact at every sigma.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from headstart import _core
from headstart.ops import check, library
from headstart.ops.component import Components, Tables, require_components, tables

PROJECTION_BYTES = 64 * 2**20  # what one batch of projections may take


class Posterior(NamedTuple):
    """`log_prob` `[B]`, `responsibility` `[B, K]`, the posterior mean `denoised` `[B, D]`; None: not asked for."""

    log_prob: Tensor
    responsibility: Tensor | None
    denoised: Tensor | None


def mixture_posterior(
    x: Tensor, components: Components, log_weight: Tensor, sigma: float, denoise: bool = True, respond: bool = True
) -> Posterior:
    """Density, responsibilities and posterior mean of a Gaussian mixture noised by `sigma`.

    `log p(x) = logsumexp_k [log w_k + log N(x; mean_k, C_k + sigma^2 I)]`, `g_k` its softmax, and
    `E[x0 | x] = sum_k g_k [mean_k + C_k (C_k + sigma^2 I)^-1 (x - mean_k)]`.

    Args:
        x: `[B, D]`, float32 or float64.
        components: of the same dtype and device.
        log_weight: `[K]`, or `[B, K]` for weights of each sample's own (-inf: never).
        sigma: noise level, at least 0; at 0 every covariance must have full rank.
        denoise: also give the posterior mean.
        respond: also give the responsibilities.

    Raises:
        TypeError, ValueError: a dtype, shape, device or sigma unlike the above.
    """
    require_components("mixture_posterior", components, x)
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
    log_prob, responsibility, denoised = run(x, *components, log_weight, float(sigma), denoise, respond)
    return Posterior(log_prob, responsibility if respond else None, denoised if denoise else None)


def _require_regular(components: Components) -> None:
    """Refuses covariances without a density, at sigma = 0."""
    least, spread = components.variance, components.spread
    if spread is not None and spread.shape[1] == components.mean.shape[1]:
        least = least + spread
    if bool((least <= 0).any()):
        raise ValueError("mixture_posterior: sigma must be positive where a covariance is singular, got 0")


def _run_posterior(
    x: Tensor, mean: Tensor, variance: Tensor, axes: Tensor | None, spread: Tensor | None, log_weight: Tensor,
    sigma: float, denoise: bool, respond: bool,
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
    log_prob = x.new_empty(rows)
    responsibility = x.new_empty(rows, k) if respond or x.is_cuda else x.new_empty(0)
    denoised = torch.empty_like(x) if denoise else x.new_empty(0)
    if rows == 0:
        return log_prob, responsibility, denoised
    if axes is None or axes.shape[2] <= _core.FUSED_COLUMNS:  # above, a matrix product projects
        whitening = whiten(components, sigma) if pays_to_whiten(x, axes) else None
        _launch(x, components, at, constant, None, whitening, log_prob, responsibility, denoised, None)
        return log_prob, responsibility, denoised
    rank, d = axes.shape[1:]
    flat = axes.view(k * rank, d)
    center = mean.mean(dim=0)
    shift = torch.cat([torch.mv(*pair) for pair in zip(axes, mean - center, strict=True)])  # faster than one batched
    batch = max(1, PROJECTION_BYTES // (k * rank * x.element_size()))
    for first in range(0, rows, batch):
        part = slice(first, min(first + batch, rows))
        projection = torch.addmm(shift, x[part] - center, flat.mT, beta=-1)
        coefficient = torch.empty_like(projection) if denoise else None
        of_batch = constant if constant.dim() == 1 else constant[part]
        result = denoised[part] if denoise else denoised
        shares = responsibility[part] if responsibility.numel() else responsibility
        _launch(x[part], components, at, of_batch, projection, None, log_prob[part], shares, result, coefficient)
        if coefficient is not None:
            result.addmm_(coefficient, flat)
    return log_prob, responsibility, denoised


def pays_to_whiten(x: Tensor, axes: Tensor | None) -> bool:
    """Whether triangular factors save more than they cost: full covariances, many rows for each, on the CPU."""
    return axes is not None and axes.shape[1] == axes.shape[2] > 4 and x.is_cpu and x.shape[0] >= 16 * axes.shape[2]


def whiten(components: Components, sigma: float) -> Tensor:
    """Inverse Cholesky factors `L_k^-1` `[K, D, D]`, `L_k L_k^T = C_k + sigma^2 I`: half the products of full axes.

    `(x - mean_k)^T (C_k + sigma^2 I)^-1 (x - mean_k) = |L_k^-1 (x - mean_k)|^2`.
    """
    mean, variance, axes, spread = components
    assert axes is not None
    assert spread is not None
    wide = axes.double()
    noised = wide.mT @ ((variance.double() + sigma**2 + spread.double())[..., None] * wide)
    eye = torch.eye(mean.shape[1], dtype=torch.float64)
    inverse = torch.linalg.solve_triangular(torch.linalg.cholesky(noised), eye, upper=False)
    return inverse.to(mean.dtype).contiguous()


def _launch(
    x: Tensor, components: Components, at: Tables, constant: Tensor, projection: Tensor | None,
    whitening: Tensor | None, log_prob: Tensor, responsibility: Tensor, denoised: Tensor, coefficient: Tensor | None,
) -> None:  # fmt: skip
    def pointer(tensor: Tensor | None) -> int:
        return 0 if tensor is None or not tensor.numel() else tensor.data_ptr()

    mean, variance, axes, _ = components
    k, d = mean.shape
    params = _core.MixtureParams(
        rows=x.shape[0], components=k, columns=d, rank=0 if axes is None else axes.shape[1],
        type=check.TYPES[x.dtype], x=x.data_ptr(), mean=mean.data_ptr(), precision=at.precision.data_ptr(),
        keep=at.keep.data_ptr(), variance_columns=variance.shape[1],
        axes=0 if projection is not None else pointer(axes), drop=pointer(at.drop), gain=pointer(at.gain),
        log_constant=constant.data_ptr(), log_constant_stride=0 if constant.dim() == 1 else k,
        projection=pointer(projection), whitening=pointer(whitening), log_prob=log_prob.data_ptr(),
        responsibility=pointer(responsibility), denoised=pointer(denoised), coefficient=pointer(coefficient),
    )  # fmt: skip
    _core.mixture(check.place(x), params)


library.define(
    "mixture_posterior(Tensor x, Tensor mean, Tensor variance, Tensor? axes, Tensor? spread, Tensor log_weight, "
    "float sigma, bool denoise, bool respond) -> (Tensor, Tensor, Tensor)",
    _run_posterior,
    lambda x, mean, variance, axes, spread, log_weight, sigma, denoise, respond: (
        x.new_empty(x.shape[0]),
        x.new_empty(x.shape[0], mean.shape[0]) if respond or x.is_cuda else x.new_empty(0),
        torch.empty_like(x, memory_format=torch.contiguous_format) if denoise else x.new_empty(0),
    ),
)

"""Gaussian mixtures at one noise level: density, responsibilities, posterior mean, samples of given components.

For `x = x0 + sigma n` and `x0 ~ sum_k w_k N(mean_k, C_k)` the law of `x` is `sum_k w_k N(mean_k, C_k + sigma^2 I)`.
Components keep eigenvalues, so noising is an addition, and everything below is exact at every sigma.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart import _core
from headstart.argument import require_flag, require_number
from headstart.ops import check, library
from headstart.ops.check import Stream
from headstart.ops.component import Components, Tables, require_components, tables

MAX_SIGMA = 1e150  # its square is finite
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
        TypeError, ValueError: a dtype, shape, device or sigma unlike the above; on the CPU also a variance below 0.
    """
    require_components("mixture_posterior", components, x)
    sigma = require_number("mixture_posterior", "sigma", sigma)
    denoise = require_flag("mixture_posterior", "denoise", denoise)
    respond = require_flag("mixture_posterior", "respond", respond)
    if x.dim() != 2 or x.shape[1] != components.mean.shape[1]:
        wanted = f"[B, {components.mean.shape[1]}]"
        raise ValueError(f"mixture_posterior: x must be {wanted}, got {check.describe(x)}")
    k = components.mean.shape[0]
    check.require("mixture_posterior", "log_weight", log_weight, (x.dtype,))
    if tuple(log_weight.shape) not in ((k,), (x.shape[0], k)) or log_weight.device != x.device:
        wanted = f"[{k}] or [{x.shape[0]}, {k}] on {x.device}"
        raise ValueError(f"mixture_posterior: log_weight must be {wanted}, got {check.describe(log_weight)}")
    if not 0 <= sigma <= MAX_SIGMA:
        raise ValueError(f"mixture_posterior: sigma must be finite and at least 0, got {sigma}; its square too")
    dispatched = library.dispatched("mixture_posterior", x, *components, log_weight)
    run = torch.ops.headstart.mixture_posterior if dispatched else _run_posterior
    log_prob, responsibility, denoised = run(x, *components, log_weight, sigma, denoise, respond)
    return Posterior(log_prob, responsibility if respond else None, denoised if denoise else None)


def _require_variances(op: str, components: Components) -> None:
    """Refuses variances that are none, where looking does not wait for a device.

    Raises:
        ValueError: negative variance or spread, or NaN.
    """
    for name, values in (("variance", components.variance), ("spread", components.spread)):
        if values is not None and values.is_cpu and not bool((values >= 0).all()):
            raise ValueError(f"{op}: {name} must be at least 0, got {float(values.min()):g}")


def _require_regular(components: Components) -> None:
    """Refuses covariances without a density, at sigma = 0."""
    least, spread = components.variance, components.spread
    if spread is not None and spread.shape[1] == components.mean.shape[1]:
        least = least + spread
    if bool((least <= 0).any()):
        raise ValueError("mixture_posterior: sigma must be positive where a covariance is singular, got 0")


class Want(NamedTuple):
    """What to compute, and where it goes: `[B]`, `[B, K]` and `[B, D]`; no elements: not asked for."""

    log_prob: Tensor
    responsibility: Tensor
    denoised: Tensor

    def part(self, rows: slice) -> Want:
        """Some of the rows."""
        return Want(*(result[rows] if result.numel() else result for result in self))


@library.exact
def _run_posterior(*arguments: Any) -> Want:
    """The registered op; arguments as in its schema."""
    x, mean, variance, axes, spread, log_weight, sigma, denoise, respond = arguments
    if axes is not None and axes.shape[1] == 0:
        axes = spread = None
    components = Components(mean, variance, axes, spread)
    _require_variances("mixture_posterior", components)
    if sigma == 0:
        _require_regular(components)
    at = tables(components, sigma)
    x = x.contiguous()
    constant = (log_weight + at.constant).contiguous()
    rows, k = x.shape[0], mean.shape[0]
    want = Want(
        x.new_empty(rows),
        x.new_empty(rows, k) if respond or x.is_cuda else x.new_empty(0),
        torch.empty_like(x) if denoise else x.new_empty(0),
    )
    if rows == 0:
        return want
    if axes is None or axes.shape[2] <= _core.FUSED_COLUMNS:  # above, a matrix product projects
        whitening = whiten(components, sigma) if pays_to_whiten(x, axes) else None
        _launch(x, components, at, constant, want, whitening=whitening)
        return want
    _run_projected(x, components, at, constant, want)
    return want


def _run_projected(x: Tensor, components: Components, at: Tables, constant: Tensor, want: Want) -> None:
    """Batches of rows whose projections on all axes are matrix products."""
    mean, axes = components.mean, components.axes
    assert axes is not None
    k, rank, d = axes.shape
    flat = axes.view(k * rank, d)
    center = mean.mean(dim=0)
    rounded = library.rounds_products(x.device)
    if rounded:
        shift = (axes.double() @ (mean - center).double()[..., None]).to(x.dtype).view(-1)
    else:
        shift = torch.cat([torch.mv(*pair) for pair in zip(axes, mean - center, strict=True)])  # faster than batched
    batch = max(1, PROJECTION_BYTES // (k * rank * x.element_size()))
    for first in range(0, x.shape[0], batch):
        part = slice(first, min(first + batch, x.shape[0]))
        if rounded:
            projection = library.multiplied(x[part] - center, flat.mT) - shift
        else:
            projection = torch.addmm(shift, x[part] - center, flat.mT, beta=-1)
        coefficient = torch.empty_like(projection) if want.denoised.numel() else None
        of_batch = constant if constant.dim() == 1 else constant[part]
        result = want.part(part)
        _launch(x[part], components, at, of_batch, result, projection=projection, coefficient=coefficient)
        if coefficient is not None and rounded:
            result.denoised.add_(library.multiplied(coefficient, flat))
        elif coefficient is not None:
            result.denoised.addmm_(coefficient, flat)


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
    eye = torch.eye(mean.shape[1], dtype=torch.float64, device=mean.device)
    inverse = torch.linalg.solve_triangular(torch.linalg.cholesky(noised), eye, upper=False)
    return inverse.to(mean.dtype).contiguous()


def _launch(
    x: Tensor, components: Components, at: Tables, constant: Tensor, want: Want, *, projection: Tensor | None = None,
    whitening: Tensor | None = None, coefficient: Tensor | None = None,
) -> None:  # fmt: skip
    def pointer(name: str, tensor: Tensor | None, *shape: int) -> int:
        if tensor is not None and tensor.numel() and tuple(tensor.shape) != shape:
            raise ValueError(f"mixture_posterior: {name} must be {list(shape)}, got {check.describe(tensor)}")
        return check.address("mixture_posterior", name, tensor, x.dtype, x)

    mean, variance, axes, _ = components
    k, d = mean.shape
    n, v = x.shape[0], variance.shape[1]
    rank = 0 if axes is None else axes.shape[1]
    stride = 0 if constant.dim() == 1 else k
    log_prob, responsibility, denoised = want
    params = _core.MixtureParams(
        rows=n, components=k, columns=d, rank=rank, type=check.TYPES[x.dtype], x=pointer("x", x, n, d),
        mean=pointer("mean", mean, k, d), precision=pointer("precision", at.precision, k, v),
        keep=pointer("keep", at.keep, k, v), variance_columns=v,
        axes=0 if projection is not None else pointer("axes", axes, k, rank, d),
        drop=pointer("drop", at.drop, k, rank), gain=pointer("gain", at.gain, k, rank),
        log_constant=pointer("constant", constant, *([n] if stride else []), k), log_constant_stride=stride,
        projection=pointer("projection", projection, n, k * rank), whitening=pointer("whitening", whitening, k, d, d),
        log_prob=pointer("log_prob", log_prob, n), responsibility=pointer("responsibility", responsibility, n, k),
        denoised=pointer("denoised", denoised, n, d), coefficient=pointer("coefficient", coefficient, n, k * rank),
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
    require_components("mixture_sample", components)
    mean, sigma = components.mean, require_number("mixture_sample", "sigma", sigma)
    check.require("mixture_sample", "component", component, (torch.int64,))
    if component.dim() != 1 or component.device != mean.device:
        raise ValueError(f"mixture_sample: component must be [n] on {mean.device}, got {check.describe(component)}")
    n = component.shape[0]
    if not 0 <= sigma <= MAX_SIGMA:
        raise ValueError(f"mixture_sample: sigma must be finite and at least 0, got {sigma}; its square too")
    check.require_address("mixture_sample", seed, step, offset, int(Stream.FLOOR), n, mean.shape[1])
    run = (
        torch.ops.headstart.mixture_sample
        if library.dispatched("mixture_sample", component, *components)
        else _run_sample
    )
    return run(component, *components, sigma, library.signed(int(seed)), int(step), int(offset))


@library.exact
def _run_sample(*arguments: Any) -> Tensor:
    """The registered op; arguments as in its schema."""
    component, mean, variance, axes, spread, sigma, seed, step, offset = arguments
    n, (k, d) = component.shape[0], mean.shape
    component = component.contiguous()
    out = mean.new_empty(n, d)
    if n == 0:
        return out
    _require_variances("mixture_sample", Components(mean, variance, axes, spread))
    least, most = int(component.min()), int(component.max())
    if least < 0 or most >= k:
        raise ValueError(f"mixture_sample: component must be in [0, {k}), got {least} to {most}")
    deviation = (variance.double() + sigma**2).sqrt().to(mean.dtype).contiguous()
    factor = None if spread is None else spread.sqrt().contiguous()

    def pointer(name: str, tensor: Tensor | None, dtype: torch.dtype = mean.dtype) -> int:
        return check.address("mixture_sample", name, tensor, dtype, mean)

    floor, along = (
        _core.Address(seed=seed % 2**64, offset=offset, step=step, stream=int(stream))
        for stream in (Stream.FLOOR, Stream.FACTOR)
    )
    params = _core.MixtureSampleParams(
        rows=n, columns=d, rank=0 if axes is None else axes.shape[1], type=check.TYPES[mean.dtype],
        component=pointer("component", component, torch.int64), mean=pointer("mean", mean),
        deviation=pointer("deviation", deviation), variance_columns=variance.shape[1], axes=pointer("axes", axes),
        factor=pointer("spread", factor), floor=floor, along=along, out=pointer("out", out),
    )  # fmt: skip
    _core.mixture_sample(check.place(mean), params)
    return out


library.define(
    "mixture_sample(Tensor component, Tensor mean, Tensor variance, Tensor? axes, Tensor? spread, float sigma, "
    "SymInt seed, SymInt step, SymInt offset) -> Tensor",
    _run_sample,
    lambda component, mean, variance, axes, spread, sigma, seed, step, offset: mean.new_empty(
        component.shape[0], mean.shape[1]
    ),
)

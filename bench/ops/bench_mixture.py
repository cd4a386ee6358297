"""Gaussian mixtures: log-density, posterior mean and sampling, beside the libraries a user would pick.

The peers work on parts of the rows whose largest intermediate has 4M entries: faster for them than all rows at once,
and the memory stays bounded. Everything that depends on the mixture alone is made before the clock starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from bench.ops.bench_noise import words
from headstart import ops
from headstart.bench.measure import OURS, Contest
from headstart.ops.component import tables

SIGMA = 0.5
TORCH, SKLEARN, PLAIN, GEMM = "MixtureSameFamily", "scikit-learn score_samples", "plain torch", "bare GEMM"
ENTRIES = 4 * 2**20


def random_mixture(k: int, d: int, rank: int, dtype: torch.dtype, device: str) -> ops.Components:
    """`k` components with `rank` axes each; `rank = d`: full covariance."""
    generator = torch.Generator().manual_seed(0)
    mean, normal = 2 * torch.randn(k, d, generator=generator), torch.randn(k, d, rank, generator=generator)
    spread = torch.rand(k, rank, generator=generator) + 0.1
    fields = (mean, torch.full((k, 1), 0.2), torch.linalg.qr(normal).Q.mT, spread)
    return ops.Components(*(field.to(device, dtype).contiguous() for field in fields))


def in_parts(run: Callable[[Tensor], Tensor], x: Tensor, entries: int) -> Callable[[], Tensor]:
    """`run` on parts of the rows, `entries` numbers a row at most 4M in all."""
    parts = x.split(max(1, ENTRIES // entries))
    return lambda: torch.cat([run(part) for part in parts])


def law_of(components: ops.Components) -> MixtureSameFamily:
    """torch's own mixture of the same noised law, uniform weights."""
    k, d = components.mean.shape
    covariance = ops.reference.covariance(ops.reference.Components(*components)) + SIGMA**2 * torch.eye(
        d, device=components.mean.device
    )
    factor = torch.linalg.cholesky(covariance).to(components.mean.dtype)
    gaussians = MultivariateNormal(components.mean, scale_tril=factor, validate_args=False)
    return MixtureSameFamily(Categorical(torch.ones_like(components.mean[:, 0]) / k), gaussians, validate_args=False)


def score(law: MixtureSameFamily) -> Callable[[Tensor], Tensor]:
    """Posterior mean `x + sigma^2 grad log p(x)` by autograd, what a user of a density library would write."""

    def denoise(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return (x + SIGMA**2 * torch.autograd.grad(law.log_prob(x).sum(), x)[0]).detach()

    return denoise


def sklearn_scores(components: ops.Components, law: MixtureSameFamily, x: Tensor) -> Callable[[], Any] | None:
    """scikit-learn's log-density of the same law in the same dtype; None: not installed, or not on the CPU."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError:
        return None
    if x.is_cuda:
        return None
    model = GaussianMixture(components.mean.shape[0], covariance_type="full")
    gaussians = law.component_distribution
    assert isinstance(gaussians, MultivariateNormal)
    factor = gaussians.scale_tril.double()
    inverse = torch.linalg.solve_triangular(factor, torch.eye(x.shape[1], dtype=torch.float64), upper=False)
    model.weights_ = law.mixture_distribution.probs.numpy()
    model.means_ = components.mean.numpy()
    model.precisions_cholesky_ = inverse.mT.to(x.dtype).numpy()
    rows = x.numpy()
    return lambda: model.score_samples(rows)


def plain(components: ops.Components, log_weight: Tensor, denoise: bool) -> Callable[[Tensor], Tensor]:
    """The same formula in torch, its projections two matrix products."""
    mean, _, axes, _ = components
    at = tables(components, SIGMA)
    assert axes is not None
    assert at.drop is not None
    assert at.gain is not None
    k, rank, d = axes.shape
    flat = axes.reshape(k * rank, d)
    shift = (axes @ mean[..., None]).reshape(1, k * rank)
    drop, gain, constant, center = at.drop, at.gain, at.constant + log_weight, mean * (1 - at.keep)

    def run(x: Tensor) -> Tensor:
        y = torch.addmm(shift, x, flat.mT, beta=-1).view(-1, k, rank)
        quadratic = -torch.einsum("bkr,kr->bk", y * y, drop)
        if rank < d:
            distance = torch.cdist(x, mean, compute_mode="donot_use_mm_for_euclid_dist")
            quadratic = quadratic + distance.square() * at.precision[:, 0]
        joint = constant - 0.5 * quadratic
        if not denoise:
            return joint.logsumexp(dim=1)
        g = joint.softmax(dim=1)
        coefficient = (y * (g[..., None] * gain)).view(-1, k * rank)
        return torch.addmm(g @ center, coefficient, flat) + x * (g @ at.keep)

    return run


def posterior_case(
    n: int, d: int, k: int = 25, rank: int | None = None, dtype: torch.dtype = torch.float32, device: str = "cpu", *,
    denoise: bool = True,
) -> Contest:  # fmt: skip
    """Log-density, or log-density and posterior mean, of `n` rows; rank None: full covariance."""
    components = random_mixture(k, d, rank or d, dtype, device)
    picked = torch.arange(n, device=device) % k
    x = ops.mixture_sample(picked, components, SIGMA, seed=0)
    log_weight = torch.full((k,), 1 / k, dtype=dtype, device=device).log()
    entries = k * (rank or d)

    def headstart() -> Tensor | None:
        posterior = ops.mixture_posterior(x, components, log_weight, SIGMA, denoise=denoise, respond=False)
        return posterior.denoised if denoise else posterior.log_prob

    formula = plain(components, log_weight, denoise)
    contenders: dict[str, Callable[[], Any]] = {OURS: headstart, PLAIN: in_parts(formula, x, entries)}
    if rank is None:
        law = law_of(components)
        contenders[TORCH] = in_parts(score(law) if denoise else law.log_prob, x, entries)
        scores = None if denoise else sklearn_scores(components, law, x)
        contenders |= {SKLEARN: scores} if scores else {}
    else:
        contenders[GEMM] = products(x, components, denoise)
    size = x.element_size() * n * (d * (1 + denoise) + k + 1)
    what, kind = "denoiser" if denoise else "log-density", f"rank {rank}" if rank else "full"
    name = f"mixture {what} K={k} {kind} d={d} n={n:,} {words(dtype)} {device}"
    sample = partial(posterior_case, 1000, d, k, rank, dtype, device, denoise=denoise) if n > 1000 else None
    settle = 0.03 if SKLEARN in contenders else 0.0
    return Contest(
        name, size, contenders, 1e-3, settle=settle, sample=sample, arithmetic=n * row_arithmetic(d, k, rank, denoise)
    )


def row_arithmetic(d: int, k: int, rank: int | None, denoise: bool) -> float:
    """Operations of one row: the products onto the axes, their squares, distances beside them, the products back."""
    products = 2 * d * k * (rank or d)
    return products * (1 + denoise) + 3 * k * (rank or d) + (3 * d * k if rank else 0)


def products(x: Tensor, components: ops.Components, denoise: bool) -> Callable[[], None]:
    """The matrix products alone: one onto the axes and, for the posterior mean, one back."""
    assert components.axes is not None
    flat = components.axes.reshape(-1, x.shape[1])
    projection, back = x @ flat.mT, torch.empty_like(x)

    def run() -> None:
        torch.mm(x, flat.mT, out=projection)
        if denoise:
            torch.mm(projection, flat, out=back)

    return run


def sample_case(n: int, d: int, k: int = 25, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Contest:
    """`n` samples of a mixture of full covariance, components picked too."""
    components = random_mixture(k, d, d, dtype, device)
    law = law_of(components)
    cdf = torch.linspace(0, 1, k + 1, dtype=torch.float64, device=device)[1:]
    part = max(1, ENTRIES // (k * d))  # torch draws every component for every sample and keeps one

    def headstart() -> Tensor:
        picked = torch.searchsorted(cdf, ops.uniform(n, seed=0, device=device))
        return ops.mixture_sample(picked, components, SIGMA, seed=0)

    def peer() -> Tensor:
        return torch.cat([law.sample((min(part, n - first),)) for first in range(0, n, part)])

    name = f"mixture sample K={k} full d={d} n={n:,} {words(dtype)} {device}"
    return Contest(name, n * d * dtype.itemsize, {OURS: headstart, TORCH: peer})


ROWS: list[tuple[int, int | None, str]] = [(d, None, c) for d in (2, 40, 100) for c in (OURS, TORCH, SKLEARN, PLAIN)]
ROWS += [(784, 48, c) for c in (OURS, PLAIN, GEMM)]


@pytest.mark.parametrize("denoise", [False, True], ids=["log-density", "denoiser"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=words)
@pytest.mark.parametrize(("d", "rank", "contender"), ROWS)
def bench_posterior(
    measured: Any, device: str, d: int, rank: int | None, dtype: torch.dtype, denoise: bool, contender: str
) -> None:
    n, k = (256, 32) if rank else (2_000, 25)
    measured(lambda: posterior_case(n, d, k, rank, dtype, device, denoise=denoise), contender)


@pytest.mark.parametrize("contender", [OURS, TORCH])
@pytest.mark.parametrize("d", [2, 40])
def bench_sample(measured: Any, device: str, d: int, contender: str) -> None:
    measured(lambda: sample_case(1_000, d, device=device), contender)

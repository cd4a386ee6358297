"""Every op in plain float64 torch: the oracle of the tests, and the formulas to read first.

Slow on purpose and independent of the compiled code: Philox runs on int64 tensors, normals use the library's
logarithm and sine, Gaussian components use dense covariance matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from headstart.ops.check import Noise
from headstart.ops.component import Components
from headstart.ops.mixture import Posterior

MASK = 0xFFFFFFFF


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Philox4x32-10: four 32-bit words (int64 tensors) from a counter of four and a key of two words.

    Reference: "Parallel random numbers: as easy as 1, 2, 3" (Salmon et al., 2011,
    https://doi.org/10.1145/2063384.2063405).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) & MASK ^ c1 ^ k0, p1 & MASK, (p0 >> 32) & MASK ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return [c0, c1, c2, c3]


def words(rows: int, groups: int, seed: int, step: int, offset: int, stream: int) -> Tensor:
    """Random words `[rows, groups, 4]` of samples `offset + row`."""
    sample = torch.arange(offset, offset + rows, dtype=torch.int64, device="cpu")[:, None].expand(rows, groups)
    group = torch.arange(groups, dtype=torch.int64, device="cpu")[None].expand(rows, groups)
    constant = torch.ones_like(group)
    key = (seed & MASK, (seed >> 32) & MASK)
    return torch.stack(philox([group, sample, step * constant, stream * constant], key), dim=-1)


def box_muller(radius_word: Tensor, angle_word: Tensor) -> tuple[Tensor, Tensor]:
    """Two normals from two words: `sqrt(-2 ln u) (cos, sin)(angle)`, `u = (floor(w / 2) + 1/2) / 2^31` in (0, 1).

    Reference: "A Note on the Generation of Random Normal Deviates" (Box, Muller, 1958,
    https://doi.org/10.1214/aoms/1177706645).
    """
    u = ((radius_word >> 1).double() + 0.5) / 2**31
    angle = angle_word.double() / 2**32 * (2 * math.pi)
    radius = (-2 * u.log()).sqrt()
    return radius * angle.cos(), radius * angle.sin()


def normal(shape: Sequence[int], seed: int, step: int, offset: int = 0, *, stream: int = 0) -> Tensor:
    """Standard normals `[n, *shape]`; element e of sample i depends on (seed, offset + i, step, e, stream) alone."""
    rows, columns = shape[0], math.prod(shape[1:])
    groups = -(-columns // 4)
    w = words(rows, groups, seed, step, offset, stream)
    z0, z1 = box_muller(w[..., 0], w[..., 1])
    z2, z3 = box_muller(w[..., 2], w[..., 3])
    return torch.stack([z0, z1, z2, z3], dim=-1).reshape(rows, 4 * groups)[:, :columns].reshape(tuple(shape))


def uniform(n: int, seed: int, step: int = 0, offset: int = 0, *, stream: int = 2) -> Tensor:
    """Uniforms in (0, 1], one per sample index, of 53 bits."""
    w = words(n, 1, seed, step, offset, stream)[:, 0]
    return (((w[:, 0] << 21) | (w[:, 1] >> 11)).double() + 1) / 2**53


def noise(x: Tensor, scale: float, seed: int, step: int, offset: int = 0, *, stream: int = 1) -> Tensor:
    """`x + scale * z` in float64."""
    return x.double() + scale * normal(x.shape, seed, step, offset, stream=stream)


def affine(x: Tensor, a: float, terms: Sequence[tuple[float, Tensor]], noise: Noise | None = None) -> Tensor:
    """`a x + sum_j b_j y_j + scale z` in float64."""
    out = a * x.double()
    for b, y in terms:
        out = out + b * y.double()
    if noise is not None:
        out = out + noise.scale * normal(x.shape, noise.seed, noise.step, noise.offset, stream=noise.stream)
    return out


def covariance(components: Components) -> Tensor:
    """Dense covariance matrices `[K, D, D]`."""
    mean, variance, axes, spread = components
    dense = torch.diag_embed(variance.double().expand_as(mean))
    if axes is not None and spread is not None:
        dense = dense + axes.double().mT @ (spread.double()[..., None] * axes.double())
    return dense


def mixture_posterior(
    x: Tensor, components: Components, log_weight: Tensor, sigma: float, denoise: bool = True
) -> Posterior:
    """Mixture law of `x = x0 + sigma n` `[B, D]`: log-density, responsibilities, `E[x0 | x]`, in float64."""
    x, mean, clean = x.double(), components.mean.double(), covariance(components)
    eye = torch.eye(mean.shape[1], dtype=torch.float64, device=x.device)
    noised = clean + sigma**2 * eye
    law = torch.distributions.MultivariateNormal(mean, noised)
    joint = law.log_prob(x[:, None]) + log_weight.double()
    log_prob = joint.logsumexp(dim=1)
    responsibility = (joint - log_prob[:, None]).exp()
    gain = torch.cholesky_solve(clean, law.scale_tril)  # noised^-1 clean = (clean noised^-1)^T: both commute
    conditional = mean + torch.einsum("bkd,kde->bke", x[:, None] - mean, gain)
    denoised = (responsibility[..., None] * conditional).sum(dim=1) if denoise else None
    return Posterior(log_prob, responsibility, denoised)


def mixture_sample(
    component: Tensor, components: Components, sigma: float, seed: int, step: int = 0, offset: int = 0
) -> Tensor:
    """Samples `[n, D]` of `component` `[n]` at noise level `sigma`: `mean + sum_r sqrt(spread_r) z_r axes_r + sd n`."""
    mean, variance, axes, spread = components
    n, d = component.shape[0], mean.shape[1]
    floor = normal((n, d), seed, step, offset, stream=4)
    x = mean[component].double() + (variance[component].double() + sigma**2).sqrt() * floor
    if axes is not None and spread is not None:
        z = normal((n, axes.shape[1]), seed, step, offset, stream=3)
        x = x + torch.einsum("nr,nrd->nd", spread[component].double().sqrt() * z, axes[component].double())
    return x

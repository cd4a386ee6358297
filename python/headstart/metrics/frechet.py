"""Frechet distance between the feature statistics of two sets of images.

For Gaussians `N(m, A)`, `N(m', B)`: `FD = |m - m'|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2`, the squared
Wasserstein-2 distance, in float64 throughout ("GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", Heusel et al., 2017, https://arxiv.org/abs/1706.08500, on Inception features). Figures of n samples are
biased upwards by about `1 / n`: compare them at the same n only, with a real-against-real floor at that n beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Statistics(NamedTuple):
    """Mean `[F]` and covariance `[F, F]` (float64, CPU) of the features of `n` samples."""

    mean: Tensor
    covariance: Tensor
    n: int


def statistics(images: Tensor, features: Callable[[Tensor], Tensor] | None = None, batch: int = 256) -> Statistics:
    """Feature statistics of `images`.

    Args:
        images: `[N, *shape]`, N >= 2.
        features: maps `[B, *shape]` to `[B, F]`; None: the flattened images themselves.
        batch: images per call of `features`.

    Raises:
        ValueError: fewer than two images, features of another rank than 2, or features that are not finite.
    """
    if len(images) < 2:
        raise ValueError(f"statistics: images must hold at least 2 samples, got {len(images)}")
    with torch.no_grad():
        parts = [features(part) if features else part.flatten(1) for part in images.split(batch)]
    rows = torch.cat([part.detach().double().cpu() for part in parts])
    if rows.ndim != 2 or len(rows) != len(images):
        raise ValueError(f"statistics: features must be [{len(images)}, F], got {list(rows.shape)}")
    if not rows.isfinite().all():
        raise ValueError("statistics: features must be finite, got NaN or infinity")
    mean = rows.mean(0)
    centred = rows - mean
    return Statistics(mean, centred.T @ centred / (len(rows) - 1), len(rows))


def frechet_distance(p: Statistics, q: Statistics) -> float:
    """`FD(p, q)` of the module's equation, >= 0.

    Raises:
        ValueError: statistics of different numbers of features.
    """
    if p.mean.shape != q.mean.shape:
        raise ValueError(f"frechet_distance: q must have {len(p.mean)} features, got {len(q.mean)}")
    value, vectors = torch.linalg.eigh(p.covariance)
    root = vectors * value.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ q.covariance @ root).clamp_min(0).sqrt().sum()
    gap = (p.mean - q.mean).square().sum() + p.covariance.trace() + q.covariance.trace() - 2 * cross
    return max(0.0, float(gap))

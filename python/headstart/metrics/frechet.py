"""Frechet distance between the feature statistics of two sets of images.

For Gaussians `N(m, A)`, `N(m', B)`: `FD = |m - m'|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2`, the squared
Wasserstein-2 distance, in float64 throughout ("GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", Heusel et al., 2017, https://arxiv.org/abs/1706.08500, on Inception features). Figures of n samples are
biased upwards by about `1 / n`: compare them at the same n only, with a real-against-real floor at that n beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Statistics(NamedTuple):
    """Mean `[F]` and covariance `[F, F]` (float64, CPU) of the features of `n` samples."""

    mean: Tensor
    covariance: Tensor
    n: int


class Moments:
    """Statistics of rows that come a batch at a time, and are not kept.

    Batches are joined by `S = S_a + S_b + n_a n_b / n (m_a - m_b) (m_a - m_b)^T`, so nothing cancels, whatever the
    mean ("Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", Chan, Golub, LeVeque, 1979).
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Takes in `rows` `[B, F]`.

        Raises:
            ValueError: rows of another rank or number of features, or not finite.
        """
        if rows.ndim != 2 or (self.n and rows.shape[1] != len(self.mean)):
            raise ValueError(f"statistics: features must be [B, {len(self.mean) or 'F'}], got {list(rows.shape)}")
        if not rows.isfinite().all():
            raise ValueError("statistics: features must be finite, got NaN or infinity")
        if len(rows) == 0:
            return
        rows = rows.detach().double()
        mean = rows.mean(0)
        centred = rows - mean
        scatter, mean = (centred.T @ centred).cpu(), mean.cpu()
        if self.n == 0:
            self.n, self.mean, self.scatter = len(rows), mean, scatter
            return
        total, gap = self.n + len(rows), mean - self.mean
        self.scatter += scatter + torch.outer(gap, gap) * (self.n * len(rows) / total)
        self.mean += gap * (len(rows) / total)
        self.n = total

    def statistics(self) -> Statistics:
        """What was taken in so far.

        Raises:
            ValueError: fewer than two rows.
        """
        if self.n < 2:
            raise ValueError(f"statistics: images must hold at least 2 samples, got {self.n}")
        return Statistics(self.mean.clone(), self.scatter / (self.n - 1), self.n)


def statistics(
    images: Tensor | Iterable[Tensor], features: Callable[[Tensor], Tensor] | None = None, batch: int = 256
) -> Statistics:
    """Feature statistics of `images`, streamed: neither all images nor all features need be in memory.

    Args:
        images: `[N, *shape]`, N >= 2, or batches `[B, *shape]` from anywhere.
        features: maps `[B, *shape]` to `[B, F]`; None: the flattened images themselves.
        batch: images per call of `features`, where `images` is a tensor.

    Raises:
        ValueError: fewer than two images, features of another rank than 2, or features that are not finite.
    """
    moments = Moments()
    for part in images.split(batch) if isinstance(images, Tensor) else images:
        with torch.no_grad():
            rows = features(part) if features else part.flatten(1)
        if rows.ndim != 2 or len(rows) != len(part):
            raise ValueError(f"statistics: features must be [{len(part)}, F], got {list(rows.shape)}")
        moments.add(rows)
    return moments.statistics()


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

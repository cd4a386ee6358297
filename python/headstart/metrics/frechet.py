"""Frechet distance between the feature statistics of two sets of images.

For Gaussians `N(m, A)`, `N(m', B)`: `FD = |m - m'|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2`, the squared
Wasserstein-2 distance, in float64 throughout ("GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", Heusel et al., 2017, https://arxiv.org/abs/1706.08500, on Inception features). Figures of n samples are
biased upwards by about `1 / n`: compare them at the same n only, with a real-against-real floor at that n beside them.

Kernel distance between the features of two sets of images: KID, on Inception features.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),    k(x, y) = (x.y / F + 1)^3,    F features

in its unbiased form: it may be negative, and its mean does not depend on n, unlike the Frechet distance's.
"Demystifying MMD GANs" (Binkowski, Sutherland, Arbel, Gretton, 2018, https://arxiv.org/abs/1801.01401).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart.metrics.check import as_samples, require_count, require_seed
from headstart.ops.array import eigh, tensor_of
from headstart.ops.check import describe

ROUNDING = 1e-6  # of a covariance's largest value: what rounding may leave of asymmetry and of eigenvalues below 0


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
        self.mean = torch.zeros(0, dtype=torch.float64, device="cpu")
        self.scatter = torch.zeros(0, 0, dtype=torch.float64, device="cpu")

    def add(self, rows: Tensor) -> None:
        """Takes in `rows` `[B, F]`.

        Raises:
            TypeError: not a floating tensor or array.
            ValueError: rows of another rank or number of features, or not finite.
        """
        rows = tensor_of(rows)
        if (
            not isinstance(rows, Tensor)
            or not rows.is_floating_point()
            or rows.layout is not torch.strided
            or rows.is_meta
            or rows.itemsize == 1  # 8-bit floats have hardly an operation
        ):
            raise TypeError(f"statistics: features must be floating [B, F], got {describe(rows)}")
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
            ValueError: fewer than two rows, or squares that overflowed.
        """
        if self.n < 2:
            raise ValueError(f"statistics: images must hold at least 2 samples, got {self.n}")
        if not self.scatter.isfinite().all():
            raise ValueError("statistics: features must have squares that are finite, got larger ones; scale them")
        return Statistics(self.mean.clone(), self.scatter / (self.n - 1), self.n)


def statistics(
    images: Tensor | Iterable[Tensor], features: Callable[[Tensor], Tensor] | None = None, batch: int = 256
) -> Statistics:
    """Feature statistics of `images`, streamed: neither all images nor all features need be in memory.

    Args:
        images: `[N, *shape]`, N >= 2, or batches `[B, *shape]` from anywhere; tensors or numpy arrays of floats, or of
            bytes (uint8), which become `x / 127.5 - 1`.
        features: maps `[B, *shape]` to `[B, F]`; None: the flattened images themselves.
        batch: images per call of `features`, where `images` is a tensor.

    Raises:
        TypeError: images that are no array of floats or bytes, nor an iterable of such.
        ValueError: fewer than two images, features of another rank than 2, or features that are not finite.
    """
    batch, moments = require_count("statistics", "batch", batch, 1), Moments()
    if features is not None and (isinstance(features, type) or not callable(features)):
        raise TypeError(f"statistics: features must be a function of images, or None, got {describe(features)}")
    for part in parts_of(images, batch):
        with torch.no_grad():
            rows = features(part) if features else part.flatten(1)
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(part):
            raise ValueError(f"statistics: features must be [{len(part)}, F], got {describe(rows)}")
        moments.add(rows)
    return moments.statistics()


def parts_of(images: Any, batch: int) -> Iterable[Tensor]:
    """Batches of images: parts of one array, or what an iterable gives."""
    images = tensor_of(images)
    if isinstance(images, Tensor):
        return as_samples("statistics", "images", images).split(batch)
    if isinstance(images, str | bytes | dict) or not isinstance(images, Iterable):
        raise TypeError(f"statistics: images must be [N, *shape], or batches of them, got {describe(images)}")
    return (as_samples("statistics", "images", part) for part in images)


def frechet_distance(p: Statistics, q: Statistics) -> float:
    """`FD(p, q)` of the module's equation, >= 0.

    `tr (A^1/2 B A^1/2)^1/2` is the sum of the singular values of `B^1/2 A^1/2`, which are not roots of rounded squares.

    Raises:
        TypeError: not statistics.
        ValueError: statistics of different numbers of features, not finite, or with a covariance that is none (not
            symmetric, or with eigenvalues below 0 beyond rounding).
    """
    mean, root = half("p", p)
    other, factor = half("q", q)
    if mean.shape != other.shape:
        raise ValueError(f"frechet_distance: q must have {len(mean)} features, got {len(other)}")
    cross = torch.linalg.svdvals(factor.T @ root).sum()
    total = (root.square().sum() + factor.square().sum() - 2 * cross).clamp_min(0)
    return float((mean - other).square().sum() + total)


def half(name: str, given: Statistics) -> tuple[Tensor, Tensor]:
    """The mean `[F]` of checked statistics, and a factor `[F, F]` of their covariance, `L L^T`, both float64."""
    mean, covariance = (tensor_of(getattr(given, field, None)) for field in ("mean", "covariance"))
    fields = (part for part in (mean, covariance) if isinstance(part, Tensor) and part.is_floating_point())
    if sum(part.layout is torch.strided and not part.is_meta for part in fields) < 2:
        raise TypeError(f"frechet_distance: {name} must be Statistics, as of statistics(x), got {describe(given)}")
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        got = f"mean {list(mean.shape)} and covariance {list(covariance.shape)}"
        raise ValueError(f"frechet_distance: {name} must have a mean [F] and a covariance [F, F], got {got}")
    mean, covariance = mean.detach().double(), covariance.detach().double()
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise ValueError(f"frechet_distance: {name} must be finite, got NaN or infinity")
    size = float(covariance.abs().max()) if len(mean) else 0.0
    if float((covariance - covariance.T).abs().max() if len(mean) else 0.0) > ROUNDING * size:
        raise ValueError(f"frechet_distance: {name} must have a symmetric covariance, got one that is not")
    value, vector = eigh(0.5 * (covariance + covariance.T))
    if len(value) and float(value[0]) < -ROUNDING * max(size, float(value[-1])):
        raise ValueError(
            f"frechet_distance: {name} must have a covariance without negative eigenvalues, got {float(value[0]):.3g}"
        )
    return mean, vector * value.clamp_min(0).sqrt()


CHUNK_BYTES = 2**27


class KernelDistance(NamedTuple):
    """The squared distance and its standard error."""

    value: float
    error: float


def kernel_distance(x: Tensor, y: Tensor, subset: int | None = None, seed: int = 0) -> KernelDistance:
    """Unbiased `MMD^2` of features `x` `[N, F]` and `y` `[M, F]`, float64.

    Args:
        x, y: features, N and M at least 2.
        subset: None: over all pairs, in time N^2, with the jackknife's standard error (up to half too large where
            the laws agree, never too small on average). A number: the mean over disjoint random subsets of so many
            (as many as fit), with the standard error of that mean; time N subset.
        seed: of the choice of the subsets.

    Raises:
        TypeError: features that are no array of floats or bytes.
        ValueError: features of another rank or number, fewer than 2, not finite, or too large a subset.
    """
    x, y = (as_samples("kernel_distance", name, part) for name, part in (("x", x), ("y", y)))
    seed = require_seed("kernel_distance", seed)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        got = f"{list(x.shape)} and {list(y.shape)}"
        raise ValueError(f"kernel_distance: x and y must be [N, F] and [M, F] with at least 2 rows, got {got}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("kernel_distance: x and y must be finite, got NaN or infinity")
    if subset is None:
        return whole(x, y)
    few = min(len(x), len(y))
    subset = require_count("kernel_distance", "subset", subset, 2)
    if subset > few // 2:
        raise ValueError(f"kernel_distance: subset must be from 2 to half the smaller set, {few // 2}, got {subset}")
    generator = torch.Generator().manual_seed(seed)
    groups = [
        [
            part
            for part in torch.randperm(len(z), generator=generator, device="cpu", dtype=torch.int64).split(subset)
            if len(part) == subset
        ]
        for z in (x, y)
    ]
    pairs = zip(*groups, strict=False)  # the larger set has groups to spare
    values = torch.tensor(
        [whole(x[i.to(x.device)], y[j.to(y.device)]).value for i, j in pairs], dtype=torch.float64, device="cpu"
    )
    return KernelDistance(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def whole(x: Tensor, y: Tensor) -> KernelDistance:
    """The statistic over all pairs; its leave-one-out values follow from sums over each row's pairs."""
    n, m = len(x), len(y)
    within_x, within_y = pair_sums(x, x)[0], pair_sums(y, y)[0]
    cross_x, cross_y = pair_sums(x, y)
    total = within_x.sum(), within_y.sum(), cross_x.sum()
    value = total[0] / (n * (n - 1)) + total[1] / (m * (m - 1)) - 2 * total[2] / (n * m)
    if min(n, m) < 3:
        return KernelDistance(float(value), math.nan)
    less_x = (total[0] - 2 * within_x) / ((n - 1) * (n - 2)) - 2 * (total[2] - cross_x) / ((n - 1) * m)
    less_y = (total[1] - 2 * within_y) / ((m - 1) * (m - 2)) - 2 * (total[2] - cross_y) / (n * (m - 1))
    variance = sum((len(less) - 1) * less.var(correction=0) for less in (less_x, less_y))
    return KernelDistance(float(value), math.sqrt(float(variance)))


def pair_sums(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of `k` over each row of `x` and over each row of `y`; of `x` with itself, without the pairs `(i, i)`."""
    rows = max(1, CHUNK_BYTES // (8 * max(len(y), x.shape[1])))
    other = y.double()
    left, right = [], torch.zeros(len(y), dtype=torch.float64, device=y.device)
    for first in range(0, len(x), rows):
        kernel = (x[first : first + rows].double() @ other.T / x.shape[1] + 1).pow(3)
        if x is y:
            kernel[:, first:].diagonal().zero_()
        left.append(kernel.sum(1))
        right += kernel.sum(0)
    return torch.cat(left), right

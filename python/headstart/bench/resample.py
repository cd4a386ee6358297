"""Frechet distances to one fixed set of images, and how far they move with the samples drawn.

The bootstrap: `n` of the `n` samples with replacement, the same indices for every row of a seed, so that differences of
rows are those of paired samples. A resampled set has repeats and lies farther from the reference, so what is used is
how much a replicate deviates from the replicates' mean. Reference: "Bootstrap Methods: Another Look at the Jackknife"
(Efron, 1979, https://doi.org/10.1214/aos/1176344552).
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.metrics.frechet import Statistics


class Anchor:
    """The set that distances are measured to: its mean, and the root of its covariance, worked out once.

    Args:
        reference: statistics of its features.
    """

    def __init__(self, reference: Statistics) -> None:
        value, vectors = torch.linalg.eigh(reference.covariance)
        self.mean, self.trace = reference.mean, reference.covariance.trace()
        self.root = vectors * value.clamp_min(0).sqrt() @ vectors.T

    def distances(self, features: Tensor, counts: list[Tensor]) -> list[float]:
        """Frechet distance of the rows of `features` `[n, F]`, each as often as a count `[n]` says, for every count.

        `tr sqrt(R^{1/2} C R^{1/2})` is the sum of the singular values of the centred rows times `R^{1/2}` over
        `sqrt(n - 1)`: of a matrix with as many rows as distinct samples.
        """
        x = features.double() - self.mean
        y = x @ self.root
        return [self.distance(x, y, count) for count in counts]

    def distance(self, x: Tensor, y: Tensor, count: Tensor) -> float:
        rows, n = count.nonzero().squeeze(1), int(count.sum())
        weight = count[rows].double()
        mean, turned = weight @ x[rows] / n, weight @ y[rows] / n
        centred = weight.sqrt()[:, None] * (y[rows] - turned)
        gram = centred @ centred.T if len(rows) < centred.shape[1] else centred.T @ centred
        cross = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum() / (n - 1) ** 0.5
        spread = (weight @ x[rows].square().sum(1) - n * mean.square().sum()) / (n - 1)
        return max(0.0, float(mean.square().sum() + spread + self.trace - 2 * cross))


def resamples(n: int, replicates: int, seed: int) -> list[Tensor]:
    """How often each of `n` samples is drawn, `[n]`, for every replicate."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(n, (n,), generator=generator).bincount(minlength=n) for _ in range(replicates)]

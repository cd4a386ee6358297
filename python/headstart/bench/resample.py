"""Frechet distance of resampled samples: how far it moves with the samples drawn.

The bootstrap: `n` of the `n` samples with replacement, the same indices for every row of a seed, so that differences of
rows are those of paired samples. A resampled set has repeats and lies farther from the reference, so what is used is
how much a replicate deviates from the replicates' mean. Reference: "Bootstrap Methods: Another Look at the Jackknife"
(Efron, 1979, https://doi.org/10.1214/aos/1176344552).
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.metrics.frechet import Statistics


def frechet_replicates(features: Tensor, reference: Statistics, replicates: int, seed: int) -> list[float]:
    """Frechet distance to the reference of `replicates` resampled sets of the rows of `features` `[n, F]`.

    `tr sqrt(R^{1/2} C R^{1/2})` is the sum of the singular values of the centred rows times `R^{1/2}` over
    `sqrt(n - 1)`: of a matrix with as many rows as distinct samples.
    """
    value, vectors = torch.linalg.eigh(reference.covariance)
    root = vectors * value.clamp_min(0).sqrt() @ vectors.T
    x = features.double() - reference.mean
    y = x @ root
    n, found = len(x), []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(replicates):
        count = torch.randint(n, (n,), generator=generator).bincount(minlength=n)
        rows = count.nonzero().squeeze(1)
        weight = count[rows].double()
        mean, turned = weight @ x[rows] / n, weight @ y[rows] / n
        centred = weight.sqrt()[:, None] * (y[rows] - turned)
        gram = centred @ centred.T if len(rows) < centred.shape[1] else centred.T @ centred
        cross = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum() / (n - 1) ** 0.5
        spread = (weight @ x[rows].square().sum(1) - n * mean.square().sum()) / (n - 1)
        found.append(float(mean.square().sum() + spread + reference.covariance.trace() - 2 * cross))
    return found

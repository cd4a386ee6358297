"""Memorization: are samples nearer to the training points than unseen points are?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from headstart.metrics.wasserstein import flatten

CHUNK_BYTES = 2**26
LEVEL = 0.01


class Memorization(NamedTuple):
    """Nearest-neighbour distances of samples to the training set, against those of held-out points.

    Fields:
        ratio: Median distance of the samples over that of the held-out points; 1 where they are alike.
        copies: Share of the samples nearer than the held-out 1 % quantile; 0.01 where they are alike.
        samples: Distances of the samples `[N]`, float64.
        heldout: Distances of the held-out points `[M]`, float64.
    """

    ratio: float
    copies: float
    samples: Tensor
    heldout: Tensor


def memorization(samples: Tensor, train: Tensor, heldout: Tensor) -> Memorization:
    """How near samples lie to the points a law was learned from, in Euclidean distance.

    A law that returns training points has ratio 0 and copies 1. Smooth samples (blurred, of low noise) are near
    everything, so a ratio below 1 with copies near 0.01 is not memorization by itself: look at the nearest pairs.

    Args:
        samples: What a law or a sampler made, `[N, *shape]`.
        train: What it was made from, `[T, *shape]`.
        heldout: Real points outside `train`, `[M, *shape]`, at least 100 of them: the quantile is one of theirs.

    Raises:
        ValueError: Shapes that differ, no samples, samples that are not finite, or too few held-out points.
    """
    if len(heldout) < 1 / LEVEL:
        raise ValueError(f"memorization: heldout must have at least {round(1 / LEVEL)} points, got {len(heldout)}")
    made, known = flatten("memorization", samples, train)
    unseen, _ = flatten("memorization", heldout, train)
    near, far = nearest(made, known), nearest(unseen, known)
    threshold = far.quantile(LEVEL)
    ratio = float(near.median() / far.median().clamp_min(1e-300))
    return Memorization(ratio, float((near < threshold).double().mean()), near, far)


def nearest(x: Tensor, points: Tensor) -> Tensor:
    """Distance `[N]` of each row of `x` to the nearest of the points, exact (no expanded square), in chunks."""
    rows = max(1, CHUNK_BYTES // (8 * len(points)))
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(part, points, compute_mode=mode).min(1).values for part in x.split(rows)])

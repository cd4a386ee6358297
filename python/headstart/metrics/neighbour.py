"""Memorization: are samples nearer to the training points than unseen points are?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headstart.io.output import tile, to_bytes
from headstart.metrics.check import as_samples, require_count
from headstart.metrics.wasserstein import flatten, rows_of
from headstart.ops.check import is_integer

CHUNK_BYTES = 2**26
LEVEL = 0.01
SPARE = 4  # candidates of the quick search beyond those asked for; the exact distances settle their order


class Memorization(NamedTuple):
    """Nearest-neighbour distances of samples to the training set, against those of held-out points.

    Attributes:
        ratio: Median distance of the samples over that of the held-out points; 1 where they are alike.
        copies: Share of the samples nearer than the held-out 1 % quantile; 0.01 where they are alike.
        samples: Distances of the samples `[N]`, float64.
        heldout: Distances of the held-out points `[M]`, float64.
    """

    ratio: float
    copies: float
    samples: Tensor
    heldout: Tensor


class Neighbours(NamedTuple):
    """Distances `[N, count]` (float64, ascending) to the nearest points, and their `indices` `[N, count]`."""

    distance: Tensor
    indices: Tensor


def memorization(samples: Tensor, train: Tensor, heldout: Tensor) -> Memorization:
    """How near samples lie to the points a law was learned from, in Euclidean distance.

    A law that returns training points has ratio 0 and copies 1. Smooth samples (blurred, of low noise) are near
    everything, so a ratio below 1 with copies near 0.01 is not memorization by itself: look at the nearest pairs
    (`neighbour_sheet`).

    Args:
        samples: What a law or a sampler made, `[N, *shape]`.
        train: What it was made from, `[T, *shape]`.
        heldout: Real points outside `train`, `[M, *shape]`, at least 100 of them: the quantile is one of theirs.

    Raises:
        ValueError: Shapes that differ, no samples, samples that are not finite, or too few held-out points.
    """
    samples, train, heldout = (
        as_samples("memorization", name, part)
        for name, part in (("samples", samples), ("train", train), ("heldout", heldout))
    )
    if len(heldout) < 1 / LEVEL:
        raise ValueError(f"memorization: heldout must have at least {round(1 / LEVEL)} points, got {len(heldout)}")
    made, known = flatten("memorization", samples, train)
    unseen, _ = flatten("memorization", heldout, train)
    near, far = (nearest(part, known, 1).distance[:, 0] for part in (made, unseen))
    threshold = far.quantile(LEVEL)
    ratio = float(near.median() / far.median().clamp_min(1e-300))
    return Memorization(ratio, float((near < threshold).double().mean()), near, far)


def neighbours(samples: Tensor, train: Tensor, count: int = 1) -> Neighbours:
    """The `count` training points nearest to each sample, in Euclidean distance.

    Args:
        samples: `[N, *shape]`.
        train: `[T, *shape]`.
        count: at most T.

    Raises:
        ValueError: Shapes that differ, no samples, samples that are not finite, or another count.
    """
    made, known = flatten("neighbours", samples, train)
    if not is_integer(count) or not 1 <= count <= len(known):
        raise ValueError(f"neighbours: count must be from 1 to {len(known)} training points, got {count}")
    return nearest(made, known, count)


def nearest(x: Tensor, points: Tensor, count: int) -> Neighbours:
    """Neighbours of the rows of `x`: found by the expanded square, ordered by distances from plain differences."""
    some = min(len(points), count + SPARE)
    rows = max(1, CHUNK_BYTES // (8 * max(rows_of(points), x.shape[1] * some)))
    found = [refine(part.double(), points, search(part.double(), points, some), count) for part in x.split(rows)]
    return Neighbours(torch.cat([each.distance for each in found]), torch.cat([each.indices for each in found]))


def search(x: Tensor, points: Tensor, count: int) -> Tensor:
    """Indices `[N, count]` of near points: all but certainly the nearest, up to rounding of `|p|^2 - 2 x.p`."""
    value, index = x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.long, device=x.device)
    first = 0
    for part in points.split(rows_of(points)):
        double = part.double()
        square = torch.cat([value, double.square().sum(1) - 2 * x @ double.T], 1)
        place = torch.arange(first, first + len(part), device=x.device, dtype=torch.int64).expand(len(x), -1)
        value, kept = square.topk(min(count, square.shape[1]), largest=False)
        index = torch.cat([index, place], 1).gather(1, kept)
        first += len(part)
    return index


def refine(x: Tensor, points: Tensor, candidates: Tensor, count: int) -> Neighbours:
    """The nearest `count` of each row's candidates `[N, some]`, by distances without an expanded square."""
    distance = (points[candidates].double() - x[:, None]).norm(dim=2)
    value, order = distance.topk(count, largest=False)
    return Neighbours(value, candidates.gather(1, order))


def neighbour_sheet(
    samples: Tensor, train: Tensor, columns: int = 8, count: int = 3,
    pictures: Callable[[Tensor], np.ndarray] | None = None,
) -> np.ndarray:  # fmt: skip
    """Picture of the samples nearest to the training set, each above its nearest training images, nearest first.

    Args:
        samples: Images `[N, C, H, W]` in [-1, 1], C = 1, 3 or 4, or anything that `pictures` takes.
        train: The same `[T, *shape]`.
        columns: How many samples, those nearest to a training image; at most N.
        count: Training images below each.
        pictures: uint8 `[N, H, W, C]` of samples, such as latents, between which the distances are; None: of images.

    Returns:
        uint8 `[h, w, C]`: row 0 the samples, row i their i-th nearest training images.

    Raises:
        ValueError: Samples that are not images, or as `neighbours`.
    """
    samples, train = (as_samples("neighbour_sheet", *named) for named in (("samples", samples), ("train", train)))
    columns, count = (require_count("neighbour_sheet", *named, 1) for named in (("columns", columns), ("count", count)))
    if pictures is not None and not callable(pictures):
        raise TypeError(f"neighbour_sheet: pictures must be a function of samples, got {type(pictures).__name__}")
    if pictures is None and (samples.ndim != 4 or samples.shape[1] not in (1, 3, 4)):
        raise ValueError(f"neighbour_sheet: samples must be images [N, 1, 3 or 4, H, W], got {list(samples.shape)}")
    near = neighbours(samples, train, min(count, len(train)))
    chosen = near.distance[:, 0].argsort()[:columns]
    rows = [
        samples[chosen],
        *(train[near.indices[chosen, rank].to(train.device)] for rank in range(near.indices.shape[1])),
    ]
    return tile(np.concatenate([(pictures or to_bytes)(row) for row in rows]), columns=len(chosen))

"""The size of a mixture where none is given: it follows the data's."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from headstart.initializer.check import check_labels
from headstart.initializer.covariance import Covariance, Full, LowRank

SMALL = 32  # dimensions up to which covariances are full
POINTS_PER_COMPONENT, MOST_COMPONENTS, MOST_BY_CLASS = 100, 32, 16
POINTS_PER_AXIS, MOST_AXES = 4, 64
POINTS_BY_CLASS, MOST_CLASSES = 1000, 32  # from so many points on a class has components of its own, in so many classes
MOST_IN_ALL = MOST_BY_CLASS * MOST_CLASSES


def size(
    data: Tensor,
    components: int | Literal["auto"] | None,
    covariance: Covariance | None,
    labels: Tensor | None = None,
) -> tuple[int | Literal["auto"], Covariance]:
    """What is given, and for None: a component for every 100 of the points `[N, *shape]`, from 1 to 32; full
    covariances up to 32 dimensions, else an axis for every 4 points of a component, at most 64. With `labels` `[N]` the
    mixture is one class's, and the points are those of the smallest; it has at most 16 components, all at most 512."""
    n, most = len(data), MOST_COMPONENTS
    if labels is not None:
        classes, n = classes_of(labels, n)
        most = max(1, min(MOST_BY_CLASS, MOST_IN_ALL // classes))
    if components is None:
        components = max(1, min(most, n // POINTS_PER_COMPONENT))
    if covariance is None:
        each = n // max(components, 1) if isinstance(components, int) else n
        rank = max(1, min(MOST_AXES, each // POINTS_PER_AXIS))
        covariance = Full() if data[0].numel() <= SMALL else LowRank(rank)
    return components, covariance


def classes_of(labels: Tensor, n: int) -> tuple[int, int]:
    """How many classes the labels of `n` points have, and the points of the smallest."""
    counts = check_labels("fit", labels, n).unique(return_counts=True)[1]
    return len(counts), int(counts.min())


def enough_by_class(labels: Tensor, n: int) -> bool:
    """Whether each class of `n` points has enough of them for a mixture of its own: 1,000, in at most 32 classes."""
    classes, least = classes_of(labels, n)
    return classes <= MOST_CLASSES and least >= POINTS_BY_CLASS

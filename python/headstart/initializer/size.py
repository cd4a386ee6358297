"""The size of a mixture where none is given: it follows the data's."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from headstart.initializer.covariance import Covariance, Full, LowRank

SMALL = 32  # dimensions up to which covariances are full
POINTS_PER_COMPONENT, MOST_COMPONENTS = 100, 32
POINTS_PER_AXIS, MOST_AXES = 4, 64


def size(
    data: Tensor, components: int | Literal["auto"] | None, covariance: Covariance | None
) -> tuple[int | Literal["auto"], Covariance]:
    """What is given, and for None: a component for every 100 of the points `[N, *shape]`, from 1 to 32; full
    covariances up to 32 dimensions, else an axis for every 4 points of a component, at most 64."""
    if components is None:
        components = max(1, min(MOST_COMPONENTS, len(data) // POINTS_PER_COMPONENT))
    if covariance is None:
        each = len(data) // max(components, 1) if isinstance(components, int) else len(data)
        rank = max(1, min(MOST_AXES, each // POINTS_PER_AXIS))
        covariance = Full() if data[0].numel() <= SMALL else LowRank(rank)
    return components, covariance

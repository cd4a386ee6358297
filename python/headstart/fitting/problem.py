"""What the steps of EM pass to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from headstart import ops

if TYPE_CHECKING:
    from headstart.initializer.covariance import Covariance


class Mixture(NamedTuple):
    """Components and their weights `[K]` (float64)."""

    components: ops.Components
    weight: Tensor


class Problem(NamedTuple):
    """What stays fixed while EM climbs: the data `[N, D]`, the family, the least variance, the stopping rule."""

    data: Tensor
    family: Covariance
    least: float
    tol: float


def change(components: ops.Components, function: Callable[[Tensor], Tensor]) -> ops.Components:
    """Components with a function applied to each of their tensors."""
    mean, variance, axes, spread = components
    along = (None if axes is None else function(axes), None if spread is None else function(spread))
    return ops.Components(function(mean), function(variance), *along)

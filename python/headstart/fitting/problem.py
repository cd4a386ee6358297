"""What the steps of EM pass to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from headstart import ops

if TYPE_CHECKING:
    from headstart.fitting.law import Law
    from headstart.initializer.covariance import Covariance

WIDE = 1e4  # spread over total variance from which densities are computed in float64
NEGLIGIBLE = 1e-9  # responsibilities below this do not count


class Mixture(NamedTuple):
    """Components, their weights `[K]`, and their degrees of freedom `[K]` or None (both float64)."""

    components: ops.Components
    weight: Tensor
    df: Tensor | None = None


class Problem(NamedTuple):
    """What stays fixed while EM climbs: data `[N, D]`, family, component law, least variance, stopping rule."""

    data: Tensor
    family: Covariance
    law: Law
    least: float
    tol: float


class Extremes(NamedTuple):
    """The largest spread of a mixture's axes, and the least variance off them."""

    spread: float
    variance: float


def extremes(components: ops.Components) -> Extremes:
    """Extremes of low-rank components; a spread of 0 where no directions are left off the axes, or none are on them."""
    axes, spread = components.axes, components.spread
    if axes is None or spread is None or not 0 < axes.shape[1] < axes.shape[2]:
        return Extremes(0.0, 0.0)
    return Extremes(float(spread.max()), float(components.variance.min()))


def wide(extremes: Extremes, sigma: float) -> bool:
    """Whether float32 would not do: `|x - mean|^2 / t - (axis . (x - mean))^2 drop` cancels where spread >> t."""
    return extremes.spread > WIDE * (extremes.variance + sigma**2)


def widen(components: ops.Components) -> ops.Components:
    """Low-rank components in float64, their axes orthonormal again.

    Rounded to float32, axes have lengths off by 1e-8 or so, which counts as often as the spread exceeds the variance;
    one step of the Newton-Schulz iteration, `1.5 U - 0.5 U U^T U`, squares that error.
    """
    mean, variance, axes, spread = change(components, Tensor.double)
    assert axes is not None
    return ops.Components(mean, variance, 1.5 * axes - 0.5 * (axes @ axes.mT) @ axes, spread)


def change(components: ops.Components, function: Callable[[Tensor], Tensor]) -> ops.Components:
    """Components with a function applied to each of their tensors."""
    mean, variance, axes, spread = components
    along = (None if axes is None else function(axes), None if spread is None else function(spread))
    return ops.Components(function(mean), function(variance), *along)

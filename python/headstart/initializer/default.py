"""The default fit: a mixture whose size follows the data's."""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.initializer.check import check_data
from headstart.initializer.covariance import Covariance, Full, LowRank
from headstart.initializer.mixture import GaussianMixture

SMALL = 32  # dimensions up to which covariances are full
POINTS_PER_COMPONENT, MOST_COMPONENTS = 100, 32
POINTS_PER_AXIS, MOST_AXES = 4, 64


def fit(
    data: Tensor,
    components: int | None = None,
    covariance: Covariance | None = None,
    seed: int = 0,
    max_iter: int = 100,
    tol: float = 1e-4,
    device: torch.device | str | None = None,
    progress: bool = False,
    labels: Tensor | None = None,
) -> GaussianMixture:
    """`GaussianMixture.fit` with the number of components and the covariance chosen from the data's size.

    The rule was chosen by the likelihood of 3,000 noised training images outside the fit (sigma 1 to 5) on
    Fashion-MNIST: with 2,000 images 20 components beat 1, 5 and 10, and a rank of a quarter of a component's points
    is within 0.2 nats of twice that. Below sigma 1 fewer components do better.

    Args:
        components: None: one for every 100 points, from 1 to 32.
        covariance: None: full up to 32 dimensions, else low rank with an axis for every 4 points of a component,
            at most 64.
        data, seed, max_iter, tol, device, progress, labels: As in `GaussianMixture.fit`.

    Raises:
        ValueError: As `GaussianMixture.fit`.
    """
    data = check_data("fit", data)
    dim = data[0].numel()
    if components is None:
        components = max(1, min(MOST_COMPONENTS, len(data) // POINTS_PER_COMPONENT))
    if covariance is None:
        rank = max(1, min(MOST_AXES, len(data) // max(components, 1) // POINTS_PER_AXIS))
        covariance = Full() if dim <= SMALL else LowRank(rank)
    return GaussianMixture.fit(data, components, covariance, seed, max_iter, tol, device, progress, labels)

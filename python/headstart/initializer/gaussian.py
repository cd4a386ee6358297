"""One Gaussian: the simplest start, fitted in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.fitting.gaussian import fit_gaussian
from headstart.initializer.check import check_covariance, check_data, check_labels
from headstart.initializer.covariance import Covariance, Full
from headstart.initializer.mixture import GaussianMixture


class Gaussian:
    """`p(x) = N(x; mu, S)`, or one Gaussian a class: mixtures whose components need no search."""

    @staticmethod
    def fit(
        data: Tensor,
        covariance: Covariance = Full(),
        labels: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> GaussianMixture:
        """The most likely Gaussian of clean data, as a `GaussianMixture` of one component (or one a class).

        No variance falls below 1e-6 of the data's mean variance, so constant pixels are allowed.

        Args:
            data: Points `[N, *shape]`, floating.
            covariance: `Isotropic()`, `Diagonal()`, `Full()` (small D) or `LowRank(rank)`.
            labels: Classes `[N]` of integers from 0, for a component and a row of class weights for each; or None.
            device: Where to fit; None: where the data is.

        Raises:
            ValueError: Data, labels or the covariance is not as above, or all points are equal.
        """
        data = check_data("fit", data)
        data = data.to(device) if device is not None else data
        known = None if labels is None else check_labels("fit", labels, len(data)).to(data.device)
        check_covariance(covariance)
        fit = fit_gaussian(data.flatten(1), covariance, known)
        class_weight = None if labels is None else fit.class_weight
        return GaussianMixture(fit.components, fit.weight, tuple(data.shape[1:]), class_weight, fit.report)

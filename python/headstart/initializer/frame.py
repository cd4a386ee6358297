"""What a flow is about: shape, noise level, units and classes of the data it was fitted to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from headstart import ops
from headstart.initializer.check import check_labels


class Frame(NamedTuple):
    """What a flow is about: `x = mean + scale y`, `y` standardized.

    Fields:
        shape: Of one sample, of D values.
        sigma: Noise level of the law, in units of the data.
        mean: `[D]`.
        scale: What data are divided by: the standard deviation of a coordinate of the noised data, the mean over
            coordinates taken in its square, where no other was asked for.
        class_weight: Share of each class in the data `[C]`, float64, or None.
    """

    shape: tuple[int, ...]
    sigma: float
    mean: Tensor
    scale: float
    class_weight: Tensor | None

    def draw(self, n: int, seed: int, offset: int) -> Tensor | None:
        """Classes `[n]` with the shares of the data."""
        if self.class_weight is None:
            return None
        cdf = self.class_weight.cumsum(0)
        u = ops.uniform(n, seed, 0, offset, stream=ops.Stream.COMPONENT, device=cdf.device)
        return torch.searchsorted(cdf / cdf[-1], u)

    def classes(self, name: str, labels: int | Tensor, n: int) -> Tensor:
        """Labels `[n]`, or one for all, as classes of the data."""
        weight = self.class_weight
        if weight is None:
            raise ValueError(f"{name}: labels were given, but this flow was fitted without labels")
        labels = torch.as_tensor(labels)
        labels = check_labels(name, labels.expand(n) if labels.ndim == 0 else labels, n).to(weight.device)
        absent = (labels >= len(weight)) | (weight[labels.clamp_max(len(weight) - 1)] == 0)
        if absent.any():
            raise ValueError(f"{name}: no point of class {int(labels[absent][0])} was in the data of the fit")
        return labels

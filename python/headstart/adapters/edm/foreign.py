"""Networks that the user has loaded with the projects' own code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headstart.adapters.edm.label import vectors
from headstart.adapters.edm.network import Level, distinct


class Wrapped:
    """A denoiser around an object called as `net(x, sigma, class_labels)`; `wrap` makes it."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self.label_dim = int(getattr(net, "label_dim", 0))
        self.sigma_min, self.sigma_max = (
            float(getattr(net, name, value)) for name, value in (("sigma_min", 0.0), ("sigma_max", float("inf")))
        )

    def round(self, grid: Tensor) -> Tensor:
        """The grid with each level moved to the nearest that the network knows; 0 stays 0; see `Network.round`."""
        if not hasattr(self.net, "round_sigma"):
            return grid
        rounded = torch.as_tensor(self.net.round_sigma(grid)).to(grid)
        return distinct(grid, torch.where(grid == 0, grid, rounded))

    def __call__(
        self, x: Tensor, sigma: Level, label: Tensor | int | None = None, class_labels: Tensor | None = None,
        **rest: Any,
    ) -> Tensor:  # fmt: skip
        """`D(x, sigma)`, with the conditions of `Network`; `rest` goes to the object."""
        classes = vectors(x, self.label_dim, label, class_labels)
        levels = torch.as_tensor(sigma, dtype=torch.float32, device=x.device)
        return self.net(x, levels, classes, **rest).to(x.dtype)


def wrap(net: Any) -> Wrapped:
    """The denoiser of an original `EDMPrecond`-like object, for users who trust its file and have loaded it.

    It is called as a whole, so its factors are not folded into the solver's rows; what surrounds it is the same.

    Args:
        net: `net(x, sigma, class_labels) -> D`, with `label_dim` and, where there are, `sigma_min`, `sigma_max` and
            `round_sigma`.

    Raises:
        TypeError: `net` cannot be called.
    """
    if not callable(net):
        raise TypeError(f"wrap: net must be callable as net(x, sigma, class_labels), got {type(net).__name__}")
    return Wrapped(net)

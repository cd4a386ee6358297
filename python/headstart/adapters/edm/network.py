"""Networks that the user has loaded with the projects' own code.

Class labels as the vectors that these networks take.

A pretrained network with its preconditioning, as a denoiser.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.adapters.edm.layer import ResampledConv
from headstart.adapters.edm.precondition import Precondition
from headstart.adapters.edm.unet import MPConv
from headstart.denoiser import Preconditioning, denoise


def vectors(x: Tensor, classes: int, label: Tensor | int | None, class_labels: Tensor | None) -> Tensor | None:
    """Class vectors `[B, classes]`, or `[1, classes]` for all: one-hot, zero for no class; None without classes.

    Args:
        x: states `[B, *shape]`.
        classes: number of classes of the network; 0: none, and labels are not looked at, so that such a network can
            guide one with classes.
        label: integers `[B]`, or one for all, 0 to `classes - 1`; `classes` itself, or None: no class. Values on a GPU
            are not read back to check.
        class_labels: vectors in place of `label`, `[B, classes]` or `[1, classes]`.

    Raises:
        ValueError: unlike the above.
    """
    if not classes:
        return None
    if label is None and class_labels is None:
        return torch.zeros(1, classes, device=x.device, dtype=torch.float32)
    n = x.shape[0]
    if class_labels is not None:
        if label is not None or list(class_labels.shape) not in ([n, classes], [1, classes]):
            got = f"{list(class_labels.shape)} and {'no label' if label is None else 'a label'}"
            raise ValueError(f"edm: class_labels must be {[n, classes]} without label, got {got}")
        return class_labels.to(x.device, torch.float32)
    label = torch.as_tensor(label, device=x.device).reshape(-1)
    if label.is_floating_point() or label.numel() not in (1, n):
        raise ValueError(f"edm: label must be integers [{n}], got {label.dtype} {list(label.shape)}")
    if label.device.type == "cpu" and label.numel() and not 0 <= int(label.min()) <= int(label.max()) <= classes:
        raise ValueError(f"edm: label must be 0 to {classes}, got {int(label.min())} to {int(label.max())}")
    return functional.one_hot(label.long(), classes + 1)[:, :-1].float()


TYPES = (torch.float32, torch.float16, torch.bfloat16)
Level = Tensor | float


class Network:
    """The denoiser `D = c_skip x + c_out F(c_in x, c_noise)` of a network that EDM or EDM2 trained; `load` makes it.

    Conditions, by keyword (`cond` of `sample`):
        label: classes, integers `[B]` or one for all, 0 to `label_dim - 1`; `label_dim` itself, or None: no class (the
            zero label, which networks trained with label dropout know). Values on a GPU are not read back to check. A
            network without classes does not look at it, so that it can guide one with classes.
        class_labels: the same as vectors `[B, label_dim]` or `[1, label_dim]`, in place of `label`.
        augment_labels: floats `[B, augment_dim]`, of networks trained with augmentation; None: not augmented.

    Args:
        net: the raw network `F(x, c_noise, class_labels, ...)`.
        precondition: its factors.
        shape: of one sample, (channels, side, side).
        label_dim: number of classes, 0 for none.
        dtype: of convolutions and attention, float32, float16 or bfloat16; embeddings are float32.
    """

    def __init__(
        self, net: nn.Module, precondition: Precondition, shape: tuple[int, int, int], label_dim: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.net, self.precondition, self.shape, self.label_dim = net, precondition, shape, label_dim
        self.dtype: torch.dtype | None = dtype
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.GroupNorm, ResampledConv)) or is_spatial(module):
                module.to(dtype)

    @property
    def classes(self) -> int | None:
        """Number of classes; None for none."""
        return self.label_dim or None

    @property
    def null_label(self) -> int | None:
        """The label of no class; None where there are no classes."""
        return self.classes

    @property
    def sigma_min(self) -> float:
        """Lowest noise level of training."""
        return self.precondition.sigma_min

    @property
    def sigma_max(self) -> float:
        """Highest noise level of training."""
        return self.precondition.sigma_max

    def round(self, grid: Tensor) -> Tensor:
        """The grid with each level moved to the nearest that the network knows: itself, but for iDDPM; 0 stays 0.

        What EDM's sampler does first. The denoiser takes every level: it tells an iDDPM network the nearest that it
        knows, as EDM's does, so that a grid need not be rounded, and a learned start's first level should not be.

        Raises:
            ValueError: two levels of the grid become one.
        """
        levels = [self.precondition.round(sigma) if sigma else 0.0 for sigma in grid.reshape(-1).tolist()]
        return distinct(grid, torch.tensor(levels, dtype=grid.dtype, device=grid.device).reshape(grid.shape))

    def to(self, device: torch.device | str) -> Network:
        """This network, moved."""
        self.net.to(device)
        return self

    def preconditioning(self, sigma: float) -> Preconditioning:
        """Coefficients at one noise level."""
        return self.precondition.at(sigma)

    def raw(
        self, x: Tensor, c_noise: Tensor, label: Tensor | int | None = None, class_labels: Tensor | None = None,
        **rest: Any,
    ) -> Tensor:  # fmt: skip
        """The raw network on `x` `[B, *shape]`, with `c_noise` a 0-dim tensor or `[B]`.

        Raises:
            ValueError: `x`, `label` or `class_labels` unlike the above.
            TypeError: a condition that the network does not know.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"edm: x must be {['B', *self.shape]}, got {list(x.shape)}")
        given = vectors(x, self.label_dim, label, class_labels)
        out = self.net(x, c_noise.float().reshape(-1), given, **rest)
        return out[:, : self.shape[0]].contiguous()  # iDDPM's network also gives a variance

    def __call__(self, x: Tensor, sigma: Level, **cond: Any) -> Tensor:
        """`D(x, sigma)` by itself, for levels `sigma` that are scalar or `[B]`, one a sample."""
        return denoise(self, x, sigma, **cond)


def distinct(grid: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, refused where levels that differ in `grid` do not.

    Raises:
        ValueError: two levels became one.
    """
    same = (rounded.diff() == 0) & (grid.diff() != 0)
    if same.any():
        i = int(same.nonzero()[0])
        raise ValueError(
            f"round: grid must have levels that the network knows apart, got {grid[i]:g} and {grid[i + 1]:g}, both "
            f"{rounded[i]:g} to it; end the grid higher, or take fewer steps"
        )
    return rounded


def is_spatial(module: nn.Module) -> bool:
    """Whether a layer of EDM2 works on feature maps, not on the embedding."""
    return isinstance(module, MPConv) and module.weight.dim() == 4


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
        rounded = torch.as_tensor(self.net.round_sigma(grid), device="cpu").to(grid)
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

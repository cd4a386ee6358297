"""A pretrained network with its preconditioning, as a denoiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from headstart.adapters.edm.label import vectors
from headstart.adapters.edm.layer import ResampledConv
from headstart.adapters.edm.magnitude import MPConv
from headstart.adapters.edm.precondition import Precondition
from headstart.denoiser import Preconditioning, denoise

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
        ValueError: as said.
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

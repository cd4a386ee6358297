"""The network of a `Flow`: a zuko transform and a base law."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headstart.fitting.network import FlowNetwork
from headstart.initializer.base import Base, GaussianBase, StudentTBase
from headstart.initializer.transform import Coupling, Spline, Transform

TRANSFORMS = {kind.__name__: kind for kind in (Coupling, Spline)}
BASES = {kind.__name__: kind for kind in (GaussianBase, StudentTBase)}


class CouplingNetwork(FlowNetwork):
    """Coupling layers given the class, one-hot.

    Args:
        dim: D, at least 2: a coupling needs two halves.
        classes: Number of classes, 0 for none.
        transform, base: The variants.
    """

    def __init__(self, dim: int, classes: int, transform: Transform, base: Base) -> None:
        super().__init__()
        self.dim, self.classes, self.variants = dim, classes, (transform, base)
        self.transform = transform.build(dim, classes)
        self.base = base.build()
        self.row = 64 * dim

    def like(self) -> Tensor:
        """An empty tensor of the weights' dtype and device."""
        return next(self.transform.parameters()).new_empty(0)

    def given(self, label: Tensor | None) -> Tensor | None:
        return None if label is None else functional.one_hot(label, self.classes).to(self.like())

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`z` `[B, D]` and `log |det dz/dx|` `[B]`."""
        return self.transform(self.given(label)).call_and_ladj(x)

    def log_prob(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        z, log_det = self(x, label)
        return self.base.log_prob(z) + log_det

    def inverse(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.transform(self.given(label)).inv(z)

    def latents(self, n: int, seed: int, offset: int) -> Tensor:
        return self.base.latents(n, self.dim, seed, offset, self.like())

    def config(self) -> dict[str, Any]:
        transform, base = self.variants
        return {"transform": describe(transform), "base": describe(base)}


def make_network(dim: int, classes: int, transform: Transform, base: Base, seed: int) -> CouplingNetwork:
    """The network with weights drawn from the seed, torch's own generator left as it was.

    Raises:
        ValueError: Variants of another kind, or samples of one value.
        ImportError: zuko is missing.
    """
    for value, kinds in ((transform, TRANSFORMS), (base, BASES)):
        if not isinstance(value, tuple(kinds.values())):
            raise ValueError(f"Flow: {' or '.join(f'{kind}(...)' for kind in kinds)} is needed, got {value!r}")
    if dim < 2:
        raise ValueError(f"Flow: a sample must have at least 2 values, got {dim}; a GaussianMixture takes one")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CouplingNetwork(dim, classes, transform, base)


def describe(variant: Any) -> dict[str, Any]:
    """A variant as JSON values."""
    return {"kind": type(variant).__name__, **asdict(variant)}


def revive(values: dict[str, Any], kinds: dict[str, Any]) -> Any:
    """The variant back from `describe`."""
    fields = {name: value for name, value in values.items() if name != "kind"}
    return kinds[values["kind"]](**fields)

"""Normalizing flows of coupling layers, a start at one sigma: a zuko transform and a base law."""

from __future__ import annotations

import math
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from headstart.fitting.flow import FlowNetwork
from headstart.io.keyword import gather
from headstart.ops.library import exact
from headstart.start.learn import FlowOptions, training_of
from headstart.start.noised_flow import NoisedFlow, restore, standardize, train
from headstart.start.transform import Base, Coupling, GaussianBase, Spline, StudentTBase, Transform

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from headstart.start.learn import FlowKeywords

Variant = TypeVar("Variant")
TRANSFORMS: dict[str, type[Coupling | Spline]] = {kind.__name__: kind for kind in (Coupling, Spline)}
BASES: dict[str, type[GaussianBase | StudentTBase]] = {kind.__name__: kind for kind in (GaussianBase, StudentTBase)}


class CouplingNetwork(FlowNetwork):
    """Coupling layers given the class, one-hot.

    Args:
        dim: D, at least 2: a coupling needs two halves.
        classes: number of classes, 0 for none.
        transform, base: the variants.
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
        ValueError: variants of another kind, or samples of one value.
        ImportError: zuko is missing.
    """
    for value, kinds in ((transform, TRANSFORMS), (base, BASES)):
        if not isinstance(value, tuple(kinds.values())):
            raise ValueError(f"Flow: {' or '.join(f'{kind}(...)' for kind in kinds)} is needed, got {value!r}")
    if dim < 2:
        raise ValueError(f"Flow: a sample must have at least 2 values, got {dim}; a GaussianMixture takes one")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        return CouplingNetwork(dim, classes, transform, base).float()


def describe(variant: Transform | Base) -> dict[str, Any]:
    """A variant as JSON values."""
    assert is_dataclass(variant)  # `make_network` knows those alone
    assert not isinstance(variant, type)
    return {"kind": type(variant).__name__, **asdict(variant)}


def revive(values: dict[str, Any], kinds: dict[str, type[Variant]]) -> Variant:
    """The variant back from `describe`."""
    fields = {name: value for name, value in values.items() if name != "kind"}
    return kinds[values["kind"]](**fields)


class Flow(NoisedFlow):
    """A coupling flow of the noised data: `x = mean + scale f^-1(z)`, `log p(x) = log p(z) + log |det dz/dx|`.

    Reference: "Normalizing Flows for Probabilistic Modeling and Inference" (Papamakarios, Nalisnick, Rezende, Mohamed,
    Lakshminarayanan, 2021, https://arxiv.org/abs/1912.02762); layers are zuko's (https://zuko.readthedocs.io).
    """

    @classmethod
    @exact
    @torch.inference_mode(False)
    @torch.enable_grad()
    def fit(
        cls,
        data: Tensor,
        sigma: float,
        transform: Transform = Coupling(),
        base: Base = GaussianBase(),
        **options: Unpack[FlowKeywords],
    ) -> Flow:
        """Fit by maximum likelihood to data noised at `sigma`, with Adam; the weights best on held-out points are kept.

        The same data and seed give the same flow on one machine, resumed or not.

        Args:
            data: clean points `[N, *shape]`, floating, of at least 2 values each.
            sigma: noise level, above 0, in units of the data.
            transform: `Coupling(layers, hidden)` or `Spline(layers, hidden, bins)`.
            base: `GaussianBase()`, or `StudentTBase(df, learned)` for heavy tails.
            noise: `Fixed()`, the default: one noised copy of the data; `Dynamic()`: fresh noise at each epoch.
            epochs: most passes over the data (3000).
            batch: points in a step (1000).
            learning_rate: of Adam (0.001).
            heldout: share of the points held out (0.1).
            patience: epochs without a better held-out likelihood after which training stops (200); None: never.
            seed: seed of split, weights, order and noise (0).
            device: where to train; None: where the data is.
            progress: show a progress bar (False).
            checkpoint: file that the run is kept in and resumed from; None: none. Only a run of the same data and
                settings goes on from it; `epochs` and `patience` may differ.
            labels: classes `[N]` of integers from 0, given to the transform one-hot; or None.

        Raises:
            ValueError: an argument out of its range, the checkpoint of another run, or a likelihood that diverges.
            TypeError: an unknown keyword.
            ImportError: zuko is missing.
        """
        asked = gather("fit", FlowOptions, options)
        training = training_of(asked)
        points, frame = standardize(data, sigma, asked.labels, asked.device)
        classes = 0 if frame.class_weight is None else len(frame.class_weight)
        network = make_network(len(frame.mean), classes, transform, base, asked.seed)
        report = train(network, points, frame, training, repr((transform, base)), asked.progress)
        return cls(network, frame, report)

    @classmethod
    def from_file(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Flow:
        """The flow from a file's header and tensors."""
        config = header["network"]
        transform, base = revive(config["transform"], TRANSFORMS), revive(config["base"], BASES)

        def build(shape: tuple[int, ...], classes: int) -> CouplingNetwork:
            return make_network(math.prod(shape), classes, transform, base, seed=0)

        return cls(*restore(header, tensors, build))

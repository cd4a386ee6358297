"""Normalizing flows of coupling layers: a start at one sigma."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.fitting import Fixed, Noising, Training
from headstart.initializer.base import Base, GaussianBase
from headstart.initializer.coupling_network import BASES, TRANSFORMS, CouplingNetwork, make_network, revive
from headstart.initializer.noised_flow import NoisedFlow
from headstart.initializer.standard import restore, standardize, train
from headstart.initializer.transform import Coupling, Transform


class Flow(NoisedFlow):
    """A coupling flow of the noised data: `x = mean + scale f^-1(z)`, `log p(x) = log p(z) + log |det dz/dx|`.

    Reference: "Normalizing Flows for Probabilistic Modeling and Inference" (Papamakarios, Nalisnick, Rezende, Mohamed,
    Lakshminarayanan, 2021, https://arxiv.org/abs/1912.02762); layers are zuko's (https://zuko.readthedocs.io).
    """

    @classmethod
    def fit(
        cls,
        data: Tensor,
        sigma: float,
        transform: Transform = Coupling(),
        base: Base = GaussianBase(),
        noise: Noising = Fixed(),
        epochs: int = 3000,
        batch: int = 1000,
        learning_rate: float = 1e-3,
        heldout: float = 0.1,
        patience: int | None = 200,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress: bool = False,
        checkpoint: str | Path | None = None,
        labels: Tensor | None = None,
    ) -> Flow:
        """Fit by maximum likelihood to data noised at `sigma`, with Adam; the weights best on held-out points are kept.

        The same data and seed give the same flow on one machine, resumed or not.

        Args:
            data: Clean points `[N, *shape]`, floating, of at least 2 values each.
            sigma: Noise level, above 0, in units of the data.
            transform: `Coupling(layers, hidden)` or `Spline(layers, hidden, bins)`.
            base: `GaussianBase()`, or `StudentTBase(df, learned)` for heavy tails.
            noise: `Fixed()`: one noised copy of the data; `Dynamic()`: fresh noise at each epoch.
            epochs: Most passes over the data.
            batch: Points in a step.
            learning_rate: Of Adam.
            heldout: Share of the points held out.
            patience: Epochs without a better held-out likelihood after which training stops; None: never.
            seed: Seed of split, weights, order and noise.
            device: Where to train; None: where the data is.
            progress: Show a progress bar.
            checkpoint: File that the run is kept in and resumed from; None: none. Only a run of the same data and
                settings goes on from it; `epochs` and `patience` may differ.
            labels: Classes `[N]` of integers from 0, given to the transform one-hot; or None.

        Raises:
            ValueError: An argument is not as above, the checkpoint is another run's, or the likelihood diverges.
            ImportError: zuko is missing.
        """
        training = Training(noise, epochs, batch, learning_rate, heldout, patience, seed, checkpoint)
        points, frame = standardize(data, sigma, labels, device)
        classes = 0 if frame.class_weight is None else len(frame.class_weight)
        network = make_network(len(frame.mean), classes, transform, base, seed)
        report = train(network, points, frame, training, repr((transform, base)), progress)
        return cls(network, frame, report)

    @classmethod
    def from_file(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Flow:
        """The flow from a file's header and tensors."""
        config = header["network"]
        transform, base = revive(config["transform"], TRANSFORMS), revive(config["base"], BASES)

        def build(shape: tuple[int, ...], classes: int) -> CouplingNetwork:
            return make_network(math.prod(shape), classes, transform, base, seed=0)

        return cls(*restore(header, tensors, build))

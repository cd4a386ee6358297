"""What is compared on: exact laws with a start fitted to their samples, and the zoo's network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.laws import modes
from headstart.start.transport import asinh_levels, descend, second_moments

HORIZONS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 14.0, 20.0)
KL = 0.01  # the rule: the smallest horizon with at most this many nats between the laws of data and start
CHUNK = 500


@dataclass(frozen=True)
class Case:
    """A denoiser, the start `q` fitted to samples of its law, and what is known of the law.

    Fields:
        denoiser: `D(x, sigma)`.
        start: `q` at the horizon.
        truth: the exact law, or None.
        heldout: samples for calibration, or None: plans are made without the network.
        n: samples a row.
        fine_steps: of the fine solution.
    """

    name: str
    denoiser: Callable[..., Tensor]
    start: Any
    truth: Any
    heldout: Tensor | None
    n: int
    fine_steps: int

    def latents(self, seed: int, first: int = 0, count: int | None = None) -> Tensor:
        """Unit latents of samples `first .. first + count - 1`, of all `n` where no count is given."""
        return hs.ops.normal((count or self.n, *self.start.shape), 1000 + seed, 0, first, device="cpu")

    def fine(self, x: Tensor, sigma: float = 80.0) -> Tensor:
        """The fine solution from states `x` at `sigma`: Adams-Bashforth of order 4, then the last prediction."""
        scale = float(second_moments(self.start.mixture).sum().sqrt())
        levels = asinh_levels(scale, 0.002, sigma, self.fine_steps)

        def denoise(x: Tensor, level: float) -> Tensor:
            return self.denoiser(x, torch.tensor(level, dtype=torch.float64))

        with torch.no_grad():
            return torch.cat([denoise(descend(denoise, part, levels), levels[-1]) for part in x.split(CHUNK)])


def exact_modes(dim: int, seed: int) -> hs.GaussianMixture:
    """The toy law as a mixture of full covariances."""
    law = modes(dim, seed)
    value, vector = law.eigen
    least = value.min(1, keepdim=True).values
    fields = (law.mean, least, vector.mT.contiguous(), value - least)
    return hs.GaussianMixture(hs.ops.Components(*(part.float() for part in fields)), law.weight, (dim,))


def horizon(truth: hs.GaussianMixture, q: hs.GaussianMixture, seed: int) -> float:
    """The smallest of `HORIZONS` with `KL(p || q) <= 0.01` nats, by 4,000 samples of the truth's own."""
    for sigma in HORIZONS:
        x = truth.at(sigma).sample(4000, 500 + seed)
        if float((truth.log_prob(x.double(), sigma) - q.log_prob(x.double(), sigma)).mean()) <= KL:
            return sigma
    return HORIZONS[-1]


def toy(seed: int, quick: bool) -> Case:
    """25 modes in 40 dimensions, a law a seed; q: 25 full covariances fitted to 20,000 samples."""
    truth = exact_modes(40, seed)
    data = truth.at(0.0).sample(4_000 if quick else 20_000, seed)
    q = hs.GaussianMixture.fit(data, 25, hs.Full(), seed=seed)
    return Case("gmm-40", truth.denoise, q.at(horizon(truth, q, seed)), truth, None, 300 if quick else 2000, 160)


def images(seed: int, quick: bool) -> Case:
    """A mixture fitted to 2,000 images of Fashion-MNIST as the truth; q: a smaller one, fitted to 8,000 samples."""
    truth = hs.fit(hs.zoo.images("fashion")[0].flatten(1), max_iter=20)
    data = truth.at(0.0).sample(2_000 if quick else 8_000, seed)
    q = hs.GaussianMixture.fit(data, 16, hs.LowRank(16), seed=seed, max_iter=20)
    return Case("image-784", truth.denoise, q.at(horizon(truth, q, seed)), truth, None, 200 if quick else 1000, 160)


def zoo(seed: int, quick: bool) -> Case:
    """The zoo's network, unconditional, and the demo's start and horizon."""
    q = hs.fit(hs.zoo.images("fashion")[0], max_iter=20)
    heldout = hs.zoo.images("fashion", "test")[0]
    return Case("zoo", hs.zoo.denoiser("fashion"), q.at(3.0), None, heldout, 16 if quick else 128, 96)


CASES: dict[str, Callable[[int, bool], Case]] = {"gmm-40": toy, "image-784": images, "zoo": zoo}

"""A mixture at a noise level: the start it was fitted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart import ops

if TYPE_CHECKING:
    from headstart.initializer.family import Mixture


@dataclass(frozen=True)
class MixtureStart:
    """A mixture at noise level `sigma`: the law of `x_0 + sigma n`.

    Args:
        mixture: The law of `x_0`.
        sigma: Noise level, in units of the data.
    """

    mixture: Mixture
    sigma: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mixture.shape

    @property
    def conditional(self) -> bool:
        return self.mixture.conditional

    def sample(self, n: int, seed: int = 0, offset: int = 0, labels: int | Tensor | None = None) -> Tensor:
        """Samples `offset .. offset + n - 1` of `seed`, `[n, *shape]`: the same bits in any split into batches.

        Args:
            n: Samples wanted.
            seed: Seed of the noise.
            offset: Index of the first sample.
            labels: Classes `[n]`, or one for all, or None.
        """
        device = self.mixture.components.mean.device
        cdf = self.mixture.rows("sample", labels, n).cumsum(1).to(device)
        u = ops.uniform(n, seed, 0, offset, stream=ops.Stream.COMPONENT, device=device)
        cdf = (cdf / cdf[:, -1:]).expand(n, -1).contiguous()
        component = torch.searchsorted(cdf, u[:, None])[:, 0]
        x = self.mixture.draw(component, self.sigma, seed, offset)
        return x.reshape(n, *self.shape)

    def transport(self, z: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Where the classic latents `80 z` are at `sigma` on the mixture's own probability-flow ODE, `[n, *shape]`.

        The same `z` then gives nearly the same sample as the classic start, at no network call.

        Args:
            z: Unit normals `[n, *shape]`.
            labels: Classes `[n]`, or one for all, or None.
        """
        return self.mixture.transport(z, self.sigma, labels=labels)

    def from_latents(self, z: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """`transport`, by the name that `sample(latents=z)` knows."""
        return self.transport(z, labels)

    def history(self, x: Tensor, above: float, labels: int | Tensor | None = None) -> list[Tensor]:
        """Denoised predictions of the start itself for states `x` `[n, *shape]`, at `sigma` and at `above`.

        The state at `above` is one Euler step up the mixture's flow: `above / sigma x + (1 - above / sigma) D(x)`.
        """
        ratio, near = above / self.sigma, self.denoise(x, labels)
        higher = ops.affine(x.contiguous(), ratio, [(1 - ratio, near)])
        return [near, self.mixture.denoise(higher, above, labels)]

    def log_prob(self, x: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Log-density in nats of `x` `[n, *shape]`, as `[n]`."""
        return self.mixture.log_prob(x, self.sigma, labels)

    def denoise(self, x: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Posterior mean of `x_0` given `x` `[n, *shape]`."""
        return self.mixture.denoise(x, self.sigma, labels)

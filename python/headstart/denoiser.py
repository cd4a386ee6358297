"""Denoisers `D(x, sigma) = E[x0 | x]`: the one thing a sampler asks of a network.

A denoiser is any callable `D(x, sigma, **cond) -> x0` with `x` `[B, *shape]` and `sigma` a 0-dim tensor. One that can
say `D = c_skip x + c_out F(c_in x, c_noise)` (a `Preconditioned`) has those factors folded into the solver's rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from headstart.argument import require_number


class Denoiser(Protocol):
    """`D(x, sigma, **cond)`: posterior mean of the data, `[B, *shape]`, given states `x` `[B, *shape]` at `sigma`."""

    def __call__(self, x: Tensor, sigma: Tensor, **cond: Any) -> Tensor: ...


class Preconditioning(NamedTuple):
    """Coefficients of `D = c_skip x + c_out F(c_in x, c_noise)`."""

    c_skip: float
    c_out: float
    c_in: float
    c_noise: float


@runtime_checkable
class Preconditioned(Protocol):
    """A denoiser in two parts: a raw network `F`, and the affine factors around it at each noise level."""

    dtype: torch.dtype | None  # of the network's input; None: of the state

    def preconditioning(self, sigma: float) -> Preconditioning: ...

    def raw(self, x: Tensor, c_noise: Tensor, **cond: Any) -> Tensor: ...


def edm_preconditioning(sigma: float, sigma_data: float) -> Preconditioning:
    """`c_skip = d^2/t`, `c_out = sigma d/sqrt(t)`, `c_in = 1/sqrt(t)`, `c_noise = ln(sigma)/4`, `t = sigma^2 + d^2`.

    Args:
        sigma: noise level, positive.
        sigma_data: root-mean-square d of the data.

    Reference: "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras et al., 2022,
    https://arxiv.org/abs/2206.00364), table 1.
    """
    total = sigma**2 + sigma_data**2
    root = math.sqrt(total)
    return Preconditioning(sigma_data**2 / total, sigma * sigma_data / root, 1 / root, math.log(sigma) / 4)


def denoise(network: Preconditioned, x: Tensor, sigma: Tensor | float, **cond: Any) -> Tensor:
    """`D(x, sigma)` of a preconditioned network, for levels `sigma` that are scalar or `[B]`, one a sample."""
    levels = torch.as_tensor(sigma, dtype=torch.float64, device=getattr(sigma, "device", "cpu"))
    rows = [network.preconditioning(level) for level in levels.reshape(-1).tolist()]
    factors = torch.tensor(rows, dtype=torch.float64, device="cpu")
    shape = [-1] + [1] * (x.dim() - 1) if levels.dim() else []
    c_skip, c_out, c_in = (factors[:, i].reshape(shape).to(x) for i in range(3))
    c_noise = factors[:, 3].reshape(levels.shape).to(x)
    raw = network.raw((c_in * x).to(network.dtype or x.dtype), c_noise, **cond)
    return c_skip * x + c_out * raw.to(x.dtype)


def predict(denoiser: Denoiser | Preconditioned, x: Tensor, sigma: Tensor | float, **cond: Any) -> Tensor:
    """`D(x, sigma)` of a denoiser of either kind, for levels `sigma` that are scalar or `[B]`, one a sample."""
    if callable(denoiser):
        return denoiser(
            x,
            torch.as_tensor(
                sigma,
                dtype=None if isinstance(sigma, Tensor) else torch.float64,
                device=getattr(sigma, "device", "cpu"),
            ),
            **cond,
        )
    return denoise(denoiser, x, sigma, **cond)


class EDM:
    """The denoiser `D = c_skip x + c_out F(c_in x, c_noise)` of a raw network with EDM preconditioning.

    Args:
        net: `F(x, c_noise, **cond)`, with `x` `[B, *shape]` and `c_noise` a 0-dim tensor (`[B]` when levels differ).
        sigma_data: root-mean-square of the data the network was trained on.
        dtype: of the network's input, float32, float16 or bfloat16; None: the state's own.
        shape: of one sample, where the network takes no other.

    Raises:
        ValueError: sigma_data not positive.
        TypeError: a network that EDM's or EDM2's own classes have preconditioned already.

    Reference: see `edm_preconditioning`.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        sigma_data: float = 0.5,
        dtype: torch.dtype | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        if hasattr(net, "round_sigma") or hasattr(net, "logvar_fourier"):
            raise TypeError(
                f"EDM: net must be a raw network F(x, c_noise), got {type(net).__name__}, which is preconditioned; "
                "headstart.adapters.edm.wrap(net) makes a denoiser of it"
            )
        sigma_data = require_number("EDM", "sigma_data", sigma_data)
        if not 0 < sigma_data < math.inf:
            raise ValueError(f"EDM: sigma_data must be positive and finite, got {sigma_data}")
        self.net = net
        self.sigma_data = sigma_data
        self.dtype = dtype
        self.shape = shape

    def preconditioning(self, sigma: float) -> Preconditioning:
        """Coefficients at one noise level."""
        return edm_preconditioning(sigma, self.sigma_data)

    def raw(self, x: Tensor, c_noise: Tensor, **cond: Any) -> Tensor:
        """The raw network."""
        return self.net(x, c_noise, **cond)

    def __call__(self, x: Tensor, sigma: Tensor | float, **cond: Any) -> Tensor:
        """`D(x, sigma)` by itself, for levels `sigma` that are scalar or `[B]`, one a sample."""
        return denoise(self, x, sigma, **cond)

"""Base laws of a flow: the laws that its transform carries the data to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

from headstart import ops
from headstart.start.scale_mixture import MAX_DF, MIN_DF, radius, radius_table


class Base(Protocol):
    """A base law, as given to `Flow.fit`."""

    def build(self) -> BaseLaw: ...


class BaseLaw(nn.Module):
    """`N(0, I)`; the Student-t law differs by its scale alone."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of `z` `[B, D]`, as `[B]`."""
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))

    def latents(self, n: int, dim: int, seed: int, offset: int, like: Tensor) -> Tensor:
        """Draws `offset .. offset + n - 1` of `seed`, `[n, dim]`, in the dtype and on the device of `like`."""
        return ops.normal((n, dim), seed, 0, offset, stream=ops.Stream.START, dtype=like.dtype, device=like.device)


class StudentTLaw(BaseLaw):
    """Multivariate Student-t, `z = n sqrt(df / chi_square(df))`: one scale for all of a sample's coordinates."""

    def __init__(self, df: float, learned: bool) -> None:
        super().__init__()
        self.log_df = nn.Parameter(torch.tensor(math.log(df), dtype=torch.float32, device="cpu"), requires_grad=learned)

    @property
    def df(self) -> Tensor:
        return self.log_df.double().exp().clamp(MIN_DF, MAX_DF)

    def log_prob(self, z: Tensor) -> Tensor:
        half, dim = self.df / 2, z.shape[1]  # in float64: the logarithms of gamma nearly cancel
        constant = torch.lgamma(half + dim / 2) - torch.lgamma(half) - dim / 2 * (2 * math.pi * half).log()
        return (constant - (half + dim / 2) * torch.log1p(z.double().square().sum(1) / (2 * half))).to(z.dtype)

    def latents(self, n: int, dim: int, seed: int, offset: int, like: Tensor) -> Tensor:
        u = ops.uniform(n, seed, 0, offset, stream=ops.Stream.SCALE, device=like.device)
        first = torch.zeros(n, dtype=torch.int64, device=like.device)
        scale = radius(table_of(float(self.df.detach())), first, u)
        return super().latents(n, dim, seed, offset, like) * scale[:, None].to(like.dtype)


@lru_cache(maxsize=16)
def table_of(df: float) -> Tensor:
    """The table of draws of `sqrt(df / chi_square(df))`."""
    return radius_table(torch.tensor([df], dtype=torch.float64, device="cpu"))


@dataclass(frozen=True)
class GaussianBase:
    """`N(0, I)`."""

    def build(self) -> BaseLaw:
        return BaseLaw()


@dataclass(frozen=True)
class StudentTBase:
    """Multivariate Student-t, for heavy tails: a Gaussian base gives every flow of bounded slope light ones.

    Args:
        df: degrees of freedom, in [0.5, 2000].
        learned: whether they are learned with the weights, from `df` on.

    Raises:
        ValueError: `df` is out of range.
    """

    df: float = 4.0
    learned: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.df, int | float) or isinstance(self.df, bool) or not MIN_DF <= self.df <= MAX_DF:
            raise ValueError(f"StudentTBase: df must be in [{MIN_DF:g}, {MAX_DF:g}], got {self.df!r}")

    def build(self) -> BaseLaw:
        return StudentTLaw(self.df, self.learned)

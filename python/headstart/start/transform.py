"""Parts of a coupling flow: base laws, Gaussian or Student-t, and transforms, affine or splines, built by zuko."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from headstart import ops
from headstart.argument import shown
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


MAX_LAYERS, MAX_WIDTH = 1000, 2**20


class Transform(Protocol):
    """A family of transforms, as given to `Flow.fit`."""

    def build(self, dim: int, context: int) -> nn.Module:
        """The lazy zuko transform of `dim` coordinates given `context` numbers: the identity to begin with."""
        ...


@dataclass(frozen=True)
class Coupling:
    """Affine coupling layers, `y_b = x_b exp(s(x_a)) + t(x_a)`, `y_a = x_a`.

    Args:
        layers: number of layers, each with the halves of the one before exchanged.
        hidden: widths of the conditioner's hidden layers (ReLU).

    Raises:
        ValueError: a number below 1.

    Reference: "Density estimation using Real NVP" (Dinh, Sohl-Dickstein, Bengio, 2017,
    https://arxiv.org/abs/1605.08803).
    """

    layers: int = 5
    hidden: tuple[int, ...] = (50, 50, 50)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", check_sizes("Coupling", self.layers, self.hidden))

    def build(self, dim: int, context: int) -> nn.Module:
        univariate = import_zuko().transforms.MonotonicAffineTransform
        return stack(self.layers, self.hidden, dim, context, univariate, [(), ()])


@dataclass(frozen=True)
class Spline:
    """Coupling layers whose maps are monotonic rational-quadratic splines on [-5, 5], the identity outside.

    Args:
        layers, hidden: as in `Coupling`.
        bins: pieces of a spline.

    Raises:
        ValueError: a number below 1, or fewer than 2 bins.

    Reference: "Neural Spline Flows" (Durkan, Bekasov, Murray, Papamakarios, 2019, https://arxiv.org/abs/1906.04032).
    """

    layers: int = 5
    hidden: tuple[int, ...] = (50, 50, 50)
    bins: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", check_sizes("Spline", self.layers, self.hidden))
        if not isinstance(self.bins, int) or not 2 <= self.bins <= MAX_WIDTH:
            raise ValueError(f"Spline: bins must be an integer of at least 2, got {self.bins!r}")

    def build(self, dim: int, context: int) -> nn.Module:
        univariate = import_zuko().transforms.MonotonicRQSTransform
        return stack(self.layers, self.hidden, dim, context, univariate, [(self.bins,), (self.bins,), (self.bins - 1,)])


def check_sizes(name: str, layers: object, hidden: object) -> tuple[int, ...]:
    """Sizes of a network that could be built: the hidden ones."""
    if not isinstance(layers, int) or not 1 <= layers <= MAX_LAYERS:
        raise ValueError(f"{name}: layers must be an integer from 1 to {MAX_LAYERS}, got {layers!r}")
    if not isinstance(hidden, (list, tuple)):
        raise TypeError(f"{name}: hidden must be a tuple of integers, got {shown(hidden)}")
    if not all(isinstance(width, int) and 1 <= width <= MAX_WIDTH for width in hidden):
        raise ValueError(f"{name}: hidden must be integers of at least 1, got {hidden!r}")
    return tuple(hidden)


def import_zuko() -> Any:
    """The zuko package.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        import zuko
    except ImportError as error:
        raise ImportError('Flow: zuko is needed; pip install "headstart[flows]"') from error
    return zuko


def stack(
    layers: int, hidden: tuple[int, ...], dim: int, context: int, univariate: Any, shapes: list[tuple[int, ...]]
) -> nn.Module:
    """Coupling layers whose conditioners begin at zero."""
    zuko = import_zuko()
    made = []
    for layer in range(layers):
        mask = halves(dim, layer)
        one = zuko.flows.GeneralCouplingTransform(dim, context, mask, univariate, shapes, hidden_features=hidden)
        nn.init.zeros_(one.hyper[-1].weight)
        nn.init.zeros_(one.hyper[-1].bias)
        made.append(one)
    return zuko.lazy.LazyComposedTransform(*made)


def halves(dim: int, layer: int) -> Tensor:
    """Which coordinates `[dim]` a layer leaves alone: those with one value of a bit of their index.

    Two layers go by each bit, one for each half, before the next: any two coordinates are soon told apart.
    """
    bits = max(1, (dim - 1).bit_length())
    return (torch.arange(dim, dtype=torch.int64, device="cpu") >> (layer // 2 % bits)) % 2 == layer % 2

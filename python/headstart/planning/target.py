"""Targets that a plan is tuned towards, as residuals and as figures of merit.

The network's own fine solution: `e = x - x_fine` of each sample from the same latents, as it is and in coordinates
where minor directions count as much, each sample divided by its rms. The data: for features `y`, whitened on the data,
the mean `m` and covariance `C` of a few hundred samples, `r = (m, C_ii - 1, 0.7 C_ij)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headstart.metrics.features import GradientFeatures

Features = Callable[[Tensor], Tensor]
OFF_DIAGONAL = 0.7
LEADING = 32  # coordinates of each set of features
MIN_SPREAD = 0.02  # of the data's scale: what counts as a standard deviation at least
MIN_SIDE = 8  # pixels from which a sample of three dimensions is taken for an image
DRAWS, QUANTILE = 40, 0.9  # groups of data that a floor is taken from, and of their mean squares
ROWS = 10_000  # data points that moments are taken of, at most
MAX_WIDE = 1024  # features up to which covariances are taken whole
MIN_ERROR = 1e-6  # where float32 leaves nothing to gain
SHARE = 0.25  # of the paired ratio in a merit that is of the data


@dataclass(frozen=True)
class Whitened:
    """Features in coordinates with mean 0 and covariance 1 on the data, `y = (f(x) - center) @ axes`.

    Attributes:
        features: `[B, *shape] -> [B, F]`.
        center, axes: `[F]` and `[F, R]`, float64.
        rows: the data's own coordinates `[N, R]`, which floors are drawn from.
    """

    features: Features
    center: Tensor
    axes: Tensor
    rows: Tensor

    @classmethod
    def of(cls, features: Features, data: Tensor, pick: Callable[[int], Sequence[int]]) -> Whitened:
        """Those of the data's principal coordinates that `pick(how many)` names, the leading one first."""
        raw = features_of(features, data)
        center = raw.mean(0)
        value, vector = principal(raw - center)
        chosen = list(pick(min(len(value), len(raw) - 1)))
        least = MIN_SPREAD**2 * float(value.mean()) + 1e-30
        axes = vector[:, chosen] / value[chosen].clamp_min(least).sqrt()
        return cls(features, center, axes, (raw - center) @ axes)

    def residual(self, x: Tensor) -> Tensor:
        """Moments of samples `x` minus the data's."""
        return moments((features_of(self.features, x) - self.center) @ self.axes) - moments(self.rows)

    def floor(self, n: int, seed: int) -> float:
        """Square residual that nine in ten groups of `n` fresh real samples stay below.

        Groups are drawn from the data with replacement; the data's own distance from their law is added.
        """
        generator, whole = torch.Generator().manual_seed(seed), moments(self.rows)
        draws = [
            torch.randint(len(self.rows), (n,), generator=generator, dtype=torch.int64, device="cpu")
            for _ in range(DRAWS)
        ]
        squares = torch.stack([(moments(self.rows[some]) - whole).square().sum() for some in draws])
        return float(squares.quantile(QUANTILE)) * (1 + n / len(self.rows))


def principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances, largest first, and directions `[F, R]` of centred rows `[N, F]`; of some rows where F is large."""
    if centred.shape[1] <= MAX_WIDE:
        value, vector = torch.linalg.eigh(centred.T @ centred / max(len(centred) - 1, 1))
        return value.flip(0).clamp_min(0), vector.flip(1)
    some = centred[:MAX_WIDE]
    _, value, vector = torch.linalg.svd(some, full_matrices=False)
    return value.square() / max(len(some) - 1, 1), vector.T


def features_of(features: Features, x: Tensor) -> Tensor:
    """Float64 features on the CPU, `[N, F]`, in batches.

    Raises:
        ValueError: features of another rank or number.
    """
    with torch.no_grad():
        rows = torch.cat([features(part) for part in x.split(256)]).double().cpu()
    if rows.ndim != 2 or len(rows) != len(x):
        raise ValueError(f"tune: features must be [{len(x)}, F], got {list(rows.shape)}")
    return rows


def moments(y: Tensor) -> Tensor:
    """Mean, variances minus 1 and weighted covariances of whitened coordinates `[N, R]`."""
    mean = y.mean(0)
    covariance = (y - mean).T @ (y - mean) / (len(y) - 1)
    upper = torch.triu_indices(y.shape[1], y.shape[1], 1)
    return torch.cat([mean, covariance.diagonal() - 1, OFF_DIAGONAL * covariance[upper[0], upper[1]]])


def is_image(data: Tensor) -> bool:
    """Whether data `[N, *shape]` are images of 1 or 3 channels in [-1, 1], not latents or vectors."""
    pictures = is_raster(data) and data.shape[1] in (1, 3)
    return pictures and float(data.abs().max()) <= 1.01


def is_raster(x: Tensor) -> bool:
    """Whether samples have a height and a width."""
    return x.ndim == 4 and min(x.shape[2:]) >= MIN_SIDE


def spaced(first: int, last: int, count: int) -> list[int]:
    """Up to `count` integers from `first` to `last - 1`, in equal ratios."""
    if last - first <= count:
        return list(range(first, last))
    ratio = math.log(last / (first + 1)) / (count - 1)
    return sorted({min(last - 1, round((first + 1) * math.exp(ratio * i)) - 1) for i in range(count)})


def leading(size: int) -> list[int]:
    return list(range(min(LEADING, size)))


def across(size: int) -> list[int]:
    """Half leading ones, half spread over all the others, the least one too."""
    few = LEADING // 2
    return leading(size) if size <= LEADING else [*range(few), *spaced(few, size, LEADING - few)]


def feature_sets(data: Tensor, features: Features | None, seed: int) -> tuple[Whitened, Whitened]:
    """The features that a plan is tuned on, and others that it is chosen by.

    Images: gradient features, leading components; and pixels, leading and minor directions. Vectors and latents: their
    own coordinates, leading and minor; and absolute values of random mixtures of them, which see shapes that moments
    do not. Where `features` is given, tuning takes those, and the choice takes the built-in ones.
    """
    data = data[
        torch.randperm(len(data), generator=torch.Generator().manual_seed(seed), dtype=torch.int64, device="cpu")[
            :ROWS
        ].to(data.device)
    ]
    image = is_image(data)
    plain = Whitened.of((lambda x: x.clamp(-1, 1).flatten(1)) if image else (lambda x: x.flatten(1)), data, across)
    if features is not None:
        return Whitened.of(features, data, leading), plain
    if image:
        return Whitened.of(GradientFeatures.fit(data, min(LEADING, len(data) - 1)), data, leading), plain
    size = plain.axes.shape[1]
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64, device="cpu")).Q

    def bent(x: Tensor) -> Tensor:
        return ((x.flatten(1).double().cpu() - plain.center) @ plain.axes @ turn).abs()

    return plain, Whitened.of(bent, data, leading)


@dataclass(frozen=True)
class Pairing:
    """Errors against fine solutions in two sets of coordinates: as they are, and with minor directions brought up.

    Attributes:
        lift: of images and rasters, whose second set is what a 3 x 3 average leaves: the factor that gives both sets
            the same size on clean points.
        axes: otherwise `[D, R]`: principal directions over their standard deviations, times the scale of the whole.
    """

    lift: float
    axes: Tensor | None

    @classmethod
    def of(cls, x: Tensor) -> Pairing:
        """From clean points `[N, *shape]`: data where there is some, else fine solutions."""
        x = x.double().cpu()
        scale = float((x - x.mean(0)).square().mean().sqrt())
        if is_raster(x):
            return cls(scale / max(float(high_pass(x).square().mean().sqrt()), 1e-3 * scale), None)
        flat = (x - x.mean(0)).flatten(1)
        value, vector = principal(flat)
        share = flat.shape[1] / (flat.shape[1] + len(flat))  # few points say little of minor directions
        value = (1 - share) * value + share * scale**2
        least = (MIN_SPREAD * scale) ** 2
        return cls(1.0, scale * vector / value.clamp_min(least).sqrt())

    def split(self, error: Tensor) -> tuple[Tensor, Tensor]:
        """Errors `[B, *shape]` in both sets, each `[B, D]` float64 and of mean square a coordinate."""
        error = error.double().cpu()
        plain = error.flatten(1)
        minor = self.lift * high_pass(error).flatten(1) if self.axes is None else plain @ self.axes
        return plain / math.sqrt(plain.shape[1]), minor / math.sqrt(minor.shape[1])

    def rms(self, error: Tensor) -> tuple[float, float]:
        """Mean over samples of the root mean square in both sets."""
        plain, minor = self.split(error)
        return float(plain.norm(dim=1).mean()), float(minor.norm(dim=1).mean())


def high_pass(x: Tensor) -> Tensor:
    """The remainder that a 3 x 3 average leaves of images `[B, C, H, W]`."""
    return x - functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


@dataclass(frozen=True)
class Merit:
    """How far samples are from both targets: mean rms in both sets of coordinates, and moments over their floor.

    Attributes:
        plain, minor: see `Pairing.rms`.
        excess: mean square moment residual over that of as many real samples, for both sets of features; or none.
    """

    plain: float
    minor: float
    excess: tuple[float, ...]

    def value(self, given: Merit) -> float:
        """The figure that is compared, the lower the better; `given` sets the scale of the distances."""
        pair = 0.5 * (self.plain / max(given.plain, MIN_ERROR) + self.minor / max(given.minor, MIN_ERROR))
        if not self.excess:
            return pair
        return sum(math.log(max(1.0, one)) for one in self.excess) / len(self.excess) + SHARE * pair


@dataclass(frozen=True)
class Goal:
    """Both targets.

    Attributes:
        pairing: how errors against fine solutions count.
        sets: features to tune on and to choose by; empty: the target is the network.
        floors: their moments' mean squares for real samples.
    """

    pairing: Pairing
    sets: tuple[Whitened, ...]
    floors: tuple[float, ...]

    def merit(self, x: Tensor, fine: Tensor) -> Merit:
        """Of end states `x` `[n, *shape]`, the first of which have fine solutions."""
        plain, minor = self.pairing.rms(x[: len(fine)] - fine)
        residuals = [float(one.residual(x).square().sum()) for one in self.sets]
        return Merit(plain, minor, tuple(r / floor for r, floor in zip(residuals, self.floors, strict=True)))

    def objective(self, x: Tensor, fine: Tensor) -> float:
        """The loss that the steps go down on: the first set of features, or mean distances."""
        if self.sets:
            return float(self.sets[0].residual(x).square().sum()) / self.floors[0]
        return sum(self.pairing.rms(x - fine))


def paired_rows(pairing: Pairing, x: Tensor, fine: Tensor) -> Tensor:
    """Errors of the samples with fine solutions in both sets of coordinates, `[m, D]`."""
    return torch.cat(pairing.split(x[: len(fine)] - fine), 1)


def figures(merit: Merit, given: Merit) -> dict[str, Any]:
    """A merit as JSON values."""
    return {
        "merit": merit.value(given), "error": merit.plain, "error of minor directions": merit.minor,
        "moments over their floor": list(merit.excess),
    }  # fmt: skip

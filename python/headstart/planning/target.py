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
SLACK = 1.1  # moments over their floor up to which a plan's samples count as real
GUARD, SMALL = 4.0, 0.1  # distances that a plan may have: over the given plan's, or a share of the data's scale
FILTERS, WINDOWS, CELLS = 24, (3, 5), 4  # random filters of each window, and cells a side that responses are pooled to


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

    Images: gradient features, and responses of random filters, leading components of both (pixels would hold it
    against a plan that it brings back texture, which holds little of their energy). Vectors and latents: their own
    coordinates, leading and minor; and absolute values of random mixtures of them, which see shapes that moments do
    not. Where `features` is given, tuning takes those, and the choice takes random filters or the data's coordinates.
    """
    data = data[
        torch.randperm(len(data), generator=torch.Generator().manual_seed(seed), dtype=torch.int64, device="cpu")[
            :ROWS
        ].to(data.device)
    ]
    if is_image(data):
        own = features or GradientFeatures.fit(data, min(LEADING, len(data) - 1))
        return Whitened.of(own, data, leading), Whitened.of(random_filters(data, seed), data, leading)
    plain = Whitened.of(lambda x: x.flatten(1), data, across)
    if features is not None:
        return Whitened.of(features, data, leading), plain
    size = plain.axes.shape[1]
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64, device="cpu")).Q

    def bent(x: Tensor) -> Tensor:
        return ((x.flatten(1).double().cpu() - plain.center) @ plain.axes @ turn).abs()

    return plain, Whitened.of(bent, data, leading)


def random_filters(data: Tensor, seed: int) -> Features:
    """Sizes of the responses of random zero-mean filters on a raster of cells, square roots, of unit variance on data.

    Args:
        data: images `[N, C, H, W]`.
        seed: of the filters.
    """
    generator = torch.Generator().manual_seed(seed)
    banks = []
    for window in WINDOWS:
        shape = FILTERS, data.shape[1], window, window
        bank = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        bank = bank - bank.mean((2, 3), keepdim=True)
        banks.append(bank / bank.flatten(1).norm(dim=1)[:, None, None, None])

    def respond(x: Tensor) -> Tensor:
        x = x.detach().float().cpu().clamp(-1, 1)
        sizes = [functional.adaptive_avg_pool2d(functional.conv2d(x, bank).abs(), CELLS) for bank in banks]
        return torch.cat(sizes, 1).flatten(1).sqrt()

    deviation = features_of(respond, data).std(0)
    scale = deviation.clamp_min(0.1 * float(deviation.square().mean().sqrt()) + 1e-12)
    return lambda x: respond(x).double() / scale


@dataclass(frozen=True)
class Pairing:
    """Errors against fine solutions in two sets of coordinates: as they are, and with minor directions brought up.

    Attributes:
        scale: root mean square deviation of clean points from their mean.
        lift: of images and rasters, whose second set is what a 3 x 3 average leaves: the factor that gives both sets
            the same size on clean points.
        axes: otherwise `[D, R]`: principal directions over their standard deviations, times the scale of the whole.
    """

    scale: float
    lift: float
    axes: Tensor | None

    @classmethod
    def of(cls, x: Tensor) -> Pairing:
        """From clean points `[N, *shape]`: data where there is some, else fine solutions."""
        x = x.double().cpu()
        scale = float((x - x.mean(0)).square().mean().sqrt())
        if is_raster(x):
            return cls(scale, scale / max(float(high_pass(x).square().mean().sqrt()), 1e-3 * scale), None)
        flat = (x - x.mean(0)).flatten(1)
        value, vector = principal(flat)
        share = flat.shape[1] / (flat.shape[1] + len(flat))  # few points say little of minor directions
        value = (1 - share) * value + share * scale**2
        least = (MIN_SPREAD * scale) ** 2
        return cls(scale, 1.0, scale * vector / value.clamp_min(least).sqrt())

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
        small: a distance that is small against the data's spread.
    """

    plain: float
    minor: float
    excess: tuple[float, ...]
    small: float = 0.0

    @property
    def real(self) -> bool:
        """Whether moments in every set of features are as near to the data's as real samples' are."""
        return bool(self.excess) and max(self.excess) < SLACK

    def value(self, given: Merit, by_distance: bool = False) -> float:
        """The figure that is compared, the lower the better.

        Args:
            given: of the plan given; sets the scale of the distances.
            by_distance: distances decide although there are data: their moments tell nothing more. Else the last set
                of features does, on which no step went down, and distances are only kept within bounds.
        """
        least = [max(one, MIN_ERROR) for one in (given.plain, given.minor)]
        if not self.excess or by_distance:
            return 0.5 * (self.plain / least[0] + self.minor / least[1])
        if not all(e < max(GUARD * at, self.small) for e, at in zip((self.plain, self.minor), least, strict=True)):
            return math.inf
        return math.log(self.excess[-1])


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
        excess = tuple(r / floor for r, floor in zip(residuals, self.floors, strict=True))
        return Merit(plain, minor, excess, SMALL * self.pairing.scale)

    def objective(self, x: Tensor, fine: Tensor) -> float:
        """The loss that the steps go down on: the first set of features, or mean distances."""
        if self.sets:
            return float(self.sets[0].residual(x).square().sum()) / self.floors[0]
        return sum(self.pairing.rms(x - fine))


def paired_rows(pairing: Pairing, x: Tensor, fine: Tensor) -> Tensor:
    """Errors of the samples with fine solutions in both sets of coordinates, `[m, D]`."""
    return torch.cat(pairing.split(x[: len(fine)] - fine), 1)


def figures(merit: Merit, given: Merit, by_distance: bool) -> dict[str, Any]:
    """A merit as JSON values."""
    return {
        "merit": merit.value(given, by_distance), "error": merit.plain, "error of minor directions": merit.minor,
        "moments over their floor": list(merit.excess),
    }  # fmt: skip

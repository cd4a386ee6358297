"""How near samples come to data: each figure beside the real-against-real floor at the same n."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart.metrics.check import as_samples, require_count, require_same_range, require_seed
from headstart.metrics.frechet import KernelDistance, Statistics, frechet_distance, kernel_distance, statistics
from headstart.metrics.neighbour import LEVEL, memorization
from headstart.metrics.wasserstein import max_sliced_wasserstein, sliced_wasserstein, tail_ratios

FLOORS = 3  # groups of real samples that a floor is the mean of, where there are as many
KERNEL_SUBSET = 1000  # of the kernel distance, from five times as many samples on

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        metric: `FD`, `KID`, `SWD`, `MaxSWD` (0 where laws agree), `tail q` (ratio of quantiles along MaxSWD's
            direction, 1), `nearest` and `copies` (see `Memorization`: 1 and 0.01).
        features: what it is taken on.
        value: of the samples.
        floor: the same of real samples, as many, in the samples' place: the mean over groups; None: too few are real.
        error: standard error of `value`, where it is known.
    """

    metric: str
    features: str
    value: float
    floor: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """All figures, of `n` samples against `n` real ones; each floor is the mean over `groups` others of that size."""

    figures: tuple[Figure, ...]
    n: int
    groups: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"n": self.n, "groups": self.groups, "figures": [asdict(figure) for figure in self.figures]}


class Evaluator:
    """Compares any number of sets of samples with one reference; what is real is worked on once.

    Frechet distance and KID on every feature map; sliced and max-sliced Wasserstein distance and tails on the samples
    themselves; with a training set, how near to it the samples lie. Figures of n samples depend on n, so both sides
    have the same n; the floor's groups are real samples outside the reference, from `data` where there are n more,
    else from `train`.

    Args:
        data: real samples `[M, *shape]`: floats, or bytes (uint8), which become `x / 127.5 - 1`; tensors or numpy
            arrays. Images whose units differ from the samples' are refused, see `require_same_range`.
        n: samples of each side, taken at random.
        features: maps `[B, *shape]` to `[B, F]`, by name; None as a map: the flattened samples.
        train: what the samples' law was learned from, `[T, *shape]`, apart from `data`.
        seed: of the choice of n.
        batch: samples per call of a feature map.
        real: features `[M, F]` of other real samples, by the name of a map: the reference and floors of that map.

    Raises:
        TypeError: samples that are no arrays of floats or bytes.
        ValueError: a training set of another shape or in other units, or n out of range.
    """

    def __init__(
        self, data: Tensor, n: int, features: Mapping[str, Features | None] | None = None, train: Tensor | None = None,
        seed: int = 0, batch: int = 64, real: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        data = as_samples("evaluate", "data", data)
        train = None if train is None else as_samples("evaluate", "train", train)
        seed, batch = require_seed("evaluate", seed), require_count("evaluate", "batch", batch, 1)
        features, others = named(features, "features"), named(real, "real")
        if train is not None and train.shape[1:] != data.shape[1:]:
            wanted, got = list(data.shape[1:]), list(train.shape[1:])
            raise ValueError(f"evaluate: train must be of shape {wanted} each, like the data, got {got}")
        n = require_count("evaluate", "n", n, 2, len(data))
        if train is not None:
            require_same_range("evaluate", train, data)
        self.n, self.seed, self.batch, self.train = n, seed, batch, train
        self.reference, *self.real = islice(groups(data, n, seed), 1 + FLOORS)
        self.trained = not self.real and train is not None  # then the floor's groups are part of the training set
        if not self.real and train is not None:
            self.real = list(islice(groups(train, n, seed), FLOORS))
        self.maps = {name: self._learn(name, map_, others.get(name)) for name, map_ in features.items()}
        self.sliced = mean([sliced_wasserstein(x, self.reference) for x in self.real])
        self.largest = mean([max_sliced_wasserstein(x, self.reference).distance for x in self.real])
        held = train is not None and n >= 1 / LEVEL
        near = [] if self.trained or not held else [memorization(x, train, self.reference) for x in self.real]  # type: ignore[arg-type]
        self.nearest, self.copies = mean([one.ratio for one in near]), mean([one.copies for one in near])

    def _learn(self, name: str, function: Features | None, others: Tensor | None) -> Known:
        if others is None:
            rows, *real = (describe(function, x, self.batch) for x in (self.reference, *self.real))
        elif len(others) < self.n:
            raise ValueError(f"evaluate: real must be at least n = {self.n} samples on {name}, got {len(others)}")
        else:
            rows, *real = islice(groups(others, self.n, self.seed), 1 + FLOORS)
        reference = statistics(rows)
        frechet = mean([frechet_distance(statistics(x), reference) for x in real])
        return Known(function, rows, reference, frechet, mean([kernel(x, rows).value for x in real]))

    def __call__(self, samples: Tensor) -> Evaluation:
        """All figures of samples `[N, *shape]`, at least `n`.

        Raises:
            TypeError: samples that are no array of floats or bytes.
            ValueError: samples of another shape, in other units, not finite, or fewer than `n`.
        """
        samples = as_samples("evaluate", "samples", samples)
        if samples.shape[1:] != self.reference.shape[1:]:
            wanted, got = list(self.reference.shape[1:]), list(samples.shape[1:])
            raise ValueError(f"evaluate: samples must be of shape {wanted} each, like the data, got {got}")
        if len(samples) < self.n:
            raise ValueError(f"evaluate: n must be at most the number of samples {len(samples)}, got {self.n}")
        require_same_range("evaluate", samples, self.reference)
        x = next(groups(samples, self.n, self.seed))
        figures = [figure for name, known in self.maps.items() for figure in self._features(name, known, x)]
        figures += self._sliced(x)
        if self.train is not None and self.n >= 1 / LEVEL:
            near = memorization(x, self.train, self.reference)
            figures.append(Figure("nearest", "samples", near.ratio, self.nearest))
            figures.append(Figure("copies", "samples", near.copies, self.copies))
        return Evaluation(tuple(figures), self.n, len(self.real))

    def _features(self, name: str, known: Known, x: Tensor) -> list[Figure]:
        rows = describe(known.function, x, self.batch)
        distance, (value, error) = frechet_distance(statistics(rows), known.statistics), kernel(rows, known.rows)
        return [Figure("FD", name, distance, known.frechet), Figure("KID", name, value, known.kernel, error)]

    def _sliced(self, x: Tensor) -> list[Figure]:
        """Sliced distances, and tails along the direction in which the samples are worst."""
        largest = max_sliced_wasserstein(x, self.reference)
        tails = [tail_ratios(part, self.reference, largest.direction) for part in (x, *self.real)]
        figures = [
            Figure("SWD", "samples", sliced_wasserstein(x, self.reference), self.sliced),
            Figure("MaxSWD", "samples", largest.distance, self.largest),
        ]
        for level, ratio in tails[0].items():
            figures.append(Figure(f"tail {level:g}", "samples", ratio, mean([tail[level] for tail in tails[1:]])))
        return figures


class Known(NamedTuple):
    """A feature map with what it says of the reference `[n, F]`, and the floors on it."""

    function: Features | None
    rows: Tensor
    statistics: Statistics
    frechet: float | None
    kernel: float | None


def evaluate(
    samples: Tensor, data: Tensor, features: Mapping[str, Features | None] | None = None, train: Tensor | None = None,
    n: int | None = None, seed: int = 0, batch: int = 64,
) -> Evaluation:  # fmt: skip
    """Distances between samples and data, and the same distances between real samples; see `Evaluator`.

    Args:
        samples: `[N, *shape]`, in the units of the data.
        data, features, train, seed, batch: as in `Evaluator`.
        n: samples taken of each side; None: all, which must be equally many.

    Raises:
        TypeError: samples that are no arrays of floats or bytes.
        ValueError: other shapes or units, N and M unequal without `n`, fewer than `n`, or as the single distances.
    """
    samples, data = as_samples("evaluate", "samples", samples), as_samples("evaluate", "data", data)
    if n is None and len(samples) != len(data):
        few = min(len(samples), len(data))
        got = f"{len(samples)} and {len(data)}"
        raise ValueError(f"evaluate: samples and data must be equally many, got {got}; n = {few} takes so many of each")
    if samples.shape[1:] != data.shape[1:]:  # before any work on the data
        wanted, got = list(data.shape[1:]), str(list(samples.shape[1:]))
        raise ValueError(f"evaluate: samples must be of shape {wanted} each, like the data, got {got}")
    count = len(samples) if n is None else require_count("evaluate", "n", n, 2)
    if count > len(samples):
        raise ValueError(f"evaluate: n must be at most the number of samples {len(samples)}, got {count}")
    return Evaluator(data, count, features, train, seed, batch)(samples)


def named(maps: Any, what: str) -> Mapping[str, Any]:
    """Feature maps, or features of real samples, by name; None: none."""
    if maps is None:
        return {}
    fits = callable if what == "features" else (lambda value: isinstance(value, Tensor) and value.ndim == 2)
    if not isinstance(maps, Mapping):
        raise TypeError(f"evaluate: {what} must be a dict from names, got {type(maps).__name__}")
    for name, value in maps.items():
        if not isinstance(name, str) or not (fits(value) or (value is None and what == "features")):
            wanted = "functions of samples, or None" if what == "features" else "features [M, F]"
            raise TypeError(f"evaluate: {what} must be a dict from names to {wanted}, got {type(value).__name__}")
    return maps


def groups(x: Tensor, n: int, seed: int) -> Iterator[Tensor]:
    """Disjoint random groups of `n` rows."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed), device="cpu", dtype=torch.int64)
    return (x[chosen.to(x.device)] for chosen in order.split(n) if len(chosen) == n)


def describe(function: Features | None, x: Tensor, batch: int) -> Tensor:
    """Features `[N, F]`."""
    with torch.no_grad():
        return torch.cat([function(part) if function else part.flatten(1) for part in x.split(batch)])


def kernel(x: Tensor, y: Tensor) -> KernelDistance:
    """Over all pairs where they are few, else in disjoint subsets."""
    return kernel_distance(x, y, KERNEL_SUBSET if len(x) >= 5 * KERNEL_SUBSET else None)


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None

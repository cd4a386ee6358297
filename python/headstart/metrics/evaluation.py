"""How near samples come to data: each figure beside the real-against-real floor at the same n."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from headstart.metrics.frechet import frechet_distance, statistics
from headstart.metrics.kernel import kernel_distance
from headstart.metrics.neighbour import LEVEL, memorization
from headstart.metrics.tail import tail_ratios
from headstart.metrics.wasserstein import max_sliced_wasserstein, sliced_wasserstein
from headstart.progress import track

FLOORS = 3  # groups of real samples that a floor is the mean of, where there are as many
KERNEL_SUBSET = 1000  # of the kernel distance, from five times as many samples on

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Fields:
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


@dataclass(frozen=True)
class Sets:
    """Sets of one size: samples, reference, other real ones; what was learned from; whether `real` is part of it."""

    samples: Tensor
    reference: Tensor
    real: list[Tensor]
    train: Tensor | None
    trained: bool


def evaluate(
    samples: Tensor, data: Tensor, features: Mapping[str, Features | None] | None = None, train: Tensor | None = None,
    n: int | None = None, seed: int = 0, batch: int = 64, progress: bool = False,
) -> Evaluation:  # fmt: skip
    """Distances between samples and data, and the same distances between real samples.

    Frechet distance and KID on every feature map; sliced and max-sliced Wasserstein distance and tails on the samples
    themselves; with a training set, how near to it the samples lie. Figures of n samples depend on n, so both sides
    have the same n; the floor's groups are real samples outside the reference, from `data` where there are n more,
    else from `train`.

    Args:
        samples: `[N, *shape]`.
        data: real samples `[M, *shape]`.
        features: maps `[B, *shape]` to `[B, F]`, by name; None as a map: the flattened samples.
        train: what the samples' law was learned from, `[T, *shape]`, apart from `data`.
        n: samples taken of each side, at random; None: all, which must be equally many.
        seed: of that choice.
        batch: samples per call of a feature map.
        progress: show a bar.

    Raises:
        ValueError: other shapes, N and M unequal without `n`, fewer than `n`, or as the single distances.
    """
    sets = part("evaluate", samples, data, train, n, seed)
    maps = dict(features or {})
    figures: list[Figure] = []
    with track("evaluating", len(maps) + 3, progress) as advance:
        for name, function in maps.items():
            figures += feature_figures(name, function, sets, batch)
            advance(f"evaluating: {name} done")
        for figure in (*sliced_figures(sets, advance), *memory_figures(sets)):
            figures.append(figure)
        advance()
    return Evaluation(tuple(figures), len(sets.samples), len(sets.real))


def part(op: str, samples: Tensor, data: Tensor, train: Tensor | None, n: int | None, seed: int) -> Sets:
    """Sets of `n`, at random and disjoint.

    Raises:
        ValueError: as `evaluate`.
    """
    for name, other in (("samples", samples), ("train", train)):
        if other is not None and other.shape[1:] != data.shape[1:]:
            raise ValueError(f"{op}: {name} must be of shape {list(data.shape[1:])} each, got {list(other.shape[1:])}")
    count = len(samples) if n is None else n
    if n is None and len(samples) != len(data):
        few = min(len(samples), len(data))
        got = f"{len(samples)} and {len(data)}"
        raise ValueError(f"{op}: samples and data must be equally many, got {got}; n = {few} takes so many of each")
    if not 2 <= count <= min(len(samples), len(data)):
        raise ValueError(f"{op}: n must be from 2 to {min(len(samples), len(data))}, got {count}")
    generator = torch.Generator().manual_seed(seed)

    def shuffled(x: Tensor) -> Iterator[Tensor]:
        groups = torch.randperm(len(x), generator=generator).split(count)
        return (x[group.to(x.device)] for group in groups if len(group) == count)

    made, (reference, *real) = next(shuffled(samples)), islice(shuffled(data), 1 + FLOORS)
    if real or train is None:
        return Sets(made, reference, real, train, trained=False)
    return Sets(made, reference, list(islice(shuffled(train), FLOORS)), train, trained=True)


def feature_figures(name: str, function: Features | None, sets: Sets, batch: int) -> list[Figure]:
    """Frechet distance and KID on one feature map."""

    def describe(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([function(some) if function else some.flatten(1) for some in x.split(batch)])

    rows, (made, *real) = describe(sets.reference), [describe(x) for x in (sets.samples, *sets.real)]
    reference = statistics(rows)
    frechet = [frechet_distance(statistics(x), reference) for x in (made, *real)]
    subset = KERNEL_SUBSET if len(rows) >= 5 * KERNEL_SUBSET else None
    kernel = [kernel_distance(x, rows, subset) for x in (made, *real)]
    return [
        Figure("FD", name, frechet[0], mean(frechet[1:])),
        Figure("KID", name, kernel[0].value, mean([one.value for one in kernel[1:]]), kernel[0].error),
    ]


def sliced_figures(sets: Sets, advance: Callable[..., None]) -> list[Figure]:
    """Sliced distances, and tails along the direction in which the samples are worst."""
    every = (sets.samples, *sets.real)
    sliced = [sliced_wasserstein(x, sets.reference) for x in every]
    advance("evaluating: sliced distance done")
    largest = [max_sliced_wasserstein(x, sets.reference) for x in every]
    advance("evaluating: max-sliced distance done")
    tails = [tail_ratios(x, sets.reference, largest[0].direction) for x in every]
    distances = [one.distance for one in largest]
    figures = [
        Figure("SWD", "samples", sliced[0], mean(sliced[1:])),
        Figure("MaxSWD", "samples", distances[0], mean(distances[1:])),
    ]
    for level, ratio in tails[0].items():
        figures.append(Figure(f"tail {level:g}", "samples", ratio, mean([tail[level] for tail in tails[1:]])))
    return figures


def memory_figures(sets: Sets) -> list[Figure]:
    """How near the samples lie to the training set, where there is one and enough are held out."""
    if sets.train is None or len(sets.reference) < 1 / LEVEL:
        return []
    near = memorization(sets.samples, sets.train, sets.reference)
    real = [] if sets.trained else [memorization(x, sets.train, sets.reference) for x in sets.real]
    return [
        Figure("nearest", "samples", near.ratio, mean([one.ratio for one in real])),
        Figure("copies", "samples", near.copies, mean([one.copies for one in real])),
    ]


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None

"""What standard normals must look like: running sums over chunks of noise, and the p-values of exact laws for them.

Every p-value is two-sided or of an upper tail, and below 1e-6 about once in 1e6 generators that are right.

The law as implemented is not quite normal: u has 2^31 values, so no radius exceeds 6.6604, and float32 arithmetic
moves a z by up to 4e-7 (1 + |z|). The first matters only to the tail counts: from level 4 they are compared with the
law as implemented, `tail`. The second, and u elsewhere, is below what 1e9 normals resolve: at most 2e-7 in a
distribution function whose sampled deviation is 3e-5, 1e-6 in a moment whose standard error is 3e-5 or more.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special, stats

EDGES = np.arange(-8, 8 + 2**-10, 2**-10)  # the line in 2^14 cells; whole numbers are edges
CELL = np.diff(special.ndtr(EDGES))
BANDS = 32  # of about equal probability, made of whole cells
BAND = np.minimum((special.ndtr(EDGES[:-1] + 2**-11) * BANDS).astype(np.int16), BANDS - 1)
BAND_PROBABILITY = np.bincount(BAND, CELL)
LEVELS = (1, 2, 3, 4, 5, 6)


def cell_of(z: np.ndarray) -> np.ndarray:
    """Index of the cell of the line that each float64 z lies in."""
    return ((z + 8) * 2**10).astype(np.int64)


def tail(level: float) -> float:
    """`P(|z| > level)`; from level 4 the sum over every u that the generator can draw, the angle being continuous."""
    if level < 4:
        return math.erfc(level / math.sqrt(2))
    u = (np.arange(math.ceil(math.exp(-(level**2) / 2) * 2**31)) + 0.5) / 2**31
    radius = np.sqrt(-2 * np.log(u))
    return float((2 / np.pi * np.arccos(level / radius[radius > level])).sum()) / 2**31


def two_sided(score: float) -> float:
    return math.erfc(abs(score) / math.sqrt(2))


def chi_square(counts: np.ndarray, probability: np.ndarray) -> float:
    """Upper p-value of counts; cells expected fewer than 10 times are added up to one."""
    expected = counts.sum() * probability.ravel()
    many = expected >= 10
    expected = np.append(expected[many], expected[~many].sum())
    observed = np.append(counts.ravel()[many], counts.ravel()[~many].sum())
    kept = expected > 0
    statistic = ((observed - expected)[kept] ** 2 / expected[kept]).sum()
    return float(stats.chi2.sf(statistic, kept.sum() - 1))


class Marginal:
    """One normal at a time: four moments, the whole histogram, Kolmogorov-Smirnov on its edges, tail counts."""

    def __init__(self) -> None:
        self.n, self.sums, self.counts = 0, np.zeros(4), np.zeros(len(CELL), np.int64)

    def add(self, z: np.ndarray) -> None:
        square = z * z
        self.n += z.size
        self.sums += [z.sum(), square.sum(), np.dot(square, z), np.dot(square, square)]
        self.counts += np.bincount(cell_of(z), minlength=len(CELL))

    def p_values(self) -> dict[str, float]:
        below = np.cumsum(self.counts) / self.n
        distance = np.abs(below - special.ndtr(EDGES[1:])).max()
        out = {"histogram": chi_square(self.counts, CELL), "KS": special.kolmogorov(math.sqrt(self.n) * distance)}
        for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            score = (self.sums[power - 1] / self.n - mean) / math.sqrt(variance / self.n)
            out[f"moment {power}"] = two_sided(score)
        for level in LEVELS:
            count = self.counts[EDGES[1:] <= -level].sum() + self.counts[EDGES[:-1] >= level].sum()
            law = stats.binom(self.n, tail(level))
            p = min(1, 2 * min(law.cdf(count), law.sf(count - 1)))
            out[f"{count} beyond {level}, {law.mean():.6g} expected"] = p
        return out


class Joint:
    """Two normals at a time: correlations of them and of their squares, and chi-square on a square of bands."""

    def __init__(self) -> None:
        self.n, self.sums, self.counts = 0, np.zeros(4), np.zeros(BANDS * BANDS, np.int64)

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        square_a, square_b = a * a - 1, b * b - 1
        self.n += a.size
        self.sums += [np.dot(a, b), np.dot(square_a, square_b), np.dot(a, square_b), np.dot(square_a, b)]
        bands = BAND[cell_of(a)] * BANDS + BAND[cell_of(b)]
        self.counts += np.bincount(bands, minlength=BANDS * BANDS)

    def p_values(self) -> dict[str, float]:
        scores = self.sums / np.sqrt(self.n * np.array([1, 4, 2, 2]))
        out = {name: two_sided(s) for name, s in zip(("a b", "a² b²", "a b²", "a² b"), scores, strict=True)}
        return {**out, "bands": chi_square(self.counts, np.outer(BAND_PROBABILITY, BAND_PROBABILITY))}


class Polar:
    """Radius and angle of pairs: chi-square on equal bands of `exp(-r^2 / 2)` and of the angle."""

    def __init__(self) -> None:
        self.counts = np.zeros(BANDS * BANDS, np.int64)

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        u = np.exp(-(a * a + b * b) / 2)
        turn = np.arctan2(b, a) / (2 * np.pi) + 0.5
        bands = [np.minimum((BANDS * x).astype(np.int64), BANDS - 1) for x in (u, turn)]
        self.counts += np.bincount(bands[0] * BANDS + bands[1], minlength=BANDS * BANDS)

    def p_values(self) -> dict[str, float]:
        return {"radius and angle": chi_square(self.counts, np.full(BANDS * BANDS, BANDS**-2))}

"""Noise against its law: moments, histogram, tails, and independence of whatever lies at neighbouring addresses.

Seeds are fixed, so a check that holds once holds always; each would refuse a right generator once in 1e6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from noise_law import Joint, Marginal, Polar, tail, two_sided
from scipy import stats

from headstart import _core, ops

ALPHA = 1e-6
CHUNK = 2**13  # what stays in cache
BASE = {"seed": 20, "step": 3, "stream": 1}
long = pytest.mark.statistics


def sizes(quick: int, full: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("n", [quick, pytest.param(full, marks=long)], ids=["quick", "full"])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Chunks are too short for threads to be worth their start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def judge(p_values: dict[str, float]) -> None:
    for name, p in p_values.items():
        print(f"{name}: p = {p:.4g}")
    assert min(p_values.values()) > ALPHA, p_values


def normals(n: int, **change: int) -> Iterator[np.ndarray]:
    """Every second sample of an address, from sample 0 or from `offset`, until `n` normals are out."""
    address = {**BASE, "offset": 0, **change}
    first = address.pop("offset")
    for offset in range(0, 2 * (-(-n // CHUNK)), 2):
        yield ops.normal((1, CHUNK), offset=first + offset, **address)[0].numpy().astype(np.float64)


@sizes(10**8, 10**9)
def test_one_normal(n: int) -> None:
    law = Marginal()
    for z in normals(n):
        law.add(z)
    judge(law.p_values())


def test_tails_as_implemented() -> None:
    """Quantized radii move the counts beyond 4 and 5 by less than a thousandth, and end the law at 6.66."""
    for level, change in ((4, 1e-5), (5, 1e-3)):
        assert tail(level) == pytest.approx(math.erfc(level / math.sqrt(2)), rel=change)
    assert tail(6.65) > 0
    assert tail(6.67) == 0


# A lag of 1 from element 0 is one Box-Muller pair, 2 the two pairs of one Philox call, 4 and more another counter.
@sizes(2**23, 2**30)
@pytest.mark.parametrize(("lag", "skip"), [(1, 0), (1, 1), (2, 0), (3, 0), (4, 0), (8, 0), (1024, 0)])
def test_neighbouring_elements(lag: int, skip: int, n: int) -> None:
    law = Joint()
    for z in normals(n, seed=21):
        pairs = z[skip:][: (CHUNK - skip) // (2 * lag) * 2 * lag].reshape(-1, 2, lag)
        law.add(pairs[:, 0].ravel(), pairs[:, 1].ravel())
    judge(law.p_values())


@sizes(2**23, 2**30)
def test_radius_and_angle(n: int) -> None:
    law = Polar()
    for z in normals(n, seed=22):
        law.add(z[0::2], z[1::2])
    judge(law.p_values())


@sizes(2**22, 2**29)
@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1}, {"step": 4}, {"stream": 2}, {"seed": 21}, {"seed": 20 + 2**32}, {"seed": 20 + 2**63},
        {"step": 1, "stream": 3},
    ],
    ids=str,
)  # fmt: skip
def test_neighbouring_addresses(change: dict[str, int], n: int) -> None:
    law = Joint()
    for a, b in zip(normals(n), normals(n, **change), strict=True):
        law.add(a, b)
    judge(law.p_values())


@sizes(300, 20_000)
def test_one_bit_of_counter_or_key_flips_half_the_words_bits(n: int) -> None:
    """Small counters and keys, as they are used; each of 192 bits of input against each of 128 of output."""
    draw = np.random.default_rng(0)
    flips = np.zeros((192, 128), np.int64)
    for _ in range(n):
        inputs = draw.integers(0, [2**16, 2**16, 64, 5, 2**10, 2]).tolist()
        words = []
        for bit in range(-1, 192):
            changed = [word ^ (1 << bit - 32 * i if bit // 32 == i else 0) for i, word in enumerate(inputs)]
            words.append(_core.philox(changed[:4], changed[4:]))
        bits = np.unpackbits(np.array(words, np.uint32).view(np.uint8), axis=1)
        flips += bits[1:] ^ bits[:1]
    scores = (flips - n / 2) / np.sqrt(n / 4)
    worst = 2 * flips.size * stats.binom(n, 0.5).sf(n / 2 + np.abs(flips - n / 2).max() - 1)
    spread = ((scores**2).sum() - scores.size) / np.sqrt(scores.size * (2 - 2 / n))
    sum_ = scores.sum() / np.sqrt(scores.size)
    judge({"worst bit": min(1, float(worst)), "spread": two_sided(spread), "sum": two_sided(sum_)})


FAULTS = {
    "scale": (lambda a, b: (1.003 * a, b), Marginal),
    "mean": (lambda a, b: (a + 0.003, b), Marginal),
    "cut at 4": (lambda a, b: (a.clip(-4, 4), b), Marginal),
    "coarse": (lambda a, b: (np.round(a, 2), b), Marginal),
    "correlated": (lambda a, b: (a, 0.003 * a + b), Joint),
    "equal size": (lambda a, b: (a, np.where(np.abs(a) > 2.5, np.abs(a) * np.sign(b), b)), Joint),
    "one radius": (lambda a, b: (a, np.where(a > 2, np.sqrt(np.maximum(9 - a * a, 0)), b)), Polar),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str) -> None:
    spoil, kind = FAULTS[fault]
    law = kind()
    for z in normals(2**24, seed=23):
        a, b = spoil(z[0::2], z[1::2])
        law.add(*((a,) if kind is Marginal else (a, b)))
    assert min(law.p_values().values()) < ALPHA

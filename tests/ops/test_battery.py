"""dieharder on the raw words, in three orders: elements of a sample, samples at one element, seeds at one counter."""

from __future__ import annotations

import numpy as np
import pytest
from battery import ORDERS, REASON, Result, dieharder, words

from headstart.ops import reference

SEEDS = (2**33 + 5, 2**50 + 11)  # of a test, and of its repetition
QUICK = ["0", "15", "206"]
# Without 5, 6, 7 and 14, which dieharder itself calls suspect or not to be used, and 17 and 201, which take minutes.
FULL = [
    "0", "1", "2", "3", "4", "8", "9", "10", "11", "12", "13", "15", "16", "100", "101", "102", "200 -n 4", "202 -n 5",
    "203 -n 4", "204", "205", "206", "207", "208", "209",
]  # fmt: skip
needs_dieharder = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def test_words_are_those_of_the_reference() -> None:
    """Also where seed, sample and step pass from one 32-bit word to the next or are the largest."""
    for seed, offset in ((2**32 - 1, 7), (2**63 - 1, 2**32 - 5)):
        drawn = words(3, 5, 9, seed, offset)
        for i in range(3):
            assert (drawn[i] == reference.words(5, 9, seed + i, 0, offset, 0).numpy()).all()


def run(order: str, test: str) -> None:
    """Nothing may fail, and what is weak must not be so again on four times the data of another seed."""

    def results(seed: int, options: list[str]) -> list[Result]:
        return dieharder(lambda k: ORDERS[order](seed, k), ["-d", *test.split(), *options])

    first = results(SEEDS[0], [])
    print(*first, sep="\n")
    assert first
    if all(result.verdict == "PASSED" for result in first):
        return
    second = results(SEEDS[1], ["-p", str(4 * first[0].psamples)])
    print(*second, sep="\n")
    for once, again in zip(first, second, strict=True):
        assert once.verdict != "FAILED", once
        assert again.verdict != "FAILED", again
        assert "PASSED" in (once.verdict, again.verdict), (once, again)


@needs_dieharder
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("test", QUICK)
def test_quick_battery(order: str, test: str) -> None:
    run(order, test)


@pytest.mark.statistics
@needs_dieharder
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("test", FULL)
def test_full_battery(order: str, test: str) -> None:
    run(order, test)


@needs_dieharder
def test_the_battery_sees_a_fault() -> None:
    """Every eighth word repeats the one before it."""

    def spoiled(k: int) -> np.ndarray:
        drawn = ORDERS["element"](1, k)
        drawn.ravel()[7::8] = drawn.ravel()[6::8]
        return drawn

    assert any(result.verdict == "FAILED" for test in QUICK for result in dieharder(spoiled, ["-d", test]))

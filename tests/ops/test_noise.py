"""Noise: known answers, agreement with the reference, and the address it promises to be a function of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from headstart import _core, ops
from headstart.ops import reference

# Random123's known-answer vectors for philox4x32-10: counter, key, words.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
ISAS = ["baseline", "avx2", "avx512"]


def parse(words: str) -> list[int]:
    return [int(word, 16) for word in words.split()]


@pytest.fixture
def each_isa(request: pytest.FixtureRequest):
    before = _core.isa()
    if not _core.set_isa(request.param):
        pytest.skip(f"this machine has no {request.param}")
    yield request.param
    _core.set_isa(before)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(counter: str, key: str, words: str) -> None:
    assert _core.philox(parse(counter), parse(key)) == parse(words)
    tensors = [torch.tensor(word) for word in parse(counter)]
    k0, k1 = parse(key)
    assert [int(word) for word in reference.philox(tensors, (k0, k1))] == parse(words)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (5, 3), (2, 17), (4001, 5), (7, 784), (2, 3, 33, 31), (3, 5000)])
@pytest.mark.parametrize("seed", [0, 2**32 + 7, 2**64 - 1])
def test_normals_match_the_reference(shape: tuple[int, ...], seed: int) -> None:
    z = ops.normal(shape, seed, step=3, offset=11, stream=2)
    exact = reference.normal(shape, seed, step=3, offset=11, stream=2)
    assert ((z - exact).abs() / (1 + exact.abs())).max() < 4e-7


@pytest.mark.parametrize("each_isa", ISAS, indirect=True)
def test_every_vector_width_gives_the_same_bits(each_isa: str) -> None:
    x = reference.normal((37, 1003), 1, 0).float()
    wide = [ops.normal((37, 1003), 9, 1), ops.normal((999, 5), 9, 1), ops.noise(x, 0.3, 5, 6)]
    _core.set_isa("baseline")
    narrow = [ops.normal((37, 1003), 9, 1), ops.normal((999, 5), 9, 1), ops.noise(x, 0.3, 5, 6)]
    assert all(torch.equal(a, b) for a, b in zip(wide, narrow, strict=True))


@pytest.mark.parametrize("draw", [lambda seed: ops.normal((3, 5), seed), lambda seed: ops.uniform(3, seed)])
def test_every_bit_of_a_seed_matters_and_numpy_seeds_are_the_same(draw: Callable[[Any], torch.Tensor]) -> None:
    seeds = [0, *(2**bit for bit in range(64)), 2**64 - 1]
    assert len({draw(seed).double().numpy().tobytes() for seed in seeds}) == len(seeds)
    for seed in (np.int64(7), np.uint64(2**64 - 1), np.int32(7)):
        assert torch.equal(draw(seed), draw(int(seed)))


@pytest.mark.parametrize("columns", [1, 3, 4, 10, 512, 515, 2048, 2049, 5000])
def test_a_sample_is_the_same_in_any_batch(columns: int) -> None:
    whole = ops.normal((40, columns), 3, step=2, offset=5)
    parts = [ops.normal((n, columns), 3, step=2, offset=5 + at) for at, n in ((0, 1), (1, 7), (8, 32))]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole[:, : columns // 2], ops.normal((40, columns // 2), 3, step=2, offset=5))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_enter(threads: int) -> None:
    before = torch.get_num_threads()
    whole = ops.normal((64, 3000), 1)
    torch.set_num_threads(threads)
    try:
        assert torch.equal(whole, ops.normal((64, 3000), 1))
    finally:
        torch.set_num_threads(before)


def test_every_part_of_the_address_matters() -> None:
    at = {"seed": 1, "step": 2, "offset": 3, "stream": 4}
    draws = [ops.normal((8, 64), **at)]
    draws += [ops.normal((8, 64), **{**at, name: value + 100}) for name, value in at.items()]
    draws.append(ops.normal((8, 64), **{**at, "seed": at["seed"] + 2**32}))
    flat = torch.stack([draw.flatten() for draw in draws])
    correlation = torch.corrcoef(flat) - torch.eye(len(draws))
    assert correlation.abs().max() < 5 / math.sqrt(flat.shape[1])


def test_moments_and_tails() -> None:
    z = ops.normal((64, 2**16), 12).double().flatten()
    n = z.numel()
    for power, exact, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean().item() - exact) < 5 * math.sqrt(variance / n)
    for level in (1, 2, 3, 4):
        expected = n * math.erfc(level / math.sqrt(2))
        assert abs((z.abs() > level).sum().item() - expected) < 5 * math.sqrt(expected)
    assert z.abs().max() < 6.67


def test_uniform() -> None:
    u = ops.uniform(200_000, 4, offset=9)
    assert torch.equal(u, reference.uniform(200_000, 4, offset=9))
    assert u.min() > 0
    assert u.max() <= 1
    assert torch.histc(u, 64, 0, 1).sub(200_000 / 64).abs().max() < 6 * math.sqrt(200_000 / 64)


@pytest.mark.parametrize("state", [torch.float32, torch.float64])
@pytest.mark.parametrize("result", [None, torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_noise_formula(state: torch.dtype, result: torch.dtype | None) -> None:
    x = reference.normal((5, 3, 7), 1, 0).to(state)
    out = None if result is None else torch.empty(5, 3, 7, dtype=result)
    got = ops.noise(x, 0.7, seed=8, step=1, offset=2, out=out)
    exact = reference.noise(x, 0.7, 8, 1, 2)
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2}.get(got.dtype, 1e-6)
    assert got.dtype == (result or state)
    assert ((got.double() - exact).abs() / (1 + exact.abs())).max() < tolerance
    if result in (torch.float16, torch.bfloat16):
        assert torch.equal(got, ops.noise(x, 0.7, 8, 1, 2).to(result))


def test_in_place_and_empty() -> None:
    x = reference.normal((4, 9), 1, 0).float()
    fresh = ops.noise(x, 0.5, 1, 0)
    assert ops.noise(x, 0.5, 1, 0, out=x) is x
    assert torch.equal(x, fresh)
    assert ops.noise(torch.empty(0, 5), 1.0, 0, 0).shape == (0, 5)
    assert ops.noise(torch.empty(3, 0), 1.0, 0, 0).shape == (3, 0)
    assert ops.normal((0, 4), 1).shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": torch.ones(2, 3, dtype=torch.int64)}, "noise: x must be float32 or float64, got int64"),
        ({"x": torch.ones(2, 3, dtype=torch.float16)}, "noise: x must be float32 or float64, got float16"),
        ({"seed": -1}, r"noise: seed must be an integer in \[0, 2\^64\), got -1"),
        ({"seed": 2**64}, "noise: seed must be"),
        ({"seed": 1.5}, "noise: seed must be"),
        ({"seed": True}, "noise: seed must be an integer .*, got True"),
        ({"seed": torch.tensor(1)}, "noise: seed must be an integer"),
        ({"seed": "1"}, "noise: seed must be an integer"),
        ({"step": 2**32}, "noise: step must be"),
        ({"offset": 2**32 - 1}, r"noise: offset \+ rows"),
        ({"offset": np.uint32(2**32 - 1)}, r"noise: offset \+ rows"),
        ({"out": torch.empty(3, 2)}, r"noise: out must be .*\[2, 3\] on cpu, got float32 \[3, 2\]"),
        ({"out": torch.empty(2, 6)[:, ::2]}, "noise: out must be contiguous"),
        ({"x": torch.tensor(1.0)}, r"noise: x must be \[B, \*shape\]"),
    ],
)
def test_bad_input(change: dict, error: str) -> None:
    arguments = {"x": torch.ones(2, 3), "scale": 1.0, "seed": 0, "step": 0}
    with pytest.raises((TypeError, ValueError), match=error):
        ops.noise(**{**arguments, **change})


@pytest.mark.large
def test_more_than_2_31_elements() -> None:
    columns = 2**30 + 5
    z = ops.normal((2, columns), 1, dtype=torch.bfloat16)
    assert torch.equal(z[1, -5:], ops.normal((1, columns), 1, offset=1, dtype=torch.bfloat16)[0, -5:])
    assert z[1].isfinite().all()

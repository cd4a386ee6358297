"""The CUDA kernels' own source, run on the host by `cuda_shim`: rows, samples and uniforms equal plain loops over
csrc/math, and the CPU ops, bit for bit. Kernels run with their threads in rising and in falling order."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator

import pytest
import torch
from cuda_shim import shim
from cuda_shim.shim import TYPE, Address, Affine, Guarded, MixtureSample, Uniform, call
from torch import Tensor

from conftest import random_components
from headstart import ops
from headstart.ops import reference

REASON = shim.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
STATES = [torch.float32, torch.float64]
COLUMNS = [1, 2, 3, 5, 17, 784]
ROWS = [0, 1, 3, 33]
SEED = 0x9E3779B97F4A7C15


@pytest.fixture
def built() -> ctypes.CDLL:
    return shim.build()


@pytest.fixture(params=[False, True], ids=["rising", "falling"])
def library(built: ctypes.CDLL, request: pytest.FixtureRequest) -> Iterator[ctypes.CDLL]:
    built.cuda_shim_set_falling(int(request.param))
    yield built
    built.cuda_shim_set_falling(0)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8)


@functools.cache
def components(k: int, d: int, rank: int, dtype: torch.dtype) -> ops.Components:
    return random_components(f"rank{rank}" if rank else "diagonal", k, d, seed=d + rank, dtype=dtype)


def affine_both(
    library: ctypes.CDLL, shape: tuple[int, int], dtype: torch.dtype, inputs: list[torch.dtype], scale: float,
    scaled: torch.dtype | None = None, *, with_x: bool = True, with_out: bool = True, shift: int = 0, y_shift: int = 0,
) -> None:  # fmt: skip
    """Runs the kernel and the plain loop on the same inputs; their outputs must have the same bits."""
    draw = generator(shape[0] + shape[1])
    x = Guarded(torch.randn(shape, generator=draw, dtype=dtype), shift)
    ys = [Guarded(torch.randn(shape, generator=draw).to(t), shift + j * y_shift) for j, t in enumerate(inputs)]
    results = []
    for name in ("shim_affine", "loop_affine"):
        out = Guarded(torch.zeros(shape, dtype=dtype), shift)
        small = Guarded(torch.zeros(shape, dtype=scaled or dtype), shift)
        params = Affine(rows=shape[0], columns=shape[1], type=TYPE[dtype], a=0.7, inputs=len(ys), noise_scale=scale)
        params.x = x.pointer if with_x else None
        for j, y in enumerate(ys):
            params.y[j], params.y_type[j], params.b[j] = y.pointer, TYPE[y.tensor.dtype], 0.3 - j
        params.address = Address(SEED, 2**31, 7, 1)
        params.out = out.pointer if with_out else None
        params.out_scaled, params.out_scaled_type = (small.pointer if scaled else None), TYPE[scaled or dtype]
        params.scale = 1.3
        call(library, name, params)
        assert out.intact()
        assert small.intact()
        results.append((out.tensor, small.tensor))
    assert torch.equal(bits(results[0][0]), bits(results[1][0]))
    assert torch.equal(bits(results[0][1]), bits(results[1][1]))
    if with_out and with_x and shape[0]:
        noise = reference.Noise(scale, SEED, 7, 2**31) if scale else None
        expected = reference.affine(x.tensor, 0.7, [(0.3 - j, y.tensor) for j, y in enumerate(ys)], noise)
        torch.testing.assert_close(results[0][0].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("columns", COLUMNS)
def test_affine_sizes(library: ctypes.CDLL, columns: int, shift: int) -> None:
    for rows in ROWS:
        for dtype in STATES:
            affine_both(library, (rows, columns), dtype, [dtype], 0.5, torch.bfloat16, shift=shift)
            affine_both(library, (rows, columns), dtype, [dtype, torch.float16], 0.0, shift=shift)


@pytest.mark.parametrize("dtype", STATES)
@pytest.mark.parametrize("scaled", [None, *TYPE])
def test_affine_types(library: ctypes.CDLL, dtype: torch.dtype, scaled: torch.dtype | None) -> None:
    for count in range(5):
        for first in range(4):
            inputs = [list(TYPE)[(first + j) % 4] for j in range(count)]
            affine_both(library, (3, 20), dtype, inputs, 2.0 if first % 2 else 0.0, scaled)
    affine_both(library, (3, 21), dtype, [dtype], 1.0, scaled, with_x=False)
    affine_both(library, (3, 21), dtype, [], 1.0, scaled or torch.float16, with_out=False)


def test_affine_strides_over_a_large_state(built: ctypes.CDLL) -> None:
    affine_both(built, (80, 1003), torch.float32, [torch.bfloat16], 1.0, torch.float16)
    affine_both(built, (80, 1003), torch.float32, [torch.bfloat16], 0.0)


def test_affine_reads_its_origin(library: ctypes.CDLL) -> None:
    """Seed and offset from memory, at the time of the run, give the bits of the same in the address."""
    x = torch.randn(3, 21, generator=generator(0))
    origin = torch.zeros(2, dtype=torch.int64)
    for seed, offset in ((5, 0), (SEED, 2**32 - 3)):
        origin.copy_(torch.tensor([seed - 2**64 if seed >= 2**63 else seed, offset]))
        outs = []
        for address in (Address(1, 2, 7, 1, origin.data_ptr()), Address(seed, offset, 7, 1, None)):
            out = Guarded(torch.zeros(3, 21))
            params = Affine(rows=3, columns=21, type=0, x=x.data_ptr(), a=0.5, noise_scale=1.0, scale=1.0)
            params.address, params.out = address, out.pointer
            call(library, "shim_affine", params)
            assert out.intact()
            outs.append(out.tensor)
        assert torch.equal(*outs)
        assert torch.equal(outs[0], ops.affine(x, 0.5, [], ops.Noise(1.0, 1, 7, 2, origin=origin)))


def test_affine_with_noise_that_rounds_to_nothing(built: ctypes.CDLL) -> None:
    """A scale above 0 in float64 and 0 in float32, on rows that are no whole number of groups."""
    affine_both(built, (3, 21), torch.float32, [torch.float32], 1e-60, torch.bfloat16)


def test_division_by_a_product() -> None:
    """Equal to Python's division at both sides of every quotient's edge, below and above 2^31."""
    divide = shim.build().shim_divide
    powers = [2**k + e for k in range(33) for e in (-1, 0, 1)]
    for divisor in {*range(1, 200), *powers, 784 // 4, 3 * 64 * 64 // 4} - {0}:
        for limit in (2**31, 2**40):
            quotients = {0, 1, 2, (limit - 1) // divisor, (limit - 1) // divisor // 2 + 1}
            dividends = {q * divisor + e for q in quotients for e in (-1, 0, 1)} | {limit - 1}
            for dividend in dividends:
                if 0 <= dividend < limit:
                    assert divide(dividend, divisor, limit) == dividend // divisor


def test_affine_one_misaligned_input(built: ctypes.CDLL) -> None:
    for dtype in STATES:
        affine_both(built, (3, 16), dtype, [dtype, dtype], 1.0, y_shift=1)


def test_affine_in_place(built: ctypes.CDLL) -> None:
    x = torch.randn(3, 785, generator=generator(0))
    expected = x.clone()
    for name, tensor in (("shim_affine", x), ("loop_affine", expected)):
        params = Affine(rows=3, columns=785, type=0, x=tensor.data_ptr(), a=0.5, inputs=1, noise_scale=1.0, scale=1.0)
        params.y[0], params.y_type[0], params.b[0] = tensor.data_ptr(), 0, 2.0
        params.out = tensor.data_ptr()
        call(built, name, params)
    assert torch.equal(x, expected)


@pytest.mark.parametrize("dtype", STATES)
def test_rows_and_samples_equal_the_cpu_ops(built: ctypes.CDLL, dtype: torch.dtype) -> None:
    """The promise itself: the kernels give the bits of the shipped CPU code, whatever its vector width."""
    x, y = torch.randn(2, 7, 1003, generator=generator(0), dtype=dtype).unbind()
    expected, small = ops.affine(x, 0.3, [(0.6, y)], ops.Noise(2.0, SEED, 4, 11), out_scaled=(0.9, torch.float16))
    out, out_scaled = torch.empty_like(x), torch.empty(7, 1003, dtype=torch.float16)
    params = Affine(rows=7, columns=1003, type=TYPE[dtype], x=x.data_ptr(), a=0.3, inputs=1, noise_scale=2.0)
    params.y[0], params.y_type[0], params.b[0] = y.data_ptr(), TYPE[dtype], 0.6
    params.address, params.out, params.scale = Address(SEED, 11, 4, 1), out.data_ptr(), 0.9
    params.out_scaled, params.out_scaled_type = out_scaled.data_ptr(), TYPE[torch.float16]
    call(built, "shim_affine", params)
    assert torch.equal(bits(out), bits(expected))
    assert torch.equal(bits(out_scaled), bits(small))

    law, component = components(4, 61, 9, dtype), torch.arange(7) % 4
    deviation, factor = (law.variance.double() + 0.25).sqrt().to(dtype), law.spread.sqrt()
    out = torch.empty(7, 61, dtype=dtype)
    sample = MixtureSample(rows=7, columns=61, rank=9, type=TYPE[dtype], component=component.data_ptr())
    sample.mean, sample.deviation, sample.variance_columns = law.mean.data_ptr(), deviation.data_ptr(), 1
    sample.axes, sample.factor, sample.out = law.axes.data_ptr(), factor.data_ptr(), out.data_ptr()
    sample.floor, sample.along = Address(SEED, 9, 1, 4), Address(SEED, 9, 1, 3)
    call(built, "shim_mixture_sample", sample)
    assert torch.equal(bits(out), bits(ops.mixture_sample(component, law, 0.5, SEED, 1, 9)))


@pytest.mark.parametrize("rows", [*ROWS, 10_000])
def test_uniform(library: ctypes.CDLL, rows: int) -> None:
    out = Guarded(torch.zeros(rows, dtype=torch.float64))
    call(library, "shim_uniform", Uniform(rows=rows, address=Address(SEED, 5, 3, 2), out=out.pointer))
    assert torch.equal(out.tensor, reference.uniform(rows, SEED, 3, 5))
    assert out.intact()


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(
    ("columns", "rank"), [(1, 0), (1, 1), (2, 2), (3, 1), (5, 0), (17, 5), (784, 0), (784, 3), (784, 21), (8, 4)]
)
def test_mixture_sample(library: ctypes.CDLL, columns: int, rank: int, shift: int) -> None:
    for dtype in STATES:
        for rows in ROWS:
            law = components(4, columns, rank, dtype)
            component = torch.randint(4, (rows,), generator=generator(1))
            deviation = Guarded((law.variance.double() + 0.25).sqrt().to(dtype), shift)
            mean = Guarded(law.mean, shift)
            axes = Guarded(law.axes, shift) if law.axes is not None else None
            factor = Guarded(law.spread.sqrt(), shift) if law.spread is not None else None
            outs = []
            for name in ("shim_mixture_sample", "loop_mixture_sample"):
                out = Guarded(torch.zeros(rows, columns, dtype=dtype), shift)
                params = MixtureSample(rows=rows, columns=columns, rank=rank, type=TYPE[dtype])
                params.component, params.mean, params.deviation = component.data_ptr(), mean.pointer, deviation.pointer
                params.variance_columns, params.out = law.variance.shape[1], out.pointer
                params.axes, params.factor = (axes.pointer if axes else None), (factor.pointer if factor else None)
                params.floor, params.along = Address(SEED, 9, 1, 4), Address(SEED, 9, 1, 3)
                call(library, name, params)
                assert out.intact()
                outs.append(out.tensor)
            assert torch.equal(bits(outs[0]), bits(outs[1]))
            if rows == 0:
                continue
            expected = reference.mixture_sample(component, law, 0.5, SEED, 1, 9)
            torch.testing.assert_close(outs[0].double(), expected, rtol=1e-5, atol=1e-5)

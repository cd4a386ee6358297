"""On a GPU: the ops on CUDA tensors against the same ops on the CPU. Noise and rows must have the same bits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conftest import random_components, reason_without_cuda
from headstart import ops

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(reason_without_cuda() is not None, reason=str(reason_without_cuda())),
]
STATES = [torch.float32, torch.float64]
TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SHAPES = [(0, 4), (3, 0), (1, 1), (3, 2), (2, 3, 5), (33, 17), (5, 784), (2, 3, 64, 64), (1001, 7)]
SEED = 2**63 + 12_345


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_same_bits(on_gpu: Tensor, on_cpu: Tensor) -> None:
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu().contiguous().view(torch.uint8), on_cpu.contiguous().view(torch.uint8))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TYPES)
def test_normal_has_the_same_bits(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    on_gpu = ops.normal(shape, SEED, 3, 2**31, dtype=dtype, device="cuda")
    assert_same_bits(on_gpu, ops.normal(shape, SEED, 3, 2**31, dtype=dtype))


def test_a_hundred_million_normals_have_the_same_bits() -> None:
    for seed in range(4):
        on_gpu = ops.normal((25, 1_000_000), SEED + seed, seed, 1000 * seed, device="cuda")
        assert_same_bits(on_gpu, ops.normal((25, 1_000_000), SEED + seed, seed, 1000 * seed))


@pytest.mark.parametrize("n", [0, 1, 33, 100_003])
def test_uniform_has_the_same_bits(n: int) -> None:
    assert_same_bits(ops.uniform(n, SEED, 1, 5, device="cuda"), ops.uniform(n, SEED, 1, 5))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", STATES)
@pytest.mark.parametrize("inputs", range(5))
def test_affine_has_the_same_bits(shape: tuple[int, ...], dtype: torch.dtype, inputs: int) -> None:
    x = randn(*shape, dtype=dtype)
    ys = [randn(*shape, dtype=TYPES[j], seed=j + 1) for j in range(inputs)]
    for noise in (None, ops.Noise(0.8, SEED, 2, 7)):
        for scaled in TYPES:
            on_cpu = ops.affine(x, 0.9, [(0.2 + j, y) for j, y in enumerate(ys)], noise, out_scaled=(1.7, scaled))
            terms = [(0.2 + j, y.cuda()) for j, y in enumerate(ys)]
            on_gpu = ops.affine(x.cuda(), 0.9, terms, noise, out_scaled=(1.7, scaled))
            for got, expected in zip(on_gpu, on_cpu, strict=True):
                assert_same_bits(got, expected)


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_affine_on_misaligned_memory(shift: int) -> None:
    whole = randn(4 * 64 + 8)
    x = whole[shift : shift + 256].view(4, 64)
    on_gpu = whole.cuda()[shift : shift + 256].view(4, 64)
    out = torch.empty(264, device="cuda")[shift : shift + 256].view(4, 64)
    noise = ops.Noise(1.0, SEED, 0)
    ops.affine(on_gpu, 0.5, [(2.0, on_gpu)], noise, out=out)
    assert_same_bits(out, ops.affine(x, 0.5, [(2.0, x)], noise))


def test_affine_in_place_and_strided() -> None:
    x = randn(6, 3, 8, 8)
    on_gpu = x.cuda()
    ops.affine(on_gpu, 0.5, [], ops.Noise(1.0, SEED, 0), out=on_gpu)
    expected = ops.affine(x, 0.5, [], ops.Noise(1.0, SEED, 0))
    assert_same_bits(on_gpu, expected)
    strided = x.cuda().to(memory_format=torch.channels_last)
    assert_same_bits(ops.affine(strided, 0.5, [], ops.Noise(1.0, SEED, 0)), expected)


def test_affine_reads_its_origin_when_it_runs() -> None:
    """Seed and offset that the stream writes before the row, after the call was made with others."""
    x, origin = randn(5, 33).cuda(), torch.zeros(2, dtype=torch.int64, device="cuda")
    for seed, offset in ((3, 0), (SEED, 2**32 - 5)):
        origin[0].fill_(seed - 2**64 if seed >= 2**63 else seed)
        origin[1].fill_(offset)
        got = ops.affine(x, 0.5, [], ops.Noise(0.8, 1, 2, 7, origin=origin))
        assert_same_bits(got, ops.affine(x.cpu(), 0.5, [], ops.Noise(0.8, seed, 2, offset)))


def test_launches_on_the_current_stream() -> None:
    """The op waits for what its stream has queued before it, here a long chain of products that ends in x."""
    stream = torch.cuda.Stream()
    big = torch.randn(4096, 4096, device="cuda") / 64
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(20):
            big = big @ big.mT / 64
        x = big[:8].clone().fill_(3.0)
        out = ops.affine(x, 2.0, [(1.0, x)])
    stream.synchronize()
    assert bool((out == 9.0).all())


def test_a_second_device() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x = randn(5, 33)
    on_gpu = ops.noise(x.to("cuda:1"), 0.5, SEED, 1)
    assert on_gpu.device.index == 1
    assert torch.cuda.current_device() == 0
    assert_same_bits(on_gpu, ops.noise(x, 0.5, SEED, 1))


def components(k: int, d: int, rank: int, dtype: torch.dtype) -> ops.Components:
    return random_components(f"rank{rank}" if rank else "diagonal", k, d, seed=d + rank, dtype=dtype)


def moved(law: ops.Components, to: str | torch.dtype) -> ops.Components:
    return ops.Components(*(None if t is None else t.to(to) for t in law))


CASES = [(1, 0, 1), (2, 2, 37), (3, 1, 5), (16, 16, 25), (17, 17, 25), (40, 40, 25), (100, 64, 3), (128, 0, 4),
         (129, 5, 3), (784, 48, 8), (3072, 0, 6)]  # fmt: skip


@pytest.mark.parametrize(("d", "rank", "k"), CASES)
@pytest.mark.parametrize("dtype", STATES)
def test_mixture_posterior_agrees(d: int, rank: int, k: int, dtype: torch.dtype) -> None:
    law, tolerance = components(k, d, rank, dtype), 5e-4 if dtype == torch.float32 else 1e-10
    for rows in (0, 1, 33, 257):
        for reach in (1.0, 40.0):
            x = (law.mean[torch.arange(rows) % k] + reach * randn(rows, d, dtype=dtype)).contiguous()
            log_weight = randn(rows, k, dtype=dtype).log_softmax(dim=1)
            log_weight[:, : k - 1] = torch.where(log_weight[:, : k - 1] < -4, -math.inf, log_weight[:, : k - 1])
            on_cpu = ops.mixture_posterior(x.double(), moved(law, torch.float64), log_weight.double(), 0.7)
            on_gpu = ops.mixture_posterior(x.cuda(), moved(law, "cuda"), log_weight.cuda(), 0.7)
            scale = tolerance * (1 + on_cpu.log_prob.abs() / 100)
            assert bool(((on_gpu.log_prob.cpu() - on_cpu.log_prob).abs() <= scale).all())
            assert bool(((on_gpu.responsibility.cpu() - on_cpu.responsibility).abs() <= 2 * scale[:, None]).all())
            assert on_cpu.denoised is not None
            assert on_gpu.denoised is not None
            error = (on_gpu.denoised.cpu() - on_cpu.denoised).abs() / (1 + on_cpu.denoised.abs())
            assert bool((error <= 10 * scale[:, None]).all())


@pytest.mark.parametrize(("d", "rank", "k"), CASES)
@pytest.mark.parametrize("dtype", STATES)
def test_mixture_sample_has_the_same_bits(d: int, rank: int, k: int, dtype: torch.dtype) -> None:
    law = components(k, d, rank, dtype)
    for rows in (0, 1, 33, 1000):
        component = torch.arange(rows) % k
        on_gpu = ops.mixture_sample(component.cuda(), moved(law, "cuda"), 0.5, SEED, 2, 100)
        # The factors' square roots are taken on each device, by the same rounding.
        assert_same_bits(on_gpu, ops.mixture_sample(component, law, 0.5, SEED, 2, 100))


def test_more_than_two_to_the_31_elements() -> None:
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GB of GPU memory")
    rows, columns = 3, 2**30 - 4
    out = ops.normal((rows, columns), SEED, 1, device="cuda")
    part = ops.normal((1, columns), SEED, 1, rows - 1, device="cuda")
    assert torch.equal(out[-1], part[0])

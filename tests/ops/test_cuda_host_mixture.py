"""The mixture posterior's CUDA kernels, run on the host by `cuda_shim`, against the float64 reference. Kernels run with
their threads in rising and in falling order."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Iterator

import pytest
import torch
from cuda_shim import shim
from cuda_shim.shim import TYPE, Guarded, Mixture, call
from torch import Tensor

from conftest import random_components
from headstart.ops import Components, reference
from headstart.ops.component import tables

REASON = shim.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
STATES = [torch.float32, torch.float64]
ROWS = [0, 1, 3, 33]


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


@functools.cache
def components(k: int, d: int, rank: int, dtype: torch.dtype) -> Components:
    return random_components(f"rank{rank}" if rank else "diagonal", k, d, seed=d + rank, dtype=dtype)


def posterior(
    library: ctypes.CDLL, x: Tensor, law: Components, log_weight: Tensor, sigma: float, *,
    project: bool = False, denoise: bool = True, shift: int = 0,
) -> reference.Posterior:  # fmt: skip
    """Runs the mixture kernel; with `project` the caller's matrix products stand around it, as above 128 elements."""
    dtype, (b, d), (k, rank) = x.dtype, x.shape, (len(law.mean), 0 if law.axes is None else law.axes.shape[1])
    at = tables(law, sigma)
    constant = log_weight + at.constant
    held = [x, law.mean, at.precision, at.keep, constant, *(t for t in (law.axes, at.drop, at.gain) if t is not None)]
    guarded = [Guarded(t, shift) for t in held]
    outs = [Guarded(torch.zeros(size, dtype=dtype), shift) for size in ((b,), (b, k), (b, d), (b, k, rank))]
    params = Mixture(rows=b, components=k, columns=d, rank=rank, type=TYPE[dtype])
    params.x, params.mean, params.precision, params.keep = (t.pointer for t in guarded[:4])
    params.variance_columns = law.variance.shape[1]
    if rank:
        params.axes, params.drop, params.gain = (t.pointer for t in guarded[5:])
    params.log_constant, params.log_constant_stride = guarded[4].pointer, k if log_weight.dim() == 2 else 0
    params.log_prob, params.responsibility, params.denoised = (t.pointer for t in outs[:3])
    projection = torch.zeros(0)
    if project and rank:
        projection = torch.einsum("bkd,krd->bkr", x[:, None] - law.mean, law.axes).contiguous()
        params.axes, params.projection, params.coefficient = None, projection.data_ptr(), outs[3].pointer
    if not denoise:
        params.denoised = None
    call(library, "shim_mixture", params)
    assert all(out.intact() for out in outs)
    denoised = outs[2].tensor
    if project and rank:
        denoised = denoised + torch.einsum("bkr,krd->bd", outs[3].tensor, law.axes)
    return reference.Posterior(outs[0].tensor, outs[1].tensor, denoised if denoise else None)


def assert_posterior(got: reference.Posterior, expected: reference.Posterior) -> None:
    """Errors are measured against the size of the exponent, in units of the dtype's rounding."""
    unit = 40 * torch.finfo(got.log_prob.dtype).eps
    size = 1 + expected.log_prob.abs()
    assert bool(((got.log_prob.double() - expected.log_prob).abs() <= unit * size).all())
    assert bool(((got.responsibility.double() - expected.responsibility).abs() <= 4 * unit * size[:, None]).all())
    if expected.denoised is not None and got.denoised is not None:
        width = 1 + expected.denoised.abs().amax(dim=1, keepdim=True)
        error = (got.denoised.double() - expected.denoised).abs()
        assert bool((error <= 4 * unit * size[:, None] * width).all())


CASES = [(1, 0, 1), (1, 1, 37), (2, 2, 37), (3, 1, 1), (5, 0, 37), (5, 5, 3), (8, 3, 9), (13, 0, 3), (16, 16, 25),
         (17, 4, 5), (33, 33, 2), (65, 7, 2), (100, 100, 2), (128, 0, 3)]  # fmt: skip


@pytest.mark.parametrize("dtype", STATES)
@pytest.mark.parametrize(("columns", "rank", "k"), CASES)
def test_mixture_thread_and_warp(library: ctypes.CDLL, columns: int, rank: int, k: int, dtype: torch.dtype) -> None:
    law = components(k, columns, rank, dtype)
    for rows in [*ROWS, 131] if columns <= 5 else [1, 19]:
        draw = generator(rows)
        x = (law.mean[torch.arange(rows) % k] + torch.randn(rows, columns, generator=draw, dtype=dtype)).contiguous()
        log_weight = torch.randn(k, generator=draw, dtype=dtype).log_softmax(dim=0)
        got = posterior(library, x, law, log_weight, 0.7, shift=rows % 2)
        if rows:
            assert_posterior(got, reference.mixture_posterior(x, law, log_weight, 0.7))


@pytest.mark.parametrize("dtype", STATES)
@pytest.mark.parametrize(("columns", "rank", "k"), [(1, 1, 37), (5, 2, 9), (17, 17, 3), (784, 0, 3), (784, 3, 2)])
def test_mixture_block(library: ctypes.CDLL, columns: int, rank: int, k: int, dtype: torch.dtype) -> None:
    law = components(k, columns, rank, dtype)
    for rows in [0, 3] if columns > 17 else ROWS:
        draw = generator(rows)
        x = (law.mean[torch.arange(rows) % k] + torch.randn(rows, columns, generator=draw, dtype=dtype)).contiguous()
        log_weight = torch.randn(rows, k, generator=draw, dtype=dtype).log_softmax(dim=1)
        got = posterior(library, x, law, log_weight, 0.7, project=True, shift=rows % 2)
        if rows:
            assert_posterior(got, reference.mixture_posterior(x, law, log_weight, 0.7))


def test_mixture_strides_over_many_rows(built: ctypes.CDLL) -> None:
    law = components(3, 2, 2, torch.float32)
    x = (law.mean[torch.arange(5000) % 3] + torch.randn(5000, 2, generator=generator(0))).contiguous()
    assert_posterior(
        posterior(built, x, law, torch.zeros(3), 0.7), reference.mixture_posterior(x, law, torch.zeros(3), 0.7)
    )


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize(("columns", "rank"), [(3, 0), (5, 2), (17, 17), (20, 2)])
def test_mixture_tail(built: ctypes.CDLL, columns: int, rank: int, project: bool) -> None:
    """40 standard deviations out, where densities underflow, with weights of each row's own and one that is zero."""
    for dtype in STATES:
        law = components(4, columns, rank, dtype)
        deviation = (reference.covariance(law).diagonal(dim1=1, dim2=2).mean() + 0.49).sqrt()
        direction = torch.nn.functional.normalize(torch.randn(9, columns, generator=generator(2)), dim=1)
        x = (law.mean[0] + 40 * deviation * direction).to(dtype).contiguous()
        log_weight = torch.randn(9, 4, generator=generator(3), dtype=dtype).log_softmax(dim=1)
        log_weight[:, 1] = -math.inf
        log_weight[0, 0] = -math.inf
        got = posterior(built, x, law, log_weight, 0.7, project=project)
        assert bool((got.responsibility[:, 1] == 0).all())
        assert_posterior(got, reference.mixture_posterior(x, law, log_weight, 0.7))


@pytest.mark.parametrize(("columns", "project"), [(6, False), (20, False), (200, True)])
def test_mixture_without_denoising_or_weight(built: ctypes.CDLL, columns: int, project: bool) -> None:
    law = components(2, columns, 2, torch.float32)
    x = torch.randn(3, columns, generator=generator(0))
    whole = posterior(built, x, law, torch.zeros(2), 0.7, project=project)
    part = posterior(built, x, law, torch.zeros(2), 0.7, project=project, denoise=False)
    assert torch.equal(whole.log_prob, part.log_prob)
    assert torch.equal(whole.responsibility, part.responsibility)
    none = posterior(built, x, law, torch.full((2,), -math.inf), 0.7, project=project)
    assert bool((none.log_prob == -math.inf).all())
    assert bool((none.responsibility == 0).all())


def test_mixture_many_columns(built: ctypes.CDLL) -> None:
    """12,288 elements in float32: sums keep their accuracy."""
    law = components(5, 12_288, 0, torch.float32)
    x = law.mean[[0, 3, 4]] + torch.randn(3, 12_288, generator=generator(0))
    got = posterior(built, x.contiguous(), law, torch.zeros(5), 0.7)
    each = torch.distributions.Normal(law.mean.double(), (law.variance.double() + 0.49).sqrt())
    joint = each.log_prob(x[:, None].double()).sum(dim=2)
    assert float(((got.log_prob.double() - joint.logsumexp(dim=1)) / joint.logsumexp(dim=1)).abs().max()) < 1e-6

"""On a GPU: a captured sampler replays with the bits of `sample`, and says why where it cannot be captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import headstart as hs
from conftest import reason_without_cuda
from headstart.solver import Row, Solver

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(reason_without_cuda() is not None, reason=str(reason_without_cuda())),
]
SOLVERS = [hs.Euler(), hs.Heun(), hs.Heun(churn=hs.Churn(5.0)), hs.DPMpp2M(), hs.DPMpp3M(), hs.DPMppSDE2M()]
SHAPE = (3, 16, 16)
SEED = 2**63 + 5


class Network(torch.nn.Module):
    """Convolutions, and a class that shifts them."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.Conv2d(32, 3, 3, padding=1)
        self.label = torch.nn.Embedding(classes, 32)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.first(x) * torch.cos(c_noise).to(x.dtype)
        h = h if label is None else h + self.label(label)[:, :, None, None]
        return self.last(torch.nn.functional.silu(h))


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def edm(dtype: torch.dtype = torch.float32, *, channels_last: bool = False, device: str = "cuda") -> hs.EDM:
    net = Network().to(device, dtype)
    return hs.EDM(net.to(memory_format=torch.channels_last) if channels_last else net, 0.5, dtype)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_replay_has_the_bits_of_sample(solver: Solver, dtype: torch.dtype, channels_last: bool) -> None:
    d, start = edm(dtype, channels_last=channels_last), hs.Classic(SHAPE, 5.0, device="cuda")
    sampler = hs.Sampler(d, start, 4, solver, batch=3)
    assert sampler.graphed, sampler.reason
    assert sampler.reason is None
    for seed, offset in ((0, 0), (SEED, 7), (1, 2**32 - 3), (0, 0)):
        assert torch.equal(sampler(seed, offset), hs.sample(d, start, 3, 4, solver, seed=seed, offset=offset))


def test_an_opaque_denoiser_and_a_learned_start() -> None:
    data = torch.randn(200, *SHAPE, generator=torch.Generator().manual_seed(0))
    start = hs.GaussianMixture.fit(data, components=3, covariance=hs.LowRank(4), max_iter=3).to("cuda").at(2.0)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + sigma**2).to(x.dtype)

    sampler = hs.Sampler(denoiser, start, 4, hs.DPMppSDE2M(), batch=5)
    assert sampler.graphed, sampler.reason
    for seed in (3, SEED):
        assert torch.equal(sampler(seed), hs.sample(denoiser, start, 5, 4, hs.DPMppSDE2M(), seed=seed))


def test_a_plans_free_history_is_that_of_each_call() -> None:
    data = torch.randn(200, *SHAPE, generator=torch.Generator().manual_seed(0))
    start = hs.GaussianMixture.fit(data, components=3, covariance=hs.LowRank(4), max_iter=3).to("cuda").at(2.0)
    rows = (Row(2.0, 0.4, (0.8, -0.3, 0.1)), Row(0.6, 0.0, (1.3, -0.4, 0.2, -0.1)))
    plan, d = hs.Plan((2.0, 0.6, 0.0), rows, 3.0, 0.1, 0.2), edm()
    sampler = hs.Sampler(d, start, batch=5, plan=plan)
    assert sampler.graphed, sampler.reason
    for seed in (3, SEED, 3):
        assert torch.equal(sampler(seed), hs.sample(d, start, 5, plan=plan, seed=seed))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batched", [False, True])
def test_guidance_is_captured(solver: Solver, batched: bool) -> None:
    start, first = hs.Classic(SHAPE, 5.0, device="cuda"), torch.arange(3, device="cuda")
    d = hs.guided(edm(torch.bfloat16), 2.0, null={"label": 3}, interval=(0.05, 2.0), batched=batched)
    sampler = hs.Sampler(d, start, 5, solver, batch=3, cond={"label": first})
    assert sampler.graphed, sampler.reason
    for label in (first, first.flip(0)):
        expected = hs.sample(d, start, 3, 5, solver, seed=2, cond={"label": label})
        assert torch.equal(sampler(2, cond={"label": label}), expected)


def test_conditions_are_copied_into_the_graph() -> None:
    d, start, first = edm(), hs.Classic(SHAPE, 5.0, device="cuda"), torch.arange(3, device="cuda")
    sampler = hs.Sampler(d, start, 4, batch=3, cond={"label": first})
    assert sampler.graphed, sampler.reason
    for label in (first, first.flip(0), first):
        expected = hs.sample(d, start, 3, 4, seed=2, cond={"label": label})
        assert torch.equal(sampler(2, cond={"label": label}), expected)
        assert torch.equal(sampler(2, cond={"label": label.cpu()}), expected)
    assert torch.equal(sampler(2), hs.sample(d, start, 3, 4, seed=2, cond={"label": first}))


def test_calls_on_other_streams() -> None:
    """Calls in turn on three streams, with nothing between them: each waits for the one before."""
    d, start = edm(), hs.Classic(SHAPE, 5.0, device="cuda")
    sampler = hs.Sampler(d, start, 8, hs.DPMppSDE2M(), batch=16)
    expected = [hs.sample(d, start, 16, 8, hs.DPMppSDE2M(), seed=seed) for seed in range(6)]
    torch.cuda.synchronize()
    streams, results = [torch.cuda.Stream() for _ in range(3)], []
    for seed in range(6):
        with torch.cuda.stream(streams[seed % 3]):
            results.append(sampler(seed))
    torch.cuda.synchronize()
    assert all(torch.equal(got, wanted) for got, wanted in zip(results, expected, strict=True))


def waits(x: Tensor, sigma: Tensor) -> Tensor:
    return x * float(sigma) / 100


def synchronizes(x: Tensor, sigma: Tensor) -> Tensor:
    torch.cuda.synchronize()
    return 0.5 * x


def refuses(x: Tensor, sigma: Tensor) -> Tensor:
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("not in a graph, please")
    return 0.5 * x


@pytest.mark.parametrize(
    ("denoiser", "said"),
    [
        (waits, "the denoiser waits for the device at .*test_cuda_sampler.py:"),
        (synchronizes, "the capture failed: "),
        (refuses, "the capture failed: not in a graph, please"),
    ],
)
def test_what_cannot_be_captured_runs_eagerly(denoiser: Callable[[Tensor, Tensor], Tensor], said: str) -> None:
    start, stream = hs.Classic((4,), 5.0, device="cuda"), torch.cuda.current_stream()
    with pytest.warns(UserWarning, match=f"Sampler: runs without a CUDA graph: {said}"):
        sampler = hs.Sampler(denoiser, start, 3, hs.Ancestral(), batch=2)
    assert not sampler.graphed
    assert torch.equal(sampler(1), hs.sample(denoiser, start, 2, 3, hs.Ancestral(), seed=1))
    # torch works as before, and the next capture too
    assert torch.cuda.current_stream() == stream
    assert torch.rand(3, device="cuda").shape == (3,)
    d: Any = lambda x, sigma: 0.5 * x  # noqa: E731
    after = hs.Sampler(d, start, 3, batch=2)
    assert after.graphed, after.reason
    assert torch.equal(after(1), hs.sample(d, start, 2, 3, seed=1))


def test_a_sampler_on_a_second_device() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    d, start = edm(device="cuda:1"), hs.Classic(SHAPE, 5.0, device="cuda:1")
    sampler = hs.Sampler(d, start, 4, hs.DPMppSDE2M(), batch=3)
    assert sampler.graphed, sampler.reason
    assert torch.cuda.current_device() == 0
    assert torch.equal(sampler(2), hs.sample(d, start, 3, 4, hs.DPMppSDE2M(), seed=2))

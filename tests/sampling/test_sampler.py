"""The fixed-shape sampler: the bits of `sample`, for every call, whatever the calls before; refusals."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import headstart as hs
from headstart.ops.library import signed
from headstart.sampling.loop import Descent, Origin
from headstart.solver import Row, Solver

SOLVERS = [
    hs.Euler(), hs.Ancestral(0.5), hs.Heun(), hs.Heun(churn=hs.Churn(5.0)), hs.DPMpp2M(), hs.DPMpp3M(), hs.DPMppSDE2M(),
]  # fmt: skip
SEED = 2**63 + 5


def net(x: Tensor, c_noise: Tensor, label: Tensor | None = None, shift: float = 0.0) -> Tensor:
    tilt = 0.0 if label is None else 0.1 * label.to(x).reshape(-1, *[1] * (x.dim() - 1))
    return 0.3 * x / (1 + x * x) + tilt * c_noise + shift


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    return 0.3 * x / (1 + x * x) + 0.01 * sigma.to(x.dtype)


def quiet(*arguments: Any, **named: Any) -> hs.Sampler:
    """A sampler that does not say that there is no GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hs.Sampler(*arguments, **named)


def mixture() -> hs.GaussianMixture:
    data, labels = torch.randn(60, 3, 5, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    data += labels.view(-1, 1, 1)
    return hs.GaussianMixture.fit(data, components=3, covariance=hs.LowRank(2), max_iter=3, labels=labels)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("d", [denoiser, hs.EDM(net, 0.7), hs.EDM(net, 0.7, torch.bfloat16)])
def test_calls_have_the_bits_of_sample(solver: Solver, d: Any) -> None:
    start = hs.Classic((3, 5), 10.0)
    sampler = quiet(d, start, 5, solver, batch=6)
    for seed, offset in ((0, 0), (SEED, 7), (0, 2**32 - 6), (0, 0)):
        expected, info = hs.sample(d, start, 6, 5, solver, seed=seed, offset=offset, return_info=True)
        assert torch.equal(sampler(seed, offset), expected)
        assert sampler.nfe == info.nfe


def test_conditions_change_and_come_back() -> None:
    start, d = mixture().at(2.0), hs.EDM(net, 0.7)
    first, second = torch.arange(6) % 3, torch.ones(6, dtype=torch.int64)
    given = first.clone()
    sampler = quiet(d, start, 4, batch=6, cond={"label": given, "shift": 0.5})
    given.zero_()  # the sampler keeps its own
    for label in (first, second, first):
        expected = hs.sample(d, start, 6, 4, seed=3, cond={"label": label, "shift": 0.5})
        assert torch.equal(sampler(3, cond={"label": label}), expected)
    assert torch.equal(sampler(3), hs.sample(d, start, 6, 4, seed=3, cond={"label": first, "shift": 0.5}))
    assert torch.equal(sampler(3, cond={"shift": 0.5}), sampler(3))


FREE_HISTORY = hs.Plan(
    (2.0, 0.6, 0.0), (Row(2.0, 0.4, (0.8, -0.3, 0.1)), Row(0.6, 0.0, (1.3, -0.4, 0.2, -0.1))), 3.0, 0.1, 0.2
)
FROM_80 = hs.Plan((80.0, 3.0, 0.0), (Row(80.0, 0.05, (0.95,)), Row(3.0, 0.0, (1.2, -0.2))), None, 0.1, 0.2)


@pytest.mark.parametrize("plan", [FREE_HISTORY, FROM_80], ids=lambda plan: plan.mode)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_plan_has_the_bits_of_sample(plan: hs.Plan, dtype: torch.dtype) -> None:
    """Its free history is that of each call's own states and classes."""
    start, d, first = mixture().at(2.0), hs.EDM(net, 0.7), torch.arange(6) % 3
    sampler = quiet(d, start, batch=6, plan=plan, cond={"label": first}, dtype=dtype)
    for seed, offset, label in ((0, 0, first), (SEED, 7, first.flip(0)), (0, 0, first)):
        named: dict[str, Any] = {"seed": seed, "offset": offset, "cond": {"label": label}}
        expected, info = hs.sample(d, start, 6, plan=plan, dtype=dtype, return_info=True, **named)
        assert torch.equal(sampler(**named), expected)
        assert sampler.nfe == info.nfe == 2


def test_results_are_the_callers_own() -> None:
    sampler = quiet(denoiser, hs.Classic((4,), 5.0), 3, batch=2)
    first = sampler(1)
    kept = first.clone()
    sampler(2).zero_()
    assert torch.equal(first, kept)
    assert torch.equal(sampler(1), kept)


def test_grid_latents_and_dtype() -> None:
    start, grid = hs.Classic((4,), 5.0), hs.karras(5.0, 0.1, 4)
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    sampler = quiet(denoiser, start, grid=grid, batch=3, solver=hs.Heun(), dtype=torch.float64)
    expected = hs.sample(denoiser, start, 3, grid=grid, solver=hs.Heun(), latents=z, dtype=torch.float64)
    assert torch.equal(sampler(latents=z), expected)
    assert sampler().dtype == torch.float64


def test_without_a_gpu_it_says_so_once() -> None:
    start = hs.Classic((4,), 5.0)
    with pytest.warns(UserWarning, match="Sampler: runs without a CUDA graph: the state is on cpu") as caught:
        sampler = hs.Sampler(denoiser, start, 3)
    assert caught[0].filename == __file__
    assert not sampler.graphed
    assert sampler.reason == "the state is on cpu, a CUDA graph needs a CUDA device"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler(1)
        assert hs.Sampler(denoiser, start, 3, graph=False).reason == "graph=False was given"


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_descent_reads_its_origin_when_it_runs(solver: Solver) -> None:
    """What a graph relies on: one descent and one state, with the seed and offset that stand in memory at the time."""
    x = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    rows = solver.rows(hs.karras(5.0, 0.1, 4).tolist())
    descent = Descent(hs.EDM(net, 0.7), rows, x.dtype, x.device)
    origin = torch.zeros(2, dtype=torch.int64)
    for seed, offset in ((3, 0), (SEED, 2**32 - 3)):
        origin[0].fill_(signed(seed))
        origin[1].fill_(offset)
        got, _ = descent.run(x, Origin(0, 0, origin), {}, lambda: None)
        assert torch.equal(got, descent.run(x, Origin(seed, offset), {}, lambda: None)[0])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("folded", [False, True])
def test_channels_last_networks(solver: Solver, folded: bool) -> None:
    """A network that returns channels-last tensors gets its states so, unless noise is added; the samples are the same
    and contiguous."""
    seen = []

    def last(x: Tensor, level: Tensor) -> Tensor:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return net(x, level.to(x.dtype)).contiguous(memory_format=torch.channels_last)

    start = hs.Classic((3, 4, 6), 5.0)
    make = hs.EDM if folded else lambda function: function
    plain = hs.sample(make(lambda x, level: net(x, level.to(x.dtype))), start, 2, 4, solver)
    got = hs.sample(make(last), start, 2, 4, solver)
    assert torch.equal(got, plain)
    assert got.is_contiguous()
    noisy = any(row.c for row in solver.rows([5.0, 1.0, 0.5, 0.0]))
    assert seen == [False, *[not noisy] * (len(seen) - 1)]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"steps": None}, "Sampler: steps or grid must be given"),
        ({"batch": 0}, "Sampler: batch must be an integer of at least 1, got 0"),
        ({"batch": 2.5}, "Sampler: batch must be an integer of at least 1, got 2.5"),
        ({"dtype": torch.float16}, "Sampler: the state must be float32 or float64, got torch.float16"),
        ({"grid": torch.tensor([4.0, 0.0])}, "Sampler: grid must have steps"),
        ({"plan": FROM_80}, "Sampler: a plan of 2 calls has its own grid; steps and grid must be left out"),
        ({"plan": FREE_HISTORY, "steps": None}, r"Plan: this plan begins at a mixture's .at\(2\)"),
    ],
)
def test_bad_construction(change: dict, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        hs.Sampler(**{"denoiser": denoiser, "start": hs.Classic((4,), 5.0), "steps": 3, "batch": 2, **change})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"seed": -1}, "Sampler: seed must be an integer in"),
        ({"seed": 2**64}, "Sampler: seed must be an integer in"),
        ({"offset": 2**32 - 1}, r"Sampler: offset \+ rows must be at most 2\^32"),
        ({"latents": torch.zeros(3, 4)}, r"Sampler: latents must be \[2, 4\], got \[3, 4\]"),
        ({"cond": {"text": 1}}, r"Sampler: cond must be among \['label', 'shift'\], .* got 'text'"),
        (
            {"cond": {"label": torch.zeros(3, dtype=torch.int64)}},
            r"Sampler: labels must be \[2\], one a sample, or one for all, got int64 \[3\]",
        ),
        ({"cond": {"label": torch.zeros(2)}}, r"cond\['label'\] must be int64 \[2\], got float32 \[2\]"),
        ({"cond": {"shift": 0.7}}, r"cond\['shift'\] must be 0.5, as when it was made, got 0.7"),
        ({"cond": {"shift": torch.zeros(2)}}, r"cond\['shift'\] must be 0.5, .* got float32 \[2\]"),
    ],
)
def test_bad_calls(change: dict, error: str) -> None:
    called = []

    def counted(x: Tensor, sigma: Tensor, label: Tensor, shift: float) -> Tensor:
        called.append(x)
        return x

    cond = {"label": torch.zeros(2, dtype=torch.int64), "shift": 0.5}
    sampler = quiet(counted, hs.Classic((4,), 5.0), 3, batch=2, cond=cond)
    with pytest.raises((TypeError, ValueError), match=error):
        sampler(**change)
    assert not called

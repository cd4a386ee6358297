"""The samplers that the benchmark times do the same work: one answer, one number of network calls."""

from __future__ import annotations

import math

import pytest
import torch

bench_sampler = pytest.importorskip("bench.bench_sampler", reason="the benchmarks are not beside the tests")
peers = pytest.importorskip("headstart.bench.peers")

SHAPE = (3, 2, 5, 5)
CASES = [(solver, raw) for solver in bench_sampler.SOLVERS for raw in (False, True)]
ABSENT = peers.absent()


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize(("solver", "raw", "name"), bench_sampler.BESIDE)
def test_a_peer_computes_the_solver(solver: str, raw: bool, name: str) -> None:
    if name in ABSENT:
        pytest.skip(ABSENT[name])
    case = bench_sampler.sampler_case(solver, raw, SHAPE, exact=True)
    ours = case.contenders["headstart"]()
    if peers.PEERS[name].same:
        assert distance(case.contenders[name](), ours) < case.tolerance
    else:
        network = bench_sampler.gaussian
        theirs = peers.PEERS[name].load(peers.SIGMA_DATA)(network, *bench_sampler.states(SHAPE))
        assert distance(theirs, exact_flow()) < 2 * distance(ours, exact_flow())


def exact_flow() -> torch.Tensor:
    """Where the probability flow of the Gaussian carries the states."""
    x, grid = bench_sampler.states(SHAPE)
    variance = bench_sampler.VARIANCE
    return bench_sampler.MEAN + math.sqrt(variance / (variance + grid[0] ** 2)) * (x.double() - bench_sampler.MEAN)


def test_the_comparison_tells_solvers_apart() -> None:
    heun, euler = (bench_sampler.sampler_case(s, False, SHAPE, exact=True) for s in ("Heun", "Euler"))
    assert distance(heun.contenders["headstart"](), euler.contenders["headstart"]()) > 1000 * heun.tolerance
    assert distance(heun.contenders["headstart"](), exact_flow()) < 0.1  # of 18 steps


@pytest.mark.parametrize(("solver", "raw"), CASES)
def test_a_run_makes_as_many_network_calls_as_it_is_divided_by(
    solver: str, raw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.Tensor] = []

    def counting(x: torch.Tensor) -> peers.Network:
        def network(state: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            made.append(x)
            return x.clone()  # memory of its own, as a network's is

        return network

    monkeypatch.setattr(bench_sampler, "null", counting)
    case = bench_sampler.sampler_case(solver, raw, SHAPE)
    for name, run in case.contenders.items():
        if name == bench_sampler.RING:
            continue
        made.clear()
        run()
        assert len(made) == case.units, name
